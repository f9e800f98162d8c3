# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kvm_path_info: a question about one packet."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import ADDRESS, NAME, WORD, Choice, Integer

QUESTION = (
    f.Field("guest", None, NAME, "The running guest that sends. Either this or O(source) is needed."),
    f.Field("source", None, ADDRESS,
            "The address that sends: of the host, of a guest or of a machine outside. Of O(guest), it is found in the leases of DHCP, in "
            "what the host heard, or by the guest's agent, if it is not given."),
    f.Field("interface", None, WORD,
            "Where the packet comes in. Of O(guest), its interface by MAC address or by its name on the host, if it has several; "
            "else the host's interface, or a port of one of its bridges, if the route to O(source) does not tell."),
    f.Field("to", None, ADDRESS, "The address that it is sent to.", required=True),
    f.Field("proto", None, Choice(words=("tcp", "udp", "icmp")), "The protocol; V(icmp) is an echo request, a ping.", default="tcp"),
    f.Field("port", None, Integer(low=1, high=65535), "The port that it is sent to; needed for V(tcp) and V(udp)."),
)  # fmt: skip

PATH = f.Table("path", "", "The way of a packet.", ())
