# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a guest: start, stop as it should be stopped, pause, save, wake, start again, remove."""

from __future__ import annotations

import time
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.objects import (
    Family,
    persistent_xml,
    start_step,
    undefine_step,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

PULSE_S = 0.5
ASK_AGAIN_S = 10  # a guest that is still booting misses the first press of the power button
WAKE_S = 30
RUNNING_WORDS = ("running", "paused", "suspended", "crashed")  # what state_of says of a guest that has a QEMU

LIFE_OPTIONS = (
    _fields.Field("stop_timeout", None, c.Integer(), "Seconds that a guest gets to shut down when it is asked to. It is asked through"
                  " its agent first and then by the power button.", default=120),
    _fields.Field("force_stop", None, c.YES_NO, "Whether to power off a guest that did not shut down in time, or that has crashed and"
                  " is kept for examination.", default=False),
    _fields.Field("undefine", None, c.Choice(words=("managed_save", "snapshots", "checkpoints", "nvram", "tpm")),
                  "What else goes with a guest that is to be V(absent). libvirt refuses while it has any that is not named; its"
                  " NVRAM and the state of its TPM stay for a guest of the same UUID.", many=True, default=[]),
)  # fmt: skip


def state_of(handle: Any | None) -> str:
    """Return running, paused, suspended (by the guest, to memory), crashed (kept as it was), stopped, or absent."""
    if handle is None:
        return "absent"
    with told("cannot read the state"):
        state = handle.state()[0]
        if not handle.isActive():
            return "stopped"
    words = {
        libvirt.VIR_DOMAIN_PAUSED: "paused",
        libvirt.VIR_DOMAIN_PMSUSPENDED: "suspended",
        libvirt.VIR_DOMAIN_CRASHED: "crashed",
    }
    return words.get(state, "running")


def is_transient(handle: Any | None) -> bool:
    """Tell whether a guest runs without a definition; one that does not run has one, which is known without asking."""
    if handle is None or handle.ID() == -1:
        return False
    with told("cannot read the state"):
        return not handle.isPersistent()


def has_saved_state(handle: Any | None) -> bool:
    """Tell whether the guest's memory is on disk, so that its next start goes on from there."""
    with told("cannot read the state"):
        return handle is not None and bool(handle.hasManagedSaveImage(0))


def life_steps(
    session: Libvirt, family: Family, name: str, handle: Any | None, wanted: str | None
) -> tuple[list[Change], list[Step], list[str]]:
    """Return what it takes to have the guest run, stand still or be stopped, as wanted, and what to warn of."""
    if wanted in (None, "present"):
        return [], [], []
    found = state_of(handle)
    if found == "stopped" and wanted in ("saved", "stopped") and has_saved_state(handle):
        warn = ["it is stopped with its memory saved, and its next start goes on from there"] if wanted == "stopped" else []
        return [], [], warn
    if wanted == found or (wanted == "stopped" and found == "absent"):
        return [], [], []
    if wanted == "saved" and found in ("stopped", "absent"):
        raise KvmError("state: saved needs a guest that runs; have it running first")
    steps = [make(session, family, name) for make in WAYS[wanted, "stopped" if found == "absent" else found]]
    before = None if found == "absent" else found
    return [Change("state", before, wanted, "stop" if wanted in ("stopped", "saved") else "start")], steps, []


def restart_steps(session: Libvirt, family: Family, name: str, handle: Any, before: Any) -> list[Step]:
    """Return the steps that shut a guest down and start it again; undone, it runs again with the definition C(before)."""
    found = state_of(handle)
    stop = [make(session, family, name) for make in WAYS["stopped", found]]

    def restore() -> None:
        with told("cannot start again as before"):
            handle = family.listed(session)[name] = family.define(session.connection, _xml.text_of(before))
            if not handle.isActive():
                handle.create()

    stop[-1] = Step(stop[-1].sentence, stop[-1].do, restore)
    return [*stop, _start_paused(session, family, name) if found == "paused" else start_step(session, family, name)]


def absent(session: Libvirt, family: Family, name: str, handle: Any | None) -> tuple[list[Change], list[Step]]:
    """Return what it takes to have no such guest: stopped as a guest is stopped, then undefined; no disk is touched."""
    if handle is None:
        return [], []
    found = state_of(handle)
    steps = [make(session, family, name) for make in WAYS["stopped", found]] if found in RUNNING_WORDS else []
    words = session.params["undefine"]
    flags = undefine_flags(words)
    with told("cannot read the definition"):
        if handle.isPersistent():
            refuse_losses(handle, words, "state: absent")
            steps.append(undefine_step(session, family, name, persistent_xml(session, family, handle), flags))
        else:  # gone once it is stopped
            steps.append(Step(f"domain {name} is gone", lambda: family.listed(session).pop(name, None)))
    return [Change("state", found, "absent", "remove")], steps


def undefine_flags(words: list[str]) -> int:
    """Return the flags of virDomainUndefineFlags for what goes with a definition; NVRAM and TPM stay unless they are named."""
    flags = 0
    for word in words:
        flags |= _UNDEFINE[word]()
    if "nvram" not in words:
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
    if "tpm" not in words and hasattr(libvirt, "VIR_DOMAIN_UNDEFINE_KEEP_TPM"):
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM
    return flags


def refuse_losses(handle: Any, words: list[str], what: str) -> None:
    """Raise KvmError that names all of what libvirt would keep the guest for, before anything is stopped."""
    kept = []
    if "managed_save" not in words and has_saved_state(handle):
        kept.append("managed_save")
    with told("cannot read its snapshots"):
        if "snapshots" not in words and handle.snapshotNum(0):
            kept.append("snapshots")
        if "checkpoints" not in words and handle.listAllCheckpoints(0):
            kept.append("checkpoints")
    if kept:
        raise KvmError(f"{what} would lose its {' and '.join(kept)}; allow it with undefine: [{', '.join(kept)}]")


_UNDEFINE: dict[str, Callable[[], int]] = {
    "managed_save": lambda: int(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE),
    "snapshots": lambda: int(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA),
    "checkpoints": lambda: int(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA),
    "nvram": lambda: int(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM),
    "tpm": lambda: _since("VIR_DOMAIN_UNDEFINE_TPM", "8.9.0"),
}


def _since(flag: str, version: str) -> int:
    if not hasattr(libvirt, flag):
        raise KvmError(f"undefine: tpm needs libvirt {version} on the host")
    return int(getattr(libvirt, flag))


# Steps --------------------------------------------------------------------------------------------------------------


def _call(method: str, inverse: str | None, *arguments: int) -> Callable[[Libvirt, Family, str], Step]:
    def make(session: Libvirt, family: Family, name: str) -> Step:
        def caller(verb: str, *given: int) -> Callable[[], None]:
            def call() -> None:
                with told(f"cannot {WORDS_OF[verb]}"):
                    getattr(family.listed(session)[name], verb)(*given)

            return call

        return Step(f"{WORDS_OF[method]} domain {name}", caller(method, *arguments), caller(inverse) if inverse else None)

    return make


WORDS_OF = {"resume": "resume", "suspend": "suspend", "managedSave": "save the memory of", "create": "start"}


def _wake(session: Libvirt, family: Family, name: str) -> Step:
    def wake() -> None:
        with told("cannot wake"):
            handle = family.listed(session)[name]
            handle.pMWakeup(0)
            deadline = time.monotonic() + WAKE_S
            while state_of(handle) == "suspended":
                if time.monotonic() > deadline:
                    raise KvmError(f"the guest did not wake within {WAKE_S} s")
                time.sleep(PULSE_S)

    return Step(f"wake domain {name}", wake)


def _start_paused(session: Libvirt, family: Family, name: str) -> Step:
    def start() -> None:
        with told("cannot start"):
            family.listed(session)[name].createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)

    return Step(f"start domain {name} paused", start, start_step(session, family, name).undo)


def _stop_step(session: Libvirt, family: Family, name: str) -> Step:
    """Return the step that shuts a guest down and waits; it is powered off only when the task says force_stop."""
    patience = session.params["stop_timeout"]

    def stop() -> None:
        with told("cannot stop"):
            handle = family.listed(session)[name]
            if _shut_down(handle, patience):
                return
            if not session.params["force_stop"]:
                raise KvmError(f"the guest did not shut down within {patience} s; force_stop: true powers it off")
            _power_off(handle)

    return Step(f"shut domain {name} down", stop)


def _end_crashed(session: Libvirt, family: Family, name: str) -> Step:
    """Return the step that ends a guest that crashed and was kept; refused when the plan is made without force_stop."""
    if not session.params["force_stop"]:
        raise KvmError("it has crashed and is kept for examination (on_crash: preserve); force_stop: true powers it off")

    def end() -> None:
        with told("cannot power off"):
            _power_off(family.listed(session)[name])

    return Step(f"power the crashed domain {name} off", end)


def _power_off(handle: Any) -> None:
    try:
        handle.destroy()
    except libvirt.libvirtError:
        if handle.isActive():  # else it stopped by itself in between
            raise


def _shut_down(handle: Any, patience: int) -> bool:
    """Ask the guest to shut down, its agent first, again every ASK_AGAIN_S seconds; return whether it did in time."""
    deadline = time.monotonic() + patience
    asked = 0.0
    # Few tasks stop a guest, and those that do not are spared loading it.
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import agent  # noqa: PLC0415

    by_agent = agent.connected(handle) if patience else False
    while handle.isActive():
        now = time.monotonic()
        if now >= deadline:
            return False
        if now - asked >= ASK_AGAIN_S:
            asked = now
            try:
                if by_agent:
                    agent.shut_down(handle)
                else:
                    handle.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
            except libvirt.libvirtError:
                # It can have stopped in between; else this way is closed, and the next time it is the power button.
                if not by_agent:
                    return not handle.isActive()
                asked = 0.0
            by_agent = False
        time.sleep(PULSE_S)
    return True


_Make = Callable[[Libvirt, Family, str], Step]
_resume, _suspend, _save = _call("resume", "suspend"), _call("suspend", "resume"), _call("managedSave", "create", 0)
# What it takes from one state (the second) to another: a guest that stands still cannot shut down, nor one that sleeps.
WAYS: dict[tuple[str, str], tuple[_Make, ...]] = {
    ("running", "stopped"): (start_step,),
    ("running", "paused"): (_resume,),
    ("running", "suspended"): (_wake,),
    ("running", "crashed"): (_end_crashed, start_step),
    ("paused", "stopped"): (_start_paused,),
    ("paused", "running"): (_suspend,),
    ("paused", "suspended"): (_wake, _suspend),
    ("paused", "crashed"): (_end_crashed, _start_paused),
    ("stopped", "running"): (_stop_step,),
    ("stopped", "paused"): (_resume, _stop_step),
    ("stopped", "suspended"): (_wake, _stop_step),
    ("stopped", "crashed"): (_end_crashed,),
    ("saved", "running"): (_save,),
    ("saved", "paused"): (_save,),
    ("saved", "suspended"): (_wake, _save),
    ("saved", "crashed"): (_save,),
}
