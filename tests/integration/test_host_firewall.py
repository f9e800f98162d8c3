"""The default deny of a host over real SSH: who reaches whom before and after it, and that a host which cannot be reached any more comes back.

The controller is the machine outside; guests and the outside are network namespaces.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Libvirtd, Run, Task, environment
from .test_network_traffic import TRAFFIC, answering, at, daemon_survives, found, libvirtd, task

__all__ = ["daemon_survives", "libvirtd"]  # the daemon of a namespace whose /etc can be written


def network(number: int, mode: str, **more: Any) -> dict[str, Any]:
    address = f"10.41.{number}"
    ip = {"address": f"{address}.1", "prefix": 24, "dhcp": {"ranges": [{"start": f"{address}.100", "end": f"{address}.120"}]}}
    return {"name": f"h{number}", "mode": mode, "bridge": {"name": f"h{number}", "stp": False}, "ips": [ip, *more.get("ips", [])]}


NETWORKS = [network(1, "open", ips=[{"address": "fd00:1::1", "family": "ipv6", "prefix": 64}]), network(2, "nat"), network(3, "routed"),
            network(4, "isolated"), network(5, "open")]  # fmt: skip
RULES = [
    {"name": "h1", "bridge": "h1", "subnet": "10.41.1.0/24", "subnet6": "fd00:1::/64", "mode": "nat",
     "forwards": [{"name": "web", "port": "8081", "to_address": "10.41.1.10", "to_port": "80"}]},
    {"name": "h2", "bridge": "h2", "subnet": "10.41.2.0/24", "mode": "libvirt",
     "forwards": [{"name": "web", "port": "8082", "to_address": "10.41.2.10", "to_port": "80"}]},
]  # fmt: skip
HOST, OUT = "203.0.113.1", "203.0.113.2"
PLACES = {**{f"g{number}": f"10.41.{number}.10" for number in range(1, 6)}, "out": OUT}
SSH = {"name": "ssh", "port": "22", "sources": ["203.0.113.0/24", "fd00:9::/64"]}
# From where to which address and port, and what is said there: without a deny, and with it.
TRUTH = {
    ("out", HOST, 22): ("SSH-2.0", "SSH-2.0"),
    ("out", HOST, 9000): (f"host saw {OUT}", "silent"),
    ("out", "fd00:9::1", 22): ("SSH-2.0", "SSH-2.0"),
    ("out", "fd00:9::1", 9000): ("host saw fd00:9::2", "silent"),
    ("out", HOST, 8081): (f"g1 saw {OUT}", f"g1 saw {OUT}"),
    ("out", HOST, 8082): (f"g2 saw {OUT}", f"g2 saw {OUT}"),
    ("out", PLACES["g3"], 80): (f"g3 saw {OUT}", f"g3 saw {OUT}"),
    ("out", PLACES["g4"], 80): ("refused", "refused"),
    ("out", PLACES["g5"], 80): (f"g5 saw {OUT}", "silent"),
    ("g1", OUT, 80): (f"out saw {HOST}", f"out saw {HOST}"),
    ("g1", "fd00:9::2", 80): ("out saw fd00:9::1", "out saw fd00:9::1"),
    ("g2", OUT, 80): (f"out saw {HOST}", f"out saw {HOST}"),
    ("g3", OUT, 80): ("out saw 10.41.3.10", "out saw 10.41.3.10"),
    ("g4", OUT, 80): ("refused", "refused"),
    ("g5", OUT, 80): ("out saw 10.41.5.10", "silent"),
    ("g1", "10.41.1.1", 9000): ("host saw 10.41.1.10", "silent"),
    ("g2", "10.41.2.1", 9000): ("host saw 10.41.2.10", "silent"),
    ("g2", HOST, 22): ("SSH-2.0", "silent"),
    ("g1", "fd00:1::1", 9000): ("host saw fd00:1::10", "silent"),
    ("host", OUT, 80): (f"out saw {HOST}", f"out saw {HOST}"),
    ("host", PLACES["g4"], 80): ("g4 saw 10.41.4.1", "g4 saw 10.41.4.1"),
}  # fmt: skip


@pytest.fixture(scope="module")
def net(libvirtd: Libvirtd) -> Iterator[Libvirtd]:
    """Networks with a guest on each, the outside, and on the host a server of SSH and something that nobody is to reach."""
    script = ["for f in ip ip6 arp; do sysctl -qw net.bridge.bridge-nf-call-${f}tables=0; done", "sysctl -qw net.ipv6.conf.all.forwarding=1"]
    for number, (place, address) in enumerate(PLACES.items(), start=1):
        gateway = HOST if place == "out" else f"10.41.{number}.1"
        script += [
            f"ip netns add {place}; ip link add v{place} type veth peer name eth0 netns {place}; ip link set v{place} up",
            f"ip -n {place} addr add {address}/24 dev eth0; ip -n {place} link set eth0 up; ip -n {place} link set lo up",
            f"ip -n {place} route add default via {gateway}",
        ]
    script += [
        f"ip addr add {HOST}/24 dev vout; ip addr add fd00:9::1/64 dev vout nodad",
        "ip -n out addr add fd00:9::2/64 dev eth0 nodad; ip -n out route add default via fd00:9::1",
        "ip netns exec g1 sysctl -qw net.ipv6.conf.eth0.accept_ra=0",
        "ip -n g1 addr add fd00:1::10/64 dev eth0 nodad; ip -n g1 route add default via fd00:1::1",
    ]
    keys = libvirtd.directory.parent / "ssh"
    (keys / ".ssh").mkdir(parents=True)
    passwd = libvirtd.directory / "passwd"
    passwd.write_text(passwd.read_text().replace(":/root:", f":{keys}:", 1))  # the home of root, whose keys count
    script += [
        f"ssh-keygen -q -t ed25519 -N '' -f {keys}/key; cp {keys}/key.pub {keys}/.ssh/authorized_keys",
        f"dropbearkey -t ed25519 -f {keys}/host >/dev/null; chown -R 0:0 {keys}; chmod -R go-rwx {keys}",
        f"dropbear -s -r {keys}/host -p 22 -P {keys}/pid",
    ]
    libvirtd.run("timeout", "120", "sh", "-ec", "\n".join(script))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    serving = [(place, "80") for place in PLACES] + [("host", "9000")]
    running = [subprocess.Popen(at(libvirtd, place, "serve", place, port), **pipes) for place, port in serving]
    try:
        for each in running:
            assert each.stdout.readline() == "ready\n"
        yield libvirtd
    finally:
        for each in running:
            each.communicate("", timeout=30)


def plug(libvirtd: Libvirtd) -> None:
    """Put the guests on their bridges; libvirt does not know of them."""
    lines = [f"ip link set vg{number} master h{number}" for number in range(1, 6)]
    lines += ["until [ $(bridge link | grep -c 'state forwarding') -ge 5 ]; do sleep 0.1; done"]
    lines += ['until [ -z "$(ip -6 addr show dev h1 tentative)" ]; do sleep 0.1; done']
    libvirtd.run("timeout", "120", "sh", "-ec", "\n".join(lines))


@pytest.fixture
def from_outside(net: Libvirtd, tmp_path: Path) -> Callable[..., Run]:
    """from_outside(tasks, check=False): what ansible says on the machine outside, whose way to the host is SSH."""
    counter = itertools.count(1)
    key = net.directory.parent / "ssh" / "key"

    def play(tasks: list[dict[str, Any]], check: bool = False) -> Run:
        work = tmp_path / f"p{next(counter)}"
        work.mkdir()
        options = f"-i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        options += f" -o ControlMaster=auto -o ControlPersist=60s -o ControlPath={net.directory.parent}/%C -o ConnectTimeout=3"
        host = {"ansible_host": HOST, "ansible_user": "root", "ansible_python_interpreter": "/usr/bin/python3", "ansible_ssh_pipelining": True,
                "ansible_ssh_args": options}  # fmt: skip
        (work / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"target": host}}}))
        (work / "book.yml").write_text(yaml.safe_dump([{"hosts": "target", "gather_facts": False, "tasks": tasks}], sort_keys=False))
        playbook = str(Path(sys.executable).parent / "ansible-playbook")
        command = net.command("ip", "netns", "exec", "out", playbook, "-i", "hosts.yml", "book.yml", "--diff", *["--check"] * check)
        done = subprocess.run(
            command, cwd=work, env=environment(work, net.directory.parent), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert (work / "record.jsonl").exists(), done.stdout
        lines = [json.loads(line) for line in (work / "record.jsonl").read_text().splitlines()]
        return Run([Task(line["task"], line["outcome"], line["result"]) for line in lines if "task" in line], done.stdout)

    return play


def wrong(libvirtd: Libvirtd, denied: bool) -> dict[Any, Any]:
    """Return what is not as it should be, after every neighbour has been forgotten; "silent" is as good as "refused" where nothing is denied."""
    forget = ["ip -6 neigh flush dev vout", "ip -n out -6 neigh flush dev eth0", "ip -6 neigh flush dev h1", "ip -n g1 -6 neigh flush dev eth0"]
    libvirtd.run("sh", "-c", "; ".join(forget))
    truth = {way: due[denied] for way, due in TRUTH.items()}
    return {way: (said, truth[way]) for way, said in found(libvirtd, truth).items() if not said.startswith(truth[way])}


def services(libvirtd: Libvirtd) -> list[str]:
    """Return what guests and the outside get of DHCP, DNS and ping: what a deny leaves alone."""
    # The server asks the network for 3 s whether an address that it has not given yet is free.
    lease = "busybox udhcpc -f -q -n -t 30 -T 1 -i eth0 -s /bin/true >/dev/null 2>&1 && echo leased"
    asked = [["ip", "netns", "exec", place, "sh", "-c", lease] for place in ("g1", "g2", "g4")]
    asked += [["ip", "netns", "exec", place, *TRAFFIC, "resolve", f"10.41.{place[1]}.1"] for place in ("g1", "g2", "g4")]
    ping = "busybox ping -q -c3 -W10 {} >/dev/null && echo pong"
    asked += [["ip", "netns", "exec", "out", "sh", "-c", ping.format(address)] for address in (HOST, "fd00:9::1")]
    running = [subprocess.Popen(libvirtd.command(*words), stdout=subprocess.PIPE, text=True) for words in asked]
    return [process.communicate(timeout=60)[0].strip() for process in running]


ALL_SERVICES = ["leased"] * 3 + ["answered"] * 3 + ["pong"] * 2
TOKEN = "{{ deny.confirm.token }}"
# What a unit of ours does, should firewalld reload just then: it loads what is persisted.
RELOAD = "nft -f /etc/anfitrion.d/firewall.nft; nft -s list table inet anfitrion > /run/anfitrion-firewall.listed"
RESET = [
    {"name": "reset", "ansible.builtin.meta": "reset_connection"},
    {"name": "wait", "ansible.builtin.wait_for_connection": {"timeout": 120}},
]


def listed(libvirtd: Libvirtd) -> str:
    return libvirtd.run("nft", "-s", "list", "table", "inet", "anfitrion").stdout


@pytest.fixture
def networks(net: Libvirtd, play: Any) -> None:
    play([task("network", networks=NETWORKS, defaults={"state": "active"}), task("firewall", networks=RULES)]).succeeded()
    plug(net)


@pytest.mark.row("S28")
@pytest.mark.row("S29")
@pytest.mark.row("S31")
def test_a_deny_that_a_new_connection_confirmed_lets_in_and_through_what_is_allowed_whatever_happens(
    net: Libvirtd, networks: None, play: Any, from_outside: Callable[..., Run]
) -> None:
    assert wrong(net, False) == {}
    assert services(net) == ALL_SERVICES
    deny = task("host_firewall", allow=[SSH], rollback_after=300)
    confirm = {"name": "Confirm", "anfitrion.kvm.kvm_confirm": {"token": TOKEN}}
    tasks = [
        task("host_firewall", allow=[{**SSH, "sources": ["192.0.2.0/24"]}]) | {"ignore_errors": True},
        task("host_firewall", allow=[{"name": "ssh", "port": 2222}]) | {"ignore_errors": True},
        deny | {"check_mode": True},
        deny | {"register": "deny"},
        confirm | {"ignore_errors": True},  # by the old connection
        task("firewall", networks=RULES) | {"ignore_errors": True},
        deny,
        {"name": "reload", "ansible.builtin.shell": RELOAD},
        *RESET,
        confirm,
        confirm,
        deny,
        task("firewall", networks=RULES),
        task("host_firewall_info"),
    ]
    cut, other_port, check, apply, old, meanwhile, waits, _reload, _wait, confirmed, again, unchanged, rules, info = from_outside(tasks).tasks
    assert "nothing lets TCP port 22 in from 203.0.113.2" in cut.message
    assert "nothing lets TCP port 22 in" in other_port.message
    assert (check.changed, apply.changed, check.diff) == (True, True, apply.diff)
    assert "confirm" not in check.result
    assert "older than the change" in old.message
    assert "waits to be confirmed" in meanwhile.message
    assert (waits.changed, waits.result["confirm"]["token"]) == (False, apply.result["confirm"]["token"])
    assert [one.outcome for one in (confirmed, again, unchanged, rules)] == ["ok"] * 4
    assert [one.changed for one in (confirmed, again, unchanged, rules)] == [True, False, False, False]
    assert info.result["host_firewall"] == {"state": "present", "deny": ["forward", "input"], "allow": [SSH], "through": []}
    assert info.result["unconfirmed_for"] is None

    def as_declared(what: str, heals: bool) -> None:
        run = play([{**deny, "check_mode": True}, deny, deny] if heals else deny).succeeded()
        assert [one.changed for one in run.tasks] == ([True, True, False] if heals else [False]), (what, run.tasks[0].result)
        assert wrong(net, True) == {}, what
        assert services(net) == ALL_SERVICES, what

    for number in range(1, 6):
        net.run("sh", "-ec", f"virsh net-destroy h{number}; virsh net-start h{number}")
    plug(net)
    as_declared("confirmed, networks restarted", False)
    net.run("pkill", "-HUP", "-x", "libvirtd")
    time.sleep(1)
    net.run("nft", "flush", "ruleset")
    net.run("pkill", "-KILL", "-x", "libvirtd")
    answering(net)
    play(task("firewall", networks=RULES)).succeeded()  # its chain in iptables; it brings the whole table back
    net.run("nft", "insert", "rule", "inet", "anfitrion", "input", "accept")
    as_declared("SIGHUP, flushed, daemon killed, a rule of somebody's", True)
    play(task("host_firewall", state="absent")).succeeded()
    assert not play(task("host_firewall", state="absent")).only.changed
    assert "mld-listener-query" not in listed(net)
    assert wrong(net, False) == {}


@pytest.mark.row("S28")
def test_a_host_that_cannot_be_reached_any_more_comes_back_as_it_was(
    net: Libvirtd, networks: None, play: Any, from_outside: Callable[..., Run]
) -> None:
    def ssh() -> str:
        return net.run("ip", "netns", "exec", "out", *TRAFFIC, "reach", HOST, "22").stdout

    before = listed(net)
    cut = task("host_firewall", allow=[{"name": "ssh", "port": "2222"}], rollback_after=300, cut_allowed=True) | {"register": "deny"}
    run = from_outside([cut, *RESET[:1], {"name": "Confirm", "anfitrion.kvm.kvm_confirm": {"token": TOKEN}}])
    assert [one.outcome for one in run.tasks] == ["ok", "unreachable"], run.output
    token = run.tasks[0].result["confirm"]["token"]
    assert ssh() == "silent\n"
    net.run("pkill", "-f", "^sleep 300$")  # the time is over
    comes_back(net, lambda: ssh().startswith("SSH"))
    assert listed(net) == before
    confirm = {"name": "Confirm", "anfitrion.kvm.kvm_confirm": {"token": token}, "ignore_errors": True}
    late, again = from_outside([confirm, task("firewall", networks=RULES)]).tasks
    assert "they have been taken back" in late.message
    assert not again.changed

    # And over a deny that had been confirmed: it is back as it was, and what was asked for is not persisted.
    role = {"name": "role", "ansible.builtin.include_role": {"name": "anfitrion.kvm.network"},
            "vars": {"network_host_firewall": {"allow": [SSH], "rollback_after": 300}}}  # fmt: skip
    assert [any(one.changed for one in from_outside([role]).succeeded().tasks) for _turn in range(2)] == [True, False]
    kept, confirmed = listed(net), Path(net.directory.parent / "upper/anfitrion.d/firewall.nft").read_text()
    worse = task("host_firewall", allow=[{"name": "ssh", "state": "absent"}], rollback_after=20, cut_allowed=True)
    assert from_outside([worse]).succeeded().only.changed  # and nobody waits for the time to be over
    assert Path(net.directory.parent / "upper/anfitrion.d/firewall.nft").read_text() == confirmed
    comes_back(net, lambda: ssh().startswith("SSH"))
    assert listed(net) == kept
    assert not from_outside([role]).succeeded().failed
    assert "anfitrion-firewall" not in " ".join(path.name for path in (net.directory / "run").iterdir() if path.is_dir())
    play([task("host_firewall", state="absent"), task("firewall", networks=[{"name": one["name"], "state": "absent"} for one in RULES])]).succeeded()
    assert "anfitrion" not in net.run("nft", "list", "tables").stdout


def comes_back(libvirtd: Libvirtd, reached: Callable[[], bool]) -> None:
    """Wait until the host has taken its rules back."""
    end = time.monotonic() + 120
    while (libvirtd.directory / "run/anfitrion-firewall.waiting").exists() or not reached():
        assert time.monotonic() < end, "it did not come back"
        time.sleep(0.3)
