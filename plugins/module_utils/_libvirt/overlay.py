# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that lie on others: what one holds of its own is committed or discarded, or the chain becomes one image."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.content import replace_step
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import Place, above, refresh
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import disks_with, users_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import image
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

JOB_DEADLINE_S = 12 * 3600


def flatten(session: Libvirt, place: Place, name: str, path: str, found: dict[str, Any]) -> tuple[list[Change], list[Step]]:
    """Return what it takes to have an image stand alone."""
    if "backing" not in found:
        return [], []
    disks = _only_disk(disks_with(session, place.name, name, path), "flatten")

    def pull() -> None:
        image.rebase(path, found["format"])
        refresh(session, place)

    def pull_live() -> None:
        guest, target = disks[0]
        with told(f"cannot copy what is below into the disk {target} of the running guest {guest}"):
            session.domains()[guest].blockPull(target, 0, 0)
        wait_for_job(session.domains()[guest], target)
        refresh(session, place)

    change = Change("flatten", found["backing"].get("path"), "stands alone", "live" if disks else "define")
    words = f" in the running guest {disks[0][0]}" if disks else ""
    return [change], [Step(f"copy what is below into volume {name}{words}", pull_live if disks else pull)]


def _only_disk(disks: list[tuple[str, str]], option: str) -> list[tuple[str, str]]:
    if len(disks) > 1:
        raise KvmError(f"{option}: {' and '.join(guest for guest, _target in disks)} share the volume; stop them first")
    return disks


def wait_for_job(domain: Any, target: str, until_ready: bool = False) -> None:
    """Wait for the block job of a disk: until it is over, or for a commit of the active image until both are in step."""
    deadline = time.monotonic() + JOB_DEADLINE_S
    while True:
        with told(f"cannot read the block job of {target}"):
            job = domain.blockJobInfo(target, 0)
            ready = bool(until_ready and job and _xml.find_all(_xml.parse(domain.XMLDesc(0)), "devices/disk/mirror[@ready='yes']"))
        if ready or (not job and not until_ready):
            return
        if not job:
            raise KvmError(f"the block job of {target} ended before it was done; see the log of the guest")
        if time.monotonic() > deadline:
            raise KvmError(f"the block job of {target} is not over after {JOB_DEADLINE_S} s; it goes on")
        time.sleep(0.2)


def settle(
    session: Libvirt, place: Place, name: str, path: str, found: dict[str, Any], verb: str
) -> tuple[list[Change], list[Step]]:
    """Return what it takes for an image to hold nothing of its own: C(verb) commit or discard."""
    if "backing" not in found:
        raise KvmError(f"changes: the volume has no backing that it could {verb} to")
    below = found["backing"]["path"]
    disks = _only_disk(disks_with(session, place.name, name, path), "changes")
    if not image.holds_changes(path, found["format"]):
        return [], []
    if verb == "discard":
        if disks:
            raise KvmError(f"changes: {disks[0][0]} runs with it; stop it before its changes are forgotten")
        step = _discard_step(session, place, name, path, found)
        return [Change("changes", "its own", "none", "define")], [step]
    _refuse_shared(session, place, name, path, below)
    if not disks:
        def commit() -> None:
            image.commit(path, found["format"])

        return [Change("changes", "its own", f"in {below}", "define")], [Step(f"write the changes of volume {name} into {below}", commit)]
    guest, target = disks[0]
    step = Step(
        f"write the changes of volume {name} into {below} in the running guest {guest}",
        lambda: _commit_live(session, guest, target, path, found),
    )
    return [Change("changes", "its own", f"in {below}", "live")], [step]


def _refuse_shared(session: Libvirt, place: Place, name: str, path: str, below: str) -> None:
    """Raise KvmError when another image or guest has what is below too: it would change under it."""
    mine = set(users_of(session, place.name, name, path).running) | set(users_of(session, place.name, name, path).defined)
    users = users_of(session, place.name, "", below)
    others = sorted((set(users.running) | set(users.defined)) - mine)
    others += [one for one in above(session, place, below) if one != name]
    if others:
        raise KvmError(f"changes: {below} is used by {', '.join(others)} too, and would change below it")


def _discard_step(session: Libvirt, place: Place, name: str, path: str, found: dict[str, Any]) -> Step:
    backing, size = found["backing"], image.info(path, found["format"])["virtual-size"]

    def fill(draft: str) -> None:
        image.create(draft, found["format"], size, ("-b", backing["path"], "-F", backing["format"]))

    return replace_step(f"forget the changes of volume {name}", path, fill, lambda: refresh(session, place))


def _commit_live(session: Libvirt, guest: str, target: str, path: str, found: dict[str, Any]) -> None:
    """Have a running guest go on with the image below, empty the image, and put it on top again."""
    domain, backing = session.domains()[guest], found["backing"]
    size = image.info(path, found["format"])["virtual-size"]
    with told(f"cannot commit the disk {target} of the running guest {guest}"):
        domain.blockCommit(target, None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    wait_for_job(domain, target, until_ready=True)
    with told(f"cannot have {guest} go on with {backing['path']}"):
        domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)

    def fill(draft: str) -> None:
        # The guest has the image below open: it is not looked at.
        image.create(draft, found["format"], size, ("-u", "-b", backing["path"], "-F", backing["format"]))

    replace_step("", path, fill).do()
    put_on_top(domain, {target: (path, found["format"])})


def put_on_top(domain: Any, files: dict[str, tuple[str, str]]) -> None:
    """Have the disks of a running guest write to images that lie on what they have now, and keep nothing of it as a snapshot."""
    tree = _xml.new("domainsnapshot")
    for target, (path, kind) in files.items():
        disk = _xml.add(tree, "disks/disk")
        for attribute, value in (("name", target), ("snapshot", "external"), ("type", "file")):
            disk.set(attribute, value)
        _xml.put(disk, "driver/@type", kind)
        _xml.put(disk, "source/@file", path)
    known = _xml.find_all(_xml.parse(domain.XMLDesc(0)), "devices/disk/target")
    for other in known:
        if other.get("dev") not in files:
            disk = _xml.add(tree, "disks/disk")
            disk.set("name", other.get("dev"))
            disk.set("snapshot", "no")
    flags = (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    )
    with told("cannot put the images on top"):
        domain.snapshotCreateXML(_xml.text_of(tree), flags)
