# SPDX-License-Identifier: GPL-3.0-or-later
"""What each guest, network and pool of a host needs, read from their definitions in one pass. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import PCI, Size
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import numbers

PIDS = "/run/libvirt/qemu"
NO_NODES: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Disk:
    """One disk of a guest: a path, or pool and volume. optional: the guest starts without it."""

    target: str
    path: str = ""
    pool: str = ""
    volume: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Guest:
    """What one guest needs. memory in bytes; pages: size in KiB of its huge pages, 0 for none; nodes: those that its
    memory must come from, none: any; cpus: those that its vCPUs are pinned to."""

    name: str
    vcpus: int
    memory: int
    active: bool = False
    autostart: bool = False
    pid: int | None = None
    pages: int = 0
    nodes: frozenset[int] = NO_NODES
    cpus: frozenset[int] = NO_NODES
    locked: bool = False
    preallocated: bool = False
    shares: bool = True
    devices: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    files: tuple[str, ...] = ()
    saved: bool = False

    @property
    def fixed(self) -> bool:
        """Tell whether all of its memory is in use from the start on, and stays where it is."""
        return self.locked or self.preallocated or bool(self.devices)


def guests(session: Libvirt, root: Root) -> list[Guest]:
    """Return every guest that has a definition, or runs without one, in order of their names."""
    return [_guest(root, session.domains()[name]) for name in sorted(session.domains())]


def _guest(root: Root, handle: Any) -> Guest:
    with told("cannot read the guests"):
        persistent, active = bool(handle.isPersistent()), bool(handle.isActive())
        tree = _xml.parse(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE if persistent else 0))
        autostart = persistent and bool(handle.autostart())
        saved = persistent and bool(handle.hasManagedSaveImage(0))
        name = handle.name()
    return guest_of(tree, name, active, autostart, saved, root.number(f"{PIDS}/{name}.pid") if active else None)


def guest_of(tree: Any, name: str, active: bool = False, autostart: bool = False, saved: bool = False, pid: int | None = None) -> Guest:
    """Return what a definition needs."""
    page = _xml.find(tree, "memoryBacking/hugepages")
    sizes = [_bytes(one.get("size"), one.get("unit")) >> 10 for one in _xml.find_all(tree, "memoryBacking/hugepages/page")]
    mode = _text(tree, "numatune/memory/@mode") or "strict"
    nodes = numbers(_text(tree, "numatune/memory/@nodeset")) if mode in ("strict", "restrictive") else set()
    cpus = numbers(_text(tree, "vcpu/@cpuset"))
    for pin in _xml.find_all(tree, "cputune/vcpupin"):
        cpus |= numbers(pin.get("cpuset"))
    nics = _xml.find_all(tree, "devices/interface")
    return Guest(
        name, int(_text(tree, "vcpu") or 1), _memory(tree), active, autostart, pid,
        pages=(sizes[0] if sizes else DEFAULT_PAGE) if page is not None else 0,
        nodes=frozenset(nodes), cpus=frozenset(cpus),
        locked=_xml.find(tree, "memoryBacking/locked") is not None,
        preallocated=_text(tree, "memoryBacking/allocation/@mode") == "immediate",
        shares=_xml.find(tree, "memoryBacking/nosharepages") is None,
        devices=tuple(_devices(tree)),
        networks=tuple(_sources(nics, "network")), bridges=tuple(_sources(nics, "bridge")), links=tuple(_sources(nics, "direct", "dev")),
        disks=tuple(_disks(tree)),
        files=tuple(path for path in (_text(tree, f"os/{tag}") for tag in ("kernel", "initrd", "loader")) if path and path.startswith("/")),
        saved=saved,
    )  # fmt: skip


DEFAULT_PAGE = 2048  # KiB


def _text(tree: Any, path: str) -> str | None:
    return _xml.get(tree, path)[0]


def _bytes(text: str | None, unit: str | None) -> int:
    return Size().bytes(f"{text or 0}{unit or 'KiB'}")


def _memory(tree: Any) -> int:
    found = _xml.find(tree, "memory")
    return _bytes(found.text, found.get("unit")) if found is not None else 0


def _sources(nics: list[Any], kind: str, attribute: str | None = None) -> list[str]:
    found = [_text(nic, f"source/@{attribute or kind}") for nic in nics if nic.get("type") == kind]
    return [name for name in found if name]


def _devices(tree: Any) -> list[str]:
    """Return the PCI devices of the host that a guest is given."""
    holders = [one for one in _xml.find_all(tree, "devices/hostdev") if one.get("type") == "pci"]
    holders += [one for one in _xml.find_all(tree, "devices/interface") if one.get("type") == "hostdev"]
    places = [_xml.find(one, "source/address") for one in holders]
    return [PCI.of_attributes(place.attrib) for place in places if place is not None]


def _disks(tree: Any) -> list[Disk]:
    found = []
    for disk in _xml.find_all(tree, "devices/disk"):
        source = _xml.find(disk, "source")
        if source is None:
            continue
        optional = source.get("startupPolicy") in ("optional", "requisite")
        target = _text(disk, "target/@dev") or "?"
        path = source.get("file") or source.get("dev") or source.get("dir") or ""
        found.append(Disk(target, path, source.get("pool") or "", source.get("volume") or "", optional))
    return [disk for disk in found if disk.path or disk.volume]
