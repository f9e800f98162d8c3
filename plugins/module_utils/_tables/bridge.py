# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kvm_bridge: bridges of the host onto its LAN. They are no XML: `_node` reads and writes them."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import INTERFACE, Choice, Flag, Integer

BIT = Flag()
MANAGERS = ("ifupdown", "networkd", "networkmanager")
BOND_MODES = ("active-backup", "802.3ad", "balance-rr", "balance-xor", "balance-tlb", "balance-alb", "broadcast")

BOND = f.Section(
    "bond",
    None,
    "Joins the O(ports) to one link, which is then what is in the bridge.",
    (
        f.Field("name", None, INTERFACE, "Name of the bond, as V(bond0).", required=True),
        f.Field("mode", None, Choice(words=BOND_MODES),
                "How the ports share the work; V(active-backup) if not given. V(802.3ad) needs a switch that knows of it."),
        f.Field("miimon_ms", None, Integer(low=10, high=10000), "How often the links are looked at, in milliseconds; 100 if not given."),
    ),
)  # fmt: skip

BRIDGE = f.Table(
    "bridge",
    "",
    "A bridge of the host.",
    (
        f.Field("name", None, INTERFACE, "Name of the bridge, as V(br0).", required=True),
        f.Field("state", None, Choice(words=("present", "absent")),
                "V(absent) takes the bridge away and gives its NIC back as it was. Refused while guests are on the bridge."),
        f.Field("ports", None, INTERFACE,
                "NICs of the bridge, most often one. What the first one that has addresses is configured with, addresses, routes, DNS and "
                "so on, moves to the bridge, which also gets the MAC address of the first. Needed when the bridge is first named.", many=True),
        BOND,
        f.Field("vlan", None, Integer(low=1, high=4094),
                "The bridge is on this VLAN of the NIC, or the bond. Addresses then stay where they are: guests are in the VLAN, the host is not."),
        f.Field("stp", None, BIT, "Whether the bridge speaks the spanning tree protocol; V(false) for a new one if not given."),
        f.Field("forward_delay_s", None, Integer(low=2, high=30),
                "With O(stp), how long a new port listens and how long it learns before it forwards, in seconds; the kernel's 15 if not given."),
        f.Field("manager", None, Choice(words=MANAGERS),
                "Who configures the NIC. It is found by who claims it now; say it where nobody does, or two do. netplan is behind one of them."),
    ),
)  # fmt: skip

TIMEOUT = f.Field("timeout_s", None, Integer(low=10, high=3600),
                  "Seconds in which the change must be confirmed with M(anfitrion.kvm.kvm_confirm), else the host goes back to what it was.",
                  default=120)  # fmt: skip
