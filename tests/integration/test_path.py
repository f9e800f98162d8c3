"""kvm_path_info against real traffic: each cause really stops it, is named, is taken away, and then it really passes.

Guests and the outside are network namespaces. What the module says is held against what a connection does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import Libvirtd
from .test_network_traffic import TRAFFIC, at, daemon_survives, libvirtd

__all__ = ["daemon_survives", "libvirtd"]  # the daemon of a namespace whose /etc can be written

# Bridges p1… by number; what libvirt does there. p5 has no rules at all.
NETWORKS = {"p1": "open", "p2": "nat", "p3": "route", "p4": "", "p5": "open"}
PLACES = {
    "g1": "10.41.1.10", "g2": "10.41.2.10", "g3": "10.41.3.10", "g4": "10.41.4.10", "g5": "10.41.5.10", "g6": "10.41.5.11",
    "out": "203.0.113.2",
}  # fmt: skip
HOST = "203.0.113.1"
FAR = "198.51.100.9"  # behind the outside
SIX, SIX_OUT = "fd00:5::10", "fd00:9::2"  # of g5, of the outside


@pytest.fixture(scope="module")
def net(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """Networks of libvirt with a guest on each, and the outside; every place answers on port 80 with its name and whom it saw."""
    for bridge, mode in NETWORKS.items():
        forward = f"<forward mode='{mode}'/>" if mode else ""
        six = "<ip family='ipv6' address='fd00:5::1' prefix='64'/>" if bridge == "p5" else ""
        text = (
            f"<network><name>{bridge}</name>{forward}<bridge name='{bridge}' stp='off'/>"
            f"<ip address='10.41.{bridge[1:]}.1' prefix='24'/>{six}</network>"
        )
        libvirtd.run("sh", "-ec", f'echo "{text}" > /run/{bridge}.xml; virsh -q net-define /run/{bridge}.xml; virsh -q net-start {bridge}')
    script = ["for f in ip ip6 arp; do sysctl -qw net.bridge.bridge-nf-call-${f}tables=0; done"]
    for place, address in PLACES.items():
        gateway = HOST if place == "out" else f"{address.rpartition('.')[0]}.1"
        script += [
            f"ip netns add {place}; ip link add v{place} type veth peer name eth0 netns {place}",
            f"ip -n {place} addr add {address}/24 dev eth0; ip -n {place} link set eth0 up; ip -n {place} link set lo up",
            f"ip -n {place} route add default via {gateway}",
            f"ip addr add {HOST}/24 dev v{place}" if place == "out" else f"ip link set v{place} master p{address.split('.')[2]}",
            f"ip link set v{place} up",
        ]
    script += [
        f"ip -n g5 addr add {SIX}/64 dev eth0 nodad; ip -n g5 route add default via fd00:5::1",
        f"ip addr add fd00:9::1/64 dev vout nodad; ip -n out addr add {SIX_OUT}/64 dev eth0 nodad; ip -n out route add default via fd00:9::1",
    ]
    script += [f"ip -n out addr add {FAR}/32 dev lo", "until [ $(bridge link | grep -c 'state forwarding') -ge 6 ]; do sleep 0.1; done"]
    # Until the kernel has seen that no other has the bridge's address (1-2 s from its first carrier), nobody is answered there.
    script += ['until [ -z "$(ip -6 addr show dev p5 tentative)" ]; do sleep 0.1; done']
    libvirtd.run("timeout", "120", "sh", "-ec", "\n".join(script))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(at(libvirtd, place, "serve", place, "80"), **pipes) for place in PLACES]
    try:
        for each in running:
            assert each.stdout.readline() == "ready\n"
        for address in (*PLACES.values(), SIX, SIX_OUT):  # that the host has heard of each
            assert "saw" in libvirtd.run(*TRAFFIC, "reach", address, "80").stdout
        yield libvirtd
    finally:
        for each in running:
            each.communicate("", timeout=30)


def reach(place: str, to: str, port: int) -> str:
    """The command that prints what is said there."""
    return f"ip netns exec {place} {' '.join(TRAFFIC)} reach {to} {port}"


def ask(place: str, to: str, port: int = 80, **more: Any) -> dict[str, Any]:
    return {"name": "Ask", "anfitrion.kvm.kvm_path_info": {"source": PLACES[place], "to": to, "port": port, **more}}


def shell(script: str) -> dict[str, Any]:
    return {"name": "Shell", "ansible.builtin.shell": script, "changed_when": False}


@dataclass(frozen=True)
class Cause:
    """What stops a packet from one place to an address: how it comes and goes, the hop that is named, and its reason; clean: what is put back."""

    sender: str
    to: str
    comes: str
    goes: str
    at: str
    why: str
    port: int = 80
    clean: str = "true"
    interface: str | None = None
    source: str | None = None


OTHER = "nft add table ip other; nft add chain ip other f '{ type filter hook forward priority -5; }'; nft add rule ip other f "
CAUSES = {
    # First, for a link that goes down loses its IPv6 addresses.
    "forwarding of IPv6 is off": Cause(
        "g5", SIX_OUT, "sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl -qw net.ipv6.conf.all.forwarding=1",
        "sysctl net.ipv6.conf.all.forwarding", "it is 0", source=SIX),
    "a rule of iptables for IPv6": Cause(
        "g5", SIX_OUT, f"ip6tables -I FORWARD -s fd00:5::/64 ! -d {SIX} -p tcp -m multiport --dports 80,443 -j REJECT", "ip6tables -D FORWARD 1",
        "forward", "ip6 filter FORWARD: -A FORWARD -s fd00:5::/64", source=SIX),
    "forwarding is off": Cause(
        "g5", PLACES["out"], "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1", "sysctl net.ipv4.ip_forward", "it is 0"),
    "forwarding of one interface is off": Cause(
        "g5", PLACES["out"], "sysctl -qw net.ipv4.conf.p5.forwarding=0", "sysctl -qw net.ipv4.conf.p5.forwarding=1",
        "sysctl net.ipv4.conf.p5.forwarding", "it is 0"),
    "the answer is not forwarded": Cause(
        "g5", PLACES["out"], "sysctl -qw net.ipv4.conf.vout.forwarding=0", "sysctl -qw net.ipv4.conf.vout.forwarding=1",
        "sysctl net.ipv4.conf.vout.forwarding", "the answer"),
    "docker's policy": Cause(
        "g5", PLACES["out"], "iptables -P FORWARD DROP", "iptables -P FORWARD ACCEPT", "forward", "ip filter FORWARD: policy drop"),
    "libvirt's reject between networks": Cause(
        "g3", PLACES["g2"], "true", "iptables -D LIBVIRT_FWI -o p2 -j REJECT", "forward", "LIBVIRT_FWI",
        clean="iptables -A LIBVIRT_FWI -o p2 -j REJECT"),
    "an isolated network": Cause(
        "g4", PLACES["out"], "true", "iptables -D LIBVIRT_FWO -i p4 -j REJECT; iptables -D LIBVIRT_FWI -o p4 -j REJECT", "forward", "LIBVIRT_FWO",
        clean="iptables -A LIBVIRT_FWO -i p4 -j REJECT; iptables -A LIBVIRT_FWI -o p4 -j REJECT"),
    "an isolated network, for the answer": Cause(
        "g4", PLACES["out"], "iptables -D LIBVIRT_FWO -i p4 -j REJECT", "iptables -D LIBVIRT_FWI -o p4 -j REJECT", "forward", "the answer: rejected",
        clean="iptables -A LIBVIRT_FWO -i p4 -j REJECT; iptables -A LIBVIRT_FWI -o p4 -j REJECT"),
    "no route": Cause("g5", FAR, "true", f"ip route add {FAR} via {PLACES['out']}", "route", "no route", clean=f"ip route del {FAR}"),
    "the link of a guest": Cause("g5", PLACES["out"], "ip link set vg5 down", "ip link set vg5 up", "link vg5", "switched off", interface="vg5"),
    "the guest's end of a link": Cause(
        "g5", PLACES["out"], "ip -n g5 link set eth0 down", "ip -n g5 link set eth0 up; ip -n g5 route add default via 10.41.5.1",
        "link vg5", "carrier", interface="vg5"),
    "the bridge": Cause("g5", PLACES["out"], "ip link set p5 down", "ip link set p5 up", "link p5", "switched off", interface="vg5"),
    "the link out": Cause("g5", PLACES["out"], "ip -n out link set eth0 down",
                          "ip -n out link set eth0 up; ip -n out route add default via 203.0.113.1", "link vout", "carrier"),
    "a forward to a closed direction": Cause(
        "out", HOST, "iptables -t nat -A PREROUTING -p tcp --dport 8082 -j DNAT --to-destination 10.41.2.10:80",
        "iptables -I FORWARD -d 10.41.2.10 -p tcp --dport 80 -m conntrack --ctstate DNAT -j ACCEPT", "forward", "LIBVIRT_FWI", port=8082,
        clean="iptables -t nat -F PREROUTING; iptables -D FORWARD 1"),
    "the reverse path filter": Cause(
        "out", PLACES["g5"], f"sysctl -qw net.ipv4.conf.all.rp_filter=1; ip -n out route add 10.41.5.0/24 via {HOST} src {FAR}",
        f"ip route add {FAR} via {PLACES['out']}", "sysctl net.ipv4.conf.all.rp_filter", FAR,
        clean=f"ip route del {FAR}; ip -n out route del 10.41.5.0/24; sysctl -qw net.ipv4.conf.all.rp_filter=0",
        interface="vout", source=FAR),
    "no way back": Cause(
        "out", PLACES["g5"], f"ip -n out route add 10.41.5.0/24 via {HOST} src {FAR}", f"ip route add {FAR} via {PLACES['out']}", "route",
        f"the answer: this host has no route to {FAR}", clean=f"ip route del {FAR}; ip -n out route del 10.41.5.0/24", interface="vout", source=FAR),
    "the old interface of iptables": Cause(
        "g5", PLACES["out"], "iptables-legacy -A FORWARD -p tcp -i p5 -j DROP", "iptables-legacy -F FORWARD", "forward",
        "ip filter FORWARD: -A FORWARD -i p5 -p tcp -j DROP"),
    "a rule where packets come in": Cause(
        "g5", PLACES["out"], "nft add table netdev n; nft add chain netdev n i '{ type filter hook ingress device vg5 priority 0; }';"
        "nft add rule netdev n i tcp dport 80 drop", "nft flush chain netdev n i", "netdev ingress", "netdev n i: tcp dport 80 drop",
        clean="nft delete table netdev n"),
    "isolated ports": Cause(
        "g5", PLACES["g6"], "bridge link set dev vg5 isolated on; bridge link set dev vg6 isolated on", "bridge link set dev vg6 isolated off",
        "port vg6", "isolated ports", clean="bridge link set dev vg5 isolated off"),
    "frames through the packet filter": Cause(
        "g5", PLACES["g6"], "sysctl -qw net.bridge.bridge-nf-call-iptables=1; iptables -P FORWARD DROP",
        "sysctl -qw net.bridge.bridge-nf-call-iptables=0", "forward", "policy drop", clean="iptables -P FORWARD ACCEPT"),
    "a rule of nftables": Cause(
        "g5", PLACES["out"], f"{OTHER} 'iifname p5 tcp dport {{ 80, 443 }} counter drop'", "nft flush chain ip other f", "forward",
        "ip other f: iifname \"p5\" tcp dport { 80, 443 } counter", clean="nft delete table ip other"),
    "a rule of nftables for the answer": Cause(
        "g5", PLACES["out"], f"{OTHER} ct state established ct direction reply oifname p5 reject", "nft flush chain ip other f", "forward",
        "the answer", clean="nft delete table ip other"),
    "nobody listens": Cause(
        "g5", HOST, "true", f"{' '.join(TRAFFIC)} serve host 8090 >/dev/null </dev/zero & sleep 1", "socket", "no program", port=8090),
}  # fmt: skip


# From where to where, on port 80.
WAYS = [
    ("g1", "g5"), ("g2", "g1"), ("g2", "g3"), ("g2", "g4"), ("g4", "g5"), ("g5", "g6"), ("out", "g1"), ("out", "g2"), ("out", "g4"),
]  # fmt: skip


@pytest.mark.row("B13")
def test_what_is_said_of_every_way_is_what_happens_there(net: Libvirtd, play: Any) -> None:
    tries = [subprocess.Popen(at(net, place, "reach", PLACES[to], "80", "6"), stdout=subprocess.PIPE, text=True) for place, to in WAYS]
    real = ["passes" if "saw" in process.communicate(timeout=60)[0] else "stopped" for process in tries]
    asked = play([ask(place, PLACES[to]) for place, to in WAYS]).succeeded().tasks
    told = {way: task.result["path"] for way, task in zip(WAYS, asked)}
    assert {"passes", "stopped"} == set(real)
    assert [path for path, truth in zip(told.items(), real) if path[1]["verdict"] != truth] == []


@pytest.mark.row("B13")
def test_an_address_that_a_forward_or_a_masquerade_gives_is_told(net: Libvirtd, play: Any) -> None:
    way = play(ask("g2", PLACES["out"])).succeeded().only.result["path"]
    assert net.run(*at(net, "g2", "reach", PLACES["out"], "80")[4:]).stdout.strip() == f"out saw {HOST}"
    assert way["arrives"]["source"] == HOST
    assert [hop for hop in way["hops"] if "gets another source" in hop["why"]]


def test_what_cannot_be_asked_is_refused_with_what_is_missing(play: Any) -> None:
    cases = {
        "this or source must be given": {"to": HOST, "port": 80},
        "port: must be given for tcp": {"to": HOST, "source": PLACES["g1"]},
        "nope does not exist": {"to": HOST, "guest": "nope", "port": 80},
        "of another family": {"to": HOST, "source": "fd00::1", "interface": "lo", "port": 80},
        "give the interface": {"to": HOST, "source": "192.0.2.77", "port": 80},
    }
    run = play([{"name": "Ask", "anfitrion.kvm.kvm_path_info": options, "ignore_errors": True} for options in cases.values()])
    assert {text: task.message for text, task in zip(cases, run.tasks) if text not in task.message} == {}


@pytest.fixture(scope="module")
def seen() -> dict[str, list[dict[str, Any]]]:
    """What was seen of each cause, once there is something: all are looked at in one play."""
    return {}


@pytest.mark.row("B13")
@pytest.mark.parametrize("name", CAUSES)
def test_a_cause_that_really_stops_traffic_is_named_and_without_it_traffic_passes(net: Libvirtd, play: Any, seen: Any, name: str) -> None:
    if not seen:
        # What one cause leaves is put back before the next comes.
        before = ["true", *(cause.clean for cause in CAUSES.values())]
        tasks = [task for clean, cause in zip(before, CAUSES.values()) for task in life(cause, clean)]
        run = play(tasks)
        seen.update({each: [task.result for task in run.tasks[4 * place : 4 * place + 4]] for place, each in enumerate(CAUSES)})
        run.succeeded()
        assert "saw" in net.run("sh", "-c", reach("g5", PLACES["out"], 80)).stdout  # all is as before
    cause = CAUSES[name]
    _began, named, tried, told = seen[name]
    stopped, passed = tried["stdout"].splitlines()
    assert stopped in ("silent", "refused")
    assert named["path"]["verdict"] == "stopped", named["path"]
    stop = named["path"]["stopped_by"]
    assert stop["at"] == cause.at, stop
    assert cause.why in stop["why"], stop
    assert "saw" in passed
    assert told["path"]["verdict"] == "passes", told["path"]


def life(cause: Cause, before: str) -> list[dict[str, Any]]:
    """The tasks in which a cause comes and goes: traffic is tried and the question asked, each time."""
    there = reach(cause.sender, cause.to, cause.port)
    more = {name: getattr(cause, name) for name in ("interface", "source") if getattr(cause, name)}
    question = ask(cause.sender, cause.to, cause.port, **more)
    # While a connection waits in vain, the question is asked. A port that was down forwards some time after it is up.
    begin = f"rm -f /run/said; {before}\n{cause.comes}\n({there} > /run/saying; mv /run/saying /run/said) >/dev/null 2>&1 &"
    patient = f"for i in 1 2 3 4 5; do said=$({there}); case $said in *saw*) break;; esac; done; echo $said"
    end = f"until [ -e /run/said ]; do sleep 0.05; done; cat /run/said\n{cause.goes}\n{patient}"
    return [shell(begin), question, shell(end), question]
