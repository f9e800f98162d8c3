"""kvm_network on a real libvirt in a network of its own, and on libvirt's test driver."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

TEST = "test:///default"
TRAFFIC = ("/usr/bin/python3", str(Path(__file__).with_name("traffic.py")))


@pytest.fixture
def subnets(fresh_name: str) -> Callable[[int], str]:
    """subnets(4) is the address 4 in a /24 that no other test uses."""
    number = int(fresh_name[1:])
    return lambda host: f"10.{60 + number // 250}.{number % 250}.{host}"


@pytest.fixture
def uplink(libvirtd: Any) -> Iterator[str]:
    """An interface (a bridge, which every kernel can make) of the private network with an address in 198.51.100.0/24."""
    for words in ("link add up0 type bridge", "addr add 198.51.100.2/24 dev up0", "link set up0 up"):
        libvirtd.run("ip", *words.split())
    yield "up0"
    libvirtd.run("ip", "link", "del", "up0")


def network(**options: Any) -> dict[str, Any]:
    return {"name": f"Network {options.get('state', '')}", "anfitrion.kvm.kvm_network": options}


def dumped(libvirtd: Any, name: str, *flags: str) -> str:
    return str(libvirtd.run("virsh", "net-dumpxml", name, *flags).stdout)


def guest_on(libvirtd: Any, name: str, tmp_path: Any) -> None:
    """Start a guest that does nothing but hold an interface on the network."""
    (tmp_path / "guest.xml").write_text(
        f"""<domain type="qemu"><name>{name}</name><memory unit="MiB">32</memory><os><type arch="x86_64" machine="q35">hvm</type></os>
        <features><acpi/></features><devices><interface type="network"><source network="{name}"/></interface></devices></domain>"""
    )
    libvirtd.run("virsh", "create", str(tmp_path / "guest.xml"))


@contextmanager
def guests_in_namespaces(libvirtd: Any, bridge: str, addresses: list[str]) -> Iterator[list[Callable[..., list[str]]]]:
    """Network namespaces with these addresses on a bridge; each is a function from words to the command that runs them there."""
    names = [f"{bridge}{place}" for place in range(len(addresses))]
    for name, address in zip(names, addresses):
        script = (
            f"ip netns add {name}; ip link add {name}v type veth peer name eth0 netns {name}; ip link set {name}v master {bridge} up;"
            f"ip -n {name} addr add {address} dev eth0; ip -n {name} link set eth0 up; ip -n {name} link set lo up"
        )
        libvirtd.run("sh", "-ec", script)
    wait = "until ip -d link show master $0 | grep -q 'state forwarding'; do sleep 0.2; done"
    libvirtd.run("timeout", "120", "sh", "-c", wait, bridge)
    try:
        yield [lambda *words, name=name: libvirtd.command("ip", "netns", "exec", name, *words) for name in names]
    finally:
        for name in names:
            libvirtd.run("sh", "-c", f"ip link del {name}v; ip netns del {name}")


@dataclass
class Counted:
    """Datagrams that one guest sent and got back from another."""

    sent: int = 0
    received: int = 0


@contextmanager
def talking(one: Callable[..., list[str]], other: Callable[..., list[str]], address: str) -> Iterator[Counted]:
    """Have one guest send to the other all the while; the count is there afterwards."""
    counted = Counted()
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    echo = subprocess.Popen(other(*TRAFFIC, "echo", address), **pipes)
    ping = None
    try:
        assert echo.stdout.readline() == "ready\n"
        ping = subprocess.Popen(one(*TRAFFIC, "ping", address), **pipes)
        yield counted
        counted.sent, counted.received = map(int, ping.communicate("\n", timeout=60)[0].split())
    finally:
        for each in filter(None, (ping, echo)):
            if each.poll() is None:
                each.communicate("\n", timeout=60)


# The life of each mode ---------------------------------------------------------------------------------------------


@pytest.mark.row("S28")
@pytest.mark.row("S29")
def test_a_nat_network_is_made_changed_and_removed(cycle: Any, fresh_name: str, subnets: Any) -> None:
    ips = [{"address": subnets(1), "prefix": 24, "dhcp": {"ranges": [{"start": subnets(100), "end": subnets(199)}]}}]
    present = {"name": fresh_name, "state": "active", "autostart": True, "mode": "nat", "domain": {"name": "lab.test"}, "ips": ips,
               "bridge": {"stp": False}, "dns": {"forward_plain_names": False}}  # fmt: skip
    seen = cycle(
        "kvm_network",
        present,
        {
            "state": "inactive",
            "autostart": False,
            "mtu": 1400,
            "bridge": {"stp": True},
            "dns": {"forward_plain_names": True},
        },
    )
    assert "state: active" in seen.present.apply.diff["after"]
    assert {"option": "mtu", "before": None, "after": 1400, "how": "define"} in seen.change.apply.result["changes"]
    assert seen.absent.apply.result["steps"] == [f"undefine network {fresh_name}"]


@pytest.mark.row("S30")
@pytest.mark.row("S31")
def test_routed_isolated_and_open_networks_come_in_one_task(play: Any, libvirtd: Any, fresh_name: str) -> None:
    modes = ("routed", "isolated", "open")
    entries = [
        {"name": f"{fresh_name}-{mode}", "mode": mode, "ips": [{"address": f"10.250.{place}.1", "prefix": 24}]} for place, mode in enumerate(modes)
    ]
    task = network(defaults={"state": "active"}, networks=entries)
    gone = network(networks=[{"name": entry["name"], "state": "absent"} for entry in entries])
    run = play([{**task, "check_mode": True}, task, task]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert run.tasks[0].diff == run.tasks[1].diff
    assert "<forward mode='route'/>" in dumped(libvirtd, f"{fresh_name}-routed")
    assert "<forward" not in dumped(libvirtd, f"{fresh_name}-isolated")
    rules = libvirtd.run("iptables-save").stdout
    assert "-s 10.250.0.0/24" in rules
    assert "10.250.1.0/24" not in rules
    assert "10.250.2.0/24" not in rules
    assert play(gone).succeeded().only.changed


def test_what_the_info_module_tells_is_a_task_that_changes_nothing(play: Any, fresh_name: str, subnets: Any) -> None:
    hosts = [{"mac": "52:54:00:AA:BB:01", "name": "db", "ip": subnets(5)}]
    made = network(
        name=fresh_name, state="active", mode="nat", mtu=1400, dns={"hosts": [{"ip": subnets(9), "hostnames": ["a", "b"]}]},
        ips=[{"address": subnets(1), "prefix": 24, "dhcp": {"hosts": hosts}},
             {"address": "fd00:77::1", "prefix": 64}],
    )  # fmt: skip
    told = {"name": "Tell", "anfitrion.kvm.kvm_network_info": {"name": fresh_name}, "register": "told"}
    again = network(networks="{{ told.networks }}")
    run = play([made, told, again, network(name=fresh_name, state="absent")]).succeeded()
    found = run.tasks[1].result["networks"][0]
    assert found["mode"] == "nat"
    assert found["state"] == "active"
    assert "mac" in found
    assert [ip["prefix"] for ip in found["ips"]] == [24, 64]
    assert not run.tasks[2].changed


@pytest.mark.row("S11")
def test_uuid_mac_and_bridge_name_outlive_a_change_of_the_mode(play: Any, libvirtd: Any, fresh_name: str, subnets: Any) -> None:
    ips = [{"address": subnets(1), "prefix": 24}]
    play(network(name=fresh_name, state="active", mode="nat", ips=ips)).succeeded()
    kept = [line for line in dumped(libvirtd, fresh_name).splitlines() if any(word in line for word in ("uuid", "<mac", "<bridge"))]
    run = play([network(name=fresh_name, mode="isolated", restart=True), network(name=fresh_name, mode="isolated")]).succeeded()
    assert [one.changed for one in run.tasks] == [True, False]
    after = dumped(libvirtd, fresh_name)
    assert all(line in after for line in kept)
    assert len(kept) == 3
    assert "<forward" not in after
    play(network(name=fresh_name, state="absent")).succeeded()


# A network in use ---------------------------------------------------------------------------------------------------


@pytest.mark.row("P05")
def test_an_active_network_takes_dhcp_and_dns_entries_at_once(play: Any, libvirtd: Any, fresh_name: str, subnets: Any) -> None:
    def with_hosts(ranges: list[Any], hosts: list[Any], names: list[str]) -> dict[str, Any]:
        return network(
            name=fresh_name, state="active", mode="nat", dns={"hosts": [{"ip": subnets(9), "hostnames": names}]},
            ips=[{"address": subnets(1), "prefix": 24, "dhcp": {"ranges": ranges, "hosts": hosts}}],
        )  # fmt: skip

    first, second = ({"mac": f"52:54:00:00:00:0{n}", "name": f"g{n}", "ip": subnets(10 + n)} for n in (1, 2))
    start = with_hosts([{"start": subnets(100), "end": subnets(150)}], [first, second], ["one"])
    swapped = [{**first, "ip": second["ip"]}, {**second, "ip": first["ip"]}]
    more = with_hosts([{"start": subnets(100), "end": subnets(160)}], swapped, ["one", "two"])
    play(start).succeeded()
    bridge = dumped(libvirtd, fresh_name).split("<bridge name='")[1].split("'")[0]
    index = libvirtd.run("cat", f"/sys/class/net/{bridge}/ifindex").stdout
    run = play([{**more, "check_mode": True}, more, more]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert run.tasks[0].diff == run.tasks[1].diff
    assert {change["how"] for change in run.tasks[1].result["changes"]} == {"live"}
    assert run.tasks[1].result["pending_restart"] == []
    for flags in ((), ("--inactive",)):
        text = dumped(libvirtd, fresh_name, *flags)
        assert f"<host mac='52:54:00:00:00:01' name='g1' ip='{subnets(12)}'/>" in text
        assert f"end='{subnets(160)}'" in text
        assert "<hostname>two</hostname>" in text
    assert libvirtd.run("cat", f"/sys/class/net/{bridge}/ifindex").stdout == index
    less = with_hosts([], [{"mac": second["mac"], "state": "absent"}], ["one", "two"])
    run = play([less, less]).succeeded()
    assert [one.changed for one in run.tasks] == [True, False]
    assert second["mac"] not in dumped(libvirtd, fresh_name) + dumped(libvirtd, fresh_name, "--inactive")
    play(network(name=fresh_name, state="absent")).succeeded()


@pytest.mark.row("P05")
@pytest.mark.row("B01")
def test_what_an_active_network_takes_later_is_told_on_every_run(play: Any, libvirtd: Any, fresh_name: str, subnets: Any) -> None:
    options = {"name": fresh_name, "state": "active", "mode": "nat", "ips": [{"address": subnets(1), "prefix": 24}]}
    changed = network(**{**options, "mtu": 1400})
    run = play([network(**options), {**changed, "check_mode": True}, changed, changed]).succeeded()
    check, apply, again = run.tasks[1:]
    assert check.result["changes"] == apply.result["changes"] == [{"option": "mtu", "before": None, "after": 1400, "how": "next_boot"}]
    assert check.result["pending_restart"] == apply.result["pending_restart"] == again.result["pending_restart"] == ["mtu"]
    assert not again.changed
    assert "1400" not in dumped(libvirtd, fresh_name)
    assert "1400" in dumped(libvirtd, fresh_name, "--inactive")
    restarted = network(**{**options, "mtu": 1400, "restart": True})
    run = play([{**restarted, "check_mode": True}, restarted, restarted, network(name=fresh_name, state="absent")]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False, True]
    assert run.tasks[0].diff == run.tasks[1].diff
    assert run.tasks[1].result["pending_restart"] == []


def test_a_network_with_guests_is_not_taken_from_them(play: Any, libvirtd: Any, tmp_path: Any, fresh_name: str, subnets: Any) -> None:
    options = {"name": fresh_name, "state": "active", "mode": "nat", "ips": [{"address": subnets(1), "prefix": 24}]}
    play(network(**options)).succeeded()
    guest_on(libvirtd, fresh_name, tmp_path)
    before = libvirtd.state()
    tries = [network(**{**options, **more}) for more in ({"state": "inactive"}, {"state": "absent"})]
    run = play([{**one, "ignore_errors": True} for one in tries])
    for one, word in zip(run.tasks, ("stopped", "removed")):
        assert one.message == (f"network '{fresh_name}': cannot be {word}, running guests use it: {fresh_name}; stop them or take it from them first")
    assert libvirtd.state() == before
    libvirtd.run("virsh", "destroy", fresh_name)
    play(network(name=fresh_name, state="absent")).succeeded()


@pytest.mark.row("P05")
def test_a_restart_puts_the_interfaces_of_running_guests_back_on_the_bridge(
    play: Any, libvirtd: Any, tmp_path: Any, fresh_name: str, subnets: Any
) -> None:
    options = {"name": fresh_name, "state": "active", "mode": "nat", "port": {"isolated": True}, "ips": [{"address": subnets(1), "prefix": 24}]}
    play(network(**options)).succeeded()
    guest_on(libvirtd, fresh_name, tmp_path)
    tap = libvirtd.run("virsh", "domiflist", fresh_name).stdout.splitlines()[2].split()[0]
    ports = libvirtd.run("virsh", "net-port-list", fresh_name).stdout
    waiting = play(network(**{**options, "mtu": 1400})).succeeded().only
    assert waiting.result["pending_restart"] == ["mtu"]
    assert waiting.result["cuts_off"] == [fresh_name]
    restarted = network(**{**options, "mtu": 1400, "restart": True})
    run = play([{**restarted, "check_mode": True}, restarted, restarted]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert run.tasks[0].result["steps"] == run.tasks[1].result["steps"]
    assert f"see that the interfaces of {fresh_name} are on the bridge again" in run.tasks[1].result["steps"]
    link = libvirtd.run("ip", "-d", "link", "show", "dev", tap).stdout
    bridge = dumped(libvirtd, fresh_name).split("<bridge name='")[1].split("'")[0]
    assert f"master {bridge}" in link
    assert "mtu 1400" in link
    assert "isolated on" in link
    assert libvirtd.run("virsh", "net-port-list", fresh_name).stdout == ports
    assert len(ports.splitlines()) > 2
    libvirtd.run("virsh", "destroy", fresh_name)
    assert len(libvirtd.run("virsh", "net-port-list", fresh_name).stdout.strip().splitlines()) == 2
    play(network(name=fresh_name, state="absent")).succeeded()


def test_a_restart_that_fails_gives_guests_their_interfaces_back(play: Any, libvirtd: Any, tmp_path: Any, fresh_name: str, subnets: Any) -> None:
    options = {"name": fresh_name, "state": "active", "mode": "nat", "ips": [{"address": subnets(1), "prefix": 24}]}
    play(network(**options)).succeeded()
    guest_on(libvirtd, fresh_name, tmp_path)
    tap = libvirtd.run("virsh", "domiflist", fresh_name).stdout.splitlines()[2].split()[0]
    bridge = dumped(libvirtd, fresh_name).split("<bridge name='")[1].split("'")[0]
    ips = [*options["ips"], {"address": "fd00:79::1", "prefix": 64}]
    failed = play(network(**{**options, "ips": ips, "mtu": 68, "restart": True})).only
    assert "what was done before it is undone" in failed.message
    assert f"master {bridge}" in libvirtd.run("ip", "link", "show", "dev", tap).stdout
    libvirtd.run("virsh", "destroy", fresh_name)
    play(network(name=fresh_name, state="absent")).succeeded()


def test_a_network_that_cannot_start_again_is_as_before(play: Any, libvirtd: Any, fresh_name: str, subnets: Any) -> None:
    options = {"name": fresh_name, "state": "active", "mode": "nat", "ips": [{"address": subnets(1), "prefix": 24}]}
    play(network(**options)).succeeded()
    before = dumped(libvirtd, fresh_name, "--inactive")
    # libvirt takes it into the definition; the kernel refuses so small an MTU on a bridge with IPv6 addresses at the start.
    ips = [*options["ips"], {"address": "fd00:78::1", "prefix": 64}]
    failed = play(network(**{**options, "ips": ips, "mtu": 68, "restart": True})).only
    assert failed.outcome == "failed"
    assert "what was done before it is undone" in failed.message
    assert dumped(libvirtd, fresh_name, "--inactive") == before
    assert "yes" in [line.split()[-1] for line in libvirtd.run("virsh", "net-info", fresh_name).stdout.splitlines() if "Active" in line]
    play(network(name=fresh_name, state="absent")).succeeded()


@pytest.mark.row("P05")
def test_every_section_that_libvirt_updates_changes_while_two_guests_ping_each_other(
    play: Any, libvirtd: Any, fresh_name: str, subnets: Any
) -> None:
    def wanted(**more: Any) -> dict[str, Any]:
        return network(name=fresh_name, state="active", bridge={"name": f"{fresh_name}br"}, **more)

    def ips(ranges: list[Any], hosts: list[Any]) -> list[Any]:
        return [{"address": subnets(1), "prefix": 24, "dhcp": {"ranges": ranges, "hosts": hosts}}]

    def spans(*starts: int) -> list[Any]:
        return [{"start": subnets(start), "end": subnets(start + 9)} for start in starts]

    def srv(port: int) -> dict[str, Any]:
        return {"service": "ldap", "protocol": "tcp", "domain": "lab.test", "target": "a.lab.test", "port": port}

    first = {"dns": {"hosts": [{"ip": subnets(8), "hostnames": ["a"]}], "txts": [{"name": "note", "value": "one"}], "srvs": [srv(389)]},
             "portgroups": [{"name": "fast", "default": True}], "ips": ips(spans(100), [])}  # fmt: skip
    then = {"dns": {"hosts": [{"ip": subnets(8), "hostnames": ["a", "b"]}], "txts": [{"name": "note", "value": "two"}],
                    "srvs": [{**srv(389), "state": "absent"}, srv(636)]},
            "portgroups": [{"name": "fast", "default": False}, {"name": "slow", "default": True}],
            "ips": ips(spans(100, 120), [{"mac": "52:54:00:00:00:01", "name": "g1", "ip": subnets(9)}])}  # fmt: skip
    play(wanted(**first)).succeeded()
    # A host whose bridges are filtered loses frames while libvirt loads its rules anew; that is warned of, see below.
    for family in ("ip", "ip6", "arp"):
        libvirtd.run("sysctl", "-w", f"net.bridge.bridge-nf-call-{family}tables=0", check=False)
    addresses = [f"{subnets(host)}/24" for host in (20, 21)]
    with guests_in_namespaces(libvirtd, f"{fresh_name}br", addresses) as guests, talking(*guests, subnets(21)) as counted:
        run = play([{**wanted(**then), "check_mode": True}, wanted(**then), wanted(**then)])
    run.succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert run.tasks[0].diff == run.tasks[1].diff
    assert {change["how"] for change in run.tasks[1].result["changes"]} == {"live"}
    assert run.tasks[1].result["pending_restart"] == []
    assert counted.sent > 50
    assert counted.received == counted.sent
    live = dumped(libvirtd, fresh_name)
    assert live.replace(" connections='1'", "") == dumped(libvirtd, fresh_name, "--inactive")
    assert all(text in live for text in ("<hostname>b<", "value='two'", "port='636'", "name='slow' default='yes'", subnets(129), subnets(9)))
    assert "port='389'" not in live
    play(network(name=fresh_name, state="absent")).succeeded()


def test_frames_that_the_packet_filter_sees_are_warned_of(play: Any, libvirtd: Any, fresh_name: str, subnets: Any) -> None:
    switch = "net.bridge.bridge-nf-call-iptables"
    if libvirtd.run("sysctl", "-n", switch, check=False).returncode:
        return  # this kernel has no br_netfilter loaded, so there is nothing to be warned of
    made = network(name=fresh_name, state="active", ips=[{"address": subnets(1), "prefix": 24}])
    play(made).succeeded()
    libvirtd.run("sysctl", "-w", f"{switch}=1")
    names = network(name=fresh_name, dns={"hosts": [{"ip": subnets(8), "hostnames": ["a"]}]})
    found = play([names, network(name=fresh_name, state="absent")]).succeeded().tasks[0].result
    libvirtd.run("sysctl", "-w", f"{switch}=0")
    assert f"{switch} is 1" in found["warnings"][0]


@pytest.mark.row("S28")
@pytest.mark.row("P05")
def test_a_guest_on_a_network_of_the_hosts_bridge_is_held_against_it_and_moves(
    play: Any, libvirtd: Any, fresh_name: str, uplink: str, subnets: Any
) -> None:
    """libvirt shows such an interface, while the guest runs, as one of the bridge and not of the network."""
    nat, guest = f"{fresh_name}n", f"{fresh_name}g"
    networks = [{"name": fresh_name, "mode": "bridge", "bridge": {"name": uplink}}, {"name": nat, "ips": [{"address": subnets(1), "prefix": 24}]}]

    def on(name: str, **more: Any) -> dict[str, Any]:
        nic = {"name": "lan", "network": name, "target": "tap9"}
        return {"name": "Guest", "anfitrion.kvm.kvm_domain": {"name": guest, "interfaces": [nic], **more}}

    first = on(fresh_name, state="running", type="qemu", memory={"size": "32MiB"})
    first["anfitrion.kvm.kvm_domain"]["interfaces"].append({"name": "own", "type": "user"})
    gone = [network(name=name, state="absent") for name in (fresh_name, nat)]
    run = play([network(defaults={"state": "active"}, networks=networks), first, first, gone[0]])
    assert [task.changed for task in run.tasks[:3]] == [True, True, False]
    assert f"running guests use it: {guest}" in run.tasks[3].message
    where = libvirtd.command("readlink", "/sys/class/net/tap9/master")
    bridge = libvirtd.run("virsh", "net-info", nat).stdout.partition("Bridge:")[2].strip()
    for name, master in ((nat, bridge), (fresh_name, uplink)):
        done, again = play([on(name), on(name)]).succeeded().tasks
        assert [change["how"] for change in done.result["changes"]] == ["live"]
        assert not again.changed
        assert Path(subprocess.check_output(where, text=True).strip()).name == master
    moved = {"name": "Guest", "anfitrion.kvm.kvm_domain": {"name": guest, "interfaces": [{"name": "own", "network": nat}]}}
    done, again = play([moved, moved]).succeeded().tasks
    assert done.result["pending_restart"] == again.result["pending_restart"] == ["interfaces[own].network"]
    assert not again.changed
    libvirtd.run("virsh", "destroy", guest)
    play([{"name": "Gone", "anfitrion.kvm.kvm_domain": {"name": guest, "state": "absent"}}, *gone]).succeeded()


@pytest.mark.row("P05")
def test_interfaces_of_a_macvtap_network_come_and_go_while_it_is_active(play: Any, libvirtd: Any, fresh_name: str, uplink: str) -> None:
    libvirtd.run("ip", "link", "add", "up1", "type", "bridge")
    made = network(name=fresh_name, state="active", forward={"mode": "vepa", "interfaces": [{"dev": uplink}]})
    more = network(name=fresh_name, state="active", forward={"interfaces": [{"dev": "up1"}]})
    less = network(name=fresh_name, state="active", forward={"interfaces": [{"dev": "up1", "state": "absent"}]})
    run = play([made, {**more, "check_mode": True}, more, more, less, less]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, True, False, True, False]
    assert [change["how"] for change in run.tasks[2].result["changes"]] == ["live"]
    play(network(name=fresh_name, state="absent")).succeeded()
    libvirtd.run("ip", "link", "del", "up1")


@pytest.mark.row("P05")
def test_xml_replaces_or_merges_and_what_no_option_says_comes_out_as_xml(play: Any, libvirtd: Any, fresh_name: str, subnets: Any) -> None:
    note = "<metadata><a:note xmlns:a='http://example.org/a'>kept</a:note></metadata>"
    first = network(name=fresh_name, state="active", mode="nat", ips=[{"address": subnets(1), "prefix": 24}])
    whole = network(name=fresh_name, xml=f"<network><name>{fresh_name}</name>{note}<forward mode='nat'/><ip address='{subnets(1)}' "
                    f"netmask='255.255.255.0'><dhcp><range start='{subnets(9)}' end='{subnets(19)}'/></dhcp></ip></network>")  # fmt: skip
    part = network(name=fresh_name, xml="<domain name='lab.test'/>")
    told = {"name": "Tell", "anfitrion.kvm.kvm_network_info": {"name": fresh_name}, "register": "told"}
    again = network(networks="{{ told.networks }}")
    run = play([first, {**whole, "check_mode": True}, whole, whole, part, part, told, again]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, True, False, True, False, False, False]
    assert run.tasks[1].diff == run.tasks[2].diff
    assert "<a:note" in run.tasks[6].result["networks"][0]["xml"]
    gone = network(name=fresh_name, state="absent")
    other = {**again, "vars": {"told": {"networks": run.tasks[6].result["networks"]}}}
    before = dumped(libvirtd, fresh_name, "--inactive")
    run = play([gone, other, other]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert dumped(libvirtd, fresh_name, "--inactive") == before
    play(gone).succeeded()


def test_a_network_whose_dns_port_is_taken_leaves_nothing_behind(play: Any, libvirtd: Any, fresh_name: str, subnets: Any) -> None:
    script = "import socket, sys; s = socket.create_server(('0.0.0.0', 53)); print('bound', flush=True); sys.stdin.read()"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    taker = subprocess.Popen(libvirtd.command("/usr/bin/python3", "-c", script), **pipes)
    try:
        assert taker.stdout.readline() == "bound\n"
        before = libvirtd.state()
        options = {"name": fresh_name, "state": "active", "bridge": {"name": f"{fresh_name}br"}, "ips": [{"address": subnets(1), "prefix": 24}]}
        failed = play(network(**options)).only
        assert failed.outcome == "failed"
        assert "in use" in failed.message
        assert "what was done before it is undone" in failed.message
        assert libvirtd.state() == before
        assert libvirtd.run("ip", "link", "show", f"{fresh_name}br", check=False).returncode == 1
    finally:
        taker.communicate("", timeout=30)
    run = play([network(**options), network(name=fresh_name, state="absent")]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True]


def test_a_network_that_was_only_started_is_made_persistent(play: Any, libvirtd: Any, tmp_path: Any, fresh_name: str, subnets: Any) -> None:
    (tmp_path / "net.xml").write_text(f"<network><name>{fresh_name}</name><ip address='{subnets(1)}' prefix='24'/></network>")
    libvirtd.run("virsh", "net-create", str(tmp_path / "net.xml"))
    task = network(name=fresh_name, state="active")
    run = play([{**task, "check_mode": True}, task, task, network(name=fresh_name, state="absent")]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False, True]
    assert run.tasks[1].result["changes"] == [{"option": "persistent", "before": False, "after": True, "how": "define"}]


@pytest.mark.row("P05")
def test_the_addresses_that_guests_got_are_told(play: Any, libvirtd: Any, fresh_name: str, subnets: Any) -> None:
    ips = [{"address": subnets(1), "prefix": 24, "dhcp": span(subnets(50), subnets(60))}]
    made = network(name=fresh_name, state="active", bridge={"name": f"{fresh_name}br"}, ips=ips)
    play(made).succeeded()
    mac, name = "52:54:00:00:07:01", f"{fresh_name}br"
    leases = libvirtd.directory / "lib" / "dnsmasq" / f"{name}.status"
    leases.write_text(json.dumps([{"ip-address": subnets(50), "mac-address": mac, "hostname": "db", "expiry-time": 4102444800}]))
    told = {"name": "Tell", "anfitrion.kvm.kvm_network_info": {"name": fresh_name, "leases": True}}
    found = play([told, network(name=fresh_name, state="absent")]).succeeded().tasks[0].result
    assert found["leases"] == {fresh_name: [{"mac": mac, "ip": subnets(50), "prefix": 24, "name": "db", "expires": 4102444800}]}


# Bad input ----------------------------------------------------------------------------------------------------------


def bad(address: str = "10.99.0.1", prefix: int = 24, dhcp: Any = None, **more: Any) -> dict[str, Any]:
    return {"mode": "nat", "ips": [{"address": address, "prefix": prefix, **({"dhcp": dhcp} if dhcp else {})}], **more}


def span(start: str, end: str) -> dict[str, Any]:
    return {"ranges": [{"start": start, "end": end}]}


def hosts(*entries: tuple[str, str, str]) -> dict[str, Any]:
    return {"hosts": [{"mac": mac, "name": name, "ip": ip} for mac, name, ip in entries]}


A, B = "52:54:00:00:00:01", "52:54:00:00:00:02"
BAD = {
    "overlap with a host route": (
        bad("198.51.100.130", 25),
        "ips[198.51.100.130]: 198.51.100.128/25 overlaps the host's route to 198.51.100.0/24 over up0; choose another subnet",
    ),
    "wider than a host route": (bad("198.51.0.1", 16), "overlaps the host's route to 198.51.100.0/24 over up0"),
    "overlap with another network": (bad("10.98.0.1", 16), "10.98.0.0/16 overlaps network 'standing' (10.98.7.0/24); choose another subnet"),
    "range reversed": (bad(dhcp=span("10.99.0.20", "10.99.0.10")),
                       "ips[10.99.0.1].dhcp.ranges[10.99.0.20]: start 10.99.0.20 is after end 10.99.0.10"),
    "range outside": (bad(dhcp=span("10.99.0.20", "10.99.1.10")), "ranges[10.99.0.20].end: 10.99.1.10 is not in 10.99.0.0/24"),
    "range ends on broadcast": (bad(dhcp=span("10.99.0.20", "10.99.0.255")), "10.99.0.255 is the network or broadcast address of 10.99.0.0/24"),
    "host outside": (bad(dhcp=hosts((A, "a", "10.98.0.7"))), f"hosts[{A}].ip: 10.98.0.7 is not in 10.99.0.0/24"),
    "one address twice": (bad(dhcp=hosts((A, "a", "10.99.0.7"), (B, "b", "10.99.0.7"))), "10.99.0.7 is that of"),
    "the host's own address": (bad(dhcp=hosts((A, "a", "10.99.0.1"))), "10.99.0.1 is the host's own address"),
    "network address": (bad("10.99.0.0"), "ips[10.99.0.0]: is the address of the network 10.99.0.0/24, not of a host"),
    "broadcast address": (bad("10.99.0.255"), "is the broadcast address of 10.99.0.0/24, not of a host"),
    "multicast": (bad("224.0.0.1"), "ips[224.0.0.1]: not an address for a host"),
    "prefix too long": (bad(prefix=33), "ips[10.99.0.1].prefix: 33 is too long for this address"),
    "bridge that is not ours": (bad(bridge={"name": "up0"}), "bridge.name: up0 exists on this host and is not ours; choose another name"),
    "bridge of another network": (bad(bridge={"name": "standing0"}), "bridge.name: standing0 is that of network 'standing'"),
    "way out that is not there": (bad(forward={"dev": "nonesuch0"}), "forward.dev: nonesuch0 does not exist on this host"),
    "contradicting words": (bad(forward={"mode": "route"}), "mode: means forward.mode nat, and forward says mode route; give one of them"),
    "isolated with a way out": ({"mode": "isolated", "forward": {"dev": "up0"}}, "mode: isolated is without a way out; leave forward out"),
    "ports reversed": (bad(forward={"nat": {"ports": {"start": 2000, "end": 1000}}}), "forward.nat.ports: start 2000 is after end 1000"),
    "unknown PF": ({"vf_pool": {"pf": "ens1f0"}}, "vf_pool.pf: ens1f0 does not exist on this host"),
    "PF without SR-IOV": ({"vf_pool": {"pf": "up0"}}, "vf_pool.pf: up0 is not a physical function of SR-IOV"),
    "addresses in a VF pool": ({**bad(), "mode": "hostdev", "vf_pool": {"pf": "up0"}}, "ips: a network of mode hostdev has no addresses"),
    "host bridge that is not there": ({"mode": "bridge", "bridge": {"name": "br7"}}, "bridge.name: br7 does not exist on this host"),
    "another UUID": ({"name": "standing", "uuid": "11111111-2222-3333-4444-555555555555"}, "uuid: it exists with"),
}  # fmt: skip


def test_bad_input_gets_a_clear_error_and_changes_nothing(play: Any, libvirtd: Any, uplink: str) -> None:
    play(network(name="standing", state="active", bridge={"name": "standing0"}, ips=[{"address": "10.98.7.1", "prefix": 24}])).succeeded()
    before = libvirtd.state()
    entries = [{"name": f"bad{place}", **options} for place, (options, _text) in enumerate(BAD.values())]
    found = play(network(networks=entries)).only
    told = {case: one.get("msg", "it was taken") for case, one in zip(BAD, found.result["results"])}
    assert {case: told[case] for case, (_options, text) in BAD.items() if text not in told[case]} == {}
    assert found.outcome == "failed"
    newline = {**network(name="bad", domain={"name": "lab.test\ndhcp-script=/tmp/x"}), "ignore_errors": True}
    missing = {**network(name="bad", vf_pool={"pf": "ens1f0"}), "ignore_errors": True}
    run = play([newline, missing], check=True)
    assert "control characters are not allowed" in run.tasks[0].message
    assert run.tasks[1].message == "network 'bad': vf_pool.pf: ens1f0 does not exist on this host"
    assert libvirtd.state() == before
    play(network(name="standing", state="absent")).succeeded()


def test_what_an_earlier_task_would_make_is_a_warning_in_check_mode(play: Any, fresh_name: str) -> None:
    run = play(network(name=fresh_name, mode="bridge", bridge={"name": "br7"}, state="active"), check=True).succeeded()
    assert run.only.changed
    assert run.only.result["warnings"] == [f"network {fresh_name}: bridge.name: br7 does not exist on this host"]


def test_two_networks_of_one_task_must_not_overlap_in_check_mode_too(play: Any, fresh_name: str, subnets: Any) -> None:
    entries = [{"name": f"{fresh_name}{part}", "ips": [{"address": subnets(host), "prefix": 24}]} for part, host in (("a", 1), ("b", 2))]
    run = play(network(networks=entries), check=True)
    assert f"overlaps network '{fresh_name}a'" in run.only.message


# libvirt's test driver -----------------------------------------------------------------------------------------------


def test_the_test_driver_takes_and_tells_networks(play: Any) -> None:
    made = network(uri=TEST, name="n", state="active", autostart=True, mode="nat", ips=[{"address": "10.1.2.1", "prefix": 24}])
    told = {"name": "Tell", "anfitrion.kvm.kvm_network_info": {"uri": TEST}}
    same = network(uri=TEST, name="default", mode="nat", state="active", ips=[{"address": "192.168.122.1", "prefix": 24}])
    used = {**network(uri=TEST, name="default", state="absent"), "ignore_errors": True}
    run = play([made, told, same, used])
    assert [one.changed for one in run.tasks] == [True, False, False, False]
    assert [one["name"] for one in run.tasks[1].result["networks"]] == ["default"]
    assert "running guests use it: test;" in run.tasks[3].message
