# SPDX-License-Identifier: GPL-3.0-or-later
"""The host as facts: what it has, how full it is, what comes back after a reboot, where the memory of guests is."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import boot, capacity, census, declared, findings
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, libvirt
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import nested, pci, pf, process, topology, tuning
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.next_boot import NextBoot
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.limits import LIMITS

SLACK = 64 << 20  # bytes of a bound guest that may be elsewhere: QEMU's own, allocated before its memory is bound


def read(session: Libvirt, _name: str | None) -> list[dict[str, Any]]:
    """Return the facts of this host."""
    root = Root(check=True)
    host = topology.observe(root)
    guests = census.guests(session, root)
    return [{
        "cpus": len(host.cpus),
        "isolated_cpus": sorted(host.isolated),
        "memory": {"total": host.memory, "available": host.available, "swap": host.swap, "hugepages": host.huge, "reserved": capacity.reserved(host)},
        "numa": {str(number): _node(node) for number, node in host.nodes.items()},
        "virtualization": _virtualization(root),
        "limits": _limits(session, root, host),
        "capacity": _capacity(session, root, host, guests),
        "boot": _boot(session, root, host, guests),
        "guests": [_process(root, guest) for guest in guests if guest.pid is not None],
        "tuning": tuning.read(root, None)[0],
        **tuning.facts(root),
    }]  # fmt: skip


def _node(node: topology.Node) -> dict[str, Any]:
    pages = {topology.size(kib): {"total": count, "free": node.free_pages.get(kib, 0)} for kib, count in node.pages.items()}
    distances = {str(number): distance for number, distance in node.distances.items()}
    return {"cpus": sorted(node.cpus), "memory": node.memory, "free": node.free, "hugepages": pages, "distances": distances}


def _virtualization(root: Root) -> dict[str, Any]:
    """Return what the CPU and the firmware offer, by facts and not by the words of the command line."""
    module = nested.module_of(root)
    iommus, groups = root.list("/sys/class/iommu"), root.list("/sys/kernel/iommu_groups")
    missing = [] if module else ["the CPU shows neither vmx nor svm: switch virtualization on"]
    if module and not iommus and root.exists("/sys/firmware/acpi/tables/DMAR") is root.exists("/sys/firmware/acpi/tables/IVRS"):
        missing.append("the firmware describes no IOMMU (neither DMAR nor IVRS): switch VT-d or AMD-Vi on")
    functions = {
        address: {
            "interface": name, "numa_node": _numa_node(root, address), "total_vfs": root.number(pci.path(address, "sriov_totalvfs")),
            "vfs": root.number(pci.path(address, "sriov_numvfs")),
        }
        for address, name in pf.physical_functions(root).items()
    }  # fmt: skip
    return {
        "module": module, "kvm": root.exists("/dev/kvm"), "nested": nested.read(root),
        "iommu": {"active": bool(iommus and groups), "groups": len(groups)}, "lockdown": root.read("/sys/kernel/security/lockdown"),
        "firmware_action_required": missing, "physical_functions": functions,
    }  # fmt: skip


def _numa_node(root: Root, address: str) -> int | None:
    """Return the NUMA node of a device; None where the firmware does not tell (-1), which is not node 0."""
    node = root.number(pci.path(address, "numa_node"))
    return None if node is None or node < 0 else node


def _most_vcpus(session: Libvirt) -> int | None:
    try:
        return int(session.connection.getMaxVcpus("kvm"))
    except libvirt.libvirtError:
        return None


def _limits(session: Libvirt, root: Root, host: topology.Host) -> list[dict[str, Any]]:
    """Return the table of limits with this host's own figures where it was asked."""
    here: dict[str, Callable[[], Any]] = {
        "vcpus_of_a_guest": lambda: _most_vcpus(session), "vcpus_over_cpus": lambda: len(host.cpus),
        "aio_requests": lambda: root.number("/proc/sys/fs/aio-max-nr"),
    }  # fmt: skip
    return [{**asdict(limit), "here": here[limit.name]() if limit.name in here else None} for limit in LIMITS]


def _capacity(session: Libvirt, root: Root, host: topology.Host, guests: list[census.Guest]) -> dict[str, Any]:
    """Return how full the host and each node is: with what runs, and with what starts with the host and runs."""
    now = [guest for guest in guests if guest.active]
    all_of_them = [guest for guest in guests if guest.active or guest.autostart]
    found = findings.findings(host, all_of_them, _most_vcpus(session), root.number("/proc/sys/fs/aio-max-nr"))
    return {
        "running": capacity.report(host, now).told(),
        "with_autostart": capacity.report(host, all_of_them).told(),
        "nodes": {str(number): capacity.node_report(host, number, all_of_them).told() for number in host.nodes},
        "verdict": "fail" if any(one.verdict == "fail" for one in found) else "warn" if found else "ok",
        "findings": [asdict(one) for one in found],
    }


def _boot(session: Libvirt, root: Root, host: topology.Host, guests: list[census.Guest]) -> list[dict[str, Any]]:
    """Return what becomes of everything that is to start with the host."""
    groups: dict[str, set[str]] = {}

    def has_group(name: str) -> bool:
        if "" not in groups:
            done = root.run(["vgs", "--noheadings", "-o", "vg_name"])
            groups[""] = {line.strip() for line in done.out.splitlines()} if done.rc == 0 else set()
        return name in groups[""]

    asked = boot.Asked(lambda pool, volume: declared.volume_path(session, pool, volume), has_group)
    told = boot.foretell(NextBoot(root, host), asked, declared.networks(session), declared.pools(session), guests)
    return [asdict(verdict) for verdict in told]


def _process(root: Root, guest: census.Guest) -> dict[str, Any]:
    """Return where a running guest's memory is, what of it is locked, and what KSM does for it."""
    pid = guest.pid or 0
    by_node = process.memory_by_node(root, pid)
    astray = sum(size for node, size in by_node.items() if node not in guest.nodes) if guest.nodes else 0
    bill = process.ksm_bill(root, pid, resource.getpagesize())
    return {
        "name": guest.name, "pid": pid, "memory": guest.memory, "memory_by_node": {str(node): size for node, size in sorted(by_node.items())},
        "nodes": sorted(guest.nodes), "misplaced": astray if astray > SLACK or (guest.pages and astray) else 0,
        "locked": process.locked(root, pid), "ksm": {**asdict(bill), "advice": advice(guest, bill)} if bill else None,
    }  # fmt: skip


def advice(guest: census.Guest, bill: process.KsmBill) -> str | None:
    """Return what to do about a guest that KSM does not pay for; None where it does, or nothing is known."""
    if guest.shares and not guest.pages and bill.profit is not None and bill.profit < 0 and bill.tracked:
        return f"KSM costs {-bill.profit} bytes more than it saves here: give memory.nosharepages, or let it scan less"
    return None


def nothing(_session: Libvirt, _wanted: dict[str, Any]) -> Plan:
    """The host as a whole is only read."""
    return Plan("host")


HOST = Kind(
    table=_fields.Table("host", "", "A KVM host.", ()), plural=None, key=(), open=Libvirt, plan=nothing, read=read,
    info_options=(URI,), imports=(LIBVIRT, LXML),
)  # fmt: skip
