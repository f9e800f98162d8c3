# SPDX-License-Identifier: GPL-3.0-or-later
"""Nested guests: the `nested` parameter of kvm_intel or kvm_amd (kernel: virt/kvm/x86/running-nested-guests.rst)."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part, file_part, persisted_changes
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

PERSISTED = "/etc/modprobe.d/anfitrion-kvm.conf"
DIRECTORIES = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")


def module_of(root: Root) -> str | None:
    """Return the kernel module of this CPU; None if the CPU, or its firmware, has no virtualization."""
    for module in ("kvm_intel", "kvm_amd"):
        if root.exists(f"/sys/module/{module}"):
            return module
    flags = set((root.read("/proc/cpuinfo") or "").split())
    return "kvm_intel" if "vmx" in flags else "kvm_amd" if "svm" in flags else None


def running(root: Root, module: str) -> bool | None:
    """Return the value in use; None while the module is not loaded."""
    text = root.read(f"/sys/module/{module}/parameters/nested")
    return None if text is None else text in ("Y", "1")


def options(text: str | None, module: str) -> str | None:
    """Return the last value that a modprobe.d file gives the parameter."""
    pattern = rf"^\s*options\s+{module.replace('_', '[_-]')}\s+(?:.*\s)?nested=(\S+)"
    found = re.findall(pattern, text or "", re.MULTILINE)
    return found[-1] if found else None


def part(root: Root, wanted: bool) -> Part:
    """Return what it takes that nested is as wanted, now and after a reboot."""
    module = module_of(root)
    if module is None:
        raise KvmError("nested: the CPU shows neither vmx nor svm; switch virtualization on in the firmware")
    _refuse_foreign(root, module, wanted)
    value = str(int(wanted))
    before = options(root.text(PERSISTED), module)
    told = persisted_changes("", {"nested": before} if before else {}, {"nested": value})
    kept = file_part(root, PERSISTED, f"{HEADER}options {module} nested={value}\n", told)
    return _with_running(root, module, wanted, kept)


def _with_running(root: Root, module: str, wanted: bool, kept: Part) -> Part:
    """Return C(kept) and what it takes of the loaded module; a reload only while nobody uses it."""
    loaded = running(root, module)
    if loaded is None or loaded == wanted:
        return kept
    in_use = root.number(f"/sys/module/{module}/refcnt")
    if in_use is None:
        raise KvmError(f"nested: {module} is built into this kernel; put {module}.nested={int(wanted)} on the kernel command line")
    if in_use:
        reason = f"{module} keeps nested={int(loaded)} while guests run; it takes {int(wanted)} at the next boot"
        return Part(kept.changes, kept.steps, pending=("nested",), reboot_reasons=(reason,))
    reload = Step(
        f"load {module} again with nested={int(wanted)}",
        partial(_reload, root, module, wanted),
        partial(_reload, root, module, loaded),
    )
    return Part((Change("nested", loaded, wanted, LIVE), *kept.changes), (*kept.steps, reload))


def give_back(root: Root, found: dict[str, Any]) -> Part:
    """Return what it takes that nested is as it was found."""
    module = module_of(root)
    kept = file_part(root, PERSISTED, None)
    return kept if module is None or "" not in found else _with_running(root, module, bool(found[""]), kept)


def _reload(root: Root, module: str, wanted: bool) -> None:
    root.must_run(["modprobe", "-r", module])
    root.must_run(["modprobe", module, f"nested={int(wanted)}"])
    if running(root, module) != wanted:
        raise KvmError(f"nested: {module} was loaded again and has not taken nested={int(wanted)}")


def _refuse_foreign(root: Root, module: str, wanted: bool) -> None:
    given = {f"{module}.nested", module.replace("_", "-") + ".nested"}
    for word in (root.read("/proc/cmdline") or "").split():
        name, _equals, value = word.partition("=")
        if name in given and (value in ("1", "Y", "y")) != wanted:
            raise KvmError(f"nested: the kernel command line sets {word}, which wins over {PERSISTED}; remove it there")
    for directory in DIRECTORIES:
        for file in root.list(directory):
            path = f"{directory}/{file}"
            value = options(root.text(path), module) or "" if file.endswith(".conf") and path != PERSISTED else ""
            if value and (value in ("1", "Y", "y")) != wanted:
                raise KvmError(f"nested: {path} sets nested={value} for {module}; remove that line")


def read(root: Root) -> bool | None:
    """Return the value in use; None where there is none."""
    module = module_of(root)
    return running(root, module) if module else None
