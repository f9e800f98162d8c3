"""What kvm_domain refuses to take from the host, over a host in a directory."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.taken import refuse_needed
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import others

from .conftest import Host, refusal

CARD = "0000:03:00.0"
ITEMS: list[tuple[str, dict[str, Any], str]] = [
    ("hostdevs[0000:03:00.0]", {"hostdevs": [{"address": CARD}]}, "the host needs it: sda is mounted on /srv"),
    ("disks[vdb]", {"disks": [{"target": "vdb", "block": "/dev/sda"}]}, "/dev/sda is mounted on /srv"),
    ("usb_hostdevs[x]", {"usb_hostdevs": [{"vendor": "0x46f4", "product": "0x0001"}]}, "sda is mounted on /srv"),
]


@pytest.fixture
def busy(host: Host) -> Host:
    """A host with a disk that is mounted: on a PCI device, and on USB."""
    place = f"/sys/devices/pci/{CARD}/usb1/1-2"
    host.has({
        f"{place}/idVendor": "46f4", f"{place}/idProduct": "0001", f"{place}/block/sda/dev": "8:0", "/dev/sda": "",
        "/sys/class/block/sda/dev": "8:0", "/proc/self/mountinfo": "29 1 8:0 / /srv rw - ext4 /dev/sda rw",
        f"/sys/bus/pci/devices/{CARD}/class": "0x0c0330",
    })  # fmt: skip
    return host.has({"/sys/block/sda": f"->{host.at(place)}/block/sda", "/sys/bus/usb/devices/1-2": f"->{host.at(place)}"})


@pytest.mark.row("B06")
@pytest.mark.parametrize(("option", "wanted", "words"), ITEMS)
def test_a_guest_does_not_get_what_the_host_needs(busy: Host, option: str, wanted: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: refuse_needed(busy, wanted, {option}))


@pytest.mark.parametrize(("option", "wanted", "_words"), ITEMS)
def test_what_a_guest_has_already_or_gives_back_is_not_asked_about(busy: Host, option: str, wanted: dict[str, Any], _words: str) -> None:
    refuse_needed(busy, wanted, set())
    gone = {kind: [{**item, "state": "absent"} for item in items] for kind, items in wanted.items()}
    refuse_needed(busy, gone, {option})


def test_a_disk_that_is_only_read_may_be_in_use(busy: Host) -> None:
    refuse_needed(busy, {"disks": [{"target": "vdb", "block": "/dev/sda", "readonly": True}]}, {"disks[vdb]"})


@pytest.fixture
def nvme(host: Host) -> Host:
    """A host whose root is on an NVMe disk: the kernel has the disk below no device, and a hidden way to it below the controller."""
    way, disk = f"/sys/devices/pci/{CARD}/nvme/nvme0/nvme0c0n1", "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"
    host.has({
        f"{way}/hidden": "1", f"{disk}/hidden": "0", f"{disk}/dev": "259:0", f"{disk}/size": "2048", "/sys/class/block/nvme0n1/dev": "259:0",
        "/proc/self/mountinfo": "29 1 259:0 / / rw - ext4 /dev/nvme0n1 rw", f"/sys/bus/pci/devices/{CARD}/class": "0x010802",
    })  # fmt: skip
    return host.has({"/sys/block/nvme0c0n1": f"->{host.at(way)}", "/sys/block/nvme0n1": f"->{host.at(disk)}"})


@pytest.mark.row("B06")
def test_the_controller_of_a_mounted_nvme_disk_is_not_given_away(nvme: Host) -> None:
    words = refusal(lambda: refuse_needed(nvme, {"hostdevs": [{"address": CARD}]}, {f"hostdevs[{CARD}]"}))
    assert "the host needs it: nvme0n1 is mounted on /" in words


def test_an_nvme_disk_is_told_once_with_its_controller(nvme: Host) -> None:
    assert [(one["path"], one["pci"], one["host_needs"]) for one in others.block(nvme)] == [("/dev/nvme0n1", CARD, ["mounted on /"])]


@pytest.mark.row("S20")
def test_a_function_of_a_shared_group_is_refused_for_a_guest(host: Host) -> None:
    for address in (CARD, "0000:03:00.1"):
        host.has({
            f"/sys/bus/pci/devices/{address}/class": "0x020000", f"/sys/kernel/iommu_groups/9/devices/{address}": "",
            f"/sys/bus/pci/devices/{address}/driver": "->/sys/bus/pci/drivers/e1000",
            f"/sys/bus/pci/devices/{address}/iommu_group": f"->{host.at('/sys/kernel/iommu_groups/9')}",
        })  # fmt: skip
    both = {"hostdevs": [{"address": CARD}, {"address": "0000:03:00.1"}]}
    changed = {f"hostdevs[{CARD}]", "hostdevs[0000:03:00.1]"}
    refuse_needed(host, both, changed)
    words = refusal(lambda: refuse_needed(host, {"hostdevs": both["hostdevs"][:1]}, changed))
    assert "IOMMU group 9 also holds 0000:03:00.1 (class 0x020000, driver e1000); give all or none" in words
