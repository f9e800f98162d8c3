# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that many devices of a guest share."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f

PORT = c.Integer(low=1, high=65535)
LABELLED = "a running guest has the labels that were made for it"
UNSIGNED = c.Integer(high=2**32 - 1)

ALIAS = f.Field("alias", "alias/@name", c.ALIAS, "A name of yours for the device, kept as libvirt's user alias C(ua-…).")
ADDRESS = f.Field("address", "address", c.PLACE, "Where it is in the guest, as V(0000:00:03.0) or V(drive 0:0:0:1). libvirt chooses.",
                  expanded="a device that was plugged in has the place that was free then")  # fmt: skip
BOOT_ORDER = f.Field("boot_order", "boot/@order", c.Integer(low=1), "Place in the boot order of all devices.")
ACPI_INDEX = f.Field("acpi_index", "acpi/@index", c.Integer(low=1, high=16383), "Number that the guest can name it by.")

VIRTIO: tuple[f.Row, ...] = (
    f.Field("iommu", "driver/@iommu", c.SAID_ON_OFF, "Whether a virtio device goes through the guest's IOMMU."),
    f.Field("ats", "driver/@ats", c.SAID_ON_OFF, "Address translation service of a virtio device."),
    f.Field("packed", "driver/@packed", c.SAID_ON_OFF, "Packed virtqueues."),
    f.Field("page_per_vq", "driver/@page_per_vq", c.SAID_ON_OFF, "A page of its own for the notification of each virtqueue."),
)
ROM = f.Section("rom", "rom", "Boot ROM of a PCI device.", (
    f.Field("enabled", "@enabled", c.SAID_YES_NO, "Whether it has one."),
    f.Field("bar", "@bar", c.SAID_ON_OFF, "Whether the guest sees it in its memory map."),
    f.Field("file", "@file", c.PATH, "File of the host with its content."),
))  # fmt: skip
TEAMING = f.Section("teaming", "teaming", "A pair of a virtio interface and a host device that migration takes out.", (
    f.Field("type", "@type", c.Choice(words=("persistent", "transient")), "Which of the two it is."),
    f.Field("persistent", "@persistent", c.WORD, "Alias of the other, C(ua-…), for V(transient)."),
))  # fmt: skip
RECONNECT = f.Section("reconnect", "source/reconnect", "Connecting again when the other side went away.", (
    f.Field("enabled", "@enabled", c.SAID_YES_NO, "Whether to."),
    f.Field("timeout", "@timeout", UNSIGNED, "Seconds between attempts."),
))  # fmt: skip


def labels(path: str) -> f.Items:
    """Return the rows of the security labels of a device's source."""
    return f.Items("seclabels", path, ("model",), "Security labels of the file or socket, one of each driver.", (
        f.Field("model", "@model", c.WORD, "Driver, such as V(selinux) or V(dac).", required=True),
        f.Field("relabel", "@relabel", c.SAID_YES_NO, "Whether libvirt sets it.", expanded=LABELLED),
        f.Field("label", "label", c.TEXT, "Label.", expanded=LABELLED),
    ), expanded=LABELLED)  # fmt: skip


# Where a character device leads. TLS of its own for tcp; udp has two ends.
CHARACTER: tuple[f.Row, ...] = (
    f.Field("mode", "source/@mode", c.Choice(words=("connect", "bind")), "Whether QEMU connects or is connected to, V(unix) and V(tcp).",
            expanded="libvirt fills it in"),
    f.Field("host", "source/@host", c.TEXT, "Host name or address, V(tcp).", implies=(("@type", "tcp"),)),
    f.Field("service", "source/@service", c.WORD, "TCP port or name of a service.", implies=(("@type", "tcp"),)),
    f.Field("protocol", "protocol/@type", c.Choice(words=("raw", "telnet", "telnets", "tls")), "What is spoken, V(tcp)."),
    f.Section("udp", ".", "Both ends, V(udp).", (
        f.Field("host", "source[@mode='connect']/@host", c.TEXT, "Where to send.", implies=(("@type", "udp"),)),
        f.Field("service", "source[@mode='connect']/@service", c.WORD, "Where to send.", implies=(("@type", "udp"),)),
        f.Field("local_host", "source[@mode='bind']/@host", c.TEXT, "Where to receive.", implies=(("@type", "udp"),)),
        f.Field("local_service", "source[@mode='bind']/@service", c.WORD, "Where to receive.", implies=(("@type", "udp"),)),
    )),
    RECONNECT,
)  # fmt: skip
TLS = f.Field("tls", "source/@tls", c.SAID_YES_NO, "Whether it is encrypted, V(tcp); else as C(qemu.conf) says.",
              expanded="libvirt fills it in")  # fmt: skip
