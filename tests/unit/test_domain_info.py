# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a guest is told as: its options, and as XML what no option says."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import domain_info, fragment
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain import TABLE, blank

pytestmark = pytest.mark.ring(1)

DISK = "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/srv/{0}'/><target dev='{0}' bus='{1}'/></disk>"
NIC = "<interface type='user'><mac address='52:54:00:00:00:0{0}'/><model type='{1}'/></interface>"


def told(devices: str) -> dict[str, Any]:
    return domain_info.as_task(guest(devices))


def guest(devices: str) -> Any:
    return _xml.parse(
        "<domain type='qemu'><name>one</name><memory unit='KiB'>65536</memory><currentMemory unit='KiB'>65536</currentMemory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{devices}</devices></domain>"
    )


def made(task: dict[str, Any]) -> Any:
    """Return the definition of a guest that the task is the first of."""
    tree = blank("one")
    _fields.write(TABLE.rows, tree, _fields.normal(TABLE.rows, task))
    return fragment.merged(_xml.parts_of(task["xml"]), tree, TABLE.rows) if "xml" in task else tree


def same(devices: str) -> bool:
    """Tell whether what is told makes the same, and given back changes nothing."""
    task, tree = told(devices), guest(devices)
    back = fragment.merged(_xml.parts_of(task["xml"]), tree, TABLE.rows) if "xml" in task else tree
    return bool(_xml.canonical(made(task)) == _xml.canonical(tree) == _xml.canonical(back))


def test_what_options_say_is_not_told_twice() -> None:
    assert "xml" not in told(DISK.format("vda", "virtio"))
    assert same(DISK.format("vda", "virtio"))


def test_a_password_is_not_told() -> None:
    task = told("<graphics type='vnc' autoport='yes' passwd='geheim'/>")
    assert task["graphics"]
    assert "geheim" not in str(task)


def test_two_interfaces_with_one_address_are_told_as_xml() -> None:
    task = told(NIC.format(1, "virtio") + NIC.format(1, "e1000") + NIC.format(2, "virtio"))
    assert [nic["mac"] for nic in task["interfaces"]] == ["52:54:00:00:00:02"]
    assert task["xml"].count("<interface") == 2
    assert same(NIC.format(1, "virtio") + NIC.format(1, "e1000") + NIC.format(2, "virtio"))


def test_a_disk_that_a_task_is_refused_is_told_as_xml() -> None:
    task = told(DISK.format("hda", "scsi") + DISK.format("vda", "virtio"))
    assert [disk["target"] for disk in task["disks"]] == ["vda"]
    assert 'dev="hda"' in task["xml"]
    assert same(DISK.format("hda", "scsi") + DISK.format("vda", "virtio"))


def test_all_of_a_kind_are_told_where_options_say_one_of_them() -> None:
    vlan = "<vlan trunk='yes'><tag id='42'/><tag id='48'/><tag id='456'/></vlan>"
    nic = NIC.format(1, "virtio").replace("</interface>", f"{vlan}</interface>")
    assert told(nic)["interfaces"][0]["vlan"] == 42
    assert [text in told(nic)["xml"] for text in ("42", "48", "456")] == [True, True, True]
    assert same(nic)
