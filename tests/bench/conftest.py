"""A private libvirtd for each file of measurements."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playing import PRIVATE_LIBVIRTD


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("b") / "d"
    subprocess.run([PRIVATE_LIBVIRTD, "start", str(made), "--net", "private"], check=True, stdout=subprocess.DEVNULL)
    yield made
    subprocess.run([PRIVATE_LIBVIRTD, "stop", str(made)], check=True)
