# SPDX-License-Identifier: GPL-3.0-or-later
"""The QEMU guest agent: is it there, and what it does. Every question to it has an end."""

from __future__ import annotations

import json
import time
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
