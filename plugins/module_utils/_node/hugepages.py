# SPDX-License-Identifier: GPL-3.0-or-later
"""Huge pages of each NUMA node: /sys/devices/system/node/node*/hugepages (kernel: admin-guide/mm/hugetlbpage.rst)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import SIZE, Size
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import _sysctl, cmdline, hugepages_boot, rivals
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import (
    LIVE,
    UNITS,
    Part,
    file_part,
    persisted_changes,
    together,
    unit_part,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import NODES, meminfo
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

PERSISTED = "/etc/anfitrion.d/hugepages.conf"
UNIT = "anfitrion-hugepages.service"
GIGANTIC = 1 << 20  # KiB: such a piece of memory is only sure to be whole when the kernel starts
TRIES = 3  # after compacting, a second attempt often finds what the first did not
# Written per node: vm.nr_hugepages would spread the total over all nodes. After systemd-sysctl, which could do that.
UNIT_TEXT = rf"""{HEADER}[Unit]
Description=Set huge pages aside on each NUMA node
DefaultDependencies=no
RequiresMountsFor=/etc/anfitrion.d
After=systemd-modules-load.service systemd-sysctl.service systemd-remount-fs.service
Before=sysinit.target
ConditionPathExists={PERSISTED}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'rc=0; while read -r kib node count; do \
  case "$$kib" in [0-9]*) ;; *) continue ;; esac; \
  file=/sys/devices/system/node/node$$node/hugepages/hugepages-$${{kib}}kB/nr_hugepages; \
  echo "$$count" > "$$file"; read -r got < "$$file"; \
  [ "$$got" -ge "$$count" ] || {{ echo "node $$node: asked $$count pages of $$kib KiB, got $$got" >&2; rc=1; }}; \
  done < {PERSISTED}; exit $$rc'

[Install]
WantedBy=sysinit.target
"""


@dataclass(frozen=True)
class Pool:
    """Pages of one size on one node. lasting: without the surplus that goes when guests let go of it."""

    count: int
    surplus: int = 0

    @property
    def lasting(self) -> int:
        return self.count - self.surplus


@dataclass(frozen=True)
class Snapshot:
    """Pools by (KiB, node), and the memory in bytes that each node could still give."""

    pools: dict[tuple[int, int], Pool]
    spare: dict[int, int]


def observe(root: Root) -> Snapshot:
    """Return what each node has. Raises KvmError on a kernel without NUMA nodes or huge pages."""
    pools: dict[tuple[int, int], Pool] = {}
    spare: dict[int, int] = {}
    for name in root.list(NODES):
        if not re.fullmatch(r"node\d+", name):
            continue
        node = int(name[4:])
        spare[node] = _spare(meminfo(root.read(f"{NODES}/{name}/meminfo")))
        for size in root.list(f"{NODES}/{name}/hugepages"):
            directory = f"{NODES}/{name}/hugepages/{size}"
            count, surplus = root.number(f"{directory}/nr_hugepages"), root.number(f"{directory}/surplus_hugepages")
            pools[int(re.sub(r"\D", "", size)), node] = Pool(count or 0, surplus or 0)
    if not pools:
        raise KvmError(f"hugepages: this kernel has no {NODES}/node*/hugepages")
    return Snapshot(pools, spare)


def _spare(memory: dict[str, int]) -> int:
    """Return the bytes that a node can give: free and file pages, less 5 % of the node for the host itself."""
    free = sum(memory.get(name, 0) for name in ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable"))
    return max(0, free - memory.get("MemTotal", 0) // 20)


def wanted_pools(wanted: list[dict[str, Any]], snapshot: Snapshot) -> dict[tuple[int, int], int]:
    """Return the wanted count by (KiB, node); of an absent size, zero on every node. Raises KvmError for unknown ones."""
    pools: dict[tuple[int, int], int] = {}
    sizes = sorted({kib for kib, _node in snapshot.pools})
    for item in wanted:
        kib = SIZE.bytes(item["size"]) // 1024
        option = f"hugepages[{item['size']}]"
        if kib not in sizes:
            has = ", ".join(Size.words(size * 1024) for size in sizes)
            raise KvmError(f"{option}: this host has no pages of that size; it has {has}")
        gone = item.get("state") == "absent"
        if gone:
            pools.update({place: 0 for place in snapshot.pools if place[0] == kib})
        for entry in [] if gone else item.get("nodes") or []:
            node = entry["node"]
            if (kib, node) not in snapshot.pools:
                nodes = ", ".join(str(number) for number in sorted(snapshot.spare))
                raise KvmError(f"{option}.nodes[{node}]: this host has no such NUMA node; it has {nodes}")
            if entry.get("count") is None and entry.get("state") != "absent":
                raise KvmError(f"{option}.nodes[{node}]: count must be given")
            pools[kib, node] = 0 if entry.get("state") == "absent" else entry["count"]
    return pools


def require_memory(pools: dict[tuple[int, int], int], snapshot: Snapshot) -> None:
    """Raise KvmError for a node that has not the memory for its pages."""
    for node, spare in snapshot.spare.items():
        more = sum((count - snapshot.pools[kib, at].lasting) * kib * 1024 for (kib, at), count in pools.items() if at == node)
        if more > spare:
            sizes = ", ".join(f"hugepages[{name(kib)}].nodes[{at}]" for kib, at in pools if at == node)
            raise KvmError(
                f"{sizes}: needs {more >> 20} MiB more on node {node}, which has {spare >> 20} MiB to give; ask for fewer pages, or stop guests"
            )


def name(kib: int) -> str:
    return Size.words(kib * 1024)


def part(root: Root, wanted: list[dict[str, Any]]) -> Part:
    """Return what it takes that each node has its pages, now and after a reboot, but for the kernel's command line."""
    snapshot = observe(root)
    pools = wanted_pools(wanted, snapshot)
    _refuse_foreign(root)
    sizes = at_boot(wanted)
    early = {place: count for place, count in pools.items() if place[0] in sizes}
    held = cmdline.held(root, boot_claims(root, wanted))
    late = {p for p, count in early.items() if count > snapshot.pools[p].lasting}
    now = {place: count for place, count in pools.items() if place not in late}
    reasons = tuple(f"{option(p)}: the running kernel has {snapshot.pools[p].lasting}, the next boot sets {early[p]} aside" for p in sorted(late))
    tries = () if held else tuple(_try_step(root, place, early[place], snapshot.pools[place].lasting) for place in sorted(late))
    default = meminfo(root.read("/proc/meminfo")).get("Hugepagesize", 2 << 20) >> 10
    mounts = [
        hugepages_boot.mount_part(root, kib, any(count for place, count in pools.items() if place[0] == kib))
        for kib in sorted({place[0] for place in pools} - {default})
    ]
    kept = _persist(root, {place: 0 if place in early else count for place, count in pools.items()})
    lasting = Part((), tries, tuple(option(p) for p in sorted(late)), reboot_reasons=reasons)
    return together(_running(root, now, snapshot), kept, lasting, *mounts)


def _running(root: Root, pools: dict[tuple[int, int], int], snapshot: Snapshot) -> Part:
    """Return what it takes that the running kernel has these pages."""
    different = {place: count for place, count in pools.items() if snapshot.pools[place].lasting != count}
    if any(count > snapshot.pools[place].lasting for place, count in different.items()):
        require_memory(pools, snapshot)
    # what is given back first may be what another node or size then gets
    order = sorted(different, key=lambda place: (different[place] > snapshot.pools[place].lasting, place))
    steps = tuple(_step(root, place, different[place], snapshot.pools[place].lasting) for place in order)
    changes = tuple(Change(option(place), snapshot.pools[place].lasting, different[place], LIVE) for place in order)
    pending = tuple(option(place) for place in pools if _surplus_after(snapshot.pools[place], pools[place]))
    return Part(changes, steps, pending)


def at_boot(wanted: list[dict[str, Any]]) -> set[int]:
    """Return the sizes (KiB) that the kernel sets aside when it starts: those told so, else those of 1 GiB and more."""
    sizes = {SIZE.bytes(item["size"]) // 1024: item.get("at") for item in wanted}
    return {kib for kib, at in sizes.items() if at == "boot" or (at is None and kib >= GIGANTIC)}


def boot_claims(root: Root, wanted: list[dict[str, Any]]) -> list[cmdline.Claim]:
    """Return what the kernel's command line is to have; nothing where no size is set aside at boot."""
    sizes = at_boot(wanted)
    pools = {place: count for place, count in wanted_pools(wanted, observe(root)).items() if place[0] in sizes} if sizes else {}
    return [hugepages_boot.claim(root, pools)] if pools else []


def give_back(root: Root, found: dict[str, Any]) -> Part:
    """Return what it takes that each node has the pages that it was found with, and the next boot asks for none of ours."""
    snapshot = observe(root)
    pools = {place: found[told] for place in snapshot.pools for told in [option(place)[len("hugepages") :]] if told in found}
    kept = persisted(root.text(PERSISTED))
    units = [name for name in root.list(UNITS) if re.fullmatch(r"dev-hugepages\d+[KMG]\.mount", name)]
    ours = [name for name in units if (root.text(f"{UNITS}/{name}") or "").startswith(HEADER)]
    mounts = [hugepages_boot.mount_part(root, hugepages_boot.kibibytes(name[13:-6]), False) for name in ours]
    return together(_running(root, pools, snapshot), _persist(root, dict.fromkeys(kept, 0)), *mounts)


def option(place: tuple[int, int]) -> str:
    return f"hugepages[{name(place[0])}].nodes[{place[1]}].count"


def _surplus_after(pool: Pool, count: int) -> bool:
    """Tell whether pages stay until guests let go of them: those that are surplus now."""
    return pool.surplus > 0 and pool.lasting == count


def _refuse_foreign(root: Root) -> None:
    for parameter in ("vm.nr_hugepages", "vm.nr_hugepages_mempolicy"):
        tuned = [rivals.tuned_settings(root)["sysctl", parameter]] if ("sysctl", parameter) in rivals.tuned_settings(root) else []
        for path, value in [*_sysctl.setters(root, parameter), *tuned]:
            raise KvmError(f"hugepages: {path} sets {parameter}={value}, which spreads the pages over all nodes at boot; remove that line")


def _file(place: tuple[int, int]) -> str:
    return f"{NODES}/node{place[1]}/hugepages/hugepages-{place[0]}kB"


def _step(root: Root, place: tuple[int, int], count: int, before: int) -> Step:
    sentence = f"set {count} pages of {name(place[0])} aside on node {place[1]}"
    return Step(sentence, partial(_set, root, place, count, before), partial(_set, root, place, before, None))


def _try_step(root: Root, place: tuple[int, int], count: int, before: int) -> Step:
    """Return the step that asks for pages which the running kernel may not have any more; else the next boot has them."""

    def ask() -> None:
        root.write("/proc/sys/vm/compact_memory", "1")
        root.write(f"{_file(place)}/nr_hugepages", str(count))
        if root.number(f"{_file(place)}/nr_hugepages") != count:
            root.write(f"{_file(place)}/nr_hugepages", str(before))

    return Step(f"set {count} pages of {name(place[0])} aside on node {place[1]} now if it has them", ask, partial(_set, root, place, before, None))


def _set(root: Root, place: tuple[int, int], count: int, before: int | None) -> None:
    """Write a count and read it back. The kernel gives what it can without a word: fewer is restored and told."""
    file = f"{_file(place)}/nr_hugepages"
    got = 0
    for attempt in range(TRIES):
        if (attempt or (before is not None and count > before)) and root.exists("/proc/sys/vm/compact_memory"):
            root.write("/proc/sys/vm/compact_memory", "1")
        root.write(file, str(count))
        got = (root.number(file) or 0) - (root.number(f"{_file(place)}/surplus_hugepages") or 0)
        if got == count:
            return
    if before is not None:
        root.write(file, str(before))
        raise KvmError(
            f"{option(place)}: asked {count}, the kernel gave {got} (free memory is in pieces); set back to {before}; "
            f"reboot, so that {UNIT} asks early, or ask for fewer"
        )
    raise KvmError(f"{option(place)}: asked {count}, the kernel gave {got}")


def persisted(text: str | None) -> dict[tuple[int, int], int]:
    """Return the counts that the next boot asks for."""
    found = re.findall(r"^(\d+) (\d+) (\d+)$", text or "", re.MULTILINE)
    return {(int(kib), int(node)): int(count) for kib, node, count in found}


def _persist(root: Root, pools: dict[tuple[int, int], int]) -> Part:
    text = root.text(PERSISTED)
    before = persisted(text)
    after = {place: count for place, count in {**before, **pools}.items() if count}
    lines = [f"{kib} {node} {count}\n" for (kib, node), count in sorted(after.items())]
    told = persisted_changes("", _shown(before), _shown(after))
    file = file_part(root, PERSISTED, f"{HEADER}# KiB node count\n{''.join(lines)}" if after else None, told)
    unit = unit_part(root, UNIT, UNIT_TEXT if after else None, ("sysinit.target",))
    return Part((*file.changes, *unit.changes), (*file.steps, *unit.steps))


def _shown(pools: dict[tuple[int, int], int]) -> dict[str, str]:
    return {option(place): str(count) for place, count in pools.items()}


def read(root: Root) -> list[dict[str, Any]]:
    """Return the sizes of which some node has pages, as the module takes them."""
    try:
        pools = observe(root).pools
    except KvmError:
        return []
    return [
        {
            "size": name(size),
            "nodes": [{"node": node, "count": pools[kib, node].lasting} for kib, node in sorted(pools) if kib == size],
        }
        for size in sorted({kib for (kib, _node), pool in pools.items() if pool.lasting})
    ]
