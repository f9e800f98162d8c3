# SPDX-License-Identifier: GPL-3.0-or-later
"""USB devices of the host, and what it does with them. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import needs
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

USB = "/sys/bus/usb/devices"


def usb(root: Root) -> list[dict[str, Any]]:
    """Return the USB devices that are no hubs, and what the host does with each."""
    found = []
    for name in root.list(USB):
        told = {word: root.read(f"{USB}/{name}/{word}") for word in ("idVendor", "idProduct", "busnum", "devnum", "bDeviceClass")}
        if not told["idVendor"] or told["bDeviceClass"] == "09":
            continue
        facts = {
            "port": name,
            "vendor": f"0x{told['idVendor']}",
            "product": f"0x{told['idProduct']}",
            "bus": int(told["busnum"] or 0),
            "device": int(told["devnum"] or 0),
            "serial": root.read(f"{USB}/{name}/serial"),
            "name": root.read(f"{USB}/{name}/product"),
            "drivers": sorted({root.link(f"{USB}/{name}/{one}/driver") or "" for one in root.list(f"{USB}/{name}") if ":" in one} - {""}),
            "host_needs": list(_usb_needs(root, name)),
        }
        found.append(facts)
    return found


def _usb_needs(root: Root, name: str) -> Iterator[str]:
    """Yield what the host does with what hangs on a USB device: disks, network interfaces."""
    place = f"{root.target(f'{USB}/{name}')}/"
    for disk in root.list("/sys/block"):
        if f"{root.target(f'/sys/block/{disk}')}/".startswith(place):
            yield from (f"{disk} is {use}" for use in needs.block_uses(root, disk))
    known: needs.Known = {}
    for nic in root.list("/sys/class/net"):
        if f"{root.target(f'/sys/class/net/{nic}')}/".startswith(place):
            known = known or needs.addresses(root)
            yield from needs.vital(root, nic, known)
            yield from (f"{nic} {use}" for use in needs.interface_uses(root, nic, known))
