# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a packet through the host, hop by hop, to the first thing that stops it. Only reads.

Where the kernel can be asked (route get with the interface that the packet comes in by: routes, forwarding, reverse path filter) it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import ruleset, sockets
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.hops import (
    MAY_STOP,
    PASSES,
    STOPS,
    Hop,
    Nic,
    Question,
    stopped,
    translation,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.links import Answer, Link, Links
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.packet import Base, Packet, answer, at_hook

EPHEMERAL = 49152  # the port that the sender takes is not known; any of these is as good (RFC 6335)


def trace(root: Root, question: Question) -> tuple[list[Hop], Packet]:
    """Return the hops up to the first that stops the packet, and the packet as it is then."""
    walk = _Walk(root, question)
    found = []
    for hop in walk.hops():
        found.append(hop)
        if hop.verdict == STOPS:
            break
    return found, walk.packet


class _Walk:
    """One packet on its way; what it has become is in C(packet)."""

    def __init__(self, root: Root, question: Question) -> None:
        families = {address: 6 if ":" in address else 4 for address in (question.source, question.to)}
        if len(set(families.values())) > 1:
            raise KvmError(f"to: {question.to} is of another family than the source {question.source}")
        self.root = root
        self.question = question
        self.nics: Mapping[str, Nic] = question.nics or {}
        self.links = Links(root)
        self.bases: list[Base] = ruleset.read(root)
        family = "ip6" if ":" in question.to else "ip"
        proto = "icmpv6" if question.proto == "icmp" and family == "ip6" else question.proto
        sender = EPHEMERAL if proto in ("tcp", "udp") else None
        asked = (question.source, question.to, question.port)
        self.packet = Packet(family, question.source, question.to, proto, question.port, sender, original=asked)

    def hops(self) -> Iterator[Hop]:
        if self.question.interface is None and self.links.is_own(self.question.source):
            yield from self._from_host()
            return
        port = self._entrance()
        yield from self._guest(port, sends=True)
        link = self.links.get(port)
        if link is None:
            yield Hop(port, STOPS, "this host has no such interface now")
            return
        bridge = self.links.get(link.master) if link.master else link if link.kind == "bridge" else None
        if bridge is not None and bridge is not link:
            yield from self._link(bridge)  # first: of a bridge that is switched off, every port is disabled
        yield from self._link(link)
        self.packet = replace(self.packet, iif=port)
        for family in ("netdev", None):
            yield from self._rules("ingress", family)
        entry = link
        if bridge is link:
            yield self._unheard(link)
            if self._stays_on(link):
                yield from self._across(link, link)
                return
        elif bridge is not None:
            if bridge.kind != "bridge":
                yield Hop(bridge.name, MAY_STOP, f"{port} belongs to it, and what it does with packets is not known here")
                return
            self.packet = replace(self.packet, iif=port, port_in=port, mac=self._mac(port))
            yield from self._rules("prerouting", "bridge")
            if self._stays_on(bridge):
                yield from self._across(link, bridge)
                return
            yield from self._rules("input", "bridge")
            entry = bridge
        self.packet = replace(self.packet, iif=entry.name, port_in=self.packet.port_in if self._bridged_are_filtered() else "")
        yield from self._in(entry)

    # Into the host ---------------------------------------------------------------------------------------------------------

    def _entrance(self) -> str:
        """Return the interface that the packet comes in by: the port of a bridge where it is known which."""
        name = self.question.interface
        if name is None:
            way = self.links.route(self.question.source)
            if way.refused or not way.dev:
                raise KvmError(f"source: this host has no route to {self.question.source}; give the interface that its packets come in by")
            name = way.dev
        link = self.links.get(name)
        if link is not None and link.kind == "bridge":
            known = self.links.neighbour(self.question.source, name).get("lladdr")
            return (known and self.links.port_of(known, name)) or self._behind(link)
        return name

    def _behind(self, bridge: Link) -> str:
        """Return the port that is the only one of a bridge, else the bridge: which of several cannot be told of one who never spoke."""
        ports = self.links.ports(bridge.name)
        return ports[0].name if len(ports) == 1 else bridge.name

    def _unheard(self, bridge: Link) -> Hop:
        """Return the doubt about a sender that was not heard behind any port of a bridge."""
        down = [link.name for link in self.links.ports(bridge.name) if not (link.up and link.carrier)]
        more = f"; of its ports, {' and '.join(down)} {'is' if len(down) == 1 else 'are'} down" if down else ""
        return Hop(f"bridge {bridge.name}", MAY_STOP, f"behind which port {self.packet.source} is was not heard{more}")

    def _mac(self, port: str) -> str | None:
        """Return the sender's own address, where it is known: of a guest, or what the host last heard."""
        if port in self.nics:
            return self.nics[port].mac
        link = self.links.get(port)
        known = self.links.neighbour(self.question.source, link.master) if link is not None and link.master else {}
        return str(known["lladdr"]) if "lladdr" in known else None

    def _guest(self, port: str, sends: bool) -> Iterator[Hop]:
        nic = self.nics.get(port)
        if nic is None:
            return
        if not nic.up:
            yield Hop(f"guest {nic.guest} {port}", STOPS, "the link of the guest's interface is down (link state of its definition)")
            return
        yield Hop(f"guest {nic.guest} {port}", PASSES, f"{nic.mac}, the link is up")
        if nic.filter:
            word = "what leaves it" if sends else "what comes to it"
            if self._has_bridge_rules(port):
                yield Hop(f"filter {nic.filter}", PASSES, f"a filter on {word}; its rules are in the bridge tables, which are judged")
            else:
                yield Hop(f"filter {nic.filter}", MAY_STOP, f"a filter on {word}; its rules are not where nft tells them")

    def _has_bridge_rules(self, port: str) -> bool:
        rules = [rule.text for base in self.bases if base.families == ("bridge",) for chain in base.chains.values() for rule in chain]
        return any(port in re.findall(r"[\w.-]+", text) for text in rules)

    def _link(self, link: Link) -> Iterator[Hop]:
        if not link.up:
            yield Hop(f"link {link.name}", STOPS, f"it is switched off; ip link set {link.name} up")
        elif not link.carrier:
            yield Hop(f"link {link.name}", STOPS, "it has no carrier: nothing is at its other end, or that is switched off")
        elif link.port_state not in (None, "forwarding"):
            yield Hop(f"port {link.name}", STOPS, f"as a port of {link.master} it is {link.port_state} (spanning tree), not forwarding")
        else:
            yield Hop(f"link {link.name}", PASSES, "up" + (f", port of {link.master}{', isolated' if link.isolated else ''}" if link.master else ""))

    def _in(self, entry: Link) -> Iterator[Hop]:
        self._know_types()
        yield from self._rules("prerouting")
        self._know_types()
        way = self.links.route(self.packet.to, self.packet.source, entry.name, self.packet.mark)
        if way.refused:
            yield self._refused(way, entry.name)
            return
        if way.type in ("local", "broadcast", "multicast"):
            yield from self._to_host()
            return
        off = self._forwarding(entry.name, way.dev)
        if off:
            yield off
            return
        yield Hop("route", PASSES, f"{self.packet.to} over {way.dev}{f' by {way.gateway}' if way.gateway else ''}")
        self.packet = replace(self.packet, oif=way.dev)
        yield from self._rules("forward")
        yield from self._out(way)
        yield from self._answered(entry.name, way.dev)

    def _know_types(self) -> None:
        """Find out what the routing tables take the addresses for; rules ask for it."""
        own = {True: "local", False: "unicast"}
        self.packet = replace(
            self.packet, to_type=own[self.links.is_own(self.packet.to)], source_type=own[self.links.is_own(self.packet.source)]
        )

    def _refused(self, way: Answer, iif: str) -> Hop:
        """Return why the kernel has no way for a packet that comes in."""
        off = self._forwarding(iif, None)
        if way.refused == "no host" and off:
            return off
        if way.refused == "invalid":
            limit = self._reverse_path(iif)
            if limit:
                return limit
        words = {
            "unreachable": f"this host has no route to {self.packet.to}",
            "no host": f"a route of this host says that {self.packet.to} is unreachable",
            "prohibit": f"a route of this host prohibits {self.packet.to}",
            "invalid": f"the kernel takes it for impossible: a blackhole route for {self.packet.to}, or a source that cannot come in by {iif}",
        }  # fmt: skip
        return Hop("route", STOPS, words[str(way.refused)])

    def _reverse_path(self, iif: str) -> Hop | None:
        """Return that the reverse path filter drops it: the way back to the source is not the one it came by (ip-sysctl.rst)."""
        if self.packet.family == "ip6":
            return None
        values = {name: self.root.number(f"/proc/sys/net/ipv4/conf/{name}/rp_filter") or 0 for name in ("all", iif)}
        name = max(values, key=lambda one: values[one])
        back = self.links.route(self.packet.source)
        wrong = bool(back.refused) or (values[name] == 1 and back.dev != iif)
        if not values[name] or not wrong:
            return None
        way = "there is no way" if back.refused else f"the way back is {back.dev}"
        why = f"it is {values[name]}, and {way} for {self.packet.source}, which came in by {iif}"
        return Hop(f"sysctl net.ipv4.conf.{name}.rp_filter", STOPS, why)

    def _forwarding(self, iif: str, oif: str | None) -> Hop | None:
        """Return the parameter that keeps the host from forwarding what comes in; IPv6 has one for all."""
        # Of IPv4, the interface's own decides; the first sets all of them.
        four = ["net.ipv4.ip_forward", f"net.ipv4.conf.{iif}.forwarding"]
        names = four if self.packet.family == "ip" else ["net.ipv6.conf.all.forwarding"]
        values = {name: self._sysctl(name) for name in names}
        if values[names[-1]] != 0:
            return None
        name = next(name for name, value in values.items() if value == 0)
        return Hop(f"sysctl {name}", STOPS, f"it is 0, so nothing that comes in by {iif} is forwarded{f' to {oif}' if oif else ''}")

    def _sysctl(self, name: str) -> int | None:
        """Return a parameter's value; the dots of a VLAN's name are no separators."""
        *front, last = name.split(".") if ".conf." not in name else [*name.split(".")[:3], *name.split(".", 3)[3].rsplit(".", 1)]
        return self.root.number("/proc/sys/" + "/".join([*front, last]))

    # To and from the host itself -----------------------------------------------------------------------------------------------

    def _to_host(self) -> Iterator[Hop]:
        self.packet = replace(self.packet, to_type="local")
        yield Hop("route", PASSES, f"{self.packet.to} is the host's own")
        yield from self._rules("input")
        yield from self._socket()
        iif = self.packet.iif
        self.packet, kept = replace(answer(replace(self.packet, oif="")), oif=iif, iif=""), self.packet
        if self.links.route(self.packet.to).refused:
            yield Hop("route", STOPS, f"the answer: this host has no route to {self.packet.to}")
        yield from self._rules("output", word="the answer")
        self.packet = kept

    def _socket(self) -> Iterator[Hop]:
        if self.packet.proto not in ("tcp", "udp") or self.packet.port is None:
            return
        if sockets.listens(self.root, self.packet.proto, self.packet.to, self.packet.port):
            yield Hop("socket", PASSES, f"a program of the host listens on {self.packet.proto} {self.packet.port}")
        else:
            yield Hop("socket", STOPS, f"no program of the host listens on {self.packet.proto} {self.packet.port} of {self.packet.to}")

    def _from_host(self) -> Iterator[Hop]:
        way = self.links.route(self.packet.to, self.packet.source)
        if way.refused:
            yield self._refused(way, "lo")
            return
        self._know_types()
        self.packet = replace(self.packet, oif=way.dev)
        before = self.packet.to
        yield from self._rules("output")
        if self.packet.to != before:
            way = self.links.route(self.packet.to, self.packet.source)
            if way.refused:
                yield self._refused(way, "lo")
                return
            self.packet = replace(self.packet, oif=way.dev)
        if way.type == "local" or self.links.is_own(self.packet.to):
            self.packet = replace(self.packet, iif="lo", oif="")
            yield from self._to_host()
            return
        yield Hop("route", PASSES, f"{self.packet.to} over {way.dev}{f' by {way.gateway}' if way.gateway else ''}")
        yield from self._out(way)
        back, kept = replace(answer(self.packet), oif=""), self.packet
        self.packet = back
        yield from self._rules("input", word="the answer")
        self.packet = kept

    # Out of the host -------------------------------------------------------------------------------------------------------------

    def _out(self, way: Answer) -> Iterator[Hop]:
        before = self.packet
        yield from self._rules("postrouting")
        link = self.links.get(way.dev)
        if link is None:
            return
        if self.packet.status != before.status and self.packet.source == before.source:  # masquerade: the address of the way out
            known = link.own(self.packet.family)
            told = self.links.route(self.packet.to).source
            self.packet = replace(self.packet, source=told or (str(known[0].ip) if known else before.source))
        yield from self._link(link)
        yield from self._rules("egress", "netdev")
        hop = way.gateway or self.packet.to
        heard = self.links.neighbour(hop, way.dev)
        if "FAILED" in heard.get("state", []):
            yield Hop(f"neighbour {hop}", MAY_STOP, f"nobody on {way.dev} answered when it was last asked for")
        if link.kind == "bridge":
            port = self.links.port_of(heard["lladdr"], link.name) if "lladdr" in heard else None
            yield from self._port_out(port)

    def _port_out(self, port: str | None) -> Iterator[Hop]:
        link = self.links.get(port) if port else None
        if link is None:
            return
        yield from self._link(link)
        kept = self.packet
        self.packet = replace(self.packet, oif=link.name)
        yield from self._rules("postrouting", "bridge")
        yield from self._rules("egress", "netdev")
        self.packet = kept
        yield from self._guest(link.name, sends=False)

    def _answered(self, iif: str, oif: str) -> Iterator[Hop]:
        """Judge the first answer, which takes the same way back."""
        kept = self.packet
        self.packet = replace(answer(kept), iif=oif, oif=iif, port_in="", port_out="")
        off = self._forwarding(iif=oif, oif=iif)
        if off:
            yield Hop(off.at, STOPS, f"the answer: {off.why}")
        elif self.links.route(self.packet.to, self.packet.source, oif).refused:
            yield Hop("route", STOPS, f"the answer: this host has no route to {self.packet.to}")
        yield from self._rules("forward", word="the answer")
        self.packet = kept

    # Between two ports of a bridge ------------------------------------------------------------------------------------------------

    def _stays_on(self, bridge: Link) -> bool:
        """Tell whether the frame goes from port to port: the destination is in the bridge's own network, or the host is no router there."""
        if self.links.is_own(self.packet.to):
            return False
        own = bridge.own(self.packet.family)
        return not own or any(ipaddress.ip_address(self.packet.to) in one.network for one in own)

    def _across(self, port: Link, bridge: Link) -> Iterator[Hop]:
        mac = self._mac_of(self.packet.to, bridge.name)
        out = self.links.port_of(mac, bridge.name) if mac else None
        others = [link for link in self.links.ports(bridge.name) if link.name != port.name]
        if out is None and len(others) == 1:
            out = others[0].name
        link = self.links.get(out) if out else None
        if link is None:
            yield Hop(f"bridge {bridge.name}", MAY_STOP, f"the frame stays on it, and behind which port {self.packet.to} is was not heard yet")
            return
        yield Hop(f"bridge {bridge.name}", PASSES, f"the frame stays on it and leaves by {link.name}")
        if port.isolated and link.isolated:
            yield Hop(f"port {link.name}", STOPS, f"it and {port.name} are isolated ports, between which {bridge.name} passes nothing")
            return
        if self._bridged_are_filtered():
            name = f"net.bridge.bridge-nf-call-{'ip6' if self.packet.family == 'ip6' else 'ip'}tables"
            yield Hop(f"sysctl {name}", PASSES, "it is 1, so frames between guests go through the packet filter of the host")
            self.packet = replace(self.packet, iif=bridge.name, oif=bridge.name, bridged=True, port_out=link.name)
            for hook in ("prerouting", "forward", "postrouting"):
                yield from self._rules(hook)
        self.packet = replace(self.packet, iif=port.name, oif=link.name)
        yield from self._rules("forward", "bridge")
        yield from self._port_out(link.name)

    def _mac_of(self, address: str, bridge: str) -> str | None:
        known = self.links.neighbour(address, bridge).get("lladdr")
        return str(known) if known else None

    def _bridged_are_filtered(self) -> bool:
        return bool(self.root.number(f"/proc/sys/net/bridge/bridge-nf-call-{'ip6' if self.packet.family == 'ip6' else 'ip'}tables"))

    # Rules ----------------------------------------------------------------------------------------------------------------------------

    def _rules(self, hook: str, family: str | None = None, word: str = "") -> Iterator[Hop]:
        """Judge the packet by every chain of a hook; yield what stops it, may stop it, or translates it."""
        ruling = at_hook(self.bases, hook, self.packet, family)
        self.packet = ruling.packet
        at = f"{family} {hook}" if family else hook
        about = f"{word}: " if word else ""
        for said in ruling.translated:
            yield Hop(at, PASSES, f"{translation(self.packet, said)} by {said.by}")
        for doubt in ruling.doubts:
            if doubt.stops and not ruling.stops:
                yield Hop(at, MAY_STOP, f"{about}may be stopped by a rule that cannot be evaluated here: {doubt.by}")
            elif not doubt.stops and doubt.verdict != "accept":
                yield Hop(at, MAY_STOP, f"{about}may be translated by a rule that cannot be evaluated here: {doubt.by}")
        if ruling.stops:
            yield stopped(at, about, ruling)
        elif any(base.hook == hook and (family or self.packet.family) in base.families for base in self.bases):
            yield Hop(at, PASSES, f"{about}every chain lets it through")
