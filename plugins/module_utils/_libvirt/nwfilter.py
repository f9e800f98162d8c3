# SPDX-License-Identifier: GPL-3.0-or-later
"""Network filters: what a task wants of one, and the steps to it."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.nwfilter import TABLE, meaning


def _listed(session: Libvirt) -> dict[str, Any]:
    return session.all("network filters", lambda: session.connection.listAllNWFilters(0))


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one filter as wanted; nothing is written."""
    name = wanted["name"]
    subject = f"{TABLE.noun} {name}"
    handle = _listed(session).get(name)
    with told("cannot read the definition"):
        before = _xml.parse(handle.XMLDesc(0)) if handle is not None else None
    if wanted.get("state") == "absent":
        if before is None:
            return Plan(subject)
        step = Step(f"undefine {subject}", lambda: _undefine(session, name), lambda: _define(session, name, before))
        return Plan(subject, (Change("state", "present", "absent", "remove"),), (step,))
    if "xml" not in wanted:
        if before is None:
            raise KvmError("xml: must be given for a filter that is not there")
        return Plan(subject)
    after = _given(name, wanted["xml"], before)
    _check_references(session, name, after)
    if before is not None and meaning(before, after) == meaning(after, after):
        return Plan(subject)
    was = None if before is None else _xml.text_of(before)
    undo = (lambda: _undefine(session, name)) if before is None else (lambda: _define(session, name, before))
    step = Step(f"define {subject}", lambda: _define(session, name, after), undo)
    return Plan(subject, (Change("xml", was, _xml.text_of(after), "define" if before is None else "live"),), (step,))


def _given(name: str, text: str, before: Any | None) -> Any:
    """Return the definition of the task under the UUID that the filter has: with another, libvirt refuses the name."""
    tree = _xml.parse(text, TABLE.root)
    if tree.get("name") != name:
        raise KvmError(f"xml: it names {tree.get('name')!r}, the task {name!r}")
    has, says = (_xml.get(each, "uuid")[0] if each is not None else None for each in (before, tree))
    if has and says and has.lower() != says.lower():
        raise KvmError(f"xml: the filter exists with UUID {has}, and xml says {says}; remove it first, or leave the UUID out")
    if has:
        _xml.put(tree, "uuid", has)
    return tree


def _check_references(session: Libvirt, name: str, tree: Any) -> None:
    for reference in tree.iter("filterref"):
        if reference.get("filter") not in _listed(session) and not session.check:
            raise KvmError(f"xml: filterref {reference.get('filter')!r} does not exist on this host; define it first")
        if reference.get("filter") == name:
            raise KvmError("xml: a filter cannot refer to itself")


def _define(session: Libvirt, name: str, tree: Any) -> None:
    with told("libvirt refused the definition"):
        _listed(session)[name] = session.connection.nwfilterDefineXML(_xml.text_of(tree))


def _undefine(session: Libvirt, name: str) -> None:
    with told("cannot undefine"):
        _listed(session)[name].undefine()
        del _listed(session)[name]


def read_all(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return every filter, or the named one, as the module takes it."""
    if name is not None and name not in _listed(session):
        raise KvmError(f"{TABLE.noun} {name!r} does not exist on this host")
    with told("cannot read the definition"):
        return [{"name": one, "xml": handle.XMLDesc(0)} for one, handle in sorted(_listed(session).items()) if name in (None, one)]


NWFILTER = Kind(
    table=TABLE, plural="nwfilters", key=("name",), open=Libvirt, plan=plan, read=read_all,
    options=(URI,), info_options=(URI,), imports=(LIBVIRT, LXML),
)  # fmt: skip
