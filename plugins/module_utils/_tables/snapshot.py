# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of a snapshot of a guest. Names follow https://libvirt.org/formatsnapshot.html in snake_case."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Table

TABLE = Table(
    noun="snapshot", root="domainsnapshot", doc="A snapshot of a guest.", rows=(
        Field("domain", None, c.NAME, "Name of the guest.", required=True),
        Field("name", None, c.WORD, "Name of the snapshot, unique in its guest.", required=True),
        Field("state", None, c.Choice(words=("present", "reverted", "absent")),
              "What is to be. V(present) has the snapshot; one that is there is never taken again. V(reverted) puts the guest back"
              " to it, whenever the task runs: what was written since is lost. V(absent) deletes it and keeps the guest as it"
              " is; what an external one holds apart is merged."),
        Field("kind", None, c.Choice(words=("internal", "external")),
              "V(internal) keeps it inside the qcow2 images, of a running guest with its memory. V(external) has the guest write"
              " to new images from now on, which lie on the old ones; the memory is not kept. By default V(internal)."),
        Field("quiesce", None, c.YES_NO, "Whether the agent in the guest holds its file systems still meanwhile; for O(kind=external)."),
        Field("description", None, c.TEXT, "A sentence for people. Only counts when the snapshot is taken."),
        Field("series", None, c.WORD, "How the names of snapshots begin of which O(keep) counts."),
        Field("keep", None, c.Integer(low=1, high=1000), "How many of the O(series) are kept; the oldest beyond are deleted."),
    ),
)  # fmt: skip


def complete(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001  every table's signature
    """Return the wanted options; a snapshot needs no others."""
    return wanted


def check(wanted: dict[str, Any]) -> None:
    """Raise KvmError for options that cannot stand together."""
    if ("series" in wanted) != ("keep" in wanted):
        raise KvmError("keep: goes with series, and that with keep")
    if "series" in wanted and not str(wanted["name"]).startswith(wanted["series"]):
        raise KvmError(f"series: the name {wanted['name']} does not begin with {wanted['series']}")
    if wanted.get("quiesce") and wanted.get("kind") != "external":
        raise KvmError("quiesce: goes with kind: external")
