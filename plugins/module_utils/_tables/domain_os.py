# SPDX-License-Identifier: GPL-3.0-or-later
"""How a guest boots beyond the usual, and what its firmware tells of the machine."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f

BOOT: tuple[f.Row, ...] = (
    f.Field("firmware_features", "firmware/feature[@enabled='yes']/@name", c.WORD, "What the picked firmware must have, as V(secure-boot).",
            many=True),
    f.Field("firmware_without", "firmware/feature[@enabled='no']/@name", c.WORD, "What it must not have.", many=True),
    f.Field("loader_type", "loader/@type", c.Choice(words=("rom", "pflash")), "How O(os.loader) is mapped."),
    f.Field("loader_readonly", "loader/@readonly", c.SAID_YES_NO, "Whether it is read-only."),
    f.Field("loader_secure", "loader/@secure", c.SAID_YES_NO, "Whether it has Secure Boot."),
    f.Field("loader_stateless", "loader/@stateless", c.SAID_YES_NO, "Whether it keeps no variables.", ),
    f.Field("nvram", "nvram", c.PATH, "File with the variables of the firmware. libvirt chooses one."),
    f.Field("nvram_template", "nvram/@template", c.PATH, "File that a new O(os.nvram) begins as."),
    f.Field("dtb", "dtb", c.PATH, "Device tree for direct boot."),
    f.Section("bootmenu", "bootmenu", "Menu of the firmware.", (
        f.Field("enable", "@enable", c.SAID_YES_NO, "Whether there is one."),
        f.Field("timeout", "@timeout", c.Integer(high=65535), "Milliseconds that it waits."),
    )),
    f.Field("reboot_timeout", "bios/@rebootTimeout", c.Integer(low=-1, high=65535), "Milliseconds until it tries again after no boot device"
            " was found; V(-1) for never."),
    f.Field("use_serial", "bios/@useserial", c.SAID_YES_NO, "Whether the firmware talks to the serial port."),
    f.Field("smbios", "smbios/@mode", c.Choice(words=("emulate", "host", "sysinfo")), "Where the SMBIOS tables come from."),
    f.Field("acpi_table", "acpi/table[@type='slic']", c.PATH, "File with an ACPI table of type SLIC."),
)  # fmt: skip


def _entries(path: str, names: tuple[str, ...]) -> tuple[f.Row, ...]:
    return tuple(f.Field(name, f"{path}entry[@name='{name}']", c.TEXT, f"{name.capitalize()}.") for name in names)


SYSINFO = f.Section("sysinfo", "sysinfo[@type='smbios']", "What the SMBIOS tables say, with O(os.smbios=sysinfo).", (
    f.Section("bios", "bios", "Firmware.", _entries("", ("vendor", "version", "date", "release"))),
    f.Section("system", "system", "Machine.", _entries("", ("manufacturer", "product", "version", "serial", "uuid", "sku", "family"))),
    f.Items("base_boards", "baseBoard", ("place",), "Boards.", (
        f.Field("place", None, c.INTEGER, "Number of the board. Its place in the list when not given."),
        *_entries("", ("manufacturer", "product", "version", "serial", "asset", "location")),
    ), placed=True),
    f.Section("chassis", "chassis", "Chassis.", _entries("", ("manufacturer", "version", "serial", "asset", "sku"))),
    f.Field("oem_strings", "oemStrings/entry", c.TEXT, "Free texts.", many=True),
))  # fmt: skip
FWCFG = f.Items("fwcfg", "sysinfo[@type='fwcfg']/entry", ("name",), "Blobs for the firmware.", (
    f.Field("name", "@name", c.Pattern(pattern=r"[\w./-]+", says="a path"), "Name, such as V(opt/com.example/name).", required=True),
    f.Field("value", ".", c.TEXT, "Text."),
    f.Field("file", "@file", c.PATH, "File with the content instead."),
))  # fmt: skip
QEMU = (
    f.Field("qemu_args", "qemu:commandline/qemu:arg/@value", c.TEXT, "Arguments for QEMU that libvirt has no word for; they taint the guest.",
            many=True),
    f.Items("qemu_env", "qemu:commandline/qemu:env", ("name",), "Environment variables for QEMU.", (
        f.Field("name", "@name", c.WORD, "Name.", required=True),
        f.Field("value", "@value", c.TEXT, "Value."),
    )),
    f.Items("qemu_override", "qemu:override/qemu:device", ("alias",), "Properties of devices that libvirt has no word for.", (
        f.Field("alias", "@alias", c.WORD, "Alias of the device, C(ua-…).", required=True),
        f.Items("properties", "qemu:frontend/qemu:property", ("name",), "Properties.", (
            f.Field("name", "@name", c.WORD, "Name.", required=True),
            f.Field("type", "@type", c.Choice(words=("string", "signed", "unsigned", "bool", "remove")), "Kind of value."),
            f.Field("value", "@value", c.TEXT, "Value."),
        )),
    )),
)  # fmt: skip
