# SPDX-License-Identifier: GPL-3.0-or-later
"""CPUs that the host keeps away from: isolcpus, nohz_full and rcu_nocbs of the kernel's command line."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import CPUSET
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import rivals
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.cmdline import Claim
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import CPUS, NODES, numbers

NAMES = ("isolcpus", "nohz_full", "rcu_nocbs")


def claims(root: Root, wanted: dict[str, Any]) -> list[Claim]:
    """Return the words of the command line that isolate CPUs; no CPU: that none is isolated.

    Raises KvmError when the host, or one of its NUMA nodes, would be left without a core of its own.
    """
    cpus = wanted["cpus"]
    if not cpus:
        return nothing()
    check(root, numbers(cpus))
    kinds = "managed_irq,domain,"
    words = {"isolcpus": f"isolcpus={kinds}{cpus}", "nohz_full": f"nohz_full={cpus}", "rcu_nocbs": f"rcu_nocbs={cpus}"}
    chosen = ("isolcpus", *(("nohz_full", "rcu_nocbs") if wanted.get("nohz_full") else ()))
    return [Claim(f"cpu_isolation.{name}", (name,), (words[name],) if name in chosen else ()) for name in NAMES]


def nothing() -> list[Claim]:
    return [Claim(f"cpu_isolation.{name}", (name,), ()) for name in NAMES]


def check(root: Root, cpus: set[int]) -> None:
    """Raise KvmError unless every NUMA node keeps a whole core, all its threads, for the host."""
    present = numbers(root.read(f"{CPUS}/present"))
    if cpus - present:
        raise KvmError(f"cpu_isolation.cpus: this host has no CPU {min(cpus - present)}; it has {CPUSET.normal(','.join(map(str, sorted(present))))}")
    if 0 in cpus:
        raise KvmError("cpu_isolation.cpus: CPU 0 starts the host and cannot be isolated")
    for node in sorted(int(name[4:]) for name in root.list(NODES) if re.fullmatch(r"node\d+", name)):
        own = numbers(root.read(f"{NODES}/node{node}/cpulist"))
        cores = {frozenset(numbers(root.read(f"{CPUS}/cpu{cpu}/topology/thread_siblings_list")) or {cpu}) for cpu in own}
        if own and not any(core.isdisjoint(cpus) for core in cores):
            raise KvmError(f"cpu_isolation.cpus: node {node} would keep no core for the host; leave one of {sorted(map(sorted, cores))} out")
    _refuse_tuned(root)


def _refuse_tuned(root: Root) -> None:
    for (section, name), (path, value) in rivals.tuned_settings(root).items():
        if section.startswith("bootloader") and any(word in value for word in NAMES):
            raise KvmError(f"cpu_isolation: the tuned profile {rivals.profile(root)} sets {name} of the boot loader ({path}); choose another profile")


def read(root: Root) -> dict[str, Any] | None:
    """Return the isolated CPUs of the running kernel; None where none is."""
    isolated = root.read(f"{CPUS}/isolated")
    if not isolated:
        return None
    return {"cpus": isolated, "nohz_full": bool(root.read(f"{CPUS}/nohz_full") not in (None, "", "(null)"))}
