# SPDX-License-Identifier: GPL-3.0-or-later
"""XML of the user's in a definition: a whole document replaces, elements merge."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import MACHINE

# What libvirt makes anew at each define that does not state it (class G of what libvirt rewrites).
GENERATED = ("uuid", "genid")
MADE = "made by libvirt"
NO_MAC = "00:00:00:00:00:00"  # newer libvirt makes one in its place


def replaced(given: Any, current: Any | None) -> Any:
    """Return a whole document with what libvirt would make anew carried over from the current definition."""
    tree = _xml.copy(given)
    if current is None:
        return tree
    for tag in GENERATED:
        old, new = _xml.find(current, tag), _xml.find(tree, tag)
        if old is not None and (new is None or not (new.text or "").strip()):
            if new is not None:
                tree.remove(new)
            tree.insert(0, _xml.copy(old))
    machine, running = _xml.get(tree, "os/type/@machine")[0], _xml.get(current, "os/type/@machine")[0]
    if machine and running and MACHINE.same(machine, running):
        _xml.put(tree, "os/type/@machine", running)  # an alias: the guest keeps the version that it has
    firmware = _xml.find(tree, "os/loader") is not None or _xml.get(tree, "os/@firmware")[0]
    variables = _xml.get(current, "os/nvram")[0]
    if firmware and variables and not _xml.get(tree, "os/nvram")[0] and _xml.find(tree, "os/nvram/source") is None:
        _xml.put(tree, "os/nvram", variables)
    _carry_macs(tree, current)
    return tree


def _carry_macs(tree: Any, current: Any) -> None:
    """Give each interface without a MAC address that of the present one which it is."""
    macs = [nic for nic in _xml.find_all(current, "devices/interface") if _xml.get(nic, "mac/@address")[0]]
    stated = {_xml.get(nic, "mac/@address")[0] for nic in _xml.find_all(tree, "devices/interface")}
    free = [nic for nic in macs if _xml.get(nic, "mac/@address")[0] not in stated]
    for nic in _xml.find_all(tree, "devices/interface"):
        mac = _xml.get(nic, "mac/@address")[0]
        if mac == NO_MAC and NO_MAC not in (_xml.get(old, "mac/@address")[0] for old in macs):
            _xml.clear(nic, "mac/@address")
            mac = None
        twin = next((old for old in free if _contains(old, nic)), None) if mac is None else None
        if twin is not None:
            free.remove(twin)
            _xml.put(nic, "mac/@address", str(_xml.get(twin, "mac/@address")[0]))


def conceal_made(after: Any, given: Any) -> None:
    """Take out of what libvirt made of a document the values that it makes up anew each time."""
    for tag in GENERATED:
        if _xml.find(given, tag) is None:
            _xml.clear(after, tag)
    if _xml.get(after, "os/nvram")[0] and not _xml.get(given, "os/nvram")[0]:
        _xml.put(after, "os/nvram", MADE)
    stated = {(_xml.get(nic, "mac/@address")[0] or "").lower() for nic in _xml.find_all(given, "devices/interface")}
    for nic in _xml.find_all(after, "devices/interface"):
        if _xml.get(nic, "mac/@address")[0] not in stated:
            _xml.put(nic, "mac/@address", MADE)


def merged(parts: list[Any], current: Any, rows: tuple[_fields.Row, ...] = ()) -> Any:
    """Return the current definition with elements in it; what it already contains is not added again.

    rows: tell which device is spoken of, where one says the same key.
    """
    tree = _xml.copy(current)
    keyed = [row for row in rows if isinstance(row, _fields.Items) and row.path.startswith("devices/") and not row.placed]
    for part in parts:
        _merge(part, tree, [], keyed)
    return tree


def _merge(part: Any, parent: Any, taken: list[Any], keyed: list[_fields.Items]) -> None:
    """Put one element under its parent: devices beside the others, any other element into its like. C(taken) are spoken of already."""
    likes = [child for child in parent if child.tag == part.tag and child not in taken]
    like = next((one for one in likes if _contains(one, part)), None)
    if like is not None:
        taken.append(like)
        return
    like = next((one for one in likes if _contains(part, one)), None)  # the same, said in full
    if like is None and parent.tag == "devices":
        like = _keyed(part, parent, likes, keyed)
    elif like is None and len(likes) == 1:
        like = likes[0]
    if like is None:
        taken.append(_xml.copy(part))
        parent.append(taken[-1])
        return
    taken.append(like)
    like.attrib.update(part.attrib)
    if part.text and part.text.strip():
        like.text = part.text
    inside: list[Any] = []
    for child in part:
        _merge(child, like, inside, keyed)


def _keyed(part: Any, devices: Any, likes: list[Any], keyed: list[_fields.Items]) -> Any | None:
    """Return the device that has the same key as one that is given."""
    given = _xml.new("domain")
    _xml.make(given, "devices").append(_xml.copy(part))
    for row in keyed:
        for _one, values in _fields.holders(row, given):
            found = _fields.holders(row, devices.getparent())
            have = _fields.match(row, values, [other for _other, other in found])
            return next((one for one, other in found if other is have and one in likes), None)
    return None


def _contains(whole: Any, part: Any) -> bool:
    """Tell whether every attribute, text and child of C(part) is in C(whole)."""
    if whole.tag != part.tag or any(whole.get(k) != v for k, v in part.attrib.items()):
        return False
    if (part.text or "").strip() and (part.text or "").strip() != (whole.text or "").strip():
        return False
    left = list(whole)
    for child in part:
        twin = next((other for other in left if _contains(other, child)), None)
        if twin is None:
            return False
        left.remove(twin)
    return True


def both_ways(rows: tuple[_fields.Row, ...], before: dict[str, Any], after: dict[str, Any]) -> list[_fields.Difference]:
    """Return how two definitions differ, also in what only the first has."""
    every = tuple(row.name for row in rows if isinstance(row, _fields.Items))
    added = list(_fields.differences(rows, after, before, every))
    known = {one.option for one in added}
    lost = [one for one in _fields.differences(rows, before, after) if one.option not in known]
    return added + [_fields.Difference(one.option, one.after, _gone(one), one.row) for one in lost if one.option != "uuid"]


def _gone(difference: _fields.Difference) -> Any:
    """Return what an option has that only the definition before has: an element that is there or not says false."""
    row = difference.row
    return False if isinstance(row, _fields.Field) and row.codec.presence else difference.before
