# SPDX-License-Identifier: GPL-3.0-or-later
"""The bridges of our networks in a zone of firewalld, so that it lets through what our own table has judged (firewalld.zone(5)).

A packet must be accepted by every base chain of the kernel, and firewalld's rejects what comes from an interface without a zone. libvirt
puts the bridges of its own networks into its own zones.
"""

from __future__ import annotations

import xml.etree.ElementTree
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part, file_part, together
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

CONFIGURATION = "/etc/firewalld"
ZONE = "anfitrion"
ZONE_FILE = f"{CONFIGURATION}/zones/{ZONE}.xml"
INTO = f"{ZONE}-in"
INTO_FILE = f"{CONFIGURATION}/policies/{INTO}.xml"
WHY = "What goes to and from these bridges is judged by the nftables table inet anfitrion."


def part(root: Root, networks: list[dict[str, Any]]) -> Part:
    """Return what it takes that firewalld has the zone with our bridges, now if it runs and whenever it starts; nothing where it is not installed."""
    if not root.exists(CONFIGURATION):
        return Part()
    bridges = sorted(network["bridge"] for network in networks if network["mode"] != "libvirt")
    files = [
        file_part(root, ZONE_FILE, _document("zone", "interface", bridges) if bridges else None),
        file_part(root, INTO_FILE, _document("policy", "", []) if bridges else None),
    ]
    return together(*files, _now(root, bridges))


def _document(kind: str, tag: str, names: list[str]) -> str:
    top = xml.etree.ElementTree.Element(kind, target="ACCEPT")
    xml.etree.ElementTree.SubElement(top, "short").text = ZONE
    xml.etree.ElementTree.SubElement(top, "description").text = WHY
    for name in names:
        xml.etree.ElementTree.SubElement(top, tag, name=name)
    if kind == "policy":
        xml.etree.ElementTree.SubElement(top, "ingress-zone", name="ANY")
        xml.etree.ElementTree.SubElement(top, "egress-zone", name=ZONE)
    xml.etree.ElementTree.indent(top)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + xml.etree.ElementTree.tostring(top, encoding="unicode") + "\n"


def _now(root: Root, bridges: list[str]) -> Part:
    """Return what it takes that a running firewalld has the bridges in the zone; it reads new zones only when it reloads."""
    if root.run(["firewall-cmd", "--state"]).rc:
        return Part()  # it does not run; its next start reads the files
    known = ZONE in root.must_run(["firewall-cmd", "--get-zones"]).split() and INTO in root.must_run(["firewall-cmd", "--get-policies"]).split()
    found = sorted(root.must_run(["firewall-cmd", f"--zone={ZONE}", "--list-interfaces"]).split()) if known else []
    if found == bridges:
        return Part()
    change = Change(f"firewalld zone {ZONE}", found, bridges, LIVE)
    if not known:
        return Part((change,), (Step("let firewalld read its zones again", partial(_reload, root), partial(_reload, root)),))
    moves = [("--change-interface", "--remove-interface", bridge) for bridge in bridges if bridge not in found]
    moves += [("--remove-interface", "--change-interface", bridge) for bridge in found if bridge not in bridges]
    steps = [Step(f"firewalld {way} {bridge}", partial(_move, root, way, bridge), partial(_move, root, back, bridge)) for way, back, bridge in moves]
    return Part((change,), tuple(steps))


def _move(root: Root, way: str, bridge: str) -> None:
    root.must_run(["firewall-cmd", "--quiet", f"--zone={ZONE}", f"{way}={bridge}"])


def _reload(root: Root) -> None:
    root.must_run(["firewall-cmd", "--quiet", "--reload"])
