# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task wants inside a guest, through its agent: accounts, time, file systems; and what the guest says of itself."""

from __future__ import annotations

import ctypes
import ctypes.util
import time
from base64 import b64decode
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import agent
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.connection import LIBVIRT, URI, Libvirt, libvirt, told, words
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step
from ansible_collections.anfitrion.kvm.plugins.module_utils._run import LXML, Kind
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.agent import TABLE

PULSE_S = 0.5
KEYS_APPEND, KEYS_REMOVE = 1, 2  # virDomainAuthorizedSSHKeysSetFlags
SHADOW = "/etc/shadow"
LONGEST_SHADOW = 1 << 20

ANSWER = _fields.Field("answer_timeout", None, c.Integer(low=1, high=86400), "Seconds that the agent gets for each answer; freezing and"
                       " trimming can take long.", default=30)  # fmt: skip
OPTIONS = (
    URI,
    _fields.Field("wait_timeout", None, c.Integer(), "Seconds to wait for the agent to answer at all, V(0) to fail at once.", default=60),
    ANSWER,
    _fields.Field("time_tolerance", None, c.Integer(low=1), "Seconds that the guest's clock may be off.", default=2),
)


def plan(session: Libvirt, wanted: dict[str, Any]) -> Plan:
    """Return what it takes to have one guest as wanted inside; nothing is written."""
    name = wanted["name"]
    handle = session.domains().get(name)
    if handle is None:
        raise KvmError("it does not exist on this host")
    others = sorted(set(wanted) - {"name", "frozen", "mountpoints"})
    if wanted.get("frozen") is not None and others:
        raise KvmError(f"frozen: goes in a task of its own, without {', '.join(others)}; a frozen guest's agent does nothing else")
    _wait(session, handle)
    state = _ask(session, handle, "guest-fsfreeze-status") if "frozen" in wanted else None
    changes: list[Change] = []
    steps: list[Step] = []
    if state == "frozen" and wanted["frozen"] is False:
        steps.append(_freeze_step(session, handle, False, None))
        changes.append(Change("frozen", True, False, "live"))
    for user in wanted.get("users", []):
        for change, step in _user(session, handle, user):
            changes.append(change)
            steps.append(step)
    drift = _drift(session, handle) if wanted.get("time") == "host" else 0
    if abs(drift) > session.params["time_tolerance"]:
        changes.append(Change("time", f"{drift:+d} s", "host", "live"))
        steps.append(_time_step(handle))
    facts: dict[str, Any] = {}
    trim = (_trim_step(session, handle, facts),) if wanted.get("trimmed") else ()
    if wanted.get("frozen") and state != "frozen":
        changes.append(Change("frozen", False, True, "live"))
        steps.append(_freeze_step(session, handle, True, wanted.get("mountpoints")))
    return Plan(f"guest {name}", tuple(changes), tuple(steps), facts=facts, waits=trim)


def _wait(session: Libvirt, handle: Any) -> None:
    """Return once the agent answers. Raises KvmError with the last reason when it does not in time."""
    patience = session.params["wait_timeout"]
    deadline = time.monotonic() + patience
    with told("cannot set how long the agent may take"):
        if not handle.isActive():
            raise KvmError("it does not run, so its agent cannot answer")
    while True:
        try:
            agent.ping(handle, min(5, max(1, patience)))
        except libvirt.libvirtError as error:
            if time.monotonic() > deadline:
                raise KvmError(f"its agent did not answer within {patience} s: {words(error)}") from error
            time.sleep(PULSE_S)
        else:
            return


def _ask(session: Libvirt, handle: Any, command: str, **arguments: Any) -> Any:
    with told(f"{command}: the agent did not do it"):
        return agent.ask(handle, command, session.params["answer_timeout"], **arguments)


# Accounts ---------------------------------------------------------------------------------------------------------------


def _user(session: Libvirt, handle: Any, user: dict[str, Any]) -> list[tuple[Change, Step]]:
    """Return what one account takes."""
    name, gone = user["name"], user.get("state") == "absent"
    done = []
    if "password" in user:
        if gone:
            raise KvmError(f"users[{name}].password: cannot be taken away; state: absent takes ssh_keys away")
        if not _has_password(session, handle, user):
            change = Change(f"users[{name}].password", "(secret)", "(secret)", "live")
            done.append((change, _password_step(handle, user)))
    if "ssh_keys" in user:
        done += _keys(handle, user, gone)
    return done


def _has_password(session: Libvirt, handle: Any, user: dict[str, Any]) -> bool:
    """Tell whether the guest's own shadow file says that the account has this password."""
    kept = _shadow(session, handle).get(user["name"], "")
    if user.get("encrypted"):
        return bool(kept == user["password"])
    return bool(kept) and _crypt(user["password"], kept) == kept


def _shadow(session: Libvirt, handle: Any) -> dict[str, str]:
    """Return the password hashes that the guest keeps; none where its agent must not read them."""
    seconds = session.params["answer_timeout"]
    try:
        number = agent.ask(handle, "guest-file-open", seconds, path=SHADOW, mode="r")
    except libvirt.libvirtError:
        return {}
    try:
        read = agent.ask(handle, "guest-file-read", seconds, handle=number, count=LONGEST_SHADOW)
        agent.ask(handle, "guest-file-close", seconds, handle=number)
    except libvirt.libvirtError:
        return {}
    lines = b64decode(read["buf-b64"]).decode(errors="replace").splitlines()
    return {line.split(":")[0]: line.split(":")[1] for line in lines if line.count(":") > 1}


def _crypt(password: str, kept: str) -> str | None:
    """Return the hash of a password with method and salt of another (crypt(3)), None where the host has no libcrypt."""
    path = ctypes.util.find_library("crypt")
    if path is None:
        return None
    library = ctypes.CDLL(path)
    library.crypt.restype = ctypes.c_char_p
    made = library.crypt(password.encode(), kept.encode())
    return made.decode() if made else None


def _password_step(handle: Any, user: dict[str, Any]) -> Step:
    flags = libvirt.VIR_DOMAIN_PASSWORD_ENCRYPTED if user.get("encrypted") else 0

    def put() -> None:
        with told(f"users[{user['name']}].password: the guest did not take it"):
            handle.setUserPassword(user["name"], user["password"], flags)

    return Step(f"set the password of {user['name']}", put)


def _keys_now(handle: Any, option: str, name: str) -> list[str]:
    """Return the keys that an account has; the agent calls it an error when it never had a file of them."""
    try:
        return list(handle.authorizedSSHKeysGet(name, 0) or [])
    except libvirt.libvirtError as error:
        if "No such file or directory" in words(error):
            return []
        raise KvmError(f"{option}: the guest did not tell them: {words(error)}") from error


def _keys(handle: Any, user: dict[str, Any], gone: bool) -> list[tuple[Change, Step]]:
    name, keys = user["name"], [key.strip() for key in user["ssh_keys"]]
    option = f"users[{name}].ssh_keys"
    found = _keys_now(handle, option, name)
    if gone:
        after = [key for key in found if key not in keys]
    else:
        after = keys if user.get("exclusive") else [*found, *(key for key in keys if key not in found)]
    if set(after) == set(found):
        return []

    def setter(lines: list[str], before: list[str]) -> None:
        with told(f"{option}: the guest did not take them"):
            if lines:
                handle.authorizedSSHKeysSet(name, lines, 0)
            else:
                handle.authorizedSSHKeysSet(name, before, KEYS_REMOVE)

    step = Step(f"set the ssh keys of {name}", lambda: setter(after, found), lambda: setter(found, after))
    return [(Change(option, found, after, "live"), step)]


# Time and file systems ------------------------------------------------------------------------------------------------------


def _drift(session: Libvirt, handle: Any) -> int:
    """Return how many seconds the guest's clock is ahead of the host's."""
    return round(int(_ask(session, handle, "guest-get-time")) / 1e9 - time.time())


def _time_step(handle: Any) -> Step:
    def put() -> None:
        with told("time: the guest did not take it"):
            now = time.time()
            handle.setTime({"seconds": int(now), "nseconds": int(now % 1 * 1e9)}, 0)

    return Step("set the guest's clock", put)


def _freeze_step(session: Libvirt, handle: Any, freeze: bool, mountpoints: list[str] | None) -> Step:
    def turn(on: bool) -> None:
        with told(f"frozen: the guest did not {'freeze' if on else 'thaw'} its file systems"):
            handle.agentSetResponseTimeout(session.params["answer_timeout"], 0)
            try:
                handle.fsFreeze(mountpoints, 0) if on else handle.fsThaw(None, 0)
            finally:
                handle.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)

    def do() -> None:
        try:
            turn(freeze)
        except KvmError:
            if freeze:  # some may stand still already
                turn(False)
            raise

    return Step("freeze its file systems" if freeze else "thaw its file systems", do, lambda: turn(not freeze))


def _trim_step(session: Libvirt, handle: Any, facts: dict[str, Any]) -> Step:
    def trim() -> None:
        paths = _ask(session, handle, "guest-fstrim")["paths"]
        facts["trimmed_bytes"] = sum(one.get("trimmed", 0) for one in paths)

    return Step("trim its file systems", trim)


# What the guest says of itself --------------------------------------------------------------------------------------------------


def read_all(session: Libvirt, name: str | None) -> list[dict[str, Any]]:
    """Return what each running guest's agent tells, or that of the named one; C(agent) says whether it answered."""
    if name is not None and name not in session.domains():
        raise KvmError(f"domain {name!r} does not exist on this host")
    handles = [session.domains()[one] for one in sorted(session.domains()) if name in (None, one)]
    return [_told(session, handle) for handle in handles if name is not None or handle.ID() != -1]


def _told(session: Libvirt, handle: Any) -> dict[str, Any]:
    seconds = session.params["answer_timeout"]
    try:
        agent.ping(handle, min(5, seconds))
        handle.agentSetResponseTimeout(seconds, 0)
        try:
            facts = nested(handle.guestInfo(0, 0))
        finally:
            handle.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)
    except libvirt.libvirtError as error:
        return {"name": handle.name(), "agent": False, "reason": words(error)}
    addresses = [one["addr"] for nic in facts.get("interfaces", []) for one in nic.get("addresses", [])]
    return {"name": handle.name(), "agent": True, **facts, "addresses": addresses}


PLURALS = {
    "user": "users", "fs": "file_systems", "disk": "disks", "if": "interfaces", "addr": "addresses", "alias": "aliases",
    "dependency": "dependencies",
}  # fmt: skip


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Return libvirt's typed parameters, such as C(fs.0.mountpoint), as dictionaries and lists."""
    tree: dict[str, Any] = {}
    for name, value in sorted(flat.items()):
        parts = name.split(".")
        here = tree
        for part in parts[:-1]:
            here = here.setdefault(part, {})
        here[parts[-1]] = value
    done: dict[str, Any] = _listed(tree)
    return done


def _listed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    done = {}
    for name, value in node.items():
        if isinstance(value, dict) and "count" in value:
            items = [_listed(value[str(number)]) for number in range(value["count"]) if str(number) in value]
            done[PLURALS.get(name, f"{name}s")] = items
        else:
            done[name] = _listed(value)
    return done


AGENT = Kind(
    table=TABLE, plural="guests", key=("name",), open=Libvirt, plan=plan, read=read_all, options=OPTIONS,
    info_options=(URI, ANSWER), imports=(LIBVIRT, LXML), at_once=4,
)  # fmt: skip
