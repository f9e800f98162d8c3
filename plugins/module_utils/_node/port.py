# SPDX-License-Identifier: GPL-3.0-or-later
"""A physical function of SR-IOV as it is now, and which counts lead to another number of VFs. Reads only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import needs, pci, pf, users
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

UNSET = {"mac": "00:00:00:00:00:00", "vlan": 0, "qos": 0, "trust": False, "min_tx_rate": 0, "max_tx_rate": 0}


@dataclass(frozen=True)
class Vf:
    """A VF: its address, who holds it (guests, processes), what the host does with it, and its attributes.

    stopped: guests that do not run and whose definition has it.
    """

    address: str
    held: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    stopped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Port:
    """A physical function. name: its interface, None while it has none. eswitch: None where the driver has none.

    unknown: why it is not known which guests have its VFs.
    """

    address: str
    name: str | None
    total: int
    count: int
    autoprobe: bool | None
    up: bool
    vfs: tuple[Vf, ...] = ()
    mac: str | None = None
    driver: str | None = None
    eswitch: str | None = None
    networks: tuple[users.VfNetwork, ...] = ()
    unknown: str | None = None

    @property
    def who(self) -> str:
        return self.name or self.address


def observe(root: Root, address: str, held: users.Users, ledger: users.Ledger) -> Port:
    """Return what a PF has now."""
    name = pf.uplink(root, address)
    told = link(root, name) if name else {}
    known = needs.addresses(root)
    attributes = attributes_of(told)
    autoprobe = root.read(pci.path(address, "sriov_drivers_autoprobe"))
    return Port(
        address=address,
        name=name,
        total=root.number(pci.path(address, "sriov_totalvfs")) or 0,
        count=root.number(pci.path(address, "sriov_numvfs")) or 0,
        autoprobe=None if autoprobe is None else autoprobe == "1",
        up="UP" in told.get("flags", []),
        vfs=tuple(
            Vf(vf, tuple(held(vf)), tuple(needs.host_uses_vf(root, vf, known)), attributes.get(index, {}), tuple(ledger.stopped.get(vf, ())))
            for index, vf in enumerate(pf.virtual_functions(root, address))
        ),
        mac=told.get("permaddr") or told.get("address"),
        driver=pci.driver(root, address),
        unknown=ledger.unknown,
        networks=tuple(one for one in ledger.networks if name is not None and one.pf == name),
    )


def eswitch(root: Root, address: str) -> str | None:
    """Return the mode of the embedded switch, None where the driver has none (devlink-dev(8))."""
    done = root.run(["devlink", "-j", "dev", "eswitch", "show", f"pci/{address}"])
    told = json.loads(done.out or "{}") if done.rc == 0 else {}
    mode = (told.get("dev") or {}).get(f"pci/{address}", {}).get("mode")
    return None if mode is None else str(mode)


def link(root: Root, name: str) -> dict[str, Any]:
    """Return what ip-link(8) tells of an interface."""
    found: list[dict[str, Any]] = json.loads(root.must_run(["ip", "-j", "-d", "link", "show", "dev", name]) or "[{}]")
    return found[0] if found else {}


def attributes_of(link: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the attributes of each VF that C(ip -j -d link) tells, in our names. An absent VLAN is 0."""
    found = {}
    for told in link.get("vfinfo_list", []):
        vlan = (told.get("vlan_list") or [told])[0]
        rate = told.get("rate") or {}
        values = {
            "mac": str(told.get("address") or told.get("mac") or UNSET["mac"]).lower(),
            "vlan": vlan.get("vlan", 0),
            "qos": vlan.get("qos", 0),
            "spoofchk": told.get("spoofchk"),
            "trust": told.get("trust"),
            "link_state": told.get("link_state"),
            "min_tx_rate": rate.get("min_tx", 0),
            "max_tx_rate": rate.get("max_tx", told.get("tx_rate", 0)),
        }
        found[int(told["vf"])] = {name: value for name, value in values.items() if value is not None}
    return found


def counts(wanted: int, port: Port, allowed: bool, drain: bool = False, again: bool = False) -> tuple[int, ...]:
    """Return the counts to write, in order: none, one, or 0 first. Pure. C(again): also when the count stays.

    Raises KvmError for a count that the PF cannot have, and for VFs that are in use; guests that run give theirs
    back with C(drain).
    """
    if wanted > port.total:
        raise KvmError(f"vfs.count: {wanted} not in 0..{port.total} (sriov_totalvfs of {port.who})")
    if wanted == port.count and not (again and port.count):
        return ()
    for index, vf in enumerate(port.vfs):
        _refuse_in_use(f"vfs.count: VF {index} ({vf.address})", vf, allowed, drain, index < wanted)
    if wanted and port.count and not (allowed or drain):
        raise KvmError(f"vfs.count: {port.who} has {port.count} VFs, and another number removes all of them first; give allow_disruption: true")
    if port.unknown and port.count and not allowed:
        raise KvmError(f"vfs.count: which guests have VFs of {port.who} is not known: {port.unknown}; allow_disruption: true goes on")
    active = [network.name for network in port.networks if network.active]
    if active and not wanted and not (allowed or drain):
        raise KvmError(f"vfs.count: network {', '.join(active)} hands the VFs of {port.who} out; stop it first, or give allow_disruption: true")
    return (wanted,) if not port.count or not wanted else (0, wanted)


def _refuse_in_use(who: str, vf: Vf, allowed: bool, drain: bool, stays: bool) -> None:
    others = [name for name in vf.held if not (drain and name.startswith(users.GUEST))]
    if others:
        way = "; stop it first" if drain or not all(name.startswith(users.GUEST) for name in others) else "; stop it first, or give drain: true"
        raise KvmError(f"{who} is held by {', '.join(others)}{way}")
    if vf.host and not allowed:
        raise KvmError(f"{who} is in use: {', '.join(vf.host)}; free it, or give allow_disruption: true")
    if vf.stopped and not stays and not allowed:
        raise KvmError(f"{who} is in the definition of {', '.join(vf.stopped)}, stopped; take it from there, or give allow_disruption: true")
