# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI devices as the kernel shows them in /sys/bus/pci/devices. Reads only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

DEVICES = "/sys/bus/pci/devices"
BRIDGE = "0x0604"  # class of PCI bridges: they share the IOMMU group of what is behind them and keep their driver


def path(address: str, *rest: str) -> str:
    return "/".join((DEVICES, address, *rest))


def interfaces(root: Root, address: str) -> list[str]:
    """Return the network interfaces of a device that are in this network namespace.

    Also those further below it: a virtio NIC has its interface at virtioN/net, a USB controller at the end of a long path.
    """
    own = root.list(path(address, "net"))
    below = [name for name in root.list("/sys/class/net") if f"/{address}/" in (root.target(f"/sys/class/net/{name}") or "")]
    return own or below


def driver(root: Root, address: str) -> str | None:
    return root.link(path(address, "driver"))


def held_by_vfio(root: Root, address: str) -> bool:
    """Tell whether a device is bound to vfio-pci or one of its variants (mlx5_vfio_pci …)."""
    return "vfio" in (driver(root, address) or "")


def is_bridge(root: Root, address: str) -> bool:
    """Tell whether a device is a bridge of any kind, the host's own included: no guest can have it."""
    return (root.read(path(address, "class")) or "").startswith("0x06")


def group(root: Root, address: str) -> str | None:
    """Return the IOMMU group of a device; None without an IOMMU."""
    return root.link(path(address, "iommu_group"))


def group_members(root: Root, address: str) -> list[str]:
    """Return the other devices of the same IOMMU group."""
    return [one for one in root.list(path(address, "iommu_group", "devices")) if one != address]


def foreign(root: Root, address: str, requested: Collection[str]) -> list[str]:
    """Return why the IOMMU group of a device cannot be given as a whole: members that nobody asked for and that have a driver."""
    others = [one for one in group_members(root, address) if one not in requested and not leaves_alone(root, one)]
    told = ", ".join(f"{one} (class {root.read(path(one, 'class'))}, driver {driver(root, one)})" for one in others)
    return [f"IOMMU group {group(root, address)} also holds {told}; give all or none"] if others else []


def leaves_alone(root: Root, address: str) -> bool:
    """Tell whether a member of a group does not keep the others from VFIO: bridges, unbound or vfio's own."""
    bridge = (root.read(path(address, "class")) or "").startswith(BRIDGE)
    return bridge or driver(root, address) in (None, "pci-stub") or held_by_vfio(root, address)


def facts(root: Root, address: str) -> dict[str, Any]:
    """Return what there is to tell of any device."""
    node = root.number(path(address, "numa_node"))
    return {
        "class": root.read(path(address, "class")),
        "vendor": root.read(path(address, "vendor")),
        "device": root.read(path(address, "device")),
        "driver": driver(root, address),
        "iommu_group": group(root, address),
        "numa_node": node if node is not None and node >= 0 else None,  # -1: the firmware does not tell
        "interface": next(iter(interfaces(root, address)), None),
    }
