# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of a volume that is a file: made under another name, checked, then given its own. And copied out again."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import BYTES
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import (
    Place,
    find_volume,
    lacking_pool,
    place_of,
    refresh,
    trusted_places,
    volumes_in,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import disks_with
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import fetch, image, lock
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import os_told
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.pool import FILES
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.volume import FORMAT
from ansible_collections.anfitrion.kvm.plugins.module_utils._xml import get, new, put, text_of

DRAFT = ".anfitrion-draft"  # what is under this ending is nobody's volume; the next run takes it away
MARKS = "/var/lib/libvirt/anfitrion"  # one file for each volume that is a device and is being filled; kept over a reboot
READ_AS = {"iso": "raw"}  # libvirt's word for what is in a raw image
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # a file system without hard links


@dataclass(frozen=True)
class Origin:
    """Where content comes from: a file of this host and its format, or an address; the digest that it must have; where it is kept."""

    path: str | None
    format: str
    url: str | None = None
    checksum: str | None = None
    cache: str | None = None
    ours: bool = False  # a volume of a pool: it and what it leads to was looked at when it came

    @property
    def shown(self) -> str:
        return self.path or str(self.url)


def origin_of(session: Libvirt, place: Place, source: dict[str, Any], warnings: list[str]) -> Origin | None:
    """Return where the content comes from; None in check mode while an earlier task still has to make it."""
    if "url" in source:
        return Origin(None, source["format"], source["url"], source.get("checksum"), source.get("cache"))
    if "path" in source:
        if not os.path.exists(source["path"]):
            _lacking(session, f"source.path: {source['path']} does not exist on this host", warnings)
            return None
        return Origin(source["path"], source["format"], None, source.get("checksum"))
    other = place_of(session, source.get("pool", place.name))
    name = source["volume"]
    lacking = lacking_pool(other)
    tree = None if lacking else find_volume(session, other, name)
    if tree is None:
        _lacking(session, f"source.volume: {lacking or f'pool {other.name!r} has no volume {name!r}'}", warnings)
        return None
    path = str(get(tree, "target/path")[0])
    writers = disks_with(session, other.name, name, path)
    if writers:
        guests = ", ".join(sorted({guest for guest, _target in writers}))
        raise KvmError(f"source.volume: {name} is written by the running domain {guests}; stop it first, or take a backup")
    kind = FORMAT.from_xml(get(tree, "target/format/@type")[0] or "raw")
    if kind is None:
        raise KvmError(f"source.volume: {name} is of a format that cannot be read here")
    return Origin(path, READ_AS.get(kind, kind), ours=True)


def _lacking(session: Libvirt, words: str, warnings: list[str]) -> None:
    if not session.check:
        raise KvmError(words)
    warnings.append(words)


def make_step(
    session: Libvirt, place: Place, wanted: dict[str, Any], origin: Origin | None, kind: str, trusted: tuple[str, ...] = ()
) -> Step:
    """Return the step that makes a file volume of C(origin), or an empty one that is written through (None).

    trusted: directories besides the pools that the content may lead to.
    """
    name, final = wanted["name"], os.path.join(str(place.path), wanted["name"])

    def make() -> None:
        with _draft(final) as draft:
            _fill((*trusted_places(session), *trusted), draft, wanted, origin, kind)
            _hand_over(draft, final, wanted.get("permissions") or {})
        refresh(session, place)

    def undo() -> None:
        with os_told(final):
            os.unlink(final)
        refresh(session, place)

    words = f" from {origin.shown}" if origin else ""
    return Step(f"make volume {name} in pool {place.name}{words}", make, undo)


@contextmanager
def _draft(final: str) -> Iterator[str]:
    """Give the path of a draft that nobody else works on; what is left of it goes at the end, whatever happened."""
    draft = final + DRAFT
    with lock.held(final, f"{final} is being made by another task; wait for it"):
        try:
            _forget(draft)  # of a run that was killed: the lock says that it is over
            yield draft
        finally:
            _forget(draft)


def leftover_step(session: Libvirt, place: Place, name: str) -> Step | None:
    """Return the step that takes away what a killed task left beside a volume that is whole; None where there is nothing."""
    final = os.path.join(str(place.path), name)
    if not session.on_this_host or place.path is None or not any(map(os.path.lexists, _drafts(final + DRAFT))):
        return None

    def take_away() -> None:
        with _draft(final):
            pass
        refresh(session, place)

    return Step(f"take away what a task that was killed left beside volume {name}", take_away)


def _drafts(draft: str) -> tuple[str, str]:
    return draft, draft + ".fetched"


def _forget(draft: str) -> None:
    for path in _drafts(draft):
        if os.path.lexists(path):
            with os_told(path):
                os.unlink(path)


def _fill(places: tuple[str, ...], draft: str, wanted: dict[str, Any], origin: Origin | None, kind: str) -> None:
    size = BYTES.bytes(wanted["capacity"]) if "capacity" in wanted else None
    if origin is None:
        layout = ("-o", f"preallocation={wanted['preallocation']}") if "preallocation" in wanted else ()
        image.create(draft, kind, size or 0, layout)
        return
    checksum = fetch.literal(origin.checksum, origin.shown) if origin.checksum else None
    path = origin.path or draft + ".fetched"
    if origin.url and origin.cache:
        path = fetch.cached(origin.cache, origin.url, str(checksum))
    elif origin.url:
        fetch.fetch(origin.url, path)
    found = _checked(places, path, origin, wanted, None if origin.cache else checksum)
    if origin.url and origin.format == kind and not image.leads_to(found):
        with os_told(draft):
            shutil.copyfile(path, draft) if origin.cache else os.rename(path, draft)
    else:
        image.convert(path, origin.format, draft, kind)
        image.require_same(path, origin.format, draft, kind)
    if size is not None and found["virtual-size"] < size:
        image.resize(draft, kind, size)
    image.info(draft, kind)


def _checked(places: tuple[str, ...], path: str, origin: Origin, wanted: dict[str, Any], checksum: str | None) -> dict[str, Any]:
    """Return what qemu-img tells of the content. Raises KvmError where it is not what was asked for, or not trusted."""
    if checksum:
        fetch.require_digest(path, checksum, origin.shown)
    # Nothing that an image of a stranger says is followed before this.
    found = image.require_trusted(path, origin.format, (*places, os.path.dirname(path)) if origin.ours else places)
    if "capacity" in wanted and found["virtual-size"] > BYTES.bytes(wanted["capacity"]):
        raise KvmError(f"capacity: {wanted['capacity']} is less than what {origin.shown} holds, {found['virtual-size']} bytes")
    return found


def copy_step(session: Libvirt, place: Place, wanted: dict[str, Any], origin: Origin | None) -> Step:
    """Return the step that makes a volume that is a block device, by libvirt, and copies C(origin) into it."""
    name = wanted["name"]

    def make() -> None:
        if origin is None or origin.path is None:
            raise KvmError("source.url: goes into a pool of files; fetch it there, and clone that volume")
        checksum = fetch.literal(origin.checksum, origin.path) if origin.checksum else None
        size = _checked(trusted_places(session), origin.path, origin, wanted, checksum)["virtual-size"]
        tree = new("volume")
        put(tree, "name", name)
        put(tree, "capacity", str(BYTES.bytes(wanted["capacity"]) if "capacity" in wanted else size))
        # A device has no other name to be made under: that it is not whole yet is told by a file, until it is.
        mark = _mark(place, name)
        Root().place(mark, f"{place.name}/{name}\n", 0o600)
        try:
            with told("cannot create the volume"):
                handle = volumes_in(session, place)[name] = place.pool.createXML(text_of(tree), 0)
                path = handle.path()
        except KvmError:
            Root().remove(mark)
            raise
        try:
            image.fill(origin.path, origin.format, path)
            image.require_same(origin.path, origin.format, path, "raw")
        except KvmError:
            undo()
            raise
        Root().remove(mark)

    def undo() -> None:
        with told("cannot delete the volume that was just created"):
            volumes_in(session, place).pop(name).delete(0)
        Root().remove(_mark(place, name))

    return Step(f"make volume {name} in pool {place.name} from {origin.shown if origin else '?'}", make, undo)


def _mark(place: Place, name: str) -> str:
    return os.path.join(MARKS, hashlib.sha256(f"{place.name}/{name}".encode()).hexdigest()[:16])


def is_half_made(session: Libvirt, place: Place, name: str) -> bool:
    """Tell whether a volume that is a device was being filled by a task that was killed, or still is."""
    return session.on_this_host and place.type not in FILES and os.path.exists(_mark(place, name))


def forget_steps(session: Libvirt, place: Place, name: str) -> tuple[Step, ...]:
    """Return the step that forgets that a volume, which is gone, was half made; none where it was not."""
    if not is_half_made(session, place, name):
        return ()
    return (Step(f"forget that volume {name} was half made", lambda: Root().remove(_mark(place, name))),)


def _hand_over(draft: str, final: str, permissions: dict[str, Any]) -> None:
    """Give a finished draft its name; a file that came to stand there meanwhile is left alone."""
    with os_told(final):
        os.chmod(draft, int(permissions.get("mode", "0600"), 8))
        os.chown(draft, permissions.get("owner", -1), permissions.get("group", -1))
        handle = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.link(draft, final)
        except FileExistsError:
            raise KvmError(f"{final} was made by somebody else meanwhile; it is left as it is") from None
        except OSError as error:
            if error.errno not in NO_LINKS or os.path.lexists(final):
                raise
            os.rename(draft, final)


def replace_step(sentence: str, final: str, fill: Callable[[str], None], after: Callable[[], None] | None = None) -> Step:
    """Return the step that puts a whole new file in the place of one, at once, with its mode and owner."""

    def replace() -> None:
        with _draft(final) as draft:
            fill(draft)
            with os_told(final):
                old = os.stat(final) if os.path.exists(final) else None
                os.chmod(draft, (old.st_mode & 0o7777) if old else 0o600)
                if old:
                    os.chown(draft, old.st_uid, old.st_gid)
                os.replace(draft, final)
        if after is not None:
            after()

    return Step(sentence, replace)


# Copying out ----------------------------------------------------------------------------------------------------


def download(session: Libvirt, place: Place, name: str, path: str, kind: str, wanted: dict[str, Any]) -> tuple[bool, Step | None]:
    """Return whether a file is there with another content, and the step that has it hold the content of the volume."""
    target, form = wanted["path"], wanted.get("format", "raw")
    writers = disks_with(session, place.name, name, path)
    if writers:
        raise KvmError(f"download: it is written by the running domain {writers[0][0]}; stop it first, or take a backup")
    there = os.path.exists(target)
    if there and image.probed(target) == form and image.same(path, kind, target, form):
        return True, None
    if there and not wanted.get("overwrite"):
        raise KvmError(f"download.path: {target} is there with another content; overwrite: true replaces it")
    if not os.path.isdir(os.path.dirname(target)):
        raise KvmError(f"download.path: {os.path.dirname(target)} is no directory of this host")

    def fill(draft: str) -> None:
        image.convert(path, kind, draft, form)
        image.require_same(path, kind, draft, form)

    return there, replace_step(f"copy volume {name} to {target}", target, fill)


def drafts_in(session: Libvirt, place: Place) -> list[str]:
    """Return the names of volumes that a killed run left half made."""
    return sorted(name for name in volumes_in(session, place) if name.endswith(_drafts(DRAFT)) or is_half_made(session, place, name))
