# SPDX-License-Identifier: GPL-3.0-or-later
"""Packet rules of the networks of a host, in one nft table of our own: the Kind of kvm_firewall."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import _sysctl, firewalld, iptables, nft, own_rules, ssh, unconfirmed_rules
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.firewall_check import check
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.firewall import FIREWALL as TABLE

FORWARDING = {"ip": "net.ipv4.ip_forward", "ip6": "net.ipv6.conf.all.forwarding"}


def open_root(_params: Mapping[str, Any], check: bool) -> Root:
    """Return the host itself."""
    return Root(check=check)


def plan(root: Root, wanted: dict[str, Any]) -> Plan:
    """Return what it takes that the rules of one network are as wanted; writes nothing."""
    unconfirmed_rules.refuse_waiting(root)
    before = own_rules.kept(root)
    rules = replace(before, networks=merged(before.networks, wanted))
    after = list(rules.networks.values())
    check(after)
    iptables.refuse_nftables_back_end(root, after)
    changes = _network_changes(before.networks.get(wanted["name"], {}), rules.networks.get(wanted["name"], {}))
    if changes and wanted["name"] in rules.networks:
        _refuse_cut(root, rules.networks[wanted["name"]])
    text = own_rules.text_of(root, rules)
    parts = [*_forwarding(root, rules.networks), unconfirmed_rules.left_over(root), own_rules.running(root, text, changes)]
    parts += [iptables.part(root, after, family) for family in ("ip", "ip6")]
    parts += [firewalld.part(root, after), *own_rules.persisted(root, rules, text, changes)]
    return own_rules.joined_once(f"network {wanted['name']}", [*parts, Part(warnings=_warnings(root, rules.networks))])


def merged(before: dict[str, dict[str, Any]], wanted: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return all networks with the wanted one over what is known of it; forwards not named stay."""
    after = {name: network for name, network in before.items() if name != wanted["name"]}
    if wanted.get("state") != "absent":
        old = before.get(wanted["name"], {})
        forwards = {forward["name"]: forward for forward in old.get("forwards", [])}
        for forward in wanted.get("forwards", []):
            values = {name: value for name, value in forward.items() if name != "state"}
            if forward.get("state") == "absent":
                forwards.pop(forward["name"], None)
            else:
                forwards[forward["name"]] = {**forwards.get(forward["name"], {}), **values}
        network = {**old, **{name: value for name, value in wanted.items() if name not in ("state", "forwards")}}
        network["forwards"] = [forwards[name] for name in sorted(forwards)]
        after[wanted["name"]] = network
    return {name: after[name] for name in sorted(after)}


def _refuse_cut(root: Root, network: dict[str, Any]) -> None:
    """Raise KvmError for rules that keep the guest from the host by which Ansible is connected now: there is no timed way back here."""
    now = ssh.connection(root)
    inside = now and any(ipaddress.ip_address(now.client) in ipaddress.ip_network(subnet) for _family, subnet in nft.subnets(network))
    access = nft.access(network)
    if now and inside and access != "open":
        raise KvmError(f"host: {access} would let no new connection of SSH in from {now.client}, which Ansible is using now; give host: open")


def _network_changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Return what differs between two states of one network, by option."""
    changes = [
        Change(name, before.get(name), after.get(name), LIVE)
        for name in ("bridge", "subnet", "subnet6", "mode", "outbound", "host")
        if before.get(name) != after.get(name)
    ]
    old = {forward["name"]: forward for forward in before.get("forwards", [])}
    new = {forward["name"]: forward for forward in after.get("forwards", [])}
    changes += [Change(f"forwards[{name}]", old.get(name), new.get(name), LIVE) for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return changes


def _forwarding(root: Root, after: dict[str, dict[str, Any]]) -> list[Part]:
    """Return what it takes that the host forwards packets; it comes first, since it resets settings of interfaces."""
    through = [network for network in after.values() if network["mode"] != "isolated"]
    families = ["ip"] * bool(through) + ["ip6"] * any("subnet6" in network for network in through)
    return [_sysctl.part(root, FORWARDING[family], FORWARDING[family], "1") for family in families]


def _warnings(root: Root, after: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Return what to warn of: a chain that drops and is not of iptables, whose FORWARD our own chain is first in."""
    if not any(network["mode"] != "isolated" for network in after.values()):
        return ()
    return tuple(
        f"the chain {chain} drops forwarded packets that nothing in it accepts, and a rule of ours cannot overrule it; accept the bridge there"
        for chain in nft.dropping_chains(root)
        if chain not in ("ip filter FORWARD", "ip6 filter FORWARD")
    )


def read(root: Root, name: str | None) -> list[dict[str, Any]]:
    """Return the networks whose rules we keep, as the module takes them."""
    return [network for network in own_rules.kept(root).networks.values() if name in (None, network["name"])]


NETWORKS = Kind(table=TABLE, plural="networks", key=("name",), open=open_root, plan=plan, read=read)
