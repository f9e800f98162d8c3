# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kvm_placement: which NUMA node a guest lives on."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import NAME, Pattern

PLACEMENT = f.Table(
    "placement",
    "",
    "Guests and the NUMA node that they live on.",
    (
        f.Field("name", None, NAME, "Name of the guest. It exists already.", required=True),
        f.Field("node", None, Pattern(pattern=r"auto|\d{1,4}", says="auto or the number of a node"),
                "Number of a NUMA node, or V(auto): where its PCI devices are, else where it was placed before as long as it fits there, else "
                "where the most room is.", required=True),
    ),
)  # fmt: skip
