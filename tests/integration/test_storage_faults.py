"""Faults below storage: a full disk at every write, a daemon that dies, files and servers that go. Before-state or wanted state, nothing between.

scripts/integration newest tests/integration/test_storage_faults.py --rounds 100 is the long form.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

MIB = 1024**2


@pytest.fixture(scope="module")
def libvirtd(mortal_libvirtd: Any) -> Any:
    """The daemon of these tests is one that may be killed."""
    return mortal_libvirtd


@pytest.fixture(autouse=True)
def daemon_survives() -> None:
    """Here it does not."""


def volume(**options: Any) -> dict[str, Any]:
    return {"name": "Volume", "anfitrion.kvm.kvm_volume": options}


def pool(**options: Any) -> dict[str, Any]:
    return {"name": "Pool", "anfitrion.kvm.kvm_pool": options}


def source_in(top: Path) -> Path:
    """A qcow2 image of 6 MiB that does not shrink."""
    raw, made = top / "source.raw", top / "source.qcow2"
    raw.write_bytes(os.urandom(6 * MIB) + b"\0" * 2 * MIB)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(made)], check=True)
    return made


def same(one: Path, other: Path) -> bool:
    return subprocess.run(["qemu-img", "compare", str(one), str(other)], capture_output=True, check=False).returncode == 0


@pytest.mark.row("P07")
def test_a_disk_that_gets_full_at_any_write_leaves_no_half_made_volume(
    play: Any, libvirtd: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source, rounds = source_in(tmp_path), request.config.getoption("--rounds")
    sizes = sorted({256 + (12 * 1024 - 256) * step // max(rounds, 1) for step in range(rounds + 1)})  # KiB
    kinds: list[dict[str, Any]] = [
        {"name": "clone.qcow2", "source": {"path": str(source), "format": "qcow2"}},
        {"name": "clone.raw", "format": "raw", "source": {"path": str(source), "format": "qcow2"}},
        {"name": "fetched.qcow2", "source": {"url": source.as_uri(), "format": "qcow2"}},
        {"name": "fixed.qcow2", "capacity": "6MiB", "preallocation": "falloc"},
        {"name": "full.raw", "capacity": "6MiB", "format": "raw", "preallocation": "full"},
    ]
    entries, tops = [], {}
    for size in sizes:
        for kind in kinds:
            name = f"p{size}-{kind['name']}"
            tops[name] = tmp_path / name
            tops[name].mkdir()
            libvirtd.run("mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(tops[name]))
            libvirtd.run("virsh", "pool-create-as", name, "dir", "--target", str(tops[name]))
            entries.append({"pool": name, **kind})
    run = play({**volume(volumes=entries), "ignore_errors": True})
    outcomes = {}
    for entry, result in zip(entries, run.only.result["results"]):
        top = str(tops[entry["pool"]])
        listed = libvirtd.run("ls", "-A", top).stdout.split()
        failed = bool(result.get("failed"))
        outcomes[failed] = outcomes.get(failed, 0) + 1
        assert listed == ([] if failed else [entry["name"]]), (entry, result, listed)
        known = libvirtd.run("virsh", "-q", "vol-list", entry["pool"]).stdout.split()
        assert (entry["name"] in known) is not failed, (entry, known)
        if failed:
            assert "No space left" in result["msg"] or "MiB free; ask for less" in result["msg"], result["msg"]
        elif "source" in entry:
            check = libvirtd.run("qemu-img", "compare", str(source), f"{top}/{entry['name']}", check=False)
            assert check.returncode == 0, entry
        libvirtd.run("virsh", "pool-destroy", entry["pool"])
        libvirtd.run("umount", top)
    assert set(outcomes) == {True, False}, outcomes


class Killer:
    """Kills the daemon once, some time after something new appeared in a directory."""

    def __init__(self, libvirtd: Any, directory: Path, after: float) -> None:
        self.directory, self.after = directory, after
        self.over = threading.Event()
        self.killed = False
        self.pid = libvirtd.now
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self) -> None:
        before = set(os.listdir(self.directory))
        while set(os.listdir(self.directory)) == before:
            if self.over.wait(0.002):
                return
        time.sleep(self.after)
        os.kill(self.pid, signal.SIGKILL)
        self.killed = True

    def __enter__(self) -> Killer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def wait_for_daemon(libvirtd: Any) -> None:
    deadline = time.monotonic() + 60
    while libvirtd.run("virsh", "list", check=False).returncode:
        assert time.monotonic() < deadline, "the daemon does not come back"
        time.sleep(0.2)


@pytest.mark.row("P07")
def test_a_daemon_that_dies_while_volumes_are_made_and_grow_leaves_the_state_before_or_the_wanted_one(
    play: Any, libvirtd: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source, here = source_in(tmp_path), tmp_path / "pool"
    play([pool(name="k", state="active", autostart=True, path=str(here), build=True), volume(pool="k", name="grows", capacity="8MiB")]).succeeded()
    chance = random.Random(4)
    entries: list[dict[str, Any]] = []
    interrupted = 0
    rounds = request.config.getoption("--rounds")
    size, killed = 8, 0
    for number in range(rounds):
        batch: list[dict[str, Any]] = [
            {"name": f"clone{number}", "source": {"path": str(source), "format": "qcow2"}},
            *({"name": f"new{number}-{place}", "capacity": "8MiB"} for place in range(6)),
            {"name": "grows", "capacity": f"{size + 1}MiB"},
        ]
        wait_for_daemon(libvirtd)
        time.sleep(2.1)  # a daemon that dies again at once is given up
        with Killer(libvirtd, here, chance.uniform(0, 0.4)) as killer:
            run = play({**volume(defaults={"pool": "k"}, volumes=batch), "ignore_errors": True})
        interrupted += run.only.outcome == "failed"
        killed += killer.killed
        for entry in batch:
            path = here / entry["name"]
            if path.exists():
                found = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", str(path)]))
                assert found["format"] == "qcow2", entry
                assert subprocess.run(["qemu-img", "check", "-q", str(path)], check=False).returncode == 0, entry
                if "source" in entry:
                    assert same(source, path), entry
        size = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", str(here / "grows")]))["virtual-size"] // MIB
        assert size in (int(batch[-1]["capacity"][:-3]), int(batch[-1]["capacity"][:-3]) - 1)
        entries += batch[:-1]
    wait_for_daemon(libvirtd)
    final = volume(defaults={"pool": "k"}, volumes=[*entries, {"name": "grows", "capacity": f"{size + 1}MiB"}])
    run = play([final, final, {"name": "Tell", "anfitrion.kvm.kvm_volume_info": {"pool": "k"}}]).succeeded()
    assert [one.changed for one in run.tasks[:2]] == [True, False]
    assert run.tasks[2].result["drafts"] == []
    assert sorted(path.name for path in here.iterdir()) == sorted(["grows", *(entry["name"] for entry in entries)])
    play(pool(name="k", state="absent")).succeeded()
    print(f"the daemon was killed {killed} times in {rounds} tasks, {interrupted} of them failed of it")
    assert killed


def children(parent: int) -> list[int]:
    """The processes that the threads of one have started."""
    try:
        return [int(word) for one in Path(f"/proc/{parent}/task").iterdir() for word in (one / "children").read_text().split()]
    except OSError:
        return []  # it ended meanwhile


def content_of(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


class Assassin(threading.Thread):
    """Kills a process of one play once: the nth qemu-img that it or the daemon starts, or while that runs the module itself."""

    def __init__(self, victim: str, play: Path, daemon: int, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.victim, self.play, self.libvirtd = victim, os.fsencode(play), daemon
        self.nth, self.after = chance.randint(1, 16), chance.uniform(0, 0.02)
        self.over, self.killed = threading.Event(), False

    def run(self) -> None:
        seen: set[int] = set()
        module = 0
        while not self.over.wait(0.002):
            module = module or self.module()
            new = {pid for parent in (module, self.libvirtd) for pid in children(parent) if content_of(pid, "comm") == b"qemu-img\n"} - seen
            for pid in new if module else ():
                seen.add(pid)
                if len(seen) == self.nth:
                    return self.kill(pid if self.victim == "qemu-img" else module)
        return None

    def module(self) -> int:
        """The module of this play: a Python without arguments, its code comes to it by a pipe."""
        pids = (int(place.name) for place in Path("/proc").glob("[0-9]*"))
        alike = (pid for pid in pids if content_of(pid, "cmdline") == b"/usr/bin/python3\0")
        return next((pid for pid in alike if self.play in content_of(pid, "environ")), 0)

    def kill(self, pid: int) -> None:
        if self.victim == "module":
            time.sleep(self.after)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it was done before
        self.killed = True

    def __enter__(self) -> Assassin:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def qemu_img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.row("P07")
def test_a_module_or_qemu_img_that_is_killed_leaves_images_as_they_were_or_as_wanted(
    play: Any, libvirtd: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source, here, chance = source_in(tmp_path), tmp_path / "pool", random.Random(7)
    play(pool(name="a", state="active", path=str(here), build=True)).succeeded()
    foreign = {here / "theirs.qcow2": source.read_bytes(), here / "notes.txt": b"not an image", tmp_path / "source.qcow2": source.read_bytes()}
    for path, content in foreign.items():
        path.write_bytes(content)
    killed = {"module": 0, "qemu-img": 0}
    for number in range(request.config.getoption("--rounds")):
        victim = ("module", "qemu-img")[number % 2]
        names = [f"{word}{number}" for word in ("copy", "raw", "fetched", "clone", "flat", "undo", "under", "grown", "shrunk")]
        copy, raw, fetched, clone, flat, undo, under, grown, shrunk = (here / name for name in names)
        qemu_img("create", "-q", "-f", "qcow2", "-b", here / "theirs.qcow2", "-F", "qcow2", flat)
        qemu_img("create", "-q", "-f", "qcow2", under, "8M")
        qemu_img("convert", "-O", "qcow2", "-B", under, "-F", "qcow2", source, undo)
        qemu_img("create", "-q", "-f", "qcow2", grown, "8M")
        qemu_img("create", "-q", "-f", "qcow2", shrunk, "8M")
        batch: list[dict[str, Any]] = [
            {"name": clone.name, "source": {"volume": "theirs.qcow2"}},
            {"name": copy.name, "source": {"path": str(source), "format": "qcow2"}},
            {"name": raw.name, "format": "raw", "source": {"path": str(source), "format": "qcow2"}},
            {"name": fetched.name, "source": {"url": source.as_uri(), "format": "qcow2"}},
            {"name": flat.name, "flatten": True},
            {"name": undo.name, "changes": "commit"},
            {"name": grown.name, "capacity": "9MiB"},
            {"name": shrunk.name, "capacity": "7MiB", "shrink": True},
        ]
        chance.shuffle(batch)
        task, seen = volume(defaults={"pool": "a"}, volumes=batch), tmp_path / f"seen{number}"
        look = {"name": "Look", "ansible.builtin.command": {"argv": ["cp", "-a", str(here), str(seen)]}}
        with Assassin(victim, tmp_path, libvirtd.now, chance) as assassin:
            run = play([{**task, "ignore_errors": True}, look, task, task, {"name": "Tell", "anfitrion.kvm.kvm_volume_info": {"pool": "a"}}])
        killed[victim] += assassin.killed
        assert [one.outcome for one in run.tasks[1:]] == ["ok"] * 4, f"round {number}, {victim}: {run.output}"
        assert run.tasks[3].changed is False, run.output
        assert run.tasks[4].result["drafts"] == []
        for top in (seen, here):
            for path in (copy, raw, fetched, clone, flat, undo):
                at = top / path.name
                assert same(source, at) if top == here or at.exists() else path in (copy, raw, fetched, clone), (number, victim, at)
            sizes = [json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", str(top / one.name)]))["virtual-size"] // MIB
                     for one in (grown, shrunk)]  # fmt: skip
            assert sizes[0] in ((8, 9) if top == seen else (9,))
            assert sizes[1] in ((8, 7) if top == seen else (7,))
        assert same(source, under), "what was committed is not below"
        left = {path.name for path in seen.iterdir()} - {*names, "theirs.qcow2", "notes.txt"}
        assert all(".anfitrion-draft" in name for name in left), left
        assert {path.name for path in here.iterdir()} == {*names, "theirs.qcow2", "notes.txt"}
        assert {path: path.read_bytes() for path in foreign} == foreign
        for name in names:
            (here / name).unlink()
        shutil.rmtree(seen)
    libvirtd.run("virsh", "pool-destroy", "a")
    print(f"killed: {killed}")
    assert all(killed.values())


def test_what_a_killed_task_left_is_told_and_taken_away_by_the_next(play: Any, libvirtd: Any, tmp_path: Path) -> None:
    source, here = source_in(tmp_path), tmp_path / "pool"
    libvirtd.run("virsh", "pool-create-as", "l", "dir", "--target", str(here), "--build")
    (here / "a.anfitrion-draft").write_bytes(b"half")
    (here / "a.anfitrion-draft.fetched").write_bytes(b"half")
    told = {"name": "Tell", "anfitrion.kvm.kvm_volume_info": {"pool": "l"}}
    role = {"name": "Verify", "ansible.builtin.include_role": {"name": "anfitrion.kvm.storage", "tasks_from": "verify"}}
    libvirtd.run("virsh", "pool-refresh", "l")
    said = next(one.message for one in play(role).succeeded().tasks if "what killed tasks left" in one.name)
    assert "'drafts': ['l/a.anfitrion-draft', 'l/a.anfitrion-draft.fetched']" in said
    run = play([told, volume(pool="l", name="a", source={"path": str(source), "format": "qcow2"}), told]).succeeded()
    assert run.tasks[0].result["drafts"] == ["l/a.anfitrion-draft", "l/a.anfitrion-draft.fetched"]
    assert run.tasks[2].result["drafts"] == []
    assert [path.name for path in here.iterdir()] == ["a"]
    (here / "a.anfitrion-draft").hardlink_to(here / "a")  # killed when the image already had its name
    run = play([volume(pool="l", name="a")] * 2).succeeded()
    assert [one.changed for one in run.tasks] == [True, False]
    assert [path.name for path in here.iterdir()] == ["a"]
    # The directory goes, and the chain with it.
    over = volume(pool="l", name="over", backing={"pool": "l", "volume": "a", "format": "qcow2"})
    play(over).succeeded()
    (here / "a").unlink()
    run = play([told, {**volume(pool="l", name="b", backing={"pool": "l", "volume": "over", "format": "qcow2"}), "ignore_errors": True}])
    assert run.tasks[0].result["broken_chains"] == [{"volume": "l/over", "backing": str(here / "a")}]
    assert "its chain of images is broken" in run.tasks[1].message, run.output
    gone = [{"volume": "l/over", "backing": str(here / "a")}]
    assert [one.message for one in play(role).failed] == [f"images that lie on one that is gone: {gone}"]
    libvirtd.run("virsh", "pool-destroy", "l")


@pytest.mark.row("P07")
def test_a_volume_that_is_a_device_and_was_being_filled_is_not_taken_for_a_whole_one(play: Any, libvirtd: Any, tmp_path: Path) -> None:
    disk, source = tmp_path / "disk", source_in(tmp_path)
    disk.write_bytes(b"")
    os.truncate(disk, 64 * MIB)
    device = subprocess.check_output(["losetup", "--find", "--show", "--partscan", str(disk)], text=True).strip()
    name = f"{Path(device).name}p1"
    made = volume(pool="d", name=name, capacity="16MiB", source={"path": str(source), "format": "qcow2"})
    told = {"name": "Tell", "anfitrion.kvm.kvm_volume_info": {"pool": "d"}}
    try:
        play(pool(name="d", state="active", type="disk", build=True, source={"devices": [device], "format": "gpt"})).succeeded()
        with Assassin("module", tmp_path, libvirtd.now, random.Random(1)) as assassin:
            assassin.nth = 2  # the first looks at what is copied, the second copies it
            run = play([{**made, "ignore_errors": True}, {**made, "ignore_errors": True}, told])
        assert assassin.killed
        assert "it is half made" in run.tasks[1].message, run.output
        assert run.tasks[2].result["drafts"] == [f"d/{name}"]
        # libvirt 9.0 cannot delete a partition of a device whose name ends in a digit.
        libvirtd.run("parted", "--script", device, "rm", "1")
        gone = volume(pool="d", name=name, state="absent")
        run = play([gone, gone, made, made, told]).succeeded()
        assert [one.changed for one in run.tasks] == [True, False, True, False, False]
        assert run.tasks[4].result["drafts"] == []
        subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", f"{device}p1", str(source)], check=True, stdout=subprocess.DEVNULL)
        play(pool(name="d", state="absent")).succeeded()
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_server_that_is_gone_and_a_path_that_is_gone_are_told_in_words(play: Any, libvirtd: Any, tmp_path: Path) -> None:
    gone = {
        "name": "gone", "type": "iscsi-direct", "state": "active",
        "source": {"hosts": ["127.0.0.1:3261"], "devices": ["iqn.2025-01.example:x"], "initiator": "iqn.2025-01.example:h"},
    }  # fmt: skip
    made = pool(name="moved", state="active", path=str(tmp_path / "moved"), build=True)
    play(made).succeeded()
    (tmp_path / "moved").rmdir()
    before = libvirtd.state()
    run = play([
        {**pool(**gone), "ignore_errors": True},
        {**volume(pool="moved", name="a", capacity="8MiB"), "ignore_errors": True},
        {**volume(pool="moved", name="b", source={"url": "http://127.0.0.1:1/x", "format": "qcow2"}), "ignore_errors": True},
    ])  # fmt: skip
    words = ("cannot start: ", "moved", "moved")
    for word, one in zip(words, run.tasks):
        assert one.outcome == "failed"
        assert word in one.message, run.output
    assert libvirtd.state() == before
    libvirtd.run("virsh", "pool-destroy", "moved")
