"""Fifty guests by one task against the limit: a plain libvirt loop plus one module that does nothing. Run by scripts/bench.

Both modules are called for the first time in the playbook that measures them (a second call of the same module finds its
payload built) after a task of another that warms ansible up. The median of the rounds counts; run it on a machine that is idle.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PRIVATE_LIBVIRTD = str(ROOT / "scripts" / "private-libvirtd")
GUESTS = 50
ROUNDS = 5
MOST_FIRST = 1.5  # first run / (libvirt loop + module that does nothing)
MOST_SECOND = 1.1  # second run / first run; the margin is the noise of a shared machine

NAMES = [f"bench{number:03}" for number in range(GUESTS)]
TASK = {
    "domains": [
        {
            "name": name,
            "vcpus": {"count": 1, "max": 2},
            "disks": [{"target": "vda", "path": f"/srv/{name}.qcow2"}],
            "interfaces": [{"name": "lan", "mac": f"52:54:00:00:01:{number:02x}", "type": "user"}],
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
    <interface type="user"><mac address="52:54:00:00:01:{number:02x}"/><alias name="ua-lan"/><model type="virtio"/></interface>
    <console type="pty"/>
    <channel type="unix"><target type="virtio" name="org.qemu.guest_agent.0"/></channel>
    <rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
    <controller type="pci" model="pcie-root"/>
    {ports}
  </devices>
</domain>
""".replace("{ports}", '<controller type="pci" model="pcie-root-port"/>' * 11)


def inside(directory: Path, *command: str, **options: Any) -> str:
    full = [PRIVATE_LIBVIRTD, "exec", str(directory), "--", *command]
    return subprocess.run(full, check=True, capture_output=True, text=True, **options).stdout


def played(
    directory: Path, work: Path, module: str = "anfitrion.kvm.kvm_domain", task: dict[str, Any] | None = None
) -> dict[str, tuple[float, bool]]:
    """Run the tasks of one round; return how long each took and whether it said changed."""
    tasks = [{"name": name, action: options} for name, action, options in (
        ("warm", "ansible.builtin.ping", {}), ("nothing", "nothing", {}), ("first", module, task or TASK), ("second", module, task or TASK),
    )]  # fmt: skip
    (work / "book.yml").write_text(yaml.safe_dump([{"hosts": "target", "gather_facts": False, "tasks": tasks}]))
    host = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    (work / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"target": host}}}))
    environment = {
        **os.environ, "ANSIBLE_LIBRARY": str(ROOT / "tests/bench/library"),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/bench/callback_plugins"), "ANSIBLE_CALLBACKS_ENABLED": "durations",
        "ANSIBLE_DURATIONS": str(work / "durations"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible/collections"), "ANSIBLE_HOME": str(work / "home"),
    }  # fmt: skip
    playbook = str(Path(sys.executable).parent / "ansible-playbook")
    inside(directory, playbook, "-i", "hosts.yml", "book.yml", cwd=work, env=environment, stdin=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (work / "durations").read_text().splitlines()]
    return {line["task"]: (line["seconds"], line["changed"]) for line in lines}


def timed(directory: Path, *command: str) -> float:
    """Return the seconds that a program took inside the namespaces, without the way there."""
    script = "import subprocess, sys, time; t = time.perf_counter(); subprocess.run(sys.argv[1:], check=True); print(time.perf_counter() - t)"
    return float(inside(directory, "/usr/bin/python3", "-c", script, *command))


def emptied(directory: Path) -> None:
    inside(directory, "sh", "-c", "for name in $(virsh list --all --name); do virsh undefine $name; done")


def test_fifty_guests_cost_little_more_than_the_limit(directory: Path, tmp_path: Path) -> None:
    firsts, seconds = [], []
    for number in range(ROUNDS):
        work = tmp_path / f"round{number}"
        documents = work / "xml"
        documents.mkdir(parents=True)
        for place, name in enumerate(NAMES):
            (documents / f"{name}.xml").write_text(DOCUMENT.format(name=name, number=place))
        emptied(directory)
        times = played(directory, work)
        assert times["first"][1]
        assert not times["second"][1]
        emptied(directory)
        loop = timed(directory, "/usr/bin/python3", str(ROOT / "tests/bench/libvirt_loop.py"), str(documents))
        nothing, first, second = (times[name][0] for name in ("nothing", "first", "second"))
        firsts.append(first / (loop + nothing))
        seconds.append(second / first)
        print(
            f"\nround {number + 1}: nothing {nothing:.2f} s, libvirt loop {loop:.2f} s, first {first:.2f} s, second {second:.2f} s;"
            f" first/limit {firsts[-1]:.2f}, second/first {seconds[-1]:.2f}",
            end="",
        )
    print(f"\nmedian of {ROUNDS} rounds, {GUESTS} guests: first/limit {statistics.median(firsts):.2f} (at most {MOST_FIRST}),"
          f" second/first {statistics.median(seconds):.2f} (at most {MOST_SECOND})")  # fmt: skip
    assert statistics.median(firsts) <= MOST_FIRST
    assert statistics.median(seconds) <= MOST_SECOND
