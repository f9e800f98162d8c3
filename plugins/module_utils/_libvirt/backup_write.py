# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of guests as they are made: QEMU writes the images of a running guest, or hands them over a socket; those of another are copied."""

from __future__ import annotations

import glob
import os
import shutil
import time
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import agent, archive
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.archive import Backup
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import image, lock
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import os_told
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step

JOB_DEADLINE_S = 24 * 3600
SOCKET = "anfitrion-backup.sock"
SCRATCH = ".anfitrion-backup"
GUESTS = "/var/lib/libvirt/qemu"  # each running guest has a directory there that its QEMU may write to


def plan(session: Libvirt, subject: str, wanted: dict[str, Any], backups: dict[str, Backup]) -> Plan:
    """Return what it takes to have made a backup that is not there."""
    domain = session.domains().get(wanted["domain"])
    if domain is None:
        raise KvmError(f"domain {wanted['domain']!r} does not exist on this host")
    with told("cannot read the guest"):
        running = bool(domain.isActive())
        tree = _xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
    if running and wanted.get("quiesce"):
        agent.require(domain, "quiesce")
    disks = _disks(tree, wanted.get("disks"))
    parent = _parent(wanted, backups, running, disks)
    _check_room(wanted["path"], disks)
    if running and wanted.get("mode") == "pull":
        _check_scratch(disks)
    step = Step(
        f"write backup {wanted['name']} of {wanted['domain']} to {wanted['path']}",
        lambda: _write(domain, wanted, tree, disks, parent) if running else _copy(wanted, tree, disks),
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
    pulled = wanted.get("mode") == "pull"  # which compares, and asks nobody what was written
    others = [target for target, (_path, kind) in disks.items() if kind != "qcow2"]
    if others and not pulled:
        raise KvmError(f"incremental: {', '.join(others)} is not qcow2, which alone remembers what was written; or say mode: pull")
    if not running:
        raise KvmError("incremental: the guest does not run; start it, or make a full backup")
    own = [one for one in backups.values() if one.domain == wanted["domain"]]
    if not own:
        raise KvmError(f"incremental: there is no backup of {wanted['domain']} in {wanted['path']} yet; make a full one first")
    last = own[-1]
    if not (last.checkpoint or pulled) or set(last.disks) != set(disks):
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


def _write(domain: Any, wanted: dict[str, Any], tree: Any, disks: dict[str, tuple[str, str]], parent: str | None) -> None:
    """Write the backup of a running guest, as of one moment, while the guest goes on."""
    top, name, pulled = wanted["path"], wanted["name"], wanted.get("mode") == "pull"
    with lock.held(f"backup of {wanted['domain']}", f"{wanted['domain']} is being backed up by another task; wait for it"):
        _end_leftover(domain, top)
        draft = archive.begin(top, name)
        forget_point(domain, name)  # of a task that was killed: there is no backup to it
        socket = os.path.join(_directory_of(domain), SOCKET) if pulled else None
        for path, _kind in disks.values() if pulled else ():
            Root().remove(_scratch(path))  # of a guest whose QEMU was killed: there is no backup any more
        order, mark = _order(tree, disks, draft, socket), _mark(wanted, tree, disks)
        if parent and not pulled:
            _xml.put(order, "incremental", _point(wanted["domain"], parent))
        marked = all(kind == "qcow2" for _path, kind in disks.values())
        try:
            with agent.still(domain, bool(wanted.get("quiesce"))), told("cannot begin the backup"):
                domain.backupBegin(_xml.text_of(order), _xml.text_of(mark) if marked else None, 0)
            if socket:
                _pull(domain, socket, top, draft, disks, parent)
            else:
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
            forget_point(domain, name)
            shutil.rmtree(draft, ignore_errors=True)
            raise


def _order(tree: Any, disks: dict[str, tuple[str, str]], draft: str, socket: str | None) -> Any:
    """Return what libvirt is told: which disks are written into the draft, or handed over a socket."""
    order = _xml.new("domainbackup")
    order.set("mode", "pull" if socket else "push")
    if socket:
        _xml.put(order, "server/@transport", "unix")
        _xml.put(order, "server/@socket", socket)
    for target in _targets(tree):
        one = _xml.add(order, "disks/disk")
        one.set("name", target)
        one.set("backup", "yes" if target in disks else "no")
        if target not in disks:
            continue
        one.set("type", "file")
        _xml.put(one, "driver/@type", "qcow2")
        if socket:
            _xml.put(one, "scratch/@file", _scratch(disks[target][0]))
        else:
            _xml.put(one, "target/@file", os.path.join(draft, f"{target}.qcow2"))
    return order


def _scratch(disk: str) -> str:
    """Return the path of the file in which QEMU keeps what the guest overwrites while its disk is pulled; libvirt makes it and takes it away."""
    return disk + SCRATCH


def _check_scratch(disks: dict[str, tuple[str, str]]) -> None:
    devices = [target for target, (path, _kind) in disks.items() if not os.path.isfile(path)]
    if devices:
        raise KvmError(f"mode: {', '.join(devices)} is no file, so what the guest overwrites meanwhile has no place beside it; use mode: push")


def _mark(wanted: dict[str, Any], tree: Any, disks: dict[str, tuple[str, str]]) -> Any:
    """Return the checkpoint that the next incremental backup builds on."""
    mark = _xml.new("domaincheckpoint")
    _xml.put(mark, "name", _point(wanted["domain"], wanted["name"]))
    for target in _targets(tree):
        bitmap = _xml.add(mark, "disks/disk")
        bitmap.set("name", target)
        bitmap.set("checkpoint", "bitmap" if target in disks and disks[target][1] == "qcow2" else "no")
    return mark


def _targets(tree: Any) -> list[str]:
    return [str(_xml.get(disk, "target/@dev")[0]) for disk in _xml.find_all(tree, "devices/disk")]


def _directory_of(domain: Any) -> str:
    """Return the directory of a running guest that its QEMU, another user under the host's rules, may make a socket in."""
    with told("cannot read the guest"):
        found = glob.glob(f"{GUESTS}/domain-{domain.ID()}-*")
    if not found:
        raise KvmError(f"mode: the guest has no directory below {GUESTS} to pull through; use mode: push")
    return found[0]


def _pull(domain: Any, socket: str, top: str, draft: str, disks: dict[str, tuple[str, str]], parent: str | None) -> None:
    """Copy what QEMU hands over the socket as of that moment; of an incremental backup what is not in its parent."""
    try:
        for target in disks:
            path, handed = os.path.join(draft, f"{target}.qcow2"), f"nbd+unix:///{target}?socket={socket}"
            if parent is None:
                image.convert(handed, "raw", path, "qcow2")
            else:
                image.differences(handed, archive.image_of(top, parent, target), path)
    finally:
        _end(domain)


def _end(domain: Any) -> None:
    """End a backup; one that is pulled has no other end."""
    with told("cannot end the backup"):
        domain.abortJob()
        deadline = time.monotonic() + agent.STILL_S
        while domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
            if time.monotonic() > deadline:
                raise KvmError(f"the backup does not end within {agent.STILL_S} s")
            time.sleep(0.1)


def _end_leftover(domain: Any, top: str) -> None:
    """End what a task that was killed began: nobody waits for it. The backup of somebody else is left alone."""
    try:
        order = _xml.parse(domain.backupGetXMLDesc(0))
    except libvirt.libvirtError:
        return  # there is none
    files = [str(one.get("file")) for one in _xml.find_all(order, "disks/disk/target")]
    pulled = str(_xml.get(order, "server/@socket")[0] or "").endswith(f"/{SOCKET}")
    if pulled or any(file.startswith(os.path.join(top, archive.DRAFT)) for file in files):
        _end(domain)


def _point(domain: str, name: str) -> str:
    return f"anfitrion-{domain}-{name}"


def forget_point(domain: Any, name: str) -> None:
    """Take the checkpoint of a backup out of its guest, if it is there."""
    try:
        domain.checkpointLookupByName(_point(domain.name(), name), 0).delete(0)
    except libvirt.libvirtError:
        return  # there is none, or nobody to ask: the next task does it


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
