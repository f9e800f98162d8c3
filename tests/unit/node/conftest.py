# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host in a directory, for tests of the host's own knobs: files instead of /sys, rules instead of a kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Output, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan, execute


class Host(Root):
    """A Root over a directory. written: what was written to kernel files, in order; react, then: the kernel's part, before and after it."""

    def __init__(self, path: str, check: bool = False) -> None:
        super().__init__(path, check)
        self.written: list[tuple[str, str]] = []
        self.commands: list[list[str]] = []
        self.react: Callable[[str, str], None] = lambda _path, _value: None
        self.then: Callable[[str, str], None] = lambda _path, _value: None
        self.answer: Callable[[list[str]], Output] = lambda _argv: Output(0, "", "")

    def has(self, files: dict[str, Any]) -> Host:
        """Give the host files (text), directories (None) and links (text that begins with "->")."""
        for name, text in files.items():
            here = Path(self.at(name))
            here.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                here.mkdir(exist_ok=True)
            elif str(text).startswith("->"):
                here.symlink_to(str(text)[2:])
            else:
                here.write_text(f"{text}\n", encoding="utf-8")
        return self

    def write(self, path: str, value: str) -> None:
        self.react(path, value)
        super().write(path, value)
        self.then(path, value)
        self.written.append((path, value))

    def run(self, argv: list[str], text: str | None = None, timeout: float = 60.0) -> Output:  # noqa: ARG002
        self.commands.append(argv)
        return self.answer(argv)

    def set(self, path: str, value: Any) -> None:
        """Change a file as the kernel would, without it being a write of ours."""
        Path(self.at(path)).write_text(f"{value}\n", encoding="utf-8")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(str(tmp_path))


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Return a function that tells the whole state of the host, to see that nothing was touched."""

    def state() -> dict[str, str]:
        files = {str(p.relative_to(tmp_path)): p for p in sorted(tmp_path.rglob("*"))}
        return {n: str(p.readlink()) if p.is_symlink() else p.read_text() for n, p in files.items() if not p.is_dir()}

    return state


def apply(make: Callable[[], Plan]) -> Plan:
    """Carry out a plan and see that the same plan is then empty."""
    plan = make()
    execute(plan)
    again = make()
    assert not again.changed, again.changes or again.steps
    return plan


def refusal(make: Callable[[], object]) -> str:
    """Return the words of the KvmError that is raised."""
    with pytest.raises(KvmError) as raised:
        make()
    return str(raised.value)
