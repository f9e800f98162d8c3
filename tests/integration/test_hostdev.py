"""kvm_hostdev on a real libvirt without hardware for it: whose a device is, and words for what is not there. The rest is the lab's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

DEVICE = "0000:00:00.0"  # the host bridge, which every PC has
DEFINITION = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
  <hostdev mode='subsystem' type='pci'><source><address domain='0' bus='0' slot='0' function='0'/></source></hostdev>
  <hostdev mode='subsystem' type='usb'><source><address bus='1' device='1'/></source></hostdev>
</devices></domain>
"""


def info(name: str | None = None) -> dict[str, Any]:
    return {"name": "Info", "anfitrion.kvm.kvm_hostdev_info": {"name": name}}


def ask(**options: Any) -> dict[str, Any]:
    return {"name": "Ask", "anfitrion.kvm.kvm_hostdev": options}


@pytest.mark.row("B04")
def test_a_stopped_guest_that_is_defined_with_a_device_is_in_its_ledger(play: Any, libvirtd: Any, fresh_name: str, tmp_path: Path) -> None:
    (tmp_path / "guest.xml").write_text(DEFINITION.format(name=fresh_name))
    libvirtd.run("virsh", "define", str(tmp_path / "guest.xml"))
    seen = play(info(DEVICE)).succeeded().only.result
    assert [one["facts"]["defined_in"] for one in seen["devices"]] == [[f"guest {fresh_name}"]]
    assert seen["ledger_unknown"] is None
    libvirtd.run("virsh", "undefine", fresh_name)
    assert play(info(DEVICE)).succeeded().only.result["devices"][0]["facts"]["defined_in"] == []


@pytest.mark.row("S19")
def test_everything_that_the_host_has_is_told_in_one_call(play: Any) -> None:
    seen = play(info()).succeeded().only.result
    assert {"devices", "iommu", "usb", "block", "mediated"} <= set(seen)
    assert {one["path"] for one in seen["block"]} == {f"/dev/{path.name}" for path in Path("/sys/block").glob("[svn][dv]*")}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"address": "0000:00:zz.0", "driver": "vfio-pci"}, "address: '0000:00:zz.0' expected dddd:bb:ss.f"),
    ({"address": DEVICE, "driver": "vfio-pci"}, "is a PCI bridge, or the host's own"),
    ({"address": DEVICE, "vfs": {"count": 1}}, f"pf: {DEVICE} has no SR-IOV; physical functions of this host: none"),
    ({"select": {"id": "dead:beef"}, "driver": "vfio-pci"}, "select: no PCI device of this host has id dead:beef"),
    ({"select": {"id": "8086"}, "driver": "vfio-pci"}, "select.id: '8086' expected vendor:product in hexadecimal"),
    ({"select": {"id": "dead:beef"}, "address": DEVICE}, "select: stands in the place of pf and address"),
    ({"select": {"pf": "lo", "index": 0}, "driver": "vfio-pci"}, "pf: interface lo does not exist"),
]


def test_what_cannot_be_is_told_in_words_that_help(play: Any) -> None:
    tasks = play([{**ask(**wanted), "ignore_errors": True} for wanted, _words in REFUSED]).tasks
    assert [words in task.message for task, (_wanted, words) in zip(tasks, REFUSED)] == [True] * len(REFUSED), [task.message for task in tasks]


@pytest.mark.row("B06")
def test_a_guest_does_not_get_a_bridge_of_the_host(play: Any, fresh_name: str) -> None:
    task = play({"name": "Take", "anfitrion.kvm.kvm_domain": {"name": fresh_name, "hostdevs": [{"address": DEVICE}]}}).only
    assert f"hostdevs[{DEVICE}]: it is a PCI bridge, or the host's own; free it first" in task.message
