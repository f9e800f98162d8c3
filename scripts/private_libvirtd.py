"""Run a libvirtd that shares nothing with the machine's own: private-libvirtd start|stop|status|uri|exec DIR.

The daemon lives in a mount, PID and (with --net private) network namespace of its own. What libvirt keeps
below /etc, /var and /run is kept in DIR; the machine's libvirtd, if there is one, is neither seen nor touched.
Process 1 of the namespace is this script: it reaps, restarts a daemon that died, and takes everything with it
when it is killed, so `stop` leaves no process and no mount behind.

    private-libvirtd start /tmp/lab                    # network of the machine
    virsh -c "$(private-libvirtd uri /tmp/lab)" list
    private-libvirtd exec /tmp/lab -- virsh list       # inside the namespaces qemu:///system is this daemon
    private-libvirtd stop /tmp/lab

With --root the daemon is that of another root file system, for example of another release (scripts/debian_root.py): its /usr, /etc and
/var take the place of the machine's in the namespaces, read-only, and everything else is the machine's, so that checkout, temporary
files and a Python that is not the distribution's are there at their own paths.

Python 3.9, standard library, util-linux, libvirt's packages; root.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

# Where libvirt keeps its things <- the part of DIR that takes its place.
PRIVATE = {"/etc/libvirt": "etc", "/var/lib/libvirt": "lib", "/var/cache/libvirt": "cache", "/var/log/libvirt": "log", "/run": "run"}
OF_A_ROOT = ("/usr", "/etc", "/var")
CAPABILITIES = "/var/cache/libvirt/qemu/capabilities"
QEMU_USER = "libvirt-qemu"
LONGEST_SOCKET_PATH = 107  # sun_path of unix(7), without its NUL
START_TIMEOUT = 60
STOP_TIMEOUT = 20
SHORT_LIFE = 2
MOST_SHORT_LIVES = 4

LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""

# No cgroups, labels, /dev of its own or owner changes: the namespaces keep guests apart from the machine, and a
# daemon that never changes an owner cannot change the wrong one.
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
clear_emulator_capabilities = 0
stdio_handler = "file"
"""


class Failure(Exception):
    """What to tell the user instead of a traceback."""


def main() -> int:
    arguments = parse_arguments()
    try:
        return int(arguments.action(arguments) or 0)
    except Failure as failure:
        print(f"private-libvirtd: {failure}", file=sys.stderr)
        return 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a libvirtd that shares nothing with the machine's own.")
    actions = parser.add_subparsers(required=True, metavar="start|stop|status|uri|exec")

    start = actions.add_parser("start", help="start the daemon, if it is not running, and wait until it answers")
    start.add_argument("--net", choices=("private", "host"), default="host", help="the machine's network or one of its own (default: host)")
    start.add_argument("--read-only-root", action="store_true", help="nothing outside DIR and --writable can be written")
    start.add_argument("--writable", action="append", default=[], type=Path, metavar="PATH", help="stays writable below a read-only root")
    start.add_argument("--root", type=Path, metavar="ROOT", help="a root file system whose libvirt and programs it is, instead of the machine's")
    start.add_argument("--address-space", type=int, metavar="MIB", help="limit of the daemon and of each guest's process")
    start.add_argument("--cache", type=Path, metavar="PATH", help="QEMU capabilities, shared by all of one root (default: in the cache directory)")
    start.set_defaults(action=run_start)

    stop = actions.add_parser("stop", help="kill the daemon and all its guests; no error if it is not running")
    stop.set_defaults(action=run_stop)
    status = actions.add_parser("status", help="print state, pids and URI as JSON; exit 3 if it is not running")
    status.set_defaults(action=run_status)
    uri = actions.add_parser("uri", help="print the connection URI for programs outside the namespaces")
    uri.set_defaults(action=lambda arguments: print(uri_of(arguments.dir)))
    execute = actions.add_parser("exec", help="run a command inside the namespaces, in the current directory")
    execute.set_defaults(action=run_exec)
    enter = actions.add_parser("_enter")
    enter.set_defaults(action=lambda arguments: run_enter(arguments.dir))
    init = actions.add_parser("_init")
    init.set_defaults(action=lambda arguments: run_init(arguments.dir))

    for each in (start, stop, status, uri, execute, enter, init):
        each.add_argument("dir", type=lambda text: Path(text).absolute(), metavar="DIR")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    return parser.parse_args()


def default_cache(root: Optional[Path]) -> Path:
    """Return where a root's QEMU capabilities are kept; those of one libvirt are of no use to another."""
    name = f"libvirt-{root.name}" if root else "libvirt"
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "anfitrion.kvm" / name


# Outside the namespaces ----------------------------------------------------------------------------------------


def run_start(arguments: argparse.Namespace) -> None:
    directory: Path = arguments.dir
    require_root_and_programs(arguments.root)
    if len(os.fsencode(socket_of(directory))) > LONGEST_SOCKET_PATH:
        raise Failure(f"{socket_of(directory)} is longer than {LONGEST_SOCKET_PATH} bytes, the most a socket's path can have; use a shorter DIR")
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        options = options_from(arguments)
        if living_init(directory) is not None:
            if json.loads((directory / "options.json").read_text()) != options:
                raise Failure(f"{directory} is already running with other options; stop it first")
        else:
            prepare(directory, options)
            init = spawn_init(directory, options)
            wait_until_it_answers(directory, init)
    print(uri_of(directory))


def run_stop(arguments: argparse.Namespace) -> None:
    directory: Path = arguments.dir
    if not directory.is_dir():
        return
    with locked(directory):
        init = living_init(directory)
        if init is not None:
            os.kill(init, signal.SIGKILL)
            if not wait_for(lambda: living_init(directory) is None, STOP_TIMEOUT):
                raise Failure(f"process {init} is still there {STOP_TIMEOUT} s after SIGKILL")
        (directory / "init.json").unlink(missing_ok=True)
        empty(directory / "run")


def run_status(arguments: argparse.Namespace) -> int:
    directory: Path = arguments.dir
    init = living_init(directory)
    state: dict[str, Any] = {"running": init is not None}
    if init is not None:
        state.update(json.loads((directory / "options.json").read_text()), init=init, daemon=daemon_below(init), uri=uri_of(directory))
    print(json.dumps(state, indent=2))
    return 0 if init is not None else 3


def run_exec(arguments: argparse.Namespace) -> None:
    directory: Path = arguments.dir
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise Failure("exec needs a command: private-libvirtd exec DIR -- COMMAND")
    init = living_init(directory)
    if init is None:
        raise Failure(f"{directory} is not running")
    # nsenter leaves the current directory behind; env goes back to it.
    os.execvp("nsenter", ["nsenter", f"--target={init}", "--mount", "--pid", "--net", "--", "env", f"--chdir={os.getcwd()}", *command])


def require_root_and_programs(root: Optional[Path]) -> None:
    if os.geteuid() != 0:
        raise Failure("namespaces need root")
    outside = [name for name in ("virsh", "unshare", "nsenter", "mount", "umount") if shutil.which(name, path=search_path()) is None]
    places = os.pathsep.join(f"{root}/usr/{part}" for part in ("sbin", "bin")) if root else search_path()
    inside = [name for name in ("libvirtd", "mount", "prlimit", "ip", "python3") if shutil.which(name, path=places) is None]
    if outside or (inside and not root):
        raise Failure(f"not installed: {', '.join(dict.fromkeys(outside + inside))}; see scripts/install-packages")
    if inside:
        raise Failure(f"{root} has no {', '.join(inside)}; scripts/debian_root.py makes a root that has")


def search_path() -> str:
    """PATH with the administrator's directories, which a user's PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])


def options_from(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "net": arguments.net,
        "read_only_root": arguments.read_only_root,
        "writable": sorted(str(path.absolute()) for path in arguments.writable),
        "address_space_mib": arguments.address_space,
        "cache": str((arguments.cache or default_cache(arguments.root)).absolute()),
        "root": str(arguments.root.absolute()) if arguments.root else None,
    }


def socket_of(directory: Path) -> str:
    return str(directory / "run" / "libvirt" / "libvirt-sock")


def uri_of(directory: Path) -> str:
    return f"qemu:///system?socket={urllib.parse.quote(socket_of(directory))}"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(directory: Path, options: dict[str, Any]) -> None:
    """Make DIR as the daemon needs it; what a killed run left in its /run is removed."""
    for part in PRIVATE.values():
        (directory / part).mkdir(exist_ok=True)
    empty(directory / "run")
    for place in ("lock", "libvirt"):
        (directory / "run" / place).mkdir()
    root = options["root"] or ""
    for path in (directory / "cache" / "qemu" / "capabilities", Path(options["cache"]), *(Path(root + place) for place in PRIVATE)):
        path.mkdir(parents=True, exist_ok=True)
    (directory / "etc" / "libvirtd.conf").write_text(LIBVIRTD_CONF)
    (directory / "etc" / "qemu.conf").write_text(QEMU_CONF)
    # Debian's libvirtd looks up its compiled-in user, which only libvirt-daemon-system makes, before it reads qemu.conf.
    (directory / "passwd").write_text(with_account(Path(f"{root}/etc/passwd"), QEMU_USER, f"{QEMU_USER}:x:64055:64055::/:/usr/sbin/nologin"))
    (directory / "group").write_text(with_account(Path(f"{root}/etc/group"), QEMU_USER, f"{QEMU_USER}:x:64055:"))
    (directory / "options.json").write_text(json.dumps(options))
    (directory / "init.json").unlink(missing_ok=True)


def empty(directory: Path) -> None:
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def with_account(table: Path, name: str, entry: str) -> str:
    """The text of /etc/passwd or /etc/group with an entry for NAME."""
    text = table.read_text()
    return text if f"\n{name}:" in text else f"{text}{entry}\n"


def spawn_init(directory: Path, options: dict[str, Any]) -> subprocess.Popen[bytes]:
    network = ["--net"] if options["net"] == "private" else []
    first = "_enter" if options["root"] else "_init"
    command = ["unshare", "--mount", "--pid", "--fork", *network, "--", sys.executable, os.path.abspath(__file__), first, str(directory)]
    with open(directory / "log" / "init.log", "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            env={"PATH": search_path(), "LC_ALL": "C"},
        )


def wait_until_it_answers(directory: Path, init: subprocess.Popen[bytes]) -> None:
    """Return once the daemon knows what its QEMU can do: the slow first probe happens here, not in a test."""

    def answers() -> bool:
        return subprocess.run(["virsh", "-q", "-c", uri_of(directory), "capabilities"], capture_output=True, check=False).returncode == 0

    wait_for(lambda: init.poll() is not None or answers(), START_TIMEOUT)
    if init.poll() is not None or not answers():
        log = (directory / "log" / "init.log").read_text(errors="replace").splitlines()[-10:]
        raise Failure("\n  ".join([f"libvirtd does not answer; see {directory}/log/libvirtd.log; the end of {directory}/log/init.log:", *log]))


def wait_for(condition: Any, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def living_init(directory: Path) -> Optional[int]:
    """The pid of the namespace's process 1, or None; a pid that now belongs to another process does not count."""
    try:
        written = json.loads((directory / "init.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return written["pid"] if start_time(str(written["pid"])) == written["started"] else None


def start_time(pid: str) -> Optional[str]:
    """When a process started, with the boot it started in; None if it is gone (proc(5), stat fields 3 and 22)."""
    try:
        fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def daemon_below(init: int) -> Optional[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines() if ":\t" in line)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if status["Name"] == "libvirtd" and status["PPid"].strip() == str(init):
                return int(entry.name)
    return None


# Inside the namespaces, as process 1 -----------------------------------------------------------------------------


def run_enter(directory: Path) -> None:
    """Put the other root in place of the machine's, and go on under its Python: this one has lost its library."""
    root = json.loads((directory / "options.json").read_text())["root"]
    for place in OF_A_ROOT:
        for target in reversed([target for target in mount_points() if target.startswith(f"{place}/")]):
            call("umount", "--lazy", target)
    for place in OF_A_ROOT:
        call("mount", "--bind", root + place, place)
        call("mount", "-o", "remount,bind,ro", place)
    os.execv("/usr/bin/python3", ["/usr/bin/python3", os.path.abspath(__file__), "_init", str(directory)])


def run_init(directory: Path) -> None:
    options = json.loads((directory / "options.json").read_text())
    # /proc is still the machine's, so this is the pid that the outside knows.
    pid = os.readlink("/proc/self")
    written = {"pid": int(pid), "started": start_time(pid)}
    mount_everything(directory, options)
    if options["net"] == "private":
        call("ip", "link", "set", "lo", "up")
    (directory / "init.json.new").write_text(json.dumps(written))
    (directory / "init.json.new").rename(directory / "init.json")
    keep_daemon_running(options["address_space_mib"])


def mount_everything(directory: Path, options: dict[str, Any]) -> None:
    """Put DIR's parts in their places; mount propagation is already private (unshare's default)."""
    if options["read_only_root"]:
        for path in (str(directory), options["cache"], *options["writable"]):
            call("mount", "--bind", path, path)
    for place, part in PRIVATE.items():
        call("mount", "--bind", str(directory / part), place)
    for table in ("passwd", "group"):
        call("mount", "--bind", str(directory / table), f"/etc/{table}")
    call("mount", "--bind", options["cache"], CAPABILITIES)
    call("mount", "-t", "proc", "proc", "/proc")
    if options["net"] == "private":
        # sysfs shows the network of the namespace that mounted it.
        call("mount", "-t", "sysfs", "sysfs", "/sys")
    if options["read_only_root"]:
        make_root_read_only(directory, options)


def make_root_read_only(directory: Path, options: dict[str, Any]) -> None:
    """Remount every file system read-only but the kernel's own and the writable places."""
    writable = [str(directory), options["cache"], *options["writable"], *PRIVATE, "/proc", "/sys", "/dev"]
    for target in mount_points():
        if not any(target == place or target.startswith(place + "/") for place in writable):
            call("mount", "-o", "remount,bind,ro", target)
    # The machine's KSM and huge pages are not the namespace's.
    call("mount", "--bind", "/sys/kernel/mm", "/sys/kernel/mm")
    call("mount", "-o", "remount,bind,ro", "/sys/kernel/mm")


def mount_points() -> list[str]:
    """Return where something is mounted, in the order in which it was."""
    return [line.split()[4].encode().decode("unicode_escape") for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def call(*command: str) -> None:
    subprocess.run(command, check=True)


def keep_daemon_running(address_space_mib: Optional[int]) -> None:
    """Reap whatever dies; start libvirtd, and start it again when it dies. Ends with SIGKILL from outside."""
    short_lives = 0
    while short_lives < MOST_SHORT_LIVES:
        started = time.monotonic()
        daemon = start_daemon(address_space_mib)
        log(f"libvirtd started as process {daemon} of the namespace")
        while True:
            pid, status = os.wait()
            if pid == daemon:
                break
        log(f"libvirtd ended with wait status {status}")
        short_lives = short_lives + 1 if time.monotonic() - started < SHORT_LIFE else 0
        time.sleep(0.5)
    log(f"libvirtd ended {MOST_SHORT_LIVES} times within {SHORT_LIFE} s of its start: giving up")


def start_daemon(address_space_mib: Optional[int]) -> int:
    limit = [f"--as={address_space_mib << 20}"] if address_space_mib else []
    # Not waited for here: keep_daemon_running() reaps whatever dies, the daemon too.
    return os.spawnvp(os.P_NOWAIT, "prlimit", ["prlimit", *limit, "libvirtd"])


def log(message: str) -> None:
    print(time.strftime("%F %T"), message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
