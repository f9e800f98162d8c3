# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees, hears and touches: displays, video, sound, input, smart cards, redirected USB."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Row, Section
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_parts import (
    ACPI_INDEX,
    ADDRESS,
    ALIAS,
    BOOT_ORDER,
    CHARACTER,
    TLS,
    UNSIGNED,
    VIRTIO,
)

PLACE = Field("place", None, c.INTEGER, "Number among those of its kind. Its place in the list when not given.")
COMPRESSION = c.Choice(words=("auto", "never", "always"))

GRAPHICS: tuple[Row, ...] = (
    Field("autoport", "@autoport", c.SAID_YES_NO, "Whether libvirt picks the port."),
    Field("listen_network", "listen[@type='network']/@network", c.NAME_OF_OTHERS, "The libvirt network at whose address it listens."),
    Field("listen_socket", "listen[@type='socket']/@socket", c.PATH, "Socket on which it listens."),
    Field("tls_port", "@tlsPort", c.Integer(low=-1, high=65535), "Port of SPICE with TLS; V(-1) for one that libvirt picks.",
          expanded="libvirt fills in the port that it picked"),
    Field("websocket", "@websocket", c.Integer(low=-1, high=65535), "Port of VNC over WebSocket; V(-1) for one that libvirt picks.",
          expanded="libvirt fills in the port that it picked"),
    Field("keymap", "@keymap", c.WORD, "Keyboard."),
    Field("share_policy", "@sharePolicy", c.Choice(words=("allow-exclusive", "force-shared", "ignore")), "Who may share VNC."),
    Field("power_control", "@powerControl", c.SAID_YES_NO, "Whether VNC can power the guest off."),
    Field("password_until", "@passwdValidTo", c.Pattern(pattern=r"[\d:T-]+", says="a time in UTC"), "Until when the password is good."),
    Field("connected", "@connected", c.Choice(words=("fail", "disconnect", "keep")), "What becomes of clients when it changes."),
    Field("default_mode", "@defaultMode", c.Choice(words=("secure", "insecure", "any")), "Security of SPICE's channels."),
    Field("display", "@display", c.TEXT, "X display, V(sdl)."),
    Field("xauth", "@xauth", c.PATH, "X authority, V(sdl)."),
    Field("fullscreen", "@fullscreen", c.SAID_YES_NO, "Whether it takes the whole screen, V(sdl)."),
    Field("p2p", "@p2p", c.SAID_YES_NO, "Whether it is a connection of its own, V(dbus)."),
    Field("dbus_address", "@address", c.TEXT, "Address of the bus, V(dbus)."),
    Field("gl", "gl/@enable", c.SAID_YES_NO, "OpenGL."),
    Field("rendernode", "gl/@rendernode", c.PATH, "Device of the host that draws."),
    Field("audio", "audio/@id", c.INTEGER, "Number of the sound of O(audios)."),
    Items("channels", "channel", ("name",), "Security of single channels of SPICE.", (
        Field("name", "@name", c.WORD, "Channel, such as V(main).", required=True),
        Field("mode", "@mode", c.Choice(words=("secure", "insecure", "any")), "Security."),
    )),
    Field("image_compression", "image/@compression", c.Choice(words=("auto_glz", "auto_lz", "quic", "glz", "lz", "off")), "Of images."),
    Field("jpeg_compression", "jpeg/@compression", COMPRESSION, "Of images over a slow line."),
    Field("zlib_compression", "zlib/@compression", COMPRESSION, "Of images over a slow line."),
    Field("playback_compression", "playback/@compression", c.SAID_ON_OFF, "Of sound."),
    Field("streaming", "streaming/@mode", c.Choice(words=("filter", "all", "off")), "What is sent as video."),
    Field("clipboard", "clipboard/@copypaste", c.SAID_YES_NO, "Whether the clipboard is shared."),
    Field("mouse", "mouse/@mode", c.Choice(words=("server", "client")), "Who moves the pointer."),
    Field("file_transfer", "filetransfer/@enable", c.SAID_YES_NO, "Whether files can be sent to the guest."),
)  # fmt: skip
VIDEO: tuple[Row, ...] = (
    Field("heads", "model/@heads", UNSIGNED, "Screens."),
    Field("ram", "model/@ram", UNSIGNED, "KiB of V(qxl)'s first memory."),
    Field("vram", "model/@vram", UNSIGNED, "KiB of video memory."),
    Field("vram64", "model/@vram64", UNSIGNED, "KiB of V(qxl)'s second memory, which a guest reaches with 64-bit addresses."),
    Field("vgamem", "model/@vgamem", UNSIGNED, "KiB of V(qxl)'s frame buffer."),
    Field("primary", "model/@primary", c.YES_NO, "Whether it is the first."),
    Field("accel3d", "model/acceleration/@accel3d", c.SAID_YES_NO, "3D."),
    Field("rendernode", "model/acceleration/@rendernode", c.PATH, "Device of the host that draws."),
    Field("width", "model/resolution/@x", UNSIGNED, "Pixels across."),
    Field("height", "model/resolution/@y", UNSIGNED, "Pixels down."),
    Field("driver", "driver/@name", c.Choice(words=("qemu", "vhostuser")), "Who draws."),
    *VIRTIO,
    ACPI_INDEX,
    ADDRESS,
)


def _stream(name: str, doc: str) -> Section:
    return Section(name, name, doc, (
        Field("mixing_engine", "@mixingEngine", c.SAID_YES_NO, "Whether QEMU mixes."),
        Field("fixed_settings", "@fixedSettings", c.SAID_YES_NO, "Whether the settings are fixed."),
        Field("voices", "@voices", UNSIGNED, "Voices."),
        Field("buffer_length", "@bufferLength", UNSIGNED, "Microseconds of the buffer."),
        Field("frequency", "settings/@frequency", UNSIGNED, "Hertz."),
        Field("channels", "settings/@channels", UNSIGNED, "Channels."),
        Field("format", "settings/@format", c.Choice(words=("s8", "u8", "s16", "u16", "s32", "u32", "f32")), "Format of samples."),
        Field("dev", "@dev", c.TEXT, "Device of the host, V(alsa) and V(oss)."),
        Field("buffer_count", "@bufferCount", UNSIGNED, "Buffers."),
        Field("try_poll", "@tryPoll", c.SAID_YES_NO, "Whether to poll."),
        Field("name", "@name", c.TEXT, "Name of the source or sink, V(pulseaudio)."),
        Field("stream_name", "@streamName", c.TEXT, "Name of the stream."),
        Field("latency", "@latency", UNSIGNED, "Microseconds of latency."),
        Field("server_name", "@serverName", c.TEXT, "Server, V(jack)."),
        Field("client_name", "@clientName", c.TEXT, "Name of QEMU there."),
        Field("connect_ports", "@connectPorts", c.TEXT, "Ports to connect to."),
        Field("exact_name", "@exactName", c.SAID_YES_NO, "Whether the name must be free."),
    ))  # fmt: skip


MORE = (
    Items("inputs", "devices/input", ("type", "bus", "place"), "Keyboards, mice, tablets. A guest always has a keyboard and a mouse.", (
        Field("type", "@type", c.Choice(words=("tablet", "mouse", "keyboard", "passthrough", "evdev")), "Kind.", required=True),
        Field("bus", "@bus", c.Choice(words=("usb", "virtio", "ps2", "none")), "Bus; needed, but for V(evdev)."),
        PLACE,
        Field("model", "@model", c.Choice(words=("virtio", "virtio-transitional", "virtio-non-transitional")), "Model on V(virtio)."),
        Field("evdev", "source/@evdev", c.PATH, "Device of the host, V(passthrough)."),
        Field("dev", "source/@dev", c.PATH, "Device of the host, V(evdev)."),
        Field("grab", "source/@grab", c.Choice(words=("all",)), "Whether all devices are grabbed together."),
        Field("grab_toggle", "source/@grabToggle", c.WORD, "Keys that take and give it."),
        Field("repeat", "source/@repeat", c.SAID_ON_OFF, "Whether keys repeat."),
        *VIRTIO, ALIAS, ADDRESS,
    ), live="device", purge=True, placed=True),
    Items("audios", "devices/audio", ("id",), "Where sound goes.", (
        Field("id", "@id", c.Integer(low=1), "Number.", required=True),
        Field("type", "@type", c.Choice(words=("none", "alsa", "coreaudio", "dbus", "jack", "oss", "pulseaudio", "sdl", "spice", "file")),
              "Where to."),
        Field("timer_period", "@timerPeriod", UNSIGNED, "Microseconds between looks."),
        Field("server", "@serverName", c.TEXT, "Server, V(pulseaudio)."),
        Field("driver", "@driver", c.WORD, "Driver, V(sdl)."),
        Field("path", "@path", c.TEXT, "File, V(file)."),
        Field("try_mmap", "@tryMMap", c.SAID_YES_NO, "Whether to map memory, V(oss)."),
        Field("exclusive", "@exclusive", c.SAID_YES_NO, "Whether it is taken alone, V(oss)."),
        Field("dsp_policy", "@dspPolicy", c.Integer(low=-1), "Policy of latency, V(oss)."),
        _stream("input", "What the guest hears."),
        _stream("output", "What the guest plays."),
    )),
    Items("sounds", "devices/sound", ("model", "place"), "Sound cards.", (
        Field("model", "@model", c.Choice(words=("ich6", "ich7", "ich9", "ac97", "es1370", "sb16", "pcspk", "usb")), "Model.", required=True),
        PLACE,
        Field("codecs", "codec/@type", c.Choice(words=("duplex", "micro", "output")), "Codecs of V(ich6) and later.", many=True),
        Field("audio", "audio/@id", c.Integer(low=1), "Number of the sound of O(audios)."),
        ALIAS, ADDRESS,
    ), purge=True, placed=True),
    Items("hubs", "devices/hub", ("type", "place"), "Hubs.", (
        Field("type", "@type", c.Choice(words=("usb",)), "Kind.", required=True), PLACE, ALIAS, ADDRESS,
    ), purge=True, placed=True),
    Items("redirdevs", "devices/redirdev", ("bus", "type", "place"), "USB devices of who looks at the guest.", (
        Field("bus", "@bus", c.Choice(words=("usb",)), "Bus.", required=True),
        Field("type", "@type", c.Choice(words=("spicevmc", "tcp", "udp", "unix", "pty")), "Where they come from.", required=True),
        PLACE,
        Field("path", "source/@path", c.PATH, "Socket.", expanded="libvirt fills it in"),
        *CHARACTER, TLS, BOOT_ORDER, ALIAS, ADDRESS,
    ), live="device", purge=True, placed=True),
    Items("redir_filter", "devices/redirfilter/usbdev", ("class", "vendor", "product", "version", "allow"), "Which of them; the first that fits.", (
        *(Field(name, f"@{name}", c.Pattern(pattern=r"-1|0x[0-9A-F]+|\d+\.\d+", says="a number such as 0x15E1, or -1 for any"),
                f"{name.capitalize()}.") for name in ("class", "vendor", "product", "version")),
        Field("allow", "@allow", c.SAID_YES_NO, "Whether they may be.", required=True),
    ), together=True),
    Items("smartcards", "devices/smartcard", ("kind", "place"), "Smart cards.", (
        Field("kind", "@mode", c.Choice(words=("host", "host-certificates", "passthrough")), "What is behind it.", required=True),
        PLACE,
        Field("certificates", "certificate", c.TEXT, "Three certificates of the host.", many=True),
        Field("database", "database", c.PATH, "Where they are."),
        Field("type", "@type", c.Choice(words=("spicevmc", "tcp", "unix", "pty", "dev", "file", "null")), "Where V(passthrough) leads."),
        Field("path", "source/@path", c.PATH, "Socket or device.", expanded="libvirt fills it in"),
        *CHARACTER[:4], TLS, ADDRESS,
    ), purge=True, placed=True),
)  # fmt: skip
