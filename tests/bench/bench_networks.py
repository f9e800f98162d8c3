"""Networks and port forwards by one task against plain virsh and nft. Run by scripts/bench.

NETWORKS, STARTED and FORWARDS of the environment choose the size; the long form is 200, 50 and 2000.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playing import PRIVATE_LIBVIRTD, inside, is_changed, played

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import nft

NETWORKS, STARTED, FORWARDS = (int(os.environ.get(name, default)) for name, default in (("NETWORKS", "40"), ("STARTED", "5"), ("FORWARDS", "200")))
# One playbook / the same by virsh or nft, which says nothing of what was there, and a playbook of a module that does nothing with the same
# options: Ansible takes longer to hand 2,000 forwards over than nft to load them, whatever a module does with them.
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
    told(directory, tmp_path, f"{NETWORKS} networks, {STARTED} started", "virsh", virsh, "anfitrion.kvm.kvm_network", {"networks": networks()})


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
    told(directory, tmp_path, f"{FORWARDS} forwards", "nft", plain, "anfitrion.kvm.kvm_firewall", wanted)


def told(directory: Path, work: Path, what: str, tool: str, limit: float, action: str, task: dict[str, Any]) -> None:
    """Run the task twice beside a module that does nothing; tell the ratios and hold them against the limits."""
    nothing = played(directory, work / "nothing", "nothing", {}).seconds
    passed = played(directory, work / "passed", "nothing", {"given": task}).seconds
    runs = [played(directory, work / name, action, task) for name in ("first", "second")]
    assert [is_changed(run) for run in runs] == [True, False]
    first, second = (run.seconds for run in runs)
    print(
        f"\n{what}: {tool} {limit:.2f} s, module that does nothing {nothing:.2f} s, that is passed the same options {passed:.2f} s,"
        f" first {first:.2f} s, second {second:.2f} s; first/limit {first / (limit + passed):.2f} (at most {MOST_FIRST}),"
        f" {first / (limit + nothing):.2f} without the options; second/first {second / first:.2f} (at most {MOST_SECOND})"
    )
    assert first / (limit + passed) <= MOST_FIRST
    assert second / first <= MOST_SECOND
