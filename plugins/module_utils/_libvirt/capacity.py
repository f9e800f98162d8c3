# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether guests fit their host and each of its NUMA nodes. Pure: from what the host has and what the guests need.

Formulas: huge pages are taken off first, then what the host keeps for itself. Fixed guests (VFIO, locked, preallocated)
have all of their memory from the start on; the others may share what is left. Savings of KSM do not count, a write undoes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.census import Guest
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import Host, size

GIB = 1 << 30
OVERHEAD = 256 << 20  # QEMU itself, its queues and video memory; page tables come on top


@dataclass(frozen=True)
class Need:
    """What some guests need together. Memory in bytes; pages: number by size in KiB."""

    vcpus: int = 0
    fixed: int = 0
    soft: int = 0
    pages: dict[int, int] = field(default_factory=dict)
    pinned: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Report:
    """How full a host, or a node of it, is. Memory in bytes; ratios: None where nothing is left to divide by."""

    cpus: int
    usable: int
    need: Need
    cpu_ratio: float | None
    memory_ratio: float | None
    swap_needed: int

    def told(self) -> dict[str, Any]:
        """Return the report for people."""
        return {
            "cpus": self.cpus, "vcpus": self.need.vcpus, "cpu_ratio": self.cpu_ratio,
            "memory_usable": self.usable, "memory_fixed": self.need.fixed, "memory_soft": self.need.soft,
            "memory_ratio": self.memory_ratio, "swap_needed": self.swap_needed,
            "hugepages_needed": {size(kib): count for kib, count in sorted(self.need.pages.items())},
        }  # fmt: skip


def reserved(host: Host) -> int:
    """Return the bytes that the host keeps for itself: 4 GiB or 5 %, on small hosts never more than a quarter."""
    return min(max(4 * GIB, host.memory // 20), host.memory // 4)


def overhead(guest: Guest) -> int:
    """Return the bytes that a guest takes beside its memory: QEMU, and page tables for all of it."""
    return OVERHEAD + guest.memory // 512


def need(guests: Iterable[Guest]) -> Need:
    """Return what guests need together."""
    vcpus = fixed = soft = 0
    pages: dict[int, int] = {}
    pinned: set[int] = set()
    for guest in guests:
        vcpus += guest.vcpus
        pinned |= guest.cpus
        if guest.pages:
            pages[guest.pages] = pages.get(guest.pages, 0) + -(-guest.memory // (guest.pages * 1024))
            fixed += overhead(guest)
        elif guest.fixed:
            fixed += guest.memory + overhead(guest)
        else:
            soft += guest.memory + overhead(guest)
    return Need(vcpus, fixed, soft, pages, frozenset(pinned))


def report(host: Host, guests: Iterable[Guest]) -> Report:
    """Return how full the host is with these guests running."""
    wants = need(guests)
    usable = max(0, host.memory - host.huge - reserved(host))
    return _report(len(host.cpus), usable, wants)


def node_report(host: Host, number: int, guests: Iterable[Guest]) -> Report:
    """Return how full a NUMA node is with those of the guests whose memory must come from it alone."""
    node = host.nodes[number]
    huge = sum(count * kib * 1024 for kib, count in node.pages.items())
    share = reserved(host) * node.memory // host.memory if host.memory else 0
    return _report(len(node.cpus), max(0, node.memory - huge - share), need(guest for guest in guests if guest.nodes == {number}))


def _report(cpus: int, usable: int, wants: Need) -> Report:
    left = usable - wants.fixed
    ratio = round(wants.soft / left, 2) if left > 0 else None
    return Report(cpus, usable, wants, round(wants.vcpus / cpus, 2) if cpus else None, ratio, max(0, wants.soft - max(0, left)))


@dataclass(frozen=True)
class Finding:
    """One thing that does not fit, or is better not so. verdict: fail or warn."""

    verdict: str
    what: str
    guests: tuple[str, ...] = ()


def lacking_pages(host: Host, guests: list[Guest]) -> list[Finding]:
    """Return huge pages that are too few, in all and on the nodes that guests are bound to."""
    found = []
    for kib in sorted({guest.pages for guest in guests if guest.pages}):
        users = [guest for guest in guests if guest.pages == kib]
        places: list[tuple[str, int, list[Guest]]] = [("the host", sum(host.pages(kib).values()), users)]
        places += [(f"node {n}", count, [g for g in users if g.nodes == {n}]) for n, count in sorted(host.pages(kib).items())]
        for where, has, some in places:
            asked = need(some).pages.get(kib, 0)
            if asked > has:
                found.append(Finding("fail", f"huge pages of {size(kib)}: {asked} needed, {where} has {has}", tuple(g.name for g in some)))
    return found


def refusal(host: Host, running: list[Guest], one: Guest, limits: dict[str, Any]) -> str | None:
    """Return why a guest would pass the limits of the task on a host with the running ones; None if it would not.

    limits: C(cpu) and C(memory), ratios. The guest counts as it is to be, not as it is.
    """
    others = [guest for guest in running if guest.name != one.name]
    whole = report(host, [*others, one])
    words = []
    if limits.get("cpu") is not None and whole.cpu_ratio is not None and whole.cpu_ratio > limits["cpu"]:
        words.append(f"{whole.need.vcpus} vCPUs on {whole.cpus} CPUs would be {whole.cpu_ratio} to 1, the limit is {limits['cpu']}")
    if limits.get("memory") is not None and (whole.memory_ratio is None or whole.memory_ratio > limits["memory"]):
        share = f"{whole.memory_ratio} of" if whole.memory_ratio is not None else "more than"
        left = max(0, whole.usable - whole.need.fixed)
        words.append(f"{whole.need.soft >> 20} MiB of guests would be {share} the {left >> 20} MiB left to them, the limit is {limits['memory']}")
    words += [finding.what for finding in lacking_pages(host, [*others, one]) if one.name in finding.guests]
    for number in sorted(one.nodes) if len(one.nodes) == 1 and len(host.nodes) > 1 else ():
        if number in host.nodes and limits.get("memory") is not None:
            part = node_report(host, number, [*others, one])
            if part.memory_ratio is None or part.memory_ratio > limits["memory"]:
                words.append(f"guests bound to node {number} would need {(part.need.soft + part.need.fixed) >> 20} of its {part.usable >> 20} MiB")
    return " and ".join(words) or None
