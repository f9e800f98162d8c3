# SPDX-License-Identifier: GPL-3.0-or-later
"""What each network and pool of a host needs, read from their definitions in one pass. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import PCI
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told


@dataclass(frozen=True)
class Network:
    """What one network needs. subnets: as address/prefix; pf: its interfaces come from the VFs of that one."""

    name: str
    autostart: bool
    active: bool
    bridge: str = ""
    subnets: tuple[str, ...] = ()
    pf: str = ""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pool:
    """What one storage pool needs. group: the volume group of a logical pool."""

    name: str
    type: str
    autostart: bool
    active: bool
    path: str = ""
    devices: tuple[str, ...] = ()
    group: str = ""


def networks(session: Libvirt) -> list[Network]:
    """Return every network that has a definition."""
    found = []
    for name, handle in sorted(session.networks().items()):
        with told("cannot read the networks"):
            if not handle.isPersistent():
                continue
            tree = _xml.parse(handle.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))
            autostart, active = bool(handle.autostart()), bool(handle.isActive())
        subnets = [_subnet(ip) for ip in _xml.find_all(tree, "ip")]
        places = _xml.find_all(tree, "forward/address")
        found.append(Network(
            name, autostart, active, _xml.get(tree, "bridge/@name")[0] or "", tuple(filter(None, subnets)),
            _xml.get(tree, "forward/pf/@dev")[0] or "", tuple(PCI.of_attributes(place.attrib) for place in places),
        ))  # fmt: skip
    return found


def _subnet(ip: Any) -> str:
    size = ip.get("prefix") or ip.get("netmask")
    return f"{ip.get('address')}/{size}" if ip.get("address") and size else ""


def pools(session: Libvirt) -> list[Pool]:
    """Return every pool that has a definition."""
    found = []
    for name, handle in sorted(session.pools().items()):
        with told("cannot read the pools"):
            if not handle.isPersistent():
                continue
            tree = _xml.parse(handle.XMLDesc(libvirt.VIR_STORAGE_XML_INACTIVE))
            autostart, active = bool(handle.autostart()), bool(handle.isActive())
        devices = [device.get("path") for device in _xml.find_all(tree, "source/device")]
        group = (_xml.get(tree, "source/name")[0] or name) if tree.get("type") == "logical" else ""
        found.append(Pool(name, tree.get("type"), autostart, active, _xml.get(tree, "target/path")[0] or "", tuple(devices), group))
    return found


def volume_path(session: Libvirt, pool: str, volume: str) -> str | None:
    """Return the path of a volume; None where there is no such one now, or its pool is not active."""
    try:
        return str(session.pools()[pool].storageVolLookupByName(volume).path())
    except (KeyError, libvirt.libvirtError):
        return None
