# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks beyond files, devices and volumes of the host: remote images, encryption, and how QEMU and the guest treat them."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Row, Section
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_parts import (
    ACPI_INDEX,
    ADDRESS,
    ALIAS,
    PORT,
    RECONNECT,
    UNSIGNED,
    VIRTIO,
    labels,
)

RATE = c.Integer(high=10**15)
NETWORK = (("@type", "network"),)
FOUND_OUT = "libvirt finds the chain out at the start"
NVME = (("@type", "nvme"),)
FORMATS = c.Choice(words=("raw", "qcow2", "vmdk", "vdi", "vpc", "parallels", "dmg", "qcow", "qed", "luks"))
POLICY = c.Choice(words=("stop", "report", "ignore", "enospace"))


def secret(path: str, kind: str, above: tuple[Row, ...]) -> Section:
    """Return the rows of what is opened with a secret that libvirt keeps (M(anfitrion.kvm.kvm_secret))."""
    return Section("encryption" if kind == "passphrase" else "auth", path, "Opened with a secret that libvirt keeps.", (
        *above,
        Field("secret_type", "secret/@type", c.Choice(words=(kind,) if kind == "passphrase" else ("ceph", "iscsi")), "Kind of secret."),
        Field("secret_uuid", "secret/@uuid", c.UUID, "The secret by UUID."),
        Field("secret_usage", "secret/@usage", c.TEXT, "The secret by what it is for."),
    ))  # fmt: skip


ENCRYPTION = secret("source/encryption", "passphrase", (
    Field("format", "@format", c.Choice(words=("luks", "qcow", "luks2", "luks-any")), "Format."),
    Field("engine", "@engine", c.Choice(words=("qemu", "librbd")), "Who opens it.", expanded="libvirt fills it in"),
))  # fmt: skip
REMOTE = Section("remote", ".", "An image that QEMU fetches over the network.", (
    Field("protocol", "source/@protocol", c.Choice(words=(
        "nbd", "rbd", "iscsi", "http", "https", "ftp", "ftps", "tftp", "gluster", "sheepdog", "nfs", "ssh", "vxhs")), "How.", implies=NETWORK),
    Field("name", "source/@name", c.TEXT, "Name of the image there.", implies=NETWORK),
    Field("query", "source/@query", c.TEXT, "Query of a URL.", implies=NETWORK),
    Field("tls", "source/@tls", c.SAID_YES_NO, "Whether it is encrypted.", implies=NETWORK),
    Field("tls_hostname", "source/@tlsHostname", c.HOSTNAME, "Name in its certificate.", implies=NETWORK),
    Items("hosts", "source/host", ("name", "port", "socket"), "Servers.", (
        Field("name", "@name", c.TEXT, "Host name or address."),
        Field("socket", "@socket", c.PATH, "Socket of the host, with O(disks[].remote.hosts[].transport=unix)."),
        Field("port", "@port", PORT, "Port."),
        Field("transport", "@transport", c.Choice(words=("tcp", "rdma", "unix")), "How it is reached."),
    ), together=True),
    Field("snapshot", "source/snapshot/@name", c.TEXT, "Snapshot of it."),
    Field("config", "source/config/@file", c.PATH, "Configuration, V(rbd)."),
    Field("initiator", "source/initiator/iqn/@name", c.TEXT, "Name of the initiator, V(iscsi)."),
    secret("source/auth", "ceph", (Field("username", "@username", c.TEXT, "User."),)),
    Field("ssl_verify", "source/ssl/@verify", c.SAID_YES_NO, "Whether a certificate is checked."),
    Items("cookies", "source/cookies/cookie", ("name",), "Cookies, V(http).", (
        Field("name", "@name", c.WORD, "Name.", required=True),
        Field("value", ".", c.TEXT, "Value.", secret=True),
    )),
    Field("readahead", "source/readahead/@size", UNSIGNED, "Bytes that are read ahead."),
    Field("timeout", "source/timeout/@seconds", UNSIGNED, "Seconds until it is given up."),
    Field("user", "source/identity/@user", c.TEXT, "User, V(nfs)."),
    Field("group", "source/identity/@group", c.TEXT, "Group, V(nfs)."),
))  # fmt: skip

MORE: tuple[Row, ...] = (
    Field("directory", "source/@dir", c.PATH, "Directory that the guest sees as a FAT file system.", implies=(("@type", "dir"),)),
    REMOTE,
    Section("nvme", ".", "A namespace of an NVMe controller of the host, driven by QEMU.", (
        Field("address", "source/address", c.PCI, "PCI address of the controller.", implies=(*NVME, ("source/@type", "pci"))),
        Field("namespace", "source/@namespace", c.Integer(low=1), "Number of the namespace.", implies=NVME),
        Field("managed", "source/@managed", c.SAID_YES_NO, "Whether libvirt takes it from its driver.", implies=NVME),
    )),
    Field("vhost_user", "source/@path", c.PATH, "Socket of a server that has the disk.",
          implies=(("@type", "vhostuser"), ("source/@type", "unix"))),
    RECONNECT,
    ENCRYPTION,
    Field("volume_mode", "source/@mode", c.Choice(words=("host", "direct")), "How an iSCSI volume is reached."),
    Field("startup_policy", "source/@startupPolicy", c.Choice(words=("mandatory", "requisite", "optional")), "Whether it may be missing."),
    Field("fd_group", "source/@fdgroup", c.WORD, "Open files that are passed to libvirt."),
    Items("slices", "source/slices/slice", ("type",), "Part of the source that is the disk.", (
        Field("type", "@type", c.Choice(words=("storage",)), "Kind.", required=True),
        Field("offset", "@offset", c.Integer(high=2**63 - 1), "First byte."),
        Field("size", "@size", c.Integer(high=2**63 - 1), "Bytes."),
    )),
    Field("reservations", "source/reservations/@managed", c.SAID_YES_NO, "Whether libvirt runs the helper for SCSI persistent reservations."),
    labels("source/seclabel"),
    Items("backing", "backingStore", ("type",), "The image below, if it is not to be found out.", (
        Field("type", "@type", c.Choice(words=("file", "block", "network", "volume")), "Kind.", required=True),
        Field("format", "format/@type", FORMATS, "Format.", expanded=FOUND_OUT),
        Field("path", "source/@file", c.PATH, "File.", expanded=FOUND_OUT),
        Field("block", "source/@dev", c.PATH, "Block device.", expanded=FOUND_OUT),
        labels("source/seclabel"),
        Field("last", "backingStore", c.PRESENCE, "Whether more of the chain is stated, if only that there is none.", expanded=FOUND_OUT),
    ), expanded=FOUND_OUT),
    Field("backing_end", "backingStore", c.PRESENCE, "Whether what is below it is stated, if only that nothing is.",
          expanded=FOUND_OUT),
    Field("model", "@model", c.Choice(words=("virtio", "virtio-transitional", "virtio-non-transitional")), "Model of a virtio disk."),
    Field("snapshot", "@snapshot", c.Choice(words=("internal", "external", "no", "manual")), "What a snapshot of the guest does with it."),
    Field("rawio", "@rawio", c.SAID_YES_NO, "Whether QEMU may send any SCSI command."),
    Field("sgio", "@sgio", c.Choice(words=("filtered", "unfiltered")), "Which SCSI commands the guest may send."),
    Field("transient", "transient", c.PRESENCE, "Whether writes are lost at the end."),
    Field("transient_shared", "transient/@shareBacking", c.SAID_YES_NO, "Whether guests share the image meanwhile."),
    Field("wwn", "wwn", c.Pattern(pattern="(0x)?[0-9a-fA-F]{16}", says="16 hexadecimal digits"), "World wide name."),
    Field("vendor", "vendor", c.Pattern(pattern=r"[\x20-\x7e]{1,8}", says="at most 8 characters"), "Vendor of a SCSI disk."),
    Field("product", "product", c.Pattern(pattern=r"[\x20-\x7e]{1,16}", says="at most 16 characters"), "Product of a SCSI disk."),
    Field("tray", "target/@tray", c.Choice(words=("open", "closed")), "Tray of a drive."),
    Field("removable", "target/@removable", c.SAID_ON_OFF, "Whether a USB disk says that it can be removed."),
    Field("rotation_rate", "target/@rotation_rate", c.Integer(low=1, high=65534), "Turns a minute; V(1) for none."),
    Field("error_policy", "driver/@error_policy", POLICY, "What follows an error."),
    Field("read_error_policy", "driver/@rerror_policy", POLICY, "What follows an error in reading."),
    Field("ioeventfd", "driver/@ioeventfd", c.SAID_ON_OFF, "Whether I/O has a thread of its own."),
    Field("event_idx", "driver/@event_idx", c.SAID_ON_OFF, "Whether events are bundled."),
    Field("copy_on_read", "driver/@copy_on_read", c.SAID_ON_OFF, "Whether what is read is copied up."),
    Field("detect_zeroes", "driver/@detect_zeroes", c.Choice(words=("off", "on", "unmap")), "Whether zeroes are written as such."),
    Field("iothread", "driver/@iothread", c.Integer(low=1), "Number of the I/O thread that serves it."),
    Field("queues", "driver/@queues", c.Integer(low=1), "Queues."),
    Field("queue_size", "driver/@queue_size", c.Integer(low=1), "Size of a queue, a power of 2."),
    Field("metadata_cache", "driver/metadata_cache/max_size", c.BYTES, "Most memory for the metadata of a V(qcow2) image."),
    *VIRTIO,
    Section("blockio", "blockio", "Sizes of blocks that the guest sees.", (
        Field("logical", "@logical_block_size", UNSIGNED, "Logical."),
        Field("physical", "@physical_block_size", UNSIGNED, "Physical."),
    )),
    Section("geometry", "geometry", "Geometry.", (
        Field("cylinders", "@cyls", UNSIGNED, "Cylinders."),
        Field("heads", "@heads", UNSIGNED, "Heads."),
        Field("sectors", "@secs", UNSIGNED, "Sectors."),
        Field("translation", "@trans", c.Choice(words=("auto", "none", "lba")), "Translation."),
    )),
    ACPI_INDEX,
    ALIAS,
    ADDRESS,
)  # fmt: skip


def _bursts(what: str, doc: str) -> tuple[Row, ...]:
    names = [f"{way}_{metric}_sec_max{what}" for metric in ("bytes", "iops") for way in ("total", "read", "write")]
    return tuple(Field(name, name, RATE, doc, live="block_io_tune", dropped=0) for name in names)


IOTUNE: tuple[Row, ...] = (
    *_bursts("", "Most in a burst."),
    Field("size_iops_sec", "size_iops_sec", RATE, "Bytes that count as one operation.", live="block_io_tune", dropped=0),
    Field("group_name", "group_name", c.WORD, "Name of a group of disks that share the limits."),
    *_bursts("_length", "Seconds that a burst may last."),
)
