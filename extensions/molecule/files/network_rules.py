"""Print as JSON what the packet filter of this host does with libvirt networks: network_rules.py NAME=BRIDGE=SUBNET …

For each network: {backend, masquerades, accepts_out, accepts_in, rejects}. Rules are parsed, from `iptables-save` or from
`nft --json`, whichever backend libvirt wrote them with (table ip libvirt_network is nft's).
"""

from __future__ import annotations

import ipaddress
import json
import shlex
import subprocess
import sys
from typing import Any

Rule = dict[str, Any]  # {verdict, oif, iif, source, destination}; absent: any


def iptables_rules() -> list[Rule]:
    """Return the rules of the chains that libvirt made."""
    text = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    rules = []
    for line in text.splitlines():
        words = shlex.split(line)
        if words[:1] != ["-A"] or not words[1].startswith("LIBVIRT_"):
            continue
        rule: Rule = {"verdict": words[words.index("-j") + 1].lower()}
        for flag, name in (("-o", "oif"), ("-i", "iif"), ("-s", "source"), ("-d", "destination")):
            if flag in words and words[words.index(flag) - 1] != "!":
                rule[name] = words[words.index(flag) + 1]
        rules.append(rule)
    return rules


def nft_rules() -> list[Rule] | None:
    """Return the rules of libvirt's own table, None where there is none."""
    done = subprocess.run(["nft", "--json", "list", "table", "ip", "libvirt_network"], capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    rules = []
    for item in json.loads(done.stdout)["nftables"]:
        rule: Rule = {}
        for part in item.get("rule", {}).get("expr", []):
            rule.update(verdict_of(part))
            if "match" in part and part["match"]["op"] in ("==", "in"):
                rule.update(match_of(part["match"]))
        if rule:
            rules.append(rule)
    return rules


def verdict_of(part: dict[str, Any]) -> Rule:
    """Return the verdict that a part of a rule is."""
    return next(({"verdict": word} for word in ("accept", "reject", "masquerade", "drop") if word in part), {})


def match_of(match: dict[str, Any]) -> Rule:
    """Return the condition that a part of a rule is."""
    left, right = match["left"], match["right"]
    meta = {"oifname": "oif", "iifname": "iif", "oif": "oif", "iif": "iif"}.get(left.get("meta", {}).get("key", ""))
    if meta:
        return {meta: right}
    address = {"saddr": "source", "daddr": "destination"}.get(left.get("payload", {}).get("field", ""))
    if address and isinstance(right, dict) and "prefix" in right:
        return {address: f"{right['prefix']['addr']}/{right['prefix']['len']}"}
    return {}


def summary(rules: list[Rule], bridge: str, subnet: str) -> dict[str, bool]:
    """Return what the rules do with one network."""
    net = ipaddress.ip_network(subnet)

    def has(verdict: str, **wanted: str) -> bool:
        return any(rule.get("verdict") == verdict and all(rule.get(k) == v for k, v in wanted.items()) for rule in rules)

    return {
        "masquerades": has("masquerade", source=str(net)),
        "accepts_out": has("accept", iif=bridge, source=str(net)),
        "accepts_in": has("accept", oif=bridge, destination=str(net)),
        "rejects": has("reject", iif=bridge) and has("reject", oif=bridge),
    }


def main() -> int:
    """Command line."""
    nft = nft_rules()
    rules = nft if nft is not None else iptables_rules()
    told = {}
    for word in sys.argv[1:]:
        name, bridge, subnet = word.split("=")
        told[name] = {"backend": "iptables" if nft is None else "nftables", **summary(rules, bridge, subnet)}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
