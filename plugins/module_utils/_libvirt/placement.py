# SPDX-License-Identifier: GPL-3.0-or-later
"""Which NUMA node a guest belongs on. Pure: a decision with its reason, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.census import Guest
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import Host, size


@dataclass(frozen=True)
class Decision:
    """A node and why; node None: no node will do, and why."""

    node: int | None
    reason: str


def decide(host: Host, guests: list[Guest], one: Guest, device_nodes: Mapping[str, int | None], kept: int | None = None) -> Decision:
    """Return the node for a guest beside the others that are placed already.

    Its PCI devices come first, then an earlier decision that still holds, then the node with the most room for it.
    device_nodes: node of each PCI device, None where the firmware does not tell: that is not node 0.
    """
    near = {node for device in one.devices for node in [device_nodes.get(device)] if node is not None}
    if len(near) > 1:
        return Decision(None, f"its PCI devices are on nodes {', '.join(map(str, sorted(near)))}; no single node is near them all")
    others = [guest for guest in guests if guest.name != one.name]
    fits = {node: why_not(host, others, one, node) for node in sorted(host.nodes)}
    for node in near:
        told = fits.get(node, "this host has no such node")
        if told:
            return Decision(None, f"its PCI devices are on node {node}, which does not fit: {told}")
        return Decision(node, "its PCI devices are there")
    if kept in fits and fits[kept] is None:
        return Decision(kept, "decided earlier, and it still fits")
    able = [node for node, why in fits.items() if why is None]
    if not able:
        return Decision(None, "; ".join(f"node {node}: {why}" for node, why in fits.items()))
    best = max(able, key=lambda node: (_share(host, others, one, node), -node))
    return Decision(best, "the most room is there" if len(able) > 1 else "only this node has the room")


def why_not(host: Host, others: list[Guest], one: Guest, number: int) -> str | None:
    """Return why a guest does not fit a node beside the guests that are bound to it; None if it does."""
    node = host.nodes[number]
    bound = [guest for guest in others if guest.nodes == {number}]
    if one.vcpus > len(node.cpus):
        return f"{one.vcpus} vCPUs, it has {len(node.cpus)} CPUs"
    room = memory_left(host, bound, one, number)
    if one.memory > room:
        kind = f"huge pages of {size(one.pages)}" if one.pages else "memory"
        return f"{one.memory >> 20} MiB of {kind} wanted, {max(0, room) >> 20} MiB are left"
    return None


def memory_left(host: Host, bound: list[Guest], one: Guest, number: int) -> int:
    """Return the bytes of the guest's kind of memory that the guests bound to a node leave."""
    node = host.nodes[number]
    same = [guest for guest in bound if guest.pages == one.pages]
    if one.pages:
        return node.pages.get(one.pages, 0) * one.pages * 1024 - sum(guest.memory for guest in same)
    huge = sum(count * kib * 1024 for kib, count in node.pages.items())
    return node.memory - huge - sum(guest.memory for guest in same)


def _share(host: Host, others: list[Guest], one: Guest, number: int) -> float:
    """Return how much room is left once the guest is there: the scarcer of CPUs and memory, as a share of the node."""
    node = host.nodes[number]
    bound = [guest for guest in others if guest.nodes == {number}]
    cpus = len(node.cpus) - sum(guest.vcpus for guest in bound) - one.vcpus
    whole = node.pages.get(one.pages, 0) * one.pages * 1024 if one.pages else node.memory
    return min(cpus / max(1, len(node.cpus)), (memory_left(host, bound, one, number) - one.memory) / max(1, whole))
