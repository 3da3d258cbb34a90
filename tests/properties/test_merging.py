"""Any two sides of any base: each change of a side arrives, or is named as a conflict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import event, example, given
from hypothesis import strategies as st

from kinto_orm.protocol.json_values import copy_json, is_same, say_path
from kinto_orm.protocol.merge import merge_data, merge_permissions

Data = dict[str, Any]
Path = tuple[str, ...]

ABSENT = object()
AN_OBJECT = object()

# Few keys and values, so that the sides often meet.
KEYS = st.sampled_from(["a", "b", "a.b", "", "[0]"])
VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, "a"]),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(KEYS, below, max_size=3),
    max_leaves=6,
)
DATA = st.dictionaries(KEYS, VALUES, max_size=4)


@st.composite
def edits(draw: st.DrawFn, data: Data, depth: int = 0) -> Data:
    """Draw the data with some keys changed, removed and added, at each level."""
    edited = copy_json(data)
    for key in draw(st.lists(KEYS, max_size=3, unique=True)):
        below = edited.get(key)
        if isinstance(below, dict) and depth < 3 and draw(st.booleans()):
            edited[key] = draw(edits(below, depth + 1))
        elif draw(st.booleans()):
            edited.pop(key, None)
        else:
            edited[key] = draw(VALUES)
    return edited


@st.composite
def three(draw: st.DrawFn) -> tuple[Data, Data, Data]:
    """Draw a base and two sides of it."""
    base = draw(DATA)
    return base, draw(edits(base)), draw(edits(base))


def changes(old: Data, new: Data, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Return the change of each path that differs."""
    for key in {**old, **new}:
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if is_same(before, after):
            continue
        here = (*path, key)
        if not isinstance(after, dict):
            yield here, after
            continue
        if not isinstance(before, dict):
            yield here, AN_OBJECT
        yield from changes(before if isinstance(before, dict) else {}, after, here)


def at(data: Any, path: Path) -> Any:
    for key in path:
        data = data.get(key, ABSENT) if isinstance(data, dict) else ABSENT
    return data


def is_at(data: Data, path: Path, value: Any) -> bool:
    return isinstance(at(data, path), dict) if value is AN_OBJECT else is_same(at(data, path), value)


def read_path(text: str) -> Path:
    """Return the keys of a path."""
    keys: list[str] = []
    while text:
        if text[0] == "[":
            key, end = json.JSONDecoder().raw_decode(text, 1)
            assert text[end] == "]"
            end += 1
        else:
            text = text.removeprefix(".")
            end = min((place for place in (text.find("."), text.find("[")) if place >= 0), default=len(text))
            key = text[:end]
        keys.append(key)
        text = text[end:]
    return tuple(keys)


@given(steps=st.lists(KEYS | st.text(), max_size=4).map(tuple))
def test_a_path_can_be_read_back(steps: Path) -> None:
    assert read_path(say_path(steps)) == steps


@given(sides=three())
def test_an_unchanged_side_gives_the_other_side(sides: tuple[Data, Data, Data]) -> None:
    base, side, _ = sides

    for merged in (merge_data(base, side, base), merge_data(base, base, side)):
        assert is_same(merged.data, side) and merged.conflicts == ()


@given(sides=three())
def test_two_equal_sides_give_that_side(sides: tuple[Data, Data, Data]) -> None:
    base, side, _ = sides

    for one in (base, None):
        merged = merge_data(one, side, side)
        assert is_same(merged.data, side) and merged.conflicts == ()


@given(sides=three(), has_base=st.booleans())
def test_the_sides_may_be_swapped(sides: tuple[Data, Data, Data], has_base: bool) -> None:
    base, mine, theirs = sides
    known = base if has_base else None

    one, other = merge_data(known, mine, theirs), merge_data(known, theirs, mine)

    assert one.conflicts == other.conflicts
    assert one.conflicts or is_same(one.data, other.data)


@given(sides=three(), has_base=st.booleans())
@example(sides=({"a": {"b": 1}}, {}, {"a": {"b": 2}}), has_base=True)
@example(sides=({"a": 1}, {"a": {}}, {"a": {"b": 1}}), has_base=True)
def test_each_change_arrives_or_is_a_conflict(sides: tuple[Data, Data, Data], has_base: bool) -> None:
    base, mine, theirs = sides if has_base else ({}, *sides[1:])

    merged = merge_data(base if has_base else None, mine, theirs)

    conflicts = [read_path(text) for text in merged.conflicts]
    event(f"conflicts: {len(conflicts)}")
    for path in conflicts:
        old, my, their = at(base, path), at(mine, path), at(theirs, path)
        assert not is_same(old, my) and not is_same(old, their) and not is_same(my, their)
        assert not (isinstance(my, dict) and isinstance(their, dict))
        assert is_same(at(merged.data, path), my)
    wanted = [*changes(base, mine), *changes(base, theirs)]
    for path, value in wanted:
        if not any(path[: len(conflict)] == conflict for conflict in conflicts):
            assert is_at(merged.data, path, value)
    for path, value in changes(base, merged.data):
        assert any(path == changed and is_same(value, to) for changed, to in wanted)


@given(sides=three(), has_base=st.booleans())
def test_merging_again_changes_nothing(sides: tuple[Data, Data, Data], has_base: bool) -> None:
    base, mine, theirs = sides
    known = base if has_base else None

    merged = merge_data(known, mine, theirs)
    again = merge_data(known, merged.data, theirs)

    assert is_same(again.data, merged.data) and again.conflicts == merged.conflicts


def containers(value: Any) -> Iterator[int]:
    if isinstance(value, (dict, list)):
        yield id(value)
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


@given(sides=three(), has_base=st.booleans())
def test_no_side_is_changed_or_shared(sides: tuple[Data, Data, Data], has_base: bool) -> None:
    before = copy_json(list(sides))

    merged = merge_data(sides[0] if has_base else None, *sides[1:])

    assert repr(list(sides)) == repr(before)
    assert not {one for side in sides for one in containers(side)} & set(containers(merged.data))
    assert len(set(containers(merged.data))) == len(list(containers(merged.data)))


# -- permissions ------------------------------------------------------------------------------------------------------

SETS = st.dictionaries(st.sampled_from(["read", "write"]), st.frozensets(st.sampled_from("abcd")), max_size=2)
Sets = dict[str, frozenset[str]]


def of(permissions: Sets) -> set[tuple[str, str]]:
    """Every permission of every principal."""
    return {(name, principal) for name, principals in permissions.items() for principal in principals}


@given(base=SETS, mine=SETS, theirs=SETS)
def test_who_was_added_is_in_and_who_was_removed_is_out(base: Sets, mine: Sets, theirs: Sets) -> None:
    merged = of(merge_permissions(base, mine, theirs))

    added = (of(mine) - of(base)) | (of(theirs) - of(base))
    removed = (of(base) - of(mine)) | (of(base) - of(theirs))
    assert merged == (of(base) | added) - removed
    assert merged == of(merge_permissions(base, theirs, mine))


@given(base=SETS, side=SETS)
def test_permissions_of_an_unchanged_side_are_those_of_the_other(base: Sets, side: Sets) -> None:
    assert of(merge_permissions(base, base, side)) == of(merge_permissions(base, side, base)) == of(side)
    assert merge_permissions(base, side, side) == merge_permissions(None, side, side) == side


@given(mine=SETS, theirs=SETS)
def test_without_a_base_the_permissions_that_mine_names_are_mine(mine: Sets, theirs: Sets) -> None:
    merged = merge_permissions(None, mine, theirs)

    assert merged == {name: mine.get(name, theirs.get(name)) for name in {*mine, *theirs}}
