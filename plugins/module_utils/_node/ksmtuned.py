# SPDX-License-Identifier: GPL-3.0-or-later
"""The ksmtuned service, which rewrites run, pages_to_scan and sleep_millisecs of KSM every minute."""

from __future__ import annotations

from functools import partial

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

UNIT_FILES = ("/usr/lib/systemd/system", "/lib/systemd/system")
UNITS = ("ksmtuned.service", "ksm.service")  # the second sets run at boot


def _installed(root: Root) -> list[str]:
    return [unit for unit in UNITS if any(root.exists(f"{place}/{unit}") for place in UNIT_FILES)]


def may_run(root: Root) -> bool:
    """Tell whether the ksmtuned service is installed and may run."""
    return any(root.target(f"/etc/systemd/system/{unit}") not in ("/dev/null", root.at("/dev/null")) for unit in _installed(root))


def part(root: Root, wanted: str | None) -> Part:
    """Return what it takes that ksmtuned is masked, or runs. Raises KvmError when it is to run and is not there."""
    units = _installed(root)
    if wanted == "running" and not units:
        raise KvmError("ksm.ksmtuned: this host has no ksmtuned service; install the package ksmtuned")
    if wanted is None or (wanted == "running") == may_run(root):
        return Part()
    mask = partial(_run_all, root, [["systemctl", "mask", "--now", units[0]], ["systemctl", "mask", *units]])
    unmask = partial(_run_all, root, [["systemctl", "unmask", *units], ["systemctl", "enable", "--now", *reversed(units)]])
    told = ("unmasked", "masked") if wanted == "masked" else ("masked", "unmasked")
    sentence = "stop and mask ksmtuned" if wanted == "masked" else "unmask and start ksmtuned"
    do, undo = (mask, unmask) if wanted == "masked" else (unmask, mask)
    return Part((Change("ksm.ksmtuned", *told, LIVE),), (Step(sentence, do, undo),))


def _run_all(root: Root, commands: list[list[str]]) -> None:
    for argv in commands:
        root.must_run(argv)
