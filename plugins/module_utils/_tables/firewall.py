# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kvm_firewall: packet rules of virtual networks. They are no XML: `_node` reads and writes them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import ADDRESS, INTERFACE, WORD, Choice, Codec, Flag

BIT = Flag()


@dataclass(frozen=True)
class Network(Codec):
    """A network as C(192.168.60.0/24) or C(fd00:60::/64); the address of a host in it is refused. C(version): 4, 6, or 0 for both."""

    version: int = 0

    def normal(self, value: Any) -> str:
        example = {4: "192.168.60.0/24", 6: "fd00:60::/64"}.get(self.version, "192.168.60.0/24 or fd00:60::/64")
        try:
            network = ipaddress.ip_network(str(value))
        except ValueError as error:
            raise ValueError(f"expected a network such as {example} ({error})") from None
        if self.version not in (0, network.version):
            raise ValueError(f"expected an IPv{self.version} network such as {example}")
        return str(network)


@dataclass(frozen=True)
class Ports(Codec):
    """A port or a range of ports, C(8080) or C(8000-8010)."""

    def normal(self, value: Any) -> str:
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(value))
        if not match:
            raise ValueError("expected a port or a range such as 8000-8010")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= 65535:
            raise ValueError("not in 1..65535, or the range ends before it starts")
        return str(first) if first == last else f"{first}-{last}"


FORWARDS = f.Items(
    "forwards",
    "",
    ("name",),
    "Ports of the host that lead to a guest. Not for mode V(isolated). A forward that goes away ends its connections too.",
    (
        f.Field("name", None, WORD, "What the forward is called; it stands beside the rules in the kernel.", required=True),
        f.Field("proto", None, Choice(words=("tcp", "udp")), "Protocol; V(tcp) if not given."),
        f.Field("address", None, ADDRESS, "The host's address that is listened on; every address of the host if not given."),
        f.Field("port", None, Ports(), "Port of the host, or a range as V(8000-8010)."),
        f.Field("to_address", None, ADDRESS, "IPv4 or IPv6 address of the guest; reserve it for the guest in the network's DHCP."),
        f.Field("to_port", None, Ports(), "Port of the guest; that of the host if not given. A range leads to the same range."),
        f.Field("sources", None, Network(), "Networks that may use the forward; every one if not given.", many=True),
        f.Field("hairpin", None, BIT, "Whether guests of the same network may use it too; V(true) if not given."),
        f.Field("host_local", None, BIT, "Whether the host itself may use it too, by its own addresses; V(true) if not given."),
    ),
)  # fmt: skip

FIREWALL = f.Table(
    "network",
    "",
    "Packet rules of one network.",
    (
        f.Field("name", None, WORD, "Name of the network.", required=True),
        f.Field("state", None, Choice(words=("present", "absent")), "V(absent) takes all rules of the network away."),
        f.Field("bridge", None, INTERFACE, "Bridge of the network, as V(virbr1). Needed when the network is first named."),
        f.Field("subnet", None, Network(version=4), "IPv4 network of its guests. Needed when the network is first named."),
        f.Field("subnet6", None, Network(version=6), "IPv6 network of its guests. Without it, guests have no IPv6 beyond their network."),
        f.Field("mode", None, Choice(words=("nat", "routed", "isolated", "libvirt")),
                "V(nat) lets guests out by the host's address and nobody in but by O(forwards); V(routed) lets both through as they are; "
                "V(isolated) lets guests reach each other and the host's DHCP and DNS, nothing else. These three are for networks of "
                "libvirt's mode open. V(libvirt) is for one of libvirt's mode nat or route, whose rules are libvirt's: only O(forwards) are "
                "ours; refused with libvirt's nftables back end, which no rule of others can make an exception to. "
                "Needed when the network is first named."),
        f.Field("outbound", None, INTERFACE, "The one interface by which guests may leave; every one if not given."),
        f.Field("host", None, Choice(words=("open", "services", "closed")),
                "What guests reach of the host itself: everything that listens, V(services) DHCP and DNS, or nothing at all. "
                "If not given, V(services) for mode V(isolated), else V(open)."),
        FORWARDS,
    ),
)  # fmt: skip
