# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of kvm_confirm: a change that takes itself back unless it is confirmed."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils._codecs import Pattern

TOKEN = Pattern(pattern=r"[a-z]+-[0-9a-f]{12}", says="a token as the module that made the change returned it")
CONFIRM = f.Table(
    "change",
    "",
    "A change that waits to be confirmed.",
    (f.Field("token", None, TOKEN, "Token that the module which made the change returned, as V(network-0123456789ab).", required=True),),
)
