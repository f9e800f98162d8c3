# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI devices as the kernel shows them in /sys/bus/pci/devices. Reads only."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
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


def uplink(root: Root, address: str) -> str | None:
    """Return the interface of a device itself: in switchdev mode those of its VFs (pf0vf1) hang below it too."""
    names = interfaces(root, address)
    return next((name for name in names if not re.search(r"pf\d+[vs]f\d+", _port_name(root, name))), None)


def _port_name(root: Root, name: str) -> str:
    try:
        return root.read(f"/sys/class/net/{name}/phys_port_name") or ""
    except KvmError:
        return ""  # EOPNOTSUPP: most drivers have none


def renamed(root: Root, name: str) -> str | None:
    """Return the present name of the interface that has this one as an alternative name."""
    done = root.run(["ip", "-j", "link", "show", "dev", name])
    found: list[dict[str, Any]] = json.loads(done.out or "[]") if done.rc == 0 else []
    return found[0].get("ifname") if found else None


def physical_functions(root: Root) -> dict[str, str | None]:
    """Return the PCI address of every SR-IOV capable device and the name of its interface."""
    found: dict[str, str | None] = {}
    for address in root.list(DEVICES):
        if root.exists(path(address, "sriov_totalvfs")):
            found[address] = uplink(root, address)
    return found


def resolve_pf(root: Root, wanted: dict[str, Any]) -> str:
    """Return the PCI address of the physical function that an entry names. Raises KvmError that lists those there are."""
    functions = physical_functions(root)
    if wanted.get("pf") is not None:
        name = wanted["pf"]
        address = root.link(f"/sys/class/net/{name}/device")
        if address is None:
            address = root.link(f"/sys/class/net/{renamed(root, name) or name}/device")
        if wanted.get("address") not in (None, address) and address is not None:
            raise KvmError(f"pf: {name} is at {address}, not at {wanted['address']}; give one of them")
        fact = f"interface {name} does not exist" if address is None else f"{name} has no SR-IOV"
    else:
        address = name = wanted["address"]
        fact = f"{name} has no SR-IOV" if root.exists(path(name)) else f"there is no PCI device {name}"
    if address in functions:
        return str(address)
    has = ", ".join(f"{name} ({at})" if name else at for at, name in functions.items())
    raise KvmError(f"pf: {fact}; physical functions of this host: {has or 'none'}")


def virtual_functions(root: Root, address: str) -> list[str]:
    """Return the PCI addresses of the VFs of a PF, by index."""
    links = [name for name in root.list(path(address)) if re.fullmatch(r"virtfn\d+", name)]
    return [root.link(path(address, name)) or "" for name in sorted(links, key=lambda name: int(name[6:]))]


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


def serials(root: Root, address: str) -> list[str]:
    """Return the serial numbers that a device tells: of its NVMe controller or disk, and the PCIe Device Serial Number."""
    found = [root.read(path(address, "nvme", name, "serial")) for name in root.list(path(address, "nvme"))]
    found.append(_device_serial_number(root, address))
    return [serial for serial in found if serial]


def _device_serial_number(root: Root, address: str) -> str | None:
    """Return the serial number of the extended capability 3, as lspci(8) prints it; only root can read that far."""
    try:
        with open(root.at(path(address, "config")), "rb") as stream:
            config = stream.read()
    except OSError:
        return None
    at = 0x100
    while 0x100 <= at <= len(config) - 12:
        header = int.from_bytes(config[at : at + 4], "little")
        if header & 0xFFFF == 3:
            return "-".join(f"{byte:02x}" for byte in config[at + 4 : at + 12][::-1])
        at = header >> 20 if header >> 20 > at else 0
    return None


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
