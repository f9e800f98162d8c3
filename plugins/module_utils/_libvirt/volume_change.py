# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that are there: their size, their mode, what they hold and lie on."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import content, overlay, volume_limits, volume_removal
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, patiently, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import Place, file_of, volumes_in
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import users_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import permission_step, permissions_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.pool import FILES
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.volume import TABLE

Work = tuple[list[Change], list[Step]]
# What a size is rounded up to: sectors of an image, extents of a volume group (LVM's default).
GRAIN = {"logical": 4 * 1024**2}
SECTOR = 512


def plan(
    session: Libvirt, place: Place, wanted: dict[str, Any], found: dict[str, Any], path: str, secrets: Work
) -> Plan:
    """Return what it takes to have a volume that is there as wanted."""
    changes, steps = [*secrets[0]], [*secrets[1]]
    warnings: list[str] = []
    for one in _fields.differences(TABLE.rows, wanted, found):
        if one.option == "capacity":
            if _same_size(place, one):
                continue
            way, step = _resize(session, place, wanted, one, warnings)
        elif one.option == "permissions.mode":
            way, step = _permit(session, place, wanted, one)
        else:
            before = "none" if one.before is None else one.before
            raise KvmError(f"{one.option}: cannot be changed from {before} to {one.after}; make a new volume and copy the data")
        changes.append(Change(one.option, one.before, one.after, way))
        steps.append(step)
    for more, further in _content_changes(session, place, wanted, found, path):
        changes += more
        steps += further
    leftover = content.leftover_step(session, place, wanted["name"])
    return Plan(f"volume {place.name}/{wanted['name']}", tuple(changes), (*steps, *([leftover] if leftover else [])), (), tuple(warnings))


def _content_changes(
    session: Libvirt, place: Place, wanted: dict[str, Any], found: dict[str, Any], path: str
) -> list[tuple[list[Change], list[Step]]]:
    """Return what it takes for the image to hold, and to lie on, what is wanted."""
    if not {"flatten", "changes", "download"} & set(wanted):
        return []
    if not session.on_this_host:
        raise KvmError("flatten, changes and download need a volume of this host")
    name, done = wanted["name"], []
    known = {"format": "raw", **found}
    if wanted.get("flatten"):
        done.append(overlay.flatten(session, place, name, path, known))
    if "changes" in wanted:
        done.append(overlay.settle(session, place, name, path, known, wanted["changes"]))
    if "download" in wanted:
        there, step = content.download(session, place, name, path, known["format"], wanted["download"])
        if step is not None:
            done.append(([Change("download", "another content" if there else None, wanted["download"]["path"], "host")], [step]))
    return done


def _same_size(place: Place, one: _fields.Difference) -> bool:
    """Tell whether the found size is the wanted one rounded up as the pool rounds."""
    rest = c.BYTES.bytes(one.before) - c.BYTES.bytes(one.after)
    return 0 <= rest < GRAIN.get(place.type, SECTOR)


def _resize(session: Libvirt, place: Place, wanted: dict[str, Any], one: _fields.Difference, warnings: list[str]) -> tuple[str, Step]:
    name, size, now = wanted["name"], c.BYTES.bytes(one.after), c.BYTES.bytes(one.before)
    handle, smaller = volumes_in(session, place)[name], size < now
    if smaller and not wanted.get("shrink"):
        raise KvmError(
            f"capacity: cannot shrink from {one.before} to {one.after}, that would lose data; leave it, make a new volume, or say shrink: true"
        )
    with told("cannot read the path"):
        path = handle.path()
    guests = users_of(session, place.name, name, path).running
    if smaller:
        if guests:
            raise KvmError(f"capacity: cannot shrink while {' and '.join(guests)} runs with it; stop it first")
        volume_removal.refuse_as_backing(session, place, name, path, "shrunk")
    elif len(guests) > 1:
        raise KvmError(f"capacity: cannot grow while {' and '.join(guests)} share it; stop them first")
    else:
        volume_limits.check_guards(session, place, size - now, warnings)

    def resize() -> None:
        with told(f"cannot {'shrink' if smaller else 'grow'} the volume"):
            patiently(lambda: handle.resize(size, libvirt.VIR_STORAGE_VOL_RESIZE_SHRINK if smaller else 0))

    def grow_live() -> None:
        with told(f"cannot grow the disk of the running guest {guests[0]}"):
            session.domains()[guests[0]].blockResize(path, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    sentence = f"{'shrink' if smaller else 'grow'} volume {name} to {one.after}"
    if guests:
        return "live", Step(f"{sentence} in the running guest {guests[0]}", grow_live)
    return "define", Step(sentence, resize)


def _permit(session: Libvirt, place: Place, wanted: dict[str, Any], one: _fields.Difference) -> tuple[str, Step]:
    path = file_of(session, place, wanted["name"])
    if path is None or place.type not in FILES:
        raise KvmError(f"{one.option}: can only be changed for a file of this host")
    return "host", permission_step(path, {"mode": permissions_of(path)["mode"]}, {"mode": one.after})
