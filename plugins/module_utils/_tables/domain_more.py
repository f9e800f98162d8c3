# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of which a guest has one or a few: file systems, TPM, watchdog, panic, shared memory, vsock, leases."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables import domain_parts as parts

VIRTIO_MODELS = c.Choice(words=("virtio", "virtio-transitional", "virtio-non-transitional"))
OCTAL = c.Pattern(pattern="0[0-7]{3}", says="an octal mode such as 0644")

BALLOON: tuple[f.Row, ...] = (
    f.Field("free_page_reporting", "@freePageReporting", c.SAID_ON_OFF, "Whether the host gets back what the guest does not use."),
    *parts.VIRTIO, parts.ALIAS, parts.ADDRESS,
)  # fmt: skip
RNG: tuple[f.Row, ...] = (
    f.Field("model", "@model", VIRTIO_MODELS, "Model."),
    f.Field("builtin", "backend[@model='builtin']", c.PRESENCE, "Whether QEMU's own generator is the source.",
            rivals=("backend", "egd")),
    f.Section("egd", "backend[@model='egd']", "A daemon that is the source.", (
        f.Field("type", "@type", c.Choice(words=("tcp", "udp", "unix", "pty", "file", "dev")), "How it is reached."),
        f.Field("path", "source/@path", c.PATH, "Socket or device."),
        *parts.CHARACTER,
    ), rivals=("backend", "builtin")),
    *parts.VIRTIO, parts.ACPI_INDEX, parts.ALIAS, parts.ADDRESS,
)  # fmt: skip
IOMMU: tuple[f.Row, ...] = (f.Field("aw_bits", "driver/@aw_bits", c.Integer(low=1, high=64), "Bits of addresses."),)

MORE = (
    f.Items("filesystems", "devices/filesystem", ("dir",), "Directories of the host that the guest mounts.", (
        f.Field("dir", "target/@dir", c.TEXT, "Tag by which the guest mounts it.", required=True),
        f.Field("source", "source/@dir", c.PATH, "Directory of the host.", implies=(("@type", "mount"),)),
        f.Field("socket", "source/@socket", c.PATH, "Socket of a C(virtiofsd) that runs already.", implies=(("@type", "mount"),)),
        f.Field("driver", "driver/@type", c.Choice(words=("path", "handle", "virtiofs", "loop", "nbd", "ploop")), "How."),
        f.Field("accessmode", "@accessmode", c.Choice(words=("passthrough", "mapped", "squash")), "Whose files are whose."),
        f.Field("readonly", "readonly", c.PRESENCE, "Whether the guest cannot write it."),
        f.Field("multidevs", "@multidevs", c.Choice(words=("default", "remap", "forbid", "warn")), "What becomes of other file systems below."),
        f.Field("fmode", "@fmode", OCTAL, "Mode of new files."),
        f.Field("dmode", "@dmode", OCTAL, "Mode of new directories."),
        f.Field("model", "@model", VIRTIO_MODELS, "Model."),
        f.Field("queue", "driver/@queue", parts.UNSIGNED, "Size of the queue."),
        f.Field("writeout", "driver/@wrpolicy", c.Choice(words=("immediate",)), "When it is written."),
        f.Field("binary", "binary/@path", c.PATH, "The C(virtiofsd) to run."),
        f.Field("xattr", "binary/@xattr", c.SAID_ON_OFF, "Extended attributes."),
        f.Field("cache", "binary/cache/@mode", c.Choice(words=("none", "always")), "What the guest caches."),
        f.Field("sandbox", "binary/sandbox/@mode", c.Choice(words=("namespace", "chroot")), "How C(virtiofsd) is confined."),
        f.Field("lock_posix", "binary/lock/@posix", c.SAID_ON_OFF, "Locks of POSIX."),
        f.Field("lock_flock", "binary/lock/@flock", c.SAID_ON_OFF, "Locks of C(flock)."),
        f.Field("threads", "binary/thread_pool/@size", parts.UNSIGNED, "Threads of C(virtiofsd)."),
        *parts.VIRTIO, parts.BOOT_ORDER, parts.ALIAS, parts.ADDRESS,
    ), purge=True),
    f.Items("leases", "devices/lease", ("lockspace", "key"), "Leases of a lock manager that the guest holds.", (
        f.Field("lockspace", "lockspace", c.TEXT, "Lock space."),
        f.Field("key", "key", c.TEXT, "Key in it.", required=True),
        f.Field("path", "target/@path", c.PATH, "File."),
        f.Field("offset", "target/@offset", c.Integer(high=2**63 - 1), "Place in it."),
    ), live="device", purge=True, together=True),
    f.Section("tpm", "devices/tpm", "TPM.", (
        f.Field("model", "@model", c.Choice(words=("tpm-tis", "tpm-crb", "tpm-spapr", "spapr-tpm-proxy")), "Model."),
        f.Field("backend", "backend/@type", c.Choice(words=("emulator", "passthrough", "external")), "What is behind it."),
        f.Field("version", "backend/@version", c.Choice(words=("1.2", "2.0")), "Version, V(emulator)."),
        f.Field("device", "backend/device/@path", c.PATH, "Device of the host, V(passthrough)."),
        f.Field("secret", "backend/encryption/@secret", c.UUID, "UUID of the secret of libvirt that its state is encrypted with."),
        f.Field("persistent_state", "backend/@persistent_state", c.SAID_YES_NO, "Whether a transient guest keeps it."),
        f.Field("sha1", "backend/active_pcr_banks/sha1", c.PRESENCE, "Whether the bank is active."),
        f.Field("sha256", "backend/active_pcr_banks/sha256", c.PRESENCE, "Whether the bank is active."),
        f.Field("sha384", "backend/active_pcr_banks/sha384", c.PRESENCE, "Whether the bank is active."),
        f.Field("sha512", "backend/active_pcr_banks/sha512", c.PRESENCE, "Whether the bank is active."),
        parts.ALIAS,
    ), removable=True),
    f.Section("watchdog", "devices/watchdog", "Watchdog.", (
        f.Field("model", "@model", c.Choice(words=("i6300esb", "ib700", "diag288", "itco")), "Model."),
        f.Field("action", "@action", c.Choice(words=("reset", "shutdown", "poweroff", "pause", "none", "dump", "inject-nmi")),
                "What follows when nobody feeds it."),
        parts.ALIAS, parts.ADDRESS,
    ), removable=True),
    f.Items("panics", "devices/panic", ("model", "place"), "How the guest tells that it panicked.", (
        f.Field("model", "@model", c.Choice(words=("isa", "pseries", "hyperv", "s390", "pvpanic")), "Model.", required=True),
        f.Field("place", None, c.INTEGER, "Number among those of its kind. Its place in the list when not given."),
        parts.ALIAS, parts.ADDRESS,
    ), purge=True, placed=True),
    f.Items("shmems", "devices/shmem", ("name",), "Memory that guests share.", (
        f.Field("name", "@name", c.WORD, "Name.", required=True),
        f.Field("role", "@role", c.Choice(words=("master", "peer")), "Whether it stays with this guest when it migrates."),
        f.Field("model", "model/@type", c.Choice(words=("ivshmem-plain", "ivshmem-doorbell", "ivshmem")),
                "Model, V(ivshmem-plain) when first given."),
        f.Field("size", "size", c.SIZE, "Size."),
        f.Field("server", "server", c.PRESENCE, "Whether a server has it, V(ivshmem-doorbell)."),
        f.Field("server_path", "server/@path", c.PATH, "Its socket.", expanded="libvirt fills it in"),
        f.Field("msi", "msi", c.PRESENCE, "Whether there are interrupts."),
        f.Field("msi_vectors", "msi/@vectors", c.Integer(low=1), "How many."),
        f.Field("msi_ioeventfd", "msi/@ioeventfd", c.SAID_ON_OFF, "Whether they have a thread of their own."),
        parts.ALIAS, parts.ADDRESS,
    ), live="device", purge=True, fills=(("model/@type", "ivshmem-plain"),)),
    f.Section("vsock", "devices/vsock", "Sockets between host and guest.", (
        f.Field("model", "@model", VIRTIO_MODELS, "Model."),
        f.Field("cid_auto", "cid/@auto", c.SAID_YES_NO, "Whether libvirt picks the number."),
        f.Field("cid", "cid/@address", c.Integer(low=3), "Number of the guest.", expanded="libvirt fills it in"),
        *parts.VIRTIO, parts.ALIAS, parts.ADDRESS,
    ), removable=True, live="device", fills=(("@model", "virtio"),)),
)  # fmt: skip
