# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests on NUMA nodes: the Kind of kvm_placement. The decision is kept in the guest's own metadata."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import CPUSET
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import census, placement
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import pci, process, topology
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.topology import numbers
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.placement import PLACEMENT as TABLE

NAMESPACE = "https://anfitrion.kvm/placement/1"
SLACK = 64 << 20  # bytes of a guest on ordinary pages that may be elsewhere: QEMU's own


@dataclass(frozen=True)
class Situation:
    """One guest that is to live on a node. cpus: those of the node, in libvirt's words."""

    handle: Any
    guest: census.Guest
    node: int
    cpus: str
    map: tuple[bool, ...]


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes that a guest lives on its node; nothing is written."""
    name = wanted["name"]
    handle = session.domains().get(name)
    if handle is None:
        raise KvmError("does not exist on this host; define it with anfitrion.kvm.kvm_domain")
    root = Root(check=session.check)
    host = session.once("topology", lambda: topology.observe(root))
    guests: list[census.Guest] = census.guests(session, root)
    one = next(guest for guest in guests if guest.name == name)
    kept = recorded(handle)
    decision = _decide(root, host, guests, one, wanted["node"], kept)
    if decision.node is None:
        raise KvmError(f"node: {decision.reason}")
    cpus = host.nodes[decision.node].cpus
    words = CPUSET.normal(",".join(map(str, sorted(cpus))))
    now = Situation(handle, one, decision.node, words, tuple(cpu in cpus for cpu in range(max(host.cpus) + 1)))
    changes, steps = _persistent(session, now)
    if kept != now.node:
        changes.append(Change("node", kept, now.node, "define"))
        steps.append(Step(f"record node {now.node} in {name}", partial(_record, now, decision.reason), partial(_forget, handle, kept)))
    live_changes, live, pending = _live(root, now) if one.active else ([], [], ())
    facts = {"decision": {"node": now.node, "reason": decision.reason}}
    return Plan(f"placement of {name}", (*changes, *live_changes), (*steps, *live), pending, (), facts)


def _decide(
    root: Root, host: topology.Host, guests: list[census.Guest], one: census.Guest, asked: str, kept: int | None
) -> placement.Decision:
    if asked == "auto":
        nodes = {device: root.number(pci.path(device, "numa_node")) for device in one.devices}
        known = {device: node if node is not None and node >= 0 else None for device, node in nodes.items()}
        return placement.decide(host, guests, one, known, kept)
    node = int(asked)
    if node not in host.nodes:
        return placement.Decision(None, f"this host has no node {node}; it has {', '.join(map(str, host.nodes))}")
    why = placement.why_not(host, [guest for guest in guests if guest.name != one.name], one, node)
    return placement.Decision(None if why else node, f"node {node}: {why}" if why else "as asked")


def recorded(handle: Any) -> int | None:
    """Return the node that a guest's metadata records; None where it records none."""
    try:
        text = handle.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise KvmError(f"cannot read its metadata: {error.get_error_message()}") from error
    node = _xml.parse(text).get("node")
    return int(node) if node and node.isdigit() else None


def _record(now: Situation, reason: str) -> None:
    element = _xml.new("placement")
    element.set("node", str(now.node))
    element.set("reason", reason)
    _set_metadata(now.handle, _xml.text_of(element))


def _forget(handle: Any, before: int | None) -> None:
    _set_metadata(handle, None if before is None else f'<placement node="{before}"/>')


def _set_metadata(handle: Any, text: str | None) -> None:
    with told("cannot record the placement"):
        handle.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, "anfitrion" if text else None, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
        )


def _persistent(session: Libvirt, now: Situation) -> tuple[list[Change], list[Step]]:
    """Return what it takes that the guest is bound to its node at its next start."""
    with told("cannot read the definition"):
        before = _xml.parse(now.handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
    if _xml.find(before, "numatune/memnode") is not None:
        raise KvmError("node: it has NUMA nodes of its own, each bound by numatune.memnode; place those with anfitrion.kvm.kvm_domain")
    after = _xml.copy(before)
    pinned = set().union(*[numbers(pin.get("cpuset")) for pin in _xml.find_all(after, "cputune/vcpupin")])
    if pinned - numbers(now.cpus):
        for pin in _xml.find_all(after, "cputune/vcpupin"):
            _xml.remove(pin, after)
    wanted = {
        "numatune/memory/@mode": "strict", "numatune/memory/@nodeset": str(now.node),
        "vcpu/@placement": "static", "vcpu/@cpuset": now.cpus, "cputune/emulatorpin/@cpuset": now.cpus,
    }  # fmt: skip
    changes = []
    for path, value in wanted.items():
        have = _xml.get(before, path)[0]
        if have != value and numbers(have) != (numbers(value) or None):
            changes.append(Change(path.replace("/@", ".").replace("/", "."), have, value, "next_boot" if now.guest.active else "define"))
        _xml.put(after, path, value)
    if not changes:
        return [], []
    texts = _xml.text_of(after), _xml.text_of(before)
    return changes, [Step(f"bind {now.guest.name} to node {now.node}", partial(_define, session, texts[0]), partial(_define, session, texts[1]))]


def _define(session: Libvirt, text: str) -> None:
    with told("libvirt refused the definition"):
        session.connection.defineXML(text)


def _live(root: Root, now: Situation) -> tuple[list[Change], list[Step], tuple[str, ...]]:
    """Return how the running guest is brought to its node: vCPUs are pinned, and pages that are elsewhere moved."""
    changes: list[Change] = []
    steps: list[Step] = []
    with told("cannot read the pinning"):
        running = _xml.parse(now.handle.XMLDesc(0))
        pins = now.handle.vcpuPinInfo(libvirt.VIR_DOMAIN_AFFECT_LIVE)
    pending = () if numbers(_xml.get(running, "numatune/memory/@nodeset")[0]) == {now.node} else ("numatune.memory.nodeset",)
    for vcpu, allowed in enumerate(pins):
        have = {cpu for cpu, on in enumerate(allowed) if on}
        if have - numbers(now.cpus):
            shown = CPUSET.normal(",".join(map(str, sorted(have))))
            changes.append(Change(f"vcpu.{vcpu}", shown, now.cpus, "live"))
            steps.append(Step(f"pin vCPU {vcpu} to {now.cpus}", partial(_pin, now.handle, vcpu, now.map), partial(_pin, now.handle, vcpu, allowed)))
    if now.guest.pid is None:
        return changes, steps, pending
    astray = _astray(root, now)
    if astray and now.guest.devices:
        return changes, steps, (*pending, "memory (devices of the host use it where it is)")
    if astray:
        changes.append(Change("memory_by_node", _shown(process.memory_by_node(root, now.guest.pid)), f"all on node {now.node}", "live"))
        steps.append(Step(f"move {astray >> 20} MiB of {now.guest.name} to node {now.node}", partial(_move, root, now)))
    return changes, steps, pending


def _shown(by_node: dict[int, int]) -> str:
    return ", ".join(f"{size >> 20} MiB on node {node}" for node, size in sorted(by_node.items()))


def _astray(root: Root, now: Situation) -> int:
    """Return the bytes of a running guest that are not on its node; a little of ordinary pages is QEMU's own."""
    by_node = process.memory_by_node(root, now.guest.pid or 0)
    size = sum(size for node, size in by_node.items() if node != now.node)
    return size if now.guest.pages or size > SLACK else 0


def _pin(handle: Any, vcpu: int, cpus: tuple[bool, ...]) -> None:
    with told(f"cannot pin vCPU {vcpu}"):
        handle.pinVcpuFlags(vcpu, cpus, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _move(root: Root, now: Situation) -> None:
    pid = now.guest.pid or 0
    away = set(process.memory_by_node(root, pid)) - {now.node}
    process.migrate(pid, away, {now.node})
    left = _astray(root, now)
    if left:
        kind = f"huge pages of {topology.size(now.guest.pages)}" if now.guest.pages else "memory"
        raise KvmError(f"{left >> 20} MiB stayed on node {', '.join(map(str, sorted(away)))}: node {now.node} has not enough free {kind}")


def read(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return the node of every guest that has a recorded one, or of the named guest."""
    found = [(one, recorded(handle)) for one, handle in sorted(session.domains().items()) if name in (None, one)]
    return [{"name": one, "node": str(node)} for one, node in found if node is not None]


PLACEMENT = Kind(
    table=TABLE, plural="guests", key=("name",), open=Libvirt, plan=plan, read=read,
    options=(URI,), info_options=(URI,), imports=(LIBVIRT, LXML),
)  # fmt: skip
