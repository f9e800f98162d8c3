# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of guests: full ones, incremental ones through checkpoints, restored and drilled (https://libvirt.org/formatbackup.html)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import archive, content, drill
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.archive import Backup
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import find_volume, lacking_pool, place_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import image
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import os_told
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.backup import TABLE, check

JOB_DEADLINE_S = 24 * 3600
PATH = Field("path", None, c.PATH, "Directory of the host that holds the backups.", required=True)
VERIFY = Field("verify", None, c.YES_NO, "Whether every image is held against its digest.", default=False)


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one backup as wanted; nothing is written."""
    check(wanted)
    if not session.on_this_host:
        raise KvmError("path: a backup needs the daemon of this host")
    top, name, subject = wanted["path"], wanted["name"], f"backup {wanted['domain']}/{wanted['name']}"
    backups = archive.all_in(top)
    there = backups.get(name)
    if there is not None and there.domain != wanted["domain"]:
        raise KvmError(f"name: it is a backup of {there.domain}")
    state = wanted.get("state") or "present"
    if state == "absent":
        return _remove(session, subject, wanted, backups)
    if state == "present":
        return Plan(subject) if there else _make(session, subject, wanted, backups)
    if there is None:
        if session.check:
            return Plan(subject, warnings=(f"there is no backup {name!r} in {top} yet",))
        raise KvmError(f"there is no backup {name!r} in {top}")
    return _restore(session, subject, wanted, backups) if state == "restored" else _drill(session, subject, wanted, backups)


# Making ---------------------------------------------------------------------------------------------------------


def _make(session: Libvirt, subject: str, wanted: dict[str, Any], backups: dict[str, Backup]) -> Plan:
    domain = session.domains().get(wanted["domain"])
    if domain is None:
        raise KvmError(f"domain {wanted['domain']!r} does not exist on this host")
    with told("cannot read the guest"):
        running = bool(domain.isActive())
        tree = _xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
    disks = _disks(tree, wanted.get("disks"))
    parent = _parent(wanted, backups, running, disks)
    _check_room(wanted["path"], disks)
    step = Step(
        f"write backup {wanted['name']} of {wanted['domain']} to {wanted['path']}",
        lambda: _write(session, domain, wanted, tree, disks, parent) if running else _copy(wanted, tree, disks),
    )
    what = f"changes since {parent}" if parent else "all"
    changes = [Change(f"disks[{target}]", None, what, "host") for target in disks]
    return Plan(subject, (*changes, Change("state", None, "present", "host")), (step,))


def _disks(tree: Any, named: list[str] | None) -> dict[str, tuple[str, str]]:
    """Return path and format of each disk to back up, by target."""
    found = {}
    for disk in _xml.find_all(tree, "devices/disk"):
        target = str(_xml.get(disk, "target/@dev")[0])
        source = _xml.find(disk, "source")
        written = disk.get("device", "disk") == "disk" and _xml.find(disk, "readonly") is None
        if target in (named or ()) or (named is None and written):
            path = (source.get("file") or source.get("dev")) if source is not None else None
            if path is None:
                raise KvmError(f"disks: {target} is neither a file nor a block device of this host; leave it out by naming the others")
            found[target] = (path, str(_xml.get(disk, "driver/@type")[0] or "raw"))
    missing = [target for target in named or () if target not in found]
    if missing or not found:
        raise KvmError(f"disks: the guest has no {', '.join(missing) or 'disk that is written to'}")
    return found


def _parent(wanted: dict[str, Any], backups: dict[str, Backup], running: bool, disks: dict[str, tuple[str, str]]) -> str | None:
    """Return the backup that an incremental one builds on, None for a full one."""
    if not wanted.get("incremental"):
        return None
    others = [target for target, (_path, kind) in disks.items() if kind != "qcow2"]
    if others:
        raise KvmError(f"incremental: {', '.join(others)} is not qcow2, which alone remembers what was written")
    if not running:
        raise KvmError("incremental: the guest does not run; start it, or make a full backup")
    own = [one for one in backups.values() if one.domain == wanted["domain"]]
    if not own:
        raise KvmError(f"incremental: there is no backup of {wanted['domain']} in {wanted['path']} yet; make a full one first")
    last = own[-1]
    if not last.checkpoint or set(last.disks) != set(disks):
        raise KvmError(f"incremental: {last.name} has no checkpoint of the same disks to build on; make a full one")
    return last.name


def _check_room(top: str, disks: dict[str, tuple[str, str]]) -> None:
    """Raise KvmError where the directory has less free than the disks take now."""
    above = top
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    room = os.statvfs(above)
    needed = sum(os.stat(path).st_blocks * 512 for path, _kind in disks.values() if os.path.isfile(path))
    if needed > room.f_bavail * room.f_frsize:
        raise KvmError(f"path: {above} has {room.f_bavail * room.f_frsize // 1024**2}MiB free, the disks take {needed // 1024**2}MiB")


def _write(session: Libvirt, domain: Any, wanted: dict[str, Any], tree: Any, disks: dict[str, tuple[str, str]], parent: str | None) -> None:
    """Have QEMU write the backup of a running guest, as of one moment, while the guest goes on."""
    del session
    top, name = wanted["path"], wanted["name"]
    draft = archive.begin(top, name)
    point = _point(wanted["domain"], name)
    _forget_point(domain, point)  # of a task that was killed: there is no backup to it
    order, mark = _xml.new("domainbackup"), _xml.new("domaincheckpoint")
    order.set("mode", "push")
    _xml.put(mark, "name", point)
    if parent:
        _xml.put(order, "incremental", _point(wanted["domain"], parent))
    for disk in _xml.find_all(tree, "devices/disk"):
        target = str(_xml.get(disk, "target/@dev")[0])
        one, bitmap = _xml.add(order, "disks/disk"), _xml.add(mark, "disks/disk")
        one.set("name", target)
        bitmap.set("name", target)
        one.set("backup", "yes" if target in disks else "no")
        keeps = target in disks and disks[target][1] == "qcow2"
        bitmap.set("checkpoint", "bitmap" if keeps else "no")
        if target in disks:
            one.set("type", "file")
            _xml.put(one, "target/@file", os.path.join(draft, f"{target}.qcow2"))
            _xml.put(one, "driver/@type", "qcow2")
    marked = all(kind == "qcow2" for _path, kind in disks.values())
    try:
        with _still(domain, bool(wanted.get("quiesce"))), told("cannot begin the backup"):
            domain.backupBegin(_xml.text_of(order), _xml.text_of(mark) if marked else None, 0)
        _wait(domain)
        digests = {}
        for target in disks:
            path = os.path.join(draft, f"{target}.qcow2")
            if parent:
                archive.lay_on(path, archive.image_of(top, parent, target))
            digests[target] = archive.digest(path)
        _keep_definition(draft, tree)
        archive.finish(top, Backup(wanted["domain"], name, parent, marked, time.time(), digests), draft)
    except KvmError:
        _forget_point(domain, point)
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _point(domain: str, name: str) -> str:
    return f"anfitrion-{domain}-{name}"


def _forget_point(domain: Any, point: str) -> None:
    try:
        domain.checkpointLookupByName(point, 0).delete(0)
    except libvirt.libvirtError:
        return  # there is none, or nobody to ask: the next task does it


@contextmanager
def _still(domain: Any, wanted: bool) -> Iterator[None]:
    """Hold the file systems of a guest still, and let them go whatever happens."""
    if not wanted:
        yield
        return
    with told("quiesce: the agent in the guest cannot hold its file systems still"):
        domain.fsFreeze(None, 0)
    try:
        yield
    finally:
        with told("quiesce: the file systems of the guest cannot be let go"):
            domain.fsThaw(None, 0)


def _wait(domain: Any) -> None:
    """Wait until QEMU has written the backup. Raises KvmError with its words when it could not."""
    deadline = time.monotonic() + JOB_DEADLINE_S
    while True:
        with told("cannot read the state of the backup"):
            if domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE:
                done = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
                break
        if time.monotonic() > deadline:
            with told("cannot end the backup"):
                domain.abortJob()
            raise KvmError(f"the backup is not complete after {JOB_DEADLINE_S} s")
        time.sleep(0.1)
    if not done.get("success", True):
        raise KvmError(f"the backup failed: {done.get('errmsg', 'QEMU gives no reason')}")


def _copy(wanted: dict[str, Any], tree: Any, disks: dict[str, tuple[str, str]]) -> None:
    """Copy the disks of a guest that does not run."""
    draft = archive.begin(wanted["path"], wanted["name"])
    try:
        digests = {}
        for target, (path, kind) in disks.items():
            copy = os.path.join(draft, f"{target}.qcow2")
            image.convert(path, kind, copy, "qcow2")
            image.require_same(path, kind, copy, "qcow2")
            digests[target] = archive.digest(copy)
        _keep_definition(draft, tree)
        archive.finish(wanted["path"], Backup(wanted["domain"], wanted["name"], None, False, time.time(), digests), draft)
    except KvmError:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _keep_definition(draft: str, tree: Any) -> None:
    with os_told(draft):
        path = os.path.join(draft, "domain.xml")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(_xml.text_of(tree))


# Using ----------------------------------------------------------------------------------------------------------


def _restore(session: Libvirt, subject: str, wanted: dict[str, Any], backups: dict[str, Backup]) -> Plan:
    """Return what it takes to have a volume with the content of each disk; one that is there is held against it."""
    top, name, place = wanted["path"], wanted["name"], place_of(session, wanted["restore"]["pool"])
    lacking = lacking_pool(place)
    if lacking:
        raise KvmError(f"restore.pool: {lacking}")
    archive.require_whole(top, backups, name)
    changes, steps = [], []
    for target in backups[name].disks:
        volume = f"{wanted['restore'].get('prefix', wanted['domain'])}-{target}.qcow2"
        source, tree = archive.image_of(top, name, target), find_volume(session, place, volume)
        if tree is None:
            origin = content.Origin(source, "qcow2", ours=True)
            steps.append(content.make_step(session, place, {"name": volume}, origin, "qcow2", (top,)))
            changes.append(Change(f"disks[{target}]", None, f"{place.name}/{volume}", "define"))
        elif not image.same(source, "qcow2", str(_xml.get(tree, "target/path")[0]), "qcow2"):
            raise KvmError(f"restore: volume {place.name}/{volume} is there with another content; remove it, or give another prefix")
    return Plan(subject, tuple(changes), tuple(steps))


def _drill(session: Libvirt, subject: str, wanted: dict[str, Any], backups: dict[str, Backup]) -> Plan:
    """Return what it takes to have seen a guest boot from the backup."""
    top, one = wanted["path"], backups[wanted["name"]]
    if one.drilled is not None:
        return Plan(subject, facts={"drilled": one.drilled})
    archive.require_whole(top, backups, one.name)

    def prove() -> None:
        images = {target: archive.image_of(top, one.name, target) for target in one.disks}
        definition = os.path.join(top, one.name, "domain.xml")
        drill.boot(session, definition, images, wanted["drill"])
        archive.save(os.path.join(top, one.name), replace(one, drilled=time.time()))

    return Plan(subject, (Change("drilled", False, True, "host"),), (Step(f"boot a throw-away guest from backup {one.name}", prove),))


def _remove(session: Libvirt, subject: str, wanted: dict[str, Any], backups: dict[str, Backup]) -> Plan:
    name = wanted["name"]
    if name not in backups:
        return Plan(subject)
    children = [one.name for one in backups.values() if one.parent == name]
    if children:
        raise KvmError(f"cannot be deleted, backup {', '.join(children)} builds on it; delete that first")

    def delete() -> None:
        directory = os.path.join(wanted["path"], name)
        with os_told(directory):
            gone = os.path.join(wanted["path"], archive.DRAFT + name)
            os.rename(directory, gone)  # at once: half a backup is none
            shutil.rmtree(gone)
        domain = session.domains().get(wanted["domain"])
        if domain is not None:
            _forget_point(domain, _point(wanted["domain"], name))

    return Plan(subject, (Change("state", "present", "absent", "remove"),), (Step(f"delete backup {name}", delete),))


# The module -----------------------------------------------------------------------------------------------------


def read_all(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return the backups of a directory, oldest first, or the named one."""
    top = session.params["path"]
    found = [one for one in archive.facts(top, archive.all_in(top), session.params["verify"]) if name in (None, one["name"])]
    if name is not None and not found:
        raise KvmError(f"there is no backup {name!r} in {top}")
    return found


BACKUP = Kind(
    table=TABLE, plural="backups", key=("domain", "name"), open=Libvirt, plan=plan, read=read_all,
    options=(URI,), info_options=(URI, PATH, VERIFY), imports=(LIBVIRT, LXML),
)  # fmt: skip
