# SPDX-License-Identifier: GPL-3.0-or-later
"""The Kind of kvm_hostdev, and what libvirt adds to the host's side of devices: whose they are, and guests that let go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import PCI
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import connect, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import hostdev, pf
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.port import Port
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.users import (
    GUEST,
    Drain,
    Ledger,
    VfNetwork,
    vfio_users,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.hostdev import HOSTDEV

URI = "qemu:///system"
SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
PLACES = ("devices/hostdev[@type='pci']", "devices/interface[@type='hostdev']")
LIVE = 1  # VIR_DOMAIN_AFFECT_LIVE
PULSE_S = 0.2
ASK_AGAIN_S = 10


class LibvirtGuests:
    """The guests and networks of the host's libvirt, asked when something depends on them."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.connection: Any = None

    def _connected(self) -> Any:
        if self.connection is None:
            self.connection = connect(URI)
        return self.connection

    def ledger(self) -> Ledger:
        """Return whose the devices are now. A host without a libvirt daemon has no guests of libvirt's."""
        if not any(self.root.exists(socket) for socket in SOCKETS):
            return Ledger()
        if libvirt is None or _xml.LXML_IMPORT_ERROR:
            return Ledger(unknown="libvirt and lxml for Python are not both on this host")
        try:
            return self._read()
        except KvmError as error:
            return Ledger(unknown=str(error))

    def _read(self) -> Ledger:
        running: dict[str, tuple[str, ...]] = {}
        stopped: dict[str, tuple[str, ...]] = {}
        with told("cannot read whose the devices are"):
            for handle in self._connected().listAllDomains(0):
                name, now = handle.name(), set[str]()
                if handle.isActive():
                    now = set(_addresses(_xml.parse(handle.XMLDesc(0))))
                for address in now:
                    running[address] = (*running.get(address, ()), f"{GUEST}{name}")
                if handle.isPersistent():
                    for address in set(_addresses(_xml.parse(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))) - now:
                        stopped[address] = (*stopped.get(address, ()), f"{GUEST}{name}")
            networks = [
                VfNetwork(handle.name(), _xml.get(tree, "forward/pf/@dev")[0] or "", bool(handle.isActive()))
                for handle, tree in ((one, _xml.parse(one.XMLDesc(0))) for one in self._connected().listAllNetworks(0))
                if _xml.get(tree, "forward/@mode")[0] == "hostdev"
            ]
        return Ledger(running, stopped, tuple(networks))

    def drain(self, port: Port, count: int, by: str, patience: int) -> Drain:
        """Return how the guests give their VFs of a PF back, and get those that are there again."""
        held: dict[str, list[int]] = {}
        for index, vf in enumerate(port.vfs):
            for name in vf.held:
                held.setdefault(name[len(GUEST) :], []).append(index)
        make = self._shut_down if by == "shutdown" else self._detach
        drains = [make(port, guest, indexes, count, patience) for guest, indexes in sorted(held.items())]
        return Drain(
            tuple(step for one in drains for step in one.before),
            tuple(step for one in drains for step in one.after),
            tuple(warning for one in drains for warning in one.warnings),
            tuple(change for one in drains for change in one.changes),
        )

    def _guest(self, name: str) -> Any:
        with told(f"drain: guest {name} is none of {URI}; stop it first"):
            return self._connected().lookupByName(name)

    def _shut_down(self, port: Port, guest: str, indexes: list[int], count: int, patience: int) -> Drain:
        handle = self._guest(guest)
        with told(f"drain: cannot read guest {guest}"):
            if not handle.isPersistent():
                raise KvmError(f"drain: guest {guest} is transient and would not come back; drain_by: detach leaves it running")
        again = all(index < count for index in indexes)
        start = _told_step(f"cannot start guest {guest} again", handle.create)
        stop = Step(f"shut guest {guest} down", partial(_stop, handle, guest, patience), start)
        after = (Step(f"start guest {guest} again", start, None),) if again else ()
        lost = f"drain: guest {guest} stays shut down: it is defined with VFs of {port.who} that are gone"
        change = Change(f"guest {guest}", "running", "shut down and started again" if again else "shut down", "drain")
        return Drain((stop,), after, () if again else (lost,), (change,))

    def _detach(self, port: Port, guest: str, indexes: list[int], count: int, patience: int) -> Drain:
        handle = self._guest(guest)
        before, after, warnings, changes = [], [], [], []
        for index in indexes:
            device = _device(handle, port.vfs[index].address)
            if device is None:
                raise KvmError(f"drain: libvirt does not know VF {index} as a device of guest {guest}; stop it first")
            take = partial(_take, handle, guest, self.root, port, index, patience)
            give = partial(_give, handle, guest, self.root, port, index, device)
            before.append(Step(f"take VF {index} of {port.who} from guest {guest}", take, give))
            changes.append(Change(f"guest {guest}.vf[{index}]", "attached", "attached again" if index < count else "gone", "drain"))
            if index < count:
                after.append(Step(f"give VF {index} of {port.who} to guest {guest} again", give, take))
            else:
                warnings.append(f"drain: guest {guest} does not get VF {index} of {port.who} again, and its next start needs it")
        return Drain(tuple(before), tuple(after), tuple(warnings), tuple(changes))

    def restart(self, network: VfNetwork, again: bool) -> Drain:
        """Return how a VF network lets its VFs go, and learns of the new ones: it lists them once, when it starts."""
        with told(f"cannot find network {network.name}"):
            handle = self._connected().networkLookupByName(network.name)
        start = _told_step(f"cannot start network {network.name} again", handle.create)
        stop = Step(f"stop network {network.name}", _told_step(f"cannot stop network {network.name}", handle.destroy), start)
        if not again:
            return Drain((stop,), (), (f"network {network.name} is stopped: {network.pf} has no VFs to hand out",))
        return Drain((stop,), (Step(f"start network {network.name} with the new VFs", start, None),))

    def close(self) -> None:
        """Close the connection; a dead daemon is no fault any more."""
        try:
            if self.connection is not None:
                self.connection.close()
        except libvirt.libvirtError:
            return


def _told_step(what: str, call: Callable[[], Any]) -> Callable[[], None]:
    def do() -> None:
        with told(what):
            call()

    return do


def _elements(tree: Any) -> list[tuple[str, Any]]:
    """Return every PCI device of the host in a definition, by its address there."""
    found = [one for place in PLACES for one in _xml.find_all(tree, place)]
    pairs = [(_xml.find(one, "source/address"), one) for one in found]
    return [(PCI.of_attributes(source.attrib), one) for source, one in pairs if source is not None]


def _addresses(tree: Any) -> list[str]:
    return [address for address, _element in _elements(tree)]


def _device(handle: Any, address: str) -> Any | None:
    """Return the element of a running guest's device."""
    with told("cannot read the running definition"):
        tree = _xml.parse(handle.XMLDesc(0))
    return next((element for at, element in _elements(tree) if at == address), None)


def _stop(handle: Any, guest: str, patience: int) -> None:
    """Ask a guest to shut down, again from time to time: one that is still booting misses the power button."""
    end = time.monotonic() + patience
    asked = 0.0
    with told(f"drain: cannot shut guest {guest} down"):
        while handle.isActive():
            if time.monotonic() > end:
                raise KvmError(f"drain: guest {guest} did not shut down in {patience} s; it runs on")
            if time.monotonic() - asked > ASK_AGAIN_S:
                asked = time.monotonic()
                handle.shutdown()
            time.sleep(PULSE_S)


def _take(handle: Any, guest: str, root: Root, port: Port, index: int, patience: int) -> None:
    """Unplug a VF from a guest and wait until the guest let go: libvirt's success says only that it was asked."""
    address = _present(root, port, index)
    device = _device(handle, address)
    if device is None:
        return
    with told(f"drain: cannot take VF {index} from guest {guest}"):
        handle.detachDeviceFlags(_xml.text_of(device), LIVE)
    end = time.monotonic() + patience
    while _device(handle, address) is not None:
        if time.monotonic() > end:
            raise KvmError(f"drain: guest {guest} did not give VF {index} back in {patience} s; drain_by: shutdown shuts it down")
        time.sleep(PULSE_S)


def _give(handle: Any, guest: str, root: Root, port: Port, index: int, device: Any) -> None:
    """Plug the VF of an index into a guest as it was: an interface of a VF network by that network."""
    with told(f"drain: cannot give VF {index} to guest {guest} again"):
        mac = _xml.get(device, "mac/@address")[0]
        defined = _xml.parse(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) if mac else None
        same = [one for one in _xml.find_all(defined, "devices/interface") if _xml.get(one, "mac/@address")[0] == mac] if mac else []
        plugged = _xml.copy(same[0] if same and same[0].get("type") == "network" else device)
        source = _xml.find(plugged, "source/address")
        if source is not None:
            source.attrib.update(PCI.attributes(_present(root, port, index)))
        handle.attachDeviceFlags(_xml.text_of(plugged), LIVE)


def _present(root: Root, port: Port, index: int) -> str:
    """Return the address that a VF has now."""
    vfs = pf.virtual_functions(root, port.address)
    if index >= len(vfs):
        raise KvmError(f"{port.who} has no VF {index} now")
    return vfs[index]


class Host(hostdev.Devices):
    """What a task of kvm_hostdev holds."""

    def close(self) -> None:
        super().close()
        self.guests.close()  # type: ignore[attr-defined]  # it is LibvirtGuests


def open_devices(params: Mapping[str, Any], check: bool) -> Host:
    """Return the host, and the devices that the whole task hands to vfio-pci."""
    root = Root(check=check)
    return Host(root, hostdev.requested(root, params), partial(vfio_users, root), LibvirtGuests(root))


DEVICES = Kind(
    table=HOSTDEV, plural="devices", key=("pf", "address", "select"), open=open_devices,
    plan=hostdev.plan, read=hostdev.read, facts=hostdev.facts,
)  # fmt: skip
