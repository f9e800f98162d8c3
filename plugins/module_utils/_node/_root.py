# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that the host's own knobs are read from and written to: one root directory and the host's commands.

Every path of `_node` goes through a Root, so that a test can give another tree.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError

HEADER = "# managed by anfitrion.kvm: what is changed here by hand is lost\n"
Argv = list[str]
SYSTEMD_RUNNING = "/run/systemd/system"


@dataclass(frozen=True)
class Output:
    """What a command said: its return code, standard output and standard error."""

    rc: int
    out: str
    err: str


class Root:
    """The host, seen from a root directory. C(check): the task runs in check mode."""

    def __init__(self, path: str = "/", check: bool = False, timeout: float = 120.0) -> None:
        self.path = path
        self.check = check
        self.timeout = timeout

    def close(self) -> None:
        """Nothing is held open between calls."""

    def at(self, path: str) -> str:
        """Return where a path of the host is to be found."""
        return os.path.join(self.path, path.lstrip("/"))

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.at(path))

    def read(self, path: str) -> str | None:
        """Return the text of a file without the blank around it; None where there is no such file."""
        text = self.text(path)
        return None if text is None else text.strip()

    def text(self, path: str) -> str | None:
        """Return the text of a file; None where there is no such file."""
        try:
            with open(self.at(path), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise KvmError(f"{path}: {error.strerror}") from error

    def number(self, path: str) -> int | None:
        """Return the number that a file holds; None where there is no such file or it holds none."""
        text = self.read(path)
        try:
            return None if text is None else int(text, 0)
        except ValueError:
            return None

    def list(self, path: str) -> list[str]:
        """Return the names in a directory in order; none where there is no such directory."""
        try:
            return sorted(os.listdir(self.at(path)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise KvmError(f"{path}: {error.strerror}") from error

    def link(self, path: str) -> str | None:
        """Return the last name of what a link points at, as C(vfio-pci) for C(…/driver); None where there is no link."""
        target = self.target(path)
        return os.path.basename(target) if target else None

    def target(self, path: str) -> str | None:
        """Return the path that a link ends at; None where there is no link."""
        here = self.at(path)
        return os.path.realpath(here) if os.path.lexists(here) else None

    def write(self, path: str, value: str) -> None:
        """Write a kernel file from a child process: a write to sysfs may block for ever, the task must not.

        Raises KvmError with the kernel's own word (EBUSY, EINVAL …), or that the write did not come back.
        """
        pid = os.fork()
        if pid == 0:
            os._exit(_write_and_tell(self.at(path), value))
        code = _wait(pid, self.timeout)
        if code is None:
            os.kill(pid, signal.SIGKILL)
            raise KvmError(f"{path}: writing {value!r} did not come back in {self.timeout:.0f} s; the state of the device is unknown")
        if code == errno.ENOENT:
            raise KvmError(f"{path}: this kernel has no such file")
        if code:
            name = errno.errorcode.get(code, str(code))
            raise KvmError(f"{path}: the kernel refused {value!r}: {name} ({os.strerror(code)})")

    def place(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file in place at once and whole: another process sees the old text or the new one."""
        here = self.at(path)
        try:
            os.makedirs(os.path.dirname(here), mode=0o755, exist_ok=True)
            handle, draft = tempfile.mkstemp(prefix=".anfitrion-", dir=os.path.dirname(here))
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(text)
                    os.fchmod(stream.fileno(), mode)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.rename(draft, here)
            except OSError:
                os.unlink(draft)
                raise
        except OSError as error:
            raise KvmError(f"{path}: {error.strerror}") from error

    def remove(self, path: str) -> None:
        """Take a file or link away; it need not be there."""
        try:
            os.unlink(self.at(path))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise KvmError(f"{path}: {error.strerror}") from error

    def point(self, path: str, target: str) -> None:
        """Make a symbolic link, in place of what is there."""
        self.remove(path)
        here = self.at(path)
        try:
            os.makedirs(os.path.dirname(here), mode=0o755, exist_ok=True)
            os.symlink(target, here)
        except OSError as error:
            raise KvmError(f"{path}: {error.strerror}") from error

    def mode(self, path: str) -> int | None:
        """Return the permission bits of a file."""
        here = self.at(path)
        return stat.S_IMODE(os.stat(here).st_mode) if os.path.exists(here) else None

    def run(self, argv: Argv, text: str | None = None, timeout: float = 60.0) -> Output:
        """Run a command of the host, C(text) on its standard input. Raises KvmError if it is missing or does not end."""
        environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
        environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        try:
            # run_command is AnsibleModule's, which only _run.py knows; and the command must end within a time.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                argv, input=text, timeout=timeout, env=environment, capture_output=True, encoding="utf-8",
                errors="replace", check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise KvmError(f"{argv[0]}: this host has no such command; install the package that holds it") from None
        except subprocess.TimeoutExpired:
            raise KvmError(f"{' '.join(argv)}: did not end in {timeout:.0f} s") from None
        return Output(done.returncode, done.stdout, done.stderr)

    def must_run(self, argv: Argv, text: str | None = None, timeout: float = 60.0) -> str:
        """Run a command and return its output. Raises KvmError with the command's own words if it failed."""
        done = self.run(argv, text, timeout)
        if done.rc:
            words = (done.err or done.out).strip().replace("\n", "; ")
            raise KvmError(f"{' '.join(argv)}: {words or f'return code {done.rc}'}")
        return done.out

    def do(self, argv: Argv) -> None:
        """Run a command whose output is of no interest. Raises KvmError if it failed."""
        self.must_run(argv)

    def reload_units(self) -> None:
        """Let a running systemd read its units again."""
        if self.exists(SYSTEMD_RUNNING):
            self.must_run(["systemctl", "daemon-reload"])


def _write_and_tell(path: str, value: str) -> int:
    """Write and return 0 or the errno: the exit code of the child."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(handle, value.encode())
        os.close(handle)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _wait(pid: int, timeout: float) -> int | None:
    """Return the exit code of a child; None if it did not end in time."""
    end = time.monotonic() + timeout
    pause = 0.001
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else errno.EINTR
        if time.monotonic() > end:
            return None
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
