"""Devices that are handed to vfio-pci, over a host in a directory: what is refused, selectors, what the next boot does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import driver, hostdev, needs, others, usb, vfio_boot
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Output
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.users import NoGuests, vfio_users
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan

from .conftest import Host, apply, refusal

PCI = "/sys/bus/pci/devices"


def devices_of(host: Host, requested: frozenset[str] = frozenset()) -> hostdev.Devices:
    return hostdev.Devices(host, requested, lambda: lambda _address: [], NoGuests())


DISK = "0000:03:00.0"


@pytest.fixture
def card(host: Host) -> Host:
    """A device in a group with a bridge, bound to its native driver, and drivers that take what override says."""
    host.has({
        f"{PCI}/{DISK}/class": "0x010802", f"{PCI}/{DISK}/vendor": "0x1b36", f"{PCI}/{DISK}/device": "0x0010",
        f"{PCI}/{DISK}/driver_override": "(null)", f"{PCI}/{DISK}/nvme/nvme0/serial": "S1", f"{PCI}/{DISK}/reset_method": "flr",
        "/sys/bus/pci/drivers/nvme/unbind": "", "/sys/bus/pci/drivers/vfio-pci/unbind": "", "/sys/bus/pci/drivers_probe": "",
        f"{PCI}/{DISK}/driver": f"->{host.at('/sys/bus/pci/drivers/nvme')}",
        f"/sys/kernel/iommu_groups/9/devices/{DISK}": "", "/sys/kernel/iommu_groups/9/devices/0000:00:01.0": "",
        f"{PCI}/{DISK}/iommu_group": f"->{host.at('/sys/kernel/iommu_groups/9')}", f"{PCI}/0000:00:01.0/class": "0x060400",
        "/proc/self/mountinfo": "29 1 8:1 / / rw,noatime shared:1 - ext4 /dev/sda1 rw",
    })  # fmt: skip
    link = Path(host.at(f"{PCI}/{DISK}/driver"))

    def react(path: str, value: str) -> None:
        if path.endswith("/unbind"):
            link.unlink()
        if path.endswith("drivers_probe") and not link.is_symlink():
            override = (host.read(f"{PCI}/{DISK}/driver_override") or "").replace("(null)", "")
            link.symlink_to(host.at(f"/sys/bus/pci/drivers/{override or 'nvme'}"))

    host.then = react
    return host


def bind(host: Host, wanted: str = "vfio-pci", requested: frozenset[str] = frozenset()) -> Plan:
    return hostdev.plan(devices_of(host, requested), {"address": DISK, "driver": wanted})


def test_a_device_is_handed_to_vfio_and_back(card: Host) -> None:
    apply(lambda: bind(card))
    assert card.link(f"{PCI}/{DISK}/driver") == "vfio-pci"
    assert vfio_boot.persisted(card) == {DISK: {"ids": "0x1b36:0x0010", "driver": "nvme", "serials": ["S1"]}}
    apply(lambda: bind(card, "native"))
    assert card.link(f"{PCI}/{DISK}/driver") == "nvme"
    assert not card.exists(vfio_boot.RULES)


def test_a_device_is_refused_while_its_group_holds_another_that_was_not_asked_for(card: Host) -> None:
    other = "0000:03:00.1"
    card.has({
        f"/sys/kernel/iommu_groups/9/devices/{other}": "", f"{PCI}/{other}/class": "0x040300",
        f"{PCI}/{other}/driver": "->/sys/bus/pci/drivers/snd_hda_intel",
    })  # fmt: skip
    words = refusal(lambda: bind(card))
    assert words == f"driver: IOMMU group 9 also holds {other} (class 0x040300, driver snd_hda_intel); give all or none"
    assert bind(card, requested=frozenset({DISK, other})).changed


def test_a_device_without_an_iommu_group_is_refused(card: Host) -> None:
    Path(card.at(f"{PCI}/{DISK}/iommu_group")).unlink()
    assert "has no IOMMU group; switch the IOMMU on" in refusal(lambda: bind(card))


def test_the_disk_that_holds_the_root_is_refused(card: Host) -> None:
    card.has({f"/sys/devices/pci/{DISK}/block/sda/sda1/partition": "1", "/sys/block/sda": f"->{card.at('/sys/devices/pci')}/{DISK}/block/sda"})
    assert "is in use by the host: sda is mounted on / (sda1)" in refusal(lambda: bind(card))


def test_the_virtio_nic_that_carries_ansible_is_refused(card: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.2.2 40000 10.0.2.15 22")
    card.has({f"/sys/devices/pci/{DISK}/virtio0/net/mgmt/mtu": "1500"})
    card.has({"/sys/class/net/mgmt": f"->{card.at('/sys/devices/pci')}/{DISK}/virtio0/net/mgmt"})
    told = [{"ifname": "mgmt", "addr_info": [{"local": "10.0.2.15", "scope": "global"}]}]
    card.answer = lambda _argv: Output(0, json.dumps(told), "")
    assert "mgmt carries the Ansible connection" in refusal(lambda: bind(card))


def test_a_device_that_an_earlier_task_would_make_is_a_warning_in_check_mode(host: Host) -> None:
    host.check = True
    found = bind(host)
    assert not found.changed
    assert found.warnings == (f"driver: there is no PCI device {DISK} yet",)
    host.check = False
    assert f"there is no PCI device {DISK}" in refusal(lambda: bind(host))


def select(host: Host, **selector: Any) -> Plan:
    return hostdev.plan(devices_of(host), {"select": selector, "driver": "vfio-pci"})


@pytest.mark.row("S19")
@pytest.mark.row("B05")
@pytest.mark.parametrize(
    "selector", [{"id": "1b36:0010"}, {"class": "nvme"}, {"class": "0x01"}, {"driver": "nvme"}, {"numa_node": 1}, {"serial": "S1"}]
)
def test_a_device_is_selected_by_what_it_is_also_when_vfio_holds_it(card: Host, selector: dict[str, Any]) -> None:
    card.has({f"{PCI}/{DISK}/numa_node": "1", f"{PCI}/0000:00:1f.2/class": "0x010601", f"{PCI}/0000:00:1f.2/numa_node": "0"})
    if selector == {"class": "0x01"}:
        assert "select: 2 devices have class 0x01: 0000:00:1f.2, 0000:03:00.0; say more" in refusal(lambda: select(card, **selector))
        return
    plan = apply(lambda: select(card, **selector))
    assert plan.facts["addresses"] == [DISK]
    Path(card.at(f"{PCI}/{DISK}/nvme/nvme0/serial")).unlink()  # nobody tells it any more
    assert not select(card, **selector).changed


@pytest.mark.row("B05")
def test_a_card_that_moved_is_found_and_its_old_address_forgotten(card: Host) -> None:
    apply(lambda: select(card, serial="S1"))
    moved = "0000:04:00.0"
    text = (card.text(vfio_boot.RULES) or "").replace(DISK, moved)  # as if it had been there when the rule was written
    Path(card.at(vfio_boot.RULES)).write_text(text, encoding="utf-8")
    Path(card.at(f"{PCI}/{DISK}/driver")).unlink()
    Path(card.at(f"{PCI}/{DISK}/driver")).symlink_to(card.at("/sys/bus/pci/drivers/nvme"))
    apply(lambda: select(card, serial="S1"))
    assert list(vfio_boot.persisted(card)) == [DISK]


def test_a_selector_that_nothing_fits_is_told(card: Host) -> None:
    assert refusal(lambda: select(card, id="dead:beef")) == "select: no PCI device of this host has id dead:beef"
    assert "select: says nothing" in refusal(lambda: select(card, every=True))
    card.check = True
    assert "an earlier task may make it" in select(card, id="dead:beef").warnings[0]


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        (f"{vfio_boot.DRIVERCTL}/pci-{DISK}", "vfio-pci", "driverctl unset-override"),
        ("/proc/cmdline", "quiet vfio-pci.ids=8086:10c9,1b36:0010", "/proc/cmdline hands every 1b36:0010 to vfio-pci"),
        ("/etc/modprobe.d/v.conf", "options vfio-pci ids=1b36:0010", "/etc/modprobe.d/v.conf hands every"),
    ],
)
def test_another_program_that_binds_the_device_is_named(card: Host, path: str, text: str, words: str) -> None:
    card.has({path: text})
    assert words in refusal(lambda: bind(card))


@pytest.mark.row("B06")
def test_a_physical_function_with_vfs_is_refused(card: Host) -> None:
    card.has({f"{PCI}/{DISK}/sriov_numvfs": "4"})
    assert "it has 4 VFs (vfs.count: 0 removes them)" in refusal(lambda: bind(card))


@pytest.mark.row("B06")
def test_the_screen_of_the_boot_is_given_only_on_purpose(card: Host) -> None:
    card.has({f"{PCI}/{DISK}/boot_vga": "1"})
    assert "it is the screen that the host booted with" in refusal(lambda: bind(card))
    assert hostdev.plan(devices_of(card), {"address": DISK, "driver": "vfio-pci", "allow_disruption": True}).changed


@pytest.mark.row("B06")
@pytest.mark.parametrize("family", [4, 6])
def test_a_nic_under_a_bridge_with_the_default_route_is_refused(card: Host, family: int) -> None:
    card.has({f"/sys/devices/pci/{DISK}/net/eth0/upper_br0": "", "/sys/class/net/br0": None})
    card.has({"/sys/class/net/eth0": f"->{card.at('/sys/devices/pci')}/{DISK}/net/eth0"})
    if family == 4:
        card.has({"/proc/net/route": "Iface Destination\nbr0 00000000 010A0A0A 0003 0 0 0 00000000 0 0 0"})
    else:
        zeros = "0" * 32
        card.has({"/proc/net/ipv6_route": f"{zeros} 00 {zeros} 00 fe80{'0' * 27}1 00000400 00000001 00000000 00000003 br0"})
    assert "eth0 (under br0) has the default route" in refusal(lambda: bind(card))


@pytest.mark.parametrize(
    ("digits", "address"),
    [("0100007F", "127.0.0.1"), ("0000000000000000FFFF00000F02000A", "10.0.2.15"), ("B80D01200000000000000000" + "01000000", "2001:db8::1")],
)
def test_the_addresses_of_ssh_sessions_are_read_as_the_kernel_writes_them(digits: str, address: str) -> None:
    assert needs._kernel_address(digits) == address


@pytest.mark.row("B06")
def test_the_blast_radius_tells_all_that_goes_with_a_device(card: Host) -> None:
    other = "0000:03:00.1"
    card.has({
        f"/sys/kernel/iommu_groups/9/devices/{other}": "", f"{PCI}/{other}/class": "0x010601", f"{PCI}/{other}/driver": "->/sys/bus/pci/drivers/ahci",
        f"/sys/devices/pci/{other}/block/sda/sda1/partition": "1", "/sys/class/block/sda1/holders/dm-0": "",
        "/sys/class/block/dm-0/dm/name": "vg-root", "/sys/class/block/dm-0/dev": "254:0",
    })  # fmt: skip
    card.has({"/sys/block/sda": f"->{card.at('/sys/devices/pci')}/{other}/block/sda"})
    card.set("/proc/self/mountinfo", "29 1 254:0 / / rw - ext4 /dev/mapper/vg-root rw")
    found = driver.blast_radius(card, DISK)
    assert found["group"] == [other]
    assert found["host_needs"] == ["sda is part of vg-root, mounted on / (sda1)"]
    assert "IOMMU group" not in str(found["refused"])  # the group as a whole is asked about; what the host needs stands in host_needs


def test_a_process_that_holds_a_device_by_iommufd_is_named(card: Host) -> None:
    apply(lambda: bind(card))
    card.has({f"{PCI}/{DISK}/vfio-dev/vfio0": None, "/proc/77/fd/9": "->/dev/vfio/devices/vfio0", "/proc/77/comm": "dpdk-testpmd"})
    assert vfio_users(card)(DISK) == ["process 77 (dpdk-testpmd)"]


@pytest.mark.row("S19")
def test_usb_devices_and_disks_are_told_with_what_the_host_does_with_them(card: Host) -> None:
    place = "/sys/devices/pci0000:00/usb1/1-2"
    card.has({
        f"{place}/idVendor": "46f4", f"{place}/idProduct": "0001", f"{place}/busnum": "1", f"{place}/devnum": "3", f"{place}/bDeviceClass": "00",
        f"{place}/serial": "U1", f"{place}/1-2:1.0/driver": "->/sys/bus/usb/drivers/usb-storage", f"{place}/1-2:1.0/block/sdb/dev": "8:16",
        "/sys/class/block/sdb/size": "2048", "/sys/class/block/sdb/dev": "8:16",
    })  # fmt: skip
    card.has({"/sys/bus/usb/devices/1-2": f"->{card.at(place)}", "/sys/block/sdb": f"->{card.at(place)}/1-2:1.0/block/sdb"})
    card.set("/proc/self/mountinfo", "30 1 8:16 / /mnt rw - vfat /dev/sdb rw")
    found = usb.usb(card)
    assert [(one["vendor"], one["serial"], one["drivers"], one["host_needs"]) for one in found] == [
        ("0x46f4", "U1", ["usb-storage"], ["sdb is mounted on /mnt"])
    ]
    assert [(one["path"], one["size"], one["host_needs"]) for one in others.block(card)] == [("/dev/sdb", "1MiB", ["mounted on /mnt"])]
