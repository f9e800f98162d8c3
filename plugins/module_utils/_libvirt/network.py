# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual networks: what a task wants of one, and the steps to it."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import activity
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.activity import Rules
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.network_guests import restart_steps, users
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.network_host import FAMILY, definitions, preflight
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.network_live import live
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.objects import persistent_xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.network import (
    TABLE,
    carry,
    check_result,
    complete,
    completed,
    short,
    tidy,
)

RESTART = _fields.Field(
    "restart", None, c.YES_NO,
    "Whether to stop and start an active network for options that it takes only when it starts. Its running guests are"
    " without it for some seconds; then their interfaces are put back on the bridge, which is verified. Refused where they"
    " would not come back (virtual functions, macvtap).", default=False,
)  # fmt: skip
LEASES = _fields.Field("leases", None, c.YES_NO, "Whether to tell the addresses that guests got by DHCP too.", default=False)


def read_back(tree: Any) -> Any:
    """Return what libvirt makes of a definition, asked of its test driver: the daemon is not touched."""
    with told("xml: libvirt refuses it"):
        connection = libvirt.open("test:///default")
        try:
            for handle in connection.listAllNetworks():
                handle.destroy()
                handle.undefine()
            done = _xml.parse(connection.networkDefineXML(_xml.text_of(tree)).XMLDesc(0))
        finally:
            connection.close()
    completed(done, tree)
    return done


RULES = Rules(
    family=FAMILY, complete=complete, check=check_result, tidy=tidy, preflight=preflight, users=users, live=live,
    restart=restart_steps, read_back=read_back, carry=carry,
)  # fmt: skip


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one network as wanted; nothing is written."""
    if wanted.get("state") == "absent":
        definitions(session).pop(wanted["name"], None)
    return activity.plan(session, RULES, wanted)


def read_all(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return the options of every network, or of the named one; xml is the whole definition where options do not say it all."""
    found = []
    for options in activity.read_all(session, FAMILY, name):
        tree = persistent_xml(session, FAMILY, FAMILY.listed(session)[options["name"]])
        more = {} if session.driver == "test" or _says_all(options, tree) else {"xml": _xml.text_of(tree)}
        found.append(_ordered(short({**options, **more})))
    return found


def _says_all(options: dict[str, Any], tree: Any) -> bool:
    """Tell whether a network made from the options would be this one."""
    made = _xml.new(TABLE.root)
    _xml.put(made, "name", options["name"])
    try:
        wanted = _fields.normal(TABLE.rows, options)
        _fields.write(TABLE.rows, made, complete(wanted, {}))
        return bool(_xml.canonical(read_back(made)) == _xml.canonical(read_back(tree)))
    except KvmError:
        return False  # an older definition may hold what we would not write


def _ordered(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options in the order of the table, as a person would write them."""
    names = [row.name for row in TABLE.rows]
    return {name: options[name] for name in names if options.get(name) is not None}


def leases(session: Libvirt) -> dict[str, Any]:
    """Return the leases of each active network, by its name, if they are asked for."""
    if not session.params.get("leases") or session.driver == "test":
        return {}
    asked = session.params.get("name")
    with told("cannot read the leases"):
        active = {name: handle for name, handle in session.networks().items() if name in (asked or name,) and handle.isActive()}
        return {"leases": {name: [_lease(one) for one in handle.DHCPLeases()] for name, handle in sorted(active.items())}}


def _lease(found: dict[str, Any]) -> dict[str, Any]:
    names = {"mac": "mac", "ipaddr": "ip", "prefix": "prefix", "hostname": "name", "clientid": "id", "expirytime": "expires"}
    return {ours: found[theirs] for theirs, ours in names.items() if found.get(theirs) is not None}


NETWORK = Kind(
    table=TABLE, plural="networks", key=("name",), open=Libvirt, plan=plan, read=read_all, facts=leases,
    options=(URI, RESTART), info_options=(URI, LEASES), imports=(LIBVIRT, LXML),
)  # fmt: skip
