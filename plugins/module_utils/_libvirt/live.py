# SPDX-License-Identifier: GPL-3.0-or-later
"""How a running guest takes changes: each difference by the way that the C(live) word of its row names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import CPUSET, SIZE
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import live_devices
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.live_devices import Device, Guest, Ports
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.live_knobs import KNOBS
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Step

DEVICE = "device"  # on a list of devices, or on a section that is one: plugged in and unplugged
# Of a row in a device: changed in place if the running device is one that takes it.
UPDATES: dict[str, Callable[[Guest, Device, Any], bool]] = {
    "update_device": lambda _guest, _device, element: not live_devices.is_vf(element),
    "media": lambda _guest, _device, element: live_devices.takes_media(element),
    "switch": lambda _guest, _device, element: live_devices.is_on_switch(element),
    "reconnect": live_devices.takes_another_bridge,
    "portgroup": live_devices.takes_another_portgroup,
}
LIVE_WORDS = (*KNOBS, *UPDATES, DEVICE)


@dataclass(frozen=True)
class Way:
    """How some differences are taken: C(live) or C(replug) by a step; by neither, at the next start."""

    how: str
    differences: tuple[_fields.Difference, ...]
    step: Step | None = None


def settled(guest: Guest, difference: _fields.Difference) -> bool:
    """Tell whether a difference means nothing, or nothing that we could do.

    libvirt keeps an undone pin of a running guest as one to every CPU. A guest that is still to load its balloon driver
    shows the maximum; libvirt has asked it for what its definition says, and it gives the rest back in its own time.
    The format of an empty drive is only in its definition.
    """
    if difference.row.live == "media" and difference.before is None and difference.item:
        return not {"path", "block", "pool", "volume"} & set(difference.item[1])
    if difference.row.live == "memory":
        top = SIZE.from_xml(_xml.get(guest.running, "memory")[0] or "0", _xml.get(guest.running, "memory")[1])
        asked = difference.after == guest.defined_memory and SIZE.bytes(difference.after) < SIZE.bytes(top)
        return bool(asked and difference.before == top)
    if difference.row.live != "vcpu_pin" or not difference.whole_item or difference.after is not None:
        return False
    return CPUSET.numbers(difference.before["cpuset"]) >= set(range(guest.cpus))


def ways(guest: Guest, differences: Iterable[_fields.Difference], rows: tuple[_fields.Row, ...], replug: bool) -> list[Way]:
    """Return how the running guest takes each difference; C(replug) allows to take a device out and put it back changed."""
    found: list[Way] = []
    ports = Ports(guest.running)
    within: dict[str, tuple[Device, list[_fields.Difference]]] = {}
    for difference in differences:
        device = _device_of(difference, rows)
        if device is not None and difference.row is not device.row:
            within.setdefault(device.name, (device, []))[1].append(difference)
        elif device is not None and difference.whole_item:
            step = _plug_or_unplug(guest, device, difference, ports)
            found.append(Way("live" if step else "next_boot", (difference,), step))
        else:
            found.append(_single(guest, difference))
    for device, inside in within.values():
        found += _changes_of(guest, device, inside, replug)
    return found


def _single(guest: Guest, difference: _fields.Difference) -> Way:
    maker = KNOBS.get(difference.row.live)
    step = maker(guest, difference) if maker else None
    return Way("live" if step else "next_boot", (difference,), step)


def _device_of(difference: _fields.Difference, rows: tuple[_fields.Row, ...]) -> Device | None:
    """Return the device that a difference is one of, or lies in."""
    if difference.item is not None:
        row, item = difference.item
        return Device(row, item) if row.live == DEVICE else None
    top = difference.option.partition(".")[0]
    section = next((row for row in rows if row.name == top and isinstance(row, _fields.Section) and row.live == DEVICE), None)
    return Device(section, {}) if section is not None else None


def _plug_or_unplug(guest: Guest, device: Device, difference: _fields.Difference, ports: Ports) -> Step | None:
    if difference.after is None:
        element = device.find(guest.running)
        return live_devices.unplug_step(guest, device) if element is not None and live_devices.movable(element) else None
    element = device.find(guest.target)
    fits = element is not None and live_devices.movable(element) and ports.take(element)
    return live_devices.plug_step(guest, device) if fits else None


def _changes_of(guest: Guest, device: Device, inside: list[_fields.Difference], replug: bool) -> list[Way]:
    """Return how one device that stays takes its differences."""
    element, target = device.find(guest.running), device.find(guest.target)
    single: list[Way] = []
    in_place: list[_fields.Difference] = []
    for difference in inside:
        word = difference.row.live
        if word in KNOBS:
            single.append(_single(guest, difference))
        elif word in UPDATES and UPDATES[word](guest, device, element):
            in_place.append(difference)
        else:
            single.append(Way("next_boot", (difference,)))
    stuck = any(way.step is None for way in single)
    if stuck and replug and all(one is not None and live_devices.movable(one) for one in (element, target)):
        return [Way("replug", tuple(inside), live_devices.replug_step(guest, device))]
    if in_place:
        single.append(Way("live", tuple(in_place), live_devices.update_step(guest, device, in_place)))
    return single


__all__ = ["DEVICE", "LIVE_WORDS", "Guest", "Way", "settled", "ways"]
