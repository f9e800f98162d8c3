# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user may give for the rows of a table: Ansible's argument spec, the shape of the values, what in them is secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import Codec, Document
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError

TYPES = {"str": str, "int": int, "bool": bool}  # what Ansible leaves alone; it makes one of another, and of YAML's
STATES = ("present", "absent")
PASSWORD = re.compile(r"""\bpasswd\s*=\s*(["'])(.+?)\1""")  # graphics of domain XML


def argument_spec(rows: tuple[_fields.Row, ...], removable: bool = False, entries: list[Any] | None = None) -> dict[str, Any]:
    """Return Ansible's argument spec for the rows; C(removable) adds the state of an item.

    With C(entries) it has only the options that these mention, and those that Ansible fills in or asks for. It takes and
    makes of them what the whole one does: Ansible walks all options of a spec for every dict that it checks.
    """
    spec: dict[str, Any] = {}
    names = set().union(*entries) if entries is not None else {row.name for row in rows}
    for row in rows:
        if row.name not in names and not (isinstance(row, _fields.Field) and (row.required or row.default is not None)):
            continue
        values = None if entries is None else [entry[row.name] for entry in entries if entry.get(row.name) is not None]
        if isinstance(row, _fields.Field):
            spec[row.name] = _option(row)
        elif isinstance(row, _fields.Section):
            spec[row.name] = {"type": "dict", "options": argument_spec(row.rows, row.removable, _dicts(values))}
        else:
            items = None if values is None else [one for value in values for one in (value if isinstance(value, list) else [value])]
            spec[row.name] = {"type": "list", "elements": "dict", "options": argument_spec(row.rows, True, _dicts(items))}
    if removable:
        spec["state"] = {"type": "str", "choices": list(STATES), "default": "present"}
    return spec


def _dicts(values: list[Any] | None) -> list[Any] | None:
    """Return the values if each tells by itself which options it has; Ansible also makes a dict of a string."""
    return values if values is not None and all(isinstance(value, dict) for value in values) else None


def _option(row: _fields.Field) -> dict[str, Any]:
    """Return the argument spec of one value."""
    option: dict[str, Any] = {"type": "list", "elements": row.codec.type} if row.many else {"type": row.codec.type}
    if row.codec.choices:
        option["choices"] = list(row.codec.choices)
    if row.required:
        option["required"] = True
    if row.default is not None:
        option["default"] = row.default
    if row.secret or isinstance(row.codec, Document):
        option["no_log"] = True
    else:
        option.update(no_secret(row.name))
    return option


def as_given(rows: tuple[_fields.Row, ...], wanted: dict[str, Any], removable: bool = False) -> dict[str, Any] | None:
    """Return the stated options where each is of its type already, so that Ansible would only copy them; None where it is to look.

    Copying is most of what Ansible does with a list of guests, and it looks at each of them alone.
    """
    rows = _fields.rows_of(rows)
    done: dict[str, Any] = {"state": "present"} if removable else {}
    for name, value in wanted.items():
        row = rows.named.get(name)
        if row is None and not (removable and name == "state" and value in STATES):
            return None
        done[name] = value if row is None or value is None else _value_as_given(row, value)
        if done[name] is None:
            return None
    return done if all(row.name in done for row in rows.asked_for) else None


def _value_as_given(row: _fields.Row, value: Any) -> Any:
    if isinstance(row, _fields.Section):
        return as_given(row.rows, value, row.removable) if isinstance(value, dict) else None
    if isinstance(row, _fields.Items):
        items = [as_given(row.rows, one, True) if isinstance(one, dict) else None for one in value] if isinstance(value, list) else [None]
        return None if None in items else items
    if row.many and not isinstance(value, list):
        return None
    return value if all(_is_fitting(row.codec, one) for one in (value if row.many else [value])) else None


def _is_fitting(codec: Codec, value: Any) -> bool:
    """Tell whether a value is of the type of its kind, a truth value being no number, and one of its words."""
    kind = bool if isinstance(value, bool) else TYPES.get(codec.type)
    return kind is TYPES.get(codec.type) and kind is not None and isinstance(value, kind) and (not codec.choices or value in codec.choices)


def no_secret(name: str) -> dict[str, Any]:
    """Return what Ansible is told of an option that holds no secret, though its name looks as if."""
    return {"no_log": False} if any(word in name for word in ("pass", "secret", "token", "key")) else {}


def secrets(rows: tuple[_fields.Row, ...], wanted: Any) -> Iterator[str]:
    """Yield every secret of the stated options, also those that a document of the user's holds."""
    named = _fields.rows_of(rows).named
    for name, value in wanted.items() if isinstance(wanted, dict) else ():
        row = named.get(name)
        if row is None or value is None:
            continue
        if not isinstance(row, _fields.Field):
            for one in value if isinstance(value, list) else [value]:
                yield from secrets(row.rows, one)
        elif row.secret:
            yield from map(str, value if isinstance(value, list) else [value])
        elif isinstance(row.codec, Document) and isinstance(value, str):
            yield from (found[1] for found in PASSWORD.findall(value))


def check_shape(rows: tuple[_fields.Row, ...], wanted: dict[str, Any], prefix: str = "") -> None:
    """Raise KvmError for a plain value where options are, which ansible-core takes for a fault of its own.

    A string is left to Ansible, which makes a dict of C(a=1) and of JSON.
    """
    named = _fields.rows_of(rows).named
    for name, value in wanted.items():
        row = named.get(name)
        if row is None or isinstance(row, _fields.Field) or value is None or isinstance(value, str):
            continue
        inner = value if isinstance(row, _fields.Items) and isinstance(value, list) else [value]
        for index, one in enumerate(inner):
            where = f"{prefix}{row.name}[{index}]" if inner is value else f"{prefix}{row.name}"
            if isinstance(one, dict):
                check_shape(row.rows, one, f"{where}.")
            elif not isinstance(one, str):
                names = ", ".join(sorted(inside.name for inside in row.rows))
                shown = repr(one) if isinstance(one, (bool, int, float)) else f"a {type(one).__name__}"  # which may hold a secret
                raise KvmError(f"{where}: {shown} is not a dictionary; its options are {names}")


def stated(value: Any) -> Any:
    """Return the value without what the user left out: Ansible fills an unstated option with None."""
    if isinstance(value, dict):
        return {k: stated(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [stated(v) for v in value]
    return value
