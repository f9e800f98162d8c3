# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel modules that are there now and at every boot (modules-load.d(5))."""

from __future__ import annotations

from functools import partial

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part, file_part, persisted_changes, together
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

PERSISTED = "/etc/modules-load.d/anfitrion-kvm.conf"


def part(root: Root, wanted: list[str]) -> Part:
    """Return what it takes that these modules are loaded, now and at every boot; nothing is ever unloaded."""
    missing = [name for name in dict.fromkeys(wanted) if not _is_there(root, name)]
    steps = tuple(Step(f"load module {name}", partial(_load, root, name)) for name in missing)
    changes = (Change("kernel_modules", None, " ".join(missing), LIVE),) if missing else ()
    return together(_kept(root, wanted), Part(changes, steps))


def _is_there(root: Root, name: str) -> bool:
    """Tell whether the kernel has a module. Raises KvmError if it cannot have it."""
    if root.exists(f"/sys/module/{name.replace('-', '_')}"):
        return True
    # One that is built in and takes no parameters is not below /sys/module.
    told = root.run(["modprobe", "--show-depends", name])
    if told.rc:
        raise KvmError(f"kernel_modules: this kernel has no module {name} ({told.err.strip()}); leave it out")
    return all(line.startswith("builtin ") for line in told.out.splitlines())


def _load(root: Root, name: str) -> None:
    root.must_run(["modprobe", name])


def _kept(root: Root, wanted: list[str]) -> Part:
    before, after = read_persisted(root), list(dict.fromkeys(wanted))
    told = persisted_changes("", {"kernel_modules": " ".join(before)} if before else {}, {"kernel_modules": " ".join(after)} if after else {})
    return file_part(root, PERSISTED, HEADER + "".join(f"{name}\n" for name in after) if after else None, told)


def read_persisted(root: Root) -> list[str]:
    """Return the modules that our file has loaded at boot."""
    lines = (root.text(PERSISTED) or "").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def give_back(root: Root, _found: object) -> Part:
    """Return what it takes that the next boot loads nothing of ours; what is loaded stays, somebody may use it."""
    return _kept(root, [])
