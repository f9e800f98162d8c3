# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver holds a PCI device: driver_override, never new_id (kernel: driver-api/vfio.rst, ABI sysfs-bus-pci)."""

from __future__ import annotations

from functools import partial

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import pci, vfio_boot
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.needs import host_needs, is_screen
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.users import Users
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.vfio_boot import VFIO
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step


def part(root: Root, address: str, wanted: str, requested: frozenset[str], users: Users, allowed: bool = False) -> Part:
    """Return what it takes that a device is held by vfio-pci, or by its native driver, now and after a reboot.

    C(requested): the devices that the same task hands to vfio-pci; a group is given as a whole.
    C(allowed): the screen that the host booted with may go too.
    """
    if not root.exists(pci.path(address)):
        if root.check:
            return Part(warnings=(f"driver: there is no PCI device {address} yet",))
        raise KvmError(f"address: there is no PCI device {address}")
    now = pci.driver(root, address)
    override = (root.read(pci.path(address, "driver_override")) or "").replace("(null)", "")
    steps: list[Step] = []
    changes: list[Change] = []
    fits = now == VFIO and override == VFIO if wanted == VFIO else not override and not pci.held_by_vfio(root, address)
    if not fits:
        if wanted == VFIO and now != VFIO:
            check_viable(root, address, requested, allowed)
        held = users(address)
        if held and now != wanted:
            raise KvmError(f"driver: {address} is held by {', '.join(held)}; stop it first")
        changes.append(Change("driver", now, wanted, LIVE))
        before = override or None
        do = partial(_hand_over, root, address, VFIO if wanted == VFIO else None, before)
        steps.append(Step(f"bind {address} to {wanted}", do, partial(bind, root, address, before)))
    kept = vfio_boot.part(root, address, wanted == VFIO)
    return Part((*changes, *kept.changes), (*steps, *kept.steps), warnings=_warnings(root, address, wanted))


def check_viable(root: Root, address: str, requested: frozenset[str], allowed: bool = False) -> None:
    """Raise KvmError unless a device can be taken from the host: IOMMU group, its members, and what the host needs."""
    if pci.is_bridge(root, address):
        raise KvmError(f"driver: {address} is a PCI bridge, or the host's own; give the devices behind it")
    if pci.group(root, address) is None:
        raise KvmError(f"driver: {address} has no IOMMU group; switch the IOMMU on in the firmware, and intel_iommu=on for Intel")
    for reason in pci.foreign(root, address, requested):
        raise KvmError(f"driver: {reason}")
    reasons = host_needs(root, address)
    if is_screen(root, address) and not allowed:
        reasons.append("it is the screen that the host booted with (allow_disruption: true gives it all the same)")
    if reasons:
        raise KvmError(f"driver: {address} is in use by the host: {', '.join(reasons)}; free it first")


def blast_radius(root: Root, address: str) -> dict[str, object]:
    """Return what goes from the host with a device: the others of its group, what the host does with them, why it must stay."""
    members = [one for one in pci.group_members(root, address) if not pci.leaves_alone(root, one)]
    needs = [need for one in (address, *members) for need in host_needs(root, one)]
    try:
        check_viable(root, address, frozenset(members))
        refused = None
    except KvmError as error:
        refused = str(error)
    return {"group": members, "host_needs": needs, "boot_screen": is_screen(root, address), "refused": refused}


def _hand_over(root: Root, address: str, override: str | None, before: str | None) -> None:
    """Hand a device to a driver, or leave it with the one that it had."""
    try:
        bind(root, address, override)
    except KvmError:
        bind(root, address, before)
        raise


def bind(root: Root, address: str, override: str | None) -> None:
    """Hand a device to a driver (None: to the one that claims it) and check that it came there.

    The return code of drivers_probe tells nothing.
    """
    if override == VFIO and not root.exists("/sys/bus/pci/drivers/vfio-pci"):
        root.must_run(["modprobe", VFIO])
    root.write(pci.path(address, "driver_override"), f"{override or ''}\n")
    if pci.driver(root, address) not in (None, override):
        root.write(pci.path(address, "driver", "unbind"), address)
    root.write("/sys/bus/pci/drivers_probe", address)
    found = pci.driver(root, address)
    if override is not None and found != override:
        raise KvmError(f"driver: {address} is bound to {found}, not to {override}")
    if override is None and pci.held_by_vfio(root, address):
        raise KvmError(f"driver: {address} is still held by {found}")


def _warnings(root: Root, address: str, wanted: str) -> tuple[str, ...]:
    warnings = []
    if wanted == VFIO and not root.read(pci.path(address, "reset_method")):
        warnings.append(f"driver: {address} has no reset method; a guest may find it as the one before it left it")
    unsafe = root.read("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
    if unsafe in ("Y", "1"):
        warnings.append("driver: vfio runs in the unsafe mode without an IOMMU; guests can read all memory of the host")
    return tuple(warnings)
