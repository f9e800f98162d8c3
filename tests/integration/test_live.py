"""What a running guest takes at once: seen by its own kernel, with the same QEMU; and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guest_os import GuestOS

BASE = {"type": "qemu", "memory": {"size": "64MiB"}}
MIB = 1 << 20

Options = dict[str, Any]


def domain(check: bool = False, **options: Any) -> Options:
    return {"name": f"Domain {options.get('name', '')}", "anfitrion.kvm.kvm_domain": options, "check_mode": check}


def ways(task: Any) -> dict[str, str]:
    return {change["option"]: change["how"] for change in task.result["changes"]}


@pytest.fixture
def tried(play: Any) -> Callable[..., Any]:
    """Asks for a state in check mode, for real and again, asserts that they agree, and returns the real run."""

    def run(**options: Any) -> Any:
        check, real, again = play([domain(True, **options), domain(**options), domain(**options)]).succeeded().tasks
        assert check.changed
        assert real.changed
        assert (check.diff, check.result["changes"]) == (real.diff, real.result["changes"])
        assert not again.changed, again.result
        assert again.result["pending_restart"] == real.result["pending_restart"]
        return real

    return run


@pytest.fixture
def guest(play: Any, fresh_name: str, libvirtd: Any) -> Iterator[Callable[..., GuestOS]]:
    """A small running guest without an operating system, gone after the test."""

    def make(**options: Any) -> GuestOS:
        play(domain(**{"name": fresh_name, "state": "running", **BASE, **options})).succeeded()
        return GuestOS(fresh_name, libvirtd, Path(os.devnull))

    yield make
    libvirtd.run("virsh", "destroy", fresh_name, check=False)
    libvirtd.run("virsh", "undefine", fresh_name, check=False)


# Seen by the guest ---------------------------------------------------------------------------------------------------


@pytest.mark.row("S07")
def test_the_guests_own_kernel_uses_a_vcpu_that_comes(tried: Any, linux: GuestOS) -> None:
    pid = linux.pid
    assert linux.shell("nproc") == "1"
    assert ways(tried(name="linux", vcpus={"count": 3})) == {"vcpus.count": "live"}
    assert linux.shell("cat /sys/devices/system/cpu/online") == "0-2"
    assert linux.pid == pid
    # QEMU without KVM does not say when a guest has let a vCPU go, so that is ring 4's to prove.


@pytest.mark.row("S07")
@pytest.mark.row("S11")
def test_fewer_vcpus_than_the_guest_started_with_wait_for_its_next_start(tried: Any, guest: Any) -> None:
    running = guest(vcpus={"count": 2, "max": 3})
    pid = running.pid
    assert tried(name=running.name, vcpus={"count": 1}).result["pending_restart"] == ["vcpus.count"]
    assert running.pid == pid


@pytest.mark.row("S18")
@pytest.mark.row("P02")
def test_the_guests_own_kernel_sees_memory_grow(tried: Any, linux: GuestOS) -> None:
    pid, total = linux.pid, "awk '/MemTotal/ {print $2}' /proc/meminfo"
    before = int(linux.until(total, lambda seen: int(seen) < 150 * 1024))
    assert ways(tried(name="linux", memory={"size": "192MiB"})) == {"memory.size": "live"}
    assert int(linux.shell(total)) == before + 32 * 1024
    assert ways(tried(name="linux", memory={"size": "160MiB"})) == {"memory.size": "live"}
    assert int(linux.shell(total)) == before
    assert linux.pid == pid


@pytest.mark.row("S25")
def test_the_guests_own_kernel_sees_its_disk_grow(play: Any, linux: GuestOS) -> None:
    pid = linux.pid
    assert linux.shell("cat /sys/block/vda/size") == str(8 * MIB // 512)
    grown = {"anfitrion.kvm.kvm_volume": {"pool": "linux", "name": "linux.raw", "capacity": "16MiB"}}
    real, again = play([grown, grown]).succeeded().tasks
    assert real.result["changes"][0]["how"] == "live"
    assert not again.changed
    assert linux.until("cat /sys/block/vda/size", lambda seen: seen == str(16 * MIB // 512))
    assert linux.pid == pid


@pytest.mark.row("P02")
def test_the_guest_reads_the_medium_that_was_put_in(tried: Any, linux: GuestOS) -> None:
    pid, place = linux.pid, linux.console.parent
    read = "dd if=/dev/sr0 bs=2048 count=1 iflag=direct 2>/dev/null | tr -d '\\0'"
    assert linux.shell(read) == "first medium"
    assert ways(tried(name="linux", disks=[{"target": "sda", "path": str(place / "two.iso")}])) == {"disks[sda].path": "live"}
    assert linux.until(read, lambda seen: seen == "second medium")
    tried(name="linux", disks=[{"target": "sda", "path": str(place / "one.iso")}])
    assert linux.pid == pid


@pytest.mark.row("S27")
@pytest.mark.row("P02")
def test_a_nic_comes_and_the_guest_gives_it_back_when_asked(tried: Any, linux: GuestOS) -> None:
    pid, nics = linux.pid, "cat /sys/class/net/*/address"
    new = {"name": "more", "type": "user", "mac": "52:54:00:0a:00:02"}
    assert ways(tried(name="linux", interfaces=[new])) == {"interfaces[more]": "live"}
    linux.until(nics, lambda seen: "52:54:00:0a:00:02" in seen)
    assert ways(tried(name="linux", interfaces=[{"name": "more", "state": "absent"}])) == {"interfaces[more]": "live"}
    assert "52:54:00:0a:00:02" not in linux.shell(nics)
    assert linux.pid == pid


@pytest.mark.row("S27")
@pytest.mark.row("B01")
def test_another_model_of_a_nic_waits_unless_the_task_allows_to_replug_it(tried: Any, play: Any, linux: GuestOS) -> None:
    pid = linux.pid
    tried(name="linux", interfaces=[{"name": "swap", "type": "user", "mac": "52:54:00:0a:00:03", "model": "e1000e"}])
    model = {"name": "linux", "interfaces": [{"name": "swap", "model": "virtio"}]}
    waits = play(domain(True, **model)).succeeded().only
    assert ways(waits) == {"interfaces[swap].model": "next_boot"}
    assert waits.result["pending_restart"] == ["interfaces[swap].model"]
    assert ways(tried(**model, allow_replug=True)) == {"interfaces[swap].model": "replug"}
    found = "for nic in /sys/class/net/*; do echo $(cat $nic/address) $(readlink $nic/device/driver); done"
    linux.until(found, lambda seen: "52:54:00:0a:00:03" in seen and "virtio_net" in seen.split("52:54:00:0a:00:03")[1].splitlines()[0])
    tried(name="linux", interfaces=[{"name": "swap", "state": "absent"}])
    assert linux.pid == pid


# Without the guest's help -----------------------------------------------------------------------------------------------


@pytest.mark.row("S27")
def test_a_guest_that_does_not_give_a_nic_back_keeps_it_and_its_definition(play: Any, guest: Any, libvirtd: Any) -> None:
    running = guest(interfaces=[{"name": "lan", "type": "user"}])
    pid = running.pid
    failed = play(domain(name=running.name, interfaces=[{"name": "lan", "state": "absent"}], unplug_timeout=2)).only
    assert failed.message == (
        f"domain {running.name!r}: interfaces[lan]: the guest did not give the device back within 2 s; it may have no driver for hot-plug"
        " or be busy: raise unplug_timeout, or use apply: next_boot; what was done before it is undone"
    )
    for flags in ((), ("--inactive",)):
        assert "ua-lan" in libvirtd.run("virsh", "dumpxml", running.name, *flags).stdout
    assert running.pid == pid


@pytest.mark.row("P02")
@pytest.mark.row("S11")
def test_words_rules_statistics_and_displays_change_in_place(tried: Any, guest: Any, libvirtd: Any) -> None:
    running = guest(graphics=[{"type": "vnc", "listen": "127.0.0.1", "password": "first1"}])
    pid = running.pid
    real = tried(
        name=running.name, title="Written while it runs", description="And more", on_reboot="destroy", on_crash="preserve",
        balloon={"stats_period": 5}, graphics=[{"type": "vnc", "password": "second2"}],
    )  # fmt: skip
    assert set(ways(real).values()) == {"live"}
    assert "second2" not in str(real.result)
    assert "first1" not in str(real.result)
    assert real.result["pending_restart"] == []
    for flags in ((), ("--inactive",)):
        seen = libvirtd.run("virsh", "dumpxml", "--security-info", running.name, *flags).stdout
        for text in ("<title>Written while it runs<", "<description>And more<", "<on_reboot>destroy<", "period='5'", "passwd='second2'"):
            assert text in seen
    assert running.pid == pid


@pytest.mark.row("B01")
@pytest.mark.row("S11")
def test_a_device_for_which_no_port_is_free_waits_for_the_next_start(tried: Any, guest: Any) -> None:
    running = guest(spare_ports=1, rng={"state": "absent"})
    nics = [{"name": f"n{number}", "type": "user"} for number in range(8)]
    real = tried(name=running.name, interfaces=nics)
    assert set(ways(real).values()) == {"live", "next_boot"}
    assert real.result["pending_restart"] == [option for option, how in ways(real).items() if how == "next_boot"]


@pytest.mark.row("P01")
@pytest.mark.row("S11")
def test_what_is_unset_leaves_the_definition_and_waits_in_the_running_guest(
    tried: Any, play: Any, guest: Any, libvirtd: Any, tmp_path: Path
) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    limits = {"cache": "none", "iotune": {"total_iops_sec": 500, "total_bytes_sec": 1 << 20}}
    nic = {"name": "lan", "type": "user", "mac": "52:54:00:0a:00:09", "link": "down"}
    running = guest(disks=[{"target": "vda", "path": str(tmp_path / "a.raw"), **limits}], interfaces=[nic], title="Words")
    pid, unset = running.pid, ["disks[vda].cache", "disks[vda].iotune", "interfaces[lan].link", "title"]
    real = tried(name=running.name, unset=unset)
    assert ways(real) == dict.fromkeys(unset, "next_boot")
    assert real.result["pending_restart"] == unset
    assert running.pid == pid
    kept, now = (libvirtd.run("virsh", "dumpxml", running.name, *flags).stdout for flags in (("--inactive",), ()))
    for text in ("cache='none'", "<total_iops_sec>", "<link state='down'", "<title>"):
        assert text not in kept
        assert text in now
    assert "live_only" in play(domain(name=running.name, unset=unset, apply="live_only")).only.message
    libvirtd.run("virsh", "destroy", running.name)
    started, again = play([domain(name=running.name, state="running", unset=unset), domain(name=running.name, unset=unset)]).succeeded().tasks
    assert started.result["pending_restart"] == again.result["pending_restart"] == []
    assert not again.changed


@pytest.mark.row("S11")
def test_the_password_of_a_display_that_goes_is_not_told(play: Any, fresh_name: str, libvirtd: Any) -> None:
    play(domain(name=fresh_name, **BASE, graphics=[{"type": "vnc", "listen": "127.0.0.1", "password": "geheim7"}])).succeeded()
    for options in ({"purge": ["graphics"]}, {"graphics": [{"type": "vnc", "state": "absent"}]}):
        check = play(domain(True, name=fresh_name, **options)).succeeded().only
        assert check.changed
        assert check.result["changes"][0]["before"]["password"] == "(secret)"
        assert "geheim7" not in f"{check.result} {check.diff}"
    play(domain(name=fresh_name, purge=["graphics"])).succeeded()
    assert "geheim7" not in libvirtd.run("virsh", "dumpxml", "--security-info", fresh_name).stdout
    libvirtd.run("virsh", "undefine", fresh_name)


# Last: it starts the shared guest again ------------------------------------------------------------------------------------


@pytest.mark.row("P01")
@pytest.mark.row("S07")
def test_a_guest_is_restarted_when_an_option_waits_for_it_and_the_task_allows_it(play: Any, linux: GuestOS) -> None:
    pid = linux.pid
    wanted = {"name": "linux", "vcpus": {"max": 5}}
    waits, foretold, real, again = play([
        domain(**wanted), domain(True, **wanted, apply="restart_if_needed"), domain(**wanted, apply="restart_if_needed"),
        domain(**wanted, apply="restart_if_needed"),
    ]).succeeded().tasks  # fmt: skip
    assert waits.result["pending_restart"] == ["vcpus.max"]
    assert ways(foretold) == ways(real) == {"vcpus.max": "restart"}
    assert real.result["steps"] == ["shut domain linux down", "start domain linux"]
    assert real.result["pending_restart"] == []
    assert not again.changed
    assert linux.wait().pid != pid
    assert "powering off" not in linux.console.read_text(), "the agent was to be asked before the power button"


@pytest.mark.row("S13")
def test_what_is_told_of_a_running_guest_with_many_devices_waits_for_nothing(play: Any, guest: Any, libvirtd: Any, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    running = guest(
        memory={"size": "64MiB", "hotplug_max": "1GiB", "hotplug_slots": 2}, vcpus={"count": 1, "max": 2}, iothreads=1,
        cpu={"mode": "custom", "model": "qemu64", "numa": [{"cpus": "0-1", "memory": "64MiB"}]},
        memory_devices=[{"model": "dimm", "size": "64MiB", "node": 0}],
        disks=[{"target": "vda", "path": str(tmp_path / "a.raw"), "iothread": 1, "detect_zeroes": "unmap", "alias": "root"},
               {"target": "sda", "device": "cdrom"}],
        interfaces=[{"name": "lan", "type": "user"}],
        inputs=[{"type": "tablet", "bus": "usb"}, {"type": "tablet", "bus": "usb"}, {"type": "keyboard", "bus": "virtio"}],
        serials=[{"port": 0}, {"port": 1, "type": "unix", "path": str(tmp_path / "s"), "mode": "bind"}], guest_agent=True,
        channels=[{"name": "org.example.0", "type": "pty"}], graphics=[{"type": "vnc", "listen": "127.0.0.1"}], video={"model": "vga"},
        sounds=[{"model": "ich9"}], audios=[{"id": 1, "type": "none"}], scsi_controllers=[{"index": 0, "model": "virtio-scsi"}],
        watchdog={"model": "i6300esb", "action": "none"}, panics=[{"model": "isa"}], rng={"builtin": True},
        usb_controllers=[{"index": 0, "model": "qemu-xhci"}], shmems=[{"name": tmp_path.name, "size": "1MiB"}],
        features={"pmu": False, "hyperv": {"relaxed": True}},
        seclabels=[{"model": "dac", "type": "dynamic", "relabel": True}], clock={"offset": "variable", "adjustment": "3600"},
    )  # fmt: skip
    told = play({"anfitrion.kvm.kvm_domain_info": {"name": running.name}}).succeeded().tasks[0].result["domains"][0]
    xml = libvirtd.run("virsh", "dumpxml", "--inactive", "--security-info", running.name).stdout
    for again in play([domain(**told), domain(name=running.name, xml=xml)]).succeeded().tasks:
        assert not again.changed, again.result["changes"]
        assert again.result["pending_restart"] == []
