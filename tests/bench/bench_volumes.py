"""Volumes by one task against a plain loop; and a second run against the bare listing. Run by scripts/bench.

VOLUMES of the environment says how many; the long form is 500.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from playing import PYTHON, inside, is_changed, played, timed

VOLUMES = int(os.environ.get("VOLUMES", "100"))
MOST_SECOND_S = 2.0  # over the bare listing

LOOP = """
import sys, libvirt
pool = libvirt.open("qemu:///system").storagePoolLookupByName(sys.argv[1])
for number in range(int(sys.argv[2])):
    pool.createXML(f"<volume><name>v{number:04}</name><capacity>8388608</capacity><target><format type='qcow2'/></target></volume>", 0)
"""
LIST = """
import sys, libvirt
pool = libvirt.open("qemu:///system").storagePoolLookupByName(sys.argv[1])
assert [volume.XMLDesc(0) for volume in pool.listAllVolumes(0)]
"""


@pytest.mark.row("P07")
def test_volumes_of_a_list_cost_little_more_than_a_loop(directory: Path, tmp_path: Path) -> None:
    for name in ("loop", "task"):
        inside(directory, "virsh", "pool-create-as", name, "dir", "--target", str(directory / name), "--build")
    loop = timed(directory, PYTHON, "-c", LOOP, "loop", str(VOLUMES)).seconds
    listing = timed(directory, PYTHON, "-c", LIST, "loop").seconds
    entries = [{"name": f"v{number:04}", "capacity": "8MiB"} for number in range(VOLUMES)]
    task = {"defaults": {"pool": "task"}, "volumes": entries}
    nothing = played(directory, tmp_path / "nothing", "nothing", {}).seconds
    runs = [played(directory, tmp_path / name, "anfitrion.kvm.kvm_volume", task) for name in ("first", "second")]
    assert [is_changed(run) for run in runs] == [True, False]
    first, second = (run.seconds for run in runs)
    print(
        f"\n{VOLUMES} volumes: plain loop {loop:.2f} s, first run {first:.2f} s ({first / (loop + nothing):.2f} times loop and bare module);"
        f" bare listing {listing:.2f} s, second run {second:.2f} s ({second - listing - nothing:.2f} s over listing and bare module {nothing:.2f} s)",
        file=sys.stderr,
    )
    assert second - listing - nothing <= MOST_SECOND_S
