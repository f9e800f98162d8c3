# SPDX-License-Identifier: GPL-3.0-or-later
"""What domains, networks and pools have in common: a persistent definition, a running one, autostart, life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step


@dataclass(frozen=True)
class Family:
    """The calls of libvirt that differ between the kinds of object.

    listed: (session) -> handles by name. define: (connection, xml) -> handle. inactive: flag of XMLDesc for the
    persistent definition with its secrets. start: (handle) has the object running.
    """

    noun: str
    table: _fields.Table
    listed: Callable[[Libvirt], dict[str, Any]]
    define: Callable[[Any, str], Any]
    inactive: Callable[[Libvirt], int]
    start: Callable[[Any], object] = lambda handle: handle.create()


def persistent_xml(session: Libvirt, family: Family, handle: Any) -> Any:
    """Return the tree of the definition that the object has at its next start."""
    with told("cannot read the definition"):
        return _xml.parse(handle.XMLDesc(family.inactive(session)))


def running_xml(handle: Any, flags: int = 0) -> Any | None:
    """Return the tree of what runs now, None when nothing runs; C(flags) of XMLDesc."""
    if hasattr(handle, "ID") and handle.ID() == -1:
        return None  # a guest's handle knows from its listing that it does not run: no round trip
    with told("cannot read the running definition"):
        return as_wished(_xml.parse(handle.XMLDesc(flags))) if handle.isActive() else None


def as_wished(running: Any) -> Any:
    """Return what runs with each interface of a network as one.

    libvirt shows what the network makes of it: of one with C(forward mode="bridge") an interface of type bridge or direct.
    """
    for nic in _xml.find_all(running, "devices/interface"):
        if _xml.get(nic, "source/@network")[0]:
            nic.set("type", "network")
    return running


def define_step(session: Libvirt, family: Family, name: str, tree: Any, before: Any | None) -> Step:
    """Return the step that makes C(tree) the persistent definition; undone, C(before) is it again, or nothing is."""
    text = _xml.text_of(tree)

    def define() -> None:
        with told("libvirt refused the definition"):
            family.listed(session)[name] = family.define(session.connection, text)

    def undo() -> None:
        with told("cannot restore the definition"):
            if before is not None:
                family.define(session.connection, _xml.text_of(before))
            else:
                family.listed(session).pop(name).undefine()

    return Step(f"define {family.noun} {name}", define, undo)


def autostart_plan(
    session: Libvirt, family: Family, name: str, wanted: bool | None, handle: Any | None
) -> tuple[list[Change], list[Step]]:
    """Return what it takes to have the object start with the host as wanted; None: not ours."""
    if wanted is None:
        return [], []
    found = False
    if handle is not None:
        with told("cannot read autostart"):
            found = bool(handle.autostart())
    if wanted == found:
        return [], []

    def setter(value: bool) -> Callable[[], None]:
        def set_autostart() -> None:
            with told("cannot set autostart"):
                family.listed(session)[name].setAutostart(int(value))
                # On a read-only configuration directory libvirt reports success and keeps the old value.
                if bool(family.listed(session)[name].autostart()) != value:
                    raise KvmError("autostart: libvirt accepted the value and did not keep it")

        return set_autostart

    words = "with the host" if wanted else "only by hand"
    before = found if handle is not None else None
    return (
        [Change("autostart", before, wanted, "define")],
        [Step(f"start {family.noun} {name} {words}", setter(wanted), setter(found))],
    )


def start_step(session: Libvirt, family: Family, name: str) -> Step:
    """Return the step that starts the object; undone, it is stopped (it was not running before)."""

    def start() -> None:
        with told("cannot start"):
            family.start(family.listed(session)[name])

    return Step(f"start {family.noun} {name}", start, _stopper(session, family, name))


def stop_step(session: Libvirt, family: Family, name: str) -> Step:
    """Return the step that stops a network or pool; undone, it is started again."""

    def restart() -> None:
        with told("cannot start again"):
            family.listed(session)[name].create()

    return Step(f"stop {family.noun} {name}", _stopper(session, family, name), restart)


def restart_steps(session: Libvirt, family: Family, name: str, before: Any) -> list[Step]:
    """Return the steps that stop and start the object; undone, it runs again with the definition C(before)."""

    def restore() -> None:
        with told("cannot start again as before"):
            handle = family.listed(session)[name] = family.define(session.connection, _xml.text_of(before))
            handle.create()

    return [
        Step(f"stop {family.noun} {name}", _stopper(session, family, name), restore),
        start_step(session, family, name),
    ]


def _stopper(session: Libvirt, family: Family, name: str) -> Callable[[], None]:
    def stop() -> None:
        with told("cannot stop"):
            family.listed(session)[name].destroy()

    return stop


def undefine_step(session: Libvirt, family: Family, name: str, before: Any, flags: int | None = None) -> Step:
    """Return the step that removes the definition; undone, it is defined again."""

    def undefine() -> None:
        with told("cannot undefine"):
            handle = family.listed(session).pop(name)
            try:
                handle.undefine() if flags is None else handle.undefineFlags(flags)
            except libvirt.libvirtError:
                family.listed(session)[name] = handle
                raise

    def undo() -> None:
        with told("cannot define again"):
            family.listed(session)[name] = family.define(session.connection, _xml.text_of(before))

    return Step(f"undefine {family.noun} {name}", undefine, undo)
