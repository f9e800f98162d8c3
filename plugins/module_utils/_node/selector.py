# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI devices by what they are, not by where they are: another card in the host moves addresses and names."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import pci, pf, serial_numbers, vfio_boot
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

CLASSES = {
    "storage": "0x01", "nvme": "0x0108", "network": "0x02", "display": "0x03", "audio": "0x0403", "usb": "0x0c03",
    "accelerator": "0x12",
}  # fmt: skip


def select(root: Root, wanted: dict[str, Any]) -> list[str]:
    """Return the addresses of the devices that a selector means.

    Raises KvmError when there is none, or more than one without C(every).
    """
    asked = {name: value for name, value in wanted.items() if name != "every"}
    if not asked:
        raise KvmError("select: says nothing; give id, class, driver, numa_node, pf, index, serial or mac")
    told = ", ".join(f"{name} {value}" for name, value in asked.items())
    found = _virtual(root, asked) if "pf" in asked else root.list(pci.DEVICES)
    found = [address for address in found if _fits(root, address, asked)]
    if not found:
        raise KvmError(f"select: no PCI device of this host has {told}")
    if len(found) > 1 and not wanted.get("every"):
        raise KvmError(f"select: {len(found)} devices have {told}: {', '.join(found)}; say more, or every: true")
    return found


def _virtual(root: Root, asked: dict[str, Any]) -> list[str]:
    """Return the VFs of a PF, or the one of an index; the PF itself is not among them."""
    address = pf.resolve_pf(root, {"pf": asked["pf"]})
    vfs = pf.virtual_functions(root, address)
    if "index" not in asked:
        return vfs
    if asked["index"] >= len(vfs):
        raise KvmError(f"select.index: {asked['pf']} has {len(vfs)} VFs, no VF {asked['index']}")
    return [vfs[asked["index"]]]


def _fits(root: Root, address: str, asked: dict[str, Any]) -> bool:
    tests: dict[str, Callable[[Any], bool]] = {
        "id": lambda value: vfio_boot.ids(root, address).replace("0x", "") == value,
        "class": lambda value: (root.read(pci.path(address, "class")) or "").startswith(str(CLASSES.get(value, value))),
        "driver": lambda value: value in _drivers(root, address),
        "numa_node": lambda value: root.number(pci.path(address, "numa_node")) == value,
        "serial": lambda value: value in (*serial_numbers.serials(root, address), *vfio_boot.recalled(root, address).get("serials", [])),
        "mac": lambda value: value in _macs(root, address),
    }
    return all(tests[name](value) for name, value in asked.items() if name in tests)


def _drivers(root: Root, address: str) -> list[str]:
    """Return the driver of a device; while vfio-pci holds it the one that it had, or those that would claim it."""
    if not pci.held_by_vfio(root, address):
        return [pci.driver(root, address) or ""]
    before = vfio_boot.recalled(root, address).get("driver")
    if before:
        return [before]
    names = root.run(["modprobe", "--resolve-alias", root.read(pci.path(address, "modalias")) or ""]).out.split()
    return [spelling for name in names for spelling in (name, name.replace("_", "-"))]


def _macs(root: Root, address: str) -> list[str | None]:
    told = [root.read(f"/sys/class/net/{name}/address") for name in root.list(pci.path(address, "net"))]
    return [*told, vfio_boot.recalled(root, address).get("mac")]
