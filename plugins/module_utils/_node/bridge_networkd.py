# SPDX-License-Identifier: GPL-3.0-or-later
"""A bridge by systemd-networkd (systemd.network(5), systemd.netdev(5)).

The file that a NIC is configured by is left alone. Ours come before it in the order of names: the NIC gets one that puts it into
the bridge, the bridge a copy of what the NIC had. So nothing is lost that networkd knows and we do not, and the way back is to
remove ours. The same goes for what netplan writes for networkd.
"""

from __future__ import annotations

import os
import re

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.bridge_wish import (
    Layout,
    Wish,
    delete_lines,
    index,
    runs,
)

DIRECTORY = "/etc/systemd/network"
DIRECTORIES = ("/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network", "/lib/systemd/network")
OURS = "00-anfitrion-"
UPPER = r"(VLAN|MACVLAN|MACVTAP|IPVLAN|IPVTAP|VXLAN|MACsec|Tunnel|Xfrm)\s*="  # what lies on a NIC stays on it


def claims(root: Root, nic: str) -> str | None:
    """Return the file by which networkd configures a NIC; None where it leaves it alone.

    It is networkd's own record, from which networkctl tells the same.
    """
    told = _record(root, "links", nic)
    if told.get("ADMIN_STATE", "unmanaged") == "unmanaged" or not runs(root, "systemd-network"):
        return None
    return told.get("NETWORK_FILE") or None


def _record(root: Root, kind: str, nic: str) -> dict[str, str]:
    text = root.text(f"/run/systemd/netif/{kind}/{index(root, nic)}") or ""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def iaid(root: Root, nic: str) -> int | None:
    """Return the number by which a DHCP server knows a NIC: networkd makes it of the interface's name, so that a bridge would be another one.

    Of a client identifier of RFC 4361 it is the four bytes after the type, 255.
    """
    found = re.fullmatch(r"ff([0-9a-f]{8})[0-9a-f]+", _record(root, "leases", nic).get("CLIENTID", ""))
    return int(found[1], 16) if found else None


def refuse(root: Root, nic: str, source: str | None) -> None:
    """Raise KvmError where a NIC cannot be moved."""
    name = os.path.basename(source or "")
    if name and name < OURS and not name.startswith(OURS):
        raise KvmError(f"ports: {source} configures {nic} and comes before our files in the order of names; rename it to 10-{name} first")
    for line in (source_text(root, source) or "").splitlines() if source else []:
        if re.match(r"\s*(Bridge|Bond)\s*=", line):
            raise KvmError(f"ports: {source} has {nic} in something else already ({line.strip()}); remove that first")


def source_text(root: Root, source: str) -> str | None:
    """Return a file with its drop-ins, in the order in which networkd reads them; None where there is no such file."""
    text = root.text(source)
    if text is None:
        return None
    found: dict[str, str] = {}
    for directory in DIRECTORIES:
        place = f"{directory}/{os.path.basename(source)}.d"
        for file in root.list(place):
            if file.endswith(".conf") and not file.startswith("anfitrion-"):
                found.setdefault(file, f"{place}/{file}")
    return "\n".join([text, *(root.text(found[file]) or "" for file in sorted(found))])


def sections(text: str) -> list[tuple[str, list[str]]]:
    """Return the sections of a file in order, each with its lines; comments and blank lines are left out."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        head = re.fullmatch(r"\s*\[([^\]]+)\]\s*", line)
        if head:
            found.append((head[1], []))
        elif line.strip() and not line.lstrip().startswith(("#", ";")) and found:
            found[-1][1].append(line.strip())
    return found


def _file(*parts: tuple[str, list[str]], about: str = "") -> str:
    told = [f"[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in parts if lines]
    return HEADER + about + "\n".join(told)


def _held(wish: Wish, source: str | None, text: str, more: list[str]) -> str:
    """Return the file of what has the addresses now: the NIC's own, for another interface."""
    kept = [(name, _without(lines, UPPER if name == "Network" else "MACAddress" if name == "Link" else None)) for name, lines in sections(text)]
    kept = [part for part in kept if part[0] not in ("Match", "SR-IOV")]
    for protocol in ("DHCPv4", "DHCPv6") if wish.iaid is not None else ():
        if not any(line.startswith("IAID") for name, lines in kept if name == protocol for line in lines):
            kept.append((protocol, [f"IAID={wish.iaid}"]))
    if not source:
        kept = [("Network", ["LinkLocalAddressing=no", "IPv6AcceptRA=no"])]
    about = f"# The rest is that of {source}; change it there.\n" if source else ""
    return _file(("Match", [f"Name={wish.holder}"]), *kept, ("Network", more), about=about)


def _without(lines: list[str], pattern: str | None) -> list[str]:
    return [line for line in lines if pattern is None or not re.match(pattern, line)]


def _port(nic: str, text: str, what: str) -> str:
    """Return the file of a NIC that is in something: what is of the link stays with it, and what lies on it."""
    parts = sections(text)
    link = [("Link", lines) for name, lines in parts if name == "Link"] + [(name, lines) for name, lines in parts if name == "SR-IOV"]
    upper = [line for name, lines in parts if name == "Network" for line in lines if re.match(UPPER, line)]
    return _file(("Match", [f"Name={nic}"]), *link, ("Network", [what, *upper, "LinkLocalAddressing=no", "IPv6AcceptRA=no"]))


def files(wish: Wish) -> dict[str, str]:
    """Return every file of a bridge, text by path."""
    stem, text = f"{DIRECTORY}/{OURS}{wish.name}", wish.source_text
    delay = [f"ForwardDelaySec={wish.forward_delay_s}"] if wish.forward_delay_s is not None else []
    bridge = [f"Name={wish.name}", "Kind=bridge", f"MACAddress={wish.mac}"]
    found = {f"{stem}.netdev": _file(("NetDev", bridge), ("Bridge", [f"STP={_yes(wish.stp)}", *delay]))}
    in_bridge, on_bond = f"Bridge={wish.name}", f"Bond={wish.base}"
    if wish.vlan is None:
        found[f"{stem}.network"] = _held(wish, wish.source, text, [])
    else:
        found[f"{stem}.network"] = _file(("Match", [f"Name={wish.name}"]), ("Network", ["LinkLocalAddressing=no", "IPv6AcceptRA=no"]))
        found[f"{stem}-vlan.netdev"] = _file(("NetDev", [f"Name={wish.tagged}", "Kind=vlan"]), ("VLAN", [f"Id={wish.vlan}"]))
        found[f"{stem}-vlan.network"] = _port(wish.tagged, "", in_bridge)
    if wish.bond:
        found[f"{stem}-bond.netdev"] = _file(
            ("NetDev", [f"Name={wish.base}", "Kind=bond", f"MACAddress={wish.mac}"]),
            ("Bond", [f"Mode={wish.bond_mode}", f"MIIMonitorSec={wish.bond_miimon}ms"]),
        )
        upper = [f"VLAN={wish.tagged}"]
        found[f"{stem}-bond.network"] = _port(wish.base, "", in_bridge) if wish.vlan is None else _held(wish, wish.source, text, upper)
    if wish.bond or wish.vlan is None:
        ports = {port: _port(port, text if port == wish.source_port else "", on_bond if wish.bond else in_bridge) for port in wish.ports}
        found.update({f"{stem}-port-{port}.network": content for port, content in ports.items()})
    elif wish.source:  # the NIC stays as it is, with one line more
        found[f"{DIRECTORY}/{os.path.basename(wish.source)}.d/anfitrion-{wish.name}.conf"] = _file(("Network", [f"VLAN={wish.tagged}"]))
    else:
        found[f"{stem}-port-{wish.base}.network"] = _port(wish.base, "", f"VLAN={wish.tagged}")
    return found


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def layout(root: Root, before: Wish | None, wish: Wish | None) -> Layout:
    """Return what takes networkd from one bridge to another, or to none."""
    old = set(files(before)) if before else set()
    new = files(wish) if wish else {}
    changed: dict[str, tuple[str | None, int]] = dict.fromkeys(old - set(new), (None, 0o644))
    changed.update({path: (text, 0o644) for path, text in new.items()})
    reload = "networkctl reload || systemctl restart systemd-networkd"
    if wish is not None:
        # It makes an interface anew that somebody removed only when it starts, or when it finds another file.
        same = all(root.text(path) == text for path, text in new.items())
        after = ["systemctl", "restart", "systemd-networkd"] if same else ["networkctl", "reload"]
        back = tuple(f"networkctl reconfigure {port} || true" for port in wish.ports)
        return Layout(changed, (), (after,), (), (*(delete_lines(wish.made) if before is None else ()), reload, *back),
                      again=(["networkctl", "reconfigure", wish.holder],))  # fmt: skip
    if before is None:
        raise AssertionError("from no bridge to no bridge there is no way")
    gone = tuple(["sh", "-c", line] for line in delete_lines(before.made))
    again = (["networkctl", "reconfigure", *before.ports],) if before.source else ()
    return Layout(changed, (), (*gone, ["networkctl", "reload"], *again), (), (reload,), again=again)
