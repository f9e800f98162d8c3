# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pool holds: its volumes as libvirt lists them, and as they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, code, libvirt, patiently, told, words
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import is_same_file


@dataclass(frozen=True)
class Place:
    """The pool of a volume: its handle (None while there is none), type, and directory."""

    name: str
    handle: Any | None
    type: str = "dir"
    path: str | None = None
    active: bool = False

    @property
    def pool(self) -> Any:
        """The handle. Raises KvmError where there is no such pool."""
        if self.handle is None:
            raise KvmError(f"pool {self.name!r} does not exist")
        return self.handle


def place_of(session: Libvirt, name: str) -> Place:
    """Return the pool; read once a task."""

    def read() -> Place:
        handle = session.pools().get(name)
        if handle is None:
            return Place(name, None)
        with told(f"cannot read pool {name!r}"):
            tree = _xml.parse(handle.XMLDesc(0))
            active = bool(handle.isActive())
        return Place(name, handle, _xml.get(tree, "@type")[0] or "dir", _xml.get(tree, "target/path")[0], active)

    found: Place = session.once(f"pool {name}", read)
    return found


def volumes_in(session: Libvirt, place: Place) -> dict[str, Any]:
    """Return the volumes of an active pool by name; listed once a task."""
    return session.all(f"volumes of pool {place.name}", lambda: place.pool.listAllVolumes(0))


def of_each(session: Libvirt, place: Place, ask: Callable[[Any], Any]) -> dict[str, Any]:
    """Return what each volume of an active pool tells by name. One that goes meanwhile tells nothing: a draft of another volume of the task does."""
    volumes = volumes_in(session, place)
    with session.lock:
        known = dict(volumes)
    found = {}
    for name, volume in known.items():
        try:
            found[name] = ask(volume)
        except libvirt.libvirtError as error:
            if code(error) != libvirt.VIR_ERR_NO_STORAGE_VOL:
                raise KvmError(f"cannot read volume {name!r}: {words(error)}") from error
    return found


def above(session: Libvirt, place: Place, path: str) -> list[str]:
    """Return the volumes that have a file right below them: their names, those of other pools as C(pool/volume)."""
    own = _backings(session, place)
    found = [name for name, (_file, backing) in own.items() if _is_below(session, backing, path)]
    for pool in session.pools():
        other = place_of(session, pool)
        if pool == place.name or not other.active:
            continue
        known = session.once(f"backings of pool {pool}", partial(_backings, session, other))
        # What this task removed meanwhile is not there any more.
        found += [f"{pool}/{name}" for name, (file, backing) in known.items() if _is_below(session, backing, path) and _is_there(session, file)]
    return sorted(found)


def images_above(session: Libvirt, path: str) -> list[str]:
    """Return the files of the volumes, of any active pool, that have a file right below them."""
    places = [place_of(session, pool) for pool in session.pools()]
    told_of = [pair for place in places if place.active for pair in _backings(session, place).values()]
    return sorted(file for file, backing in told_of if _is_below(session, backing, path))


def _backings(session: Libvirt, place: Place) -> dict[str, tuple[str, str]]:
    """Return of each volume of a pool its file and what is right below it, nothing where it stands alone."""
    trees = {name: _xml.parse(text) for name, text in of_each(session, place, lambda volume: volume.XMLDesc(0)).items()}
    return {name: (_xml.get(tree, "target/path")[0] or "", _xml.get(tree, "backingStore/path")[0] or "") for name, tree in trees.items()}


def _is_below(session: Libvirt, backing: str, path: str) -> bool:
    return bool(backing) and is_same_file(session, backing, path)


def _is_there(session: Libvirt, file: str) -> bool:
    return not session.on_this_host or not file.startswith("/") or os.path.lexists(file)


def file_of(session: Libvirt, place: Place, name: str) -> str | None:
    """Return the path of a volume where this machine can look at it, whether it is there or not."""
    return os.path.join(place.path, name) if session.on_this_host and place.path else None


def find_volume(session: Libvirt, place: Place, name: str) -> Any | None:
    """Return the tree of a volume. libvirt's list is old when somebody made or removed the file since: it reads anew."""
    if not place.active:
        return None
    path = file_of(session, place, name)
    known = name in volumes_in(session, place)
    if path is not None and known != os.path.lexists(path):
        refresh(session, place)
    handle = volumes_in(session, place).get(name)
    if handle is None:
        return None
    try:
        return _xml.parse(handle.XMLDesc(0))
    except libvirt.libvirtError as error:
        if code(error) == libvirt.VIR_ERR_NO_STORAGE_VOL:  # somebody has removed it just now
            return None
        raise KvmError(f"cannot read the volume: {words(error)}") from error


def refresh(session: Libvirt, place: Place) -> None:
    """Have libvirt look anew at what the pool holds. It refuses while it works on a volume there: that is waited for."""
    with told(f"cannot refresh pool {place.name!r}"):
        patiently(lambda: place.pool.refresh(0))
        fresh = {volume.name(): volume for volume in place.pool.listAllVolumes(0)}
    volumes = volumes_in(session, place)
    with session.lock:
        volumes.update(fresh)
        for gone in set(volumes) - set(fresh):
            del volumes[gone]


def trusted_places(session: Libvirt) -> tuple[str, ...]:
    """Return the directories of the active pools of this host: what an image may lead to."""
    places = (place_of(session, name) for name in sorted(session.pools()))
    return tuple(place.path for place in places if place.path and place.active)


def lacking_pool(place: Place) -> str | None:
    if place.handle is None:
        return f"pool {place.name!r} does not exist; define it with anfitrion.kvm.kvm_pool"
    return None if place.active else f"pool {place.name!r} is not active; have it active with anfitrion.kvm.kvm_pool"


def fullness(session: Libvirt, name: str) -> dict[str, Any]:
    """Return how large an active pool is, how full, and how many times over what it has is promised to its volumes."""
    handle = session.pools()[name]
    with told(f"cannot read pool {name!r}"):
        _state, capacity, allocation, available = handle.info()
    volumes = of_each(session, place_of(session, name), lambda volume: volume.info()).values()
    promised = sum(size for _type, size, _allocation in volumes)
    return {
        "pool": name,
        "capacity": capacity,
        "allocation": allocation,
        "available": available,
        "promised": promised,
        "full_percent": round(100 * allocation / capacity, 1) if capacity else None,
        "thin_percent": round(100 * promised / capacity, 1) if capacity else None,
    }
