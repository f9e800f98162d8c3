# SPDX-License-Identifier: GPL-3.0-or-later
"""What an active network takes at once: virNetworkUpdate, section by section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.activity import Situation
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.network import TABLE
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.network_rows import DNS, FORWARD, HOSTS, PORTGROUPS, RANGES

# The lists that it takes, by the section that holds them: the dotted place, the row, libvirt's name of the section.
_IN_AN_IP = ((HOSTS, "IP_DHCP_HOST"), (RANGES, "IP_DHCP_RANGE"))
_ELSEWHERE = (
    ("forward", "interfaces", FORWARD, "FORWARD_INTERFACE"),
    ("dns", "hosts", DNS, "DNS_HOST"),
    ("dns", "txts", DNS, "DNS_TXT"),
    ("dns", "srvs", DNS, "DNS_SRV"),
)
WORDS = ("dhcp_host", "dhcp_range", "dns_host", "dns_txt", "dns_srv", "forward_interface", "portgroup")
_IN_PLACE = ("PORTGROUP",)  # libvirt can modify an entry; elsewhere it goes and comes again, since two may swap values


@dataclass(frozen=True)
class Entries:
    """One list of an active network: its row, libvirt's name of the section, and the place of its <ip> among them."""

    session: Libvirt
    network: str
    row: _fields.Items
    section: str
    place: int = -1


def live(session: Libvirt, now: Situation, lagging: list[_fields.Difference]) -> tuple[set[str], list[Step]]:
    """Return the options that the running network takes at once, and the steps."""
    options = {one.option for one in lagging if _taken(one)}
    if not options or session.driver == "test":
        return set(), []
    running = _fields.read(TABLE.rows, now.running)
    places = {ip["address"]: place for place, ip in enumerate(running.get("ips", []))}
    steps: list[Step] = []
    for ip in now.wanted.get("ips", []):
        if ip["address"] in places:
            place = places[ip["address"]]
            want, have = ip.get("dhcp") or {}, running["ips"][place].get("dhcp") or {}
            for row, section in _IN_AN_IP:
                entries = Entries(session, now.name, row, section, place)
                steps += _steps(entries, want.get(row.name) or [], have.get(row.name) or [])
    for outer, name, section_row, section in _ELSEWHERE:
        row = next(one for one in section_row.rows if isinstance(one, _fields.Items) and one.name == name)
        want, have = now.wanted.get(outer) or {}, running.get(outer) or {}
        steps += _steps(Entries(session, now.name, row, section), want.get(name) or [], have.get(name) or [])
    groups = Entries(session, now.name, PORTGROUPS, "PORTGROUP")
    return options, steps + _steps(groups, now.wanted.get("portgroups") or [], running.get("portgroups") or [])


def _taken(difference: _fields.Difference) -> bool:
    """Tell whether the difference is one in a list that virNetworkUpdate knows."""
    outer = difference.item[0].live if difference.item else None
    return getattr(difference.row, "live", None) in WORDS or outer in WORDS


def _steps(entries: Entries, wanted: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[Step]:
    """Return the steps for one list: first all that take away, then all that add.

    libvirt refuses a second entry with the MAC, name or address of an existing one, so a changed one goes first.
    """
    rows = entries.row.rows
    away: list[Step] = []
    added: list[Step] = []
    for want in wanted:
        have = _fields.match(entries.row, want, found)
        gone = want.get("state") == "absent"
        differs = have is None or any(_fields.differences(rows, want, have))
        if have is not None and differs and not gone and entries.section in _IN_PLACE:
            added.append(_update(entries, _over(have, want), "MODIFY", ("MODIFY", have)))
            continue
        if have is not None and (gone or differs):
            away.append(_update(entries, have, "DELETE", ("ADD_LAST", have)))
        if differs and not gone:
            item = _over(have or {}, want)
            added.append(_update(entries, item, "ADD_LAST", ("DELETE", item)))
    return away + added


def _over(have: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with the wanted values over those that it has."""
    merged = dict(have)
    for name, value in want.items():
        both = isinstance(value, dict) and isinstance(have.get(name), dict)
        merged[name] = _over(have[name], value) if both else value
    return merged


_SAID = {"ADD_LAST": "add to", "DELETE": "take from", "MODIFY": "change in"}


def _update(entries: Entries, item: dict[str, Any], command: str, inverse: tuple[str, dict[str, Any]]) -> Step:
    """Return the step of one virNetworkUpdate that the persistent definition has no part in."""
    lists = entries.row.name

    def run(verb: str, text: str) -> None:
        with told(f"cannot change {lists} while the network is active"):
            entries.session.networks()[entries.network].update(
                getattr(libvirt, f"VIR_NETWORK_UPDATE_COMMAND_{verb}"), getattr(libvirt, f"VIR_NETWORK_SECTION_{entries.section}"),
                entries.place, text, libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE,
            )  # fmt: skip

    sentence = f"{_SAID[command]} the {lists} of the active network {entries.network}: {_fields.identity(entries.row, item)}"
    do, undo = _text(entries.row, item), _text(entries.row, inverse[1])
    return Step(sentence, lambda: run(command, do), lambda: run(inverse[0], undo))


def _text(row: _fields.Items, item: dict[str, Any]) -> str:
    element = _xml.new(row.path)
    _fields.write(row.rows, element, {k: v for k, v in item.items() if k != "state"})
    return _xml.text_of(element)
