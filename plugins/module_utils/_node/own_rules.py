# SPDX-License-Identifier: GPL-3.0-or-later
"""Our nft table as a whole: what is declared of it, the kernel's, the files that bring it back, and who watches over it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Optional

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import deny, iptables, nft, unconfirmed_rules
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import (
    LIVE,
    NEXT_BOOT,
    Part,
    file_part,
    joined,
    unit_part,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, SYSTEMD_RUNNING, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step

RULES = "/etc/anfitrion.d/firewall.nft"
KEPT = "/etc/anfitrion.d/firewall.json"
UNIT = "anfitrion-firewall.service"
LISTED = unconfirmed_rules.LISTED
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


@dataclass(frozen=True)
class Rules:
    """All that is declared: networks by name, the default deny of the host, and which change of it was confirmed last."""

    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    deny: Optional[dict[str, Any]] = None
    confirmed: Optional[str] = None

    @property
    def some(self) -> bool:
        """Whether there is anything to have rules for."""
        return bool(self.networks or self.deny)


def kept(root: Root) -> Rules:
    """Return what the persisted rules are made of."""
    try:
        found = json.loads(root.read(KEPT) or "{}")
    except ValueError:
        found = {}  # written again from what is declared
    networks = {network["name"]: network for network in found.get("networks", [])}
    return Rules(networks, found.get("deny"), found.get("confirmed"))


def text_of(root: Root, rules: Rules) -> str | None:
    """Return the nft file for what is declared; None for nothing."""
    networks = list(rules.networks.values())
    return nft.table_text(networks, deny.chains(root, rules.deny, networks)) if rules.some else None


def persisted(root: Root, rules: Rules, text: str | None, changes: Iterable[Change]) -> list[Part]:
    """Return what it takes that the next boot has the rules, and that a running systemd watches over them."""
    told = [Change(f"persisted.{change.option}", change.before, change.after, NEXT_BOOT) for change in changes]
    networks = list(rules.networks.values())
    values = {"networks": networks, **({"deny": rules.deny, "confirmed": rules.confirmed} if rules.deny else {})}
    state = json.dumps(values, indent=2, sort_keys=True) + "\n" if rules.some else None
    parts = [file_part(root, RULES, text, told), file_part(root, KEPT, state, told)]
    units = ((WATCH, _watch_text(root, networks), ()), (UNIT, _unit_text(root, networks), WANTED_BY), (TIMER, TIMER_TEXT, ("timers.target",)))
    parts += [unit_part(root, name, unit if rules.some else None, wanted_by) for name, unit, wanted_by in units]
    return [*parts, _watching(root, rules.some)]


def running(root: Root, text: str | None, changes: Iterable[Change], loaded: str = RULES, listed: str = LISTED) -> Part:
    """Return what it takes that the kernel has the rules: one transaction, and the one before as the way back.

    What the kernel listed when it was given the rules of our file (C(loaded)) is kept (C(listed)), so nothing has to be parsed to compare.
    """
    now = nft.running(root)
    if now is None and text is None:
        return Part()
    # what nobody confirmed and nobody took back is in the kernel still
    left_over = loaded == RULES and root.exists(unconfirmed_rules.WAITING)
    if now is not None and text is not None and not left_over and text == root.text(loaded) and now == root.text(listed):
        return Part()
    told = tuple(changes) or (Change("rules", "not as declared" if now else None, "as declared" if text else None, LIVE),)
    step = Step("load the packet rules", partial(load, root, text or nft.CLEAR), partial(load, root, nft.CLEAR + (now or "")))
    return Part(told, (step,))


def load(root: Root, text: str) -> None:
    """Load rules into the kernel, all or none; what it then lists is what our timer compares with."""
    root.must_run(["nft", "-f", "-"], text)
    listed = nft.running(root)
    root.remove(LISTED) if listed is None else root.place(LISTED, listed)


def _unit_text(root: Root, networks: list[dict[str, Any]]) -> str:
    """Return our unit: it loads the rules, keeps what the kernel lists, and brings our chain in iptables back."""
    listed = f"sh -c 'nft -s list table inet anfitrion > {LISTED}'"
    commands = [f"nft -f {RULES}", listed, *iptables.restore_lines(networks, root)]
    return UNIT_HEAD + "".join(f"{when}={command}\n" for when in ("ExecStart", "ExecReload") for command in commands) + UNIT_TAIL


def _watch_text(root: Root, networks: list[dict[str, Any]]) -> str:
    """Return the unit that looks whether all is in place, and has it loaded again if not."""
    looks = [f"nft -s list table inet anfitrion 2>/dev/null | cmp -s - {LISTED}", *iptables.looks(networks, root)]
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


def joined_once(subject: str, parts: Iterable[Part], **facts: Any) -> Plan:
    """Return the plan of parts with each change told once: two files of ours may hold the same option."""
    plan = joined(subject, parts, **facts)
    changes = {repr(change): change for change in plan.changes}
    return replace(plan, changes=tuple(changes.values()))
