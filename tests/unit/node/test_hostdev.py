"""kvm_hostdev over a host in a directory: VFs, their attributes, what is in use, and drivers."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import hostdev, port, sriov_boot, vfio_boot
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Output
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.users import Drain, Ledger, NoGuests, VfNetwork
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan, Step, execute

from .conftest import Host, apply, refusal

PCI = "/sys/bus/pci/devices"
PF = "0000:01:00.0"
FILE = f"{PCI}/{PF}/sriov_numvfs"
AUTOPROBE = f"{PCI}/{PF}/sriov_drivers_autoprobe"
PROBE = "/sys/bus/pci/drivers_probe"
NIC_MAC, KEY = "52:54:00:cc:01:01", "525400cc0101"


class Nic:
    """An SR-IOV NIC with seven VFs: what igb and iproute2 do, over files."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.up = False
        self.vfs: list[dict[str, Any]] = []
        self.refuses: str | None = None
        self.addresses: list[dict[str, Any]] = []
        self.most = 7
        self.eswitch: str | None = None
        self.probed: dict[str, str] = {}  # the MAC address that each VF had when the host's drivers saw it
        host.has({
            f"{PCI}/{PF}/sriov_totalvfs": 7, FILE: 0, AUTOPROBE: 1, PROBE: "",
            f"{PCI}/{PF}/net/enp1s0": None, f"{PCI}/{PF}/class": "0x020000",
            "/sys/class/net/enp1s0/device": f"->{host.at(PCI)}/{PF}", f"{PCI}/{PF}/driver": "->/sys/bus/pci/drivers/igb", "/sys/class/net/lo": None,
        })  # fmt: skip
        host.react = self.react
        host.answer = self.answer

    def react(self, path: str, value: str) -> None:
        if path == PROBE:
            self.probed[value] = self.vfs[int(value[-1])]["address"]
        if path != FILE:
            return
        assert not (self.vfs and int(value)), "EBUSY"
        for index in range(len(self.vfs)):
            Path(self.host.at(f"{PCI}/{PF}/virtfn{index}")).unlink()
        self.vfs = []
        for index in range(min(int(value), self.most)):
            self.vfs.append({"vf": index, "address": "00:00:00:00:00:00", "vlan_list": [{}], "spoofchk": True, "trust": False})
            address = f"0000:01:10.{index}"
            if not self.host.exists(f"{PCI}/{address}"):
                self.host.has({f"{PCI}/{address}/class": "0x020000"})
            self.host.has({f"{PCI}/{PF}/virtfn{index}": f"->{self.host.at(PCI)}/{address}"})

    def answer(self, argv: list[str]) -> Output:
        if argv[:3] == ["ip", "-j", "-d"]:
            flags = ["UP"] if self.up else []
            return Output(0, json.dumps([{"ifname": "enp1s0", "address": NIC_MAC, "flags": flags, "vfinfo_list": self.vfs}]), "")
        if argv[:3] == ["ip", "-j", "address"]:
            return Output(0, json.dumps(self.addresses), "")
        if argv[:5] == ["ip", "link", "set", "dev", "enp1s0"]:
            return self.set(argv[5:])
        if argv[0] == "devlink":
            return self.devlink(argv)
        return Output(0, "", "")

    def devlink(self, argv: list[str]) -> Output:
        if self.eswitch is None:
            return Output(1, "", "kernel answers: Operation not supported")
        if "set" in argv:
            self.eswitch = argv[-1]
            self.host.written.append(argv[-1])  # type: ignore[arg-type]  # in its place among the writes
        return Output(0, json.dumps({"dev": {f"pci/{PF}": {"mode": self.eswitch}}}), "")

    def set(self, words: list[str]) -> Output:
        if words[0] in ("up", "down"):
            self.up = words[0] == "up"
        elif words[2] == self.refuses:
            return Output(2, "", "RTNETLINK answers: Operation not supported\n")
        else:
            vf = self.vfs[int(words[1])]
            values = dict(zip(words[2::2], words[3::2]))
            if "vlan" in values:
                vf["vlan_list"] = [{"vlan": int(values["vlan"]), "qos": int(values.get("qos", 0))}]
            if "mac" in values:
                vf["address"] = values["mac"]
            vf.update({n: values[n] == "on" for n in ("trust", "spoofchk") if n in values})
        return Output(0, "", "")


@pytest.fixture
def nic(host: Host) -> Nic:
    return Nic(host)


def devices_of(
    host: Host, users: dict[str, list[str]] | None = None, requested: frozenset[str] = frozenset(), guests: Any = None
) -> hostdev.Devices:
    return hostdev.Devices(host, requested, lambda: lambda address: (users or {}).get(address, []), guests or NoGuests())


def plan(nic: Nic, users: dict[str, list[str]] | None = None, **wanted: Any) -> Plan:
    return hostdev.plan(devices_of(nic.host, users), wanted)


def mac(index: int) -> dict[str, Any]:
    return {"index": index, "mac": f"52:54:00:00:01:0{index}"}


@pytest.mark.row("S21")
def test_vfs_are_made_with_the_pf_up_first_and_their_attributes_after(nic: Nic) -> None:
    vfs = {"count": 2, "attributes": [mac(0), {**mac(1), "vlan": 100, "qos": 3, "spoofchk": False}]}
    apply(lambda: plan(nic, pf="enp1s0", vfs=vfs))
    assert nic.up
    assert [vf["address"] for vf in nic.vfs] == ["52:54:00:00:01:00", "52:54:00:00:01:01"]
    assert nic.vfs[1]["vlan_list"] == [{"vlan": 100, "qos": 3}]
    sets = [argv[5:] for argv in nic.host.commands if argv[:3] == ["ip", "link", "set"]]
    assert sets[0] == ["up"]
    assert nic.host.written == [(AUTOPROBE, "0"), (FILE, "2"), (AUTOPROBE, "1"), (PROBE, "0000:01:10.0"), (PROBE, "0000:01:10.1")]
    assert nic.probed == {"0000:01:10.0": "52:54:00:00:01:00", "0000:01:10.1": "52:54:00:00:01:01"}


@pytest.mark.row("S21")
def test_the_next_boot_makes_what_all_tasks_declared(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2, "attributes": [mac(0)]}))
    apply(lambda: plan(nic, pf="enp1s0", vfs={"attributes": [mac(1)]}))
    text = nic.host.text(sriov_boot.file(KEY))
    assert text.splitlines()[1:] == [  # type: ignore[union-attr]
        f"mac {NIC_MAC}", f"address {PF}", "name enp1s0", "link up", "count 2", "vf 0 mac 52:54:00:00:01:00", "vf 1 mac 52:54:00:00:01:01",
    ]  # fmt: skip
    wants = f"/etc/systemd/system/anfitrion-pf-{KEY}.device.wants/anfitrion-sriov@{KEY}.service"
    assert nic.host.exists(wants)
    assert f'ATTR{{address}}=="{NIC_MAC}"' in (nic.host.text(sriov_boot.RULES) or "")


def test_a_vf_that_lost_its_attributes_gets_them_again_after_a_change_of_the_count(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2, "attributes": [mac(0)]}))
    nic.vfs[1]["trust"] = True  # set by hand: not named, not touched
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 3}, allow_disruption=True))
    assert [one for one in nic.host.written if one[0] == FILE][-2:] == [(FILE, "0"), (FILE, "3")]
    assert nic.host.number(AUTOPROBE) == 1
    assert nic.vfs[0]["address"] == "52:54:00:00:01:00"
    assert nic.vfs[1]["trust"] is True


@pytest.mark.row("S21")
@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"pf": "enp9s9", "vfs": {"count": 1}}, f"pf: interface enp9s9 does not exist; physical functions of this host: enp1s0 ({PF})"),
        ({"address": "0000:09:00.0", "vfs": {"count": 1}}, "pf: there is no PCI device 0000:09:00.0; physical functions"),
        ({"pf": "enp1s0", "vfs": {"count": 8}}, "vfs.count: 8 not in 0..7 (sriov_totalvfs of enp1s0)"),
        ({"pf": "enp1s0", "vfs": {"count": 4}}, "vfs.count: enp1s0 has 2 VFs, and another number removes all of them first"),
        ({"pf": "enp1s0", "vfs": {"count": 2, "attributes": [mac(2)]}}, "vfs.attributes[2]: not in 0..1; vfs.count is 2"),
        ({"pf": "enp1s0", "vfs": {"attributes": [{"index": 0, "qos": 1}]}}, "vfs.attributes[0].qos: needs vlan beside it"),
        ({"pf": "enp1s0", "driver": "vfio-pci"}, "driver: needs address"),
    ],
)
def test_bad_input_is_told_and_nothing_is_touched(
    nic: Nic, tree: Callable[[], dict[str, str]], wanted: dict[str, Any], words: str
) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    before = tree()
    assert words in refusal(lambda: plan(nic, **wanted))
    assert tree() == before


@pytest.mark.row("S21")
@pytest.mark.parametrize("count", [0, 4])
def test_vfs_are_never_removed_while_a_guest_holds_one(nic: Nic, count: int) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    held = {"0000:01:10.1": ["guest db01"]}
    words = refusal(lambda: plan(nic, held, pf="enp1s0", vfs={"count": count}, allow_disruption=True))
    assert words == "vfs.count: VF 1 (0000:01:10.1) is held by guest db01; stop it first, or give drain: true"


def test_attributes_of_a_vf_that_a_guest_holds_are_left_to_libvirt(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2, "attributes": [mac(0)]}))
    nic.vfs[0]["address"] = "52:54:00:aa:aa:aa"  # libvirt's, for the guest
    held = {"0000:01:10.0": ["guest db01"]}
    found = plan(nic, held, pf="enp1s0", vfs={"count": 2, "attributes": [mac(0)]})
    assert not found.changed
    assert found.facts["in_use_by"] == held


@pytest.mark.row("S21")
def test_an_attribute_that_the_driver_refuses_is_named_and_the_old_vfs_come_back(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2, "attributes": [mac(0)]}))
    nic.refuses = "state"
    vfs = {"count": 3, "attributes": [{**mac(1), "link_state": "enable"}]}
    words = refusal(lambda: execute(plan(nic, pf="enp1s0", vfs=vfs, allow_disruption=True)))
    assert "vfs.attributes[1].link_state: the driver of enp1s0 refused it: RTNETLINK answers: Operation not supported" in words
    assert "enp1s0 has its 2 VFs again" in words
    assert [vf["address"] for vf in nic.vfs] == ["52:54:00:00:01:00", "00:00:00:00:00:00"]
    assert nic.host.number(AUTOPROBE) == 1


def test_a_driver_that_makes_fewer_vfs_is_told_and_undone(nic: Nic) -> None:
    nic.most = 1
    original = Host.write

    def fewer(path: str, value: str) -> None:
        original(nic.host, path, "1" if path == FILE and int(value) > 1 else value)

    nic.host.write = fewer  # type: ignore[method-assign]
    words = refusal(lambda: execute(plan(nic, pf="enp1s0", vfs={"count": 3})))
    assert "vfs.count: asked 3, the driver made 1" in words
    assert nic.host.number(FILE) == 0
    assert not nic.up


def test_absent_removes_vfs_and_everything_that_we_keep(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2, "attributes": [mac(0)]}))
    apply(lambda: plan(nic, pf="enp1s0", state="absent"))
    assert nic.host.number(FILE) == 0
    kept = [path for path in Path(nic.host.path, "etc").rglob("*") if not path.is_dir()]
    assert kept == []


def test_another_program_that_makes_vfs_is_named(nic: Nic) -> None:
    nic.host.has({"/etc/systemd/network/10-pf.link": "[Link]\nSR-IOVVirtualFunctions=2"})
    words = refusal(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    assert words.startswith("vfs: /etc/systemd/network/10-pf.link makes VFs too")


@pytest.mark.row("S21")
def test_absent_leaves_what_another_pf_has_of_ours(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    nic.host.has({sriov_boot.file("525400cc0201"): "mac 52:54:00:cc:02:01\ncount 1\n"})
    apply(lambda: plan(nic, pf="enp1s0", state="absent", allow_disruption=True))
    shared = (sriov_boot.SCRIPT, f"/etc/systemd/system/{sriov_boot.UNIT}")
    assert [nic.host.exists(path) for path in (*shared, sriov_boot.file(KEY))] == [True, True, False]


def test_what_is_read_can_be_applied_without_a_change(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2, "attributes": [mac(0)]}))
    found = hostdev.read(devices_of(nic.host), None)
    assert found[0]["facts"]["vfs"][1]["address"] == "0000:01:10.1"
    assert not [change for change in plan(nic, **found[0]).changes if change.how == "live"]


@given(st.integers(0, 9), st.integers(0, 7), st.booleans(), st.booleans(), st.booleans())
def test_the_count_goes_by_zero_and_never_over_a_vf_in_use(wanted: int, now: int, held: bool, used: bool, allowed: bool) -> None:
    vf = port.Vf("0000:01:10.0", ("guest a",) if held else (), ("eth0 has address 10.0.0.1",) if used else ())
    nic = port.Port("0000:01:00.0", "enp1s0", 7, now, True, True, (vf,) * now)
    try:
        path = port.counts(wanted, nic, allowed)
    except KvmError:
        in_use = now and (held or (used and not allowed))
        assert wanted > 7 or in_use or (wanted and now and not allowed)
        return
    assert wanted <= 7
    assert path == () if wanted == now else path[-1] == wanted
    assert all(a == 0 or b == 0 for a, b in zip((now, *path), path))
    assert wanted == now or not (now and held)


ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "mac": st.just("52:54:00:00:00:01"), "vlan": st.integers(0, 4094), "spoofchk": st.booleans(), "trust": st.booleans(),
        "link_state": st.sampled_from(["auto", "enable", "disable"]), "max_tx_rate": st.integers(0, 9999),
    },
)  # fmt: skip


@given(st.builds(
    sriov_boot.Boot, mac=st.just(NIC_MAC), address=st.just(PF), name=st.just("enp1s0"), up=st.none() | st.booleans(),
    autoprobe=st.none() | st.booleans(), eswitch=st.sampled_from([None, "legacy", "switchdev"]), count=st.none() | st.integers(0, 64),
    attributes=st.dictionaries(st.integers(0, 63), ATTRIBUTES.filter(bool)),
))  # fmt: skip
def test_the_file_for_the_boot_says_what_was_declared(boot: sriov_boot.Boot) -> None:
    read_back = sriov_boot.parse(sriov_boot.text(boot))
    without_qos = {i: {k: v for k, v in values.items() if k != "qos"} for i, values in read_back.attributes.items()}
    assert replace(read_back, attributes=without_qos) == boot


@pytest.mark.parametrize("script", [sriov_boot.SCRIPT_TEXT, vfio_boot.SCRIPT_TEXT])
def test_the_scripts_for_the_boot_are_valid_shell(script: str) -> None:
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


class Guests(NoGuests):
    """What libvirt would say and do: whose the VFs are, and a note of what was asked of guests and networks."""

    def __init__(self, ledger: Ledger) -> None:
        self.known = ledger
        self.done: list[str] = []

    def ledger(self) -> Ledger:
        return self.known

    def drain(self, port: Any, count: int, by: str, patience: int) -> Drain:
        held = [vf.held for vf in port.vfs if vf.held]
        return Drain((self.step(f"{by} {held} {patience}"),), (self.step(f"give back {count}"),))

    def restart(self, network: VfNetwork, again: bool) -> Drain:
        return Drain((self.step(f"stop {network.name}"),), (self.step(f"start {network.name}"),) if again else ())

    def step(self, sentence: str) -> Step:
        def do() -> None:
            self.known = replace(self.known, running={})
            self.done.append(sentence)

        return Step(sentence, do, lambda: self.done.append(f"undo {sentence}"))


def ask(nic: Nic, guests: Guests, **wanted: Any) -> Plan:
    return hostdev.plan(devices_of(nic.host, guests=guests), {"pf": "enp1s0", **wanted})


@pytest.mark.row("S21")
def test_with_drain_guests_and_networks_let_go_first_and_get_their_vfs_after(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    guests = Guests(Ledger({"0000:01:10.1": ("guest db01",)}, networks=(VfNetwork("fast", "enp1s0", True), VfNetwork("old", "enp1s0", False))))
    apply(lambda: ask(nic, guests, vfs={"count": 3}, drain=True, drain_timeout=9))
    assert guests.done == ["detach [('guest db01',)] 9", "stop fast", "start fast", "give back 3"]
    assert nic.host.written[-2:] == [(FILE, "0"), (FILE, "3")]


@pytest.mark.row("S21")
def test_when_the_new_vfs_fail_the_guests_get_the_old_ones_back(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    guests = Guests(Ledger({"0000:01:10.1": ("guest db01",)}))
    nic.refuses = "trust"
    vfs = {"count": 3, "attributes": [{"index": 2, "trust": True}]}
    words = refusal(lambda: execute(ask(nic, guests, vfs=vfs, drain=True)))
    assert "vfs.attributes[2].trust: the driver of enp1s0 refused it" in words
    assert guests.done[-1].startswith("undo detach")
    assert nic.host.number(FILE) == 2


@pytest.mark.row("B04")
def test_a_process_that_is_no_guest_is_not_drained(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    held = {"0000:01:10.1": ["process 77 (dpdk-testpmd)"]}
    assert "is held by process 77 (dpdk-testpmd); stop it first" in refusal(lambda: plan(nic, held, pf="enp1s0", vfs={"count": 0}, drain=True))


@pytest.mark.row("B04")
def test_a_stopped_guest_whose_vf_would_go_is_named(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    guests = Guests(Ledger(stopped={"0000:01:10.1": ("guest db01",)}))
    words = refusal(lambda: ask(nic, guests, vfs={"count": 1}, drain=True))
    assert words.startswith("vfs.count: VF 1 (0000:01:10.1) is in the definition of guest db01, stopped; take it from there")
    assert ask(nic, guests, vfs={"count": 3}, drain=True).changed  # it is there again
    assert ask(nic, guests, vfs={"count": 1}, allow_disruption=True).changed


def test_a_network_is_not_left_without_vfs_unasked(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    guests = Guests(Ledger(networks=(VfNetwork("fast", "enp1s0", True),)))
    assert "network fast hands the VFs of enp1s0 out" in refusal(lambda: ask(nic, guests, vfs={"count": 0}))


def test_vfs_stay_while_libvirt_cannot_be_asked_whose_they_are(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    guests = Guests(Ledger(unknown="cannot reach libvirt"))
    assert "is not known: cannot reach libvirt" in refusal(lambda: ask(nic, guests, vfs={"count": 0}))
    assert not ask(nic, guests, vfs={"count": 2}).changed


@pytest.mark.row("B05")
def test_what_the_next_boot_makes_follows_a_card_with_another_name_and_address(nic: Nic) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2, "attributes": [mac(0)]}))
    text = (nic.host.text(sriov_boot.file(KEY)) or "").replace("enp1s0", "eth7").replace(PF, "0000:05:00.0")
    Path(nic.host.at(sriov_boot.file(KEY))).write_text(text, encoding="utf-8")  # as a boot with other names wrote it
    found = apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    assert not [change for change in found.changes if change.how == "live"]
    assert sriov_boot.parse(nic.host.text(sriov_boot.file(KEY))).attributes == {0: {"mac": "52:54:00:00:01:00"}}


@pytest.mark.row("B05")
def test_a_physical_function_is_found_by_an_alternative_name(nic: Nic) -> None:
    told = nic.answer

    def answer(argv: list[str]) -> Output:
        named = argv == ["ip", "-j", "link", "show", "dev", "ens1f0"]
        return Output(0, json.dumps([{"ifname": "enp1s0"}]), "") if named else told(argv)

    nic.host.answer = answer
    assert plan(nic, pf="ens1f0", vfs={"count": 1}).changed


@pytest.mark.parametrize(
    ("bound", "order"),
    [
        ("ice", [(FILE, "0"), "switchdev", (FILE, "2")]),
        ("mlx5_core", [(FILE, "0"), (FILE, "2"), ("unbind", "0000:01:10.0"), ("unbind", "0000:01:10.1"), "switchdev"]),
    ],
)
def test_the_mode_of_the_switch_is_set_in_the_order_of_the_driver(nic: Nic, bound: str, order: list[Any]) -> None:
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2}))
    Path(nic.host.at(f"{PCI}/{PF}/driver")).unlink()
    nic.host.has({
        f"{PCI}/{PF}/driver": f"->/sys/bus/pci/drivers/{bound}", "/sys/bus/pci/drivers/vf/unbind": "",
        **{f"{PCI}/0000:01:10.{index}/driver": f"->{nic.host.at('/sys/bus/pci/drivers/vf')}" for index in (0, 1)},
        **{f"{PCI}/0000:01:10.{index}/net/v{index}": None for index in (0, 1)},
    })  # fmt: skip
    nic.eswitch = "legacy"
    nic.host.written.clear()
    apply(lambda: plan(nic, pf="enp1s0", vfs={"count": 2, "eswitch": "switchdev"}, allow_disruption=True))
    seen = [word if isinstance(word, str) else (word[0] if word[0] == FILE else word[0].rsplit("/", 1)[-1], word[1]) for word in nic.host.written]
    assert [one for one in seen if one[0] != "drivers_probe"] == order
    lines = [line.split()[0] for line in (nic.host.text(sriov_boot.file(KEY)) or "").splitlines()]
    assert (lines.index("eswitch") < lines.index("count")) == (bound == "ice")


def test_a_driver_without_a_switch_mode_is_named(nic: Nic) -> None:
    words = refusal(lambda: plan(nic, pf="enp1s0", vfs={"count": 2, "eswitch": "switchdev"}))
    assert words == "vfs.eswitch: the driver of enp1s0, igb, has no switch whose mode can be set; leave the option out"
