# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices that a guest would take from its host although the host cannot do without them: libvirt takes them unasked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import needs, pci, usb
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root


def refuse_needed(root: Root, wanted: dict[str, Any], changed: set[str]) -> None:
    """Raise KvmError for a device of the host that a guest newly gets and the host needs, with all reasons.

    changed: dotted options that will change; what a guest has already is not asked about again.
    """
    reasons = [f"{option}: {reason}" for option, reason in _reasons(root, wanted, changed)]
    if reasons:
        raise KvmError(f"{'; '.join(reasons)}; free it first")


def _reasons(root: Root, wanted: dict[str, Any], changed: set[str]) -> Iterator[tuple[str, str]]:
    given = {device["address"] for device in _present(wanted, "hostdevs")}
    for device in _present(wanted, "hostdevs"):
        option = f"hostdevs[{device['address']}]"
        if option in changed and not pci.held_by_vfio(root, device["address"]):
            yield from ((option, f"the host needs it: {need}") for need in needs.host_needs(root, device["address"]))
            if pci.is_bridge(root, device["address"]):
                yield option, "it is a PCI bridge, or the host's own"
            yield from ((option, reason) for reason in pci.foreign(root, device["address"], given))
    for nic in _present(wanted, "interfaces"):
        option = f"interfaces[{nic.get('name') or nic.get('mac')}]"
        if "vf_address" in nic and {option, f"{option}.vf_address"} & changed:
            known = needs.addresses(root)
            yield from ((option, f"the host uses {use}") for use in needs.host_uses_vf(root, nic["vf_address"], known))
    for disk in _present(wanted, "disks"):
        option = f"disks[{disk['target']}]"
        name = needs.block_name(root, disk["block"]) if "block" in disk and {option, f"{option}.block"} & changed else None
        if name and not (disk.get("readonly") or disk.get("shareable")):
            yield from ((option, f"{disk['block']} is {use}") for use in needs.block_uses(root, name))
    if any(option.startswith("usb_hostdevs[") for option in changed):
        devices, here = _present(wanted, "usb_hostdevs"), usb.usb(root)
        for one in (one for one in here if any(_same(one, device) for device in devices)):
            yield from (("usb_hostdevs", f"the host needs {one['vendor']}:{one['product']}: {need}") for need in one["host_needs"])


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Tell whether a USB device is the one that an item means, by what it is or by where it is."""
    return all(found[word] == wanted[word] for word in ("vendor", "product", "bus", "device") if word in wanted)


def _present(wanted: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [item for item in wanted.get(kind) or [] if item.get("state") != "absent"]
