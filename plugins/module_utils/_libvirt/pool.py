# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage pools: what a task wants of one, and the steps to it. Data goes only when the task says so in words."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import activity, pool_host
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.activity import RESTART, Host, Rules, Situation
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.objects import (
    Family,
    persistent_xml,
    running_xml,
    stop_step,
    undefine_step,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import fullness
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import users_below, users_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.image import formats
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.pool import FILES, TABLE, check, check_result, complete, tidy


def _start(handle: Any) -> None:
    """Start a pool.

    libvirt gives the CHAP password to the records that open-iscsi has of a target, and only then has it make the record of an
    initiator's own interface. So the first login of a host is refused, and the second, which finds that record, is not.
    """
    try:
        handle.create()
    except libvirt.libvirtError:
        pool = _xml.parse(handle.XMLDesc(0))
        if not all(_xml.get(pool, path)[0] for path in ("source/initiator/iqn/@name", "source/auth[@type='chap']/@username")):
            raise
        handle.create()


FAMILY = Family(
    noun="pool", table=TABLE, listed=lambda session: session.pools(),
    define=lambda connection, text: connection.storagePoolDefineXML(text, 0),
    # The test driver refuses the flag.
    inactive=lambda session: 0 if session.driver == "test" else libvirt.VIR_STORAGE_XML_INACTIVE, start=_start,
)  # fmt: skip
REFRESH = _fields.Field("refresh", None, c.YES_NO, "Whether libvirt looks anew at what the active pools hold before they are told of.", default=False)
FORMATS = _fields.Field("formats", None, c.YES_NO, "Whether to try which image formats QEMU on this host can create, write and read.", default=False)
# Types whose volumes can be deleted, and the part of them whose pool libvirt takes away too.
ERASABLE = (*FILES, "logical", "disk", "zfs", "rbd", "gluster")
TAKEN_AWAY = (*FILES, "logical", "zfs")


def _preflight(session: Libvirt, now: Situation) -> Host:
    return pool_host.preflight(session, now, lambda handle: persistent_xml(session, FAMILY, handle))


def _users(session: Libvirt, name: str, running: Any) -> list[str]:
    with told("cannot read the volumes"):
        paths = [volume.path() for volume in session.pools()[name].listAllVolumes(0)]
    return users_below(session, name, _xml.get(running, "target/path")[0] or "/dev/null", paths)


def _live(_session: Libvirt, _now: Situation, _lagging: list[_fields.Difference]) -> tuple[set[str], list[Step]]:
    """A running pool takes nothing but the permissions of its directory, and those are the host's."""
    return {one.option for one in _lagging if one.option.startswith("permissions.")}, []


RULES = Rules(
    family=FAMILY, complete=complete, check=check_result, tidy=tidy, preflight=_preflight, users=_users, live=_live
)  # fmt: skip


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one pool as wanted; nothing is written."""
    check({k: wanted[k] for k in ("state", "build", "overwrite", "delete_data") if k in wanted})
    if wanted.get("delete_data"):
        return _erase(session, wanted["name"])
    return activity.plan(session, RULES, wanted)


# Deleting -------------------------------------------------------------------------------------------------------


def _erase(session: Libvirt, name: str) -> Plan:
    """Return what it takes to have neither the pool nor anything in it."""
    handle = session.pools().get(name)
    if handle is None:
        return Plan(f"pool {name}", facts={"erased": []})
    running = running_xml(handle)
    if running is None:
        raise KvmError("delete_data: the pool is not active, so what it holds cannot be seen; have it active first")
    kind = _xml.get(running, "@type")[0]
    if kind not in ERASABLE:
        raise KvmError(f"delete_data: volumes of a pool of type {kind} cannot be deleted; leave it out")
    with told("cannot read the volumes"):
        handle.refresh(0)
        volumes = sorted(handle.listAllVolumes(0), key=lambda volume: volume.name())
        paths = {volume.name(): volume.path() for volume in volumes}
    for volume, path in paths.items():
        users = users_of(session, name, volume, path)
        guests = sorted({*users.running, *users.defined})
        if guests:
            raise KvmError(f"delete_data: volume {volume} is used by the domain {', '.join(guests)}; take the disk from it first")
    steps = [_delete_step(volume) for volume in volumes]
    steps.append(stop_step(session, FAMILY, name))
    if kind in TAKEN_AWAY:
        steps.append(_take_away_step(session, name))
    with told("cannot read whether it is persistent"):
        if handle.isPersistent():
            steps.append(undefine_step(session, FAMILY, name, persistent_xml(session, FAMILY, handle)))
    changes = [Change(f"volumes[{volume}]", path, None, "remove") for volume, path in paths.items()]
    changes.append(Change("state", "active", "absent", "remove"))
    return Plan(f"pool {name}", tuple(changes), tuple(steps), facts={"erased": list(paths.values())})


def _delete_step(volume: Any) -> Step:
    def delete() -> None:
        with told(f"cannot delete volume {volume.name()}"):
            volume.delete(0)

    return Step(f"delete volume {volume.name()}", delete)


def _take_away_step(session: Libvirt, name: str) -> Step:
    def take_away() -> None:
        with told("cannot take away what the pool was made of"):
            session.pools()[name].delete(0)

    return Step(f"take away what pool {name} was made of", take_away)


# The module -----------------------------------------------------------------------------------------------------


def read_all(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return the options of every pool, or of the named one."""
    if session.params.get("refresh"):
        for one, handle in session.pools().items():
            with told(f"cannot refresh pool {one!r}"):
                if name in (None, one) and handle.isActive():
                    handle.refresh(0)
    return activity.read_all(session, FAMILY, name)


def facts(session: Libvirt) -> dict[str, Any]:
    """Return how full the active pools are, and on demand what QEMU can do with each format."""
    found: dict[str, Any] = {"usage": [fullness(session, name) for name, handle in sorted(session.pools().items()) if handle.isActive()]}
    if session.params.get("formats"):
        found["formats"] = formats()
    return found


POOL = Kind(
    table=TABLE, plural="pools", key=("name",), open=Libvirt, plan=plan, read=read_all, facts=facts,
    options=(URI, RESTART), info_options=(URI, REFRESH, FORMATS), imports=(LIBVIRT, LXML),
)  # fmt: skip
