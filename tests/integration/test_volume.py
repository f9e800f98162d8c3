"""kvm_volume on a real libvirt, and on libvirt's test driver."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

TEST = "test:///default"


def volume(**options: Any) -> dict[str, Any]:
    return {"name": f"Volume {options.get('state', '')}", "anfitrion.kvm.kvm_volume": options}


@pytest.fixture
def pool(libvirtd: Any, tmp_path: Path, fresh_name: str) -> Iterator[str]:
    """An active pool in tmp_path/pool."""
    libvirtd.run("virsh", "pool-create-as", fresh_name, "dir", "--target", str(tmp_path / "pool"), "--build")
    yield fresh_name
    libvirtd.run("virsh", "pool-destroy", fresh_name)


@pytest.fixture
def guest(libvirtd: Any, tmp_path: Path, fresh_name: str) -> Iterator[Callable[..., None]]:
    """guest(path, "create") runs a guest with the image as its disk, guest(path, "define") only has it."""

    def make(path: Path, verb: str, kind: str = "raw") -> None:
        (tmp_path / "guest.xml").write_text(
            f"""<domain type="qemu"><name>{fresh_name}</name><memory unit="MiB">32</memory>
            <os><type arch="x86_64" machine="q35">hvm</type></os><features><acpi/></features><devices><disk type="file" device="disk">
            <driver name="qemu" type="{kind}"/><source file="{path}"/><target dev="vda" bus="virtio"/></disk></devices></domain>"""
        )
        libvirtd.run("virsh", verb, str(tmp_path / "guest.xml"))

    yield make
    for verb in ("destroy", "undefine"):
        libvirtd.run("virsh", verb, fresh_name, check=False)


def image(path: Path) -> dict[str, Any]:
    """What qemu-img says of an image, also while a guest has it open."""
    return dict(json.loads(subprocess.check_output(["qemu-img", "info", "-U", "--output=json", str(path)])))


@pytest.mark.row("P07")
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_volume_is_created_grown_and_deleted(cycle: Any, pool: str, tmp_path: Path, kind: str) -> None:
    present = {"pool": pool, "name": f"disk.{kind}", "format": kind, "capacity": "8MiB", "allocation": "0B", "permissions": {"mode": "0640"}}
    seen = cycle("kvm_volume", present, {"capacity": "16MiB", "permissions": {"mode": "0600"}})
    assert seen.present.apply.result["steps"] == [f"create volume disk.{kind} in pool {pool}"]
    changes = {one["option"]: one["how"] for one in seen.change.apply.result["changes"]}
    assert changes == {"capacity": "define", "permissions.mode": "host"}
    assert list((tmp_path / "pool").iterdir()) == []


@pytest.mark.row("S25")
def test_thin_fixed_and_differencing_images_are_what_they_say(play: Any, pool: str, tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = [
        {"name": "thin.qcow2", "capacity": "64MiB"},
        {"name": "thin.raw", "capacity": "64MiB", "format": "raw", "allocation": "0B"},
        {"name": "fixed.raw", "capacity": "8MiB", "format": "raw"},
        {"name": "fixed.qcow2", "capacity": "8MiB", "allocation": "8MiB"},
        {"name": "odd.qcow2", "capacity": "1000001B"},
        {"name": "over.qcow2", "capacity": "128MiB", "backing": {"pool": pool, "volume": "thin.qcow2", "format": "qcow2"}},
        {"name": "same.qcow2", "backing": {"path": f"{tmp_path}/pool/thin.raw", "format": "raw"}},
    ]
    task = volume(defaults={"pool": pool}, volumes=entries)
    check = {**task, "check_mode": True}
    run = play([check, task, task]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert run.tasks[0].diff == run.tasks[1].diff
    assert run.tasks[1].result["results"][0]["defaults_applied"] == ["format"]
    here = tmp_path / "pool"
    assert image(here / "thin.qcow2")["format"] == "qcow2"
    assert os.stat(here / "thin.raw").st_blocks == 0
    assert os.stat(here / "fixed.raw").st_blocks * 512 >= 8 * 1024**2
    assert os.stat(here / "fixed.qcow2").st_blocks * 512 >= 8 * 1024**2
    over = image(here / "over.qcow2")
    assert (over["backing-filename"], over["backing-filename-format"], over["virtual-size"]) == (str(here / "thin.qcow2"), "qcow2", 128 * 1024**2)
    assert image(here / "same.qcow2")["virtual-size"] == 64 * 1024**2
    gone = volume(defaults={"pool": pool, "state": "absent"}, volumes=[{"name": one["name"]} for one in reversed(entries)])
    assert play([gone, gone]).succeeded().tasks[1].changed is False
    assert list(here.iterdir()) == []


def test_what_the_info_module_tells_is_a_task_that_changes_nothing(play: Any, pool: str, tmp_path: Path) -> None:
    made = volume(pool=pool, name="a.qcow2", capacity="8MiB")
    over = volume(pool=pool, name="b.qcow2", backing={"path": f"{tmp_path}/pool/a.qcow2", "format": "qcow2"})
    told = {"name": "Tell", "anfitrion.kvm.kvm_volume_info": {"pool": pool}, "register": "told"}
    run = play([made, over, told, volume(volumes="{{ told.volumes }}")]).succeeded()
    names = [(one["pool"], one["name"], one["capacity"], one["format"]) for one in run.tasks[2].result["volumes"]]
    assert names == [(pool, "a.qcow2", "8MiB", "qcow2"), (pool, "b.qcow2", "8MiB", "qcow2")]
    assert not run.tasks[3].changed


def test_files_that_come_and_go_behind_libvirts_back_are_seen(play: Any, pool: str, tmp_path: Path) -> None:
    task = volume(pool=pool, name="a.raw", format="raw", capacity="8MiB", allocation="0B")
    (tmp_path / "pool" / "a.raw").write_bytes(b"\0" * 8 * 1024**2)
    assert not play(task).succeeded().only.changed
    (tmp_path / "pool" / "a.raw").unlink()
    gone = volume(pool=pool, name="a.raw", state="absent")
    run = play([gone, {**task, "check_mode": True}, task, task]).succeeded()
    assert [one.changed for one in run.tasks] == [False, True, True, False]


@pytest.mark.row("S25")
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_disk_of_a_running_guest_grows_in_it(play: Any, libvirtd: Any, pool: str, guest: Any, tmp_path: Path, fresh_name: str, kind: str) -> None:
    options = {"pool": pool, "name": "disk", "format": kind, "capacity": "8MiB"}
    play(volume(**options)).succeeded()
    guest(tmp_path / "pool" / "disk", "create", kind)
    more = volume(**{**options, "capacity": "16MiB"})
    run = play([{**more, "check_mode": True}, more, more]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False]
    assert run.tasks[1].result["changes"] == [{"option": "capacity", "before": "8MiB", "after": "16MiB", "how": "live"}]
    assert run.tasks[0].diff == run.tasks[1].diff
    assert str(16 * 1024**2) in libvirtd.run("virsh", "domblkinfo", fresh_name, "vda").stdout


@pytest.mark.parametrize(("verb", "word"), [("create", "running domain"), ("define", "domain")])
def test_a_volume_that_a_guest_has_is_not_deleted(play: Any, libvirtd: Any, pool: str, guest: Any, tmp_path: Path, verb: str, word: str) -> None:
    play(volume(pool=pool, name="disk", format="raw", capacity="8MiB")).succeeded()
    (tmp_path / "link").symlink_to(tmp_path / "pool")
    guest(tmp_path / "link" / "disk", verb)
    run = play([{**volume(pool=pool, name="disk", state="absent"), "check_mode": check, "ignore_errors": True} for check in (True, False)])
    for one in run.tasks:
        assert one.message.startswith(f"volume '{pool}/disk': cannot be deleted, it is used by the {word} {pool}")
    assert (tmp_path / "pool" / "disk").exists()


@pytest.mark.row("P09")
def test_what_images_elsewhere_lie_on_is_not_deleted(play: Any, libvirtd: Any, pool: str, tmp_path: Path, fresh_name: str) -> None:
    """A clone in another pool, and the disk of a guest that does not run, which is in no pool: only its header says what is below it."""
    other, guest, top = f"{pool}-clones", f"{fresh_name}g", tmp_path / "alone" / "top.qcow2"
    there = {"name": other, "type": "dir", "path": str(tmp_path / "clones"), "build": True, "state": "active"}
    bases = [{"name": name, "format": "qcow2", "capacity": "8MiB"} for name in ("one", "two")]
    clone = {"name": "over", "pool": other, "backing": {"pool": pool, "volume": "one", "format": "qcow2"}}
    play([{"name": "Pool", "anfitrion.kvm.kvm_pool": there}, volume(defaults={"pool": pool}, volumes=bases), volume(**clone)]).succeeded()
    top.parent.mkdir()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(tmp_path / "pool" / "two"), "-F", "qcow2", str(top)], check=True)
    disk = {"target": "vda", "path": str(top)}
    play({"name": "Guest", "anfitrion.kvm.kvm_domain": {"name": guest, "type": "qemu", "disks": [disk]}}).succeeded()

    gone = [{**volume(pool=pool, name=name, state="absent"), "ignore_errors": True} for name in ("one", "two")]
    one, two = play(gone).tasks
    assert one.message.endswith(f"cannot be deleted, it is the backing of volume {other}/over; delete that first")
    assert two.message.endswith(f"cannot be deleted, it is used by the domain {guest}; take the disk from it first")
    assert [(tmp_path / "pool" / name).exists() for name in ("one", "two")] == [True, True]

    play({"name": "Guest", "anfitrion.kvm.kvm_domain": {"name": guest, "state": "absent"}}).succeeded()
    both = volume(volumes=[{"pool": other, "name": "over", "state": "absent"}, {"pool": pool, "name": "one", "state": "absent"}])
    play([both, gone[1], {"name": "Pool", "anfitrion.kvm.kvm_pool": {"name": other, "state": "absent"}}]).succeeded()


def test_bad_input_gets_a_clear_error_and_changes_nothing(play: Any, libvirtd: Any, pool: str, tmp_path: Path) -> None:
    standing = [
        {"pool": pool, "name": "base", "capacity": "8MiB", "format": "raw"},
        {"pool": pool, "name": "over", "backing": {"pool": pool, "volume": "base", "format": "raw"}},
        {"pool": pool, "name": "small", "capacity": "8MiB"},
    ]
    play(volume(volumes=standing)).succeeded()
    libvirtd.run("virsh", "pool-define-as", "asleep", "dir", "--target", str(tmp_path / "asleep"))
    here, before = tmp_path / "pool", libvirtd.state()
    files = {path.name: path.stat().st_mtime_ns for path in here.iterdir()}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "small", "capacity": "4MiB"}, "capacity: cannot shrink from 8MiB to 4MiB, that would lose data"),
        ({"name": "over", "format": "raw"}, "an image of format raw cannot have one"),
        ({"name": "base", "format": "qcow2"}, "format: cannot be changed from raw to qcow2; make a new volume and copy the data"),
        ({"name": "base", "state": "absent"}, "cannot be deleted, it is the backing of volume over; delete that first"),
        ({"name": "n1"}, "capacity: must be given for a new volume"),
        ({"name": "n3", "capacity": "1PiB", "format": "raw"}, "capacity: takes 1PiB at once, pool"),
        ({"name": "n4", "capacity": "8MiB", "allocation": "9MiB"}, "allocation: 9MiB is greater than capacity 8MiB"),
        ({"name": "n5", "backing": {"path": "/nonesuch", "format": "raw"}}, "backing: /nonesuch does not exist; create it first"),
        ({"name": "n6", "backing": {"path": f"{here}/base", "volume": "base", "format": "raw"}}, "backing: pool and volume go together"),
        ({"name": "n7", "backing": {"path": f"{here}/base", "format": "raw"}, "format": "raw"}, "an image of format raw cannot have one"),
        ({"pool": "nope", "name": "n8", "capacity": "8MiB"}, "pool 'nope' does not exist; define it with anfitrion.kvm.kvm_pool"),
        ({"pool": "asleep", "name": "n9", "capacity": "8MiB"}, "pool 'asleep' is not active; have it active with anfitrion.kvm.kvm_pool"),
    ]
    values = [({"capacity": "0B"}, "must be more than 0"), ({"capacity": "100"}, "has no unit"), ({"capacity": "8EiB"}, "must be less than 8EiB")]
    values += [({"name": "../x"}, "is not allowed"), ({"name": "a\nb"}, "control characters are not allowed")]
    tasks = [{**volume(**{"pool": pool, "name": "x", **options}), "ignore_errors": True} for options, _text in values]
    twice = cases[2]  # a volume can be named once a task
    tasks.append({**volume(pool=pool, name="base", permissions={"mode": "0666"}), "ignore_errors": True})
    tasks.append({**volume(defaults={"pool": pool}, volumes=[case[0] for case in cases if case is not twice]), "ignore_errors": True})
    tasks.append({**volume(**{"pool": pool, **twice[0]}), "ignore_errors": True})
    run = play(tasks)
    told = "\n".join(task.message for task in run.tasks)
    assert [text for _options, text in [*cases, *values] if text not in told] == []
    assert "world-writable is refused" in told
    assert all(task.outcome == "failed" for task in run.tasks)
    assert libvirtd.state() == before
    assert {path.name: path.stat().st_mtime_ns for path in here.iterdir()} == files
    libvirtd.run("virsh", "pool-undefine", "asleep")


def test_a_pool_that_an_earlier_task_would_make_is_a_warning_in_check_mode(play: Any, fresh_name: str, tmp_path: Path) -> None:
    tasks = [
        {"name": "Pool", "anfitrion.kvm.kvm_pool": {"name": fresh_name, "state": "active", "path": str(tmp_path / "p"), "build": True}},
        volume(pool=fresh_name, name="a.qcow2", capacity="8MiB"),
        volume(pool=fresh_name, name="b.qcow2", backing={"pool": fresh_name, "volume": "a.qcow2", "format": "qcow2"}),
        volume(pool=fresh_name, name="c.qcow2", state="absent"),
    ]
    check, real = play(tasks, check=True).succeeded(), play(tasks).succeeded()
    assert [one.changed for one in check.tasks] == [one.changed for one in real.tasks] == [True, True, True, False]
    assert f"pool '{fresh_name}' does not exist" in check.tasks[1].result["warnings"][0]
    play([
        volume(defaults={"pool": fresh_name, "state": "absent"}, volumes=[{"name": "b.qcow2"}, {"name": "a.qcow2"}]),
        {"name": "Pool", "anfitrion.kvm.kvm_pool": {"name": fresh_name, "state": "absent"}},
    ]).succeeded()  # fmt: skip


def test_a_full_disk_leaves_nothing_behind(play: Any, libvirtd: Any, tmp_path: Path, fresh_name: str) -> None:
    (tmp_path / "small").mkdir()
    libvirtd.run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path / "small"))
    libvirtd.run("virsh", "pool-create-as", fresh_name, "dir", "--target", str(tmp_path / "small"))
    fixed = {"pool": fresh_name, "name": "a.qcow2", "capacity": "4MiB", "allocation": "4MiB"}
    # The first is seen before; the second has room for the data and none for the tables of the format.
    run = play([{**volume(pool=fresh_name, name="a.raw", format="raw", capacity="8MiB"), "ignore_errors": True},
                {**volume(**fixed), "ignore_errors": True}])  # fmt: skip
    left = libvirtd.run("ls", str(tmp_path / "small")).stdout
    libvirtd.run("virsh", "pool-destroy", fresh_name)
    libvirtd.run("umount", str(tmp_path / "small"))
    assert run.tasks[0].outcome == run.tasks[1].outcome == "failed"
    assert "takes 8MiB at once, pool" in run.tasks[0].message
    assert "No space left" in run.tasks[1].message
    assert left == ""


def test_the_test_driver_takes_and_tells_volumes(play: Any) -> None:
    made = volume(uri=TEST, pool="default-pool", name="a", capacity="8MiB", format="raw")
    told = {"name": "Tell", "anfitrion.kvm.kvm_volume_info": {"uri": TEST}}
    run = play([made, told, volume(uri=TEST, pool="default-pool", name="a", state="absent")]).succeeded()
    assert [one.changed for one in run.tasks] == [True, False, False]
