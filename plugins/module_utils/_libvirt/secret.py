# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of libvirt: what a task wants of one, and the steps to it. No value is ever shown, logged or kept in clear."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, code, libvirt, told
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.secret import TABLE, check, put_usage

TYPES = ("none", "volume", "ceph", "iscsi", "tls", "vtpm")  # virSecretUsageType, in its order
DIGEST_KEY = "/etc/libvirt/anfitrion-digest.key"
DIGEST = re.compile(r" ?\[anfitrion ([0-9a-f]{32})\]$")
SHOWN = "(not shown)"


def listed(session: Libvirt) -> dict[tuple[str, str], Any]:
    """Return every secret by type and name; listed once a task."""

    def read() -> dict[tuple[str, str], Any]:
        with told("cannot list the secrets"):
            return {(TYPES[one.usageType()], one.usageID()): one for one in session.connection.listAllSecrets(0)}

    found: dict[tuple[str, str], Any] = session.once("secrets", read)
    return found


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one secret as wanted; nothing is written."""
    kind, name = wanted["type"], wanted["name"]
    subject = f"secret {kind}/{name}"
    handle = listed(session).get((kind, name))
    tree = _tree(handle) if handle is not None else None
    if wanted.get("state") == "absent":
        return Plan(subject) if tree is None else _remove(session, subject, (kind, name), tree)
    check(wanted)
    before, digest = _observe(tree)
    differences = list(_fields.differences(TABLE.rows, wanted, before))
    for one in differences:
        if tree is not None and one.option in ("uuid", "private"):
            raise KvmError(f"{one.option}: cannot be changed from {one.before} to {one.after}; remove the secret and make it anew")
    value = _value(wanted)
    stale = value is not None and not _has_value(handle, digest, value)
    if tree is not None and not differences and not stale:
        return Plan(subject)
    changes = [Change(one.option, one.before, one.after, "define") for one in differences]
    if tree is None:
        changes.append(Change("state", None, "present", "define"))
    if stale:
        changes.append(Change("value", None if tree is None else "(another or none)", SHOWN, "define"))
    return Plan(subject, tuple(changes), tuple(_steps(session, wanted, tree, value if stale else None, digest)))


def _tree(handle: Any) -> Any:
    with told("cannot read the secret"):
        return _xml.parse(handle.XMLDesc(0))


def _observe(tree: Any | None) -> tuple[dict[str, Any], str | None]:
    """Return the options of a secret, the description as its user wrote it, and the digest of its value."""
    if tree is None:
        return {}, None
    found = _fields.read(TABLE.rows, tree)
    match = DIGEST.search(found.get("description", ""))
    if match:
        found["description"] = found["description"][: match.start()]
        if not found["description"]:
            del found["description"]
    return found, match.group(1) if match else None


def _value(wanted: dict[str, Any]) -> bytes | None:
    if "value_base64" in wanted:
        try:
            return base64.b64decode(wanted["value_base64"], validate=True)
        except binascii.Error:
            raise KvmError("value_base64: is not base64") from None
    return wanted["value"].encode() if "value" in wanted else None


def _has_value(handle: Any | None, digest: str | None, value: bytes) -> bool:
    """Tell whether a secret has a value: by reading it, or by its digest where libvirt does not give it away."""
    if handle is None:
        return False
    try:
        return bool(handle.value(0) == value)
    except libvirt.libvirtError as error:
        if code(error) == libvirt.VIR_ERR_NO_SECRET:
            return False
        if code(error) != libvirt.VIR_ERR_INVALID_SECRET:  # which says that it is private
            raise KvmError(f"cannot compare the value: {error.get_error_message()}") from error
    key = _digest_key(make=False)
    return key is not None and digest is not None and hmac.compare_digest(digest, _digest(key, handle.UUIDString(), value))


def _digest(key: bytes, uuid: str, value: bytes) -> str:
    return hmac.new(key, uuid.encode() + value, hashlib.sha256).hexdigest()[:32]


def _digest_key(make: bool) -> bytes | None:
    """Return the key of the digests of this host; without it, a digest would tell a guessed value from a wrong one."""
    try:
        if make:
            handle = os.open(DIGEST_KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(os.urandom(32))
    except FileExistsError:
        pass
    except OSError as error:
        raise KvmError(f"{DIGEST_KEY}: {error.strerror}") from error
    try:
        with open(DIGEST_KEY, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KvmError(f"{DIGEST_KEY}: {error.strerror}") from error


def _steps(session: Libvirt, wanted: dict[str, Any], tree: Any | None, value: bytes | None, digest: str | None) -> list[Step]:
    key = (wanted["type"], wanted["name"])
    fresh = tree if tree is not None else _xml.new(TABLE.root)
    after = _xml.copy(fresh)
    put_usage(after, *key)
    _fields.write(TABLE.rows, after, wanted)
    private = _xml.get(after, "@private")[0] == "yes"
    words = wanted.get("description", _observe(tree)[0].get("description", ""))

    def define() -> None:
        kept = digest if value is None else None
        text = _described(after, words, kept)
        with told("libvirt refused the secret"):
            handle = listed(session)[key] = session.connection.secretDefineXML(text, 0)
        if value is None:
            return
        with told("cannot set the value"):
            handle.setValue(value, 0)
        if private:
            # Only a value that is in place is vouched for.
            mark = _digest(_digest_key(make=True) or b"", handle.UUIDString(), value)
            with told("libvirt refused the secret"):
                _xml.put(after, "uuid", handle.UUIDString())
                listed(session)[key] = session.connection.secretDefineXML(_described(after, words, mark), 0)

    def undo() -> None:
        with told("cannot take the secret back"):
            if tree is None:
                listed(session).pop(key).undefine()
            else:
                session.connection.secretDefineXML(_xml.text_of(tree), 0)

    # The old value of a secret that is not new is gone, or was never to be read.
    return [Step(f"define secret {key[0]}/{key[1]}", define, undo if tree is None or value is None else None)]


def _described(tree: Any, words: str, digest: str | None) -> str:
    done = _xml.copy(tree)
    text = f"{words} [anfitrion {digest}]".strip() if digest else words
    if text:
        _xml.put(done, "description", text)
    else:
        _xml.clear(done, "description")
    return _xml.text_of(done)


def _remove(session: Libvirt, subject: str, key: tuple[str, str], tree: Any) -> Plan:
    def undefine() -> None:
        with told("cannot remove the secret"):
            listed(session).pop(key).undefine()

    del tree
    return Plan(subject, (Change("state", "present", "absent", "remove"),), (Step(f"remove secret {key[0]}/{key[1]}", undefine),))


def read_all(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return the options of every secret, or of those of that name; never a value."""
    found = [
        {"type": kind, "name": one, "state": "present", **_observe(_tree(handle))[0]}
        for (kind, one), handle in sorted(listed(session).items()) if name in (None, one)
    ]  # fmt: skip
    if name is not None and not found:
        raise KvmError(f"secret {name!r} does not exist on this host")
    return found


SECRET = Kind(
    table=TABLE, plural="secrets", key=("type", "name"), open=Libvirt, plan=plan, read=read_all,
    options=(URI,), info_options=(URI,), imports=(LIBVIRT, LXML),
)  # fmt: skip
