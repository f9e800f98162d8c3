# SPDX-License-Identifier: GPL-3.0-or-later
"""CPUs, memory and NUMA nodes of the host, as the kernel tells them. Reads only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import Size
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

CPUS = "/sys/devices/system/cpu"
NODES = "/sys/devices/system/node"


@dataclass(frozen=True)
class Node:
    """One NUMA node. Memory in bytes; pages and free_pages: number by size in KiB; distances: by node."""

    cpus: frozenset[int]
    memory: int
    free: int
    pages: Mapping[int, int] = field(default_factory=dict)
    free_pages: Mapping[int, int] = field(default_factory=dict)
    distances: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """The host. Memory in bytes; overcommit: vm.overcommit_memory; promise: what may still be promised under mode 2."""

    nodes: Mapping[int, Node]
    cpus: frozenset[int]
    isolated: frozenset[int]
    memory: int
    available: int
    swap: int
    overcommit: int = 0
    promise: int = 0

    @property
    def huge(self) -> int:
        """Bytes in huge pages."""
        return sum(count * kib * 1024 for node in self.nodes.values() for kib, count in node.pages.items())

    def pages(self, kib: int) -> dict[int, int]:
        """Return the huge pages of a size by node."""
        return {number: node.pages[kib] for number, node in self.nodes.items() if kib in node.pages}


def meminfo(text: str | None) -> dict[str, int]:
    """Return the sizes of /proc/meminfo, or of a node's meminfo, in bytes."""
    return {name: int(number) * 1024 for name, number in re.findall(r"(\w+(?:\(\w+\))?):\s+(\d+) kB", text or "")}


def numbers(text: str | None) -> set[int]:
    """Return the CPUs or nodes of a kernel list such as C(0-3,8)."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text or ""):
        found.update(range(int(first), int(last or first) + 1))
    return found


def observe(root: Root) -> Host:
    """Return what the host has."""
    memory = meminfo(root.read("/proc/meminfo"))
    online = frozenset(numbers(root.read(f"{CPUS}/online")))
    names = [name for name in root.list(NODES) if re.fullmatch(r"node\d+", name)]
    nodes = {int(name[4:]): _node(root, name, online) for name in sorted(names, key=lambda name: int(name[4:]))}
    if not nodes:
        nodes = {0: Node(online, memory.get("MemTotal", 0), memory.get("MemFree", 0))}
    return Host(
        nodes, online, frozenset(numbers(root.read(f"{CPUS}/isolated"))), memory.get("MemTotal", 0),
        memory.get("MemAvailable", 0), memory.get("SwapTotal", 0), root.number("/proc/sys/vm/overcommit_memory") or 0,
        memory.get("CommitLimit", 0) - memory.get("Committed_AS", 0),
    )  # fmt: skip


def _node(root: Root, name: str, online: frozenset[int]) -> Node:
    memory = meminfo(root.read(f"{NODES}/{name}/meminfo"))
    pages, free = {}, {}
    for size in root.list(f"{NODES}/{name}/hugepages"):
        kib = int(re.sub(r"\D", "", size))
        pages[kib] = root.number(f"{NODES}/{name}/hugepages/{size}/nr_hugepages") or 0
        free[kib] = root.number(f"{NODES}/{name}/hugepages/{size}/free_hugepages") or 0
    distances = [int(word) for word in (root.read(f"{NODES}/{name}/distance") or "").split()]
    others = sorted(int(other[4:]) for other in root.list(NODES) if re.fullmatch(r"node\d+", other))
    return Node(
        frozenset(numbers(root.read(f"{NODES}/{name}/cpulist")) & online), memory.get("MemTotal", 0),
        memory.get("MemFree", 0), pages, free, dict(zip(others, distances)),
    )  # fmt: skip


def size(kib: int) -> str:
    return Size.words(kib * 1024)
