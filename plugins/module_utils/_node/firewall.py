# SPDX-License-Identifier: GPL-3.0-or-later
"""Packet rules of the networks of a host, in one nft table of our own: the Kind of kvm_firewall."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import _sysctl, iptables, nft
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import (
    LIVE,
    NEXT_BOOT,
    Part,
    file_part,
    joined,
    unit_part,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, SYSTEMD_RUNNING, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.firewall_check import check
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.firewall import FIREWALL as TABLE

RULES = "/etc/anfitrion.d/firewall.nft"
KEPT = "/etc/anfitrion.d/firewall.json"
UNIT = "anfitrion-firewall.service"
LISTED = "/run/anfitrion-firewall.listed"
FORWARDING = {"ip": "net.ipv4.ip_forward", "ip6": "net.ipv6.conf.all.forwarding"}
# After those that flush the ruleset when they start or reload, and with them; before libvirt starts guests.
UNIT_HEAD = f"""{HEADER}[Unit]
Description=Packet rules of the guests' networks
ConditionPathExists={RULES}
After=nftables.service firewalld.service systemd-sysctl.service
Before=libvirtd.service virtnetworkd.service virtqemud.service libvirt-guests.service
PartOf=nftables.service firewalld.service
ReloadPropagatedFrom=nftables.service firewalld.service
Wants=anfitrion-firewall.timer

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=300
"""
UNIT_TAIL = """
[Install]
WantedBy=multi-user.target nftables.service firewalld.service
"""
# Somebody may flush the ruleset with no unit knowing of it. What the kernel lists after each load is kept, and compared.
WATCH = "anfitrion-firewall-watch.service"
WATCH_HEAD = f"""{HEADER}[Unit]
Description=See that the packet rules of the guests' networks are in the kernel
ConditionPathExists={RULES}

[Service]
Type=oneshot
"""
TIMER = "anfitrion-firewall.timer"
TIMER_TEXT = f"""{HEADER}[Unit]
Description=See that the packet rules of the guests' networks are in the kernel

[Timer]
OnActiveSec=15
OnUnitInactiveSec=15
AccuracySec=1
Unit={WATCH}

[Install]
WantedBy=timers.target
"""
WANTED_BY = ("multi-user.target", "nftables.service", "firewalld.service")


def open_root(_params: Mapping[str, Any], check: bool) -> Root:
    """Return the host itself."""
    return Root(check=check)


def plan(root: Root, wanted: dict[str, Any]) -> Plan:
    """Return what it takes that the rules of one network are as wanted; writes nothing."""
    before = kept(root)
    after = merged(before, wanted)
    check(list(after.values()))
    iptables.refuse_nftables_back_end(root, list(after.values()))
    subject = f"network {wanted['name']}"
    text = nft.table_text(list(after.values())) if after else None
    changes = _network_changes(before.get(wanted["name"], {}), after.get(wanted["name"], {}))
    told = [Change(f"persisted.{change.option}", change.before, change.after, NEXT_BOOT) for change in changes]
    parts = [*_forwarding(root, after), _running(root, text, changes)]
    parts += [iptables.part(root, list(after.values()), family) for family in ("ip", "ip6")]
    state = json.dumps({"networks": list(after.values())}, indent=2, sort_keys=True) + "\n" if after else None
    parts += [file_part(root, RULES, text, told), file_part(root, KEPT, state, told)]
    units = ((WATCH, _watch_text(root, after), ()), (UNIT, _unit_text(root, after), WANTED_BY), (TIMER, TIMER_TEXT, ("timers.target",)))
    parts += [unit_part(root, name, unit if after else None, wanted_by) for name, unit, wanted_by in units]
    parts.append(_watching(root, bool(after)))
    return _without_doubles(joined(subject, [*parts, Part(warnings=_warnings(root, after))]))


def kept(root: Root) -> dict[str, dict[str, Any]]:
    """Return the networks that the persisted rules are made of, by name."""
    try:
        networks = json.loads(root.read(KEPT) or "{}").get("networks", [])
    except ValueError:
        networks = []  # written again from what is declared
    return {network["name"]: network for network in networks}


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


def _running(root: Root, text: str | None, changes: list[Change]) -> Part:
    """Return what it takes that the kernel has the rules: one transaction, and the one before as the way back.

    What the kernel listed when it was given the rules of our file is kept, so nothing has to be parsed to compare.
    """
    now = nft.running(root)
    if now is None and text is None:
        return Part()
    if now is not None and text is not None and text == root.text(RULES) and now == root.text(LISTED):
        return Part()
    family, name = nft.TABLE
    clear = f"table {family} {name} {{}}\ndelete table {family} {name}\n"
    told = tuple(changes) or (Change("rules", "not as declared" if now else None, "as declared" if text else None, LIVE),)
    step = Step("load the packet rules", partial(load, root, text or clear), partial(load, root, clear + (now or "")))
    return Part(told, (step,))


def load(root: Root, text: str) -> None:
    """Load rules into the kernel, all or none; what it then lists is what our timer compares with."""
    root.must_run(["nft", "-f", "-"], text)
    listed = nft.running(root)
    root.remove(LISTED) if listed is None else root.place(LISTED, listed)


def _unit_text(root: Root, after: dict[str, dict[str, Any]]) -> str:
    """Return our unit: it loads the rules, keeps what the kernel lists, and brings our chain in iptables back."""
    listed = f"sh -c 'nft -s list table inet anfitrion > {LISTED}'"
    commands = [f"nft -f {RULES}", listed, *iptables.restore_lines(list(after.values()), root)]
    return UNIT_HEAD + "".join(f"{when}={command}\n" for when in ("ExecStart", "ExecReload") for command in commands) + UNIT_TAIL


def _watch_text(root: Root, after: dict[str, dict[str, Any]]) -> str:
    """Return the unit that looks whether all is in place, and has it loaded again if not."""
    looks = [f"nft -s list table inet anfitrion 2>/dev/null | cmp -s - {LISTED}", *iptables.looks(list(after.values()), root)]
    return f"{WATCH_HEAD}ExecStart=sh -c '{{ {' && '.join(looks)}; }} || systemctl reload {UNIT}'\n"


def _watching(root: Root, wanted: bool) -> Part:
    """Return what it takes that a running systemd watches over the rules now, and not only after the next boot."""
    if not root.exists(SYSTEMD_RUNNING):
        return Part()
    parts = []
    for unit in (UNIT, TIMER):
        active = root.run(["systemctl", "is-active", "--quiet", unit]).rc == 0
        if active != wanted:
            verbs = ("start", "stop") if wanted else ("stop", "start")
            do, undo = (partial(root.do, ["systemctl", verb, unit]) for verb in verbs)
            words = ("inactive", "active") if wanted else ("active", "inactive")
            parts.append(Part((Change(unit, *words, LIVE),), (Step(f"{verbs[0]} {unit}", do, undo),)))
    return Part(tuple(c for part in parts for c in part.changes), tuple(s for part in parts for s in part.steps))


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


def _without_doubles(plan: Plan) -> Plan:
    """Return the plan with each change told once: two files of ours may hold the same option."""
    changes = {repr(change): change for change in plan.changes}
    return Plan(plan.subject, tuple(changes.values()), plan.steps, plan.pending, plan.warnings, plan.facts)


def read(root: Root, name: str | None) -> list[dict[str, Any]]:
    """Return the networks whose rules we keep, as the module takes them."""
    return [network for network in kept(root).values() if name in (None, network["name"])]


NETWORKS = Kind(table=TABLE, plural="networks", key=("name",), open=open_root, plan=plan, read=read)
