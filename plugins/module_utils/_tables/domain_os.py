# SPDX-License-Identifier: GPL-3.0-or-later
"""How a guest boots beyond the usual, and what its firmware tells of the machine."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Row, Section

BOOT: tuple[Row, ...] = (
    Field("firmware_features", "firmware/feature[@enabled='yes']/@name", c.WORD, "What the picked firmware must have, as V(secure-boot).",
          many=True),
    Field("firmware_without", "firmware/feature[@enabled='no']/@name", c.WORD, "What it must not have.", many=True),
    Field("loader_type", "loader/@type", c.Choice(words=("rom", "pflash")), "How O(os.loader) is mapped."),
    Field("loader_readonly", "loader/@readonly", c.SAID_YES_NO, "Whether it is read-only."),
    Field("loader_secure", "loader/@secure", c.SAID_YES_NO, "Whether it has Secure Boot."),
    Field("loader_stateless", "loader/@stateless", c.SAID_YES_NO, "Whether it keeps no variables.", ),
    Field("nvram", "nvram", c.PATH, "File with the variables of the firmware. libvirt chooses one."),
    Field("nvram_template", "nvram/@template", c.PATH, "File that a new O(os.nvram) begins as."),
    Field("dtb", "dtb", c.PATH, "Device tree for direct boot."),
    Section("bootmenu", "bootmenu", "Menu of the firmware.", (
        Field("enable", "@enable", c.SAID_YES_NO, "Whether there is one."),
        Field("timeout", "@timeout", c.Integer(high=65535), "Milliseconds that it waits."),
    )),
    Field("reboot_timeout", "bios/@rebootTimeout", c.Integer(low=-1, high=65535), "Milliseconds until it tries again after no boot device"
          " was found; V(-1) for never."),
    Field("use_serial", "bios/@useserial", c.SAID_YES_NO, "Whether the firmware talks to the serial port."),
    Field("smbios", "smbios/@mode", c.Choice(words=("emulate", "host", "sysinfo")), "Where the SMBIOS tables come from."),
    Field("acpi_table", "acpi/table[@type='slic']", c.PATH, "File with an ACPI table of type SLIC."),
)  # fmt: skip


def _entries(path: str, names: tuple[str, ...]) -> tuple[Row, ...]:
    return tuple(Field(name, f"{path}entry[@name='{name}']", c.TEXT, f"{name.capitalize()}.") for name in names)


SYSINFO = Section("sysinfo", "sysinfo[@type='smbios']", "What the SMBIOS tables say, with O(os.smbios=sysinfo).", (
    Section("bios", "bios", "Firmware.", _entries("", ("vendor", "version", "date", "release"))),
    Section("system", "system", "Machine.", _entries("", ("manufacturer", "product", "version", "serial", "uuid", "sku", "family"))),
    Items("base_boards", "baseBoard", ("place",), "Boards.", (
        Field("place", None, c.INTEGER, "Number of the board. Its place in the list when not given."),
        *_entries("", ("manufacturer", "product", "version", "serial", "asset", "location")),
    ), placed=True),
    Section("chassis", "chassis", "Chassis.", _entries("", ("manufacturer", "version", "serial", "asset", "sku"))),
    Field("oem_strings", "oemStrings/entry", c.TEXT, "Free texts.", many=True),
))  # fmt: skip
FWCFG = Items("fwcfg", "sysinfo[@type='fwcfg']/entry", ("name",), "Blobs for the firmware.", (
    Field("name", "@name", c.Pattern(pattern=r"[\w./-]+", says="a path"), "Name, such as V(opt/com.example/name).", required=True),
    Field("value", ".", c.TEXT, "Text."),
    Field("file", "@file", c.PATH, "File with the content instead."),
))  # fmt: skip
QEMU = (
    Field("qemu_args", "qemu:commandline/qemu:arg/@value", c.TEXT, "Arguments for QEMU that libvirt has no word for; they taint the guest.",
          many=True),
    Items("qemu_env", "qemu:commandline/qemu:env", ("name",), "Environment variables for QEMU.", (
        Field("name", "@name", c.WORD, "Name.", required=True),
        Field("value", "@value", c.TEXT, "Value."),
    )),
    Items("qemu_override", "qemu:override/qemu:device", ("alias",), "Properties of devices that libvirt has no word for.", (
        Field("alias", "@alias", c.WORD, "Alias of the device, C(ua-…).", required=True),
        Items("properties", "qemu:frontend/qemu:property", ("name",), "Properties.", (
            Field("name", "@name", c.WORD, "Name.", required=True),
            Field("type", "@type", c.Choice(words=("string", "signed", "unsigned", "bool", "remove")), "Kind of value."),
            Field("value", "@value", c.TEXT, "Value."),
        )),
    )),
)  # fmt: skip
