# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""XML of the user's: parsed with care, compared by meaning, whole or in part."""

from __future__ import annotations

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils import _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt import fragment

pytestmark = pytest.mark.ring(1)

CURRENT = """
<domain>
  <name>a</name><uuid>u-1</uuid><genid>g-1</genid>
  <os><type machine="pc-q35-8.2">hvm</type></os>
  <features><acpi/><kvm><hidden state="off"/></kvm></features>
  <devices>
    <disk><target dev="vda"/></disk>
    <interface type="network"><mac address="52:54:00:00:00:01"/><source network="a"/></interface>
    <interface type="network"><mac address="52:54:00:00:00:02"/><source network="b"/></interface>
  </devices>
</domain>
"""


def same(one: str, other: str) -> bool:
    return _xml.canonical(_xml.parse(one)) == _xml.canonical(_xml.parse(other))


def replaced(given: str) -> str:
    return _xml.text_of(fragment.replaced(_xml.parse(given), _xml.parse(CURRENT)))


def merged(given: str) -> str:
    return _xml.text_of(fragment.merged(_xml.parts_of(given), _xml.parse(CURRENT)))


def test_a_whole_document_keeps_what_libvirt_would_make_anew() -> None:
    text = replaced(
        "<domain><name>a</name><genid/><os><type machine='q35'>hvm</type></os><devices>"
        "<interface type='network'><source network='b'/></interface></devices></domain>"
    )
    assert same(
        text,
        "<domain><genid>g-1</genid><uuid>u-1</uuid><name>a</name><os><type machine='pc-q35-8.2'>hvm</type></os><devices>"
        "<interface type='network'><mac address='52:54:00:00:00:02'/><source network='b'/></interface></devices></domain>",
    )


def test_a_whole_document_replaces_what_it_leaves_out() -> None:
    assert "vda" not in replaced("<domain><name>a</name></domain>")


def test_a_stated_mac_address_is_given_to_no_other_interface() -> None:
    text = replaced(
        "<domain><devices><interface type='network'><source network='b'/></interface>"
        "<interface type='network'><mac address='52:54:00:00:00:02'/><source network='b'/></interface></devices></domain>"
    )
    assert text.count("52:54:00:00:00:02") == 1


def test_a_mac_address_of_zeros_is_that_which_libvirt_made_in_its_place() -> None:
    given = "<domain><devices><interface type='network'><mac address='00:00:00:00:00:00'/><source network='a'/></interface></devices></domain>"
    current = _xml.parse(given.replace("00:00:00:00:00:00", "52:54:00:00:00:07"))
    assert same(_xml.text_of(fragment.replaced(_xml.parse(given), current)), _xml.text_of(current))
    assert same(_xml.text_of(fragment.replaced(_xml.parse(given), _xml.parse(given))), given)  # older libvirt keeps it


def test_another_machine_than_the_alias_of_the_present_one_is_kept() -> None:
    assert 'machine="pc"' in replaced("<domain><os><type machine='pc'>hvm</type></os></domain>")


@pytest.mark.parametrize("given", ["<features><acpi/></features>", "<disk><target dev='vda'/></disk>", "<devices><disk/></devices>"])
def test_a_fragment_that_is_there_already_changes_nothing(given: str) -> None:
    given = given if given.startswith(("<f", "<devices")) else f"<devices>{given}</devices>"
    assert same(merged(given), CURRENT)


def test_a_fragment_changes_the_element_that_it_names() -> None:
    assert same(merged("<features><kvm><hidden state='on'/></kvm></features>"), CURRENT.replace('state="off"', 'state="on"'))


def test_a_fragment_adds_a_device_beside_the_others() -> None:
    text = merged("<devices><disk><target dev='vdb'/></disk></devices>")
    assert same(text, CURRENT.replace("<disk>", '<disk><target dev="vdb"/></disk><disk>', 1))
    again = fragment.merged([_xml.parse("<devices><disk><target dev='vdb'/></disk></devices>")], _xml.parse(text))
    assert same(_xml.text_of(again), text)


def test_elements_beside_each_other_are_each_merged() -> None:
    assert same(merged("<title>b</title><!-- and --><features><acpi/></features>"), CURRENT.replace("<os>", "<title>b</title><os>"))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("<title/>text", "'text' stands outside of any element"),
        ("<title/><domain/>", "a whole <domain> stands alone"),
        ("<title/></parts><parts>", "line 1: Extra content at the end of the document"),
        ("<title/><os>", "line 1: Opening and ending tag mismatch"),
    ],
)
def test_what_is_not_elements_beside_each_other_is_refused(given: str, why: str) -> None:
    with pytest.raises(KvmError) as raised:
        _xml.parts_of(given)
    assert str(raised.value).startswith(f"xml: {why}")


def test_what_libvirt_makes_up_is_not_told() -> None:
    given = _xml.parse("<domain><devices><interface><mac address='52:54:00:00:00:0A'/></interface><interface/></devices></domain>")
    after = _xml.parse(
        "<domain><uuid>new</uuid><devices><interface><mac address='52:54:00:00:00:0a'/></interface>"
        "<interface><mac address='52:54:00:99:99:99'/></interface></devices></domain>"
    )
    fragment.conceal_made(after, given)
    text = _xml.text_of(after)
    assert "new" not in text
    assert "52:54:00:99:99:99" not in text
    assert "52:54:00:00:00:0a" in text


def test_order_of_attributes_and_siblings_and_blanks_mean_nothing() -> None:
    assert same("<a x='1' y='2'><b/><c> t </c></a>", "<a y='2' x='1'>\n<c>t</c>\n<b></b></a>")


def test_order_of_boot_devices_means_something() -> None:
    assert not same("<os><boot dev='hd'/><boot dev='cdrom'/></os>", "<os><boot dev='cdrom'/><boot dev='hd'/></os>")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "xml: line 1: Document is empty"),
        ("<domain>", "xml: line 1: Premature end of data in tag domain line 1"),
        ("<!DOCTYPE domain><domain/>", "xml: DOCTYPE is not allowed"),
        ("<domain>\x00</domain>", "xml: NUL bytes are not allowed"),
        (f"<domain>{' ' * 2**20}</domain>", "xml: larger than 1 MiB"),
        ("<network/>", "xml: the root element is <network>, expected <domain>"),
    ],
)
def test_a_document_that_is_none_is_refused_in_words(text: str, sentence: str) -> None:
    with pytest.raises(KvmError) as raised:
        _xml.parse(text, "domain")
    assert str(raised.value) == sentence


def test_an_encoding_declaration_is_no_fault() -> None:
    assert _xml.parse('<?xml version="1.0" encoding="utf-8"?><domain/>').tag == "domain"


def test_three_thousand_levels_are_refused_without_a_crash() -> None:
    # libxml2's limit is 256 levels, or 2048 from 2.14 on.
    with pytest.raises(KvmError, match="Excessive depth"):
        _xml.parse("<a>" * 3000 + "</a>" * 3000)
