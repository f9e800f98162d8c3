# SPDX-License-Identifier: GPL-3.0-or-later
"""The default deny of the host as rules at the end of our input and forward chains: what is allowed, and then nothing."""

from __future__ import annotations

import xml.etree.ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import nft
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

# Where libvirt keeps its networks: as the next start makes them, and as they run, which counts.
LIBVIRT = ("/etc/libvirt/qemu/networks", "/run/libvirt/network")
ESTABLISHED = "ct state established,related accept"
ALWAYS = (
    ESTABLISHED,
    'iifname "lo" accept',
    "icmp type { destination-unreachable, time-exceeded, parameter-problem, echo-request } accept",
    # RFC 4890, section 4.4: errors, path MTU, neighbours, routers, and the multicast groups by which neighbours are found
    "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, nd-router-solicit, "
    "nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, mld-listener-report, mld-listener-done, "
    "mld2-listener-report } accept",
    # what a DHCP server answers the host is no answer to connection tracking: it was asked by broadcast or multicast
    "udp sport 67 udp dport 68 accept",
    "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
)


@dataclass(frozen=True)
class Theirs:
    """A network of libvirt: its bridge, its mode, and whether guests may boot by TFTP there."""

    bridge: str
    mode: str
    tftp: bool = False


def libvirt_networks(root: Root) -> list[Theirs]:
    """Return the networks of libvirt that have a bridge, by its name."""
    found = {}
    for directory in LIBVIRT:
        for name in root.list(directory):
            network = _network(root, f"{directory}/{name}") if name.endswith(".xml") else None
            if network:
                found[network.bridge] = network
    return [found[bridge] for bridge in sorted(found)]


def _network(root: Root, path: str) -> Theirs | None:
    try:
        top = xml.etree.ElementTree.fromstring(root.text(path) or "<none/>")
    except xml.etree.ElementTree.ParseError as error:
        raise KvmError(f"{path}: {error}") from None
    network = top if top.tag == "network" else top.find("network")
    bridge = None if network is None else network.find("bridge")
    if network is None or bridge is None or not bridge.get("name"):
        return None
    forward = network.find("forward")
    mode = "isolated" if forward is None else forward.get("mode", "nat")
    return Theirs(str(bridge.get("name")), mode, network.find("ip/tftp") is not None)


def chains(root: Root, deny: dict[str, Any] | None, networks: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the rules at the end of our chains, by chain; none without a default deny."""
    if deny is None:
        return {}
    theirs = libvirt_networks(root)
    rules = {"input": _input(deny, networks, theirs), "forward": _forward(deny, networks, theirs)}
    return {chain: rules[chain] for chain in deny["deny"]}


def _input(deny: dict[str, Any], networks: list[dict[str, Any]], theirs: list[Theirs]) -> list[str]:
    rules = [*ALWAYS]
    for allow in deny["allow"]:
        rules += _allowed(allow)
    ours = {network["bridge"]: network for network in networks}
    rules += [f'iifname "{bridge}" accept' for bridge, network in ours.items() if network.get("host") == "open"]
    # what else is said of the host in our networks has been judged in chains of their own
    serving = {bridge for bridge, network in ours.items() if "host" not in network}
    serving |= {network.bridge for network in theirs if network.mode != "bridge" and network.bridge not in ours}
    rules += [f"{_from(serving)}{service}" for service in nft.SERVICES] if serving else []
    booting = {network.bridge for network in theirs if network.tftp and network.bridge in serving}
    rules += [f"{_from(booting)}udp dport 69 accept"] if booting else []
    return [*rules, "drop"]


def _from(bridges: Iterable[str]) -> str:
    return f"iifname {{ {_quoted(bridges)} }} "


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))


def _allowed(allow: dict[str, Any]) -> list[str]:
    """Return the rules for one port; one for each family of its sources."""
    rule = f'{allow.get("proto", "tcp")} dport {allow["port"]} accept comment "{allow["name"]}"'
    sources = sorted(allow.get("sources", []))
    if not sources:
        return [rule]
    families = {family: [source for source in sources if nft.family_of(source) == family] for family in ("ip", "ip6")}
    return [f"{family} saddr {{ {', '.join(own)} }} {rule}" for family, own in families.items() if own]


def _forward(deny: dict[str, Any], networks: list[dict[str, Any]], theirs: list[Theirs]) -> list[str]:
    """Return the rules for what goes through: what our own chains let pass, and what libvirt or others judge."""
    rules = [] if networks else [ESTABLISHED]  # with networks, our chain begins with it
    ours = {network["bridge"] for network in networks}
    passing = ours | {network.bridge for network in theirs if network.mode not in ("open", "bridge")} | set(deny["through"])
    rules += [f"{way} {{ {_quoted(passing)} }} accept" for way in ("iifname", "oifname") if passing]
    # frames from guest to guest, where br_netfilter sends them through here
    switched = {network.bridge for network in theirs} - passing
    rules += [f'iifname "{bridge}" oifname "{bridge}" accept' for bridge in sorted(switched)]
    return [*rules, "drop"]
