# SPDX-License-Identifier: GPL-3.0-or-later
"""Which running guests have virtual functions of the pool of a network."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, told


def vf_owners(session: Libvirt, name: str) -> dict[str, set[str]]:
    """Return the running guests that have virtual functions of a network's pool, with the MAC addresses of these.

    Only the ports of the network tell: a guest shows the function and not the network.
    """
    found: dict[str, set[str]] = {}
    handle = session.networks().get(name)
    if handle is None or session.driver != "qemu":
        return found
    with told("cannot read the ports of the network"):
        for port in map(_xml.parse, (one.XMLDesc() for one in (handle.listAllPorts() if handle.isActive() else ()))):
            if _xml.get(port, "plug/@type")[0] == "hostdev-pci":
                guest, mac = (str(_xml.get(port, path)[0]) for path in ("owner/name", "mac/@address"))
                found.setdefault(guest, set()).add(mac)
    return found
