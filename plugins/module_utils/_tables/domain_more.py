# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices of which a guest has one or a few: file systems, TPM, watchdog, panic, shared memory, vsock, leases."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Row, Section
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.domain_parts import (
    ACPI_INDEX,
    ADDRESS,
    ALIAS,
    BOOT_ORDER,
    CHARACTER,
    UNSIGNED,
    VIRTIO,
)

VIRTIO_MODELS = c.Choice(words=("virtio", "virtio-transitional", "virtio-non-transitional"))
OCTAL = c.Pattern(pattern="0[0-7]{3}", says="an octal mode such as 0644")

BALLOON: tuple[Row, ...] = (
    Field("free_page_reporting", "@freePageReporting", c.SAID_ON_OFF, "Whether the host gets back what the guest does not use."),
    *VIRTIO, ALIAS, ADDRESS,
)  # fmt: skip
RNG: tuple[Row, ...] = (
    Field("model", "@model", VIRTIO_MODELS, "Model."),
    Field("builtin", "backend[@model='builtin']", c.PRESENCE, "Whether QEMU's own generator is the source.",
          rivals=("backend", "egd")),
    Section("egd", "backend[@model='egd']", "A daemon that is the source.", (
        Field("type", "@type", c.Choice(words=("tcp", "udp", "unix", "pty", "file", "dev")), "How it is reached."),
        Field("path", "source/@path", c.PATH, "Socket or device."),
        *CHARACTER,
    ), rivals=("backend", "builtin")),
    *VIRTIO, ACPI_INDEX, ALIAS, ADDRESS,
)  # fmt: skip
IOMMU: tuple[Row, ...] = (Field("aw_bits", "driver/@aw_bits", c.Integer(low=1, high=64), "Bits of addresses."),)

MORE = (
    Items("filesystems", "devices/filesystem", ("dir",), "Directories of the host that the guest mounts.", (
        Field("dir", "target/@dir", c.TEXT, "Tag by which the guest mounts it.", required=True),
        Field("source", "source/@dir", c.PATH, "Directory of the host.", implies=(("@type", "mount"),)),
        Field("socket", "source/@socket", c.PATH, "Socket of a C(virtiofsd) that runs already.", implies=(("@type", "mount"),)),
        Field("driver", "driver/@type", c.Choice(words=("path", "handle", "virtiofs", "loop", "nbd", "ploop")), "How."),
        Field("accessmode", "@accessmode", c.Choice(words=("passthrough", "mapped", "squash")), "Whose files are whose."),
        Field("readonly", "readonly", c.PRESENCE, "Whether the guest cannot write it."),
        Field("multidevs", "@multidevs", c.Choice(words=("default", "remap", "forbid", "warn")), "What becomes of other file systems below."),
        Field("fmode", "@fmode", OCTAL, "Mode of new files."),
        Field("dmode", "@dmode", OCTAL, "Mode of new directories."),
        Field("model", "@model", VIRTIO_MODELS, "Model."),
        Field("queue", "driver/@queue", UNSIGNED, "Size of the queue."),
        Field("writeout", "driver/@wrpolicy", c.Choice(words=("immediate",)), "When it is written."),
        Field("binary", "binary/@path", c.PATH, "The C(virtiofsd) to run."),
        Field("xattr", "binary/@xattr", c.SAID_ON_OFF, "Extended attributes."),
        Field("cache", "binary/cache/@mode", c.Choice(words=("none", "always")), "What the guest caches."),
        Field("sandbox", "binary/sandbox/@mode", c.Choice(words=("namespace", "chroot")), "How C(virtiofsd) is confined."),
        Field("lock_posix", "binary/lock/@posix", c.SAID_ON_OFF, "Locks of POSIX."),
        Field("lock_flock", "binary/lock/@flock", c.SAID_ON_OFF, "Locks of C(flock)."),
        Field("threads", "binary/thread_pool/@size", UNSIGNED, "Threads of C(virtiofsd)."),
        *VIRTIO, BOOT_ORDER, ALIAS, ADDRESS,
    ), purge=True),
    Items("leases", "devices/lease", ("lockspace", "key"), "Leases of a lock manager that the guest holds.", (
        Field("lockspace", "lockspace", c.TEXT, "Lock space."),
        Field("key", "key", c.TEXT, "Key in it.", required=True),
        Field("path", "target/@path", c.PATH, "File."),
        Field("offset", "target/@offset", c.Integer(high=2**63 - 1), "Place in it."),
    ), live="device", purge=True, together=True),
    Section("tpm", "devices/tpm", "TPM.", (
        Field("model", "@model", c.Choice(words=("tpm-tis", "tpm-crb", "tpm-spapr", "spapr-tpm-proxy")), "Model."),
        Field("backend", "backend/@type", c.Choice(words=("emulator", "passthrough", "external")), "What is behind it."),
        Field("version", "backend/@version", c.Choice(words=("1.2", "2.0")), "Version, V(emulator)."),
        Field("device", "backend/device/@path", c.PATH, "Device of the host, V(passthrough)."),
        Field("secret", "backend/encryption/@secret", c.UUID, "UUID of the secret of libvirt that its state is encrypted with."),
        Field("persistent_state", "backend/@persistent_state", c.SAID_YES_NO, "Whether a transient guest keeps it."),
        Field("sha1", "backend/active_pcr_banks/sha1", c.PRESENCE, "Whether the bank is active."),
        Field("sha256", "backend/active_pcr_banks/sha256", c.PRESENCE, "Whether the bank is active."),
        Field("sha384", "backend/active_pcr_banks/sha384", c.PRESENCE, "Whether the bank is active."),
        Field("sha512", "backend/active_pcr_banks/sha512", c.PRESENCE, "Whether the bank is active."),
        ALIAS,
    ), removable=True),
    Section("watchdog", "devices/watchdog", "Watchdog.", (
        Field("model", "@model", c.Choice(words=("i6300esb", "ib700", "diag288", "itco")), "Model."),
        Field("action", "@action", c.Choice(words=("reset", "shutdown", "poweroff", "pause", "none", "dump", "inject-nmi")),
              "What follows when nobody feeds it."),
        ALIAS, ADDRESS,
    ), removable=True),
    Items("panics", "devices/panic", ("model", "place"), "How the guest tells that it panicked.", (
        Field("model", "@model", c.Choice(words=("isa", "pseries", "hyperv", "s390", "pvpanic")), "Model.", required=True),
        Field("place", None, c.INTEGER, "Number among those of its kind. Its place in the list when not given."),
        ALIAS, ADDRESS,
    ), purge=True, placed=True),
    Items("shmems", "devices/shmem", ("name",), "Memory that guests share.", (
        Field("name", "@name", c.WORD, "Name.", required=True),
        Field("role", "@role", c.Choice(words=("master", "peer")), "Whether it stays with this guest when it migrates."),
        Field("model", "model/@type", c.Choice(words=("ivshmem-plain", "ivshmem-doorbell", "ivshmem")), "Model, V(ivshmem-plain) when first given."),
        Field("size", "size", c.SIZE, "Size."),
        Field("server", "server", c.PRESENCE, "Whether a server has it, V(ivshmem-doorbell)."),
        Field("server_path", "server/@path", c.PATH, "Its socket.", expanded="libvirt fills it in"),
        Field("msi", "msi", c.PRESENCE, "Whether there are interrupts."),
        Field("msi_vectors", "msi/@vectors", c.Integer(low=1), "How many."),
        Field("msi_ioeventfd", "msi/@ioeventfd", c.SAID_ON_OFF, "Whether they have a thread of their own."),
        ALIAS, ADDRESS,
    ), live="device", purge=True, fills=(("model/@type", "ivshmem-plain"),)),
    Section("vsock", "devices/vsock", "Sockets between host and guest.", (
        Field("model", "@model", VIRTIO_MODELS, "Model."),
        Field("cid_auto", "cid/@auto", c.SAID_YES_NO, "Whether libvirt picks the number."),
        Field("cid", "cid/@address", c.Integer(low=3), "Number of the guest.", expanded="libvirt fills it in"),
        *VIRTIO, ALIAS, ADDRESS,
    ), removable=True, live="device", fills=(("@model", "virtio"),)),
)  # fmt: skip
