# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What packet rules do to one packet: rules as nft and iptables print them, and the verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import ebtables_rules, iptables_rules, nft_rules
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.packet import Base, Packet, Ruling, answer, at_hook

pytestmark = pytest.mark.row("B13")
PACKET = Packet("ip", "10.1.0.10", "203.0.113.2", "tcp", 80, 50000, iif="br1", oif="eth0", to_type="unicast", source_type="unicast")


def iptables(*rules: str, policy: str = "ACCEPT", table: str = "filter", chains: tuple[str, ...] = ()) -> list[Base]:
    names = ["PREROUTING", "FORWARD", "POSTROUTING"]
    lines = [f"*{table}", *(f":{name} {policy} [0:0]" for name in names), *(f":{name} - [0:0]" for name in chains), *rules, "COMMIT"]
    return iptables_rules.parse("\n".join(lines), "ip")


def nft(*rules: list[Any], policy: str = "accept", more: tuple[dict[str, Any], ...] = (), **chain: Any) -> list[Base]:
    """One inet table with a chain at forward, or as said, and one called C(other) that has what C(more) gives it."""
    base = {"family": "inet", "table": "t", "name": "c", "hook": "forward", "type": "filter", "prio": 0, "policy": policy, **chain}
    family = base["family"]
    found: list[dict[str, Any]] = [{"chain": base}, {"chain": {"family": family, "table": "t", "name": "other"}}, *more]
    found += [{"rule": {"family": family, "table": "t", "chain": "c", "handle": number, "expr": rule}} for number, rule in enumerate(rules)]
    return nft_rules.parse(found, {}, set())


def is_(left: Any, right: Any, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def header(protocol: str, name: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": name}}


DROP, ACCEPT = {"drop": None}, {"accept": None}


def forward(bases: list[Base], packet: Packet = PACKET) -> Ruling:
    return at_hook(bases, "forward", packet)


@pytest.mark.parametrize("options", [
    "-s 10.1.0.0/24", "-s 10.1.0.0/255.255.255.0", "! -s 10.2.0.0/16", "-d 203.0.113.2/32", "-i br1", "-i br+", "! -o br1", "-p tcp",
    "-p tcp -m tcp --dport 80", "-p tcp -m tcp --dport 79:81", "-p tcp -m multiport --dports 22,80,443", "-p tcp -m tcp ! --dport 22",
    "-m conntrack --ctstate NEW", "-m conntrack ! --ctstate RELATED,ESTABLISHED", "-m state --state NEW,INVALID",
    "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "-m mark --mark 0x0/0xff", "-m addrtype --dst-type UNICAST,LOCAL",
    "-m iprange --dst-range 203.0.113.1-203.0.113.9", '-m comment --comment "a -j b"', "-m conntrack --ctdir ORIGINAL",
])  # fmt: skip
def test_a_rule_of_iptables_that_matches_drops(options: str) -> None:
    ruling = forward(iptables(f"-A FORWARD {options} -j DROP"))
    assert ruling.stops
    assert ruling.sure
    assert ruling.said.by == f"ip filter FORWARD: -A FORWARD {options} -j DROP"


@pytest.mark.parametrize("options", [
    "-s 10.2.0.0/16", "! -s 10.1.0.0/24", "-i br2", "-o br+", "-p udp", "-p udp -m udp --dport 80", "-p tcp -m tcp --dport 443",
    "-m conntrack --ctstate RELATED,ESTABLISHED", "-m conntrack --ctstate DNAT", "-m mark --mark 0x1", "-m addrtype --dst-type LOCAL",
    "-m physdev --physdev-is-bridged", "-p icmp -m icmp --icmp-type 8", "-s 10.2.0.0/16 -m limit --limit 1/sec",
])  # fmt: skip
def test_a_rule_of_iptables_that_does_not_match_lets_through(options: str) -> None:
    ruling = forward(iptables(f"-A FORWARD {options} -j DROP"))
    assert not ruling.stops
    assert ruling.sure


def test_what_cannot_be_evaluated_is_a_doubt_and_no_verdict() -> None:
    ruling = forward(iptables("-A FORWARD -m string --string x --algo bm -j DROP"))
    assert not ruling.stops
    assert not ruling.sure
    assert [doubt.verdict for doubt in ruling.doubts] == ["drop"]
    ruling = forward(iptables("-A FORWARD -m limit --limit 1/sec -j ACCEPT", policy="DROP"))
    assert ruling.stops
    assert not ruling.sure


def test_a_doubt_that_would_change_nothing_is_none() -> None:
    assert forward(iptables("-A FORWARD -m limit --limit 1/sec -j ACCEPT")).sure
    assert forward(iptables("-A FORWARD -m set --match-set x src -j DROP", "-A FORWARD -j DROP")).sure


def test_what_keeps_a_packet_from_being_tracked_is_a_doubt() -> None:
    assert not forward(iptables("-A FORWARD -j CT --notrack")).sure
    assert forward(iptables("-A FORWARD -p tcp -j CT --helper ftp")).sure
    assert not forward(nft([{"notrack": None}])).sure


def test_chains_are_jumped_to_returned_from_and_gone_to() -> None:
    own = ("A", "B")
    assert forward(iptables("-A FORWARD -j A", "-A FORWARD -j DROP", "-A A -j ACCEPT", chains=own)).said.verdict == "accept"
    assert forward(iptables("-A FORWARD -j A", "-A FORWARD -j DROP", "-A A -j RETURN", "-A A -j ACCEPT", chains=own)).stops
    assert forward(iptables("-A FORWARD -g A", "-A FORWARD -j ACCEPT", "-A A -j B", "-A B -p udp -j ACCEPT", policy="DROP", chains=own)).stops
    maybe = forward(iptables("-A FORWARD -m recent --rcheck -j A", "-A A -j DROP", chains=own))
    assert (maybe.stops, maybe.sure) == (False, False)
    after = forward(iptables("-A FORWARD -j A", "-A A -m recent --rcheck -j RETURN", "-A A -j DROP", chains=own))
    assert (after.stops, after.sure) == (False, False)


def test_a_mark_that_one_rule_sets_another_sees() -> None:
    assert forward(iptables("-A FORWARD -j MARK --set-xmark 0x4/0xffffffff", "-A FORWARD -m mark --mark 0x4/0x4 -j DROP")).stops
    maybe = forward(iptables("-A FORWARD -m recent --rcheck -j MARK --set-xmark 0x4/0xf", "-A FORWARD -m mark --mark 0x4/0x4 -j DROP"))
    assert (maybe.stops, maybe.sure) == (False, False)


def test_an_accept_ends_its_own_chain_and_a_drop_of_another_still_counts() -> None:
    rules = [*iptables("-A FORWARD -j ACCEPT"), *nft([DROP])]
    assert forward(rules).said.by.startswith("inet t c")
    assert forward([*iptables("-A FORWARD -j ACCEPT"), *nft(policy="drop", prio=-10)]).said.by == "inet t c: policy drop"


def test_the_first_forward_leads_the_packet_and_a_second_does_not() -> None:
    ours = nft([{"dnat": {"family": "ip", "addr": "10.1.0.10", "port": 8080}}], hook="prerouting", type="nat", prio=-110)
    theirs = iptables("-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.9.9.9", table="nat")
    ruling = at_hook([*theirs, *ours], "prerouting", PACKET)
    assert (ruling.packet.to, ruling.packet.port) == ("10.1.0.10", 8080)
    assert len(ruling.translated) == 1
    assert forward(iptables("-A FORWARD -m conntrack --ctstate DNAT -j DROP"), ruling.packet).stops
    assert forward(nft([is_({"ct": {"key": "status"}}, "dnat", "in"), DROP]), ruling.packet).stops


@pytest.mark.parametrize(("text", "place"), [
    ("10.0.0.1:80", ("10.0.0.1", 80)), ("10.0.0.1", ("10.0.0.1", None)), (":80", (None, 80)), ("[fd00::1]:80", ("fd00::1", 80)),
    ("fd00::1", ("fd00::1", None)), ("10.0.0.1-10.0.0.9", ("?", "?")),
])  # fmt: skip
def test_a_place_of_a_translation_is_understood_or_said_to_be_unknown(text: str, place: tuple[Any, Any]) -> None:
    bases = iptables(f"-A PREROUTING -j DNAT --to-destination {text}", table="nat")
    assert bases[0].chains["PREROUTING"][0].acts[0].value == place


@pytest.mark.parametrize("match", [
    is_(meta("iifname"), "br1"), is_(meta("iifname"), "br*"), is_(meta("oifname"), {"set": ["eth0", "eth1"]}), is_(meta("l4proto"), "tcp"),
    is_(header("ip", "saddr"), {"prefix": {"addr": "10.1.0.0", "len": 24}}), is_(header("ip", "daddr"), {"range": ["203.0.113.1", "203.0.113.9"]}),
    is_(header("ip", "saddr"), "@s"), is_(header("tcp", "dport"), {"set": [22, {"range": [79, 81]}]}), is_(header("th", "dport"), 80),
    is_(header("tcp", "dport"), 22, "!="), is_(header("tcp", "dport"), 1024, "<"), is_({"ct": {"key": "state"}}, ["established", "new"], "in"),
    is_({"ct": {"key": "direction"}}, "original"), is_({"ct": {"key": "status"}}, "dnat", "!="), is_(meta("nfproto"), "ipv4"),
    is_({"&": [header("tcp", "flags"), ["fin", "syn", "rst", "ack"]]}, "syn"), is_({"&": [meta("mark"), 255]}, 0),
    is_({"fib": {"result": "type", "flags": ["daddr"]}}, "unicast"), is_({"ct": {"key": "ip daddr", "dir": "original"}}, "203.0.113.2"),
    is_({"concat": [header("ip", "saddr"), header("tcp", "dport")]}, {"set": [{"concat": ["10.1.0.10", 80]}]}),
])  # fmt: skip
def test_a_rule_of_nftables_that_matches_drops(match: dict[str, Any]) -> None:
    elements = ({"set": {"family": "inet", "table": "t", "name": "s", "elem": [{"prefix": {"addr": "10.0.0.0", "len": 8}}, "192.0.2.1"]}},)
    ruling = forward(nft([match, {"counter": None}, DROP], more=elements))
    assert (ruling.stops, ruling.sure) == (True, True)


@pytest.mark.parametrize("match", [
    is_(meta("iifname"), "br"), is_(header("ip6", "saddr"), {"prefix": {"addr": "fd00::", "len": 64}}, "!="), is_(header("udp", "dport"), 80),
    is_(header("udp", "dport"), 22, "!="), is_(header("ip", "saddr"), "@s"), is_({"ct": {"key": "state"}}, ["established", "related"], "in"),
    is_(meta("mark"), 1), is_(header("icmp", "type"), "echo-request"), is_(header("arp", "operation"), "request"),
])  # fmt: skip
def test_a_rule_of_nftables_that_does_not_match_lets_through(match: dict[str, Any]) -> None:
    ruling = forward(nft([match, DROP], more=({"set": {"family": "inet", "table": "t", "name": "s", "elem": ["192.0.2.1"]}},)))
    assert (ruling.stops, ruling.sure) == (False, True)


@pytest.mark.parametrize("expression", [
    {"limit": {"rate": 10, "per": "minute"}}, {"xt": {"type": "match", "name": "string"}}, is_({"numgen": {"mode": "inc", "mod": 2}}, 0),
    is_(header("ip", "ttl"), 1), is_({"socket": {"key": "mark"}}, 1), "unheard of",
])  # fmt: skip
def test_an_expression_of_nftables_that_cannot_be_evaluated_is_a_doubt(expression: Any) -> None:
    ruling = forward(nft([expression, DROP]))
    assert (ruling.stops, ruling.sure) == (False, False)


def test_a_verdict_map_picks_what_is_done() -> None:
    rule = {"rule": {"family": "inet", "table": "t", "chain": "other", "handle": 99, "expr": [DROP]}}
    data = {"set": [["established", ACCEPT], ["new", {"jump": {"target": "other"}}]]}
    bases = nft([{"vmap": {"key": {"ct": {"key": "state"}}, "data": data}}], more=(rule,))
    assert forward(bases).stops
    assert not forward(bases, replace(PACKET, state="established")).stops
    named = ({"map": {"family": "inet", "table": "t", "name": "m", "elem": [["eth0", DROP]]}},)
    assert forward(nft([{"vmap": {"key": meta("oifname"), "data": "@m"}}], more=named)).stops


def test_a_reject_of_one_protocol_is_for_that_alone_though_nft_does_not_say_so() -> None:
    assert not forward(nft([{"reject": {"type": "icmpv6", "expr": "port-unreachable"}}])).stops
    assert not forward(nft([{"reject": {"type": "tcp reset"}}]), replace(PACKET, proto="udp")).stops
    assert forward(nft([{"reject": {"type": "icmpx", "expr": "port-unreachable"}}])).said.verdict == "reject"


def test_a_frame_is_judged_by_bridge_tables_and_a_packet_is_not() -> None:
    spoof = nft([is_(header("ether", "saddr"), "52:54:00:00:00:01", "!="), DROP], family="bridge")
    other, own = (replace(PACKET, mac=f"52:54:00:00:00:0{number}") for number in (2, 1))
    assert at_hook(spoof, "forward", other, "bridge").stops
    assert not at_hook(spoof, "forward", own, "bridge").stops
    assert not forward(spoof, other).stops
    unknown = at_hook(spoof, "forward", PACKET, "bridge")
    assert (unknown.stops, unknown.sure) == (False, False)


# As ebtables-save tells what libvirt makes of clean-traffic.
CLEAN = """*nat
:PREROUTING ACCEPT
:POSTROUTING ACCEPT
:libvirt-I-vnet0 RETURN
:I-vnet0-mac RETURN
:I-vnet0-ip RETURN
-A PREROUTING -i vnet0 -j libvirt-I-vnet0
-A libvirt-I-vnet0 -j I-vnet0-mac
-A libvirt-I-vnet0 -p IPv4 -j I-vnet0-ip
-A libvirt-I-vnet0 -p IPv4 -j ACCEPT
-A libvirt-I-vnet0 -p ARP -j ACCEPT
-A libvirt-I-vnet0 -p 0x835 -j ACCEPT
-A libvirt-I-vnet0 -j DROP
-A I-vnet0-mac -s ! 52:54:00:00:00:01 -j DROP
-A I-vnet0-ip -p IPv4 --ip-src 0.0.0.0 --ip-proto udp -j RETURN
-A I-vnet0-ip -p IPv4 --ip-src 10.1.0.10 -j RETURN
-A I-vnet0-ip -j DROP
"""


@pytest.mark.parametrize(("change", "chain"), [
    ({}, None), ({"source": "10.1.0.11"}, "I-vnet0-ip"), ({"mac": "52:54:00:00:00:02"}, "I-vnet0-mac"),
    ({"family": "ip6", "source": "fd00::1", "to": "fd00::2"}, "libvirt-I-vnet0"), ({"iif": "vnet1", "source": "10.1.0.11"}, None),
])  # fmt: skip
def test_a_network_filter_of_libvirt_is_judged_in_the_words_of_ebtables(change: dict[str, Any], chain: str | None) -> None:
    frame = replace(PACKET, **{"iif": "vnet0", "mac": "52:54:00:00:00:01", **change})
    ruling = at_hook(ebtables_rules.parse(CLEAN), "prerouting", frame, "bridge")
    assert (ruling.stops, ruling.sure) == (chain is not None, True)
    assert chain is None or ruling.said.by.startswith(f"bridge nat {chain}: ")


def test_a_chain_of_ebtables_may_have_a_policy_of_its_own() -> None:
    text = "*filter\n:FORWARD ACCEPT\n:mine DROP\n-A FORWARD -j mine\n-A mine -p ARP -j ACCEPT\n"
    assert at_hook(ebtables_rules.parse(text + "COMMIT\n"), "forward", PACKET, "bridge").said.by == "bridge filter mine: policy drop"
    assert at_hook(ebtables_rules.parse(text), "forward", PACKET, "bridge").stops


def test_a_chain_of_one_device_is_for_what_comes_in_there() -> None:
    bases = nft([DROP], family="netdev", hook="ingress", dev="br1")
    assert at_hook(bases, "ingress", PACKET, "netdev").stops
    assert not at_hook(bases, "ingress", replace(PACKET, iif="br2"), "netdev").stops
    several = nft([DROP], family="netdev", hook="egress", dev=["eth0", "eth1"])
    assert at_hook(several, "egress", PACKET, "netdev").stops


def test_an_answer_goes_back_to_who_asked_as_an_established_connection() -> None:
    led = at_hook(iptables("-A PREROUTING -j DNAT --to-destination 10.1.0.10:8080", table="nat"), "prerouting", replace(PACKET, source="203.0.113.9"))
    back = answer(replace(led.packet, iif="eth0", oif="br1"))
    assert (back.source, back.source_port, back.to, back.iif, back.oif) == ("10.1.0.10", 8080, "203.0.113.9", "br1", "eth0")
    assert not forward(iptables("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", policy="DROP"), back).stops
    assert forward(iptables("-A FORWARD -m conntrack --ctstate NEW -j ACCEPT", policy="DROP"), back).stops


def test_rules_that_iptables_told_are_not_judged_a_second_time() -> None:
    chain = {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "type": "filter", "prio": 0, "policy": "drop"}}
    assert nft_rules.parse([chain], {}, {("ip", "filter")}) == []
    assert iptables_rules.tables("*filter\nCOMMIT\n*nat\nCOMMIT\n") == {"filter", "nat"}


def test_the_text_of_a_rule_is_what_nft_prints_of_it() -> None:
    listing = 'table inet t { # handle 1\n\tchain c { # handle 2\n\t\tiifname "a" drop comment "x # handle 7" # handle 3\n\t}\n}\n'
    assert nft_rules.texts_of(listing) == {("inet", "t", 3): 'iifname "a" drop comment "x # handle 7"'}
