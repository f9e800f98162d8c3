# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests: what a task wants of one, and the steps to it.

What few tasks need is imported where they need it: loading it takes as long as defining a dozen guests.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _run, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import life, objects, overcommit, references
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import devices, domain_checks
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain as table

if TYPE_CHECKING:
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.live import Guest

TABLE = table.TABLE
PURGEABLE = tuple(row.name for row in TABLE.rows if isinstance(row, _fields.Items) and row.purge)

FOLLOWING = ("uuid", "template", "vcpus", "memory")  # what complete() looks at for every guest, and for one with an option of these:
FOLLOWING_OF = {"serials": "consoles", "consoles": "serials", "guest_agent": "channels", "cloud_init": "disks"}
STANDING_STILL = ("stopped", "saved")
CHECKED = tuple(row for row in TABLE.rows if row.name in domain_checks.RESULT_CHECKED)
EVERY = tuple(row.name for row in TABLE.rows if isinstance(row, _fields.Items))

OPTIONS = (
    URI,
    _fields.Field("apply", None, c.Choice(words=("live_or_next_boot", "live_only", "next_boot", "restart_if_needed")),
                  "How a running guest takes a change. V(live_only) fails for one that it cannot take while it runs."
                  " V(restart_if_needed) shuts the guest down and starts it again when an option waits for that, also one of an"
                  " earlier task; O(stop_timeout) and O(force_stop) hold for it. Which options wait is in RV(pending_restart).",
                  default="live_or_next_boot"),
    _fields.Field("allow_replug", None, c.YES_NO, "Whether a device of a running guest may be unplugged and plugged in again for an"
                  " option that it does not take in place, such as the model of an interface or the image of a disk.", default=False),
    _fields.Field("unplug_timeout", None, c.Integer(low=1), "Seconds that a running guest gets to give a device back.", default=60),
    _fields.Field("purge", None, c.Choice(words=PURGEABLE),
                  "Kinds of device of which those that a guest's options do not mention are taken away.", many=True,
                  default=[]),
    *life.LIFE_OPTIONS,
    overcommit.OVERCOMMIT,
)  # fmt: skip

FAMILY = objects.Family(
    noun="domain", table=TABLE, listed=lambda session: session.domains(),
    define=lambda connection, text: connection.defineXML(text),
    inactive=lambda _session: libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE,
)  # fmt: skip


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one guest as wanted; nothing is written."""
    name = wanted["name"]
    handle = session.domains().get(name)
    subject = f"domain {name}"
    if wanted.get("state") == "absent":
        return _absence(session, wanted, subject, handle)
    if wanted.get("remove_storage"):
        raise KvmError("remove_storage: only goes with state: absent")
    purge = tuple(session.params["purge"])
    fleeting = life.is_transient(handle)
    if handle is None and wanted.get("transient") and wanted.get("state") == "stopped":
        return Plan(subject)  # it is gone
    _check_transient(wanted, handle, fleeting)
    current = objects.persistent_xml(session, FAMILY, handle) if handle is not None else None
    base = current if current is not None else _base(session, wanted)
    found = _fields.read(_spoken_of(wanted, purge), base) if base is not None else {}
    wanted, warnings = _resolved(session, wanted, found, current)
    wanted, seed_changes, seed = _with_seed(session, _with_macs(wanted, found), found)
    _check_found(wanted, found, handle)
    made = table.born(wanted) if base is None else {}
    applied = _added(made, wanted)
    stated, wanted = wanted, table.complete({**wanted, **made}, found, purge)
    domain_checks.check(wanted)
    target, after, changes = _target(session, wanted, current, found, base, warnings)
    warnings += references.check(session, wanted, target, changes)
    warnings += overcommit.guard(session, wanted, handle, target)
    keeps = not wanted.get("transient", fleeting)
    if fleeting and keeps:
        changes = [*changes, Change("transient", True, False, "define")]
    elif fleeting:
        changes = []  # it has no definition: only what runs counts
    steps = [objects.define_step(session, FAMILY, name, target, None if fleeting else current)] if changes and (keeps or handle) else []
    more, autostart = objects.autostart_plan(session, FAMILY, name, wanted.get("autostart"), handle)
    guest = _guest(session, name, handle, target, (found.get("memory") or {}).get("size"))
    live_changes, live, pending = _live(session, guest, _of_the_user(wanted, stated), after, purge) if guest else ([], [], [])
    restart = bool(pending) and session.params["apply"] == "restart_if_needed" and wanted.get("state") not in STANDING_STILL
    if restart:
        live_changes += [_change(difference, "restart") for difference in pending]
        again = life.restart_steps(session, FAMILY, name, handle, current)
        live += _transient().made_anew(session, name, handle, (current, target), again) if fleeting and not keeps else again
    elif pending and not keeps:
        raise KvmError(f"{pending[0].option}: a transient guest takes it only when it is made anew, which apply: restart_if_needed does")
    told_changes = _with_ways(changes, live_changes, guest is not None)
    _check_order(session, wanted, guest)
    state_changes, state_steps, more_warnings = life.life_steps(session, FAMILY, name, handle, wanted.get("state"))
    warnings += more_warnings
    if not keeps:
        state_changes, state_steps = _transient().life(session, wanted, handle, (current, target), (state_changes, state_steps))
    if state_steps and guest is None and wanted.get("start_delay"):
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.waiting import pause_step

        state_steps.insert(0, pause_step(name, wanted["start_delay"]))
    return Plan(
        subject, (*seed_changes, *told_changes, *more, *state_changes), (*seed, *steps, *autostart, *live, *state_steps),
        () if restart else tuple(dict.fromkeys(one.option for one in pending)), tuple(warnings),
        {"defaults_applied": sorted(_dotted(applied))} if applied else {},
        _afterwards(session, name, handle, wanted) if _to_wait(wanted, guest) else (),
    )  # fmt: skip


def _transient() -> Any:
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import transient

    return transient


def _check_transient(wanted: dict[str, Any], handle: Any | None, fleeting: bool) -> None:
    if fleeting or wanted.get("transient"):
        _transient().check(wanted, handle, fleeting)


def _with_seed(
    session: Libvirt, wanted: dict[str, Any], found: dict[str, Any]
) -> tuple[dict[str, Any], list[Change], list[Step]]:
    if not wanted.get("cloud_init"):
        return wanted, [], []
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.seed import with_seed

    return with_seed(session, wanted, found)


def _with_macs(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    if wanted.get("mac_seed") is None:
        return wanted
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.clone import with_macs

    return with_macs(wanted, found)


def _resolved(
    session: Libvirt, wanted: dict[str, Any], found: dict[str, Any], current: Any | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the options with what they name on this host, without images that have others on top in the guest; and what to tell of it."""
    wanted, warnings = references.resolve(session, wanted, wanted["name"])
    there = {disk["target"]: disk for disk in found.get("disks") or []}
    moved = any(
        name in disk and disk[name] != there[disk["target"]].get(name)
        for disk in wanted.get("disks") or [] if disk["target"] in there for name in devices.DISK_SOURCES
    )  # fmt: skip
    if current is None or not moved:
        return wanted, warnings
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.overlaid import keep

    wanted, more = keep(session, wanted, current)
    return wanted, [*warnings, *more]


def _absence(session: Libvirt, wanted: dict[str, Any], subject: str, handle: Any | None) -> Plan:
    """Return what it takes to have no such guest, nor the storage that goes with it."""
    changes, steps = life.absent(session, FAMILY, wanted["name"], handle)
    if handle is not None:
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.removal import storage_steps
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.seed import removal_steps

        tree = objects.persistent_xml(session, FAMILY, handle)
        more, deletions = storage_steps(session, wanted["name"], tree, wanted.get("remove_storage", []))
        changes, steps = [*changes, *more], [*steps, *deletions, *removal_steps(session, tree)]
    return Plan(subject, tuple(changes), tuple(steps))


def _check_found(wanted: dict[str, Any], found: dict[str, Any], handle: Any | None) -> None:
    """Raise KvmError for another UUID than it has, and for a template that would run."""
    if "uuid" in wanted and wanted["uuid"] != found.get("uuid", wanted["uuid"]):
        raise KvmError(f"uuid: it exists with {found['uuid']}, asked {wanted['uuid']}; remove it first, or leave uuid out")
    if not wanted.get("template", found.get("template")):
        return
    if wanted.get("state") in ("running", "paused", "saved") or wanted.get("autostart"):
        raise KvmError("state: it is a template, which is never started; clone it with clone_from, or say template: false")
    if handle is not None and wanted.get("state") != "stopped" and life.state_of(handle) != "stopped":
        raise KvmError("template: the guest runs; say state: stopped")


def _afterwards(session: Libvirt, name: str, handle: Any | None, wanted: dict[str, Any]) -> tuple[Step, ...]:
    """Return what is waited for, and what follows once it has come."""
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.waiting import wait_step

    wait = wait_step(session, name, handle, wanted["wait_for"])
    if not (wanted.get("cloud_init") or {}).get("detach"):
        return (wait,)
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.seed import detach_step

    return wait, detach_step(session, name)


def _check_order(session: Libvirt, wanted: dict[str, Any], guest: Guest | None) -> None:
    """Raise KvmError when a guest that is to run before this one does not; in check mode it may be about to."""
    for other in wanted.get("start_after", []) if guest is None and wanted.get("state") in ("running", "paused") else ():
        handle = session.domains().get(other)
        if not session.check and life.state_of(handle) != "running":
            raise KvmError(f"start_after: domain {other!r} does not run, it is {life.state_of(handle)}; start it first, or name it in this task")


def _to_wait(wanted: dict[str, Any], guest: Guest | None) -> bool:
    runs = wanted.get("state") == "running" or (guest is not None and wanted.get("state") in (None, "present"))
    return bool(wanted.get("wait_for") and runs)


def _of_the_user(wanted: dict[str, Any], stated: dict[str, Any]) -> dict[str, Any]:
    """Return the wanted options without a maximum that only follows from what was stated: it waits with that."""
    done = dict(wanted)
    for section in ("vcpus", "memory"):
        if section in done and "max" not in (stated.get(section) or {}):
            done[section] = {name: value for name, value in done[section].items() if name != "max"}
    return done


def _spoken_of(wanted: dict[str, Any], purge: tuple[str, ...]) -> _fields.Rows:
    """Return the rows of a definition that the options, and what follows from them, are held against."""
    names = (*wanted, *purge)
    return _rows_named((*names, *FOLLOWING, *(FOLLOWING_OF[name] for name in names if name in FOLLOWING_OF)))


@cache
def _rows_named(names: tuple[str, ...]) -> _fields.Rows:
    return _fields.Rows(row for row in TABLE.rows if row.name in names)


def _added(made: dict[str, Any], stated: dict[str, Any]) -> dict[str, Any]:
    """Return what is made and was not stated."""
    added = {}
    for name, value in made.items():
        inner = _added(value, stated[name]) if isinstance(value, dict) and name in stated else value
        if name not in stated or inner not in ({}, stated[name]):
            added[name] = inner
    return added


def _dotted(values: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _target(
    session: Libvirt, wanted: dict[str, Any], current: Any | None, found: dict[str, Any], base: Any | None, warnings: list[str]
) -> tuple[Any, Any | None, list[Change]]:
    """Return the definition as it is to be, what libvirt makes of it if it was asked, and how it differs from the current one.

    What is to be told of it is added to the warnings.
    """
    purge = tuple(session.params["purge"])
    differences = list(_fields.differences(TABLE.rows, wanted, found, purge)) if "xml" not in wanted else []
    if current is not None and not (differences or "unset" in wanted or "xml" in wanted):
        return current, None, []  # it is what there is, and a task of two hundred guests spares the work
    target = _xml.copy(base) if base is not None else table.blank(wanted["name"])
    if "xml" in wanted:
        return _target_of_xml(session, wanted, current, target, purge, warnings)
    for option in wanted.get("unset", []):
        gone = _fields.unset(TABLE.rows, target, option)
        differences += [gone] if gone else []
    if differences or current is None:
        _fields.write(TABLE.rows, target, wanted, purge)
    if base is None:
        table.finish(target, wanted)
    if differences:
        domain_checks.check_result(_fields.read(CHECKED, target))
        domain_checks.check_document(target)
    how = "define" if current is None else "next_boot"
    changes = [_change(difference, how) for difference in differences]
    if current is None and base is not None:
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.clone import refuse_shared

        refuse_shared(objects.persistent_xml(session, FAMILY, session.domains()[wanted["clone_from"]]), target)
        changes.insert(0, Change("clone_from", None, wanted["clone_from"], "define"))
    return target, None, changes


def _base(session: Libvirt, wanted: dict[str, Any]) -> Any | None:
    """Return the definition that a new guest begins with, None for one that begins with nothing."""
    if "clone_from" not in wanted:
        return None
    if "xml" in wanted:
        raise KvmError("clone_from: and xml are mutually exclusive")
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.clone import cloned

    return cloned(session, wanted["name"], wanted["clone_from"])


def _target_of_xml(
    session: Libvirt, wanted: dict[str, Any], current: Any | None, base: Any, purge: tuple[str, ...], warnings: list[str]
) -> tuple[Any, Any, list[Change]]:
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import fragment, oracle

    parts = _xml.parts_of(wanted["xml"])
    given, whole = parts[0], parts[0].tag == "domain"
    if whole and _xml.get(given, "name")[0] != wanted["name"]:
        raise KvmError(f"xml: it names the guest {_xml.get(given, 'name')[0]!r}, the task {wanted['name']!r}")
    if not whole:
        _fields.write(TABLE.rows, base, wanted, purge)
    target = fragment.replaced(given, current) if whole else fragment.merged(parts, base, TABLE.rows)
    _fields.write(TABLE.rows, target, wanted, purge)
    if current is not None and _xml.find(target, "devices/disk") is not None:
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.overlaid import keep_in

        warnings += keep_in(session, target, current)
    domain_checks.check_document(target)
    if current is None and not whole:
        table.finish(target, wanted)
    after = _xml.parse(oracle.read_back(session.params["uri"], _xml.text_of(target)))
    if current is not None and _xml.canonical(after) == _xml.canonical(_without_security(current, after)):
        return target, after, []
    fragment.conceal_made(after, target)
    before = _fields.read(TABLE.rows, current) if current is not None else {}
    how = "define" if current is None else "next_boot"
    changes = [_change(difference, how) for difference in fragment.both_ways(TABLE.rows, before, _fields.read(TABLE.rows, after))]
    return target, after, changes or [Change("xml", "as defined", "as given", how)]


def _without_security(current: Any, after: Any) -> Any:
    """Return the current definition with what the embedded driver cannot know as the oracle has it: security labels."""
    tree = _xml.copy(current)
    if _xml.find(after, "seclabel") is None:
        for label in tree.findall("seclabel"):
            tree.remove(label)
    return tree


def _change(difference: _fields.Difference, how: str) -> Change:
    return Change(difference.option, *difference.shown(), how)


def _guest(session: Libvirt, name: str, handle: Any | None, target: Any, defined_memory: str | None) -> Guest | None:
    running = objects.running_xml(handle, libvirt.VIR_DOMAIN_XML_SECURE) if handle is not None else None
    if running is None:
        return None
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.live import Guest

    _with_networks_of_vfs(session, name, running, target)
    with told("cannot read the host's CPUs"):
        return Guest(session, name, handle, running, target, session.once("CPUs", session.connection.getCPUMap)[0], defined_memory)


def _with_networks_of_vfs(session: Libvirt, name: str, running: Any, target: Any) -> None:
    """Write into what runs which of its virtual functions are of the pool of the network that is wanted."""
    vfs = {_xml.get(nic, "mac/@address")[0]: nic for nic in _xml.find_all(running, "devices/interface[@type='hostdev']")}
    for nic in _xml.find_all(target, "devices/interface[@type='network']") if vfs else ():
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.vf_pool import vf_owners

        mac, network = _xml.get(nic, "mac/@address")[0], str(_xml.get(nic, "source/@network")[0])
        if mac in vfs and mac in vf_owners(session, network).get(name, ()):
            vfs[mac].set("type", "network")
            _xml.put(vfs[mac], "source/@network", network)


def _live(
    session: Libvirt, guest: Guest, wanted: dict[str, Any], after: Any | None, purge: tuple[str, ...]
) -> tuple[list[Change], list[Step], list[_fields.Difference]]:
    """Return how the running guest takes what it has not, and what it takes only at its next start."""
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.live import ways

    changes: list[Change] = []
    steps: list[Step] = []
    pending: list[_fields.Difference] = []
    params = session.params
    lagging = _lagging(guest, wanted, purge)
    unset = (_fields.unset(TABLE.rows, _xml.copy(guest.running), option) for option in wanted.get("unset", []))
    pending += [one for one in unset if one is not None and not _expanded(one)]
    for way in ways(guest, lagging, TABLE.rows, params["allow_replug"]) if params["apply"] != "next_boot" else ():
        if way.step is None:
            pending += way.differences
        else:
            steps.append(way.step)
            changes += [_change(difference, way.how) for difference in way.differences]
    if params["apply"] == "next_boot":
        pending += lagging
    if after is not None:  # XML of the user's is taken at the next start
        known = {*(one.option for one in pending), *(change.option for change in changes)}
        more = _lagging(guest, _fields.read(TABLE.rows, after), EVERY)
        pending = [*pending, *(difference for difference in more if difference.option not in known)]
    if pending and params["apply"] == "live_only":
        names = ", ".join(one.option for one in pending)
        raise KvmError(f"{names}: the running guest takes it only at its next start, and apply is live_only")
    return changes, steps, pending


def _lagging(guest: Guest, wanted: dict[str, Any], purge: tuple[str, ...]) -> list[_fields.Difference]:
    """Return how what runs differs from what is wanted, without what only looks different once a guest runs."""
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.live import settled

    found = _fields.read(TABLE.rows, guest.running)
    differences = _fields.differences(TABLE.rows, wanted, found, purge)
    return [one for one in differences if not _expanded(one) and not settled(guest, one)]


def _expanded(difference: _fields.Difference) -> bool:
    """Tell whether the running definition does not tell what is wanted, of an option or of the list that it lies in."""
    rows = (difference.row, difference.item[0] if difference.item else None)
    return any(getattr(row, "expanded", None) for row in rows)


def _with_ways(persistent: list[Change], live: list[Change], running: bool) -> list[Change]:
    """Return each changed option once, with the way it takes."""
    live_options = {change.option for change in live}
    kept = [change for change in persistent if change.option not in live_options]
    if not running:
        kept = [Change(change.option, change.before, change.after, "define") for change in kept]
    return [*live, *kept]


DOMAIN = _run.Kind(
    table=TABLE, plural="domains", key=("name",), open=Libvirt, plan=plan,
    options=OPTIONS, info_options=(URI,), imports=(LIBVIRT, _run.LXML), at_once=4, after="start_after",
)  # fmt: skip
