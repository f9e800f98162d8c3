# SPDX-License-Identifier: GPL-3.0-or-later
"""A virtual network: its table, what its short words stand for, and what cannot stand together."""

from __future__ import annotations

import ipaddress
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import PREFIX
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.network_rows import MACVTAP, MODES, ROWS
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.subnets import check_subnet

UNMANAGED = ("bridge", "hostdev", *MACVTAP)  # libvirt makes no bridge of its own and gives no addresses there
TABLE = f.Table(noun="network", root="network", doc="A virtual network.", rows=ROWS)


def complete(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the wanted options with the short words as the rows that they stand for."""
    del found
    done = {k: v for k, v in wanted.items() if k not in ("mode", "vf_pool", "forward", "ips", "routes")}
    forward = dict(wanted.get("forward") or {})
    word = wanted.get("mode")
    if word == "isolated":
        if "vf_pool" in wanted or set(forward) - {"state"}:
            raise KvmError(f"mode: isolated is without a way out; leave {'vf_pool' if 'vf_pool' in wanted else 'forward'} out")
        forward = {"state": "absent"}
    elif word:
        _agree(forward, "mode", MODES[word], "mode")
    if "vf_pool" in wanted:
        _agree(forward, "mode", "hostdev", "vf_pool")
        _agree(forward, "pf", wanted["vf_pool"]["pf"], "vf_pool")
        forward.setdefault("managed", True)
    if forward:
        done["forward"] = forward
    if "ips" in wanted:
        done["ips"] = [_with_family(ip, "ips") for ip in wanted["ips"]]
    if "routes" in wanted:
        done["routes"] = [_with_family(route, "routes") for route in wanted["routes"]]
    return done


def _agree(forward: dict[str, Any], name: str, value: Any, word: str) -> None:
    """Put what a short word stands for into the forward options; both together must not contradict each other."""
    if forward.get("state") == "absent" or forward.get(name, value) != value:
        told = "absent" if forward.get("state") == "absent" else f"{name} {forward[name]}"
        raise KvmError(f"{word}: means forward.{name} {value}, and forward says {told}; give one of them")
    forward[name] = value


def _with_family(ip: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the item with its family only where libvirt needs it, for IPv6."""
    family = f"ipv{ipaddress.ip_address(ip['address']).version}"
    if ip.get("family", family) != family:
        raise KvmError(f"{where}[{ip['address']}].family: the address is {family}, asked {ip['family']}")
    kept = {k: v for k, v in ip.items() if k != "family"}
    return {**kept, "family": family} if family == "ipv6" else kept


def short(found: dict[str, Any]) -> dict[str, Any]:
    """Return options as libvirt has them with the short word for the mode; one that has none stays below forward."""
    forward = dict(found.get("forward") or {})
    own = forward.get("mode", "nat") if "forward" in found else None
    word = next((word for word, mode in MODES.items() if mode == own), None)
    if word is None:
        return found
    forward.pop("mode", None)
    rest = {k: v for k, v in found.items() if k != "forward"}
    return {"mode": word, **({"forward": forward} if forward else {}), **rest}


def check(wanted: dict[str, Any]) -> None:
    """Raise KvmError for options that cannot stand together."""
    nat = (wanted.get("forward") or {}).get("nat") or {}
    for name in ("addresses", "ports"):
        span = nat.get(name) or {}
        if "start" in span and "end" in span and _order(span["start"]) > _order(span["end"]):
            raise KvmError(f"forward.nat.{name}: start {span['start']} is after end {span['end']}")
    for ip in wanted.get("ips") or []:
        check_subnet(ip)


def check_result(values: dict[str, Any]) -> None:
    """Raise KvmError for a definition, edited, whose options cannot stand together."""
    forward = values.get("forward") or {}
    mode = forward.get("mode")
    if mode in UNMANAGED and values.get("ips"):
        raise KvmError(f"ips: a network of mode {mode} has no addresses; leave it out, or state: absent for each")
    if mode == "bridge" and not ((values.get("bridge") or {}).get("name") or forward.get("dev") or forward.get("interfaces")):
        raise KvmError("bridge.name: must be given for mode bridge, a bridge that the host has")
    if mode == "hostdev" and "pf" not in forward and not forward.get("addresses"):
        raise KvmError("vf_pool.pf: must be given for mode hostdev, a network interface that has virtual functions")
    check(values)


def _order(value: Any) -> Any:
    return value if isinstance(value, int) else ipaddress.ip_address(value)


def tidy(tree: Any) -> None:
    """Take out of an edited definition what its mode no longer has; libvirt refuses it there."""
    mode = _xml.get(tree, "forward/@mode")[0] or ("nat" if _xml.find(tree, "forward") is not None else None)
    dev = _xml.get(tree, "forward/@dev")[0]
    for twin in _xml.find_all(tree, "forward/interface"):
        # libvirt writes forward/@dev a second time as <interface dev>, and refuses it when they differ.
        if dev is not None and _xml.get(twin, "@dev")[0] != dev and len(_xml.find_all(tree, "forward/interface")) == 1:
            _xml.remove(twin, tree)
    if mode != "nat":
        _xml.clear(tree, "forward/nat")
    if mode != "hostdev":
        _xml.clear(tree, "forward/pf")
        for path in ("forward/@managed", "forward/driver", "forward/address"):
            _xml.clear(tree, path)
    if mode in UNMANAGED:
        for path in ("bridge/@stp", "bridge/@delay", "mac"):
            _xml.clear(tree, path)
    if mode == "hostdev":
        _xml.clear(tree, "bridge")


def completed(made: Any, given: Any) -> None:
    """Put into what libvirt's test driver made of a definition what only the daemon adds or keeps: names and namespaces."""
    for path in ("uuid", "mac/@address", "bridge/@name"):
        text = _xml.get(given, path)[0]
        if text is not None:
            _xml.put(made, path, text.lower() if path == "mac/@address" else text)
        else:
            _xml.clear(made, path)
    for one in (*_xml.find_all(made, "ip"), *_xml.find_all(made, "route")):
        _spell(one)
    known = {child.tag for child in made}
    for child in given:
        if str(child.tag).startswith("{") and child.tag not in known:
            made.append(_xml.copy(child))


def _spell(subnet: Any) -> None:
    """Write a subnet in the one way of several that libvirt keeps as they are given."""
    if subnet.get("netmask"):
        subnet.set("prefix", str(PREFIX.normal(subnet.attrib.pop("netmask"))))
    if subnet.get("family") == "ipv4":
        del subnet.attrib["family"]


def carry(tree: Any, before: Any) -> None:
    """Put into a definition the MAC address and the name of the bridge that the network has, unless it says its own."""
    if _xml.get(tree, "forward/@mode")[0] in UNMANAGED or _xml.get(before, "forward/@mode")[0] in UNMANAGED:
        return
    for path in ("mac/@address", "bridge/@name"):
        text = _xml.get(before, path)[0]
        if text is not None and _xml.get(tree, path)[0] is None:
            _xml.put(tree, path, text)
