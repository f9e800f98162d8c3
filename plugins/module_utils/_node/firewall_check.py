# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot stand together in the packet rules of a host's networks."""

from __future__ import annotations

import ipaddress
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.nft import family_of, forwards, subnets


def check(networks: list[dict[str, Any]]) -> None:
    """Raise KvmError for networks that are incomplete or in each other's way."""
    for index, network in enumerate(networks):
        missing = [name for name in ("bridge", "subnet", "mode") if name not in network]
        if missing:
            raise KvmError(f"{missing[0]}: must be given when a network is first named")
        for other in networks[:index]:
            _check_pair(other, network)
        for forward in network.get("forwards", []):
            _check_forward(network, forward)
    _check_ports(networks)


def _check_pair(other: dict[str, Any], network: dict[str, Any]) -> None:
    if other["bridge"] == network["bridge"]:
        raise KvmError(f"bridge: {network['bridge']} is that of network {other['name']} too")
    for option in ("subnet", "subnet6"):
        both = [ipaddress.ip_network(each[option]) for each in (other, network) if option in each]
        if len(both) == 2 and both[0].overlaps(both[1]):
            raise KvmError(f"{option}: {network[option]} overlaps {other[option]} of network {other['name']}")


def _check_forward(network: dict[str, Any], forward: dict[str, Any]) -> None:
    option = f"forwards[{forward['name']}]"
    missing = [name for name in ("port", "to_address") if name not in forward]
    if missing:
        raise KvmError(f"{option}.{missing[0]}: must be given")
    if network["mode"] == "isolated":
        raise KvmError(f"{option}: an isolated network lets nobody in; give mode: nat or routed")
    family, address = family_of(forward["to_address"]), ipaddress.ip_address(forward["to_address"])
    subnet = next((ipaddress.ip_network(text) for own, text in subnets(network) if own == family), None)
    if subnet is None:
        raise KvmError(f"{option}.to_address: {address} is an IPv6 address; give the network's subnet6")
    if address not in subnet or address == subnet.network_address or (family == "ip" and address == subnet.broadcast_address):
        raise KvmError(f"{option}.to_address: {address} is no guest address of {subnet}")
    if "-" in forward["port"] and forward.get("to_port", forward["port"]) != forward["port"]:
        raise KvmError(f"{option}.to_port: a range leads to the same range; leave it out")
    if "-" in forward.get("to_port", "") and "-" not in forward["port"]:
        raise KvmError(f"{option}.to_port: one port cannot lead to several")
    for name, values in (("address", [forward[name] for name in ("address",) if name in forward]), ("sources", forward.get("sources", []))):
        other = next((value for value in values if family_of(value) != family), None)
        if other is not None:
            raise KvmError(f"{option}.{name}: {other} is of another family than {address}, to which it leads")


def _check_ports(networks: list[dict[str, Any]]) -> None:
    """Raise KvmError for a port that two forwards want; sorted by port, so that thousands are looked at once each."""
    spans = []
    for network in networks:
        for forward in forwards(network):
            first, _dash, last = forward["port"].partition("-")
            kind = (forward.get("proto", "tcp"), family_of(forward["to_address"]))
            spans.append((kind, int(first), int(last or first), forward.get("address"), f"{network['name']}/{forward['name']}", forward))
    spans.sort(key=lambda span: span[:2])
    open_spans: list[Any] = []
    for span in spans:
        open_spans = [other for other in open_spans if other[0] == span[0] and other[2] >= span[1]]
        for other in open_spans:
            if None in (other[3], span[3]) or other[3] == span[3]:
                raise KvmError(f"forwards[{span[5]['name']}].port: {span[5]['port']} is taken by {other[4]}")
        open_spans.append(span)
