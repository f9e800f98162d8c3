"""Networks and port forwards by one task against plain virsh and nft. Run by scripts/bench.

NETWORKS, STARTED and FORWARDS of the environment choose the size; the long form is 200, 50 and 2000.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import nft

ROOT = Path(__file__).resolve().parents[2]
PRIVATE_LIBVIRTD = str(ROOT / "scripts" / "private-libvirtd")
NETWORKS, STARTED, FORWARDS = (int(os.environ.get(name, default)) for name, default in (("NETWORKS", "40"), ("STARTED", "5"), ("FORWARDS", "200")))
# One task / the same by virsh or nft, which says nothing of what was there, and a module that does nothing with the same options: Ansible
# takes longer to hand 2,000 forwards over than nft to load them, whatever a module does with them.
MOST_FIRST = 3.0
MOST_SECOND = 1.2  # second run / first run


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    scratch = tmp_path_factory.getbasetemp()
    options = ["--net", "private", "--read-only-root", "--writable", str(scratch)]
    subprocess.run([PRIVATE_LIBVIRTD, "start", str(scratch / "d"), *options], check=True, stdout=subprocess.DEVNULL)
    # kvm_firewall writes to /etc: to a layer over it, so that the machine's files stay as they were.
    (scratch / "upper").mkdir()
    (scratch / "work").mkdir()
    layers = f"lowerdir=/etc,upperdir={scratch}/upper,workdir={scratch}/work"
    inside(scratch / "d", "sh", "-ec", f"mount -t overlay overlay -o {layers} /etc; mount --bind {scratch}/d/etc /etc/libvirt")
    yield scratch / "d"
    subprocess.run([PRIVATE_LIBVIRTD, "stop", str(scratch / "d")], check=True)


def inside(directory: Path, *command: str, **options: Any) -> str:
    full = [PRIVATE_LIBVIRTD, "exec", str(directory), "--", *command]
    done = subprocess.run(full, check=False, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def subnet(number: int) -> str:
    return f"10.{100 + number // 250}.{number % 250}"


def networks() -> list[dict[str, Any]]:
    return [
        {
            "name": f"bench{number}",
            "mode": "nat",
            "state": "active" if number < STARTED else "present",
            "bridge": {"name": f"bench{number}"},
            "ips": [
                {
                    "address": f"{subnet(number)}.1",
                    "prefix": 24,
                    "dhcp": {"ranges": [{"start": f"{subnet(number)}.10", "end": f"{subnet(number)}.99"}]},
                }
            ],
        }
        for number in range(NETWORKS)
    ]


def test_networks_cost_little_more_than_virsh(directory: Path, tmp_path: Path) -> None:
    documents = []
    for number in range(NETWORKS):
        documents.append(tmp_path / f"bench{number}.xml")
        documents[-1].write_text(
            f"<network><name>bench{number}</name><forward mode='nat'/><bridge name='bench{number}'/><ip address='{subnet(number)}.1' prefix='24'>"
            f"<dhcp><range start='{subnet(number)}.10' end='{subnet(number)}.99'/></dhcp></ip></network>"
        )
    lines = [f"net-define {path}" for path in documents] + [f"net-start bench{number}" for number in range(STARTED)]
    (tmp_path / "virsh.txt").write_text("\n".join(lines))
    before = time.perf_counter()
    inside(directory, "sh", "-c", f"virsh -q < {tmp_path}/virsh.txt")
    virsh = time.perf_counter() - before
    assert len(inside(directory, "virsh", "net-list", "--name").split()) == STARTED
    gone = [f"net-destroy bench{number}" for number in range(STARTED)] + [f"net-undefine bench{number}" for number in range(NETWORKS)]
    (tmp_path / "gone.txt").write_text("\n".join(gone))
    inside(directory, "sh", "-c", f"virsh -q < {tmp_path}/gone.txt")
    times = played(directory, tmp_path, "anfitrion.kvm.kvm_network", {"networks": networks()})
    told(f"{NETWORKS} networks, {STARTED} started", "virsh", virsh, times)


def test_forwards_cost_little_more_than_nft(directory: Path, tmp_path: Path) -> None:
    forwards = [
        {"name": f"f{number}", "port": str(10000 + number), "to_address": f"10.99.{1 + number // 250}.{2 + number % 250}", "to_port": "80"}
        for number in range(FORWARDS)
    ]
    wanted = {"name": "bench", "bridge": "br-bench", "subnet": "10.99.0.0/16", "mode": "nat", "forwards": forwards}
    (tmp_path / "rules.nft").write_text(nft.table_text([wanted]))
    before = time.perf_counter()
    inside(directory, "nft", "-f", str(tmp_path / "rules.nft"))
    plain = time.perf_counter() - before
    inside(directory, "nft", "delete", "table", "inet", "anfitrion")
    times = played(directory, tmp_path, "anfitrion.kvm.kvm_firewall", wanted)
    told(f"{FORWARDS} forwards", "nft", plain, times)


def played(directory: Path, work: Path, module: str, options: dict[str, Any]) -> dict[str, tuple[float, bool]]:
    """Run the task twice after one that warms ansible up; return how long each took and whether it said changed."""
    tasks = [{"name": name, action: given} for name, action, given in (
        ("warm", "ansible.builtin.ping", {}), ("nothing", "nothing", {}), ("passed", "nothing", {"given": options}),
        ("first", module, options), ("second", module, options),
    )]  # fmt: skip
    (work / "book.yml").write_text(yaml.safe_dump([{"hosts": "target", "gather_facts": False, "tasks": tasks}]))
    host = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    (work / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"target": host}}}))
    environment = {
        **os.environ, "ANSIBLE_LIBRARY": str(ROOT / "tests/bench/library"), "TMPDIR": str(work), "HOME": str(work),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/bench/callback_plugins"), "ANSIBLE_CALLBACKS_ENABLED": "durations",
        "ANSIBLE_DURATIONS": str(work / "durations"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible/collections"), "ANSIBLE_HOME": str(work / "home"),
        "ANSIBLE_REMOTE_TMP": str(work / "remote"),
    }  # fmt: skip
    playbook = str(Path(sys.executable).parent / "ansible-playbook")
    inside(directory, playbook, "-i", "hosts.yml", "book.yml", cwd=work, env=environment, stdin=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (work / "durations").read_text().splitlines()]
    return {line["task"]: (line["seconds"], line["changed"]) for line in lines}


def told(what: str, tool: str, limit: float, times: dict[str, tuple[float, bool]]) -> None:
    nothing, passed, first, second = (times[name][0] for name in ("nothing", "passed", "first", "second"))
    print(
        f"\n{what}: {tool} {limit:.2f} s, module that does nothing {nothing:.2f} s, that is passed the same options {passed:.2f} s,"
        f" first {first:.2f} s, second {second:.2f} s; first/limit {first / (limit + passed):.2f} (at most {MOST_FIRST}),"
        f" {first / (limit + nothing):.2f} without the options; second/first {second / first:.2f} (at most {MOST_SECOND})"
    )
    assert times["first"][1]
    assert not times["second"][1]
    assert first / (limit + passed) <= MOST_FIRST
    assert second / first <= MOST_SECOND
