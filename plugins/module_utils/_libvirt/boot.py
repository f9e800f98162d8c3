# SPDX-License-Identifier: GPL-3.0-or-later
"""Will it come back? What starts with the host after a reboot, foretold from what is defined and persisted.

libvirt starts networks and pools first and then guests in no order that it promises, so where not all can have what
they want, the verdict is that they contend, with the names; not a guess.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.census import Disk, Guest
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.declared import Network, Pool
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import pf
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.next_boot import NextBoot
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import size

STARTS, FAILS, CONTENDS = "starts", "fails", "contends"


@dataclass(frozen=True)
class Verdict:
    """What becomes of one object. reasons: why it fails, or with whom it contends for what."""

    kind: str
    name: str
    verdict: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What is looked up while foretelling: path of a volume (None: not there), whether a volume group is there."""

    volume: Callable[[str, str], str | None]
    group: Callable[[str], bool]


def foretell(boot: NextBoot, asked: Asked, networks: list[Network], pools: list[Pool], guests: list[Guest]) -> list[Verdict]:
    """Return what becomes of everything that is to start with the host, in the order in which libvirt starts it."""
    if boot.daemon is None:
        why = ("neither libvirtd.service nor virtqemud.service starts with the host",)
        things = [("network", n) for n in networks] + [("pool", p) for p in pools] + [("guest", g) for g in guests]
        return [Verdict(kind, one.name, FAILS, why) for kind, one in things if one.autostart]
    of_networks = _networks(boot, [network for network in networks if network.autostart])
    of_pools = [_verdict("pool", pool.name, _pool(boot, asked, pool)) for pool in pools if pool.autostart]
    up = {v.name for v in of_networks if v.verdict == STARTS}
    maybe = {v.name for v in of_networks if v.verdict == CONTENDS}
    filled = {pool.name: pool for pool, v in zip([p for p in pools if p.autostart], of_pools) if v.verdict == STARTS}
    starting = [guest for guest in guests if guest.autostart]
    alone = {guest.name: _guest(boot, asked, guest, up | maybe, filled) for guest in starting}
    able = [guest for guest in starting if not alone[guest.name]]
    rivals = _contended(boot, able)
    of_guests = []
    for guest in starting:
        unsure = [f"network {n} may not start" for n in guest.networks if n in maybe] + rivals.get(guest.name, [])
        verdict = FAILS if alone[guest.name] else CONTENDS if unsure else STARTS
        of_guests.append(Verdict("guest", guest.name, verdict, tuple(alone[guest.name] or unsure)))
    return [*of_networks, *of_pools, *of_guests]


def _verdict(kind: str, name: str, reasons: Iterable[str]) -> Verdict:
    reasons = tuple(reasons)
    return Verdict(kind, name, FAILS if reasons else STARTS, reasons)


def _networks(boot: NextBoot, networks: list[Network]) -> list[Verdict]:
    found = []
    for one in networks:
        reasons = _network(boot, one)
        rivals = [other.name for other in networks if other is not one and set(_subnets(one)) & set(_subnets(other))]
        if rivals and not reasons:
            found.append(Verdict("network", one.name, CONTENDS, (f"its subnet is that of {', '.join(rivals)} too",)))
        else:
            found.append(_verdict("network", one.name, reasons))
    return found


def _subnets(network: Network) -> list[str]:
    return [str(ipaddress.ip_interface(subnet).network) for subnet in network.subnets]


def _network(boot: NextBoot, network: Network) -> list[str]:
    """Return why a network does not start."""
    if network.pf:
        address = next((one for one, name in pf.physical_functions(boot.root).items() if name == network.pf), None)
        if address is None:
            return [f"{network.pf} is no physical function of this host"]
        return [] if boot.vfs.get(address) else [f"{network.pf} has no virtual functions at boot"]
    return []


def _pool(boot: NextBoot, asked: Asked, pool: Pool) -> list[str]:
    """Return why a pool does not start."""
    if pool.type == "logical":
        missing = [device for device in pool.devices if device and boot.why_no_path(device)]
        if asked.group(pool.group) and not missing:
            return []
        return [f"there is no volume group {pool.group}{f' on {missing[0]}' if missing else ''}"]
    if pool.type in ("fs", "disk"):
        return [why for device in pool.devices for why in [boot.why_no_path(device)] if why]
    if pool.type == "dir":
        why = boot.why_no_path(pool.path)
        return [why] if why else []
    return []  # what is elsewhere (NFS, iSCSI, RBD) cannot be told from here


def _guest(boot: NextBoot, asked: Asked, guest: Guest, networks: set[str], pools: dict[str, Pool]) -> list[str]:
    """Return why a guest does not start even with the host for itself."""
    reasons = [f"network {name} does not start with the host" for name in guest.networks if name not in networks]
    reasons += [why for disk in guest.disks for why in [_disk(boot, asked, disk, pools)] if why]
    reasons += [why for path in guest.files for why in [boot.why_no_path(path)] if why]
    reasons += [why for address in guest.devices for why in [boot.why_no_device(address)] if why]
    nodes = set(boot.host.nodes)
    reasons += [f"NUMA node {node} does not exist" for node in sorted(guest.nodes - nodes)]
    if guest.cpus and not guest.cpus & boot.host.cpus:
        reasons.append(f"it is pinned to CPU {min(guest.cpus)}, which does not exist")
    if guest.pages and not boot.mounts_pages(guest.pages):
        reasons.append(f"huge pages of {size(guest.pages)} are mounted nowhere at boot")
    if guest.pages:
        asked_pages, has = pages_of(guest), _pages(boot, guest.pages, guest.nodes & nodes or nodes)
        if asked_pages > has:
            where = f"on node {min(guest.nodes)}" if guest.nodes else "in all"
            reasons.append(f"it needs {asked_pages} huge pages of {size(guest.pages)}, the boot sets {has} aside {where}")
    elif guest.memory > boot.host.memory + boot.host.swap - boot.host.huge:
        reasons.append(f"it needs {guest.memory >> 20} MiB, more than the host has")
    return reasons


def pages_of(guest: Guest) -> int:
    """Return the number of huge pages that a guest takes."""
    return -(-guest.memory // (guest.pages * 1024))


def _pages(boot: NextBoot, kib: int, nodes: set[int] | frozenset[int]) -> int:
    return sum(boot.pages.get((kib, node), 0) for node in nodes)


def _disk(boot: NextBoot, asked: Asked, disk: Disk, pools: dict[str, Pool]) -> str | None:
    if disk.optional:
        return None
    if disk.path:
        why = boot.why_no_path(disk.path)
        return f"disk {disk.target}: {why}" if why else None
    if disk.pool not in pools:
        return f"disk {disk.target}: pool {disk.pool} does not start with the host"
    path = asked.volume(disk.pool, disk.volume)
    if path is None and pools[disk.pool].active:
        return f"disk {disk.target}: pool {disk.pool} has no volume {disk.volume}"
    if path is None and pools[disk.pool].path:
        path = f"{pools[disk.pool].path}/{disk.volume}"
    why = boot.why_no_path(path) if path else None
    return f"disk {disk.target}: {why}" if why else None


def _contended(boot: NextBoot, guests: list[Guest]) -> dict[str, list[str]]:
    """Return what guests that could start alone contend for with others."""
    found: dict[str, list[str]] = {}

    def tell(rivals: list[Guest], what: str) -> None:
        for one in rivals:
            others = ", ".join(other.name for other in rivals if other is not one)
            found.setdefault(one.name, []).append(f"{what} is not enough for {others} too")

    for device in sorted({device for guest in guests for device in guest.devices}):
        users = [guest for guest in guests if device in guest.devices]
        if len(users) > 1:
            tell(users, f"PCI device {device}")
    everywhere = set(boot.host.nodes)
    for kib in sorted({guest.pages for guest in guests if guest.pages}):
        users = [guest for guest in guests if guest.pages == kib]
        for node in sorted(everywhere):
            bound = [guest for guest in users if guest.nodes == {node}]
            if sum(map(pages_of, bound)) > _pages(boot, kib, {node}):
                tell(bound, f"the {_pages(boot, kib, {node})} huge pages of {size(kib)} on node {node}")
        if sum(map(pages_of, users)) > _pages(boot, kib, everywhere):
            tell(users, f"the {_pages(boot, kib, everywhere)} huge pages of {size(kib)}")
    heavy = [guest for guest in guests if guest.fixed and not guest.pages]
    room = boot.host.memory - sum(count * kib * 1024 for (kib, _node), count in boot.pages.items())
    if sum(guest.memory for guest in heavy) > room:
        tell(heavy, f"memory of {room >> 20} MiB")
    return found
