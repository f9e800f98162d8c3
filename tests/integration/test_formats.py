"""What QEMU does with each image format: tried here, and written into the guide. pytest --regenerate writes the table."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "storage.md"
BEGIN, END = "<!-- formats -->\n", "<!-- /formats -->"
WORDS = ("create", "convert", "read", "grow", "shrink")
SHOWN = {True: "yes", False: "no", None: "not tried"}


def table(found: list[dict[str, Any]]) -> str:
    rows = [f"| {one['format']} | " + " | ".join(SHOWN[one[word]] for word in WORDS) + " |" for one in found]
    return "\n".join(["| format | create | convert into | read back the same | grow | shrink |", "|---|---|---|---|---|---|", *rows, ""])


@pytest.mark.row("S26")
def test_the_table_of_formats_in_the_guide_is_what_this_qemu_does(play: Any, request: pytest.FixtureRequest) -> None:
    told = {"name": "Tell", "anfitrion.kvm.kvm_pool_info": {"formats": True}}
    found = play(told).succeeded().only.result["formats"]
    text = GUIDE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _old, after = rest.split(END)
    made = f"{before}{BEGIN}{table(found)}{END}{after}"
    if request.config.getoption("--regenerate"):
        GUIDE.write_text(made, encoding="utf-8")
    assert made == text, "run this test once with --regenerate, and read the difference"


@pytest.mark.row("S26")
def test_a_volume_is_converted_into_each_format_and_back(play: Any, libvirtd: Any, tmp_path: Path, fresh_name: str) -> None:
    here = tmp_path / "pool"
    libvirtd.run("virsh", "pool-create-as", fresh_name, "dir", "--target", str(here), "--build")
    (tmp_path / "source").write_bytes(b"anfitrion" * 100_000 + b"\0" * (2 * 1024**2 - 900_000))
    kinds = ("qcow", "qcow2", "qed", "vmdk", "vdi", "vpc", "parallels")
    first = {"name": "raw", "format": "raw", "source": {"path": str(tmp_path / "source"), "format": "raw"}}
    there = [{"name": kind, "format": kind, "source": {"volume": "raw"}} for kind in kinds]
    back = [{"name": f"{kind}.raw", "format": "raw", "source": {"volume": kind}} for kind in kinds]
    task = {"name": "Volumes", "anfitrion.kvm.kvm_volume": {"defaults": {"pool": fresh_name}, "volumes": [first, *there, *back]}}
    run = play([task, task]).succeeded()
    libvirtd.run("virsh", "pool-destroy", fresh_name)
    assert [one.changed for one in run.tasks] == [True, False], run.output
    for kind in kinds:
        probe = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", str(tmp_path / "source"), str(here / f"{kind}.raw")], check=False)
        assert probe.returncode == 0, kind
