"""Two sides changed one object: what is put together, and what is a conflict."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from kinto_orm.protocol.json_values import MAX_DEPTH, is_same, say_path
from kinto_orm.protocol.merge import Merged, merge_data, merge_permissions

HOME = {"name": "Ada", "address": {"city": "Bath", "zip": "BA1"}, "tags": ["a", "b"]}


def home(**changes: Any) -> dict[str, Any]:
    return {**HOME, **changes}


@pytest.mark.parametrize(
    ("mine", "theirs", "merged"),
    [
        pytest.param(HOME, HOME, HOME, id="nobody changed anything"),
        pytest.param(home(name="Eve"), HOME, home(name="Eve"), id="mine"),
        pytest.param(HOME, home(name="Eve"), home(name="Eve"), id="theirs"),
        pytest.param(home(name="Eve"), home(tags=[]), home(name="Eve", tags=[]), id="different keys"),
        pytest.param(home(name="Eve"), home(name="Eve"), home(name="Eve"), id="the same change"),
        pytest.param(home(x=1), home(y=None), home(x=1, y=None), id="both added a key"),
        pytest.param(home(x=1), home(x=1.0), home(x=1), id="both added the same number"),
        pytest.param({"name": "Ada"}, home(x=1), {"name": "Ada", "x": 1}, id="mine removed"),
        pytest.param({}, {}, {}, id="both removed"),
        pytest.param({}, HOME, {}, id="mine removed all"),
        pytest.param(
            home(address={"city": "York", "zip": "BA1"}),
            home(address={"city": "Bath"}),
            home(address={"city": "York"}),
            id="inside of an object",
        ),
        pytest.param(
            home(x={"a": 1, "b": {"c": 1}}),
            home(x={"d": 2, "b": {"e": {}}}),
            home(x={"a": 1, "d": 2, "b": {"c": 1, "e": {}}}),
            id="both added an object",
        ),
        pytest.param(
            home(name={"first": "Ada"}), home(name={"last": "L"}), home(name={"first": "Ada", "last": "L"}), id="split"
        ),
        pytest.param(home(name={}), home(name={"last": "L"}), home(name={"last": "L"}), id="both made it an object"),
    ],
)
def test_changes_that_do_not_meet_are_put_together(mine: Any, theirs: Any, merged: Any) -> None:
    assert merge_data(HOME, mine, theirs) == Merged(merged)


@pytest.mark.parametrize(
    ("mine", "theirs", "conflicts"),
    [
        pytest.param(home(name="Eve"), home(name="Bob"), ("name",), id="two values"),
        pytest.param(home(x=1), home(x=True), ("x",), id="true is not 1"),
        pytest.param(home(x=None), {**HOME, "x": 0}, ("x",), id="null is not 0"),
        pytest.param(home(tags=["a"]), home(tags=["b"]), ("tags",), id="lists are values"),
        pytest.param(home(tags=[{"x": 1}]), home(tags=[{"y": 1}]), ("tags",), id="objects in lists are values"),
        pytest.param(
            home(address={"city": "York", "zip": "BA1"}),
            home(address={"city": "Hull", "zip": "BA2"}),
            ("address.city",),
            id="inside of an object",
        ),
        pytest.param({"name": "Ada", "tags": ["a", "b"]}, home(address={}), ("address",), id="removed and changed"),
        pytest.param(home(address=None), home(address={"city": "York"}), ("address",), id="no object any more"),
        pytest.param(home(x={"a": 1, "b": 1}), home(x={"a": 2, "b": 2}), ("x.a", "x.b"), id="both added an object"),
        pytest.param(home(z=1, a=1), home(a=2, z=2), ("a", "z"), id="in the order of their paths"),
        pytest.param(home(**{"": 1}), home(**{"": 2}), ('[""]',), id="empty key"),
        pytest.param(home(**{"a.b": {"x": 1}}), home(**{"a.b": {"x": 2}}), ('["a.b"].x',), id="key with a dot"),
    ],
)
def test_changes_that_meet_are_conflicts(mine: Any, theirs: Any, conflicts: tuple[str, ...]) -> None:
    merged, swapped = merge_data(HOME, mine, theirs), merge_data(HOME, theirs, mine)

    assert merged.conflicts == swapped.conflicts == conflicts


def test_mine_stands_where_there_is_a_conflict_and_the_rest_is_merged() -> None:
    mine, theirs = home(name="Eve", x=1), home(name="Bob", y=2)

    assert merge_data(HOME, mine, theirs).data == home(name="Eve", x=1, y=2)
    assert merge_data(HOME, theirs, mine).data == home(name="Bob", x=1, y=2)


def test_a_removal_stands_where_mine_removed_what_theirs_changed() -> None:
    assert merge_data({"a": {"x": 1}}, {}, {"a": {"x": 2}}) == Merged({}, ("a",))
    assert merge_data({"a": {"x": 1}}, {"a": {"x": 2}}, {}) == Merged({"a": {"x": 2}}, ("a",))


@pytest.mark.parametrize("base", [None, {}])
def test_without_a_base_what_one_side_has_is_kept_and_what_differs_is_a_conflict(base: Any) -> None:
    mine = {"same": 1, "mine": [], "differs": 1, "below": {"x": 1, "y": 1}}
    theirs = {"same": 1, "theirs": None, "differs": 2, "below": {"x": 2, "z": 1}}

    merged = merge_data(base, mine, theirs)

    assert merged.conflicts == ("below.x", "differs")
    assert merged.data == {
        "same": 1,
        "mine": [],
        "theirs": None,
        "differs": 1,
        "below": {"x": 1, "y": 1, "z": 1},
    }


def test_data_as_deep_as_kinto_takes_it_is_merged() -> None:
    base: Any = {}
    mine: Any = {"mine": 1}
    theirs: Any = {"theirs": 1}
    for _ in range(MAX_DEPTH - 1):
        base, mine, theirs = {"a": base}, {"a": mine}, {"a": theirs}

    data = merge_data(base, mine, theirs).data
    while "a" in data:
        data = data["a"]

    assert data == {"mine": 1, "theirs": 1}


def test_any_mapping_is_taken_and_a_dictionary_given() -> None:
    mine = MappingProxyType({"a": 1})

    data = merge_data(MappingProxyType({}), mine, MappingProxyType({})).data

    assert type(data) is dict and data == {"a": 1}


def test_the_result_is_a_value() -> None:
    with pytest.raises(AttributeError):
        merge_data({}, {}, {}).conflicts = ()  # type: ignore[misc]


# -- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        pytest.param(("a",), "a", id="one key"),
        pytest.param(("address", "city"), "address.city", id="keys"),
        pytest.param(("tags", 0, "x"), "tags[0].x", id="index"),
        pytest.param((0,), "[0]", id="index first"),
        pytest.param(("0",), "0", id="key that is a number"),
        pytest.param(("a.b", "x"), '["a.b"].x', id="dot"),
        pytest.param(("x", "a.b"), 'x["a.b"]', id="dot behind"),
        pytest.param(("", ""), '[""][""]', id="empty"),
        pytest.param(("a[0]",), '["a[0]"]', id="bracket"),
        pytest.param(('é".',), '["é\\"."]', id="quote"),
        pytest.param((), "", id="the whole"),
    ],
)
def test_a_path_is_written_so_that_it_can_be_read(steps: tuple[str | int, ...], text: str) -> None:
    assert say_path(steps) == text


# -- permissions ------------------------------------------------------------------------------------------------------


def sets(**permissions: str) -> dict[str, frozenset[str]]:
    """One letter a principal."""
    return {name: frozenset(principals) for name, principals in permissions.items()}


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        pytest.param(sets(read="ab"), sets(read="abc"), sets(read="abd"), sets(read="abcd"), id="both added"),
        pytest.param(sets(read="abc"), sets(read="bc"), sets(read="ab"), sets(read="b"), id="both removed"),
        pytest.param(sets(read="ab"), sets(read="a"), sets(read="abc"), sets(read="ac"), id="removed and added"),
        pytest.param(sets(read="a"), sets(), sets(read="ab"), sets(read="b"), id="a missing name is an empty set"),
        pytest.param(sets(), sets(read="a"), sets(write="b"), sets(read="a", write="b"), id="different names"),
        pytest.param(sets(read="a"), sets(read=""), sets(read="a"), sets(read=""), id="emptied"),
        pytest.param(sets(read="a"), sets(), sets(), sets(), id="emptied by both"),
        pytest.param(None, sets(read="a"), sets(read="b", write="c"), sets(read="a", write="c"), id="no base"),
        pytest.param(None, sets(read=""), sets(read="b"), sets(read=""), id="no base, and mine is empty"),
    ],
)
def test_principals_are_merged_as_sets(base: Any, mine: Any, theirs: Any, merged: Any) -> None:
    assert merge_permissions(base, mine, theirs) == merged


def test_merging_permissions_changes_no_side() -> None:
    base, mine, theirs = sets(read="a"), sets(read="b"), sets(write="c")

    merge_permissions(base, mine, theirs)["read"] = frozenset()
    merge_permissions(None, mine, theirs)["read"] = frozenset()

    assert (base, mine, theirs) == (sets(read="a"), sets(read="b"), sets(write="c"))


def test_one_number_has_two_types_and_is_no_change() -> None:
    merged = merge_data({"n": 1}, {"n": 1.0}, {"n": 2})

    assert merged.conflicts == () and is_same(merged.data, {"n": 2})
