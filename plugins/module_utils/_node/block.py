# SPDX-License-Identifier: GPL-3.0-or-later
"""What a block device holds and who holds it (blkid(8), /sys/class/block, mountinfo); and wiping it (wipefs(8))."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

BLKID_FOUND_NOTHING = 2


@dataclass(frozen=True)
class Content:
    """What a device holds: a file system or RAID member, a partition table, and words for all that there is."""

    type: str | None
    table: str | None
    words: str

    @property
    def empty(self) -> bool:
        return not self.words


def require_block_device(host: Root, device: str) -> None:
    """Raise KvmError unless the path is a block device of this host."""
    try:
        found = os.stat(host.at(device))
    except OSError:
        raise KvmError(f"source.devices: {device} does not exist on this host") from None
    if not stat.S_ISBLK(found.st_mode):
        raise KvmError(f"source.devices: {device} is not a block device")


def content_of(host: Root, device: str) -> Content:
    """Return what a device holds, by its own signatures and not by what the kernel remembers."""
    probe = host.run(["blkid", "-p", "-o", "export", device])
    parts = _parts(host, _name(host, device))
    if probe.rc == BLKID_FOUND_NOTHING:
        return Content(None, None, ", ".join(parts))
    values = dict(line.split("=", 1) for line in probe.out.splitlines() if "=" in line)
    words = [f"{key}={values[key]}" for key in ("TYPE", "PTTYPE", "LABEL") if key in values]
    held = ", ".join([*words, *parts]) or probe.err.strip() or "something that blkid cannot tell"
    return Content(values.get("TYPE"), values.get("PTTYPE"), held)


def holders_of(host: Root, device: str) -> list[str]:
    """Return who has a device, or a part of it: mount points, swap, devices made of it."""
    top = _name(host, device)
    found = []
    for name in (top, *_parts(host, top)):
        place = f"/sys/class/block/{name}" if name == top else f"/sys/class/block/{top}/{name}"
        found += host.list(f"{place}/holders")
        number = host.read(f"{place}/dev")
        found += [mount for where, mount in _mounts(host) if where == number]
    swaps = {line.split()[0] for line in (host.read("/proc/swaps") or "").splitlines()[1:]}
    return found + [f"swap {swap}" for swap in sorted(swaps) if _name(host, swap) in (top, *_parts(host, top))]


def _mounts(host: Root) -> list[tuple[str, str]]:
    lines = (host.read("/proc/self/mountinfo") or "").splitlines()
    return [(line.split()[2], line.split()[4]) for line in lines if len(line.split()) > 4]


def _name(host: Root, device: str) -> str:
    return os.path.basename(os.path.realpath(host.at(device)))


def _parts(host: Root, name: str) -> list[str]:
    return [entry for entry in host.list(f"/sys/class/block/{name}") if entry.startswith(name)]


def require_empty(host: Root, device: str, overwrite: bool = False) -> bool:
    """Raise KvmError when a device holds anything, with C(overwrite) only when anything holds it.

    Returns whether it has to be wiped before it is built on.
    """
    users = holders_of(host, device)
    if users:
        raise KvmError(f"source.devices: {device} is not empty, it has {', '.join(users)}; it is left as it is")
    held = content_of(host, device)
    if not held.empty and not overwrite:
        raise KvmError(
            f"source.devices: {device} is not empty, it holds {held.words}; overwrite: true destroys it, or wipe it first"
        )
    return not held.empty


def wipe(host: Root, device: str) -> None:
    """Take every signature off a device and its partitions, and have the kernel forget those."""
    for part in reversed(_parts(host, _name(host, device))):
        host.do(["wipefs", "--all", "--force", f"/dev/{part}"])
    host.do(["wipefs", "--all", "--force", device])
    if _parts(host, _name(host, device)):
        host.do(["blockdev", "--rereadpt", device])
