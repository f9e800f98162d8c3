# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks with other images on top of the declared one, as external snapshots leave them.

To go back to the image below would lose all that was written since, and writing to it would spoil the images above. So a
guest keeps what it has as long as that lies on what is declared.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import file_named, file_of_disk, is_same_file
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.chain import chain_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.devices import DISK_SOURCES

SOURCES = (*DISK_SOURCES, "format")


def keep(session: Libvirt, wanted: dict[str, Any], current: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the options without the images that the guest's present ones lie on, and what to tell of them."""
    present, warnings, disks = _disks(current), [], []
    for disk in wanted["disks"]:
        asked = file_named(session, disk.get("path") or disk.get("block"), disk.get("pool"), disk.get("volume"))
        there = present.get(disk["target"]) if disk.get("state") != "absent" else None
        kept = there is not None and _lies_on(session, there, asked)
        warnings += [_told(session, there, asked)] if kept else []
        disks.append({name: value for name, value in disk.items() if not kept or name not in SOURCES})
    return {**wanted, "disks": disks}, warnings


def keep_in(session: Libvirt, target: Any, current: Any) -> list[str]:
    """Write the images that the guest has into a definition that names what they lie on; return what to tell of them."""
    present, warnings = _disks(current), []
    for name, disk in _disks(target).items():
        asked, there = file_of_disk(session, disk), present.get(name)
        if there is None or not _lies_on(session, there, asked):
            continue
        warnings.append(_told(session, there, asked))
        disk.set("type", there.get("type"))
        kind = _xml.get(there, "driver/@type")[0]
        for tag in ("source", "backingStore"):
            for one in disk.findall(tag):
                disk.remove(one)
            disk.extend(map(_xml.copy, there.findall(tag)))
        if kind:
            _xml.put(disk, "driver/@type", kind)
    return warnings


def _told(session: Libvirt, disk: Any, asked: str) -> str:
    name = _xml.get(disk, "target/@dev")[0]
    return f"disks[{name}]: {asked} has other images on top, of which {file_of_disk(session, disk)} is the uppermost; the guest keeps them"


def _disks(tree: Any) -> dict[str, Any]:
    return {str(_xml.get(disk, "target/@dev")[0]): disk for disk in _xml.find_all(tree, "devices/disk")}


def _lies_on(session: Libvirt, disk: Any, asked: str) -> bool:
    """Tell whether a file is one of those below that of a disk."""
    here = file_of_disk(session, disk)
    if not here or not asked or is_same_file(session, here, asked):
        return False
    if _xml.get(disk, "driver/@type")[0] != "qcow2":
        return False  # what a guest writes into a raw image is not taken for the header of another kind
    below = chain_of(here) if session.on_this_host else _below(session, here)
    return any(is_same_file(session, one, asked) for one in below)


def _below(session: Libvirt, path: str) -> list[str]:
    """Return what the volumes of another host's pools tell of what is below an image."""
    found: list[str] = []
    while path and path not in found:
        try:
            volume = _xml.parse(session.connection.storageVolLookupByPath(path).XMLDesc(0))
        except libvirt.libvirtError:
            break  # of no pool
        path = str(_xml.get(volume, "backingStore/path")[0] or "")
        found += [path] if path else []
    return found
