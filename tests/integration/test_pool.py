"""kvm_pool on a real libvirt, and on libvirt's test driver. Volume groups need the device mapper: those are the lab's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

TEST = "test:///default"


def pool(**options: Any) -> dict[str, Any]:
    return {"name": f"Pool {options.get('state', '')}", "anfitrion.kvm.kvm_pool": options}


def remove(*names: str) -> dict[str, Any]:
    return pool(pools=[{"name": name, "state": "absent"} for name in names])


def mode(path: Path) -> str:
    return f"{os.stat(path).st_mode & 0o777:04o}"


def dumped(libvirtd: Any, name: str, *flags: str) -> str:
    return str(libvirtd.run("virsh", "pool-dumpxml", name, *flags).stdout)


@pytest.mark.row("S24")
def test_a_directory_pool_is_made_changed_and_removed_and_its_files_stay(cycle: Any, tmp_path: Path, fresh_name: str) -> None:
    here = tmp_path / "deep" / "pool"
    present = {
        "name": fresh_name, "state": "active", "autostart": True, "type": "dir", "path": f"{tmp_path}/deep//pool/", "build": True,
        "permissions": {"mode": "0750", "owner": 0, "group": 0},
    }  # fmt: skip
    seen = cycle("kvm_pool", present, {"state": "inactive", "autostart": False, "permissions": {"mode": "0711"}})
    assert seen.present.apply.result["steps"] == [
        f"define pool {fresh_name}", f"build pool {fresh_name}", f"start pool {fresh_name}", f"start pool {fresh_name} with the host",
    ]  # fmt: skip
    assert seen.absent.apply.result["steps"] == [f"undefine pool {fresh_name}"]
    assert mode(here) == "0711"


@pytest.mark.row("S24")
def test_removing_an_active_pool_keeps_what_is_in_it(play: Any, tmp_path: Path, fresh_name: str) -> None:
    play(pool(name=fresh_name, state="active", path=str(tmp_path / "p"), build=True)).succeeded()
    (tmp_path / "p" / "precious").write_text("data")
    run = play([{**remove(fresh_name), "check_mode": True}, remove(fresh_name), remove(fresh_name)]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert (tmp_path / "p" / "precious").read_text() == "data"


def test_what_the_info_module_tells_is_a_task_that_changes_nothing(play: Any, tmp_path: Path, fresh_name: str) -> None:
    made = pool(name=fresh_name, state="active", path=str(tmp_path / "p"), build=True)
    told = {"name": "Tell", "anfitrion.kvm.kvm_pool_info": {"name": fresh_name}, "register": "told"}
    run = play([made, told, pool(pools="{{ told.pools }}"), remove(fresh_name)]).succeeded()
    found = run.tasks[1].result["pools"][0]
    assert found.pop("uuid")
    assert found == {
        "name": fresh_name, "state": "active", "autostart": False, "type": "dir", "path": str(tmp_path / "p"),
        "permissions": {"mode": "0711", "owner": 0, "group": 0},
    }  # fmt: skip
    assert not run.tasks[2].changed


def test_mode_of_an_active_pools_directory_is_set_and_drift_is_seen(play: Any, tmp_path: Path, fresh_name: str) -> None:
    here = tmp_path / "p"
    task = pool(name=fresh_name, state="active", path=str(here), build=True, permissions={"mode": "0711"})
    play(task).succeeded()
    here.chmod(0o755)
    changed = pool(name=fresh_name, permissions={"mode": "0750"})
    run = play([{**task, "check_mode": True}, task, task, {**changed, "check_mode": True}, changed, changed]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False] * 2
    assert run.tasks[0].diff == run.tasks[1].diff
    assert run.tasks[3].diff == run.tasks[4].diff
    assert run.tasks[4].result["pending_restart"] == []
    assert mode(here) == "0750"
    play(remove(fresh_name)).succeeded()


@pytest.mark.row("S24")
def test_another_path_waits_until_the_pool_is_started_again(play: Any, libvirtd: Any, tmp_path: Path, fresh_name: str) -> None:
    options = {"name": fresh_name, "state": "active", "path": str(tmp_path / "old"), "build": True}
    moved = {**options, "path": str(tmp_path / "new")}
    play(pool(**options)).succeeded()
    run = play([{**pool(**moved), "check_mode": True}, pool(**moved), pool(**moved)]).succeeded()
    check, apply, again = run.tasks
    assert check.diff == apply.diff
    assert check.result["pending_restart"] == apply.result["pending_restart"] == again.result["pending_restart"] == ["path"]
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert {"option": "path", "before": str(tmp_path / "old"), "after": str(tmp_path / "new"), "how": "next_boot"} in apply.result["changes"]
    assert str(tmp_path / "old") in dumped(libvirtd, fresh_name)
    restarted = pool(**moved, restart=True)
    run = play([{**restarted, "check_mode": True}, restarted, restarted, remove(fresh_name)]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False, True]
    assert run.tasks[0].diff == run.tasks[1].diff


def test_a_pool_of_running_guests_is_not_stopped(play: Any, libvirtd: Any, tmp_path: Path, fresh_name: str) -> None:
    options = {"name": fresh_name, "state": "active", "path": str(tmp_path / "p"), "build": True}
    play(pool(**options)).succeeded()
    libvirtd.run("virsh", "vol-create-as", fresh_name, "disk.img", "1M", "--format", "raw")
    (tmp_path / "guest.xml").write_text(
        f"""<domain type="qemu"><name>{fresh_name}</name><memory unit="MiB">32</memory><os><type arch="x86_64" machine="q35">hvm</type></os>
        <features><acpi/></features><devices><disk type="volume" device="disk"><source pool="{fresh_name}" volume="disk.img"/>
        <target dev="vda" bus="virtio"/></disk></devices></domain>"""
    )
    libvirtd.run("virsh", "create", str(tmp_path / "guest.xml"))
    before = libvirtd.state()
    tries = [{**pool(**{**options, "state": state}), "ignore_errors": True} for state in ("inactive", "absent")]
    for one, word in zip(play(tries).tasks, ("stopped", "removed")):
        assert one.message.startswith(f"pool '{fresh_name}': cannot be {word}, running guests use it: {fresh_name};")
    assert libvirtd.state() == before
    libvirtd.run("virsh", "destroy", fresh_name)
    play(remove(fresh_name)).succeeded()


def test_a_directory_made_for_a_pool_that_does_not_start_is_taken_away_again(play: Any, libvirtd: Any, tmp_path: Path, fresh_name: str) -> None:
    # Autostart cannot be set for a pool whose link libvirt cannot make.
    libvirtd.run("mkdir", "-p", "/etc/libvirt/storage/autostart")
    libvirtd.run("mkdir", f"/etc/libvirt/storage/autostart/{fresh_name}.xml")
    failed = play(pool(name=fresh_name, state="active", autostart=True, path=str(tmp_path / "p"), build=True)).only
    libvirtd.run("rmdir", f"/etc/libvirt/storage/autostart/{fresh_name}.xml")
    assert failed.outcome == "failed"
    assert "what was done before it is undone" in failed.message
    assert not (tmp_path / "p").exists()
    assert fresh_name not in libvirtd.run("virsh", "pool-list", "--all", "--name").stdout.split()


@pytest.mark.row("S24")
def test_bad_input_gets_a_clear_error_and_changes_nothing(play: Any, libvirtd: Any, tmp_path: Path, fresh_name: str) -> None:
    (tmp_path / "file").write_text("data")
    (tmp_path / "twin").symlink_to(tmp_path / "standing")
    (tmp_path / "unused").mkdir()
    play(pool(name=fresh_name, state="active", path=str(tmp_path / "standing"), build=True)).succeeded()
    before = libvirtd.state()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"type": "logical", "source": {"devices": ["/dev/nonesuch"]}}, "source.devices: /dev/nonesuch does not exist on this host"),
        ({"type": "logical", "source": {"devices": [str(tmp_path / "file")]}}, f"source.devices: {tmp_path}/file is not a block device"),
        ({"type": "dir", "path": str(tmp_path / "file"), "build": True}, f"path: {tmp_path}/file exists and is not a directory"),
        ({"type": "dir", "path": str(tmp_path / "gone"), "state": "active"}, f"path: {tmp_path}/gone does not exist; build: true makes it"),
        ({"type": "dir", "path": str(tmp_path / "twin")}, f"path: {tmp_path}/twin is the directory of pool '{fresh_name}' too"),
        ({"type": "dir"}, "path: must be given for a pool of type dir"),
        ({"type": "dir", "path": str(tmp_path / "unused"), "source": {"name": "vg"}}, "source.name: a pool of type dir has no source"),
        ({"name": fresh_name, "type": "logical"}, "type: cannot be changed from dir to logical; remove the pool and define it anew"),
    ]
    found = play(pool(pools=[{"name": f"bad{place}", **options} for place, (options, _text) in enumerate(cases)])).only
    told = [one.get("msg", "it was taken") for one in found.result["results"]]
    assert [(text, words) for (_options, text), words in zip(cases, told) if text not in words] == []
    assert libvirtd.state() == before
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("play")) == ["file", "standing", "twin", "unused"]
    values = [
        {**pool(name="bad", path="relative/path"), "ignore_errors": True},
        {**pool(name="bad", path="/tmp/../etc"), "ignore_errors": True},
        {**pool(name="bad", path="/tmp/p", permissions={"mode": "0777"}), "ignore_errors": True},
        {**pool(name="a/b", path="/tmp/p"), "ignore_errors": True},
        {**pool(name=fresh_name, uuid="11111111-2222-3333-4444-555555555555"), "ignore_errors": True},
    ]
    told = [one.message for one in play(values, check=True).tasks]
    texts = ("must be an absolute path", '".." is not allowed', "world-writable is refused", '"/" is not allowed', "uuid: it exists with")
    for words, text in zip(told, texts):
        assert text in words
    play(remove(fresh_name)).succeeded()


def test_a_directory_that_an_earlier_task_would_make_is_a_warning_in_check_mode(play: Any, tmp_path: Path, fresh_name: str) -> None:
    found = play(pool(name=fresh_name, state="active", path=str(tmp_path / "p")), check=True).succeeded().only
    assert found.changed
    assert found.result["warnings"] == [f"pool {fresh_name}: path: {tmp_path}/p does not exist; build: true makes it"]


def test_the_test_driver_takes_and_tells_pools(play: Any) -> None:
    made = pool(uri=TEST, name="p", state="active", autostart=True, type="dir", path="/nowhere", build=True)
    lvm = pool(uri=TEST, name="l", state="active", type="logical", source={"name": "vg", "devices": ["/dev/vdb", "/dev/vdc"]})
    told = {"name": "Tell", "anfitrion.kvm.kvm_pool_info": {"uri": TEST}}
    same = pool(uri=TEST, name="default-pool", state="active", path="/default-pool")
    run = play([made, lvm, told, same, pool(uri=TEST, name="default-pool", state="absent")]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False, False, True]
    assert [one["name"] for one in run.tasks[2].result["pools"]] == ["default-pool"]
