# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers of a guest: a list for each kind."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain_parts as parts

INDEX = f.Field("index", "@index", c.Integer(high=255), "Number of the controller.", required=True)
MODEL = f.Field("model", "@model", c.WORD, "Model. libvirt chooses.")
BYTE = c.Integer(high=255)

PCI: tuple[f.Row, ...] = (
    f.Field("model_name", "model/@name", c.WORD, "Device of QEMU that it is. libvirt chooses."),
    f.Field("chassis", "target/@chassis", BYTE, "Chassis that it tells."),
    f.Field("port", "target/@port", c.Pattern(pattern="0x[0-9a-f]{1,2}", says="a number such as 0x10"), "Port that it tells."),
    f.Field("chassis_number", "target/@chassisNr", BYTE, "Chassis of a C(pci-bridge)."),
    f.Field("bus_number", "target/@busNr", BYTE, "First bus of an expander."),
    f.Field("hotplug", "target/@hotplug", c.SAID_ON_OFF, "Whether devices can come and go."),
    f.Field("node", "target/node", c.Integer(high=1023), "NUMA node of an expander."),
    f.Field("hole64", "pcihole64", c.SIZE, "Address space for 64-bit devices."),
    parts.ALIAS,
    parts.ADDRESS,
)
QUEUES: tuple[f.Row, ...] = (
    f.Field("queues", "driver/@queues", c.Integer(low=1), "Queues."),
    f.Field("cmd_per_lun", "driver/@cmd_per_lun", parts.UNSIGNED, "Commands for each unit."),
    f.Field("max_sectors", "driver/@max_sectors", parts.UNSIGNED, "Most bytes of a command."),
    f.Field("ioeventfd", "driver/@ioeventfd", c.SAID_ON_OFF, "Whether I/O has a thread of its own."),
    f.Field("iothread", "driver/@iothread", c.Integer(low=1), "Number of the I/O thread that serves it."),
    *parts.VIRTIO,
)
SERIAL: tuple[f.Row, ...] = (
    f.Field("ports", "@ports", c.Integer(low=1), "Most ports."),
    f.Field("vectors", "@vectors", c.INTEGER, "Interrupts."),
    *parts.VIRTIO,
)


def _kind(kind: str, doc: str, rows: tuple[f.Row, ...] = (), live: str = f.NEXT_BOOT) -> f.Items:
    name = f"{kind.replace('-', '_')}_controllers"
    return f.Items(name, f"devices/controller[@type='{kind}']", ("index",), doc, (INDEX, *rows, parts.ALIAS, parts.ADDRESS), live=live)


MORE = (
    f.Items("usb_controllers", "devices/controller[@type='usb']", ("index", "model"), "USB controllers; companions share an index.", (
        INDEX,
        f.Field("model", "@model", c.WORD, "Model, such as V(qemu-xhci), or V(none) for no USB.", required=True),
        f.Field("ports", "@ports", c.Integer(low=1, high=15), "Ports of V(qemu-xhci)."),
        f.Field("start_port", "master/@startport", BYTE, "First port of a companion."),
        parts.ALIAS,
        parts.ADDRESS,
    ), together=True),
    _kind("scsi", "SCSI controllers.", (MODEL, *QUEUES), "device"),
    _kind("virtio-serial", "Controllers of channels.", (MODEL, *SERIAL)),
    _kind("sata", "SATA controllers."),
    _kind("ide", "IDE controllers."),
    _kind("fdc", "Floppy controllers."),
    _kind("ccid", "Controllers of smart cards."),
)  # fmt: skip
