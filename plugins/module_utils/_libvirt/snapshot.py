# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of guests: what a task wants of one, and the steps to it."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import agent
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import os_told
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.snapshot import TABLE, check

DAY_S = 24 * 3600
REVERTS_EXTERNAL = 9_009_000  # as libvirt counts its versions


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one snapshot as wanted; nothing is written."""
    check(wanted)
    name, subject = wanted["name"], f"snapshot {wanted['domain']}/{wanted['name']}"
    domain = session.domains().get(wanted["domain"])
    state = wanted.get("state") or "present"
    if domain is None:
        if state == "absent":
            return Plan(subject)
        if session.check:
            return Plan(subject, warnings=(f"domain {wanted['domain']!r} does not exist yet",))
        raise KvmError(f"domain {wanted['domain']!r} does not exist on this host")
    there = _all(domain)
    if state == "absent":
        return Plan(subject) if name not in there else _gone(subject, [there[name]])
    if state == "reverted":
        return _revert(session, subject, domain, there, wanted)
    if name in there:
        _check_kind(there[name], wanted)
        return _gone(subject, _outdated(there, wanted))
    if _runs(domain) and wanted.get("quiesce"):
        agent.require(domain, "quiesce")
    change = Change("state", None, "present", "live" if _runs(domain) else "define")
    old = _gone(subject, _outdated(there, wanted))

    def undo() -> None:
        with told(f"cannot find snapshot {name} again"):
            made = domain.snapshotLookupByName(name, 0)
        _delete(made)

    step = Step(f"take snapshot {name} of {wanted['domain']}", lambda: _take(session, domain, wanted), undo)
    return Plan(subject, (change, *old.changes), (step, *old.steps))


def _all(domain: Any) -> dict[str, Any]:
    """Return the snapshots of a guest by name, oldest first."""
    with told("cannot list the snapshots"):
        found = {one.getName(): one for one in domain.listAllSnapshots(libvirt.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL)}
        return dict(sorted(found.items(), key=lambda pair: _made(pair[1])))


def _tree(snapshot: Any) -> Any:
    return _xml.parse(snapshot.getXMLDesc(0))


def _runs(domain: Any) -> bool:
    with told("cannot read the state of the guest"):
        return bool(domain.isActive())


def _kind(tree: Any) -> str:
    return "external" if _xml.find_all(tree, "disks/disk[@snapshot='external']") else "internal"


def _check_kind(snapshot: Any, wanted: dict[str, Any]) -> None:
    with told("cannot read the snapshot"):
        found = _kind(_tree(snapshot))
    if wanted.get("kind", found) != found:
        raise KvmError(f"kind: cannot be changed from {found} to {wanted['kind']}; delete the snapshot and take it anew")


def _outdated(there: dict[str, Any], wanted: dict[str, Any]) -> list[Any]:
    """Return the snapshots of the series that are too many or too old, the oldest first; never the one that is wanted."""
    series = [name for name in there if "series" in wanted and name.startswith(wanted["series"]) and name != wanted["name"]]
    old = series[: max(0, len(series) + 1 - wanted["keep"])] if "keep" in wanted else []
    if "keep_days" in wanted:
        limit = time.time() - wanted["keep_days"] * DAY_S
        old = [name for name in series if name in old or _made(there[name]) < limit]
    return [there[name] for name in old]


def _made(snapshot: Any) -> int:
    with told("cannot read the snapshot"):
        return int(_xml.get(_tree(snapshot), "creationTime")[0] or 0)


def _gone(subject: str, snapshots: list[Any]) -> Plan:
    names = [one.getName() for one in snapshots]
    changes = tuple(Change(f"snapshots[{name}]", "present", "absent", "remove") for name in names)
    steps = tuple(Step(f"delete snapshot {one.getName()}", lambda one=one: _delete(one)) for one in snapshots)  # type: ignore[misc]
    return Plan(subject, changes, steps)


def _delete(snapshot: Any) -> None:
    with told(f"cannot delete snapshot {snapshot.getName()}"):
        snapshot.delete(0)  # an external one is merged by libvirt, or refused in its words


def _revert(session: Libvirt, subject: str, domain: Any, there: dict[str, Any], wanted: dict[str, Any]) -> Plan:
    done: set[tuple[str, str]] = session.once("reverted", set)
    key = (wanted["domain"], wanted["name"])
    if key in done:
        return Plan(subject)
    if wanted["name"] not in there:
        if session.check:
            return Plan(subject, warnings=(f"there is no snapshot {wanted['name']!r} yet",))
        raise KvmError(f"there is no snapshot {wanted['name']!r}; the guest has {', '.join(there) or 'none'}")

    with told("cannot read the snapshot"):
        external, version = _kind(_tree(there[wanted["name"]])) == "external", session.connection.getLibVersion()
    if external and version < REVERTS_EXTERNAL:
        raise KvmError(
            f"state: {wanted['name']} is external, which libvirt 9.9 and newer put a guest back to, this is {version // 1_000_000}."
            f"{version // 1000 % 1000}; delete it, which keeps what was written since, or restore a backup"
        )

    def revert() -> None:
        with told("cannot revert"):
            domain.revertToSnapshot(there[wanted["name"]], 0)
        done.add(key)

    change = Change("state", "as it is", "reverted", "live" if _runs(domain) else "define")
    return Plan(subject, (change,), (Step(f"put {wanted['domain']} back to snapshot {wanted['name']}", revert),))


def _take(session: Libvirt, domain: Any, wanted: dict[str, Any]) -> None:
    """Take a snapshot of all disks that are written to, as of one moment."""
    kind, running = wanted.get("kind", "internal"), _runs(domain)
    tree = _xml.new("domainsnapshot")
    _xml.put(tree, "name", wanted["name"])
    if "description" in wanted:
        _xml.put(tree, "description", wanted["description"])
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    if kind == "external":
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    if wanted.get("quiesce") and running:
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE
    with told("cannot take the snapshot"):
        for disk in _xml.find_all(_xml.parse(domain.XMLDesc(0)), "devices/disk"):
            written = disk.get("device", "disk") == "disk" and _xml.find(disk, "readonly") is None
            one = _xml.add(tree, "disks/disk")
            one.set("name", str(_xml.get(disk, "target/@dev")[0]))
            one.set("snapshot", kind if written else "no")
        made = domain.snapshotCreateXML(_xml.text_of(tree), flags)
        files = _xml.find_all(_tree(made), "disks/disk[@snapshot='external']/source")
    if kind == "external" and not running and session.on_this_host:
        # libvirt before 11.10 leaves the new images of a guest that does not run readable for all (CVE-2025-13193).
        for file in files:
            path = file.get("file")
            if path and os.path.exists(path):
                with os_told(path):
                    os.chmod(path, 0o600)


def read_all(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return the snapshots of every guest, oldest first, or those of that name."""
    found = []
    for domain, handle in sorted(session.domains().items()):
        for one, snapshot in _all(handle).items():
            if name not in (None, one):
                continue
            with told("cannot read the snapshot"):
                tree, current = _tree(snapshot), bool(snapshot.isCurrent(0))
            told_of = {
                "domain": domain, "name": one, "state": "present", "kind": _kind(tree), "current": current,
                "description": _xml.get(tree, "description")[0], "parent": _xml.get(tree, "parent/name")[0],
                "made": int(_xml.get(tree, "creationTime")[0] or 0),
            }  # fmt: skip
            found.append({k: v for k, v in told_of.items() if v is not None})
    if name is not None and not found:
        raise KvmError(f"snapshot {name!r} does not exist on this host")
    return found


SNAPSHOT = Kind(
    table=TABLE, plural="snapshots", key=("domain", "name"), open=Libvirt, plan=plan, read=read_all,
    options=(URI,), info_options=(URI,), imports=(LIBVIRT, LXML),
)  # fmt: skip
