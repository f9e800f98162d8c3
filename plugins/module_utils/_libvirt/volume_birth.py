# SPDX-License-Identifier: GPL-3.0-or-later
"""New volumes: made by libvirt, or, with content of their own, under another name first."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import content, secret, volume_limits
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import Place, file_of, volumes_in
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.pool import FILES
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.volume import TABLE, check

Work = tuple[list[Change], list[Step]]


def plan(
    session: Libvirt, subject: str, place: Place, wanted: dict[str, Any], warnings: list[str], secrets: Work
) -> Plan:
    """Return what it takes to have a volume that is not there."""
    facts: dict[str, Any] = {}
    if not {"capacity", "backing", "source"} & set(wanted):
        raise KvmError("capacity: must be given for a new volume")
    if "format" not in wanted and place.type in FILES:
        wanted = {**wanted, "format": "qcow2"}
        facts = {"defaults_applied": ["format"]}
    check(wanted)
    for option in ("changes", "flatten"):
        if option in wanted and "backing" not in wanted:
            wanted = {k: v for k, v in wanted.items() if k != option}  # a new image without backing holds nothing to settle
    volume_limits.check_room(session, place, wanted)
    volume_limits.check_chain(session, wanted, warnings)
    volume_limits.check_guards(session, place, c.BYTES.bytes(wanted["capacity"]) if "capacity" in wanted else 0, warnings)
    changes = [Change(one.option, None, one.after, "define") for one in _fields.differences(TABLE.rows, wanted, {})]
    if "source" in wanted:
        changes.append(Change("source", None, wanted["source"], "define"))
    changes += [*secrets[0], Change("state", None, "present", "define")]
    step = _birth_step(session, place, wanted, warnings)
    steps = (*secrets[1], *content.forget_steps(session, place, wanted["name"]), *([step] if step else []))
    return Plan(subject, tuple(changes), steps, (), tuple(warnings), facts)


def _birth_step(session: Libvirt, place: Place, wanted: dict[str, Any], warnings: list[str]) -> Step | None:
    """Return the step that makes the volume: by libvirt, or, with content of its own, under another name first."""
    local = session.on_this_host and place.path is not None and place.type in FILES
    if "source" in wanted:
        if place.handle is None or not place.active:
            return None  # only in check mode, which has warned of it
        origin = content.origin_of(session, place, wanted["source"], warnings)
        if not session.on_this_host or "encryption" in wanted:
            raise KvmError("source: needs a pool of this host, and no encryption")
        if not local:
            return content.copy_step(session, place, wanted, origin)
        return content.make_step(session, place, wanted, origin, wanted["format"])
    if wanted.get("preallocation") == "full":
        if not local or "backing" in wanted or "encryption" in wanted:
            raise KvmError("preallocation: full needs a pool of files of this host, no backing and no encryption; use falloc")
        return content.make_step(session, place, wanted, None, wanted["format"])
    if wanted.get("format") == "parallels" and local:  # libvirt makes something else of that
        return content.make_step(session, place, wanted, None, "parallels")
    tree = _xml.new("volume")
    _xml.put(tree, "name", wanted["name"])
    _fields.write(TABLE.rows, tree, {**wanted, **_laid_out(wanted)})
    return _create_step(session, place, wanted, tree)


def _laid_out(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the allocation that a wanted layout means."""
    whole = {"off": "0B", "metadata": "0B", "falloc": wanted.get("capacity", "0B")}
    return {"allocation": whole[wanted["preallocation"]]} if "preallocation" in wanted else {}


def password(session: Libvirt, place: Place, wanted: dict[str, Any], fresh: bool) -> Work:
    """Return the steps that put a given password into the secret of the volume.

    What an image is encrypted with does not change with its secret: that of one which is there is only made where it is missing.
    """
    encryption = wanted.get("encryption") or {}
    if "password" not in encryption:
        return [], []
    name = encryption.get("secret") or f"{place.name}/{wanted['name']}"
    if not fresh and ("volume", name) in secret.listed(session):
        return [], []
    made = secret.plan(session, {"type": "volume", "name": name, "private": True, "value": encryption["password"]})
    return [Change(f"encryption.secret.{one.option}", one.before, one.after, one.how) for one in made.changes], list(made.steps)


def _create_step(session: Libvirt, place: Place, wanted: dict[str, Any], tree: Any) -> Step:
    name, text = wanted["name"], _xml.text_of(tree)
    whole = wanted.get("allocation") and wanted["allocation"] == wanted.get("capacity")
    laid_out = wanted.get("format") == "qcow2" and (whole or wanted.get("preallocation") in ("metadata", "falloc"))
    flags = libvirt.VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA if laid_out else 0  # with all allocated, of the data too

    def create() -> None:
        try:
            with told("cannot create the volume"):
                volumes_in(session, place)[name] = place.pool.createXML(text, flags)
        except KvmError:
            _clean_up(session, place, name)
            raise

    def undo() -> None:
        with told("cannot delete the volume that was just created"):
            volumes_in(session, place).pop(name).delete(0)

    return Step(f"create volume {name} in pool {place.name}", create, undo)


def _clean_up(session: Libvirt, place: Place, name: str) -> None:
    """Take away what a create that failed left: libvirt does it itself, unless it died over it."""
    path = file_of(session, place, name)
    if path is None or place.type not in FILES or session.connection.isAlive() or not os.path.lexists(path):
        return
    os.unlink(path)
