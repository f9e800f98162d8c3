# SPDX-License-Identifier: GPL-3.0-or-later
"""The QEMU guest agent: is it there, and what it does. Every question to it has an end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import CPUSET
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import libvirt, told, words

try:
    import libvirt_qemu
except ImportError:
    libvirt_qemu = None  # it comes with libvirt; a module without either fails for that

CHANNEL = "devices/channel/target[@name='org.qemu.guest_agent.0']"
PULSE_S = 0.5
STILL_S = 30


def connected(handle: Any) -> bool:
    """Tell whether an agent has opened its end of the channel; it may still not answer."""
    with told("cannot read the agent's channel"):
        target = _xml.find(_xml.parse(handle.XMLDesc(0)), CHANNEL)
    return target is not None and target.get("state") == "connected"


def ask(domain: Any, command: str, patience: int, /, **arguments: Any) -> Any:
    """Return what the agent answers to a command; raises libvirt's error when there is none in time."""
    question = json.dumps({"execute": command, "arguments": arguments} if arguments else {"execute": command})
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, question, patience, 0))["return"]


def ping(handle: Any, patience: int) -> None:
    """Return when the agent answers within C(patience) seconds; else raise libvirt's error."""
    ask(handle, "guest-ping", patience)


def require(handle: Any, option: str) -> None:
    """Raise KvmError unless an agent has opened its end of the channel."""
    if not connected(handle):
        raise KvmError(
            f"{option}: the guest has no agent that answers; install qemu-guest-agent in it and give it guest_agent: true, or leave {option} out"
        )


@contextmanager
def still(domain: Any, wanted: bool) -> Iterator[None]:
    """Hold the file systems of a guest still, and let them go whatever happens; those that somebody holds still already stay so."""
    if not wanted or _is_still(domain):
        yield
        return
    try:
        with told("quiesce: the agent in the guest cannot hold its file systems still"):
            domain.agentSetResponseTimeout(STILL_S, 0)
            domain.fsFreeze(None, 0)
    except KvmError:
        with suppress(libvirt.libvirtError):
            domain.fsThaw(None, 0)  # some may stand still already
        raise
    try:
        yield
    finally:
        with told("quiesce: the file systems of the guest cannot be let go"):
            domain.fsThaw(None, 0)
            domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)


def _is_still(domain: Any) -> bool:
    with told("quiesce: the agent in the guest does not tell of its file systems"):
        return bool(ask(domain, "guest-fsfreeze-status", STILL_S) == "frozen")


def bring_online(handle: Any, count: int, patience: int) -> None:
    """Have the guest's kernel use its first C(count) vCPUs; raise KvmError with its last words when it does not in time."""
    deadline = time.monotonic() + patience
    said = "it names no CPU"
    while True:
        try:
            present = CPUSET.numbers(handle.guestVcpus()["vcpus"])
            if len(present) >= count:
                offline = sorted(present - CPUSET.numbers(handle.guestVcpus()["online"]))
                if not offline:
                    return
                handle.setGuestVcpus(",".join(map(str, offline)), 1)
            said = f"it has {len(present)} CPUs, {len(CPUSET.numbers(handle.guestVcpus()['online']))} of them online"
        except libvirt.libvirtError as error:
            said = words(error)
        if time.monotonic() > deadline:
            raise KvmError(f"vcpus.count: the guest did not use {count} vCPUs within {patience} s: {said}")
        time.sleep(PULSE_S)


def shut_down(handle: Any) -> None:
    """Ask the agent to shut the guest down; libvirt raises what it answers, in time."""
    handle.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
