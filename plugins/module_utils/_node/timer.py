# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of shell that run after a time, whatever has become of the task that asked for them by then."""

from __future__ import annotations

from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import SYSTEMD_RUNNING, Root


def start(root: Root, unit: str, commands: str, seconds: int) -> None:
    """Have the commands run in C(seconds): by systemd under the name C(unit), where it is PID 1, else by a process of their own."""
    if root.exists(SYSTEMD_RUNNING):
        timer = [f"--unit={unit}", "--collect", f"--on-active={seconds}", "--timer-property=AccuracySec=100ms"]
        root.must_run(["systemd-run", "--quiet", *timer, "/bin/sh", "-c", commands])
    else:
        # its own session, and none of our pipes: it stays when the task and its connection end
        root.must_run(["setsid", "--fork", "/bin/sh", "-c", f"exec </dev/null >/dev/null 2>&1; cd /; sleep {int(seconds)}; {commands}"])


def stop(root: Root, unit: str) -> None:
    """Have the commands not run any more. A process of their own runs them all the same, so they must find out that they are late."""
    if root.exists(SYSTEMD_RUNNING):
        root.run(["systemctl", "stop", f"{unit}.timer"])  # it may have run, and be gone
