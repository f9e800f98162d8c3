"""S32: a bridge onto the LAN, made by a real ifupdown, systemd-networkd or NetworkManager; and the host is back if it goes wrong."""

from __future__ import annotations

import json
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
    check, apply, confirm, again = tasks
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


@every_manager
@pytest.mark.row("S32")
def test_the_host_is_back_under_its_old_address_if_nobody_confirms(host: Host) -> None:
    files = host.files()
    (done,) = host.play(bridge(ports=["eth0"], timeout_s=12))
    assert done.outcome == "ok", done.message
    host.run("ip", "link", "set", "br0", "down")  # broken on purpose
    assert not host.answers()
    assert eventually(host.answers)
    assert host.holds("eth0") == ADDRESSES
    assert host.gateway() == "10.5.0.1 eth0"
    assert eventually(lambda: host.files() == files), (host.files(), files)
    confirm, info, again = host.play(
        {"name": "Late", "anfitrion.kvm.kvm_confirm": {"token": done.result["confirm"]["token"]}},
        {"name": "Info", "anfitrion.kvm.kvm_bridge_info": {}},
        bridge(True, ports=["eth0"]),
    )
    assert "was not confirmed in time and has been taken back" in confirm.message
    assert (info.result["bridges"], info.result["last_change"]["state"]) == ([], "taken_back")
    assert again.changed
