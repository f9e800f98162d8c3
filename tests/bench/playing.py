"""What the measurements share: a private libvirtd, and playbooks of one task that are timed from outside.

A time is that of a whole command, from its start to its end: what a person waits for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
PRIVATE_LIBVIRTD = str(ROOT / "scripts" / "private-libvirtd")
PYTHON = "/usr/bin/python3"  # the one that has the distribution's libvirt
# Runs the command that follows; prints its seconds and the memory of its largest process.
TIMED = """
import json, resource, subprocess, sys, time
before = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
seconds = time.perf_counter() - before
memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(json.dumps({"seconds": seconds, "memory": memory, "output": done.stdout, "failed": done.returncode != 0}))
"""


class Timed(NamedTuple):
    """One command. seconds: from its start to its end; memory: MiB of the largest process in it; output: all it said."""

    seconds: float
    memory: int
    output: str


def inside(directory: Path, *command: str, **options: Any) -> str:
    """Run a command where qemu:///system is the private libvirtd; return what it said."""
    full = [PRIVATE_LIBVIRTD, "exec", str(directory), "--", *command]
    done = subprocess.run(full, check=False, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def timed(directory: Path, *command: str, **options: Any) -> Timed:
    """Run a command there and take its time, without that of the way there."""
    told = json.loads(inside(directory, PYTHON, "-c", TIMED, *command, **options))
    assert not told["failed"], told["output"]
    return Timed(told["seconds"], told["memory"], told["output"])


def played(
    directory: Path, work: Path, action: str, task: dict[str, Any], variables: dict[str, str] | None = None, check: bool = False,
    collections: Path = ROOT / ".ansible/collections", loop: list[Any] | None = None, ansible: Path = Path(sys.executable).parent,
) -> Timed:  # fmt: skip
    """Run a playbook of this one task on the machine itself; its output ends with Ansible's recap."""
    work.mkdir(parents=True, exist_ok=True)
    told = {"name": "task", action: task, **({"loop": loop} if loop is not None else {})}
    (work / "book.yml").write_text(yaml.safe_dump([{"hosts": "target", "gather_facts": False, "tasks": [told]}]))
    host = {"ansible_connection": "local", "ansible_python_interpreter": PYTHON}
    (work / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"target": host}}}))
    command = [str(ansible / "ansible-playbook"), "-i", "hosts.yml", "book.yml", *(["--check"] if check else [])]
    return timed(directory, *command, cwd=work, env={**environment(work, collections), **(variables or {})})


def environment(work: Path, collections: Path) -> dict[str, str]:
    """Return what a playbook in WORK runs with: nothing of the person who measures."""
    return {
        **os.environ, "ANSIBLE_LIBRARY": str(ROOT / "tests/bench/library"), "TMPDIR": str(work), "HOME": str(work),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_HOME": str(work / "home"), "ANSIBLE_REMOTE_TMP": str(work / "remote"), "ANSIBLE_NOCOLOR": "1",
    }  # fmt: skip


def is_changed(run: Timed) -> bool:
    """Tell whether the task of a playbook said changed."""
    return "changed=1" in run.output
