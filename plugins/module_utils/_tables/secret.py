# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of a secret. Names follow https://libvirt.org/formatsecret.html in snake_case."""

from __future__ import annotations

from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields as f
from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError

# What the secret of each type is for is said in an element of its own.
USAGE = {"volume": "volume", "ceph": "name", "iscsi": "target", "tls": "name", "vtpm": "name"}

TABLE = f.Table(
    noun="secret", root="secret", doc="A secret that libvirt keeps.", rows=(
        f.Field("type", "usage/@type", c.Choice(words=tuple(USAGE)), "What uses the secret.", required=True),
        f.Field("name", None, c.TEXT, "What it is called by those who use it, unique among the secrets of its type.", required=True),
        f.Field("state", None, c.Choice(words=("present", "absent")),
                "What the secret is to be. V(absent) removes it with its value; what is encrypted with it cannot be read"
                " any more without another copy of the value."),
        f.Field("uuid", "uuid", c.UUID, "UUID of the secret. Made by libvirt when it is first defined without one."),
        f.Field("ephemeral", "@ephemeral", c.YES_NO, "Whether the value is only kept in memory, until libvirt's daemon ends."),
        f.Field("private", "@private", c.YES_NO,
                "Whether libvirt never gives the value away again, to nobody. It cannot be changed later."),
        f.Field("description", "description", c.TEXT, "A sentence for people."),
        f.Field("value", None, c.Document(),
                "The value, as text. That of a private secret is told from another by a keyed digest, which is kept in the"
                " description; the key is in C(/etc/libvirt/anfitrion-digest.key), for root only.", secret=True),
        f.Field("value_base64", None, c.Document(), "The value in base64, for one that is not text.", secret=True),
    ),
)  # fmt: skip


def complete(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001  every table's signature
    """Return the wanted options; a secret needs no others."""
    return wanted


def check(wanted: dict[str, Any]) -> None:
    """Raise KvmError for options that cannot stand together."""
    if "value" in wanted and "value_base64" in wanted:
        raise KvmError("value_base64: excludes value, give one of them")


def blank(name: str) -> Any:
    """Return the document of a secret that has nothing but its name; the type says where it stands."""
    tree = _xml.new(TABLE.root)
    _xml.put(tree, "usage/name", name)
    return tree


def put_usage(tree: Any, kind: str, name: str) -> None:
    """Write what the secret is for into the element that its type has for it."""
    _xml.clear(tree, "usage/name")
    _xml.put(tree, "usage/@type", kind)
    _xml.put(tree, f"usage/{USAGE[kind]}", name)


def finish(tree: Any, wanted: dict[str, Any]) -> None:
    """Have a new document say what it is for."""
    put_usage(tree, wanted["type"], wanted["name"])
