# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that takes itself back unless it is confirmed: the Kind of kvm_confirm."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import deadman, host_firewall, unconfirmed_rules
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.confirm import CONFIRM


def open_root(_params: Mapping[str, Any], check: bool) -> Root:
    """Return the host itself."""
    return Root(check=check)


def plan(root: Root, wanted: dict[str, Any]) -> Plan:
    """Return what it takes that a change stays; nothing once it is confirmed. Raises KvmError if it was taken back, or by an old connection."""
    token = wanted["token"]
    if deadman.name_of(token) == unconfirmed_rules.NAME:
        return host_firewall.confirmation(root, token)
    now = deadman.state(root, deadman.name_of(token))
    if now is None or now.token != token or now.state in (deadman.RUNNING, deadman.TAKEN_BACK):
        raise KvmError(deadman.unconfirmed(now, token))
    if now.state == deadman.CONFIRMED:
        return Plan(f"change {token}")
    deadman.refuse_old_connection(root, token)
    step = Step("let the change stay", partial(deadman.confirm, root, token))
    return Plan(f"change {token}", (Change("state", "waits to be confirmed", "confirmed", LIVE),), (step,))


def read(root: Root, name: str | None) -> list[dict[str, Any]]:
    """There is no info twin: what a change is part of tells of it."""
    raise NotImplementedError


CHANGE = Kind(table=CONFIRM, plural=None, key=("token",), open=open_root, plan=plan, read=read)
