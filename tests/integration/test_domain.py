"""kvm_domain and its info twin on a real QEMU driver (TCG, no operating system in the guests) and on libvirt's test driver."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml

TEST = "test:///default"
GOLDEN = Path(__file__).parents[1] / "unit" / "golden" / "domain"
BASE = {"type": "qemu", "memory": {"size": "64MiB"}}

Options = dict[str, Any]


def domain(check: bool = False, ignore: bool = False, **options: Any) -> Options:
    return {"name": f"Domain {options.get('name', '')}", "anfitrion.kvm.kvm_domain": options, "check_mode": check, "ignore_errors": ignore}


def dumped(libvirtd: Any, name: str, *flags: str) -> ET.Element:
    return ET.fromstring(libvirtd.run("virsh", "dumpxml", name, *flags).stdout)


def qemu_pid(libvirtd: Any, name: str) -> str:
    return (libvirtd.directory / "run/libvirt/qemu" / f"{name}.pid").read_text().strip()


def ways(task: Any) -> dict[str, str]:
    """How each changed option is taken."""
    return {change["option"]: change["how"] for change in task.result["changes"]}


@pytest.fixture
def guest(play: Any, fresh_name: str, libvirtd: Any) -> Iterator[Callable[..., Any]]:
    """guest(**options) has a small running guest; it is gone after the test. Returns its name."""

    def make(**options: Any) -> str:
        play(domain(**{"name": fresh_name, "state": "running", **BASE, **options})).succeeded()
        return fresh_name

    yield make
    libvirtd.run("virsh", "destroy", fresh_name, check=False)
    libvirtd.run("virsh", "undefine", fresh_name, check=False)


@pytest.fixture
def tried(play: Any) -> Callable[..., Any]:
    """tried(**options) asks for a state in check mode, for real and again, asserts that they agree, and returns the real run."""

    def run(expect_change: bool = True, **options: Any) -> Any:
        check, real, again = play([domain(True, **options), domain(**options), domain(**options)]).succeeded().tasks
        assert check.changed == real.changed == expect_change
        assert check.diff == real.diff
        assert check.result["changes"] == real.result["changes"]
        assert not again.changed, again.result
        assert again.result["pending_restart"] == real.result["pending_restart"]
        return real

    return run


@pytest.mark.row("S02")
def test_a_guest_that_has_not_moved_its_balloon_yet_is_no_change(tried: Callable[..., Any], guest: Callable[..., str]) -> None:
    name = guest(memory={"size": "64MiB", "max": "128MiB"})
    tried(expect_change=False, name=name, memory={"size": "64MiB"})


@pytest.mark.row("S11")
def test_more_memory_than_the_maximum_waits_under_the_name_that_was_stated(tried: Callable[..., Any], guest: Callable[..., str]) -> None:
    real = tried(name=guest(), memory={"size": "96MiB"})
    assert real.result["pending_restart"] == ["memory.size"]


# Life --------------------------------------------------------------------------------------------------------------


@pytest.mark.row("P01")
@pytest.mark.row("S11")
def test_a_guest_is_defined_changed_and_removed(cycle: Any, fresh_name: str) -> None:
    present = {"name": fresh_name, **BASE, "state": "present", "autostart": True, "vcpus": {"count": 1, "max": 2}}
    seen = cycle("kvm_domain", present, {"autostart": False, "title": "A guest", "vcpus": {"count": 2}})
    assert "memory.size: 64MiB\n" in seen.present.apply.diff["after"]
    assert seen.present.apply.result["defaults_applied"] == [
        "consoles", "features.acpi", "features.apic", "os.machine", "rng.backend", "spare_ports", "vcpus.max",
    ] or "os.machine" in seen.present.apply.result["defaults_applied"]  # fmt: skip
    assert ways(seen.change.apply) == {"autostart": "define", "title": "define", "vcpus.count": "define"}
    assert seen.absent.apply.result["steps"] == [f"undefine domain {fresh_name}"]


@pytest.mark.row("P01")
def test_a_guest_starts_pauses_goes_on_and_is_powered_off_only_when_told(tried: Any, guest: Any, libvirtd: Any, play: Any) -> None:
    name = guest()
    pid = qemu_pid(libvirtd, name)
    assert tried(name=name, state="paused").result["steps"] == [f"suspend domain {name}"]
    assert tried(name=name, state="running").result["steps"] == [f"resume domain {name}"]
    assert tried(False, name=name, state="present").result["steps"] == []
    refused = play(domain(name=name, state="stopped", stop_timeout=2)).only
    assert refused.outcome == "failed"
    assert refused.message == f"domain {name!r}: the guest did not shut down within 2 s; force_stop: true powers it off"
    assert libvirtd.run("virsh", "domstate", name).stdout.strip() == "running"
    assert qemu_pid(libvirtd, name) == pid
    assert tried(name=name, state="stopped", stop_timeout=1, force_stop=True).result["steps"] == [f"shut domain {name} down"]
    assert libvirtd.run("virsh", "domstate", name).stdout.strip() == "shut off"
    assert tried(name=name, state="paused").result["steps"] == [f"start domain {name} paused"]
    assert libvirtd.run("virsh", "domstate", name).stdout.strip() == "paused"
    assert tried(name=name, state="absent", stop_timeout=1, force_stop=True).result["steps"][-1] == f"undefine domain {name}"


@pytest.mark.row("P01")
def test_a_start_that_fails_leaves_no_new_definition_behind(play: Any, fresh_name: str, libvirtd: Any) -> None:
    before = libvirtd.state()
    missing = [{"target": "vda", "path": "/nowhere/disk.raw"}]
    failed = play(domain(name=fresh_name, state="running", autostart=True, disks=missing, **BASE)).only
    assert failed.outcome == "failed"
    assert failed.message.startswith(f"domain {fresh_name!r}: cannot start: ")
    assert "/nowhere/disk.raw" in failed.message
    assert failed.message.endswith("; what was done before it is undone")
    assert libvirtd.state() == before


def test_a_start_that_fails_leaves_the_old_definition(play: Any, fresh_name: str, libvirtd: Any) -> None:
    play(domain(name=fresh_name, title="before", **BASE)).succeeded()
    before = libvirtd.state()
    disks = [{"target": "vda", "path": "/nowhere/disk.raw"}]
    failed = play(domain(name=fresh_name, state="running", title="after", disks=disks)).only
    assert failed.message.endswith("; what was done before it is undone")
    assert libvirtd.state() == before
    play(domain(name=fresh_name, state="absent")).succeeded()


# Live --------------------------------------------------------------------------------------------------------------


@pytest.mark.row("S07")
@pytest.mark.row("S12")
@pytest.mark.row("P02")
def test_a_running_guest_takes_vcpus_pins_and_shares_at_once(tried: Any, guest: Any, libvirtd: Any) -> None:
    name = guest(vcpus={"count": 1, "max": 4}, cputune={"vcpupin": [{"vcpu": 0, "cpuset": "0-1"}]})
    pid = qemu_pid(libvirtd, name)
    real = tried(name=name, vcpus={"count": 2}, cputune={"vcpupin": [{"vcpu": 0, "cpuset": "1"}, {"vcpu": 1, "cpuset": "0"}]})
    assert set(ways(real).values()) == {"live"}
    assert real.result["pending_restart"] == []
    assert qemu_pid(libvirtd, name) == pid
    for flags in ((), ("--inactive",)):
        tree = dumped(libvirtd, name, *flags)
        assert tree.find("vcpu").get("current") == "2"
        assert [(pin.get("vcpu"), pin.get("cpuset")) for pin in tree.iter("vcpupin")] == [("0", "1"), ("1", "0")]
    threads = re.findall(r"^\s*(\d)\s+(\S+)$", libvirtd.run("virsh", "vcpupin", name).stdout, re.MULTILINE)
    assert threads[:2] == [("0", "1"), ("1", "0")]
    assert ways(tried(name=name, cputune={"vcpupin": [{"vcpu": 1, "state": "absent"}]})) == {"cputune.vcpupin[1]": "live"}


@pytest.mark.row("S07")
@pytest.mark.row("S11")
def test_what_a_running_guest_cannot_take_waits_for_its_next_start(tried: Any, guest: Any, libvirtd: Any, play: Any) -> None:
    name = guest()
    pid = qemu_pid(libvirtd, name)
    wanted = {"name": name, "vcpus": {"count": 3}, "os": {"boot": ["network"]}, "cpu": {"model": "qemu32"}}
    real = tried(**wanted)
    assert set(ways(real).values()) == {"next_boot"}
    assert {"vcpus.count", "os.boot", "cpu.model"} <= set(real.result["pending_restart"])
    refused = play(domain(**wanted, apply="live_only")).only
    assert "the running guest takes it only at its next start, and apply is live_only" in refused.message
    assert qemu_pid(libvirtd, name) == pid
    restart = [domain(name=name, state=state, stop_timeout=0, force_stop=True) for state in ("stopped", "running")]
    assert play([*restart, domain(**wanted)]).succeeded().tasks[-1].result["pending_restart"] == []


@pytest.mark.row("S05")
@pytest.mark.row("P02")
def test_a_running_guest_takes_disks_throttles_and_interfaces_at_once(tried: Any, guest: Any, libvirtd: Any, tmp_path: Path) -> None:
    for disk in ("a", "b"):
        (tmp_path / f"{disk}.raw").write_bytes(bytes(1 << 20))
    disks = [{"target": "vda", "path": str(tmp_path / "a.raw"), "iotune": {"read_bytes_sec": 1 << 20}}]
    name = guest(disks=disks, interfaces=[{"name": "lan", "type": "user"}])
    pid = qemu_pid(libvirtd, name)
    real = tried(name=name, disks=[{"target": "vda", "iotune": {"read_bytes_sec": 1 << 21, "write_bytes_sec": 1 << 22}}])
    assert set(ways(real).values()) == {"live"}
    shown = libvirtd.run("virsh", "blkdeviotune", name, "vda").stdout
    assert re.search(r"read_bytes_sec\s*: 2097152\nwrite_bytes_sec\s*: 4194304", shown), shown
    total = {"total_iops_sec": 0, "total_bytes_sec": 1 << 20, "read_bytes_sec": 0, "write_bytes_sec": 0}
    assert set(ways(tried(name=name, disks=[{"target": "vda", "iotune": total}])).values()) == {"live"}
    new = {"disks": [{"target": "vdb", "path": str(tmp_path / "b.raw")}], "interfaces": [{"name": "more", "type": "user"}]}
    assert ways(tried(name=name, **new)) == {"disks[vdb]": "live", "interfaces[more]": "live"}
    assert ways(tried(name=name, interfaces=[{"name": "lan", "link": "down"}])) == {"interfaces[lan].link": "live"}
    for flags in ((), ("--inactive",)):
        tree = dumped(libvirtd, name, *flags)
        assert [disk.get("dev") for disk in tree.iterfind("devices/disk/target")] == ["vda", "vdb"]
        assert len(tree.findall("devices/interface")) == 2
        assert tree.find("devices/interface/link").get("state") == "down"
    assert qemu_pid(libvirtd, name) == pid


# What is kept --------------------------------------------------------------------------------------------------------


def golden(case: Path, number: int) -> tuple[Options, str | None]:
    """The options and the definition of a golden case under a name and a UUID of its own."""

    def own(text: str) -> str:
        text = re.sub("(?i)d65c16db1809", f"{number:012x}", text)
        return re.sub(r"^name: db1$|(?<=<name>)db1", lambda found: found[0].replace("db1", f"golden{number}"), text, count=1, flags=re.MULTILINE)

    current = case / "current.xml"
    return yaml.safe_load(own((case / "task.yml").read_text())), own(current.read_text()) if current.exists() else None


@pytest.mark.row("S13")
@pytest.mark.row("S16")
@pytest.mark.row("S18")
def test_libvirt_keeps_every_golden_case_and_its_second_run_changes_nothing(play: Any, libvirtd: Any, tmp_path: Path) -> None:
    (tmp_path / "network").write_text("<network><name>default</name></network>")
    (tmp_path / "vms").mkdir()
    for volume in ("db1.raw", "db1.qcow2"):
        (tmp_path / "vms" / volume).write_bytes(bytes(1 << 20))
    libvirtd.run("virsh", "net-define", str(tmp_path / "network"))
    libvirtd.run("virsh", "pool-create-as", "vms", "dir", "--target", str(tmp_path / "vms"))
    groups: dict[tuple[str, ...], list[Options]] = {}
    expected = {}
    # Without hardware nobody has a KVM guest or a virtual function, and this machine no UEFI firmware and no QEMU with SPICE, qxl or 3D and no swtpm.
    needs_hardware = ("by-role", "passed-through", "firmware", "with-kvm", "with-spice", "with-qxl", "with-gl", "with-swtpm")
    for number, case in enumerate(sorted(GOLDEN.iterdir())):
        changes = yaml.safe_load(re.sub("(?i)d65c16db1809", f"{number:012x}", (case / "expected.yml").read_text()))
        if isinstance(changes, dict) or any(word in case.name for word in needs_hardware):
            continue
        options, current = golden(case, number)
        expected[options["name"]] = (case.name, changes)
        if current:
            (tmp_path / "current.xml").write_text(current)
            libvirtd.run("virsh", "define", str(tmp_path / "current.xml"))
        groups.setdefault(tuple(options.pop("purge", ())), []).append(options)
    tasks = []
    for purge, options in groups.items():
        tasks += [domain(word == "check", domains=options, purge=list(purge)) for word in ("check", "apply", "again")]
    try:
        results = play(tasks).succeeded().tasks
    finally:
        for name in expected:
            libvirtd.run("virsh", "undefine", name, check=False)
        libvirtd.run("virsh", "net-undefine", "default")
        libvirtd.run("virsh", "pool-destroy", "vms")
    assert len(expected) > 30
    for place in range(0, len(results), 3):
        for check, real, again in zip(*(task.result["results"] for task in results[place : place + 3])):
            case, changes = expected[real["name"]]
            assert check["changes"] == real["changes"], case
            told = [{key: change[key] for key in ("option", "before", "after")} for change in real["changes"]]
            told = [one for one in told if one["option"] not in ("uuid", "state", "autostart")]
            assert told == [one for one in hidden(changes) if one["option"] != "uuid"], case
            assert not again["changed"], (case, again["changes"])


def hidden(changes: list[Options]) -> list[Options]:
    """The expected changes as they are told: a password or a cookie is not."""
    for change in changes:
        for cookie in (change["after"] or {}).get("remote", {}).get("cookies", []) if isinstance(change["after"], dict) else []:
            cookie["value"] = "(secret)"
        if isinstance(change["after"], dict) and "password" in change["after"]:
            change["after"]["password"] = "(secret)"
    return changes


WHOLE = """
<domain type='qemu'>
  <name>{name}</name>
  <metadata><a:note xmlns:a='https://example.org/a'>kept</a:note></metadata>
  <memory unit='MiB'>64</memory>
  <vcpu cpuset='0,1'>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    {devices}
    <interface type='user'><model type='virtio'/></interface>
    <disk type='file' device='cdrom'><target dev='sda'/></disk>
  </devices>
</domain>
"""


@pytest.mark.row("S11")
def test_a_whole_document_is_defined_once_changed_by_what_it_leaves_out_and_never_by_what_libvirt_adds(
    tried: Any, libvirtd: Any, fresh_name: str
) -> None:
    disk = "<disk type='file'><source file='/srv/a.raw'/><target dev='vda'/></disk><watchdog model='i6300esb'/>"
    with_disk, without = (WHOLE.format(name=fresh_name, devices=devices) for devices in (disk, ""))
    real = tried(name=fresh_name, xml=with_disk)
    assert "uuid" not in ways(real)
    assert "interfaces[made by libvirt]" in ways(real)
    first = dumped(libvirtd, fresh_name)
    assert "disks[vda]" in ways(tried(name=fresh_name, xml=without))
    second = dumped(libvirtd, fresh_name)
    assert second.find("devices/watchdog[@model='i6300esb']") is None  # a newer libvirt gives q35 one of its own
    for kept in ("uuid", "devices/interface/mac"):
        assert ET.tostring(first.find(kept)) == ET.tostring(second.find(kept))
    assert ways(tried(name=fresh_name, xml=without, title="On top")) == {"title": "define"}
    tried(name=fresh_name, state="absent")


@pytest.mark.row("S11")
def test_a_fragment_is_merged_once_and_the_rest_survives(tried: Any, libvirtd: Any, fresh_name: str) -> None:
    limit = "<memtune><hard_limit unit='GiB'>1</hard_limit></memtune>"
    watchdog = "<devices><watchdog model='i6300esb' action='reset'/></devices>"
    tried(name=fresh_name, xml="<features><kvm><hidden state='on'/></kvm></features>", **BASE)
    assert ways(tried(name=fresh_name, xml=limit)) == {"memtune.hard_limit": "define"}, "what an option says is told by its name"
    note = "<metadata><a:note xmlns:a='https://example.org/a'>kept</a:note></metadata>"
    assert ways(tried(name=fresh_name, xml=note)) == {"xml": "define"}
    tried(name=fresh_name, xml=watchdog)
    tree = dumped(libvirtd, fresh_name)
    assert tree.find("features/kvm/hidden") is not None
    assert tree.find("memtune/hard_limit").text == "1048576"
    assert tree.find("devices/watchdog").get("action") == "reset"
    tried(name=fresh_name, title="A guest")
    assert dumped(libvirtd, fresh_name).find("devices/watchdog") is not None
    tried(name=fresh_name, state="absent")


@pytest.mark.row("S11")
def test_xml_waits_for_the_next_start_of_a_running_guest(play: Any, guest: Any) -> None:
    name = guest()
    fragment = "<devices><disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk></devices>"
    real, again = play([domain(name=name, xml=fragment), domain(name=name, xml=fragment)]).succeeded().tasks
    assert ways(real) == {"disks[sda]": "next_boot"}
    assert real.result["pending_restart"] == again.result["pending_restart"] == ["disks[sda]"]
    assert not again.changed


@pytest.mark.row("S11")
def test_xml_is_understood_where_libvirt_has_to_look_at_qemu_first(play: Any, libvirtd: Any, fresh_name: str) -> None:
    """Then QEMU listens on a socket below the embedded driver's root, and a test's temporary directory has a long name."""
    cache = "/var/cache/libvirt/qemu/capabilities"
    libvirtd.run("mount", "-t", "tmpfs", "none", cache)
    try:
        first = play(domain(name=fresh_name, xml="<title>Looked at</title>", **BASE), check=True).succeeded().only
    finally:
        libvirtd.run("umount", cache)
    assert ways(first)["title"] == "define"


@pytest.mark.row("B03")
@pytest.mark.row("P14")
def test_what_info_tells_can_be_given_back_and_changes_nothing(play: Any, guest: Any, libvirtd: Any, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    name = guest(
        disks=[{"target": "vda", "path": str(tmp_path / "a.raw"), "iotune": {"total_iops_sec": 100}}, {"target": "sda", "device": "cdrom"}],
        interfaces=[{"name": "lan", "type": "user"}], guest_agent=True, vcpus={"count": 1, "max": 2}, graphics=[{"type": "vnc"}],
    )  # fmt: skip
    tasks = [
        {"name": "Read", "anfitrion.kvm.kvm_domain_info": {"name": name}, "register": "told"},
        {"name": "Give back", "anfitrion.kvm.kvm_domain": {"domains": "{{ told.domains }}"}, "register": "given"},
        {"name": "Remove", "anfitrion.kvm.kvm_domain": {"name": name, "state": "absent", "stop_timeout": 0, "force_stop": True}},
        {"name": "Have it elsewhere", "anfitrion.kvm.kvm_domain": {"domains": "{{ told.domains }}"}},
        {"name": "Read again", "anfitrion.kvm.kvm_domain_info": {"name": name}},
    ]
    told, given, _gone, elsewhere, again = play(tasks).succeeded().tasks
    assert told.result["domains"][0]["state"] == "running"
    assert not given.changed, given.result
    assert elsewhere.changed
    assert again.result["domains"] == told.result["domains"]


FOREIGN = """
<domain type='qemu'>
  <name>{name}</name>
  <metadata><a:note xmlns:a='https://example.org/a'>kept</a:note></metadata>
  <memory unit='MiB'>64</memory>
  <vcpu>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><smm state='on'><tseg unit='MiB'>48</tseg></smm></features>
  <devices>
    <disk type='file'>
      <driver name='qemu' type='qcow2'/><source file='/srv/a.qcow2'/><target dev='vda' bus='virtio'/>
      <backingStore type='file'><format type='qcow2'/><source file='/srv/b.qcow2'/>
        <backingStore type='file'><format type='raw'/><source file='/srv/c.raw'/><backingStore/></backingStore>
      </backingStore>
    </disk>
    <graphics type='vnc' autoport='yes' passwd='geheim'/>
    <video><model type='vga'/></video>
    <video><model type='virtio'/></video>
  </devices>
</domain>
"""


@pytest.mark.row("B03")
@pytest.mark.row("P13")
def test_what_no_option_says_is_told_as_xml_and_no_secret_is(play: Any, libvirtd: Any, fresh_name: str, tmp_path: Path) -> None:
    name, file = fresh_name, tmp_path / "foreign.xml"
    file.write_text(FOREIGN.format(name=fresh_name))
    libvirtd.run("virsh", "define", str(file))
    before = libvirtd.run("virsh", "dumpxml", name, "--inactive").stdout
    read = {"name": "Read", "anfitrion.kvm.kvm_domain_info": {"name": name}, "register": "told"}
    back = {"name": "Give back", "anfitrion.kvm.kvm_domain": {"domains": "{{ told.domains }}"}}
    run = play([read, {**back, "check_mode": True}, back]).succeeded()
    assert [task.changed for task in run.tasks] == [False, False, False], run.output
    assert "geheim" not in run.output
    assert "geheim" in libvirtd.run("virsh", "dumpxml", name, "--security-info").stdout
    told = run.tasks[0].result["domains"][0]
    assert "geheim" not in str(told)
    assert "*****" not in str(told)
    assert told["plain"]  # it has no random numbers, which we would give a new guest
    assert told["xml"].count("<backingStore") == 3
    for word in ("https://example.org/a", "<tseg", "virtio"):
        assert word in told["xml"]
    for word in ("<source file=\"/srv/a.qcow2\"", "<memory", "<emulator", "placement"):
        assert word not in told["xml"], "an option says it"
    libvirtd.run("virsh", "undefine", name)
    assert play([{**back, "vars": {"told": {"domains": [told]}}}]).succeeded().only.changed
    after = libvirtd.run("virsh", "dumpxml", name, "--inactive").stdout
    assert sorted(after.splitlines()) == sorted(before.replace(" passwd='*****'", "").splitlines())
    libvirtd.run("virsh", "undefine", name)


# Many ----------------------------------------------------------------------------------------------------------------


@pytest.mark.row("P01")
def test_purging_consoles_keeps_the_twin_of_a_serial_port(play: Any, libvirtd: Any, fresh_name: str) -> None:
    serials = [{"port": 0, "type": "pty"}, {"port": 1, "type": "pty"}]
    wanted = {"name": fresh_name, "purge": ["consoles"]}
    tasks = play([domain(name=fresh_name, **BASE, serials=serials), domain(True, **wanted), domain(**wanted)]).succeeded().tasks
    assert [task.changed for task in tasks] == [True, False, False]
    assert len(dumped(libvirtd, fresh_name).findall("devices/serial")) == 2
    libvirtd.run("virsh", "undefine", fresh_name)


@pytest.mark.row("S11")
def test_one_bad_entry_does_not_stop_the_others_and_the_task_fails_naming_it(play: Any, fresh_name: str, libvirtd: Any) -> None:
    names = [f"{fresh_name}-{letter}" for letter in "abc"]
    entries: list[Options] = [{"name": name} for name in names]
    entries[1]["interfaces"] = [{"name": "lan", "network": "nowhere"}]
    entries[2]["memory"] = {"locked": True}
    defaults = {**BASE, "state": "present"}
    run = play([domain(domains=entries, defaults=defaults, ignore=True), domain(domains=[{"name": n, "state": "absent"} for n in names])])
    made, gone = run.tasks
    assert made.outcome == "failed" or made.result["failed"]
    assert made.message == (
        f"domain {names[1]!r}: interfaces[lan]: network 'nowhere' does not exist; define it with anfitrion.kvm.kvm_network"
    )
    assert [(one["name"], one["changed"], bool(one.get("failed"))) for one in made.result["results"]] == [
        (names[0], True, False), (names[1], False, True), (names[2], True, False),
    ]  # fmt: skip
    assert {"option": "memory.locked", "before": None, "after": True, "how": "define"} in made.result["results"][2]["changes"]
    assert [one["changed"] for one in gone.result["results"]] == [True, False, True]


# libvirt's test driver -----------------------------------------------------------------------------------------------


def test_the_test_driver_s_own_guest_is_told(play: Any) -> None:
    told = play({"name": "Read", "anfitrion.kvm.kvm_domain_info": {"uri": TEST}}).succeeded().only.result["domains"]
    assert [one["name"] for one in told] == ["test"]
    assert told[0]["state"] == "running"
    assert told[0]["vcpus"] == {"count": 2, "max": 2}
    assert told[0]["memory"]["size"] == "2GiB" or told[0]["memory"]["size"] == "8GiB"


def test_check_mode_and_the_real_run_agree_on_the_test_driver(play: Any) -> None:
    options = {"uri": TEST, "name": "test", "title": "The one", "autostart": True}
    check, real = play([domain(True, **options), domain(**options)]).succeeded().tasks
    assert check.changed
    assert check.diff == real.diff
    assert ways(check) == ways(real) == {"title": "live", "autostart": "define"}


def test_a_guest_that_does_not_exist_is_told_so(play: Any) -> None:
    failed = play({"name": "Read", "anfitrion.kvm.kvm_domain_info": {"uri": TEST, "name": "nobody"}}).only
    assert failed.message == "domain 'nobody' does not exist on this host"


def test_a_daemon_that_is_not_there_is_named(play: Any) -> None:
    uri = "qemu:///system?socket=/nowhere/libvirt-sock"
    failed = play(domain(uri=uri, name="a", state="present")).only
    assert failed.message.startswith(f"cannot reach libvirt at {uri}: Failed to connect socket to '/nowhere/libvirt-sock'")
