# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules of kvm_firewall in a real kernel: namespaces as host, guests and the outside, real connections."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import firewall, nft, own_rules
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Output, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import execute


def _able() -> bool:
    tools = all(shutil.which(tool) for tool in ("ip", "nft", "unshare"))
    return tools and subprocess.run(["unshare", "--net", "nft", "list", "tables"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _able(), reason="needs root, ip, nft and network namespaces")

SERVER = """
import socket
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", {port})); s.listen(); print("ready", flush=True)
while True:
    c, peer = s.accept(); c.sendall(("{name} saw " + peer[0]).encode()); c.close()
"""
CLIENT = """
import socket, sys
s = socket.create_connection(("{address}", {port}), timeout={seconds}); print(s.recv(100).decode())
"""


class Net(Root):
    """The host's namespace of a small net: outside 10.9.0.2, nat guests .60.10 and .60.11, isolated guest .70.10."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.prefix = f"anf{os.getpid()}"
        self.servers: list[subprocess.Popen[str]] = []

    def run(self, argv: list[str], text: str | None = None, timeout: float = 60.0) -> Output:
        return super().run(["ip", "netns", "exec", f"{self.prefix}-host", *argv], text, timeout)

    def at_place(self, place: str, *argv: str) -> str:
        done = subprocess.run(["ip", "netns", "exec", f"{self.prefix}-{place}", *argv], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout

    def link(self, place: str, interface: str, address: str, gateway: str) -> None:  # type: ignore[override]
        self.at_place("host", "ip", "link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", f"{self.prefix}-{place}")
        self.at_place("host", "ip", "link", "set", interface, "up")
        for command in (["link", "set", "lo", "up"], ["link", "set", "eth0", "up"], ["address", "add", address, "dev", "eth0"],
                        ["route", "add", "default", "via", gateway]):  # fmt: skip
            self.at_place(place, "ip", *command)

    def build(self) -> None:
        for place in ("host", "out", "g1", "g2", "iso"):
            subprocess.run(["ip", "netns", "add", f"{self.prefix}-{place}"], check=True)
        self.at_place("host", "ip", "link", "set", "lo", "up")
        self.at_place("host", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        if Path("/proc/sys/net/bridge").exists():  # a kernel that has br_netfilter loaded filters bridged frames too
            self.at_place("host", "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
        for bridge, address in (("br-nat", "192.168.60.1/24"), ("br-iso", "192.168.70.1/24")):
            self.at_place("host", "ip", "link", "add", bridge, "type", "bridge")
            self.at_place("host", "ip", "address", "add", address, "dev", bridge)
            self.at_place("host", "ip", "link", "set", bridge, "up")
        self.link("out", "up0", "10.9.0.2/24", "10.9.0.1")
        self.at_place("host", "ip", "address", "add", "10.9.0.1/24", "dev", "up0")
        for place, bridge, net, number in (("g1", "br-nat", 60, 10), ("g2", "br-nat", 60, 11), ("iso", "br-iso", 70, 10)):
            self.link(place, f"v{place}", f"192.168.{net}.{number}/24", f"192.168.{net}.1")
            self.at_place("host", "ip", "link", "set", f"v{place}", "master", bridge)

    def serve(self, *places: tuple[str, int]) -> None:
        for place, port in places:
            command = ["ip", "netns", "exec", f"{self.prefix}-{place}", "python3", "-c", SERVER.format(port=port, name=place)]
            self.servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        for server in self.servers:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"

    def serve_six(self, *places: tuple[str, int]) -> None:
        for place, port in places:
            text = SERVER.format(port=port, name=place).replace("socket.socket()", "socket.socket(socket.AF_INET6)")
            server = subprocess.Popen(["ip", "netns", "exec", f"{self.prefix}-{place}", "python3", "-c", text], stdout=subprocess.PIPE, text=True)
            self.servers.append(server)
            assert server.stdout
            assert server.stdout.readline() == "ready\n"

    def reach(self, place: str, address: str, port: int, seconds: int = 15) -> str:
        """Return what the server said, "refused" or, after that time, "silent"."""
        command = ["ip", "netns", "exec", f"{self.prefix}-{place}", "python3", "-c", CLIENT.format(address=address, port=port, seconds=seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
        return "silent" if "timed out" in done.stderr else "refused"

    def tear_down(self) -> None:
        for server in self.servers:
            server.kill()
            server.wait()
        for place in ("host", "out", "g1", "g2", "iso"):
            subprocess.run(["ip", "netns", "del", f"{self.prefix}-{place}"], check=False, capture_output=True)


WEB = {"name": "web", "port": "8080", "to_address": "192.168.60.10", "to_port": "80"}
NAT = {"name": "vms", "bridge": "br-nat", "subnet": "192.168.60.0/24", "mode": "nat", "forwards": [WEB]}
ISOLATED = {"name": "cell", "bridge": "br-iso", "subnet": "192.168.70.0/24", "mode": "isolated"}


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    """Build the net for each test: ansible-test runs each in a process of its own, which leaves wider fixtures behind."""
    forwarding = tmp_path / "proc/sys/net/ipv4/ip_forward"
    forwarding.parent.mkdir(parents=True)
    forwarding.write_text("0\n")
    (tmp_path / "proc/sys/net/ipv6/conf/all").mkdir(parents=True)
    (tmp_path / "proc/sys/net/ipv6/conf/all/forwarding").write_text("0\n")
    (tmp_path / "usr/sbin").mkdir(parents=True)
    for command in ("iptables", "ip6tables"):
        (tmp_path / "usr/sbin" / command).touch()
    net = Net(str(tmp_path))
    try:
        net.build()
        for wanted in (NAT, ISOLATED):
            execute(firewall.plan(net, wanted))
        net.serve(("g1", 80), ("g2", 80), ("out", 80), ("iso", 80), ("host", 9000), ("host", 53))
        yield net
    finally:
        net.tear_down()


@pytest.mark.row("S29")
def test_a_guest_goes_out_by_the_address_of_the_host(net: Net) -> None:
    assert net.reach("g1", "10.9.0.2", 80) == "out saw 10.9.0.1"


@pytest.mark.row("S29")
def test_nobody_outside_reaches_a_guest_that_has_no_forward(net: Net) -> None:
    net.at_place("out", "ip", "route", "replace", "192.168.0.0/16", "via", "10.9.0.1")
    assert net.reach("out", "192.168.60.11", 80) == "refused"
    assert net.reach("out", "192.168.60.10", 80) == "refused"


@pytest.mark.row("S29")
def test_a_forward_works_from_outside_from_the_host_and_by_hairpin(net: Net) -> None:
    assert net.reach("out", "10.9.0.1", 8080) == "g1 saw 10.9.0.2"
    assert net.reach("host", "10.9.0.1", 8080) == "g1 saw 10.9.0.1"
    assert net.reach("g2", "10.9.0.1", 8080).startswith("g1 saw 192.168.60.1")
    assert net.reach("g1", "10.9.0.1", 8080).startswith("g1 saw 192.168.60.1")


@pytest.mark.row("S28")
def test_an_isolated_guest_reaches_only_dns_of_the_host(net: Net) -> None:
    assert net.reach("iso", "192.168.70.1", 53) == "host saw 192.168.70.10"
    assert net.reach("iso", "192.168.70.1", 9000) == "refused"
    assert net.reach("iso", "10.9.0.1", 9000) == "refused"
    assert net.reach("iso", "10.9.0.2", 80) == "refused"
    assert net.reach("iso", "192.168.60.10", 80) == "refused"
    assert net.reach("iso", "10.9.0.1", 8080) == "refused"


@pytest.mark.row("S28")
def test_nobody_reaches_an_isolated_guest_but_the_host(net: Net) -> None:
    net.at_place("out", "ip", "route", "replace", "192.168.0.0/16", "via", "10.9.0.1")
    assert net.reach("out", "192.168.70.10", 80) == "refused"
    assert net.reach("g1", "192.168.70.10", 80) == "refused"
    assert net.reach("host", "192.168.70.10", 80) == "iso saw 192.168.70.1"


@pytest.mark.row("S29")
def test_only_declared_sources_may_use_a_forward(net: Net) -> None:
    execute(firewall.plan(net, {"name": "vms", "forwards": [{**WEB, "sources": ["10.8.0.0/24"]}]}))
    assert net.reach("out", "10.9.0.1", 8080) == "refused"
    execute(firewall.plan(net, {"name": "vms", "forwards": [{**WEB, "sources": ["10.9.0.0/24"]}]}))
    assert net.reach("out", "10.9.0.1", 8080) == "g1 saw 10.9.0.2"


@pytest.mark.row("S28")
def test_routed_guests_are_reached_and_seen_as_they_are(net: Net) -> None:
    execute(firewall.plan(net, {"name": "vms", "mode": "routed"}))
    net.at_place("out", "ip", "route", "replace", "192.168.60.0/24", "via", "10.9.0.1")
    assert net.reach("out", "192.168.60.11", 80) == "g2 saw 10.9.0.2"
    assert net.reach("g2", "10.9.0.2", 80) == "out saw 192.168.60.11"
    assert net.reach("iso", "192.168.60.11", 80) == "refused"
    execute(firewall.plan(net, {"name": "vms", "mode": "nat"}))


@pytest.mark.row("S29")
def test_rules_that_somebody_changed_or_flushed_come_back_and_a_second_run_changes_nothing(net: Net) -> None:
    wanted = {"name": "vms", "forwards": [WEB]}
    execute(firewall.plan(net, wanted))
    assert not firewall.plan(net, wanted).changed
    net.must_run(["nft", "insert", "rule", "inet", "anfitrion", "forward", "drop"])
    assert firewall.plan(net, wanted).changed
    net.must_run(["nft", "flush", "ruleset"])
    plan = firewall.plan(net, wanted)
    assert [change.option for change in plan.changes] == ["rules"]
    execute(plan)
    assert not firewall.plan(net, wanted).changed
    assert net.reach("out", "10.9.0.1", 8080) == "g1 saw 10.9.0.2"


def test_tables_of_others_are_not_touched_and_a_dropping_one_is_told(net: Net) -> None:
    net.must_run(["nft", "-f", "-"], "table ip other { chain FORWARD { type filter hook forward priority 0; policy drop;\n}\n}\n")
    plan = firewall.plan(net, {"name": "vms", "forwards": [{**WEB, "port": "8081"}]})
    assert "ip other FORWARD" in plan.warnings[0]
    execute(plan)
    assert "policy drop" in net.must_run(["nft", "list", "table", "ip", "other"])


@pytest.mark.row("S28")
def test_guests_pass_where_docker_made_iptables_drop_what_it_does_not_know(net: Net) -> None:
    net.at_place("host", "iptables", "-P", "FORWARD", "DROP")
    assert net.reach("g1", "10.9.0.2", 80, seconds=2) == "silent"
    wanted = {"name": "vms", "forwards": [WEB]}
    execute(firewall.plan(net, wanted))
    assert not firewall.plan(net, wanted).changed
    assert net.reach("g1", "10.9.0.2", 80) == "out saw 10.9.0.1"
    assert net.reach("out", "10.9.0.1", 8080) == "g1 saw 10.9.0.2"
    assert net.reach("iso", "10.9.0.2", 80) == "refused"
    net.at_place("host", "iptables", "-I", "FORWARD", "-j", "DROP")
    assert [change.option for change in firewall.plan(net, wanted).changes] == ["iptables ANFITRION_FWD"]
    execute(firewall.plan(net, wanted))
    assert net.reach("g1", "10.9.0.2", 80) == "out saw 10.9.0.1"
    for name in ("vms", "cell"):
        execute(firewall.plan(net, {"name": name, "state": "absent"}))
    assert "ANFITRION" not in net.at_place("host", "iptables-save")


REJECTING = """*filter
:LIBVIRT_FWI - [0:0]
-A FORWARD -j LIBVIRT_FWI
-A LIBVIRT_FWI -d 192.168.60.0/24 -o br-nat -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A LIBVIRT_FWI -o br-nat -j REJECT
COMMIT
*nat
-A POSTROUTING -s 192.168.60.0/24 ! -d 192.168.60.0/24 -j MASQUERADE
COMMIT
"""


@pytest.mark.row("S29")
def test_a_forward_into_a_network_of_libvirts_own_nat_works_before_its_reject(net: Net) -> None:
    net.must_run(["iptables-restore", "--noflush"], REJECTING)
    wanted = {**NAT, "mode": "libvirt"}
    execute(firewall.plan(net, wanted))
    assert not firewall.plan(net, wanted).changed
    assert net.reach("out", "10.9.0.1", 8080) == "g1 saw 10.9.0.2"
    assert net.reach("g2", "10.9.0.1", 8080).startswith("g1 saw 192.168.60.1")
    assert net.reach("g1", "10.9.0.2", 80) == "out saw 10.9.0.1"
    net.at_place("out", "ip", "route", "replace", "192.168.0.0/16", "via", "10.9.0.1")
    assert net.reach("out", "192.168.60.11", 80) == "refused"
    net.at_place("host", "iptables", "-D", "FORWARD", "-j", "LIBVIRT_FWI")
    net.at_place("host", "iptables", "-I", "FORWARD", "-j", "LIBVIRT_FWI")  # as libvirt does when it makes its chains anew
    assert net.reach("out", "10.9.0.1", 8080) == "refused"
    assert firewall.plan(net, wanted).changed
    execute(firewall.plan(net, wanted))
    assert net.reach("out", "10.9.0.1", 8080) == "g1 saw 10.9.0.2"


@pytest.mark.row("S29")
def test_a_forward_into_a_network_of_libvirts_nftables_back_end_is_refused_with_the_way_out(net: Net) -> None:
    net.must_run(["nft", "-f", "-"], 'table ip libvirt_network { chain guest_input { oifname "br-nat" counter reject\n}\n}\n')
    with pytest.raises(KvmError, match="give the network mode open"):
        firewall.plan(net, {**NAT, "mode": "libvirt"})


@pytest.mark.row("S29")
def test_a_forward_that_goes_away_ends_its_connections(net: Net) -> None:
    script = (
        "import socket, sys; s = socket.create_connection(('10.9.0.1', 8089), 15); s.send(b'a'); print(s.recv(9).decode(), flush=True);"
        "sys.stdin.readline(); s.settimeout(15); s.send(b'b'); print(s.recv(9).decode(), flush=True)"
    )
    mirror = "import socket; s = socket.create_server(('', 89)); print('ready', flush=True); c = s.accept()[0]\nwhile True: c.send(c.recv(9))"
    execute(firewall.plan(net, {"name": "vms", "forwards": [{"name": "echo", "port": "8089", "to_address": "192.168.60.10", "to_port": "89"}]}))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for place, text, says in (("g1", mirror, "ready\n"), ("out", script, "a\n")):
        process = subprocess.Popen(["ip", "netns", "exec", f"{net.prefix}-{place}", "python3", "-c", text], **pipes)
        net.servers.append(process)
        assert process.stdout
        assert process.stdout.readline() == says
    client = net.servers[-1]
    execute(firewall.plan(net, {"name": "vms", "forwards": [{"name": "echo", "state": "absent"}]}))
    said, errors = client.communicate("go\n", timeout=20)
    assert said == ""
    assert "Connection re" in errors  # reset, or refused


@pytest.mark.row("S31")
def test_guests_reach_of_the_host_what_is_declared(net: Net) -> None:
    assert net.reach("g1", "192.168.60.1", 9000) == "host saw 192.168.60.10"
    execute(firewall.plan(net, {"name": "vms", "host": "services"}))
    assert net.reach("g1", "192.168.60.1", 9000) == "refused"
    assert net.reach("g1", "192.168.60.1", 53) == "host saw 192.168.60.10"
    assert net.reach("g1", "10.9.0.2", 80) == "out saw 10.9.0.1"
    execute(firewall.plan(net, {"name": "vms", "host": "closed"}))
    assert net.reach("g1", "192.168.60.1", 53) == "refused"
    assert net.reach("host", "192.168.60.10", 80) == "g1 saw 192.168.60.1"


@pytest.mark.row("S29")
def test_ipv6_guests_go_out_and_are_reached_by_forwards(net: Net) -> None:
    ends = (("host", "up0", "fd00:9::1/64", None), ("out", "eth0", "fd00:9::2/64", "fd00:9::1"),
            ("host", "br-nat", "fd00:60::1/64", None), ("g1", "eth0", "fd00:60::10/64", "fd00:60::1"))  # fmt: skip
    for place, interface, address, gateway in ends:
        net.at_place(place, "ip", "address", "add", address, "dev", interface, "nodad")
        if gateway:
            net.at_place(place, "ip", "route", "add", "default", "via", gateway)
    net.at_place("host", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    six = {"name": "web6", "port": "8080", "to_address": "fd00:60::10", "to_port": "80"}
    wanted = {**NAT, "subnet6": "fd00:60::/64", "forwards": [WEB, six]}
    execute(firewall.plan(net, wanted))
    assert not firewall.plan(net, wanted).changed
    net.serve_six(("g1", 86), ("out", 86))
    assert net.reach("g1", "fd00:9::2", 86) == "out saw fd00:9::1"
    assert net.reach("out", "fd00:60::10", 86) == "refused"
    execute(firewall.plan(net, {"name": "vms", "forwards": [{**six, "to_port": "86"}]}))
    assert net.reach("out", "fd00:9::1", 8080) == "g1 saw fd00:9::2"
    execute(firewall.plan(net, {"name": "vms", "mode": "routed"}))
    assert net.reach("out", "fd00:60::10", 86) == "g1 saw fd00:9::2"


def test_a_step_that_fails_later_brings_the_old_rules_back(net: Net) -> None:
    before = nft.running(net)
    plan = firewall.plan(net, {"name": "vms", "forwards": [{**WEB, "name": "more", "port": "9999"}]})
    load = next(step for step in plan.steps if step.sentence == "load the packet rules")
    load.do()
    assert nft.running(net) != before
    assert load.undo
    load.undo()
    assert nft.running(net) == before


def test_the_last_network_takes_table_files_and_unit_with_it(net: Net) -> None:
    for name in ("vms", "cell"):
        execute(firewall.plan(net, {"name": name, "state": "absent"}))
        assert not firewall.plan(net, {"name": name, "state": "absent"}).changed
    assert nft.running(net) is None
    assert not net.exists(own_rules.RULES)
    assert not net.exists(f"/etc/systemd/system/{own_rules.UNIT}")
