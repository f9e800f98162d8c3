"""How a guest lives: started in order, waited for, put to sleep, saved, stopped as it should be, and removed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guest_os import GuestOS

BASE = {"type": "qemu", "memory": {"size": "64MiB"}}

Options = dict[str, Any]


def domain(check: bool = False, **options: Any) -> Options:
    return {"name": f"Domain {options.get('name', '')}", "anfitrion.kvm.kvm_domain": options, "check_mode": check}


@pytest.fixture
def names(fresh_name: str, libvirtd: Any) -> Iterator[list[str]]:
    """Names of guests that are gone after the test."""
    made = [f"{fresh_name}{letter}" for letter in "abc"]
    yield made
    for name in made:
        libvirtd.run("virsh", "destroy", name, check=False)
        libvirtd.run("virsh", "undefine", "--managed-save", "--snapshots-metadata", name, check=False)


def state(libvirtd: Any, name: str) -> str:
    return str(libvirtd.run("virsh", "domstate", name).stdout.strip())


# Waiting ---------------------------------------------------------------------------------------------------------------


@pytest.mark.row("S04")
def test_a_guest_that_runs_is_waited_for_and_that_is_no_change(play: Any, linux: GuestOS) -> None:
    wait = {"agent": True, "address": "10.0.2.0/24", "console": "anfitrion-guest-ready hostname=linux", "timeout": 60}
    linux.shell("ip address replace 10.0.2.99/24 dev $(ls /sys/class/net | grep -v lo | head -1)")
    done, failed = play([domain(name="linux", wait_for=wait), domain(name="linux", wait_for={"console": "never said", "timeout": 1})]).tasks
    assert done.outcome == "ok"
    assert not done.changed
    assert done.result["steps"] == []
    assert failed.message == "domain 'linux': wait_for: not met within 1 s: console: 'never said' not seen"
    assert any("anfitrion-guest-" in line for line in failed.result["evidence"]["console"])


@pytest.mark.row("B12")
@pytest.mark.row("S04")
def test_a_wait_that_fails_tells_what_was_seen_and_leaves_the_guest(play: Any, libvirtd: Any, names: list[str], tmp_path: Path) -> None:
    name, console = names[0], tmp_path / "console.log"
    guest: Options = {
        **BASE, "name": name, "state": "running", "graphics": [{"type": "vnc"}], "guest_agent": True,
        "serials": [{"port": 0, "type": "pty", "log": str(console)}],
    }  # fmt: skip
    wait = {"agent": True, "port": 22, "console": "login:", "timeout": 6}
    waiting = domain(**guest, wait_for=wait)
    made, failed, check = play([domain(**guest), {**waiting, "ignore_errors": True}, {**waiting, "check_mode": True}]).tasks
    assert made.changed
    assert failed.message == (
        f"domain {name!r}: wait_for: not met within 6 s: agent: Guest agent is not responding: QEMU guest agent is not connected;"
        " port 22: no address yet; console: 'login:' not seen"
    )
    assert not failed.changed
    evidence = failed.result["evidence"]
    assert evidence["state"] == "running"
    assert any("-device" in line for line in evidence["qemu_log"])
    picture = (libvirtd.directory / "log/qemu" / f"{name}.screenshot.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert struct.unpack(">II", picture[16:24])[0] >= 640
    assert state(libvirtd, name) == "running"
    assert not check.changed


@pytest.mark.row("B11")
def test_guests_start_in_order_and_none_after_one_that_is_not_well(play: Any, libvirtd: Any, names: list[str]) -> None:
    first, second, third = names
    defaults = {**BASE, "state": "running"}
    entries: list[Options] = [
        {"name": third, "start_after": [second]},
        {"name": second, "start_after": [first], "start_delay": 1, "wait_for": {"agent": True, "timeout": 2}},
        {"name": first},
    ]
    failed = play(domain(domains=entries, defaults=defaults)).only
    assert [one["name"] for one in failed.result["results"]] == [third, second, first]
    assert f"domain {third!r}: start_after: {second} failed, so this is left as it is" in failed.message
    assert (state(libvirtd, first), state(libvirtd, second)) == ("running", "running")
    assert libvirtd.run("virsh", "domstate", third, check=False).returncode
    assert failed.result["results"][1]["steps"] == [
        f"define domain {second}", f"wait 1 s before the start of domain {second}", f"start domain {second}",
    ]  # fmt: skip
    started = [libvirtd.run("virsh", "qemu-monitor-command", "--hmp", one, "info status").stdout.strip() for one in (first, second)]
    assert started == ["VM status: running"] * 2
    circle = play(domain(domains=[{"name": first, "start_after": [second]}, {"name": second, "start_after": [first]}])).only
    assert circle.message == f"start_after: {first}, {second} wait for each other"
    alone = play(domain(name=third, start_after=["nobody"], **defaults)).only
    assert alone.message == (
        f"domain {third!r}: start_after: domain 'nobody' does not run, it is absent; start it first, or name it in this task"
    )


# States --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tried(play: Any) -> Callable[..., Any]:
    def run(**options: Any) -> Any:
        check, real, again = play([domain(True, **options), domain(**options), domain(**options)]).succeeded().tasks
        assert check.changed
        assert real.changed
        assert check.result["changes"] == real.result["changes"]
        assert not again.changed, again.result
        return real

    return run


@pytest.mark.row("P01")
def test_a_guest_is_saved_goes_on_and_is_not_removed_with_its_memory(tried: Any, play: Any, libvirtd: Any, names: list[str]) -> None:
    name = names[0]
    play(domain(name=name, state="running", **BASE)).succeeded()
    assert tried(name=name, state="saved").result["changes"] == [{"option": "state", "before": "running", "after": "saved", "how": "stop"}]
    assert state(libvirtd, name) == "shut off"
    info, kept, refused, still = play([
        {"anfitrion.kvm.kvm_domain_info": {"name": name}}, domain(name=name, state="stopped"),
        {**domain(name=name, state="absent"), "ignore_errors": True}, domain(name=name, state="saved"),
    ]).tasks  # fmt: skip
    assert info.result["domains"][0]["state"] == "saved"
    assert not kept.changed
    assert refused.message == f"domain {name!r}: state: absent would lose its managed_save; allow it with undefine: [managed_save]"
    assert not still.changed
    assert tried(name=name, state="paused").result["steps"] == [f"start domain {name} paused"]
    assert tried(name=name, state="running").result["steps"] == [f"resume domain {name}"]
    tried(name=name, state="saved")
    assert tried(name=name, state="absent", undefine=["managed_save"]).result["steps"] == [f"undefine domain {name}"]
    nothing = play(domain(name=name, state="saved", **BASE)).only
    assert nothing.message == f"domain {name!r}: state: saved needs a guest that runs; have it running first"


@pytest.mark.row("P01")
def test_snapshots_are_named_before_a_guest_is_stopped_for_good(play: Any, libvirtd: Any, names: list[str], tmp_path: Path) -> None:
    name, image = names[0], str(tmp_path / "disk.qcow2")
    libvirtd.run("qemu-img", "create", "-q", "-f", "qcow2", image, "1M")
    play(domain(name=name, disks=[{"target": "vda", "path": image}], **BASE)).succeeded()
    libvirtd.run("virsh", "snapshot-create-as", name, "one")
    play(domain(name=name, state="running")).succeeded()
    options = {"name": name, "state": "absent", "stop_timeout": 0, "force_stop": True}
    refused, gone = play([{**domain(**options), "ignore_errors": True}, domain(**options, undefine=["snapshots"])]).tasks
    assert refused.message == f"domain {name!r}: state: absent would lose its snapshots; allow it with undefine: [snapshots]"
    assert gone.changed
    assert libvirtd.run("virsh", "dominfo", name, check=False).returncode


@pytest.mark.row("P01")
def test_a_transient_guest_is_there_while_it_runs_and_takes_changes_only_then(
    tried: Any, play: Any, libvirtd: Any, names: list[str]
) -> None:
    name = names[0]
    guest = {"name": name, "transient": True, "state": "running", "vcpus": {"count": 1, "max": 2}, **BASE}
    assert f"start domain {name} without a definition" in tried(**guest).result["steps"]
    assert "Persistent:     no" in libvirtd.run("virsh", "dominfo", name).stdout
    pid = (libvirtd.directory / f"run/libvirt/qemu/{name}.pid").read_text()
    live = tried(name=name, title="Passing")
    assert [(change["option"], change["how"]) for change in live.result["changes"]] == [("title", "live")]
    assert "Persistent:     no" in libvirtd.run("virsh", "dominfo", name).stdout, "what was not named is not touched"
    told, back, waits, stopped, on = play([
        {"anfitrion.kvm.kvm_domain_info": {"name": name}, "register": "told"},
        domain(domains="{{ told.domains }}"),
        {**domain(name=name, vcpus={"max": 4}), "ignore_errors": True},
        {**domain(name=name, state="stopped"), "ignore_errors": True},
        {**domain(name=name, transient=True, autostart=True), "ignore_errors": True},
    ]).tasks  # fmt: skip
    assert told.result["domains"][0]["transient"]
    assert not back.changed
    assert "vcpus.max: a transient guest takes it only when it is made anew" in waits.message
    assert "gone once it is stopped" in stopped.message
    assert "autostart: a transient guest has no definition" in on.message
    assert (libvirtd.directory / f"run/libvirt/qemu/{name}.pid").read_text() == pid
    force = {"stop_timeout": 0, "force_stop": True}
    anew = play(domain(name=name, vcpus={"max": 4}, apply="restart_if_needed", **force)).succeeded().only
    assert anew.result["steps"][-1] == f"start domain {name} without a definition"
    assert "<vcpu placement='static' current='1'>4</vcpu>" in libvirtd.run("virsh", "dumpxml", name).stdout
    # It gets a definition and loses it again, in the same process.
    pid = (libvirtd.directory / f"run/libvirt/qemu/{name}.pid").read_text()
    tried(name=name, transient=False)
    assert "Persistent:     yes" in libvirtd.run("virsh", "dominfo", name).stdout
    tried(name=name, transient=True)
    assert "Persistent:     no" in libvirtd.run("virsh", "dominfo", name).stdout
    assert (libvirtd.directory / f"run/libvirt/qemu/{name}.pid").read_text() == pid
    tried(name=name, transient=True, state="stopped", **force)
    assert libvirtd.run("virsh", "dominfo", name, check=False).returncode
    tried(**guest)
    tried(name=name, state="absent", **force)
    refused = play(domain(name=name, transient=True, **BASE)).only
    assert "transient: needs state: running or paused" in refused.message


@pytest.mark.row("P11")
def test_a_template_is_cloned_and_never_started(tried: Any, play: Any, libvirtd: Any, names: list[str]) -> None:
    one, other, _third = names
    tried(name=one, template=True, title="Of all", **BASE)
    starts = [{**domain(name=one, **way), "ignore_errors": True} for way in ({"state": "running"}, {"state": "paused"}, {"autostart": True})]
    for task in play(starts).tasks:
        assert f"domain {one!r}: state: it is a template, which is never started; clone it with clone_from" in task.message
    assert play({"anfitrion.kvm.kvm_domain_info": {"name": one}}).only.result["domains"][0]["template"]
    tried(name=other, clone_from=one, state="running")
    late = play({**domain(name=other, template=True), "ignore_errors": True}).only
    assert late.message == f"domain {other!r}: template: the guest runs; say state: stopped"
    tried(name=one, template=False)
    assert "metadata" not in libvirtd.run("virsh", "dumpxml", one).stdout


# Storage that goes with a guest -----------------------------------------------------------------------------------------------


def disk(target: str, volume: str, **more: Any) -> Options:
    return {"target": target, "pool": "life", "volume": volume, **more}


@pytest.fixture
def pool(play: Any, libvirtd: Any, tmp_path: Path) -> Iterator[Path]:
    """The directory of an active pool named life."""
    (tmp_path / "life").mkdir()
    play({"anfitrion.kvm.kvm_pool": {"name": "life", "type": "dir", "path": str(tmp_path / "life"), "state": "active"}}).succeeded()
    yield tmp_path / "life"
    libvirtd.run("virsh", "pool-destroy", "life")
    libvirtd.run("virsh", "pool-undefine", "life")


@pytest.mark.row("P01")
def test_only_the_named_disks_go_with_a_guest_and_only_after_it(tried: Any, play: Any, names: list[str], pool: Path) -> None:
    volumes = [{"anfitrion.kvm.kvm_volume": {"pool": "life", "name": f"{one}.qcow2", "capacity": "4MiB"}} for one in ("a", "b")]
    name = names[0]
    play([*volumes, domain(name=name, disks=[disk("vda", "a.qcow2"), {"target": "vdb", "path": str(pool / "b.qcow2")}], **BASE)]).succeeded()
    real = tried(name=name, state="absent", remove_storage=["vda"])
    assert real.result["steps"] == [f"undefine domain {name}", f"delete {pool}/a.qcow2"]
    assert sorted(path.name for path in pool.iterdir()) == ["b.qcow2"]


@pytest.mark.row("P01")
def test_storage_that_is_not_the_guests_alone_stays_and_so_does_the_guest(
    play: Any, names: list[str], pool: Path, libvirtd: Any, tmp_path: Path
) -> None:
    one, other, _third = names
    (tmp_path / "foreign.raw").write_bytes(bytes(1 << 20))
    volume = {"pool": "life", "capacity": "4MiB"}
    volumes: list[Options] = [{**volume, "name": f"{part}.qcow2"} for part in ("base", "both", "shared", "ro")]
    volumes += [{**volume, "name": f"{top}.qcow2", "backing": {"path": str(pool / "base.qcow2"), "format": "qcow2"}} for top in ("top",)]
    disks = [
        disk("vda", "base.qcow2"), disk("vdb", "both.qcow2"), disk("vdc", "shared.qcow2", shareable=True, format="raw"),
        disk("vdd", "ro.qcow2", readonly=True), {"target": "vde", "path": str(tmp_path / "foreign.raw")},
    ]  # fmt: skip
    play([
        {"anfitrion.kvm.kvm_volume": {"volumes": volumes}}, domain(name=one, disks=disks, **BASE),
        domain(name=other, disks=[{"target": "vda", "path": str(pool / "both.qcow2")}], **BASE),
    ]).succeeded()  # fmt: skip
    reasons = {
        "vda": f"{pool}/base.qcow2 is the backing of {pool}/top.qcow2, which would lose its data; delete that first",
        "vdb": f"{pool}/both.qcow2 is used by the domain {other!r} too, itself or as backing of its disk",
        "vdc": "it is shareable, so it may be another's too; delete it by its volume",
        "vdd": "it is read-only, so it is not the guest's own; delete it by its volume",
        "vde": f"no active pool of this host holds {tmp_path}/foreign.raw, so it is foreign and stays; delete it by hand",
        "vdz": "the guest has no such disk; it has vda, vdb, vdc, vdd, vde",
    }
    before = libvirtd.state()
    absent = [domain(check, name=one, state="absent", remove_storage=[target]) for target in reasons for check in (True, False)]
    results = play([{**task, "ignore_errors": True} for task in absent]).tasks
    for place, (target, reason) in enumerate(reasons.items()):
        for result in results[2 * place : 2 * place + 2]:
            assert result.message == f"domain {one!r}: remove_storage[{target}]: {reason}"
    assert libvirtd.state() == before
    assert len(list(pool.iterdir())) == 5
    libvirtd.run("virsh", "vol-delete", "--pool", "life", "top.qcow2")
    below = [{"target": "vda", "path": str(tmp_path / "outside.qcow2"), "format": "qcow2"}]
    libvirtd.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(pool / "base.qcow2"), str(tmp_path / "outside.qcow2"))
    hidden = play([domain(name=other, disks=below), {**domain(name=one, state="absent", remove_storage=["vda"]), "ignore_errors": True}]).tasks[1]
    assert hidden.message.endswith(f"base.qcow2 is used by the domain {other!r} too, itself or as backing of its disk")


# A seed for cloud-init -----------------------------------------------------------------------------------------------------------


@pytest.mark.row("P04")
@pytest.mark.row("P13")
def test_a_seed_is_made_replaced_when_its_content_changes_and_goes_with_the_guest(
    tried: Any, play: Any, names: list[str], tmp_path: Path
) -> None:
    seed = tmp_path / "seed.iso"
    secret = "hunter-two-and-more"
    cloud = {"user_data": f"#cloud-config\npassword: {secret}\n", "path": str(seed)}
    guest = {"name": names[0], "cloud_init": cloud, **BASE}
    real = tried(**guest)
    assert real.result["steps"] == [f"write the seed {seed}", f"define domain {names[0]}"]
    assert secret not in str(real.result)
    assert seed.stat().st_mode & 0o777 == 0o600
    first = seed.read_bytes()
    assert secret.encode() in first
    changed = tried(name=names[0], cloud_init={**cloud, "network_config": "version: 2\n"})
    assert changed.result["steps"] == [f"write the seed {seed}"]
    assert seed.read_bytes() != first
    other = tmp_path / "other"
    other.write_text("something of somebody's")
    refused = play(domain(name=names[0], cloud_init={**cloud, "path": str(other)})).only
    assert refused.message == f"domain {names[0]!r}: cloud_init.path: {other} is there and is no seed for cloud-init; name another path"
    assert other.read_text() == "something of somebody's"
    gone = tried(name=names[0], state="absent")
    assert gone.result["steps"] == [f"undefine domain {names[0]}", f"delete the seed {seed}"]
    assert not seed.exists()


# Like another one ----------------------------------------------------------------------------------------------------------------


@pytest.mark.row("P11")
def test_a_guest_is_made_like_another_with_what_is_its_own(
    tried: Any, play: Any, names: list[str], libvirtd: Any, tmp_path: Path
) -> None:
    one, other, third = names
    for letter in "ab":
        (tmp_path / f"{letter}.raw").write_bytes(bytes(1 << 20))
    nic = {"name": "lan", "type": "user"}
    original = {"name": one, "title": "The first", "vcpus": {"count": 1, "max": 3}, "interfaces": [nic], "guest_agent": True}
    play(domain(**original, disks=[{"target": "vda", "path": str(tmp_path / "a.raw"), "cache": "none"}], **BASE)).succeeded()
    refused = play(domain(name=other, clone_from=one)).only
    assert refused.message.startswith(f"domain {other!r}: disks[vda]: would be that of {one!r} too; give another volume")
    clone = {"name": other, "clone_from": one, "disks": [{"target": "vda", "path": str(tmp_path / "b.raw")}], "vcpus": {"count": 2}}
    changes = [change["option"] for change in tried(**clone).result["changes"]]
    assert changes[0] == "clone_from"
    assert set(changes) == {"clone_from", "disks[vda].path", "vcpus.count"}
    seen = libvirtd.run("virsh", "dumpxml", other).stdout
    assert "cache='none'" in seen
    assert "<title>" not in seen
    assert "ua-lan" in seen
    first = libvirtd.run("virsh", "dumpxml", one).stdout
    for tag in ("<uuid>", "<mac "):
        lines = [next(line for line in text.splitlines() if tag in line) for text in (first, seen)]
        assert lines[0] != lines[1]
    play(domain(name=other, state="running")).succeeded()
    nobody = play(domain(name=third, clone_from="nobody")).only
    assert nobody.message == f"domain {third!r}: clone_from: domain 'nobody' does not exist on this host"


@pytest.mark.row("P11")
def test_mac_addresses_follow_from_names_when_asked(tried: Any, play: Any, names: list[str], libvirtd: Any) -> None:
    name = names[0]
    guest = {"name": name, "mac_seed": "host1", "interfaces": [{"name": "lan", "type": "user"}], **BASE}
    macs = []
    for _round in range(2):
        tried(**guest)
        macs.append([line for line in libvirtd.run("virsh", "dumpxml", name).stdout.splitlines() if "<mac " in line])
        tried(name=name, state="absent")
    assert macs[0] == macs[1]
    assert "52:54:00:" in macs[0][0]
