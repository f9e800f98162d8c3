"""kvm_network on every network of libvirt's own test suite that this libvirt accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ansible
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.row("P05")
def test_every_network_of_libvirts_own_tests_is_unchanged_at_the_second_run_and_comes_back_as_told(libvirtd: Any, tmp_path: Path) -> None:
    directory = libvirtd.corpus("network")
    script = str(Path(__file__).with_name("network_corpus.py"))
    # Of the environment only ansible itself: its libraries are for another Python than the distribution's.
    (tmp_path / "ansible").symlink_to(Path(ansible.__file__).parent)
    path = f"PYTHONPATH={ROOT / '.ansible' / 'collections'}:{tmp_path}"
    done = libvirtd.run("env", path, "PYTHONDONTWRITEBYTECODE=1", "/usr/bin/python3", script, directory, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print({state: len(labels) for state, labels in report.items()}, "refused:", *report["refused"])
    assert not report["failed"], "\n".join(report["failed"])
    assert len(report["passed"]) >= 100
    # xml is for what has no option: almost all is said by options
    assert len(report["options"]) >= 0.9 * len(report["passed"]), sorted({*report["passed"]} - {*report["options"]})
