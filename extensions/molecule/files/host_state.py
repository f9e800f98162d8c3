"""Print what a host is, a line a thing: files of its configuration, knobs of its kernel, links, rules, libvirt's objects.

Two outputs are equal when nothing was changed in between. Times and counters of use are left out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

TREES = ("/etc", "/boot", "/srv", "/usr/local", "/var/lib/libvirt", "/root", "/var/lib/dpkg/info", "/lib/systemd/system")
# Written by whoever looks: ssh logins of Ansible, the cache of LVM and of ld.so.
IGNORED = ("/root/.ansible", "/etc/lvm/archive", "/etc/lvm/backup", "/etc/lvm/devices", "/root/.ssh", "/srv/anfitrion-repo")
KNOBS = (
    "/sys/kernel/mm/ksm", "/sys/kernel/mm/transparent_hugepage", "/sys/devices/system/node/node0/hugepages/hugepages-2048kB",
    "/sys/devices/system/node/node1/hugepages/hugepages-2048kB",
)  # fmt: skip
KNOB_NAMES = ("run", "pages_to_scan", "sleep_millisecs", "merge_across_nodes", "enabled", "defrag", "nr_hugepages")
SINGLE = ("/proc/sys/kernel/numa_balancing", "/proc/sys/net/ipv4/ip_forward", "/proc/modules", "/proc/swaps")
COMMANDS = (
    ("ip", "-brief", "link"), ("ip", "route"), ("ip", "-details", "link", "show", "enp1s0"), ("nft", "list", "tables"),
    ("virsh", "list", "--all", "--name"), ("virsh", "net-list", "--all", "--name"), ("virsh", "pool-list", "--all", "--name"),
    ("systemctl", "list-unit-files", "--no-legend", "--no-pager"), ("lsblk", "--noheadings", "--output", "NAME,TYPE,FSTYPE"),
)  # fmt: skip
# A busy emulated host needs longer than the 25 seconds that systemctl waits for an answer.
PATIENT = {**os.environ, "SYSTEMD_BUS_TIMEOUT": "300s"}


def files() -> list[str]:
    """Return every file of the configuration with its mode and content."""
    lines = []
    for tree in TREES:
        for folder, folders, names in os.walk(tree):
            folders[:] = [name for name in folders if os.path.join(folder, name) not in IGNORED]
            lines += [f"file {one_file(os.path.join(folder, name))}" for name in names]
    return sorted(lines)


def one_file(path: str) -> str:
    """Return path, mode and content of a file, or where a link leads."""
    if os.path.islink(path):
        return f"{path} -> {os.readlink(path)}"
    if not os.path.isfile(path):
        return path
    with open(path, "rb") as file:
        return f"{path} {os.stat(path).st_mode:o} {hashlib.sha256(file.read()).hexdigest()[:16]}"


def knobs() -> list[str]:
    """Return the knobs of the kernel."""
    paths = [os.path.join(folder, name) for folder in KNOBS for name in KNOB_NAMES]
    lines = []
    for path in [*paths, *SINGLE]:
        if not os.path.exists(path):
            continue
        with open(path, encoding="ascii") as file:
            text = file.read()
        # Of a module, its name: users and addresses come and go.
        lines += [f"knob {path} {line.split()[0] if 'modules' in path else line}" for line in text.splitlines()]
    return sorted(lines)


def commands() -> list[str]:
    """Return what tools say."""
    lines = []
    for command in COMMANDS:
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=PATIENT)
            # Others fail for what a host has not: a network card, libvirt. This one only if nobody answered.
            if done.returncode and command[0] == "systemctl":
                sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
            lines += [f"{' '.join(command)}: {line.strip()}" for line in done.stdout.splitlines()]
    return lines


if __name__ == "__main__":
    commands()  # a tool's first use loads kernel modules of its own
    print("\n".join([*files(), *knobs(), *commands()]))
    sys.exit(0)
