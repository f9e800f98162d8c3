"""The image properties of S25, each held against what qemu-img says and what QEMU reads and writes, in a running guest too."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import guest_os
import pytest

MIB = 1024**2


def volume(**options: Any) -> dict[str, Any]:
    return {"name": f"Volume {options.get('name', '')}", "anfitrion.kvm.kvm_volume": options}


def life(**options: Any) -> list[dict[str, Any]]:
    """Check, apply, again."""
    task = volume(**options)
    return [{**task, "check_mode": True}, task, task]


def assert_lives(run: Any, first: int = 0) -> None:
    """Every three tasks: check mode and the real run say changed with one diff, the next says unchanged."""
    tasks = run.succeeded().tasks[first:]
    assert [one.changed for one in tasks] == [True, True, False] * (len(tasks) // 3), run.output
    for place in range(0, len(tasks), 3):
        assert tasks[place].diff == tasks[place + 1].diff, run.output


def info(path: Path) -> dict[str, Any]:
    return dict(json.loads(subprocess.check_output(["qemu-img", "info", "-U", "--output=json", str(path)])))


def allocated(path: Path) -> int:
    return os.stat(path).st_blocks * 512


def write(path: Path, pattern: int, where: str = "0 64k") -> None:
    """Write as a guest that is not running now would have."""
    subprocess.run(["qemu-io", "-c", f"write -P {pattern} {where}", str(path)], check=True, capture_output=True)


def reads(path: Path, pattern: int, where: str = "0 64k") -> bool:
    found = subprocess.run(["qemu-io", "-U", "-r", "-c", f"read -P {pattern} {where}", str(path)], check=True, capture_output=True, text=True)
    return "verification failed" not in found.stdout


def same(one: Path, other: Path, *flags: str) -> bool:
    return subprocess.run(["qemu-img", "compare", *flags, str(one), str(other)], capture_output=True, check=False).returncode == 0


@pytest.fixture
def pool(libvirtd: Any, tmp_path: Path, fresh_name: str) -> Iterator[str]:
    libvirtd.run("virsh", "pool-create-as", fresh_name, "dir", "--target", str(tmp_path / "pool"), "--build")
    yield fresh_name
    libvirtd.run("virsh", "pool-destroy", fresh_name, check=False)


@pytest.fixture
def guest(libvirtd: Any, tmp_path: Path, fresh_name: str) -> Iterator[Callable[..., Callable[..., str]]]:
    """guest(path) runs a guest with the image as its disk; what it returns writes and reads through that guest's QEMU."""

    def start(path: Path, extra: str = "") -> Callable[..., str]:
        (tmp_path / "guest.xml").write_text(
            f"""<domain type="qemu"><name>{fresh_name}</name><memory unit="MiB">32</memory>
            <os><type arch="x86_64" machine="q35">hvm</type></os><features><acpi/></features><devices><disk type="file" device="disk">
            <driver name="qemu" type="qcow2"/><source file="{path}"/><target dev="vda" bus="virtio"/>{extra}</disk></devices></domain>"""
        )
        libvirtd.run("virsh", "define", str(tmp_path / "guest.xml"))
        libvirtd.run("virsh", "start", fresh_name)

        def inside(command: str) -> str:
            # Before the guest's firmware has settled its disk's cache mode, what QEMU writes is not in the file until it is flushed.
            words = [f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "{one}"' for one in (command, "flush")]
            return "".join(libvirtd.run("virsh", "qemu-monitor-command", fresh_name, "--hmp", one).stdout for one in words)

        return inside

    yield start
    for verb in ("destroy", "undefine"):
        libvirtd.run("virsh", verb, fresh_name, check=False)


@pytest.mark.row("S25")
def test_images_are_dynamic_or_fixed_as_they_say(play: Any, pool: str, tmp_path: Path) -> None:
    kinds = [("dynamic.qcow2", "qcow2", "off"), ("dynamic.raw", "raw", "off"), ("tables.qcow2", "qcow2", "metadata")]
    kinds += [(f"{layout}.{kind}", kind, layout) for layout in ("falloc", "full") for kind in ("raw", "qcow2")]
    entries = [{"name": name, "format": kind, "preallocation": layout} for name, kind, layout in kinds]
    assert_lives(play(life(defaults={"pool": pool, "capacity": "64MiB"}, volumes=entries)))
    here = tmp_path / "pool"
    for name, kind, layout in kinds:
        assert (info(here / name)["format"], info(here / name)["virtual-size"]) == (kind, 64 * MIB)
        size = allocated(here / name)
        if layout == "off":
            assert size < 64 * MIB // 100, f"{name} takes {size} bytes"
        elif layout == "metadata":
            assert size < 64 * MIB // 10
            mapped = json.loads(subprocess.check_output(["qemu-img", "map", "--output=json", str(here / name)]))
            assert all("offset" in extent for extent in mapped), "an extent has no place in the file"
        else:
            assert size >= 64 * MIB, f"{name} takes {size} bytes"
    assert sorted(path.name for path in here.iterdir()) == sorted(name for name, _kind, _layout in kinds)


@pytest.mark.row("S25")
@pytest.mark.row("P07")
def test_content_comes_from_a_volume_a_file_and_an_address(play: Any, pool: str, tmp_path: Path) -> None:
    here, outside = tmp_path / "pool", tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(outside), "8M"], check=True)
    write(outside, 7, "1M 1M")
    digest = hashlib.sha256(outside.read_bytes()).hexdigest()
    entries: list[dict[str, Any]] = [
        {"name": "file.qcow2", "source": {"path": str(outside), "format": "qcow2", "checksum": f"sha256:{digest}"}, "capacity": "16MiB"},
        {"name": "url.qcow2", "source": {"url": outside.as_uri(), "format": "qcow2", "checksum": f"sha256:{digest.upper()}"}},
        {"name": "clone.raw", "format": "raw", "source": {"volume": "url.qcow2"}},
        {"name": "clone.vmdk", "format": "vmdk", "source": {"volume": "clone.raw"}},
        {"name": "back.qcow2", "source": {"volume": "clone.vmdk"}, "permissions": {"mode": "0640"}},
    ]
    download = {"name": "back.qcow2", "download": {"path": str(tmp_path / "out.vdi"), "format": "vdi"}}
    run = play([*life(defaults={"pool": pool}, volumes=entries), *life(pool=pool, **download)])
    assert_lives(run)
    for name in ("url.qcow2", "clone.raw", "clone.vmdk", "back.qcow2"):
        assert same(outside, here / name), name
    assert same(outside, tmp_path / "out.vdi")
    assert info(here / "file.qcow2")["virtual-size"] == 16 * MIB
    assert same(outside, here / "file.qcow2")
    assert allocated(here / "clone.raw") < 2 * MIB, "zeros take space"
    assert (here / "back.qcow2").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in here.iterdir()) == sorted(one["name"] for one in entries)


@pytest.fixture
def served(libvirtd: Any, tmp_path: Path) -> Iterator[tuple[str, Path, Callable[[str], int]]]:
    """A web server beside the daemon: its address, its directory, and how often a file of it was asked for."""
    directory, log = tmp_path / "www", tmp_path / "www.log"
    directory.mkdir()
    script = (
        "import http.server as h; s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler);"
        " print(s.server_port, flush=True); s.serve_forever()"
    )
    command = libvirtd.command("/usr/bin/python3", "-c", script)
    with log.open("w") as file, subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=file, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        yield f"http://127.0.0.1:{port}", directory, lambda name: log.read_text().count(f"GET /{name} ")
        server.terminate()


@pytest.mark.row("P04")
def test_an_address_is_held_against_a_file_of_sums_and_fetched_once(play: Any, pool: str, served: Any, tmp_path: Path) -> None:
    url, www, asked = served
    here, cache = tmp_path / "pool", tmp_path / "cache"
    for name, pattern in (("one.qcow2", 7), ("two.qcow2", 8)):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(www / name), "8M"], check=True)
        write(www / name, pattern)
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(www.iterdir()))
    (www / "SHA256SUMS").write_text(sums)
    source = {"url": f"{url}/one.qcow2", "format": "qcow2", "checksum": f"sha256:{url}/SHA256SUMS", "cache": str(cache)}
    entries = [{"name": "a.qcow2"}, {"name": "b.raw", "format": "raw"}]
    assert_lives(play(life(defaults={"pool": pool, "source": source}, volumes=entries)))
    assert asked("one.qcow2") == 1, "two volumes of one address and one digest"
    assert (here / "a.qcow2").read_bytes() == (www / "one.qcow2").read_bytes()
    assert same(www / "one.qcow2", here / "b.raw")
    assert cache.stat().st_mode & 0o777 == 0o700
    (kept,) = cache.iterdir()

    def made(name: str, **more: Any) -> Any:
        return play({**volume(pool=pool, name=name, source={**source, **more}), "ignore_errors": True}).only

    kept.write_bytes(b"something else")  # what is kept is not believed
    assert made("c.qcow2").changed
    assert asked("one.qcow2") == 2
    assert same(www / "one.qcow2", here / "c.qcow2")
    # A file of sums of the host, and one that speaks of something else.
    (tmp_path / "sums").write_text(sums.replace(" one.qcow2", " x.qcow2"))
    assert f"{tmp_path}/sums has no digest of sha256 for one.qcow2" in made("d.qcow2", checksum=f"sha256:{tmp_path}/sums").message
    assert made("e.qcow2", url=f"{url}/two.qcow2", checksum=f"sha256:{tmp_path}/sums").changed
    assert asked("two.qcow2") == 1
    # The content changes below its sums: refused, and nothing of it is kept.
    write(www / "two.qcow2", 9)
    before = sorted(cache.iterdir())
    for file in before:
        file.unlink()
    assert "two.qcow2 has sha256:" in made("f.qcow2", url=f"{url}/two.qcow2").message
    assert "source.checksum: cannot fetch" in made("f.qcow2", checksum=f"sha256:{url}/none").message
    cache.chmod(0o777)
    assert "others than its owner may write" in made("f.qcow2").message
    assert list(cache.iterdir()) == []
    assert sorted(path.name for path in here.iterdir()) == ["a.qcow2", "b.raw", "c.qcow2", "e.qcow2"]


@pytest.mark.row("S25")
def test_images_are_made_smaller_and_wiped_only_on_request(play: Any, libvirtd: Any, pool: str, tmp_path: Path) -> None:
    for kind in ("raw", "qcow2"):
        name = f"disk.{kind}"
        options = {"pool": pool, "name": name, "format": kind, "capacity": "16MiB", "preallocation": "off"}
        smaller = {**options, "capacity": "8MiB"}
        run = play([volume(**options), {**volume(**smaller), "ignore_errors": True}, *life(**smaller, shrink=True)])
        assert "capacity: cannot shrink from 16MiB to 8MiB" in run.tasks[1].message
        assert [one.changed for one in run.tasks[2:]] == [True, True, False]
        assert info(tmp_path / "pool" / name)["virtual-size"] == 8 * MIB
    write(tmp_path / "pool" / "disk.raw", 0x5A)
    held = open(tmp_path / "pool" / "disk.raw", "rb")  # noqa: SIM115  what the file held is looked at after it has no name
    run = play(life(pool=pool, name="disk.raw", state="absent", wipe="zero"))
    assert_lives(run)
    assert run.tasks[1].result["steps"] == ["wipe volume disk.raw (zero)", "delete volume disk.raw"]
    assert set(held.read()) <= {0}
    held.close()
    scrubbed = play([volume(pool=pool, name="disk.qcow2", state="absent", wipe="nnsa")]).succeeded()
    assert scrubbed.only.changed


@pytest.mark.row("P07")
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_every_way_to_wipe_overwrites_what_the_file_held(play: Any, pool: str, tmp_path: Path, kind: str) -> None:
    ways = ("zero", "nnsa", "dod", "bsi", "gutmann", "schneier", "pfitzner7", "pfitzner33", "random")
    entries = [{"name": f"{way}.{kind}", "format": kind, "capacity": "1MiB", "preallocation": "off"} for way in ways]
    play(volume(defaults={"pool": pool}, volumes=entries)).succeeded()
    words, held = b"a secret of the guest", {}
    for entry in entries:
        (tmp_path / "secret").write_bytes(words.ljust(512, b"."))
        path = tmp_path / "pool" / str(entry["name"])
        subprocess.run(["qemu-io", "-f", kind, "-c", f"write -s {tmp_path}/secret 64k 512", str(path)], check=True, capture_output=True)
        assert words in path.read_bytes()
        held[entry["name"]] = open(path, "rb")  # noqa: SIM115  what the file held is looked at after it has no name
    gone = [{"name": entry["name"], "state": "absent", "wipe": way} for entry, way in zip(entries, ways)]
    play([{**volume(defaults={"pool": pool}, volumes=gone), "check_mode": True}, volume(defaults={"pool": pool}, volumes=gone)]).succeeded()
    assert list((tmp_path / "pool").iterdir()) == []
    for name, file in held.items():
        with file:
            assert words not in file.read(), name


@pytest.mark.row("S25")
def test_differencing_images_make_chains_that_are_limited_and_flattened(play: Any, pool: str, tmp_path: Path) -> None:
    here = tmp_path / "pool"
    play(volume(pool=pool, name="l0", format="raw", capacity="8MiB", preallocation="off")).succeeded()
    write(here / "l0", 1, "0 1M")
    chain = [
        {"name": f"l{level}", "backing": {"pool": pool, "volume": f"l{level - 1}", "format": "raw" if level == 1 else "qcow2"}} for level in (1, 2, 3)
    ]
    run = play(life(defaults={"pool": pool}, volumes=chain, chain_depth_max=4))
    assert_lives(run)
    write(here / "l2", 2, "1M 1M")
    found = info(here / "l3")
    assert (found["full-backing-filename"], found["backing-filename-format"]) == (str(here / "l2"), "qcow2")
    deeper = volume(pool=pool, name="l4", backing={"pool": pool, "volume": "l3", "format": "qcow2"}, chain_depth_max=4)
    warned = volume(pool=pool, name="l4", backing={"pool": pool, "volume": "l3", "format": "qcow2"}, chain_depth_max=4, on_exceed="warn")
    run = play([{**deeper, "ignore_errors": True}, {**warned, "check_mode": True}, *life(pool=pool, name="l3", flatten=True)])
    assert "backing: 5 images would lie on each other, at most 4 may" in run.tasks[0].message
    assert "5 images would lie on each other" in run.tasks[1].result["warnings"][0]
    assert [one.changed for one in run.tasks[2:]] == [True, True, False]
    alone = info(here / "l3")
    assert "backing-filename" not in alone
    assert reads(here / "l3", 1, "0 1M")
    assert reads(here / "l3", 2, "1M 1M")


@pytest.mark.row("S25")
def test_an_undo_image_keeps_what_is_written_until_it_is_committed_or_discarded(
    play: Any, libvirtd: Any, pool: str, tmp_path: Path, guest: Any
) -> None:
    here = tmp_path / "pool"
    undo = {"pool": pool, "name": "undo", "backing": {"pool": pool, "volume": "disk", "format": "qcow2"}}
    play([volume(pool=pool, name="disk", capacity="8MiB"), volume(**undo)]).succeeded()
    write(here / "disk", 1, "0 1M")
    write(here / "undo", 2)
    assert_lives(play(life(**undo, changes="discard")))
    assert reads(here / "undo", 1)
    write(here / "undo", 3)
    assert_lives(play(life(**undo, changes="commit")))
    assert reads(here / "disk", 3)
    # And in a running guest, which goes on with the same disk.
    inside = guest(here / "undo")
    inside("write -P 4 1M 64k")
    refused = {**volume(**undo, changes="discard"), "ignore_errors": True}
    run = play([refused, *life(**undo, changes="commit")])
    assert f"changes: {pool} runs with it; stop it before its changes are forgotten" in run.tasks[0].message
    assert [one.changed for one in run.tasks[1:]] == [True, True, False], run.output
    assert run.tasks[2].result["changes"][0]["how"] == "live"
    inside("write -P 5 2M 64k")
    assert str(here / "undo") in libvirtd.run("virsh", "domblklist", pool).stdout
    assert str(here / "undo") in libvirtd.run("virsh", "domblklist", pool, "--inactive").stdout
    libvirtd.run("virsh", "destroy", pool)
    assert reads(here / "disk", 4, "1M 64k")
    assert reads(here / "disk", 0, "2M 64k"), "what was written after the commit is below"
    assert reads(here / "undo", 5, "2M 64k")


@pytest.mark.row("S25")
def test_a_chain_is_flattened_and_a_disk_grows_under_a_running_guest(play: Any, libvirtd: Any, pool: str, tmp_path: Path, guest: Any) -> None:
    here = tmp_path / "pool"
    over = {"pool": pool, "name": "over", "backing": {"pool": pool, "volume": "base", "format": "qcow2"}}
    play([volume(pool=pool, name="base", capacity="8MiB"), volume(**over)]).succeeded()
    write(here / "base", 1, "0 1M")
    inside = guest(here / "over")
    inside("write -P 2 1M 64k")
    in_use = [volume(pool=pool, name="over", **more) for more in ({"state": "absent"}, {"capacity": "4MiB", "shrink": True})]
    in_use += [volume(pool=pool, name="copy", source={"volume": "over"}), volume(pool=pool, name="over", download={"path": str(tmp_path / "x")})]
    run = play([*({**one, "ignore_errors": True} for one in in_use), *life(pool=pool, name="over", flatten=True, capacity="16MiB")])
    words = ("used by the running domain", "cannot shrink while", "is written by the running domain", "is written by the running domain")
    assert [word for word, one in zip(words, run.tasks) if word not in one.message] == []
    assert [one.changed for one in run.tasks[4:]] == [True, True, False], run.output
    assert {one["option"]: one["how"] for one in run.tasks[5].result["changes"]} == {"capacity": "live", "flatten": "live"}
    inside("write -P 3 12M 64k")
    libvirtd.run("virsh", "destroy", pool)
    assert "backing-filename" not in info(here / "over")
    assert [reads(here / "over", pattern, where) for pattern, where in ((1, "0 1M"), (2, "1M 64k"), (3, "12M 64k"))] == [True] * 3


@pytest.mark.row("S25")
def test_what_is_written_to_a_transient_disk_is_gone_after_a_restart_and_what_is_written_to_a_persistent_one_stays(
    play: Any, libvirtd: Any, pool: str, tmp_path: Path, guest: Any
) -> None:
    disk = tmp_path / "pool" / "disk"
    play(volume(pool=pool, name="disk", capacity="8MiB")).succeeded()
    for extra, stays in (("", True), ("<transient/>", False)):
        inside = guest(disk, extra)
        pattern = 8 if stays else 9
        inside(f"write -P {pattern} 0 64k")
        for verb in ("destroy", "undefine"):
            libvirtd.run("virsh", verb, pool)
        assert reads(disk, 8), extra
        assert [path.name for path in disk.parent.iterdir()] == ["disk"]


def fill(place: str, letter: str, size: int) -> str:
    """The words with which a guest writes so many of the letter to a disk, and sees to it that they are there."""
    return f"head -c {size} /dev/zero | tr '\\0' {letter} | dd of={place} bs=4096 conv=fsync,notrunc"


@pytest.fixture
def block_device(tmp_path: Path) -> Iterator[str]:
    backing = tmp_path / "block"
    with open(backing, "wb") as file:
        file.truncate(8 * MIB)
    device = subprocess.check_output(["losetup", "--find", "--show", str(backing)], text=True).strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.row("S25")
def test_a_guest_reads_and_writes_as_the_property_of_each_image_says(
    play: Any, libvirtd: Any, pool: str, tmp_path: Path, block_device: str
) -> None:
    here, name = tmp_path / "pool", pool
    play(volume(defaults={"pool": pool, "capacity": "8MiB"}, volumes=[
        {"name": "dynamic", "capacity": "64MiB"}, {"name": "fixed", "format": "raw", "preallocation": "falloc"},
        {"name": "persistent"}, {"name": "volatile"}, {"name": "below"}, {"name": "disk"},
    ])).succeeded()  # fmt: skip
    write(here / "below", 1, "0 1M")
    write(here / "disk", 2, "0 1M")
    write(here / "volatile", 3, "0 1M")
    overlays = [{"name": over, "backing": {"pool": pool, "volume": base, "format": "qcow2"}} for over, base in (("above", "below"), ("log", "disk"))]
    play(volume(defaults={"pool": pool}, volumes=overlays)).succeeded()
    before = {one: allocated(here / one) for one in ("dynamic", "fixed")}
    assert before["dynamic"] < 64 * MIB // 100
    assert before["fixed"] >= 8 * MIB
    images = ("dynamic", "fixed", "persistent", "volatile", "above", "log")
    places = {image: f"/dev/vd{letter}" for image, letter in zip((*images, "physical"), "abcdefg")}
    disks: list[dict[str, Any]] = [
        {"target": place[5:], "pool": pool, "volume": image, "format": "raw" if image == "fixed" else "qcow2"}
        for image, place in places.items() if image in images
    ]
    disks[3] = {"target": "vdd", "path": str(here / "volatile"), "format": "qcow2", "transient": True}  # libvirt has it for files only
    disks.append({"target": "vdg", "block": block_device, "format": "raw"})
    born = {"name": name, **guest_os.options(guest_os.image(), tmp_path / "console.log", disks=disks)}
    runs = {"anfitrion.kvm.kvm_domain": {**born, "state": "running"}}
    stops = {"anfitrion.kvm.kvm_domain": {"name": name, "state": "stopped"}}
    linux = guest_os.GuestOS(name, libvirtd, tmp_path / "console.log")
    try:
        play(runs).succeeded()
        linux.wait()
        for image, pattern in (("above", 1), ("log", 2), ("volatile", 3)):  # what lies below is read through
            assert linux.shell(f"od -v -An -tx1 -N4096 -w1 {places[image]} | sort -u") == f"{pattern:02x}"
        for place in places.values():
            linux.shell(fill(place, "E", 4 * MIB))
        assert int(linux.shell("cat /sys/block/vdf/size")) == 8 * MIB // 512
        log = {"pool": pool, "name": "log", "backing": {"pool": pool, "volume": "disk", "format": "qcow2"}}
        run = play([{**volume(**log, changes="discard"), "ignore_errors": True}, *life(**log, changes="commit", capacity="16MiB")])
        assert "stop it before its changes are forgotten" in run.tasks[0].message
        assert [one.changed for one in run.tasks[1:]] == [True, True, False], run.output
        linux.until("cat /sys/block/vdf/size", lambda size: int(size) == 16 * MIB // 512)  # it grew under the guest
        linux.shell(fill(places["log"], "F", MIB // 16))
        play(stops).succeeded()
        assert 4 * MIB <= allocated(here / "dynamic") < 8 * MIB
        assert allocated(here / "fixed") == before["fixed"]
        letter = {one: ord(one) for one in "EF"}
        assert reads(here / "persistent", letter["E"], "0 4M")
        assert reads(here / "volatile", 3, "0 1M")  # gone
        assert reads(here / "below", 1, "0 1M")
        assert reads(here / "above", letter["E"], "0 4M")
        assert reads(here / "disk", letter["E"], "0 4M")  # committed while it ran
        assert reads(here / "log", letter["F"], "0 64k")  # and what came after lies in the log
        assert Path(block_device).read_bytes()[: 4 * MIB] == b"E" * 4 * MIB
        play([volume(**log, changes="discard"), runs]).succeeded()
        linux.wait()
        first = {image: linux.shell(f"head -c 1 {place} | od -An -tx1") for image, place in places.items()}
        assert first == {**dict.fromkeys(places, "45"), "volatile": "03"}
    finally:
        for verb in ("destroy", "undefine"):
            libvirtd.run("virsh", verb, name, check=False)


@pytest.mark.row("S25")
@pytest.mark.row("P08")
def test_an_encrypted_image_is_read_with_its_password_only(play: Any, libvirtd: Any, pool: str, tmp_path: Path) -> None:
    entries = [{"name": f"safe.{kind}", "format": kind, "capacity": "8MiB"} for kind in ("raw", "qcow2")]
    secrets = [{"type": "volume", "name": f"{pool}/{one['name']}", "state": "absent"} for one in entries]
    defaults = {"pool": pool, "encryption": {"password": "long and secret"}}
    run = play([
        *life(defaults=defaults, volumes=entries),
        *life(defaults={"pool": pool, "encryption": {"password": "another password"}}, volumes=entries),
        {"name": "Secrets", "anfitrion.kvm.kvm_secret": {"secrets": secrets}},
    ])  # fmt: skip
    assert [one.changed for one in run.succeeded().tasks[:6]] == [True, True, False, False, False, False], "an image keeps its password"
    assert "long and secret" not in run.output
    for word, code in (("long and secret", 0), ("wrong", 1)):
        (tmp_path / "key").write_text(word)
        opts = f"driver=luks,key-secret=s,file.filename={tmp_path}/pool/safe.raw"
        probe = ["qemu-io", "--object", f"secret,id=s,file={tmp_path}/key", "--image-opts", opts, "-r", "-c", "read 0 64k"]
        assert subprocess.run(probe, capture_output=True, check=False).returncode == code
    assert info(tmp_path / "pool" / "safe.qcow2")["encrypted"]


AS_JSON = 'json:{"driver":"file","filename":"/etc/shadow"}'
HOSTILE = [
    ("backing", ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", "IMAGE", "8M"]),
    ("data-file", ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=OTHER,data_file_raw=on", "IMAGE", "8M"]),
    ("network", ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "nbd://192.0.2.1/x", "-F", "raw", "IMAGE", "8M"]),
    ("options", ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", AS_JSON, "-F", "raw", "IMAGE", "8M"]),
]


def test_images_that_lead_out_of_the_pools_are_refused(play: Any, pool: str, tmp_path: Path) -> None:
    here, places = tmp_path / "pool", []
    (tmp_path / "sub").mkdir()
    for name, command in HOSTILE:
        image = tmp_path / "sub" / name
        subprocess.run([word.replace("IMAGE", str(image)).replace("OTHER", str(tmp_path / "other")) for word in command], check=True)
        places.append(image)
    before = os.stat("/etc/shadow")
    tasks = [volume(pool=pool, name="victim", source={"path": str(path), "format": "qcow2"}) for path in places]
    tasks += [volume(pool=pool, name="over", backing={"path": str(places[0]), "format": "qcow2"})]
    tasks += [volume(pool=pool, name="lie", source={"path": "/etc/hostname", "format": "qcow2"})]
    run = play([{**task, "ignore_errors": True} for task in tasks])
    for one in run.tasks[:-1]:
        assert "is not trusted" in one.message, run.output
    assert "/etc/hostname is no image of format qcow2" in run.tasks[-1].message
    assert list(here.iterdir()) == []
    after = os.stat("/etc/shadow")
    assert (after.st_uid, after.st_mode, after.st_mtime_ns) == (before.st_uid, before.st_mode, before.st_mtime_ns)


def test_limits_of_a_pool_hold_for_all_volumes_of_a_task_together(play: Any, libvirtd: Any, tmp_path: Path, fresh_name: str) -> None:
    (tmp_path / "small").mkdir()
    libvirtd.run("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(tmp_path / "small"))
    libvirtd.run("virsh", "pool-create-as", fresh_name, "dir", "--target", str(tmp_path / "small"))
    entries = [{"name": f"v{number}", "capacity": "16MiB"} for number in range(4)]
    task = volume(defaults={"pool": fresh_name}, volumes=entries, thin_percent_max=150)
    told = {"name": "Tell", "anfitrion.kvm.kvm_volume_info": {"pool": fresh_name}}
    run = play([{**task, "check_mode": True, "ignore_errors": True}, {**task, "ignore_errors": True}, told])
    libvirtd.run("virsh", "pool-destroy", fresh_name)
    libvirtd.run("umount", str(tmp_path / "small"))
    for one in run.tasks[:2]:
        assert sum(1 for result in one.result["results"] if result.get("failed")) == 1, run.output
        assert "% promised, at most 150 % may" in one.message
    assert len(run.tasks[2].result["volumes"]) == 3
    assert len(run.tasks[2].result["orphans"]) == 3
