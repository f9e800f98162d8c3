# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back from rules that may lock the operator out: the host takes them back by itself unless a new connection confirms them."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import nft, ssh, timer
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

# In /run: a boot has the rules of before, since only what is confirmed is persisted.
WAITING = "/run/anfitrion-firewall.waiting"
ENDED = "/run/anfitrion-firewall.ended"
LISTED = "/run/anfitrion-firewall.listed"
STATE = f"{WAITING}/state.json"
BEFORE = f"{WAITING}/before.nft"
AFTER = f"{WAITING}/after.nft"
LISTED_AFTER = f"{WAITING}/after.listed"  # LISTED may be that of older rules by then, if a unit of ours has loaded them anew
UNIT = "anfitrion-firewall-rollback"
NAME = "firewall"  # what its tokens begin with
GRACE = 10  # seconds that the way back may take; whoever is later finds that its timer is dead


@dataclass(frozen=True)
class Waiting:
    """Rules that wait to be confirmed: by which token, for what, for how much longer, and what was connected before them."""

    token: str
    deny: dict[str, Any]
    left: float
    connected: tuple[str, ...]
    over: Optional[str]


def waiting(root: Root) -> Waiting | None:
    """Return what waits to be confirmed; None for nothing, and for what should have been taken back already."""
    state = json.loads(root.read(STATE) or "{}")
    left = state.get("until", 0) - time.clock_gettime(time.CLOCK_BOOTTIME)
    if not state or left < -GRACE:
        return None
    return Waiting(state["token"], state["deny"], left, tuple(state["connected"]), state["over"])


def refuse_waiting(root: Root) -> None:
    """Raise KvmError while rules wait to be confirmed: what is loaded now would be lost with them."""
    found = waiting(root)
    if found:
        raise KvmError(
            f"the default deny of this host waits to be confirmed for {max(found.left, 0):.0f} s more; confirm it with "
            "anfitrion.kvm.kvm_confirm, or come again when it has been taken back"
        )


def left_over(root: Root) -> Part:
    """Return what it takes to forget rules that nobody confirmed and nobody took back, since the timer was killed."""
    if not root.exists(WAITING):
        return Part()
    change = Change("unconfirmed", "there", None, LIVE)
    return Part((change,), (Step("forget the rules that nobody confirmed", partial(end, root)),))


def arm(root: Root, token: str, seconds: int, deny: dict[str, Any], after: str) -> Part:
    """Return the part that arms the way back to what the kernel has now; it comes before that which loads C(after)."""
    sentence = f"have the rules from before come back in {seconds} s unless these are confirmed"
    return Part(steps=(Step(sentence, partial(_arm, root, token, seconds, deny, after), partial(end, root)),))


def note(root: Root) -> Part:
    """Return the part that notes what the kernel lists of the rules that wait; it comes after that which loads them."""
    return Part(steps=(Step("note what the kernel lists of them", partial(_note, root)),))


def _note(root: Root) -> None:
    root.place(LISTED_AFTER, root.text(LISTED) or "", 0o600)


def _arm(root: Root, token: str, seconds: int, deny: dict[str, Any], after: str) -> None:
    end(root)
    over = ssh.connection(root)
    until = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
    state = {"token": token, "deny": deny, "until": until, "connected": ssh.connected(root), "over": over and over.peer}
    root.place(BEFORE, nft.CLEAR + (nft.running(root) or ""), 0o600)
    root.place(AFTER, after, 0o600)
    root.place(STATE, json.dumps(state), 0o600)
    timer.start(root, f"{UNIT}-{token}", _way_back(root, token), seconds)


def _way_back(root: Root, token: str) -> str:
    """Return the commands that take the rules back. Whoever moves the directory away first, they or who confirms, has won."""
    waits, ended, listed = root.at(WAITING), root.at(f"{ENDED}-{token}"), root.at(LISTED)
    return (
        f"grep -q {token} {waits}/state.json && mv -T {waits} {ended} || exit 0; nft -f {ended}/before.nft && rm -r {ended}; "
        f"nft -s list table {' '.join(nft.TABLE)} >{listed} || rm -f {listed}"
    )


def take(root: Root, token: str) -> None:
    """Win over the way back, or raise KvmError because it was there first."""
    try:
        os.rename(root.at(WAITING), root.at(f"{ENDED}-{token}"))
    except OSError:
        raise KvmError("the rules were taken back a moment ago, since nobody had confirmed them") from None
    _disarm(root, token)


def end(root: Root) -> None:
    """Have nothing wait to be confirmed, whatever does."""
    state = json.loads(root.read(STATE) or "{}")
    shutil.rmtree(root.at(WAITING), ignore_errors=True)
    if state:
        _disarm(root, state["token"])


def _disarm(root: Root, token: str) -> None:
    shutil.rmtree(root.at(f"{ENDED}-{token}"), ignore_errors=True)
    timer.stop(root, f"{UNIT}-{token}")
