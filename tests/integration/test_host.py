"""kvm_host_info, kvm_placement and the guard of kvm_domain on a real QEMU driver (TCG) and the machine's own kernel, which is only read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

BASE = {"type": "qemu", "memory": {"size": "64MiB"}}
Options = dict[str, Any]

READ: Options = {"name": "Read the host", "anfitrion.kvm.kvm_host_info": {}}


def domain(check: bool = False, ignore: bool = False, **options: Any) -> Options:
    return {"name": "Domain", "anfitrion.kvm.kvm_domain": {**BASE, **options}, "check_mode": check, "ignore_errors": ignore}


def placed(check: bool = False, **options: Any) -> Options:
    return {"name": "Place", "anfitrion.kvm.kvm_placement": options, "check_mode": check, "ignore_errors": True}


@pytest.fixture
def names(libvirtd: Any, fresh_name: str) -> Iterator[Callable[[str], str]]:
    """names(word): a name of this test; guests, networks and pools of such a name are gone after it."""
    made: list[str] = []

    def name(word: str) -> str:
        made.append(f"{fresh_name}-{word}")
        return made[-1]

    yield name
    for one in made:
        for verb in ("destroy", "undefine", "net-destroy", "net-undefine", "pool-destroy", "pool-undefine"):
            libvirtd.run("virsh", verb, one, check=False)


@pytest.mark.row("S01", "S02", "B07", "B08")
def test_the_host_is_told_as_the_kernel_has_it(play: Any, libvirtd: Any, names: Any) -> None:
    name = names("run")
    host = play([domain(name=name, state="running", memory={"size": "96MiB"}, vcpus={"count": 2}), READ]).succeeded().tasks[-1].result["host"]
    cpus = int(libvirtd.run("nproc", "--all").stdout)
    assert host["cpus"] == cpus
    total = 1024 * int(libvirtd.run("awk", "/MemTotal/ {print $2}", "/proc/meminfo").stdout)
    assert host["memory"]["total"] == total
    running = host["capacity"]["running"]
    assert running["vcpus"] == 2
    assert running["cpu_ratio"] == round(2 / cpus, 2)
    one = next(guest for guest in host["guests"] if guest["name"] == name)
    pid = (libvirtd.directory / f"run/libvirt/qemu/{name}.pid").read_text().strip()
    assert str(one["pid"]) == pid
    assert one["misplaced"] == 0
    assert one["ksm"]["merged"] >= 0
    limits = {limit["name"]: limit for limit in host["limits"]}
    assert limits["vcpus_over_cpus"]["here"] == cpus
    assert all(limit["source"] for limit in limits.values())


@pytest.mark.row("B10")
def test_it_is_told_what_would_come_back(play: Any, libvirtd: Any, names: Any, tmp_path: Any) -> None:
    good, bad, net = names("good"), names("bad"), names("net")
    wants = {"unit": libvirtd.run("sh", "-c", "ls /etc/systemd/system/*.wants/libvirtd.service", check=False).stdout}
    tasks = [
        {"name": "Network", "anfitrion.kvm.kvm_network": {"name": net, "mode": "isolated", "autostart": False, "state": "active"}},
        domain(name=good, autostart=True), domain(name=bad, autostart=True, interfaces=[{"name": "lan", "network": net}]), READ,
    ]  # fmt: skip
    told = {one["name"]: one for one in play(tasks).succeeded().tasks[-1].result["host"]["boot"]}
    if not wants["unit"]:  # a machine whose own libvirtd does not start with it
        assert told[good]["verdict"] == told[bad]["verdict"] == "fails"
        assert "neither libvirtd.service" in told[good]["reasons"][0]
        return
    assert told[good] == {"kind": "guest", "name": good, "verdict": "starts", "reasons": []}
    assert told[bad]["verdict"] == "fails"
    assert told[bad]["reasons"] == [f"network {net} does not start with the host"]


def test_reading_the_host_is_quick_and_touches_nothing(play: Any, libvirtd: Any, names: Any) -> None:
    play([domain(name=names(word), state="running") for word in "ab"]).succeeded()
    before = libvirtd.state()
    start = time.monotonic()
    play([READ] * 5).succeeded()
    five = time.monotonic() - start
    start = time.monotonic()
    play([READ]).succeeded()
    assert (five - (time.monotonic() - start)) / 4 < 5  # on a machine that five others use; well under 1 s alone
    assert libvirtd.state() == before


@pytest.mark.row("S02")
def test_a_guest_that_passes_the_limit_is_refused_in_check_mode_too(play: Any, libvirtd: Any, names: Any) -> None:
    cpus = int(libvirtd.run("nproc", "--all").stdout)
    one, two = names("one"), names("two")
    limits = {"cpu": 2.0, "memory": 100.0}
    run = play([
        domain(name=one, state="running", vcpus={"count": cpus}, overcommit=limits),
        domain(True, True, name=two, state="running", vcpus={"count": cpus + 1}, overcommit=limits),
        domain(False, True, name=two, state="running", vcpus={"count": cpus + 1}, overcommit=limits),
        domain(name=two, vcpus={"count": cpus + 1}, overcommit=limits),
        domain(True, name=two, state="running", vcpus={"count": cpus + 1}, overcommit={**limits, "on_exceed": "warn"}),
        domain(True, True, name=two, state="running", memory={"size": "4TiB"}, overcommit={"memory": 1.0}),
    ])  # fmt: skip
    outcomes = [task.outcome for task in run.tasks]
    assert outcomes == ["ok", "failed", "failed", "ok", "ok", "failed"], run.output
    assert f"overcommit: {2 * cpus + 1} vCPUs on {cpus} CPUs" in run.tasks[1].message
    assert run.tasks[1].message == run.tasks[2].message
    assert "the limit is 2.0" in str(run.tasks[4].result["warnings"])
    assert "left to them, the limit is 1.0" in run.tasks[5].message


@pytest.mark.row("S12")
def test_a_guest_is_placed_its_vcpus_are_pinned_and_the_decision_is_kept(play: Any, libvirtd: Any, names: Any) -> None:
    name = names("placed")
    ask = {"name": name, "node": "auto"}
    run = play([domain(name=name, state="running"), placed(True, **ask), placed(**ask), placed(**ask)]).succeeded()
    _made, check, real, again = run.tasks
    assert check.changed
    assert check.result["changes"] == real.result["changes"]
    assert not again.changed, again.result
    assert real.result["decision"]["node"] == 0
    assert again.result["decision"]["reason"] == "decided earlier, and it still fits"
    xml = libvirtd.run("virsh", "dumpxml", name, "--inactive").stdout
    assert "nodeset='0'" in xml
    assert "<anfitrion:placement" in xml
    told = play([{"name": "Info", "anfitrion.kvm.kvm_placement_info": {"name": name}}]).succeeded().only.result["guests"]
    assert told == [{"name": name, "node": "0"}]


@pytest.mark.row("S12")
def test_a_node_that_is_not_there_and_a_guest_that_is_not_are_told(play: Any, names: Any) -> None:
    name = names("lost")
    run = play([domain(name=name), placed(name=name, node="9"), placed(name="nobody", node="auto"), placed(name=name, node="x")])
    assert "node: this host has no node 9; it has 0" in run.tasks[1].message
    assert "does not exist on this host" in run.tasks[2].message
    assert "expected auto or the number of a node" in run.tasks[3].message
