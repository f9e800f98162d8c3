# SPDX-License-Identifier: GPL-3.0-or-later
"""The bridge tables of ebtables, as C(ebtables-save) tells them, as rules that a frame can be judged by. Pure (ebtables(8))."""

from __future__ import annotations

import re
from typing import Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import iptables_rules
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.iptables_rules import MATCHES, Dialect
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.packet import Act, Base, Rule, Test

# linux/netfilter_bridge.h; nat gives a frame its source at 300.
PRIORITIES = {("nat", "PREROUTING"): -300, ("nat", "OUTPUT"): 100, ("nat", "POSTROUTING"): 300, ("filter", "OUTPUT"): -200}
FAMILIES = {"IPv4": "ip", "IPv6": "ip6", "0x800": "ip", "0x0800": "ip", "0x86dd": "ip6", "0x86DD": "ip6"}


def parse(text: str) -> list[Base]:
    """Return the built-in chains of what ebtables-save says. A chain of others has a policy too, which is RETURN if nothing is said."""
    return iptables_rules.parse(text, "bridge", DIALECT)


def _line(line: str) -> str:
    """Return a rule with its negations in front, where iptables has them."""
    return re.sub(r"(-{1,2}[a-z][\w-]*) ! ", r"! \1 ", line)


def _protocol(value: str) -> Test:
    return lambda packet: FAMILIES.get(value) == packet.family


def _mac(value: str) -> Test:
    return lambda packet: None if packet.mac is None or "/" in value else packet.mac.lower() == value.lower()


def _end(policy: str) -> tuple[Rule, ...]:
    """Return what the policy of a chain that is jumped to comes to."""
    return () if policy in ("-", "return") else (Rule(f"policy {policy}", (), (Act(policy),)),)


WORDS: dict[str, Callable[[str], Test]] = {
    "-i": MATCHES["-i"], "-o": MATCHES["-o"], "-p": _protocol, "-s": _mac,
    **{f"--ip{six}-{word}": MATCHES[same] for six in ("", "6") for word, same in (
        ("src", "-s"), ("source", "-s"), ("dst", "-d"), ("destination", "-d"), ("proto", "-p"), ("protocol", "-p"),
        ("dport", "--dport"), ("destination-port", "--dport"), ("sport", "--sport"), ("source-port", "--sport"))},
    "--mark": MATCHES["--mark"],
}  # fmt: skip
DIALECT = Dialect(matches=WORDS, line=_line, priority=lambda table, chain: PRIORITIES.get((table, chain), -200), end=_end)
