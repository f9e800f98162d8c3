# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports that programs of the host listen on (proc_net(5): tcp, udp)."""

from __future__ import annotations

import ipaddress
import socket

from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

LISTENS = {"tcp": "0A", "udp": "07"}


def listens(root: Root, proto: str, address: str, port: int) -> bool:
    """Tell whether a program listens on a port of an address of the host, by that address or by all."""
    wanted = ipaddress.ip_address(address)
    for family in ("", "6"):
        for line in (root.text(f"/proc/net/{proto}{family}") or "").splitlines()[1:]:
            words = line.split()
            local, _colon, number = words[1].partition(":")
            if words[3] == LISTENS[proto] and int(number, 16) == port and _is(local, wanted):
                return True
    return False


def _is(local: str, wanted: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether a socket's address, in words of the machine's own byte order, is the wanted one or stands for all."""
    raw = b"".join(socket.htonl(int(local[place : place + 8], 16)).to_bytes(4, "big") for place in range(0, len(local), 8))
    own = ipaddress.ip_address(raw)
    if isinstance(own, ipaddress.IPv6Address) and own.ipv4_mapped:
        own = own.ipv4_mapped
    return own == wanted or (int(own) == 0 and (own.version == 6 or wanted.version == 4))
