# SPDX-License-Identifier: GPL-3.0-or-later
"""Physical functions, those with SR-IOV, and the virtual ones that they have. Reads only."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import pci
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root


def uplink(root: Root, address: str) -> str | None:
    """Return the interface of a device itself: in switchdev mode those of its VFs (pf0vf1) hang below it too."""
    names = pci.interfaces(root, address)
    return next((name for name in names if not re.search(r"pf\d+[vs]f\d+", _port_name(root, name))), None)


def _port_name(root: Root, name: str) -> str:
    try:
        return root.read(f"/sys/class/net/{name}/phys_port_name") or ""
    except KvmError:
        return ""  # EOPNOTSUPP: most drivers have none


def renamed(root: Root, name: str) -> str | None:
    """Return the present name of the interface that has this one as an alternative name."""
    done = root.run(["ip", "-j", "link", "show", "dev", name])
    found: list[dict[str, Any]] = json.loads(done.out or "[]") if done.rc == 0 else []
    return found[0].get("ifname") if found else None


def physical_functions(root: Root) -> dict[str, str | None]:
    """Return the PCI address of every SR-IOV capable device and the name of its interface."""
    found: dict[str, str | None] = {}
    for address in root.list(pci.DEVICES):
        if root.exists(pci.path(address, "sriov_totalvfs")):
            found[address] = uplink(root, address)
    return found


def resolve_pf(root: Root, wanted: dict[str, Any]) -> str:
    """Return the PCI address of the physical function that an entry names. Raises KvmError that lists those there are."""
    functions = physical_functions(root)
    if wanted.get("pf") is not None:
        name = wanted["pf"]
        address = root.link(f"/sys/class/net/{name}/device")
        if address is None:
            address = root.link(f"/sys/class/net/{renamed(root, name) or name}/device")
        if wanted.get("address") not in (None, address) and address is not None:
            raise KvmError(f"pf: {name} is at {address}, not at {wanted['address']}; give one of them")
        fact = f"interface {name} does not exist" if address is None else f"{name} has no SR-IOV"
    else:
        address = name = wanted["address"]
        fact = f"{name} has no SR-IOV" if root.exists(pci.path(name)) else f"there is no PCI device {name}"
    if address in functions:
        return str(address)
    has = ", ".join(f"{name} ({at})" if name else at for at, name in functions.items())
    raise KvmError(f"pf: {fact}; physical functions of this host: {has or 'none'}")


def virtual_functions(root: Root, address: str) -> list[str]:
    """Return the PCI addresses of the VFs of a PF, by index."""
    links = [name for name in root.list(pci.path(address)) if re.fullmatch(r"virtfn\d+", name)]
    return [root.link(pci.path(address, name)) or "" for name in sorted(links, key=lambda name: int(name[6:]))]
