# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of a backup of a guest."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.kept import QUIESCE, kept

RESTORE = (
    f.Field("pool", None, c.NAME, "Pool of the restored volumes.", required=True),
    f.Field("prefix", None, c.WORD, "How their names begin, by default with that of the guest; C(-vda.qcow2) and so on follows."),
)

DRILL = (
    f.Field("ready", None, c.TEXT, "Text on the first serial port that says that the guest is up.", required=True),
    f.Field("timeout", None, c.Integer(low=1, high=86_400), "For how many seconds it is waited for, by default 120."),
    f.Field("memory", None, c.SIZE, "Memory of the throw-away guest, by default that of the guest."),
)

TABLE = f.Table(
    noun="backup", root="domainbackup", doc="A backup of a guest.", rows=(
        f.Field("domain", None, c.NAME, "Name of the guest.", required=True),
        f.Field("name", None, c.WORD, "Name of the backup, unique in its directory.", required=True),
        f.Field("path", None, c.PATH, "Directory of the host that holds the backups of this guest. Each is a directory in it.", required=True),
        f.Field("state", None, c.Choice(words=("present", "absent", "restored", "drilled")),
                "What is to be. V(present) has the backup; one that is there is never made again. V(restored) has volumes with"
                " its content, checked. V(drilled) has it proved once that a guest boots from it. V(absent) deletes it, which"
                " is refused while another builds on it."),
        f.Field("incremental", None, c.YES_NO,
                "Whether it only holds what was written since the last one in the directory. The guest must run, and"
                " the disks be qcow2 unless O(mode=pull)."),
        f.Field("disks", None, c.WORD, "Targets of the disks, by default all that are written to.", many=True),
        f.Field("mode", None, c.Choice(words=("push", "pull")),
                "How the disks of a running guest are read. V(push) has QEMU write the images, which must be allowed to. V(pull) has the"
                " host read them from a socket of QEMU, and QEMU writes nothing to O(path); an incremental one then compares"
                " the whole disks, of any format, and holds what differs. By default V(push)."),
        QUIESCE,
        *kept("backups of the guest in O(path)", " One that another builds on stays until that one goes."),
        f.Section("restore", None, "Where O(state=restored) puts the content.", RESTORE),
        f.Section("drill", None, "How O(state=drilled) sees that the guest boots. It has no network and none of the host's devices.", DRILL),
    ),
)  # fmt: skip


def complete(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001  every table's signature
    """Return the wanted options; a backup needs no others."""
    return wanted


def check(wanted: dict[str, Any]) -> None:
    """Raise KvmError for options that cannot stand together."""
    for state, option in (("restored", "restore"), ("drilled", "drill")):
        if (wanted.get("state") == state) != (option in wanted):
            raise KvmError(f"{option}: goes with state: {state}, and that with {option}")
    for option in ("keep", "keep_days"):
        if option in wanted and wanted.get("state") not in (None, "present"):
            raise KvmError(f"{option}: goes with state: present")
