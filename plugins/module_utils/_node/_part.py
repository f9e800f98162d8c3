# SPDX-License-Identifier: GPL-3.0-or-later
"""What one knob adds to the plan of its object, and the steps that knobs have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step

LIVE = "live"  # Change.how: the running kernel takes it now
NEXT_BOOT = "next_boot"  # Change.how: a file that the next boot reads
UNITS = "/etc/systemd/system"


@dataclass(frozen=True)
class Part:
    """What differs for one knob and what it takes; the reasons why only a reboot brings the rest."""

    changes: tuple[Change, ...] = ()
    steps: tuple[Step, ...] = ()
    pending: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reboot_reasons: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Write:
    """One value for one kernel file, and the value to go back to."""

    path: str
    value: str
    before: str


def joined(subject: str, parts: Iterable[Part], **facts: Any) -> Plan:
    """Return the plan of an object from its parts, in order."""
    one = together(*parts)
    reboot = {"reboot_required": bool(one.reboot_reasons), "reboot_reasons": list(one.reboot_reasons)}
    return Plan(subject, one.changes, one.steps, one.pending, one.warnings, {**reboot, **one.facts, **facts})


def together(*parts: Part, facts: dict[str, Any] | None = None) -> Part:
    """Return several parts as one, in order."""
    told = {name: value for part in parts for name, value in part.facts.items()}
    return Part(
        tuple(change for part in parts for change in part.changes),
        tuple(step for part in parts for step in part.steps),
        tuple(option for part in parts for option in part.pending),
        tuple(warning for part in parts for warning in part.warnings),
        tuple(reason for part in parts for reason in part.reboot_reasons),
        {**told, **(facts or {})},
    )


def chosen(text: str) -> str:
    """Return the value that a kernel file tells: C(madvise) of C(always [madvise] never), else the text itself."""
    match = re.search(r"\[([^\]]+)\]", text)
    return match[1] if match else text.strip()


def write_checked(root: Root, path: str, value: str) -> None:
    """Write a kernel file and read it back: a write that returns well may still have done less."""
    root.write(path, value)
    found = chosen(root.read(path) or "")
    if found != value:
        raise KvmError(f"{path}: wrote {value!r}, the kernel has {found!r}")


def write_step(root: Root, write: Write) -> Step:
    """Return the step that writes one kernel file, reads it back, and can go back."""
    return Step(
        f"write {write.value} to {write.path}",
        partial(write_checked, root, write.path, write.value),
        partial(write_checked, root, write.path, write.before),
    )


def file_part(root: Root, path: str, text: str | None, changes: Iterable[Change] = (), mode: int = 0o644) -> Part:
    """Return what it takes that a file of ours holds this text (None: is not there).

    C(changes) says in options what differs; without them the file itself is named.
    """
    before = root.text(path)
    if before == text and (text is None or root.mode(path) == mode):
        return Part()
    told = tuple(changes) or (Change(path, None if before is None else "present", "absent" if text is None else "as declared", NEXT_BOOT),)
    do = partial(root.remove, path) if text is None else partial(root.place, path, text, mode)
    undo = partial(root.remove, path) if before is None else partial(root.place, path, before, root.mode(path) or mode)
    return Part(told, (Step(f"{'remove' if text is None else 'write'} {path}", do, undo),))


def unit_part(
    root: Root, name: str, text: str | None, wanted_by: Iterable[str], file: str | None = None, *, shared: bool = False
) -> Part:
    """Return what it takes that a unit of ours exists and is enabled (text None: does not exist).

    C(file): the template that an instance is made of; the link is the same that C(systemctl enable) makes.
    C(shared): the template stays as it is, other instances are made of it.
    """
    parts = [] if shared else [file_part(root, f"{UNITS}/{file or name}", text)]
    for target in wanted_by:
        link = f"{UNITS}/{target}.wants/{name}"
        there = root.exists(link)
        if text is not None and not there:
            do, undo = partial(root.point, link, f"{UNITS}/{file or name}"), partial(root.remove, link)
            enable = Change(f"{name} ({target})", "disabled", "enabled", NEXT_BOOT)
            parts.append(Part((enable,), (Step(f"enable {name} for {target}", do, undo),)))
        elif text is None and there:
            do, undo = partial(root.remove, link), partial(root.point, link, f"{UNITS}/{file or name}")
            disable = Change(f"{name} ({target})", "enabled", "disabled", NEXT_BOOT)
            parts.append(Part((disable,), (Step(f"disable {name} for {target}", do, undo),)))
    changes = tuple(change for part in parts for change in part.changes)
    steps = tuple(step for part in parts for step in part.steps)
    if steps:
        steps += (Step("let systemd read its units again", root.reload_units, root.reload_units),)
    return Part(changes, steps)


def persisted_changes(prefix: str, before: dict[str, str], after: dict[str, str]) -> list[Change]:
    """Return the options that a file of ours will hold otherwise than now."""
    return [
        Change(f"persisted.{prefix}{name}", before.get(name), after.get(name), NEXT_BOOT)
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def tmpfiles_text(directory: str, values: dict[str, str]) -> str:
    """Return tmpfiles.d lines that write the values at boot, in the given order (w! = at boot only)."""
    lines = [f"w! {directory}/{name} - - - - {value}\n" for name, value in values.items()]
    return HEADER + "".join(lines)


def tmpfiles_values(directory: str, text: str | None) -> dict[str, str]:
    """Return the values that such lines write."""
    found = re.findall(rf"^w!?\s+{re.escape(directory)}/(\S+)\s+-\s+-\s+-\s+-\s+(\S+)\s*$", text or "", re.MULTILINE)
    return dict(found)
