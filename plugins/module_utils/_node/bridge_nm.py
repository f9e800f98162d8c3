# SPDX-License-Identifier: GPL-3.0-or-later
"""A bridge by NetworkManager (nm-settings-keyfile(5), nmcli(1)).

The profile of the NIC is left alone. Ours have a higher priority: the NIC's puts it into the bridge, the bridge's has the addresses,
DNS and so on of the profile that the NIC had. The way back is to remove ours. The same goes for what netplan writes for NetworkManager.
"""

from __future__ import annotations

import re
import uuid

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.bridge_networkd import sections
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.bridge_wish import (
    Layout,
    Wish,
    delete_lines,
    runs,
)

DIRECTORY = "/etc/NetworkManager/system-connections"
HEAD = "# managed by anfitrion.kvm: what is changed here by hand is lost\n"
ADDRESSES = ("ipv4", "ipv6", "proxy", "hostname")
OF_THE_LINK = ("ethernet", "802-3-ethernet", "ethtool", "802-1x", "dcb", "link", "match")
SPACE = uuid.UUID("6f0a8a3e-3d6b-4a1e-9d4e-2f6f6b6d6b01")
PRIORITY = "autoconnect-priority=900"
OFF = [("ipv4", ["method=disabled"]), ("ipv6", ["method=disabled"])]


def claims(root: Root, nic: str) -> str | None:
    """Return the profile file by which NetworkManager configures a NIC; an empty text where it would and has none now."""
    if not runs(root, "NetworkManager"):
        return None
    state, _dot, told = root.must_run(["nmcli", "-g", "GENERAL.STATE", "device", "show", nic]).strip().partition(" ")
    if int(state or 0) < 20 or "externally" in told:  # 10: unmanaged
        return None
    active = root.must_run(["nmcli", "-g", "GENERAL.CON-UUID", "device", "show", nic]).strip()
    for line in root.must_run(["nmcli", "-t", "-f", "UUID,FILENAME", "connection", "show"]).splitlines():
        one, _colon, path = line.partition(":")
        if one == active:
            return re.sub(r"\\(.)", r"\1", path)
    return ""


def refuse(root: Root, nic: str, source: str | None) -> None:
    """Raise KvmError where a NIC cannot be moved."""
    if not source:
        return
    parts = sections(root.text(source) or "")
    if not any(name == "connection" for name, _lines in parts):
        raise KvmError(f"ports: {source} is no keyfile of NetworkManager; turn it into one with nmcli connection migrate")
    of = [line for name, lines in parts if name == "connection" for line in lines if re.match(r"(master|controller)=", line)]
    if of:
        raise KvmError(f"ports: {source} has {nic} in something else already ({of[0]}); remove that first")


def source_text(root: Root, source: str) -> str | None:
    """Return a profile; None where there is no such file."""
    return root.text(source)


def iaid(root: Root, nic: str) -> int | None:
    """Return the number by which a DHCP server knows a NIC: it is made of the interface's name, so that a bridge would be another one."""
    told = root.must_run(["nmcli", "-g", "DHCP4.OPTION,DHCP6.OPTION", "device", "show", nic]).replace("\\", "")
    found = re.search(r"\b(?:iaid = |dhcp_client_identifier = ff:)((?:[0-9a-f]{2}:){3}[0-9a-f]{2})", told)
    return int(found[1].replace(":", ""), 16) if found else None


def _addressed(wish: Wish, parts: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Return how the NIC got its addresses, for another interface."""
    found = []
    for name, lines in parts:
        leased = name in ("ipv4", "ipv6") and any(re.match("method=(auto|dhcp)$", line) for line in lines)
        known = any(line.startswith("dhcp-iaid=") for line in lines)
        more = [f"dhcp-iaid={wish.iaid}"] if wish.iaid is not None and leased and not known else []
        found += [(name, [*lines, *more])] if name in ADDRESSES else []
    return found or OFF


def _profile(name: str, kind: str, interface: str, connection: list[str], *parts: tuple[str, list[str]], about: str = "") -> str:
    head = [f"id=anfitrion-{name}", f"uuid={uuid_of(name)}", f"type={kind}", f"interface-name={interface}", PRIORITY, *connection]
    told = [f"[{section}]\n" + "".join(f"{line}\n" for line in lines) for section, lines in (("connection", head), *parts)]
    return HEAD + about + "\n".join(told)


def uuid_of(name: str) -> str:
    return str(uuid.uuid5(SPACE, name))


def files(wish: Wish) -> dict[str, str]:
    """Return every profile of a bridge, text by path."""
    parts = sections(wish.source_text)
    zone = [line for name, lines in parts if name == "connection" for line in lines if line.startswith("zone=")]
    held = _addressed(wish, parts)
    about = f"# The addresses are those of {wish.source}; change them there.\n" if wish.source else ""
    in_bridge = [f"master={wish.name}", "slave-type=bridge"]
    delay = [f"forward-delay={wish.forward_delay_s}"] if wish.forward_delay_s is not None else []
    bridge = ("bridge", [f"mac-address={wish.mac.upper()}", f"stp={str(wish.stp).lower()}", *delay])
    name, here = wish.name, wish.vlan is None
    head = ["autoconnect-slaves=1", *(zone if here else [])]
    found = {name: _profile(name, "bridge", name, head, bridge, *(held if here else OFF), about=about if here else "")}
    if wish.vlan is not None:
        vlan = ("vlan", ["flags=1", f"id={wish.vlan}", f"parent={wish.base}"])
        found[f"{name}-vlan"] = _profile(f"{name}-vlan", "vlan", wish.tagged, in_bridge, vlan)
    if wish.bond:
        bond = ("bond", [f"mode={wish.bond_mode}", f"miimon={wish.bond_miimon}"])
        more = ["autoconnect-slaves=1", *(in_bridge if here else zone)]
        link = ("ethernet", [f"cloned-mac-address={wish.mac.upper()}"])
        found[f"{name}-bond"] = _profile(f"{name}-bond", "bond", wish.base, more, bond, link, *([] if here else held), about="" if here else about)
    if wish.bond or here:
        what = [f"master={wish.base}", "slave-type=bond"] if wish.bond else in_bridge
        for port in wish.ports:
            kept = [(section, lines) for section, lines in parts if section in OF_THE_LINK] if port == wish.source_port else []
            found[f"{name}-{port}"] = _profile(f"{name}-{port}", "ethernet", port, what, *kept)
    return {f"{DIRECTORY}/anfitrion-{one}.nmconnection": text for one, text in found.items()}


def layout(_root: Root, before: Wish | None, wish: Wish | None) -> Layout:
    """Return what takes NetworkManager from one bridge to another, or to none."""
    old = set(files(before)) if before else set()
    new = files(wish) if wish else {}
    changed: dict[str, tuple[str | None, int]] = dict.fromkeys(old - set(new), (None, 0o600))
    changed.update({path: (text, 0o600) for path, text in new.items()})
    reload = ["nmcli", "connection", "reload"]
    if wish is not None:
        ups = [["nmcli", "--wait", "60", "connection", "up", uuid_of(one)] for one in _order(wish)]
        if before is not None:
            reapply = ["nmcli", "device", "reapply", wish.holder]
            return Layout(changed, (), (reload, reapply), (), (" ".join(reload), " ".join(reapply)))
        back = (*delete_lines(wish.made), *_old_up(wish))
        return Layout(changed, (), (reload, *ups), (), ("nmcli connection reload", *back))
    if before is None:
        raise AssertionError("from no bridge to no bridge there is no way")
    up = _old_up(before)
    ours = tuple(f"nmcli --wait 60 connection up {uuid_of(one)}" for one in _order(before))
    return Layout(changed, (), (reload, *(["sh", "-c", line] for line in up)), (), ("nmcli connection reload", *ours))


def _order(wish: Wish) -> list[str]:
    """Return the profiles in the order in which they come up: what has the addresses last but its ports, which it takes along."""
    tops = [wish.name, *([f"{wish.name}-bond"] if wish.bond else []), *([f"{wish.name}-vlan"] if wish.vlan is not None else [])]
    return [*tops, *([f"{wish.name}-{port}" for port in wish.ports] if wish.bond or wish.vlan is None else [])]


def _old_up(wish: Wish) -> tuple[str, ...]:
    """Return the line that has the NIC's own profile again."""
    if not wish.source:
        return ()
    found = [line[len("uuid=") :] for name, lines in sections(wish.source_text) if name == "connection" for line in lines if line.startswith("uuid=")]
    return tuple(f"nmcli --wait 60 connection up {one} ifname {wish.source_port}" for one in found)
