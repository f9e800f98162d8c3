# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's memory and KVM settings as one object: the Kind of kvm_tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Callable, Optional

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import (
    _sysctl,
    bootloader,
    bridge_filter,
    cmdline,
    found,
    hugepages,
    hugepages_boot,
    isolation,
    kernel_modules,
    ksm,
    nested,
    rivals,
    tuned,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import (
    LIVE,
    Part,
    Write,
    chosen,
    file_part,
    joined,
    persisted_changes,
    tmpfiles_text,
    tmpfiles_values,
    together,
    write_step,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.host_tuning import HOST_TUNING, VM

TRANSPARENT = "/sys/kernel/mm/transparent_hugepage"
TRANSPARENT_PERSISTED = "/etc/tmpfiles.d/50-anfitrion-thp.conf"
BALANCING = "/proc/sys/kernel/numa_balancing"


def open_root(_params: Mapping[str, Any], check: bool) -> Root:
    """Return the host itself."""
    return Root(check=check)


def plan(root: Root, wanted: dict[str, Any]) -> Plan:
    """Return what it takes that the host is as wanted; writes nothing."""
    gone = list(wanted.get("unset", []))
    for knob in gone:
        if knob in wanted:
            raise KvmError(f"unset: {knob} is both given and to be given back")
    # tuned first, it sets what others then set over it; KSM before huge pages, which would take the memory that separated pages need
    parts = [give_back(root, found.of(root, knob)) for knob, (_set, give_back) in KNOBS.items() if knob in gone and give_back]
    parts += [make(root, wanted[knob]) for knob, (make, _give_back) in KNOBS.items() if knob in wanted]
    parts.append(cmdline.part(root, _claims(root, wanted, gone)))
    told = joined("tuning", parts)
    return replace(told, steps=(*found.record(root, told.changes, gone), *told.steps))


def _claims(root: Root, wanted: dict[str, Any], gone: list[str]) -> list[cmdline.Claim]:
    """Return everything that the command line is to have for this task."""
    claims = [cmdline.claim_of(argument) for argument in wanted.get("kernel_arguments", [])]
    claims += isolation.claims(root, wanted["cpu_isolation"]) if "cpu_isolation" in wanted else []
    claims += hugepages.boot_claims(root, wanted["hugepages"]) if "hugepages" in wanted else []
    ours = [bootloader.name_of(word) for word in cmdline.owned(root)]
    if "kernel_arguments" in gone:
        names = [name for name in dict.fromkeys(ours) if name not in (*isolation.NAMES, *hugepages_boot.NAMES)]
        claims += [cmdline.Claim(f"kernel_arguments[{name}]", (name,), ()) for name in names]
    claims += isolation.nothing() if "cpu_isolation" in gone and set(ours) & set(isolation.NAMES) else []
    if "hugepages" in gone and set(ours) & set(hugepages_boot.NAMES):
        claims.append(cmdline.Claim("hugepages", hugepages_boot.NAMES, ()))
    stated: dict[str, str] = {}
    for claim in claims:
        for name in map(bootloader.name_of, claim.names):
            if name in stated:
                raise KvmError(f"{claim.option}: {stated[name]} sets {name} too; give it once")
            stated[name] = claim.option
    return claims


def numa_balancing(root: Root, value: int) -> Part:
    """Return what it takes that automatic NUMA balancing has this value; nothing on a kernel without it."""
    if not root.exists(BALANCING):
        return Part(warnings=(f"numa_balancing: this kernel has no {BALANCING}; nothing to set",))
    part = _sysctl.part(root, "numa_balancing", "kernel.numa_balancing", str(value))
    nodes = [name for name in root.list("/sys/devices/system/node") if name[4:].isdigit()]
    if len(nodes) < 2:
        return Part(part.changes, part.steps, warnings=("numa_balancing: has no effect on a host with one NUMA node",))
    return part


def transparent(root: Root, wanted: dict[str, str]) -> Part:
    """Return what it takes that transparent huge pages are as wanted, now and after a reboot."""
    changes, steps = [], []
    for name, value in wanted.items():
        path = f"{TRANSPARENT}/{name}"
        text = root.read(path)
        if text is None:
            raise KvmError(f"transparent_hugepages.{name}: this kernel has no {path}; leave the option out")
        if value not in text.replace("[", "").replace("]", "").split():
            raise KvmError(f"transparent_hugepages.{name}: this kernel takes {text}, not {value}")
        if chosen(text) != value:
            changes.append(Change(f"transparent_hugepages.{name}", chosen(text), value, LIVE))
            steps.append(write_step(root, Write(path, value, chosen(text))))
        rivals.refuse_tmpfiles(root, f"transparent_hugepages.{name}", path, value, TRANSPARENT_PERSISTED)
    rivals.refuse_tuned(root, "transparent_hugepages.enabled", "vm", "transparent_hugepages", wanted.get("enabled", ""))
    before = tmpfiles_values(TRANSPARENT, root.text(TRANSPARENT_PERSISTED))
    after = dict(sorted({**before, **wanted}.items()))
    return together(Part(tuple(changes), tuple(steps)), _keep_transparent(root, before, after))


def _keep_transparent(root: Root, before: dict[str, str], after: dict[str, str]) -> Part:
    told = persisted_changes("transparent_hugepages.", before, after)
    return file_part(root, TRANSPARENT_PERSISTED, tmpfiles_text(TRANSPARENT, after) if after else None, told)


def give_back_transparent(root: Root, before_us: dict[str, Any]) -> Part:
    """Return what it takes that transparent huge pages are as they were found."""
    now = {name: chosen(root.read(f"{TRANSPARENT}/{name}") or "") for name in before_us}
    late = {name: value for name, value in before_us.items() if now[name] != value}
    changes = tuple(Change(f"transparent_hugepages.{name}", now[name], value, LIVE) for name, value in late.items())
    steps = tuple(write_step(root, Write(f"{TRANSPARENT}/{name}", value, now[name])) for name, value in late.items())
    return together(Part(changes, steps), _keep_transparent(root, tmpfiles_values(TRANSPARENT, root.text(TRANSPARENT_PERSISTED)), {}))


def read(root: Root, _name: str | None) -> list[dict[str, Any]]:
    """Return what runs, as the module takes it."""
    thp = {name: root.read(f"{TRANSPARENT}/{name}") for name in ("enabled", "defrag")}
    vm = {name: root.number(f"/proc/sys/{row.replace('.', '/')}") for name, row in VM_ROWS.items()}
    has: dict[str, Any] = {
        "ksm": ksm.read(root),
        "hugepages": hugepages.read(root),
        "numa_balancing": root.number(BALANCING),
        "transparent_hugepages": {name: chosen(text) for name, text in thp.items() if text} or None,
        "vm": {name: value for name, value in vm.items() if value is not None} or None,
        "nested": nested.read(root),
        "kernel_modules": kernel_modules.read_persisted(root) or None,
        "bridge_filter": bridge_filter.read(root),
        "tuned": tuned.read(root),
        "cpu_isolation": isolation.read(root),
    }
    return [{name: value for name, value in has.items() if value is not None}]


def facts(root: Root) -> dict[str, Any]:
    """Return what the info module tells beside the options: the command line, now and at the next boot, and what we found."""
    return {"kernel_command_line": cmdline.read(root), "found": found.values(root)}


VM_ROWS = {row.name: f"vm.{row.name}" for row in VM.rows}
Make = Callable[[Root, Any], Part]


def _nothing(_root: Root, _wanted: Any) -> Part:
    """The knob is wholly on the command line."""
    return Part()


# Each knob: what sets it, and what gives it back; in the order in which they are set.
KNOBS: dict[str, tuple[Make, Optional[Make]]] = {
    "tuned": (tuned.part, lambda root, had: tuned.part(root, had[""]) if had else Part()),
    "ksm": (ksm.part, ksm.give_back),
    "hugepages": (hugepages.part, hugepages.give_back),
    "numa_balancing": (
        numa_balancing,
        lambda root, had: _sysctl.give_back(root, {"numa_balancing": "kernel.numa_balancing"}, {"numa_balancing": had[""]} if had else {}),
    ),
    "transparent_hugepages": (transparent, give_back_transparent),
    "vm": (
        lambda root, wanted: _sysctl.several(root, "vm", VM_ROWS, wanted),
        lambda root, had: _sysctl.give_back(root, {f"vm.{k}": v for k, v in VM_ROWS.items()}, {f"vm.{k}": v for k, v in had.items()}),
    ),
    # What nested writes for the module is there before that is loaded.
    "nested": (nested.part, nested.give_back),
    "kernel_modules": (kernel_modules.part, kernel_modules.give_back),
    "bridge_filter": (bridge_filter.part, bridge_filter.give_back),
    "cpu_isolation": (_nothing, None),
    "kernel_arguments": (_nothing, None),
}

TUNING = Kind(table=HOST_TUNING, plural=None, key=(), open=open_root, plan=plan, read=read, facts=facts, tells_state=True)
