# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kvm_confirm: a change that takes itself back unless it is confirmed."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import Pattern
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Table

TOKEN = Pattern(pattern=r"[a-z]+-[0-9a-f]{12}", says="a token as the module that made the change returned it")
CONFIRM = Table(
    "change",
    "",
    "A change that waits to be confirmed.",
    (Field("token", None, TOKEN, "Token that the module which made the change returned, as V(network-0123456789ab).", required=True),),
)
