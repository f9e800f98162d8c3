"""The examples of the guide do what the guide says."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guest_os import image
from guide import moved, tasks_of

# Says a text on the first serial port and stops. Code of a PC as its firmware starts it, from wherever it is loaded.
SAY = bytes.fromhex("fa fc e80000 5e 83c61f 2eac 84c0 7412 bafd03 88c4 ec a820 74fb 88e0 baf803 ee ebe8 f4 ebfd")
SECTOR = 2048
PATIENCE_S = 120


def says(text: str) -> bytes:
    return SAY + text.encode() + b"\r\n\0"


def bootable_disk(text: str) -> bytes:
    return says(text).ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20)


def bootable_iso(text: str) -> bytes:
    """An image of which only what a firmware looks at is there (El Torito, without emulation of a disk)."""
    catalog = bytearray(b"\1" + bytes(29) + b"\x55\xaa" + b"\x88" + bytes(5) + struct.pack("<HI", 4, 20)).ljust(SECTOR, b"\0")
    words = struct.unpack("<16H", catalog[:32])
    catalog[28:30] = struct.pack("<H", -sum(words) & 0xFFFF)
    record = (b"\0CD001\1EL TORITO SPECIFICATION".ljust(0x47, b"\0") + struct.pack("<I", 19)).ljust(SECTOR, b"\0")
    sectors = [b"\1CD001\1".ljust(SECTOR, b"\0"), record, b"\xffCD001\1".ljust(SECTOR, b"\0"), bytes(catalog), says(text).ljust(SECTOR, b"\0")]
    return bytes(16 * SECTOR) + b"".join(sectors) + bytes(64 * SECTOR)


@pytest.fixture
def place(libvirtd: Any, tmp_path: Path) -> Iterator[Path]:
    for name in ("iso", "install", "images", "log", "vms"):
        (tmp_path / name).mkdir()
    libvirtd.run("virsh", "pool-create-as", "vms", "dir", "--target", str(tmp_path / "vms"))
    yield tmp_path
    for name in ("iso01", "kernel01", "pxe01", "import01"):
        libvirtd.run("virsh", "destroy", name, check=False)
        libvirtd.run("virsh", "undefine", name, check=False)
    libvirtd.run("virsh", "net-destroy", "install", check=False)
    libvirtd.run("virsh", "net-undefine", "install", check=False)
    libvirtd.run("virsh", "pool-destroy", "vms")


@pytest.mark.row("P04")
def test_a_guest_is_installed_in_each_way_of_the_guide(play: Any, libvirtd: Any, place: Path) -> None:
    (place / "iso" / "installer.iso").write_bytes(bootable_iso("from the medium"))
    (place / "images" / "legacy.raw").write_bytes(bootable_disk("from the disk"))
    (libvirtd.directory / "lib" / "tftp").mkdir()
    (libvirtd.directory / "lib" / "tftp" / "boot.0").write_bytes(says("from the network"))
    for name, file in (("vmlinuz", "vmlinuz"), ("initrd", "initrd")):
        (place / "install" / name).symlink_to(image() / file)
    places = {"/srv/tftp": "/var/lib/libvirt/tftp", "/srv": str(place)}  # dnsmasq may not look into the test's own directory
    run = play(moved(tasks_of("guests.md", "Installed"), places)).succeeded()
    assert all(task.changed for task in run.tasks), run.output
    assert {change["option"] for change in run.tasks[3].result["changes"]} >= {"os.kernel", "os.initrd", "os.cmdline"}
    wanted = {"iso01": "from the medium", "import01": "from the disk", "pxe01": "from the network", "kernel01": "Linux version"}
    deadline = time.monotonic() + PATIENCE_S
    while missing := {name for name, text in wanted.items() if text not in (place / "log" / f"{name}.log").read_text(errors="replace")}:
        assert time.monotonic() < deadline, {name: (place / "log" / f"{name}.log").read_text(errors="replace")[-500:] for name in missing}
        time.sleep(0.5)


@pytest.mark.row("P01")
@pytest.mark.row("P05")
def test_what_community_libvirt_does_is_done_as_the_guide_says(play: Any, libvirtd: Any, tmp_path: Path) -> None:
    for name in ("iso", "images", "cloud"):
        (tmp_path / name).mkdir()
    (libvirtd.directory / "lib" / "images").mkdir(exist_ok=True)  # where a medium of cloud-init is made
    (tmp_path / "iso" / "debian.iso").write_bytes(bytes(SECTOR))
    (tmp_path / "images" / "legacy.raw").write_bytes(bootable_disk("from the disk"))
    cloud = tmp_path / "cloud" / "debian-13.qcow2"
    libvirtd.run("qemu-img", "create", "-q", "-f", "qcow2", str(cloud), "10M")
    (tmp_path / "cloud" / "SHA256SUMS").write_text(f"{hashlib.sha256(cloud.read_bytes()).hexdigest()}  {cloud.name}\n")
    (tmp_path / "images" / cloud.name).write_bytes(cloud.read_bytes())
    fetched = {f"{algorithm}https://cloud.example.org": f"{algorithm}file://{cloud.parent}" for algorithm in ("", "sha256:")}
    tasks = moved(tasks_of("migration.md"), {"/srv": str(tmp_path), **fetched})
    assert len(tasks) > 40
    run = play(tasks).succeeded()
    for task, done in zip(tasks, run.tasks):
        assert done.changed != any(name.endswith("_info") for name in task), (task, run.output)
    assert not (tmp_path / "vms").exists()
