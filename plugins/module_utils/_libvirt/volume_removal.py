# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that go: never one that a guest or another volume has."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import content
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt, patiently, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.storage import Place, above, volumes_in
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.usage import Users, users_of
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.volume import WIPES, check


def plan(session: Libvirt, subject: str, place: Place, wanted: dict[str, Any], tree: Any | None, warnings: list[str]) -> Plan:
    """Return what it takes for a volume to be gone."""
    check(wanted)
    name = wanted["name"]
    if tree is None:
        return Plan(subject, (), content.forget_steps(session, place, name), warnings=tuple(warnings))
    path = _xml.get(tree, "target/path")[0] or ""
    _refuse_in_use(users_of(session, place.name, name, path))
    refuse_as_backing(session, place, name, path, "deleted")

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


def refuse_as_backing(session: Libvirt, place: Place, name: str, path: str, verb: str) -> None:
    """Raise KvmError when another volume of the pool has this one below it and would lose its data."""
    others = [one for one in above(session, place, path) if one != name]
    if others:
        raise KvmError(f"cannot be {verb}, it is the backing of volume {', '.join(others)}; delete that first")
