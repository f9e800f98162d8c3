# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else writes a knob at boot: lines of tmpfiles.d and of the active tuned profile. Reads only."""

from __future__ import annotations

import re

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

TMPFILES = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d")
ACTIVE_PROFILE = "/etc/tuned/active_profile"
PROFILES = ("/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned")
DEEPEST = 10  # profiles include each other

Writer = tuple[str, str]  # file, value


def tmpfiles(root: Root, path: str, ours: str) -> list[Writer]:
    """Return the lines of tmpfiles.d files that are not ours and write a path."""
    files: dict[str, str] = {}
    for directory in TMPFILES:
        for file in root.list(directory):
            if file.endswith(".conf"):
                files.setdefault(file, f"{directory}/{file}")
    pattern = re.compile(rf"^[wfF]\+?[!=-]*\s+{re.escape(path)}\s+\S+\s+\S+\s+\S+\s+\S+\s+(.*?)\s*$", re.MULTILINE)
    found = [(file, pattern.findall(root.text(file) or "")) for file in files.values() if file != ours]
    return [(file, values[-1]) for file, values in found if values]


def refuse_tmpfiles(root: Root, option: str, path: str, value: str, ours: str) -> None:
    """Raise KvmError that names a tmpfiles.d file which writes another value than ours."""
    for file, other in tmpfiles(root, path, ours):
        if other != value:
            raise KvmError(f"{option}: {file} writes {other} to {path} at boot; remove that line, one file is to own it")


def profile(root: Root) -> str | None:
    """Return the profile that tuned applies at boot; None where it applies none."""
    started = any("tuned.service" in root.list(f"/etc/systemd/system/{target}.wants") for target in ("multi-user.target", "sysinit.target"))
    return (root.read(ACTIVE_PROFILE) or None) if started else None


def tuned_settings(root: Root) -> dict[tuple[str, str], Writer]:
    """Return (section, option) -> (file, value) of the active tuned profile, what it includes beneath it."""
    found: dict[tuple[str, str], Writer] = {}
    for name in (profile(root) or "").split():
        found.update(_settings(root, name, DEEPEST))
    return found


def _settings(root: Root, name: str, depth: int) -> dict[tuple[str, str], Writer]:
    path = next((f"{place}/{name}/tuned.conf" for place in PROFILES if root.exists(f"{place}/{name}/tuned.conf")), None)
    own: dict[tuple[str, str], Writer] = {}
    below: dict[tuple[str, str], Writer] = {}
    section = ""
    for line in (root.text(path) or "").splitlines() if path else []:
        head = re.match(r"\s*\[([^\]]+)\]", line)
        section = head[1] if head else section
        entry = re.match(r"\s*([^#;=\[\s][^=]*?)\s*=\s*>?\s*(.*?)\s*$", line)
        if entry and section == "main" and entry[1] == "include" and depth:
            for other in re.split(r"[\s,]+", entry[2]):
                below.update(_settings(root, other, depth - 1))
        elif entry and path:
            own[section, entry[1]] = (path, entry[2])
    return {**below, **own}


def refuse_tuned(root: Root, option: str, section: str, name: str, value: str) -> None:
    """Raise KvmError that names the tuned profile which sets another value."""
    path, other = tuned_settings(root).get((section, name), ("", value))
    if other != value:
        told = f"the tuned profile {profile(root)} sets {name} to {other} ({path})"
        raise KvmError(f"{option}: {told}; choose another profile, or leave the option out")


def sysctl_of_tuned(root: Root) -> dict[str, Writer]:
    """Return the kernel parameters that tuned sets over those of sysctl.d; none if it lets sysctl.d win, its default."""
    main = root.text("/etc/tuned/tuned-main.conf") or ""
    if not re.search(r"^\s*reapply_sysctl\s*=\s*(0|false|no)\s*$", main, re.MULTILINE | re.IGNORECASE):
        return {}
    return {name: writer for (section, name), writer in tuned_settings(root).items() if section == "sysctl"}
