"""kvm_backup on a real libvirt: a guest that boots from its disk, and whose disk is written to all the time."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

# A boot sector that says on the first serial port that it runs, and halts.
MESSAGE = b"anfitrion-guest-ready\r\n\0"
BOOT = bytes.fromhex("be117c ac 84c0 7406 baf803 ee ebf5 f4 ebfd") + MESSAGE
BLOCK = 64 * 1024
BLOCKS = 64


def backup(**options: Any) -> dict[str, Any]:
    return {"name": f"Backup {options.get('name')} {options.get('state', '')}", "anfitrion.kvm.kvm_backup": options}


@pytest.fixture
def guest(libvirtd: Any, tmp_path: Path, fresh_name: str) -> Iterator[Path]:
    """A running guest with a qcow2 disk that it boots from; the path of the disk."""
    disk, raw = tmp_path / "disk.qcow2", tmp_path / "boot.raw"
    raw.write_bytes(BOOT.ljust(510, b"\0") + b"\x55\xaa" + b"\0" * (BLOCKS * BLOCK - 512))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(disk)], check=True)
    (tmp_path / "guest.xml").write_text(
        f"""<domain type="qemu"><name>{fresh_name}</name><memory unit="MiB">64</memory>
        <os><type arch="x86_64" machine="q35">hvm</type><boot dev="hd"/></os><features><acpi/></features><devices>
        <disk type="file" device="disk"><driver name="qemu" type="qcow2"/><source file="{disk}"/><target dev="vda" bus="virtio"/></disk>
        <interface type="user"><mac address="52:54:00:00:00:01"/></interface></devices></domain>"""
    )
    libvirtd.run("virsh", "define", str(tmp_path / "guest.xml"))
    libvirtd.run("virsh", "start", fresh_name)
    yield disk
    libvirtd.run("virsh", "destroy", fresh_name, check=False)
    libvirtd.run("virsh", "undefine", fresh_name, "--checkpoints-metadata", check=False)


class Load:
    """Writes to the guest's disk through its QEMU, one block after the other, and remembers each."""

    def __init__(self, libvirtd: Any, name: str) -> None:
        self.written: list[tuple[int, int]] = []
        self.ended = threading.Event()
        self.libvirtd, self.name = libvirtd, name
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        number = 0
        while not self.ended.is_set():
            number += 1
            block, pattern = 1 + number * 7 % (BLOCKS - 1), 1 + number % 250
            self.written.append((block, pattern))
            io = f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P {pattern} {block * BLOCK} {BLOCK}"'
            self.libvirtd.run("virsh", "qemu-monitor-command", self.name, "--hmp", io)

    def __enter__(self) -> Load:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


def contents(image: Path, tmp_path: Path) -> bytes:
    """What a guest reads from an image."""
    out = tmp_path / "contents.raw"
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", str(image), str(out)], check=True)
    return out.read_bytes()


def is_a_moment_of(written: list[tuple[int, int]], found: bytes, base: bytes) -> bool:
    """Tell whether a content is what the disk held after some number of the writes, and none of the later ones."""
    disk = bytearray(base)
    if disk == found:
        return True
    for block, pattern in written:
        disk[block * BLOCK : (block + 1) * BLOCK] = bytes([pattern]) * BLOCK
        if disk == found:
            return True
    return False


@pytest.mark.row("P09")
def test_a_full_backup_and_three_incrementals_under_load_restore_to_what_the_disk_held_and_boot(
    play: Callable[..., Any], libvirtd: Any, guest: Path, tmp_path: Path, fresh_name: str
) -> None:
    top = tmp_path / "backups"
    running = libvirtd.run("virsh", "list", "--name").stdout.split()
    libvirtd.run("virsh", "pool-create-as", "restored", "dir", "--target", str(tmp_path / "pool"), "--build")
    names = ["full", "one", "two", "three"]
    base = contents(guest, tmp_path)
    entries = [{"name": name, **({"incremental": True} if name != "full" else {})} for name in names]
    task = backup(defaults={"domain": fresh_name, "path": str(top)}, backups=entries[:1])
    late = backup(defaults={"domain": fresh_name, "path": str(top)}, backups=entries)
    with Load(libvirtd, fresh_name) as load:
        run = play([{**task, "check_mode": True}, task, late, late]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, True, False], run.output
    assert run.tasks[0].diff == run.tasks[1].diff
    assert len(load.written) > 3, "the guest was not written to"
    chain = [top / name / "vda.qcow2" for name in names]
    seen = [contents(image, tmp_path) for image in chain]
    for name, content in zip(names, seen):
        assert is_a_moment_of(load.written, content, base), f"{name} is no moment of the disk"
    assert sorted(top.iterdir()) == sorted(top / name for name in names)
    # Nothing is written now: the last one holds the disk as it is.
    last = {"domain": fresh_name, "name": "last", "path": str(top)}
    restored = backup(**last, state="restored", restore={"pool": "restored", "prefix": "back"})
    drilled = backup(**last, state="drilled", drill={"ready": "anfitrion-guest-ready", "timeout": 120})
    run = play([backup(**last, incremental=True), restored, restored, {**drilled, "check_mode": True}, drilled, drilled]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False, True, True, False], run.output
    assert contents(tmp_path / "pool" / "back-vda.qcow2", tmp_path) == contents(guest, tmp_path)
    assert libvirtd.run("virsh", "list", "--name").stdout.split() == running, "the throw-away guest is still there"
    told = {"name": "Tell", "anfitrion.kvm.kvm_backup_info": {"path": str(top), "verify": True}}
    gone = [backup(domain=fresh_name, name=name, path=str(top), state="absent") for name in ("two", "last")]
    with open(chain[2], "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    run = play([told, *({**one, "ignore_errors": True} for one in gone), {**restored, "ignore_errors": True}])
    libvirtd.run("virsh", "pool-destroy", "restored")
    faults = {one["name"]: len(one["faults"]) for one in run.tasks[0].result["backups"]}
    assert faults == {"full": 0, "one": 0, "two": 1, "three": 1, "last": 1}
    assert "backup three builds on it; delete that first" in run.tasks[1].message
    assert run.tasks[2].changed
    assert not (top / "last").exists()
    points = libvirtd.run("virsh", "checkpoint-list", fresh_name, "--name").stdout.split()
    assert sorted(points) == sorted(f"anfitrion-{fresh_name}-{name}" for name in names)


@pytest.mark.row("P09")
def test_a_backup_that_cannot_be_made_leaves_nothing(play: Callable[..., Any], libvirtd: Any, guest: Path, tmp_path: Path, fresh_name: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    libvirtd.run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small))
    where = {"domain": fresh_name, "path": str(small)}
    first, early = backup(**where, name="full"), backup(**where, name="early", incremental=True)
    subprocess.run(["qemu-img", "snapshot", "-U", "-l", str(guest)], check=False, capture_output=True)
    io = f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P 1 {BLOCK} {8 * BLOCK}"'
    refused = play([{**early, "ignore_errors": True}, {**first, "ignore_errors": True}])
    full = play({**backup(**where, name="full", disks=["vda"]), "ignore_errors": True})
    libvirtd.run("virsh", "qemu-monitor-command", fresh_name, "--hmp", io)
    left = libvirtd.run("ls", "-A", str(small)).stdout
    points = libvirtd.run("virsh", "checkpoint-list", fresh_name, "--name").stdout.split()
    libvirtd.run("umount", str(small))
    assert "there is no backup of" in refused.tasks[0].message
    assert re.search(r"KiB|MiB free, the disks take|No space left|backup failed", refused.tasks[1].message), refused.output
    assert full.only.outcome == "failed"
    assert left == ""
    assert points == []
    cases = [
        ({"domain": "nonesuch", "name": "x"}, "domain 'nonesuch' does not exist"),
        ({"domain": fresh_name, "name": "x", "disks": ["vdz"]}, "the guest has no vdz"),
        ({"domain": fresh_name, "name": "x", "state": "restored"}, "restore: goes with state: restored"),
        ({"domain": fresh_name, "name": "x", "state": "drilled", "drill": {"ready": "y"}}, "there is no backup 'x'"),
    ]
    run = play([{**backup(path=str(tmp_path / "b"), **options), "ignore_errors": True} for options, _text in cases])
    assert [(text, one.message) for (_options, text), one in zip(cases, run.tasks) if text not in one.message] == []
    libvirtd.run("virsh", "destroy", fresh_name)
    cold = backup(domain=fresh_name, path=str(tmp_path / "cold"), name="full")
    run = play([cold, cold, {**backup(domain=fresh_name, path=str(tmp_path / "cold"), name="more", incremental=True), "ignore_errors": True}])
    assert [one.changed for one in run.tasks[:2]] == [True, False]
    assert "the guest does not run; start it, or make a full backup" in run.tasks[2].message
    assert contents(tmp_path / "cold" / "full" / "vda.qcow2", tmp_path) == contents(guest, tmp_path)


@pytest.mark.row("P09")
def test_backups_are_pulled_and_kept_as_many_and_as_long_as_said(
    play: Callable[..., Any], libvirtd: Any, guest: Path, tmp_path: Path, fresh_name: str
) -> None:
    top, base = tmp_path / "backups", contents(guest, tmp_path)
    libvirtd.run("virsh", "pool-create-as", "pulled", "dir", "--target", str(tmp_path / "pool"), "--build")
    where = {"domain": fresh_name, "path": str(top), "mode": "pull"}
    first, more = backup(**where, name="a"), backup(**where, name="b", incremental=True)
    with Load(libvirtd, fresh_name) as load:
        run = play([{**first, "check_mode": True}, first, first, more, more]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False, True, False], run.output
    for name in ("a", "b"):
        assert is_a_moment_of(load.written, contents(top / name / "vda.qcow2", tmp_path), base), f"{name} is no moment of the disk"
    assert (top / "b" / "vda.qcow2").stat().st_size < (top / "a" / "vda.qcow2").stat().st_size + BLOCK * len(load.written)
    # Of both kinds in turn; a full one makes room for the old ones to go, latest first.
    push = {"domain": fresh_name, "path": str(top)}
    restored = backup(domain=fresh_name, path=str(top), name="c", state="restored", restore={"pool": "pulled"})
    run = play([backup(**push, name="c", incremental=True, keep=1), restored, backup(**where, name="d", keep=3)]).succeeded()
    assert run.tasks[0].result["steps"] == [f"write backup c of {fresh_name} to {top}"], "all of the chain is needed"
    assert run.tasks[2].result["steps"] == [f"write backup d of {fresh_name} to {top}"], "a and b are below c, which stays"
    assert contents(tmp_path / "pool" / f"{fresh_name}-vda.qcow2", tmp_path) == contents(guest, tmp_path)
    less = backup(**where, name="d", keep=1)
    run = play([{**less, "check_mode": True}, less, less]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert run.tasks[1].result["steps"] == ["delete backup c", "delete backup b", "delete backup a"]
    assert [path.name for path in top.iterdir()] == ["d"]
    assert libvirtd.run("virsh", "checkpoint-list", fresh_name, "--name").stdout.split() == [f"anfitrion-{fresh_name}-d"]
    manifest = top / "d" / "backup.json"
    manifest.write_text(re.sub(r'"made": [0-9.]+', f'"made": {time.time() - 3 * 86400}', manifest.read_text()))
    run = play([backup(**where, name="e", keep_days=4), backup(**where, name="e", keep_days=2), backup(**where, name="e", keep_days=2)]).succeeded()
    libvirtd.run("virsh", "pool-destroy", "pulled")
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert [path.name for path in top.iterdir()] == ["e"]
    assert list(guest.parent.glob("disk.qcow2?*")) == []
    assert libvirtd.run("virsh", "domjobinfo", fresh_name).stdout.split()[:3] == ["Job", "type:", "None"]


@pytest.mark.row("P09")
def test_what_a_killed_backup_began_is_ended_by_the_next_and_that_of_somebody_else_is_not(
    play: Callable[..., Any], libvirtd: Any, guest: Path, tmp_path: Path, fresh_name: str
) -> None:
    top, (place,) = tmp_path / "backups", libvirtd.directory.glob(f"lib/qemu/domain-*-{fresh_name}")
    task = backup(domain=fresh_name, path=str(top), name="a", mode="pull")
    guest.with_suffix(".qcow2.anfitrion-backup").write_bytes(b"of a QEMU that was killed")
    for socket, outcome in (("theirs.sock", "failed"), ("anfitrion-backup.sock", "ok")):
        (tmp_path / "order.xml").write_text(
            f"""<domainbackup mode="pull"><server transport="unix" socket="/var/lib/libvirt/qemu/{place.name}/{socket}"/>
            <disks><disk name="vda" type="file"><scratch file="{tmp_path}/{socket}.scratch"/></disk></disks></domainbackup>"""
        )
        libvirtd.run("virsh", "backup-begin", fresh_name, str(tmp_path / "order.xml"))
        run = play({**task, "ignore_errors": True})
        assert run.only.outcome == outcome, run.output
        if outcome == "failed":
            assert "cannot begin the backup" in run.only.message
            assert list(top.iterdir()) == []
            assert socket in libvirtd.run("virsh", "backup-dumpxml", fresh_name).stdout
            libvirtd.run("virsh", "domjobabort", fresh_name)
    assert [path.name for path in top.iterdir()] == ["a"]
    run = play({**backup(domain=fresh_name, path=str(top), name="b", quiesce=True), "ignore_errors": True})
    assert "quiesce: the guest has no agent that answers; install qemu-guest-agent in it" in run.only.message
    assert [path.name for path in top.iterdir()] == ["a"]
