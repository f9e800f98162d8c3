"""A guest with an operating system for ring 3: the lab's tiny guest, shared by the tests that change it while it runs.

Under emulation it takes seconds to start, so one serves many tests; each leaves it as it found it, or has one of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[2]
IN_GUEST = ROOT / "extensions/molecule/files/in_guest.py"
READY_S = 240
SILENT_S = 90
RELEASE = "12"  # the kernel of either release will do


def image() -> Path:
    """The directory of the tiny guest's kernel and initramfs; built with the lab's image if there is none yet."""
    cache = Path.home() / ".cache" / "anfitrion-lab"
    command = [sys.executable, str(ROOT / "roles/lab/files/lab_image.py"), "--release", RELEASE, "--cache", str(cache)]
    return Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()) / "guest"


def options(directory: Path, console: Path, **more: Any) -> dict[str, Any]:
    """The options of kvm_domain for such a guest; its console is kept in a file."""
    words = more.pop("cmdline", "")
    cmdline = f"{(directory / 'cmdline').read_text().strip()} anfitrion.wait=0 {words}"
    return {
        "type": "qemu",
        "cpu": {"mode": "maximum"},
        "memory": {"size": "192MiB"},
        "os": {"kernel": str(directory / "vmlinuz"), "initrd": str(directory / "initrd"), "cmdline": cmdline},
        "serials": [{"port": 0, "type": "pty", "log": str(console)}],
        "guest_agent": True,
        **more,
    }


@dataclass(frozen=True)
class GuestOS:
    """A running guest whose agent answers: what its own kernel says."""

    name: str
    libvirtd: Any
    console: Path

    @property
    def pid(self) -> str:
        """Of its QEMU."""
        return str((self.libvirtd.directory / "run/libvirt/qemu" / f"{self.name}.pid").read_text().strip())

    def wait(self) -> GuestOS:
        """Return once the agent answers.

        An emulated kernel with several vCPUs now and then stops as it starts and says no more: it is reset once, and a warning says where it was.
        And now and then QEMU's emulation ends by an assertion of its own: then the guest is started once more, and a warning tells which.
        """
        started = heard = time.monotonic()
        reset = again = False
        said = -1
        while self.libvirtd.run("virsh", "qemu-agent-command", self.name, '{"execute":"guest-ping"}', check=False).returncode:
            waited = time.monotonic() - started
            if self.console.stat().st_size != said:
                said, heard = self.console.stat().st_size, time.monotonic()
            ended = self.ended()
            if ended and not again:
                warnings.warn(f"QEMU of {self.name} ended by itself and is started again: {ended}", stacklevel=2)
                self.libvirtd.run("virsh", "start", self.name)
                again, started = True, time.monotonic()
            assert waited < READY_S, f"no agent after {READY_S} s:\n{self.console.read_text(errors='replace')[-2000:]}"
            if time.monotonic() - heard > SILENT_S and not reset:
                where = self.libvirtd.run("virsh", "qemu-monitor-command", self.name, "--hmp", "info registers -a").stdout
                vcpus = re.findall(r"CPU#\d+|RIP=\w+|HLT=\d", where)
                warnings.warn(f"{self.name} said nothing for {SILENT_S} s and is reset: {' '.join(vcpus)}", stacklevel=2)
                self.libvirtd.run("virsh", "reset", self.name)
                reset, started = True, time.monotonic()
            time.sleep(0.5)
        return self

    def ended(self) -> str:
        """Return the assertion of its own that ended QEMU, nothing if it runs or ended otherwise."""
        if self.libvirtd.run("virsh", "domstate", "--reason", self.name).stdout.strip() != "shut off (crashed)":
            return ""
        log = (self.libvirtd.directory / "log/qemu" / f"{self.name}.log").read_text(errors="replace")
        return next(iter(re.findall(r"^qemu-system.*Assertion .*failed", log.rpartition("starting up")[2], re.MULTILINE)), "")

    def agent(self, command: str, **arguments: Any) -> Any:
        """What the agent answers."""
        text = json.dumps({"execute": command, "arguments": arguments} if arguments else {"execute": command})
        return json.loads(self.libvirtd.run("virsh", "qemu-agent-command", self.name, text).stdout)["return"]

    def shell(self, script: str) -> str:
        """What a shell script in the guest prints; its end is waited for."""
        done = self.libvirtd.run("/usr/bin/python3", str(IN_GUEST), self.name, script, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout + done.stderr).strip()

    def until(self, script: str, wanted: Callable[[str], bool], patience: float = 30) -> str:
        """What a shell script prints, once it is as wanted."""
        deadline = time.monotonic() + patience
        while not wanted(seen := self.shell(script)):
            assert time.monotonic() < deadline, f"{script}: {seen!r}"
            time.sleep(0.3)
        return seen


SCSI = "<controller type='scsi' index='0' model='virtio-scsi'/>"


def start_linux(play: Any, libvirtd: Any, place: Path) -> GuestOS:
    """Start the guest that the tests share: a vCPU of four, memory to grow into, a disk of a pool, a CD-ROM drive, a NIC, free ports."""
    (place / "images").mkdir()
    for name, content in (("one.iso", b"first medium"), ("two.iso", b"second medium")):
        (place / name).write_bytes(content + bytes(64 * 1024 - len(content)))
    born = {"name": "linux", "spare_ports": 12, "type": "qemu", "memory": {"size": "64MiB"}}
    play({"anfitrion.kvm.kvm_domain": born}).succeeded()
    (place / "scsi.xml").write_text(SCSI)
    libvirtd.run("virsh", "attach-device", "linux", str(place / "scsi.xml"), "--config")
    guest = options(
        image(), place / "console.log", cmdline="anfitrion.extra anfitrion.name=linux",
        vcpus={"count": 1, "max": 4}, memory={"size": "160MiB", "max": "192MiB"},
        disks=[{"target": "vda", "pool": "linux", "volume": "linux.raw"},
               {"target": "sda", "bus": "scsi", "device": "cdrom", "path": str(place / "one.iso")}],
        interfaces=[{"name": "lan", "type": "user", "mac": "52:54:00:0a:00:01"}],
    )  # fmt: skip
    play([
        {"anfitrion.kvm.kvm_pool": {"name": "linux", "type": "dir", "path": str(place / "images"), "state": "active"}},
        {"anfitrion.kvm.kvm_volume": {"pool": "linux", "name": "linux.raw", "format": "raw", "capacity": "8MiB"}},
        {"anfitrion.kvm.kvm_domain": {"name": "linux", "state": "running", **guest}},
    ]).succeeded()  # fmt: skip
    return GuestOS("linux", libvirtd, place / "console.log")
