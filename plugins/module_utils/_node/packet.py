# SPDX-License-Identifier: GPL-3.0-or-later
"""What packet rules do to one packet. Pure: from parsed rules, whichever tool they were written with (nft(8), iptables(8)).

What a rule asks for and we cannot tell is never guessed: its verdict becomes a doubt, and the rules after it are judged as if it did not match.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional

ENDS = ("accept", "drop", "reject")
TRANSLATES = ("dnat", "redirect", "snat", "masquerade")


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection (state new), or the first answer to it (established), at some place of its way.

    family: ip or ip6. iif, oif: interface it came in and goes out by, empty where there is none. port, source_port: None where not known.
    to_type: what the routing tables say of its destination: local, unicast, broadcast …
    status: of dnat and snat. original: source, destination and port before any translation. mark: None where not known.
    bridged: between two ports of a bridge, whose names are port_in and port_out.
    """

    family: str
    source: str
    to: str
    proto: str
    port: Optional[int] = None
    source_port: Optional[int] = None
    iif: str = ""
    oif: str = ""
    state: str = "new"
    direction: str = "original"
    status: frozenset[str] = frozenset()
    to_type: Optional[str] = None
    source_type: Optional[str] = None
    mark: Optional[int] = 0
    mac: Optional[str] = None
    original: Optional[tuple[str, str, Optional[int]]] = None
    bridged: bool = False
    port_in: str = ""
    port_out: str = ""


Test = Callable[[Packet], Optional[bool]]  # None: cannot be told


@dataclass(frozen=True)
class Act:
    """What a rule does: one of ENDS or TRANSLATES, jump, goto, return, continue, mark, queue (others decide); pick: C(value) tells the acts."""

    kind: str
    value: Any = None


@dataclass(frozen=True)
class Rule:
    """One rule: its text for people, what must all be true of the packet, what is then done in order."""

    text: str
    tests: tuple[Test, ...]
    acts: tuple[Act, ...]


@dataclass(frozen=True)
class Base:
    """A chain that the kernel calls at a hook, with every chain of its table. C(table) has its family in front, C(kind): filter, nat, route.

    devices: those that it is for, none: all.
    """

    table: str
    name: str
    hook: str
    kind: str
    priority: int
    policy: str
    families: tuple[str, ...]
    chains: Mapping[str, tuple[Rule, ...]]
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """A verdict and whose: the chain and the rule, or the chain and its policy."""

    verdict: str
    by: str

    @property
    def stops(self) -> bool:
        return self.verdict in ("drop", "reject")


@dataclass(frozen=True)
class Ruling:
    """What one hook makes of a packet: the packet as it goes on, and what was said; doubts: verdicts that could not be ruled out."""

    packet: Packet
    said: Said
    doubts: tuple[Said, ...] = ()
    translated: tuple[Said, ...] = ()

    @property
    def stops(self) -> bool:
        return self.said.stops

    @property
    def sure(self) -> bool:
        """Tell whether no rule that we cannot evaluate may make it otherwise."""
        return not any(doubt.stops != self.stops or doubt.verdict in TRANSLATES for doubt in self.doubts)


def every(tests: tuple[Test, ...], packet: Packet) -> Optional[bool]:
    """Return whether all tests are true of a packet; False as soon as one is surely not."""
    found = [test(packet) for test in tests]
    if False in found:
        return False
    return None if None in found else True


def at_hook(bases: list[Base], hook: str, packet: Packet, family: Optional[str] = None) -> Ruling:
    """Return what all chains of a hook make of a packet, in the order of their priorities; C(family): bridge or netdev for those that see its frame.

    An accept ends only its own chain, a drop ends the packet. Only the first translation counts (nf_nat_inet_fn of the kernel).
    """
    doubts: list[Said] = []
    translated: list[Said] = []
    device = packet.oif if hook == "egress" else packet.iif
    for base in sorted(bases, key=lambda one: one.priority):
        if base.hook != hook or (family or packet.family) not in base.families:
            continue
        if base.devices and device not in base.devices:
            continue
        if base.kind == "nat" and (packet.state != "new" or translated):
            continue  # a connection is translated once
        state = _State(packet)
        _walk(base, base.name, state, True)
        said = state.said or Said(base.policy, f"{base.table} {base.name}: policy {base.policy}")
        doubts += state.doubts
        packet = state.packet
        if said.verdict in TRANSLATES:
            translated.append(said)
        if said.stops:
            return Ruling(packet, said, tuple(doubts), tuple(translated))
    return Ruling(packet, Said("accept", ""), tuple(doubts), tuple(translated))


@dataclass
class _State:
    """A packet in one base chain: what it has become, the verdict as soon as there is one, what cannot be told."""

    packet: Packet
    said: Optional[Said] = None
    doubts: list[Said] = field(default_factory=list)


def _walk(base: Base, chain: str, state: _State, sure: bool) -> None:
    """Judge a packet by the rules of a chain. C(sure): that the packet comes here at all."""
    for rule in base.chains.get(chain, ()):
        matches = every(rule.tests, state.packet)
        if matches is False:
            continue
        by = f"{base.table} {chain}: {rule.text}"
        for act in _picked(rule.acts, state.packet):
            certain = sure and matches is True
            if act.kind in ("jump", "goto"):
                _walk(base, act.value, state, certain)
            else:
                _do(act, by, state, certain)
            if state.said:
                return
            if act.kind in ("return", "goto"):
                if certain:
                    return
                sure = False  # whether the packet comes to the rest of this chain cannot be told


def _do(act: Act, by: str, state: _State, certain: bool) -> None:
    """Have a rule's act done to a packet; of one that may not match, the verdict is a doubt."""
    if act.kind in (*ENDS, *TRANSLATES) and certain:
        state.packet = translated(state.packet, act, state.doubts, by)
        state.said = Said(act.kind, by)
    elif act.kind in (*ENDS, *TRANSLATES):
        state.doubts.append(Said(act.kind, by))
    elif act.kind == "mark":
        known = certain and state.packet.mark is not None
        state.packet = replace(state.packet, mark=act.value(state.packet.mark) if known else None)
    elif act.kind == "queue":  # a program of the host decides, or something that we do not know
        state.doubts.append(Said("drop", by))


def _picked(acts: tuple[Act, ...], packet: Packet) -> list[Act]:
    """Return the acts, those in place that a map of verdicts picks for the packet."""
    found: list[Act] = []
    for act in acts:
        if act.kind == "pick":
            found += act.value(packet)
        else:
            found.append(act)
    return found


def translated(packet: Packet, act: Act, doubts: list[Said], by: str) -> Packet:
    """Return the packet with the addresses that an act gives it; C(value): (address, port), None where it stays, "?" where it cannot be told."""
    if act.kind not in TRANSLATES:
        return packet
    address, port = act.value or (None, None)
    if "?" in (address, port):
        doubts.append(Said(act.kind, by))
        return packet
    original = packet.original or (packet.source, packet.to, packet.port)
    if act.kind == "dnat":
        return replace(packet, to=address or packet.to, port=port or packet.port, status=packet.status | {"dnat"}, original=original)
    if act.kind == "redirect":
        return replace(packet, port=port or packet.port, to=address or packet.to, to_type="local", status=packet.status | {"dnat"}, original=original)
    return replace(packet, source=address or packet.source, status=packet.status | {"snat"}, original=original)


def answer(packet: Packet) -> Packet:
    """Return the first answer to a packet that arrived, as the filter of the host that forwards it sees it.

    Translations are undone around that: its source is the guest that answers, its destination who asked.
    """
    original = packet.original or (packet.source, packet.to, packet.port)
    return replace(
        packet, source=packet.to, to=original[0], port=packet.source_port, source_port=packet.port, iif=packet.oif, oif=packet.iif,
        state="established", direction="reply", original=original, to_type=None, source_type=None, mac=None,
        port_in=packet.port_out, port_out=packet.port_in,
    )  # fmt: skip


# What both tools compare by ------------------------------------------------------------------------------------------------


def in_network(address: str, network: str) -> bool:
    """Tell whether an address lies in a network, C(10.0.0.0/8) or C(10.0.0.0/255.0.0.0); one of another family does not."""
    return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)


def in_span(address: str, first: str, last: str) -> bool:
    """Tell whether an address lies between two, both included."""
    number, low, high = (ipaddress.ip_address(text) for text in (address, first, last))
    return low.version == number.version == high.version and int(low) <= int(number) <= int(high)


def opposite(found: Optional[bool]) -> Optional[bool]:
    return None if found is None else not found
