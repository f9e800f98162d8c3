"""The examples of the guide's pages, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide"


def tasks_of(page: str, heading: str = "", whose: str = "anfitrion.") -> list[dict[str, Any]]:
    """Return the tasks of a collection in every YAML block of a page, or in what is below a heading of its second level."""
    text = (GUIDE / page).read_text(encoding="utf-8")
    sections = [one for one in re.split(r"^## ", text, flags=re.MULTILINE) if not heading or one.startswith(f"{heading}\n")]
    blocks = [block for one in sections for block in re.findall(r"```yaml\n(.*?)```", one, re.DOTALL)]
    return [task for block in blocks for task in yaml.safe_load(block) if any(name.startswith(whose) for name in task)]


def moved(value: Any, places: dict[str, str]) -> Any:
    """Return an example with its files in other places, the first that fits, and its guests emulated: a machine that tests may have no KVM."""
    if isinstance(value, dict):
        done = {name: moved(one, places) for name, one in value.items()}
        guest = done.get("anfitrion.kvm.kvm_domain")
        if isinstance(guest, dict):
            for one in guest.get("domains", [guest]):
                one.setdefault("type", "qemu")
        return done
    if isinstance(value, list):
        return [moved(one, places) for one in value]
    if isinstance(value, str):
        old = next((old for old in places if value.startswith(old)), "")
        return places.get(old, "") + value[len(old) :]
    return value
