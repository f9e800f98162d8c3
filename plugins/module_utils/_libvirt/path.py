# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a packet from a guest or an address: the Kind of kvm_path_info. Only reads."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _options, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import path
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.hops import MAY_STOP, STOPS, Hop, Nic, Question
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.path import PATH as TABLE
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.path import QUESTION


def read(session: Libvirt, _name: str | None) -> list[dict[str, Any]]:
    """Return the way of the packet that is asked for: its hops, what stops it, what may."""
    asked = _fields.normal(QUESTION, _options.stated({row.name: session.params.get(row.name) for row in QUESTION}))
    if not session.on_this_host:
        raise KvmError("uri: the way of a packet is read from the host itself; run the task there")
    if "guest" not in asked and "source" not in asked:
        raise KvmError("guest: this or source must be given")
    if asked["proto"] != "icmp" and "port" not in asked:
        raise KvmError(f"port: must be given for {asked['proto']}")
    nics = {} if session.driver == "test" else _nics(session)
    tap = _tap(session, asked, nics) if "guest" in asked else asked.get("interface")
    source = asked.get("source") or _address(session, asked, nics[str(tap)])
    hops, packet = path.trace(Root(check=True), Question(source, asked["to"], asked["proto"], asked.get("port"), tap, nics))
    return [_report(hops, asked, source, packet)]


def _report(hops: list[Hop], asked: dict[str, Any], source: str, packet: Any) -> dict[str, Any]:
    stop = next((hop for hop in hops if hop.verdict == STOPS), None)
    doubts = [hop for hop in hops if hop.verdict == MAY_STOP]
    return {
        "verdict": "stopped" if stop else "may_be_stopped" if doubts else "passes",
        "stopped_by": asdict(stop) if stop else None,
        "doubts": [asdict(hop) for hop in doubts],
        "hops": [asdict(hop) for hop in hops],
        "sent": {"source": source, "to": asked["to"], "proto": asked["proto"], "port": asked.get("port")},
        "arrives": None if stop else {"source": packet.source, "to": packet.to, "port": packet.port},
    }


def _nics(session: Libvirt) -> dict[str, Nic]:
    """Return the interfaces of running guests by their names on the host."""
    found = {}
    for name, handle in session.domains().items():
        with told(f"cannot read guest {name}"):
            tree = _xml.parse(handle.XMLDesc(0)) if handle.isActive() else None
        for nic in _xml.find_all(tree, "devices/interface") if tree is not None else []:
            tap, mac, state, ruled = (_xml.get(nic, place)[0] for place in ("target/@dev", "mac/@address", "link/@state", "filterref/@filter"))
            if tap:
                found[str(tap)] = Nic(name, str(mac), state != "down", ruled)
    return found


def _tap(session: Libvirt, asked: dict[str, Any], nics: dict[str, Nic]) -> str:
    """Return the name that the guest's interface has on the host."""
    name, wanted = asked["guest"], asked.get("interface")
    handle = session.domains().get(name)
    if handle is None:
        raise KvmError(f"guest: {name} does not exist on this host")
    with told(f"cannot read guest {name}"):
        if not handle.isActive():
            raise KvmError(f"guest: {name} does not run, so nothing leaves it")
    own = {tap: nic for tap, nic in nics.items() if nic.guest == name}
    chosen = [tap for tap, nic in own.items() if wanted is None or wanted.lower() in (tap, nic.mac.lower())]
    if len(chosen) == 1:
        return chosen[0]
    told_of = ", ".join(f"{tap} ({nic.mac})" for tap, nic in own.items()) or "none that the host sees"
    raise KvmError(f"interface: {f'{name} has no {wanted}' if wanted else f'{name} has not just one'}; it has {told_of}")


def _address(session: Libvirt, asked: dict[str, Any], nic: Nic) -> str:
    """Return the guest's address on an interface, of the family that it sends to."""
    family = 1 if ":" in asked["to"] else 0
    for source in ("LEASE", "ARP", "AGENT"):
        try:
            found = session.domains()[nic.guest].interfaceAddresses(getattr(libvirt, f"VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_{source}"))
        except libvirt.libvirtError:
            continue  # no DHCP of libvirt's on that network, no agent
        for told_of in found.values():
            if str(told_of["hwaddr"]).lower() == nic.mac.lower():
                for one in told_of["addrs"] or []:
                    if one["type"] == family and not one["addr"].startswith("fe80:"):
                        return str(one["addr"])
    raise KvmError(f"source: the address of {nic.guest} is not known to the host; give it")


def nothing(_session: Libvirt, _wanted: dict[str, Any]) -> Plan:
    """The way of a packet is only read."""
    return Plan("path")


WAY = Kind(
    table=TABLE, plural=None, key=(), open=Libvirt, plan=nothing, read=read, info_options=(URI, *QUESTION), imports=(LIBVIRT, LXML),
)  # fmt: skip
