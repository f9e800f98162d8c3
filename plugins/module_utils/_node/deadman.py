# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that takes itself back unless somebody confirms it in time: for what can lock the operator out of the host.

What is to be put back is kept below /var/lib before anything is changed, with a shell script that does it: whatever happens to the
task, its connection or its Python, the script needs none of them. Three things run it: a timer of systemd (a process of its
own where systemd is not PID 1), the module when a later step fails, and a unit early in the boot, for an operator who
is locked out may well switch the host off and on. Whoever renames the directory first, who confirms or the script, has won.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import ssh, timer
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root

DIRECTORY = "/var/lib/anfitrion/deadman"
UNIT = "anfitrion-deadman.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
UNIT_LINK = f"/etc/systemd/system/sysinit.target.wants/{UNIT}"
# The files are put back before anything reads them, so that a boot needs no commands.
UNIT_TEXT = f"""{HEADER}[Unit]
Description=Take back what was changed and not confirmed before this boot
DefaultDependencies=no
ConditionPathExistsGlob=|{DIRECTORY}/*.armed
ConditionPathExistsGlob=|{DIRECTORY}/*.running
RequiresMountsFor=/etc {DIRECTORY}
After=local-fs.target
Before=network-pre.target sysinit.target nftables.service firewalld.service anfitrion-firewall.service
Wants=network-pre.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for one in {DIRECTORY}/*.armed {DIRECTORY}/*.running; do [ ! -e "$one" ] || sh "$one/restore" boot; done'

[Install]
WantedBy=sysinit.target
"""
ARMED, RUNNING, TAKEN_BACK, CONFIRMED = "armed", "running", "taken_back", "confirmed"
STATES = (ARMED, RUNNING, TAKEN_BACK, CONFIRMED)


@dataclass(frozen=True)
class Restore:
    """What takes a change back.

    paths: files and links as they are now, or that they are not there. Both lists are lines of shell, run in a directory that
    holds C(texts), files by name; one that fails does not stop the others. before: while the changed files are still there;
    after: when the old ones are back. boot: instead of both of them, when the host was started anew meanwhile.
    """

    paths: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    boot: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """What became of the last change of a name. seconds_left: until it is taken back; said: what its script said."""

    token: str
    state: str
    seconds_left: int | None = None
    said: str = ""


def new_token(name: str) -> str:
    """Return a token for a change, C(NAME-12 hex digits); arm() takes it."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def name_of(token: str) -> str:
    return token.rpartition("-")[0]


def state(root: Root, name: str) -> State | None:
    """Return what became of the last change of a name; None if there was none."""
    for word in STATES:
        token = root.read(f"{DIRECTORY}/{name}.{word}/token")
        if token is not None:
            said = root.read(f"{DIRECTORY}/{name}.{word}/said") or ""
            return State(token, word, _left(root, f"{DIRECTORY}/{name}.{word}") if word == ARMED else None, said)
    return None


def _left(root: Root, place: str) -> int:
    end, boot = (root.read(f"{place}/end") or "0 ?").split()
    return max(0, round(float(end) - _uptime(root))) if boot == _boot(root) else 0


def _uptime(root: Root) -> float:
    return float((root.read("/proc/uptime") or "0").split()[0])


def _boot(root: Root) -> str:
    return root.read("/proc/sys/kernel/random/boot_id") or "-"


def refuse_armed(root: Root, name: str) -> None:
    """Raise KvmError while a change of this name waits to be confirmed: the next would be taken back with it."""
    now = state(root, name)
    if now is not None and now.state in (ARMED, RUNNING):
        told = f"waits to be confirmed, {now.seconds_left} s are left" if now.state == ARMED else "is being taken back just now"
        raise KvmError(f"an earlier change ({now.token}) {told}; confirm it with anfitrion.kvm.kvm_confirm, or wait")


def arm(root: Root, token: str, restore: Restore, seconds: int) -> None:
    """Have everything put back in C(seconds), unless the token is confirmed before. Call it before the first change."""
    name = name_of(token)
    refuse_armed(root, name)
    draft, armed = f"{DIRECTORY}/{name}.draft", f"{DIRECTORY}/{name}.{ARMED}"
    for place in (draft, *(f"{DIRECTORY}/{name}.{word}" for word in (TAKEN_BACK, CONFIRMED))):
        shutil.rmtree(root.at(place), ignore_errors=True)
    root.place(f"{draft}/token", f"{token}\n", 0o600)
    root.place(f"{draft}/end", f"{_uptime(root) + seconds} {_boot(root)}\n", 0o600)
    over = ssh.connection(root)
    root.place(f"{draft}/connections", json.dumps({"over": over and over.peer, "connected": ssh.connected(root)}), 0o600)
    for file, text in restore.texts.items():
        root.place(f"{draft}/{file}", text, 0o600)
    for number, path in enumerate(restore.paths):
        if root.exists(path):
            _copy(root.at(path), root.at(f"{draft}/kept.{number}"))
    root.place(f"{draft}/restore", _script(root, name, restore), 0o700)
    os.chmod(root.at(draft), 0o700)
    root.place(UNIT_FILE, UNIT_TEXT)
    root.point(UNIT_LINK, UNIT_FILE)
    os.rename(root.at(draft), root.at(armed))
    os.sync()  # the host may be switched off as soon as it does not answer
    timer.start(root, _timer(name), f"exec /bin/sh {shlex.quote(root.at(armed))}/restore live", seconds)


def _copy(path: str, to: str) -> None:
    """Copy a file with its owner and mode, or a link as a link."""
    try:
        shutil.copy2(path, to, follow_symlinks=False)
        found = os.lstat(path)
        os.chown(to, found.st_uid, found.st_gid, follow_symlinks=False)
    except OSError as error:
        raise KvmError(f"{path}: cannot be kept aside: {error.strerror}") from error


def _script(root: Root, name: str, restore: Restore) -> str:
    """Return the script that puts everything back; its argument: live or boot."""
    stem = root.at(f"{DIRECTORY}/{name}")
    lines = ["#!/bin/sh", "# Written by anfitrion.kvm. To take the change back by hand: sh restore live"]
    lines += ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH LC_ALL=C"]
    # A boot goes on with what was cut off.
    again = f'{{ [ "$1" = boot ] && [ -e {shlex.quote(stem)}.{RUNNING} ]; }}'
    lines += [f"mv -T {shlex.quote(stem)}.{ARMED} {shlex.quote(stem)}.{RUNNING} 2>/dev/null || {again} || exit 3 # confirmed, or taken back already"]
    lines += [f"cd {shlex.quote(stem)}.{RUNNING} || exit 4", "exec > said 2>&1"]
    lines += [*_block("live", restore.before)]
    for number, path in enumerate(restore.paths):
        here = shlex.quote(root.at(path))
        if root.exists(path):
            lines += [f"mkdir -p {shlex.quote(os.path.dirname(root.at(path)))}"]
            lines += [f"cp -a kept.{number} {here}.anfitrion-old && mv -fT {here}.anfitrion-old {here}"]
        else:
            lines += [f"rm -f {here}"]
    lines += ["sync", *_block("live", restore.after), *_block("boot", restore.boot)]
    unit, link = shlex.quote(root.at(UNIT_FILE)), shlex.quote(root.at(UNIT_LINK))
    lines += [f"ls -d {shlex.quote(root.at(DIRECTORY))}/*.{ARMED} >/dev/null 2>&1 || rm -f {unit} {link}"]
    lines += [f"mv -T {shlex.quote(stem)}.{RUNNING} {shlex.quote(stem)}.{TAKEN_BACK}"]
    return "\n".join(lines) + "\n"


def _block(when: str, commands: tuple[str, ...]) -> list[str]:
    return [f'if [ "$1" = {when} ]; then', *commands, "fi"] if commands else []


def _timer(name: str) -> str:
    return f"anfitrion-deadman-{name}"


def refuse_old_connection(root: Root, token: str) -> None:
    """Raise KvmError if this task came by a connection that was there before the change: it may live on although no new one comes through."""
    seen = json.loads(root.read(f"{DIRECTORY}/{name_of(token)}.{ARMED}/connections") or "{}")
    if seen:
        ssh.refuse_old(root, seen["over"], seen["connected"])


def confirm(root: Root, token: str) -> None:
    """Let a change stay; once confirmed it may be confirmed again. Raises KvmError if it was taken back, or was never made."""
    name = name_of(token)
    now = state(root, name)
    if now is not None and now.token == token and now.state == CONFIRMED:
        return
    if now is not None and now.token == token and now.state == ARMED:
        try:
            os.rename(root.at(f"{DIRECTORY}/{name}.{ARMED}"), root.at(f"{DIRECTORY}/{name}.{CONFIRMED}"))
        except FileNotFoundError:
            now = state(root, name)
        else:
            _forget(root, name)
            return
    raise KvmError(unconfirmed(now, token))


def unconfirmed(now: State | None, token: str) -> str:
    """Return why a change cannot be confirmed any more."""
    if now is None or now.token != token:
        return f"no change with the token {token} waits to be confirmed on this host"
    said = f": {now.said.replace(chr(10), '; ')}" if now.said else ""
    return f"the change {token} was not confirmed in time and {'is being' if now.state == RUNNING else 'has been'} taken back{said}"


def _forget(root: Root, name: str) -> None:
    """Stop the timer and throw away what was kept; that the change was confirmed is remembered."""
    timer.stop(root, _timer(name))
    place = f"{DIRECTORY}/{name}.{CONFIRMED}"
    for file in root.list(place):
        if file != "token":
            root.remove(f"{place}/{file}")
    if not any(one.endswith(f".{ARMED}") for one in root.list(DIRECTORY)):
        root.remove(UNIT_LINK)
        root.remove(UNIT_FILE)


def take_back(root: Root, token: str) -> None:
    """Put everything back now: the way back of a step that failed. Raises KvmError with what could not be put back."""
    name = name_of(token)
    done = root.run(["/bin/sh", root.at(f"{DIRECTORY}/{name}.{ARMED}/restore"), "live"], timeout=300)
    timer.stop(root, _timer(name))
    now = state(root, name)
    if now is None or now.token != token or now.state != TAKEN_BACK:
        raise KvmError(f"taking back the change {token} ended with {done.rc} ({now.state if now else 'nothing is known of it'})")
