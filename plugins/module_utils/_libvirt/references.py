# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest's options name on its host: networks, pools, virtual functions, the limits of its machine."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.vf import vf_address, vf_role
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change


def resolve(session: Libvirt, wanted: dict[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the options with each vf as the PCI address that it now has, and warnings.

    In check mode a virtual function that an earlier task would make is a warning.
    """
    warnings: list[str] = []
    nics = []
    for nic in wanted.get("interfaces", []):
        vf = nic.get("vf")
        if vf is None or nic.get("state") == "absent":
            nics.append(nic)
            continue
        option = f"interfaces[{nic.get('name') or nic.get('mac')}].vf"
        try:
            address = vf_address(vf["pf"], vf["index"])
        except KvmError as error:
            raise error.about(option) from None
        resolved = {k: v for k, v in nic.items() if k != "vf"}
        if address is not None:
            resolved["vf_address"] = address
        elif session.check:
            warnings.append(f"{option}: {vf['pf']} has no virtual function {vf['index']} yet")
        else:
            raise KvmError(f"{option}: {vf['pf']} has no virtual function {vf['index']} now; make it with anfitrion.kvm.kvm_hostdev")
        nics.append(resolved)
    done = {**wanted, "interfaces": nics} if nics else wanted
    _check_devices(session, done, name)
    return done, warnings


def name_role(nic: dict[str, Any]) -> None:
    """Replace the PCI address of an interface by its role, where it is a virtual function of this host."""
    role = vf_role(nic["vf_address"]) if "vf_address" in nic else None
    if role is not None:
        del nic["vf_address"]
        nic["vf"] = role


def _check_devices(session: Libvirt, wanted: dict[str, Any], name: str) -> None:
    """Raise KvmError when a host device that is wanted is held by another running guest."""
    addresses = {
        nic["vf_address"]: f"interfaces[{nic.get('name') or nic.get('mac')}]"
        for nic in wanted.get("interfaces", [])
        if "vf_address" in nic and nic.get("state") != "absent"
    }
    addresses.update(
        {dev["address"]: f"hostdevs[{dev['address']}]" for dev in wanted.get("hostdevs", []) if dev.get("state") != "absent"}
    )
    if not addresses:
        return
    for other, handle in list(session.domains().items()):
        if other == name:
            continue
        with told("cannot read the other guests"):
            tree = _xml.parse(handle.XMLDesc(0)) if handle.isActive() else None
        for source in _host_addresses(tree) if tree is not None else []:
            if source in addresses:
                raise KvmError(f"{addresses[source]}: {source} is in use by the running domain {other!r}")


def _host_addresses(tree: Any) -> list[str]:
    holders = [*_xml.find_all(tree, "devices/hostdev[@type='pci']/source/address"), *_xml.find_all(tree, "devices/interface/source/address")]
    return [c.PCI.of_attributes(holder.attrib) for holder in holders]


def check(session: Libvirt, wanted: dict[str, Any], target: Any, changes: list[Change]) -> list[str]:
    """Raise KvmError for what the changes name and the host has not; in check mode that is a warning."""
    changed = {change.option for change in changes}
    lacking = []
    for place, nic in enumerate(wanted.get("interfaces", [])):
        option = f"interfaces[{nic.get('name') or nic.get('mac') or place}]"
        if _touched(option, changed) and "network" in nic and nic["network"] not in session.networks():
            lacking.append(f"{option}: network {nic['network']!r} does not exist; define it with anfitrion.kvm.kvm_network")
    for disk in wanted.get("disks", []):
        option = f"disks[{disk['target']}]"
        if _touched(option, changed) and disk.get("state") != "absent":
            lacking += _lacking_volume(session, option, disk)
    if lacking and not session.check:
        raise KvmError("; ".join(lacking))
    if session.on_this_host and _takes_devices(wanted):
        # A guest without a device of the host, which most are, is spared what asking about one takes to load.
        from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.taken import refuse_needed  # noqa: PLC0415
        from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root  # noqa: PLC0415

        refuse_needed(Root(), wanted, changed)
    asked = next((change.after for change in changes if change.option == "vcpus.max"), None)
    if asked and session.params["uri"].startswith("qemu"):
        _check_vcpus(session, target, asked)
    return lacking


def _takes_devices(wanted: dict[str, Any]) -> bool:
    """Tell whether the options name a device of the host."""
    nics, disks = wanted.get("interfaces") or [], wanted.get("disks") or []
    whole = bool(wanted.get("hostdevs") or wanted.get("usb_hostdevs"))
    return whole or any("vf_address" in nic for nic in nics) or any("block" in disk for disk in disks)


def _touched(option: str, changed: set[str]) -> bool:
    return any(one == option or one.startswith(f"{option}.") for one in changed)


def _lacking_volume(session: Libvirt, option: str, disk: dict[str, Any]) -> list[str]:
    if "pool" not in disk:
        return []
    pool = session.pools().get(disk["pool"])
    if pool is None:
        return [f"{option}: pool {disk['pool']!r} does not exist; define it with anfitrion.kvm.kvm_pool"]
    with told("cannot read the pool"):
        names = pool.listVolumes() if pool.isActive() else None
    if names is not None and disk["volume"] not in names:
        return [f"{option}: pool {disk['pool']!r} has no volume {disk['volume']!r}; create it with anfitrion.kvm.kvm_volume"]
    return []


def _check_vcpus(session: Libvirt, target: Any, asked: int) -> None:
    """Raise KvmError when the machine type takes fewer vCPUs (domain capabilities, <vcpu max>)."""
    machine, kind = _xml.get(target, "os/type/@machine")[0], target.get("type")
    top, shown = session.once(f"machine {machine} {kind}", lambda: _machine(session, machine, kind))
    if top and asked > top:
        raise KvmError(f"vcpus.max: {asked} is more than machine {shown} takes here, {top}")


def _machine(session: Libvirt, machine: str | None, kind: str | None) -> tuple[int, str | None]:
    """Return how many vCPUs a machine type takes and its full name; 0 where the host does not know it."""
    try:
        tree = _xml.parse(session.connection.getDomainCapabilities(None, None, machine, kind))
    except libvirt.libvirtError:
        return 0, None  # the define says it in libvirt's own words
    return int(_xml.get(tree, "vcpu/@max")[0] or 0), _xml.get(tree, "machine")[0]
