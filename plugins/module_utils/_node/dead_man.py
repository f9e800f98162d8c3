# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back from rules that may lock the operator out: the host takes them back by itself unless a new connection confirms them."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import nft
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import SYSTEMD_RUNNING, Root
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
GRACE = 10  # seconds that the way back may take; whoever is later finds that its timer is dead


@dataclass(frozen=True)
class Waiting:
    """Rules that wait to be confirmed: by which token, for what, for how much longer, and what was connected before them."""

    token: str
    deny: dict[str, Any]
    left: float
    connected: tuple[str, ...]
    over: Optional[str]


@dataclass(frozen=True)
class Connection:
    """The SSH connection that a task came by, as sshd(8) tells it in SSH_CONNECTION."""

    client: str
    client_port: int
    port: int

    @property
    def peer(self) -> str:
        return f"{self.client} {self.client_port}"


def connection(root: Root) -> Connection | None:
    """Return the SSH connection that this process came by; None if it came by no SSH.

    sudo clears the variable; the shell that sshd started, further up, still has it.
    """
    pid = os.getpid()
    while pid > 1:
        for entry in (root.text(f"/proc/{pid}/environ") or "").split("\0"):
            name, _equal, value = entry.partition("=")
            if name == "SSH_CONNECTION" and len(value.split()) == 4:
                client, client_port, _server, port = value.split()
                return Connection(_plain(client), int(client_port), int(port))
        stat = (root.text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
        pid = int(stat[1]) if len(stat) > 1 else 0
    return None


def _plain(address: str) -> str:
    """Return an address as SSH_CONNECTION and ss tell it alike: an IPv4 one is one of IPv6 to a socket that takes both."""
    parsed = ipaddress.ip_address(address.partition("%")[0].strip("[]"))
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def connected(root: Root) -> list[str]:
    """Return the peers of all TCP connections of the host, as Connection.peer tells them."""
    lines = root.must_run(["ss", "-Htn", "state", "established"]).splitlines()
    peers = (line.split()[3].rpartition(":") for line in lines)
    return sorted(f"{_plain(address)} {port}" for address, _colon, port in peers)


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
            "anfitrion.kvm.kvm_host_firewall, or come again when it has been taken back"
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
    over = connection(root)
    until = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
    state = {"token": token, "deny": deny, "until": until, "connected": connected(root), "over": over and over.peer}
    root.place(BEFORE, nft.CLEAR + (nft.running(root) or ""), 0o600)
    root.place(AFTER, after, 0o600)
    root.place(STATE, json.dumps(state), 0o600)
    commands = _way_back(root, token)
    if root.exists(SYSTEMD_RUNNING):
        timer = [f"--unit={UNIT}-{token}", f"--on-active={seconds}", "--timer-property=AccuracySec=100ms", "--collect"]
        root.must_run(["systemd-run", "--quiet", *timer, "sh", "-c", commands])
    else:
        # its own session, and none of our pipes: it stays when the task and its connection end
        root.must_run(["setsid", "--fork", "sh", "-c", f"exec </dev/null >/dev/null 2>&1; cd /; sleep {seconds}; {commands}"])


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
        raise KvmError("confirm: the rules were taken back a moment ago, since nobody had confirmed them") from None
    _disarm(root, token)


def end(root: Root) -> None:
    """Have nothing wait to be confirmed, whatever does."""
    state = json.loads(root.read(STATE) or "{}")
    shutil.rmtree(root.at(WAITING), ignore_errors=True)
    if state:
        _disarm(root, state["token"])


def _disarm(root: Root, token: str) -> None:
    shutil.rmtree(root.at(f"{ENDED}-{token}"), ignore_errors=True)
    if root.exists(SYSTEMD_RUNNING):
        root.run(["systemctl", "stop", f"{UNIT}-{token}.timer"])  # it finds nothing to take back; so it may be gone


def refuse_old_connection(root: Root, found: Waiting) -> None:
    """Raise KvmError unless this task came by a connection that was made under the rules that it confirms."""
    now = connection(root)
    if now is None and found.over is not None:
        raise KvmError("confirm: the rules were loaded over SSH, so only a new SSH connection can confirm them; this task came by none")
    if now is not None and now.peer in found.connected:
        raise KvmError(
            f"confirm: this connection (from {now.client}, port {now.client_port}) is older than the rules, so it proves nothing; have "
            "meta: reset_connection before, or log in anew"
        )
