# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The laws of the codecs, and the sentence that each says about a value it does not take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c

pytestmark = pytest.mark.ring(1)

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FFF, exclude_characters="\x7f", exclude_categories=("Cs",)), min_size=1)
HEX = "0123456789abcdefABCDEF"
RANGE = st.tuples(st.integers(0, 63), st.integers(0, 8)).map(lambda pair: f"{pair[0]}-{pair[0] + pair[1]}")
CPUS = st.lists(st.one_of(RANGE, st.integers(0, 63).map(str)), min_size=1, max_size=6).map(", ".join)
SIZES = st.tuples(st.integers(1, 2**20), st.sampled_from(["B", "KiB", "MiB", "GiB", "KB", "MB", "GB", "K", "M", "G", "kib", "mb"])).map(
    lambda pair: f"{pair[0]}{pair[1]}"
)
OCTETS = st.lists(st.text(HEX, min_size=2, max_size=2), min_size=5, max_size=5)
MACS = st.tuples(st.sampled_from(["52", "02", "0A", "fe"]), OCTETS).map(lambda pair: ":".join([pair[0], *pair[1]]))
PCI = st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7)).map(
    lambda parts: "{:04x}:{:02x}:{:02X}.{:x}".format(*parts)
)
WORDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,20}", fullmatch=True)
HOSTS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,20}[A-Za-z0-9])?", fullmatch=True)
PATHS = st.lists(st.from_regex(r"[A-Za-z0-9_ .-]{1,9}", fullmatch=True).filter(lambda part: part != ".."), max_size=4).map(
    lambda parts: "//" + "//".join(parts) + "/"
)

PLACES = ["drive 0:0:0:1", "USB 0:1.2", "virtio-serial 0:0:3", "ccid 0:0", "dimm 0", "dimm 1:0x100000000", "isa 0x505", "isa 0x378:0x7",
          "spapr-vio 0x1000", "ccw fe.0.0001", "virtio-mmio", "unassigned"]  # fmt: skip

# Values of each kind of codec, written in every way that a user may write them.
VALUES: dict[type, Any] = {
    c.Text: PRINTABLE.filter(str.strip),
    c.Prose: st.lists(PRINTABLE, min_size=1, max_size=3).map("\n".join).filter(str.strip),
    c.GuestAddress: st.one_of(PCI, PCI.map("{} multifunction".format), st.sampled_from(PLACES)),
    c.Numbers: st.tuples(*[st.integers(0, 255).map(hex) | st.integers(0, 255).map(str)] * 3).map(":".join),
    c.ObjectName: st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,20}[A-Za-z0-9]", fullmatch=True),
    c.Flag: st.one_of(st.booleans(), st.sampled_from(["yes", "no", "on", "off", "True", "false", "1", "0"])),
    c.Presence: st.just(True),
    c.Size: SIZES,
    c.ByteSize: SIZES,
    c.CpuSet: CPUS,
    c.Mac: MACS.filter(lambda text: set(text) != set("0:")),
    c.Uuid: st.uuids(version=4).flatmap(lambda number: st.sampled_from([str(number), str(number).upper(), number.hex])),
    c.PciAddress: PCI,
    c.AbsolutePath: PATHS,
    c.HostPort: st.tuples(HOSTS, st.sampled_from(["", ":1", ":3260", ":65535"])).map("".join),
    c.BlockDevice: st.one_of(PATHS, st.sampled_from(["iqn.2025-01.example:store.1", "eui.02004567A425678D"])),
    c.Address: st.ip_addresses().map(str),
    c.Prefix: st.one_of(st.integers(1, 128), st.integers(1, 128).map(str), st.just("255.255.240.0")),
    c.Machine: WORDS,
    c.Mode: st.tuples(st.sampled_from(["", "0"]), st.integers(0, 0o775)).map(lambda p: f"{p[0]}{p[1]:03o}").filter(lambda t: not int(t, 8) & 2),
    c.Alias: st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True),
    c.Document: PRINTABLE,
}
BY_VALUE = {
    c.INTERFACE: st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", fullmatch=True), c.HOSTNAME: HOSTS, c.WORD: WORDS,
    c.ALIAS_WORD: st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True),
}  # fmt: skip


def values(codec: c.Codec) -> Any:
    """Return what to try a codec with."""
    if isinstance(codec, c.Choice):
        return st.sampled_from(codec.words).flatmap(lambda word: st.sampled_from([word, word.upper()]))
    if isinstance(codec, c.Integer):
        numbers = st.integers(codec.low, codec.high)
        return st.one_of(numbers, numbers.map(str), numbers.map(hex))
    return BY_VALUE[codec] if isinstance(codec, c.Pattern) else VALUES[type(codec)]


CODECS = {
    **{name: value for name, value in vars(c).items() if isinstance(value, c.Codec)},
    "Choice": c.Choice(words=("none", "host-model")),
    "small Integer": c.Integer(low=-1, high=255),
}


def test_every_kind_of_codec_is_tried() -> None:
    kinds = {one for one in vars(c).values() if isinstance(one, type) and issubclass(one, c.Codec)} - {c.Codec}
    assert kinds == {type(codec) for codec in CODECS.values()}


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@given(data=st.data())
def test_the_normal_form_is_its_own_normal_form(codec: c.Codec, data: Any) -> None:
    once = codec.normal(data.draw(values(codec)))
    assert codec.normal(once) == once


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@given(data=st.data())
def test_what_was_written_is_read_back_in_normal_form(codec: c.Codec, data: Any) -> None:
    value = data.draw(values(codec))
    assert codec.from_xml(codec.to_xml(value)) == codec.normal(value)
    assert codec.same(codec.normal(value), codec.from_xml(codec.to_xml(value)))


@given(PCI)
def test_a_pci_address_survives_its_attributes(address: str) -> None:
    assert c.PCI.of_attributes(c.PCI.attributes(address)) == c.PCI.normal(address)


@pytest.mark.parametrize(
    ("codec", "spellings"),
    [
        (c.CPUSET, ["0-3", "0,1,2,3", "3,2-0,1".replace("2-0", "0-2"), "0-4,^4", " 0 - 3 "]),
        (c.SIZE, ["4GiB", "4194304KiB", "4096 MiB", "4g", "4.0GiB"]),
        (c.MAC, ["52:54:00:ab:cd:ef", "52:54:00:AB:CD:EF"]),
        (c.UUID, ["c7a5fdbd-edaf-9455-926a-d65c16db1809", "C7A5FDBDEDAF9455926AD65C16DB1809"]),
        (c.PCI, ["0000:01:10.2", "01:10.2"]),
        (c.PATH, ["/a/b", "//a//b/"]),
        (c.HOST, ["nfs.example:2049", "NFS.example:2049"]),
        (c.ADDRESS, ["2001:db8::1", "2001:0DB8:0:0::1"]),
        (c.MODE, ["0711", "711"]),
        (c.INTEGER, [16, "16", "0x10"]),
        (c.TEXT, ["a b", " a b "]),
        (c.NAME_OF_OTHERS, ["nat;one"]),
    ],
)
def test_spellings_of_the_same_value_have_one_normal_form(codec: c.Codec, spellings: list[Any]) -> None:
    assert len({codec.normal(one) for one in spellings}) == 1


@pytest.mark.parametrize(
    ("codec", "value", "sentence"),
    [
        (c.TEXT, "a\nb", "control characters are not allowed"),
        (c.TEXT, " ", "must not be empty"),
        (c.WORD, "a b", "expected a word of A-Za-z0-9._:+-"),
        (c.INTERFACE, "a" * 16, "expected at most 15 characters of A-Za-z0-9._-"),
        (c.Pattern(longest=3), "abcd", "longer than 3 bytes"),
        (c.ALIAS, "lan.1", "expected a word of A-Za-z0-9_-"),
        (c.NAME, "", "must not be empty"),
        (c.NAME, "..", '"." and ".." are reserved'),
        (c.NAME, " a", "leading or trailing blank"),
        (c.NAME, "a" * 201, "longer than 200 bytes"),
        (c.NAME, "a/b", '"/" is not allowed'),
        (c.NAME, "$(x)", '"$" is not allowed'),
        (c.NAME, "a\nb", "control characters are not allowed"),
        (c.NAME_OF_OTHERS, "a/b", '"/" is not allowed'),
        (c.INTEGER, "x", "not a whole number"),
        (c.INTEGER, 1.5, "not a whole number"),
        (c.INTEGER, -1, "not in 0..2147483647"),
        (c.INTEGER, 2**31, "not in 0..2147483647"),
        (c.YES_NO, "maybe", "neither true nor false"),
        (c.SIZE, "4", "has no unit; expected for example 2GiB"),
        (c.SIZE, "-1GiB", "not a size; expected for example 2GiB"),
        (c.SIZE, "4GiBs", 'unit "GiBs" is unknown; one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB'),
        (c.SIZE, "0", "must be more than 0"),
        (c.SIZE, "8EiB", "must be less than 8EiB"),
        (c.CPUSET, "a", 'bad range "a"; expected for example 0-3,^2'),
        (c.CPUSET, "", 'bad range ""; expected for example 0-3,^2'),
        (c.CPUSET, "0,,1", 'bad range ""; expected for example 0-3,^2'),
        (c.CPUSET, "3-1", 'bad range "3-1" (start after end)'),
        (c.CPUSET, "0-1,^0-1", "selects nothing"),
        (c.CPUSET, "0-99999999", "number above 4095"),
        (c.MAC, "52-54-00-00-00-01", "expected xx:xx:xx:xx:xx:xx"),
        (c.MAC, "01:00:5e:00:00:01", "multicast, the first octet must be even"),
        (c.MAC, "00:00:00:00:00:00", "all zeros"),
        (c.UUID, "1-2-3-4", "not a UUID"),
        (c.UUID, "0" * 32, "nil or max UUID is not allowed"),
        (c.PCI, "0:1", "expected dddd:bb:ss.f"),
        (c.PCI, "10000:01:00.0", "domain: > 0xffff"),
        (c.HOST, "nfs.example:70000", "expected a host name or address, with :port if it is not the usual one"),
        (c.HOST, "2001:db8::1", "expected a host name or address, with :port if it is not the usual one"),
        (c.DEVICE, "iqn.a b", "must be an absolute path"),
        (c.PATH, "~/x", "must be an absolute path"),
        (c.PATH, "/a/../b", '".." is not allowed'),
        (c.ADDRESS, "999.1.1.1", "not an IP address"),
        (c.PREFIX, "129", "not in 1..128"),
        (c.PREFIX, "255.0.255.0", "netmask is not contiguous"),
        (c.MODE, "0999", "expected a quoted octal mode such as '0711'"),
        (c.MODE, "0777", "world-writable is refused"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_words(codec: c.Codec, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        codec.normal(value)
    assert str(raised.value) == sentence


def test_libvirts_unit_beside_a_size_counts() -> None:
    assert c.SIZE.from_xml("4", "GiB") == c.SIZE.from_xml("4194304") == "4GiB"


def test_an_alias_that_libvirt_made_is_no_name() -> None:
    assert c.ALIAS.from_xml("ua-lan") == "lan"
    assert c.ALIAS.from_xml("net0") is None


def test_a_machine_alias_means_the_version_that_the_guest_has() -> None:
    assert c.MACHINE.same("q35", "pc-q35-8.2")
    assert c.MACHINE.same("pc", "pc-i440fx-10.0")
    assert not c.MACHINE.same("q35", "pc-i440fx-10.0")
    assert not c.MACHINE.same("pc-q35-9.0", "pc-q35-8.2")
