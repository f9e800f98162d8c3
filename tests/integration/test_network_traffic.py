"""Who reaches whom over the networks of a real libvirt, before and after what happens to packet rules on a host.

Guests and the outside are network namespaces; the daemon is one of its own, for it is killed here.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import ADDRESS_SPACE_MIB, PRIVATE_LIBVIRTD, Libvirtd

TRAFFIC = ("/usr/bin/python3", str(Path(__file__).with_name("traffic.py")))
NETWORKS = [
    {"name": "ours", "mode": "open", "bridge": {"name": "m1"}, "ips": [{"address": "10.41.1.1", "prefix": 24}]},
    {"name": "theirs", "mode": "nat", "bridge": {"name": "m2"}, "ips": [{"address": "10.41.2.1", "prefix": 24}]},
    {"name": "routed", "mode": "routed", "bridge": {"name": "m3"}, "ips": [{"address": "10.41.3.1", "prefix": 24}]},
    {"name": "cell", "mode": "isolated", "bridge": {"name": "m4"}, "ips": [{"address": "10.41.4.1", "prefix": 24}]},
]
RULES = [
    {"name": "ours", "bridge": "m1", "subnet": "10.41.1.0/24", "mode": "nat",
     "forwards": [{"name": "web", "port": "8081", "to_address": "10.41.1.10", "to_port": "80"}]},
    {"name": "theirs", "bridge": "m2", "subnet": "10.41.2.0/24", "mode": "libvirt",
     "forwards": [{"name": "web", "port": "8082", "to_address": "10.41.2.10", "to_port": "80"}]},
]  # fmt: skip
PLACES = {"g1": "10.41.1.10", "g2": "10.41.2.10", "g3": "10.41.3.10", "g4": "10.41.4.10", "out": "203.0.113.2"}
# From where to which address and port, and what is said there.
TRUTH = {
    ("g1", "203.0.113.2", 80): "out saw 203.0.113.1",
    ("g2", "203.0.113.2", 80): "out saw 203.0.113.1",
    ("g3", "203.0.113.2", 80): "out saw 10.41.3.10",
    ("g4", "203.0.113.2", 80): "refused",
    ("out", "203.0.113.1", 8081): "g1 saw 203.0.113.2",
    ("out", "203.0.113.1", 8082): "g2 saw 203.0.113.2",
    ("out", "10.41.1.10", 80): "refused",
    ("out", "10.41.2.10", 80): "refused",
    ("out", "10.41.3.10", 80): "g3 saw 203.0.113.2",
    ("out", "10.41.4.10", 80): "refused",
    ("g1", "203.0.113.1", 8081): "g1 saw 10.41.1.1",
    ("g2", "203.0.113.1", 8082): "g2 saw 10.41.2.1",
    ("host", "203.0.113.1", 8081): "g1 saw 203.0.113.1",
    ("host", "203.0.113.1", 8082): "g2 saw 203.0.113.1",
    ("host", "10.41.4.10", 80): "g4 saw 10.41.4.1",
}


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    scratch = tmp_path_factory.getbasetemp()
    directory = tmp_path_factory.mktemp("m") / "d"
    options = ["--net", "private", "--read-only-root", "--writable", str(scratch), "--address-space", str(ADDRESS_SPACE_MIB)]
    subprocess.run([PRIVATE_LIBVIRTD, "start", str(directory), *options], check=True, stdout=subprocess.DEVNULL)
    status = json.loads(subprocess.check_output([PRIVATE_LIBVIRTD, "status", str(directory)]))
    made = Libvirtd(directory, status["uri"], status["daemon"])
    try:
        # kvm_firewall writes to /etc: to a layer over it, so that the machine's files stay as they were.
        for part in ("upper", "work"):
            (directory.parent / part).mkdir()
        layers = f"lowerdir=/etc,upperdir={directory.parent}/upper,workdir={directory.parent}/work"
        made.run("sh", "-ec", f"mount -t overlay overlay -o {layers} /etc; mount --bind {directory}/etc /etc/libvirt")
        for table in ("passwd", "group"):
            made.run("mount", "--bind", str(directory / table), f"/etc/{table}")
        yield made
    finally:
        subprocess.run([PRIVATE_LIBVIRTD, "stop", str(directory)], check=True)


@pytest.fixture(autouse=True)
def daemon_survives() -> None:
    """It is killed here, and comes again."""


@pytest.fixture
def servers(libvirtd: Libvirtd, play: Any) -> Iterator[None]:
    """The networks with their rules, a guest on each, and the outside; who is reached says who it is and whom it saw."""
    libvirtd.run("sh", "-c", "for f in ip ip6 arp; do sysctl -qw net.bridge.bridge-nf-call-${f}tables=0; done; true")
    play(task("network", networks=NETWORKS, defaults={"state": "active"})).succeeded()
    for number, (place, address) in enumerate(PLACES.items(), start=1):
        gateway = "203.0.113.1" if place == "out" else f"10.41.{number}.1"
        script = (
            f"ip netns add {place}; ip link add v{place} type veth peer name eth0 netns {place}; ip link set v{place} up;"
            f"ip -n {place} addr add {address}/24 dev eth0; ip -n {place} link set eth0 up; ip -n {place} link set lo up;"
            f"ip -n {place} route add default via {gateway}"
        )
        libvirtd.run("sh", "-ec", script)
    libvirtd.run("ip", "addr", "add", "203.0.113.1/24", "dev", "vout")
    plug(libvirtd)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(at(libvirtd, place, "serve", place, "80"), **pipes) for place in PLACES]
    try:
        for each in running:
            assert each.stdout.readline() == "ready\n"
        yield
    finally:
        for each in running:
            each.communicate("", timeout=30)


def task(module: str, **options: Any) -> dict[str, Any]:
    return {"name": module, f"anfitrion.kvm.kvm_{module}": options}


def plug(libvirtd: Libvirtd) -> None:
    """Put the guests on their bridges; libvirt does not know of them."""
    for number in range(1, 5):
        libvirtd.run("sh", "-ec", f"ip link set vg{number} master m{number}; ip link set m{number} type bridge stp_state 0")
    wait = "until [ $(bridge link | grep -c 'state forwarding') -ge 4 ]; do sleep 0.2; done"
    libvirtd.run("timeout", "120", "sh", "-c", wait)


def at(libvirtd: Libvirtd, place: str, *words: str) -> list[str]:
    where = () if place == "host" else ("ip", "netns", "exec", place)
    return libvirtd.command(*where, *TRAFFIC, *words)


def found(libvirtd: Libvirtd, truth: dict[Any, str]) -> dict[Any, str]:
    """Try every way at once; where an answer is due, a busy machine has long to give it."""
    patience = {way: "2" if due in ("silent", "refused") else "20" for way, due in truth.items()}
    words = {way: at(libvirtd, way[0], "reach", way[1], str(way[2]), patience[way]) for way in truth}
    tries = {way: subprocess.Popen(words[way], stdout=subprocess.PIPE, text=True) for way in truth}
    return {way: process.communicate(timeout=60)[0].strip() for way, process in tries.items()}


def wrong(libvirtd: Libvirtd) -> dict[Any, Any]:
    """Return what is not as it should be; that something is silent, and not refused, is as good."""
    told = found(libvirtd, TRUTH)
    return {way: (said, TRUTH[way]) for way, said in told.items() if said != TRUTH[way] and {said, TRUTH[way]} != {"silent", "refused"}}


def answering(libvirtd: Libvirtd) -> None:
    libvirtd.run("timeout", "120", "sh", "-c", "until virsh -q net-list >/dev/null 2>&1; do sleep 0.3; done; sleep 1")


@pytest.mark.row("S28")
@pytest.mark.row("S29")
@pytest.mark.row("S30")
@pytest.mark.row("S31")
def test_who_reaches_whom_stays_true_whatever_happens_to_the_rules(libvirtd: Libvirtd, play: Any, servers: None) -> None:
    rules = task("firewall", networks=RULES)

    def as_declared(what: str, heals: bool) -> None:
        """Have the rules as declared; C(heals): something had to be done for it, else nothing."""
        run = play([{**rules, "check_mode": True}, rules, rules]).succeeded()
        assert [one.changed for one in run.tasks] == [heals, heals, False], (what, run.tasks[1].result)
        assert wrong(libvirtd) == {}, what

    as_declared("first", True)
    for network in ("ours", "theirs", "routed", "cell"):
        libvirtd.run("sh", "-ec", f"virsh net-destroy {network}; virsh net-start {network}")
    plug(libvirtd)
    assert wrong(libvirtd) == {}, "networks restarted"
    as_declared("networks restarted", False)
    libvirtd.run("pkill", "-HUP", "-x", "libvirtd")
    time.sleep(3)
    # libvirt 9.0 takes the rules of networks that were restarted down for a SIGHUP and does not put them up again. Ours stand.
    assert [way for way in wrong(libvirtd) if way[0] == "g1" or way[1:] in (("203.0.113.1", 8081), ("10.41.1.10", 80))] == [], "SIGHUP"
    libvirtd.run("pkill", "-KILL", "-x", "libvirtd")
    answering(libvirtd)
    assert wrong(libvirtd) == {}, "daemon killed"
    as_declared("daemon killed", False)
    libvirtd.run("iptables", "-P", "FORWARD", "DROP")
    assert wrong(libvirtd) == {}, "FORWARD dropped"
    libvirtd.run("iptables", "-P", "FORWARD", "ACCEPT")
    libvirtd.run("nft", "flush", "ruleset")
    libvirtd.run("pkill", "-KILL", "-x", "libvirtd")  # libvirt makes its own anew only when it starts
    answering(libvirtd)
    as_declared("flushed", True)
    libvirtd.run("sh", "-ec", "iptables -D FORWARD -j ANFITRION_FWD; iptables -A FORWARD -j ANFITRION_FWD")  # behind libvirt's
    assert ("out", "203.0.113.1", 8082) in wrong(libvirtd)
    as_declared("behind libvirt's chains", True)
    play(task("firewall", networks=[{"name": one["name"], "state": "absent"} for one in RULES])).succeeded()
    assert "ANFITRION" not in libvirtd.run("iptables-save").stdout
    assert "anfitrion" not in libvirtd.run("nft", "list", "tables").stdout
