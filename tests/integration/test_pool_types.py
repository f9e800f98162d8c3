"""Pools of every type that a server or a loop device can be had for here. NFS, iSCSI and LVM need a kernel that has them: the lab's."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TARGET = "iqn.2025-01.example:store"


def pool(**options: Any) -> dict[str, Any]:
    return {"name": f"Pool {options.get('state', '')}", "anfitrion.kvm.kvm_pool": options}


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """loop("64M") is an empty block device of that size."""
    made = []

    def make(size: str = "64M") -> str:
        backing = tmp_path / f"disk{len(made)}"
        subprocess.run(["truncate", "-s", size, str(backing)], check=True)
        made.append(subprocess.check_output(["losetup", "--find", "--show", "--partscan", str(backing)], text=True).strip())
        return str(made[-1])

    yield make
    for device in made:
        subprocess.run(["losetup", "--detach", device], check=True)


def tasks_of_a_life(**options: Any) -> list[dict[str, Any]]:
    """Check, apply, again."""
    task = pool(**options)
    return [{**task, "check_mode": True}, task, task]


def changed(run: Any) -> list[bool]:
    return [one.changed for one in run.tasks]


@pytest.mark.row("S24")
def test_a_file_system_pool_is_made_started_changed_and_removed_and_its_data_stay(
    play: Any, libvirtd: Any, loop: Any, tmp_path: Path, fresh_name: str
) -> None:
    device = loop()
    options = {
        "name": fresh_name, "state": "active", "autostart": True, "type": "fs", "path": str(tmp_path / "mnt"), "build": True,
        "source": {"devices": [device], "format": "ext4"},
    }  # fmt: skip
    run = play(tasks_of_a_life(**options)).succeeded()
    assert changed(run) == [True, True, False]
    assert run.tasks[0].diff == run.tasks[1].diff
    assert {"option": "build", "before": None, "after": f"ext4 file system on {device}", "how": "host"} in run.tasks[1].result["changes"]
    made = {"name": "Volume", "anfitrion.kvm.kvm_volume": {"pool": fresh_name, "name": "a", "format": "raw", "capacity": "1MiB"}}
    moved = {**options, "path": str(tmp_path / "elsewhere"), "restart": True}
    run = play([made, *tasks_of_a_life(**moved)]).succeeded()
    assert changed(run) == [True, True, True, False]
    told = {"name": "Tell", "anfitrion.kvm.kvm_pool_info": {"name": fresh_name, "refresh": True}}
    gone = {"name": fresh_name, "state": "absent"}
    run = play([told, *tasks_of_a_life(**gone), *tasks_of_a_life(**options)]).succeeded()
    assert run.tasks[0].result["usage"][0]["promised"] >= 1024**2
    # The file system is as it was, volume included: building again makes nothing anew.
    assert changed(run)[1:] == [True, True, False] * 2
    assert [step for step in run.tasks[5].result["steps"] if "destroy" in step] == []
    assert "a" in libvirtd.run("virsh", "vol-list", fresh_name).stdout.split()
    play(pool(**gone)).succeeded()


@pytest.mark.row("S24")
def test_a_device_that_holds_something_is_built_on_only_with_overwrite(play: Any, loop: Any, tmp_path: Path, fresh_name: str) -> None:
    device, busy = loop(), loop()
    for one in (device, busy):
        subprocess.run(["mkfs.ext4", "-q", "-L", "precious", one], check=True)
    before = subprocess.check_output(["sha256sum", device])
    options = {
        "name": fresh_name, "state": "active", "type": "fs", "path": str(tmp_path / "mnt"), "build": True,
        "source": {"devices": [device], "format": "ext3"},
    }  # fmt: skip
    run = play([{**task, "ignore_errors": True} for task in tasks_of_a_life(**options)])
    for one in run.tasks:
        assert f"source.devices: {device} is not empty, it holds TYPE=ext4" in one.message
        assert "overwrite: true destroys it" in one.message
    assert subprocess.check_output(["sha256sum", device]) == before
    run = play(tasks_of_a_life(**options, overwrite=True)).succeeded()
    assert changed(run) == [True, True, False]
    assert f"destroy what {device} holds" in run.tasks[1].result["steps"]
    # What is mounted is nobody's to overwrite.
    taken = {**options, "name": f"{fresh_name}b", "path": str(tmp_path / "b"), "source": {"devices": [device], "format": "ext2"}}
    refused = play({**pool(**taken, overwrite=True), "ignore_errors": True}).only
    assert f"{device} is not empty, it has {tmp_path}/mnt; it is left as it is" in refused.message
    play(pool(name=fresh_name, state="absent")).succeeded()


@pytest.mark.row("S24")
def test_a_disk_pool_has_partitions_as_volumes(play: Any, libvirtd: Any, loop: Any, fresh_name: str) -> None:
    device = loop()
    options = {"name": fresh_name, "state": "active", "type": "disk", "build": True, "source": {"devices": [device], "format": "gpt"}}
    run = play(tasks_of_a_life(**options)).succeeded()
    assert changed(run) == [True, True, False]
    assert subprocess.check_output(["blkid", "-p", "-s", "PTTYPE", "-o", "value", device], text=True).strip() == "gpt"
    part = {"name": "Volume", "anfitrion.kvm.kvm_volume": {"pool": fresh_name, "name": f"{Path(device).name}p1", "capacity": "8MiB"}}
    run = play([{**part, "check_mode": True}, part, part]).succeeded()
    assert changed(run) == [True, True, False]
    assert Path(f"{device}p1").exists()
    assert changed(play(tasks_of_a_life(name=fresh_name, state="absent")).succeeded()) == [True, True, False]
    assert Path(f"{device}p1").exists()


@pytest.mark.row("S24")
@pytest.mark.row("P06")
def test_deleting_the_data_of_a_pool_is_said_in_words_and_told(play: Any, libvirtd: Any, tmp_path: Path, fresh_name: str) -> None:
    here = tmp_path / "p"
    play(pool(name=fresh_name, state="active", path=str(here), build=True)).succeeded()
    for name in ("a", "b"):
        (here / name).write_bytes(b"\0" * 4096)
    guest = tmp_path / "guest.xml"
    guest.write_text(
        f"""<domain type="qemu"><name>{fresh_name}</name><memory unit="MiB">32</memory><os><type>hvm</type></os><devices>
        <disk type="file" device="disk"><source file="{here}/b"/><target dev="vda"/></disk></devices></domain>"""
    )
    libvirtd.run("virsh", "define", str(guest))
    erase = {"name": fresh_name, "state": "absent", "delete_data": True}
    refused = play({**pool(**erase), "ignore_errors": True}).only
    assert f"delete_data: volume b is used by the domain {fresh_name}" in refused.message
    assert sorted(path.name for path in here.iterdir()) == ["a", "b"]
    libvirtd.run("virsh", "undefine", fresh_name)
    run = play(tasks_of_a_life(**erase)).succeeded()
    assert changed(run) == [True, True, False]
    assert run.tasks[1].result["erased"] == [str(here / "a"), str(here / "b")]
    assert run.tasks[0].diff == run.tasks[1].diff
    assert not here.exists()


@pytest.mark.row("P06")
def test_types_that_this_host_cannot_have_are_refused_by_name(play: Any, libvirtd: Any, tmp_path: Path) -> None:
    before = libvirtd.state()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"type": "zfs", "source": {"devices": ["/dev/loop0"]}}, "has no driver for zfs; install libvirt-daemon-driver-storage-zfs"),
        ({"type": "rbd", "source": {"hosts": ["mon"], "name": "p"}}, "has no driver for rbd"),
        ({"type": "gluster", "source": {"hosts": ["g"], "name": "v"}}, "has no driver for gluster"),
        ({"type": "fs", "path": str(tmp_path / "m"), "source": {"devices": ["/dev/nonesuch"]}}, "/dev/nonesuch does not exist on this host"),
        ({"type": "fs", "path": str(tmp_path / "m"), "source": {"devices": [str(tmp_path)]}}, f"{tmp_path} is not a block device"),
        ({"type": "disk", "source": {"devices": ["/dev/vda", "/dev/vdb"]}}, "source.devices: a pool of type disk has one"),
        ({"type": "iscsi-direct", "source": {"hosts": ["h"], "devices": [TARGET]}}, "source.initiator: must be given"),
        ({"type": "dir", "path": str(tmp_path / "m"), "overwrite": True}, "overwrite: only goes with build: true"),
    ]
    found = play(pool(pools=[{"name": f"bad{place}", "state": "active", **options} for place, (options, _text) in enumerate(cases)])).only
    told = [one.get("msg", "it was taken") for one in found.result["results"]]
    assert [(text, words) for (_options, text), words in zip(cases, told) if text not in words] == []
    assert libvirtd.state() == before


@pytest.fixture
def store(libvirtd: Any, tmp_path: Path) -> Iterator[None]:
    """An iSCSI target with one unit, which wants a name and a password."""
    (tmp_path / "unit").write_bytes(b"\0" * 16 * 1024**2)
    inside = ["nsenter", f"--target={init_of(libvirtd)}", "--mount", "--pid", "--net", "--"]
    daemon = subprocess.Popen([*inside, "tgtd", "-f", "--iscsi", "portal=127.0.0.1:3260"], stderr=subprocess.DEVNULL)
    steps = [
        ["--mode", "target", "--op", "new", "--tid", "1", "-T", TARGET],
        ["--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", str(tmp_path / "unit")],
        ["--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL"],
        ["--mode", "account", "--op", "new", "--user", "host1", "--password", "a very long secret"],
        ["--mode", "account", "--op", "bind", "--tid", "1", "--user", "host1"],
    ]
    deadline = time.monotonic() + 120
    while libvirtd.run("tgtadm", "--lld", "iscsi", *steps[0], check=False).returncode:
        assert time.monotonic() < deadline, "tgtd does not answer"
        time.sleep(0.2)
    for step in steps[1:]:
        libvirtd.run("tgtadm", "--lld", "iscsi", *step)
    yield
    libvirtd.run("tgtadm", "--lld", "iscsi", "--mode", "sys", "--op", "delete", "--force", check=False)
    libvirtd.run("tgtadm", "--op", "delete", "--mode", "system", check=False)
    daemon.kill()
    daemon.wait()


def init_of(libvirtd: Any) -> str:
    """The pid of the namespaces' first process."""
    return (Path("/proc") / str(libvirtd.daemon) / "stat").read_text().rpartition(")")[2].split()[1]


@pytest.mark.row("S24")
@pytest.mark.row("P08")
@pytest.mark.usefixtures("store")
def test_a_pool_over_iscsi_gives_its_password_from_a_secret(play: Any, libvirtd: Any, fresh_name: str) -> None:
    options: dict[str, Any] = {
        "name": fresh_name, "state": "active", "type": "iscsi-direct",
        "source": {
            "hosts": ["127.0.0.1:3260"], "devices": [TARGET], "initiator": "iqn.2025-01.example:host",
            "auth": {"type": "chap", "username": "host1", "password": "a very long secret"},
        },
    }  # fmt: skip
    run = play(tasks_of_a_life(**options)).succeeded()
    assert changed(run) == [True, True, False]
    assert run.tasks[0].diff == run.tasks[1].diff
    assert "a very long secret" not in run.output
    assert len(libvirtd.run("virsh", "vol-list", fresh_name).stdout.splitlines()) > 3, "the pool shows no unit"
    wrong = {**options, "source": {**options["source"], "auth": {**options["source"]["auth"], "password": "another secret"}}}
    run = play([{**pool(**wrong), "check_mode": True}, pool(name=fresh_name, state="inactive"), {**pool(**wrong), "ignore_errors": True}])
    assert [one["option"] for one in run.tasks[0].result["changes"]] == ["source.auth.secret.value"]
    assert run.tasks[2].outcome == "failed"
    assert "cannot start" in run.tasks[2].message
    run = play([*tasks_of_a_life(**options), pool(name=fresh_name, state="absent"),
                {"name": "Secret", "anfitrion.kvm.kvm_secret": {"type": "iscsi", "name": fresh_name, "state": "absent"}}]).succeeded()  # fmt: skip
    assert changed(run) == [True, True, False, True, True]
