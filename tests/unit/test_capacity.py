"""Whether guests fit, where they belong and whether they come back: the pure half, over made-up hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import boot, capacity, findings, placement
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.census import Disk, Guest
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.declared import Network, Pool
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.next_boot import NextBoot
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import Host, Node

GIB = 1 << 30
MIB = 1 << 20
HOST = Host(
    nodes={n: Node(frozenset(range(n * 4, n * 4 + 4)), 16 * GIB, 8 * GIB, {2048: 1024}, {2048: 1024}) for n in (0, 1)},
    cpus=frozenset(range(8)), isolated=frozenset(), memory=32 * GIB, available=20 * GIB, swap=0,
)  # fmt: skip


def guest(name: str = "a", **options: Any) -> Guest:
    return Guest(name, **{"vcpus": 2, "memory": GIB, "autostart": True, **options})


@pytest.mark.row("S02")
def test_huge_pages_and_the_host_itself_are_taken_off_before_anything_is_divided() -> None:
    report = capacity.report(HOST, [guest(), guest("b", locked=True), guest("c", pages=2048)])
    assert report.usable == 32 * GIB - 4 * GIB - 4 * GIB
    assert report.need.fixed == 2 * capacity.overhead(guest()) + GIB
    assert report.need.soft == GIB + capacity.overhead(guest())
    assert report.need.pages == {2048: 512}
    assert report.cpu_ratio == 0.75


@pytest.mark.row("S02")
@pytest.mark.parametrize(
    ("one", "limits", "says"),
    [
        (guest(vcpus=32), {"cpu": 4.0}, "34 vCPUs on 8 CPUs would be 4.25 to 1, the limit is 4.0"),
        (guest(memory=40 * GIB), {"memory": 1.2}, "MiB left to them, the limit is 1.2"),
        (guest(memory=5 * GIB, pages=2048), {}, "huge pages of 2MiB: 2560 needed, the host has 2048"),
        (guest(memory=3 * GIB, pages=2048, nodes=frozenset({1})), {}, "huge pages of 2MiB: 1536 needed, node 1 has 1024"),
        (guest(memory=15 * GIB, nodes=frozenset({0})), {"memory": 1.0}, "guests bound to node 0 would need"),
    ],
)
def test_a_guest_that_passes_a_limit_is_refused_with_the_numbers(one: Guest, limits: dict[str, float], says: str) -> None:
    assert says in (capacity.refusal(HOST, [guest("b", vcpus=2)], one, limits) or "")


def test_a_guest_counts_as_it_is_to_be_not_twice() -> None:
    assert capacity.refusal(HOST, [guest(vcpus=30)], guest(vcpus=31), {"cpu": 4.0}) is None


@pytest.mark.row("S09")
def test_what_is_too_much_for_one_guest_is_found() -> None:
    ones = [guest("fat", vcpus=9), guest("far", nodes=frozenset({3})), guest("off", cpus=frozenset({8})), guest("many", devices=("x",) * 33)]
    told = {finding.guests[0]: finding for finding in findings.findings(HOST, ones) if len(finding.guests) == 1}
    assert "the host has 8 CPUs" in told["fat"].what
    assert "node 3" in told["far"].what
    assert "CPU 8" in told["off"].what
    assert told["many"].verdict == "warn"
    assert "RHEL 7.2" in told["many"].what


def test_the_kernel_that_promises_no_more_than_it_has_is_asked_first() -> None:
    strict = replace(HOST, overcommit=2, promise=GIB // 2)
    assert "vm.overcommit_memory is 2 and 512 MiB" in findings.findings(strict, [guest()])[0].what


GUESTS = st.lists(
    st.builds(guest, st.sampled_from("abcdef"), vcpus=st.integers(1, 4), memory=st.integers(1, 8).map(lambda n: n * GIB),
              pages=st.sampled_from([0, 2048]), nodes=st.sampled_from([frozenset(), frozenset({0}), frozenset({1})])),
    unique_by=lambda one: one.name,
)  # fmt: skip


@given(GUESTS, GUESTS)
def test_more_guests_never_make_a_host_emptier(some: list[Guest], more: list[Guest]) -> None:
    less, all_of_them = capacity.report(HOST, some), capacity.report(HOST, some + more)
    assert all_of_them.need.vcpus >= less.need.vcpus
    assert all_of_them.swap_needed >= less.swap_needed
    assert len(findings.findings(HOST, some + more)) >= len(findings.findings(HOST, some))


ONE = st.builds(
    guest, st.just("new"), vcpus=st.integers(1, 5), memory=st.integers(1, 20).map(lambda n: n * GIB), pages=st.sampled_from([0, 2048])
)  # fmt: skip


@given(GUESTS, ONE)
def test_a_guest_is_placed_where_it_fits_and_stays_there_as_long_as_it_does(others: list[Guest], one: Guest) -> None:
    decision = placement.decide(HOST, others, one, {})
    able = [node for node in HOST.nodes if placement.why_not(HOST, others, one, node) is None]
    assert (decision.node in able) if able else decision.node is None
    if decision.node is not None:
        placed = replace(one, nodes=frozenset({decision.node}))
        assert placement.decide(HOST, [*others, placed], one, {}, kept=decision.node).node == decision.node


def test_a_guest_goes_where_its_devices_are_and_an_unknown_node_is_not_node_0() -> None:
    one = guest(devices=("0000:01:00.0",))
    assert placement.decide(HOST, [], one, {"0000:01:00.0": 1}).node == 1
    busy = [guest("b", vcpus=4, nodes=frozenset({0}))]
    assert placement.decide(HOST, busy, one, {"0000:01:00.0": None}).node == 1
    apart = guest(devices=("x", "y"))
    assert "no single node is near them all" in placement.decide(HOST, [], apart, {"x": 0, "y": 1}).reason
    full = guest(memory=20 * GIB, devices=("x",))
    assert "which does not fit: 20480 MiB of memory wanted" in placement.decide(HOST, [], full, {"x": 1}).reason


@pytest.fixture
def coming(tmp_path: Path) -> NextBoot:
    """The next boot of a host in a directory: libvirt starts with it, 512 huge pages on node 0 and 10 on node 1 are persisted."""
    files = {
        "etc/systemd/system/multi-user.target.wants/libvirtd.service": "", "etc/systemd/system/sysinit.target.wants/anfitrion-hugepages.service": "",
        "etc/anfitrion.d/hugepages.conf": "2048 0 512\n2048 1 10\n", "usr/lib/systemd/system/dev-hugepages.mount": "",
        "proc/mounts": "/dev/vda / ext4 rw\ntmpfs /mem tmpfs rw\n/dev/vdb /data ext4 rw\nhugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0",
        "srv/disk": "", "mem/disk": "", "data/disk": "", "tmp/disk": "", "dev/loop7": "", "dev/vdc": "",
        "sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs": "7", "sys/bus/pci/devices/0000:01:10.0/class": "0x020000",
        "sys/bus/pci/devices/0000:01:00.0/net/ens1/x": "", "sys/class/net/ens1/address": "52:54:00:cc:01:01",
        "etc/anfitrion.d/sriov/525400cc0101.conf": "mac 52:54:00:cc:01:01\naddress 0000:01:00.0\ncount 1\n",
        "etc/systemd/system/multi-user.target.wants/anfitrion-sriov@525400cc0101.service": "",
    }  # fmt: skip
    for name, text in files.items():
        here = tmp_path / name
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_text(text)
    for index in (0, 1):
        (tmp_path / f"sys/bus/pci/devices/0000:01:10.{index}").mkdir(exist_ok=True)
        (tmp_path / f"sys/bus/pci/devices/0000:01:00.0/virtfn{index}").symlink_to(f"../0000:01:10.{index}")
    return NextBoot(Root(str(tmp_path)), HOST)


@pytest.mark.row("B10")
@pytest.mark.row("S22")
def test_the_vfs_of_the_next_boot_are_those_of_the_port_with_that_mac_address_and_else_of_the_one_there(coming: NextBoot, tmp_path: Path) -> None:
    kept, mac = tmp_path / "etc/anfitrion.d/sriov/525400cc0101.conf", tmp_path / "sys/class/net/ens1/address"
    assert coming.vfs == {"0000:01:00.0": 1}
    kept.write_text(kept.read_text().replace("01:00.0", "09:00.0"))
    assert NextBoot(coming.root, HOST).vfs == {"0000:01:00.0": 1}
    mac.write_text("52:54:00:cc:09:09")
    assert NextBoot(coming.root, HOST).vfs == {"0000:01:00.0": 0}
    kept.write_text(kept.read_text().replace("09:00.0", "01:00.0"))
    assert NextBoot(coming.root, HOST).vfs == {"0000:01:00.0": 1}


ASKED = boot.Asked(lambda pool, volume: {"one": "/srv/disk"}.get(volume) if pool == "vms" else None, lambda group: group == "vg0")


def told(coming: NextBoot, *guests: Guest, networks: tuple[Network, ...] = (), pools: tuple[Pool, ...] = ()) -> dict[str, boot.Verdict]:
    return {one.name: one for one in boot.foretell(coming, ASKED, list(networks), list(pools), list(guests))}


@pytest.mark.row("B10")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"disks": (Disk("vda", "/srv/disk"),)}, ""),
        ({"disks": (Disk("vda", "/srv/gone"),)}, "disk vda: /srv/gone does not exist"),
        ({"disks": (Disk("sda", "/srv/gone", optional=True),)}, ""),
        ({"disks": (Disk("vda", "/mem/disk"),)}, "is below /mem, which is only in memory"),
        ({"disks": (Disk("vda", "/data/disk"),)}, "is below /data, which is not mounted at boot"),
        ({"disks": (Disk("vda", "/tmp/disk"),)}, "is in /tmp, which is emptied at boot"),
        ({"disks": (Disk("vda", "/dev/loop7"),)}, "somebody made by hand"),
        ({"disks": (Disk("vda", "/dev/vdc"),)}, ""),
        ({"disks": (Disk("vda", pool="vms", volume="one"),)}, ""),
        ({"disks": (Disk("vda", pool="vms", volume="two"),)}, "pool vms has no volume two"),
        ({"disks": (Disk("vda", pool="idle", volume="one"),)}, "pool idle does not start with the host"),
        ({"networks": ("lan",)}, ""),
        ({"networks": ("idle",)}, "network idle does not start with the host"),
        ({"devices": ("0000:01:10.0",)}, ""),
        ({"devices": ("0000:01:10.1",)}, "virtual function 1 of 0000:01:00.0 is not made at boot (1 are)"),
        ({"devices": ("0000:7f:00.0",)}, "there is no PCI device"),
        ({"pages": 2048, "memory": GIB, "nodes": frozenset({0})}, ""),
        ({"pages": 2048, "memory": GIB, "nodes": frozenset({1})}, "the boot sets 10 aside on node 1"),
        ({"pages": 1048576, "memory": GIB}, "huge pages of 1GiB are mounted nowhere at boot"),
        ({"nodes": frozenset({5})}, "NUMA node 5 does not exist"),
        ({"cpus": frozenset({99})}, "pinned to CPU 99"),
        ({"memory": 64 * GIB}, "more than the host has"),
        ({"files": ("/srv/vmlinuz",)}, "/srv/vmlinuz does not exist"),
    ],
)  # fmt: skip
def test_it_is_foretold_whether_a_guest_comes_back_and_why_not(coming: NextBoot, options: dict[str, Any], says: str) -> None:
    networks = (Network("lan", True, True), Network("idle", False, True))
    pools = (Pool("vms", "dir", True, True, "/srv"), Pool("idle", "dir", False, True, "/srv"))
    verdict = told(coming, guest(**options), networks=networks, pools=pools)["a"]
    assert verdict.verdict == (boot.FAILS if says else boot.STARTS)
    assert says in "; ".join(verdict.reasons)


@pytest.mark.row("B10")
def test_what_not_all_can_have_is_told_as_such_with_their_names(coming: NextBoot) -> None:
    found = told(coming, *(guest(name, pages=2048, memory=600 * MIB, nodes=frozenset({0})) for name in "ab"), guest("c", devices=("0000:01:10.0",)),
                 guest("d", devices=("0000:01:10.0",)))  # fmt: skip
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys("abcd", boot.CONTENDS)
    assert "not enough for b too" in found["a"].reasons[0]


@pytest.mark.row("B10")
def test_networks_and_pools_come_first_each_with_its_reason(coming: NextBoot) -> None:
    networks = (Network("vfs", True, True, pf="ens1"), Network("none", True, True, pf="ens9"),
                Network("x", True, True, subnets=("10.0.0.1/24",)), Network("y", True, False, subnets=("10.0.0.2/24",)))  # fmt: skip
    pools = (Pool("gone", "dir", True, True, "/mem/disk"), Pool("vg", "logical", True, True, group="vg0"),
             Pool("no", "logical", True, True, group="vg1"))  # fmt: skip
    found = told(coming, guest(), networks=networks, pools=pools)
    assert {name: one.verdict for name, one in found.items()} == {
        "vfs": "starts", "none": "fails", "x": "contends", "y": "contends", "gone": "fails", "vg": "starts", "no": "fails", "a": "starts",
    }  # fmt: skip
    assert [one.kind for one in found.values()] == ["network"] * 4 + ["pool"] * 3 + ["guest"]


def test_without_a_daemon_that_starts_with_the_host_nothing_does(coming: NextBoot) -> None:
    coming.root.remove("/etc/systemd/system/multi-user.target.wants/libvirtd.service")
    assert "neither libvirtd.service nor virtqemud.service" in told(coming, guest())["a"].reasons[0]
