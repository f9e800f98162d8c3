"""kvm_snapshot on a real libvirt: a guest without an operating system, whose disk is written and read through its QEMU."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def snapshot(**options: Any) -> dict[str, Any]:
    return {"name": f"Snapshot {options.get('name')}", "anfitrion.kvm.kvm_snapshot": options}


def life(**options: Any) -> list[dict[str, Any]]:
    task = snapshot(**options)
    return [{**task, "check_mode": True}, task, task]


@pytest.fixture
def guest(libvirtd: Any, tmp_path: Path, fresh_name: str) -> Iterator[Callable[..., str]]:
    """A running guest; what this is writes and reads through its QEMU."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "disk.qcow2"), "8M"], check=True)
    (tmp_path / "guest.xml").write_text(
        f"""<domain type="qemu"><name>{fresh_name}</name><memory unit="MiB">32</memory><os><type machine="q35">hvm</type></os>
        <features><acpi/></features><devices><disk type="file" device="disk"><driver name="qemu" type="qcow2"/>
        <source file="{tmp_path}/disk.qcow2"/><target dev="vda" bus="virtio"/></disk></devices></domain>"""
    )
    libvirtd.run("virsh", "define", str(tmp_path / "guest.xml"))
    libvirtd.run("virsh", "start", fresh_name)

    def inside(command: str) -> str:
        words = f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "{command}"'
        return str(libvirtd.run("virsh", "qemu-monitor-command", fresh_name, "--hmp", words).stdout)

    yield inside
    libvirtd.run("virsh", "destroy", fresh_name, check=False)
    libvirtd.run("virsh", "undefine", fresh_name, "--snapshots-metadata", check=False)


def holds(path: Path, pattern: int) -> bool:
    probe = subprocess.run(["qemu-io", "-r", "-U", "-c", f"read -P {pattern} 0 64k", str(path)], check=True, capture_output=True, text=True)
    return "verification failed" not in probe.stdout


@pytest.mark.row("P09")
def test_a_guest_is_put_back_to_its_snapshot_and_a_series_keeps_its_last(
    play: Any, libvirtd: Any, guest: Any, tmp_path: Path, fresh_name: str
) -> None:
    where = {"domain": fresh_name}
    guest("write -P 1 0 64k")
    run = play(life(**where, name="a", description="before")).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    guest("write -P 2 0 64k")
    back = snapshot(**where, name="a", state="reverted")
    told = {"name": "Tell", "anfitrion.kvm.kvm_snapshot_info": {}}
    series = [task for number in (1, 2, 3) for task in life(**where, name=f"day{number}", series="day", keep=2)]
    run = play([{**back, "check_mode": True}, back, told, *series, told]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False, *([True, True, False] * 3), False]
    first = next(one for one in run.tasks[2].result["snapshots"] if one["domain"] == fresh_name)
    assert (first["name"], first["kind"], first["description"]) == ("a", "internal", "before")
    names = [one["name"] for one in run.tasks[-1].result["snapshots"] if one["domain"] == fresh_name]
    assert names == ["a", "day2", "day3"], "a snapshot of no series stays"
    libvirtd.run("virsh", "destroy", fresh_name)
    assert holds(tmp_path / "disk.qcow2", 1)
    refused = [
        ({"name": "a", "kind": "external"}, "kind: cannot be changed from internal to external"),
        ({"name": "none", "state": "reverted"}, "there is no snapshot 'none'; the guest has a, day2, day3"),
        ({"name": "b", "keep": 2}, "keep: goes with series"),
        ({"name": "b", "keep_days": 2}, "keep_days: goes with series"),
        ({"name": "b", "quiesce": True}, "quiesce: goes with kind: external"),
    ]
    run = play([{**snapshot(**where, **options), "ignore_errors": True} for options, _text in refused])
    assert [(text, one.message) for (_options, text), one in zip(refused, run.tasks) if text not in one.message] == []
    gone = snapshot(snapshots=[{**where, "name": name, "state": "absent"} for name in names])
    run = play([{**gone, "check_mode": True}, gone, gone]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]


@pytest.mark.row("P09")
def test_an_external_snapshot_is_merged_when_it_goes(play: Any, libvirtd: Any, guest: Any, tmp_path: Path, fresh_name: str) -> None:
    disk, options = tmp_path / "disk.qcow2", {"domain": fresh_name, "name": "ext", "kind": "external"}
    guest("write -P 1 0 64k")
    run = play(life(**options)).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    guest("write -P 2 0 64k")
    assert holds(disk, 1), "the old image is written to"
    run = play(life(domain=fresh_name, name="ext", state="absent")).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert str(disk) in libvirtd.run("virsh", "domblklist", fresh_name).stdout
    libvirtd.run("virsh", "destroy", fresh_name)
    assert holds(disk, 2)
    assert sorted(path.name for path in tmp_path.glob("disk*")) == ["disk.qcow2"]
    play(snapshot(**options)).succeeded()
    new = next(path for path in tmp_path.glob("disk.*") if path != disk)
    assert new.stat().st_mode & 0o077 == 0, "others can read it"


@pytest.mark.row("P09")
@pytest.mark.parametrize("form", ["path", "volume", "xml"])
def test_a_guest_keeps_what_it_wrote_since_a_snapshot_when_its_disk_is_declared_again(
    play: Any, libvirtd: Any, guest: Any, tmp_path: Path, fresh_name: str, form: str
) -> None:
    """Whoever runs the site's playbook after an external snapshot must not have the guest go back to the image below."""
    pool, name = {"name": fresh_name, "type": "dir", "path": str(tmp_path), "state": "active"}, fresh_name
    play({"anfitrion.kvm.kvm_pool": pool}).succeeded()
    document = libvirtd.run("virsh", "dumpxml", "--inactive", name).stdout
    disk = {"path": {"path": str(tmp_path / "disk.qcow2")}, "volume": {"pool": name, "volume": "disk.qcow2"}, "xml": {}}[form]
    declared = {"name": name, "disks": [{"target": "vda", **disk}]} if disk else {"name": name, "xml": document}
    guest("write -P 1 0 64k")
    play(snapshot(domain=name, name="ext", kind="external")).succeeded()
    guest("write -P 2 0 64k")
    before = [libvirtd.run("virsh", "domblklist", name, *more).stdout for more in ((), ("--inactive",))]
    assert "disk.ext" in before[1]

    for more in ({}, {"apply": "restart_if_needed", "stop_timeout": 1, "force_stop": True}):
        run = play([{"name": "D", "anfitrion.kvm.kvm_domain": {**declared, **more}, "check_mode": check} for check in (True, False)]).succeeded()
        for task in run.tasks:
            assert not task.changed, task.result
            assert task.result["pending_restart"] == []
            assert f"{tmp_path}/disk.qcow2 has other images on top, of which {tmp_path}/disk.ext is the uppermost" in task.result["warnings"][0]
    assert [libvirtd.run("virsh", "domblklist", name, *more).stdout for more in ((), ("--inactive",))] == before
    libvirtd.run("virsh", "pool-destroy", name)
    libvirtd.run("virsh", "pool-undefine", name)


@pytest.mark.row("P09")
def test_external_snapshots_of_a_series_are_merged_as_they_get_too_many(
    play: Any, libvirtd: Any, guest: Any, tmp_path: Path, fresh_name: str
) -> None:
    disk, where = tmp_path / "disk.qcow2", {"domain": fresh_name, "kind": "external", "series": "day"}
    guest("write -P 1 0 64k")
    held = play(snapshot(domain=fresh_name, name="held", kind="external", quiesce=True)).only
    assert "quiesce: the guest has no agent that answers; install qemu-guest-agent in it" in held.message
    for number in (1, 2, 3):
        run = play(life(**where, name=f"day{number}", keep=2)).succeeded()
        assert [one.changed for one in run.tasks] == [True, True, False], run.output
        guest(f"write -P {number + 1} 0 64k")
    assert run.tasks[1].result["steps"] == [f"take snapshot day3 of {fresh_name}", "delete snapshot day1"]
    names = libvirtd.run("virsh", "snapshot-list", fresh_name, "--name").stdout.split()
    assert names == ["day2", "day3"]
    back = snapshot(domain=fresh_name, name="day2", state="reverted")
    run = play([{**back, "check_mode": check, "ignore_errors": True} for check in (True, False)])
    if tuple(map(int, libvirtd.run("virsh", "--version").stdout.split("."))) < (9, 9):
        assert [one.message for one in run.tasks] == [
            f"snapshot '{fresh_name}/day2': state: day2 is external, which libvirt 9.9 and newer put a guest back to, this is 9.0;"
            " delete it, which keeps what was written since, or restore a backup"
        ] * 2
    else:
        assert [one.changed for one in run.tasks] == [True, True]
        return
    run = play([snapshot(domain=fresh_name, name=name, state="absent") for name in names]).succeeded()
    assert str(disk) in libvirtd.run("virsh", "domblklist", fresh_name).stdout
    libvirtd.run("virsh", "destroy", fresh_name)
    assert holds(disk, 4)
    assert sorted(path.name for path in tmp_path.glob("disk*")) == ["disk.qcow2"]


@pytest.mark.row("P09")
def test_snapshots_of_a_series_go_when_they_are_too_old(play: Any, libvirtd: Any, guest: Any, tmp_path: Path, fresh_name: str) -> None:
    play(snapshot(snapshots=[{"domain": fresh_name, "name": name} for name in ("day1", "day2", "other")])).succeeded()
    for name in ("day1", "other"):
        text = libvirtd.run("virsh", "snapshot-dumpxml", fresh_name, name).stdout
        old = re.sub("<creationTime>.*</creationTime>", f"<creationTime>{int(time.time()) - 3 * 86400}</creationTime>", text)
        (tmp_path / "old.xml").write_text(old)
        libvirtd.run("virsh", "snapshot-create", fresh_name, str(tmp_path / "old.xml"), "--redefine")
    run = play(life(domain=fresh_name, name="day2", series="day", keep_days=2)).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert run.tasks[1].result["steps"] == ["delete snapshot day1"]
    assert sorted(libvirtd.run("virsh", "snapshot-list", fresh_name, "--name").stdout.split()) == ["day2", "other"]
    libvirtd.run("virsh", "snapshot-delete", fresh_name, "day2")
    libvirtd.run("virsh", "snapshot-delete", fresh_name, "other")
