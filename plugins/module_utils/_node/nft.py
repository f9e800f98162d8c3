# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of all networks as one nft table, and the same table as the kernel tells it (nft(8), libnftables-json(5))."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root

TABLE = ("inet", "anfitrion")  # inet: an isolated guest shall not reach the host by IPv6 either
CLEAR = f"table {TABLE[0]} {TABLE[1]} {{}}\ndelete table {TABLE[0]} {TABLE[1]}\n"
LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1"}
NOBODY = {"ip": "224.0.0.0/4, 255.255.255.255", "ip6": "ff00::/8"}  # what is never translated


def table_text(networks: list[dict[str, Any]], ends: Mapping[str, list[str]] = MappingProxyType({})) -> str:
    """Return the nft file: the table is replaced in one transaction, a file with an error changes nothing.

    ends: rules at the end of a chain, by its name, for what nothing before them has judged.
    """
    family, name = TABLE
    chains = [_chain(title, hook, [*rules(networks), *ends.get(title, [])]) for title, hook, rules in CHAINS]
    chains += [text for network in networks for text in _own_chains(network)]
    body = "\n".join(chains)
    return f"{HEADER}{CLEAR}table {family} {name} {{\n{body}}}\n"


def _chain(title: str, hook: str, rules: list[str]) -> str:
    lines = [f"\t\ttype {hook}; policy accept;"] if hook else []
    return "\n".join([f"\tchain {title} {{", *lines, *(f"\t\t{rule}" for rule in rules), "\t}\n"])


def family_of(address: str) -> str:
    """Return nft's word for the family of an address or network."""
    return "ip6" if ":" in address else "ip"


def subnets(network: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (family, network) of each subnet of a network."""
    return [(family_of(network[name]), network[name]) for name in ("subnet", "subnet6") if name in network]


def forwards(network: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the forwards of a network in order."""
    return sorted(network.get("forwards", []), key=lambda forward: str(forward["name"]))


def _dnat(network: dict[str, Any], forward: dict[str, Any], more: str) -> str:
    """Return the rule that leads one forward to its guest."""
    proto, to, family = forward.get("proto", "tcp"), forward["to_address"], family_of(forward["to_address"])
    if "to_port" in forward and forward["to_port"] != forward["port"]:
        to = f"[{to}]:{forward['to_port']}" if family == "ip6" else f"{to}:{forward['to_port']}"
    here = f"{family} daddr {forward['address']}" if "address" in forward else f"{family} daddr != {LOOPBACK[family]} fib daddr type local"
    return f'{more}{here} {proto} dport {forward["port"]} dnat {family} to {to} comment "{network["name"]}/{forward["name"]}"'


def _sources(forward: dict[str, Any]) -> str:
    sources = sorted(forward.get("sources", []))
    return f"{family_of(forward['to_address'])} saddr {{ {', '.join(sources)} }} " if sources else ""


def _for_all(forward: dict[str, Any]) -> bool:
    """Return whether a forward leads everybody to its guest: who comes in, guests of the same network, and the host itself."""
    return not forward.get("sources") and bool(forward.get("hairpin", True)) and bool(forward.get("host_local", True))


def _all_forwards(networks: list[dict[str, Any]]) -> list[str]:
    """Return the rules that hold for what comes in and for what the host sends: once in the kernel, not three times."""
    return [_dnat(network, forward, "") for network in networks for forward in forwards(network) if _for_all(forward)]


def _to_all_forwards(networks: list[dict[str, Any]]) -> list[str]:
    return ["jump forwards"] if _all_forwards(networks) else []


def _prerouting(networks: list[dict[str, Any]]) -> list[str]:
    rules = _to_all_forwards(networks)
    for network in networks:
        bridge = network["bridge"]
        for forward in forwards(network):
            if _for_all(forward):
                continue
            rules.append(_dnat(network, forward, f'iifname != "{bridge}" {_sources(forward)}'))
            if forward.get("hairpin", True):
                rules.append(_dnat(network, forward, f'iifname "{bridge}" '))
    return rules


def _output(networks: list[dict[str, Any]]) -> list[str]:
    own = [(network, forward) for network in networks for forward in forwards(network) if forward.get("host_local", True) and not _for_all(forward)]
    return _to_all_forwards(networks) + [_dnat(network, forward, "") for network, forward in own]


def _postrouting(networks: list[dict[str, Any]]) -> list[str]:
    rules = []
    for network in networks:
        for family, subnet in subnets(network):
            if any(forward.get("hairpin", True) for forward in forwards(network)):
                # the answer must come back by the host, which knows the forward
                rules.append(f"{family} saddr {subnet} {family} daddr {subnet} ct status dnat masquerade")
            if network["mode"] == "nat":
                leave = f'oifname "{network["outbound"]}" ' if "outbound" in network else ""
                rules.append(f"{family} saddr {subnet} {family} daddr {{ {NOBODY[family]}, {subnet} }} return")
                rules.append(f"{leave}{family} saddr {subnet} masquerade")
    return rules


def _forward(networks: list[dict[str, Any]]) -> list[str]:
    """Return the jumps: what goes into any network is judged before what comes out of any other.

    Connections by forwards are judged before all others, packet by packet: one whose forward is gone ends.
    """
    rules = [f'oifname "{network["bridge"]}" ct status dnat ct direction original jump by_{network["bridge"]}' for network in networks]
    rules += ["ct state established,related accept"] if networks else []
    ours = [network for network in networks if network["mode"] != "libvirt"]
    rules += [f'oifname "{network["bridge"]}" jump to_{network["bridge"]}' for network in ours]
    rules += [f'iifname "{network["bridge"]}" jump from_{network["bridge"]}' for network in ours]
    return rules


def access(network: dict[str, Any]) -> str:
    """Return what guests of a network reach of the host: open, services or closed."""
    return str(network.get("host") or ("services" if network["mode"] == "isolated" else "open"))


def _input(networks: list[dict[str, Any]]) -> list[str]:
    return [f'iifname "{network["bridge"]}" jump host_{network["bridge"]}' for network in networks if access(network) != "open"]


CHAINS = (
    ("forwards", "", _all_forwards),
    ("prerouting", "nat hook prerouting priority dstnat", _prerouting),
    ("output", "nat hook output priority -100", _output),
    ("postrouting", "nat hook postrouting priority srcnat", _postrouting),
    ("input", "filter hook input priority filter", _input),
    ("forward", "filter hook forward priority filter", _forward),
)

SERVICES = ("udp dport { 53, 67, 547 } accept", "tcp dport 53 accept")
# Neighbours must be found for DHCP and DNS by IPv6 too (RFC 4890, section 4.4.1).
NEIGHBOURS = "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept"


def _own_chains(network: dict[str, Any]) -> list[str]:
    chains = [_chain(f"by_{network['bridge']}", "", _by_forwards(network))]
    if network["mode"] != "libvirt":
        chains += [_chain(f"to_{network['bridge']}", "", _into(network)), _chain(f"from_{network['bridge']}", "", _out_of(network))]
    if access(network) != "open":
        services = (*SERVICES, NEIGHBOURS) if access(network) == "services" else ()
        chains.append(_chain(f"host_{network['bridge']}", "", ["ct state established,related accept", *services, "reject"]))
    return chains


def _by_forwards(network: dict[str, Any]) -> list[str]:
    """Return the rules for what a forward leads into a network: only what is declared, from where it is declared."""
    rules = []
    for forward in forwards(network):
        port, family = forward.get("to_port", forward["port"]), family_of(forward["to_address"])
        guest = f"{family} daddr {forward['to_address']} {forward.get('proto', 'tcp')} dport {port} return"
        comment = f'comment "{network["name"]}/{forward["name"]}"'
        if _sources(forward):
            rules.append(f'iifname != "{network["bridge"]}" {_sources(forward)}{guest} {comment}')
            if forward.get("hairpin", True):
                rules.append(f'iifname "{network["bridge"]}" {guest} {comment}')
        else:
            rules.append(f"{guest} {comment}")
    return [*rules, "meta l4proto tcp reject with tcp reset", "reject"]  # else the sender of an open connection waits


def _into(network: dict[str, Any]) -> list[str]:
    rules = [f'iifname "{network["bridge"]}" return', "ct status dnat return"]
    if network["mode"] == "routed":
        rules += [f"{family} daddr {subnet} return" for family, subnet in subnets(network)]
    return [*rules, "reject"]


def _out_of(network: dict[str, Any]) -> list[str]:
    rules = [f'oifname "{network["bridge"]}" return']
    if network["mode"] == "isolated":
        return [*rules, "reject"]
    rules += [f"{family} saddr != {subnet} reject" for family, subnet in subnets(network)]
    if "subnet6" not in network:
        rules.append("meta nfproto ipv6 reject")
    if "outbound" in network:
        rules.append(f'oifname != "{network["outbound"]}" reject')
    return rules


def running(root: Root) -> str | None:
    """Return our table as the kernel tells it, without handles and counters; None when there is none."""
    done = root.run(["nft", "-s", "list", "table", *TABLE])
    if done.rc:
        if "No such file or directory" in done.err:
            return None
        raise KvmError(f"nft: {done.err.strip()}")
    return done.out


def dropping_chains(root: Root) -> list[str]:
    """Return chains of others that drop forwarded packets unless something in them accepts (docker, ufw)."""
    done = root.run(["nft", "-j", "list", "chains"])
    found = []
    for one in json.loads(done.out)["nftables"] if done.rc == 0 else []:
        chain = one.get("chain", {})
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain.get("table") != TABLE[1]:
            found.append(f"{chain['family']} {chain['table']} {chain['name']}")
    return found
