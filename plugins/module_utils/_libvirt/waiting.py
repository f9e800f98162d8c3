# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for a guest: until its agent answers, it has an address, a port is open, its console says something."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import agent
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told, words
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.evidence import console_file, evidence, plain
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.life import state_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Step

PULSE_S = 0.5
TRY_S = 2.0  # for one connection, for one answer of the agent
TIMEOUT_S = 300
# Where libvirt knows addresses from, the guest's own word first (virDomainInterfaceAddressesSource).
SOURCES = (("agent", 1), ("lease", 0), ("arp", 2))

Look = Callable[[Any], "str | None"]  # returns what is still lacking, None once it is there


def wait_step(session: Libvirt, name: str, handle: Any | None, wanted: dict[str, Any]) -> Step:
    """Return the step that waits until all that is named holds; it fails with evidence of what was seen instead."""
    patience = wanted.get("timeout", TIMEOUT_S)
    network = _network(wanted.get("address", "any"))
    begin = _end_of_console(session, handle)

    def wait() -> None:
        handle = session.domains()[name]
        looks = _looks(session, handle, wanted, network, begin)
        deadline = time.monotonic() + patience
        while looks:
            lacking = [(look, look(handle)) for look in looks]
            looks = [look for look, missing in lacking if missing]
            if not looks:
                return
            last = "; ".join(str(missing) for _look, missing in lacking if missing)
            state = state_of(handle)
            if state in ("stopped", "crashed", "absent") or time.monotonic() > deadline:
                over = f"within {patience} s" if state not in ("stopped", "crashed") else f"for it is {state}"
                raise KvmError(f"wait_for: not met {over}: {last}", evidence=evidence(session, name, handle))
            time.sleep(PULSE_S)

    return Step(f"wait for domain {name}", wait)


def pause_step(name: str, seconds: int) -> Step:
    """Return the step that lets time pass before a guest starts."""
    return Step(f"wait {seconds} s before the start of domain {name}", lambda: time.sleep(seconds), lambda: None)


def _network(text: str) -> Any | None:
    """Return the network that an address is to lie in, None for any."""
    try:
        return None if text == "any" else ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise KvmError(f"wait_for.address: {text!r} is no network; expected any, or one such as 192.0.2.0/24") from None


def _end_of_console(session: Libvirt, handle: Any | None) -> int:
    """Return where the log of a guest that does not run ends, if its next start adds to it; what is before is not of that start."""
    if handle is None or not session.on_this_host or state_of(handle) != "stopped":
        return 0
    file, added_to = console_file(handle)
    return os.stat(file).st_size if file and added_to and os.path.exists(file) else 0


def _looks(session: Libvirt, handle: Any, wanted: dict[str, Any], network: Any | None, begin: int) -> list[Look]:
    looks: list[Look] = []
    if wanted.get("agent"):
        looks.append(_agent_answers)
    if "address" in wanted:
        looks.append(lambda handle: None if _address(handle, network) else f"no address{f' in {network}' if network else ''} yet")
    if "port" in wanted:
        looks.append(lambda handle: _port_is_open(handle, wanted["port"], wanted.get("host")))
    if "console" in wanted:
        looks.append(_console_look(session, handle, wanted["console"], begin))
    return looks


def _agent_answers(handle: Any) -> str | None:
    try:
        agent.ping(handle, int(TRY_S))
    except libvirt.libvirtError as error:
        return f"agent: {words(error)}"
    return None


def addresses(handle: Any) -> list[str]:
    """Return the guest's addresses but loopback and link-local ones: by its agent, else by lease, else by ARP."""
    for name, source in SOURCES:
        try:
            if name == "agent" and not agent.connected(handle):
                continue
            found = handle.interfaceAddresses(source)
        except libvirt.libvirtError:
            continue
        known = [one["addr"] for nic in found.values() for one in nic["addrs"] or ()]
        usable = [one for one in known if not (ipaddress.ip_address(one).is_loopback or ipaddress.ip_address(one).is_link_local)]
        if usable:
            return usable
    return []


def _address(handle: Any, network: Any) -> str | None:
    return next((one for one in addresses(handle) if network is None or ipaddress.ip_address(one) in network), None)


def _port_is_open(handle: Any, port: int, host: str | None) -> str | None:
    host = host or _address(handle, None)
    if host is None:
        return f"port {port}: no address yet"
    try:
        with socket.create_connection((host, port), TRY_S):
            return None
    except OSError as error:
        return f"port {port} of {host}: {error.strerror or error}"


def _console_look(session: Libvirt, handle: Any, pattern: str, begin: int) -> Look:
    """Look for a pattern in what the console printed since the guest started, where a file keeps it; else from now on."""
    file = console_file(handle)[0] if session.on_this_host else None
    lacking = f"console: {pattern!r} not seen"
    if file is not None:

        def in_file(_handle: Any) -> str | None:
            try:
                with open(file, "rb") as log:
                    log.seek(begin)
                    seen = plain(log.read().decode(errors="replace"))
            except OSError as error:
                return f"console: {file}: {error.strerror}"
            return None if re.search(pattern, seen, re.MULTILINE) else lacking

        return in_file
    with told("wait_for.console: cannot open the console"):
        stream = session.connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        handle.openConsole(None, stream, 0)
    heard = bytearray()

    def in_stream(_handle: Any) -> str | None:
        with told("wait_for.console: cannot read the console"):
            while isinstance(part := stream.recv(65536), bytes) and part:
                heard.extend(part)
        return None if re.search(pattern, plain(heard.decode(errors="replace")), re.MULTILINE) else lacking

    return in_stream
