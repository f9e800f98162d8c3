# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running guest takes by a call of its own: CPUs, memory, weights, limits, pins, words about it."""

from __future__ import annotations

import time
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import CPUSET, SIZE
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import agent
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import code, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.live_devices import LIVE, Device, Guest
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Step

GUEST_DEADLINE_S = 60  # a guest moves its balloon, or starts a CPU, in its own time
PULSE_S = 0.2
UNLIMITED = 9007199254740991  # VIR_DOMAIN_MEMORY_PARAM_UNLIMITED, KiB
LIFECYCLE = {"on_poweroff": 0, "on_reboot": 1, "on_crash": 2}  # virDomainLifecycle
ACTIONS = ("destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart")  # virDomainLifecycleAction
WORDS_ABOUT = {"description": 0, "title": 1}  # virDomainMetadataType
SCHEDULER = {"shares": "cpu_shares", "period": "vcpu_period", "quota": "vcpu_quota"}

Maker = Callable[[Guest, _fields.Difference], "Step | None"]


def setter(option: str, call: Callable[[Any], Any], after: Any, before: Any) -> Step:
    """Return the step that sets one option by a call, undone with the value before; None: it stays."""

    def put(value: Any) -> Callable[[], None]:
        def do() -> None:
            with told(f"{option}: the running guest did not take it"):
                call(value)

        return do

    return Step(f"set {option} of the running guest", put(after), put(before) if before is not None else None)


def _tail(difference: _fields.Difference) -> str:
    """Return libvirt's own word for an option: the last of its path."""
    row = difference.row
    return str(row.path).rsplit("/", 1)[-1].lstrip("@") if isinstance(row, _fields.Field) else row.name


# CPUs and memory ------------------------------------------------------------------------------------------------------


def _vcpus(guest: Guest, difference: _fields.Difference) -> Step | None:
    """Up to the maximum at once; down only to those that were there at its start, which cannot be unplugged."""
    top = int(_xml.get(guest.running, "vcpu")[0] or 1)
    fixed = [cpu for cpu in _xml.find_all(guest.running, "vcpus/vcpu[@enabled='yes']") if cpu.get("hotpluggable") != "yes"]
    fewer = difference.after < (difference.before or 1)
    if difference.after > top or (fewer and difference.after < max(1, len(fixed))) or (fewer and not fixed):
        return None

    def set_count(count: int) -> None:
        _ask_for_vcpus(guest.handle, count)
        if agent.connected(guest.handle):
            agent.bring_online(guest.handle, count, GUEST_DEADLINE_S)

    return setter("vcpus.count", set_count, difference.after, difference.before if fixed else None)


def _ask_for_vcpus(handle: Any, count: int) -> None:
    """Set the number of vCPUs. libvirt waits 5 s for the guest to let each go; the guest may take longer."""
    deadline = time.monotonic() + GUEST_DEADLINE_S
    while (now := handle.vcpusFlags(LIVE)) != count:
        try:
            handle.setVcpusFlags(count, LIVE)
        except libvirt.libvirtError as error:
            if code(error) != libvirt.VIR_ERR_OPERATION_TIMEOUT:
                raise
            while handle.vcpusFlags(LIVE) == now:
                if time.monotonic() > deadline:
                    raise KvmError(f"vcpus.count: the guest did not let go of a vCPU within {GUEST_DEADLINE_S} s, it has {now}") from error
                time.sleep(PULSE_S)


def _memory(guest: Guest, difference: _fields.Difference) -> Step | None:
    text, unit = _xml.get(guest.running, "memory")
    balloon = _xml.get(guest.running, "devices/memballoon/@model")[0]
    if balloon in (None, "none") or SIZE.bytes(difference.after) > SIZE.bytes(SIZE.from_xml(text or "0", unit)):
        return None

    def set_memory(size: str) -> None:
        guest.handle.setMemoryFlags(int(SIZE.to_xml(size)), LIVE)
        deadline = time.monotonic() + GUEST_DEADLINE_S
        while guest.handle.info()[2] != int(SIZE.to_xml(size)):
            if time.monotonic() > deadline:
                raise KvmError(f"memory.size: the guest did not move its balloon to {size} within {GUEST_DEADLINE_S} s")
            time.sleep(PULSE_S)

    return setter("memory.size", set_memory, difference.after, difference.before)


def _balloon_statistics(guest: Guest, difference: _fields.Difference) -> Step:
    return setter(
        difference.option, lambda seconds: guest.handle.setMemoryStatsPeriod(seconds, LIVE), difference.after or 0, difference.before or 0
    )


def _iothreads(guest: Guest, difference: _fields.Difference) -> Step:
    def set_count(count: int) -> None:
        numbers = sorted(one[0] for one in guest.handle.ioThreadInfo(0))
        for number in numbers[count:]:
            guest.handle.delIOThread(number, LIVE)
        free = (number for number in range(1, count + len(numbers) + 1) if number not in numbers)
        for _missing in range(count - len(numbers)):
            guest.handle.addIOThread(next(free), LIVE)

    return setter(difference.option, set_count, difference.after or 0, difference.before or 0)


# Weights, limits and pins ---------------------------------------------------------------------------------------------


def _scheduler(guest: Guest, difference: _fields.Difference) -> Step:
    name = SCHEDULER.get(_tail(difference), _tail(difference))
    return setter(
        difference.option, lambda v: guest.handle.setSchedulerParametersFlags({name: v}, LIVE), difference.after, difference.before
    )


def _memory_limit(guest: Guest, difference: _fields.Difference) -> Step:
    def set_limit(size: str | None) -> None:
        guest.handle.setMemoryParameters({_tail(difference): UNLIMITED if size is None else int(SIZE.to_xml(size))}, LIVE)

    undo = setter(difference.option, set_limit, difference.before, None).do
    return Step(f"set {difference.option} of the running guest", setter(difference.option, set_limit, difference.after, None).do, undo)


def _block_weight(guest: Guest, difference: _fields.Difference) -> Step:
    return setter(
        difference.option, lambda v: guest.handle.setBlkioParameters({_tail(difference): v}, LIVE), difference.after, difference.before
    )


def _numa_nodes(guest: Guest, difference: _fields.Difference) -> Step | None:
    if _xml.get(guest.running, "numatune/memory/@mode")[0] != "strict":
        return None  # qemuDomainSetNumaParameters: only of a guest that runs with strict
    return setter(
        difference.option, lambda v: guest.handle.setNumaParameters({"numa_nodeset": v}, LIVE), difference.after, difference.before
    )


def _cpu_map(guest: Guest, cpuset: str | None) -> tuple[bool, ...]:
    chosen = CPUSET.numbers(cpuset) if cpuset else frozenset(range(guest.cpus))
    return tuple(number in chosen for number in range(guest.cpus))


def _pin(guest: Guest, difference: _fields.Difference, call: Callable[[int, tuple[bool, ...]], Any]) -> Step:
    """Return the step that pins one thread; the item that says so may come, go or change."""
    row, item = difference.item or (None, {})
    number = int(item[row.key[0]]) if row is not None else 0

    def cpuset(value: Any) -> str | None:
        return (value or {}).get("cpuset") if difference.whole_item else value

    def pin(value: Any) -> Callable[[], None]:
        return setter(difference.option, lambda v: call(number, _cpu_map(guest, v)), cpuset(value), None).do

    return Step(f"set {difference.option} of the running guest", pin(difference.after), pin(difference.before))


def _vcpu_pin(guest: Guest, difference: _fields.Difference) -> Step:
    return _pin(guest, difference, lambda vcpu, cpus: guest.handle.pinVcpuFlags(vcpu, cpus, LIVE))


def _iothread_pin(guest: Guest, difference: _fields.Difference) -> Step:
    return _pin(guest, difference, lambda thread, cpus: guest.handle.pinIOThread(thread, cpus, LIVE))


def _emulator_pin(guest: Guest, difference: _fields.Difference) -> Step:
    return setter(
        difference.option, lambda v: guest.handle.pinEmulator(_cpu_map(guest, v), LIVE), difference.after, difference.before
    )


def _block_io_tune(guest: Guest, difference: _fields.Difference) -> Step | None:
    if difference.item is None:
        return None
    row, item = difference.item
    disk = Device(row, item).find(guest.running)
    before = (_fields.read(row.rows, disk) if disk is not None else {}).get("iotune") or {}
    # libvirt sets the limits that one call leaves out of a metric to 0: all of them go together, the cleared ones first.
    cleared = dict.fromkeys(before, 0)
    return setter(
        difference.option, lambda v: guest.handle.setBlockIoTune(item["target"], v, LIVE),
        {**cleared, **before, **item["iotune"]}, before or dict.fromkeys(item["iotune"], 0),
    )  # fmt: skip


# Words and rules --------------------------------------------------------------------------------------------------------


def _lifecycle(guest: Guest, difference: _fields.Difference) -> Step:
    event = LIFECYCLE[_tail(difference)]
    return setter(
        difference.option, lambda v: guest.handle.setLifecycleAction(event, ACTIONS.index(v), LIVE), difference.after, difference.before
    )


def _metadata(guest: Guest, difference: _fields.Difference) -> Step:
    kind = WORDS_ABOUT[_tail(difference)]

    def put(text: str | None) -> Callable[[], None]:
        def do() -> None:
            with told(f"{difference.option}: the running guest did not take it"):
                guest.handle.setMetadata(kind, text, None, None, LIVE)

        return do

    return Step(f"set {difference.option} of the running guest", put(difference.after), put(difference.before))


KNOBS: dict[str, Maker] = {
    "vcpus": _vcpus,
    "memory": _memory,
    "balloon_statistics": _balloon_statistics,
    "iothreads": _iothreads,
    "scheduler": _scheduler,
    "memory_limit": _memory_limit,
    "block_weight": _block_weight,
    "numa_nodes": _numa_nodes,
    "vcpu_pin": _vcpu_pin,
    "iothread_pin": _iothread_pin,
    "emulator_pin": _emulator_pin,
    "block_io_tune": _block_io_tune,
    "lifecycle": _lifecycle,
    "metadata": _metadata,
}
