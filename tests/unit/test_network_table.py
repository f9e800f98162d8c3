"""The rules of the network table that need no libvirt."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._tables.network import TABLE, check, complete, short

pytestmark = pytest.mark.ring(1)

A = "52:54:00:00:00:01"


def subnet(dhcp: Any = None, **options: Any) -> dict[str, Any]:
    return {"ips": [{"address": "10.99.0.1", "prefix": 24, **({"dhcp": dhcp} if dhcp else {}), **options}]}


def hosts(*entries: tuple[str, str, str]) -> dict[str, Any]:
    return {"hosts": [{"mac": mac, "name": name, "ip": ip} for mac, name, ip in entries]}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (subnet(address="10.99.0.999"), "'10.99.0.999' not an IP address"),
        (subnet(prefix="255.0.255.0"), "netmask is not contiguous"),
        (subnet(prefix=0), "not in 1..128"),
        (subnet(hosts((A, "a", "10.99.0.7"), (A, "b", "10.99.0.8"))), f"hosts[1]: mac {A} is that of"),
        (subnet(hosts((A, "a\nb", "10.99.0.7"))), "control characters are not allowed"),
        (subnet(hosts((A, "a,b", "10.99.0.7"))), "expected a valid host name"),
        (subnet(hosts((A, "-a", "10.99.0.7"))), "expected a valid host name"),
        ({"domain": {"name": "lab.test\ndhcp-script=/tmp/x"}}, "domain.name: 'lab.test\\ndhcp-script=/tmp/x' control characters"),
        ({"domain": {"name": "two words"}}, "expected a valid host name"),
        ({"dns": {"forwarders": [{"addr": "10.0.0.1\n"}]}}, "not an IP address"),
        ({"bridge": {"name": "br\n0"}}, "control characters are not allowed"),
        ({"bridge": {"name": "b" * 16}}, "expected at most 15 characters of A-Za-z0-9._-"),
        ({"bridge": {"name": "br%d"}}, "expected at most 15 characters of A-Za-z0-9._-"),
        ({"bridge": {"name": "vnet9"}}, "and not a reserved name"),
        ({"bridge": {"name": "all"}}, "and not a reserved name"),
        ({"mac": "01:00:5e:00:00:01"}, "mac: '01:00:5e:00:00:01' multicast, the first octet must be even"),
        ({"mac": "52-54-00-00-00-01"}, "expected xx:xx:xx:xx:xx:xx"),
        ({"forward": {"nat": {"ports": {"start": 0}}}}, "forward.nat.ports.start: 0 not in 1..65535"),
        ({"name": "a/b"}, '"/" is not allowed'),
        ({"name": ".."}, '"." and ".." are reserved'),
        ({"uuid": "1-2-3"}, "'1-2-3' not a UUID"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_libvirt_sees_it(options: dict[str, Any], text: str) -> None:
    with pytest.raises(KvmError) as error:
        _fields.normal(TABLE.rows, options)
    assert text in str(error.value)


def test_short_words_stand_for_libvirts_own() -> None:
    assert complete({"mode": "routed"}, {}) == {"forward": {"mode": "route"}}
    assert complete({"mode": "isolated"}, {}) == {"forward": {"state": "absent"}}
    assert complete({"vf_pool": {"pf": "ens1f0"}}, {}) == {"forward": {"mode": "hostdev", "pf": "ens1f0", "managed": True}}


@pytest.mark.parametrize("found", [{"forward": {"mode": "route", "dev": "eth0"}}, {}, {"forward": {"mode": "hostdev", "pf": "ens1f0"}}])
def test_what_the_short_words_hide_comes_back(found: dict[str, Any]) -> None:
    wanted = complete(short(found), {})
    assert wanted.get("forward", {"state": "absent"}) == found.get("forward", {"state": "absent"})


def test_a_family_is_written_only_where_libvirt_needs_it() -> None:
    found = complete({"ips": [{"address": "10.0.0.1", "family": "ipv4"}, {"address": "fd00::1"}]}, {})
    assert [ip.get("family") for ip in found["ips"]] == [None, "ipv6"]
    with pytest.raises(KvmError, match="the address is ipv4, asked ipv6"):
        complete({"ips": [{"address": "10.0.0.1", "family": "ipv6"}]}, {})


def test_an_ipv6_host_has_no_mac() -> None:
    wanted = {"ips": [{"address": "fd00::1", "prefix": 64, "dhcp": {"hosts": [{"mac": A, "ip": "fd00::7"}]}}]}
    with pytest.raises(KvmError, match="an IPv6 host is known by its name"):
        check(wanted)
