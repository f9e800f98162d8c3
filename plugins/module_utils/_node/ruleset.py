# SPDX-License-Identifier: GPL-3.0-or-later
"""Every packet rule that the kernel has, whichever tool wrote it. Only reads, and loads no module of the kernel."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import ebtables_rules, iptables_rules, nft_rules
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.packet import Base

COMMANDS = {"ip": "iptables", "ip6": "ip6tables", "bridge": "ebtables"}
NFT = "(nf_tables)"  # in the first line of what the tools of that kind say
PLACES = ("/usr/sbin", "/sbin")


def read(root: Root) -> list[Base]:
    """Return the base chains of the kernel.

    Rules that iptables wrote into nftables are told by iptables itself: nft shows no more of its extensions than their names.
    """
    found: list[Base] = []
    document = json.loads(root.must_run(["nft", "-j", "list", "ruleset"]))["nftables"] if _there(root, "nft") else []
    told: set[tuple[str, str]] = set()
    for family in ("ip", "ip6"):
        text = _of_nft(root, family, document)
        found += iptables_rules.parse(text, family)
        told |= {(family, table) for table in iptables_rules.tables(text)}
        found += iptables_rules.parse(_of_legacy(root, family), family)
    text = _of_nft(root, "bridge", document)
    found += ebtables_rules.parse(text)
    told |= {("bridge", table) for table in iptables_rules.tables(text)}
    texts = nft_rules.texts_of(root.must_run(["nft", "-s", "-a", "list", "ruleset"])) if document else {}
    return found + nft_rules.parse(document, texts, told)


def _of_nft(root: Root, family: str, document: list[dict[str, Any]]) -> str:
    """Return what iptables tells of its tables in nftables; nothing of one that others changed, for it cannot read that."""
    names = {one["table"]["name"] for one in document if one.get("table", {}).get("family") == family}
    command = next((name for name in (f"{COMMANDS[family]}-nft-save", f"{COMMANDS[family]}-save") if _there(root, name)), None)
    if command is None or not names & set(iptables_rules.PRIORITIES):
        return ""
    text = root.run([command]).out
    return text if NFT in text else ""


def _of_legacy(root: Root, family: str) -> str:
    """Return the rules of the old kernel interface, where it is in use: to ask without need would load its modules."""
    if not root.read(f"/proc/net/{family}_tables_names"):
        return ""
    command = next((name for name in (f"{COMMANDS[family]}-legacy-save", f"{COMMANDS[family]}-save") if _there(root, name)), None)
    text = root.run([command]).out if command else ""
    return "" if NFT in text else text


def _there(root: Root, command: str) -> bool:
    return any(root.exists(f"{place}/{command}") for place in PLACES)
