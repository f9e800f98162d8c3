# SPDX-License-Identifier: GPL-3.0-or-later
"""The guests on a network, and how they get their interfaces back after it was stopped and started.

libvirt makes a new bridge and forgets the ports; the guests' taps are left without a bridge until the daemon starts
again. So the ports are claimed again (virNetworkPortCreateXML) and the taps put on the bridge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import activity
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.activity import Situation
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.network_host import FAMILY
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.vf_pool import vf_owners
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.network import UNMANAGED


def users(session: Libvirt, name: str, _running: Any) -> list[str]:
    """Return the names of the running guests that have an interface on the network."""
    found = {guest for guest, tree in activity.running_guests(session).items() if _interfaces(tree, name)}
    return sorted(found | set(vf_owners(session, name)))


def _interfaces(guest: Any, name: str) -> list[Any]:
    nics = _xml.find_all(guest, "devices/interface[@type='network']")
    return [nic for nic in nics if _xml.get(nic, "source/@network")[0] == name]


def restart_steps(session: Libvirt, now: Situation, before: Any) -> list[Step]:
    """Return the steps that stop and start a network and put its guests back; undone, all is as before."""
    guests = {guest: _interfaces(activity.running_guests(session)[guest], now.name) for guest in users(session, now.name, None)}
    restart = _Restart(session, now.name, [nic for found in guests.values() for nic in found])
    if guests:
        _refuse_what_cannot_come_back(session, now, list(guests))
    steps = [
        Step(f"stop network {now.name}", restart.stop, lambda: restart.go_back(before)),
        Step(f"start network {now.name}", restart.start, restart.stop_if_active),
    ]
    if guests:
        steps.append(Step(f"see that the interfaces of {', '.join(guests)} are on the bridge again", restart.see))
    return steps


@dataclass
class _Restart:
    """One restart: the interfaces of guests that are to come back, and their ports, which libvirt forgets at the stop."""

    session: Libvirt
    name: str
    nics: list[Any]
    ports: list[str] = field(default_factory=list)

    def stop(self) -> None:
        with told("cannot read the ports of the network"):
            self.ports = [port.XMLDesc() for port in self._handle().listAllPorts()] if self.nics else []
        with told("cannot stop"):
            self._handle().destroy()

    def stop_if_active(self) -> None:
        with told("cannot stop"):
            if self._handle().isActive():
                self._handle().destroy()

    def start(self) -> None:
        try:
            with told("cannot start"):
                self._handle().create()
            _put_back(self.session, self.name, self.ports, self.nics)
        except KvmError:
            self.stop_if_active()  # it may have started, and what failed is the way back of the guests
            raise

    def go_back(self, before: Any) -> None:
        with told("cannot start again as before"):
            FAMILY.listed(self.session)[self.name] = FAMILY.define(self.session.connection, _xml.text_of(before))
            self._handle().create()
        _put_back(self.session, self.name, self.ports, self.nics)

    def see(self) -> None:
        host, bridge = Root(), self._handle().bridgeName() if self.nics else ""
        for nic in self.nics:
            tap = _xml.get(nic, "target/@dev")[0]
            if host.link(f"/sys/class/net/{tap}/master") != bridge:
                raise KvmError(f"the interface {tap} is not on the bridge {bridge} again")

    def _handle(self) -> Any:
        return FAMILY.listed(self.session)[self.name]


def _refuse_what_cannot_come_back(session: Libvirt, now: Situation, guests: list[str]) -> None:
    """Raise KvmError where a stop would take from guests what nothing but their own restart brings back."""
    names = ", ".join(guests)
    for tree in (now.running, now.after):
        if _xml.get(tree, "forward/@mode")[0] in UNMANAGED:
            raise KvmError(
                f"cannot be restarted, running guests use it: {names}; their interfaces would not come back, stop them first"
            )
        if _xml.get(tree, "bridge/@macTableManager")[0] == "libvirt" or _xml.find(tree, "vlan") is not None:
            raise KvmError(f"cannot be restarted, running guests use it: {names}; a bridge with libvirt's own table cannot be filled again")
    if not session.on_this_host:
        raise KvmError(f"cannot be restarted, running guests use it: {names}; they can only be put back on the host itself")


def _put_back(session: Libvirt, name: str, ports: list[str], nics: list[Any]) -> None:
    """Claim the ports again and put the taps on the bridge."""
    if not nics:
        return
    host = Root()
    with told("cannot claim the ports of the guests again"):
        handle = FAMILY.listed(session)[name]
        bridge = handle.bridgeName()
        there = {port.UUIDString() for port in handle.listAllPorts()}
        for text in ports:
            if _xml.get(_xml.parse(text), "uuid")[0] not in there:
                handle.portCreateXML(_plugged(text, bridge), libvirt.VIR_NETWORK_PORT_CREATE_RECLAIM)
    mtu = host.read(f"/sys/class/net/{bridge}/mtu")
    for nic in nics:
        tap = str(_xml.get(nic, "target/@dev")[0])
        if host.link(f"/sys/class/net/{tap}/master") != bridge:  # newer libvirt puts them back itself
            host.do(["ip", "link", "set", "dev", tap, "mtu", str(mtu), "master", bridge])
        if _xml.get(nic, "port/@isolated")[0] == "yes":
            host.do(["bridge", "link", "set", "dev", tap, "isolated", "on"])


def _plugged(port: str, bridge: str) -> str:
    """Return the port as it is plugged into the bridge of now, whose name may be another."""
    tree = _xml.parse(port)
    _xml.put(tree, "plug/@bridge", bridge)
    return _xml.text_of(tree)
