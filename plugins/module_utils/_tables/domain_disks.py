# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks beyond files, devices and volumes of the host: remote images, encryption, and how QEMU and the guest treat them."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain_parts as parts

RATE = c.Integer(high=10**15)
NETWORK = (("@type", "network"),)
FOUND_OUT = "libvirt finds the chain out at the start"
NVME = (("@type", "nvme"),)
FORMATS = c.Choice(words=("raw", "qcow2", "vmdk", "vdi", "vpc", "parallels", "dmg", "qcow", "qed", "luks"))
POLICY = c.Choice(words=("stop", "report", "ignore", "enospace"))


def secret(path: str, kind: str, above: tuple[f.Row, ...]) -> f.Section:
    """Return the rows of what is opened with a secret that libvirt keeps (M(anfitrion.kvm.kvm_secret))."""
    return f.Section("encryption" if kind == "passphrase" else "auth", path, "Opened with a secret that libvirt keeps.", (
        *above,
        f.Field("secret_type", "secret/@type", c.Choice(words=(kind,) if kind == "passphrase" else ("ceph", "iscsi")), "Kind of secret."),
        f.Field("secret_uuid", "secret/@uuid", c.UUID, "The secret by UUID."),
        f.Field("secret_usage", "secret/@usage", c.TEXT, "The secret by what it is for."),
    ))  # fmt: skip


ENCRYPTION = secret("source/encryption", "passphrase", (
    f.Field("format", "@format", c.Choice(words=("luks", "qcow", "luks2", "luks-any")), "Format."),
    f.Field("engine", "@engine", c.Choice(words=("qemu", "librbd")), "Who opens it.", expanded="libvirt fills it in"),
))  # fmt: skip
REMOTE = f.Section("remote", ".", "An image that QEMU fetches over the network.", (
    f.Field("protocol", "source/@protocol", c.Choice(words=(
        "nbd", "rbd", "iscsi", "http", "https", "ftp", "ftps", "tftp", "gluster", "sheepdog", "nfs", "ssh", "vxhs")), "How.", implies=NETWORK),
    f.Field("name", "source/@name", c.TEXT, "Name of the image there.", implies=NETWORK),
    f.Field("query", "source/@query", c.TEXT, "Query of a URL.", implies=NETWORK),
    f.Field("tls", "source/@tls", c.SAID_YES_NO, "Whether it is encrypted.", implies=NETWORK),
    f.Field("tls_hostname", "source/@tlsHostname", c.HOSTNAME, "Name in its certificate.", implies=NETWORK),
    f.Items("hosts", "source/host", ("name", "port", "socket"), "Servers.", (
        f.Field("name", "@name", c.TEXT, "Host name or address."),
        f.Field("socket", "@socket", c.PATH, "Socket of the host, with O(disks[].remote.hosts[].transport=unix)."),
        f.Field("port", "@port", parts.PORT, "Port."),
        f.Field("transport", "@transport", c.Choice(words=("tcp", "rdma", "unix")), "How it is reached."),
    ), together=True),
    f.Field("snapshot", "source/snapshot/@name", c.TEXT, "Snapshot of it."),
    f.Field("config", "source/config/@file", c.PATH, "Configuration, V(rbd)."),
    f.Field("initiator", "source/initiator/iqn/@name", c.TEXT, "Name of the initiator, V(iscsi)."),
    secret("source/auth", "ceph", (f.Field("username", "@username", c.TEXT, "User."),)),
    f.Field("ssl_verify", "source/ssl/@verify", c.SAID_YES_NO, "Whether a certificate is checked."),
    f.Items("cookies", "source/cookies/cookie", ("name",), "Cookies, V(http).", (
        f.Field("name", "@name", c.WORD, "Name.", required=True),
        f.Field("value", ".", c.TEXT, "Value.", secret=True),
    )),
    f.Field("readahead", "source/readahead/@size", parts.UNSIGNED, "Bytes that are read ahead."),
    f.Field("timeout", "source/timeout/@seconds", parts.UNSIGNED, "Seconds until it is given up."),
    f.Field("user", "source/identity/@user", c.TEXT, "User, V(nfs)."),
    f.Field("group", "source/identity/@group", c.TEXT, "Group, V(nfs)."),
))  # fmt: skip

MORE: tuple[f.Row, ...] = (
    f.Field("directory", "source/@dir", c.PATH, "Directory that the guest sees as a FAT file system.", implies=(("@type", "dir"),)),
    REMOTE,
    f.Section("nvme", ".", "A namespace of an NVMe controller of the host, driven by QEMU.", (
        f.Field("address", "source/address", c.PCI, "PCI address of the controller.", implies=(*NVME, ("source/@type", "pci"))),
        f.Field("namespace", "source/@namespace", c.Integer(low=1), "Number of the namespace.", implies=NVME),
        f.Field("managed", "source/@managed", c.SAID_YES_NO, "Whether libvirt takes it from its driver.", implies=NVME),
    )),
    f.Field("vhost_user", "source/@path", c.PATH, "Socket of a server that has the disk.",
            implies=(("@type", "vhostuser"), ("source/@type", "unix"))),
    parts.RECONNECT,
    ENCRYPTION,
    f.Field("volume_mode", "source/@mode", c.Choice(words=("host", "direct")), "How an iSCSI volume is reached."),
    f.Field("startup_policy", "source/@startupPolicy", c.Choice(words=("mandatory", "requisite", "optional")), "Whether it may be missing."),
    f.Field("fd_group", "source/@fdgroup", c.WORD, "Open files that are passed to libvirt."),
    f.Items("slices", "source/slices/slice", ("type",), "Part of the source that is the disk.", (
        f.Field("type", "@type", c.Choice(words=("storage",)), "Kind.", required=True),
        f.Field("offset", "@offset", c.Integer(high=2**63 - 1), "First byte."),
        f.Field("size", "@size", c.Integer(high=2**63 - 1), "Bytes."),
    )),
    f.Field("reservations", "source/reservations/@managed", c.SAID_YES_NO, "Whether libvirt runs the helper for SCSI persistent reservations."),
    parts.labels("source/seclabel"),
    f.Items("backing", "backingStore", ("type",), "The image below, if it is not to be found out.", (
        f.Field("type", "@type", c.Choice(words=("file", "block", "network", "volume")), "Kind.", required=True),
        f.Field("format", "format/@type", FORMATS, "Format.", expanded=FOUND_OUT),
        f.Field("path", "source/@file", c.PATH, "File.", expanded=FOUND_OUT),
        f.Field("block", "source/@dev", c.PATH, "Block device.", expanded=FOUND_OUT),
        parts.labels("source/seclabel"),
        f.Field("last", "backingStore", c.PRESENCE, "Whether more of the chain is stated, if only that there is none.", expanded=FOUND_OUT),
    ), expanded=FOUND_OUT),
    f.Field("backing_end", "backingStore", c.PRESENCE, "Whether what is below it is stated, if only that nothing is.",
            expanded=FOUND_OUT),
    f.Field("model", "@model", c.Choice(words=("virtio", "virtio-transitional", "virtio-non-transitional")), "Model of a virtio disk."),
    f.Field("snapshot", "@snapshot", c.Choice(words=("internal", "external", "no", "manual")), "What a snapshot of the guest does with it."),
    f.Field("rawio", "@rawio", c.SAID_YES_NO, "Whether QEMU may send any SCSI command."),
    f.Field("sgio", "@sgio", c.Choice(words=("filtered", "unfiltered")), "Which SCSI commands the guest may send."),
    f.Field("transient", "transient", c.PRESENCE, "Whether writes are lost at the end."),
    f.Field("transient_shared", "transient/@shareBacking", c.SAID_YES_NO, "Whether guests share the image meanwhile."),
    f.Field("wwn", "wwn", c.Pattern(pattern="(0x)?[0-9a-fA-F]{16}", says="16 hexadecimal digits"), "World wide name."),
    f.Field("vendor", "vendor", c.Pattern(pattern=r"[\x20-\x7e]{1,8}", says="at most 8 characters"), "Vendor of a SCSI disk."),
    f.Field("product", "product", c.Pattern(pattern=r"[\x20-\x7e]{1,16}", says="at most 16 characters"), "Product of a SCSI disk."),
    f.Field("tray", "target/@tray", c.Choice(words=("open", "closed")), "Tray of a drive."),
    f.Field("removable", "target/@removable", c.SAID_ON_OFF, "Whether a USB disk says that it can be removed."),
    f.Field("rotation_rate", "target/@rotation_rate", c.Integer(low=1, high=65534), "Turns a minute; V(1) for none."),
    f.Field("error_policy", "driver/@error_policy", POLICY, "What follows an error."),
    f.Field("read_error_policy", "driver/@rerror_policy", POLICY, "What follows an error in reading."),
    f.Field("ioeventfd", "driver/@ioeventfd", c.SAID_ON_OFF, "Whether I/O has a thread of its own."),
    f.Field("event_idx", "driver/@event_idx", c.SAID_ON_OFF, "Whether events are bundled."),
    f.Field("copy_on_read", "driver/@copy_on_read", c.SAID_ON_OFF, "Whether what is read is copied up."),
    f.Field("detect_zeroes", "driver/@detect_zeroes", c.Choice(words=("off", "on", "unmap")), "Whether zeroes are written as such."),
    f.Field("iothread", "driver/@iothread", c.Integer(low=1), "Number of the I/O thread that serves it."),
    f.Field("queues", "driver/@queues", c.Integer(low=1), "Queues."),
    f.Field("queue_size", "driver/@queue_size", c.Integer(low=1), "Size of a queue, a power of 2."),
    f.Field("metadata_cache", "driver/metadata_cache/max_size", c.BYTES, "Most memory for the metadata of a V(qcow2) image."),
    *parts.VIRTIO,
    f.Section("blockio", "blockio", "Sizes of blocks that the guest sees.", (
        f.Field("logical", "@logical_block_size", parts.UNSIGNED, "Logical."),
        f.Field("physical", "@physical_block_size", parts.UNSIGNED, "Physical."),
    )),
    f.Section("geometry", "geometry", "Geometry.", (
        f.Field("cylinders", "@cyls", parts.UNSIGNED, "Cylinders."),
        f.Field("heads", "@heads", parts.UNSIGNED, "Heads."),
        f.Field("sectors", "@secs", parts.UNSIGNED, "Sectors."),
        f.Field("translation", "@trans", c.Choice(words=("auto", "none", "lba")), "Translation."),
    )),
    parts.ACPI_INDEX,
    parts.ALIAS,
    parts.ADDRESS,
)  # fmt: skip


def _bursts(what: str, doc: str) -> tuple[f.Row, ...]:
    names = [f"{way}_{metric}_sec_max{what}" for metric in ("bytes", "iops") for way in ("total", "read", "write")]
    return tuple(f.Field(name, name, RATE, doc, live="block_io_tune", dropped=0) for name in names)


IOTUNE: tuple[f.Row, ...] = (
    *_bursts("", "Most in a burst."),
    f.Field("size_iops_sec", "size_iops_sec", RATE, "Bytes that count as one operation.", live="block_io_tune", dropped=0),
    f.Field("group_name", "group_name", c.WORD, "Name of a group of disks that share the limits."),
    *_bursts("_length", "Seconds that a burst may last."),
)
