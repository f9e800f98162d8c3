# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of what is defined and is active or not, networks and pools: definition, life, what has to wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import fragment
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.objects import (
    Family,
    autostart_plan,
    define_step,
    persistent_xml,
    restart_steps,
    running_xml,
    start_step,
    stop_step,
    undefine_step,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step

RESTART = _fields.Field(
    "restart", None, c.YES_NO,
    "Whether to stop and start an active object for options that it takes only when it starts. Refused while running"
    " guests use it.", default=False,
)  # fmt: skip


@dataclass(frozen=True)
class Situation:
    """One object as it is and as it is to be.

    before: its persistent definition, None where there is none. after: that, edited. running: the definition that
    runs, None where nothing does. differences: wanted against before.
    """

    name: str
    wanted: dict[str, Any]
    handle: Any | None
    before: Any | None
    after: Any
    running: Any | None
    differences: tuple[_fields.Difference, ...]

    @property
    def to_define(self) -> bool:
        return self.before is None or bool(self.differences)

    @property
    def to_start(self) -> bool:
        return self.wanted.get("state") == "active" and self.running is None


@dataclass(frozen=True)
class Host:
    """What the plan does to the host itself: before the object starts."""

    changes: tuple[Change, ...] = ()
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """Where networks and pools differ.

    tidy: (tree) takes out of an edited definition what no longer fits. preflight: raises KvmError for what the host
    refuses, returns what it takes of the host. users: names of the running guests that hold the object.
    live: a step list for each of the differences that the running object can take at once, by option.
    restart: (session, situation, definition to go back to) the steps of a restart that its users survive; None: refused
    while there are any. read_back: (tree) what libvirt makes of a definition, for XML of the user's.
    """

    family: Family
    complete: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
    check: Callable[[dict[str, Any]], None]
    tidy: Callable[[Any], None]
    preflight: Callable[[Libvirt, Situation], Host]
    users: Callable[[Libvirt, str, Any], list[str]]
    live: Callable[[Libvirt, Situation, list[_fields.Difference]], tuple[set[str], list[Step]]]
    restart: Callable[[Libvirt, Situation, Any], list[Step]] | None = None
    read_back: Callable[[Any], Any] | None = None
    carry: Callable[[Any, Any], None] | None = None


def plan(session: Libvirt, rules: Rules, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one network or pool as wanted; nothing is written."""
    noun, name = rules.family.noun, wanted["name"]
    handle = rules.family.listed(session).get(name)
    if wanted.get("state") == "absent":
        return _absent(session, rules, name, handle)
    now = _observe(session, rules, wanted, handle)
    host = rules.preflight(session, now)
    lagging = _lagging(rules, now)
    live_options, live = rules.live(session, now, lagging) if lagging else (set(), [])
    waiting = [one for one in lagging if one.option not in live_options]
    restart = bool(waiting) and session.params["restart"]
    changes = _changes(now, lagging, live_options, "restart" if restart else "next_boot")
    steps: list[Step] = []
    if now.to_define:
        steps.append(define_step(session, rules.family, name, now.after, now.before))
    steps += [*host.steps, *live]
    if restart:
        steps += _restart(session, rules, now)
    life_changes, life = _life(session, rules, now)
    more, autostart = autostart_plan(session, rules.family, name, wanted.get("autostart"), handle)
    pending = () if restart else tuple(one.option for one in waiting)
    return Plan(
        f"{noun} {name}", (*changes, *host.changes, *more, *life_changes), (*steps, *life, *autostart), pending,
        host.warnings, _cut_off(session, rules, now) if pending else {},
    )  # fmt: skip


def _restart(session: Libvirt, rules: Rules, now: Situation) -> list[Step]:
    before = now.before if now.before is not None else now.running
    if rules.restart is not None:
        return rules.restart(session, now, before)
    _refuse_in_use(session, rules, now.name, now.running, "restarted")
    return restart_steps(session, rules.family, now.name, before)


def _cut_off(session: Libvirt, rules: Rules, now: Situation) -> dict[str, Any]:
    """Return the guests that the restart which is pending would cut off."""
    users = rules.users(session, now.name, now.running)
    return {"cuts_off": users} if users else {}


def _observe(session: Libvirt, rules: Rules, wanted: dict[str, Any], handle: Any | None) -> Situation:
    before = running = None
    if handle is not None:
        running = running_xml(handle)
        with told("cannot read whether it is persistent"):
            before = persistent_xml(session, rules.family, handle) if handle.isPersistent() else None
    base = before if before is not None else running
    rows = rules.family.table.rows
    found = _fields.read(rows, base) if base is not None else {}
    wanted = rules.complete(wanted, found)
    _check_uuid(wanted, found)
    blank = _xml.new(rules.family.table.root)
    after = _xml.copy(base) if base is not None else blank
    _xml.put(after, "name", wanted["name"])
    if "xml" in wanted:
        after, differences = _of_xml(rules, wanted, base, after)
        wanted = {**_fields.read(rows, after), **wanted}
    else:
        differences = tuple(_fields.differences(rows, wanted, found))
        _fields.write(rows, after, wanted)
        rules.tidy(after)
    if differences or before is None:
        rules.check(_fields.read(rows, after))
    return Situation(wanted["name"], wanted, handle, before, after, running, differences)


def _of_xml(rules: Rules, wanted: dict[str, Any], base: Any | None, named: Any) -> tuple[Any, tuple[_fields.Difference, ...]]:
    """Return the definition that XML of the user's makes, other options written over it, and how it differs from C(base)."""
    if rules.read_back is None:
        raise KvmError("xml: cannot be given for this object")
    rows, root = rules.family.table.rows, rules.family.table.root
    given = _xml.parse(wanted["xml"])
    if given.tag == root and _xml.get(given, "name")[0] != wanted["name"]:
        raise KvmError(f"xml: it names {_xml.get(given, 'name')[0]!r}, the task {wanted['name']!r}")
    target = fragment.replaced(given, base) if given.tag == root else fragment.merged([given], named)
    if base is not None and rules.carry is not None:
        rules.carry(target, base)
    _fields.write(rows, target, wanted)
    rules.tidy(target)
    after = rules.read_back(target)
    if base is None:
        return target, tuple(_fields.differences(rows, _fields.read(rows, target), {}))
    before = rules.read_back(base)
    if _xml.canonical(after) == _xml.canonical(before):
        return target, ()
    told_of = tuple(fragment.both_ways(rows, _fields.read(rows, before), _fields.read(rows, after)))
    return target, told_of or (_fields.Difference("xml", "as defined", "as given", _fields.Field("xml", None, c.XML, "")),)


def _check_uuid(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    if "uuid" in wanted and wanted["uuid"] != found.get("uuid", wanted["uuid"]):
        raise KvmError(f"uuid: it exists with {found['uuid']}, asked {wanted['uuid']}; remove it first, or leave uuid out")


def _lagging(rules: Rules, now: Situation) -> list[_fields.Difference]:
    """Return how what runs, and goes on running, differs from what is wanted."""
    if now.running is None or now.wanted.get("state") == "inactive":
        return []
    return list(_fields.differences(rules.family.table.rows, now.wanted, _fields.read(rules.family.table.rows, now.running)))


def _changes(now: Situation, lagging: list[_fields.Difference], live: set[str], later: str) -> list[Change]:
    """Return each differing option once, with the way that it takes; one that only waits for a start is no change."""
    ways = {one.option: "live" if one.option in live else later for one in lagging}
    changes = [Change(one.option, *one.shown(), ways.get(one.option, "define")) for one in now.differences]
    if now.before is None and now.running is not None:
        changes.append(Change("persistent", False, True, "define"))
    told_of = {one.option for one in now.differences}
    return changes + [
        Change(one.option, *one.shown(), ways[one.option])
        for one in lagging
        if one.option not in told_of and ways[one.option] != "next_boot"
    ]


def _life(session: Libvirt, rules: Rules, now: Situation) -> tuple[list[Change], list[Step]]:
    """Return what it takes to have the object active or inactive, as wanted."""
    state = now.wanted.get("state") or "present"
    if now.to_start:
        before = None if now.handle is None else "inactive"
        return [Change("state", before, "active", "start")], [start_step(session, rules.family, now.name)]
    if state == "inactive" and now.running is not None:
        _refuse_in_use(session, rules, now.name, now.running, "stopped")
        return [Change("state", "active", "inactive", "stop")], [stop_step(session, rules.family, now.name)]
    return ([Change("state", None, state, "define")] if now.handle is None else []), []


def _absent(session: Libvirt, rules: Rules, name: str, handle: Any | None) -> Plan:
    """Return what it takes to have no such object; the data that it holds stays."""
    subject = f"{rules.family.noun} {name}"
    if handle is None:
        return Plan(subject)
    running = running_xml(handle)
    steps: list[Step] = []
    if running is not None:
        _refuse_in_use(session, rules, name, running, "removed")
        steps.append(stop_step(session, rules.family, name))
    with told("cannot read whether it is persistent"):
        persistent = handle.isPersistent()
    if persistent:
        steps.append(undefine_step(session, rules.family, name, persistent_xml(session, rules.family, handle)))
    before = "inactive" if running is None else "active"
    return Plan(subject, (Change("state", before, "absent", "remove"),), tuple(steps))


def _refuse_in_use(session: Libvirt, rules: Rules, name: str, running: Any, what: str) -> None:
    users = rules.users(session, name, running)
    if users:
        guests = ", ".join(users)
        raise KvmError(f"cannot be {what}, running guests use it: {guests}; stop them or take it from them first")


def read_all(session: Libvirt, family: Family, name: str | None) -> list[dict[str, Any]]:
    """Return the options of every object, or of the named one."""
    listed = family.listed(session)
    if name is not None and name not in listed:
        raise KvmError(f"{family.noun} {name!r} does not exist on this host")
    return [_options(session, family, listed[one], one) for one in sorted(listed) if name in (None, one)]


def _options(session: Libvirt, family: Family, handle: Any, name: str) -> dict[str, Any]:
    options = _fields.read(family.table.rows, persistent_xml(session, family, handle))
    with told("cannot read the state"):
        state = "active" if handle.isActive() else "inactive"
        autostart = bool(handle.isPersistent() and handle.autostart())
    return {"name": name, "state": state, "autostart": autostart, **options}


def running_guests(session: Libvirt) -> dict[str, Any]:
    """Return the running definition of every guest that runs, by name; read once a task."""

    def read() -> dict[str, Any]:
        trees = {name: running_xml(handle) for name, handle in session.domains().items()}
        return {name: tree for name, tree in trees.items() if tree is not None}

    found: dict[str, Any] = session.once("running guests", read)
    return found
