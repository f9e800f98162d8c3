# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of a network filter, and when two definitions of one mean the same (https://libvirt.org/formatnwfilter.html)."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f

TABLE = f.Table(
    noun="network filter", root="filter", doc="A network filter.", rows=(
        f.Field("name", None, c.NAME, "Name of the filter, unique on its host.", required=True),
        f.Field("state", None, c.Choice(words=("present", "absent")),
                "V(absent) removes it; refused while guests that run, or other filters, use it."),
        f.Field("xml", None, c.XML, "The whole C(<filter>) in libvirt's own words. It replaces what is there, the UUID stays."
                " Needed when the filter is new. Guests that run and use it get the new rules at once."),
    ),
)  # fmt: skip

_MAC = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|\d+")
_VARIABLE = re.compile(r"\$\w+.*")  # of a list, the values that its iterator number 0 goes over if nothing is said
_PROTOCOLS = {"1": "icmp", "2": "igmp", "6": "tcp", "17": "udp", "50": "esp", "51": "ah", "58": "icmpv6", "132": "sctp", "136": "udplite"}
_OPCODES = ("request", "reply", "request_reverse", "reply_reverse", "drarp_request", "drarp_reply", "drarp_error", "inarp_request", "arp_nak")
_WORDS = {
    "protocol": _PROTOCOLS, "statematch": {"0": "false", "1": "true"},
    "opcode": {str(number): word for number, word in enumerate(_OPCODES, start=1)},
}  # fmt: skip
_DEFAULTS = {"rule": {"priority": "500"}, "filter": {"chain": "root"}}
FREE = ("comment", "name", "filter", "value")  # what libvirt keeps to the letter


def meaning(tree: Any, stated: Any | None = None) -> tuple[Any, ...]:
    """Return what a definition says, in one spelling. C(stated): leave out the priority of the filter where that does not state it."""
    attributes = {**_DEFAULTS.get(str(tree.tag), {}), **tree.attrib}
    if stated is not None and "priority" not in stated.attrib:
        attributes.pop("priority", None)
    if str(attributes.get("match", "yes")) == "yes":
        attributes.pop("match", None)  # libvirt keeps only the other word, no
    spelled = {name: _spelled(name, value) for name, value in attributes.items()}
    children = tuple(meaning(child) for child in tree if child.tag != "uuid")
    if tree.tag == "filterref":
        children = tuple(sorted(children))  # parameters have names
    return (str(tree.tag), tuple(sorted(spelled.items())), children)


def _spelled(name: str, value: str) -> str:
    if name in FREE:
        return value
    if _MAC.fullmatch(value):
        return ":".join(f"{int(part, 16):02x}" for part in value.split(":"))
    if _VARIABLE.fullmatch(value):
        return re.sub(r"\s", "", value).replace("[@0]", "")
    if _NUMBER.fullmatch(value):
        number = str(int(value, 16) if value[:2].lower() == "0x" else int(value))
        return _WORDS.get(name, {}).get(number, number)
    try:
        return str(_prefix(value) if name.endswith("ipmask") else c.ADDRESS.normal(value))
    except ValueError:
        return value.lower()


def _prefix(mask: str) -> int:
    """Return the length of the prefix that a mask stands for."""
    address = ipaddress.ip_address(mask)
    bits = bin(int(address))[2:].zfill(address.max_prefixlen)
    if "01" in bits:
        raise ValueError("not contiguous")
    return bits.count("1")
