# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host has in a network's way: other networks, routes, bridges, physical functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.activity import Host, Situation
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.objects import Family, persistent_xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.routes import exists, number_of_vfs, routes, total_vfs
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.network import TABLE
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.subnets import subnet

FAMILY = Family(
    noun="network", table=TABLE, listed=lambda session: session.networks(),
    define=lambda connection, text: connection.networkDefineXML(text),
    # The test driver refuses the flag.
    inactive=lambda session: 0 if session.driver == "test" else libvirt.VIR_NETWORK_XML_INACTIVE,
)  # fmt: skip


def preflight(session: Libvirt, now: Situation) -> Host:
    """Raise KvmError for what the host has in the network's way; in check mode what may still be made is a warning."""
    if not (now.to_define or now.to_start) or not session.on_this_host:
        return Host()
    host = Root()
    values = _fields.read(TABLE.rows, now.after)
    others = {name: tree for name, tree in definitions(session).items() if name != now.name}
    known = _fields.read(TABLE.rows, now.before) if now.before is not None and not now.to_start else {}
    own = {_xml.get(tree, "bridge/@name")[0] for tree in (now.before, now.running) if tree is not None}
    checked = [subnet(ip) for ip in known.get("ips", [])]
    for ip in values.get("ips", []):
        if subnet(ip) not in checked:
            _check_overlap(host, ip, others, own | {_xml.get(now.after, "bridge/@name")[0]})
    lacking = [*_lacking_bridge(host, values, others, own, now), *_lacking_ways(host, values, known, now)]
    if lacking and not session.check:
        raise KvmError("; ".join(lacking))
    definitions(session)[now.name] = now.after  # the next entry of the task must not overlap this one
    return Host(warnings=(*lacking, *_filtered(host, now)))


def _filtered(host: Root, now: Situation) -> Iterator[str]:
    """Yield what to be warned of where frames between guests go through the packet filter, which libvirt reloads at updates."""
    names = [f"bridge-nf-call-{family}" for family in ("iptables", "ip6tables")]
    on = [f"net.bridge.{name}" for name in names if host.number(f"/proc/sys/net/bridge/{name}")]
    if now.running is not None and now.differences and on:
        yield f"{' and '.join(on)} is 1, so guests lose packets between them while libvirt loads its rules anew; the role network sets it to 0"


def definitions(session: Libvirt) -> dict[str, Any]:
    """Return the definition of every network by name, those included that this task has planned."""

    def read() -> dict[str, Any]:
        return {name: persistent_xml(session, FAMILY, handle) for name, handle in session.networks().items()}

    found: dict[str, Any] = session.once("network definitions", read)
    return found


def _check_overlap(host: Root, ip: dict[str, Any], others: dict[str, Any], own: set[str | None]) -> None:
    net = subnet(ip)
    if net is None:
        raise KvmError(f"ips[{ip['address']}].prefix: must be given")
    bridges = set(own)
    for name, tree in others.items():
        bridges.add(_xml.get(tree, "bridge/@name")[0])
        for other in filter(None, map(subnet, _fields.read(TABLE.rows, tree).get("ips", []))):
            if other.version == net.version and other.overlaps(net):
                raise KvmError(f"ips[{ip['address']}]: {net} overlaps network {name!r} ({other}); choose another subnet")
    for route in routes(host):
        if route.dev not in bridges and route.to.version == net.version and route.to.overlaps(net):
            raise KvmError(f"ips[{ip['address']}]: {net} overlaps the host's route to {route.to} over {route.dev}; choose another subnet")


def _lacking_bridge(host: Root, values: dict[str, Any], others: dict[str, Any], own: set[str | None], now: Situation) -> Iterator[str]:
    """Yield what is missing of the host's bridge. Raises KvmError when the name is that of something else."""
    bridge = (values.get("bridge") or {}).get("name")
    mode = (values.get("forward") or {}).get("mode")
    if bridge is None:
        return
    if mode == "bridge":
        if not exists(host, bridge):
            yield f"bridge.name: {bridge} does not exist on this host"
        return
    for name, tree in others.items():
        if _xml.get(tree, "bridge/@name")[0] == bridge:
            raise KvmError(f"bridge.name: {bridge} is that of network {name!r}; choose another name")
    ours = now.running is not None and bridge in own
    if exists(host, bridge) and not ours:
        raise KvmError(f"bridge.name: {bridge} exists on this host and is not ours; choose another name")


def _lacking_ways(host: Root, values: dict[str, Any], known: dict[str, Any], now: Situation) -> Iterator[str]:
    """Yield what is missing of the interfaces that the network leaves by. Raises KvmError for a PF that is none."""
    forward, before = values.get("forward") or {}, known.get("forward") or {}
    dev, pf = forward.get("dev"), forward.get("pf")
    if dev and dev != before.get("dev") and not exists(host, dev):
        yield f"forward.dev: {dev} does not exist on this host"
    if not pf or pf == before.get("pf"):
        return
    if not exists(host, pf):
        raise KvmError(f"vf_pool.pf: {pf} does not exist on this host")
    if not total_vfs(host, pf):
        raise KvmError(f"vf_pool.pf: {pf} is not a physical function of SR-IOV, it can have no virtual functions")
    if now.to_start and not number_of_vfs(host, pf):
        yield f"vf_pool.pf: {pf} has no virtual functions; make them with anfitrion.kvm.kvm_hostdev"
