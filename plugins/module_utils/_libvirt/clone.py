# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest made like another one, and MAC addresses that follow from names."""

from __future__ import annotations

import hashlib
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told

# What is one guest's own: libvirt makes each anew for the clone.
OWN = (
    "uuid", "genid", "title", "description", "os/nvram", "devices/interface/mac", "devices/interface/target",
    "devices/channel[@type='unix']/source", "devices/graphics/@port", "devices/graphics/@tlsPort",
    "metadata/anfitrion:template",
)  # fmt: skip
QEMUS_PREFIX = "52:54:00"


def cloned(session: Libvirt, name: str, original: str) -> Any:
    """Return the definition of a guest as the beginning of one of another name."""
    handle = session.domains().get(original)
    if handle is None:
        raise KvmError(f"clone_from: domain {original!r} does not exist on this host")
    with told("clone_from: cannot read the definition"):
        tree = _xml.parse(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
    for path in OWN:
        for one in _xml.find_all(tree, path.rsplit("/@", 1)[0]):
            if "/@" in path:
                one.attrib.pop(path.rsplit("/@", 1)[1], None)
            else:
                one.getparent().remove(one)
    _xml.put(tree, "name", name)
    return tree


def refuse_shared(original: Any, tree: Any) -> None:
    """Raise KvmError for a disk that the clone would write together with its original."""
    taken = {_source(disk) for disk in _xml.find_all(original, "devices/disk") if _own(disk)} - {None}
    for disk in _xml.find_all(tree, "devices/disk"):
        if _own(disk) and _source(disk) in taken:
            target = _xml.get(disk, "target/@dev")[0]
            raise KvmError(
                f"disks[{target}]: would be that of {_xml.get(original, 'name')[0]!r} too; give another volume, for example one"
                " that anfitrion.kvm.kvm_volume made from it, or state: absent"
            )


def _own(disk: Any) -> bool:
    """Tell whether a disk is written by its guest alone."""
    shared = _xml.find(disk, "readonly") is not None or _xml.find(disk, "shareable") is not None
    return disk.get("device", "disk") in ("disk", "lun") and not shared


def _source(disk: Any) -> tuple[tuple[str, str], ...] | None:
    source = _xml.find(disk, "source")
    return tuple(sorted(source.attrib.items())) if source is not None else None


def with_macs(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the options with a MAC address for each named interface that is new and states none."""
    seed = wanted.get("mac_seed")
    if seed is None or "interfaces" not in wanted:
        return wanted
    known = {nic.get("name") for nic in found.get("interfaces", [])}
    nics = [
        {**nic, "mac": mac_of(seed, wanted["name"], nic["name"])}
        if "mac" not in nic and nic.get("name") and nic["name"] not in known and nic.get("state") != "absent" else nic
        for nic in wanted["interfaces"]
    ]  # fmt: skip
    return {**wanted, "interfaces": nics}


def mac_of(seed: str, guest: str, interface: str) -> str:
    """Return the MAC address that follows from the names: QEMU's prefix and three bytes of their hash."""
    digest = hashlib.sha256("\0".join((seed, guest, interface)).encode()).hexdigest()
    return ":".join((QEMUS_PREFIX, digest[0:2], digest[2:4], digest[4:6]))
