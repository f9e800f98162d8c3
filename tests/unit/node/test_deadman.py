# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A change that nobody confirms takes itself back: real files, the real script, the real process that waits."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import deadman
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Output, Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.deadman import DIRECTORY, Restore

from .conftest import refusal

LONG = 600


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A host without systemd whose files are in a directory; clock and commands are this machine's."""
    place = Root(str(tmp_path / "host"))
    place.place("/etc/there", "old\n", 0o640)
    place.point("/etc/link", "there")
    place.place("/proc/uptime", "100.00 1.0\n")
    place.place("/proc/sys/kernel/random/boot_id", "one\n")
    return place


def change(root: Root) -> None:
    root.place("/etc/there", "new\n", 0o600)
    root.place("/etc/new", "new\n")
    root.remove("/etc/link")


RESTORE = Restore(("/etc/there", "/etc/new", "/etc/link"))


def armed(root: Root, seconds: int = LONG, restore: Restore = RESTORE) -> str:
    token = deadman.new_token("network")
    deadman.arm(root, token, restore, seconds)
    change(root)
    return token


def is_old(root: Root) -> bool:
    same = root.text("/etc/there") == "old\n" and root.mode("/etc/there") == 0o640
    return same and not root.exists("/etc/new") and os.readlink(root.at("/etc/link")) == "there"


def eventually(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


def told(root: Root) -> str:
    now = deadman.state(root, "network")
    assert now is not None
    return now.state


def waiting(root: Root) -> list[str]:
    """The processes that wait to take a change of this host back."""
    done = subprocess.run(["pgrep", "-f", f"sleep .*exec /bin/sh {root.at(DIRECTORY)}"], capture_output=True, text=True, check=False)
    return done.stdout.split()


@pytest.fixture(autouse=True)
def nothing_waits(root: Root):  # type: ignore[no-untyped-def]
    yield
    for pid in waiting(root):
        with suppress(ProcessLookupError):  # it may end by itself in between
            os.killpg(int(pid), 9)


def test_a_change_that_nobody_confirms_is_taken_back_without_the_task(root: Root) -> None:
    token = armed(root, 1)
    assert not is_old(root)
    assert eventually(lambda: told(root) == deadman.TAKEN_BACK)
    assert is_old(root)
    assert refusal(lambda: deadman.confirm(root, token)) == f"the change {token} was not confirmed in time and has been taken back"
    assert not root.exists(deadman.UNIT_FILE)
    assert not root.exists(deadman.UNIT_LINK)


def test_a_confirmed_change_stays_and_may_be_confirmed_again(root: Root) -> None:
    token = armed(root, 2)
    deadman.confirm(root, token)
    deadman.confirm(root, token)
    assert eventually(lambda: not waiting(root))
    assert not is_old(root)
    assert told(root) == deadman.CONFIRMED
    assert root.list(f"{DIRECTORY}/network.confirmed") == ["token"]
    assert not root.exists(deadman.UNIT_FILE)


def test_the_state_tells_the_seconds_that_are_left(root: Root) -> None:
    armed(root)
    root.place("/proc/uptime", "160.00 1.0\n")
    now = deadman.state(root, "network")
    assert now is not None
    assert (now.state, now.seconds_left) == (deadman.ARMED, LONG - 60)


def test_a_second_change_is_refused_while_one_waits(root: Root) -> None:
    token = armed(root)
    words = refusal(lambda: deadman.arm(root, deadman.new_token("network"), RESTORE, LONG))
    assert words == f"an earlier change ({token}) waits to be confirmed, 600 s are left; confirm it with anfitrion.kvm.kvm_confirm, or wait"
    deadman.arm(root, deadman.new_token("firewall"), Restore(("/etc/other",)), LONG)  # another name is another matter


def test_only_the_token_of_this_change_confirms_it(root: Root) -> None:
    armed(root)
    assert refusal(lambda: deadman.confirm(root, "network-000000000000")).startswith("no change with the token")
    assert told(root) == deadman.ARMED


def boot(root: Root) -> None:
    """Do what the unit does early in a boot."""
    loop = deadman.UNIT_TEXT.partition("ExecStart=/bin/sh -c '")[2].partition("'\n")[0].replace(DIRECTORY, root.at(DIRECTORY))
    subprocess.run(["/bin/sh", "-c", loop], check=True)


def test_a_boot_takes_the_files_back_and_runs_no_command_that_needs_a_running_host(root: Root) -> None:
    live = (f"touch {root.at('/before')}",), (f"touch {root.at('/after')}",)
    armed(root, LONG, Restore(RESTORE.paths, *live, boot=(f"touch {root.at('/boot')}",)))
    assert root.exists(deadman.UNIT_LINK)
    boot(root)
    assert is_old(root)
    assert [root.exists(path) for path in ("/before", "/after", "/boot")] == [False, False, True]
    assert not root.exists(deadman.UNIT_LINK)


def test_a_boot_goes_on_with_what_was_cut_off(root: Root) -> None:
    armed(root, LONG, Restore(RESTORE.paths, before=("kill -9 $$",)))
    subprocess.run(["/bin/sh", root.at(f"{DIRECTORY}/network.armed/restore"), "live"], check=False)
    assert told(root) == deadman.RUNNING
    boot(root)
    assert is_old(root)
    assert told(root) == deadman.TAKEN_BACK


def test_a_command_that_fails_does_not_keep_the_rest_from_being_put_back_and_is_told(root: Root) -> None:
    see = f"cat {root.at('/etc/there')} ruleset > {root.at('/seen')}"
    restore = Restore(
        RESTORE.paths, ("no-such-command one",), (see, f"cat {root.at('/etc/there')} >> {root.at('/seen')}"), texts={"ruleset": "kept\n"}
    )
    token = armed(root, LONG, restore)
    deadman.take_back(root, token)
    assert is_old(root)
    assert root.text("/seen") == "old\nkept\nold\n"
    assert "no-such-command: not found" in refusal(lambda: deadman.confirm(root, token))


def test_a_change_that_was_confirmed_is_not_taken_back(root: Root) -> None:
    token = armed(root)
    deadman.confirm(root, token)
    with pytest.raises(KvmError, match="ended with"):
        deadman.take_back(root, token)
    assert not is_old(root)


def test_who_is_first_wins_however_close_they_are(root: Root) -> None:
    for _round in range(10):
        root.place("/etc/there", "old\n", 0o640)
        root.remove("/etc/new")
        root.point("/etc/link", "there")
        token = armed(root)
        script = subprocess.Popen(["/bin/sh", root.at(f"{DIRECTORY}/network.armed/restore"), "live"])
        time.sleep(0.002)
        try:
            deadman.confirm(root, token)
            stays = True
        except KvmError:
            stays = False
        script.wait()
        assert told(root) == (deadman.CONFIRMED if stays else deadman.TAKEN_BACK)
        assert is_old(root) is not stays


def test_systemd_is_asked_for_a_timer_where_it_runs(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def answer(argv: list[str], text: str | None = None, timeout: float = 60.0) -> Output:
        asked.append(argv)
        return Output(0, "", "")

    monkeypatch.setattr(root, "run", answer)
    root.place("/run/systemd/system/.there", "")
    deadman.confirm(root, armed(root, 90))
    script = root.at(f"{DIRECTORY}/network.armed/restore")
    timer = ["--unit=anfitrion-deadman-network", "--collect", "--on-active=90", "--timer-property=AccuracySec=100ms"]
    started = ["systemd-run", "--quiet", *timer, "/bin/sh", "-c", f"exec /bin/sh {script} live"]
    assert asked[1:] == [started, ["systemctl", "stop", "anfitrion-deadman-network.timer"]]


def test_a_connection_from_before_the_change_confirms_nothing(root: Root) -> None:
    token, peer = armed(root), "192.0.2.7 51000"
    place = f"{DIRECTORY}/network.armed/connections"
    root.place(f"/proc/{os.getpid()}/environ", f"SSH_CONNECTION={peer} 192.0.2.1 22\0")
    root.place(place, json.dumps({"over": peer, "connected": [peer]}))
    assert "is older than the change" in refusal(lambda: deadman.refuse_old_connection(root, token))
    root.place(place, json.dumps({"over": "192.0.2.7 50999", "connected": ["192.0.2.7 50999"]}))
    deadman.refuse_old_connection(root, token)
    root.remove(f"/proc/{os.getpid()}/environ")
    assert "only a new SSH connection" in refusal(lambda: deadman.refuse_old_connection(root, token))
    deadman.confirm(root, token)
