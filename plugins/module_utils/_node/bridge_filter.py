# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether frames between guests on one bridge go through the packet filter: the switches of br_netfilter.

They are not there until somebody (docker, Kubernetes) loads the module, and then they are on. A file in sysctl.d alone comes too early,
so udev has them set again whenever the module comes (libvirt: wiki.libvirt.org/Net.bridge.bridge-nf-call_and_sysctl.conf.html).
"""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import _sysctl
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import Part, file_part, persisted_changes, together
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root

SWITCHES = {family: f"net.bridge.bridge-nf-call-{family}" for family in ("iptables", "ip6tables", "arptables")}
PARAMETERS = "/etc/sysctl.d/91-anfitrion-bridges.conf"
RULE = "/etc/udev/rules.d/91-anfitrion-bridges.rules"
RULE_TEXT = (
    f'{HEADER}ACTION=="add", SUBSYSTEM=="module", KERNEL=="br_netfilter", RUN+="/usr/lib/systemd/systemd-sysctl --prefix=/net/bridge"\n'
)


def part(root: Root, wanted: bool) -> Part:
    """Return what it takes that frames are filtered, or are not: now, after a boot, and whenever the module is loaded."""
    if not wanted:
        _refuse_foreign(root)
    return together(_kept(root, wanted), _now(root, dict.fromkeys(SWITCHES, int(wanted))))


def _now(root: Root, values: dict[str, Any]) -> Part:
    return together(*(_sysctl.now(root, f"bridge_filter.{family}", SWITCHES[family], str(value)) for family, value in values.items()))


def _kept(root: Root, wanted: bool | None) -> Part:
    """Return what it takes that the files are those of the wanted value; None and true need none, the kernel filters by itself."""
    before, after = {} if root.text(PARAMETERS) is None else {"bridge_filter": "0"}, {"bridge_filter": "0"} if wanted is False else {}
    told = persisted_changes("", before, after)
    text = HEADER + "".join(f"-{name} = 0\n" for name in SWITCHES.values())
    return together(
        file_part(root, PARAMETERS, text if wanted is False else None, told), file_part(root, RULE, RULE_TEXT if wanted is False else None),
    )  # fmt: skip


def _refuse_foreign(root: Root) -> None:
    for name in SWITCHES.values():
        for path, value in _sysctl.setters(root, name):
            if path != PARAMETERS and value == "1":
                raise KvmError(
                    f"bridge_filter: {path} wants frames on bridges to go through the packet filter (Kubernetes needs it);"
                    " remove that, or leave bridge_filter out"
                )


def give_back(root: Root, found: dict[str, Any]) -> Part:
    """Return what it takes that the switches are as they were found."""
    return together(_kept(root, None), _now(root, {family: value for family, value in found.items() if family in SWITCHES}))


def read(root: Root) -> bool | None:
    """Return whether a switch of the running kernel is on; None while there are none and nothing of ours."""
    running = [root.read(f"/proc/sys/{name.replace('.', '/')}") for name in SWITCHES.values()]
    if not any(running) and root.text(PARAMETERS) is None:
        return None
    return "1" in running
