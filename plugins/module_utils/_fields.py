# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary of the tables: Field (one value), Section (nested element), Items (repeated element).

A table's rows drive the argument spec, the documentation, reading, writing and comparing. Nothing here knows a
libvirt word. Values are plain YAML: None, or a key that is not there, means "not mine".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Union

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import Codec
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError

NEXT_BOOT = "next_boot"  # the default of Field.live: a running guest takes it at its next start


class Rows(tuple["Row", ...]):
    """The options of one level, in their order. A disk has a hundred and a task names five: what is asked for is found, not looked for."""

    @cached_property
    def named(self) -> dict[str, Row]:
        """Each row by its name."""
        return {row.name: row for row in self}

    @cached_property
    def asked_for(self) -> list[Field]:
        """Those that must be given, or that Ansible fills in."""
        return [row for row in self if isinstance(row, Field) and (row.required or row.default is not None)]

    @cached_property
    def _of_names(self) -> dict[tuple[str, ...], list[Row]]:
        return {}

    def among(self, names: tuple[str, ...]) -> list[Row]:
        """Return the rows of these names, in the order of the table. The guests of a list mostly name the same."""
        rows = self._of_names.get(names)
        if rows is None:
            rows = self._of_names[names] = [row for row in self if row.name in names]
        return rows

    @cached_property
    def _beginnings(self) -> list[set[str]]:
        """One of what an element must hold, as _xml.held() tells it, for each row to find something in it."""
        return [_beginnings_of(row) for row in self]

    @cached_property
    def _of_shape(self) -> dict[tuple[Any, ...], list[Row]]:
        return {}

    def in_element(self, element: Any, shape: tuple[Any, ...]) -> list[Row]:
        """Return the rows that may find something in an element of this shape; each shape is looked at once, guests are much alike."""
        rows = self._of_shape.get(shape)
        if rows is None:
            held = _xml.held(element)
            rows = self._of_shape[shape] = [row for row, asked in zip(self, self._beginnings) if asked & held]
        return rows


def _beginnings_of(row: Row) -> set[str]:
    if isinstance(row, Section) and row.path == ".":  # it has no element of its own, its rows look at this one
        return set().union(*rows_of(row.rows)._beginnings)
    return {_xml.beginning(path) for path in (row.path, row.fallback if isinstance(row, Field) else None) if path is not None}


def rows_of(rows: tuple[Row, ...]) -> Rows:
    """Return the rows as those of a table are kept."""
    return rows if isinstance(rows, Rows) else Rows(rows)


@dataclass(frozen=True, eq=False, repr=False)
class Field:
    """One option: YAML name, XML path, kind of value, its sentence, and how a running object takes it.

    path: None for an option that no single place of the XML holds; a written step reads it.
    live: a word that _libvirt/live.py knows.
    implies: (path, text) pairs that are written with the value, and must be there for it to be read.
    rivals: names of sibling options that writing this one clears (one disk has one source).
    many: the value is a list, the path is repeated, and the order counts.
    fallback: path to read when the first is absent (libvirt leaves out what equals it).
    expanded: why the running definition does not tell the wanted value; it is then not compared there.
    dropped: the value that libvirt leaves out when it is given, because it is its default: as good as none.
    secret: never shown. A document of the user's (Codec Document) is kept out of the log of the host, it may hold passwords.
    default: only for an option of the task (how to work), never for one of the object (what it is to be).
    """

    name: str
    path: str | None
    codec: Codec
    doc: str
    live: str = NEXT_BOOT
    required: bool = False
    implies: tuple[tuple[str, str], ...] = ()
    rivals: tuple[str, ...] = ()
    many: bool = False
    fallback: str | None = None
    expanded: str | None = None
    dropped: Any = None
    secret: bool = False
    default: Any = None

    @cached_property
    def plain(self) -> bool:
        """Tell whether it is the text of one place and nothing else, which most are."""
        special = self.implies or self.many or self.fallback or self.codec.presence or hasattr(self.codec, "of_attributes")
        return self.path is not None and not special


@dataclass(frozen=True, eq=False, repr=False)
class Section:
    """A nested element that is a dict in YAML. path None: its values are read by a written step.

    removable: state: absent takes the element away; a section that is a device of its own.
    live: a word for adding and removing it while the object runs.
    fills: (path, text) pairs that a new element gets for what was not stated, since libvirt wants one.
    """

    name: str
    path: str | None
    doc: str
    rows: tuple[Row, ...] = field(repr=False)
    removable: bool = False
    rivals: tuple[str, ...] = ()
    live: str = NEXT_BOOT
    fills: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", rows_of(self.rows))


@dataclass(frozen=True, eq=False, repr=False)
class Items:
    """A repeated element that is a list of dicts in YAML.

    key: names of the fields that tell one item from another; the first that an item states counts.
    together: all of key tell it, one that is not stated included (a DNS forwarder is a server and what it is for).
    live: words for adding and removing an item while the object runs, and for updating one in place.
    numbered: an item without its key has its place in the list as key.
    placed: nothing tells items of the same kind apart, so the last of key is a place: their number among those that are
        equal in the rest of key, from 0.
    filled: keys that libvirt gives an item of its own accord; an item is found without those that are not stated.
    fills: (path, text) pairs that a new item gets for what was not stated, since libvirt wants one.
    expanded: why the running definition does not tell what is wanted; it is then not compared there.
    """

    name: str
    path: str
    key: tuple[str, ...]
    doc: str
    rows: tuple[Row, ...] = field(repr=False)
    live: str = NEXT_BOOT
    purge: bool = False
    numbered: bool = False
    together: bool = False
    placed: bool = False
    filled: tuple[str, ...] = ()
    fills: tuple[tuple[str, str], ...] = ()
    expanded: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", rows_of(self.rows))


Row = Union[Field, Section, Items]


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """All options of one kind of object. C(noun) is what errors call it, C(root) the tag of its XML."""

    noun: str
    root: str
    doc: str
    rows: tuple[Row, ...] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", rows_of(self.rows))


@dataclass(frozen=True, eq=False, repr=False)
class Difference:
    """One option whose wanted value is not the one found.

    option: dotted, an item by its identity: C(disks[vda].path). item: (Items, wanted item) where the option lies in one.
    """

    option: str
    before: Any
    after: Any
    row: Row
    item: tuple[Items, dict[str, Any]] | None = None
    whole_item: bool = False

    def shown(self) -> tuple[Any, Any]:
        """Return before and after as they may be told: what is secret in them is not."""
        return _concealed(self.row, self.before), _concealed(self.row, self.after)


def _concealed(row: Row | None, value: Any) -> Any:
    if isinstance(value, list) and row is not None and not isinstance(row, Field):
        return [_concealed(row, one) for one in value]
    if isinstance(value, dict) and row is not None and not isinstance(row, Field):
        return {name: _concealed(rows_of(row.rows).named.get(name), one) for name, one in value.items()}
    return "(secret)" if isinstance(row, Field) and row.secret and value is not None else value


def normal(rows: tuple[Row, ...], wanted: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the wanted values in normal form. Raises KvmError that names the option and what it takes."""
    result: dict[str, Any] = {}
    by_name = rows_of(rows).named
    for name, value in wanted.items():
        row = by_name.get(name)
        if row is None or value is None:
            result[name] = value
        elif isinstance(row, Field):
            result[name] = _normal_field(row, value, f"{prefix}{name}")
        elif isinstance(row, Section):
            result[name] = normal(row.rows, value, f"{prefix}{name}.")
        else:
            result[name] = _normal_items(row, value, f"{prefix}{name}")
    return result


def _normal_field(row: Field, value: Any, option: str) -> Any:
    values = value if row.many else [value]
    done = []
    for one in values:
        try:
            done.append(row.codec.normal(one))
        except ValueError as error:
            shown = "" if row.secret else f" {one!r}"
            raise KvmError(f"{option}:{shown} {error}" if shown else f"{option}: {error}") from None
    return done if row.many else done[0]


def _normal_items(row: Items, value: list[dict[str, Any]], option: str) -> list[dict[str, Any]]:
    done: list[dict[str, Any]] = []
    seen: dict[Any, int] = {}
    for index, given in enumerate(with_places(row, value)):
        item = {row.key[0]: index, **given} if row.numbered else given
        key = next((k for k in row.key if item.get(k) is not None), None)
        if key is None:
            raise KvmError(f"{option}[{index}]: give {' or '.join(row.key)}, it tells this item from the others")
        item = normal(row.rows, item, f"{option}[{identity(row, item)}].")
        told = (key, identity(row, item))
        if told in seen:
            raise KvmError(f"{option}[{index}]: {key} {told[1]} is that of {option}[{seen[told]}] too")
        seen[told] = index
        done.append(item)
    return done


def with_places(row: Items, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items with their place among those of the same kind, where only that tells them apart."""
    if not row.placed:
        return items
    *kind, place = row.key
    seen: dict[Any, int] = {}
    done = []
    for item in items:
        alike = tuple(item.get(name) for name in kind)
        done.append({**item, place: item[place] if item.get(place) is not None else seen.get(alike, 0)})
        seen[alike] = done[-1][place] + 1
    return done


def read(rows: tuple[Row, ...], element: Any, shape: tuple[Any, ...] | None = None) -> dict[str, Any]:
    """Return every value that an element holds, in normal form; what it does not hold is left out. shape: that of the element, if known."""
    found: dict[str, Any] = {}
    shape = shape or _xml.shape(element)
    for row in rows_of(rows).in_element(element, shape):
        value: Any = None
        if isinstance(row, Field):
            value = _read_field(row, element)
        elif isinstance(row, Section) and row.path == ".":
            value = read(row.rows, element, shape)
        elif isinstance(row, Section):
            inner = _xml.find(element, row.path) if row.path is not None else None
            value = read(row.rows, inner) if inner is not None else None
        else:
            value = [values for _one, values in holders(row, element)] or None
        if value is not None and (value != {} or (isinstance(row, Section) and row.removable)):
            found[row.name] = value
    return found


def holders(row: Items, element: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Return each item's element with its values; one that nothing tells from the others is out of our reach."""
    pairs = [(one, read(row.rows, one)) for one in _xml.find_all(element, row.path)]
    kind = row.key[:-1] if row.placed else row.key
    told = [(one, values) for one, values in pairs if not kind or any(values.get(key) is not None for key in kind)]
    return list(zip([one for one, _values in told], with_places(row, [values for _one, values in told])))


def _read_field(row: Field, element: Any) -> Any:
    if row.plain:
        text, unit = _xml.get(element, row.path or ".")
        return None if text is None else _value(row, text, unit)
    if row.path is None or (row.implies and any(_xml.get(element, path)[0] != text for path, text in row.implies)):
        return None
    if row.codec.presence:
        return True if _xml.find(element, row.path) is not None else None
    if hasattr(row.codec, "of_attributes"):
        held = [row.codec.of_attributes(holder.attrib) for holder in _xml.find_all(element, row.path)]
        return (held or None) if row.many else next(iter(held), None)
    if row.many:
        texts = [_xml.get(one, _tail(row.path)) for one in _xml.find_all(element, row.path)]
        return [_value(row, text, unit) for text, unit in texts if text is not None] or None
    text, unit = _xml.get(element, row.path)
    if text is None and row.fallback:
        text, unit = _xml.get(element, row.fallback)
    return None if text is None else _value(row, text, unit)


def _value(row: Field, text: str, unit: str | None) -> Any:
    try:
        return row.codec.from_xml(text, unit)
    except ValueError:
        return text  # an older definition may hold what we would not write: shown and compared as it is


def _tail(path: str) -> str:
    last = path.rsplit("/", 1)[-1]
    return last if last.startswith("@") else "."


def differences(
    rows: tuple[Row, ...],
    wanted: dict[str, Any],
    found: dict[str, Any],
    purge: tuple[str, ...] = (),
    prefix: str = "",
    item: tuple[Items, dict[str, Any]] | None = None,
) -> Iterator[Difference]:
    """Yield every option whose wanted value (normal form) is not the one found. What is not wanted is not looked at."""
    for row in rows_of(rows).among((*wanted, *purge)):
        want, have, option = wanted.get(row.name), found.get(row.name), f"{prefix}{row.name}"
        if isinstance(row, Field):
            if row.path is not None and not _same(row, want, have):
                yield Difference(option, have, want, row, item)
        elif isinstance(row, Section):
            if want is None:
                continue
            if row.removable and want.get("state") == "absent":
                if have is not None:
                    yield Difference(option, have, None, row, item, whole_item=True)
            elif row.removable and have is None:
                yield Difference(option, None, _shown(want), row, item, whole_item=True)
            else:
                yield from differences(row.rows, want, have or {}, (), f"{option}.", item)
        else:
            yield from _item_differences(row, want or [], have or [], row.name in purge, option, item)


def _item_differences(
    row: Items, wanted: list[dict[str, Any]], found: list[dict[str, Any]], purge: bool, option: str, outer: Any
) -> Iterator[Difference]:
    left = list(found)
    for want in wanted:
        have = match(row, want, left)
        if have is not None:
            left.remove(have)
        name = f"{option}[{identity(row, want)}]"
        if want.get("state") == "absent":
            if have is not None:
                yield Difference(name, have, None, row, outer or (row, have), whole_item=True)
        elif have is None:
            yield Difference(name, None, _shown(want), row, outer or (row, want), whole_item=True)
        else:
            yield from differences(row.rows, want, have, (), f"{name}.", outer or (row, want))
    if purge:
        for have in left:
            yield Difference(f"{option}[{identity(row, have)}]", have, None, row, outer or (row, have), whole_item=True)


def _shown(value: Any) -> Any:
    """Return an item, and the items in it, without the state that says that it is to be there."""
    if isinstance(value, dict):
        return {k: _shown(v) for k, v in value.items() if k != "state"}
    return [_shown(one) for one in value] if isinstance(value, list) else value


def _same(row: Field, want: Any, have: Any) -> bool:
    if row.codec.presence or (row.codec.type == "bool" and not getattr(row.codec, "apart", False)):
        # A flag that is not there means no, unless its row says that libvirt means yes by that.
        return bool(want) == bool(have if have is not None or row.codec.presence else row.dropped)
    if row.many:
        return list(want or []) == list(have or [])
    return want == row.dropped if have is None else row.codec.same(want, have)


def identity(row: Items, item: dict[str, Any]) -> Any:
    """Return the value that tells an item from the others."""
    stated = [item[key] for key in row.key if item.get(key) is not None]
    if (row.together or row.placed) and len(stated) > 1:
        return "/".join(map(str, stated))
    return stated[0] if stated else "?"


def match(row: Items, want: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the found item that the wanted one speaks of."""
    if row.together or row.placed:
        keys = [key for key in row.key if want.get(key) is not None or key not in row.filled]
        return next((have for have in found if all(have.get(key) == want.get(key) for key in keys)), None)
    for key in row.key:
        if want.get(key) is not None:
            return next((have for have in found if have.get(key) == want[key]), None)
    return None


def write(rows: tuple[Row, ...], element: Any, wanted: dict[str, Any], purge: tuple[str, ...] = ()) -> None:
    """Edit an element so that it holds the wanted values; what is not wanted stays as it is."""
    for row in rows:
        if row.name not in wanted and row.name not in purge:
            continue
        want = wanted.get(row.name)
        if isinstance(row, Field):
            if row.path is not None and not _same(row, want, _read_field(row, element)):
                _write_field(rows, row, element, want)
        elif isinstance(row, Section):
            _write_section(rows, row, element, want or {})
        else:
            _write_items(row, element, want or [], row.name in purge)


def _write_field(rows: tuple[Row, ...], row: Field, element: Any, value: Any) -> None:
    if row.path is None:
        return
    if row.dropped is not None and value == row.dropped:
        _xml.clear(element, row.path)
        return
    _clear_rivals(rows, row.rivals, element)
    for path, text in row.implies:
        _xml.put(element, path, text)
    if row.fallback and row.path.rsplit("/", 1)[-1].startswith("@") and row.fallback.startswith("@"):
        _xml.clear(element, row.fallback)
    if row.codec.presence:
        _xml.make(element, row.path) if value else _xml.clear(element, row.path)
    elif row.many:
        _write_many(row.path, row.codec, element, value)
    elif hasattr(row.codec, "attributes"):
        holder = _xml.make(element, row.path)
        if getattr(row.codec, "whole", False):
            holder.attrib.clear()
        holder.attrib.update(row.codec.attributes(value))
    else:
        _xml.put(element, row.path, row.codec.to_xml(value), row.codec.unit)


def _write_many(path: str, codec: Any, element: Any, values: list[Any]) -> None:
    for one in _xml.find_all(element, path):
        _xml.remove(one, element)
    for value in values:
        child = _xml.add(element, path.rsplit("/@", 1)[0])
        if hasattr(codec, "attributes"):
            child.attrib.update(codec.attributes(value))
        else:
            _xml.put(child, _tail(path), codec.to_xml(value))


def _clear_rivals(rows: tuple[Row, ...], rivals: tuple[str, ...], element: Any) -> None:
    for other in rows:
        if other.name in rivals and not isinstance(other, Items) and other.path:
            _xml.clear(element, other.path)


def _write_section(rows: tuple[Row, ...], row: Section, element: Any, want: dict[str, Any]) -> None:
    if row.path is None or not want:
        return
    _clear_rivals(rows, row.rivals, element)
    if want.get("state") == "absent":
        for one in _xml.find_all(element, row.path):
            _xml.remove(one, element)
    elif row.removable or _xml.find(element, row.path) is not None or any(differences(row.rows, want, {})):
        made = _xml.make(element, row.path)
        write(row.rows, made, want)
        _fill(made, row.fills)


def _fill(made: Any, fills: tuple[tuple[str, str], ...]) -> None:
    for path, text in fills:
        if _xml.get(made, path)[0] is None:
            _xml.put(made, path, text)


def _write_items(row: Items, element: Any, wanted: list[dict[str, Any]], purge: bool) -> None:
    left = holders(row, element)
    for want in wanted:
        have = match(row, want, [values for _one, values in left])
        holder = next((one for one, values in left if values is have), None)
        left = [(one, values) for one, values in left if values is not have]
        if want.get("state") == "absent":
            if holder is not None:
                _xml.remove(holder, element)
            continue
        made = holder if holder is not None else _xml.add(element, row.path)
        write(row.rows, made, want)
        _fill(made, row.fills)
    if purge:
        for one, _values in left:
            _xml.remove(one, element)


_STEP = re.compile(r"(?P<name>\w+)(?:\[(?P<item>[^\]]*)\])?(?:\.(?P<rest>.+))?")


def unset(
    rows: tuple[Row, ...], element: Any, option: str, prefix: str = "", item: tuple[Items, dict[str, Any]] | None = None,
    key: tuple[str, ...] = (),
) -> Difference | None:  # fmt: skip
    """Take one option out of an element, as C(cputune.shares), C(disks[vda].cache) or all of C(interfaces[lan].bandwidth).

    prefix, item: the way to the element and the outermost item on it, as in a Difference. key: names that tell the element, an
    item, from others. Returns what changed, None if it was not there. Raises KvmError for what cannot be taken out by itself: an
    item, and what tells it from the others.
    """
    found = _STEP.fullmatch(option)
    row = rows_of(rows).named.get(found["name"]) if found else None
    if found is None or row is None or row.path is None or not _can_be_unset(row, found["item"], found["rest"], key):
        raise KvmError(f"unset: {prefix}{option} is not a single option of this object")
    if not found["rest"]:
        before = _read_field(row, element) if isinstance(row, Field) else next(iter(_sections(row, element)), None)
        if before is not None:
            _xml.clear(element, row.path)
        return Difference(f"{prefix}{option}", before, None, row, item) if before is not None else None
    inner: Any = None
    inside: tuple[Row, ...] = ()
    if isinstance(row, Items):
        inner, values = _item_told(row, element, found["item"])
        inside, item = row.rows, item or (row, values)
    elif isinstance(row, Section):
        inner, inside = _xml.find(element, row.path), row.rows
    here = f"{prefix}{option[: found.start('rest')]}"
    inner = inner if inner is not None else _xml.new("none")  # in which only the names are looked at
    return unset(inside, inner, found["rest"], here, item, row.key if isinstance(row, Items) else ())


def _item_told(row: Items, element: Any, told: str) -> tuple[Any, dict[str, Any]]:
    """Return the element of the item that goes by a name or by any other of its keys, and its values; None without one."""
    for holder, values in holders(row, element):
        if told in {str(identity(row, values)), *(str(values[key]) for key in row.key if key in values)}:
            return holder, values
    return None, {}


def _sections(row: Row, element: Any) -> list[dict[str, Any]]:
    return [read(row.rows, one) for one in _xml.find_all(element, row.path or "")] if isinstance(row, Section) else []


def _can_be_unset(row: Row, item: str | None, rest: str | None, key: tuple[str, ...]) -> bool:
    """Tell whether a step of an option that is to be unset leads on, or ends where something can be taken out."""
    if isinstance(row, Items):
        return item is not None and rest is not None
    if isinstance(row, Field):
        return item is None and rest is None and row.name not in key
    return item is None and (rest is not None or (row.path != "." and not row.removable))
