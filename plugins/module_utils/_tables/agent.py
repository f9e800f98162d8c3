# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guest agent does inside a guest, and how long it may take."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f

TABLE = f.Table("agent", "agent", "What the guest agent of a guest does inside it.", (
    f.Field("name", None, c.NAME, "Name of the guest.", required=True),
    f.Items("users", "users", ("name",), "Accounts of the guest.", (
        f.Field("name", None, c.TEXT, "Name of an account that the guest has.", required=True),
        f.Field("password", None, c.TEXT, "Password that it is to have, in the clear, or as the guest keeps it in C(/etc/shadow) with"
                " O(users[].encrypted). Set only when the guest's own C(/etc/shadow) says that it is another one; always set where the"
                " agent cannot read that.", secret=True),
        f.Field("encrypted", None, c.YES_NO, "Whether O(users[].password) is a hash as C(/etc/shadow) has it."),
        f.Field("ssh_keys", None, c.TEXT, "Public keys, whole lines of C(authorized_keys). Others stay.", many=True),
        f.Field("exclusive", None, c.YES_NO, "Whether the keys that O(users[].ssh_keys) does not name are taken away."),
    )),
    f.Field("time", None, c.Choice(words=("host",)), "V(host) has the guest's clock at the host's time. Nothing is done when they are"
            " at most O(time_tolerance) seconds apart."),
    f.Field("trimmed", None, c.YES_NO, "Whether its file systems tell their disks which blocks they do not use. What they tell is no"
            " change of the guest; RV(trimmed_bytes) says how much it was."),
    f.Field("frozen", None, c.YES_NO, "Whether its file systems stand still. While they do, its agent does nothing else; the role"
            " P(anfitrion.kvm.frozen#role) thaws them whatever happens in between."),
    f.Field("mountpoints", None, c.PATH, "Only these file systems are frozen. Without it, all of them.", many=True),
))  # fmt: skip
