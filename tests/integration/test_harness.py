"""The harness itself: a daemon that is really ours, results as ansible gives them, and a cycle that notices a liar."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from pathlib import Path

GUEST = """
<domain type="qemu">
  <name>{name}</name>
  <memory unit="MiB">32</memory>
  <os><type arch="x86_64" machine="q35">hvm</type></os>
  <features><acpi/></features>
  <devices><interface type="network"><source network="{name}"/></interface></devices>
</domain>
"""
NETWORK = """
<network>
  <name>{name}</name>
  <forward mode="nat"/>
  <ip address="192.168.231.1" netmask="255.255.255.0"><dhcp><range start="192.168.231.2" end="192.168.231.9"/></dhcp></ip>
</network>
"""


def test_a_guest_runs_on_a_network_with_nat_in_the_private_namespaces(libvirtd: Any, tmp_path: Path, fresh_name: str) -> None:
    for kind, text in (("net", NETWORK), ("guest", GUEST)):
        (tmp_path / kind).write_text(text.format(name=fresh_name))
    before = libvirtd.state()
    libvirtd.run("virsh", "net-create", str(tmp_path / "net"))
    libvirtd.run("virsh", "create", str(tmp_path / "guest"))
    assert libvirtd.run("virsh", "domstate", fresh_name).stdout.strip() == "running"
    assert "192.168.231.0/24" in libvirtd.run("iptables-save").stdout
    assert libvirtd.state() != before
    libvirtd.run("virsh", "destroy", fresh_name)
    libvirtd.run("virsh", "net-destroy", fresh_name)
    assert libvirtd.state() == before


def test_the_daemon_and_the_python_of_the_modules_are_those_of_the_release_that_is_asked_for(play: Callable[..., Any], libvirtd: Any) -> None:
    release = '. /etc/os-release; echo "$ID$VERSION_ID"'
    here = subprocess.check_output(["sh", "-c", release], text=True).strip()
    argv = ["{{ ansible_python_interpreter }}", "-c", "import sys, libvirt; print(libvirt.getVersion(), libvirt.open('qemu:///system').getLibVersion())"]
    tasks = [{"name": "Ask", "ansible.builtin.command": {"argv": one}} for one in (["sh", "-c", release], argv)]
    asked, versions = (task.result["stdout"] for task in play(tasks).succeeded().tasks)
    assert asked == os.environ.get("ANFITRION_ROOT", here)
    client, daemon = versions.split()
    assert client == daemon


def test_nothing_outside_the_scratch_directory_can_be_written(libvirtd: Any) -> None:
    for place in ("/etc/passwd", "/usr/anything", "/sys/kernel/mm/ksm/run"):
        assert "Read-only file system" in libvirtd.run("sh", "-c", f"echo >> {place}", check=False).stderr


def test_a_play_returns_what_its_tasks_returned(play: Callable[..., Any], tmp_path: Path) -> None:
    run = play([{"name": "Write", "ansible.builtin.copy": {"content": "1\n", "dest": str(tmp_path / "f"), "mode": "0600"}}], check=True).succeeded()
    assert run.only.changed
    assert not (tmp_path / "f").exists()
    failed = play([{"name": "Fail", "ansible.builtin.command": "virsh domstate nobody"}]).only
    assert failed.outcome == "failed"
    assert "failed to get domain 'nobody'" in failed.result["stderr"]


def test_a_module_reaches_the_private_daemon_under_the_distributions_python(play: Callable[..., Any], libvirtd: Any) -> None:
    script = "import libvirt, sys; print(sys.prefix, libvirt.open('qemu:///system').getURI())"
    task = {"name": "Open", "ansible.builtin.command": {"argv": ["{{ ansible_python_interpreter }}", "-c", script]}}
    assert play(task).succeeded().only.result["stdout"] == "/usr qemu:///system"
