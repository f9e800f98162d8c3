# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tables as documentation: what ansible-doc shows of an option is computed from the row that defines it."""

from __future__ import annotations

from typing import Any

import yaml

from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Row, Section
from ansible_collections.anfitrion.kvm.plugins.module_utils._options import argument_spec
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import Kind

WHEN = {
    "next_boot": "A running object takes a change at its next start.",
}


def fragment(kind: Kind) -> str:
    """Return the DOCUMENTATION of every option of the module, as YAML."""
    options = _options(kind.table.rows)
    if kind.plural:
        for option in options.values():
            option.pop("required", None)
    options.update(_options(kind.options))
    if kind.plural:
        options[kind.plural] = {
            "type": "list",
            "elements": "dict",
            "description": [
                f"Several {kind.plural} in one task, over one connection.",
                f"Each entry takes the options that describe one {kind.table.noun} and is checked like them;"
                " errors name the entry.",
                "One entry that fails does not stop the others; the task fails at its end and names every failure.",
            ],
        }
        options["defaults"] = {
            "type": "dict",
            "description": [
                f"Options merged under every entry of O({kind.plural}). Dictionaries are merged, anything else in an"
                " entry replaces."
            ],
        }
    return str(yaml.safe_dump({"options": options}, sort_keys=False, width=100, allow_unicode=True))


def info_fragment(kind: Kind) -> str:
    """Return the DOCUMENTATION of the options of the info twin, as YAML."""
    options = _options(kind.info_options)
    if kind.plural:
        options["name"] = {
            "type": "str",
            "description": [f"The one {kind.table.noun} to tell of. Without it, all of them."],
        }
    return str(yaml.safe_dump({"options": options}, sort_keys=False, width=100, allow_unicode=True))


def _options(rows: tuple[Row, ...]) -> dict[str, Any]:
    spec = argument_spec(rows)
    documented: dict[str, Any] = {}
    for row in rows:
        option = {k: v for k, v in spec[row.name].items() if k not in ("options", "no_log")}
        option["description"] = [row.doc, *_notes(row)]
        if not isinstance(row, Field):
            option["suboptions"] = _options(row.rows)
            if isinstance(row, Items) or row.removable:
                option["suboptions"]["state"] = {
                    "type": "str",
                    "choices": ["present", "absent"],
                    "default": "present",
                    "description": ["V(absent) takes it away."],
                }
        documented[row.name] = option
    return documented


def _notes(row: Row) -> list[str]:
    """Return the sentences that the other attributes of a row say."""
    notes = []
    if isinstance(row, Items):
        keys = " or ".join(f"O(ignore:{key})" for key in row.key)
        notes.append(f"An item is known by its {keys}; items not mentioned stay as they are.".replace("O(ignore:", "C("))
    if isinstance(row, Section) and not row.rows:
        notes.append("It has no further options.")
    return notes
