# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bridge is to be, as every manager of a host's network is told, and what they all need to know of the host."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Argv, Root


@dataclass(frozen=True)
class Wish:
    """A bridge. mac: of its first port. source: the file that its holder's addresses come from, and of which port.

    There is none where no port had any. source_text: what is in it. iaid: the number by which a DHCP server knows that port.
    """

    name: str
    ports: tuple[str, ...]
    mac: str
    bond: dict[str, Any] | None = None
    vlan: int | None = None
    stp: bool = False
    forward_delay_s: int | None = None
    source: str | None = None
    source_port: str | None = None
    source_text: str = ""
    iaid: int | None = None

    @property
    def base(self) -> str:
        """What the VLAN is on: the bond or the NIC."""
        return str(self.bond["name"]) if self.bond else self.ports[0]

    @property
    def tagged(self) -> str:
        return f"{self.base}.{self.vlan}"

    @property
    def members(self) -> tuple[str, ...]:
        """Return what is in the bridge."""
        if self.vlan is not None:
            return (self.tagged,)
        return (self.base,) if self.bond else self.ports

    @property
    def holder(self) -> str:
        """Return what has the host's addresses."""
        return self.name if self.vlan is None else self.base

    @property
    def made(self) -> tuple[str, ...]:
        """Return the interfaces that are there only because of the bridge, the uppermost first."""
        return (self.name, *((self.tagged,) if self.vlan is not None else ()), *((self.base,) if self.bond else ()))

    @property
    def bond_mode(self) -> str:
        return str((self.bond or {}).get("mode", "active-backup"))

    @property
    def bond_miimon(self) -> int:
        return int((self.bond or {}).get("miimon_ms", 100))


@dataclass(frozen=True)
class Layout:
    """What a manager has to be told. files: (text or None, mode) by path.

    before: commands before the files are changed; after: once they are. taken_back_before, taken_back_after: lines of shell for the
    way back, before and after the old files are there again. again: commands for a manager that has not done it after a third of
    the time: it can miss an interface that changes while it takes its files up.
    """

    files: dict[str, tuple[str | None, int]]
    before: tuple[Argv, ...] = ()
    after: tuple[Argv, ...] = ()
    taken_back_before: tuple[str, ...] = ()
    taken_back_after: tuple[str, ...] = ()
    boot: tuple[str, ...] = ()
    again: tuple[Argv, ...] = ()


@dataclass(frozen=True)
class Live:
    """Addresses and routes of interfaces as the kernel has them: ip(8)'s words by device, and the lines that have them again."""

    addresses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    routes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def kept(self, devices: Iterable[str]) -> set[str]:
        """Return the addresses that must be there after a move."""
        return {f"{one['local']}/{one['prefixlen']}" for dev in devices for one in self.addresses.get(dev, [])}

    def gateways(self, devices: Iterable[str]) -> set[str]:
        """Return the next hops of the default routes of IPv4."""
        found = (one for dev in devices for one in self.routes.get(dev, []))
        return {one["gateway"] for one in found if one["dst"] == "default" and "gateway" in one and "." in one["gateway"]}

    def lines(self) -> tuple[str, ...]:
        """Return lines of shell that wait until a manager has brought everything back, and else have it themselves."""
        lines = []
        for dev, addresses in self.addresses.items():
            here = shlex.quote(dev)
            for one in addresses:
                address = f"{one['local']}/{one['prefixlen']}"
                there = f"ip -o address show dev {here} | grep -qF ' {address} '"
                lines.append(f"n=0; while [ $n -lt 20 ] && ! {there}; do n=$((n + 1)); sleep 1; done")
                lines.append(f"{there} || {{ ip link set dev {here} up; ip address add {address} dev {here}; }}")
        for dev, routes in self.routes.items():
            for one in routes:
                version = "-6" if ":" in f"{one['dst']}{one.get('gateway', '')}" else "-4"
                words = ["ip", version, "route", "show", "exact" if one["dst"] != "default" else "", one["dst"], "dev", dev]
                via = ["via", one["gateway"]] if "gateway" in one else []
                metric = ["metric", str(one["metric"])] if "metric" in one else []
                onlink = ["onlink"] if "onlink" in one.get("flags", []) else []
                add = shlex.join(["ip", version, "route", "add", one["dst"], *via, "dev", dev, *metric, *onlink])
                lines.append(f"{shlex.join([word for word in words if word])} | grep -q . || {add}")
        return tuple(lines)


def live(root: Root, devices: Iterable[str]) -> Live:
    """Return the addresses and the routes that somebody made, of those interfaces that are there.

    Addresses of IPv6 that the network itself hands out are left out: they may be made of the interface's name.
    """
    addresses, routes = {}, {}
    for dev in devices:
        if not root.exists(f"/sys/class/net/{dev}"):
            continue
        told = [one for one in _json(root, ["ip", "-j", "address", "show", "dev", dev]) if one]
        found = [one for link in told for one in link.get("addr_info", [])]
        found = [one for one in found if "local" in one and one.get("scope") != "link"]
        found = [one for one in found if one["family"] == "inet" or not (one.get("dynamic") or one.get("temporary"))]
        ways = [*_json(root, ["ip", "-j", "-4", "route", "show", "dev", dev]), *_json(root, ["ip", "-j", "-6", "route", "show", "dev", dev])]
        ways = [one for one in ways if one.get("protocol") not in ("kernel", "ra", "redirect")]
        if found:
            addresses[dev] = found
        if ways:
            routes[dev] = ways
    return Live(addresses, routes)


def _json(root: Root, argv: Argv) -> list[dict[str, Any]]:
    return list(json.loads(root.must_run(argv).strip() or "[]"))


def index(root: Root, interface: str) -> int | None:
    return root.number(f"/sys/class/net/{interface}/ifindex")


def runs(root: Root, comm: str) -> bool:
    """Tell whether a process of this name, as the kernel cuts it off, runs."""
    return any(root.read(f"/proc/{pid}/comm") == comm for pid in root.list("/proc") if pid.isdigit())


def bridge_words(wish: Wish) -> list[str]:
    """Return the words of C(ip link … type bridge …)."""
    delay = ["forward_delay", str(wish.forward_delay_s * 100)] if wish.forward_delay_s is not None else []
    return ["stp_state", str(int(wish.stp)), *delay]


def delete_lines(links: Iterable[str]) -> tuple[str, ...]:
    """Return lines of shell that remove interfaces that may be there."""
    return tuple(f"[ ! -e /sys/class/net/{shlex.quote(link)} ] || ip link delete dev {shlex.quote(link)}" for link in links)
