# SPDX-License-Identifier: GPL-3.0-or-later
"""What a storage pool takes of its host before it starts: a directory, a device with something on it, a secret."""

from __future__ import annotations

import os
from typing import Any, Callable

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import secret
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.activity import Host, Situation
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import block, lvm
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import os_told, permission_step, permissions_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.pool import TABLE, TYPES

SECRETS = {"chap": "iscsi", "ceph": "ceph"}  # the type of secret for each way to prove who one is
PLACES = ("/sbin", "/usr/sbin", "/bin", "/usr/bin")


def preflight(session: Libvirt, now: Situation, inactive: Callable[[Any], Any]) -> Host:
    """Return what the pool takes of the host before it starts. Raises KvmError for what the host has not or refuses."""
    values = _fields.read(TABLE.rows, now.after)
    kind = values.get("type")
    _check_type(now)
    granted = _password(session, now, values)
    if not session.on_this_host:
        return _joined(granted, Host(steps=build_steps(session, now) if now.handle is None else ()))
    if kind in MADE and (now.to_define or now.to_start):
        for device in (values.get("source") or {}).get("devices") or []:
            block.require_block_device(Root(), device)
    able = _able(session, kind) if kind and (now.to_define or now.to_start) else Host()
    if kind in ("dir", "netfs"):
        return _joined(granted, able, _directory(session, now, values["path"], inactive))
    if kind in MADE and not able.warnings and (now.to_define or now.to_start):
        return _joined(granted, MADE[kind](session, now, values))
    built = (Change("build", None, "what it needs", "host"),) if kind in MADE and able.warnings and now.wanted.get("build") else ()
    return _joined(granted, able, Host(built, build_steps(session, now) if built else ()))


def _joined(*parts: Host) -> Host:
    return Host(*(tuple(one for part in parts for one in getattr(part, word)) for word in ("changes", "steps", "warnings")))


def _check_type(now: Situation) -> None:
    found = _xml.get(now.before, "@type")[0] if now.before is not None else None
    if found and now.wanted.get("type", found) != found:
        raise KvmError(f"type: cannot be changed from {found} to {now.wanted['type']}; remove the pool and define it anew")


def _password(session: Libvirt, now: Situation, values: dict[str, Any]) -> Host:
    """Return the steps that put a given password into the secret of the pool."""
    given = (now.wanted.get("source") or {}).get("auth") or {}
    if "password" not in given:
        return Host()
    auth = values["source"]["auth"]
    if "secret" not in auth:
        raise KvmError("source.auth.password: goes into a secret that is named, not into one by its UUID; give secret")
    made = secret.plan(
        session, {"type": SECRETS[auth["type"]], "name": auth["secret"], "private": True, "value": given["password"]}
    )
    return Host(tuple(Change(f"source.auth.secret.{one.option}", one.before, one.after, one.how) for one in made.changes), made.steps)


def _able(session: Libvirt, kind: str) -> Host:
    """Return what keeps this host from having a pool of the type: in check mode a warning, for another task may install it."""
    lacking, tool = None, TYPES[kind].tool
    if kind not in session.once("pool types", lambda: _supported(session)):
        lacking = f"type: libvirt on this host has no driver for {kind}; install libvirt-daemon-driver-storage-{kind}"
    elif tool and not any(os.path.exists(os.path.join(place, tool[0])) for place in PLACES):
        lacking = f"type: a pool of type {kind} needs {tool[0]} on the host; install the package {tool[1]}"
    if lacking and not session.check:
        raise KvmError(lacking)
    return Host(warnings=(lacking,)) if lacking else Host()


def _supported(session: Libvirt) -> set[str]:
    with told("cannot read what kinds of pool libvirt has"):
        tree = _xml.parse(session.connection.getStoragePoolCapabilities(0))
    return {str(one.get("type")) for one in _xml.find_all(tree, "pool") if one.get("supported") == "yes"}


# Directories ----------------------------------------------------------------------------------------------------


def _directory(session: Libvirt, now: Situation, path: str, inactive: Callable[[Any], Any]) -> Host:
    """Return the steps that make a directory, or give it the wanted mode and owner. Raises KvmError for what is none."""
    if os.path.lexists(path) and not os.path.isdir(path):
        raise KvmError(f"path: {path} exists and is not a directory")
    if now.to_define:
        _refuse_twin(session, now.name, path, inactive)
    if os.path.isdir(path):
        changes, steps = _permission_steps(session, now, path)
        return Host(changes, steps)
    return _made(session, now, path)


def _made(session: Libvirt, now: Situation, path: str) -> Host:
    """Return the steps that make a directory that is missing."""
    if not now.wanted.get("build"):
        return lacking(session, now, f"path: {path} does not exist; build: true makes it")
    if now.running is not None:  # it runs with another directory, libvirt builds only a stopped pool
        return Host((Change("build", None, path, "host"),), (_make_directory(path, now.wanted.get("permissions") or {}),))
    return Host((Change("build", None, path, "host"),), build_steps(session, now))


def lacking(session: Libvirt, now: Situation, words: str) -> Host:
    """Return that something is missing: nothing to say unless the pool is to start, and a warning in check mode."""
    if not now.to_start:
        return Host()
    if not session.check:
        raise KvmError(words)
    return Host(warnings=(words,))


def _refuse_twin(session: Libvirt, name: str, path: str, inactive: Callable[[Any], Any]) -> None:
    """Raise KvmError when another pool has the same directory, links followed: volumes would have two owners."""
    for other, handle in session.pools().items():
        if other != name:
            target = _xml.get(inactive(handle), "target/path")[0]
            if target and os.path.realpath(target) == os.path.realpath(path):
                raise KvmError(f"path: {path} is the directory of pool {other!r} too; choose another one")


def _make_directory(path: str, permissions: dict[str, Any]) -> Step:
    def make() -> None:
        with os_told(path):
            os.makedirs(path)
            os.chmod(path, int(permissions.get("mode", "0711"), 8))
            os.chown(path, permissions.get("owner", -1), permissions.get("group", -1))

    def unmake() -> None:
        with os_told(path):
            os.rmdir(path)

    return Step(f"make directory {path}", make, unmake)


def _permission_steps(session: Libvirt, now: Situation, path: str) -> tuple[tuple[Change, ...], tuple[Step, ...]]:
    """Return what gives an existing directory the wanted mode and owner; libvirt itself has no call for it."""
    wanted = now.wanted.get("permissions") or {}
    have = permissions_of(path)
    named = {one.option for one in now.differences}
    differing = [word for word in wanted if wanted[word] != have[word]]
    changes = tuple(
        Change(f"permissions.{word}", have[word], wanted[word], "host")
        for word in differing if f"permissions.{word}" not in named
    )  # fmt: skip
    if not differing:
        return (), ()

    def refresh() -> None:
        with told("cannot refresh"):
            session.pools()[now.name].refresh(0)

    return changes, (permission_step(path, have, wanted, refresh if now.running is not None else None),)


# Devices --------------------------------------------------------------------------------------------------------


def build_steps(session: Libvirt, now: Situation, wiped: tuple[str, ...] = (), blank: tuple[str, ...] = ()) -> tuple[Step, ...]:
    """Return the steps that make what the pool is made of.

    wiped: devices whose content goes first. blank: devices that are as good as blank when it is undone.
    """
    if not now.wanted.get("build"):
        return ()
    kind = _xml.get(now.after, "@type")[0]
    steps = [Step(f"destroy what {device} holds", lambda device=device: block.wipe(Root(), device)) for device in wiped]  # type: ignore[misc]

    def build() -> None:
        with told("cannot build"):
            # The flag tells libvirt to leave alone what a device holds; where there is none it takes no flags.
            flags = libvirt.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE if blank or kind == "logical" else 0
            session.pools()[now.name].build(flags)

    def unbuild() -> None:
        with told("cannot take away again what was built"):
            if kind != "disk":  # nothing stands for a partition table but itself
                session.pools()[now.name].delete(0)  # rmdir, vgremove: refused when it is no longer empty
        for device in blank:
            block.wipe(Root(), device)

    return (*steps, Step(f"build pool {now.name}", build, unbuild))


def _file_system(session: Libvirt, now: Situation, values: dict[str, Any]) -> Host:
    """Return the steps that make a file system and the directory to mount it on."""
    return _on_device(session, now, values, "file system", lambda held: held.type, not os.path.isdir(values["path"]))


def _partition_table(session: Libvirt, now: Situation, values: dict[str, Any]) -> Host:
    """Return the steps that make a partition table."""
    return _on_device(session, now, values, "partition table", lambda held: held.table, False)


def _on_device(
    session: Libvirt, now: Situation, values: dict[str, Any], what: str, found: Callable[[block.Content], str | None], bare: bool
) -> Host:
    """Return the steps that put something on a device. bare: only the directory is missing where the device is right."""
    device, host = values["source"]["devices"][0], Root()
    have, wanted = found(block.content_of(host, device)), values["source"].get("format", "auto")
    if have is not None and wanted in ("auto", have):
        return _made(session, now, values["path"]) if bare else Host()
    if not now.wanted.get("build"):
        kind = "" if wanted == "auto" else f"{wanted} "
        return lacking(session, now, f"source.devices: {device} holds no {kind}{what}; build: true makes one on an empty device")
    if wanted == "auto":
        raise KvmError(f"source.format: must be given to make a {what}")
    _refuse_active(now)
    dirty = block.require_empty(host, device, bool(now.wanted.get("overwrite")))
    change = Change("build", None, f"{wanted} {what} on {device}", "host")
    return Host((change,), build_steps(session, now, (device,) if dirty else (), (device,)))


def _refuse_active(now: Situation) -> None:
    if now.running is not None:
        raise KvmError("build: libvirt makes it only while the pool is inactive; have it inactive first")


def _volume_group(session: Libvirt, now: Situation, values: dict[str, Any]) -> Host:
    """Return the steps that make a volume group. Raises KvmError for devices that are missing or not empty."""
    source = values.get("source") or {}
    devices, group, host = source.get("devices") or [], source["name"], Root()
    if lvm.group_exists(host, group):
        foreign = [device for device in devices if lvm.group_of(host, device) != group]
        if foreign:
            raise KvmError(f"source.devices: {', '.join(foreign)} is not part of volume group {group}, which exists")
        return Host()
    return _of_devices(session, now, f"volume group {group}", "source.name", devices)


def _zpool(session: Libvirt, now: Situation, values: dict[str, Any]) -> Host:
    """Return the steps that make a ZFS pool."""
    source, host = values.get("source") or {}, Root()
    if source["name"].split("/")[0] in host.must_run(["zpool", "list", "-H", "-o", "name"]).split():
        return Host()
    return _of_devices(session, now, f"ZFS pool {source['name']}", "source.name", source.get("devices") or [])


def _of_devices(session: Libvirt, now: Situation, what: str, option: str, devices: list[str]) -> Host:
    if not now.wanted.get("build"):
        return lacking(session, now, f"{option}: {what} does not exist; build: true makes it of empty devices")
    if not devices:
        raise KvmError(f"source.devices: must be given to build {what}")
    _refuse_active(now)
    overwrite = bool(now.wanted.get("overwrite"))
    dirty = tuple(device for device in devices if block.require_empty(Root(), device, overwrite))
    return Host((Change("build", None, f"{what} of {', '.join(devices)}", "host"),), build_steps(session, now, dirty))


MADE: dict[str, Callable[[Libvirt, Situation, dict[str, Any]], Host]] = {
    "fs": _file_system, "disk": _partition_table, "logical": _volume_group, "zfs": _zpool,
}  # fmt: skip
