# SPDX-License-Identifier: GPL-3.0-or-later
"""SR-IOV: how many VFs a PF has and what it fixes for each (kernel: PCI/pci-iov-howto.rst; ip-link(8), vf)."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import needs, pci, pf, sriov_boot, users
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, Part, Write, write_step
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.port import (
    UNSET,
    Port,
    attributes_of,
    counts,
    eswitch,
    link,
    observe,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

WAIT = 60.0  # seconds for VFs to appear; drivers take up to some hundred milliseconds for each
DRAIN_PATIENCE = 120


def part(root: Root, address: str, wanted: dict[str, Any], held: users.Users, guests: users.Guests) -> Part:
    """Return what it takes that a PF is up and has its VFs with their attributes, now and after a reboot."""
    port = look(root, address, held, guests)
    vfs = wanted.get("vfs", {})
    count = vfs.get("count", port.count)
    if port.name is None:
        raise KvmError(f"pf: {address} has no network interface; bind it to its own driver")
    port, mode = _wanted_eswitch(root, port, vfs)
    path = counts(count, port, bool(wanted.get("allow_disruption")), bool(wanted.get("drain")), mode is not None)
    declared = sriov_boot.declared(vfs, count)
    up = wanted.get("up", True if count else None)
    key, before = sriov_boot.find(root, port)
    boot = sriov_boot.merged(before, port, vfs, up, count)
    parts = [_link_state(root, port, up), _autoprobe(root, port, vfs.get("autoprobe"))]
    if path or mode:
        parts += recount(root, port, path or (count,), wanted, guests, declared=boot.attributes, mode=mode)
        parts.append(_changes_only(port, declared))
    else:
        parts += [_attributes(root, port, index, values) for index, values in sorted(declared.items())]
    parts.append(sriov_boot.part(root, key, before, boot))
    return together(port, parts)


def absent(root: Root, address: str, wanted: dict[str, Any], held: users.Users, guests: users.Guests) -> Part:
    """Return what it takes that a PF has no VFs, and that the next boot makes none."""
    port = look(root, address, held, guests)
    path = counts(0, port, bool(wanted.get("allow_disruption")), bool(wanted.get("drain")))
    parts = recount(root, port, path, wanted, guests) if path else []
    key, before = sriov_boot.find(root, port)
    return together(port, [*parts, sriov_boot.part(root, key, before, None)])


def look(root: Root, address: str, held: users.Users, guests: users.Guests) -> Port:
    """Return a PF as it is; libvirt is asked only when there are VFs that a guest may have."""
    ledger = guests.ledger() if root.number(pci.path(address, "sriov_numvfs")) else users.Ledger()
    return observe(root, address, users.with_ledger(held, ledger), ledger)


def together(port: Port, parts: list[Part]) -> Part:
    """Return the parts of a PF as one, with who holds its VFs."""
    return Part(
        tuple(change for one in parts for change in one.changes),
        tuple(step for one in parts for step in one.steps),
        warnings=tuple(warning for one in parts for warning in one.warnings),
        facts={"in_use_by": {vf.address: [*vf.held] for vf in port.vfs if vf.held}},
    )


def _wanted_eswitch(root: Root, port: Port, vfs: dict[str, Any]) -> tuple[Port, str | None]:
    """Return the PF with the mode of its switch, and the mode to set; None when it has that mode or none is wanted."""
    if "eswitch" not in vfs:
        return port, None
    now = eswitch(root, port.address)
    if now is None:
        raise KvmError(f"vfs.eswitch: the driver of {port.who}, {port.driver}, has no switch whose mode can be set; leave the option out")
    return replace(port, eswitch=now), None if now == vfs["eswitch"] else vfs["eswitch"]


def _link_state(root: Root, port: Port, up: bool | None) -> Part:
    if up is None or up == port.up or port.name is None:
        return Part()
    if not up:
        reasons = needs.vital(root, port.name, needs.addresses(root))
        if reasons or any(vf.held for vf in port.vfs):
            raise KvmError(f"up: {port.name} must stay up: {', '.join(reasons) or 'guests hold its VFs'}")
    words = {True: "up", False: "down"}
    set_to = ["ip", "link", "set", "dev", port.name]
    step = Step(
        f"set {port.name} {words[up]}",
        partial(root.do, [*set_to, words[up]]),
        partial(root.do, [*set_to, words[port.up]]),
    )
    return Part((Change("up", port.up, up, LIVE),), (step,))


def _autoprobe(root: Root, port: Port, wanted: bool | None) -> Part:
    if wanted is None or wanted == port.autoprobe:
        return Part()
    if port.autoprobe is None:
        raise KvmError("vfs.autoprobe: this kernel has no sriov_drivers_autoprobe for the device; leave the option out")
    path = pci.path(port.address, "sriov_drivers_autoprobe")
    write = Write(path, str(int(wanted)), str(int(port.autoprobe)))
    return Part((Change("vfs.autoprobe", port.autoprobe, wanted, LIVE),), (write_step(root, write),))


def recount(
    root: Root,
    port: Port,
    path: tuple[int, ...],
    wanted: dict[str, Any],
    guests: users.Guests,
    *,
    declared: dict[int, dict[str, Any]] | None = None,
    mode: str | None = None,
) -> list[Part]:
    """Return the change of the count, between guests and networks that let their VFs go and those that get them again."""
    drains = [guests.restart(network, bool(path[-1])) for network in port.networks if network.active]
    if wanted.get("drain"):
        patience = wanted.get("drain_timeout", DRAIN_PATIENCE)
        drains.insert(0, guests.drain(port, path[-1], wanted.get("drain_by", "detach"), patience))
    back: dict[int, dict[str, Any]] = {}
    again = Step(
        f"make {path[-1]} VFs on {port.who}",
        partial(_change, root, port, path, declared or {}, mode, back),
        partial(_make, root, port, _home(port), back, port.eswitch if mode else None),
    )
    changes = [Change("vfs.count", port.count, path[-1], LIVE)] if path[-1] != port.count else []
    changes += [Change("vfs.eswitch", port.eswitch, mode, LIVE)] if mode else []
    return [
        *(Part(drain.changes, drain.before, warnings=drain.warnings) for drain in drains),
        Part(tuple(changes), (again,)),
        *(Part(steps=drain.after) for drain in reversed(drains)),
    ]


def _home(port: Port) -> tuple[int, ...]:
    return (port.count,) if not port.count else (0, port.count)


def _change(
    root: Root, port: Port, path: tuple[int, ...], declared: dict[int, dict[str, Any]], mode: str | None,
    back: dict[int, dict[str, Any]],
) -> None:  # fmt: skip
    """Make the VFs again. Every new VF has lost its attributes, so all of them are given again, also undeclared ones.

    What they are is read now: libvirt puts its own back when a guest lets a VF go. C(back) keeps it for the way back.
    """
    now = attributes_of(link(root, port.name)) if port.name else {}
    back.update({index: _set_before(values) for index, values in now.items()})
    wanted = {index: {**back.get(index, {}), **declared.get(index, {})} for index in range(path[-1])}
    try:
        _make(root, port, path, wanted, mode)
    except KvmError as error:
        try:
            _make(root, port, _home(port), back, port.eswitch if mode else None)
        except KvmError as second:
            raise KvmError(f"{error}; and going back failed: {second}") from error
        raise KvmError(f"{error}; {port.who} has its {port.count} VFs again") from error


def _make(root: Root, port: Port, path: tuple[int, ...], attributes: dict[int, dict[str, Any]], mode: str | None) -> None:
    """Write the counts and the mode of the switch, wait for the VFs and set their attributes.

    The host's drivers see the VFs only then: one that finds no MAC address makes up its own, and a trusted VF keeps that.
    """
    file = pci.path(port.address, "sriov_numvfs")
    probe = pci.path(port.address, "sriov_drivers_autoprobe")
    late = port.driver in sriov_boot.LAST_ESWITCH
    hold = any(attributes.values()) and root.number(probe) == 1
    if hold:
        root.write(probe, "0")
    try:
        for count in path:
            if mode and not late and not root.number(file):
                _set_eswitch(root, port, mode)
            if root.number(file) != count:
                root.write(file, str(count))
        _await(root, port, path[-1])
        if mode and (late or not path[-1]):
            _set_eswitch(root, port, mode)
        for index, values in sorted(attributes.items()):
            assign(root, port, index, values)
    finally:
        if hold:
            root.write(probe, "1")
            _bind(root, port)


def _bind(root: Root, port: Port) -> None:
    """Show the VFs that have no driver to the drivers, and wait until udev has named their interfaces."""
    for vf in pf.virtual_functions(root, port.address):
        if pci.driver(root, vf) is None:
            root.write("/sys/bus/pci/drivers_probe", vf)
    root.run(["udevadm", "settle", "--timeout=30"])


def _set_eswitch(root: Root, port: Port, mode: str) -> None:
    """Set the mode of the switch; mlx5 takes it only while no driver holds a VF."""
    if eswitch(root, port.address) == mode:
        return
    bound = [vf for vf in pf.virtual_functions(root, port.address) if pci.driver(root, vf)]
    for vf in bound:
        root.write(pci.path(vf, "driver", "unbind"), vf)
    done = root.run(["devlink", "dev", "eswitch", "set", f"pci/{port.address}", "mode", mode])
    for vf in bound:
        root.write("/sys/bus/pci/drivers_probe", vf)
    if done.rc:
        raise KvmError(f"vfs.eswitch: the driver of {port.who} refused {mode}: {(done.err or done.out).strip()}")
    if eswitch(root, port.address) != mode:
        raise KvmError(f"vfs.eswitch: asked {mode}, {port.who} has {eswitch(root, port.address)}")


def _await(root: Root, port: Port, count: int) -> None:
    """Wait until the VFs are there and udev has named their interfaces. The driver may have made fewer."""
    got = root.number(pci.path(port.address, "sriov_numvfs"))
    if got != count:
        raise KvmError(f"vfs.count: asked {count}, the driver made {got}")
    end = time.monotonic() + WAIT
    while len(pf.virtual_functions(root, port.address)) != count:
        if time.monotonic() > end:
            raise KvmError(f"vfs.count: not all of {count} VFs appeared in {WAIT:.0f} s")
        time.sleep(0.05)
    root.run(["udevadm", "settle", "--timeout=30"])


def _set_before(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that somebody has set: those that are not as a new VF has them."""
    return {name: value for name, value in attributes.items() if value != UNSET.get(name, value) or (name == "spoofchk" and value is False)}


def _changes_only(port: Port, declared: dict[int, dict[str, Any]]) -> Part:
    """Return the attributes that will differ from now; the step that makes the VFs sets them."""
    now = dict(enumerate(vf.attributes for vf in port.vfs))
    return Part(
        tuple(
            Change(f"vfs.attributes[{index}].{name}", now.get(index, {}).get(name), value, LIVE)
            for index, values in sorted(declared.items())
            for name, value in values.items()
            if now.get(index, {}).get(name) != value
        )
    )


def _attributes(root: Root, port: Port, index: int, wanted: dict[str, Any]) -> Part:
    """Return what it takes that a VF that is there has its attributes; nothing for one that a guest holds."""
    if index >= len(port.vfs):
        return Part(warnings=(f"vfs.attributes[{index}]: the VF is not there yet",))
    vf = port.vfs[index]
    if vf.held:
        return Part()  # libvirt sets them for the guest, and puts the old ones back when it stops
    differing = {name: value for name, value in wanted.items() if vf.attributes.get(name) != value}
    if not differing:
        return Part()
    before = {name: vf.attributes[name] for name in differing if name in vf.attributes}
    changes = tuple(Change(f"vfs.attributes[{index}].{n}", vf.attributes.get(n), v, LIVE) for n, v in differing.items())
    step = Step(
        f"set {', '.join(differing)} of VF {index} of {port.name}",
        partial(assign, root, port, index, differing),
        partial(assign, root, port, index, before),
    )
    return Part(changes, (step,))


def assign(root: Root, port: Port, index: int, wanted: dict[str, Any]) -> None:
    """Set the attributes of a VF and read them back; when one fails, those before it go back."""
    name = port.name or ""
    now = attributes_of(link(root, name)).get(index, {})
    try:
        _assign(root, name, index, wanted, now)
    except KvmError:
        for words in sriov_boot.link_words({k: now[k] for k in wanted if k in now}, now).values():
            root.run(["ip", "link", "set", "dev", name, "vf", str(index), *words])
        raise


def _assign(root: Root, name: str, index: int, wanted: dict[str, Any], now: dict[str, Any]) -> None:
    """Set what differs, one attribute at a time so that the one that fails can be named, and read all back."""
    for attribute, words in sriov_boot.link_words(wanted, now).items():
        if all(now.get(one) == wanted[one] for one in attribute.split("/") if one in wanted):
            continue
        done = root.run(["ip", "link", "set", "dev", name, "vf", str(index), *words])
        if done.rc:
            text = (done.err or done.out).strip().replace("\n", "; ")
            raise KvmError(f"vfs.attributes[{index}].{attribute}: the driver of {name} refused it: {text}")
    found = attributes_of(link(root, name)).get(index, {})
    for attribute, value in wanted.items():
        if found.get(attribute) != value:
            raise KvmError(f"vfs.attributes[{index}].{attribute}: asked {value}, {name} has {found.get(attribute)}")
