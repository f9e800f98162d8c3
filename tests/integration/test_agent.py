"""kvm_agent and its info twin on a real agent in a real guest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guest_os import GuestOS

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH0MVRqDcBvPyOPyjWKGs8mLh0FOcqvXFbMbxaIzkPrE one@example.org"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK1m5tn6Cq9v1vZsUNYiNFmgqZ0fEYSy1S2SHbN5pKQf two@example.org"
SECRET = "correct-horse-battery"

Options = dict[str, Any]


def agent(check: bool = False, **options: Any) -> Options:
    return {"name": "Agent", "anfitrion.kvm.kvm_agent": {"name": "linux", **options}, "check_mode": check}


def tried(play: Any, **options: Any) -> Any:
    check, real, again = play([agent(True, **options), agent(**options), agent(**options)]).succeeded().tasks
    assert check.changed
    assert real.changed
    assert check.result["changes"] == real.result["changes"]
    assert not again.changed, again.result
    return real


@pytest.mark.row("S04")
def test_what_a_guest_says_of_itself_is_told(play: Any, linux: GuestOS) -> None:
    linux.shell("ip address replace 10.0.2.99/24 dev $(ls /sys/class/net | grep -v lo | head -1); hostname linux")
    linux.shell("printf 'ID=tiny\\nPRETTY_NAME=Tiny\\n' > /etc/os-release")
    told = play({"anfitrion.kvm.kvm_agent_info": {"name": "linux"}}).succeeded().only.result["guests"][0]
    assert told["agent"] is True
    assert told["hostname"] == "linux"
    assert told["os"]["id"] == "tiny"
    assert "10.0.2.99" in told["addresses"]
    assert {nic["hwaddr"] for nic in told["interfaces"]} >= {"52:54:00:0a:00:01"}


# What a distribution has and the tiny guest has not: QEMU's agent hands "name:password" to it.
CHPASSWD = r"""#!/bin/sh
IFS=: read -r name word
echo "$name:$(mkpasswd -m sha512 "$word"):1:0:::::" > /etc/shadow
"""


@pytest.mark.row("S04")
@pytest.mark.row("P13")
def test_a_password_and_keys_are_set_once(play: Any, linux: GuestOS) -> None:
    linux.shell(f"cat > /bin/chpasswd <<'EOT'\n{CHPASSWD}EOT\nchmod 755 /bin/chpasswd")
    linux.shell("mkdir -p /root && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd && echo 'root:*:1:0:::::' > /etc/shadow && rm -rf /root/.ssh")
    users = [{"name": "root", "password": SECRET, "ssh_keys": [KEY]}]
    real = tried(play, users=users)
    assert {change["option"] for change in real.result["changes"]} == {"users[root].password", "users[root].ssh_keys"}
    assert SECRET not in str(real.result)
    hashed = linux.shell("cut -d: -f2 /etc/shadow")
    assert len(hashed) > 10
    assert linux.shell("cat /root/.ssh/authorized_keys") == KEY
    tried(play, users=[{"name": "root", "ssh_keys": [OTHER]}])
    assert linux.shell("cat /root/.ssh/authorized_keys").splitlines() == [KEY, OTHER]
    tried(play, users=[{"name": "root", "ssh_keys": [OTHER], "exclusive": True}])
    assert linux.shell("cat /root/.ssh/authorized_keys") == OTHER
    tried(play, users=[{"name": "root", "ssh_keys": [OTHER], "state": "absent"}])
    assert not linux.shell("cat /root/.ssh/authorized_keys")
    tried(play, users=[{"name": "root", "password": "another-secret"}])
    assert linux.shell("cut -d: -f2 /etc/shadow") != hashed


@pytest.mark.row("S04")
def test_the_clock_is_set_when_it_is_off(play: Any, linux: GuestOS) -> None:
    linux.shell("date -s @1000000000")
    assert tried(play, time="host", time_tolerance=5).result["changes"][0]["option"] == "time"


@pytest.fixture
def file_system(play: Any, linux: GuestOS, tmp_path: Path) -> Iterator[GuestOS]:
    """The guest with a file system on a disk that was plugged in."""
    image = tmp_path / "ext4.raw"
    subprocess.run(["/usr/sbin/mke2fs", "-q", "-t", "ext4", str(image), "8M"], check=True)
    disk = {"target": "vdx", "path": str(image)}
    play({"anfitrion.kvm.kvm_domain": {"name": "linux", "disks": [disk]}}).succeeded()
    linux.until("mkdir -p /mnt; mount -t ext4 /dev/vdb /mnt 2>&1; mount", lambda seen: " /mnt " in seen)
    yield linux
    linux.shell("umount /mnt")
    play({"anfitrion.kvm.kvm_domain": {"name": "linux", "disks": [{**disk, "state": "absent"}]}}).succeeded()


@pytest.mark.row("S04")
def test_file_systems_are_frozen_thawed_and_trimmed(play: Any, file_system: GuestOS) -> None:
    tried(play, frozen=True)
    assert file_system.agent("guest-fsfreeze-status") == "frozen"
    refused = play(agent(frozen=True, trimmed=True)).only
    assert refused.message == (
        "agent 'linux': frozen: goes in a task of its own, without trimmed; a frozen guest's agent does nothing else"
    )
    tried(play, frozen=False)
    assert file_system.agent("guest-fsfreeze-status") == "thawed"
    trimmed = play(agent(trimmed=True)).succeeded().only
    assert not trimmed.changed
    assert trimmed.result["trimmed_bytes"] >= 0


@pytest.mark.row("S04")
def test_a_guest_is_thawed_when_the_step_between_fails(play: Any, file_system: GuestOS, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    ask = ["virsh", "qemu-agent-command", "linux", '{"execute":"guest-fsfreeze-status"}']
    (tmp_path / "between.yml").write_text(f"""
- name: Look
  ansible.builtin.command: {{argv: {ask}}}
  register: look
- name: Keep
  ansible.builtin.copy: {{content: "{{{{ look.stdout }}}}", dest: "{seen}", mode: "0600"}}
- name: Break
  ansible.builtin.fail: {{msg: broken on purpose}}
""")
    run = play({"ansible.builtin.include_role": {"name": "anfitrion.kvm.frozen"}}, frozen_guest="linux", frozen_tasks=str(tmp_path / "between.yml"))
    assert [task.message for task in run.failed] == ["broken on purpose"]
    assert "frozen" in seen.read_text()
    assert file_system.agent("guest-fsfreeze-status") == "thawed"


def state_of(image: Path, kind: str, tmp_path: Path) -> tuple[bool, str]:
    """Whether the file system of an image needs repair, and what its file holds."""
    raw = tmp_path / "state.raw"
    subprocess.run(["qemu-img", "convert", "-U", "-f", kind, "-O", "raw", str(image), str(raw)], check=True)
    told = subprocess.check_output(["/usr/sbin/dumpe2fs", "-h", str(raw)], text=True, stderr=subprocess.DEVNULL)
    held = subprocess.run(["/usr/sbin/debugfs", "-R", "cat /file", str(raw)], capture_output=True, text=True, check=True)
    return "needs_recovery" in told, held.stdout.strip()


@pytest.mark.row("P09")
def test_a_backup_of_file_systems_that_are_held_still_needs_no_repair(play: Any, file_system: GuestOS, tmp_path: Path) -> None:
    file_system.shell("echo unwritten > /mnt/file")
    task = {"domain": "linux", "path": str(tmp_path / "b"), "disks": ["vdx"]}
    entries = [{"name": "as-it-is"}, {"name": "still", "quiesce": True}, {"name": "pulled", "quiesce": True, "mode": "pull"}]
    play({"anfitrion.kvm.kvm_backup": {"defaults": task, "backups": entries}}).succeeded()
    found = {one["name"]: state_of(tmp_path / "b" / one["name"] / "vdx.qcow2", "qcow2", tmp_path) for one in entries}
    assert found["as-it-is"][0], "the file system is in use, so this shows nothing"
    assert found["still"] == found["pulled"] == (False, "unwritten")
    assert file_system.agent("guest-fsfreeze-status") == "thawed"


@pytest.mark.row("S04")
def test_an_agent_that_is_not_there_is_waited_for_and_no_longer(play: Any, fresh_name: str, libvirtd: Any) -> None:
    guest = {"name": fresh_name, "type": "qemu", "memory": {"size": "64MiB"}, "state": "running", "guest_agent": True}
    gone = {"name": fresh_name, "state": "absent", "force_stop": True, "stop_timeout": 0}
    failed, info, _gone = play([
        {"anfitrion.kvm.kvm_domain": guest},
        {"anfitrion.kvm.kvm_agent": {"name": fresh_name, "time": "host", "wait_timeout": 2}, "ignore_errors": True},
        {"anfitrion.kvm.kvm_agent_info": {"name": fresh_name}},
        {"anfitrion.kvm.kvm_domain": gone},
    ]).tasks[1:]  # fmt: skip
    assert failed.message == (
        f"agent {fresh_name!r}: its agent did not answer within 2 s: Guest agent is not responding: QEMU guest agent is not connected"
    )
    assert info.result["guests"][0]["agent"] is False
    stopped = play({"anfitrion.kvm.kvm_agent": {"name": "nobody", "time": "host"}}).only
    assert stopped.message == "agent 'nobody': it does not exist on this host"
