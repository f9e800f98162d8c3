# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage volumes: what a task wants of one, and the steps to it. Data goes only when the task says absent."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Difference, Field
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import content, overlay, secret
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import (
    LIBVIRT,
    URI,
    Libvirt,
    libvirt,
    patiently,
    told,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import (
    Place,
    file_of,
    find_volume,
    fullness,
    lacking_pool,
    place_of,
    trusted_places,
    volumes_in,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import Users, all_sources, users_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import image
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.owner import permission_step, permissions_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.pool import FILES
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.volume import TABLE, WIPES, check, complete

# What a size is rounded up to: sectors of an image, extents of a volume group (LVM's default).
GRAIN = {"logical": 4 * 1024**2}
SECTOR = 512
PERCENT = c.Integer(low=1, high=100_000)
GUARDS = (
    Field("full_percent_max", None, PERCENT, "How full a pool may be for a volume to be created or to grow in it."),
    Field("thin_percent_max", None, PERCENT,
          "How much of a pool may be promised, in percent of its capacity, for a volume to be created or to grow in it."),
    Field("chain_depth_max", None, c.Integer(low=1, high=200), "How many images may lie on each other.", default=20),
    Field("on_exceed", None, c.Choice(words=("fail", "warn")), "What happens where one of these is passed.", default="fail"),
)  # fmt: skip
POOL_OPTION = Field("pool", None, c.NAME, "Only the volumes of this pool. Without it, those of all active pools.")


Work = tuple[list[Change], list[Step]]

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
        return _remove(session, subject, place, wanted, tree, warnings)
    found = _fields.read(TABLE.rows, tree) if tree is not None else {}
    secrets = _password(session, place, wanted, tree is None)
    wanted = complete(_resolved(session, wanted, found, warnings), found)
    if tree is None:
        return _create(session, subject, place, wanted, warnings, secrets)
    if content.is_half_made(session, place, name):
        raise KvmError("it is half made: the task that filled it was killed, or still fills it; state: absent takes it away")
    check({**found, **wanted, "allocation": None, **({"backing": None} if wanted.get("flatten") else {})})
    return _change(session, place, wanted, found, str(_xml.get(tree, "target/path")[0]), secrets)


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


# Creating -------------------------------------------------------------------------------------------------------


def _create(
    session: Libvirt, subject: str, place: Place, wanted: dict[str, Any], warnings: list[str], secrets: Work
) -> Plan:
    facts: dict[str, Any] = {}
    if not {"capacity", "backing", "source"} & set(wanted):
        raise KvmError("capacity: must be given for a new volume")
    if "format" not in wanted and place.type in FILES:
        wanted = {**wanted, "format": "qcow2"}
        facts = {"defaults_applied": ["format"]}
    check(wanted)
    for option in ("changes", "flatten"):
        if option in wanted and "backing" not in wanted:
            wanted = {k: v for k, v in wanted.items() if k != option}  # a new image without backing holds nothing to settle
    _check_room(session, place, wanted)
    _check_chain(session, wanted, warnings)
    _check_guards(session, place, c.BYTES.bytes(wanted["capacity"]) if "capacity" in wanted else 0, warnings)
    changes = [Change(one.option, None, one.after, "define") for one in _fields.differences(TABLE.rows, wanted, {})]
    if "source" in wanted:
        changes.append(Change("source", None, wanted["source"], "define"))
    changes += [*secrets[0], Change("state", None, "present", "define")]
    step = _birth_step(session, place, wanted, warnings)
    steps = (*secrets[1], *content.forget_steps(session, place, wanted["name"]), *([step] if step else []))
    return Plan(subject, tuple(changes), steps, (), tuple(warnings), facts)


def _birth_step(session: Libvirt, place: Place, wanted: dict[str, Any], warnings: list[str]) -> Step | None:
    """Return the step that makes the volume: by libvirt, or, with content of its own, under another name first."""
    local = session.on_this_host and place.path is not None and place.type in FILES
    if "source" in wanted:
        if place.handle is None or not place.active:
            return None  # only in check mode, which has warned of it
        origin = content.origin_of(session, place, wanted["source"], warnings)
        if not session.on_this_host or "encryption" in wanted:
            raise KvmError("source: needs a pool of this host, and no encryption")
        if not local:
            return content.copy_step(session, place, wanted, origin)
        return content.make_step(session, place, wanted, origin, wanted["format"])
    if wanted.get("preallocation") == "full":
        if not local or "backing" in wanted or "encryption" in wanted:
            raise KvmError("preallocation: full needs a pool of files of this host, no backing and no encryption; use falloc")
        return content.make_step(session, place, wanted, None, wanted["format"])
    if wanted.get("format") == "parallels" and local:  # libvirt makes something else of that
        return content.make_step(session, place, wanted, None, "parallels")
    tree = _xml.new("volume")
    _xml.put(tree, "name", wanted["name"])
    _fields.write(TABLE.rows, tree, {**wanted, **_laid_out(wanted)})
    return _create_step(session, place, wanted, tree)


def _laid_out(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the allocation that a wanted layout means."""
    whole = {"off": "0B", "metadata": "0B", "falloc": wanted.get("capacity", "0B")}
    return {"allocation": whole[wanted["preallocation"]]} if "preallocation" in wanted else {}


def _password(session: Libvirt, place: Place, wanted: dict[str, Any], fresh: bool) -> Work:
    """Return the steps that put a given password into the secret of the volume.

    What an image is encrypted with does not change with its secret: that of one which is there is only made where it is missing.
    """
    encryption = wanted.get("encryption") or {}
    if "password" not in encryption:
        return [], []
    name = encryption.get("secret") or f"{place.name}/{wanted['name']}"
    if not fresh and ("volume", name) in secret.listed(session):
        return [], []
    made = secret.plan(session, {"type": "volume", "name": name, "private": True, "value": encryption["password"]})
    return [Change(f"encryption.secret.{one.option}", one.before, one.after, one.how) for one in made.changes], list(made.steps)


def _check_chain(session: Libvirt, wanted: dict[str, Any], warnings: list[str]) -> None:
    """Raise KvmError when an image would lie on too many others, or on one that leads out of the pools of the host."""
    backing = wanted.get("backing")
    if not backing or not session.on_this_host or not os.path.exists(backing["path"]):
        return
    if backing["format"] != "raw":
        image.require_trusted(backing["path"], backing["format"], (*trusted_places(session), os.path.dirname(backing["path"])))
    depth = 1 + image.chain_depth(backing["path"], backing["format"])
    if depth > session.params["chain_depth_max"]:
        _exceeded(session, f"backing: {depth} images would lie on each other, at most {session.params['chain_depth_max']} may", warnings)


def _check_guards(session: Libvirt, place: Place, more: int, warnings: list[str]) -> None:
    """Raise KvmError when the pool is fuller, or more of it promised, than the task allows."""
    limits = {word: session.params[f"{word}_max"] for word in ("full_percent", "thin_percent")}
    if not place.active or not any(limits.values()):
        return
    usage = session.once(f"fullness of {place.name}", lambda: fullness(session, place.name))
    with session.lock:
        usage["promised"] += more  # the volumes of one task count together
        usage["thin_percent"] = round(100 * usage["promised"] / usage["capacity"], 1) if usage["capacity"] else None
        now = dict(usage)
    for word, limit in limits.items():
        if limit and now[word] is not None and now[word] > limit:
            what = "full" if word == "full_percent" else "promised"
            _exceeded(session, f"pool {place.name!r} would be {now[word]} % {what}, at most {limit} % may", warnings)


def _exceeded(session: Libvirt, words: str, warnings: list[str]) -> None:
    if session.params["on_exceed"] == "fail":
        raise KvmError(words)
    warnings.append(words)


def _check_room(session: Libvirt, place: Place, wanted: dict[str, Any]) -> None:
    """Raise KvmError when the volume takes more at once than its directory has free."""
    whole = wanted.get("preallocation") in ("falloc", "full") or (wanted.get("format") == "raw" and "preallocation" not in wanted)
    at_once = wanted.get("allocation") or (wanted.get("capacity") if whole and "source" not in wanted else None)
    if not (at_once and session.on_this_host and place.type in FILES and place.path and os.path.isdir(place.path)):
        return
    room = os.statvfs(place.path)
    free = room.f_bfree * room.f_frsize
    if c.BYTES.bytes(at_once) > free:
        raise KvmError(f"capacity: takes {at_once} at once, pool {place.name!r} has {free // 1024**2}MiB free; ask for less, or allocation: 0B")


def _create_step(session: Libvirt, place: Place, wanted: dict[str, Any], tree: Any) -> Step:
    name, text = wanted["name"], _xml.text_of(tree)
    whole = wanted.get("allocation") and wanted["allocation"] == wanted.get("capacity")
    laid_out = wanted.get("format") == "qcow2" and (whole or wanted.get("preallocation") in ("metadata", "falloc"))
    flags = libvirt.VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA if laid_out else 0  # with all allocated, of the data too

    def create() -> None:
        try:
            with told("cannot create the volume"):
                volumes_in(session, place)[name] = place.handle.createXML(text, flags)  # type: ignore[union-attr]
        except KvmError:
            _clean_up(session, place, name)
            raise

    def undo() -> None:
        with told("cannot delete the volume that was just created"):
            volumes_in(session, place).pop(name).delete(0)

    return Step(f"create volume {name} in pool {place.name}", create, undo)


def _clean_up(session: Libvirt, place: Place, name: str) -> None:
    """Take away what a create that failed left: libvirt does it itself, unless it died over it."""
    path = file_of(session, place, name)
    if path is None or place.type not in FILES or session.connection.isAlive() or not os.path.lexists(path):
        return
    os.unlink(path)


# Changing -------------------------------------------------------------------------------------------------------


def _change(
    session: Libvirt, place: Place, wanted: dict[str, Any], found: dict[str, Any], path: str, secrets: Work
) -> Plan:
    changes, steps = [*secrets[0]], [*secrets[1]]
    warnings: list[str] = []
    for one in _fields.differences(TABLE.rows, wanted, found):
        if one.option == "capacity":
            if _same_size(place, one):
                continue
            way, step = _resize(session, place, wanted, one, warnings)
        elif one.option == "permissions.mode":
            way, step = _permit(session, place, wanted, one)
        else:
            before = "none" if one.before is None else one.before
            raise KvmError(f"{one.option}: cannot be changed from {before} to {one.after}; make a new volume and copy the data")
        changes.append(Change(one.option, one.before, one.after, way))
        steps.append(step)
    for more, further in _content_changes(session, place, wanted, found, path):
        changes += more
        steps += further
    leftover = content.leftover_step(session, place, wanted["name"])
    return Plan(f"volume {place.name}/{wanted['name']}", tuple(changes), (*steps, *([leftover] if leftover else [])), (), tuple(warnings))


def _content_changes(
    session: Libvirt, place: Place, wanted: dict[str, Any], found: dict[str, Any], path: str
) -> list[tuple[list[Change], list[Step]]]:
    """Return what it takes for the image to hold, and to lie on, what is wanted."""
    if not {"flatten", "changes", "download"} & set(wanted):
        return []
    if not session.on_this_host:
        raise KvmError("flatten, changes and download need a volume of this host")
    name, done = wanted["name"], []
    known = {"format": "raw", **found}
    if wanted.get("flatten"):
        done.append(overlay.flatten(session, place, name, path, known))
    if "changes" in wanted:
        done.append(overlay.settle(session, place, name, path, known, wanted["changes"]))
    if "download" in wanted:
        there, step = content.download(session, place, name, path, known["format"], wanted["download"])
        if step is not None:
            done.append(([Change("download", "another content" if there else None, wanted["download"]["path"], "host")], [step]))
    return done


def _same_size(place: Place, one: Difference) -> bool:
    """Tell whether the found size is the wanted one rounded up as the pool rounds."""
    rest = c.BYTES.bytes(one.before) - c.BYTES.bytes(one.after)
    return 0 <= rest < GRAIN.get(place.type, SECTOR)


def _resize(session: Libvirt, place: Place, wanted: dict[str, Any], one: Difference, warnings: list[str]) -> tuple[str, Step]:
    name, size, now = wanted["name"], c.BYTES.bytes(one.after), c.BYTES.bytes(one.before)
    handle, smaller = volumes_in(session, place)[name], size < now
    if smaller and not wanted.get("shrink"):
        raise KvmError(
            f"capacity: cannot shrink from {one.before} to {one.after}, that would lose data; leave it, make a new volume, or say shrink: true"
        )
    with told("cannot read the path"):
        path = handle.path()
    guests = users_of(session, place.name, name, path).running
    if smaller:
        if guests:
            raise KvmError(f"capacity: cannot shrink while {' and '.join(guests)} runs with it; stop it first")
        _refuse_as_backing(session, place, name, path, "shrunk")
    elif len(guests) > 1:
        raise KvmError(f"capacity: cannot grow while {' and '.join(guests)} share it; stop them first")
    else:
        _check_guards(session, place, size - now, warnings)

    def resize() -> None:
        with told(f"cannot {'shrink' if smaller else 'grow'} the volume"):
            patiently(lambda: handle.resize(size, libvirt.VIR_STORAGE_VOL_RESIZE_SHRINK if smaller else 0))

    def grow_live() -> None:
        with told(f"cannot grow the disk of the running guest {guests[0]}"):
            session.domains()[guests[0]].blockResize(path, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    sentence = f"{'shrink' if smaller else 'grow'} volume {name} to {one.after}"
    if guests:
        return "live", Step(f"{sentence} in the running guest {guests[0]}", grow_live)
    return "define", Step(sentence, resize)


def _permit(session: Libvirt, place: Place, wanted: dict[str, Any], one: Difference) -> tuple[str, Step]:
    path = file_of(session, place, wanted["name"])
    if path is None or place.type not in FILES:
        raise KvmError(f"{one.option}: can only be changed for a file of this host")
    return "host", permission_step(path, {"mode": permissions_of(path)["mode"]}, {"mode": one.after})


# Removing -------------------------------------------------------------------------------------------------------


def _remove(session: Libvirt, subject: str, place: Place, wanted: dict[str, Any], tree: Any | None, warnings: list[str]) -> Plan:
    check(wanted)
    name = wanted["name"]
    if tree is None:
        return Plan(subject, (), content.forget_steps(session, place, name), warnings=tuple(warnings))
    path = _xml.get(tree, "target/path")[0] or ""
    _refuse_in_use(users_of(session, place.name, name, path))
    _refuse_as_backing(session, place, name, path, "deleted")

    def wipe() -> None:
        with told("cannot wipe the volume"):
            volumes_in(session, place)[name].wipePattern(WIPES.index(wanted["wipe"]), 0)

    def delete() -> None:
        with told("cannot delete the volume"):
            patiently(lambda: volumes_in(session, place)[name].delete(0))
            volumes_in(session, place).pop(name)

    steps = [Step(f"wipe volume {name} ({wanted['wipe']})", wipe)] if "wipe" in wanted else []
    steps += [Step(f"delete volume {name}", delete), *content.forget_steps(session, place, name)]
    return Plan(subject, (Change("state", "present", "absent", "remove"),), tuple(steps))


def _refuse_in_use(users: Users) -> None:
    if users.running:
        raise KvmError(f"cannot be deleted, it is used by the running domain {', '.join(users.running)}")
    if users.defined:
        raise KvmError(f"cannot be deleted, it is used by the domain {', '.join(users.defined)}; take the disk from it first")


def _refuse_as_backing(session: Libvirt, place: Place, name: str, path: str, verb: str) -> None:
    """Raise KvmError when another volume of the pool has this one below it and would lose its data."""
    with told("cannot read the other volumes"):
        trees = {one: _xml.parse(vol.XMLDesc(0)) for one, vol in volumes_in(session, place).items() if one != name}
    above = [one for one, tree in trees.items() if _xml.get(tree, "backingStore/path")[0] == path]
    if above:
        raise KvmError(f"cannot be {verb}, it is the backing of volume {', '.join(sorted(above))}; delete that first")


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
    options=(URI, *GUARDS), info_options=(URI, POOL_OPTION), imports=(LIBVIRT, LXML), at_once=4, waves=waves,
)  # fmt: skip
