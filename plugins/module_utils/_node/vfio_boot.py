# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices that the next boot hands to vfio-pci: udev rules, and what a device was like before it was handed over."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import pci, serial_numbers
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import Part, file_part, persisted_changes
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root

VFIO = "vfio-pci"
RULES = "/etc/udev/rules.d/60-anfitrion-vfio.rules"
SCRIPT = "/usr/local/lib/anfitrion/vfio-bind"
DRIVERCTL = "/etc/driverctl.d"
# At boot the device may be bound already (driver in the initramfs, VF made late), so the rule alone is not enough.
SCRIPT_TEXT = f"""#!/bin/sh
{HEADER}# usage: vfio-bind PCI-ADDRESS: hands the device to vfio-pci
device=/sys/bus/pci/devices/$1
modprobe vfio-pci
[ "$(basename "$(readlink "$device/driver")")" = vfio-pci ] && exit 0
echo vfio-pci > "$device/driver_override"
[ -e "$device/driver" ] && echo "$1" > "$device/driver/unbind"
echo "$1" > /sys/bus/pci/drivers_probe
[ "$(basename "$(readlink "$device/driver")")" = vfio-pci ]
"""

Record = dict[str, Any]  # ids; and of before vfio-pci took it: driver, serials, mac


def persisted(root: Root) -> dict[str, Record]:
    """Return the devices that the next boot hands to vfio-pci, with what they were like before."""
    lines = (root.text(RULES) or "").splitlines()
    rule = r'KERNEL=="([^"]+)", ATTR\{vendor\}=="([^"]+)", ATTR\{device\}=="([^"]+)"'
    found: dict[str, Record] = {}
    for before, line in zip(["", *lines], lines):
        match = re.search(rule, line)
        if match:
            told = json.loads(before.split(" ", 2)[2]) if before.startswith(f"# {match[1]} ") else {}
            found[match[1]] = {**told, "ids": f"{match[2]}:{match[3]}"}
    return found


def rules_text(devices: dict[str, Record]) -> str:
    """Return udev rules for the devices: address, and vendor and device id, since addresses move with other cards."""
    text = HEADER
    for address, record in sorted(devices.items()):
        vendor, device = record["ids"].split(":")
        told = json.dumps({name: value for name, value in record.items() if name != "ids"}, sort_keys=True)
        text += (
            f"# {address} {told}\n"
            f'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="{address}", ATTR{{vendor}}=="{vendor}", '
            f'ATTR{{device}}=="{device}", ATTR{{driver_override}}="{VFIO}", RUN+="/bin/sh {SCRIPT} {address}"\n'
        )
    return text


def ids(root: Root, address: str) -> str:
    return ":".join(root.read(pci.path(address, name)) or "" for name in ("vendor", "device"))


def recalled(root: Root, address: str) -> Record:
    """Return what was written down of a device that vfio-pci now holds; nothing if another is at its address."""
    record = persisted(root).get(address, {})
    return record if record.get("ids") == ids(root, address) else {}


def _record(root: Root, address: str) -> Record:
    if pci.held_by_vfio(root, address):
        return {**recalled(root, address), "ids": ids(root, address)}
    told: Record = {"ids": ids(root, address), "driver": pci.driver(root, address), "serials": serial_numbers.serials(root, address)}
    names = pci.interfaces(root, address)
    if names:
        told["mac"] = root.read(f"/sys/class/net/{names[0]}/address")
    return {name: value for name, value in told.items() if value}


def part(root: Root, address: str, wanted: bool) -> Part:
    """Return what it takes that the next boot hands a device to vfio-pci, or does not."""
    before = persisted(root)
    after = {key: value for key, value in before.items() if key != address}
    if wanted:
        _refuse_rivals(root, address)
        after[address] = before[address] if recalled(root, address) else _record(root, address)
        # The card itself, at the address that it had before another card came.
        mine = set(after[address].get("serials", []))
        after = {at: one for at, one in after.items() if at == address or not mine & set(one.get("serials", []))}
    told = persisted_changes("driver ", _shown(before), _shown(after))
    script = file_part(root, SCRIPT, SCRIPT_TEXT if after else None, mode=0o755)
    rules = file_part(root, RULES, rules_text(after) if after else None, told)
    return Part((*script.changes, *rules.changes), (*script.steps, *rules.steps))


def _shown(devices: dict[str, Record]) -> dict[str, str]:
    return {address: f"{VFIO} ({record['ids']})" for address, record in devices.items()}


def _refuse_rivals(root: Root, address: str) -> None:
    """Raise KvmError when another program binds the device at boot: two of them would take turns."""
    file = f"{DRIVERCTL}/pci-{address}"
    if root.exists(file):
        raise KvmError(f"driver: {file} binds it to {root.read(file)} too; driverctl unset-override {address} removes that")
    sources = {"/proc/cmdline": root.read("/proc/cmdline") or ""}
    sources.update({f"/etc/modprobe.d/{name}": root.text(f"/etc/modprobe.d/{name}") or "" for name in root.list("/etc/modprobe.d")})
    mine = ids(root, address).replace("0x", "")
    for path, text in sources.items():
        if any(mine in found for found in re.findall(r"^[^#\n]*vfio[-_]pci(?:\.| +)ids=(\S+)", text, re.MULTILINE)):
            raise KvmError(f"driver: {path} hands every {mine} to vfio-pci by vfio-pci.ids; remove it there")
