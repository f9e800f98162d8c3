# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked about a packet's way, and how each place on it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.anfitrion.kvm.plugins.module_utils._node.packet import Packet, Ruling, Said

PASSES, MAY_STOP, STOPS = "passes", "may_stop", "stops"


@dataclass(frozen=True)
class Hop:
    """One place on the way: its name, whether the packet passes, and why."""

    at: str
    verdict: str
    why: str


@dataclass(frozen=True)
class Nic:
    """What a guest's interface is, where the host's own interface does not tell: link as the guest sees it, its network filter."""

    guest: str
    mac: str
    up: bool
    filter: str | None


@dataclass(frozen=True)
class Question:
    """Who asks for whom. interface: where the packet comes in, a guest's tap or the host's; nics: of running guests, by tap."""

    source: str
    to: str
    proto: str
    port: int | None
    interface: str | None = None
    nics: Mapping[str, Nic] = ()  # type: ignore[assignment]


def translation(packet: Packet, said: Said) -> str:
    if said.verdict in ("dnat", "redirect"):
        return f"led to {packet.to}{f' port {packet.port}' if packet.port else ''}"
    return "gets another source"


def stopped(at: str, about: str, ruling: Ruling) -> Hop:
    """Return the hop that ends the way; a rule before it that may accept the packet makes it a doubt."""
    word = {"drop": "dropped", "reject": "rejected"}[ruling.said.verdict]
    why = f"{about}{word} by {ruling.said.by}{_owner(ruling.said.by)}"
    unless = [doubt.by for doubt in ruling.doubts if doubt.verdict == "accept"]
    if unless:
        return Hop(at, MAY_STOP, f"{why}, unless a rule that cannot be evaluated here lets it through before: {unless[0]}")
    return Hop(at, STOPS, why)


FILTER = "libvirt's, of a network filter"
OWNERS = {
    "LIBVIRT_": "libvirt's, of a network's mode", "libvirt_network": "libvirt's, of a network's mode",
    "DOCKER": "docker's", "firewalld": "firewalld's", "ufw": "ufw's",
    "anfitrion": "declared with anfitrion.kvm.kvm_firewall", "ANFITRION": "declared with anfitrion.kvm.kvm_firewall",
    "libvirt-": FILTER, "nat I-": FILTER, "nat O-": FILTER, "filter FI-": FILTER, "filter FO-": FILTER, "filter HI-": FILTER,
    "FORWARD: policy drop": "docker and ufw set it",
}  # fmt: skip


def _owner(by: str) -> str:
    """Return whose a rule is, by the name of its chain, for whoever is to change it."""
    return next((f" ({words})" for name, words in OWNERS.items() if name in by), "")
