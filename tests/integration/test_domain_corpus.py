"""kvm_domain on every guest of libvirt's own test suite that this libvirt accepts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import ansible
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


@pytest.mark.row("S11")
@pytest.mark.row("S13")
def test_every_guest_of_libvirts_own_tests_is_unchanged_as_told_made_elsewhere_and_when_given_twice(mortal_libvirtd: Any, tmp_path: Path) -> None:
    directory = mortal_libvirtd.corpus("domain")
    # Of the environment only ansible itself: its libraries are for another Python than the distribution's.
    (tmp_path / "ansible").symlink_to(Path(ansible.__file__).parent)
    path = f"PYTHONPATH={ROOT / '.ansible' / 'collections'}:{tmp_path}:{SCRIPTS}"
    script = str(Path(__file__).with_name("domain_corpus.py"))
    done = mortal_libvirtd.run("env", path, "PYTHONDONTWRITEBYTECODE=1", "/usr/bin/python3", script, directory, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print({form: len(report[form]) for form in ("accepted", "told", "elsewhere", "given")})
    assert len(report["accepted"]) > 1000
    for form in ("told", "elsewhere", "given"):
        assert not report[form], f"{form}:\n" + "\n".join(f"{label}: {why}" for label, why in report[form].items())


@pytest.mark.row("S11")
def test_the_options_say_almost_all_of_the_format() -> None:
    command = ["/usr/bin/python3", str(SCRIPTS / "domain_coverage.py"), "--least", "97"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
