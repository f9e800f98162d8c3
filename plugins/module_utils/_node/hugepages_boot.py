# SPDX-License-Identifier: GPL-3.0-or-later
"""Huge pages that the kernel sets aside when it starts, and the mounts that libvirt finds pages of a size by."""

from __future__ import annotations

import re
from functools import partial

from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import SIZE
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import bootloader
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import UNITS, Part, together, unit_part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, SYSTEMD_RUNNING, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.cmdline import Claim
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Step

NAMES = ("hugepagesz", "hugepages")
DAEMONS = ["libvirtd.service", "virtqemud.service"]
Pools = dict[tuple[int, int], int]  # wanted pages by (KiB, node)


def short(kib: int) -> str:
    """Return a size as the kernel's command line and mount options have it: 1G, 2M."""
    for letter, unit in (("G", 1 << 20), ("M", 1 << 10)):
        if kib % unit == 0:
            return f"{kib // unit}{letter}"
    return f"{kib}K"


def kibibytes(word: str) -> int:
    """Return the size of such a word in KiB; 0 for one that is none."""
    match = re.fullmatch(r"(\d+)([KMG])", word, re.IGNORECASE)
    return int(match[1]) * {"K": 1, "M": 1 << 10, "G": 1 << 20}[match[2].upper()] if match else 0


def pairs(words: tuple[str, ...] | list[str]) -> list[tuple[str, str]]:
    """Return (size, pages) as the kernel reads them: a hugepages= belongs to the hugepagesz= before it ('': default size)."""
    found, size = [], ""
    for word in words:
        name, _equals, value = word.partition("=")
        if name == "hugepagesz":
            size = value
        elif name == "hugepages":
            found.append((size, value))
    return found


def counts(words: tuple[str, ...] | list[str], default_kib: int, nodes: list[int]) -> Pools:
    """Return the pages that a kernel with these words sets aside; a plain number is spread over the nodes."""
    found: Pools = {}
    for size, value in pairs(words):
        kib = kibibytes(size) or default_kib
        if ":" in value:
            found.update({(kib, int(node)): int(count) for node, count in re.findall(r"(\d+):(\d+)", value)})
        elif value.isdigit():
            share, rest = divmod(int(value), len(nodes))
            found.update({(kib, node): share + (place < rest) for place, node in enumerate(nodes)})
    return found


def claim(root: Root, pools: Pools) -> Claim:
    """Return the words for these pages; pairs of other sizes that the next boot has already stay."""
    sizes = {kib for kib, _node in pools}
    loader = bootloader.known(root)
    entries = list(loader.entries(root).values()) if loader else []
    now = [word for word in (entries[0] if entries else []) if bootloader.name_of(word) in NAMES]
    kept = [(size, value) for size, value in pairs(now) if kibibytes(size) not in sizes]
    new = [(short(kib), _per_node(pools, kib)) for kib in sorted(sizes) if _per_node(pools, kib)]
    words = tuple(word for size, value in kept + new for word in ([f"hugepagesz={size}"] if size else []) + [f"hugepages={value}"])
    names = ", ".join(SIZE.words(kib * 1024) for kib in sorted(sizes))
    return Claim(f"hugepages[{names}]", NAMES, words)


def _per_node(pools: Pools, kib: int) -> str:
    return ",".join(f"{node}:{count}" for (size, node), count in sorted(pools.items()) if size == kib and count)


def mounted(root: Root, kib: int) -> list[str]:
    """Return where huge pages of a size are mounted."""
    found = re.findall(r"^\S+ (\S+) hugetlbfs \S*pagesize=(\w+)", root.read("/proc/mounts") or "", re.MULTILINE)
    return [where for where, size in found if kibibytes(size) == kib]


def mount_part(root: Root, kib: int, wanted: bool) -> Part:
    """Return what it takes that pages of a size that is not the default one are mounted, and libvirt knows; or not."""
    where = f"/dev/hugepages{short(kib)}"
    unit = f"dev-hugepages{short(kib)}.mount"
    ours = root.exists(f"{UNITS}/{unit}")
    if ours is wanted or (wanted and mounted(root, kib)):
        return Part()
    text = f"""{HEADER}[Unit]
Description=Huge pages of {SIZE.words(kib * 1024)}
DefaultDependencies=no
Before=local-fs.target
ConditionPathExists=/sys/kernel/mm/hugepages/hugepages-{kib}kB

[Mount]
What=hugetlbfs
Where={where}
Type=hugetlbfs
Options=pagesize={short(kib)}

[Install]
WantedBy=local-fs.target
"""
    start = Step(f"mount {where}", partial(_systemctl, root, ["start", unit]), partial(_systemctl, root, ["stop", unit]))
    stop = Step(f"unmount {where}", start.undo or start.do, start.do)
    # libvirt reads the page sizes of the mounts when it starts (qemu.conf: hugetlbfs_mount)
    tell = Step("have libvirt see the mounts of huge pages", partial(_tell, root), partial(_tell, root))
    file = unit_part(root, unit, text if wanted else None, ("local-fs.target",))
    return together(file, Part(steps=(start, tell))) if wanted else together(Part(steps=(stop,)), file, Part(steps=(tell,)))


def _tell(root: Root) -> None:
    _systemctl(root, ["try-restart", *(unit for unit in DAEMONS if _installed(root, unit))])


def _installed(root: Root, unit: str) -> bool:
    return any(root.exists(f"{place}/{unit}") for place in ("/usr/lib/systemd/system", "/lib/systemd/system"))


def _systemctl(root: Root, words: list[str]) -> None:
    """Ask a running systemd; without one (an image that is being built) there is nothing to ask."""
    if root.exists(SYSTEMD_RUNNING) and len(words) > 1:
        root.must_run(["systemctl", *words])
