# SPDX-License-Identifier: GPL-3.0-or-later
"""Our chain in the FORWARD of iptables: what our table let through passes there too.

A packet must be accepted by every base chain of the kernel. Where docker made FORWARD drop by default, or libvirt rejects new connections
into its networks there, our own table cannot overrule that; a chain that is jumped to first can (iptables(8)).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

CHAIN = "ANFITRION_FWD"
JUMP = f"-A FORWARD -j {CHAIN}"
COMMANDS = {"ip": "iptables", "ip6": "ip6tables"}
WAIT = ("-w", "10")  # for the lock that others may hold


def lines(networks: list[dict[str, Any]], family: str) -> list[str]:
    """Return our chain as C(iptables -S) tells it: of libvirt's networks what a forward leads there, of ours everything, judged already."""
    found = []
    for network in networks:
        if family == "ip6" and "subnet6" not in network:
            continue
        bridge = network["bridge"]
        if network["mode"] == "libvirt":
            found.append(f"-A {CHAIN} -o {bridge} -m conntrack --ctstate DNAT -j ACCEPT")
        else:
            found += [f"-A {CHAIN} -i {bridge} -j ACCEPT", f"-A {CHAIN} -o {bridge} -j ACCEPT"]
    return found


def needed(root: Root, networks: list[dict[str, Any]], family: str) -> list[str]:
    """Return the lines of our chain; none where nothing of iptables is in the way of our networks."""
    wanted = lines(networks, family)
    if not wanted:
        return []
    inside = any(network["mode"] == "libvirt" and network.get("forwards") for network in networks)
    state = _said(root, family, "FORWARD")
    return wanted if inside or "-P FORWARD DROP" in state or JUMP in state else []


def part(root: Root, networks: list[dict[str, Any]], family: str) -> Part:
    """Return what it takes that our chain is as it is to be, and jumped to before anything else."""
    command = COMMANDS[family]
    if not _there(root, command):
        return Part()
    wanted = needed(root, networks, family)
    found, forward = _said(root, family, CHAIN), _said(root, family, "FORWARD")
    own = [line for line in found if line.startswith("-A")]
    rules = [line for line in forward if line.startswith("-A")]
    in_place = rules[:1] == [JUMP] and rules.count(JUMP) == 1 if wanted else JUMP not in rules and not found
    if own == wanted and in_place:
        return Part()
    change = Change(f"{command} {CHAIN}", _told(own, rules, bool(found)), _told(wanted, [JUMP], bool(wanted)), LIVE)
    do = partial(load, root, family, wanted, rules.count(JUMP), bool(found))
    undo = partial(load, root, family, own if JUMP in rules else [], int(bool(wanted)), True)
    return Part((change,), (Step(f"have the chain {CHAIN} first in FORWARD of {command}" if wanted else f"take {CHAIN} out of {command}", do, undo),))


def _told(own: list[str], rules: list[str], there: bool) -> Any:
    if not there:
        return None
    return {"rules": own, "first": rules[:1] == [JUMP]}


def load(root: Root, family: str, wanted: list[str], jumps: int, there: bool) -> None:
    """Load our chain and its jump in one transaction; with no lines, take both away."""
    text = ["*filter"]
    text += [f":{CHAIN} - [0:0]"] if wanted or there else []
    text += [f"-D FORWARD -j {CHAIN}"] * jumps
    text += [*wanted, f"-I FORWARD 1 -j {CHAIN}"] if wanted else [f"-X {CHAIN}"] if there else []
    root.must_run([f"{COMMANDS[family]}-restore", *WAIT, "--noflush"], "\n".join([*text, "COMMIT", ""]))


def restore_lines(networks: list[dict[str, Any]], root: Root) -> list[str]:
    """Return the commands of our unit that bring the chain back after a boot or a flush."""
    commands = []
    for family, command in COMMANDS.items():
        wanted = needed(root, networks, family) if _there(root, command) else []
        if wanted:
            wait = " ".join(WAIT)
            commands += [f"-{command} {wait} -N {CHAIN}", f"{command} {wait} -F {CHAIN}"]
            commands += [f"{command} {wait} {line}" for line in wanted]
            commands += [f"-{command} {wait} -D FORWARD -j {CHAIN}", f"{command} {wait} -I FORWARD 1 -j {CHAIN}"]
    return commands


def looks(networks: list[dict[str, Any]], root: Root) -> list[str]:
    """Return the commands that succeed while our chain, where it is needed, is jumped to first."""
    commands = [command for family, command in COMMANDS.items() if _there(root, command) and needed(root, networks, family)]
    return [f'{command} {" ".join(WAIT)} -S FORWARD 1 | grep -qx -e "{JUMP}"' for command in commands]


def refuse_nftables_back_end(root: Root, networks: list[dict[str, Any]]) -> None:
    """Raise KvmError for a forward into a network that libvirt's nftables back end keeps: its reject comes after every accept of others."""
    concerned = [network for network in networks if network["mode"] == "libvirt" and network.get("forwards")]
    done = root.run(["nft", "list", "table", "ip", "libvirt_network"]) if concerned else None
    for network in concerned:
        if done is not None and done.rc == 0 and f'"{network["bridge"]}"' in done.out:
            raise KvmError(
                "forwards: libvirt's nftables back end rejects them whatever other rules say; give the network mode open and mode nat here, "
                'or set firewall_backend = "iptables" in /etc/libvirt/network.conf and restart the daemon'
            )


def _said(root: Root, family: str, chain: str) -> list[str]:
    done = root.run([COMMANDS[family], *WAIT, "-S", chain])
    return done.out.splitlines() if done.rc == 0 else []


def _there(root: Root, command: str) -> bool:
    return any(root.exists(f"{place}/{command}") for place in ("/usr/sbin", "/sbin"))
