# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The vocabulary of the tables on a table of nothing that libvirt knows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.anfitrion.kvm.plugins.module_utils import _codecs as c
from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _options, _run, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._fields import Field, Items, Section

pytestmark = pytest.mark.ring(1)

ROWS = (
    Field("colour", "@colour", c.Choice(words=("red", "green")), "Colour."),
    Field("size", "size", c.SIZE, "Size."),
    Field("open", "door/@open", c.YES_NO, "Open."),
    Field("locked", "door/locked", c.PRESENCE, "Locked."),
    Field("limit", "limit", c.INTEGER, "Limit.", dropped=0),
    Field("token", "token", c.WORD, "Token.", secret=True),
    Field("tags", "tag/@name", c.WORD, "Tags.", many=True),
    Field("wood", "made/@wood", c.WORD, "Wood.", implies=(("@kind", "wood"),), rivals=("stone",)),
    Field("stone", "made/@stone", c.WORD, "Stone.", implies=(("@kind", "stone"),), rivals=("wood",)),
    Section("roof", "roof", "Roof.", (Field("angle", "@angle", c.INTEGER, "Angle."),), removable=True),
    Section("yard", "yard", "Yard.", (Field("area", "@area", c.INTEGER, "Area."),)),
    Items("rooms", "rooms/room", ("name", "number"), "Rooms.", (
        Field("name", "@name", c.WORD, "Name."),
        Field("number", "@number", c.INTEGER, "Number."),
        Field("beds", "beds", c.INTEGER, "Beds."),
    ), purge=True),
    Items("floors", "floor", ("level",), "Floors.", (
        Field("level", "@level", c.INTEGER, "Level."), Field("use", "@use", c.WORD, "Use."),
    ), numbered=True),
)  # fmt: skip

HOUSE = """
<house colour="red" kind="wood">
  <unknown a="1"><deep/></unknown>
  <size unit="MiB">2</size>
  <door open="no" sound="creak"><locked/></door>
  <tag name="a"/><tag name="b"/>
  <made wood="oak" by="me"/>
  <rooms><room name="one" number="1"><beds>2</beds><lamp/></room><room number="2"/><room shape="odd"/></rooms>
</house>
"""


@pytest.fixture
def house() -> Any:
    return _xml.parse(HOUSE)


def changes(element: Any, wanted: dict[str, Any], purge: tuple[str, ...] = ()) -> dict[str, tuple[Any, Any]]:
    found = _fields.read(ROWS, element)
    wanted = _fields.normal(ROWS, wanted)
    return {one.option: (one.before, one.after) for one in _fields.differences(ROWS, wanted, found, purge)}


def written(element: Any, wanted: dict[str, Any], purge: tuple[str, ...] = ()) -> str:
    """Return the document after writing; asserts that what was written is then there."""
    _fields.write(ROWS, element, _fields.normal(ROWS, wanted), purge)
    assert changes(element, wanted, purge) == {}
    return _xml.text_of(element)


def test_everything_that_is_there_is_read(house: Any) -> None:
    assert _fields.read(ROWS, house) == {
        "colour": "red", "size": "2MiB", "open": False, "locked": True, "tags": ["a", "b"], "wood": "oak",
        "rooms": [{"name": "one", "number": 1, "beds": 2}, {"number": 2}],
    }  # fmt: skip


def test_what_is_not_wanted_is_not_looked_at(house: Any) -> None:
    assert changes(house, {}) == {}
    assert changes(house, {"rooms": [{"name": "one"}]}) == {}


def test_an_unstated_option_is_not_ours() -> None:
    assert _options.stated({"a": None, "b": {"c": None, "d": 0}, "e": [{"f": None}]}) == {"b": {"d": 0}, "e": [{}]}


def test_writing_keeps_what_no_row_knows(house: Any) -> None:
    text = written(house, {"colour": "green", "open": True, "rooms": [{"name": "one", "beds": 3}]})
    for kept in ('<unknown a="1">', "<deep/>", 'sound="creak"', "<lamp/>", '<room shape="odd"/>', 'by="me"'):
        assert kept in text


def test_equal_values_are_left_as_they_are_written(house: Any) -> None:
    assert '<size unit="MiB">2</size>' in written(house, {"size": "2048KiB", "colour": "green"})


def test_a_value_replaces_its_rivals(house: Any) -> None:
    text = written(house, {"stone": "granite"})
    assert 'kind="stone"' in text
    assert "oak" not in text


def test_a_value_that_libvirt_drops_is_as_good_as_none(house: Any) -> None:
    assert changes(house, {"limit": 0}) == {}
    assert changes(house, {"limit": 5}) == {"limit": (None, 5)}
    written(house, {"limit": 5})
    assert "<limit>" not in written(house, {"limit": 0})


def test_false_is_as_good_as_a_flag_that_is_not_there() -> None:
    empty = _xml.new("house")
    assert changes(empty, {"open": False, "locked": False}) == {}
    assert changes(empty, {"open": True, "locked": True}) == {"open": (None, True), "locked": (None, True)}


def test_a_section_with_nothing_to_write_makes_no_element() -> None:
    empty = _xml.new("house")
    _fields.write(ROWS, empty, {"yard": {}})
    assert len(empty) == 0


def test_the_order_of_a_list_of_values_counts(house: Any) -> None:
    assert changes(house, {"tags": ["b", "a"]}) == {"tags": (["a", "b"], ["b", "a"])}
    assert written(house, {"tags": ["b", "a"]}).index('name="b"') < _xml.text_of(house).index('name="a"')


def test_the_order_of_items_does_not_count(house: Any) -> None:
    assert changes(house, {"rooms": [{"number": 2}, {"name": "one"}]}) == {}


def test_an_item_is_known_by_the_first_key_that_it_states(house: Any) -> None:
    assert changes(house, {"rooms": [{"name": "one", "number": 7}]}) == {"rooms[one].number": (1, 7)}
    assert changes(house, {"rooms": [{"number": 1, "beds": 3}]}) == {"rooms[1].beds": (2, 3)}


def test_a_new_item_is_added_beside_the_others(house: Any) -> None:
    assert changes(house, {"rooms": [{"name": "three", "state": "present"}]}) == {"rooms[three]": (None, {"name": "three"})}
    assert written(house, {"rooms": [{"name": "three"}]}).count("<room ") == 4


def test_state_absent_takes_away_what_is_there_and_nothing_else(house: Any) -> None:
    gone = {"rooms": [{"number": 2, "state": "absent"}, {"number": 9, "state": "absent"}]}
    assert changes(house, gone) == {"rooms[2]": ({"number": 2}, None)}
    assert written(house, gone).count("<room ") == 2


def test_purge_takes_away_what_is_not_mentioned(house: Any) -> None:
    wanted = {"rooms": [{"name": "one"}]}
    assert changes(house, wanted, ("rooms",)) == {"rooms[2]": ({"number": 2}, None)}
    text = written(house, wanted, ("rooms",))
    assert 'number="2"' not in text
    assert '<room shape="odd"/>' in text  # nothing tells it from the others: out of our reach


def test_an_item_without_its_number_has_that_of_its_place() -> None:
    assert _fields.normal(ROWS, {"floors": [{"use": "a"}, {"level": 5}, {"use": "b"}]})["floors"] == [
        {"level": 0, "use": "a"}, {"level": 5}, {"level": 2, "use": "b"},
    ]  # fmt: skip


def test_a_removable_section_comes_and_goes(house: Any) -> None:
    assert changes(house, {"roof": {"state": "present"}}) == {"roof": (None, {})}
    assert "<roof/>" in written(house, {"roof": {"state": "present"}})
    assert changes(house, {"roof": {"state": "absent"}}) == {"roof": ({}, None)}
    assert "<roof" not in written(house, {"roof": {"state": "absent"}})


def test_unset_takes_one_option_away_and_what_it_leaves_empty(house: Any) -> None:
    gone = _fields.unset(ROWS, house, "size")
    assert gone is not None
    assert (gone.option, gone.before, gone.after) == ("size", "2MiB", None)
    assert _fields.unset(ROWS, house, "size") is None
    assert _fields.unset(ROWS, house, "yard.area") is None
    assert "<size" not in _xml.text_of(house)


def test_unset_takes_an_option_of_an_item_and_a_whole_group_away() -> None:
    house = _xml.parse('<house><yard area="4"/><rooms><room name="hall" number="1"><beds>2</beds></room></rooms></house>')
    beds, yard = _fields.unset(ROWS, house, "rooms[hall].beds"), _fields.unset(ROWS, house, "yard")
    assert beds is not None
    assert yard is not None
    assert (beds.option, beds.before, beds.after, beds.item and beds.item[1]["number"]) == ("rooms[hall].beds", 2, None, 1)
    assert (yard.option, yard.before, yard.after) == ("yard", {"area": 4}, None)
    assert _fields.unset(ROWS, house, "rooms[1].beds") is None  # by its number it is the same room
    assert _fields.unset(ROWS, house, "rooms[attic].beds") is None
    assert "beds" not in _xml.text_of(house)
    assert "yard" not in _xml.text_of(house)
    assert "hall" in _xml.text_of(house)


def test_unset_leaves_the_key_of_the_nearest_item_and_no_other_option_of_that_name() -> None:
    name = Field("name", "@name", c.WORD, "Name.")
    beds = Items("beds", "bed", ("number",), "Beds.", (Field("number", "@number", c.INTEGER, "Number."), name))
    rooms = (Items("rooms", "room", ("name",), "Rooms.", (name, beds, Section("owner", "owner", "Owner.", (name,)))),)
    house = _xml.parse('<house><room name="hall"><bed number="1" name="big"/><owner name="ann"/></room></house>')
    for option in ("rooms[hall].name", "rooms[hall].beds[1].number"):
        with pytest.raises(KvmError, match="is not a single option of this object"):
            _fields.unset(rooms, house, option)
    for option, before in (("rooms[hall].beds[1].name", "big"), ("rooms[hall].owner.name", "ann")):
        gone = _fields.unset(rooms, house, option)
        assert gone is not None
        assert (gone.option, gone.before) == (option, before)


def test_what_is_told_of_a_difference_has_no_secret() -> None:
    secret = Field("key", "@key", c.WORD, "Key.", secret=True)
    lock = Section("lock", "lock", "Lock.", (secret,))
    doors = Items("doors", "door", ("name",), "Doors.", (Field("name", "@name", c.WORD, "Name."), secret, lock))
    have = [{"name": "back", "key": "abc", "lock": {"key": "def"}}]
    (gone,) = _fields.differences((doors,), {}, {"doors": have}, ("doors",))
    assert gone.shown() == ({"name": "back", "key": "(secret)", "lock": {"key": "(secret)"}}, None)
    (changed,) = _fields.differences((secret,), {"key": "new"}, {"key": "old"})
    assert changed.shown() == ("(secret)", "(secret)")
    assert (gone.before, changed.after) == (have[0], "new")  # what is done with it has it


@pytest.mark.parametrize("option", [
    "rooms", "nobody", "colour.red", "colour[red]", "rooms.name", "rooms[hall]", "rooms[hall].name", "rooms[hall].nobody", "rooms[attic].nobody",
    "roof", "", "a b",
])  # fmt: skip
def test_unset_of_what_is_no_single_option_is_refused(house: Any, option: str) -> None:
    before = _xml.text_of(house)
    with pytest.raises(KvmError) as raised:
        _fields.unset(ROWS, house, option)
    assert str(raised.value) == f"unset: {option} is not a single option of this object"
    assert _xml.text_of(house) == before


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"size": "4"}, "size: '4' has no unit; expected for example 2GiB"),
        ({"yard": {"area": -1}}, "yard.area: -1 not in 0..2147483647"),
        ({"rooms": [{"name": "one", "beds": -1}]}, "rooms[one].beds: -1 not in 0..2147483647"),
        ({"rooms": [{"beds": 1}]}, "rooms[0]: give name or number, it tells this item from the others"),
        ({"rooms": [{"name": "a"}, {"name": "a"}]}, "rooms[1]: name a is that of rooms[0] too"),
        ({"tags": ["a", "b c"]}, "tags: 'b c' expected a word of A-Za-z0-9._:+-"),
        ({"token": "s3cret secret"}, "token: expected a word of A-Za-z0-9._:+-"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_the_name_of_its_option(wanted: dict[str, Any], sentence: str) -> None:
    with pytest.raises(KvmError) as raised:
        _fields.normal(ROWS, wanted)
    assert str(raised.value) == sentence


def test_a_value_of_an_older_definition_that_we_would_not_write_is_shown_as_it_is() -> None:
    assert _fields.read(ROWS, _xml.parse("<house><size>many</size></house>")) == {"size": "many"}


def test_a_word_that_no_user_can_write_is_not_read() -> None:
    assert _fields.read(ROWS, _xml.parse('<house colour="blue"/>')) == {}


def test_the_argument_spec_hides_secrets_and_adds_the_state_of_items() -> None:
    spec = _options.argument_spec(ROWS)
    assert spec["token"]["no_log"] is True
    assert spec["colour"]["choices"] == ["red", "green"]
    assert spec["tags"] == {"type": "list", "elements": "str"}
    assert spec["rooms"]["options"]["state"] == {"type": "str", "choices": ["present", "absent"], "default": "present"}
    assert "state" not in spec["yard"]["options"]
    assert not any("default" in option for option in spec.values())


WORDS = st.one_of(st.none(), st.sampled_from(["red", "1GiB", "5", "", "angle=3", "tags=a"]), st.integers(-1, 9), st.booleans())
NAMES = st.sampled_from([*(row.name for row in ROWS), "angle", "area", "name", "number", "state", "nonsense"])
ENTRIES = st.recursive(
    st.dictionaries(NAMES, WORDS, max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(WORDS, inner, st.lists(st.one_of(WORDS, inner), max_size=3)), max_size=5),
    max_leaves=12,
)


@given(st.lists(ENTRIES, min_size=1, max_size=3))
def test_a_spec_of_what_is_mentioned_takes_and_makes_what_the_whole_one_does(entries: list[dict[str, Any]]) -> None:
    whole, short = (
        ArgumentSpecValidator(spec) for spec in (_options.argument_spec(ROWS), _options.argument_spec(ROWS, entries=entries))
    )
    for entry in entries:
        try:
            _options.check_shape(ROWS, entry)
        except KvmError:
            continue  # ansible-core does not survive it
        results = [validator.validate(copy.deepcopy(entry)) for validator in (whole, short)]
        assert bool(results[0].error_messages) == bool(results[1].error_messages)
        if not results[0].error_messages:
            assert _options.stated(results[0].validated_parameters) == _options.stated(results[1].validated_parameters)
            assert results[0]._no_log_values == results[1]._no_log_values
        given = _options.as_given(ROWS, entry)
        if given is not None:
            assert not results[0].error_messages
            assert given == _options.stated(results[0].validated_parameters)


def test_options_of_their_types_are_not_given_to_ansible_and_others_are() -> None:
    given = {"colour": "red", "tags": ["a"], "rooms": [{"name": "hall"}], "yard": {}}
    assert _options.as_given(ROWS, given) == {"colour": "red", "tags": ["a"], "rooms": [{"name": "hall", "state": "present"}], "yard": {}}
    rooms = (["name=hall"], [{"name": "hall", "state": "gone"}], [{"name": 3}], {"name": "hall"})
    others: tuple[dict[str, Any], ...] = (
        {"colour": "blue"}, {"colour": None}, {"tags": "a"}, {"tags": [1]}, {"nonsense": 1}, {"limit": "5"}, {"limit": True}, {"open": "yes"},
        {"open": 1}, {"state": "present"}, *({"rooms": one} for one in rooms),
    )  # fmt: skip
    for other in others:
        assert _options.as_given(ROWS, other) is None
    must = (Field("must", "@must", c.WORD, "Must.", required=True), Field("may", "@may", c.WORD, "May."))
    assert _options.as_given(must, {"may": "a"}) is None
    assert _options.as_given(must, {"must": "a"}) == {"must": "a"}
    assert _options.as_given((Field("way", None, c.WORD, "Way.", default="this"),), {}) is None


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"roof": 4}, "roof: 4 is not a dictionary; its options are angle"),
        ({"yard": ["area"]}, "yard: a list is not a dictionary; its options are area"),
        ({"rooms": 7}, "rooms: 7 is not a dictionary; its options are "),
        ({"rooms": [{"name": "hall"}, True]}, "rooms[1]: True is not a dictionary; its options are "),
    ],
)
def test_a_plain_value_where_options_are_is_told(wanted: dict[str, Any], sentence: str) -> None:
    with pytest.raises(KvmError) as raised:
        _options.check_shape(ROWS, wanted)
    assert str(raised.value).startswith(sentence)


def test_what_ansible_makes_a_dictionary_of_is_left_to_it() -> None:
    _options.check_shape(ROWS, {"roof": "angle=3", "yard": None, "rooms": ["name=hall"], "colour": 4})


def test_a_spec_of_what_is_mentioned_is_no_longer_than_that() -> None:
    spec = _options.argument_spec(ROWS, entries=[{"colour": "red"}, {"rooms": [{"name": "hall"}], "yard": None}])
    assert list(spec) == ["colour", "yard", "rooms"]
    assert list(spec["rooms"]["options"]) == ["name", "state"]


def test_defaults_are_merged_under_an_entry() -> None:
    defaults = {"memory": {"size": "1GiB", "locked": True}, "disks": [1, 2], "state": "running"}
    assert _run._merged(defaults, {"memory": {"size": "2GiB"}, "disks": [3]}) == {
        "memory": {"size": "2GiB", "locked": True},
        "disks": [3],
        "state": "running",
    }
    assert defaults["memory"] == {"size": "1GiB", "locked": True}
