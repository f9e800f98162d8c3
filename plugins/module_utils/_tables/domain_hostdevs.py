# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of the host that a guest gets: more of the PCI ones, and USB, SCSI, mediated and vhost-scsi."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Row
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_disks import secret
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_parts import ADDRESS, ALIAS, BOOT_ORDER, PORT, ROM, TEAMING

USB_ID = c.Pattern(pattern="0x[0-9a-f]{4}", says="a number such as 0x046d")
MANAGED = Field("managed", "@managed", c.SAID_YES_NO, "Whether libvirt takes it from its driver.")
ISCSI = (("source/@protocol", "iscsi"),)

PCI: tuple[Row, ...] = (
    Field("driver", "driver/@name", c.Choice(words=("vfio", "kvm", "xen")), "Driver of the host that passes it through."),
    TEAMING,  # before the address: libvirt's schema wants it so
    Field("guest_address", "address", c.PLACE, "Where it is in the guest.", expanded=ADDRESS.expanded),
    ROM,
    ALIAS,
)
MORE = (
    Items("usb_hostdevs", "devices/hostdev[@mode='subsystem'][@type='usb']", ("vendor", "product", "bus", "device"),
          "USB devices of the host, by vendor and product or by place.", (
        Field("vendor", "source/vendor/@id", USB_ID, "Vendor."),
        Field("product", "source/product/@id", USB_ID, "Product."),
        Field("bus", "source/address/@bus", c.Integer(low=1), "Bus of the host."),
        Field("device", "source/address/@device", c.Integer(low=1), "Number on it."),
        Field("startup_policy", "source/@startupPolicy", c.Choice(words=("mandatory", "requisite", "optional")), "Whether it may be missing."),
        Field("guest_reset", "source/@guestReset", c.Choice(words=("off", "uninitialized", "on")), "Whether the guest may reset it."),
        MANAGED, BOOT_ORDER, ALIAS, ADDRESS,
    ), live="device", purge=True, together=True, filled=("bus", "device")),
    Items("scsi_hostdevs", "devices/hostdev[@mode='subsystem'][@type='scsi']", ("adapter", "unit", "iscsi"), "SCSI devices of the host.", (
        Field("adapter", "source/adapter/@name", c.WORD, "Adapter, such as V(scsi_host0)."),
        Field("unit", "source/address", c.SCSI_UNIT, "Bus, target and unit on it, such as V(0:0:3)."),
        Field("iscsi", "source/@name", c.TEXT, "Name of a target of iSCSI instead.", implies=ISCSI),
        Items("hosts", "source/host", ("name",), "Its servers.", (
            Field("name", "@name", c.TEXT, "Host name or address.", required=True),
            Field("port", "@port", PORT, "Port."),
        )),
        secret("source/auth", "iscsi", (Field("username", "@username", c.TEXT, "User."),)),
        Field("initiator", "source/initiator/iqn/@name", c.TEXT, "Name of the initiator."),
        Field("sgio", "@sgio", c.Choice(words=("filtered", "unfiltered")), "Which commands the guest may send."),
        Field("rawio", "@rawio", c.SAID_YES_NO, "Whether QEMU may send any command."),
        Field("readonly", "readonly", c.PRESENCE, "Whether the guest cannot write it."),
        Field("shareable", "shareable", c.PRESENCE, "Whether several guests may write it."),
        MANAGED, BOOT_ORDER, ALIAS, ADDRESS,
    ), live="device", purge=True, together=True),
    Items("mediated_hostdevs", "devices/hostdev[@mode='subsystem'][@type='mdev']", ("uuid",), "Mediated devices of the host, such as a vGPU.", (
        Field("uuid", "source/address/@uuid", c.UUID, "UUID.", required=True),
        Field("model", "@model", c.Choice(words=("vfio-pci", "vfio-ccw", "vfio-ap")), "Kind, V(vfio-pci) when first given."),
        Field("display", "@display", c.SAID_ON_OFF, "Whether it is a display."),
        Field("ramfb", "@ramfb", c.SAID_ON_OFF, "Whether it shows the boot."),
        MANAGED, ALIAS, ADDRESS,
    ), live="device", purge=True, fills=(("@model", "vfio-pci"),)),
    Items("vhost_scsi_hostdevs", "devices/hostdev[@mode='subsystem'][@type='scsi_host']", ("wwpn",), "Targets of vhost-scsi.", (
        Field("wwpn", "source/@wwpn", c.WORD, "Name, such as V(naa.5123456789abcde0).", required=True, implies=(("source/@protocol", "vhost"),)),
        Field("model", "@model", c.Choice(words=("virtio", "virtio-transitional", "virtio-non-transitional")), "Model."),
        MANAGED, ALIAS, ADDRESS,
    ), live="device", purge=True),
)  # fmt: skip
