# SPDX-License-Identifier: GPL-3.0-or-later
"""What a knob was before we first set it, so that C(unset) can give it back: /etc/anfitrion.d/found.json."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import LIVE, file_part
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

FILE = "/etc/anfitrion.d/found.json"


def values(root: Root) -> dict[str, Any]:
    """Return value by option, as it was found."""
    text = root.text(FILE)
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        raise KvmError(f"{FILE}: is no JSON any more; remove it, then what was found before us is forgotten") from None
    if not isinstance(found, dict):
        raise KvmError(f"{FILE}: is no JSON object any more; remove it, then what was found before us is forgotten")
    return found


def of(root: Root, knob: str) -> dict[str, Any]:
    """Return what was found of one knob, by the rest of the option's name: C(pages_to_scan) of C(ksm.pages_to_scan)."""
    return {option[len(knob) :].lstrip("."): value for option, value in values(root).items() if _belongs(option, knob)}


def _belongs(option: str, knob: str) -> bool:
    return option == knob or option.startswith((f"{knob}.", f"{knob}["))


def record(root: Root, changes: tuple[Change, ...], forget: list[str]) -> tuple[Step, ...]:
    """Return the step that keeps what the changes of this task find, and forgets knobs that it gives back."""
    before = values(root)
    new = {c.option: c.before for c in changes if c.how == LIVE and c.option not in before}
    after = {option: value for option, value in {**new, **before}.items() if not any(_belongs(option, knob) for knob in forget)}
    if after == before:
        return ()
    text = f"{json.dumps(after, indent=1, sort_keys=True)}\n" if after else None
    return file_part(root, FILE, text).steps
