# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard of a task: a guest that would pass the limits of overcommit is refused, or warned of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import Libvirt

if TYPE_CHECKING:
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import census


class Ratio(c.Codec):
    """A ratio, such as 1.5."""

    type: ClassVar[str] = "float"


RATIO = Ratio()

OVERCOMMIT = _fields.Section(
    "overcommit", None,
    "Limits that guests of this task may not pass, counted with all that run or start with the host; in check mode too."
    " M(anfitrion.kvm.kvm_host_info) tells how it is counted. Guests bound to one NUMA node are held against that node.", (
        _fields.Field("cpu", None, RATIO, "vCPUs of all guests for each CPU of the host, such as V(4.0)."),
        _fields.Field("memory", None, RATIO, "Memory of all guests for what the host can give, such as V(1.2)."),
        _fields.Field("on_exceed", None, c.Choice(words=("fail", "warn")), "What becomes of a task that passes a limit.", default="fail"),
    ),
)  # fmt: skip


def guard(session: Libvirt, wanted: dict[str, Any], handle: Any | None, tree: Any) -> list[str]:
    """Return the warnings of a guest that passes the limits of its task. Raises KvmError if it is to fail by them.

    A guest that is only defined, neither running nor to start with the host, takes nothing yet.
    """
    limits, name = session.params.get("overcommit"), wanted["name"]
    if not limits or not session.on_this_host or not _takes(wanted, handle):
        return []
    # Only a task with limits counts; every other task of guests is spared what counting takes to load.
    from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import capacity, census  # noqa: PLC0415
    from ansible_collections.anfitrion.kvm.plugins.module_utils._node import topology  # noqa: PLC0415
    from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root  # noqa: PLC0415

    root = Root(check=True)
    host = session.once("topology", lambda: topology.observe(root))
    running = [guest for guest in session.once("census", lambda: census.guests(session, root)) if guest.active or guest.autostart]
    ratios = {key: limits[key] for key in ("cpu", "memory") if limits.get(key) is not None}
    one = census.guest_of(tree, name)
    others = {guest.name: guest for guest in (*running, *_planned(session))}
    words = capacity.refusal(host, list(others.values()), one, ratios)
    _planned(session).append(one)
    if words is None:
        return []
    if limits["on_exceed"] == "fail":
        raise KvmError(f"overcommit: {words}")
    return [f"overcommit: {words}"]


def _takes(wanted: dict[str, Any], handle: Any | None) -> bool:
    """Tell whether the guest has CPUs and memory of the host after the task, or after the next boot."""
    state = wanted.get("state")
    runs = handle is not None and handle.ID() != -1 and state not in ("stopped", "saved")
    return state in ("running", "paused") or bool(wanted.get("autostart")) or runs


def _planned(session: Libvirt) -> list[census.Guest]:
    """Return the guests that this task has planned already: in check mode they do not run yet."""
    planned: list[census.Guest] = session.once("planned guests", list)
    return planned
