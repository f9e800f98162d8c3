# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of a new volume, or one that grows: how full its pool may be, how much of it promised, how many images lie on each other."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import Place, fullness, trusted_places
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import image
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.pool import FILES

PERCENT = c.Integer(low=1, high=100_000)
GUARDS = (
    _fields.Field("full_percent_max", None, PERCENT, "How full a pool may be for a volume to be created or to grow in it."),
    _fields.Field("thin_percent_max", None, PERCENT,
                  "How much of a pool may be promised, in percent of its capacity, for a volume to be created or to grow in it."),
    _fields.Field("chain_depth_max", None, c.Integer(low=1, high=200), "How many images may lie on each other.", default=20),
    _fields.Field("on_exceed", None, c.Choice(words=("fail", "warn")), "What happens where one of these is passed.", default="fail"),
)  # fmt: skip


def check_chain(session: Libvirt, wanted: dict[str, Any], warnings: list[str]) -> None:
    """Raise KvmError when an image would lie on too many others, or on one that leads out of the pools of the host."""
    backing = wanted.get("backing")
    if not backing or not session.on_this_host or not os.path.exists(backing["path"]):
        return
    if backing["format"] != "raw":
        image.require_trusted(backing["path"], backing["format"], (*trusted_places(session), os.path.dirname(backing["path"])))
    depth = 1 + image.chain_depth(backing["path"], backing["format"])
    if depth > session.params["chain_depth_max"]:
        _exceeded(session, f"backing: {depth} images would lie on each other, at most {session.params['chain_depth_max']} may", warnings)


def check_guards(session: Libvirt, place: Place, more: int, warnings: list[str]) -> None:
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


def check_room(session: Libvirt, place: Place, wanted: dict[str, Any]) -> None:
    """Raise KvmError when the volume takes more at once than its directory has free."""
    whole = wanted.get("preallocation") in ("falloc", "full") or (wanted.get("format") == "raw" and "preallocation" not in wanted)
    at_once = wanted.get("allocation") or (wanted.get("capacity") if whole and "source" not in wanted else None)
    if not (at_once and session.on_this_host and place.type in FILES and place.path and os.path.isdir(place.path)):
        return
    room = os.statvfs(place.path)
    free = room.f_bfree * room.f_frsize
    if c.BYTES.bytes(at_once) > free:
        raise KvmError(f"capacity: takes {at_once} at once, pool {place.name!r} has {free // 1024**2}MiB free; ask for less, or allocation: 0B")
