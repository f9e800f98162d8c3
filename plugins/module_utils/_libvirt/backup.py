# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of guests: full ones, incremental ones through checkpoints, restored and drilled (https://libvirt.org/formatbackup.html)."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import archive, backup_write, content, drill
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.archive import Backup
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import find_volume, lacking_pool, place_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import image
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import os_told
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.backup import TABLE, check

DAY_S = 24 * 3600
PATH = _fields.Field("path", None, c.PATH, "Directory of the host that holds the backups.", required=True)
VERIFY = _fields.Field("verify", None, c.YES_NO, "Whether every image is held against its digest.", default=False)


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one backup as wanted; nothing is written."""
    check(wanted)
    if not session.on_this_host:
        raise KvmError("path: a backup needs the daemon of this host")
    top, name, subject = wanted["path"], wanted["name"], f"backup {wanted['domain']}/{wanted['name']}"
    backups = archive.all_in(top)
    there = backups.get(name)
    if there is not None and there.domain != wanted["domain"]:
        raise KvmError(f"name: it is a backup of {there.domain}")
    state = wanted.get("state") or "present"
    if state == "absent":
        return _remove(session, subject, wanted, backups)
    if state == "present":
        made = Plan(subject) if there else backup_write.plan(session, subject, wanted, backups)
        old = _outdated(wanted, backups)
        changes = (Change(f"backups[{one.name}]", "present", "absent", "remove") for one in old)
        steps = (_delete_step(session, wanted["path"], one) for one in old)
        return replace(made, changes=(*made.changes, *changes), steps=(*made.steps, *steps))
    if there is None:
        if session.check:
            return Plan(subject, warnings=(f"there is no backup {name!r} in {top} yet",))
        raise KvmError(f"there is no backup {name!r} in {top}")
    return _restore(session, subject, wanted, backups) if state == "restored" else _drill(session, subject, wanted, backups)


# Using ----------------------------------------------------------------------------------------------------------


def _restore(session: Libvirt, subject: str, wanted: dict[str, Any], backups: dict[str, Backup]) -> Plan:
    """Return what it takes to have a volume with the content of each disk; one that is there is held against it."""
    top, name, place = wanted["path"], wanted["name"], place_of(session, wanted["restore"]["pool"])
    lacking = lacking_pool(place)
    if lacking:
        raise KvmError(f"restore.pool: {lacking}")
    archive.require_whole(top, backups, name)
    changes, steps = [], []
    for target in backups[name].disks:
        volume = f"{wanted['restore'].get('prefix', wanted['domain'])}-{target}.qcow2"
        source, tree = archive.image_of(top, name, target), find_volume(session, place, volume)
        if tree is None:
            origin = content.Origin(source, "qcow2", ours=True)
            steps.append(content.make_step(session, place, {"name": volume}, origin, "qcow2", (top,)))
            changes.append(Change(f"disks[{target}]", None, f"{place.name}/{volume}", "define"))
        elif not image.same(source, "qcow2", str(_xml.get(tree, "target/path")[0]), "qcow2"):
            raise KvmError(f"restore: volume {place.name}/{volume} is there with another content; remove it, or give another prefix")
    return Plan(subject, tuple(changes), tuple(steps))


def _drill(session: Libvirt, subject: str, wanted: dict[str, Any], backups: dict[str, Backup]) -> Plan:
    """Return what it takes to have seen a guest boot from the backup."""
    top, one = wanted["path"], backups[wanted["name"]]
    if one.drilled is not None:
        return Plan(subject, facts={"drilled": one.drilled})
    archive.require_whole(top, backups, one.name)

    def prove() -> None:
        images = {target: archive.image_of(top, one.name, target) for target in one.disks}
        definition = os.path.join(top, one.name, "domain.xml")
        drill.boot(session, definition, images, wanted["drill"])
        archive.save(os.path.join(top, one.name), replace(one, drilled=time.time()))

    return Plan(subject, (Change("drilled", False, True, "host"),), (Step(f"boot a throw-away guest from backup {one.name}", prove),))


def _remove(session: Libvirt, subject: str, wanted: dict[str, Any], backups: dict[str, Backup]) -> Plan:
    name = wanted["name"]
    if name not in backups:
        return Plan(subject)
    children = [one.name for one in backups.values() if one.parent == name]
    if children:
        raise KvmError(f"cannot be deleted, backup {', '.join(children)} builds on it; delete that first")

    return Plan(subject, (Change("state", "present", "absent", "remove"),), (_delete_step(session, wanted["path"], backups[name]),))


def _delete_step(session: Libvirt, top: str, one: Backup) -> Step:
    def delete() -> None:
        directory = os.path.join(top, one.name)
        with os_told(directory):
            gone = os.path.join(top, archive.DRAFT + one.name)
            if os.path.lexists(gone):  # of a task that was killed
                shutil.rmtree(gone)
            os.rename(directory, gone)  # at once: half a backup is none
            shutil.rmtree(gone)
        domain = session.domains().get(one.domain)
        if domain is not None:
            backup_write.forget_point(domain, one.name)

    return Step(f"delete backup {one.name}", delete)


def _outdated(wanted: dict[str, Any], backups: dict[str, Backup]) -> list[Backup]:
    """Return the backups of the guest that are too many or too old, the latest first; none that one which stays builds on."""
    if not {"keep", "keep_days"} & set(wanted):
        return []
    name = wanted["name"]
    others = [one for one in backups.values() if one.domain == wanted["domain"] and one.name != name]
    old = others[: max(0, len(others) + 1 - wanted["keep"])] if "keep" in wanted else []
    if "keep_days" in wanted:
        limit = time.time() - wanted["keep_days"] * DAY_S
        old = [one for one in others if one in old or one.made < limit]
    stay = [name] if name in backups else [others[-1].name] if wanted.get("incremental") and others else []
    stay += [one.name for one in others if one not in old]
    needed = {part.name for one in stay for part in archive.chain(backups, one)}
    return [one for one in reversed(old) if one.name not in needed]


# The module -----------------------------------------------------------------------------------------------------


def read_all(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return the backups of a directory, oldest first, or the named one."""
    top = session.params["path"]
    found = [one for one in archive.facts(top, archive.all_in(top), session.params["verify"]) if name in (None, one["name"])]
    if name is not None and not found:
        raise KvmError(f"there is no backup {name!r} in {top}")
    return found


BACKUP = Kind(
    table=TABLE, plural="backups", key=("domain", "name"), open=Libvirt, plan=plan, read=read_all,
    options=(URI,), info_options=(URI, PATH, VERIFY), imports=(LIBVIRT, LXML),
)  # fmt: skip
