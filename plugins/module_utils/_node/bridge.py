# SPDX-License-Identifier: GPL-3.0-or-later
"""Bridges of the host onto its LAN, with the way back armed before anything is changed: the Kind of kvm_bridge."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import (
    bridge_ifupdown,
    bridge_networkd,
    bridge_nm,
    bridge_wish,
    deadman,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part, file_part, joined
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Argv, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.bridge_wish import Layout, Live, Wish
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.bridge import BRIDGE, TIMEOUT

KEPT = "/etc/anfitrion.d/bridges.json"
NETWORK = "network"  # the name of what is armed: one change of the host's network at a time
MANAGERS: dict[str, Any] = {"ifupdown": bridge_ifupdown, "networkd": bridge_networkd, "networkmanager": bridge_nm}
OPTIONS = ("ports", "bond", "vlan", "stp", "forward_delay_s", "manager")
SHAPE = ("ports", "bond", "vlan", "manager")  # what a bridge is made of
NET = "/sys/class/net"
PORTS_OF_GUESTS = "take what is on it away first: guests, and networks of libvirt"


@dataclass(frozen=True)
class Host:
    """The host, and the seconds that a change has to be confirmed in."""

    root: Root
    timeout_s: int

    def close(self) -> None:
        self.root.close()


def open_host(params: Mapping[str, Any], check: bool) -> Host:
    """Return the host itself."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the connection may end under the task, which must go on
    return Host(Root(check=check), params.get("timeout_s") or TIMEOUT.default)


def plan(host: Host, wanted: dict[str, Any]) -> Plan:
    """Return what it takes that a bridge is as wanted; writes nothing."""
    root, name = host.root, wanted["name"]
    known = kept(root)
    before = known.get(name)
    if wanted.get("state") == "absent":
        return _absent(host, name, known) if before else _nothing(root, name)
    options = _options(root, wanted, before)
    manager = MANAGERS[options["manager"]]
    wish = _wish(root, options, before)
    changes = [Change(one, (before or {}).get(one), options.get(one), LIVE) for one in OPTIONS if (before or {}).get(one) != options.get(one)]
    missing = [] if before is None else _missing(root, wish)
    changes += missing
    creating = before is None or any(change.option in ("bridge", "members") for change in missing)
    if creating and before is None:
        for port in wish.ports:
            _refuse_port(root, port, wish)
            manager.refuse(root, port, wish.source if port == wish.source_port else None)
    layout = manager.layout(root, None if creating else wish_of(before or {}), wish)
    record = {**options, "mac": wish.mac, "source": wish.source, "source_port": wish.source_port, "source_text": wish.source_text, "iaid": wish.iaid}
    after = {**known, name: {key: value for key, value in record.items() if value is not None}}
    devices = (*wish.ports, *wish.made) if creating else ()
    holders = (wish.holder, *wish.ports) if creating else (wish.holder,)
    return _planned(host, changes, layout, after, _Move(wish, True, devices, holders), options["manager"])


def _absent(host: Host, name: str, known: dict[str, dict[str, Any]]) -> Plan:
    """Return what it takes that a bridge of ours is gone and its NIC is as it was."""
    root, entry = host.root, known[name]
    wish = wish_of(entry)
    others = [one for one in root.list(f"{NET}/{name}/brif") if one not in wish.members]
    if others:
        raise KvmError(f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} on the bridge; {PORTS_OF_GUESTS}")
    layout = MANAGERS[entry["manager"]].layout(root, wish, None)
    after = {one: value for one, value in known.items() if one != name}
    changes = [Change("state", "present", "absent", LIVE)]
    move = _Move(wish, False, (*wish.ports, *wish.made), (wish.holder, *wish.ports))
    return _planned(host, changes, layout, after, move, entry["manager"])


def _nothing(root: Root, name: str) -> Plan:
    if root.exists(f"{NET}/{name}"):
        raise KvmError(f"{name} is there and was not made with anfitrion.kvm.kvm_bridge; remove it where it was made")
    return Plan(f"bridge {name}")


@dataclass(frozen=True)
class _Move:
    """What is looked at after a change. there: the bridge is to be there. devices: whose live state is kept; holders: who may have had addresses."""

    wish: Wish
    there: bool
    devices: tuple[str, ...]
    holders: tuple[str, ...]


def _planned(host: Host, changes: list[Change], layout: Layout, after: dict[str, Any], move: _Move, manager: str) -> Plan:
    """Return the plan: arm the way back, change files, have them taken up, see that all is there."""
    root, name = host.root, move.wish.name
    text = json.dumps({"bridges": [after[one] for one in sorted(after)]}, indent=1, sort_keys=True) + "\n" if after else None
    parts = [file_part(root, path, content, changes, mode) for path, (content, mode) in sorted(layout.files.items())]
    parts.append(file_part(root, KEPT, text, changes, 0o600))
    if not changes and not any(part.steps for part in parts):
        return Plan(f"bridge {name}", facts={"manager": manager})
    deadman.refuse_armed(root, NETWORK)
    live = bridge_wish.live(root, dict.fromkeys([*move.devices, *move.holders]))
    restore = deadman.Restore(
        tuple(path for path, part in zip([*sorted(layout.files), KEPT], parts) if part.steps),
        layout.taken_back_before, (*layout.taken_back_after, *live.lines()), layout.boot,
    )  # fmt: skip
    token = "" if root.check else deadman.new_token(NETWORK)  # check mode arms nothing
    do = partial(deadman.arm, root, token, restore, host.timeout_s)
    arm = Step(f"have the host's network put back in {host.timeout_s} s unless that is confirmed", do, partial(deadman.take_back, root, token))
    doing = [Step(f"run {' '.join(argv)}", partial(root.do, argv), _by_the_first) for argv in layout.before]
    writing = [Step(step.sentence, step.do, _by_the_first) for part in parts for step in part.steps]
    done = [Step(f"run {' '.join(argv)}", partial(root.do, argv), _by_the_first) for argv in layout.after]
    if move.there:
        words = ["ip", "link", "set", "dev", name, "type", "bridge", *bridge_wish.bridge_words(move.wish)]
        done.append(Step(f"run {' '.join(words)}", partial(_when_there, root, name, words), _by_the_first))
    arrived = partial(_arrived, root, live, move, (host.timeout_s * 0.6, layout.again))
    see = Step("see that addresses and routes are where they are to be", arrived, _by_the_first)
    told = joined(f"bridge {name}", [Part(tuple(changes)), *parts])
    shown = tuple({repr(change): change for change in told.changes}.values())
    confirm = {} if not token else {"confirm": {"token": token, "seconds": host.timeout_s}}
    return Plan(f"bridge {name}", shown, (arm, *doing, *writing, *done, see), facts={"manager": manager, **confirm})


def _by_the_first() -> None:
    """Do nothing: the way back of the first step puts all back at once."""


def _when_there(root: Root, name: str, words: list[str]) -> None:
    """Tell the kernel what the bridge is like, once the manager has made it."""
    end = time.monotonic() + 30
    while not root.exists(f"{NET}/{name}/bridge") and time.monotonic() < end:
        time.sleep(0.1)
    root.do(words)


def _arrived(root: Root, live: Live, move: _Move, wait: tuple[float, tuple[Argv, ...]]) -> None:
    """Wait until everything is where it is to be. Raises KvmError that says what is not.

    wait: the seconds, and commands that are run once after a third of them.
    """
    seconds, again = wait
    start = time.monotonic()
    while (lack := _lack(root, live, move)) and time.monotonic() < start + seconds:
        if time.monotonic() > start + seconds / 3:
            for argv in again:
                root.run(argv)
            again = ()
        time.sleep(0.25)
    if lack:
        raise KvmError(f"{lack} after {seconds:.0f} s")


def _lack(root: Root, live: Live, move: _Move) -> str | None:
    wish = move.wish
    holder = wish.holder if move.there else wish.source_port or wish.ports[0]
    if move.there and _missing(root, wish):
        return "; ".join(f"{change.option}: {change.after!r} asked, {change.before!r} there" for change in _missing(root, wish))
    left = [link for link in wish.made if root.exists(f"{NET}/{link}")]
    if not move.there and left:
        return f"{', '.join(left)} is still there"
    now = bridge_wish.live(root, [holder])
    addresses = sorted(live.kept(move.holders) - now.kept([holder]))
    if addresses:
        return f"{holder} has not got {', '.join(addresses)}"
    gateways = sorted(live.gateways(move.holders) - now.gateways([holder]))
    return f"{holder} has no default route by {', '.join(gateways)}" if gateways else None


def _options(root: Root, wanted: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """Return the options of a bridge with the wanted ones over what is known of it, and its manager."""
    told = {key: (before or {})[key] for key in ("name", *OPTIONS) if key in (before or {})}
    given = {key: value for key, value in wanted.items() if key != "state"}
    if before is not None:
        if "bond" in given and "bond" in before:
            given["bond"] = {**before["bond"], **given["bond"]}
        for option in SHAPE:
            if option in given and given[option] != before.get(option):
                raise KvmError(f"{option}: a bridge that is there is not made of something else; take it away with state: absent first")
    options = {**told, **given}
    options.setdefault("stp", False)
    if not options.get("ports"):
        raise KvmError("ports: must be given when a bridge is first named")
    if "forward_delay_s" in options and not options["stp"]:
        raise KvmError("forward_delay_s: needs stp; without it a port forwards at once")
    if options.get("vlan") is not None and not options.get("bond") and len(options["ports"]) > 1:
        raise KvmError("vlan: needs one port, or a bond of them")
    if before is None:
        for port in options["ports"]:
            _refuse_unfit(root, options["name"], port)
        options["manager"] = _manager(root, options["ports"], options.get("manager"))
    return options


def _refuse_unfit(root: Root, name: str, port: str) -> None:
    """Raise KvmError for what cannot be in a bridge at all."""
    if not root.exists(f"{NET}/{port}"):
        there = ", ".join(one for one in root.list(NET) if root.exists(f"{NET}/{one}/device")) or "none"
        raise KvmError(f"ports: this host has no interface {port}; its NICs: {there}")
    if root.read(f"{NET}/{port}/type") != "1":
        raise KvmError(f"ports: {port} is no Ethernet interface")
    if root.exists(f"{NET}/{port}/wireless") or root.exists(f"{NET}/{port}/phy80211"):
        raise KvmError(f"ports: {port} is a Wi-Fi interface, whose access point takes frames of no other sender; use a network of mode nat or routed")
    if root.exists(f"{NET}/{port}/bridge"):
        raise KvmError(f"ports: {port} is a bridge itself")
    master = root.link(f"{NET}/{port}/master")
    if master and master != name:
        kind = "the bridge" if root.exists(f"{NET}/{master}/bridge") else "the bond" if root.exists(f"{NET}/{master}/bonding") else "the link"
        raise KvmError(f"ports: {port} is in {kind} {master} already")


def _refuse_port(root: Root, port: str, wish: Wish) -> None:
    """Raise KvmError for a port that has what would be lost, or whose new neighbours are there."""
    for link in wish.made:
        if len(link) > 15:
            raise KvmError(f"vlan: the name {link} is longer than the 15 characters that the kernel takes; use a bond with a short name")
        if root.exists(f"{NET}/{link}"):
            raise KvmError(f"{link} is there and was not made with anfitrion.kvm.kvm_bridge; remove it where it was made, or choose another name")
    addresses = sorted(bridge_wish.live(root, [port]).kept([port]))
    moved = wish.vlan is None or wish.bond is not None
    if addresses and moved and port != wish.source_port:
        whose = f"those of {wish.source_port} move to {wish.holder}" if wish.source_port else "nothing that its manager reads says them"
        raise KvmError(f"ports: {port} has {', '.join(addresses)}, and {whose}; have it without addresses first")


def owners(root: Root, nic: str) -> dict[str, str]:
    """Return who configures a NIC, with the file by which they do: what their daemons and files say, never a guess."""
    found = {name: module.claims(root, nic) for name, module in MANAGERS.items()}
    return {name: path for name, path in found.items() if path is not None}


def _manager(root: Root, ports: list[str], said: str | None) -> str:
    """Return who is to configure a bridge. Raises KvmError where nobody or more than one claims its ports and the task does not say who."""
    found = {port: owners(root, port) for port in ports}
    names = sorted({name for claimed in found.values() for name in claimed})
    if said and (said in names or not names):
        return said
    who = "; ".join(f"{name} has {port}{f' by {path}' if path else ''}" for port, claimed in found.items() for name, path in claimed.items())
    if said:
        raise KvmError(f"manager: {said} does not configure {', '.join(ports)}: {who}")
    if not names:
        raise KvmError(f"manager: none of {', '.join(MANAGERS)} configures {', '.join(ports)} now; say which of them is to")
    if len(names) > 1:
        raise KvmError(f"manager: {who}; two would take turns: take it from one of them, or say which is to have it")
    return names[0]


def _wish(root: Root, options: dict[str, Any], before: dict[str, Any] | None) -> Wish:
    """Return the bridge that the options mean."""
    manager = MANAGERS[options["manager"]]
    if before is not None:
        wish = wish_of({**before, **options})
        text = manager.source_text(root, wish.source) if wish.source else None
        return wish if text is None else replace(wish, source_text=text)
    claimed = {port: manager.claims(root, port) for port in options["ports"]}
    source_port = next((port for port, path in claimed.items() if path), None)
    source = claimed[source_port] if source_port else None
    text = manager.source_text(root, source) if source else ""
    if text is None:
        raise KvmError(f"ports: {options['manager']} has {source_port} by {source}, which is not there; have it read its configuration again")
    mac = root.read(f"{NET}/{options['ports'][0]}/address")
    iaid = manager.iaid(root, source_port) if source_port else None
    return wish_of({**options, "mac": mac, "source": source, "source_port": source_port, "source_text": text, "iaid": iaid})


def wish_of(entry: Mapping[str, Any]) -> Wish:
    """Return the bridge of what is kept of it."""
    return Wish(
        entry["name"], tuple(entry["ports"]), entry["mac"], entry.get("bond"), entry.get("vlan"), bool(entry.get("stp")),
        entry.get("forward_delay_s"), entry.get("source"), entry.get("source_port"), entry.get("source_text", ""), entry.get("iaid"),
    )  # fmt: skip


def _missing(root: Root, wish: Wish) -> list[Change]:
    """Return what the kernel has otherwise."""
    place = f"{NET}/{wish.name}/bridge"
    if not root.exists(place):
        return [Change("bridge", "absent", "present", LIVE)]
    apart = [member for member in wish.members if root.link(f"{NET}/{member}/master") != wish.name]
    found = [Change("members", sorted(set(wish.members) - set(apart)), sorted(wish.members), LIVE)] if apart else []
    if bool(root.number(f"{place}/stp_state")) != wish.stp:
        found.append(Change("stp", bool(root.number(f"{place}/stp_state")), wish.stp, LIVE))
    delay = (root.number(f"{place}/forward_delay") or 0) // 100
    if wish.forward_delay_s is not None and delay != wish.forward_delay_s:
        found.append(Change("forward_delay_s", delay, wish.forward_delay_s, LIVE))
    return found


def kept(root: Root) -> dict[str, dict[str, Any]]:
    """Return what is known of the bridges that were made here, by name."""
    try:
        bridges = json.loads(root.read(KEPT) or "{}").get("bridges", [])
    except ValueError:
        raise KvmError(f"{KEPT}: is no JSON any more, so nothing tells how the NICs were before; put it right by hand") from None
    return {bridge["name"]: bridge for bridge in bridges}


def read(host: Host, name: str | None) -> list[dict[str, Any]]:
    """Return the bridges that were made here, as the module takes them."""
    return [{key: one[key] for key in ("name", *OPTIONS) if key in one} for one in kept(host.root).values() if name in (None, one["name"])]


def facts(host: Host) -> dict[str, Any]:
    """Return who configures each NIC, and what became of the last change."""
    root = host.root
    nics = [
        {"name": nic, "owners": owners(root, nic), "master": root.link(f"{NET}/{nic}/master")}
        for nic in root.list(NET)
        if root.read(f"{NET}/{nic}/type") == "1" and not root.exists(f"{NET}/{nic}/bridge")
    ]
    last = deadman.state(root, NETWORK)
    return {"nics": nics, "last_change": vars(last) if last else None}


BRIDGES = Kind(table=BRIDGE, plural=None, key=("name",), open=open_host, plan=plan, read=read, options=(TIMEOUT,))
BRIDGES_TOLD = replace(BRIDGES, plural="bridges", facts=facts)
