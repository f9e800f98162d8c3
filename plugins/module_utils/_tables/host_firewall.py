# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kvm_host_firewall: what reaches the host and goes through it. They are no XML: `_node` reads and writes them."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import INTERFACE, WORD, Choice, Flag, Integer
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.firewall import Network, Ports

HOST_FIREWALL = f.Table(
    "host_firewall",
    "",
    "What reaches the host and what goes through it.",
    (
        f.Field("state", None, Choice(words=("present", "absent")),
                "V(absent) takes the default deny away, and nothing else; nobody has to confirm that."),
        f.Field("deny", None, Choice(words=("input", "forward")),
                "What is dropped unless something allows it: V(input), what comes to the host, V(forward), what goes through it. Both if it was "
                "never given.", many=True),
        f.Items("allow", "", ("name",), "What may come to the host, the port of SSH first of all.", (
            f.Field("name", None, WORD, "What it is called; it stands beside the rule in the kernel.", required=True),
            f.Field("proto", None, Choice(words=("tcp", "udp")), "Protocol; V(tcp) if not given."),
            f.Field("port", None, Ports(), "Port of the host, or a range as V(49152-49215)."),
            f.Field("sources", None, Network(), "Networks, IPv4 or IPv6, that may use it; every one if not given.", many=True),
        )),
        f.Field("through", None, INTERFACE,
                "Interfaces of others, as V(docker0), whose packets may go through the host as far as the rules of others let them.", many=True),
        f.Field("rollback_after", None, Integer(low=5, high=3600),
                "After how many seconds the rules from before come back by themselves, unless M(anfitrion.kvm.kvm_confirm) confirms the new ones; 60 "
                "if not given."),
        f.Field("cut_allowed", None, Flag(),
                "Whether rules are loaded that allow no new connection like that which Ansible is using; V(false) if not given. The way back stays."),
    ),
)  # fmt: skip
