# SPDX-License-Identifier: GPL-3.0-or-later
"""What snapshots and backups of a guest have in common: file systems held still, and how many are kept."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f

QUIESCE = f.Field(
    "quiesce", None, c.YES_NO,
    "Whether the agent in a running guest holds its file systems still at that moment, so that they need no repair afterwards."
    " Without an agent that answers it is refused.",
)  # fmt: skip


def kept(of: str, more: str = "") -> tuple[f.Field, f.Field]:
    """Return the rows that say how many are kept. The one that a task names never goes."""
    return (
        f.Field("keep", None, c.Integer(low=1, high=1000), f"How many {of} are kept; the oldest beyond are deleted.{more}"),
        f.Field("keep_days", None, c.Integer(low=1, high=36_500), f"For how many days {of} are kept; older ones are deleted.{more}"),
    )
