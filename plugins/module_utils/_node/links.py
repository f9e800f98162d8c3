# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's interfaces, bridges, addresses and neighbours, and where it sends a packet, as iproute2 tells them (ip(8), bridge(8))."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

REFUSED = {
    "Network is unreachable": "unreachable", "No route to host": "no host", "Permission denied": "prohibit", "Invalid argument": "invalid",
    "Invalid cross-device link": "invalid",
}  # fmt: skip


@dataclass(frozen=True)
class Link:
    """An interface. up: switched on; carrier: something is at the other end. master: its bridge, with what it is as a port of it."""

    name: str
    up: bool
    carrier: bool
    kind: str
    master: str | None
    port_state: str | None
    isolated: bool
    addresses: tuple[Any, ...]  # ipaddress interfaces

    def own(self, family: str) -> list[Any]:
        """Return its addresses of a family, C(ip) or C(ip6), link-local ones left out."""
        version = 6 if family == "ip6" else 4
        return [one for one in self.addresses if one.version == version and not one.is_link_local]


@dataclass(frozen=True)
class Answer:
    """What the routing tables say: type (local, unicast …) with the interface out, the next hop and our address there, or why it is refused."""

    type: str
    dev: str = ""
    gateway: str | None = None
    source: str | None = None
    refused: str | None = None


class Links:
    """The interfaces of the host, read once."""

    def __init__(self, root: Root) -> None:
        self.root = root
        addresses = {one["ifname"]: one.get("addr_info", []) for one in _told(root, "ip", "-j", "address", "show") if "ifname" in one}
        self.found = {one["ifname"]: _link(one, addresses.get(one["ifname"], [])) for one in _told(root, "ip", "-j", "-d", "link", "show")}

    def get(self, name: str) -> Link | None:
        return self.found.get(name)

    def is_own(self, address: str) -> bool:
        """Tell whether an address is one of the host's."""
        return any(one.ip == ipaddress.ip_address(address) for link in self.found.values() for one in link.addresses)

    def ports(self, bridge: str) -> list[Link]:
        return [link for link in self.found.values() if link.master == bridge]

    def neighbour(self, address: str, dev: str) -> dict[str, Any]:
        """Return what the host knows of a neighbour: lladdr and state, nothing where it never asked."""
        found = _told(self.root, "ip", "-j", "neigh", "show", "to", address, "dev", dev)
        return dict(found[0]) if found else {}

    def port_of(self, mac: str, bridge: str) -> str | None:
        """Return the port of a bridge that a MAC address was last seen behind."""
        for one in _told(self.root, "bridge", "-j", "fdb", "show", "br", bridge):
            if one.get("mac", "").lower() == mac.lower() and one.get("ifname") != bridge:
                return str(one["ifname"])
        return None

    def route(self, to: str, source: str | None = None, iif: str | None = None, mark: int | None = 0) -> Answer:
        """Return where the host sends a packet; the kernel itself is asked, with the rules and checks that it has for a packet that comes in."""
        words = ["ip", "-j", "route", "get", to, *(["from", source] if source else []), *(["iif", iif] if iif else [])]
        done = self.root.run([*words, *(["mark", str(mark)] if mark else [])])
        if done.rc:
            reason = next((word for text, word in REFUSED.items() if text in done.err), None)
            if reason is None:
                raise KvmError(f"{' '.join(words)}: {done.err.strip()}")
            return Answer("refused", refused=reason)
        found = json.loads(done.out)[0]
        gateway = found.get("gateway") or found.get("via", {}).get("host")
        return Answer(found.get("type", "unicast"), found.get("dev", ""), gateway, found.get("prefsrc"))


def _told(root: Root, *argv: str) -> list[dict[str, Any]]:
    out = root.must_run(list(argv)).strip()
    return [one for one in json.loads(out or "[]") if one]


def _link(one: dict[str, Any], addresses: list[dict[str, Any]]) -> Link:
    info = one.get("linkinfo", {})
    port = info.get("info_slave_data", {}) if info.get("info_slave_kind") == "bridge" else {}
    return Link(
        one["ifname"], "UP" in one["flags"], "LOWER_UP" in one["flags"], info.get("info_kind", ""), one.get("master"),
        port.get("state"), bool(port.get("isolated")),
        tuple(ipaddress.ip_interface(f"{each['local']}/{each['prefixlen']}") for each in addresses if "local" in each),
    )  # fmt: skip
