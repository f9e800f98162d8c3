# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs and what it takes. Pure: nothing here reads or writes a host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError


@dataclass(frozen=True)
class Change:
    """One option that will change. how: define, live, next_boot, replug, recreate, start, stop, remove, host …"""

    option: str
    before: Any
    after: Any
    how: str


@dataclass(frozen=True)
class Step:
    """One action: a sentence for people, what it does, and how to undo it (None: it cannot be, or need not be)."""

    sentence: str
    do: Callable[[], None]
    undo: Callable[[], None] | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that one object needs.

    pending: options that the running object takes only at its next start, also those of an earlier run.
    facts: what else the result says of this object, such as C(defaults_applied).
    waits: what to do or wait for once the steps are done that is no change of the object; a failure undoes nothing.
    """

    subject: str
    changes: tuple[Change, ...] = ()
    steps: tuple[Step, ...] = ()
    pending: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    waits: tuple[Step, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.changes or self.steps)

    def diff(self) -> dict[str, str]:
        """Return the changed options before and after, as YAML by dotted option name."""
        return {
            "before_header": self.subject,
            "after_header": self.subject,
            "before": "".join(_line(c.option, c.before) for c in self.changes if c.before is not None),
            "after": "".join(_line(c.option, c.after) for c in self.changes if c.after is not None),
        }

    def report(self) -> dict[str, Any]:
        """Return what the result says of this plan."""
        return {
            "changed": self.changed,
            "changes": [vars(change) for change in self.changes],
            "steps": [step.sentence for step in self.steps],
            "pending_restart": list(self.pending),
            **self.facts,
        }


def _line(option: str, value: Any) -> str:
    return f"{option}: {value if isinstance(value, str) else json.dumps(value, sort_keys=True)}\n"


def execute(plan: Plan) -> None:
    """Do the steps in order. When one fails, undo those before it in reverse and raise KvmError that says so."""
    done: list[Step] = []
    for step in plan.steps:
        try:
            step.do()
        except KvmError as error:
            raise KvmError(f"{error}{undone(done)}") from error
        done.append(step)


def undone(done: Sequence[Step]) -> str:
    """Undo what was done; return what to tell of it."""
    kept = []
    for step in reversed(done):
        if step.undo is None:
            kept.append(step.sentence)
            continue
        try:
            step.undo()
        except KvmError as error:
            kept.append(f"{step.sentence} ({error})")
    if not done:
        return ""
    return f"; not undone: {'; '.join(kept)}" if kept else "; what was done before it is undone"


def mismatch(plan: Plan) -> str:
    """Return the sentence for a plan that is not empty although it was just carried out."""
    parts = [f"{c.option}: asked {c.after!r}, has {c.before!r}" for c in plan.changes]
    return f"the host did not keep what it was given: {'; '.join(parts or [s.sentence for s in plan.steps])}"
