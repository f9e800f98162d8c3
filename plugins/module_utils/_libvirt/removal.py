# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage that goes with a guest: named disks only, and none that is anybody else's in any way."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import images_above
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import all_sources
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step


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
        if guest != name and (running | kept) & names:
            raise KvmError(f"{option}: {path} is used by the domain {guest!r} too, itself or as backing of its disk")
    above = images_above(session, path)
    if above:
        raise KvmError(f"{option}: {path} is the backing of {', '.join(above)}, which would lose its data; delete that first")


def _delete_step(target: str, volume: Any, path: str) -> Step:
    def delete() -> None:
        with told(f"remove_storage[{target}]: cannot delete {path}"):
            volume.delete(0)

    return Step(f"delete {path}", delete)
