# SPDX-License-Identifier: GPL-3.0-or-later
"""The network interfaces and routes of the host (proc_net(5), kernel documentation: ABI/testing/sysfs-class-net)."""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple

from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root


class Route(NamedTuple):
    """One destination, an ipaddress network, and the interface that it lies behind."""

    to: Any
    dev: str


def routes(root: Root) -> list[Route]:
    """Return the routes of the host without the default ones (and the two halves of one that VPNs make)."""
    found = [*_routes_v4(root.read("/proc/net/route") or ""), *_routes_v6(root.read("/proc/net/ipv6_route") or "")]
    return [route for route in found if route.to.prefixlen > 1 and not route.to.is_link_local and not route.to.is_multicast]


def _routes_v4(text: str) -> list[Route]:
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(words[place]), "little") for place in (1, 7))
        found.append(Route(ipaddress.IPv4Network((address, bin(mask).count("1"))), words[0]))
    return found


def _routes_v6(text: str) -> list[Route]:
    found = []
    for line in text.splitlines():
        words = line.split()
        if words[-1] != "lo":  # the host's own addresses, and what is unreachable
            found.append(Route(ipaddress.IPv6Network((bytes.fromhex(words[0]), int(words[1], 16))), words[-1]))
    return found


def exists(root: Root, interface: str) -> bool:
    """Tell whether the host has a network interface of this name."""
    return root.exists(f"/sys/class/net/{interface}")


def total_vfs(root: Root, interface: str) -> int | None:
    """Return how many virtual functions an interface can have, None when it is no physical function of SR-IOV."""
    return root.number(f"/sys/class/net/{interface}/device/sriov_totalvfs")


def number_of_vfs(root: Root, interface: str) -> int:
    """Return how many virtual functions an interface has now."""
    return root.number(f"/sys/class/net/{interface}/device/sriov_numvfs") or 0
