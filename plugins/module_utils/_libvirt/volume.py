# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage volumes: what a task wants of one, and the steps to it. Data goes only when the task says absent."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import content, volume_birth, volume_change, volume_limits, volume_removal
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import find_volume, lacking_pool, place_of, volumes_in
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import all_sources
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.volume import TABLE, check, complete

POOL_OPTION = _fields.Field("pool", None, c.NAME, "Only the volumes of this pool. Without it, those of all active pools.")

# Planning -------------------------------------------------------------------------------------------------------


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one volume as wanted; nothing is written."""
    name, subject = wanted["name"], f"volume {wanted['pool']}/{wanted['name']}"
    if "/" in name:
        raise KvmError('name: "/" is not allowed')
    if name.endswith((content.DRAFT, f"{content.DRAFT}.fetched")):
        raise KvmError(f'name: "{content.DRAFT}" at its end is for volumes that are being made')
    place = place_of(session, wanted["pool"])
    absent = wanted.get("state") == "absent"
    lacking = lacking_pool(place)
    if lacking and (absent and place.handle is None):
        return Plan(subject)
    if lacking and not session.check:
        raise KvmError(lacking)
    warnings = [lacking] if lacking else []
    tree = find_volume(session, place, name)
    if absent:
        return volume_removal.plan(session, subject, place, wanted, tree, warnings)
    found = _fields.read(TABLE.rows, tree) if tree is not None else {}
    secrets = volume_birth.password(session, place, wanted, tree is None)
    wanted = complete(_resolved(session, wanted, found, warnings), found)
    if tree is None:
        return volume_birth.plan(session, subject, place, wanted, warnings, secrets)
    if content.is_half_made(session, place, name):
        raise KvmError("it is half made: the task that filled it was killed, or still fills it; state: absent takes it away")
    check({**found, **wanted, "allocation": None, **({"backing": None} if wanted.get("flatten") else {})})
    return volume_change.plan(session, place, wanted, found, str(_xml.get(tree, "target/path")[0]), secrets)


def _resolved(session: Libvirt, wanted: dict[str, Any], found: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return the options with backing.pool and backing.volume as the path that they mean."""
    backing = wanted.get("backing")
    if not backing:
        return wanted
    check({"backing": backing, "name": wanted["name"]})
    if "path" in backing:
        path, there = backing["path"], not session.on_this_host or os.path.exists(backing["path"])
    else:
        place = place_of(session, backing["pool"])
        tree = find_volume(session, place, backing["volume"])
        there = tree is not None
        path = _xml.get(tree, "target/path")[0] if there else f"{place.path or f'/{place.name}'}/{backing['volume']}"
    if not there and not found:
        lacking = f"backing: {path} does not exist; create it first"
        if not session.check:
            raise KvmError(lacking)
        warnings.append(lacking)
    return {**wanted, "backing": {"path": path, "format": backing["format"]}}


# The module -----------------------------------------------------------------------------------------------------


def read_all(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return the options of every volume of the pool, or of all active pools; of the named one only, if there is a name."""
    pool = session.params.get("pool")
    if pool is not None and lacking_pool(place_of(session, pool)):
        raise KvmError(str(lacking_pool(place_of(session, pool))))
    places = [place_of(session, one) for one in sorted(session.pools()) if pool in (None, one)]
    found = []
    for place in places:
        for one in sorted(volumes_in(session, place)) if place.active else ():
            tree = find_volume(session, place, one) if name in (None, one) else None
            if tree is not None:
                found.append({"pool": place.name, "name": one, "state": "present", **_fields.read(TABLE.rows, tree)})
    if name is not None and not found:
        raise KvmError(f"volume {name!r} does not exist in {f'pool {pool!r}' if pool else 'any active pool of this host'}")
    return found


def facts(session: Libvirt) -> dict[str, Any]:
    """Return what is wrong with what the pools hold: volumes that nothing has, chains that are broken, drafts of killed runs."""
    places = [place_of(session, name) for name in sorted(session.pools()) if session.params.get("pool") in (None, name)]
    trees = {
        (place, name): find_volume(session, place, name)
        for place in places if place.active
        for name in list(volumes_in(session, place))
    }  # fmt: skip
    known = {key: tree for key, tree in trees.items() if tree is not None}
    below = {key: _xml.get(tree, "backingStore/path")[0] for key, tree in known.items()}
    held = {source for pair in all_sources(session).values() for sources in pair for source in sources}
    lain_on = {os.path.realpath(path) for path in below.values() if path}
    paths = {key: os.path.realpath(_xml.get(tree, "target/path")[0] or "") for key, tree in known.items()}
    return {
        "orphans": sorted(
            f"{place.name}/{name}" for (place, name), path in paths.items()
            if not {("", path), (place.name, name)} & held and path not in lain_on
        ),
        "broken_chains": [
            {"volume": f"{place.name}/{name}", "backing": path}
            for (place, name), path in sorted(below.items(), key=lambda pair: (pair[0][0].name, pair[0][1]))
            if path and session.on_this_host and path.startswith("/") and not os.path.exists(path)
        ],
        "drafts": sorted(f"{place.name}/{name}" for place in places if place.active for name in content.drafts_in(session, place)),
    }  # fmt: skip


def waves(wanted: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the volumes in groups that can be worked on together: one that builds on another comes after it."""
    done: list[list[dict[str, Any]]] = []
    made: set[tuple[Any, Any]] = set()
    alone = True
    for one in wanted:
        needs = {(part.get("pool", one["pool"]), part.get("volume")) for part in (one.get("backing"), one.get("source")) if part}
        by_path = any("path" in (one.get(word) or {}) for word in ("backing", "source"))
        if alone or by_path or one.get("state") == "absent" or needs & made:
            done.append([])
            made = set()
        done[-1].append(one)
        made.add((one["pool"], one["name"]))
        alone = one.get("state") == "absent"
    return done


VOLUME = Kind(
    table=TABLE, plural="volumes", key=("pool", "name"), open=Libvirt, plan=plan, read=read_all, facts=facts,
    options=(URI, *volume_limits.GUARDS), info_options=(URI, POOL_OPTION), imports=(LIBVIRT, LXML), at_once=4, waves=waves,
)  # fmt: skip
