# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files that each manager of a host's network gets for a bridge, and what is refused that no test machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._node import bridge, bridge_ifupdown, bridge_networkd, bridge_nm
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.bridge_wish import Wish

from .conftest import Host, refusal

FILES = Path(__file__).with_name("bridge")
MAC = "52:54:00:aa:bb:01"
NETWORK = """# of the operator
[Match]
Name=eth0

[Link]
MTUBytes=9000
MACAddress=52:54:00:aa:bb:01

[Network]
DHCP=yes
VLAN=eth0.7
DNS=10.5.0.9

[Route]
Destination=10.6.0.0/16
Gateway=10.5.0.3
"""
PROFILE = """[connection]
id=wired
uuid=11111111-2222-3333-4444-555555555555
type=ethernet
interface-name=eth0
zone=internal

[ethernet]
mtu=9000

[ipv4]
method=manual
address1=10.5.0.2/24,10.5.0.1
dns=10.5.0.9;
"""
INTERFACES = """# of the operator
source interfaces.d/*

auto eth0
iface eth0 inet static
    address 10.5.0.2/24
    gateway 10.5.0.1
    mtu 9000

# the other one
iface eth1 inet manual
"""
BOND = {"name": "bond0", "mode": "802.3ad", "miimon_ms": 200}
SHAPES = {
    "one-nic": Wish("br0", ("eth0",), MAC),
    "vlan-on-bond": Wish("br0", ("eth0", "eth1"), MAC, BOND, 100, stp=True, forward_delay_s=4),
    "vlan-on-nic": Wish("br0", ("eth0",), MAC, vlan=100),
}


def wish(shape: str, source: str, text: str) -> Wish:
    one = SHAPES[shape]
    return Wish(one.name, one.ports, one.mac, one.bond, one.vlan, one.stp, one.forward_delay_s, source, "eth0", text, 7)


def written(manager: str, shape: str, host: Host) -> dict[str, str]:
    if manager == "ifupdown":
        host.has({"/etc/network/interfaces": INTERFACES.rstrip("\n"), "/usr/sbin/ifup": ""})
        return bridge_ifupdown.files(host, wish(shape, "/etc/network/interfaces", ""))
    if manager == "networkd":
        return bridge_networkd.files(wish(shape, "/run/systemd/network/10-eth0.network", NETWORK))
    return bridge_nm.files(wish(shape, "/etc/NetworkManager/system-connections/wired.nmconnection", PROFILE))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("manager", bridge.MANAGERS)
def test_each_manager_gets_the_files_that_its_tools_were_asked_about(manager: str, shape: str, host: Host, request: pytest.FixtureRequest) -> None:
    found = {Path(path).name: text for path, text in written(manager, shape, host).items()}
    place = FILES / shape / manager
    if request.config.getoption("--regenerate"):
        place.mkdir(parents=True, exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        for name, text in found.items():
            (place / name).write_text(text, encoding="utf-8")
    assert found == {path.name: path.read_text(encoding="utf-8") for path in place.iterdir()}


def test_what_ifupdown_reads_is_as_before_without_the_bridge(host: Host) -> None:
    for path, text in written("ifupdown", "vlan-on-bond", host).items():
        host.place(path, text)
    assert bridge_ifupdown.without(host, "br0") == {"/etc/network/interfaces": INTERFACES}


def test_a_hook_that_names_the_nic_is_refused(host: Host) -> None:
    host.has({"/etc/network/interfaces": f"{INTERFACES}iface eth0 inet6 auto\n    up ip -6 route add fd00::/8 dev eth0"})
    words = refusal(lambda: bridge_ifupdown.refuse(host, "eth0", "/etc/network/interfaces"))
    assert words.startswith("ports: /etc/network/interfaces has 'up ip -6 route add fd00::/8 dev eth0'")


def test_ifupdown2_is_refused(host: Host) -> None:
    host.has({"/etc/network/interfaces": INTERFACES, "/usr/share/ifupdown2": None})
    assert "ifupdown2" in refusal(lambda: bridge_ifupdown.refuse(host, "eth0", None))


def test_a_file_of_networkd_that_comes_before_ours_is_refused(host: Host) -> None:
    host.has({"/etc/systemd/network/00-a.network": NETWORK})
    words = refusal(lambda: bridge_networkd.refuse(host, "eth0", "/etc/systemd/network/00-a.network"))
    assert words.endswith("rename it to 10-00-a.network first")


def test_a_profile_that_is_no_keyfile_is_refused(host: Host) -> None:
    host.has({"/etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0"})
    words = refusal(lambda: bridge_nm.refuse(host, "eth0", "/etc/sysconfig/network-scripts/ifcfg-eth0"))
    assert words.endswith("turn it into one with nmcli connection migrate")


def test_wifi_is_refused(host: Host) -> None:
    host.has({"/sys/class/net/wlan0/type": 1, "/sys/class/net/wlan0/phy80211": None})
    words = refusal(lambda: bridge.plan(bridge.Host(host, 60), {"name": "br0", "ports": ["wlan0"]}))
    assert words.startswith("ports: wlan0 is a Wi-Fi interface")


def test_a_nic_of_a_bond_is_refused(host: Host) -> None:
    host.has({"/sys/class/net/eth0/type": 1, "/sys/class/net/bond7/bonding": None, "/sys/class/net/eth0/master": "->../bond7"})
    words = refusal(lambda: bridge.plan(bridge.Host(host, 60), {"name": "br0", "ports": ["eth0"]}))
    assert words == "ports: eth0 is in the bond bond7 already"


def test_networkd_tells_the_number_of_a_dhcp_client(host: Host) -> None:
    host.has({"/sys/class/net/eth0/ifindex": 2, "/run/systemd/netif/leases/2": "# private\nADDRESS=10.5.0.2\nCLIENTID=ff0a0b0c0d00020000ab11"})
    assert bridge_networkd.iaid(host, "eth0") == 0x0A0B0C0D


@pytest.mark.parametrize(
    ("told", "number"),
    [
        ("dhcp_client_identifier = 01\\:c6\\:d7\\:91\\:63\\:56\\:20\ndhcp6_client_id = 00\\:04 | iaid = 2b\\:50\\:67\\:35", 0x2B506735),
        ("dhcp_client_identifier = ff\\:2b\\:50\\:67\\:36\\:00\\:04\\:22\n", 0x2B506736),
        ("dhcp_client_identifier = 01\\:c6\\:d7\\:91\\:63\\:56\\:20\n\n", None),
        ("\n", None),
    ],
)
def test_networkmanager_tells_the_number_of_a_dhcp_client(host: Host, monkeypatch: pytest.MonkeyPatch, told: str, number: int | None) -> None:
    monkeypatch.setattr(host, "must_run", lambda _argv: told)
    assert bridge_nm.iaid(host, "eth0") == number
