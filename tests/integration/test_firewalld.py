"""Who reaches whom beside a real firewalld: before it, when it starts, reloads, stops, and comes again.

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

    def unchanged(what: str) -> None:
        """Hold what is ours against the truth at once; what is led into libvirt's own network, when our timer has looked."""
        told = wrong(libvirtd)
        assert {way for way in told if way[2] != INTO_THEIRS} == set(), (what, told)
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
    libvirtd.run("sh", "-ec", "pkill -x firewalld; while pgrep -x firewalld; do sleep 0.2; done")
    # It takes libvirt's rules in iptables down with its own, and libvirt puts them up again only when it starts. Ours stand.
    assert {way for way in wrong(libvirtd) if not of_libvirt(way)} == set(), "stopped"
    libvirtd.run("pkill", "-KILL", "-x", "libvirtd")
    answering(libvirtd)
    unchanged("stopped, and libvirt started again")


def of_libvirt(way: tuple[str, str, int]) -> bool:
    """Whether a way leads from or into a network whose rules are libvirt's."""
    return way[0] in ("g2", "g4") or way[1].startswith(("10.41.2.", "10.41.4.")) or way[2] == INTO_THEIRS
