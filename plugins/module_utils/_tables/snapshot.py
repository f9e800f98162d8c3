# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of a snapshot of a guest. Names follow https://libvirt.org/formatsnapshot.html in snake_case."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.kept import QUIESCE, kept

TABLE = f.Table(
    noun="snapshot", root="domainsnapshot", doc="A snapshot of a guest.", rows=(
        f.Field("domain", None, c.NAME, "Name of the guest.", required=True),
        f.Field("name", None, c.WORD, "Name of the snapshot, unique in its guest.", required=True),
        f.Field("state", None, c.Choice(words=("present", "reverted", "absent")),
                "What is to be. V(present) has the snapshot; one that is there is never taken again. V(reverted) puts the guest back"
                " to it, whenever the task runs: what was written since is lost. V(absent) deletes it and keeps the guest as it"
                " is; what an external one holds apart is merged."),
        f.Field("kind", None, c.Choice(words=("internal", "external")),
                "V(internal) keeps it inside the qcow2 images, of a running guest with its memory. V(external) has the guest write"
                " to new images from now on, which lie on the old ones; the memory is not kept. By default V(internal)."),
        QUIESCE,
        f.Field("description", None, c.TEXT, "A sentence for people. Only counts when the snapshot is taken."),
        f.Field("series", None, c.WORD, "How the names of snapshots begin of which O(keep) and O(keep_days) count."),
        *kept("of the O(series)"),
    ),
)  # fmt: skip


def complete(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001  every table's signature
    """Return the wanted options; a snapshot needs no others."""
    return wanted


def check(wanted: dict[str, Any]) -> None:
    """Raise KvmError for options that cannot stand together."""
    if ("series" in wanted) != bool({"keep", "keep_days"} & set(wanted)):
        raise KvmError(f"{'keep' if 'keep' in wanted else 'keep_days'}: goes with series, and that with keep or keep_days")
    if "series" in wanted and not str(wanted["name"]).startswith(wanted["series"]):
        raise KvmError(f"series: the name {wanted['name']} does not begin with {wanted['series']}")
    if wanted.get("quiesce") and wanted.get("kind") != "external":
        raise KvmError("quiesce: goes with kind: external; an internal one has the memory too")
