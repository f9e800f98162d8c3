"""Hold that the naive ways to handle devices fail as they are known to: naive_devices.py PF NVME-ADDRESS

The PF has no VFs and the NVMe disk its own driver, before and after. Each function is a fact; what it says is asserted.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PF, NVME = sys.argv[1], sys.argv[2]
DEVICE = Path(f"/sys/class/net/{PF}/device")
COUNT = DEVICE / "sriov_numvfs"
PCI = Path("/sys/bus/pci/devices")
LINK = Path("/run/systemd/network/01-naive.link")
NETWORK = f"<network><name>naive</name><forward mode='hostdev' managed='yes'><pf dev='{PF}'/></forward></network>"


def run(*argv: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=False)


def write(path: Path, value: str) -> str:
    """Write to a kernel file; return the name of the error, "" for none."""
    try:
        path.write_text(value, encoding="ascii")
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def driver(address: str) -> str:
    link = PCI / address / "driver"
    return link.resolve().name if link.exists() else ""


def vf(index: int) -> str:
    return (DEVICE / f"virtfn{index}").resolve().name


def told(index: int) -> dict[str, Any]:
    link = json.loads(run("ip", "-j", "-d", "link", "show", "dev", PF).stdout)[0]
    found: dict[str, Any] = link["vfinfo_list"][index]
    return found


def settle() -> None:
    run("udevadm", "settle")


def the_count_goes_only_by_zero_and_not_above_the_total() -> None:
    assert write(COUNT, "8") == "ERANGE"
    assert write(COUNT, "2") == ""
    settle()
    assert write(COUNT, "3") == "EBUSY"
    assert write(COUNT, "2") == ""  # the same again does nothing


def every_attribute_is_lost_when_vfs_are_made_again() -> None:
    run("ip", "link", "set", "dev", PF, "vf", "0", "mac", "52:54:00:99:00:01")
    run("ip", "link", "set", "dev", PF, "vf", "0", "vlan", "7")
    assert told(0)["address"] == "52:54:00:99:00:01"
    write(COUNT, "0")
    write(COUNT, "2")
    settle()
    assert told(0)["address"] != "52:54:00:99:00:01", told(0)  # zeros, or what its driver made up
    assert not any(one.get("vlan") for one in told(0).get("vlan_list", [])), told(0)


def a_driver_refuses_attributes_that_it_does_not_know() -> None:
    assert "not supported" in run("ip", "link", "set", "dev", PF, "vf", "0", "state", "enable").stderr
    assert "Invalid argument" in run("ip", "link", "set", "dev", PF, "vf", "0", "max_tx_rate", "100", "min_tx_rate", "50").stderr


def probing_tells_nothing_of_whether_a_driver_took_the_device() -> None:
    write(COUNT, "0")
    write(DEVICE / "sriov_drivers_autoprobe", "0")
    write(COUNT, "1")
    settle()
    address = vf(0)
    assert write(Path("/sys/bus/pci/drivers_probe"), address) == ""
    assert driver(address) == ""  # no error, no driver
    run("modprobe", "vfio-pci")
    write(PCI / address / "driver_override", "vfio-pci")
    assert write(Path("/sys/bus/pci/drivers_probe"), address) == ""
    assert driver(address) == "vfio-pci"  # the override takes it all the same


def writing_zero_blocks_while_a_process_holds_a_vf() -> None:
    group = (PCI / vf(0) / "iommu_group").resolve().name
    held = subprocess.Popen([sys.executable, "-c", HOLD, group, vf(0)], stdout=subprocess.PIPE)
    assert held.stdout is not None
    assert held.stdout.readline() == b"held\n"
    writer = threading.Thread(target=write, args=(COUNT, "0"))
    started = time.monotonic()
    writer.start()
    writer.join(3)
    assert writer.is_alive()
    held.kill()
    held.wait()
    writer.join(30)
    assert not writer.is_alive()
    assert time.monotonic() - started >= 3
    write(DEVICE / "sriov_drivers_autoprobe", "1")


HOLD = """
import fcntl, os, struct, sys, time
container = os.open("/dev/vfio/vfio", os.O_RDWR)
group = os.open(f"/dev/vfio/{sys.argv[1]}", os.O_RDWR)
fcntl.ioctl(group, 0x3B68, struct.pack("i", container))   # VFIO_GROUP_SET_CONTAINER
fcntl.ioctl(container, 0x3B66, 1)                          # VFIO_SET_IOMMU, type 1
device = fcntl.ioctl(group, 0x3B6A, bytearray(sys.argv[2].encode() + b"\\0"))  # VFIO_GROUP_GET_DEVICE_FD
print("held", flush=True)
time.sleep(60)
"""


def a_vf_network_needs_vfs_and_lists_them_once() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(NETWORK)
        file.flush()
        run("virsh", "net-define", file.name)
    write(COUNT, "0")
    assert "No usable Vf's present" in run("virsh", "net-start", "naive").stderr
    write(COUNT, "2")
    settle()
    assert run("virsh", "net-start", "naive").returncode == 0
    assert run("virsh", "net-dumpxml", "naive").stdout.count("<address") == 2
    write(COUNT, "0")
    write(COUNT, "4")
    settle()
    assert run("virsh", "net-dumpxml", "naive").stdout.count("<address") == 2  # it never hears of the others
    run("virsh", "net-destroy", "naive")
    run("virsh", "net-undefine", "naive")
    write(COUNT, "0")


def unbinding_by_hand_gives_the_device_to_no_one_for_good() -> None:
    run("modprobe", "vfio-pci")
    write(PCI / NVME / "driver" / "unbind", NVME)
    assert driver(NVME) == ""
    write(Path("/sys/bus/pci/drivers_probe"), NVME)
    assert driver(NVME) == "nvme"  # the next probe, or a reboot, and the host has it again
    assert run("virsh", "nodedev-detach", f"pci_{NVME.replace(':', '_').replace('.', '_')}").returncode == 0
    assert run("virsh", "nodedev-detach", f"pci_{NVME.replace(':', '_').replace('.', '_')}").returncode == 0
    assert driver(NVME) == "vfio-pci"
    assert run("virsh", "nodedev-reattach", f"pci_{NVME.replace(':', '_').replace('.', '_')}").returncode == 0
    settle()
    assert driver(NVME) == "nvme"


def a_pf_that_is_down_makes_vfs_and_takes_their_addresses() -> None:
    write(COUNT, "0")
    run("ip", "link", "set", "dev", PF, "down")
    assert write(COUNT, "2") == ""
    settle()
    assert run("ip", "link", "set", "dev", PF, "vf", "1", "mac", "52:54:00:99:00:03").returncode == 0
    assert told(1)["address"] == "52:54:00:99:00:03"  # nothing says that these VFs have no link
    groups = [(PCI / vf(index) / "iommu_group").resolve() for index in (0, 1)]
    assert all(len(list((group / "devices").iterdir())) == 1 for group in groups), groups
    run("ip", "link", "set", "dev", PF, "up")
    write(COUNT, "0")


def named_by(link: str) -> str:
    """Have this .link file for the PF; return the name that udev would give it at boot, "" for the kernel's."""
    LINK.parent.mkdir(parents=True, exist_ok=True)
    LINK.write_text(f"[Match]\nPermanentMACAddress={permanent_mac()}\n[Link]\n{link}", encoding="ascii")
    run("udevadm", "control", "--reload")
    said = run("udevadm", "test-builtin", "net_setup_link", f"/sys/class/net/{PF}")
    lines = (said.stdout + said.stderr).splitlines()
    assert f"ID_NET_LINK_FILE={LINK}" in lines, lines
    if any("Policies didn't yield a name" in line for line in lines):
        return ""
    return "".join(line.partition("=")[2] for line in lines if line.startswith("ID_NET_NAME="))


def permanent_mac() -> str:
    link = json.loads(run("ip", "-j", "link", "show", "dev", PF).stdout)[0]
    return str(link.get("permaddr", link["address"]))


def a_link_file_takes_the_name_and_remakes_vfs_at_every_event() -> None:
    try:
        assert named_by("SR-IOVVirtualFunctions=3\n") == ""  # it shadows the file that names interfaces
        names = "NamePolicy=keep kernel database onboard slot path\n"
        vfs = names + "SR-IOVVirtualFunctions={}\n[SR-IOV]\nVirtualFunction=0\nMACAddress=52:54:00:99:00:02\n"
        assert named_by(vfs.format(3) + "VLANId=7\n") == PF
        trigger()
        assert COUNT.read_text().strip() == "3"
        assert [one.get("vlan") for one in told(0)["vlan_list"]] == [7], told(0)
        run("ip", "link", "set", "dev", PF, "vf", "0", "mac", "52:54:00:99:00:04")
        named_by(vfs.format(3))
        trigger()
        assert told(0)["address"] == "52:54:00:99:00:02"  # what was set by hand is gone
        assert [one.get("vlan") for one in told(0)["vlan_list"]] == [7], told(0)  # and what the file no longer says stays
        named_by(vfs.format(5))
        trigger()
        assert COUNT.read_text().strip() == "5"  # all VFs were taken away and made again, and nobody was asked
    finally:
        LINK.unlink()
        run("udevadm", "control", "--reload")
        write(COUNT, "0")
        settle()


def trigger() -> None:
    run("udevadm", "trigger", "--action=add", "--settle", f"/sys/class/net/{PF}")
    settle()


FACTS = (
    the_count_goes_only_by_zero_and_not_above_the_total,
    every_attribute_is_lost_when_vfs_are_made_again,
    a_driver_refuses_attributes_that_it_does_not_know,
    probing_tells_nothing_of_whether_a_driver_took_the_device,
    writing_zero_blocks_while_a_process_holds_a_vf,
    a_vf_network_needs_vfs_and_lists_them_once,
    unbinding_by_hand_gives_the_device_to_no_one_for_good,
    a_pf_that_is_down_makes_vfs_and_takes_their_addresses,
    a_link_file_takes_the_name_and_remakes_vfs_at_every_event,
)

if __name__ == "__main__":
    run("ip", "link", "set", "dev", PF, "up")
    failed = []
    for fact in FACTS:
        begun = time.monotonic()
        try:
            fact()
        except AssertionError as error:
            failed.append(f"{fact.__name__.replace('_', ' ')}: {error!r} line {error.__traceback__.tb_next.tb_lineno}")  # type: ignore[union-attr]
        print(f"{fact.__name__.replace('_', ' ')}: {time.monotonic() - begun:.1f} s", file=sys.stderr)
    write(COUNT, "0")
    write(DEVICE / "sriov_drivers_autoprobe", "1")
    run("ip", "link", "set", "dev", PF, "down")
    print("\n".join(failed) or "every fact holds")
    sys.exit(1 if failed else 0)
