# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices that a guest gets without an IOMMU group of their own: USB, disks and partitions, mediated devices. Reads only."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import Size
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import needs, pci
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

NOT_FOR_GUESTS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd")


def block(root: Root) -> list[dict[str, Any]]:
    """Return the disks of the host with their partitions, paths that survive a new order of disks, and uses."""
    links: dict[str, list[str]] = {}
    for name in root.list("/dev/disk/by-id"):
        links.setdefault(root.link(f"/dev/disk/by-id/{name}") or "", []).append(f"/dev/disk/by-id/{name}")
    found = []
    for disk in root.list("/sys/block"):
        if disk.startswith(NOT_FOR_GUESTS) or needs.head(root, disk) != disk:
            continue
        parts = [one for one in root.list(f"/sys/block/{disk}") if root.exists(f"/sys/block/{disk}/{one}/partition")]
        facts = {**_block(root, disk, links), "serial": _serial(root, disk), "pci": _pci_of(root, disk)}
        found.append({**facts, "partitions": [_block(root, one, links) for one in parts]})
    return found


def _block(root: Root, name: str, links: dict[str, list[str]]) -> dict[str, Any]:
    sectors = root.number(f"/sys/class/block/{name}/size") or 0
    return {
        "path": f"/dev/{name}", "by_id": links.get(name, []), "size": Size.words(sectors * 512),
        "host_needs": needs.block_uses(root, name),
    }  # fmt: skip


def _serial(root: Root, disk: str) -> str | None:
    return root.read(f"/sys/block/{disk}/serial") or root.read(f"/sys/block/{disk}/device/serial")


def _pci_of(root: Root, disk: str) -> str | None:
    """Return the PCI device that a disk hangs on, the nearest one; None where it hangs on several, or on none."""
    ways = {_nearest(root, one) for one in root.list("/sys/block") if needs.head(root, one) == disk} - {None}
    return ways.pop() if len(ways) == 1 else None


def _nearest(root: Root, disk: str) -> str | None:
    target = (root.target(f"/sys/block/{disk}") or "").split("/")
    return next((word for word in reversed(target) if root.exists(pci.path(word)) and word.count(":") == 2), None)


def mediated(root: Root) -> list[dict[str, Any]]:
    """Return the kinds of mediated device that the host's devices can make, and how many more of each."""
    found = []
    for parent in root.list("/sys/class/mdev_bus"):
        place = f"/sys/class/mdev_bus/{parent}/mdev_supported_types"
        for kind in root.list(place):
            told = {"parent": parent, "type": kind, "name": root.read(f"{place}/{kind}/name")}
            found.append({**told, "available": root.number(f"{place}/{kind}/available_instances"), "uuids": root.list(f"{place}/{kind}/devices")})
    return found
