# SPDX-License-Identifier: GPL-3.0-or-later
"""Interfaces beyond networks, bridges and virtual functions, and how they are driven."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain_parts as parts

RATE = c.Integer(low=1, high=2**32 - 1)
PROTOCOL = c.Choice(
    words=("openvswitch", "midonet", "802.1qbg", "802.1qbh"), spelled=(("802.1qbg", "802.1Qbg"), ("802.1qbh", "802.1Qbh"))
)  # fmt: skip
DIRECT = (("@type", "direct"),)
VHOST_USER = (("@type", "vhostuser"), ("source/@type", "unix"))


def _socket(kind: str, doc: str) -> f.Section:
    return f.Section(kind, ".", doc, (
        f.Field("address", "source/@address", c.ADDRESS, "Address.", implies=(("@type", kind),)),
        f.Field("port", "source/@port", parts.PORT, "Port.", implies=(("@type", kind),)),
    ))  # fmt: skip


def _limit(name: str, doc: str, *more: f.Row) -> f.Section:
    return f.Section(name, name, doc, (
        f.Field("average", "@average", RATE, "Kibibytes a second.", live="update_device"),
        f.Field("peak", "@peak", RATE, "Most in a burst.", live="update_device"),
        f.Field("burst", "@burst", RATE, "Kibibytes in a burst.", live="update_device"),
        *more,
    ))  # fmt: skip


MORE: tuple[f.Row, ...] = (
    f.Field("portgroup", "source/@portgroup", c.NAME_OF_OTHERS, "Port group of O(interfaces[].network).", live="portgroup"),
    f.Section("direct", ".", "An interface of the host, by macvtap.", (
        f.Field("dev", "source/@dev", c.INTERFACE, "Interface of the host.", implies=DIRECT),
        f.Field("mode", "source/@mode", c.Choice(words=("vepa", "bridge", "private", "passthrough")), "How it is shared.", implies=DIRECT),
    )),
    f.Section("vhost_user", ".", "A socket of a switch in user space.", (
        f.Field("path", "source/@path", c.PATH, "Socket.", implies=VHOST_USER),
        f.Field("mode", "source/@mode", c.Choice(words=("client", "server")), "Which side QEMU is.", implies=VHOST_USER),
        f.Section("reconnect", "source/reconnect", "Connecting again when the other side went away.", (
            f.Field("enabled", "@enabled", c.SAID_YES_NO, "Whether to."),
            f.Field("timeout", "@timeout", parts.UNSIGNED, "Seconds between attempts."),
        )),
    )),
    f.Field("vdpa", "source/@dev", c.PATH, "Device of a vDPA interface, V(/dev/vhost-vdpa-0).", implies=(("@type", "vdpa"),)),
    f.Field("internal", "source/@name", c.NAME_OF_OTHERS, "Name of an internal network.", implies=(("@type", "internal"),)),
    _socket("mcast", "A multicast group that guests share."),
    _socket("server", "A TCP port that another guest connects to."),
    _socket("client", "A TCP port that another guest has."),
    f.Field("target", "target/@dev", c.INTERFACE, "Name of its interface on the host.", expanded="libvirt names it at the start"),
    f.Field("target_managed", "target/@managed", c.SAID_YES_NO, "Whether libvirt makes it, V(ethernet)."),
    f.Field("script", "script/@path", c.PATH, "Program that sets it up, V(ethernet)."),
    f.Items("ips", "ip", ("address",), "Addresses that the guest is told, V(user).", (
        f.Field("address", "@address", c.ADDRESS, "Address.", required=True),
        f.Field("family", "@family", c.Choice(words=("ipv4", "ipv6")), "Family."),
        f.Field("prefix", "@prefix", c.PREFIX, "Length of the prefix."),
    )),
    f.Section("virtualport", "virtualport", "Port of a switch that has a protocol of its own.", (
        f.Field("type", "@type", PROTOCOL, "Protocol."),
        f.Field("profile", "parameters/@profileid", c.TEXT, "Profile."),
        f.Field("interface", "parameters/@interfaceid", c.UUID, "Interface."),
        f.Field("manager", "parameters/@managerid", c.INTEGER, "Manager of the VSI."),
        f.Field("vsi_type", "parameters/@typeid", c.INTEGER, "Type of the VSI."),
        f.Field("vsi_version", "parameters/@typeidversion", c.INTEGER, "Version of the type."),
        f.Field("instance", "parameters/@instanceid", c.UUID, "Instance."),
    )),
    f.Section("bandwidth", "bandwidth", "Limits.", (
        _limit("inbound", "To the guest.", f.Field("floor", "@floor", RATE, "Least, on a network that shapes too.", live="update_device")),
        _limit("outbound", "From the guest."),
    )),
    f.Field("vlan_trunk", "vlan/@trunk", c.SAID_YES_NO, "Whether several VLANs pass with their tags."),
    f.Items("filter_parameters", "filterref/parameter", ("name", "value"), "Variables of O(interfaces[].filter).", (
        f.Field("name", "@name", c.WORD, "Name.", required=True),
        f.Field("value", "@value", c.TEXT, "Value.", required=True),
    ), together=True),
    f.Field("tap", "backend/@tap", c.PATH, "Device that taps are made by."),
    f.Field("vhost", "backend/@vhost", c.PATH, "Device of vhost."),
    f.Field("txmode", "driver/@txmode", c.Choice(words=("iothread", "timer")), "How packets leave."),
    f.Field("ioeventfd", "driver/@ioeventfd", c.SAID_ON_OFF, "Whether I/O has a thread of its own."),
    f.Field("event_idx", "driver/@event_idx", c.SAID_ON_OFF, "Whether events are bundled."),
    f.Field("rx_queue_size", "driver/@rx_queue_size", c.Integer(low=256, high=1024), "Size of the receiving queue."),
    f.Field("tx_queue_size", "driver/@tx_queue_size", c.Integer(low=256, high=1024), "Size of the sending queue."),
    f.Field("rss", "driver/@rss", c.SAID_ON_OFF, "Receive-side scaling in QEMU."),
    f.Field("rss_hash_report", "driver/@rss_hash_report", c.SAID_ON_OFF, "Whether the guest is told the hash."),
    *(
        f.Section(f"{side}_offloads", f"driver/{side}", f"Offloads of the {side}.", tuple(
            f.Field(name, f"@{name}", c.SAID_ON_OFF, f"{name.upper()}.") for name in names))
        for side, names in (("host", ("csum", "gso", "tso4", "tso6", "ecn", "ufo", "mrg_rxbuf")),
                            ("guest", ("csum", "tso4", "tso6", "ecn", "ufo")))
    ),
    *parts.VIRTIO,
    f.Field("sndbuf", "tune/sndbuf", parts.UNSIGNED, "Bytes that wait to be sent."),
    f.Field("rx_max_coalesced", "coalesce/rx/frames/@max", parts.UNSIGNED, "Packets that are received at once."),
    f.Field("trust_rx_filters", "@trustGuestRxFilters", c.SAID_YES_NO, "Whether the guest may choose what it receives."),
    f.Field("mac_type", "mac/@type", c.Choice(words=("generated", "static")), "Whether the MAC address counts as made by libvirt."),
    f.Field("mac_check", "mac/@check", c.SAID_YES_NO, "Whether its prefix is checked, VMware's."),
    parts.TEAMING,
    parts.ROM,
    parts.ACPI_INDEX,
)  # fmt: skip
