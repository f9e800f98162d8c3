# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Golden cases: options and a definition in, the new definition and the list of changes out.

A case is a folder golden/<table>/<a sentence with hyphens>/:

    task.yml      options of the module
    current.xml   the definition that is there; not there for an object that is new
    expected.xml  the definition that comes out, as libvirt is given it; not there when nothing changes
    expected.yml  the changed options, in order: {option, before, after}; or error: the sentence of the refusal

pytest --regenerate writes what should be there anew: read the difference before you commit it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from lxml import etree

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _options, _tables, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import fragment

pytestmark = pytest.mark.ring(2)

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.parent for path in GOLDEN.glob("*/*/task.yml"))
SCHEMAS = Path("/usr/share/libvirt/schemas")
SCHEMA = {"domain": "domain.rng", "network": "network.rng", "pool": "storagepool.rng", "volume": "storagevol.rng", "secret": "secret.rng"}

Options = dict[str, Any]


class Case:
    """One folder: the table that it is about, its options in normal form, the definition that is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = f"{_tables.__name__}.{folder.parent.name}"
        self.table = importlib.import_module(name)
        # Those of a guest are so many that they have a file of their own.
        self.checks = importlib.import_module(f"{name}_checks") if importlib.util.find_spec(f"{name}_checks") else self.table
        self.rows = self.table.TABLE.rows
        task = _options.stated(yaml.safe_load((folder / "task.yml").read_text(encoding="utf-8")))
        self.purge = tuple(task.pop("purge", ()))
        self.task = task
        current = folder / "current.xml"
        self.current = _xml.parse(current.read_bytes(), self.table.TABLE.root) if current.exists() else None

    def outcome(self, current: Any | None) -> tuple[Any, list[_fields.Difference]]:
        """Return the definition that the options make of the present one, and how the two differ; the steps of every plan."""
        found = _fields.read(self.rows, current) if current is not None else {}
        wanted = _fields.normal(self.rows, self.task)
        if current is None and hasattr(self.table, "born"):
            wanted = {**wanted, **self.table.born(wanted)}
        purge = (self.purge,) if self.purge else ()
        wanted = self.table.complete(wanted, found, *purge)
        self.checks.check(wanted)
        differences = list(_fields.differences(self.rows, wanted, found, self.purge))
        tree = _xml.copy(current) if current is not None else self.blank(wanted["name"])
        if "xml" in wanted:
            tree = fragment.merged(_xml.parts_of(wanted["xml"]), tree)
        for option in wanted.get("unset", []):
            gone = _fields.unset(self.rows, tree, option)
            differences += [gone] if gone else []
        _fields.write(self.rows, tree, wanted, self.purge)
        if current is None and hasattr(self.table, "finish"):
            self.table.finish(tree, wanted)
        if hasattr(self.table, "tidy"):
            self.table.tidy(tree)
        if hasattr(self.checks, "check_result"):
            self.checks.check_result(_fields.read(self.rows, tree))
        return tree, differences

    def blank(self, name: str) -> Any:
        if hasattr(self.table, "blank"):
            return self.table.blank(name)
        tree = _xml.new(self.table.TABLE.root)
        _xml.put(tree, "name", name)
        return tree

    def result(self) -> tuple[str | None, Any]:
        """Return what expected.xml and expected.yml should hold."""
        try:
            tree, differences = self.outcome(self.current)
        except KvmError as error:
            return None, {"error": str(error)}
        changes = [{"option": one.option, "before": one.before, "after": one.after} for one in differences]
        return (_xml.text_of(tree) if changes else None), changes


@functools.cache
def schema_of(root: str) -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(str(SCHEMAS / SCHEMA[root])))


def validated(tree: Any, root: str) -> None:
    """Raise if libvirt's own schema does not know the document."""
    schema_of(root).assertValid(tree)


@pytest.fixture(params=CASES, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def case(request: pytest.FixtureRequest) -> Case:
    made = Case(request.param)
    if request.config.getoption("--regenerate"):
        xml, yml = made.result()
        (made.folder / "expected.yml").write_text(yaml.safe_dump(yml, sort_keys=False, width=120), encoding="utf-8")
        (made.folder / "expected.xml").unlink(missing_ok=True)
        if xml:
            (made.folder / "expected.xml").write_text(xml, encoding="utf-8")
    return made


def test_the_changes_are_those_expected(case: Case) -> None:
    assert case.result()[1] == yaml.safe_load((case.folder / "expected.yml").read_text(encoding="utf-8"))


def test_the_definition_is_that_expected(case: Case) -> None:
    expected = case.folder / "expected.xml"
    text = case.result()[0]
    assert bool(text) == expected.exists()
    if text:
        assert _xml.canonical(_xml.parse(text)) == _xml.canonical(_xml.parse(expected.read_bytes())), text


def test_libvirts_schema_knows_what_comes_out(case: Case) -> None:
    if case.current is not None:
        validated(case.current, case.table.TABLE.root)
    text = case.result()[0]
    if text:
        validated(_xml.parse(text), case.table.TABLE.root)


def test_a_second_plan_is_empty(case: Case) -> None:
    text = case.result()[0]
    if text:
        assert case.outcome(_xml.parse(text))[1] == []


def test_a_refused_case_says_one_sentence(case: Case) -> None:
    yml = case.result()[1]
    if isinstance(yml, dict):
        assert not yml["error"].endswith(".")
        assert "\n" not in yml["error"]


def test_there_is_a_case_for_every_folder() -> None:
    assert {path.parent for path in GOLDEN.glob("*/*/*")} == set(CASES)
