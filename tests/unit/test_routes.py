"""The host's interfaces and routes, read from a tree that is not the host's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._node._root import Root
from ansible_collections.anfitrion.kvm.plugins.module_utils._node.routes import number_of_vfs, routes, total_vfs

pytestmark = pytest.mark.ring(1)

V4 = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0
tun0 00000000 00000000 0001 0 0 0 00000080 0 0 0
eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0
eth0 0000FEA9 00000000 0001 0 0 0 0000FFFF 0 0 0
"""
ZERO = "0" * 32
V6 = "".join(
    f"{to} {length} {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001 {dev}\n"
    for to, length, dev in (
        (f"fd{'0' * 30}", "40", "eth0"),
        (f"fe80{'0' * 28}", "40", "eth0"),
        (ZERO, "00", "eth0"),
        (f"fd{'0' * 29}2", "80", "lo"),
    )
)


@pytest.fixture
def host(tmp_path: Path) -> Root:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/route").write_text(V4)
    (tmp_path / "proc/net/ipv6_route").write_text(V6)
    device = tmp_path / "sys/class/net/ens1f0/device"
    device.mkdir(parents=True)
    (device / "sriov_totalvfs").write_text("8\n")
    (device / "sriov_numvfs").write_text("4\n")
    return Root(str(tmp_path))


def test_default_and_link_local_routes_are_no_obstacle(host: Root) -> None:
    assert [(str(route.to), route.dev) for route in routes(host)] == [("192.0.2.0/24", "eth0"), ("fd00::/64", "eth0")]


def test_a_host_without_ipv6_has_routes_too(host: Root) -> None:
    Path(host.at("/proc/net/ipv6_route")).unlink()
    assert len(routes(host)) == 1


def test_a_physical_function_tells_how_many_virtual_ones_it_has_and_can_have(host: Root) -> None:
    assert (total_vfs(host, "ens1f0"), number_of_vfs(host, "ens1f0")) == (8, 4)
    assert (total_vfs(host, "eth0"), number_of_vfs(host, "eth0")) == (None, 0)
