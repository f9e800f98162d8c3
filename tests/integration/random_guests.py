"""Random options of kvm_domain, made from its tables: the rows say what there is, the kind of value what it can be."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Row
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain import TABLE

Options = dict[str, Any]

# What is no option of a definition, or asks for what these guests or this emulator have not.
LEFT_OUT = {
    "name", "state", "uuid", "xml", "unset", "remove_storage", "start_after", "type", "emulator", "launch_security", "seclabels", "leases",
    "hostdevs", "usb_hostdevs", "scsi_hostdevs", "mediated_hostdevs", "vhost_scsi_hostdevs", "ide_controllers", "smartcards", "forwards",
    "redirdevs", "redir_filter", "memory_devices",
}  # fmt: skip
# The same inside of an option: what names other objects of the host, and what fits only with one other option among many.
LEFT_OUT_INSIDE = {
    "network", "pool", "volume", "vf", "vf_address", "block", "filter", "listen_network", "portgroup", "internal", "address", "seclabels",
    "tls", "remote", "nvme", "vhost_user", "encryption", "backing", "mirror", "loader", "loader_type", "loader_readonly", "loader_secure",
    "loader_stateless", "nvram", "nvram_template", "firmware", "firmware_features", "firmware_without", "memnode", "teaming", "udp",
    "mcast", "server", "client", "direct", "vdpa", "coalesce", "rx_max_coalesced", "iothread", "reconnect", "protocol", "host", "service",
    "iommu", "ats", "packed", "page_per_vq", "virtualport", "device_seclabels", "throttling", "place", "model_name", "vendor", "product",
    "fwcfg.file", "memory.max", "memory.slots", "cpu.numa", "cpu.cache", "cpu.latencies", "cpu.bandwidths", "cpu.topology", "consoles.path",
    "serials.path", "serials.mode", "parallels.path", "parallels.mode", "channels.path", "channels.mode", "clock.timezone", "clock.start",
    "clock.basis", "audios.driver", "audios.dsp_policy", "audios.try_mmap", "audios.exclusive", "audios.server", "audios.path",
    "video.width", "video.height", "video.vram", "video.ram", "video.vgamem", "video.driver", "video.rendernode", "filesystems.boot_order",
    "graphics.image_compression", "graphics.jpeg_compression", "graphics.zlib_compression", "graphics.playback_compression",
    "graphics.streaming", "graphics.channels", "graphics.default_mode", "graphics.file_transfer", "graphics.tls_port", "graphics.audio",
    "graphics.display", "graphics.xauth", "graphics.fullscreen", "graphics.p2p", "graphics.dbus_address", "graphics.gl",
    "graphics.rendernode", "graphics.clipboard", "graphics.mouse", "inputs.evdev", "inputs.dev", "inputs.grab", "inputs.grab_toggle",
    "inputs.repeat", "inputs.model", "cpu.check", "cpu.match", "serials.log_append", "serials.target_model", "channels.port_name",
    "channels.clipboard", "channels.mouse", "thread_pool_min", "thread_pool_max", "parallels.log_append", "consoles.log_append",
    "channels.log_append", "numatune.placement", "controllers.bus_nr", "consoles.target_type", "serials.target_type", "interfaces.type",
}  # fmt: skip
# What libvirt wants with an option, though it can be left out of one that is changed.
NEEDED = {
    "audios": ["type"], "disks": ["path"], "filesystems": ["source"], "iommu": ["model"], "watchdog": ["model"],
    "controllers": ["model"], "tpm": ["backend", "version"], "interfaces": ["bridge"], "numatune": ["mode", "nodeset"],
    "fwcfg": ["value"], "inputs": ["bus"],
    "perf_events": ["enabled"], "qemu_override.properties": ["type"], "os.bootmenu": ["enable"], "blkiotune.devices": ["weight"],
}  # fmt: skip

PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
HEX = st.integers(0, 255).map("{:02x}".format)
NUMBERS = st.sampled_from([1, 2, 3, 4, 8, 100, 1000, 65536])
SIZES = st.tuples(st.sampled_from([1, 2, 4, 64, 128, 200]), st.sampled_from(["MiB", "KiB", "M"])).map(lambda pair: f"{pair[0]}{pair[1]}")
NODES = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda pair: f"{min(pair)}-{max(pair)}")
WORDS = st.sampled_from(["a", "B2", "some-word", "x_y"])

# Values of each kind, those most often that fit beside others; a Choice, an Integer and a Pattern are made from their own bounds.
VALUES: dict[type, st.SearchStrategy[Any]] = {
    c.Text: st.sampled_from(["text", "two words", "<&>"]),
    c.Prose: st.sampled_from(["one line", "two\nlines"]),
    c.ObjectName: WORDS,
    c.Flag: st.booleans(),
    c.Presence: st.just(True),
    c.Size: SIZES,
    c.ByteSize: SIZES,
    c.CpuSet: st.one_of(NODES, st.integers(0, 3).map(str), st.just("0,2")),
    c.Mac: st.lists(HEX, min_size=5, max_size=5).map(lambda octets: ":".join(["52", *octets])),
    c.Uuid: st.uuids(version=4).map(str),
    c.PciAddress: st.just("0000:00:1f.7"),
    c.GuestAddress: st.integers(16, 30).map("0000:00:{:02x}.0".format),
    c.Numbers: st.just("0:0:1"),
    c.HostPort: st.sampled_from(["store.example", "store.example:3260", "192.0.2.1"]),
    c.BlockDevice: st.just("/dev/none"),
    c.AbsolutePath: st.sampled_from(["/srv/a", "/srv//b", "/srv/c.qcow2"]),
    c.Address: st.sampled_from(["192.0.2.7", "127.0.0.1", "2001:DB8::7"]),
    c.Prefix: st.integers(8, 32),
    c.Machine: st.sampled_from(["q35", "pc"]),
    c.Mode: st.sampled_from(["0644", "700"]),
    c.Alias: WORDS,
}
PATTERNS = {c.INTERFACE: st.sampled_from(["br0", "eth1"]), c.HOSTNAME: st.just("host.example"), c.WORD: WORDS}
# Words of options that are free text to a table, and those of all that an emulated x86 guest can have.
SAID = {
    name: st.sampled_from(words) for name, words in {
        "os.arch": ["x86_64"], "fwcfg.name": ["opt/a", "opt/b/c"], "perf_events.name": ["cmt", "cpu_cycles"], "cpu.model": ["qemu64", "kvm64"],
        "cpu.mode": ["custom", "maximum"], "usb_controllers.model": ["qemu-xhci", "nec-xhci"], "scsi_controllers.model": ["virtio-scsi"],
        "interfaces.model": ["virtio", "e1000", "rtl8139"], "watchdog.model": ["i6300esb"], "iommu.model": ["intel"],
        "graphics.type": ["vnc"], "on_poweroff": ["destroy", "restart"], "on_reboot": ["destroy", "restart"],
        "on_crash": ["destroy", "coredump-destroy"], "filesystems.driver": ["path"], "serials.type": ["pty", "null"], "serials.port": [0, 1],
        "channels.type": ["pty", "null", "unix"], "consoles.type": ["pty"], "consoles.port": [0], "parallels.type": ["pty", "null"],
        "controllers.index": [1, 2, 3], "controllers.model": ["pcie-root-port"], "tpm.version": ["2.0"],
        "tpm.backend": ["emulator"], "tpm.model": ["tpm-tis", "tpm-crb"], "panics.model": ["isa"], "hubs.type": ["usb"],
        "os.bootmenu.enable": [True], "inputs.bus": ["usb"], "disks.bus": ["virtio", "scsi"],
        "disks.target": ["vda", "vdb", "sda"], "disks.device": ["disk"],
        "video.model": ["virtio", "qxl", "vga", "bochs"], "inputs.type": ["tablet", "mouse", "keyboard"], "sounds.audio": [1],
        "filesystems.dir": ["one", "two"], "qemu_override.properties.type": ["string"],
        "qemu_env.name": ["A", "B_2"], "sysinfo.bios.date": ["01/31/2024"], "interfaces.tx_queue_size": [256], "interfaces.rx_queue_size": [256],
    }.items()
}  # fmt: skip


def specs() -> st.SearchStrategy[Options]:
    """A new guest's options, and some for the same guest afterwards."""
    first = of_rows(TABLE.rows, 4).map(lambda options: {"type": "qemu", **options})
    return st.fixed_dictionaries({"first": first, "then": of_rows(TABLE.rows, 2)})


def of_rows(rows: tuple[Row, ...], most: int, above: str = "") -> st.SearchStrategy[Options]:
    """Options of some of the rows, and of all that must be given."""
    left_out = LEFT_OUT_INSIDE if above else LEFT_OUT
    every = {row.name: row for row in rows if not {row.name, f"{above}.{row.name}"} & left_out and can_be_said(row)}
    needed = [name for name, row in every.items() if getattr(row, "required", False)] + NEEDED.get(above, [])
    chosen = st.lists(st.sampled_from(sorted(every)), min_size=0 if needed else 1, max_size=most, unique=True)
    return chosen.map(lambda names: without_rivals(every, [*needed, *names])).flatmap(
        lambda names: st.fixed_dictionaries({name: of_row(every[name], f"{above}.{name}".lstrip(".")) for name in names})
    )


def can_be_said(row: Row) -> bool:
    """Tell whether a row is of the definition, and a value of it can be made."""
    if isinstance(row, Field):
        return row.path is not None and (type(row.codec) in VALUES or isinstance(row.codec, (c.Choice, c.Integer, c.Pattern)))
    return row.path is not None and any(one.name not in LEFT_OUT_INSIDE and can_be_said(one) for one in row.rows)


def without_rivals(rows: dict[str, Row], names: list[str]) -> list[str]:
    """Return the names without those that an earlier one excludes."""
    done: list[str] = []
    for name in dict.fromkeys(names):
        excluded = {rival for one in done for rival in getattr(rows[one], "rivals", ())}
        if name not in excluded and not set(getattr(rows[name], "rivals", ())) & set(done):
            done.append(name)
    return done


def of_row(row: Row, place: str) -> st.SearchStrategy[Any]:
    if isinstance(row, Field):
        value = SAID.get(place, of_codec(row.codec))
        return st.lists(value, min_size=1, max_size=2, unique=True) if row.many else value
    if not isinstance(row, Items):
        return of_rows(row.rows, 3, place)
    item = of_rows(row.rows, 3, place)
    key = next((one for one in row.rows if one.name == row.key[0]), None) if row.key and not row.placed else None
    if isinstance(key, Field):
        item = st.tuples(item, of_key(key, f"{place}.{key.name}")).map(lambda pair: {**pair[0], key.name: pair[1]})
    return st.lists(item, min_size=1, max_size=2, unique_by=(lambda one: str(one.get(row.key[0]))) if key else None)


def of_key(key: Field, place: str) -> st.SearchStrategy[Any]:
    """A value that tells one item of a list from another."""
    few = isinstance(key.codec, c.Integer) and key.codec.low == 0
    return SAID.get(place, st.integers(0, 3) if few else of_codec(key.codec))


def of_codec(codec: c.Codec) -> st.SearchStrategy[Any]:
    if isinstance(codec, c.Choice):
        return st.sampled_from(codec.words)
    if isinstance(codec, c.Integer):
        within = NUMBERS.filter(lambda number: codec.low <= number <= codec.high)
        return st.one_of(within, within, st.integers(codec.low, codec.high)) if codec.low <= 100 else st.integers(codec.low, codec.high)
    if isinstance(codec, c.Pattern) and codec not in PATTERNS:
        return st.from_regex(codec.pattern, fullmatch=True, alphabet=PRINTABLE).filter(lambda text: len(text) <= codec.longest)
    return PATTERNS[codec] if isinstance(codec, c.Pattern) else VALUES[type(codec)]
