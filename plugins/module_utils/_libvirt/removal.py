# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage that goes with a guest: named disks only, and none that is anybody else's in any way."""

from __future__ import annotations

import os
import struct
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import all_sources
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

DEEPEST = 64  # of a backing chain that is followed
QCOW2 = b"QFI\xfb"


def storage_steps(session: Libvirt, name: str, tree: Any, targets: list[str]) -> tuple[list[Change], list[Step]]:
    """Return the steps that delete the named disks of a guest, for after its definition is gone.

    Raises KvmError before anything is done when one is read-only, shared, used by another guest, below another image, or
    in no pool of this host.
    """
    changes, steps = [], []
    disks = {_xml.get(disk, "target/@dev")[0]: disk for disk in _xml.find_all(tree, "devices/disk")}
    for target in targets:
        option = f"remove_storage[{target}]"
        disk = disks.get(target)
        if disk is None:
            raise KvmError(f"{option}: the guest has no such disk; it has {', '.join(sorted(map(str, disks))) or 'none'}")
        volume, path = _volume_of(session, option, disk)
        _refuse_others(session, option, name, volume, path)
        changes.append(Change(f"disks[{target}].storage", path, None, "remove"))
        steps.append(_delete_step(target, volume, path))
    return changes, steps


def _volume_of(session: Libvirt, option: str, disk: Any) -> tuple[Any, str]:
    """Return the volume that a disk lies on and its path. Raises KvmError when it is not the guest's own to lose."""
    if disk.get("device") in ("cdrom", "floppy") or _xml.find(disk, "readonly") is not None:
        raise KvmError(f"{option}: it is read-only, so it is not the guest's own; delete it by its volume")
    if _xml.find(disk, "shareable") is not None:
        raise KvmError(f"{option}: it is shareable, so it may be another's too; delete it by its volume")
    source = _xml.find(disk, "source")
    place = {} if source is None else source.attrib
    path = place.get("file") or place.get("dev")
    try:
        if place.get("pool") and place.get("volume"):
            volume = session.pools()[place["pool"]].storageVolLookupByName(place["volume"])
        elif path:
            volume = session.connection.storageVolLookupByPath(path)
        else:
            raise KvmError(f"{option}: it lies on no volume of this host")
        return volume, str(volume.path())
    except (KeyError, libvirt.libvirtError):
        where = path or f"{place.get('pool')}/{place.get('volume')}"
        raise KvmError(f"{option}: no active pool of this host holds {where}, so it is foreign and stays; delete it by hand") from None


def _refuse_others(session: Libvirt, option: str, name: str, volume: Any, path: str) -> None:
    with told(f"{option}: cannot read its pool"):
        names = {(volume.storagePoolLookupByVolume().name(), volume.name()), ("", os.path.realpath(path))}
    for guest, (running, kept) in sorted(all_sources(session).items()):
        if guest != name and ((running | kept) & names or _below(session, kept, path)):
            raise KvmError(f"{option}: {path} is used by the domain {guest!r} too, itself or as backing of its disk")
    above = _images_above(session, path)
    if above:
        raise KvmError(f"{option}: {path} is the backing of {', '.join(above)}, which would lose its data; delete that first")


def _below(session: Libvirt, sources: frozenset[tuple[str, str]], path: str) -> bool:
    """Tell whether a path is in the backing chain of any of the images of a guest that may not run."""
    if not session.on_this_host:
        return False
    real = os.path.realpath(path)
    return any(real in chain_of(file) for owner, file in sources if not owner)


def _images_above(session: Libvirt, path: str) -> list[str]:
    """Return the volumes, of any active pool, that have a path as their backing."""
    found = []
    with told("cannot read the volumes of the pools"):
        for pool in session.pools().values():
            for other in pool.listAllVolumes(0) if pool.isActive() else ():
                backing = _xml.get(_xml.parse(other.XMLDesc(0)), "backingStore/path")[0]
                if backing and os.path.realpath(backing) == os.path.realpath(path):
                    found.append(other.path())
    return sorted(found)


def chain_of(path: str) -> list[str]:
    """Return the files that a qcow2 image lies upon, nearest first, as its headers name them."""
    found: list[str] = []
    while len(found) < DEEPEST:
        below = _backing_in_header(path)
        if below is None or below in found:
            break
        found.append(below)
        path = below
    return found


def _backing_in_header(path: str) -> str | None:
    """Return the backing file that the header of a qcow2 image names (docs/interop/qcow2 of QEMU: bytes 0 to 20)."""
    try:
        with open(path, "rb") as file:
            header = file.read(20)
            if len(header) < 20 or header[:4] != QCOW2:
                return None
            offset, size = struct.unpack(">QI", header[8:20])
            if not offset or not 0 < size < 1024:
                return None
            file.seek(offset)
            name = file.read(size).decode(errors="surrogateescape")
    except OSError:
        return None
    return os.path.realpath(os.path.join(os.path.dirname(path), name)) if not name.startswith("json:") else None


def _delete_step(target: str, volume: Any, path: str) -> Step:
    def delete() -> None:
        with told(f"remove_storage[{target}]: cannot delete {path}"):
            volume.delete(0)

    return Step(f"delete {path}", delete)
