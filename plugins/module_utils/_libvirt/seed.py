# SPDX-License-Identifier: GPL-3.0-or-later
"""The medium that cloud-init reads at the first start: made, replaced when its content changes, taken out, deleted."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from string import ascii_lowercase
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.seed_image import LABEL, SECTOR, seed_image
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

DRIVE = "anfitrion-seed"  # serial number of the drive that is ours
DIRECTORY = "/var/lib/libvirt/images"
MOST_BYTES = 16 * 1024 * 1024
FILES = (("user_data", "user-data"), ("meta_data", "meta-data"), ("network_config", "network-config"))
LABEL_AT = 16 * SECTOR + 40


def with_seed(
    session: Libvirt, wanted: dict[str, Any], found: dict[str, Any]
) -> tuple[dict[str, Any], list[Change], list[Step]]:
    """Return the options with the drive of the seed, and what it takes to have its medium hold what is asked for."""
    asked = wanted.get("cloud_init")
    if not asked:
        return wanted, [], []
    if not session.on_this_host:
        raise KvmError("cloud_init: only on the host itself, its medium is a file there")
    if asked.get("detach") and not wanted.get("wait_for"):
        raise KvmError("cloud_init.detach: needs wait_for, which tells when the first start is over")
    drive = drive_of(found)
    if drive is not None and "path" not in drive and asked.get("detach"):
        return wanted, [], []  # it had its start
    path = asked.get("path") or f"{DIRECTORY}/{wanted['name']}.seed.iso"
    target = drive["target"] if drive is not None else _free_target(wanted, found)
    disk = {"target": target, "bus": "sata", "device": "cdrom", "path": path, "format": "raw", "serial": DRIVE}
    content = seed_image(_files(wanted["name"], asked))
    before = content_of(path)
    changes, steps = [], []
    if before != content:
        changes.append(Change("cloud_init", None if before is None else "(secret)", "(secret)", "define"))
        steps.append(_write_step(path, content, before))
    return {**wanted, "disks": [*wanted.get("disks", []), disk]}, changes, steps


def drive_of(found: dict[str, Any]) -> dict[str, Any] | None:
    """Return the drive of the seed in the options of a definition."""
    return next((disk for disk in found.get("disks", []) if disk.get("serial") == DRIVE), None)


def _files(name: str, asked: dict[str, Any]) -> dict[str, bytes]:
    """Return the files of the medium; cloud-init takes none without meta-data, nor without user-data."""
    given = {"user_data": "#cloud-config\n{}\n", "meta_data": f"instance-id: {name}\nlocal-hostname: {name}\n", **asked}
    return {file: given[option].encode() for option, file in FILES if option in given}


def _free_target(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    taken = {disk.get("target") for disk in [*wanted.get("disks", []), *found.get("disks", [])]}
    return next(target for target in (f"sd{letter}" for letter in ascii_lowercase) if target not in taken)


def content_of(path: str) -> bytes | None:
    """Return what a seed holds, None where there is none. Raises KvmError for a file that is no seed: it is not ours to replace."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KvmError(f"cloud_init.path: {path}: {error.strerror}") from error
    if data[LABEL_AT : LABEL_AT + len(LABEL)] != LABEL.encode():
        raise KvmError(f"cloud_init.path: {path} is there and is no seed for cloud-init; name another path")
    return data


def _put(path: str, content: bytes | None) -> None:
    """Write a seed, readable by root only, all of it or nothing; None deletes it."""
    try:
        if content is None:
            os.unlink(path)
            return
        descriptor, draft = tempfile.mkstemp(prefix=".seed-", dir=os.path.dirname(path))  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(draft, path)
        except OSError:
            os.unlink(draft)
            raise
    except OSError as error:
        raise KvmError(f"cloud_init.path: {path}: {error.strerror}") from error


def _write_step(path: str, content: bytes, before: bytes | None) -> Step:
    return Step(f"write the seed {path}", lambda: _put(path, content), lambda: _put(path, before))


def detach_step(session: Libvirt, name: str) -> Step:
    """Return the step that takes the seed out of the guest, for now and for later, and deletes it."""

    def detach() -> None:
        with told("cloud_init.detach: the guest did not take it"):
            handle = session.domains()[name]
            flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG if handle.isPersistent() else 0
            flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE if handle.isActive() else 0
            drive = _element(_xml.parse(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
            path = seed_path(drive)
            if path is None:
                return
            _xml.clear(drive, "source")
            handle.updateDeviceFlags(_xml.text_of(drive), flags)
        if content_of(path) is not None:
            _put(path, None)

    return Step(f"take the seed out of domain {name}", detach)


def _element(tree: Any) -> Any | None:
    drives = _xml.find_all(tree, "devices/disk[@device='cdrom']")
    return next((one for one in drives if _xml.get(one, "serial")[0] == DRIVE), None)


def seed_path(drive: Any | None) -> str | None:
    """Return the path of the medium in a drive of ours."""
    return _xml.get(drive, "source/@file")[0] if drive is not None else None


def removal_steps(session: Libvirt, tree: Any) -> list[Step]:
    """Return the step that deletes the seed of a guest that goes: it holds what only that guest was to know."""
    path = seed_path(_element(tree))
    if path is None or not session.on_this_host or content_of(path) is None:
        return []
    return [Step(f"delete the seed {path}", partial(_put, path, None))]
