# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel tells of a guest's QEMU process: where its memory is, what is locked, what KSM saves; and moving it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from dataclasses import dataclass

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import meminfo

MIGRATE_PAGES = {"x86_64": 256, "aarch64": 238, "s390x": 287, "ppc64le": 258}  # the call's number (syscalls(2))
SMALL = 4 << 20  # bytes; a mapping below that is not a guest's memory but QEMU's own


@dataclass(frozen=True)
class KsmBill:
    """What KSM does for one process. Bytes; profit: saved less what its bookkeeping takes, None if this kernel tells none."""

    merged: int
    tracked: int
    profit: int | None


def memory_by_node(root: Root, pid: int) -> dict[int, int]:
    """Return the bytes of a process's large writable mappings on each node (proc_pid_numa_maps(5)).

    Only those that hold a guest's memory: QEMU's own libraries and stacks are left out by their size.
    """
    found: dict[int, int] = {}
    for line in (root.text(f"/proc/{pid}/numa_maps") or "").splitlines():
        page = re.search(r"kernelpagesize_kB=(\d+)", line)
        if page is None or " file=/usr" in line or " heap" in line:
            continue
        counts = {int(node): int(count) * int(page[1]) * 1024 for node, count in re.findall(r"\bN(\d+)=(\d+)", line)}
        if sum(counts.values()) < SMALL:
            continue
        for node, size in counts.items():
            found[node] = found.get(node, 0) + size
    return found


def locked(root: Root, pid: int) -> int:
    """Return the bytes that a process has locked in memory."""
    return meminfo(root.read(f"/proc/{pid}/status")).get("VmLck", 0)


def ksm_bill(root: Root, pid: int, page_size: int) -> KsmBill | None:
    """Return what KSM does for a process (kernel: admin-guide/mm/ksm.rst); None where the kernel does not tell."""
    text = root.read(f"/proc/{pid}/ksm_stat")
    merging = root.number(f"/proc/{pid}/ksm_merging_pages")
    if text is None and merging is None:
        return None
    stat = {name: int(value) for name, value in re.findall(r"^(\w+):?\s+(-?\d+)", text or "", re.MULTILINE)}
    merged = merging if merging is not None else stat.get("ksm_merging_pages", 0)
    return KsmBill(merged * page_size, stat.get("ksm_rmap_items", 0) * page_size, stat.get("ksm_process_profit"))


def migrate(pid: int, away: set[int], to: set[int]) -> None:
    """Move a process's pages from nodes to nodes (migrate_pages(2)), as many as the nodes take. Raises KvmError if it cannot be asked."""
    number = MIGRATE_PAGES.get(platform.machine())
    if number is None:
        raise KvmError(f"this machine's kernel call for moving pages is not known ({platform.machine()}); restart the guest instead")
    call = ctypes.CDLL(None, use_errno=True).syscall
    mask = ctypes.c_ulong * 16  # 1024 nodes
    words = [mask(*[sum(1 << (n % 64) for n in nodes if n // 64 == word) for word in range(16)]) for nodes in (away, to)]
    if call(ctypes.c_long(number), ctypes.c_int(pid), ctypes.c_ulong(1024), *map(ctypes.byref, words)) < 0:
        raise KvmError(f"moving pages of process {pid}: {os.strerror(ctypes.get_errno())}")
