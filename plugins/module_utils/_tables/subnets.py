# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of a network's addresses: what a host, a DHCP range and a fixed address can be."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError


def subnet(ip: dict[str, Any]) -> Any:
    """Return the ipaddress network of an item of ips, None while its prefix is not known."""
    if ip.get("prefix") is None or ip.get("state") == "absent":
        return None
    try:
        return ipaddress.ip_network(f"{ip['address']}/{ip['prefix']}", strict=False)
    except ValueError:
        raise KvmError(f"ips[{ip['address']}].prefix: {ip['prefix']} is too long for this address") from None


def check_subnet(ip: dict[str, Any]) -> None:
    """Raise KvmError when an item of ips, or what its DHCP server gives, cannot be in its subnet."""
    net = subnet(ip)
    if net is not None:
        _check_address(ip, net)
        _check_dhcp(ip, net, f"ips[{ip['address']}].dhcp")


def _check_address(ip: dict[str, Any], net: Any) -> None:
    address = ipaddress.ip_address(ip["address"])
    option = f"ips[{ip['address']}]"
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        raise KvmError(f"{option}: not an address for a host")
    if net.num_addresses > 2 and address == net.network_address:
        raise KvmError(f"{option}: is the address of the network {net}, not of a host")
    if net.version == 4 and net.num_addresses > 2 and address == net.broadcast_address:
        raise KvmError(f"{option}: is the broadcast address of {net}, not of a host")
    if ip.get("dhcp") and net.num_addresses <= 2:
        raise KvmError(f"{option}.prefix: {net} has no addresses to give by DHCP")


def _check_dhcp(ip: dict[str, Any], net: Any, option: str) -> None:
    dhcp = ip.get("dhcp") or {}
    for given in _live_items(dhcp.get("ranges")):
        here = f"{option}.ranges[{given['start']}]"
        first = _inside(given["start"], net, f"{here}.start")
        if "end" not in given:
            raise KvmError(f"{here}.end: must be given")
        if _inside(given["end"], net, f"{here}.end") < first:
            raise KvmError(f"{here}: start {given['start']} is after end {given['end']}")
    seen: dict[Any, str] = {}
    for host in _live_items(dhcp.get("hosts")):
        here = f"{option}.hosts[{host.get('mac') or host.get('name') or host.get('ip')}]"
        if net.version == 6 and "mac" in host:
            raise KvmError(f"{here}.mac: an IPv6 host is known by its name, not by a MAC address")
        if "ip" in host and _inside(host["ip"], net, f"{here}.ip") == ipaddress.ip_address(ip["address"]):
            raise KvmError(f"{here}.ip: {host['ip']} is the host's own address")
        for name in ("mac", "ip", "name"):
            if (name, host.get(name)) in seen and name in host:
                raise KvmError(f"{here}.{name}: {host[name]} is that of {seen[name, host[name]]} too")
            seen[name, host.get(name)] = here


def _live_items(items: list[dict[str, Any]] | None) -> Iterator[dict[str, Any]]:
    return (item for item in items or [] if item.get("state") != "absent")


def _inside(text: str, net: Any, option: str) -> Any:
    """Return the address, which a host of the subnet can have."""
    address = ipaddress.ip_address(text)
    if address not in net:
        raise KvmError(f"{option}: {text} is not in {net}")
    if net.num_addresses > 2 and (address == net.network_address or (net.version == 4 and address == net.broadcast_address)):
        raise KvmError(f"{option}: {text} is the network or broadcast address of {net}")
    return address
