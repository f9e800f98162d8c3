# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host itself does with its devices: mounted disks, routes, the way that Ansible comes. Reads only."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterator
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import pci
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

Known = dict[str, "list[str]"]  # interface -> its addresses
DEFAULT_V6 = "0" * 32 + " 00 "


def host_needs(root: Root, address: str) -> list[str]:
    """Return why the host cannot do without a PCI device: disks in use, the way to Ansible, the default route, the screen."""
    reasons = [f"{disk} is {use}" for disk in _disks(root, address) for use in block_uses(root, disk)]
    known = addresses(root)
    for name in pci.interfaces(root, address):
        reasons += vital(root, name, known)
        reasons += [f"{name} {use}" for use in interface_uses(root, name, known)]
    if root.number(pci.path(address, "sriov_numvfs")):
        reasons.append(f"it has {root.number(pci.path(address, 'sriov_numvfs'))} VFs (vfs.count: 0 removes them)")
    return reasons


def is_screen(root: Root, address: str) -> bool:
    """Tell whether the host booted with this device as its screen."""
    return root.read(pci.path(address, "boot_vga")) == "1"


def vital(root: Root, name: str, known: Known) -> list[str]:
    """Return why an interface, or what lies on top of it (bridge, bond, VLAN), must stay."""
    reasons = []
    routes, ours = _default_routes(root), _ansible_addresses(root)
    for one in _stack(root, name):
        through = name if one == name else f"{name} (under {one})"
        if one in routes:
            reasons.append(f"{through} has the default route")
        if ours & set(known.get(one, [])):
            reasons.append(f"{through} carries the Ansible connection")
    return reasons


def _stack(root: Root, name: str) -> list[str]:
    """Return an interface and all that lie on top of it."""
    found, waiting = [], [name]
    while waiting:
        one = waiting.pop(0)
        if one not in found:
            found.append(one)
            waiting += [entry[6:] for entry in root.list(f"/sys/class/net/{one}") if entry.startswith("upper_")]
    return found


def addresses(root: Root) -> Known:
    """Return the IP addresses of each interface, without those that every interface has (link-local)."""
    done = root.run(["ip", "-j", "address", "show"])
    found: Known = {}
    for link in json.loads(done.out or "[]") if done.rc == 0 else []:
        infos: list[dict[str, Any]] = link.get("addr_info", [])
        found[link.get("ifname", "")] = [info["local"] for info in infos if info.get("scope") == "global"]
    return found


def interface_uses(root: Root, name: str, known: Known) -> list[str]:
    """Return what the host does with an interface: addresses, bridge or bond, macvlan on top."""
    uses = [f"has address {address}" for address in known.get(name, [])]
    for entry in root.list(f"/sys/class/net/{name}"):
        if entry == "master":
            uses.append(f"belongs to {root.link(f'/sys/class/net/{name}/master')}")
        elif entry.startswith("upper_") and root.link(f"/sys/class/net/{name}/master") != entry[6:]:
            uses.append(f"carries {entry[6:]}")
    return uses


def host_uses_vf(root: Root, address: str, known: Known) -> list[str]:
    """Return what the host does with a VF; a network driver without an interface here: another namespace has it."""
    names = pci.interfaces(root, address)
    bound = pci.driver(root, address)
    network = (root.read(pci.path(address, "class")) or "").startswith("0x0200")
    if bound and network and not names and not pci.held_by_vfio(root, address):
        return [f"its interface is in another network namespace (driver {bound})"]
    return [f"{name} {use}" for name in names for use in interface_uses(root, name, known)]


def _disks(root: Root, address: str) -> list[str]:
    """Return the block devices that hang below a PCI device."""
    below = [disk for disk in root.list("/sys/block") if f"/{address}/" in f"{root.target(f'/sys/block/{disk}')}/"]
    return list(dict.fromkeys(head(root, disk) for disk in below))


def head(root: Root, disk: str) -> str:
    """Return the disk itself for a hidden way to it: the kernel has nvme0n1, below no device, and nvme0c1n1 for each controller."""
    way = re.fullmatch(r"(nvme\d+)c\d+(n\d+)", disk)
    return f"{way[1]}{way[2]}" if way and root.number(f"/sys/block/{disk}/hidden") else disk


def block_uses(root: Root, disk: str) -> list[str]:
    """Return what the host does with a block device: a disk with its partitions, or one partition, C(sda1)."""
    whole = root.exists(f"/sys/block/{disk}")
    parts = [name for name in root.list(f"/sys/block/{disk}") if root.exists(f"/sys/block/{disk}/{name}/partition")]
    return [use for one in ([disk, *parts] if whole else [disk]) for use in _uses_of_one(root, one, disk)]


def _uses_of_one(root: Root, name: str, disk: str) -> Iterator[str]:
    """Yield how one block device is used, and those that are made of it (LVM, RAID, encryption), down to the mount."""
    number = root.read(f"/sys/class/block/{name}/dev")
    which = "" if name == disk else f" ({name})"
    for line in (root.read("/proc/self/mountinfo") or "").splitlines():
        words = line.split()
        source = words[words.index("-") + 2] if "-" in words else ""
        if (number and words[2] == number) or source == f"/dev/{name}":
            yield f"mounted on {words[4]}{which}"
    for line in (root.read("/proc/swaps") or "").splitlines()[1:]:
        used = line.split()[0]
        if used == f"/dev/{name}" or root.link(used) == name:
            yield f"used as swap{which}"
    for holder in root.list(f"/sys/class/block/{name}/holders"):
        above = list(_uses_of_one(root, holder, holder))
        label = root.read(f"/sys/class/block/{holder}/dm/name") or holder
        yield f"part of {label}" + (f", {', '.join(above)}" if above else "") + which


def block_name(root: Root, path: str) -> str | None:
    """Return the kernel's name of a block device that is given by any path, None when it is none of this host."""
    name = os.path.basename(root.target(path) or "")
    return name if name and root.exists(f"/sys/class/block/{name}") else None


def _default_routes(root: Root) -> set[str]:
    found = set()
    for line in (root.read("/proc/net/route") or "").splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000":
            found.add(words[0])
    for line in (root.read("/proc/net/ipv6_route") or "").splitlines():
        if line.startswith(DEFAULT_V6) and line.split()[-1] != "lo":
            found.add(line.split()[-1])
    return found


def _ansible_addresses(root: Root) -> set[str]:
    """Return the local addresses of ssh sessions: of ours if it is told, else of every session (sudo hides it)."""
    told = os.environ.get("SSH_CONNECTION", "").split()
    if len(told) == 4:
        return {told[2]}
    found = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (root.read(path) or "").splitlines()[1:]:
            words = line.split()
            local, port = words[1].split(":")
            if words[3] == "01" and port == "0016":
                found.add(_kernel_address(local))
    return found


def _kernel_address(digits: str) -> str:
    """Return an address of /proc/net/tcp{,6}: words of 32 bits, each in the byte order of the machine."""
    raw = b"".join(bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8))
    address = ipaddress.ip_address(raw)
    return str(getattr(address, "ipv4_mapped", None) or address)
