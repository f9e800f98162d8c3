# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH connection that a task came by: what a change must not cut, and what shows that the host can still be reached after one."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root


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


def refuse_old(root: Root, over: str | None, before: Iterable[str]) -> None:
    """Raise KvmError unless this task came by a connection that was made after the change that it confirms.

    over: the connection that the change was made over, None for none; before: the peers that were connected then.
    """
    now = connection(root)
    if now is None and over is not None:
        raise KvmError("confirm: the change was made over SSH, so only a new SSH connection can confirm it; this task came by none")
    if now is not None and now.peer in before:
        raise KvmError(
            f"confirm: this connection (from {now.client}, port {now.client_port}) is older than the change, so it proves nothing; have "
            "meta: reset_connection before, or log in anew"
        )
