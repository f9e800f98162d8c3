# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of iptables, as C(iptables-save) tells them, as rules that a packet can be judged by. Pure (iptables-extensions(8))."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ansible_collections.anfitrion.kvm.plugins.module_utils._node.packet import (
    Act,
    Base,
    Packet,
    Rule,
    Test,
    in_network,
    in_span,
    opposite,
)

# Where the kernel calls the chains of a table (linux/netfilter_ipv4.h).
PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
AFTER_ROUTING = {"POSTROUTING", "INPUT"}  # where nat gives a packet its source, at 100
HOOKS = {"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output", "POSTROUTING": "postrouting"}
# Targets after which the next rule is looked at, and that change nothing of what we judge by.
NO_MATTER = {"LOG", "NFLOG", "ULOG", "TCPMSS", "CHECKSUM", "CONNMARK", "TRACE", "DSCP", "TOS", "TTL", "CLASSIFY", "SET", "AUDIT", "SECMARK",
             "CONNSECMARK", "HL", "TEE", "RATEEST", "IDLETIMER", "LED",
             "CONTINUE", "mark", "dnat", "snat", "redirect", "arpreply"}  # fmt: skip
WORTH_NOTHING = {"--comment", "--reject-with", "--random", "--random-fully", "--persistent"}


@dataclass(frozen=True)
class Dialect:
    """In what the tools of this kind differ: matches, how a rule is written, where a chain is called, what the policy of a chain of others is."""

    matches: Mapping[str, Callable[[str], Test]]
    line: Callable[[str], str]
    priority: Callable[[str, str], int]
    end: Callable[[str], tuple[Rule, ...]]


def parse(text: str, family: str, dialect: Dialect | None = None) -> list[Base]:
    """Return the built-in chains of what iptables-save or ip6tables-save (C(family): ip, ip6) says."""
    dialect = dialect or IPTABLES
    found = []
    for part in re.split(r"^\*", text, flags=re.MULTILINE)[1:]:  # not every tool ends a table with COMMIT
        table, *lines = part.splitlines()
        policies = dict(line[1:].split()[:2] for line in lines if line.startswith(":"))
        chains: dict[str, list[Rule]] = {name: [] for name in policies}
        for line in lines:
            if line.startswith("-A "):
                chains[line.split()[1]].append(_rule(line, dialect))
        ends = {name: () if name in HOOKS else dialect.end(policy.lower()) for name, policy in policies.items()}
        whole = {name: (*rules, *ends[name]) for name, rules in chains.items()}
        kind = "nat" if table == "nat" and family != "bridge" else "filter"
        found += [
            Base(f"{family} {table}", name, HOOKS[name], kind, dialect.priority(table, name), policy.lower(), (family,), whole)
            for name, policy in policies.items() if name in HOOKS
        ]  # fmt: skip
    return found


def tables(text: str) -> set[str]:
    """Return the names of the tables that iptables-save tells the rules of."""
    return {line[1:].strip() for line in text.splitlines() if line.startswith("*")}


def _priority(table: str, chain: str) -> int:
    return 100 if table == "nat" and chain in AFTER_ROUTING else PRIORITIES.get(table, 0)


def _rule(line: str, dialect: Dialect) -> Rule:
    words = shlex.split(dialect.line(line))[2:]
    tests: list[Test] = []
    target: list[str] = []
    negated = False
    while words:
        word = words.pop(0)
        if word == "!":
            negated = True
            continue
        if word in ("-j", "-g"):
            target, words = [word, *words], []
            break
        values: list[str] = []
        while words and words[0] != "!" and not re.match(r"-{1,2}[a-z]", words[0]):
            values.append(words.pop(0))
        if word != "-m" and word not in WORTH_NOTHING:
            tests.append(_test(dialect.matches.get(word), values, negated))
        negated = False
    return Rule(line, tuple(tests), tuple(_acts(target)))


def _test(make: Callable[[str], Test] | None, values: list[str], negated: bool) -> Test:
    if make is None:
        return lambda _packet: None
    # Some take two words, as --tcp-flags does; some a ! that stands between.
    test = make(" ".join(values))
    return (lambda packet: opposite(test(packet))) if negated else test


def _acts(target: list[str]) -> list[Act]:
    if not target:
        return []
    way, name, *options = target
    named = {option: value for option, value in zip(options, [*options[1:], ""]) if option.startswith("--")}
    if way == "-g":
        return [Act("goto", name)]
    if name in NO_MATTER:
        return []
    return [TARGETS[name](named) if name in TARGETS else Act("queue") if name in ASKS_OTHERS else Act("jump", name)]


def _redirect(named: dict[str, str]) -> Act:
    port = named.get("--to-ports", "")
    return Act("redirect", (None, int(port) if port.isdigit() else "?" if port else None))


def _place(text: str) -> tuple[Any, Any]:
    """Return (address, port) of C(10.0.0.1:80), C([fd00::1]:80), C(:80) or C(10.0.0.1); "?" for what is a range."""
    bare_six = text.count(":") > 1 and not text.startswith("[")
    match = re.fullmatch(r"([0-9a-f:]+)()" if bare_six else r"\[?([0-9a-f.:]*?)\]?(?::(\d+))?", text)
    if match is None:
        return "?", "?"
    return match[1] or None, int(match[2]) if match[2] else None


def _marking(named: dict[str, str]) -> Callable[[int], Optional[int]]:
    """Return what a mark becomes (xt_mark: the bits of the mask are cleared, then the value is xored or ored)."""
    option, text = next(((one, named[one]) for one in ("--set-xmark", "--set-mark", "--or-mark", "--and-mark") if one in named), ("", ""))
    if not option:
        return lambda _mark: None
    value, _slash, mask = text.partition("/")
    number, bits = int(value, 0), int(mask or "0xffffffff", 0)
    if option == "--set-xmark":
        return lambda mark: (mark & ~bits) ^ number
    return {"--or-mark": lambda mark: mark | number, "--and-mark": lambda mark: mark & number}.get(option, lambda mark: (mark & ~bits) | number)


ASKS_OTHERS = {"NFQUEUE", "QUEUE", "TPROXY", "NETMAP", "SYNPROXY", "CLUSTERIP", "NOTRACK", "TARPIT"}
TARGETS: dict[str, Callable[[dict[str, str]], Act]] = {
    "ACCEPT": lambda _named: Act("accept"), "DROP": lambda _named: Act("drop"), "REJECT": lambda _named: Act("reject"),
    "RETURN": lambda _named: Act("return"), "MASQUERADE": lambda _named: Act("masquerade"), "REDIRECT": _redirect,
    "DNAT": lambda named: Act("dnat", _place(named.get("--to-destination", ""))),
    "SNAT": lambda named: Act("snat", _place(named.get("--to-source", ""))),
    "CT": lambda named: Act("queue" if "--notrack" in named else "continue"),
    "MARK": lambda named: Act("mark", _marking(named)),
}  # fmt: skip


# Matches: from an option's value to a test -----------------------------------------------------------------------------


def _address(which: str) -> Callable[[str], Test]:
    def make(value: str) -> Test:
        return lambda packet: any(in_network(getattr(packet, which), one) for one in value.split(","))

    return make


def _span(which: str) -> Callable[[str], Test]:
    return lambda value: lambda packet: in_span(getattr(packet, which), *value.split("-"))


def _interface(which: str) -> Callable[[str], Test]:
    def make(value: str) -> Test:
        return lambda packet: getattr(packet, which).startswith(value[:-1]) if value.endswith("+") else getattr(packet, which) == value

    return make


def _ports(*which: str) -> Callable[[str], Test]:
    def make(value: str) -> Test:
        spans = [(int(one.split(":")[0] or 0), int(one.split(":")[-1] or 65535)) for one in value.split(",")]

        def test(packet: Packet) -> Optional[bool]:
            numbers = [getattr(packet, one) for one in which]
            if any(number is not None and first <= number <= last for number in numbers for first, last in spans):
                return True
            return None if None in numbers else False

        return test

    return make


PROTOCOLS = {"6": "tcp", "17": "udp", "1": "icmp", "58": "ipv6-icmp", "icmpv6": "ipv6-icmp", "132": "sctp"}


def _protocol(value: str) -> Test:
    return lambda packet: value in ("all", "0") or PROTOCOLS.get(value, value) == PROTOCOLS.get(packet.proto, packet.proto)


def _states(value: str) -> Test:
    """Tell by the state of the connection; DNAT and SNAT are no states of it but whether it is translated."""
    return lambda packet: packet.state.upper() in value.split(",") or any(one.lower() in packet.status for one in value.split(","))


def _mark(value: str) -> Test:
    number, _slash, mask = value.partition("/")
    return lambda packet: None if packet.mark is None else (packet.mark & int(mask or "0xffffffff", 0)) == int(number, 0)


def _type(which: str) -> Callable[[str], Test]:
    def make(value: str) -> Test:
        def test(packet: Packet) -> Optional[bool]:
            found = getattr(packet, which)
            return None if found is None else found.upper() in value.split(",")

        return test

    return make


def flags(packet: Packet) -> set[str]:
    """Return the flags of TCP: a connection starts with SYN, its first answer is SYN and ACK."""
    return {"SYN"} if packet.state == "new" else {"SYN", "ACK"}


def _flags(value: str) -> Test:
    names = {"ALL": "FIN,SYN,RST,PSH,ACK,URG", "NONE": ""}
    mask, wanted = (set(names.get(word, word).split(",")) - {""} for word in value.split())
    return lambda packet: packet.proto == "tcp" and flags(packet) & mask == wanted


def _icmp(value: str) -> Test:
    echo = {"new": {"8", "8/0", "echo-request", "128", "ping"}, "established": {"0", "0/0", "echo-reply", "129", "pong"}}
    return lambda packet: value in ("any", "255") or value in echo[packet.state]


def _original(place: int) -> Callable[[str], Test]:
    def make(value: str) -> Test:
        return lambda packet: in_network(str((packet.original or (packet.source, packet.to))[place]), value)

    return make


def _mac(value: str) -> Test:
    return lambda packet: None if packet.mac is None else packet.mac.lower() == value.lower()


MATCHES: dict[str, Callable[[str], Test]] = {
    "-s": _address("source"), "-d": _address("to"), "-i": _interface("iif"), "-o": _interface("oif"), "-p": _protocol,
    "--src-range": _span("source"), "--dst-range": _span("to"),
    "--dport": _ports("port"), "--dports": _ports("port"), "--sport": _ports("source_port"), "--sports": _ports("source_port"),
    "--ports": _ports("port", "source_port"),
    "--ctstate": _states, "--state": _states, "--mark": _mark, "--dst-type": _type("to_type"), "--src-type": _type("source_type"),
    "--ctdir": lambda value: lambda packet: packet.direction.upper() == value,
    "--ctorigsrc": _original(0), "--ctorigdst": _original(1),
    "--tcp-flags": _flags, "--syn": lambda _value: _flags("FIN,SYN,RST,ACK SYN"), "--icmp-type": _icmp, "--icmpv6-type": _icmp,
    "--mac-source": _mac, "--pkt-type": lambda value: lambda _packet: value == "unicast",
    "--physdev-in": _interface("port_in"), "--physdev-out": _interface("port_out"),
    "--physdev-is-bridged": lambda _value: lambda packet: packet.bridged,
    "--physdev-is-in": lambda _value: lambda packet: bool(packet.port_in), "--physdev-is-out": lambda _value: lambda packet: packet.bridged,
}  # fmt: skip
IPTABLES = Dialect(matches=MATCHES, line=lambda line: line, priority=_priority, end=lambda _policy: ())
