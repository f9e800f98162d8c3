"""Ring 3: the modules through ansible-playbook on a real libvirt.

    @pytest.mark.row("S07")
    def test_a_pool_is_defined_changed_and_removed(cycle, fresh_name):
        cycle("kvm_pool", {"name": fresh_name, "type": "dir", "path": "/…", "state": "present"}, change={"autostart": True})

The daemon is a private one (scripts/private-libvirtd) in a network of its own, below a read-only root: a test can write to its
`tmp_path` and to the daemon's own directories, and nowhere else. Playbooks run inside those namespaces, where `qemu:///system` is that
daemon; ansible comes from the environment that runs pytest, the modules run under the distribution's Python.
ANFITRION_ROOT=debian13 makes it the daemon of that release, and the distribution's Python too (scripts/debian_root.py).
`test:///…` URIs work there too and need no daemon.

This file reads nothing of the collection: what it reports is what a user would see.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from guest_os import GuestOS, start_linux

ROOT = Path(__file__).resolve().parents[2]
PRIVATE_LIBVIRTD = str(ROOT / "scripts" / "private-libvirtd")
RELEASE = os.environ.get("ANFITRION_ROOT", "")  # of another root than the machine's
ADDRESS_SPACE_MIB = 8192  # of libvirtd and of each guest: a runaway allocation fails there, not on the machine
INVENTORY = {"all": {"hosts": {"target": {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}}}}

Options = dict[str, Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write anew what is made from a test run")
    parser.addoption("--rounds", type=int, default=3, help="how often a fault is put into a running task (default: %(default)s)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.ring(3))


# The daemon --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Libvirtd:
    """A running private daemon: where it keeps its things, and how programs outside reach it."""

    directory: Path
    uri: str
    daemon: int

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside the daemon's namespaces, for example run("virsh", "dumpxml", "db1")."""
        return subprocess.run(self.command(*command), capture_output=True, text=True, check=check)

    def command(self, *command: str) -> list[str]:
        """Return the command that runs one inside the daemon's namespaces."""
        return [PRIVATE_LIBVIRTD, "exec", str(self.directory), "--", *command]

    @property
    def now(self) -> int:
        """The pid of the daemon now; another one than at first if it was killed, 0 while there is none."""
        status = json.loads(subprocess.check_output([PRIVATE_LIBVIRTD, "status", str(self.directory)]))
        return int(status["daemon"] or 0)

    def corpus(self, kind: str) -> str:
        """The directory with the documents of a kind in the tests of this daemon's libvirt."""
        asked = '. /etc/os-release; echo "$VERSION_CODENAME"; dpkg-query -W -f "\\${source:Upstream-Version}" libvirt0'
        codename, version = self.run("sh", "-ec", asked).stdout.split()
        command = [sys.executable, str(ROOT / "scripts" / "libvirt_corpus.py"), "--kind", kind, "--version", version, "--codename", codename]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]

    def state(self) -> dict[str, str]:
        """All that the daemon keeps about its objects, persistent and live, by file; equal before and after what must not touch anything."""
        places = [self.directory / "etc", self.directory / "run" / "libvirt"]
        files = [path for place in places for path in place.rglob("*.xml")]
        links = (self.directory / "etc").rglob("autostart/*")
        return {str(path.relative_to(self.directory)): path.read_text() for path in sorted(files)} | {str(path): "autostart" for path in links}


@functools.cache
def root_options() -> list[str]:
    """What gives the daemon the root file system that is asked for, which is made if it is not there."""
    if not RELEASE:
        return []
    if Path(sys.base_prefix).is_relative_to("/usr"):
        pytest.exit(f"{sys.executable} is the distribution's Python, which another root does not have; ANFITRION_ROOT needs one of another prefix")
    command = ["/usr/bin/python3", str(ROOT / "scripts" / "debian_root.py"), "--release", RELEASE.removeprefix("debian")]
    return ["--root", subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()]


@contextmanager
def started(directory: Path, scratch: Path) -> Iterator[Libvirtd]:
    """A daemon that keeps its things in DIRECTORY; what runs with it can write below SCRATCH."""
    options = ["--net", "private", "--read-only-root", "--writable", str(scratch), "--address-space", str(ADDRESS_SPACE_MIB), *root_options()]
    subprocess.run([PRIVATE_LIBVIRTD, "start", str(directory), *options], check=True, stdout=subprocess.DEVNULL)
    try:
        status = json.loads(subprocess.check_output([PRIVATE_LIBVIRTD, "status", str(directory)]))
        yield Libvirtd(directory, status["uri"], status["daemon"])
    finally:
        subprocess.run([PRIVATE_LIBVIRTD, "stop", str(directory)], check=True)


@pytest.fixture(scope="session")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    scratch = tmp_path_factory.getbasetemp()
    with started(scratch / "libvirtd", scratch) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def mortal_libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    """A daemon besides, for tests that kill it."""
    scratch = tmp_path_factory.getbasetemp()
    with started(scratch / "mortal", scratch) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def daemon_survives(libvirtd: Libvirtd) -> Iterator[None]:
    """No test may bring the daemon down, whatever it feeds it."""
    yield
    assert Path(f"/proc/{libvirtd.daemon}").exists(), f"libvirtd died in this test; see {libvirtd.directory}/log"


numbers = itertools.count(1)


@pytest.fixture
def fresh_name() -> str:
    """A name that no other test uses."""
    return f"t{next(numbers)}"


# Playbooks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What one task returned."""

    name: str
    outcome: str  # ok | failed | skipped | unreachable
    result: Options

    @property
    def changed(self) -> bool:
        return bool(self.result.get("changed"))

    @property
    def diff(self) -> Any:
        return self.result.get("diff")

    @property
    def message(self) -> str:
        return str(self.result.get("msg", ""))


@dataclass(frozen=True)
class Run:
    """What one ansible-playbook returned, with its output for people."""

    tasks: Sequence[Task]
    output: str = field(repr=False)

    @property
    def only(self) -> Task:
        assert len(self.tasks) == 1, self.output
        return self.tasks[0]

    @property
    def failed(self) -> list[Task]:
        return [task for task in self.tasks if task.outcome in ("failed", "unreachable")]

    def succeeded(self) -> Run:
        assert not self.failed, self.output
        return self


Play = Callable[..., Run]


@dataclass(frozen=True)
class Playbooks:
    """A process inside the daemon's namespaces that runs playbooks; see playbooks.py."""

    process: subprocess.Popen[str]
    temporary: Path

    def run(self, work: Path, *arguments: str) -> tuple[int, str]:
        """Run ansible-playbook in WORK; return how it ended and what it said."""
        output = work / "output"
        variables = {name: value for name, value in environment(work, self.temporary).items() if name in ("HOME", "ANSIBLE_RECORD")}
        request = {"arguments": arguments, "directory": str(work), "environment": variables, "output": str(output)}
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()), output.read_text(errors="replace")


@pytest.fixture(scope="module")  # a file may have a daemon of its own
def playbooks(libvirtd: Libvirtd) -> Iterator[Playbooks]:
    # Sockets are made below it, whose paths may have 107 characters; that of a test is too long for it.
    temporary = libvirtd.directory.parent / "t"
    temporary.mkdir(exist_ok=True)
    # The environment that runs pytest, found beside its Python; sys.executable is not resolved.
    command = libvirtd.command(sys.executable, str(Path(__file__).parent / "playbooks.py"))
    variables = environment(temporary, temporary)
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Playbooks(process, temporary)


@pytest.fixture
def play(playbooks: Playbooks, tmp_path: Path) -> Play:
    """play(tasks, check=False, diff=True, **variables) runs a list of tasks, or one, and returns a Run; a failed task is not an error here."""
    counter = itertools.count(1)

    def play(tasks: Options | list[Options], check: bool = False, diff: bool = True, **variables: Any) -> Run:
        work = tmp_path / f"play{next(counter)}"
        work.mkdir()
        tasks = tasks if isinstance(tasks, list) else [tasks]
        book = [{"name": "Test", "hosts": "target", "gather_facts": False, "vars": variables, "tasks": tasks}]
        (work / "playbook.yml").write_text(yaml.safe_dump(book, sort_keys=False))
        (work / "inventory.yml").write_text(yaml.safe_dump(INVENTORY))
        flags = [flag for flag, wanted in (("--check", check), ("--diff", diff)) if wanted]
        status, output = playbooks.run(work, "-i", "inventory.yml", "playbook.yml", *flags)
        record = work / "record.jsonl"
        # 2 is "a task failed on a host"; anything else is a playbook that did not run.
        if status not in (0, 2) or not record.exists():
            pytest.fail(f"ansible-playbook ended with {status}:\n{output}")
        lines = [json.loads(line) for line in record.read_text().splitlines()]
        return Run([Task(line["task"], line["outcome"], line["result"]) for line in lines if "task" in line], output)

    return play


def environment(work: Path, temporary: Path) -> dict[str, str]:
    """Nothing of the user's settings, and nothing written outside WORK and TEMPORARY."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": str(work),
        "TMPDIR": str(temporary),
        "ANSIBLE_HOME": str(work / "ansible"),
        "ANSIBLE_REMOTE_TMP": str(work / "remote"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "scripts" / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "record",
        "ANSIBLE_RECORD": str(work / "record.jsonl"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_DEVEL_WARNING": "false",
    }


# A guest with an operating system ------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def shared(libvirtd: Libvirtd) -> Iterator[dict[str, GuestOS]]:
    """The guest that the tests of a file share, once there is one; it does not run any more when the next file starts."""
    guests: dict[str, GuestOS] = {}
    yield guests
    for name in guests:
        libvirtd.run("virsh", "destroy", name)
        libvirtd.run("virsh", "undefine", name)
        libvirtd.run("virsh", "pool-destroy", name)
        libvirtd.run("virsh", "pool-undefine", name)


@pytest.fixture
def linux(play: Play, libvirtd: Libvirtd, tmp_path_factory: pytest.TempPathFactory, shared: dict[str, GuestOS]) -> GuestOS:
    """The running guest that the tests of a file share, with its agent answering; a test leaves it as it was."""
    if "linux" not in shared:
        shared["linux"] = start_linux(play, libvirtd, tmp_path_factory.mktemp("linux"))
    return shared["linux"].wait()


# The idiom ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One state asked for three ways: in check mode, for real, and again."""

    check: Task
    apply: Task
    again: Task


@dataclass(frozen=True)
class Cycle:
    present: Step
    change: Step
    absent: Step


@pytest.fixture
def cycle(play: Play) -> Callable[..., Cycle]:
    """cycle(module, present, change, absent=None): the life of an object, each state asked for in check mode, for real, and again.

    `change` is laid over `present`, top level only. Asserts that check mode and the real run both say changed, with equal diffs,
    and that the run after says unchanged; returns the results for what else a test wants to know.
    """

    def cycle(module: str, present: Options, change: Options, absent: Options | None = None) -> Cycle:
        changed = {**present, **change}
        gone = absent or {**{key: present[key] for key in ("name", "uri", "pool") if key in present}, "state": "absent"}
        states = {"present": present, "change": changed, "absent": gone}
        tasks = [
            {"name": f"{state}: {word}", f"anfitrion.kvm.{module}": options, "check_mode": word == "check"}
            for state, options in states.items()
            for word in ("check", "apply", "again")
        ]
        run = play(tasks).succeeded()
        steps = {state: Step(*run.tasks[index * 3 : index * 3 + 3]) for index, state in enumerate(states)}
        for state, step in steps.items():
            assert_truthful(state, step, run.output)
        return Cycle(**steps)

    return cycle


def assert_truthful(state: str, step: Step, output: str) -> None:
    assert step.check.changed, f"{state}: check mode says unchanged\n{output}"
    assert step.apply.changed, f"{state}: the real run says unchanged\n{output}"
    assert step.check.diff == step.apply.diff, f"{state}: check mode showed another diff than the real run\n{output}"
    assert not step.again.changed, f"{state}: the second run says changed\n{output}"
