# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds a device: guests and other processes by the files that they have open, and what libvirt knows. Reads only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, Protocol

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import pci
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

Users = Callable[[str], "list[str]"]  # PCI address -> names of guests and processes that hold the device
GUEST = "guest "  # what the name of a user begins with when it is a guest


def vfio_users(root: Root) -> Users:
    """Return the function that names who has a device open, by its IOMMU group or by a file of its own (iommufd).

    The processes are looked at once.
    """
    holders: dict[str, list[str]] = {}

    def look() -> dict[str, list[str]]:
        if not holders:
            holders[""] = []
            for process in root.list("/proc"):
                if process.isdigit():
                    for file in _open_files(root, process):
                        holders.setdefault(file, []).append(_name(root, process))
        return holders

    def users(address: str) -> list[str]:
        if not pci.held_by_vfio(root, address):
            return []
        files = [f"devices/{name}" for name in root.list(pci.path(address, "vfio-dev"))]
        return list(dict.fromkeys(name for file in [pci.group(root, address) or "", *files] for name in look().get(file, [])))

    return users


def _open_files(root: Root, process: str) -> set[str]:
    directory = root.at(f"/proc/{process}/fd")
    found = set()
    try:
        for name in os.listdir(directory):
            target = os.readlink(os.path.join(directory, name))
            match = re.search(r"/dev/vfio/(\d+|devices/vfio\d+)$", target)
            if match:
                found.add(match[1])
    except OSError:
        pass  # the process, or one of its files, is gone
    return found


def _name(root: Root, process: str) -> str:
    guest = re.search(r"(?:^|\x00)guest=([^,\x00]+)", root.text(f"/proc/{process}/cmdline") or "")
    return f"{GUEST}{guest[1]}" if guest else f"process {process} ({root.read(f'/proc/{process}/comm')})"


@dataclass(frozen=True)
class VfNetwork:
    """A libvirt network that hands out the VFs of a PF (forward mode hostdev)."""

    name: str
    pf: str
    active: bool


@dataclass(frozen=True)
class Ledger:
    """Whose the devices of the host are, by PCI address: running guests, and stopped ones whose definition has them.

    unknown: why libvirt could not be asked.
    """

    running: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stopped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    networks: tuple[VfNetwork, ...] = ()
    unknown: str | None = None


@dataclass(frozen=True)
class Drain:
    """What is done before VFs go and after they have come, and what to tell of it."""

    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()


class Guests(Protocol):
    """What libvirt knows of a host's devices, and can do for them."""

    def ledger(self) -> Ledger: ...

    def drain(self, port: Any, count: int, by: str, patience: int) -> Drain:
        """Return how the guests give their VFs of a PF back, and get those that are there again."""

    def restart(self, network: VfNetwork, again: bool) -> Drain:
        """Return how a VF network lets its VFs go, and learns of the new ones."""


class NoGuests:
    """A host without libvirt."""

    def ledger(self) -> Ledger:
        return Ledger()

    def drain(self, port: Any, count: int, by: str, patience: int) -> Drain:  # noqa: ARG002
        return Drain()

    def restart(self, network: VfNetwork, again: bool) -> Drain:  # noqa: ARG002
        return Drain()


def with_ledger(users: Users, ledger: Ledger) -> Users:
    """Return who holds a device, by the files of processes and by what libvirt says of running guests."""
    return lambda address: list(dict.fromkeys([*users(address), *ledger.running.get(address, ())]))
