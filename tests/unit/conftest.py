"""For ansible-test units, which does not read pyproject.toml."""

from __future__ import annotations

import pytest
from hypothesis import settings


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(id): the requirement that the test proves")
    config.addinivalue_line("markers", "ring(n): 1 laws of the tables, 2 golden cases")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the expected files of the golden cases anew")


# No test depends on a time: Hypothesis would fail an example that a busy machine takes long for.
settings.register_profile("anfitrion", deadline=None)
settings.load_profile("anfitrion")
