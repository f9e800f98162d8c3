# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of the host that a guest gets: more of the PCI ones, and USB, SCSI, mediated and vhost-scsi."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain_parts as parts
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_disks import secret

USB_ID = c.Pattern(pattern="0x[0-9a-f]{4}", says="a number such as 0x046d")
MANAGED = f.Field("managed", "@managed", c.SAID_YES_NO, "Whether libvirt takes it from its driver.")
ISCSI = (("source/@protocol", "iscsi"),)

PCI: tuple[f.Row, ...] = (
    f.Field("driver", "driver/@name", c.Choice(words=("vfio", "kvm", "xen")), "Driver of the host that passes it through."),
    parts.TEAMING,  # before the address: libvirt's schema wants it so
    f.Field("guest_address", "address", c.PLACE, "Where it is in the guest.", expanded=parts.ADDRESS.expanded),
    parts.ROM,
    parts.ALIAS,
)
MORE = (
    f.Items("usb_hostdevs", "devices/hostdev[@mode='subsystem'][@type='usb']", ("vendor", "product", "bus", "device"),
            "USB devices of the host, by vendor and product or by place.", (
        f.Field("vendor", "source/vendor/@id", USB_ID, "Vendor."),
        f.Field("product", "source/product/@id", USB_ID, "Product."),
        f.Field("bus", "source/address/@bus", c.Integer(low=1), "Bus of the host."),
        f.Field("device", "source/address/@device", c.Integer(low=1), "Number on it."),
        f.Field("startup_policy", "source/@startupPolicy", c.Choice(words=("mandatory", "requisite", "optional")), "Whether it may be missing."),
        f.Field("guest_reset", "source/@guestReset", c.Choice(words=("off", "uninitialized", "on")), "Whether the guest may reset it."),
        MANAGED, parts.BOOT_ORDER, parts.ALIAS, parts.ADDRESS,
    ), live="device", purge=True, together=True, filled=("bus", "device")),
    f.Items("scsi_hostdevs", "devices/hostdev[@mode='subsystem'][@type='scsi']", ("adapter", "unit", "iscsi"), "SCSI devices of the host.", (
        f.Field("adapter", "source/adapter/@name", c.WORD, "Adapter, such as V(scsi_host0)."),
        f.Field("unit", "source/address", c.SCSI_UNIT, "Bus, target and unit on it, such as V(0:0:3)."),
        f.Field("iscsi", "source/@name", c.TEXT, "Name of a target of iSCSI instead.", implies=ISCSI),
        f.Items("hosts", "source/host", ("name",), "Its servers.", (
            f.Field("name", "@name", c.TEXT, "Host name or address.", required=True),
            f.Field("port", "@port", parts.PORT, "Port."),
        )),
        secret("source/auth", "iscsi", (f.Field("username", "@username", c.TEXT, "User."),)),
        f.Field("initiator", "source/initiator/iqn/@name", c.TEXT, "Name of the initiator."),
        f.Field("sgio", "@sgio", c.Choice(words=("filtered", "unfiltered")), "Which commands the guest may send."),
        f.Field("rawio", "@rawio", c.SAID_YES_NO, "Whether QEMU may send any command."),
        f.Field("readonly", "readonly", c.PRESENCE, "Whether the guest cannot write it."),
        f.Field("shareable", "shareable", c.PRESENCE, "Whether several guests may write it."),
        MANAGED, parts.BOOT_ORDER, parts.ALIAS, parts.ADDRESS,
    ), live="device", purge=True, together=True),
    f.Items("mediated_hostdevs", "devices/hostdev[@mode='subsystem'][@type='mdev']", ("uuid",), "Mediated devices of the host, such as a vGPU.", (
        f.Field("uuid", "source/address/@uuid", c.UUID, "UUID.", required=True),
        f.Field("model", "@model", c.Choice(words=("vfio-pci", "vfio-ccw", "vfio-ap")), "Kind, V(vfio-pci) when first given."),
        f.Field("display", "@display", c.SAID_ON_OFF, "Whether it is a display."),
        f.Field("ramfb", "@ramfb", c.SAID_ON_OFF, "Whether it shows the boot."),
        MANAGED, parts.ALIAS, parts.ADDRESS,
    ), live="device", purge=True, fills=(("@model", "vfio-pci"),)),
    f.Items("vhost_scsi_hostdevs", "devices/hostdev[@mode='subsystem'][@type='scsi_host']", ("wwpn",), "Targets of vhost-scsi.", (
        f.Field("wwpn", "source/@wwpn", c.WORD, "Name, such as V(naa.5123456789abcde0).", required=True, implies=(("source/@protocol", "vhost"),)),
        f.Field("model", "@model", c.Choice(words=("virtio", "virtio-transitional", "virtio-non-transitional")), "Model."),
        MANAGED, parts.ALIAS, parts.ADDRESS,
    ), live="device", purge=True),
)  # fmt: skip
