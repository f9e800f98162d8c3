"""Who reaches whom beside a real firewalld: before it, when it starts, reloads, stops, and comes again, and with docker's rules beside it.

firewalld needs a bus; both run in the namespaces of the daemon of test_network_traffic. systemd is not there, so what our units
run is run by the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Libvirtd
from .test_network_traffic import NETWORKS, RULES, answering, daemon_survives, libvirtd, plug, servers, task, wrong

__all__ = ["daemon_survives", "libvirtd", "servers"]

# What libvirt-daemon-system ships for it (src/network/*.zone and *.policy of libvirt).
SHIPPED = {
    "zones/libvirt.xml": '<zone target="ACCEPT"><rule priority="32767"><reject/></rule><protocol value="icmp"/><service name="dhcp"/>'
    '<service name="dns"/><service name="ssh"/></zone>',
    "zones/libvirt-routed.xml": "<zone/>",
    "policies/libvirt-routed-in.xml": '<policy target="ACCEPT"><ingress-zone name="ANY"/><egress-zone name="libvirt-routed"/></policy>',
    "policies/libvirt-routed-out.xml": '<policy target="ACCEPT"><ingress-zone name="libvirt-routed"/><egress-zone name="ANY"/></policy>',
}
INTO_THEIRS = 8082  # libvirt puts its chains before ours when firewalld has it make them anew
START = """
mkdir -p /run/firewalld
firewalld --nopid
until firewall-cmd --state; do sleep 0.2; done
"""
# What docker's daemon does where firewalld runs: a zone for its bridge, its chains before everything, and no forwarding by default.
DOCKER = """
firewall-cmd --permanent --new-zone=docker
firewall-cmd --permanent --zone=docker --set-target=ACCEPT
firewall-cmd --reload
ip link add docker0 type bridge; ip address add 172.17.0.1/16 dev docker0; ip link set docker0 up
firewall-cmd --zone=docker --change-interface=docker0
"""
DOCKERS_CHAINS = """
for chain in DOCKER-USER DOCKER-FORWARD; do iptables -N $chain 2>/dev/null || iptables -F $chain; done
iptables -A DOCKER-USER -j RETURN
iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT
for chain in DOCKER-FORWARD DOCKER-USER; do
    iptables -D FORWARD -j $chain 2>/dev/null || true
    iptables -I FORWARD -j $chain
done
iptables -P FORWARD DROP
"""
BUS = """
mkdir -p /run/dbus
dbus-daemon --system --fork --nopidfile
pkill -KILL -x libvirtd  # it looks for a bus only when it starts
"""


@pytest.fixture
def firewalld(libvirtd: Libvirtd, servers: None) -> Iterator[None]:
    for name, text in SHIPPED.items():
        place = libvirtd.directory.parent / "upper" / "firewalld" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        libvirtd.run("sh", "-ec", f"cat > /etc/firewalld/{name} <<'E'\n{text}\nE")
    libvirtd.run("sh", "-ec", BUS)
    answering(libvirtd)
    yield
    libvirtd.run("sh", "-c", "pkill -x firewalld; true")


def commands(libvirtd: Libvirtd, unit: str, kind: str) -> str:
    """What systemd runs of a unit of ours. The one that looks ends with a systemctl, which fails here: so it tells that it wants a reload."""
    lines = (libvirtd.directory.parent / "upper/systemd/system" / unit).read_text().splitlines()
    return "\n".join(line.partition("=")[2].lstrip("-") for line in lines if line.startswith(f"{kind}="))


def firewall_cmd(libvirtd: Libvirtd, *words: str) -> str:
    return libvirtd.run("timeout", "120", "firewall-cmd", *words).stdout.strip()


@pytest.mark.row("S28")
@pytest.mark.row("S29")
@pytest.mark.row("S30")
@pytest.mark.row("S31")
def test_forwards_and_policies_hold_while_firewalld_starts_reloads_and_stops(libvirtd: Libvirtd, play: Any, firewalld: None) -> None:
    rules = task("firewall", networks=RULES)

    def unchanged(what: str, at_once: bool = True) -> None:
        """Hold what is ours against the truth at once; what is led into libvirt's own network, when our timer has looked."""
        told = wrong(libvirtd)
        assert not at_once or {way for way in told if way[2] != INTO_THEIRS} == set(), (what, told)
        noticed = libvirtd.run("sh", "-c", commands(libvirtd, "anfitrion-firewall-watch.service", "ExecStart"), check=False).returncode != 0
        assert noticed == bool(told), (what, told)
        if noticed:
            libvirtd.run("sh", "-c", commands(libvirtd, "anfitrion-firewall.service", "ExecReload"))
            assert wrong(libvirtd) == {}, what
        run = play(rules).succeeded()
        assert not run.only.changed, (what, run.only.result)

    play(rules).succeeded()
    libvirtd.run("timeout", "120", "sh", "-ec", START)
    answering(libvirtd)
    plug(libvirtd)
    unchanged("started")
    assert firewall_cmd(libvirtd, "--zone=anfitrion", "--list-interfaces") == "m1"
    assert "m2" in firewall_cmd(libvirtd, "--zone=libvirt", "--list-interfaces")
    for way in ("--reload", "--complete-reload"):
        firewall_cmd(libvirtd, way)
        answering(libvirtd)
        unchanged(way)
    for network in NETWORKS:
        libvirtd.run("sh", "-ec", f"virsh net-destroy {network['name']}; virsh net-start {network['name']}")
    plug(libvirtd)
    unchanged("networks restarted")
    libvirtd.run("timeout", "120", "sh", "-ec", DOCKER)
    answering(libvirtd)
    # firewalld empties iptables when it reloads, our chain there too; with docker's policy nothing passes until our timer has looked.
    for what in ("docker came", "docker made its chains anew after a reload"):
        libvirtd.run("sh", "-ec", DOCKERS_CHAINS)
        unchanged(what, at_once=False)
        firewall_cmd(libvirtd, "--reload")
        answering(libvirtd)
    libvirtd.run("sh", "-ec", "iptables -P FORWARD ACCEPT; ip link del docker0")
    libvirtd.run("sh", "-ec", "pkill -x firewalld; while pgrep -x firewalld; do sleep 0.2; done")
    # It takes libvirt's rules in iptables down with its own, and libvirt puts them up again only when it starts. Ours stand.
    assert {way for way in wrong(libvirtd) if not of_libvirt(way)} == set(), "stopped"
    libvirtd.run("pkill", "-KILL", "-x", "libvirtd")
    answering(libvirtd)
    unchanged("stopped, and libvirt started again")


def of_libvirt(way: tuple[str, str, int]) -> bool:
    """Whether a way leads from or into a network whose rules are libvirt's."""
    return way[0] in ("g2", "g4") or way[1].startswith(("10.41.2.", "10.41.4.")) or way[2] == INTO_THEIRS
