# SPDX-License-Identifier: GPL-3.0-or-later
"""Serial numbers that tell one PCI device from another like it. Reads only."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import pci
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root


def serials(root: Root, address: str) -> list[str]:
    """Return the serial numbers that a device tells: of its NVMe controller or disk, and the PCIe Device Serial Number."""
    found = [root.read(pci.path(address, "nvme", name, "serial")) for name in root.list(pci.path(address, "nvme"))]
    found.append(_device_serial_number(root, address))
    return [serial for serial in found if serial]


def _device_serial_number(root: Root, address: str) -> str | None:
    """Return the serial number of the extended capability 3, as lspci(8) prints it; only root can read that far."""
    try:
        with open(root.at(pci.path(address, "config")), "rb") as stream:
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
