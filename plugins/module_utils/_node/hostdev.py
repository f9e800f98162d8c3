# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's side of devices for guests: what it takes to have one as wanted, and what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import PCI
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import driver, others, pci, pf, port, selector, sriov, sriov_boot, usb
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import Part, joined
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.users import Guests, Users, with_ledger
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.vfio_boot import VFIO
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan

# Other programs that make VFs themselves (file name pattern: text); two of them would take turns
RIVALS = (
    ("/etc/systemd/network", ".link", "SR-IOVVirtualFunctions="),
    ("/etc/NetworkManager/system-connections", "", "[sriov]"),
    ("/etc/netplan", ".yaml", "virtual-function-count"),
)


@dataclass(frozen=True)
class Devices:
    """The host; the devices that this task hands to vfio-pci; who holds a device, as it is when asked; what libvirt knows."""

    root: Root
    requested: frozenset[str]
    users: Callable[[], Users]
    guests: Guests

    def close(self) -> None:
        self.root.close()


def requested(root: Root, params: Mapping[str, Any]) -> frozenset[str]:
    """Return the addresses that a task hands to vfio-pci: an IOMMU group is given as a whole.

    What is no address, or selects nothing, is told later, with its entry.
    """
    defaults = params.get("defaults") or {}
    found: set[str] = set()
    for entry in [*(params.get("devices") or []), params]:
        if entry.get("driver", defaults.get("driver")) != VFIO:
            continue
        try:
            if entry.get("address"):
                found.add(PCI.normal(entry["address"]))
            elif entry.get("select"):
                found.update(selector.select(root, {k: v for k, v in entry["select"].items() if v is not None}))
        except (ValueError, KvmError):
            continue
    return frozenset(found)


def plan(devices: Devices, wanted: dict[str, Any]) -> Plan:
    """Return what it takes that a device, or all that a selector means, is as wanted; writes nothing."""
    if "select" not in wanted:
        name = wanted.get("pf") or wanted.get("address")
        if name is None:
            raise KvmError("give pf, address or select: it says which device")
        return joined(f"device {name}", _parts(devices, wanted))
    if "pf" in wanted or "address" in wanted:
        raise KvmError("select: stands in the place of pf and address; give one of them")
    rest = {name: value for name, value in wanted.items() if name != "select"}
    try:
        found = selector.select(devices.root, wanted["select"])
    except KvmError as error:
        if not devices.root.check:
            raise
        return joined("device", [Part(warnings=(f"{error}; an earlier task may make it",))])
    parts = [part for address in found for part in _parts(devices, {**rest, "address": address})]
    return joined(f"device {', '.join(found)}", parts, addresses=found)


def _parts(devices: Devices, wanted: dict[str, Any]) -> list[Part]:
    """Return what it takes that one device is as wanted."""
    root = devices.root
    sriov_asked = any(name in wanted for name in ("pf", "vfs", "up"))
    if "driver" in wanted and "address" not in wanted:
        raise KvmError("driver: needs address or select; an interface has no name while vfio-pci holds it")
    if "driver" in wanted and sriov_asked:
        raise KvmError("driver: give it in an entry of its own; a device in the hands of vfio-pci has no interface and no VFs")
    allowed = bool(wanted.get("allow_disruption"))
    if wanted.get("state") == "absent":
        return _absent(devices, wanted)
    if "driver" in wanted:
        address = wanted["address"]
        if wanted["driver"] == VFIO:
            _refuse_declared_vfs(root, address)
        return [driver.part(root, address, wanted["driver"], devices.requested, devices.users(), allowed)]
    if not sriov_asked:
        return []
    address = pf.resolve_pf(root, wanted)
    if "vfs" in wanted:
        _refuse_rivals(root)
    return [sriov.part(root, address, wanted, devices.users(), devices.guests)]


def _absent(devices: Devices, wanted: dict[str, Any]) -> list[Part]:
    """Return what it takes that a PF has no VFs, or a device its own driver, and nothing is done at boot."""
    root, users = devices.root, devices.users()
    is_pf = wanted.get("pf") or root.exists(pci.path(wanted["address"], "sriov_totalvfs"))
    if not is_pf and root.exists(pci.path(wanted["address"])):
        return [driver.part(root, wanted["address"], "native", frozenset(), users)]
    if not wanted.get("pf") and pci.held_by_vfio(root, wanted["address"]):
        return [driver.part(root, wanted["address"], "native", frozenset(), users)]
    names = ("name",) if wanted.get("pf") else ("address",)
    kept = {key: boot for key, boot in sriov_boot.every(root).items() if getattr(boot, names[0]) == (wanted.get("pf") or wanted["address"])}
    try:
        address = pf.resolve_pf(root, wanted)
    except KvmError:
        if not kept:
            raise
        return [sriov_boot.part(root, key, boot, None) for key, boot in kept.items()]  # the card is gone; so goes what we keep
    return [sriov.absent(root, address, wanted, users, devices.guests)]


def _refuse_declared_vfs(root: Root, address: str) -> None:
    for key, boot in sriov_boot.every(root).items():
        if boot.address == address and boot.count and not pci.held_by_vfio(root, address):
            raise KvmError(f"driver: the next boot makes {boot.count} VFs of {address} ({sriov_boot.file(key)}); state: absent removes them first")


def _refuse_rivals(root: Root) -> None:
    for directory, ending, text in RIVALS:
        for name in root.list(directory):
            if name.endswith(ending) and text in (root.text(f"{directory}/{name}") or ""):
                raise KvmError(f"vfs: {directory}/{name} makes VFs too ({text.strip('=[]')}); remove it there")


def read(devices: Devices, name: str | None) -> list[dict[str, Any]]:
    """Return every PF, and every device in the hands of vfio-pci, as the module takes them; or the one named."""
    root = devices.root
    functions = pf.physical_functions(root)
    ledger = devices.guests.ledger()
    held = with_ledger(devices.users(), ledger)
    found = []
    for address, interface in functions.items():
        if name in (None, address, interface) and not pci.held_by_vfio(root, address):
            found.append(_read_pf(root, port.observe(root, address, held, ledger), name is not None))
    for address in root.list(pci.DEVICES):
        taken = pci.held_by_vfio(root, address)
        if address == name if name else taken:
            if address in functions and not taken:
                continue
            told = {**pci.facts(root, address), "in_use_by": held(address), "defined_in": [*ledger.stopped.get(address, ())]}
            radius = driver.blast_radius(root, address) if name else {}
            found.append({"address": address, "driver": VFIO if taken else "native", "facts": {**told, **radius}})
    return found


def _read_pf(root: Root, one: port.Port, closely: bool) -> dict[str, Any]:
    """Return a PF with its ledger: every VF with its user among running guests, stopped ones, networks and the host."""
    attributes = [{"index": index, **_stated(vf.attributes)} for index, vf in enumerate(one.vfs)]
    vfs = {"count": one.count, "autoprobe": one.autoprobe, "attributes": attributes}
    told = {
        **pci.facts(root, one.address),
        **(driver.blast_radius(root, one.address) if closely else {}),
        "address": one.address,
        "total_vfs": one.total,
        "networks": [network.name for network in one.networks],
        "vfs": [
            {
                "index": index, "address": vf.address, "in_use_by": [*vf.held, *vf.host], "defined_in": [*vf.stopped],
                **pci.facts(root, vf.address),
            }
            for index, vf in enumerate(one.vfs)
        ],
    }  # fmt: skip
    key = {"pf": one.name} if one.name else {"address": one.address}
    return {**key, "up": one.up, "vfs": {k: v for k, v in vfs.items() if v is not None}, "facts": told}


def _stated(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that the module takes: a MAC address of zeros is that of a VF that nobody gave one."""
    return {name: value for name, value in attributes.items() if value != port.UNSET["mac"]}


def facts(devices: Devices) -> dict[str, Any]:
    """Return whether an IOMMU is at work, and the devices that a guest gets in other ways: USB, block and mediated ones."""
    root = devices.root
    units, groups = root.list("/sys/class/iommu"), root.list("/sys/kernel/iommu_groups")
    iommu = {"active": bool(units and groups), "units": sorted(units), "groups": len(groups)}
    unknown = devices.guests.ledger().unknown
    return {"iommu": iommu, "ledger_unknown": unknown, "usb": usb.usb(root), "block": others.block(root), "mediated": others.mediated(root)}
