# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups as they lie in a directory: each a directory with images, the guest's definition and a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import image
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import os_told

MANIFEST = "backup.json"
DRAFT = ".draft-"  # in front of the name of a backup that is being made
SEARCHABLE = 0o711  # QEMU, which writes the images, is another user
CHUNK = 1 << 20


@dataclass(frozen=True)
class Backup:
    """One backup. parent: the one that it builds on. checkpoint: whether a later one can build on it. disks: target -> digest of its image."""

    domain: str
    name: str
    parent: str | None
    checkpoint: bool
    made: float
    disks: dict[str, str]
    drilled: float | None = None


def all_in(top: str) -> dict[str, Backup]:
    """Return the backups of a directory, in the order in which they were made."""
    found = []
    for name in Root().list(top):
        text = None if name.startswith(DRAFT) else Root().text(os.path.join(top, name, MANIFEST))
        if text is None:
            continue
        try:
            found.append(Backup(**json.loads(text)))
        except (ValueError, TypeError):
            raise KvmError(f"{top}/{name}/{MANIFEST} is not a manifest of this module") from None
    return {one.name: one for one in sorted(found, key=lambda one: one.made)}


def image_of(top: str, name: str, target: str) -> str:
    """Return the path of the image of one disk."""
    return os.path.join(top, name, f"{target}.qcow2")


def begin(top: str, name: str) -> str:
    """Return an empty directory for a backup that is being made; what a killed task left there is thrown away."""
    draft = os.path.join(top, DRAFT + name)
    with os_told(draft):
        if os.path.lexists(draft):
            shutil.rmtree(draft)
        os.makedirs(top, mode=SEARCHABLE, exist_ok=True)
        os.mkdir(draft)
        os.chmod(draft, SEARCHABLE)
    return draft


def finish(top: str, backup: Backup, draft: str) -> None:
    """Give a backup that is complete its name, on the disk and not only in its cache."""
    with os_told(draft):
        for target in backup.disks:
            _sync(os.path.join(draft, f"{target}.qcow2"))
        save(draft, backup)
        os.rename(draft, os.path.join(top, backup.name))
        _sync(top)


def save(directory: str, backup: Backup) -> None:
    """Write the manifest."""
    Root().place(os.path.join(directory, MANIFEST), json.dumps(asdict(backup), indent=2) + "\n", 0o600)


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: str) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with os_told(path), open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            found.update(chunk)
    return found.hexdigest()


def chain(backups: dict[str, Backup], name: str) -> list[Backup]:
    """Return a backup and all that it builds on, itself first. Raises KvmError when one is missing."""
    found = []
    here: str | None = name
    while here is not None:
        if here not in backups:
            raise KvmError(f"backup {here!r}, which {name!r} builds on, is not there")
        found.append(backups[here])
        here = backups[here].parent
    return found


def faults(top: str, backups: dict[str, Backup], name: str) -> list[str]:
    """Return what is wrong with a backup and those that it builds on: missing or altered images; nothing if it is whole."""
    try:
        parts = chain(backups, name)
    except KvmError as error:
        return [str(error)]
    found = []
    for one in parts:
        for target, known in one.disks.items():
            path = image_of(top, one.name, target)
            if not os.path.exists(path):
                found.append(f"{path} is missing")
            elif digest(path) != known:
                found.append(f"{path} is not what it was when it was made")
    return found


def require_whole(top: str, backups: dict[str, Backup], name: str) -> None:
    """Raise KvmError unless a backup and all that it builds on are as they were made."""
    wrong = faults(top, backups, name)
    if wrong:
        raise KvmError("; ".join(wrong))


def lay_on(path: str, parent: str) -> None:
    """Have the image of an incremental backup read what it does not hold from that of its parent, wherever the directory is."""
    below = os.path.join("..", os.path.basename(os.path.dirname(parent)), os.path.basename(parent))
    image.lay_on(path, below, "qcow2")


def facts(top: str, backups: dict[str, Backup], verify: bool) -> list[dict[str, Any]]:
    """Return what to tell of each backup; C(verify): and what is wrong with it."""
    return [
        {**asdict(one), "path": top, "state": "present", **({"faults": faults(top, backups, one.name)} if verify else {})}
        for one in backups.values()
    ]
