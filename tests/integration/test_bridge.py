"""S32: a bridge onto the LAN, made by a real ifupdown, systemd-networkd or NetworkManager; and the host is back if it goes wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from conftest import INVENTORY, Options, Run, Task, environment

HOST = Path(__file__).with_name("network_host.py")
WRITTEN_FILES = Path(__file__).parents[1] / "unit" / "node" / "bridge"
MANAGERS = ("networkd", "ifupdown", "networkmanager")
UNSHARE = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
CONNECT = "import socket; socket.create_connection(('10.5.0.2', 2222), timeout=1)"
WRITTEN = ("/etc/network", "/etc/systemd/network", "/etc/systemd/system", "/etc/NetworkManager", "/etc/anfitrion.d")
READ = f"""
import os, hashlib
for top in {WRITTEN!r}:
    for place, _dirs, files in os.walk(top):
        for name in files:
            path = os.path.join(place, name)
            print(path, oct(os.stat(path).st_mode), hashlib.sha256(open(path, 'rb').read()).hexdigest())
"""


class Host:
    """A host in its namespaces, with one of the managers."""

    def __init__(self, manager: str, work: Path) -> None:
        self.work, self.plays = work, 0
        command = [*UNSHARE, sys.executable, str(HOST), manager, str(work)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        word, self.outside = (self.line() or "nothing 0").split()
        assert word == "ready"
        self.pid = subprocess.check_output(["pgrep", "-P", str(self.process.pid)], text=True).split()[0]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.line() == "done"

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", "-t", self.pid, "--mount", "--net", "--pid", *command]

    def run(self, *command: str, check: bool = True) -> str:
        return subprocess.run(self.inside(*command), capture_output=True, text=True, check=check, cwd=self.work).stdout

    def answers(self) -> bool:
        """Tell whether a new connection from outside comes through."""
        command = self.inside("nsenter", "-t", self.outside, "--net", sys.executable, "-c", CONNECT)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def holds(self, device: str) -> set[str]:
        """Return the addresses of an interface, link-local ones left out; none where there is no such interface."""
        told = json.loads(self.run("ip", "-j", "address", "show", "dev", device, check=False) or "[]")
        return {f"{one['local']}/{one['prefixlen']}" for link in told if link for one in link["addr_info"] if one["scope"] != "link"}

    def gateway(self) -> str:
        return " ".join(f"{one['gateway']} {one['dev']}" for one in json.loads(self.run("ip", "-j", "-4", "route", "show", "default")))

    def link(self, device: str) -> Options:
        return dict(json.loads(self.run("ip", "-j", "-d", "link", "show", "dev", device))[0])

    def files(self) -> str:
        return "\n".join(sorted(self.run(sys.executable, "-c", READ).splitlines()))

    def play(self, *tasks: Options) -> list[Task]:
        self.plays += 1
        work = self.work / f"play{self.plays}"
        work.mkdir()
        book = [{"name": "Test", "hosts": "target", "gather_facts": False, "tasks": [{"ignore_errors": True, **task} for task in tasks]}]
        (work / "playbook.yml").write_text(yaml.safe_dump(book, sort_keys=False))
        (work / "inventory.yml").write_text(yaml.safe_dump(INVENTORY))
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventory.yml", "playbook.yml", "--diff"]
        variables = [f"{name}={value}" for name, value in environment(work, self.work).items()]
        done = subprocess.run(
            self.inside("env", "-C", str(work), "-i", *variables, *command), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert (work / "record.jsonl").exists(), done.stdout + done.stderr
        lines = [json.loads(line) for line in (work / "record.jsonl").read_text().splitlines()]
        return list(Run([Task(line["task"], line["outcome"], line["result"]) for line in lines if "task" in line], done.stdout).tasks)


def eventually(true: Callable[[], Any], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.2)
    return bool(true())


@pytest.fixture
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    one = Host(request.param, tmp_path)
    try:
        assert eventually(one.answers), one.run("cat", "/run/manager.log", check=False)
        yield one
    finally:
        one.process.kill()
        one.process.wait()


every_manager = pytest.mark.parametrize("host", MANAGERS, indirect=True)
CONFIRM = {"anfitrion.kvm.kvm_confirm": {"token": "{{ done.confirm.token }}"}}
ADDRESSES = {"10.5.0.2/24", "fd05::2/64"}


def bridge(check: bool = False, **options: Any) -> Options:
    return {"name": "Bridge", "anfitrion.kvm.kvm_bridge": {"name": "br0", **options}, "register": "done", "check_mode": check}


def thrice(**options: Any) -> list[Options]:
    """In check mode, for real and confirmed, and again."""
    return [bridge(True, **options), bridge(**options), CONFIRM, bridge(**options)]


def truthful(tasks: list[Task]) -> None:
    check, apply, confirm, _again = tasks
    assert [one.outcome for one in tasks] == ["ok"] * 4, [one.message for one in tasks]
    assert [one.changed for one in tasks] == [True, True, True, False]
    assert check.diff == apply.diff
    assert check.result["changes"] == apply.result["changes"]
    assert "confirm" not in check.result
    assert confirm.result["changes"][0]["after"] == "confirmed"


@every_manager
@pytest.mark.row("S32")
def test_a_nic_moves_into_a_bridge_and_comes_back_as_it_was(host: Host) -> None:
    files, mac = host.files(), host.link("eth0")["address"]
    foretold = host.play(bridge(True, ports=["eth0"]))
    assert foretold[0].changed, foretold[0].message
    assert host.files() == files
    assert host.holds("eth0") == ADDRESSES

    truthful(host.play(*thrice(ports=["eth0"])))
    assert (host.holds("br0"), host.holds("eth0")) == (ADDRESSES, set())
    assert host.gateway() == "10.5.0.1 br0"
    assert (host.link("br0")["address"], host.link("eth0")["master"]) == (mac, "br0")
    assert host.link("br0")["linkinfo"]["info_data"]["stp_state"] == 0
    assert host.answers()

    host.tell("restart")
    assert eventually(lambda: host.holds("br0") == ADDRESSES and host.answers())
    assert (host.link("br0")["address"], host.link("eth0")["master"], host.gateway()) == (mac, "br0", "10.5.0.1 br0")

    truthful(host.play(*thrice(stp=True, forward_delay_s=4)))
    told = host.link("br0")["linkinfo"]["info_data"]
    assert (told["stp_state"], told["forward_delay"]) == (1, 400)
    assert host.holds("br0") == ADDRESSES

    truthful(host.play(*thrice(state="absent")))
    assert eventually(lambda: host.holds("eth0") == ADDRESSES and host.answers())
    assert (host.holds("br0"), host.gateway()) == (set(), "10.5.0.1 eth0")
    assert host.files() == files


@pytest.mark.parametrize("host", ["networkd-dhcp", "networkmanager-dhcp"], indirect=True)
@pytest.mark.row("S32")
def test_a_lease_moves_into_a_bridge_and_back(host: Host) -> None:
    """The DHCP server takes the bridge for the NIC, so that the host is reached as before, also after a boot.

    Without udev, as here, networkd makes its number of the MAC address and would keep it anyway; NetworkManager makes it of the name.
    """
    assert eventually(lambda: len(host.holds("eth0")) >= 2), host.run("cat", "/run/manager.log", "/run/dnsmasq.log")
    leased, files = host.holds("eth0"), host.files()
    assert "10.5.0.2/24" in leased

    truthful(host.play(*thrice(ports=["eth0"])))
    assert eventually(lambda: host.holds("br0") == leased), (host.holds("br0"), leased, host.run("cat", "/run/dnsmasq.log"))
    assert (host.holds("eth0"), host.gateway().split()[:2]) == (set(), ["10.5.0.1", "br0"])
    assert host.answers()

    host.tell("restart")
    assert eventually(lambda: host.holds("br0") == leased and host.answers()), (host.holds("br0"), leased)

    truthful(host.play(*thrice(state="absent")))
    assert eventually(lambda: host.holds("eth0") == leased and host.answers()), (host.holds("eth0"), leased)
    assert (host.holds("br0"), host.files()) == (set(), files)


def time_is_up(host: Host) -> None:
    """Let the time be over that the process waits for; no test depends on how long something takes."""
    (pid,) = host.run("pgrep", "-f", "^sleep 600").split()
    host.run("kill", pid)


@every_manager
@pytest.mark.row("S32")
def test_the_host_is_back_under_its_old_address_if_nobody_confirms(host: Host) -> None:
    files = host.files()
    (done,) = host.play(bridge(ports=["eth0"], timeout_s=600))
    assert done.outcome == "ok", done.message
    host.run("ip", "link", "set", "br0", "down")  # broken on purpose
    assert not host.answers()
    (second,) = host.play(bridge(stp=True))
    assert "waits to be confirmed" in second.message
    time_is_up(host)
    assert eventually(lambda: host.answers() and host.files() == files), host.files()
    assert host.holds("eth0") == ADDRESSES
    assert host.gateway() == "10.5.0.1 eth0"
    late, info, again = host.play(
        {"name": "Late", "anfitrion.kvm.kvm_confirm": {"token": done.result["confirm"]["token"]}},
        {"name": "Info", "anfitrion.kvm.kvm_bridge_info": {}},
        bridge(True, ports=["eth0"]),
    )
    assert "was not confirmed in time and has been taken back" in late.message
    assert (info.result["bridges"], info.result["last_change"]["state"]) == ([], "taken_back")
    assert again.changed


def place(host: Host, manager: str, shape: str, top: str) -> None:
    """Put the files of a bridge that test_bridge.py of the unit tests says are written into a directory of the host."""
    mode = "600" if manager == "networkmanager" else "644"
    for file in sorted((WRITTEN_FILES / shape / manager).iterdir()):
        host.run("install", "-m", mode, str(file), f"{top}/{file.name}")


# Many kernels on which the tests run have no bond and no VLAN: there the tools say what they make of the files; lab hosts make them.
@pytest.mark.parametrize("host", ["networkd"], indirect=True)
@pytest.mark.row("S32")
def test_networkd_knows_every_word_of_a_vlan_on_a_bond(host: Host) -> None:
    place(host, "networkd", "vlan-on-bond", "/etc/systemd/network")
    host.run("networkctl", "reload")
    assert eventually(lambda: "br0" in host.run("ip", "-br", "link"))
    # The operator's own VLAN, which this host has not, is none of our words.
    log = "\n".join(line for line in host.run("cat", "/run/manager.log").splitlines() if "eth0.7 NetDev" not in line)
    assert not re.search("Unknown|Failed to parse|nvalid|gnoring", log), log


@pytest.mark.parametrize("host", ["networkmanager"], indirect=True)
@pytest.mark.row("S32")
def test_networkmanager_knows_every_word_of_a_vlan_on_a_bond(host: Host) -> None:
    place(host, "networkmanager", "vlan-on-bond", "/etc/NetworkManager/system-connections")
    host.run("nmcli", "connection", "reload")

    def told(name: str, *words: str) -> list[str]:
        return host.run("nmcli", "-g", ",".join(words), "connection", "show", f"anfitrion-{name}").split("\n")

    assert told("br0", "bridge.stp", "bridge.forward-delay", "ipv4.method")[:3] == ["yes", "4", "disabled"]
    assert told("br0-bond", "bond.options", "ipv4.addresses")[:2] == ["mode=802.3ad,miimon=200", "10.5.0.2/24"]
    assert told("br0-vlan", "vlan.id", "vlan.parent", "connection.master")[:3] == ["100", "bond0", "br0"]
    assert [told(f"br0-{port}", "connection.master", "connection.slave-type")[:2] for port in ("eth0", "eth1")] == [["bond0", "bond"]] * 2
    assert not re.search("nvalid|keyfile: .*(warn|ignor|unknown)", host.run("cat", "/run/manager.log"))


@pytest.mark.parametrize("host", ["ifupdown"], indirect=True)
@pytest.mark.row("S32")
def test_ifupdown_makes_a_vlan_on_a_bond_of_it(host: Host) -> None:
    place(host, "ifupdown", "vlan-on-bond", "/etc/network")
    told = host.run("sh", "-c", "ifup --no-act --force --verbose br0 bond0 2>&1")
    for words in ("type bond mode 802.3ad miimon 200", "link add link bond0 name bond0.100 type vlan id 100", "link set dev bond0.100 master br0"):
        assert words in told, told


@pytest.mark.parametrize("host", ["ifupdown"], indirect=True)
@pytest.mark.row("S32")
def test_a_step_that_fails_puts_all_back_at_once(host: Host) -> None:
    host.run("sh", "-c", "printf '\\tup false\\n' >> /etc/network/interfaces.d/eth0")
    files = host.files()
    (done,) = host.play(bridge(ports=["eth0"], timeout_s=600))
    assert "ifup --force br0" in done.message
    assert done.message.endswith("what was done before it is undone")
    assert eventually(host.answers)
    assert host.holds("eth0") == ADDRESSES
    assert host.files() == files


@pytest.mark.parametrize("host", ["networkd"], indirect=True)
@pytest.mark.row("S32")
def test_what_cannot_be_done_is_refused_with_the_reason_and_nothing_is_touched(host: Host) -> None:
    host.run("ip", "link", "add", "other", "type", "bridge")
    host.run("ip", "link", "set", "eth2", "master", "other")
    files = host.files()
    refused = [
        ({"ports": ["eth9"]}, "ports: this host has no interface eth9"),
        ({"ports": ["lo"]}, "ports: lo is no Ethernet interface"),
        ({"ports": ["other"]}, "ports: other is a bridge itself"),
        ({"ports": ["eth2"]}, "ports: eth2 is in the bridge other already"),
        ({"ports": ["eth1"]}, "manager: none of ifupdown, networkd, networkmanager configures eth1 now; say which of them is to"),
        ({"ports": ["eth0"], "manager": "ifupdown"}, "manager: ifupdown does not configure eth0: networkd has eth0 by /run/systemd/"),
        ({"ports": ["eth0"], "name": "other"}, "other is there and was not made with anfitrion.kvm.kvm_bridge"),
        ({"state": "absent", "name": "other"}, "other is there and was not made with anfitrion.kvm.kvm_bridge"),
        ({"stp": True}, "ports: must be given when a bridge is first named"),
        ({"ports": ["eth0", "eth1"], "vlan": 5}, "vlan: needs one port, or a bond of them"),
        ({"ports": ["eth0"], "forward_delay_s": 4}, "forward_delay_s: needs stp"),
    ]
    for (_options, words), task in zip(refused, host.play(*(bridge(**options) for options, _words in refused))):
        assert words in task.message
    assert host.files() == files

    # ifupdown says that it has the NIC too.
    host.run("sh", "-c", "printf 'auto eth0\\niface eth0 inet dhcp\\n' > /etc/network/interfaces")
    info_task = {"name": "Info", "anfitrion.kvm.kvm_bridge_info": {}}
    two, info, said = host.play(bridge(ports=["eth0"]), info_task, bridge(True, ports=["eth0"], manager="networkd"))
    claims = {"ifupdown": "/etc/network/interfaces", "networkd": "/run/systemd/network/10-netplan-eth0.network"}
    assert "ifupdown has eth0 by /etc/network/interfaces; networkd has eth0 by /run/systemd" in two.message
    assert next(nic["owners"] for nic in info.result["nics"] if nic["name"] == "eth0") == claims
    assert said.changed, said.message


@pytest.mark.parametrize("host", ["networkd"], indirect=True)
@pytest.mark.row("S32")
def test_a_bridge_with_a_guest_on_it_is_kept_and_one_that_somebody_removed_is_missed(host: Host) -> None:
    host.play(bridge(ports=["eth1"], manager="networkd"), CONFIRM)
    host.run("ip", "tuntap", "add", "vnet7", "mode", "tap")
    host.run("ip", "link", "set", "vnet7", "master", "br0")
    kept, shape = host.play(bridge(state="absent"), bridge(ports=["eth2"]))
    assert "vnet7 is on the bridge; take what is on it away first" in kept.message
    assert "ports: a bridge that is there is not made of something else" in shape.message
    host.run("ip", "link", "delete", "br0")
    (check,) = host.play(bridge(True))
    assert [change["option"] for change in check.result["changes"]] == ["bridge"]
