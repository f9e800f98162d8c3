# SPDX-License-Identifier: GPL-3.0-or-later
"""The tuned service and its profile, such as virtual-host (tuned-adm(8))."""

from __future__ import annotations

from functools import partial

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import rivals
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

NONE = "none"  # tuned runs no profile, or not at all
APPLY_S = 120.0
RIVALS = ("power-profiles-daemon.service", "tlp.service")


def part(root: Root, wanted: str) -> Part:
    """Return what it takes that tuned applies a profile now and at every boot; C(none): that it applies none."""
    have = rivals.profile(root) or NONE
    if wanted != NONE:
        _check(root, wanted)
    running = _runs(root)
    if have == wanted and running == (wanted != NONE):
        return Part()
    before = have if running else NONE
    step = Step(f"have tuned apply the profile {wanted}", partial(_apply, root, wanted), partial(_apply, root, have))
    return Part((Change("tuned", before, wanted, LIVE),), (step,))


def _check(root: Root, wanted: str) -> None:
    if not root.exists("/usr/sbin/tuned-adm"):
        raise KvmError("tuned: this host has no tuned-adm; install the package tuned")
    if not any(root.exists(f"{place}/{wanted}/tuned.conf") for place in rivals.PROFILES):
        raise KvmError(f"tuned: there is no profile {wanted!r}; tuned-adm list shows those of this host")
    for unit in RIVALS:
        if unit in root.list("/etc/systemd/system/multi-user.target.wants") + root.list("/etc/systemd/system/graphical.target.wants"):
            raise KvmError(f"tuned: {unit} sets the same knobs; disable it first")


def _runs(root: Root) -> bool:
    pid = root.number("/run/tuned/tuned.pid")
    return pid is not None and root.exists(f"/proc/{pid}")


def _apply(root: Root, profile: str) -> None:
    """Bring tuned to a profile. Raises KvmError with what tuned itself says is not as the profile has it."""
    if profile == NONE:
        root.must_run(["systemctl", "disable", "--now", "tuned.service"], timeout=APPLY_S)
        return
    root.must_run(["systemctl", "enable", "--now", "tuned.service"], timeout=APPLY_S)
    root.must_run(["tuned-adm", "profile", profile], timeout=APPLY_S)
    if rivals.profile(root) != profile:
        raise KvmError(f"tuned: it was told to apply {profile} and has {rivals.profile(root) or NONE}")


def read(root: Root) -> str | None:
    """Return the profile that tuned applies; None on a host without tuned."""
    if not root.exists("/usr/sbin/tuned-adm"):
        return None
    return rivals.profile(root) if _runs(root) else NONE
