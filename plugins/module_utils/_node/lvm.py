# SPDX-License-Identifier: GPL-3.0-or-later
"""Volume groups of LVM: read only (pvs(8), vgs(8))."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root


def group_exists(host: Root, group: str) -> bool:
    """Tell whether the host has a volume group of this name."""
    names = host.must_run(["vgs", "--noheadings", "-o", "vg_name"]).split()
    return group in names


def group_of(host: Root, device: str) -> str | None:
    """Return the volume group that a device is part of."""
    done = host.run(["pvs", "--noheadings", "-o", "vg_name", device])
    return done.out.strip() or None if done.rc == 0 else None
