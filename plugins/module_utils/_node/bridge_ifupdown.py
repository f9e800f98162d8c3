# SPDX-License-Identifier: GPL-3.0-or-later
"""A bridge by ifupdown (interfaces(5)), with nothing but ip(8): Debian's bridge-utils, vlan and ifenslave need not be there.

ifupdown has one stanza for an interface, so those of the NIC are put out of action by a mark before each line, and a block at the end of
/etc/network/interfaces has the bridge with what they said. The way back is to take the marks and the block away.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.bridge_wish import (
    Layout,
    Wish,
    bridge_words,
    delete_lines,
)

MAIN = "/etc/network/interfaces"
STANZA = re.compile(r"\s*(iface|mapping|auto|allow-\S+|no-auto-down|no-scripts|source|source-directory|rename|template)\b")
HOOK = re.compile(r"\s*(pre-up|up|post-up|down|pre-down|post-down)\b")


@dataclass(frozen=True)
class Stanza:
    """The lines of one iface stanza in a file, and what it says of which interface."""

    file: str
    first: int
    lines: tuple[str, ...]
    interface: str

    def option(self, name: str) -> str | None:
        return next((match[1] for line in self.lines if (match := re.match(rf"\s*{name}\s+(\S+)", line))), None)


def texts(root: Root) -> dict[str, str]:
    """Return the text of every file that ifupdown reads, by path, the main one first."""
    found: dict[str, str] = {}
    waiting = [MAIN]
    while waiting:
        path = waiting.pop(0)
        text = root.text(path)
        if text is None or path in found:
            continue
        found[path] = text
        for kind, pattern in re.findall(r"^\s*(source|source-directory)\s+(\S+)", text, re.MULTILINE):
            place = os.path.join(os.path.dirname(path), pattern)
            if kind == "source-directory":
                waiting += [f"{place}/{file}" for file in root.list(place) if re.fullmatch(r"[A-Za-z0-9_-]+", file)]
            else:
                waiting += [f"/{os.path.relpath(one, root.path)}" for one in sorted(glob.glob(root.at(place))) if os.path.isfile(one)]
    return found


def stanzas(root: Root, interface: str) -> list[Stanza]:
    """Return the stanzas of an interface."""
    found = []
    for file, text in texts(root).items():
        lines = text.splitlines()
        heads = [n for n, line in enumerate(lines) if STANZA.match(line) and not (n and lines[n - 1].endswith("\\"))]
        for place, first in enumerate(heads):
            words = lines[first].split()
            if words[0] == "iface" and words[1:2] == [interface]:
                end = heads[place + 1] if place + 1 < len(heads) else len(lines)
                while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
                    end -= 1  # what stands before the next stanza belongs to that
                found.append(Stanza(file, first, tuple(lines[first:end]), interface))
    return found


def claims(root: Root, nic: str) -> str | None:
    """Return the file in which ifupdown has the NIC."""
    if not root.exists("/sbin/ifup") and not root.exists("/usr/sbin/ifup"):
        return None
    found = stanzas(root, nic)
    return found[0].file if found else None


def source_text(_root: Root, _source: str) -> str | None:
    """Return nothing: the stanzas of the NIC stay in the file that they are in."""
    return ""


def iaid(_root: Root, _nic: str) -> int | None:
    """Return None: the clients that ifupdown starts are known by the MAC address, or by what their own configuration says."""
    return None


def refuse(root: Root, nic: str, source: str | None) -> None:
    """Raise KvmError where a NIC cannot be moved."""
    if root.exists("/usr/share/ifupdown2"):
        raise KvmError("manager: this host has ifupdown2, which reads the same files in another way; make the bridge there")
    if root.text(MAIN) is None:
        raise KvmError(f"manager: {MAIN} is not there, so ifupdown does not run this host's network")
    for stanza in stanzas(root, nic) if source else []:
        for line in stanza.lines[1:]:
            if HOOK.match(line) and re.search(rf"\b{re.escape(nic)}\b", line) and re.search(r"\b(ip|route)\b", line):
                raise KvmError(f"ports: {stanza.file} has {line.strip()!r}, which would be wrong once the bridge has the addresses; say $IFACE there")
            if re.match(r"\s*(bond|bridge)[-_]", line):
                raise KvmError(f"ports: {stanza.file} has {nic} in something else already ({line.strip()}); remove that first")


def files(root: Root, wish: Wish) -> dict[str, str]:
    """Return what every file is to be once the bridge is there, from files without it."""
    found = dict(texts(root))
    moved = wish.vlan is None or wish.bond is not None
    taken: list[Stanza] = []
    for port in wish.ports if moved else ():
        taken += stanzas(root, port)
    for file in {stanza.file for stanza in taken}:
        lines = found[file].splitlines()
        for stanza in taken:
            if stanza.file == file:
                for number in range(stanza.first, stanza.first + len(stanza.lines)):
                    lines[number] = f"{_mark(wish.name)}{lines[number]}"
        found[file] = "".join(f"{line}\n" for line in lines)
    found[MAIN] = f"{found[MAIN]}{_block(wish, taken)}"
    return found


def _mark(name: str) -> str:
    return f"#anfitrion-{name}# "


def without(root: Root, name: str) -> dict[str, str]:
    """Return what every file is without the bridge: without its block and its marks."""
    begin, end = (re.escape(line) for line in _ends(name))
    found = {}
    for path, text in texts(root).items():
        bare = re.sub(rf"^{begin}\n.*?^{end}\n", "", text, flags=re.MULTILINE | re.DOTALL)
        found[path] = re.sub(rf"^{re.escape(_mark(name))}", "", bare, flags=re.MULTILINE)
    return found


def _ends(name: str) -> tuple[str, str]:
    return f"# anfitrion.kvm {name}: what is changed from here by hand is lost", f"# anfitrion.kvm {name}: end"


def _block(wish: Wish, taken: list[Stanza]) -> str:
    """Return the stanzas of a bridge. The NICs stay in the hands of ifupdown, for their auto and allow-hotplug lines are still there."""
    begin, end = _ends(wish.name)
    names = sorted({stanza.interface for stanza in taken})
    lines = [begin]
    for port in names:
        # One that comes late, as allow-hotplug has it, goes into what is there by then.
        above = wish.base if wish.bond else wish.name
        lines += [f"iface {port} inet manual", f"\tup [ ! -e /sys/class/net/{above} ] || ip link set dev {port} master {above}"]
        lines += [f"\tup ip link set dev {port} up"]
    held = [stanza for stanza in taken if stanza.interface == wish.source_port]
    mtu = next((stanza.option("mtu") for stanza in held if stanza.option("mtu")), None)
    make, drop = _hooks(wish, mtu)
    lines += [f"auto {wish.name}", f"iface {wish.name} inet manual", *(f"\tpre-up {line}" for line in make)]
    if wish.vlan is None:
        lines += _renamed(held, wish.name)
    elif wish.bond:
        lines += [f"auto {wish.base}", *_renamed(held, wish.base)]
    lines += [f"\tpost-down {line}" for line in drop] if wish.vlan is None or not held else []
    return "".join(f"{line}\n" for line in [*lines, end])


def _renamed(held: list[Stanza], name: str) -> list[str]:
    return [re.sub(r"^(\s*iface\s+)\S+", rf"\g<1>{name}", line) if n == 0 else line for stanza in held for n, line in enumerate(stanza.lines)]


def _hooks(wish: Wish, mtu: str | None) -> tuple[list[str], list[str]]:
    """Return the commands that make what a bridge consists of, each of which does nothing where it is there, and those that remove it."""

    def absent(name: str) -> str:
        return f"[ -e /sys/class/net/{name} ] ||"

    make = [f"{absent(wish.name)} ip link add name {wish.name} address {wish.mac} type bridge {' '.join(bridge_words(wish))}"]
    make += [f"ip link set dev {port} mtu {mtu}" for port in wish.ports if mtu]
    if wish.bond:
        bond = f"{absent(wish.base)} ip link add name {wish.base} address {wish.mac} type bond mode {wish.bond_mode} miimon {wish.bond_miimon}"
        make.append(bond)
        for port in wish.ports:  # a bond takes only what is down
            make.append(f"[ -e /sys/class/net/{port}/master ] || {{ ip link set dev {port} down; ip link set dev {port} master {wish.base}; }}")
    make += [f"ip link set dev {port} up" for port in wish.ports]
    if wish.bond:
        make.append(f"ip link set dev {wish.base} up")
    if wish.vlan is not None:
        make.append(f"{absent(wish.tagged)} ip link add link {wish.base} name {wish.tagged} type vlan id {wish.vlan}")
        make.append(f"ip link set dev {wish.tagged} up")
    make += [f"ip link set dev {member} master {wish.name}" for member in wish.members]
    make.append(f"ip link set dev {wish.name} up")
    return make, [f"ip link delete dev {link}" for link in wish.made]


def layout(root: Root, before: Wish | None, wish: Wish | None) -> Layout:
    """Return what takes ifupdown from one bridge to another, or to none."""
    one = wish or before
    if one is None:
        raise AssertionError("from no bridge to no bridge there is no way")
    bare = without(root, one.name)
    new = bare if wish is None else files(_Texts(root, bare), wish)
    changed: dict[str, tuple[str | None, int]] = {path: (text, root.mode(path) or 0o644) for path, text in new.items()}
    nics = [port for port in one.ports if stanzas(_Texts(root, bare), port)]
    down = [["ifdown", "--force", port] for port in nics]
    up = [["ifup", "--force", port] for port in nics]
    upper = [one.name, *([one.base] if one.bond and one.vlan is not None and one.source else [])]
    if wish is not None and before is not None:
        return Layout(changed)  # what else differs is told to the kernel
    flush = [["ip", "address", "flush", "dev", port, "scope", "global"] for port in one.ports if one.bond or one.vlan is None]
    if wish is not None:
        downs = (*(f"ifdown --force {name}" for name in upper), *delete_lines(wish.made))
        ups = tuple(f"ifdown --force {port}; ifup --force {port}" for port in nics)
        moving = (*down, *flush) if wish.vlan is None or wish.bond else ()
        raising = tuple(["ifup", "--force", name] for name in [*(nics if moving else []), *upper])
        return Layout(changed, tuple(moving), raising, downs, ups if moving else ())
    lower = tuple(["ifdown", "--force", name] for name in reversed(upper))
    gone = [["sh", "-c", line] for line in delete_lines(one.made)]
    moving_back = one.vlan is None or one.bond is not None
    return Layout(
        changed,
        (*lower, *gone),
        tuple(up) if moving_back else (),
        tuple(f"ifdown --force {port}" for port in nics) if moving_back else (),
        tuple(f"ifup --force {name}" for name in [*(nics if moving_back else []), *upper]),
    )


class _Texts(Root):
    """The host with other texts in some files."""

    def __init__(self, root: Root, held: dict[str, str]) -> None:
        super().__init__(root.path, root.check, root.timeout)
        self.held = held

    def text(self, path: str) -> str | None:
        return self.held[path] if path in self.held else super().text(path)
