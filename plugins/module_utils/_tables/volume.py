# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of a storage volume. Names follow https://libvirt.org/formatstorage.html in snake_case."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.pool import PERMISSIONS

FORMATS = ("raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "iso", "dmg", "parallels")


class Format(c.Choice):
    """The format of an image in QEMU's words; what QEMU calls parallels, libvirt calls ploop."""

    def to_xml(self, value: Any) -> str:
        text = super().to_xml(value)
        return "ploop" if text == "parallels" else text

    def from_xml(self, text: str, unit: str | None = None) -> str | None:
        return super().from_xml("parallels" if text == "ploop" else text, unit)


FORMAT = Format(words=FORMATS)

BACKING = (
    f.Field("path", "path", c.PATH, "Path of the image; or O(backing.pool) and O(backing.volume)."),
    f.Field("pool", None, c.NAME, "Name of the pool that holds it."),
    f.Field("volume", None, c.NAME, "Name of the volume."),
    f.Field("format", "format/@type", FORMAT, "Its format; never guessed.", required=True),
)

# Where the content of a new volume comes from. No XML holds it.
SOURCE = (
    f.Field("pool", None, c.NAME, "Name of the pool of the volume to clone, by default that of the new one."),
    f.Field("volume", None, c.NAME, "Name of the volume to clone. It must not be written by a running guest."),
    f.Field("path", None, c.PATH, "File of the host with the content."),
    f.Field("url", None, c.Pattern(pattern="(https?|ftp|file)://[^ ]+", says="an address of http, https, ftp or file"),
            "Where the host fetches the content."),
    f.Field("checksum", None,
            c.Pattern(pattern="(sha256|sha512|sha384|sha1|md5):([0-9a-fA-F]+|/[^ ]+|(https?|ftp|file)://[^ ]+)",
                      says="for example sha256:9f86… or sha256:https://example.org/SHA256SUMS"),
            "What the file at O(source.path) or O(source.url) must have, as C(algorithm:digits), or C(algorithm:) and the path or address of"
            " a file of sums, as sha256sum(1) writes it or as BSD does, that has a line for its name."),
    f.Field("cache", None, c.PATH,
            "Directory of the host in which what is fetched from O(source.url) is kept, so that one address with one digest is"
            " fetched once. It is made if it is missing, and must be writable by root alone. Needs O(source.checksum), against which the"
            " file is held each time; what is old in it is not taken away. Nothing is kept if not given."),
    f.Field("format", None, FORMAT, "Format of what is at O(source.path) or O(source.url); never guessed."),
)

DOWNLOAD = (
    f.Field("path", None, c.PATH, "File of the host that is to hold the content.", required=True),
    f.Field("format", None, FORMAT, "Format of the file, by default V(raw)."),
    f.Field("overwrite", None, c.YES_NO, "Whether a file that is there with another content is replaced."),
)

ENCRYPTION = (
    f.Field("format", "@format", c.Choice(words=("luks",)), "How it is encrypted."),
    f.Field("secret", "secret[@type='passphrase']/@usage", c.TEXT,
            "Name of the secret with the password, see M(anfitrion.kvm.kvm_secret). By default C(pool/name) of the volume."),
    f.Field("password", None, c.Document(),
            "The password. It is put into the secret, which is made if it is missing, and never given away.", secret=True),
)  # fmt: skip

WIPES = ("zero", "nnsa", "dod", "bsi", "gutmann", "schneier", "pfitzner7", "pfitzner33", "random", "trim")  # virStorageVolWipeAlgorithm

TABLE = f.Table(
    noun="volume", root="volume", doc="A storage volume.", rows=(
        f.Field("pool", None, c.NAME, "Name of the pool that holds the volume.", required=True),
        f.Field("name", None, c.NAME, "Name of the volume, unique in its pool.", required=True),
        f.Field("state", None, c.Choice(words=("present", "absent")),
                "What the volume is to be. V(absent) deletes its data; it is refused while any guest, running or only"
                " defined, or another volume uses it."),
        f.Field("capacity", "capacity", c.ByteSize(),
                "Size that a guest sees, such as V(40GiB). It may grow later, in a running guest too; it only shrinks with"
                " O(shrink)."),
        f.Field("shrink", None, c.YES_NO,
                "Whether the volume may get smaller than it is. What is beyond the new end is lost. Refused while a running"
                " guest uses it."),
        f.Field("allocation", "allocation", c.BYTES,
                "How much of it to take from the pool at once, V(0B) for none. Only counts when the volume is created.",
                expanded="it grows as the guest writes"),
        f.Field("preallocation", None, c.Choice(words=("off", "metadata", "falloc", "full")),
                "How a new image is laid out. V(off) takes space as it is written, V(metadata) has the tables of the format"
                " in place, V(falloc) takes all of the space, V(full) writes all of it too. Only counts when the volume is"
                " created."),
        f.Field("format", "target/format/@type", FORMAT,
                "Format of the image, by default V(qcow2) in a directory. It cannot be changed later."),
        f.Section("backing", "backingStore", "The image below, of which this one holds only what differs. It cannot be"
                  " changed later, see O(flatten).", BACKING),
        f.Field("flatten", None, c.YES_NO,
                "Whether the volume is to stand alone. What it has from the image below is copied into it, also while a"
                " guest runs with it."),
        f.Section("source", None, "Where the content of a new volume comes from. The image is made under another name, checked,"
                  " and then gets its own. Only counts when the volume is created.", SOURCE),
        f.Field("changes", None, c.Choice(words=("commit", "discard")),
                "What becomes of what an image with a O(backing) holds of its own. V(commit) writes it into the image below,"
                " also while a guest runs with it; V(discard) forgets it, and is refused then. The image stays, and is empty."),
        f.Section("download", None, "A file that is to hold the content of the volume. One that is there is compared.", DOWNLOAD),
        f.Section("encryption", "target/encryption", "Encryption of the content by QEMU. It cannot be changed later.", ENCRYPTION),
        f.Field("wipe", None, c.Choice(words=WIPES),
                "How the content is overwritten before O(state=absent) deletes it. All but V(zero) and V(trim) need scrub(1)."),
        f.Section("permissions", "target/permissions", "Owner and mode. Owner and group only count when the volume is"
                  " created, libvirt hands the file to the guest's user while it runs.", PERMISSIONS),
    ),
)  # fmt: skip

AT_BIRTH = ("allocation", "preallocation", "source")  # only count when a volume is created


def complete(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the wanted options without those that only count when a volume is created, unless it is."""
    done = dict(wanted)
    if "encryption" in wanted and not found:
        name = f"{wanted.get('pool')}/{wanted['name']}"
        done["encryption"] = {"format": "luks", "secret": name, **wanted["encryption"]}
    if not found:
        return done
    done = {k: v for k, v in done.items() if k not in AT_BIRTH}
    if "permissions" in wanted:
        done["permissions"] = {k: v for k, v in wanted["permissions"].items() if k == "mode"}
    if "encryption" in wanted:  # libvirt forgets the name of the secret when it reads the pool anew
        done["encryption"] = {"format": "luks"}
    return done


def check(wanted: dict[str, Any]) -> None:
    """Raise KvmError for options that cannot stand together."""
    capacity, allocation = wanted.get("capacity"), wanted.get("allocation")
    if capacity and allocation and c.BYTES.bytes(allocation) > c.BYTES.bytes(capacity):
        raise KvmError(f"allocation: {allocation} is greater than capacity {capacity}")
    if allocation and wanted.get("preallocation"):
        raise KvmError("preallocation: excludes allocation, give one of them")
    if wanted.get("preallocation") == "metadata" and wanted.get("format", "qcow2") not in ("qcow2", "vdi"):
        raise KvmError(f"preallocation: an image of format {wanted['format']} has no tables to lay out; use falloc or full")
    if wanted.get("wipe") and wanted.get("state") != "absent":
        raise KvmError("wipe: only goes with state: absent")
    if "encryption" in wanted and wanted.get("format", "qcow2") not in ("raw", "qcow2"):
        raise KvmError(f"encryption: an image of format {wanted['format']} cannot be encrypted; use raw or qcow2")
    _check_source(wanted)
    _check_backing(wanted)


def _check_source(wanted: dict[str, Any]) -> None:
    source = wanted.get("source")
    if not source:
        return
    given = [word for word in ("volume", "path", "url") if word in source]
    if len(given) != 1:
        raise KvmError("source: give one of volume, path and url")
    for word in ("checksum", "format"):
        if word in source and given == ["volume"]:
            raise KvmError(f"source.{word}: is for a path or url, a volume is known")
    if "cache" in source and (given != ["url"] or "checksum" not in source):
        raise KvmError("source.cache: goes with source.url and source.checksum")
    if given != ["volume"] and "format" not in source:
        raise KvmError("source.format: must be given, it is never guessed")
    if "pool" in source and given != ["volume"]:
        raise KvmError("source.pool: goes with source.volume")
    for word in ("backing", "allocation", "preallocation"):
        if word in wanted and wanted[word] is not None:
            raise KvmError(f"{word}: excludes source, the content is a whole image")


def _check_backing(wanted: dict[str, Any]) -> None:
    backing = wanted.get("backing")
    if not backing:
        return
    if wanted.get("flatten"):
        raise KvmError("flatten: excludes backing, give one of them")
    if ("pool" in backing) != ("volume" in backing):
        raise KvmError("backing: pool and volume go together")
    if ("path" in backing) == ("pool" in backing):
        raise KvmError("backing: give path, or pool and volume")
    if wanted.get("format") == "raw":
        raise KvmError("backing: an image of format raw cannot have one; use format qcow2")
