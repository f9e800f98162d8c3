# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers of a guest: a list for each kind."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import NEXT_BOOT, Field, Items, Row
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_parts import ADDRESS, ALIAS, UNSIGNED, VIRTIO

INDEX = Field("index", "@index", c.Integer(high=255), "Number of the controller.", required=True)
MODEL = Field("model", "@model", c.WORD, "Model. libvirt chooses.")
BYTE = c.Integer(high=255)

PCI: tuple[Row, ...] = (
    Field("model_name", "model/@name", c.WORD, "Device of QEMU that it is. libvirt chooses."),
    Field("chassis", "target/@chassis", BYTE, "Chassis that it tells."),
    Field("port", "target/@port", c.Pattern(pattern="0x[0-9a-f]{1,2}", says="a number such as 0x10"), "Port that it tells."),
    Field("chassis_number", "target/@chassisNr", BYTE, "Chassis of a C(pci-bridge)."),
    Field("bus_number", "target/@busNr", BYTE, "First bus of an expander."),
    Field("hotplug", "target/@hotplug", c.SAID_ON_OFF, "Whether devices can come and go."),
    Field("node", "target/node", c.Integer(high=1023), "NUMA node of an expander."),
    Field("hole64", "pcihole64", c.SIZE, "Address space for 64-bit devices."),
    ALIAS,
    ADDRESS,
)
QUEUES: tuple[Row, ...] = (
    Field("queues", "driver/@queues", c.Integer(low=1), "Queues."),
    Field("cmd_per_lun", "driver/@cmd_per_lun", UNSIGNED, "Commands for each unit."),
    Field("max_sectors", "driver/@max_sectors", UNSIGNED, "Most bytes of a command."),
    Field("ioeventfd", "driver/@ioeventfd", c.SAID_ON_OFF, "Whether I/O has a thread of its own."),
    Field("iothread", "driver/@iothread", c.Integer(low=1), "Number of the I/O thread that serves it."),
    *VIRTIO,
)
SERIAL: tuple[Row, ...] = (
    Field("ports", "@ports", c.Integer(low=1), "Most ports."),
    Field("vectors", "@vectors", c.INTEGER, "Interrupts."),
    *VIRTIO,
)


def _kind(kind: str, doc: str, rows: tuple[Row, ...] = (), live: str = NEXT_BOOT) -> Items:
    name = f"{kind.replace('-', '_')}_controllers"
    return Items(name, f"devices/controller[@type='{kind}']", ("index",), doc, (INDEX, *rows, ALIAS, ADDRESS), live=live)


MORE = (
    Items("usb_controllers", "devices/controller[@type='usb']", ("index", "model"), "USB controllers; companions share an index.", (
        INDEX,
        Field("model", "@model", c.WORD, "Model, such as V(qemu-xhci), or V(none) for no USB.", required=True),
        Field("ports", "@ports", c.Integer(low=1, high=15), "Ports of V(qemu-xhci)."),
        Field("start_port", "master/@startport", BYTE, "First port of a companion."),
        ALIAS,
        ADDRESS,
    ), together=True),
    _kind("scsi", "SCSI controllers.", (MODEL, *QUEUES), "device"),
    _kind("virtio-serial", "Controllers of channels.", (MODEL, *SERIAL)),
    _kind("sata", "SATA controllers."),
    _kind("ide", "IDE controllers."),
    _kind("fdc", "Floppy controllers."),
    _kind("ccid", "Controllers of smart cards."),
)  # fmt: skip
