# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel samepage merging: /sys/kernel/mm/ksm and /etc/tmpfiles.d (kernel: admin-guide/mm/ksm.rst)."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import ksmtuned, rivals
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import (
    LIVE,
    Part,
    Write,
    chosen,
    file_part,
    persisted_changes,
    tmpfiles_text,
    tmpfiles_values,
    together,
    write_step,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import meminfo
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

DIRECTORY = "/sys/kernel/mm/ksm"
PERSISTED = "/etc/tmpfiles.d/50-anfitrion-ksm.conf"
STRUCTURAL = ("merge_across_nodes", "max_page_sharing")  # EBUSY while pages are shared
# The kernel's order: what needs unmerged pages, then who chooses the rate, then the rates; run comes last.
ORDER = (
    *STRUCTURAL, "advisor_mode", "advisor_max_cpu", "advisor_target_scan_time", "advisor_min_pages_to_scan",
    "advisor_max_pages_to_scan", "pages_to_scan", "sleep_millisecs", "use_zero_pages",
    "stable_node_chains_prune_millisecs", "smart_scan",
)  # fmt: skip
KSMTUNED_WRITES = ("enabled", "pages_to_scan", "sleep_millisecs")


@dataclass(frozen=True)
class Snapshot:
    """What the host has. knobs: value by file name; memory in bytes; ksmtuned: is the service there and not masked."""

    knobs: dict[str, str]
    pages_shared: int = 0
    pages_sharing: int = 0
    page_size: int = 4096
    available: int = 0
    swap_total: int = 0
    swap_free: int = 0
    nodes: int = 1
    ksmtuned: bool = False


def observe(root: Root) -> Snapshot:
    """Return what the kernel has now. Raises KvmError on a kernel without KSM."""
    names = root.list(DIRECTORY)
    if "run" not in names:
        raise KvmError(f"ksm: this kernel has no {DIRECTORY}; it was built without CONFIG_KSM")
    memory = meminfo(root.read("/proc/meminfo"))
    return Snapshot(
        knobs={name: chosen(root.read(f"{DIRECTORY}/{name}") or "") for name in ("run", *ORDER) if name in names},
        pages_shared=root.number(f"{DIRECTORY}/pages_shared") or 0,
        pages_sharing=root.number(f"{DIRECTORY}/pages_sharing") or 0,
        page_size=resource.getpagesize(),
        available=memory.get("MemAvailable", 0),
        swap_total=memory.get("SwapTotal", 0),
        swap_free=memory.get("SwapFree", 0),
        nodes=sum(1 for name in root.list("/sys/devices/system/node") if re.fullmatch(r"node\d+", name)) or 1,
        ksmtuned=ksmtuned.may_run(root),
    )


def wanted_knobs(wanted: dict[str, Any]) -> dict[str, str]:
    """Return the stated knobs as the kernel's words, O(enabled) as C(run), in the kernel's order."""
    knobs = {name: _word(wanted[name]) for name in ORDER if name in wanted}
    if "enabled" in wanted:
        knobs["run"] = _word(wanted["enabled"])
    return knobs


def _word(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def check(wanted: dict[str, Any], snapshot: Snapshot) -> None:
    """Raise KvmError for what this kernel cannot do, what excludes each other, and risks that nobody accepted."""
    for name in ORDER:
        if name in wanted and name not in snapshot.knobs:
            raise KvmError(f"ksm.{name}: this kernel has no {DIRECTORY}/{name}; leave the option out")
    if wanted.get("unmerge") and wanted.get("enabled") is not False:
        raise KvmError("ksm.unmerge: needs enabled: false, or the pages would be merged again")
    advisor = wanted.get("advisor_mode", snapshot.knobs.get("advisor_mode", "none"))
    if "pages_to_scan" in wanted and advisor != "none":
        raise KvmError(f"ksm.pages_to_scan: advisor_mode is {advisor}, which chooses it; give advisor_mode: none or leave it out")
    rewritten = [name for name in KSMTUNED_WRITES if name in wanted]
    if rewritten and (snapshot.ksmtuned or wanted.get("ksmtuned") == "running") and wanted.get("ksmtuned") != "masked":
        raise KvmError(f"ksm.{rewritten[0]}: the ksmtuned service rewrites it every minute; give ksmtuned: masked, or leave the option out")
    if wanted.get("ksmtuned") == "running" and advisor != "none":
        raise KvmError(f"ksm.ksmtuned: advisor_mode is {advisor}, and both choose pages_to_scan; give advisor_mode: none")
    risks = harm(wanted, snapshot) if wanted.get("enabled") else []
    if risks and not wanted.get("accept_risk"):
        raise KvmError(f"ksm.enabled: {' and '.join(risks)}; change that, or give accept_risk: true")


def harm(wanted: dict[str, Any], snapshot: Snapshot) -> list[str]:
    """Return why KSM may do harm on this host."""
    across = wanted_knobs(wanted).get("merge_across_nodes", snapshot.knobs.get("merge_across_nodes", "0"))
    risks = []
    if snapshot.nodes > 1 and across == "1":
        risks.append(f"merge_across_nodes is on and the host has {snapshot.nodes} NUMA nodes (merged pages become remote)")
    if not snapshot.swap_total:
        risks.append("the host has no swap (pages that guests write to need memory at once)")
    return risks


def plan_writes(wanted: dict[str, Any], snapshot: Snapshot) -> tuple[Write, ...]:
    """Return the writes that lead from the snapshot to the wanted knobs, in order. Pure.

    Raises KvmError when pages must be unmerged and there is no memory for it.
    """
    knobs = {name: value for name, value in wanted_knobs(wanted).items() if snapshot.knobs.get(name) != value}
    run = snapshot.knobs["run"]
    final = wanted_knobs(wanted).get("run", "1" if run == "1" else "0")
    leftover = bool(wanted.get("unmerge")) and snapshot.pages_shared > 0
    structural = any(name in knobs for name in STRUCTURAL) and (snapshot.pages_shared > 0 or run == "1")
    writes = []
    if leftover or structural:
        _require_memory(snapshot, "unmerge" if leftover else next(name for name in STRUCTURAL if name in knobs))
        writes.append(Write(f"{DIRECTORY}/run", "2", run))
        run = "2"
    writes += [Write(f"{DIRECTORY}/{n}", knobs[n], snapshot.knobs[n]) for n in ORDER if n in knobs]
    if run != final and ("enabled" in wanted or run == "2"):
        writes.append(Write(f"{DIRECTORY}/run", final, run))
    return tuple(writes)


def _require_memory(snapshot: Snapshot, option: str) -> None:
    need = snapshot.pages_sharing * snapshot.page_size * 11 // 10
    free = snapshot.available + snapshot.swap_free
    if need > free:
        raise KvmError(
            f"ksm.{option}: all merged pages must be separated first, which needs {need >> 20} MiB; "
            f"{free >> 20} MiB are free; stop or migrate guests, or add swap"
        )


def part(root: Root, wanted: dict[str, Any]) -> Part:
    """Return what it takes that KSM is as wanted, now and after a reboot."""
    snapshot = observe(root)
    check(wanted, snapshot)
    now = _now(root, wanted, snapshot)
    after = persisted({**tmpfiles_values(DIRECTORY, root.text(PERSISTED)), **wanted_knobs(wanted)})
    if wanted.get("ksmtuned") == "running":
        after = {name: value for name, value in after.items() if name not in ("run", *KSMTUNED_WRITES)}
    for name, value in after.items():
        rivals.refuse_tmpfiles(root, f"ksm.{name}", f"{DIRECTORY}/{name}", value, PERSISTED)
        rivals.refuse_tuned(root, f"ksm.{name}", "sysfs", f"{DIRECTORY}/{name}", value)
    facts = {"ksm_risks": harm(wanted, snapshot)} if wanted.get("enabled") else {}
    return together(ksmtuned.part(root, wanted.get("ksmtuned")), now, _kept(root, after), facts=facts)


def _now(root: Root, wanted: dict[str, Any], snapshot: Snapshot) -> Part:
    """Return what it takes that the running kernel is as wanted."""
    changes = [
        Change(f"ksm.{'enabled' if name == 'run' else name}", snapshot.knobs[name], value, LIVE)
        for name, value in wanted_knobs(wanted).items()
        if snapshot.knobs[name] != value
    ]
    if wanted.get("unmerge") and snapshot.pages_shared:
        changes.append(Change("ksm.unmerge", "pages are merged", "each guest has its own", LIVE))
    return Part(tuple(changes), tuple(_write(root, write) for write in plan_writes(wanted, snapshot)))


def _kept(root: Root, after: dict[str, str]) -> Part:
    """Return what it takes that the next boot writes these values, none of them: has no file of ours."""
    told = persisted_changes("ksm.", tmpfiles_values(DIRECTORY, root.text(PERSISTED)), after)
    return file_part(root, PERSISTED, tmpfiles_text(DIRECTORY, after) if after else None, told)


def give_back(root: Root, found: dict[str, Any]) -> Part:
    """Return what it takes that KSM is as it was found: pages that were merged since are separated."""
    wanted: dict[str, Any] = {name: value for name, value in found.items() if name in ORDER}
    if "enabled" in found:
        wanted.update(enabled=found["enabled"] == "1", unmerge=found["enabled"] != "1")
    owner = ksmtuned.part(root, "running" if found.get("ksmtuned") == "unmasked" else None)
    return together(_now(root, wanted, observe(root)), _kept(root, {}), owner)


def persisted(values: dict[str, str]) -> dict[str, str]:
    """Return the values for the next boot in the kernel's order, without a scan rate that the advisor would refuse."""
    if values.get("advisor_mode", "none") != "none":
        values.pop("pages_to_scan", None)
    return {name: values[name] for name in (*ORDER, "run") if name in values}


def _write(root: Root, write: Write) -> Step:
    """Return the step of one write; separating pages is done only when no page is shared any more."""
    step = write_step(root, write)
    if not (write.path.endswith("/run") and write.value == "2"):
        return step

    def unmerge() -> None:
        step.do()
        shared = root.number(f"{DIRECTORY}/pages_shared")
        if shared:
            raise KvmError(f"ksm: {shared} pages are still shared after run=2")

    return Step("separate all merged pages", unmerge, step.undo)


def read(root: Root) -> dict[str, Any] | None:
    """Return what runs, as the module takes it; None on a kernel without KSM."""
    if not root.exists(f"{DIRECTORY}/run"):
        return None
    snapshot = observe(root)
    bits = ("merge_across_nodes", "use_zero_pages", "smart_scan")
    found: dict[str, Any] = {"enabled": snapshot.knobs["run"] == "1"}
    if found["enabled"]:
        found["accept_risk"] = True
    for name, value in snapshot.knobs.items():
        if name == "run" or (name == "pages_to_scan" and snapshot.knobs.get("advisor_mode", "none") != "none"):
            continue
        found[name] = value == "1" if name in bits else value if name == "advisor_mode" else int(value)
    return found
