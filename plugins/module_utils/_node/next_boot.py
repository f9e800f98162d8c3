# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host will have after its next boot, told from its files: huge pages, virtual functions, paths, services. Reads only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import (
    _sysctl,
    bootloader,
    hugepages,
    hugepages_boot,
    pci,
    pf,
    sriov_boot,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import Host, meminfo

DAEMONS = ("libvirtd.service", "virtqemud.service")
# Emptied when systemd starts, or held in memory (file-hierarchy(7)).
EMPTIED = ("/tmp", "/run", "/var/run", "/dev/shm", "/proc", "/sys")
IN_MEMORY = ("tmpfs", "ramfs", "hugetlbfs", "devtmpfs")
MADE_BY_HAND = re.compile(r"/dev/(loop|nbd|zram|ram)\d")


@dataclass(frozen=True)
class Mount:
    """One mount of now: where, of what type, and whether the next boot makes it too."""

    where: str
    type: str
    lasting: bool


class NextBoot:
    """The next boot of this host."""

    def __init__(self, root: Root, host: Host) -> None:
        self.root = root
        self.host = host

    @cached_property
    def words(self) -> list[str]:
        """The words of the kernel's command line: of the boot loader's first entry, else those of now."""
        loader = bootloader.known(self.root)
        entries = list(loader.entries(self.root).values()) if loader else []
        return entries[0] if entries else bootloader.words(self.root.read("/proc/cmdline") or "")

    @cached_property
    def pages(self) -> dict[tuple[int, int], int]:
        """Huge pages by (KiB, node): first those of the command line, then sysctl.d, then our unit; the later one wins."""
        nodes = sorted(self.host.nodes)
        default = meminfo(self.root.read("/proc/meminfo")).get("Hugepagesize", 2 << 20) >> 10
        found = hugepages_boot.counts(self.words, default, nodes)
        for _path, value in _sysctl.setters(self.root, "vm.nr_hugepages")[-1:]:
            found.update(hugepages_boot.counts([f"hugepages={value}"], default, nodes))
        if self._enabled(hugepages.UNIT):
            found.update(hugepages.persisted(self.root.text(hugepages.PERSISTED)))
        return found

    def _enabled(self, unit: str) -> bool:
        folders = [name for name in self.root.list("/etc/systemd/system") if name.endswith((".wants", ".requires"))]
        return any(self.root.exists(f"/etc/systemd/system/{folder}/{unit}") for folder in folders)

    @cached_property
    def daemon(self) -> str | None:
        """The service that starts guests with the host; a socket alone waits until somebody asks."""
        return next((unit for unit in DAEMONS if self._enabled(unit)), None)

    @cached_property
    def vfs(self) -> Mapping[str, int]:
        """Number of virtual functions by the PCI address of their physical function."""
        found = {}
        kept = sriov_boot.every(self.root)
        for address, name in pf.physical_functions(self.root).items():
            # By its MAC address as at boot; where it has another one now (below a bond), by where it was when its file was written.
            there = [key for key, boot in kept.items() if boot.address == address]
            key = next((key for key in (self._digits(name), *there) if key in kept), None)
            count = kept[key].count if key and self._enabled(sriov_boot.instance(key)) else None
            found[address] = count if count is not None else self._by_link(name)
        return found

    def _digits(self, name: str | None) -> str:
        return (self.root.read(f"/sys/class/net/{name}/address") or "").lower().replace(":", "")

    def _by_link(self, name: str | None) -> int:
        """Return the count that a .link file of systemd gives an interface."""
        for place in ("/etc/systemd/network", "/run/systemd/network", "/usr/lib/systemd/network"):
            for file in self.root.list(place):
                text = self.root.text(f"{place}/{file}") or "" if file.endswith(".link") else ""
                count = re.search(r"^SR-IOVVirtualFunctions=(\d+)", text, re.MULTILINE)
                mac = self.root.read(f"/sys/class/net/{name}/address") or "?"
                if count and (mac.lower() in text.lower() or re.search(rf"^OriginalName={name}$", text, re.MULTILINE)):
                    return int(count[1])
        return 0

    def why_no_device(self, address: str) -> str | None:
        """Return why a PCI device will not be there; None if it will."""
        for place, count in self.vfs.items():
            links = pf.virtual_functions(self.root, place)
            if address in links and links.index(address) >= count:
                return f"virtual function {links.index(address)} of {place} is not made at boot ({count} are)"
            if address in links:
                return None
        if not self.root.exists(pci.path(address)):
            return f"there is no PCI device {address}"
        return None

    @cached_property
    def mounts(self) -> list[Mount]:
        """Mounts of now, the innermost first."""
        kept = {line.split()[1] for line in (self.root.read("/etc/fstab") or "").splitlines() if len(line.split()) > 2 and line.split()[0] != "#"}
        found = []
        for line in (self.root.read("/proc/mounts") or "").splitlines():
            _what, where, kind = line.split()[:3]
            unit = where.strip("/").replace("-", "\\x2d").replace("/", "-") + ".mount"
            found.append(Mount(where, kind, where == "/" or where in kept or self._unit_file(unit)))
        return sorted(found, key=lambda mount: -len(mount.where))

    def mounts_pages(self, kib: int) -> bool:
        """Tell whether huge pages of a size are mounted at boot, so that libvirt offers them."""
        places = hugepages_boot.mounted(self.root, kib)
        lasting = any(mount.where in places and mount.lasting for mount in self.mounts)
        return lasting or self._unit_file(f"dev-hugepages{hugepages_boot.short(kib)}.mount")

    def _unit_file(self, unit: str) -> bool:
        places = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
        return any(self.root.exists(f"{place}/{unit}") for place in places)

    def why_no_path(self, path: str) -> str | None:
        """Return why a path will not be there after a boot; None if it will."""
        if not self.root.exists(path):
            return f"{path} does not exist"
        real = os.path.realpath(self.root.at(path)) if self.root.path == "/" else path
        if MADE_BY_HAND.match(real):
            return f"{path} is a device that somebody made by hand"
        if real.startswith("/dev/"):
            return None
        inside = next((top for top in EMPTIED if real == top or real.startswith(f"{top}/")), None)
        if inside and real != inside:
            return f"{path} is in {inside}, which is emptied at boot"
        mount = next((m for m in self.mounts if real == m.where or real.startswith(m.where.rstrip("/") + "/")), None)
        if mount and (mount.type in IN_MEMORY or not mount.lasting) and real != mount.where:
            what = "is only in memory" if mount.type in IN_MEMORY else "is not mounted at boot"
            return f"{path} is below {mount.where}, which {what}"
        return None
