# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees, hears and touches: displays, video, sound, input, smart cards, redirected USB."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain_parts as parts

PLACE = f.Field("place", None, c.INTEGER, "Number among those of its kind. Its place in the list when not given.")
COMPRESSION = c.Choice(words=("auto", "never", "always"))

GRAPHICS: tuple[f.Row, ...] = (
    f.Field("autoport", "@autoport", c.SAID_YES_NO, "Whether libvirt picks the port."),
    f.Field("listen_network", "listen[@type='network']/@network", c.NAME_OF_OTHERS, "The libvirt network at whose address it listens."),
    f.Field("listen_socket", "listen[@type='socket']/@socket", c.PATH, "Socket on which it listens."),
    f.Field("tls_port", "@tlsPort", c.Integer(low=-1, high=65535), "Port of SPICE with TLS; V(-1) for one that libvirt picks.",
            expanded="libvirt fills in the port that it picked"),
    f.Field("websocket", "@websocket", c.Integer(low=-1, high=65535), "Port of VNC over WebSocket; V(-1) for one that libvirt picks.",
            expanded="libvirt fills in the port that it picked"),
    f.Field("keymap", "@keymap", c.WORD, "Keyboard."),
    f.Field("share_policy", "@sharePolicy", c.Choice(words=("allow-exclusive", "force-shared", "ignore")), "Who may share VNC."),
    f.Field("power_control", "@powerControl", c.SAID_YES_NO, "Whether VNC can power the guest off."),
    f.Field("password_until", "@passwdValidTo", c.Pattern(pattern=r"[\d:T-]+", says="a time in UTC"), "Until when the password is good."),
    f.Field("connected", "@connected", c.Choice(words=("fail", "disconnect", "keep")), "What becomes of clients when it changes."),
    f.Field("default_mode", "@defaultMode", c.Choice(words=("secure", "insecure", "any")), "Security of SPICE's channels."),
    f.Field("display", "@display", c.TEXT, "X display, V(sdl)."),
    f.Field("xauth", "@xauth", c.PATH, "X authority, V(sdl)."),
    f.Field("fullscreen", "@fullscreen", c.SAID_YES_NO, "Whether it takes the whole screen, V(sdl)."),
    f.Field("p2p", "@p2p", c.SAID_YES_NO, "Whether it is a connection of its own, V(dbus)."),
    f.Field("dbus_address", "@address", c.TEXT, "Address of the bus, V(dbus)."),
    f.Field("gl", "gl/@enable", c.SAID_YES_NO, "OpenGL."),
    f.Field("rendernode", "gl/@rendernode", c.PATH, "Device of the host that draws."),
    f.Field("audio", "audio/@id", c.INTEGER, "Number of the sound of O(audios)."),
    f.Items("channels", "channel", ("name",), "Security of single channels of SPICE.", (
        f.Field("name", "@name", c.WORD, "Channel, such as V(main).", required=True),
        f.Field("mode", "@mode", c.Choice(words=("secure", "insecure", "any")), "Security."),
    )),
    f.Field("image_compression", "image/@compression", c.Choice(words=("auto_glz", "auto_lz", "quic", "glz", "lz", "off")), "Of images."),
    f.Field("jpeg_compression", "jpeg/@compression", COMPRESSION, "Of images over a slow line."),
    f.Field("zlib_compression", "zlib/@compression", COMPRESSION, "Of images over a slow line."),
    f.Field("playback_compression", "playback/@compression", c.SAID_ON_OFF, "Of sound."),
    f.Field("streaming", "streaming/@mode", c.Choice(words=("filter", "all", "off")), "What is sent as video."),
    f.Field("clipboard", "clipboard/@copypaste", c.SAID_YES_NO, "Whether the clipboard is shared."),
    f.Field("mouse", "mouse/@mode", c.Choice(words=("server", "client")), "Who moves the pointer."),
    f.Field("file_transfer", "filetransfer/@enable", c.SAID_YES_NO, "Whether files can be sent to the guest."),
)  # fmt: skip
VIDEO: tuple[f.Row, ...] = (
    f.Field("heads", "model/@heads", parts.UNSIGNED, "Screens."),
    f.Field("ram", "model/@ram", parts.UNSIGNED, "KiB of V(qxl)'s first memory."),
    f.Field("vram", "model/@vram", parts.UNSIGNED, "KiB of video memory."),
    f.Field("vram64", "model/@vram64", parts.UNSIGNED, "KiB of V(qxl)'s second memory, which a guest reaches with 64-bit addresses."),
    f.Field("vgamem", "model/@vgamem", parts.UNSIGNED, "KiB of V(qxl)'s frame buffer."),
    f.Field("primary", "model/@primary", c.YES_NO, "Whether it is the first."),
    f.Field("accel3d", "model/acceleration/@accel3d", c.SAID_YES_NO, "3D."),
    f.Field("rendernode", "model/acceleration/@rendernode", c.PATH, "Device of the host that draws."),
    f.Field("width", "model/resolution/@x", parts.UNSIGNED, "Pixels across."),
    f.Field("height", "model/resolution/@y", parts.UNSIGNED, "Pixels down."),
    f.Field("driver", "driver/@name", c.Choice(words=("qemu", "vhostuser")), "Who draws."),
    *parts.VIRTIO,
    parts.ACPI_INDEX,
    parts.ADDRESS,
)


def _stream(name: str, doc: str) -> f.Section:
    return f.Section(name, name, doc, (
        f.Field("mixing_engine", "@mixingEngine", c.SAID_YES_NO, "Whether QEMU mixes."),
        f.Field("fixed_settings", "@fixedSettings", c.SAID_YES_NO, "Whether the settings are fixed."),
        f.Field("voices", "@voices", parts.UNSIGNED, "Voices."),
        f.Field("buffer_length", "@bufferLength", parts.UNSIGNED, "Microseconds of the buffer."),
        f.Field("frequency", "settings/@frequency", parts.UNSIGNED, "Hertz."),
        f.Field("channels", "settings/@channels", parts.UNSIGNED, "Channels."),
        f.Field("format", "settings/@format", c.Choice(words=("s8", "u8", "s16", "u16", "s32", "u32", "f32")), "Format of samples."),
        f.Field("dev", "@dev", c.TEXT, "Device of the host, V(alsa) and V(oss)."),
        f.Field("buffer_count", "@bufferCount", parts.UNSIGNED, "Buffers."),
        f.Field("try_poll", "@tryPoll", c.SAID_YES_NO, "Whether to poll."),
        f.Field("name", "@name", c.TEXT, "Name of the source or sink, V(pulseaudio)."),
        f.Field("stream_name", "@streamName", c.TEXT, "Name of the stream."),
        f.Field("latency", "@latency", parts.UNSIGNED, "Microseconds of latency."),
        f.Field("server_name", "@serverName", c.TEXT, "Server, V(jack)."),
        f.Field("client_name", "@clientName", c.TEXT, "Name of QEMU there."),
        f.Field("connect_ports", "@connectPorts", c.TEXT, "Ports to connect to."),
        f.Field("exact_name", "@exactName", c.SAID_YES_NO, "Whether the name must be free."),
    ))  # fmt: skip


MORE = (
    f.Items("inputs", "devices/input", ("type", "bus", "place"), "Keyboards, mice, tablets. A guest always has a keyboard and a mouse.", (
        f.Field("type", "@type", c.Choice(words=("tablet", "mouse", "keyboard", "passthrough", "evdev")), "Kind.", required=True),
        f.Field("bus", "@bus", c.Choice(words=("usb", "virtio", "ps2", "none")), "Bus; needed, but for V(evdev)."),
        PLACE,
        f.Field("model", "@model", c.Choice(words=("virtio", "virtio-transitional", "virtio-non-transitional")), "Model on V(virtio)."),
        f.Field("evdev", "source/@evdev", c.PATH, "Device of the host, V(passthrough)."),
        f.Field("dev", "source/@dev", c.PATH, "Device of the host, V(evdev)."),
        f.Field("grab", "source/@grab", c.Choice(words=("all",)), "Whether all devices are grabbed together."),
        f.Field("grab_toggle", "source/@grabToggle", c.WORD, "Keys that take and give it."),
        f.Field("repeat", "source/@repeat", c.SAID_ON_OFF, "Whether keys repeat."),
        *parts.VIRTIO, parts.ALIAS, parts.ADDRESS,
    ), live="device", purge=True, placed=True),
    f.Items("audios", "devices/audio", ("id",), "Where sound goes.", (
        f.Field("id", "@id", c.Integer(low=1), "Number.", required=True),
        f.Field("type", "@type", c.Choice(words=("none", "alsa", "coreaudio", "dbus", "jack", "oss", "pulseaudio", "sdl", "spice", "file")),
                "Where to."),
        f.Field("timer_period", "@timerPeriod", parts.UNSIGNED, "Microseconds between looks."),
        f.Field("server", "@serverName", c.TEXT, "Server, V(pulseaudio)."),
        f.Field("driver", "@driver", c.WORD, "Driver, V(sdl)."),
        f.Field("path", "@path", c.TEXT, "File, V(file)."),
        f.Field("try_mmap", "@tryMMap", c.SAID_YES_NO, "Whether to map memory, V(oss)."),
        f.Field("exclusive", "@exclusive", c.SAID_YES_NO, "Whether it is taken alone, V(oss)."),
        f.Field("dsp_policy", "@dspPolicy", c.Integer(low=-1), "Policy of latency, V(oss)."),
        _stream("input", "What the guest hears."),
        _stream("output", "What the guest plays."),
    )),
    f.Items("sounds", "devices/sound", ("model", "place"), "Sound cards.", (
        f.Field("model", "@model", c.Choice(words=("ich6", "ich7", "ich9", "ac97", "es1370", "sb16", "pcspk", "usb")), "Model.", required=True),
        PLACE,
        f.Field("codecs", "codec/@type", c.Choice(words=("duplex", "micro", "output")), "Codecs of V(ich6) and later.", many=True),
        f.Field("audio", "audio/@id", c.Integer(low=1), "Number of the sound of O(audios)."),
        parts.ALIAS, parts.ADDRESS,
    ), purge=True, placed=True),
    f.Items("hubs", "devices/hub", ("type", "place"), "Hubs.", (
        f.Field("type", "@type", c.Choice(words=("usb",)), "Kind.", required=True), PLACE, parts.ALIAS, parts.ADDRESS,
    ), purge=True, placed=True),
    f.Items("redirdevs", "devices/redirdev", ("bus", "type", "place"), "USB devices of who looks at the guest.", (
        f.Field("bus", "@bus", c.Choice(words=("usb",)), "Bus.", required=True),
        f.Field("type", "@type", c.Choice(words=("spicevmc", "tcp", "udp", "unix", "pty")), "Where they come from.", required=True),
        PLACE,
        f.Field("path", "source/@path", c.PATH, "Socket.", expanded="libvirt fills it in"),
        *parts.CHARACTER, parts.TLS, parts.BOOT_ORDER, parts.ALIAS, parts.ADDRESS,
    ), live="device", purge=True, placed=True),
    f.Items("redir_filter", "devices/redirfilter/usbdev", ("class", "vendor", "product", "version", "allow"), "Which of them; the first that fits.", (
        *(f.Field(name, f"@{name}", c.Pattern(pattern=r"-1|0x[0-9A-F]+|\d+\.\d+", says="a number such as 0x15E1, or -1 for any"),
                  f"{name.capitalize()}.") for name in ("class", "vendor", "product", "version")),
        f.Field("allow", "@allow", c.SAID_YES_NO, "Whether they may be.", required=True),
    ), together=True),
    f.Items("smartcards", "devices/smartcard", ("kind", "place"), "Smart cards.", (
        f.Field("kind", "@mode", c.Choice(words=("host", "host-certificates", "passthrough")), "What is behind it.", required=True),
        PLACE,
        f.Field("certificates", "certificate", c.TEXT, "Three certificates of the host.", many=True),
        f.Field("database", "database", c.PATH, "Where they are."),
        f.Field("type", "@type", c.Choice(words=("spicevmc", "tcp", "unix", "pty", "dev", "file", "null")), "Where V(passthrough) leads."),
        f.Field("path", "source/@path", c.PATH, "Socket or device.", expanded="libvirt fills it in"),
        *parts.CHARACTER[:4], parts.TLS, parts.ADDRESS,
    ), purge=True, placed=True),
)  # fmt: skip
