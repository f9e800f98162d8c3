"""Guests on a real Open vSwitch, whose VLANs and ports libvirt sets, in the network of the private daemon."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Libvirtd
from .guest_os import GuestOS, image, options

SWITCH = "ovs0"
HERE, THERE = "10.43.1.1", "10.43.2.1"  # the host in VLAN 10 and in VLAN 20
RED, BLUE = 10, 20
PLACE = "/run/openvswitch"  # where ovs-vsctl, libvirt's too, looks for the database
QUIET = "-vsyslog:off -vfile:off -vconsole:err"
OWN_TMP = ("unshare", "--mount", "sh", "-ec", "mount -t tmpfs tmpfs /tmp; eval \"$0\"")  # the database makes temporary files
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
# The switch forwards in user space: the kernel of a test machine has no module for it, and what libvirt says to it is the same.
MADE = f"""
ovs-vsctl --no-wait init
ovs-vsctl --timeout=20 add-br {SWITCH} -- set bridge {SWITCH} datapath_type=netdev
for port in red:{RED}:{HERE} blue:{BLUE}:{THERE}; do
    name=${{port%%:*}} rest=${{port#*:}}
    ovs-vsctl --timeout=20 add-port {SWITCH} $name tag=${{rest%%:*}} -- set interface $name type=internal
    ip address add ${{rest#*:}}/24 dev $name
    ip link set $name up
done
"""


@pytest.fixture(scope="module")
def switch(libvirtd: Libvirtd) -> Iterator[str]:
    """A switch with a port of the host in each VLAN."""
    libvirtd.run("mkdir", "-p", PLACE)
    libvirtd.run("ovsdb-tool", "create", f"{PLACE}/conf.db", SCHEMA)
    daemons = [subprocess.Popen(libvirtd.command(*OWN_TMP, f"exec ovsdb-server {PLACE}/conf.db --remote=punix:{PLACE}/db.sock {QUIET}"))]
    try:
        libvirtd.run("timeout", "120", "sh", "-c", f"until [ -S {PLACE}/db.sock ]; do sleep 0.1; done")
        daemons.append(subprocess.Popen(libvirtd.command(*OWN_TMP, f"exec ovs-vswitchd unix:{PLACE}/db.sock {QUIET}")))
        libvirtd.run("sh", "-ec", MADE)
        yield SWITCH
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=30)


NETWORK = {"name": "switched", "mode": "bridge", "state": "active", "bridge": {"name": SWITCH}, "virtualport": {"type": "openvswitch"},
           "portgroups": [{"name": "red", "default": True, "vlan": {"tags": [{"id": RED}]}},
                          {"name": "blue", "vlan": {"tags": [{"id": BLUE}]}}, {"name": "free"}]}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("switched")


@pytest.fixture
def linux(play: Any, libvirtd: Libvirtd, switch: str, place: Path) -> Iterator[GuestOS]:
    """A guest with an interface on the switch, in VLAN 10 by the port group that the network gives those that say none."""
    play({"anfitrion.kvm.kvm_network": NETWORK}).succeeded()
    nic = {"name": "lan", "network": "switched", "mac": "52:54:00:43:00:10", "target": "tap7"}
    guest = options(image(), place / "console.log", interfaces=[nic])
    play({"anfitrion.kvm.kvm_domain": {"name": "switched", "state": "running", **guest}}).succeeded()
    one = GuestOS("switched", libvirtd, place / "console.log").wait()
    one.shell("nic=$(ls /sys/class/net | grep -v lo); for net in 1 2; do ip address add 10.43.$net.10/24 dev $nic; done; ip link set $nic up")
    yield one
    libvirtd.run("virsh", "destroy", "switched")
    play([
        {"anfitrion.kvm.kvm_domain": {"name": "switched", "state": "absent"}}, {"anfitrion.kvm.kvm_network": {"name": "switched", "state": "absent"}},
    ]).succeeded()  # fmt: skip


def port(libvirtd: Libvirtd, tap: str = "tap7") -> dict[str, Any]:
    """What the switch holds of a port; a set of nothing is what is not set."""
    found = json.loads(libvirtd.run("ovs-vsctl", "--format=json", "--columns=tag,trunks", "list", "port", tap).stdout)
    return dict(zip(found["headings"], found["data"][0]))


def reaches(linux: GuestOS) -> list[str]:
    """Which of the host's ports the guest reaches."""
    script = "; ".join(f"ping -c 3 -W 3 {address} >/dev/null && echo {address}" for address in (HERE, THERE))
    return linux.shell(f"{script}; true").split()


def changed(play: Any, **nic: Any) -> tuple[Any, Any]:
    """Change the guest's interface, and once more."""
    task = {"anfitrion.kvm.kvm_domain": {"name": "switched", "interfaces": [{"name": "lan", **nic}]}}
    done, again = play([task, task]).succeeded().tasks
    assert not again.changed, again.result
    return done, again


def ways(task: Any) -> dict[str, str]:
    return {change["option"]: change["how"] for change in task.result["changes"]}


@pytest.mark.row("P05")
def test_a_guest_on_a_switch_is_in_the_vlan_that_it_is_told_and_moves_while_it_runs(play: Any, libvirtd: Libvirtd, linux: GuestOS) -> None:
    assert port(libvirtd)["tag"] == RED
    assert reaches(linux) == [HERE]
    pid = linux.pid

    done, _again = changed(play, vlan=BLUE)
    assert ways(done) == {"interfaces[lan].vlan": "live"}
    assert (port(libvirtd)["tag"], reaches(linux), linux.pid) == (BLUE, [THERE], pid)

    done, _again = changed(play, link="down")  # an update of something else leaves the VLAN alone
    assert ways(done) == {"interfaces[lan].link": "live"}
    changed(play, link="up")
    assert (port(libvirtd)["tag"], reaches(linux)) == (BLUE, [THERE])

    for limit in (512, 1024):
        done, _again = changed(play, bandwidth={"outbound": {"average": limit, "burst": 64}})
        assert set(ways(done).values()) == {"live"}
        policed = libvirtd.run("ovs-vsctl", "get", "interface", "tap7", "ingress_policing_rate").stdout
        assert int(policed) == limit * 8  # kilobits; what the guest sends comes in there
    assert (port(libvirtd)["tag"], reaches(linux), linux.pid) == (BLUE, [THERE], pid)


@pytest.mark.row("P05")
def test_what_would_take_a_guest_out_of_its_vlan_waits_for_its_next_start(play: Any, libvirtd: Libvirtd, linux: GuestOS) -> None:
    """Of a port group with a VLAN libvirt (9.0) makes, in a running guest, one without any: it would see every VLAN."""
    done, again = changed(play, portgroup="blue")
    assert done.result["pending_restart"] == again.result["pending_restart"] == ["interfaces[lan].portgroup"]
    assert (port(libvirtd)["tag"], reaches(linux)) == (RED, [HERE])
    cut_off = play({"anfitrion.kvm.kvm_network": {"name": "switched", "state": "inactive"}}).only
    assert "running guests use it: switched" in cut_off.message

    restarted = {"name": "switched", "apply": "restart_if_needed", "state": "running", "interfaces": [{"name": "lan", "portgroup": "blue"}]}
    play({"anfitrion.kvm.kvm_domain": restarted}).succeeded()
    assert port(libvirtd)["tag"] == BLUE
