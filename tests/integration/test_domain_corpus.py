"""kvm_domain on every guest of libvirt's own test suite that this libvirt accepts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import ansible
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"

# What is told of these cannot be asked for, and why. Each that this libvirt has is tried, so that one which is no exception any more
# has to leave.
EXCEPTIONS = {
    "two devices in it have what tells them apart in common": (
        "console-compat2", "devices-acpi-index", "net-many-models", "net-vhostuser-passt", "net-virtio-teaming", "net-virtio-teaming-network",
        "qemu-ns",
    ),
    "a host CPU beyond the 4096 that we take": ("cputune-cpuset-big-id",),
    "shares of 0, which libvirt keeps and the kernel does not": ("cputune-zero-shares",),
    "a target that does not fit its bus": ("disk-network-source-curl", "disk-network-source-curl-nbdkit", "disk-scsi-lun-passthrough"),
    "VLAN 4095, which is reserved": ("net-virtio-network-portgroup",),
    "a ROM whose file is the empty text": ("pci-rom-disabled-invalid",),
}  # fmt: skip


@pytest.mark.row("S11")
@pytest.mark.row("S13")
def test_every_guest_of_libvirts_own_tests_is_unchanged_as_told_and_when_given_twice(mortal_libvirtd: Any, tmp_path: Path) -> None:
    directory = mortal_libvirtd.corpus("domain")
    # Of the environment only ansible itself: its libraries are for another Python than the distribution's.
    (tmp_path / "ansible").symlink_to(Path(ansible.__file__).parent)
    path = f"PYTHONPATH={ROOT / '.ansible' / 'collections'}:{tmp_path}:{SCRIPTS}"
    script = str(Path(__file__).with_name("domain_corpus.py"))
    done = mortal_libvirtd.run("env", path, "PYTHONDONTWRITEBYTECODE=1", "/usr/bin/python3", script, directory, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print({form: len(report[form]) for form in ("accepted", "told", "given")})
    assert len(report["accepted"]) > 1000
    assert not report["given"], "\n".join(f"{label}: {why}" for label, why in report["given"].items())
    accepted, failed = ({label.rpartition("/")[2].partition(".")[0] for label in report[form]} for form in ("accepted", "told"))
    expected = {name for names in EXCEPTIONS.values() for name in names} & accepted
    assert failed == expected, "\n".join(f"{label}: {why}" for label, why in report["told"].items())


@pytest.mark.row("S11")
def test_the_options_say_almost_all_of_the_format() -> None:
    command = ["/usr/bin/python3", str(SCRIPTS / "domain_coverage.py"), "--least", "97"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
