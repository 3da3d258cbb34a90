"""Fields named on the class, and the conditions that they make."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest
from pydantic import Field, field_serializer

from kinto_orm import F, InvalidFilterError, InvalidTypeError, Record
from kinto_orm.protocol.filters import Condition

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Color(Enum):
    RED = "red"


class Todo(Record, collection="todos"):
    title: str = ""
    priority: int = 1
    tags: list[str] = []  # noqa: RUF012  # pydantic copies it
    color: Color = Color.RED
    meta: dict[str, Any] = {}  # noqa: RUF012  # pydantic copies it
    due: datetime | None = Field(default=None, validation_alias="dueDate", serialization_alias="dueDate")
    cents: float = 0

    @field_serializer("cents")
    def to_cents(self, value: float) -> int:
        return round(value * 100)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(Todo.title == "x", Condition("title", "", "x"), id="=="),
        pytest.param(Todo.title != "x", Condition("title", "not", "x", True), id="!="),
        pytest.param(Todo.priority > 3, Condition("priority", "gt", 3, True), id=">"),
        pytest.param(Todo.priority >= 3, Condition("priority", "min", 3, True), id=">="),
        pytest.param(Todo.priority < 3, Condition("priority", "lt", 3, True), id="<"),
        pytest.param(Todo.priority <= 3, Condition("priority", "max", 3, True), id="<="),
        pytest.param(3 < Todo.priority, Condition("priority", "gt", 3, True), id="the other way round"),  # noqa: SIM300
        pytest.param(F(Todo.priority).gt(3), Condition("priority", "gt", 3, True), id="gt"),
        pytest.param(F(Todo.priority).min(3), Condition("priority", "min", 3, True), id="min"),
        pytest.param(F(Todo.priority).lt(3), Condition("priority", "lt", 3, True), id="lt"),
        pytest.param(F(Todo.priority).max(3), Condition("priority", "max", 3, True), id="max"),
        pytest.param(F(Todo.priority).not_(3), Condition("priority", "not", 3, True), id="not_"),
        pytest.param(F(Todo.priority).in_([1, 2]), Condition("priority", "in", [1, 2]), id="in_"),
        pytest.param(F(Todo.priority).exclude([1, 2]), Condition("priority", "exclude", [1, 2]), id="exclude"),
        pytest.param(F(Todo.title).like("a*"), Condition("title", "like", "a*", True), id="like"),
        pytest.param(F(Todo.title).has(), Condition("title", "has", True), id="has"),
        pytest.param(F(Todo.title).has(False), Condition("title", "has", False), id="has not"),
        pytest.param(F(Todo.tags).contains("a", "b"), Condition("tags", "contains", ["a", "b"]), id="contains"),
        pytest.param(F(Todo.tags).contains_any("a"), Condition("tags", "contains_any", ["a"]), id="contains_any"),
    ],
)
def test_operator_makes_a_condition(made: Condition, expected: Condition) -> None:
    assert made == expected


@pytest.mark.parametrize(
    ("made", "field", "value"),
    [
        pytest.param(F(Todo.due) >= NOON, "dueDate", "2026-05-04T12:00:00.000000Z", id="alias and datetime"),
        pytest.param(Todo.color == Color.RED, "color", "red", id="enum"),
        pytest.param(Todo.cents >= 1.5, "cents", 150, id="the model's own serializer"),
        pytest.param(F(Todo.cents).in_([1, 2]), "cents", [100, 200], id="each of a list"),
        pytest.param(Todo.title == 3, "title", 3, id="a value of another type as it is"),
        pytest.param(F(Todo.due) == None, "dueDate", None, id="null"),  # noqa: E711
        pytest.param(Todo.id == "a", "id", "a", id="id"),
        pytest.param(F(Todo.last_modified) > 5, "last_modified", 5, id="last_modified"),
        pytest.param(F(Todo.meta)["a"]["b"] == 1, "meta.a.b", 1, id="a key inside"),
        pytest.param(F("any thing") == 1, "any thing", 1, id="a name of plain data"),
    ],
)
def test_condition_speaks_as_the_wire_does(made: Condition, field: str, value: object) -> None:
    assert (made.field, made.value) == (field, value)


@pytest.mark.parametrize(
    "misuse",
    [
        pytest.param(lambda: bool(Todo.title), id="truth of a field"),
        pytest.param(lambda: not Todo.title, id="not"),
        pytest.param(lambda: bool(Todo.priority >= 3), id="truth of a condition"),
        pytest.param(lambda: 1 < Todo.priority < 3, id="chained comparison"),
        pytest.param(lambda: (Todo.priority > 1) and (Todo.priority < 3), id="and"),
        pytest.param(lambda: (Todo.priority > 1) | (Todo.priority < 3), id="|"),
        pytest.param(lambda: (Todo.priority > 1) & (Todo.priority < 3), id="&"),
        pytest.param(lambda: ~(Todo.priority > 1), id="~"),
        pytest.param(lambda: F(Todo.title).in_("abc"), id="text as a list"),
        pytest.param(lambda: F(Todo.title).in_(3), id="a number as a list"),
        pytest.param(lambda: Todo.title == Todo.priority, id="another field"),
        pytest.param(lambda: Todo.title == (Todo.priority > 1), id="a condition as a value"),
        pytest.param(lambda: Todo.title == object(), id="a value that is no JSON"),
        pytest.param(lambda: F(Todo.title).like(3), id="a pattern that is no text"),
        pytest.param(lambda: Todo.id == 3, id="an id that is no text"),
        pytest.param(lambda: F("_hidden") == 3, id="a name that Kinto ignores"),
        pytest.param(lambda: F("") == 3, id="no name"),
    ],
)
def test_misuse_is_refused_where_it_is_written(misuse: Callable[[], object]) -> None:
    with pytest.raises(InvalidFilterError):
        misuse()


@pytest.mark.parametrize(
    "misuse",
    [
        pytest.param(lambda: F(3), id="F of a number"),
        pytest.param(lambda: F(Todo), id="F of a class"),
        pytest.param(lambda: F(Todo.tags)[0], id="an index"),
        pytest.param(lambda: list(Todo.title), id="iteration"),
        pytest.param(lambda: "a" in Todo.title, id="in"),
        pytest.param(lambda: hash(Todo.title), id="hash"),
    ],
)
def test_what_is_no_operator_is_a_type_error(misuse: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        misuse()


def test_or_says_what_to_write_instead() -> None:
    with pytest.raises(InvalidFilterError, match="in_"):
        (Todo.priority > 1) | (Todo.priority < 3)


def test_f_of_an_object_s_value_says_what_it_takes() -> None:
    with pytest.raises(InvalidTypeError, match=r"Todo\.title"):
        F(Todo(priority=3).priority)


def test_f_of_a_field_is_that_field() -> None:
    assert repr(F(Todo.title)) == "Todo.title"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize(
    "original",
    [
        pytest.param(Todo.cents, id="a field of a class"),
        pytest.param(F("plain"), id="a field of plain data"),
        pytest.param(F(Todo.meta)["key"], id="a key inside"),
        pytest.param(Todo.cents >= 1.5, id="a condition"),
        pytest.param(F(Todo.title).desc(), id="an order"),
    ],
)
def test_expression_survives_copying(original: Any, duplicate: Callable[[Any], Any]) -> None:
    assert repr(duplicate(original)) == repr(original)


def test_copied_field_still_serializes_as_its_model() -> None:
    copied = pickle.loads(pickle.dumps(Todo.cents))

    assert (copied >= 1.5) == Condition("cents", "min", 150, True)


def test_a_naive_datetime_is_refused_as_in_a_save() -> None:
    with pytest.raises(InvalidFilterError, match="no timezone"):
        F(Todo.due) >= datetime(2019, 1, 1)  # noqa: B015, DTZ001


def test_minus_a_field_names_the_way_to_order_by_it() -> None:
    with pytest.raises(InvalidFilterError, match=r"desc\(\)"):
        -F(Todo.priority)


def test_a_method_that_a_field_lacks_names_those_it_has() -> None:
    with pytest.raises(AttributeError, match=r"no model with the field 'startswith'.*methods of F\(\): like"):
        F(Todo.title).startswith("Buy")  # type: ignore[attr-defined]  # what other ORMs have
