# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The laws of the tables, whatever tables there are."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _tables, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Row, Table
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import network_live
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.live import LIVE_WORDS

pytestmark = pytest.mark.ring(1)

GOLDEN = Path(__file__).parent / "golden"
# Some rows of a network are taken live by virNetworkUpdate, whose words are its own.
NETWORK_WORDS = set(network_live.WORDS)
STEP = r"[A-Za-z][\w:-]*(\[@[\w:-]+='[^']*'\])*"
PATH = re.compile(rf"\.|(@[\w:-]+)|{STEP}(/{STEP})*(/@[\w:-]+)?")


def tables() -> dict[str, Table]:
    """Return every table by the name of its module."""
    found = {}
    for each in pkgutil.iter_modules(_tables.__path__):
        module = importlib.import_module(f"{_tables.__name__}.{each.name}")
        for value in vars(module).values():
            if isinstance(value, Table):
                found[each.name] = value
    return found


def below(rows: tuple[Row, ...], prefix: str = "") -> Iterator[tuple[str, Row]]:
    """Yield every row below these with its dotted name."""
    for row in rows:
        yield f"{prefix}{row.name}", row
        if not isinstance(row, Field):
            yield from below(row.rows, f"{prefix}{row.name}.")


TABLES = tables()
ROWS = {f"{table}:{name}": row for table in TABLES for name, row in below(TABLES[table].rows)}
IN_XML = [name for name in TABLES if (GOLDEN / name).is_dir()]

# A law of single rows names all that break it: a test a row would be thousands.
every_table = pytest.mark.parametrize("rows", [dict(below(table.rows)) for table in TABLES.values()], ids=TABLES)
every_group = pytest.mark.parametrize(
    "rows",
    [table.rows for table in TABLES.values()] + [row.rows for row in ROWS.values() if not isinstance(row, Field)],
    ids=[*TABLES, *(name for name, row in ROWS.items() if not isinstance(row, Field))],
)


def test_the_domain_has_a_table() -> None:
    assert "domain" in TABLES


@every_table
def test_a_row_is_documented_by_whole_sentences(rows: dict[str, Row]) -> None:
    assert not {name: row.doc for name, row in rows.items() if not re.fullmatch(r"[A-Z0-9].*\.", row.doc) or "  " in row.doc}


@every_table
def test_a_row_has_a_name_in_snake_case(rows: dict[str, Row]) -> None:
    assert not [name for name, row in rows.items() if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", row.name)]


def paths(row: Row) -> list[str]:
    """Return the paths of a row, without those that it does not have."""
    more = [row.fallback, *(path for path, _text in row.implies)] if isinstance(row, Field) else []
    return [path for path in (row.path, *more) if path]


@every_table
def test_the_paths_of_a_row_can_be_parsed(rows: dict[str, Row]) -> None:
    assert not [(name, path) for name, row in rows.items() for path in paths(row) if not PATH.fullmatch(path)]


@every_table
def test_a_word_for_a_live_change_is_one_that_libvirt_live_knows(rows: dict[str, Row]) -> None:
    known = {_fields.NEXT_BOOT, *LIVE_WORDS, *NETWORK_WORDS}
    assert not [name for name, row in rows.items() if getattr(row, "live", _fields.NEXT_BOOT) not in known]


@every_table
def test_what_tells_items_apart_is_a_field_of_theirs(rows: dict[str, Row]) -> None:
    lists = {name: row for name, row in rows.items() if isinstance(row, Items)}
    fields = {name: {inner.name for inner in row.rows if isinstance(inner, Field)} for name, row in lists.items()}
    assert not [name for name, row in lists.items() if not row.key or not set(row.key) <= fields[name]]


@every_table
def test_an_object_s_row_has_no_default(rows: dict[str, Row]) -> None:
    assert not [name for name, row in rows.items() if getattr(row, "default", None) is not None]


@every_group
def test_names_are_unique_among_siblings(rows: tuple[Row, ...]) -> None:
    names = [row.name for row in rows]
    assert sorted(set(names)) == sorted(names)


@every_group
def test_rivals_are_siblings(rows: tuple[Row, ...]) -> None:
    for row in rows:
        rivals = () if isinstance(row, Items) else row.rivals
        assert set(rivals) <= {other.name for other in rows} - {row.name}


@every_table
def test_a_choice_is_written_in_lower_case(rows: dict[str, Row]) -> None:
    choices = {name: row.codec.choices or () for name, row in rows.items() if isinstance(row, Field)}
    assert not [(name, word) for name, words in choices.items() for word in words if word != word.lower()]


SAMPLES: dict[str, Any] = {
    "Text": "a b", "ObjectName": "n1", "Pattern": None, "Integer": None, "Flag": True, "Presence": True, "Size": "2MiB",
    "ByteSize": "3MiB", "CpuSet": "1-3", "Mac": "52:54:00:00:00:01", "Uuid": "c7a5fdbd-edaf-9455-926a-d65c16db1809",
    "PciAddress": "0000:01:10.2", "AbsolutePath": "/a/b", "Address": "192.0.2.1", "Prefix": 24, "Machine": "q35", "Mode": "0711",
    "Prose": "a\nb", "GuestAddress": "drive 0:0:0:1", "Numbers": "0:0:3",
    "Alias": "lan", "Document": "<a/>", "HostPort": "nfs.example:2049", "BlockDevice": "/dev/vdb",
}  # fmt: skip
WORDS = ("vda", "lan0", "1.2", "abcd", "00:01", "openvswitch", "20000000c9831b4b", "abcdefghijkl", "10", "0x10", "0x046d", "0644")


def sample(field: Field) -> Any:
    """Return a value that the field takes, in normal form."""
    codec = field.codec
    if codec.choices:
        return codec.choices[-1]
    value = SAMPLES[type(codec).__name__]
    if isinstance(value, bool) and value == field.dropped:
        return not value
    if type(codec).__name__ == "Integer":
        value = getattr(codec, "low", 0) + 2
    for word in WORDS if value is None else ():
        try:
            return codec.normal(word)
        except ValueError:
            continue
    assert value is not None, f"{field.name}: no word of {WORDS} fits {codec}"
    return value


@every_group
def test_every_field_is_read_back_as_it_was_written(rows: tuple[Row, ...]) -> None:
    for row in rows:
        if not isinstance(row, Field) or row.path is None:
            continue
        wanted = {row.name: [sample(row)] if row.many else sample(row)}
        element = _xml.new("x")
        _fields.write(rows, element, wanted)
        found = _fields.read(rows, _xml.parse(_xml.text_of(element)))
        assert found.get(row.name) == wanted[row.name], _xml.text_of(element)
        assert not list(_fields.differences(rows, wanted, found))


def mentioned(options: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every option that a task gives."""
    for name, value in options.items():
        yield f"{prefix}{name}"
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from mentioned(inner, f"{prefix}{name}.")


@pytest.mark.ring(2)
@pytest.mark.parametrize("name", IN_XML)
def test_every_row_is_exercised_by_a_golden_case(name: str) -> None:
    given: set[str] = set()
    for file in (GOLDEN / name).glob("*/task.yml"):
        given.update(mentioned(yaml.safe_load(file.read_text(encoding="utf-8"))))
    # What has no place in the XML, such as the state, is exercised in ring 3.
    missing = [full for full, row in below(TABLES[name].rows) if row.path is not None and full not in given]
    assert not missing, f"add golden cases below tests/unit/golden/{name} for: {', '.join(missing)}"
