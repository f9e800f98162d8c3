# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of a virtual network. Names follow https://libvirt.org/formatnetwork.html in snake_case."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f

# The short word and libvirt's own; isolated is a network without <forward>.
MODES = {
    "nat": "nat", "routed": "route", "isolated": None, "open": "open", "bridge": "bridge", "hostdev": "hostdev",
}  # fmt: skip
MACVTAP = ("private", "vepa", "passthrough")

# Names that the kernel or libvirt keeps for itself: /proc/sys/net/*/conf/{all,default}, vnetN for the guests' taps.
BRIDGE = c.Pattern(
    pattern=r"(?!(?:all|default|lo|vnet\d+)$)[A-Za-z0-9][A-Za-z0-9._-]{0,14}",
    says="at most 15 characters of A-Za-z0-9._-, and not a reserved name",
)
PORT = c.Integer(low=1, high=65535)
VLAN_ID = c.Integer(low=0, high=4095)
KBYTES = c.Integer(low=1, high=2**31 - 1)
# What these hold becomes part of a line of dnsmasq's configuration, where a comma ends a value.
DNS_NAME = c.Pattern(pattern=r"\.|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?", says="a DNS name", longest=253)
SERVICE = c.Pattern(pattern=r"[A-Za-z0-9_-]+", says="a word of A-Za-z0-9_-", longest=63)
DUID = c.Pattern(pattern=r"[0-9A-Fa-f]{1,2}(:[0-9A-Fa-f]{1,2}){1,129}", says="numbers such as 00:03:00:01:52:54:00:aa:00:06", longest=400)
OPTION = c.Pattern(pattern=r"[a-z0-9][a-z0-9-]*(=.*)?", says="a line of dnsmasq.conf such as dhcp-option=42,0.0.0.0")

LIFE: tuple[f.Row, ...] = (
    f.Field("name", None, c.NAME, "Name of the network, unique on its host.", required=True),
    f.Field(
        "state", None, c.Choice(words=("present", "active", "inactive", "absent")),
        "What the network is to be. V(present) defines it and leaves it active or inactive as it is."
        " V(inactive) and V(absent) are refused while running guests have interfaces on it.",
    ),
    f.Field("autostart", None, c.YES_NO, "Whether the network becomes active when its host starts."),
    f.Field("uuid", "uuid", c.UUID, "UUID of the network. Made by libvirt when the network is first defined without one."),
    f.Field(
        "xml", None, c.XML,
        "Definition in libvirt's own words. A whole C(<network>) replaces what is there, any other element is merged into it."
        " Other options are written over it.",
    ),
    f.Field("ipv6", "@ipv6", c.YES_NO, "Whether guests reach each other by IPv6 though the network has no IPv6 address.", dropped=False),
    f.Field("trust_guest_rx_filters", "@trustGuestRxFilters", c.YES_NO,
            "Whether guests may change the MAC addresses and filters of their macvtap interfaces.", dropped=False),
    f.Field(
        "mode", None, c.Choice(words=tuple(MODES)),
        "How guests reach the world. V(nat) behind the host's address, V(routed) with their own, V(isolated) not at"
        " all, V(open) as the rules of others say, V(bridge) over a bridge that the host has, V(hostdev) with a"
        " virtual function of a network card each. A new network without it is isolated.",
    ),
    f.Section("vf_pool", None, "Guests get the virtual functions of one physical function; means O(mode=hostdev).", (
        f.Field("pf", None, c.INTERFACE, "Network interface of the physical function.", required=True),
    )),
)  # fmt: skip

FORWARD = f.Section("forward", "forward", "The way out, in libvirt's own words.", (
    f.Field("mode", "@mode", c.Choice(words=("nat", "route", "open", "bridge", "hostdev", *MACVTAP)),
            "As O(mode), V(route) for routed; and the modes of macvtap."),
    f.Field("dev", "@dev", c.INTERFACE, "The host's interface that traffic may leave by."),
    f.Field("pf", "pf/@dev", c.INTERFACE, "As O(vf_pool.pf)."),
    f.Field("managed", "@managed", c.YES_NO, "Whether libvirt rebinds the drivers of the virtual functions that it gives.", dropped=False),
    f.Field("driver", "driver/@name", c.Choice(words=("kvm", "vfio", "xen")), "Driver that virtual functions are bound to."),
    f.Items("interfaces", "interface", key=("dev",), live="forward_interface",
            doc="The host's interfaces that guests of a macvtap network share out among them.", rows=(
        f.Field("dev", "@dev", c.INTERFACE, "Name.", required=True, live="forward_interface"),
    )),
    f.Items("addresses", "address[@type='pci']", key=("address",), doc="Virtual functions to give, one by one.", rows=(
        f.Field("address", ".", c.PCI, "PCI address on the host.", required=True),
    )),
    f.Section("nat", "nat", "How addresses are translated.", (
        f.Field("ipv6", "@ipv6", c.YES_NO, "Whether IPv6 addresses are translated too."),
        f.Section("addresses", "address", "The host's addresses to appear as.", (
            f.Field("start", "@start", c.ADDRESS, "First address."),
            f.Field("end", "@end", c.ADDRESS, "Last address."),
        )),
        f.Section("ports", "port", "Source ports to appear with.", (
            f.Field("start", "@start", PORT, "First port."),
            f.Field("end", "@end", PORT, "Last port."),
        )),
    )),
), removable=True)  # fmt: skip

BRIDGING: tuple[f.Row, ...] = (
    f.Section("bridge", "bridge", "The bridge that connects the guests.", (
        f.Field("name", "@name", BRIDGE, "Name of the bridge. libvirt chooses one of virbr0, virbr1 and so on if there is none."),
        f.Field("stp", "@stp", c.ON_OFF, "Whether it speaks the spanning tree protocol.", dropped=True),
        f.Field("delay", "@delay", c.INTEGER, "Seconds before a new port forwards.", dropped=0),
        f.Field("mac_table_manager", "@macTableManager", c.Choice(words=("kernel", "libvirt")),
                "Who keeps the table of MAC addresses; libvirt knows them, so that nothing is flooded."),
        f.Field("zone", "@zone", c.WORD, "Zone of firewalld that the bridge is put into; needs firewalld."),
    )),
    f.Field("mac", "mac/@address", c.MAC, "MAC address of the bridge. Made by libvirt if there is none."),
    f.Field("mtu", "mtu/@size", c.Integer(low=68, high=65535), "Largest packet, in bytes."),
    f.Section("domain", "domain", "DNS domain of the guests.", (
        f.Field("name", "@name", c.HOSTNAME, "Its name."),
        f.Field("local_only", "@localOnly", c.YES_NO, "Whether names in it are never asked of other DNS servers."),
    )),
)  # fmt: skip


_RATE = (
    f.Field("average", "@average", KBYTES, "Mean rate, in KiB per second."),
    f.Field("peak", "@peak", KBYTES, "Highest rate, in KiB per second."),
    f.Field("burst", "@burst", KBYTES, "What may go at the highest rate, in KiB."),
)
_FLOOR = f.Field("floor", "@floor", KBYTES, "Rate that each guest is sure of, in KiB per second.")
BANDWIDTH = f.Section("bandwidth", "bandwidth", "Limits of traffic.", (
    f.Section("inbound", "inbound", "To the guests.", (*_RATE, _FLOOR)),
    f.Section("outbound", "outbound", "From the guests.", _RATE),
))  # fmt: skip
VLAN = f.Section("vlan", "vlan", "VLANs of the guests' interfaces. Open vSwitch and virtual functions only, before libvirt 11.", (
    f.Field("trunk", "@trunk", c.YES_NO, "Whether the guest sees the tags; several tags mean it.", dropped=False),
    f.Items("tags", "tag", key=("id",), doc="The VLANs.", rows=(
        f.Field("id", "@id", VLAN_ID, "Number.", required=True),
        f.Field("native_mode", "@nativeMode", c.Choice(words=("tagged", "untagged")),
                "How frames of the native VLAN leave, which this tag then is."),
    )),
), removable=True)  # fmt: skip
VIRTUALPORT = f.Section("virtualport", "virtualport", "What a switch other than a Linux bridge needs to know.", (
    f.Field("type", "@type", c.Pattern(pattern="802.1Qbg|802.1Qbh|openvswitch|midonet", says="802.1Qbg, 802.1Qbh, openvswitch or midonet"),
            "Kind of switch, V(openvswitch), V(midonet), V(802.1Qbg) or V(802.1Qbh)."),
    f.Field("profile_id", "parameters/@profileid", c.Pattern(pattern=r"[^<>&\"']{1,39}", says="at most 39 characters"), "Port profile."),
    f.Field("interface_id", "parameters/@interfaceid", c.UUID, "Interface of Open vSwitch or Midonet."),
    f.Field("manager_id", "parameters/@managerid", c.Integer(high=255), "VSI manager of 802.1Qbg."),
    f.Field("type_id", "parameters/@typeid", c.Integer(high=0xFFFFFF), "VSI type of 802.1Qbg."),
    f.Field("type_id_version", "parameters/@typeidversion", c.Integer(high=255), "Version of the VSI type of 802.1Qbg."),
    f.Field("instance_id", "parameters/@instanceid", c.UUID, "VSI instance of 802.1Qbg."),
), removable=True)  # fmt: skip
PORTGROUPS = f.Items("portgroups", "portgroup", key=("name",), doc="Classes of guests' interfaces.", live="portgroup", rows=(
    f.Field("name", "@name", c.NAME, "Name, which an interface of a guest states.", required=True),
    f.Field("default", "@default", c.YES_NO, "Whether interfaces that state none are of it.", dropped=False),
    f.Field("trust_guest_rx_filters", "@trustGuestRxFilters", c.YES_NO, "As O(trust_guest_rx_filters).", dropped=False),
    VLAN, VIRTUALPORT, BANDWIDTH,
))  # fmt: skip
PORTS: tuple[f.Row, ...] = (
    BANDWIDTH, VLAN, VIRTUALPORT,
    f.Section("port", "port", "How every interface is connected.", (
        f.Field("isolated", "@isolated", c.YES_NO, "Whether guests are kept from each other; they reach the host and what is beyond it.",
                dropped=False),
    )),
    PORTGROUPS,
    f.Items("routes", "route", key=("address", "prefix"), together=True, doc="Networks behind a guest, for the host's routing table.", rows=(
        f.Field("address", "@address", c.ADDRESS, "Address of the network.", required=True),
        f.Field("prefix", "@prefix", c.PREFIX, "Length of its prefix.", fallback="@netmask"),
        f.Field("gateway", "@gateway", c.ADDRESS, "The guest that leads there.", required=True),
        f.Field("metric", "@metric", c.Integer(low=1), "Cost."),
        f.Field("family", "@family", c.Choice(words=("ipv4", "ipv6")), "Follows from the address."),
    )),
)  # fmt: skip

DNS = f.Section("dns", "dns", "The network's DNS server.", (
    f.Field("enable", "@enable", c.YES_NO, "Whether there is one.", dropped=True),
    f.Field("forward_plain_names", "@forwardPlainNames", c.YES_NO, "Whether names without a dot are asked of other servers.",
            dropped=True),
    f.Items("forwarders", "forwarder", key=("addr", "domain"), together=True, doc="Other DNS servers to ask.", rows=(
        f.Field("addr", "@addr", c.ADDRESS, "Address of the server. Without it, the host's own resolver."),
        f.Field("domain", "@domain", DNS_NAME, "Only for names of this domain."),
    )),
    f.Items("hosts", "host", key=("ip",), doc="Names with their address.", live="dns_host", rows=(
        f.Field("ip", "@ip", c.ADDRESS, "Address.", required=True, live="dns_host"),
        f.Field("hostnames", "hostname", DNS_NAME, "Names of it.", many=True, live="dns_host"),
    )),
    f.Items("txts", "txt", key=("name",), doc="Texts with their name.", live="dns_txt", rows=(
        f.Field("name", "@name", DNS_NAME, "Name.", required=True, live="dns_txt"),
        f.Field("value", "@value", c.TEXT, "Text.", live="dns_txt"),
    )),
    f.Items("srvs", "srv", key=("service", "protocol", "domain", "target", "port"), together=True, doc="Services with the host that gives them.",
            live="dns_srv", rows=(
        f.Field("service", "@service", SERVICE, "Service, such as V(ldap).", required=True, live="dns_srv"),
        f.Field("protocol", "@protocol", SERVICE, "Protocol, such as V(tcp).", required=True, live="dns_srv"),
        f.Field("domain", "@domain", DNS_NAME, "Domain that it is for; O(domain.name) if not given.", live="dns_srv"),
        f.Field("target", "@target", DNS_NAME, "Host.", live="dns_srv"),
        f.Field("port", "@port", PORT, "Port.", live="dns_srv"),
        f.Field("priority", "@priority", c.Integer(high=65535), "Hosts of the lowest are asked first.", live="dns_srv"),
        f.Field("weight", "@weight", c.Integer(high=65535), "Share among those of the same priority.", live="dns_srv"),
    )),
))  # fmt: skip


def _lease(live: str) -> f.Section:
    return f.Section("lease", "lease", "How long an address is given for.", (
        f.Field("expiry", "@expiry", c.Integer(high=2**31 - 1), "Number of units, two minutes at least; V(0) is for ever.", live=live),
        f.Field("unit", "@unit", c.Choice(words=("seconds", "minutes", "hours")), "Unit; minutes if not given.", live=live),
    ))  # fmt: skip


RANGES = f.Items("ranges", "range", key=("start",), doc="Addresses to give to whoever asks.", live="dhcp_range", rows=(
    f.Field("start", "@start", c.ADDRESS, "First address.", required=True, live="dhcp_range"),
    f.Field("end", "@end", c.ADDRESS, "Last address.", live="dhcp_range"),
    _lease("dhcp_range"),
))  # fmt: skip
HOSTS = f.Items("hosts", "host", key=("mac", "id", "name", "ip"), doc="Fixed addresses.", live="dhcp_host", rows=(
    f.Field("mac", "@mac", c.MAC, "MAC address of the guest's interface. IPv6 has none.", live="dhcp_host"),
    f.Field("id", "@id", DUID, "DUID of the guest, for IPv6.", live="dhcp_host"),
    f.Field("name", "@name", c.HOSTNAME, "Host name to give.", live="dhcp_host"),
    f.Field("ip", "@ip", c.ADDRESS, "Address to give.", live="dhcp_host"),
    _lease("dhcp_host"),
))  # fmt: skip

IPS = f.Items("ips", "ip", key=("address",), doc="Addresses of the host in the network, one for each subnet.", rows=(
    f.Field("address", "@address", c.ADDRESS, "The host's address.", required=True),
    f.Field("prefix", "@prefix", c.PREFIX, "Length of the network prefix, such as V(24).", fallback="@netmask"),
    f.Field("family", "@family", c.Choice(words=("ipv4", "ipv6")), "Follows from the address."),
    f.Field("local_ptr", "@localPtr", c.YES_NO, "Whether names of addresses in it are never asked of other DNS servers."),
    f.Field("tftp_root", "tftp/@root", c.PATH, "Directory that is served by TFTP."),
    f.Section("dhcp", "dhcp", "The DHCP server of this subnet.", (
        RANGES, HOSTS,
        f.Section("bootp", "bootp", "What guests without a disk start from.", (
            f.Field("file", "@file", c.Pattern(pattern=r"[^,\s][^,]*", says="a file name without commas"), "File."),
            f.Field("server", "@server", c.Pattern(pattern=r"[^,\s]+", says="a server's address or name"),
                    "TFTP server, the host itself if not given."),
        )),
    )),
))  # fmt: skip
DNSMASQ = f.Field(
    "dnsmasq_options", "dnsmasq:options/dnsmasq:option/@value", OPTION,
    "Lines of dnsmasq.conf that libvirt has no words for, such as V(dhcp-option=option:ntp-server,10.0.0.1)."
    " libvirt does not check them; a wrong one keeps the network from starting.", many=True,
)  # fmt: skip

ROWS: tuple[f.Row, ...] = (*LIFE, FORWARD, *BRIDGING, *PORTS, DNS, IPS, DNSMASQ)
