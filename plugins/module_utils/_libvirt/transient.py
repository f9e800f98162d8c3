# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests without a definition: they are there while they run, and gone when they stop."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.life import is_transient, refuse_losses, state_of, undefine_flags
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

STARTED = ("running", "paused")


def check(wanted: dict[str, Any], handle: Any | None, transient: bool) -> None:
    """Raise KvmError for what a guest without a definition cannot be; C(transient): whether it is one now."""
    if not wanted.get("transient", transient):
        return
    state = wanted.get("state")
    if wanted.get("autostart"):
        raise KvmError("autostart: a transient guest has no definition to start from")
    if state == "saved":
        raise KvmError("state: saved needs a definition, a transient guest has none")
    if transient and state == "stopped" and not wanted.get("transient"):
        raise KvmError("state: it is transient and gone once it is stopped; ask for state: absent, or say transient: true")
    if transient and wanted.get("unset"):
        raise KvmError("unset: a transient guest has no definition to take it out of")
    if not transient and state not in STARTED and (handle is None or state == "stopped" or not handle.isActive()):
        raise KvmError("transient: needs state: running or paused; such a guest is only there while it runs")


def life(
    session: Libvirt, wanted: dict[str, Any], handle: Any | None, trees: tuple[Any, Any], work: tuple[list[Change], list[Step]]
) -> tuple[list[Change], list[Step]]:
    """Return the work on a guest's life as it is without a definition; C(trees): as it is and as it is to be."""
    changes, steps = work
    name = wanted["name"]
    if handle is None:
        return changes, [create_step(session, name, trees[1], wanted["state"])]
    if not is_transient(handle):
        return [*changes, Change("transient", False, True, "remove")], [*steps, _undefine_step(session, name, trees[0], handle)]
    return changes, [*steps, _forget_step(session, name, trees[0])] if wanted.get("state") == "stopped" else steps


def made_anew(session: Libvirt, name: str, handle: Any, trees: tuple[Any, Any], again: list[Step]) -> list[Step]:
    """Return the steps of a restart, of which the last starts it, for a guest without a definition."""
    return [*again[:-1], _forget_step(session, name, trees[0]), create_step(session, name, trees[1], state_of(handle))]


def create_step(session: Libvirt, name: str, tree: Any, state: str | None) -> Step:
    """Return the step that starts a guest from C(tree) and keeps no definition."""
    text = _xml.text_of(tree)

    def create() -> None:
        with told("cannot start"):
            flags = libvirt.VIR_DOMAIN_START_PAUSED if state == "paused" else 0
            session.domains()[name] = session.connection.createXML(text, flags)

    def undo() -> None:
        with told("cannot stop"):
            session.domains().pop(name).destroy()

    return Step(f"start domain {name} without a definition", create, undo)


def _forget_step(session: Libvirt, name: str, before: Any) -> Step:
    """Return the step for after a guest has stopped that is gone by that; undone, it is started again as C(before)."""
    return Step(f"domain {name} is gone", lambda: session.domains().pop(name, None), create_step(session, name, before, "running").do)


def _undefine_step(session: Libvirt, name: str, before: Any, handle: Any) -> Step:
    """Return the step that takes the definition from a guest that runs. Raises KvmError for what would be lost with it."""
    words = session.params["undefine"]
    refuse_losses(handle, words, "transient: true")

    def undefine() -> None:
        with told("cannot undefine"):
            session.domains()[name].undefineFlags(undefine_flags(words))

    def undo() -> None:
        with told("cannot define again"):
            session.domains()[name] = session.connection.defineXML(_xml.text_of(before))

    return Step(f"undefine domain {name}, which runs on", undefine, undo)
