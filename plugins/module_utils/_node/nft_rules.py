# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's nftables, as C(nft -j list ruleset) tells them, as rules that a packet can be judged by. Pure (libnftables-json(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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

FAMILIES = {"ip": ("ip",), "ip6": ("ip6",), "inet": ("ip", "ip6"), "bridge": ("bridge",), "netdev": ("netdev",)}
VERDICTS = ("accept", "drop", "return", "continue")
NO_MATTER = {"counter", "log", "comment", "set", "add", "update", "ct helper", "ct timeout", "ct expectation", "dup", "flow"}
NUMBERS = {"ip": 0x0800, "ip6": 0x86DD, "tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58}
UNKNOWN = object()  # cannot be told of the packet
ABSENT = object()  # the packet has no such thing, so that no comparison is true
Value = Callable[[Packet], Any]
Sets = Mapping[tuple[str, str, str], list[Any]]


def parse(document: Iterable[Mapping[str, Any]], texts: Mapping[tuple[str, str, int], str], without: set[tuple[str, str]]) -> list[Base]:
    """Return the base chains of a ruleset.

    texts: what a rule says, by (family, table, handle). without: (family, table) of those that iptables told already, in its own words.
    """
    objects = list(document)
    sets = {_key(one[kind]): one[kind].get("elem", []) for one in objects for kind in ("set", "map") if kind in one}
    chains: dict[tuple[str, str], dict[str, list[Rule]]] = {}
    for one in objects:
        if "chain" in one:
            chains.setdefault(_key(one["chain"])[:2], {})[one["chain"]["name"]] = []
    for one in objects:
        if "rule" in one:
            rule = one["rule"]
            text = texts.get((rule["family"], rule["table"], rule["handle"]), str(rule["expr"]))
            chains[(rule["family"], rule["table"])][rule["chain"]].append(_rule(rule, text, sets))
    whole = {table: {name: tuple(rules) for name, rules in own.items()} for table, own in chains.items()}
    bases = [one["chain"] for one in objects if "hook" in one.get("chain", {})]
    return [
        Base(f"{one['family']} {one['table']}", one["name"], one["hook"], one["type"], one["prio"], one.get("policy", "accept"),
             FAMILIES[one["family"]], whole[_key(one)[:2]], _devices(one.get("dev", [])))
        for one in bases if one["family"] in FAMILIES and _key(one)[:2] not in without
    ]  # fmt: skip


def _devices(told: Any) -> tuple[str, ...]:
    return (told,) if isinstance(told, str) else tuple(told)


def texts_of(listing: str) -> dict[tuple[str, str, int], str]:
    """Return what each rule says, by (family, table, handle), from C(nft -a list ruleset)."""
    found = {}
    family = table = ""
    for line in listing.splitlines():
        head = re.match(r"table (\w+) (\S+) \{", line)
        rule = re.match(r"\t\t(.*) # handle (\d+)$", line)
        if head:
            family, table = head[1], head[2]
        elif rule:
            found[(family, table, int(rule[2]))] = rule[1]
    return found


def _key(one: Mapping[str, Any]) -> tuple[str, str, str]:
    return one["family"], one["table"], one["name"]


def _rule(rule: Mapping[str, Any], text: str, sets: Sets) -> Rule:
    tests: list[Test] = []
    acts: list[Act] = []
    for expression in rule["expr"]:
        if not isinstance(expression, Mapping):
            tests.append(lambda _packet: None)
            continue
        for word, body in expression.items():
            if word == "match":
                tests.append(_match(rule, body, sets))
            elif word == "reject":
                acts.append(Act("reject"))
                tests += _of_reject(body)
            elif word == "vmap":
                acts.append(Act("pick", _vmap(rule, body, sets)))
            elif word not in NO_MATTER:
                made = _act(word, body)
                # What we do not know may match or not, and may do anything.
                acts += [made] if made else []
                tests += [] if made else [lambda _packet: None]
    return Rule(text, tuple(tests), tuple(acts))


def _of_reject(body: Any) -> list[Test]:
    """Return what a reject asks of the packet by itself: nft leaves that out of what it tells (a reset is TCP's, ICMP has a family)."""
    kind = (body or {}).get("type")
    if kind == "tcp reset":
        return [lambda packet: packet.proto == "tcp"]
    families = {"icmp": "ip", "icmpv6": "ip6"}
    return [lambda packet: packet.family == families[kind]] if kind in families else []


def _act(word: str, body: Any) -> Optional[Act]:
    if word in VERDICTS:
        return Act(word)
    if word in ("jump", "goto"):
        return Act(word, body["target"])
    if word in ("dnat", "snat", "masquerade", "redirect"):
        told = body or {}
        return Act(word, tuple(_plain(told.get(name)) for name in ("addr", "port")))
    if word == "mangle" and body.get("key") == {"meta": {"key": "mark"}}:
        value = body.get("value")
        return Act("mark", lambda _mark: value if isinstance(value, int) else None)
    if word == "mangle":
        return Act("continue")
    return Act("queue") if word in ("queue", "tproxy", "synproxy", "fwd", "notrack") else None


def _plain(value: Any) -> Any:
    """Return an address or port; "?" for what is a map, a range or a set."""
    return value if value is None or isinstance(value, (str, int)) else "?"


def _vmap(rule: Mapping[str, Any], body: Mapping[str, Any], sets: Sets) -> Callable[[Packet], list[Act]]:
    value = _value(body["key"])
    data = body["data"]
    pairs = sets.get((rule["family"], rule["table"], data[1:]), []) if isinstance(data, str) else data["set"]

    def pick(packet: Packet) -> list[Act]:
        found = value(packet)
        for key, verdict in pairs:
            same = _same(found, key)
            if same is None:
                return [Act("queue")]
            if same:
                return [_act(word, what) or Act("queue") for word, what in verdict.items()]
        return []

    return pick


def _match(rule: Mapping[str, Any], body: Mapping[str, Any], sets: Sets) -> Test:
    value, operator, right = _value(body["left"]), body["op"], body["right"]
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": sets.get((rule["family"], rule["table"], right[1:]), [])}

    def test(packet: Packet) -> Optional[bool]:
        found = value(packet)
        if found is ABSENT:
            return False
        if operator in ("<", ">", "<=", ">="):
            return _ordered(found, operator, right)
        same = _same(found, right, operator == "in")
        return opposite(same) if operator == "!=" else same

    return test


def _ordered(found: Any, operator: str, right: Any) -> Optional[bool]:
    if not isinstance(found, int) or not isinstance(right, int):
        return None
    return {"<": found < right, ">": found > right, "<=": found <= right, ">=": found >= right}[operator]


def _same(found: Any, right: Any, some: bool = False) -> Optional[bool]:
    """Return whether what the packet has is what a rule names; C(some): one of several bits is enough."""
    if found is UNKNOWN or found is ABSENT:
        return None if found is UNKNOWN else False
    if isinstance(right, Mapping):
        return _of_kind(found, right)
    if isinstance(found, frozenset):
        wanted = set(right) if isinstance(right, list) else {right}
        return bool(found & wanted) if some else found == wanted
    if isinstance(right, list):
        return any(_same(found, one) for one in right)
    return _plain_same(found, right)


def _plain_same(found: Any, right: Any) -> Optional[bool]:
    if isinstance(right, int) and isinstance(found, int):
        return found == right
    if isinstance(right, int) and found in NUMBERS:
        return NUMBERS[found] == right  # nft has no word for every number
    if not isinstance(right, str) or not isinstance(found, str):
        return None
    if right.endswith("*"):
        return found.startswith(right[:-1])
    return in_span(found, right, right) if _is_address(found) and _is_address(right) else found == right


def _is_address(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]+(\.[0-9]+){3}|[0-9a-f:.]*:[0-9a-f:.]*", text)) and not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", text)


def _of_kind(found: Any, right: Mapping[str, Any]) -> Optional[bool]:
    kind, body = next(iter(right.items()))
    return KINDS[kind](found, body) if kind in KINDS else None


def _in_set(found: Any, body: Any) -> Optional[bool]:
    several = [_same(found, one) for one in (body if isinstance(body, list) else [body])]
    return True if True in several else None if None in several else False


def _in_range(found: Any, body: Any) -> Optional[bool]:
    first, last = body
    if isinstance(found, str) and isinstance(first, str):
        return in_span(found, first, last)
    return bool(first <= found <= last) if isinstance(first, int) and isinstance(found, int) else None


def _in_concat(found: Any, body: Any) -> Optional[bool]:
    parts = [_same(one, other) for one, other in zip(found, body)] if isinstance(found, tuple) else [None]
    return False if False in parts else None if None in parts else True


KINDS: dict[str, Callable[[Any, Any], Optional[bool]]] = {
    "set": _in_set, "range": _in_range, "concat": _in_concat, "elem": lambda found, body: _same(found, body["val"]),
    "prefix": lambda found, body: in_network(found, f"{body['addr']}/{body['len']}") if isinstance(found, str) else None,
}  # fmt: skip


# What a packet has ---------------------------------------------------------------------------------------------------------


def _value(left: Any) -> Value:
    """Return what reads from a packet that which a rule compares."""
    kind, body = next(iter(left.items())) if isinstance(left, Mapping) else ("", {})
    return READERS[kind](body) if kind in READERS else _unknown


def _meta(body: Any) -> Value:
    return META.get(body["key"], _unknown)


def _fib(body: Any) -> Value:
    flags = body.get("flags", [])
    which = {"daddr": "to_type", "saddr": "source_type"}.get(str(flags[0] if isinstance(flags, list) and len(flags) == 1 else flags))
    return _attribute(which) if body.get("result") == "type" and which else _unknown


def _concat(body: Any) -> Value:
    values = [_value(one) for one in body]
    return lambda packet: _together([value(packet) for value in values])


def _unknown(_packet: Packet) -> Any:
    return UNKNOWN


def _together(found: list[Any]) -> Any:
    return ABSENT if any(one is ABSENT for one in found) else tuple(found)


def _attribute(name: str) -> Value:
    def value(packet: Packet) -> Any:
        found = getattr(packet, name)
        return UNKNOWN if found is None else found

    return value


def _masked(body: Any) -> Value:
    left, mask = body
    value = _value(left)

    def masked(packet: Packet) -> Any:
        found = value(packet)
        if isinstance(found, frozenset):
            return found & set(mask if isinstance(mask, list) else [mask])
        return found & mask if isinstance(found, int) and isinstance(mask, int) else found if found is ABSENT else UNKNOWN

    return masked


META: dict[str, Value] = {
    "iifname": _attribute("iif"), "iif": _attribute("iif"), "oifname": _attribute("oif"), "oif": _attribute("oif"),
    "l4proto": lambda packet: {"icmpv6": "ipv6-icmp"}.get(packet.proto, packet.proto), "mark": _attribute("mark"), "protocol": _attribute("family"),
    "nfproto": lambda packet: {"ip": "ipv4", "ip6": "ipv6"}[packet.family], "pkttype": lambda _packet: "unicast",
}  # fmt: skip


def _payload(body: Mapping[str, Any]) -> Value:
    """Return what reads a header; where the packet has no such header, nothing is read and no rule matches."""
    protocol, name = str(body.get("protocol")), str(body.get("field"))
    if protocol in ("arp", "vlan"):
        return lambda _packet: ABSENT
    if protocol == "ether":
        return {"saddr": _attribute("mac"), "type": META["protocol"]}.get(name, _unknown)
    fields, has = HEADERS.get(protocol, ({}, lambda packet: packet.proto == protocol or None))
    read = fields.get(name, _unknown)
    return lambda packet: read(packet) if has(packet) else ABSENT if protocol in (*HEADERS, *OTHERS) else UNKNOWN


def _tcp_flags(packet: Packet) -> frozenset[str]:
    return frozenset({"syn"} if packet.state == "new" else {"syn", "ack"})


def _echo(packet: Packet) -> str:
    return "echo-request" if packet.state == "new" else "echo-reply"


ADDRESSES = {"saddr": _attribute("source"), "daddr": _attribute("to"), "protocol": META["l4proto"], "nexthdr": META["l4proto"]}
PORTS = {"dport": _attribute("port"), "sport": _attribute("source_port"), "flags": _tcp_flags}
HEADERS: dict[str, tuple[Mapping[str, Value], Callable[[Packet], Any]]] = {
    "ip": (ADDRESSES, lambda packet: packet.family == "ip"), "ip6": (ADDRESSES, lambda packet: packet.family == "ip6"),
    "tcp": (PORTS, lambda packet: packet.proto == "tcp"), "udp": (PORTS, lambda packet: packet.proto == "udp"),
    "th": (PORTS, lambda packet: packet.proto in ("tcp", "udp")),
    "icmp": ({"type": _echo}, lambda packet: packet.proto == "icmp"), "icmpv6": ({"type": _echo}, lambda packet: packet.proto == "icmpv6"),
}  # fmt: skip
OTHERS = ("sctp", "dccp", "udplite", "esp", "ah", "igmp")


def _ct(body: Mapping[str, Any]) -> Value:
    key = body["key"]
    if key == "status":
        return _status
    if body.get("dir") == "original" or key in ("saddr", "daddr"):
        place = {"saddr": 0, "daddr": 1, "proto-dst": 2}.get(key.split()[-1])
        return (lambda packet: (packet.original or (packet.source, packet.to, packet.port))[place]) if place is not None else _unknown
    if key == "mark":
        return lambda packet: 0 if packet.state == "new" else UNKNOWN
    return _attribute(key) if key in ("state", "direction") else _unknown


def _status(packet: Packet) -> Any:
    """Return the bits of a connection's status that we know; the others of a new one are not set."""
    more = {"seen-reply", "confirmed"} if packet.state == "established" else set()
    return packet.status | more


READERS: dict[str, Callable[[Any], Value]] = {"meta": _meta, "payload": _payload, "ct": _ct, "fib": _fib, "&": _masked, "concat": _concat}
