# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of a running guest: plugged in, unplugged when the guest lets go, changed in place, or taken out and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, code, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.events import device_events
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.objects import as_wished
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Step

LIVE = 1  # VIR_DOMAIN_AFFECT_LIVE, also of every other "affect" flag; the module may be imported without libvirt
ANY = ()

# What QEMU and libvirt plug while the guest runs (qemuDomainAttachDeviceLive): tag, what tells, and the values that can be.
MOVABLE: dict[str, tuple[str, tuple[str, ...]]] = {
    "disk": ("target/@bus", ("virtio", "scsi", "usb")),
    "interface": ("@type", ANY),
    "hostdev": ("@type", ("pci", "usb", "scsi", "mdev", "scsi_host")),
    "controller": ("@type", ("scsi",)),
    "rng": ("@model", ANY),
    "memory": ("@model", ("dimm", "nvdimm", "virtio-mem", "virtio-pmem")),
    "channel": ("target/@type", ("virtio", "guestfwd")),
    "serial": ("target/@type", ("pci-serial", "usb-serial")),
    "input": ("@bus", ("virtio", "usb")),
    "redirdev": ("@bus", ("usb",)),
    "shmem": ("model/@type", ("ivshmem-plain", "ivshmem-doorbell")),
    "vsock": ("@model", ANY),
    "lease": ("", ANY),
    "watchdog": ("@model", ("i6300esb",)),
}
# Of those, what sits on a PCI Express port of its own on q35, and what needs a slot of a conventional bridge there.
ON_PORT: dict[str, tuple[str, tuple[str, ...]]] = {
    "disk": ("target/@bus", ("virtio",)),
    "interface": ("model/@type", ("virtio", "virtio-transitional", "virtio-non-transitional", "e1000e", "igb", "vmxnet3")),
    "hostdev": ("@type", ("pci", "mdev")),
    "controller": ("@type", ("scsi",)),
    "rng": ("@model", ANY),
    "memory": ("@model", ("virtio-mem", "virtio-pmem")),
    "input": ("@bus", ("virtio",)),
    "vsock": ("@model", ANY),
}
ON_BRIDGE: dict[str, tuple[str, tuple[str, ...]]] = {
    "interface": ("model/@type", ("e1000", "rtl8139", "pcnet", "ne2k_pci")),
    "watchdog": ("@model", ANY),
    "shmem": ("model/@type", ANY),
    "serial": ("target/@type", ("pci-serial",)),
}
MEDIA = ("cdrom", "floppy")
# Of an interface of a network; another network, or another port group of it, has others.
MADE_WHILE_RUNNING = ("source/@portid", "source/@bridge", "source/@dev", "source/@mode")
OF_THE_NETWORK = ("vlan", "bandwidth")  # in what runs; those of the interface itself are in its definition


@dataclass(frozen=True)
class Guest:
    """A running guest that takes changes.

    running: its definition as it runs, when the plan was made. target: the definition that it is to have.
    cpus: of the host, the length of libvirt's CPU maps. defined_memory: memory.size of what it was started with.
    """

    session: Libvirt
    name: str
    handle: Any
    running: Any
    target: Any
    cpus: int
    defined_memory: str | None = None


@dataclass(frozen=True)
class Device:
    """One device of a guest: an item of a list, or a section that is a device."""

    row: Union[_fields.Items, _fields.Section]
    item: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.row.name}[{_fields.identity(self.row, self.item)}]" if isinstance(self.row, _fields.Items) else self.row.name

    def find(self, tree: Any) -> Any | None:
        """Return its element in a definition."""
        if isinstance(self.row, _fields.Section):
            return _xml.find(tree, self.row.path or "")
        pairs = _fields.holders(self.row, tree)
        have = _fields.match(self.row, self.item, [values for _one, values in pairs])
        return next((one for one, values in pairs if values is have), None)


class Ports:
    """The places that a running guest has left for devices."""

    def __init__(self, running: Any) -> None:
        controllers = _xml.find_all(running, "devices/controller[@type='pci']")
        ports = {_number(one.get("index")) for one in controllers if one.get("model") == "pcie-root-port"}
        used = {_number(one.get("bus")) for one in running.iter("address") if one.get("type") == "pci"}
        self.express = any(one.get("model") == "pcie-root" for one in controllers)
        self.free = len(ports - used)
        self.bridge = any(one.get("model") in ("pcie-to-pci-bridge", "pci-bridge") for one in controllers)

    def take(self, element: Any) -> bool:
        """Tell whether the device fits, and count it in."""
        if not self.express:
            return True
        if _among(ON_BRIDGE, element):
            return self.bridge
        if _among(ON_PORT, element):
            self.free -= 1
            return self.free >= 0
        return True


def _number(text: str | None) -> int:
    return int(text or "0", 0)


def _among(table: dict[str, tuple[str, tuple[str, ...]]], element: Any) -> bool:
    path, words = table.get(element.tag, ("", ("nothing",)))
    return words == ANY or _xml.get(element, path)[0] in words


def movable(element: Any) -> bool:
    """Tell whether such a device can be plugged in and unplugged while the guest runs."""
    return _among(MOVABLE, element)


def takes_media(element: Any | None) -> bool:
    """Tell whether it is a drive whose medium can be taken out."""
    return element is not None and element.get("device") in MEDIA


def is_vf(element: Any | None) -> bool:
    """Tell whether it is an interface that is a virtual function: libvirt changes nothing of it in place."""
    return element is not None and element.tag == "interface" and _xml.find(element, "source/address") is not None


def is_on_switch(element: Any | None) -> bool:
    """Tell whether it is an interface on an Open vSwitch, whose VLAN can be changed."""
    return element is not None and _xml.get(element, "virtualport/@type")[0] == "openvswitch"


def takes_another_bridge(guest: Guest, device: Device, element: Any | None) -> bool:
    """Tell whether an interface can be moved to the bridge that it is to be on: both are Linux bridges (qemuDomainChangeNet)."""
    defined = device.find(guest.target)
    if element is None or defined is None or element.get("type") not in ("network", "bridge") or is_on_switch(defined):
        return False
    if is_vf(element) or is_on_switch(element) or _xml.get(element, "source/@dev")[0]:  # the last is macvtap
        return False
    network = _network_of(guest, defined)
    switches = [] if network is None else [network, *_xml.find_all(network, "portgroup")]
    return network is None or (_xml.find(network, "bridge") is not None and not any(map(is_on_switch, switches)))


def takes_another_portgroup(guest: Guest, device: Device, element: Any | None) -> bool:
    """Tell whether an interface takes what its new port group says: all but a VLAN, instead of which libvirt (9.0) sets none at all."""
    defined = device.find(guest.target)
    if element is None or defined is None or is_vf(element) or _xml.find(element, "vlan") is not None:
        return False
    network, name = _network_of(guest, defined), _xml.get(defined, "source/@portgroup")[0]
    groups = [] if network is None else [one for one in _xml.find_all(network, "portgroup") if one.get("name") == name]
    return all(_xml.find(one, "vlan") is None for one in ([] if network is None else [network, *groups]))


def _network_of(guest: Guest, nic: Any) -> Any | None:
    """Return the definition of the network that an interface is on."""
    handle = guest.session.networks().get(str(_xml.get(nic, "source/@network")[0]))
    with told("cannot read the network"):
        return _xml.parse(handle.XMLDesc(0)) if handle is not None else None


# Steps --------------------------------------------------------------------------------------------------------------


def plug_step(guest: Guest, device: Device) -> Step:
    """Return the step that plugs a device in, as the persistent definition has it by then."""
    return Step(f"plug {device.name} into the running guest", lambda: _plug(guest, device), lambda: _unplug(guest, device))


def unplug_step(guest: Guest, device: Device) -> Step:
    """Return the step that unplugs a device and waits until the guest let go."""
    before = _portable(device.find(guest.running))
    return Step(
        f"unplug {device.name} from the running guest", lambda: _unplug(guest, device), lambda: _attach(guest, device, before)
    )


def replug_step(guest: Guest, device: Device) -> Step:
    """Return the step that takes a device out and puts it back as the persistent definition has it."""
    before = _portable(device.find(guest.running))

    def replug() -> None:
        _unplug(guest, device)
        try:
            _plug(guest, device)
        except KvmError as error:
            _attach(guest, device, before)
            raise KvmError(f"{error}; it is back as it was") from error

    def undo() -> None:
        _unplug(guest, device)
        _attach(guest, device, before)

    return Step(f"unplug {device.name} from the running guest and plug it in changed", replug, undo)


def update_step(guest: Guest, device: Device, differences: list[_fields.Difference]) -> Step:
    """Return the step that changes a device in place, all its options in one call."""
    options = ", ".join(difference.option for difference in differences)
    names = {difference.option[len(device.name) + 1 :].split(".")[0].split("[")[0] for difference in differences}
    before = _wish_of(guest, device, _xml.copy(device.find(guest.running)))

    def put(element: Any) -> None:
        with told(f"{options}: the running guest did not take it"):
            guest.handle.updateDeviceFlags(_xml.text_of(element), LIVE)

    def update() -> None:
        element = device.find(_now(guest))
        if element is None:
            raise KvmError(f"{options}: the running guest has no such device")
        element = _wish_of(guest, device, element)
        _fields.write(device.row.rows, element, {name: device.item[name] for name in names if name in device.item})
        put(element)

    return Step(f"change {options} of the running guest", update, lambda: put(before))


def _wish_of(guest: Guest, device: Device, element: Any) -> Any:
    """Return a running device without what its network made of it."""
    if element.tag != "interface" or element.get("type") != "network":
        return element
    for path in MADE_WHILE_RUNNING:
        _xml.clear(element, path)
    defined = device.find(guest.target)
    for tag in OF_THE_NETWORK:
        for one in element.findall(tag):
            element.remove(one)
        element.extend([] if defined is None else map(_xml.copy, defined.findall(tag)))
    return element


# What they do ---------------------------------------------------------------------------------------------------------


def _now(guest: Guest, flags: int = 0) -> Any:
    """Return the definition as it is at this moment, with its secrets: an update without them would clear them."""
    return as_wished(_xml.parse(guest.handle.XMLDesc(flags | libvirt.VIR_DOMAIN_XML_SECURE)))


def _portable(element: Any) -> Any:
    """Return a copy of a device without its place, which may be taken by the time that it is plugged in."""
    done = _xml.copy(element)
    for address in done.findall("address"):
        done.remove(address)
    for alias in done.findall("alias"):
        if not str(alias.get("name")).startswith("ua-"):
            done.remove(alias)
    return done


def _plug(guest: Guest, device: Device) -> None:
    with told(f"{device.name}: cannot be added to the running guest"):
        element = device.find(_now(guest, libvirt.VIR_DOMAIN_XML_INACTIVE))
        if element is None:
            raise KvmError(f"{device.name}: is not in the definition any more")
        _attach(guest, device, _portable(element))


def _attach(guest: Guest, device: Device, element: Any) -> None:
    with told(f"{device.name}: cannot be added to the running guest"):
        guest.handle.attachDeviceFlags(_xml.text_of(element), LIVE)


def _unplug(guest: Guest, device: Device) -> None:
    """Ask the guest for a device and wait for its answer; libvirt's own call returns success without one."""
    patience = guest.session.params["unplug_timeout"]
    events = device_events(guest.session)
    with told(f"{device.name}: cannot be taken from the running guest"):
        element = device.find(_now(guest))
        if element is None:
            return
        alias = _xml.get(element, "alias/@name")[0] or ""
        events.forget(guest.name, alias)
        try:
            guest.handle.detachDeviceFlags(_xml.text_of(element), LIVE)
        except libvirt.libvirtError as error:
            if code(error) == libvirt.VIR_ERR_DEVICE_MISSING:
                return
            raise
        left = events.answer(guest.name, alias, patience, lambda: device.find(_now(guest)) is None)
    if left is None:
        raise KvmError(
            f"{device.name}: the guest did not give the device back within {patience} s; it may have no driver for"
            " hot-plug or be busy: raise unplug_timeout, or use apply: next_boot"
        )
    if not left:
        raise KvmError(f"{device.name}: the guest refused to give the device back; free it inside, or use apply: next_boot")
