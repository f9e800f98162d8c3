# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a default deny allows, which connection a task came by, and which rules it refuses, from made-up trees. Traffic is for ring 3."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._node import deny, firewall, host_firewall, ssh, unconfirmed_rules
from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root

DENY: dict[str, Any] = {"deny": ["forward", "input"], "allow": [], "through": []}
SHELL, DAEMON = 4100000, 4100001  # no process of ours has such a number


def place(root: Root, path: str, text: str) -> None:
    file = Path(root.at(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(str(tmp_path))


def come_by(root: Root, connection: str) -> None:
    """Have this process run below sudo, below the shell that sshd started."""
    place(root, f"/proc/{os.getpid()}/environ", "SUDO_USER=admin\0")
    place(root, f"/proc/{os.getpid()}/stat", f"1 (a (b) c) S {SHELL} 1 1")
    place(root, f"/proc/{SHELL}/environ", f"HOME=/root\0SSH_CONNECTION={connection}\0" if connection else "HOME=/root\0")
    place(root, f"/proc/{SHELL}/stat", f"1 (sh) S {DAEMON} 1 1")


def test_the_connection_is_found_though_sudo_cleared_the_variable(root: Root) -> None:
    come_by(root, "192.0.2.7 51000 192.0.2.1 22")
    assert ssh.connection(root) == ssh.Connection("192.0.2.7", 51000, 22)
    come_by(root, "fe80::1%eth0 51000 fe80::2%eth0 22")
    assert ssh.connection(root) == ssh.Connection("fe80::1", 51000, 22)


def test_a_task_that_came_by_no_ssh_has_no_connection(root: Root) -> None:
    assert ssh.connection(root) is None
    come_by(root, "")
    assert ssh.connection(root) is None


@pytest.mark.parametrize(
    ("allow", "refused"),
    [
        ({"port": "22"}, False),
        ({"port": "20-30", "sources": ["fd00::/8", "192.0.2.0/24"]}, False),
        ({"port": "22", "sources": ["192.0.3.0/24"]}, True),
        ({"port": "22", "sources": ["fd00::/8"]}, True),
        ({"port": "22", "proto": "udp"}, True),
        ({"port": "2222"}, True),
    ],
)
def test_a_deny_is_refused_under_which_this_connection_could_not_be_made_again(root: Root, allow: dict[str, Any], refused: bool) -> None:
    come_by(root, "192.0.2.7 51000 192.0.2.1 22")
    denied = {**DENY, "allow": [{"name": "ssh", **allow}]}
    if not refused:
        host_firewall._refuse_cut(root, denied)
        return
    with pytest.raises(KvmError, match="nothing lets TCP port 22 in from 192"):
        host_firewall._refuse_cut(root, denied)
    host_firewall._refuse_cut(root, {**denied, "deny": ["forward"]})


def waits(root: Root, left: float, **more: Any) -> None:
    state = {"token": "t1", "deny": DENY, "until": time.clock_gettime(time.CLOCK_BOOTTIME) + left, "connected": ["192.0.2.7 51000"], "over": None}
    place(root, unconfirmed_rules.STATE, json.dumps({**state, **more}))


def test_only_a_connection_that_was_made_under_the_rules_confirms_them(root: Root) -> None:
    waits(root, 60, over="192.0.2.7 51000")
    waiting = unconfirmed_rules.waiting(root)
    assert waiting
    come_by(root, "192.0.2.7 51000 192.0.2.1 22")
    with pytest.raises(KvmError, match="older than the change"):
        ssh.refuse_old(root, waiting.over, waiting.connected)
    come_by(root, "")
    with pytest.raises(KvmError, match="only a new SSH connection"):
        ssh.refuse_old(root, waiting.over, waiting.connected)
    come_by(root, "192.0.2.7 51001 192.0.2.1 22")
    ssh.refuse_old(root, waiting.over, waiting.connected)


def test_rules_whose_timer_was_killed_wait_no_longer_and_are_forgotten(root: Root) -> None:
    waits(root, 60)
    with pytest.raises(KvmError, match="waits to be confirmed for"):
        unconfirmed_rules.refuse_waiting(root)
    waits(root, -unconfirmed_rules.GRACE - 1)
    unconfirmed_rules.refuse_waiting(root)
    part = unconfirmed_rules.left_over(root)
    assert [change.option for change in part.changes] == ["unconfirmed"]
    part.steps[0].do()
    assert not root.exists(unconfirmed_rules.WAITING)


def test_who_is_too_late_to_confirm_is_told_so(root: Root) -> None:
    with pytest.raises(KvmError, match="taken back a moment ago"):
        unconfirmed_rules.take(root, "t1")


def test_networks_of_libvirt_are_judged_by_libvirt_as_they_run(root: Root) -> None:
    definition = "<network><name>{0}</name>{1}<bridge name='{0}'/><ip address='10.1.1.1' prefix='24'>{2}</ip></network>"
    for name, forward, more in (("nat0", "<forward mode='nat'/>", "<tftp root='/srv'/>"), ("cell", "", ""), ("own0", "<forward mode='open'/>", ""),
                                ("lan0", "<forward mode='bridge'/>", ""), ("was", "<forward mode='open'/>", "")):  # fmt: skip
        place(root, f"/etc/libvirt/qemu/networks/{name}.xml", definition.format(name, forward, more))
    place(root, "/run/libvirt/network/was.xml", f"<networkstatus>{definition.format('was', '<forward/>', '')}</networkstatus>")
    place(root, "/run/libvirt/network/macvtap.xml", "<networkstatus><network><forward mode='bridge' dev='e'/></network></networkstatus>")
    rules = deny.chains(root, {**DENY, "through": ["docker0"]}, [])
    assert 'iifname { "cell", "nat0", "own0", "was" } udp dport { 53, 67, 547 } accept' in rules["input"]
    assert 'iifname { "nat0" } udp dport 69 accept' in rules["input"]
    assert rules["forward"] == [
        "ct state established,related accept",
        'iifname { "cell", "docker0", "nat0", "was" } accept',
        'oifname { "cell", "docker0", "nat0", "was" } accept',
        'iifname "lan0" oifname "lan0" accept',
        'iifname "own0" oifname "own0" accept',
        "drop",
    ]


def test_guests_reach_of_the_host_what_their_network_says(root: Root) -> None:
    base = {"subnet": "10.1.1.0/24", "mode": "nat"}
    networks = [{"name": "a", "bridge": "a", "host": "open", **base}, {"name": "b", "bridge": "b", **base},
                {"name": "c", "bridge": "c", "host": "closed", **base}]  # fmt: skip
    rules = deny.chains(root, {**DENY, "deny": ["input"]}, networks)
    assert list(rules) == ["input"]
    assert 'iifname "a" accept' in rules["input"]
    assert 'iifname { "b" } tcp dport 53 accept' in rules["input"]
    assert not [rule for rule in rules["input"] if '"c"' in rule]


def test_sources_of_both_families_are_a_rule_each(root: Root) -> None:
    allow = {"name": "ssh", "port": "22", "sources": ["fd00::/8", "192.0.2.0/24"]}
    found = [rule for rule in deny.chains(root, {**DENY, "allow": [allow]}, [])["input"] if "ssh" in rule]
    assert found == ['ip saddr { 192.0.2.0/24 } tcp dport 22 accept comment "ssh"', 'ip6 saddr { fd00::/8 } tcp dport 22 accept comment "ssh"']


def test_a_port_that_is_not_named_stays_and_one_that_is_absent_goes() -> None:
    before = {**DENY, "allow": [{"name": "a", "port": "1"}, {"name": "b", "port": "2"}]}
    after = host_firewall.merged(before, {"allow": [{"name": "b", "state": "absent"}, {"name": "c", "port": "3", "state": "present"}]})
    assert after == {**DENY, "allow": [{"name": "a", "port": "1"}, {"name": "c", "port": "3"}]}
    with pytest.raises(KvmError, match=r"allow\[d\].port"):
        host_firewall.merged(before, {"allow": [{"name": "d"}]})


def test_rules_that_keep_the_guest_from_the_host_by_which_ansible_came_are_refused(root: Root) -> None:
    network = {"name": "lan", "bridge": "br0", "subnet": "192.0.2.0/24", "mode": "routed", "host": "closed"}
    come_by(root, "192.0.2.7 51000 192.0.2.1 22")
    with pytest.raises(KvmError, match="host: closed would let no new connection of SSH in"):
        firewall.plan(root, network)
    firewall._refuse_cut(root, {**network, "host": "open"})
    come_by(root, "192.0.3.7 51000 192.0.2.1 22")
    firewall._refuse_cut(root, network)
