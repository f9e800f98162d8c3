# SPDX-License-Identifier: GPL-3.0-or-later
"""The devices of a guest. Names follow https://libvirt.org/formatdomain.html#devices in snake_case."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import (
    domain_controllers,
    domain_disks,
    domain_displays,
    domain_hostdevs,
    domain_interfaces,
    domain_more,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain_parts as parts

TARGET = c.Pattern(pattern=r"(vd|sd|hd|xvd|fd)[a-z]{1,2}", says="a target such as vda or sdb", longest=5)
RATE = c.Integer(high=10**15)  # libvirt's QEMU_BLOCK_IOTUNE_MAX
SERIAL = c.Pattern(pattern=r"[A-Za-z0-9._:+ -]+", says="a word of A-Za-z0-9._:+-, or several")
PORT = c.Integer(low=1, high=65535)
SOURCES = ("path", "block", "pool", "volume")

DISKS = f.Items("disks", "devices/disk", ("target",), "Disks and removable media.", (
    f.Field("target", "target/@dev", TARGET, "Name and place of the disk in the guest, such as V(vda).", required=True),
    f.Field("bus", "target/@bus", c.Choice(words=("virtio", "scsi", "sata", "usb", "ide", "fdc")),
            "Bus it is on. V(virtio) for a new V(vd…), V(sata) for a new V(sd…) target."),
    f.Field("device", "@device", c.Choice(words=("disk", "cdrom", "floppy", "lun")), "Kind of device."),
    f.Field("path", "source/@file", c.PATH, "Image file on the host.", implies=(("@type", "file"),),
            rivals=("block", "pool", "volume"), live="media"),
    f.Field("block", "source/@dev", c.PATH, "Whole block device, partition or logical volume of the host.",
            implies=(("@type", "block"),), rivals=("path", "pool", "volume"), live="media"),
    f.Field("pool", "source/@pool", c.NAME_OF_OTHERS, "Storage pool of O(disks[].volume).", implies=(("@type", "volume"),),
            rivals=("path", "block"), live="media"),
    f.Field("volume", "source/@volume", c.NAME_OF_OTHERS, "Volume of a storage pool.", implies=(("@type", "volume"),),
            rivals=("path", "block"), live="media"),
    f.Field("format", "driver/@type", c.Choice(words=("raw", "qcow2", "vmdk", "vdi", "vpc", "parallels", "dmg", "qcow", "fat")),
            "Format of the image, never guessed. V(raw) when first defined without one, V(qcow2) for a file or volume"
            " that ends in C(.qcow2).", implies=(("driver/@name", "qemu"),), live="media"),
    f.Field("cache", "driver/@cache", c.Choice(words=("none", "writeback", "writethrough", "directsync", "unsafe")),
            "Host page cache mode."),
    f.Field("io", "driver/@io", c.Choice(words=("native", "threads", "io_uring")), "How QEMU does the I/O."),
    f.Field("discard", "driver/@discard", c.Choice(words=("unmap", "ignore")), "Whether the guest's trims reach the image."),
    f.Field("serial", "serial", SERIAL, "Serial number that the guest sees."),
    f.Field("readonly", "readonly", c.PRESENCE, "Whether the guest can only read it."),
    f.Field("shareable", "shareable", c.PRESENCE, "Whether several guests may write it."),
    f.Field("boot_order", "boot/@order", c.Integer(low=1), "Place in the boot order of all devices."),
    f.Section("iotune", "iotune", "Throttling. A total excludes read and write limits of the same metric.", (
        f.Field("total_bytes_sec", "total_bytes_sec", RATE, "Bytes a second.", live="block_io_tune", dropped=0),
        f.Field("read_bytes_sec", "read_bytes_sec", RATE, "Bytes read a second.", live="block_io_tune", dropped=0),
        f.Field("write_bytes_sec", "write_bytes_sec", RATE, "Bytes written a second.", live="block_io_tune", dropped=0),
        f.Field("total_iops_sec", "total_iops_sec", RATE, "Operations a second.", live="block_io_tune", dropped=0),
        f.Field("read_iops_sec", "read_iops_sec", RATE, "Reads a second.", live="block_io_tune", dropped=0),
        f.Field("write_iops_sec", "write_iops_sec", RATE, "Writes a second.", live="block_io_tune", dropped=0),
        *domain_disks.IOTUNE,
    )),
    *domain_disks.MORE,
), live="device", purge=True)  # fmt: skip

DISK_SOURCES = ("path", "block", "pool", "volume")
NIC_SOURCES = ("network", "bridge", "vf_address", "type")

INTERFACES = f.Items("interfaces", "devices/interface", ("name", "mac"), "Network interfaces.", (
    f.Field("name", "alias/@name", c.ALIAS, "A name of yours for the interface, kept as libvirt's user alias C(ua-…)."),
    f.Field("mac", "mac/@address", c.MAC, "MAC address. Made by libvirt when the interface is first defined without one."),
    f.Field("network", "source/@network", c.NAME_OF_OTHERS, "Libvirt network it is on.", implies=(("@type", "network"),),
            rivals=("bridge", "vf_address"), live="reconnect"),
    f.Field("bridge", "source/@bridge", c.INTERFACE, "Bridge of the host it is on.", implies=(("@type", "bridge"),),
            rivals=("network", "vf_address"), live="reconnect"),
    f.Section("vf", None, "An SR-IOV virtual function that the guest gets, by its role rather than by its address.", (
        f.Field("pf", None, c.INTERFACE, "Physical function, the name of its interface on the host.", required=True),
        f.Field("index", None, c.Integer(high=255), "Number of the virtual function.", required=True),
    )),
    f.Field("vf_address", "source/address[@type='pci']", c.PCI, "The same by PCI address, such as V(0000:01:10.1).",
            implies=(("@type", "hostdev"), ("@managed", "yes")), rivals=("network", "bridge")),
    f.Section("udp", ".", "A UDP tunnel: every frame is a datagram, as QEMU's socket back end sends it.", (
        f.Field("address", "source/@address", c.ADDRESS, "Where to send.", implies=(("@type", "udp"),)),
        f.Field("port", "source/@port", PORT, "Where to send.", implies=(("@type", "udp"),)),
        f.Field("local_address", "source/local/@address", c.ADDRESS, "Where to receive.", implies=(("@type", "udp"),)),
        f.Field("local_port", "source/local/@port", PORT, "Where to receive.", implies=(("@type", "udp"),)),
    ), rivals=("network", "bridge", "vf_address")),
    f.Field("type", "@type", c.Choice(words=("user", "mcast", "udp", "ethernet", "server", "client", "direct", "vhostuser", "vdpa", "internal")),
            "Other kinds of source, as V(user)."),
    f.Field("address", "address", c.PLACE, "Where it is in the guest, as V(0000:00:03.0). libvirt chooses."),
    f.Field("model", "model/@type", c.WORD, "Model that the guest sees. V(virtio) when first defined."),
    f.Field("driver", "driver/@name", c.Choice(words=("qemu", "vhost", "vfio")), "Back end."),
    f.Field("queues", "driver/@queues", c.Integer(low=1, high=256), "Queues of a virtio interface.", dropped=1),
    f.Field("mtu", "mtu/@size", c.Integer(low=68, high=65535), "MTU."),
    f.Field("vlan", "vlan/tag/@id", c.Integer(low=1, high=4094), "VLAN of a virtual function or Open vSwitch port.", live="switch"),
    f.Field("link", "link/@state", c.Choice(words=("up", "down")), "State of the virtual cable.", live="update_device"),
    f.Field("filter", "filterref/@filter", c.NAME_OF_OTHERS, "Network filter that its traffic goes through.", live="update_device"),
    f.Field("isolated", "port/@isolated", c.YES_NO, "Whether it is kept from other isolated interfaces of its bridge."),
    f.Field("boot_order", "boot/@order", c.Integer(low=1), "Place in the boot order of all devices."),
    *domain_interfaces.MORE,
), live="device", purge=True)  # fmt: skip

HOSTDEVS = f.Items("hostdevs", "devices/hostdev[@mode='subsystem'][@type='pci']", ("address",),
                   "PCI devices of the host that the guest gets through VFIO.", (
    f.Field("address", "source/address", c.PCI, "PCI address on the host.", required=True),
    f.Field("managed", "@managed", c.YES_NO, "Whether libvirt takes it from its driver at start and gives it back."
            " Yes when first given."),
    f.Field("boot_order", "boot/@order", c.Integer(low=1), "Place in the boot order of all devices."),
    *domain_hostdevs.PCI,
), live="device", purge=True)  # fmt: skip

KINDS = c.Choice(words=("pty", "file", "unix", "tcp", "null", "dev", "udp", "pipe", "stdio", "vc", "spicevmc", "spiceport", "qemu-vdagent", "dbus"))
LEADS = (
    *parts.CHARACTER,
    parts.TLS,
    parts.labels("source/seclabel"),
    f.Field("log", "log/@file", c.PATH, "File on the host that keeps what it prints."),
    f.Field("log_append", "log/@append", c.ON_OFF, "Whether a new start appends to it."),
    parts.ALIAS,
    parts.ADDRESS,
)
KIND = f.Field("type", "@type", KINDS, "Where it leads. V(pty) when first defined.")
SOURCE = f.Field("path", "source/@path", c.PATH, "File, socket or device.", expanded="libvirt fills in the terminal that it made")

CHARACTER_DEVICES = (
    f.Items("serials", "devices/serial", ("port",), "Serial ports.", (
        f.Field("port", "target/@port", c.Integer(high=63), "Number of the port.", required=True),
        KIND,
        SOURCE,
        f.Field("target_type", "target/@type", c.WORD, "Bus it is on, such as V(isa-serial). libvirt chooses."),
        f.Field("target_model", "target/model/@name", c.WORD, "Device of QEMU that it is. libvirt chooses."),
        *LEADS,
    ), purge=True),
    f.Items("consoles", "devices/console", ("port",), "Consoles.", (
        f.Field("port", "target/@port", c.Integer(high=63), "Number of the console.", required=True),
        KIND,
        SOURCE,
        f.Field("target_type", "target/@type", c.Choice(words=("serial", "virtio")), "What the guest sees."),
        *LEADS,
    ), purge=True),
    f.Items("parallels", "devices/parallel", ("port",), "Parallel ports.", (
        f.Field("port", "target/@port", c.Integer(high=63), "Number of the port.", required=True),
        KIND,
        SOURCE,
        *LEADS,
    ), purge=True, fills=(("@type", "pty"),)),
    f.Field("guest_agent", None, c.YES_NO, "Whether the guest has the channel of the QEMU guest agent."),
    f.Items("channels", "devices/channel", ("name",), "Virtio channels between host and guest.", (
        f.Field("name", "target[@type='virtio']/@name", c.WORD, "Name of the port in the guest.", required=True),
        f.Field("type", "@type", KINDS, "Where it leads. V(unix) when first defined."),
        f.Field("path", "source/@path", c.PATH, "Socket on the host; libvirt chooses one.",
                expanded="libvirt fills in the socket that it made"),
        f.Field("port_name", "source/@channel", c.WORD, "Name of the port, V(spiceport) and V(dbus)."),
        f.Field("clipboard", "source/clipboard/@copypaste", c.SAID_YES_NO, "Whether the clipboard is shared, V(qemu-vdagent)."),
        f.Field("mouse", "source/mouse/@mode", c.Choice(words=("server", "client")), "Who moves the pointer, V(qemu-vdagent)."),
        *LEADS,
    ), live="device", purge=True, fills=(("@type", "unix"),)),
    f.Items("forwards", "devices/channel", ("forward", "forward_port"), "Addresses of the guest's V(user) network that lead to the host.", (
        f.Field("forward", "target[@type='guestfwd']/@address", c.ADDRESS, "Address.", required=True),
        f.Field("forward_port", "target[@type='guestfwd']/@port", PORT, "Port.", required=True),
        f.Field("type", "@type", KINDS, "Where it leads. V(unix) when first defined."),
        SOURCE,
        *LEADS[:-1],
    ), together=True, fills=(("@type", "unix"),)),
)  # fmt: skip

SINGLE_DEVICES = (
    f.Section("rng", "devices/rng", "Source of random numbers.", (
        f.Field("backend", "backend[@model='random']", c.PATH, "Device on the host.", rivals=("builtin", "egd")),
        f.Section("rate", "rate", "Limit.", (
            f.Field("bytes", "@bytes", c.Integer(low=1), "Bytes in each period."),
            f.Field("period", "@period", c.Integer(low=1), "Period in milliseconds."),
        )),
        *domain_more.RNG,
    ), removable=True, live="device", fills=(("@model", "virtio"),)),
    f.Section("balloon", "devices/memballoon", "Memory balloon.", (
        f.Field("model", "@model", c.Choice(words=("virtio", "virtio-transitional", "virtio-non-transitional", "none")),
                "Model, or V(none)."),
        f.Field("autodeflate", "@autodeflate", c.ON_OFF, "Whether the guest gets memory back when it runs out."),
        f.Field("stats_period", "stats/@period", c.Integer(), "Seconds between statistics.", dropped=0,
                live="balloon_statistics"),
        *domain_more.BALLOON,
    )),
    f.Section("iommu", "devices/iommu", "IOMMU that the guest sees.", (
        f.Field("model", "@model", c.Choice(words=("intel", "virtio", "smmuv3")), "Model."),
        f.Field("intremap", "driver/@intremap", c.ON_OFF, "Interrupt remapping; needs O(features.ioapic=qemu)."),
        f.Field("caching_mode", "driver/@caching_mode", c.ON_OFF, "Caching mode, for VFIO inside the guest."),
        f.Field("eim", "driver/@eim", c.ON_OFF, "Extended interrupt mode, for x2APIC; needs O(iommu.intremap)."),
        f.Field("iotlb", "driver/@iotlb", c.ON_OFF, "IOTLB, for vhost."),
        *domain_more.IOMMU,
    ), removable=True),
    f.Items("controllers", "devices/controller[@type='pci']", ("index",), "PCI controllers.", (
        f.Field("index", "@index", c.Integer(high=255), "Number of the controller.", required=True),
        f.Field("model", "@model", c.WORD, "Model, such as V(pcie-root-port)."),
        *domain_controllers.PCI,
    )),
    *domain_controllers.MORE,
    f.Field("spare_ports", None, c.Integer(high=28), "Free PCIe root ports that a new guest gets beyond those its"
            " devices need, so that devices can be added while it runs."),
    f.Items("graphics", "devices/graphics", ("type",), "Remote displays.", (
        f.Field("type", "@type", c.Choice(words=("vnc", "spice", "sdl", "egl-headless", "dbus", "rdp")), "Protocol.", required=True),
        f.Field("listen", "listen[@type='address']/@address", c.ADDRESS, "Address of the host that it listens on.",
                live="update_device"),
        f.Field("port", "@port", c.Integer(low=5900, high=65535), "Fixed port; without it libvirt picks one.",
                implies=(("@autoport", "no"),), expanded="libvirt fills in the port that it picked"),
        f.Field("password", "@passwd", c.Pattern(pattern=".{4,8}", says="4 to 8 characters"),
                "Password; VNC knows 8 characters.", secret=True, live="update_device"),
        *domain_displays.GRAPHICS,
    ), purge=True, live="device"),
    f.Section("video", "devices/video", "Video adapter. A guest with graphics always has one, be it V(none).", (
        f.Field("model", "model/@type", c.Choice(words=("virtio", "qxl", "vga", "cirrus", "bochs", "ramfb", "vmvga", "none")), "Model, or V(none)."),
        *domain_displays.VIDEO,
    )),
    *domain_displays.MORE,
    *domain_more.MORE,
    *domain_hostdevs.MORE,
    f.Field("emulator", "devices/emulator", c.PATH, "The QEMU to run. libvirt chooses."),
)  # fmt: skip

DEVICES = (DISKS, INTERFACES, HOSTDEVS, *CHARACTER_DEVICES, *SINGLE_DEVICES)
