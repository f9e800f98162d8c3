# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual functions by role: physical function and index, over /sys (kernel documentation: ABI/testing/sysfs-bus-pci)."""

from __future__ import annotations

import os

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError


def vf_address(pf: str, index: int, root: str = "/") -> str | None:
    """Return the PCI address of a virtual function, None when the PF could have it and has not made it yet.

    Raises KvmError when the PF does not exist or cannot have that many.
    """
    device = os.path.join(root, "sys/class/net", pf, "device")
    try:
        with open(os.path.join(device, "sriov_totalvfs"), encoding="ascii") as file:
            total = int(file.read())
    except OSError:
        known = ", ".join(physical_functions(root)) or "none"
        raise KvmError(f"{pf} is not an SR-IOV physical function of this host; it has: {known}") from None
    if index >= total:
        raise KvmError(f"index {index} is not in 0..{total - 1}, {pf} has at most {total} virtual functions")
    link = os.path.join(device, f"virtfn{index}")
    return os.path.basename(os.readlink(link)) if os.path.islink(link) else None


def physical_functions(root: str = "/") -> list[str]:
    """Return the names of the interfaces that are SR-IOV physical functions."""
    folder = os.path.join(root, "sys/class/net")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [name for name in names if os.path.exists(os.path.join(folder, name, "device/sriov_totalvfs"))]


def vf_role(address: str, root: str = "/") -> dict[str, object] | None:
    """Return {pf, index} of a PCI address, None when it is no virtual function of a network interface."""
    for pf in physical_functions(root):
        device = os.path.join(root, "sys/class/net", pf, "device")
        for entry in sorted(os.listdir(device)):
            if entry.startswith("virtfn") and os.path.basename(os.readlink(os.path.join(device, entry))) == address:
                return {"pf": pf, "index": int(entry[len("virtfn") :])}
    return None
