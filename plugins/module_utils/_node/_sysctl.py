# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel parameters under /proc/sys: what runs, what the next boot sets, and who else sets it."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import rivals
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._part import (
    LIVE,
    Part,
    Write,
    persisted_changes,
    together,
    write_step,
)
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import HEADER, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Step

OURS = "/etc/sysctl.d/90-anfitrion-kvm.conf"
# sysctl.d(5): one file per name, the first directory wins; the files are then read in the order of their names.
DIRECTORIES = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")


def values(text: str | None) -> dict[str, str]:
    """Return the parameters that a sysctl.d file sets."""
    found = re.findall(r"^\s*-?([A-Za-z0-9_./*-]+?)\s*=\s*(.*?)\s*$", text or "", re.MULTILINE)
    return {name.replace("/", "."): value for name, value in found}


def setters(root: Root, name: str) -> list[tuple[str, str]]:
    """Return (file, value) of every file that sets a parameter at boot, in the order they are read: the last one wins."""
    files: dict[str, str] = {}
    for directory in DIRECTORIES:
        for file in root.list(directory):
            if file.endswith(".conf"):
                files.setdefault(file, f"{directory}/{file}")
    found = [(path, values(root.text(path)).get(name)) for _file, path in sorted(files.items())]
    # Debian's procps reads it last, unless sysctl.d links to it
    if "99-sysctl.conf" not in files:
        found.append(("/etc/sysctl.conf", values(root.text("/etc/sysctl.conf")).get(name)))
    return [(path, value) for path, value in found if value is not None]


def text_of(parameters: dict[str, str]) -> str:
    """Return our file."""
    return HEADER + "".join(f"{name} = {parameters[name]}\n" for name in sorted(parameters))


def part(root: Root, option: str, name: str, value: str) -> Part:
    """Return what it takes that a parameter has this value now and after a reboot.

    Raises KvmError when another file, read after ours, or the tuned profile sets something else.
    """
    foreign = [(path, other) for path, other in setters(root, name) if path != OURS]
    later = [(path, other) for path, other in foreign if path.rsplit("/", 1)[-1] > OURS.rsplit("/", 1)[-1]]
    later += [rivals.sysctl_of_tuned(root)[name]] if name in rivals.sysctl_of_tuned(root) else []
    if later and later[-1][1] != value:
        path, other = later[-1]
        raise KvmError(f"{option}: {path} sets {name} to {other} at boot, after our {OURS}; remove that line")
    return together(now(root, option, name, value), kept(root, {name: value}))


def now(root: Root, option: str, name: str, value: str) -> Part:
    """Return what it takes that the running kernel has this value; nothing where it has no such parameter."""
    path = f"/proc/sys/{name.replace('.', '/')}"
    running = root.read(path)
    if running is None or running == value:
        return Part()
    return Part((Change(option, running, value, LIVE),), (write_step(root, Write(path, value, running)),))


def kept(root: Root, wanted: dict[str, str | None]) -> Part:
    """Return what it takes that our file sets these parameters (None: does not); what else it sets stays.

    The file is edited when the step is done, since another knob of the same task may be in it too.
    """
    before = values(root.text(OURS))
    after = {name: value for name, value in {**before, **wanted}.items() if value is not None}
    told = tuple(persisted_changes("", before, after))
    if not told:
        return Part()
    step = Step(f"write {OURS}", partial(_edit, root, wanted), partial(_edit, root, {name: before.get(name) for name in wanted}))
    return Part(told, (step,))


def _edit(root: Root, wanted: dict[str, str | None]) -> None:
    after = {name: value for name, value in {**values(root.text(OURS)), **wanted}.items() if value is not None}
    if after:
        root.place(OURS, text_of(after))
    else:
        root.remove(OURS)


def several(root: Root, section: str, rows: dict[str, str], wanted: dict[str, Any]) -> Part:
    """Return what it takes that the options of a section are as wanted; C(rows): parameter by option."""
    parts = []
    for option, value in wanted.items():
        if not root.exists(f"/proc/sys/{rows[option].replace('.', '/')}"):
            raise KvmError(f"{section}.{option}: this kernel has no {rows[option]}; leave the option out")
        parts.append(now(root, f"{section}.{option}", rows[option], str(value)))
        part(root, f"{section}.{option}", rows[option], str(value))  # names a second writer
    return together(*parts, kept(root, {rows[option]: str(value) for option, value in wanted.items()}))


def give_back(root: Root, options: dict[str, str], found: dict[str, Any]) -> Part:
    """Return what it takes that parameters are as they were found; C(options): parameter by option, with its section."""
    parts = [now(root, option, options[option], str(value)) for option, value in found.items() if option in options]
    return together(*parts, kept(root, dict.fromkeys(options.values())))
