# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of a storage pool. Names follow https://libvirt.org/formatstorage.html in snake_case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError

GROUP = c.Pattern(
    # vgcreate(8): these characters, no leading hyphen; "." and ".." are directories.
    pattern=r"(?!\.\.?$)[A-Za-z0-9+_.][A-Za-z0-9+_.-]*", says="a name of A-Za-z0-9+_.-", longest=127,
)  # fmt: skip

PERMISSIONS = (
    f.Field("mode", "mode", c.MODE, "Mode as a quoted octal number, such as V('0711')."),
    f.Field("owner", "owner", c.INTEGER, "Number of the owning user."),
    f.Field("group", "group", c.INTEGER, "Number of the owning group."),
)


@dataclass(frozen=True)
class Type:
    """What libvirt's type of pool is made of.

    source: options of C(source) that it takes; needs: those of them that it cannot do without.
    path: where its volumes appear if the task does not say; C(None) where that is not for the user to say, C("") where
    the user must. formats: words of C(source.format). network: what it is made of is on another host.
    tool: program and Debian package that the host needs for it. port: of a server that is named without one; libvirt writes
    it into the definition of an active pool.
    """

    source: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    path: str | None = None
    formats: tuple[str, ...] = ()
    network: bool = False
    tool: tuple[str, str] | None = None
    port: int | None = None


BY_PATH = "/dev/disk/by-path"
ISCSI = ("hosts", "devices", "initiator", "auth", "vendor", "product")
TYPES = {
    "dir": Type(path=""),
    "fs": Type(("devices", "format"), ("devices",), "", ("auto", "ext2", "ext3", "ext4", "ufs", "iso9660", "udf", "gfs", "gfs2",
               "vfat", "hfs+", "xfs", "ocfs2", "vmfs")),
    "netfs": Type(("hosts", "directory", "format", "protocol_version"), ("hosts", "directory"), "", ("auto", "nfs", "glusterfs", "cifs"),
                  True, ("mount.nfs", "nfs-common")),
    "logical": Type(("devices", "name", "format"), formats=("lvm2", "unknown"), path="/dev/{name}", tool=("vgs", "lvm2")),
    "disk": Type(("devices", "format"), ("devices",), "/dev", ("dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2"),
                 tool=("parted", "parted")),
    "iscsi": Type(ISCSI, ("hosts", "devices"), BY_PATH, (), True, ("iscsiadm", "open-iscsi"), 3260),
    "iscsi-direct": Type(ISCSI, ("hosts", "devices", "initiator"), None, (), True, port=3260),
    "scsi": Type(("adapter",), ("adapter",), BY_PATH),
    "mpath": Type(path="/dev/mapper"),
    "zfs": Type(("name", "devices"), path="/dev/zvol/{name}", tool=("zpool", "zfsutils-linux")),
    "rbd": Type(("name", "hosts", "auth"), ("name", "hosts"), None, (), True),
    "gluster": Type(("name", "hosts", "directory"), ("name", "hosts"), None, (), True),
}  # fmt: skip
NAMED = tuple(kind for kind, facts in TYPES.items() if "{name}" in (facts.path or ""))
ONE_DEVICE = ("fs", "disk", "iscsi", "iscsi-direct")
FILES = ("dir", "fs", "netfs")  # a volume is a file, and may be renamed
FORMATS = tuple(dict.fromkeys(word for facts in TYPES.values() for word in facts.formats))

AUTH = (
    f.Field("type", "@type", c.Choice(words=("chap", "ceph")), "How the pool proves who it is, V(chap) for iSCSI, V(ceph) for RBD.",
            required=True),
    f.Field("username", "@username", c.TEXT, "Name of the user.", required=True),
    f.Field("secret", "secret/@usage", c.TEXT,
            "Name of the secret with the password, see M(anfitrion.kvm.kvm_secret). By default that of the pool.", rivals=("secret_uuid",)),
    f.Field("secret_uuid", "secret/@uuid", c.UUID, "UUID of the secret with the password.", rivals=("secret",)),
    f.Field("password", None, c.Document(),
            "The password. It is put into the secret, which is made if it is missing, and never given away.", secret=True),
)  # fmt: skip

ADAPTER = (
    f.Field("type", "@type", c.Choice(words=("scsi_host", "fc_host")), "Kind of adapter."),
    f.Field("name", "@name", c.WORD, "Name of a SCSI host, such as V(scsi_host5)."),
    f.Field("parent", "@parent", c.WORD, "The HBA below which a virtual one is made."),
    f.Field("managed", "@managed", c.YES_NO, "Whether libvirt removes the virtual HBA with the pool."),
    f.Field("wwnn", "@wwnn", c.Pattern(pattern="[0-9a-f]{16}", says="16 hexadecimal digits"), "World wide node name."),
    f.Field("wwpn", "@wwpn", c.Pattern(pattern="[0-9a-f]{16}", says="16 hexadecimal digits"), "World wide port name."),
)  # fmt: skip

TABLE = f.Table(
    noun="pool", root="pool", doc="A storage pool.", rows=(
        f.Field("name", None, c.NAME, "Name of the pool, unique on its host.", required=True),
        f.Field("state", None, c.Choice(words=("present", "active", "inactive", "absent")),
                "What the pool is to be. V(present) defines it and leaves it active or inactive as it is. V(absent)"
                " removes the definition and, without O(delete_data), never any data. V(inactive) and V(absent) are"
                " refused while running guests use its volumes."),
        f.Field("autostart", None, c.YES_NO, "Whether the pool becomes active when its host starts."),
        f.Field("build", None, c.YES_NO,
                "Whether to make what the pool needs where it is missing: the directory, file system, partition table,"
                " volume group or ZFS pool. A device that holds anything is refused."),
        f.Field("overwrite", None, c.YES_NO,
                "Whether O(build) may destroy what a device holds that is not what the pool needs. A device that is in use,"
                " mounted or part of another, is refused all the same."),
        f.Field("delete_data", None, c.YES_NO,
                "Whether O(state=absent) deletes every volume, and then the directory or volume group. Refused while any"
                " guest, running or only defined, has one of them. RV(erased) lists what went."),
        f.Field("uuid", "uuid", c.UUID, "UUID of the pool. Made by libvirt when the pool is first defined without one."),
        f.Field("type", "@type", c.Choice(words=tuple(TYPES)),
                "Where volumes live: files in a directory (V(dir)), on a file system of a device (V(fs)) or of a server"
                " (V(netfs)); logical volumes (V(logical)), partitions (V(disk)), units of an iSCSI target (V(iscsi),"
                " V(iscsi-direct)) or a SCSI host (V(scsi)), multipath devices (V(mpath)), ZFS volumes (V(zfs)), RBD images"
                " (V(rbd)), files of a Gluster volume (V(gluster)). By default V(dir). It cannot be changed later."),
        f.Section("source", "source", "What the pool is made of.", (
            f.Field("hosts", "host", c.HOST, "Servers, each with C(:port) if it is not the usual one.", many=True),
            f.Field("devices", "device/@path", c.DEVICE,
                    "Block devices of the pool; for iSCSI the qualified name of the target.", many=True),
            f.Field("directory", "dir/@path", c.PATH, "Directory that the server exports."),
            f.Section("adapter", "adapter", "SCSI adapter, for O(type=scsi).", ADAPTER),
            f.Field("name", "name", GROUP,
                    "Name of the volume group, ZFS pool, RBD pool or Gluster volume; by default that of the pool."),
            f.Field("initiator", "initiator/iqn/@name", c.WORD, "Qualified name that the host gives itself."),
            f.Section("auth", "auth", "How the pool proves who it is to the server.", AUTH),
            f.Field("format", "format/@type", c.Choice(words=FORMATS),
                    "File system of V(fs) and V(netfs), partition table of V(disk), kind of volume group."),
            f.Field("protocol_version", "protocol/@ver", c.Pattern(pattern=r"[0-9](\.[0-9])?", says="a version such as 4.2"),
                    "Version of NFS.", expanded="libvirt 9.0 keeps it, older ones drop it"),
            f.Field("vendor", "vendor/@name", c.TEXT, "Maker of the storage, for people."),
            f.Field("product", "product/@name", c.TEXT, "What the maker calls it, for people."),
        )),
        f.Field("path", "target/path", c.PATH,
                "Directory in which the volumes appear. Must be given for V(dir), V(fs) and V(netfs)."),
        f.Section("permissions", "target/permissions", "Owner and mode of the directory.", PERMISSIONS),
        f.Section("features", "features", "What the file system of a directory does.", (
            f.Field("cow", "cow/@state", c.YES_NO, "Whether files of the pool are copied on write, on btrfs."),
        )),
    ),
)  # fmt: skip


def complete(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the wanted options with what a new pool needs besides, and what follows from a name."""
    done = dict(wanted)
    if not found:
        done.setdefault("type", "dir")
    kind = done.get("type", found.get("type"))
    auth = (done.get("source") or {}).get("auth")
    if auth and not {"secret", "secret_uuid"} & set(auth) and "auth" not in (found.get("source") or {}):
        done["source"] = {**done["source"], "auth": {**auth, "secret": wanted["name"]}}
    port = TYPES[str(kind)].port if kind in TYPES else None
    if port and "hosts" in (done.get("source") or {}):
        there = (found.get("source") or {}).get("hosts") or []
        done["source"] = {**done["source"], "hosts": [_as_there(host, there, port) for host in done["source"]["hosts"]]}
    if kind in NAMED:
        if not found:
            done["source"] = {"name": wanted["name"], **(done.get("source") or {})}
        if "name" in (done.get("source") or {}):
            done.setdefault("path", str(TYPES[kind].path).format(name=done["source"]["name"]))
    elif not found and kind in TYPES and TYPES[kind].path:
        done.setdefault("path", TYPES[kind].path)
    return done


def _as_there(host: str, there: list[str], port: int) -> str:
    """Return a server as the pool has it, if that is the same with or without its usual port."""
    usual = f":{port}"
    other = host[: -len(usual)] if host.endswith(usual) else host + ("" if "port" in c.HOST.attributes(host) else usual)
    return other if host not in there and other in there else host


def check(wanted: dict[str, Any]) -> None:
    """Raise KvmError for options that cannot stand together."""
    source, kind = wanted.get("source") or {}, wanted.get("type")
    facts = TYPES.get(str(kind))
    if facts:
        for option in source:
            if option not in facts.source:
                words = f"takes {', '.join(facts.source)} there" if facts.source else "has no source"
                raise KvmError(f"source.{option}: a pool of type {kind} {words}; leave it out")
        if "format" in source and facts.formats and source["format"] not in facts.formats:
            raise KvmError(f"source.format: a pool of type {kind} has {', '.join(facts.formats)}, not {source['format']}")
    devices = source.get("devices") or []
    twice = [device for device in devices if devices.count(device) > 1]
    if twice:
        raise KvmError(f"source.devices: {twice[0]} is named twice")
    for option, more in (("overwrite", "build"), ("delete_data", "state")):
        needed = "absent" if more == "state" else True
        if wanted.get(option) and wanted.get(more) != needed:
            raise KvmError(f"{option}: only goes with {more}: {str(needed).lower()}")


def check_result(values: dict[str, Any]) -> None:
    """Raise KvmError for a definition, edited, whose options cannot stand together."""
    kind, source = values.get("type"), values.get("source") or {}
    if kind is None:
        return  # libvirt has types that nobody can ask for here
    facts = TYPES[kind]
    if facts.path == "" and "path" not in values:
        raise KvmError(f"path: must be given for a pool of type {kind}")
    for option in facts.needs:
        if not source.get(option):
            raise KvmError(f"source.{option}: must be given for a pool of type {kind}")
    if kind in ONE_DEVICE and len(source.get("devices") or []) > 1:
        raise KvmError(f"source.devices: a pool of type {kind} has one")
    auth = source.get("auth")
    if auth and not {"secret", "secret_uuid"} & set(auth):
        raise KvmError("source.auth.secret: must be given, or secret_uuid")
    group = source.get("name")
    if kind in NAMED and group and values.get("path") != str(facts.path).format(name=group):
        # ZFS pools and volume groups say themselves where their volumes appear.
        raise KvmError(f"path: must be {str(facts.path).format(name=group)} for {group}; leave it out")
    check({k: v for k, v in values.items() if k in ("type", "source")})


def tidy(tree: Any) -> None:
    """Take out of an edited definition what only an active pool has."""
    for path in ("capacity", "allocation", "available"):
        _xml.clear(tree, path)
