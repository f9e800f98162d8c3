# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest is, as the task that would make it: its options, and as XML what no option says. Never a secret."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import references
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.life import has_saved_state, is_transient, state_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain import TABLE, blank, born_with
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_checks import check

STATES = {"stopped": "stopped", "paused": "paused"}  # a guest that sleeps or has crashed is to be V(running)
# What libvirt prints of its own accord beside what a row says: element, attribute and its text.
FILLED_IN = {
    ("vcpu", "placement", "static"), ("graphics", "port", "-1"), ("listen", "type", "address"), ("disk", "type", "file"),
    ("driver", "name", "qemu"), ("line", "unit", "B"),
}  # fmt: skip
AGAIN = ("listen", "socket")  # of a display, as attributes: the same again, for what is older than the element


def read_all(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return the options of every guest, or of the named one."""
    if name is not None and name not in session.domains():
        raise KvmError(f"domain {name!r} does not exist on this host")
    names = [name] if name is not None else sorted(session.domains())
    return [_options(session.domains()[one], one) for one in names]


def _options(handle: Any, name: str) -> dict[str, Any]:
    with told("cannot read the definition"):
        # Not even asked for what libvirt keeps as a secret.
        options = as_task(_xml.parse(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
    for nic in options.get("interfaces", []):
        references.name_role(nic)
    with told("cannot read the state"):
        autostart = bool(handle.isPersistent() and handle.autostart())
    state = STATES.get(state_of(handle), "running")
    if state == "stopped" and has_saved_state(handle):
        state = "saved"
    if is_transient(handle):
        options["transient"] = True
    return {"name": name, "state": state, "autostart": autostart, **options}


def as_task(tree: Any) -> dict[str, Any]:
    """Return the options of a definition, and under C(xml) what they do not say of it."""
    _conceal(TABLE.rows, tree)
    options = _standing(_sayable(TABLE.rows, _fields.read(TABLE.rows, tree)))
    if born_with(options):
        options["plain"] = True
    said = blank(str(_xml.get(tree, "name")[0]))
    _fields.write(TABLE.rows, said, options)
    rest = "".join(_xml.text_of(part) for part in _rest(tree, said))
    return {**options, "xml": rest} if rest else options


def _conceal(rows: tuple[_fields.Row, ...], element: Any) -> None:
    """Take the secrets out of an element."""
    for row in rows:
        if isinstance(row, _fields.Field):
            if row.secret and row.path and row.path != ".":
                _xml.clear(element, row.path)
            elif row.secret and row.path:
                element.text = None
        elif row.path is not None:
            for one in _xml.find_all(element, row.path):
                _conceal(row.rows, one)


def _sayable(rows: tuple[_fields.Row, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without those that cannot be given: libvirt has them from somebody else, and they stay XML."""
    done: dict[str, Any] = {}
    for row in rows:
        value = options.get(row.name)
        if value is None:
            continue
        if isinstance(row, _fields.Items):
            done[row.name] = [_sayable(row.rows, item) for item in _apart(row, value)]
        elif isinstance(row, _fields.Section):
            done[row.name] = _sayable(row.rows, value)
        elif _takes(row, value):
            done[row.name] = value
    return {name: value for name, value in done.items() if value != []}


def _apart(row: _fields.Items, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items of which none has what tells another: of two that do, a task could speak of neither."""
    return [one for one in items if not any(one is not other and _alike(row, one, other) for other in items)]


def _alike(row: _fields.Items, one: dict[str, Any], other: dict[str, Any]) -> bool:
    return _fields.match(row, one, [other]) is not None or _fields.match(row, other, [one]) is not None


def _takes(row: _fields.Field, value: Any) -> bool:
    try:
        for one in value if row.many else [value]:
            row.codec.normal(one)
    except ValueError:
        return False
    return True


def _standing(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without the devices that a task is refused and libvirt had from somebody else: they stay XML."""
    return {name: value if not isinstance(value, list) else [one for one in value if _stands(name, one)] for name, value in options.items()}


def _stands(name: str, item: Any) -> bool:
    try:
        check({name: [item]})
    except KvmError:
        return False
    return True


# What is left --------------------------------------------------------------------------------------------------------


def _rest(tree: Any, said: Any) -> list[Any]:
    """Return what a definition holds beyond what options said of it, as elements that are merged into one."""
    whole = _beyond(tree, said)
    parts = [one for one in whole if one.tag != "devices"] if whole is not None else []
    devices = _xml.new("devices")
    pairs = _pairs(tree, said)
    equals = {_xml.canonical(one): one for top in _xml.find_all(said, "devices") for one in top}
    for device in [one for top in _xml.find_all(tree, "devices") for one in top]:
        row, values, twin = pairs.get(device) or (None, {}, equals.get(_xml.canonical(device)))
        left = _beyond(device, twin) if twin is not None else device
        if left is None:
            continue
        if isinstance(row, _fields.Items) and not row.placed:
            # What tells it from the others, the conditions of its path included.
            left.attrib.update(_xml.add(_xml.new("domain"), row.path).attrib)
            _fields.write(row.rows, left, {key: values[key] for key in row.key if key in values})
            devices.append(left)
        else:
            devices.append(_xml.copy(device))
    return [*parts, *([devices] if len(devices) else [])]


def _pairs(tree: Any, said: Any) -> dict[Any, tuple[_fields.Row, dict[str, Any], Any]]:
    """Return for each device of a definition that a row speaks of the row, its values and the device that they were written to."""
    found: dict[Any, tuple[_fields.Row, dict[str, Any], Any]] = {}
    for row in TABLE.rows:
        if isinstance(row, _fields.Field) or not (row.path or "").startswith("devices/"):
            continue
        if isinstance(row, _fields.Section):
            one, twin = _xml.find(tree, str(row.path)), _xml.find(said, str(row.path))
            if one is not None and twin is not None:
                found[one] = (row, {}, twin)
            continue
        twins = _fields.holders(row, said)
        for one, values in _fields.holders(row, tree):
            have = _fields.match(row, values, [other for _twin, other in twins])
            twin = next((twin for twin, other in twins if other is have), None)
            if twin is not None:
                found[one] = (row, values, twin)
    return found


def _beyond(have: Any, said: Any) -> Any | None:
    """Return what an element holds beyond another, None for nothing."""
    left = _xml.new(have.tag)
    left.attrib.update({name: text for name, text in have.attrib.items() if said.get(name) != text and not _filled_in(have, name)})
    text = (have.text or "").strip()
    if text != (said.text or "").strip():
        left.text = text
    others = {id(one): one for one in said}
    mine = []
    for child in have:
        twin = next((key for key, one in others.items() if _same(one, child)), None)
        if twin is None:
            mine.append(child)
        else:
            del others[twin]
    several = set()
    for child in mine:
        likes = [one for one in others.values() if one.tag == child.tag]
        more = [_beyond(child, one) for one in likes]
        if None in more:
            del others[id(likes[more.index(None)])]
        elif len(likes) == 1 and sum(one.tag == child.tag for one in have) == 1:
            left.append(more[0])
        elif not _all_filled_in(child):
            several.add(child.tag)
    # What is left of one of several would not tell of which: all of the kind are said in full, and each is found again.
    left.extend(_xml.copy(child) for child in have if child.tag in several)
    return left if len(left) or left.attrib or left.text else None


def _same(one: Any, other: Any) -> bool:
    return one.tag == other.tag and bool(_xml.canonical(one) == _xml.canonical(other))


def _filled_in(element: Any, name: str) -> bool:
    again = element.tag == "graphics" and name in AGAIN and _xml.find(element, "listen") is not None
    return again or (element.tag, name, element.get(name)) in FILLED_IN


def _all_filled_in(element: Any) -> bool:
    bare = not len(element) and not (element.text or "").strip()
    return bool(element.attrib) and bare and all(_filled_in(element, name) for name in element.attrib)


DOMAIN_INFO = Kind(
    table=TABLE, plural="domains", key=("name",), open=Libvirt, read=read_all, info_options=(URI,), imports=(LIBVIRT, LXML)
)  # fmt: skip
