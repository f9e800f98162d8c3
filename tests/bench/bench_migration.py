"""The tasks of community.libvirt on the page about moving from it do what the page says that they do. Run by scripts/bench --rival.

RIVAL of the environment is the directory of the ansible-playbook that brings community.libvirt; the machine has virt-install and genisoimage.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import yaml
from playing import PRIVATE_LIBVIRTD, PYTHON, ROOT, environment, inside

sys.path.insert(0, str(ROOT / "tests/integration"))
from guest_os import image
from guide import moved, tasks_of

PORT = 8765
# What its lookup('template', ...) of the page finds: files of whoever moves.
TEMPLATES = {
    "network/bridge.xml.j2": """<network><name>br_nat</name><bridge name="br_nat"/>
<ip address="192.168.178.1" prefix="24"><dhcp><range start="192.168.178.10" end="192.168.178.99"/></dhcp></ip></network>""",
    "pool/dir.xml.j2": '<pool type="dir"><name>vms</name><target><path>{place}/vms</path></target></pool>',
    "vm_template.xml.j2": """<domain type="qemu"><name>foo</name><memory unit="MiB">64</memory>
<os><type arch="x86_64" machine="q35">hvm</type></os><features><acpi/></features></domain>""",
}


def test_its_tasks_of_the_page_run_in_their_order(directory: Path, tmp_path: Path) -> None:
    for name, text in TEMPLATES.items():
        (tmp_path / "templates" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "templates" / name).write_text(text.replace("{place}", str(tmp_path)))
    for name in ("iso", "images", "cloud", "cache", "install"):
        (tmp_path / name).mkdir()
    (tmp_path / "iso/debian.iso").write_bytes(bytes(1 << 20))
    (tmp_path / "images/legacy.raw").write_bytes(bytes(1 << 20))
    (directory / "lib/boot").mkdir()  # where virt-install puts a medium of cloud-init
    for name in ("vmlinuz", "initrd"):
        (tmp_path / "install" / name).symlink_to(image() / name)
    for disk in (tmp_path / "cloud/debian-13.qcow2", tmp_path / "images/debian-13.qcow2"):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "10M"], check=True)
    digest = hashlib.sha256((tmp_path / "cloud/debian-13.qcow2").read_bytes()).hexdigest()
    (tmp_path / "cloud/SHA256SUMS").write_text(f"{digest}  debian-13.qcow2\n")
    fetched = f"http://127.0.0.1:{PORT}"
    places = {"/srv": str(tmp_path), "https://cloud.example.org": fetched, "sha256:https://cloud.example.org": f"sha256:{fetched}"}
    tasks = [{"name": f"task {number}", **task} for number, task in enumerate(moved(tasks_of("migration.md", whose="community."), places))]
    assert len(tasks) > 40
    for task in tasks:
        for name in ("virt_install", "virt_cloud_instance"):
            if f"community.libvirt.{name}" in task:
                task[f"community.libvirt.{name}"]["virt_type"] = "qemu"
    (tmp_path / "book.yml").write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}], sort_keys=False))
    server = [PYTHON, "-m", "http.server", "--bind", "127.0.0.1", str(PORT)]
    playbook = [f"{os.environ['RIVAL']}/ansible-playbook", "--extra-vars", f"ansible_python_interpreter={PYTHON}", "book.yml"]
    served = subprocess.Popen([PRIVATE_LIBVIRTD, "exec", str(directory), "--", *server], cwd=tmp_path / "cloud", stderr=subprocess.DEVNULL)
    try:
        told = inside(directory, *playbook, cwd=tmp_path, env=environment(tmp_path, tmp_path / "none"))
    finally:
        served.terminate()
        served.wait()
    assert f"ok={len(tasks)} " in told, told
    print(f"\n{len(tasks)} tasks of community.libvirt ran as the page has them")
