"""Guests by one task against the limit: a plain libvirt loop and a module that does nothing. Run by scripts/bench.

GUESTS of the environment says how many; the long form is 200. The median of the rounds counts; run it on a machine that is idle.
"""

from __future__ import annotations

import os
import re
import statistics
from pathlib import Path

import pytest
from playing import PYTHON, ROOT, Timed, inside, is_changed, played, timed

GUESTS = int(os.environ.get("GUESTS", "50"))
ROUNDS = 5
# The most that a run may cost over others, by what it is held against.
BARS = {
    "a loop that defines and a module that does nothing": {"first": 1.5},
    "a loop and a module that is passed the same": {"first passed": 1.3, "second passed": 1.2},
    "the first run": {"second": 1.1},  # the margin is the noise of a shared machine
}

NAMES = [f"bench{number:03}" for number in range(GUESTS)]
TASK = {
    "domains": [
        {
            "name": name,
            "vcpus": {"count": 1, "max": 2},
            "disks": [{"target": "vda", "path": f"/srv/{name}.qcow2"}],
            "interfaces": [{"name": "lan", "mac": f"52:54:00:00:{number // 256:02x}:{number % 256:02x}", "type": "user"}],
        }
        for number, name in enumerate(NAMES)
    ],
    "defaults": {"type": "qemu", "memory": {"size": "512MiB"}, "guest_agent": True},
}

# The same guest as a person would write it for the loop.
DOCUMENT = """
<domain type="qemu">
  <name>{name}</name>
  <memory unit="MiB">512</memory>
  <vcpu current="1">2</vcpu>
  <os><type machine="q35">hvm</type></os>
  <features><acpi/><apic/></features>
  <devices>
    <disk type="file" device="disk"><driver name="qemu" type="qcow2"/><source file="/srv/{name}.qcow2"/><target dev="vda" bus="virtio"/></disk>
    <interface type="user"><mac address="52:54:00:00:{high:02x}:{low:02x}"/><alias name="ua-lan"/><model type="virtio"/></interface>
    <console type="pty"/>
    <channel type="unix"><target type="virtio" name="org.qemu.guest_agent.0"/></channel>
    <rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
    <controller type="pci" model="pcie-root"/>
    {ports}
  </devices>
</domain>
""".replace("{ports}", '<controller type="pci" model="pcie-root-port"/>' * 11)


def document(number: int) -> str:
    return DOCUMENT.format(name=NAMES[number], high=number // 256, low=number % 256)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("xml")
    for number, name in enumerate(NAMES):
        (made / f"{name}.xml").write_text(document(number))
    return made


def emptied(directory: Path) -> None:
    inside(directory, PYTHON, "-c", "import libvirt\nfor one in libvirt.open('qemu:///system').listAllDomains(): one.undefine()")


def looped(directory: Path, documents: Path, what: str) -> Timed:
    return timed(directory, PYTHON, str(ROOT / "tests/bench/libvirt_loop.py"), what, str(documents))


def one_round(directory: Path, documents: Path, work: Path) -> dict[str, Timed]:
    """Run each contender once, one after the other, so that a machine that slows down slows all of them."""
    ours = "anfitrion.kvm.kvm_domain"
    emptied(directory)
    times = {"define": looped(directory, documents, "define"), "read": looped(directory, documents, "read")}
    emptied(directory)
    times["nothing"] = played(directory, work, "nothing", {})
    times["passed"] = played(directory, work, "nothing", {"given": TASK})
    times["check"] = played(directory, work, ours, TASK, check=True)
    times["first"] = played(directory, work, ours, TASK)
    times["second"] = played(directory, work, ours, TASK)
    assert is_changed(times["check"])
    assert is_changed(times["first"])
    assert not is_changed(times["second"])
    return times


@pytest.fixture(scope="module")
def ratios(directory: Path, documents: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """What one run costs over the other, as the median of the rounds."""
    found: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        times = one_round(directory, documents, tmp_path_factory.mktemp("round"))
        seconds = {name: run.seconds for name, run in times.items()}
        for name, cost, limit in (
            ("first", "first", ("define", "nothing")), ("second", "second", ("first",)),
            ("first passed", "first", ("define", "passed")), ("second passed", "second", ("read", "passed")),
        ):  # fmt: skip
            found.setdefault(name, []).append(seconds[cost] / sum(seconds[one] for one in limit))
        print(f"\nround {number + 1}: " + ", ".join(f"{name} {run.seconds:.2f} s" for name, run in times.items()), end="")
    print(f"; largest process {max(run.memory for run in times.values())} MiB")
    return {name: statistics.median(values) for name, values in found.items()}


@pytest.mark.parametrize("against", BARS)
def test_guests_cost_little_more_than_the_limit(ratios: dict[str, float], against: str) -> None:
    told = ", ".join(f"{name} {ratios[name]:.2f} (at most {most})" for name, most in BARS[against].items())
    print(f"\n{GUESTS} guests, whole commands, median of {ROUNDS}, against {against}: {told}")
    assert all(ratios[name] <= most for name, most in BARS[against].items())


def test_libvirt_is_asked_no_more_than_it_takes(directory: Path, tmp_path: Path) -> None:
    emptied(directory)
    first, second = (calls(directory, tmp_path / name) for name in ("first", "second"))
    print(f"\n{GUESTS} guests, calls of libvirt: first run {sum(first.values())} {first}, second run {sum(second.values())} {second}")
    assert first["virDomainDefineXML"] == GUESTS
    assert "virDomainDefineXML" not in second
    assert sum(first.values()) <= FIXED_CALLS + 2 * GUESTS
    assert sum(second.values()) <= FIXED_CALLS + GUESTS


FIXED_CALLS = 10  # opening, asking what QEMU can, listing, closing
ON_THIS_SIDE = ("virDomainGetName", "virDomainGetID", "virDomainFree", "virDomainDispose", "virConnectOpenInternal")


def calls(directory: Path, work: Path) -> dict[str, int]:
    """Run the task; return how often it called each function of libvirt's that goes to the daemon."""
    work.mkdir()
    log = work / "calls"
    variables = {"LIBVIRT_LOG_FILTERS": "1:libvirt", "LIBVIRT_LOG_OUTPUTS": f"1:file:{log}", "LIBVIRT_DEBUG": "1"}
    played(directory, work, "anfitrion.kvm.kvm_domain", TASK, variables)
    found: dict[str, int] = {}
    for name in re.findall(r" : (vir(?:Domain|Connect|Node)\w+):\d+ : ", log.read_text()):
        if name not in ON_THIS_SIDE:
            found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
