# SPDX-License-Identifier: GPL-3.0-or-later
"""What reaches the host and goes through it: the Kind of kvm_host_firewall."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import own_rules, ssh, unconfirmed_rules
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.host_firewall import HOST_FIREWALL as TABLE

SUBJECT = "host firewall"
ROLLBACK_AFTER = 60


def open_root(_params: Mapping[str, Any], check: bool) -> Root:
    """Return the host itself."""
    return Root(check=check)


def plan(root: Root, wanted: dict[str, Any]) -> Plan:
    """Return what it takes that the host denies as wanted; writes nothing.

    A deny that differs from the one that is persisted is only loaded, with a way back; confirming it persists it.
    """
    before = own_rules.kept(root)
    waiting = unconfirmed_rules.waiting(root)
    after = replace(before, deny=merged(before.deny, wanted))
    if waiting and waiting.deny == after.deny:
        return own_rules.joined_once(SUBJECT, [], **_to_confirm(root, waiting.token, round(max(waiting.left, 0))))
    unconfirmed_rules.refuse_waiting(root)
    changes = _changes(before.deny or {}, after.deny or {})
    text = own_rules.text_of(root, after)
    live = own_rules.running(root, text, changes)
    if not live.changes or not changes or after.deny is None or text is None:
        parts = [unconfirmed_rules.left_over(root), live, *own_rules.persisted(root, after, text, changes)]
        return own_rules.joined_once(SUBJECT, parts)
    if not wanted.get("cut_allowed"):
        _refuse_cut(root, after.deny)
    token, seconds = f"{unconfirmed_rules.NAME}-{secrets.token_hex(6)}", wanted.get("rollback_after", ROLLBACK_AFTER)
    parts = [unconfirmed_rules.arm(root, token, seconds, after.deny, text), live, unconfirmed_rules.note(root)]
    return own_rules.joined_once(SUBJECT, parts, **_to_confirm(root, token, seconds))


def _to_confirm(root: Root, token: str, seconds: int) -> dict[str, Any]:
    """Return what the result says of rules that wait; nothing waits in check mode."""
    return {} if root.check else {"confirm": {"token": token, "seconds": seconds}}


def merged(before: dict[str, Any] | None, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Return the deny with what is wanted over what is known of it; ports not named stay. None: nothing is denied."""
    if wanted.get("state") == "absent":
        return None
    old = before or {"deny": ["input", "forward"], "allow": [], "through": []}
    allowed = {allow["name"]: allow for allow in old["allow"]}
    for allow in wanted.get("allow", []):
        values = {name: value for name, value in allow.items() if name != "state"}
        if allow.get("state") == "absent":
            allowed.pop(allow["name"], None)
        else:
            allowed[allow["name"]] = {**allowed.get(allow["name"], {}), **values}
            if "port" not in allowed[allow["name"]]:
                raise KvmError(f"allow[{allow['name']}].port: must be given")
    return {
        "deny": sorted(set(wanted.get("deny", old["deny"]))),
        "allow": [allowed[name] for name in sorted(allowed)],
        "through": sorted(set(wanted.get("through", old["through"]))),
    }


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Return what differs between two states of the deny, by option."""
    changes = [Change(name, before.get(name), after.get(name), LIVE) for name in ("deny", "through") if before.get(name) != after.get(name)]
    old, new = ({allow["name"]: allow for allow in each.get("allow", [])} for each in (before, after))
    return changes + [Change(f"allow[{name}]", old.get(name), new.get(name), LIVE) for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def _refuse_cut(root: Root, deny: dict[str, Any]) -> None:
    """Raise KvmError for a deny under which no connection like that of this task could be made."""
    now = ssh.connection(root)
    if now is None or "input" not in deny["deny"] or any(_lets_in(allow, now) for allow in deny["allow"]):
        return
    raise KvmError(
        f"allow: nothing lets TCP port {now.port} in from {now.client}, which Ansible is using now; allow it, or say cut_allowed: true to "
        "have the rules loaded all the same"
    )


def _lets_in(allow: dict[str, Any], now: ssh.Connection) -> bool:
    first, _dash, last = allow["port"].partition("-")
    client = ipaddress.ip_address(now.client)
    sources = [ipaddress.ip_network(source) for source in allow.get("sources", [])]
    told = not sources or any(client.version == source.version and client in source for source in sources)
    return allow.get("proto", "tcp") == "tcp" and int(first) <= now.port <= int(last or first) and told


def confirmation(root: Root, token: str) -> Plan:
    """Return what it takes that rules that wait stay, by a connection that was made under them."""
    before = own_rules.kept(root)
    waiting = unconfirmed_rules.waiting(root)
    if waiting is None or waiting.token != token:
        if before.confirmed == token:
            text = own_rules.text_of(root, before)
            return own_rules.joined_once(SUBJECT, [own_rules.running(root, text, []), *own_rules.persisted(root, before, text, [])])
        raise KvmError("no rules wait for this token; they have been taken back, since nobody confirmed them in time")
    ssh.refuse_old(root, waiting.over, waiting.connected)
    after = replace(before, deny=waiting.deny, confirmed=token)
    text = own_rules.text_of(root, after)
    changes = _changes(before.deny or {}, waiting.deny)
    live = own_rules.running(root, text, [], unconfirmed_rules.AFTER, unconfirmed_rules.LISTED_AFTER)
    won = Part(steps=(Step("disarm the way back", partial(unconfirmed_rules.take, root, token)),))  # last: if it came first, all is undone
    return own_rules.joined_once(SUBJECT, [live, *own_rules.persisted(root, after, text, changes), won])


def read(root: Root, _name: str | None) -> list[dict[str, Any]]:
    """Return what the host denies, as the module takes it."""
    deny = own_rules.kept(root).deny
    return [{"state": "present", **deny} if deny else {"state": "absent"}]


def facts(root: Root) -> dict[str, Any]:
    """Return for how many seconds rules that wait to be confirmed still do; null if none do."""
    waiting = unconfirmed_rules.waiting(root)
    return {"unconfirmed_for": None if waiting is None else round(max(waiting.left, 0))}


HOST = Kind(table=TABLE, plural=None, key=(), open=open_root, plan=plan, read=read, facts=facts)
