"""clean-traffic against a guest that lies: a real kernel in a guest sends as another, and a machine on its bridge looks who sent what."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Libvirtd
from .guest_os import GuestOS, image, options
from .test_network_traffic import at

MAC, LIE_MAC = "52:54:00:42:00:10", "52:54:00:66:66:66"
OWN, LIE = "10.42.1.10", "10.42.1.66"
WITNESS = "10.42.1.5"

# As libvirt ships them (package libvirt-daemon-config-nwfilter); the private daemon starts with none.
OUT = "direction='out'"
FILTERS = {
    "qemu-announce-self-rarp": f"""<filter name='qemu-announce-self-rarp' chain='rarp'>
        <rule action='accept' {OUT} priority='500'><rarp srcmacaddr='$MAC' dstmacaddr='ff:ff:ff:ff:ff:ff' opcode='Request_Reverse'
          arpsrcmacaddr='$MAC' arpdstmacaddr='$MAC' arpsrcipaddr='0.0.0.0' arpdstipaddr='0.0.0.0'/></rule></filter>""",
    "no-other-rarp-traffic": "<filter name='no-other-rarp-traffic' chain='rarp'><rule action='drop' direction='inout' priority='1000'/></filter>",
    "qemu-announce-self": f"""<filter name='qemu-announce-self' chain='root'><rule action='accept' {OUT}><mac protocolid='0x835'/></rule>
        <filterref filter='qemu-announce-self-rarp'/><filterref filter='no-other-rarp-traffic'/></filter>""",
    "no-mac-spoofing": f"""<filter name='no-mac-spoofing' chain='mac' priority='-800'>
        <rule {OUT} action='return'><mac srcmacaddr='$MAC'/></rule><rule {OUT} action='drop'><mac/></rule></filter>""",
    "no-ip-spoofing": f"""<filter name='no-ip-spoofing' chain='ipv4-ip' priority='-710'>
        <rule action='return' {OUT} priority='100'><ip srcipaddr='0.0.0.0' protocol='udp'/></rule>
        <rule {OUT} action='return' priority='500'><ip srcipaddr='$IP'/></rule><rule {OUT} action='drop' priority='1000'/></filter>""",
    "no-arp-mac-spoofing": f"""<filter name='no-arp-mac-spoofing' chain='arp-mac' priority='-520'>
        <rule action='return' {OUT} priority='350'><arp match='yes' arpsrcmacaddr='$MAC'/></rule>
        <rule action='drop' {OUT} priority='1000'/></filter>""",
    "no-arp-ip-spoofing": f"""<filter name='no-arp-ip-spoofing' chain='arp-ip' priority='-510'>
        <rule action='return' {OUT} priority='400'><arp match='yes' arpsrcipaddr='$IP'/></rule>
        <rule action='drop' {OUT} priority='1000'/></filter>""",
    "no-arp-spoofing": """<filter name='no-arp-spoofing' chain='root'><filterref filter='no-arp-mac-spoofing'/>
        <filterref filter='no-arp-ip-spoofing'/></filter>""",
    "allow-incoming-ipv4": "<filter name='allow-incoming-ipv4' chain='ipv4'><rule direction='in' action='accept'/></filter>",
    "no-other-l2-traffic": "<filter name='no-other-l2-traffic'><rule action='drop' direction='inout' priority='1000'/></filter>",
    "clean-traffic": f"""<filter name='clean-traffic' chain='root'><filterref filter='no-mac-spoofing'/><filterref filter='no-ip-spoofing'/>
        <rule {OUT} action='accept' priority='-650'><mac protocolid='ipv4'/></rule><filterref filter='allow-incoming-ipv4'/>
        <filterref filter='no-arp-spoofing'/><rule action='accept' direction='inout' priority='-500'><mac protocolid='arp'/></rule>
        <filterref filter='no-other-l2-traffic'/><filterref filter='qemu-announce-self'/></filter>""",
    "let-all": "<filter name='let-all'/>",
}
NETWORK = {"name": "clean", "mode": "isolated", "state": "active", "bridge": {"name": "clean1", "stp": False},
           "ips": [{"address": "10.42.1.1", "prefix": 24, "dhcp": {"ranges": [{"start": OWN, "end": OWN}]}}]}  # fmt: skip


@pytest.fixture
def liar(play: Any, libvirtd: Libvirtd, tmp_path: Any) -> Iterator[GuestOS]:
    """A guest whose interface has the filter clean-traffic, and a machine beside it on the bridge."""
    filters = [{"name": name, "xml": xml} for name, xml in FILTERS.items()]
    guest = options(image(), tmp_path / "console.log", interfaces=[nic("clean-traffic")])
    play([
        {"anfitrion.kvm.kvm_nwfilter": {"nwfilters": filters}},
        {"anfitrion.kvm.kvm_network": NETWORK},
        {"anfitrion.kvm.kvm_domain": {"name": "liar", "state": "running", **guest}},
    ]).succeeded()  # fmt: skip
    script = (
        "ip netns add witness; ip link add witness type veth peer name eth0 netns witness; ip link set witness master clean1 up;"
        f"ip -n witness addr add {WITNESS}/24 dev eth0; ip -n witness link set eth0 up promisc on"
    )
    libvirtd.run("sh", "-ec", script)
    try:
        yield GuestOS("liar", libvirtd, tmp_path / "console.log").wait()
    finally:
        libvirtd.run("sh", "-c", "virsh destroy liar; virsh undefine liar; virsh net-destroy clean; virsh net-undefine clean; ip netns del witness")
        play({"anfitrion.kvm.kvm_nwfilter": {"nwfilters": [{"name": name, "state": "absent"} for name in reversed(FILTERS)]}}).succeeded()


def nic(filter_name: str) -> dict[str, Any]:
    return {"name": "lan", "network": "clean", "mac": MAC, "model": "virtio", "filter": filter_name}


# What the guest sends: as itself, from another address, announcing another address, from another MAC address.
TRIES = f"""
nic=$(ls /sys/class/net | grep -v lo | head -1)
ping -c 1 -W 3 {WITNESS}
ip address add {LIE}/24 dev $nic
ping -c 1 -W 3 -I {LIE} {WITNESS}
arping -A -c 1 -w 1 -I $nic -s {LIE} {WITNESS}
arping -U -c 1 -w 1 -I $nic -s {LIE} {WITNESS}
ip address del {LIE}/24 dev $nic
ip link set $nic down; ip link set $nic address {LIE_MAC}; ip link set $nic up
ping -c 1 -W 3 {WITNESS}
ip link set $nic down; ip link set $nic address {MAC}; ip link set $nic up
ping -c 1 -W 3 {WITNESS}
"""


def learned(liar: GuestOS) -> None:
    """Return once libvirt has learned the guest's address from what it sent, and made its rules of it; till then any address may be sent from."""
    tables = "nft list table bridge nat"
    there = f"{tables} | grep -q 'ip saddr {OWN} .*return' && ! {tables} | grep -q libvirt-J"  # J: what is being made
    liar.libvirtd.run("timeout", "120", "sh", "-c", f"until {there}; do sleep 0.2; done")


def seen(liar: GuestOS) -> set[str]:
    """What the machine beside the guest heard of it while it tried."""
    command = at(liar.libvirtd, "witness", "listen", "eth0")
    witness = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert witness.stdout
    assert witness.stdout.readline() == "ready\n"
    liar.shell(f"({TRIES}) >/dev/null 2>&1; true")
    heard = witness.communicate("", timeout=30)[0].splitlines()
    return {line for line in heard if MAC in line or LIE_MAC in line or LIE in line}


@pytest.mark.row("P08")
@pytest.mark.row("B13")
def test_a_guest_with_clean_traffic_sends_as_itself_and_as_nobody_else_and_what_stops_it_is_named(play: Any, liar: GuestOS) -> None:
    liar.until("cat /run/address 2>/dev/null; true", lambda said: said == OWN)
    truth = {f"{MAC} ip {OWN}", f"{MAC} arp {OWN}"}
    lies = {f"{MAC} ip {LIE}", f"{MAC} arp {LIE}", f"{LIE_MAC} ip {OWN}"}

    learned(liar)
    assert seen(liar) == truth
    change = {"anfitrion.kvm.kvm_domain": {"name": "liar", "interfaces": [nic("let-all")]}}
    assert play(change).succeeded().only.result["changes"][0]["how"] == "live"
    assert truth | lies <= seen(liar)  # that it can lie
    asked = [{"guest": "liar", "to": WITNESS, "proto": "icmp", **more} for more in ({}, {"source": LIE})]
    back = {"anfitrion.kvm.kvm_domain": {"name": "liar", "interfaces": [nic("clean-traffic")]}}
    play(back).succeeded()
    liar.shell(f"ping -c 1 -W 3 {WITNESS} || true")
    learned(liar)
    results = play([*({"anfitrion.kvm.kvm_path_info": one} for one in asked)]).succeeded().tasks
    own, lie = (task.result["path"] for task in results)
    assert seen(liar) == truth
    assert own["verdict"] == "passes", own
    assert lie["stopped_by"]["at"] == "bridge prerouting", lie
    assert "libvirt's, of a network filter" in lie["stopped_by"]["why"]
    unplugged_is_named(play, liar)


def unplugged_is_named(play: Any, liar: GuestOS) -> None:
    """The cable of the guest's interface is out: only its definition tells, the interface on the host stays up."""
    from_it = {"guest": "liar", "interface": MAC, "to": WITNESS, "proto": "icmp"}
    to_it = {"source": WITNESS, "interface": "witness", "to": OWN, "proto": "icmp"}
    for state, verdict in (("down", "stopped"), ("up", "passes")):
        plug = {"anfitrion.kvm.kvm_domain": {"name": "liar", "interfaces": [{"name": "lan", "link": state}]}}
        asked = play([plug, *({"anfitrion.kvm.kvm_path_info": one} for one in (from_it, to_it))]).succeeded().tasks[1:]
        replies = f"ping -c 3 -W 3 {WITNESS} >/dev/null 2>&1 && echo passes || echo stopped"
        liar.until(replies, lambda said, wanted=verdict: said == wanted)  # type: ignore[misc]
        for way in (task.result["path"] for task in asked):
            assert way["verdict"] == verdict, way
            assert verdict == "passes" or "guest liar" in way["stopped_by"]["at"], way
