# SPDX-License-Identifier: GPL-3.0-or-later
"""Which guests use a piece of storage."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.objects import running_xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.chain import chain_of

Sources = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Users:
    """Names of the guests that use something: those that run with it, those that have it in their definition."""

    running: tuple[str, ...]
    defined: tuple[str, ...]


def disk_sources(tree: Any) -> Sources:
    """Return what the disks of a guest lie on, backing chain included: ("", real path) or (pool, volume)."""
    found = set()
    for disk in _xml.find_all(tree, "devices/disk"):
        for source in disk.iter("source"):
            path = source.get("file") or source.get("dev") or source.get("dir")
            if path:
                found.add(("", os.path.realpath(path)))
            if source.get("pool") and source.get("volume"):
                found.add((source.get("pool"), source.get("volume")))
    return frozenset(found)


def all_sources(session: Libvirt) -> dict[str, tuple[Sources, Sources]]:
    """Return for each guest what its running and its persistent disks lie on; read once a task."""

    def read() -> dict[str, tuple[Sources, Sources]]:
        found = {}
        for name, handle in session.domains().items():
            tree = running_xml(handle)
            with told("cannot read the guests"):
                flag = libvirt.VIR_DOMAIN_XML_INACTIVE if handle.isPersistent() else 0
                kept = _xml.parse(handle.XMLDesc(flag))
            found[name] = (disk_sources(tree) if tree is not None else frozenset(), disk_sources(kept) | _below(session, kept))
        return found

    known: dict[str, tuple[Sources, Sources]] = session.once("disk sources", read)
    return known


def _below(session: Libvirt, definition: Any) -> Sources:
    """Return what the disks of a definition lie on: only of a guest that runs libvirt tells it.

    What a guest writes into a raw image is not taken for the header of another kind.
    """
    found: set[tuple[str, str]] = set()
    for disk in _xml.find_all(definition, "devices/disk") if session.on_this_host else ():
        path = file_of_disk(session, disk)
        if path and _xml.get(disk, "driver/@type")[0] == "qcow2":
            found.update(("", below) for below in chain_of(path))
    return frozenset(found)


def file_of_disk(session: Libvirt, disk: Any) -> str:
    """Return the path of what a disk of a definition is written to, nothing if it has none on this host."""
    source = {name: _xml.get(disk, f"source/@{name}")[0] for name in ("file", "dev", "pool", "volume")}
    return file_named(session, source["file"] or source["dev"], source["pool"], source["volume"])


def file_named(session: Libvirt, path: str | None, pool: str | None, volume: str | None) -> str:
    """Return a path, or that of a volume; nothing if there is no such volume, which those who check the references tell."""
    if path or not pool or not volume:
        return path or ""
    try:
        return str(session.pools()[pool].storageVolLookupByName(volume).path())
    except (KeyError, libvirt.libvirtError):
        return ""


def is_same_file(session: Libvirt, one: str, other: str) -> bool:
    """Tell whether two paths lead to the same file, as far as this machine can see."""
    return one == other or (session.on_this_host and os.path.realpath(one) == os.path.realpath(other))


def users_of(session: Libvirt, pool: str, volume: str, path: str) -> Users:
    """Return who uses a volume, by its path or as pool and volume."""
    names = {(pool, volume), ("", os.path.realpath(path))}
    sources = all_sources(session)
    return Users(
        tuple(guest for guest, (running, _kept) in sorted(sources.items()) if running & names),
        tuple(guest for guest, (_running, kept) in sorted(sources.items()) if kept & names),
    )


def disks_with(session: Libvirt, pool: str, volume: str, path: str) -> list[tuple[str, str]]:
    """Return (guest, target) of each disk of a running guest that is written to this volume, not to one above it."""
    found = []
    real = os.path.realpath(path)
    for guest, handle in sorted(session.domains().items()):
        tree = running_xml(handle)
        for disk in _xml.find_all(tree, "devices/disk") if tree is not None else ():
            source = _xml.find(disk, "source")
            if source is None:
                continue
            here = source.get("file") or source.get("dev")
            if (here and os.path.realpath(here) == real) or (source.get("pool") == pool and source.get("volume") == volume):
                found.append((guest, str(_xml.get(disk, "target/@dev")[0])))
    return found


def users_below(session: Libvirt, pool: str, directory: str, volumes: Iterable[str] = ()) -> list[str]:
    """Return the running guests that use any volume of a pool: by the pool's name, a path in its directory, or one of C(volumes)."""
    top, held = os.path.realpath(directory), {os.path.realpath(path) for path in volumes}
    return [
        guest
        for guest, (running, _kept) in sorted(all_sources(session).items())
        if any(owner == pool or (not owner and (os.path.dirname(path) == top or path in held)) for owner, path in running)
    ]
