# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that many devices of a guest share."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Row, Section

PORT = c.Integer(low=1, high=65535)
LABELLED = "a running guest has the labels that were made for it"
UNSIGNED = c.Integer(high=2**32 - 1)

ALIAS = Field("alias", "alias/@name", c.ALIAS, "A name of yours for the device, kept as libvirt's user alias C(ua-…).")
ADDRESS = Field("address", "address", c.PLACE, "Where it is in the guest, as V(0000:00:03.0) or V(drive 0:0:0:1). libvirt chooses.",
                expanded="a device that was plugged in has the place that was free then")  # fmt: skip
BOOT_ORDER = Field("boot_order", "boot/@order", c.Integer(low=1), "Place in the boot order of all devices.")
ACPI_INDEX = Field("acpi_index", "acpi/@index", c.Integer(low=1, high=16383), "Number that the guest can name it by.")

VIRTIO: tuple[Row, ...] = (
    Field("iommu", "driver/@iommu", c.SAID_ON_OFF, "Whether a virtio device goes through the guest's IOMMU."),
    Field("ats", "driver/@ats", c.SAID_ON_OFF, "Address translation service of a virtio device."),
    Field("packed", "driver/@packed", c.SAID_ON_OFF, "Packed virtqueues."),
    Field("page_per_vq", "driver/@page_per_vq", c.SAID_ON_OFF, "A page of its own for the notification of each virtqueue."),
)
ROM = Section("rom", "rom", "Boot ROM of a PCI device.", (
    Field("enabled", "@enabled", c.SAID_YES_NO, "Whether it has one."),
    Field("bar", "@bar", c.SAID_ON_OFF, "Whether the guest sees it in its memory map."),
    Field("file", "@file", c.PATH, "File of the host with its content."),
))  # fmt: skip
TEAMING = Section("teaming", "teaming", "A pair of a virtio interface and a host device that migration takes out.", (
    Field("type", "@type", c.Choice(words=("persistent", "transient")), "Which of the two it is."),
    Field("persistent", "@persistent", c.WORD, "Alias of the other, C(ua-…), for V(transient)."),
))  # fmt: skip
RECONNECT = Section("reconnect", "source/reconnect", "Connecting again when the other side went away.", (
    Field("enabled", "@enabled", c.SAID_YES_NO, "Whether to."),
    Field("timeout", "@timeout", UNSIGNED, "Seconds between attempts."),
))  # fmt: skip


def labels(path: str) -> Items:
    """Return the rows of the security labels of a device's source."""
    return Items("seclabels", path, ("model",), "Security labels of the file or socket, one of each driver.", (
        Field("model", "@model", c.WORD, "Driver, such as V(selinux) or V(dac).", required=True),
        Field("relabel", "@relabel", c.SAID_YES_NO, "Whether libvirt sets it.", expanded=LABELLED),
        Field("label", "label", c.TEXT, "Label.", expanded=LABELLED),
    ), expanded=LABELLED)  # fmt: skip


# Where a character device leads. TLS of its own for tcp; udp has two ends.
CHARACTER: tuple[Row, ...] = (
    Field("mode", "source/@mode", c.Choice(words=("connect", "bind")), "Whether QEMU connects or is connected to, V(unix) and V(tcp).",
          expanded="libvirt fills it in"),
    Field("host", "source/@host", c.TEXT, "Host name or address, V(tcp).", implies=(("@type", "tcp"),)),
    Field("service", "source/@service", c.WORD, "TCP port or name of a service.", implies=(("@type", "tcp"),)),
    Field("protocol", "protocol/@type", c.Choice(words=("raw", "telnet", "telnets", "tls")), "What is spoken, V(tcp)."),
    Section("udp", ".", "Both ends, V(udp).", (
        Field("host", "source[@mode='connect']/@host", c.TEXT, "Where to send.", implies=(("@type", "udp"),)),
        Field("service", "source[@mode='connect']/@service", c.WORD, "Where to send.", implies=(("@type", "udp"),)),
        Field("local_host", "source[@mode='bind']/@host", c.TEXT, "Where to receive.", implies=(("@type", "udp"),)),
        Field("local_service", "source[@mode='bind']/@service", c.WORD, "Where to receive.", implies=(("@type", "udp"),)),
    )),
    RECONNECT,
)  # fmt: skip
TLS = Field("tls", "source/@tls", c.SAID_YES_NO, "Whether it is encrypted, V(tcp); else as C(qemu.conf) says.",
            expanded="libvirt fills it in")  # fmt: skip
