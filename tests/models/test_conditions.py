"""Conditions tell the truth: they give what Python gives, or are refused (``faults_found.md`` J08, J21, J24).

The reference is Python's own comparison of the fields of the same objects. A condition looks at objects that have the
field with a value of its type: a ``None`` is in no order, and a key that is not there differs from nothing.
"""

# pydantic copies the defaults of its models

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from field_kinds import KINDS, Color
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, Json, PlainSerializer, PlainValidator, create_model

from kinto_orm import Client, Collection, F, InvalidFilterError, KintoError, OrderedText, Record


class Weight(Enum):
    LIGHT = 2
    HEAVY = 10


class Size(IntEnum):
    S = 1
    L = 10


class Placed(Record, bucket="payments", collection="todos"):
    """What the models of one field have in common: where they are."""


class Row(Record, bucket="payments", collection="todos"):
    s: str | None = None
    i: int | None = None
    f: float | None = None
    b: bool | None = None
    d: date | None = None
    at: datetime | None = None
    t: time | None = None
    span: timedelta | None = None
    price: Decimal | None = None
    cents: Annotated[Decimal, PlainSerializer(float, return_type=float)] | None = None
    code: Annotated[int, PlainSerializer(lambda value: f"{value:06d}", return_type=str), OrderedText()] | None = None
    u: UUID | None = None
    color: Color | None = None
    size: Size | None = None
    weight: Weight | None = None
    payload: Json = None
    literal: Literal["a", "b"] | None = None
    ip: IPv4Address | None = None
    amount: Decimal | float | None = None
    prices: list[Decimal] | None = None
    tags: list[str] | None = None
    labels: set[int] | None = None
    days: list[datetime] | None = None


zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
moments = st.builds(
    datetime, *map(st.just, (2030, 1, 1)), st.integers(0, 3), st.just(0), st.just(0), st.sampled_from([0, 1, 500_000])
)
letters = st.text("aB-,é*", max_size=3)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "s": letters,
    "i": st.integers(-12, 12),
    "f": st.sampled_from([-1.5, 0.0, 0.25, 3.0, 1e20]),
    "b": st.booleans(),
    "d": st.dates(date(2029, 12, 28), date(2030, 1, 3)),
    "at": st.builds(lambda moment, zone: moment.replace(tzinfo=UTC).astimezone(zone), moments, zones),
    "t": st.builds(time, st.integers(0, 2), st.just(0), st.just(0), st.sampled_from([0, 5, 500_000])),
    "span": st.builds(timedelta, hours=st.integers(-30, 30)),
    "price": st.sampled_from([Decimal("9.5"), Decimal("9.50"), Decimal(10)]),
    "cents": st.sampled_from([Decimal("9.5"), Decimal("9.50"), Decimal(10)]),
    "code": st.integers(0, 120),
    "u": st.sampled_from([UUID(int=1), UUID(int=2**127), UUID(int=0xABC)]),
    "color": st.sampled_from(Color),
    "size": st.sampled_from(Size),
    "literal": st.sampled_from("ab"),
    "ip": st.sampled_from([IPv4Address("10.0.0.9"), IPv4Address("10.0.0.10"), IPv4Address("9.0.0.1")]),
    "tags": st.lists(letters, max_size=2),
    "labels": st.sets(st.integers(0, 9), max_size=3),
    "days": st.lists(st.just(datetime(2030, 1, 1, tzinfo=UTC)), max_size=1),
}
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
EXAMPLES = 10 if os.environ.get("KINTO_ORM_EVERYTHING") else 2
"""In depth in ``tox -e slow``: each example fills a collection."""


@pytest.fixture
def store(kinto_client: Client, todos: Collection[Record]) -> Callable[[list[dict[str, Any]]], list[Row]]:
    """Return a function that puts these rows in the place of the others."""

    def fill(data: list[dict[str, Any]]) -> list[Row]:
        Row.records.delete(everything=True)
        Row.records.bulk_create(Row(id=f"r{number}", **one) for number, one in enumerate(data))
        return Row.records.all()

    return fill


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES, derandomize=True, phases=[Phase.generate])
@given(st.data())
def test_j08_conditions_and_orders_give_what_python_gives_or_are_refused(
    todos: Collection[Record], kind: str, data: st.DataObject
) -> None:
    model: Any = create_model("Holder", __base__=Placed, f=(KINDS[kind].annotation, ...))
    todos.records.delete(everything=True)
    for number, one in enumerate(data.draw(st.lists(KINDS[kind].values, min_size=1, max_size=5))):
        with suppress(KintoError):
            model(id=f"r{number}", f=one).save()
    found = model.records.all()
    if not found:
        return
    asked = data.draw(st.sampled_from(found)).f

    for symbol, compare in OPERATORS.items():
        # What Python cannot compare (a TypeError), such as a number with a text, has no truth to be told.
        with suppress(InvalidFilterError, TypeError):
            query = model.records.filter(compare(F(model.f), asked))
            expected = {one.id for one in found if compare(one.f, asked)}
            assert {one.id for one in query} == expected, f"{symbol} {asked!r}"
    # A list in the place of a value stands for its values, unless the values are lists.
    for one_or_more in (asked,) if isinstance(asked, (list, tuple, set, frozenset, deque)) else (asked, [asked]):
        with suppress(InvalidFilterError, TypeError):
            left = {one.id for one in model.records.exclude(f=one_or_more)}
            assert left == {one.id for one in found if one.f != asked}, f"exclude {one_or_more!r}"
    with suppress(InvalidFilterError, TypeError):
        ordered = [one.f for one in model.records.order_by("f", "id")]
        assert ordered == sorted(one.f for one in found)


def test_j08_the_example_of_the_documentation(store: Any) -> None:
    store([{"at": datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))}])

    assert Row.records.filter(F(Row.at) < datetime(2030, 1, 1, 11, tzinfo=UTC)).count() == 1
    assert Row.records.filter(F(Row.at) > datetime(2030, 1, 1, 11, tzinfo=UTC)).count() == 0
    assert Row.records.filter(F(Row.at) >= datetime(2030, 1, 1, 10, tzinfo=UTC)).count() == 1


@pytest.mark.parametrize(
    "refused",
    [
        lambda: F(Row.price) > Decimal("9.5"),
        lambda: F(Row.price) == Decimal("9.5"),
        lambda: F("price") > Decimal("9.5"),
        lambda: F(Row.amount) == 1.5,  # which equals Decimal("1.5"), a text on the wire
        lambda: F(Row.amount) >= 1.5,
        lambda: F(Row.amount).in_([1.5]),
        lambda: F(Row.prices).contains(Decimal("9.5")),
        lambda: F(Row.prices).contains_any(1, 2),
        lambda: F(Row.span) < timedelta(1),
        lambda: F(Row.t) > time(1, tzinfo=UTC),
        lambda: F(Row.ip) > IPv4Address("10.0.0.1"),
        lambda: F(Row.color) < Color.RED,
        lambda: F(Row.payload) == None,  # noqa: E711  # an expression; its text is "null"
        lambda: F(Row.weight) <= Weight.HEAVY,
        lambda: Row.records.order_by("weight"),
        lambda: Row.records.order_by("price"),
        lambda: Row.records.order_by(F(Row.ip).desc()),
        lambda: Row.records.filter(gt_ip="10.0.0.1"),
    ],
)
def test_j24_what_the_server_would_compare_as_text_is_refused(refused: Callable[[], Any]) -> None:
    with pytest.raises(InvalidFilterError, match="text"):
        refused()


@pytest.mark.parametrize(
    "refused",
    [
        lambda: F(Row.b) > 77,
        lambda: F(Row.b) <= "x",
        lambda: F(Row.b).max(None),
        lambda: F(Row.b) == 1,  # which is true for Python, and not for the server
        lambda: F(Row.b).in_([0]),
        lambda: F(Row.f) >= "x",
        lambda: F(Row.i) < date(2030, 1, 1),
        lambda: F(Row.cents) > None,
        lambda: F(Row.s) > 5,
        lambda: F(Row.at) < 5,
        lambda: Row.records.filter(gt_b=1),
        lambda: Row.records.filter(b=1),
    ],
)
def test_a_value_that_the_server_orders_by_its_type_is_refused(refused: Callable[[], Any]) -> None:
    with pytest.raises(InvalidFilterError, match="type of the field"):
        refused()


def test_booleans_have_their_order(store: Any) -> None:
    store([{"b": True}, {"b": False}, {"b": None}])

    assert [one.b for one in Row.records.filter(F(Row.b) > False)] == [True]
    assert [one.b for one in Row.records.filter(F(Row.b) <= False)] == [False]
    assert Row.records.filter(b=None).count() == 1
    assert Row.records.filter(F(Row.s) == 5).count() == 0


@pytest.mark.parametrize("condition", [F("n") < 0, F("n") <= 1, F(Row.i) < 9, F(Row.i) <= 9, F("n") < 10**6])
def test_j21_a_condition_on_a_number_matches_no_null(todos: Collection[Record], condition: Any) -> None:
    todos.records.bulk_create([{"n": None, "i": None}, {}])

    assert todos.records.filter(condition).all() == []


def test_items_of_a_list_are_spelt_as_the_field_spells_them(store: Any) -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    store([{"days": [moment], "tags": ["a"], "labels": {3}}, {"days": []}])

    assert Row.records.filter(F(Row.days).contains(moment.astimezone(timezone(timedelta(hours=3))))).count() == 1
    assert Row.records.filter(F(Row.labels).contains(3), F(Row.tags).contains_any("a", "b")).count() == 1
    assert Row.records.filter(F(Row.at).in_([moment])).count() == 0


class Tagged(Record, bucket="payments", collection="todos"):
    tags: tuple[int | str, ...] = ()
    days: list[date] | None = None
    labels: frozenset[int] = frozenset()
    n: int = 0
    code: int | str = 0
    anything: Any = None
    either: list[int] | int = 0
    read: Annotated[list[int], PlainValidator(list)] | None = None


@pytest.mark.parametrize(
    ("excluded", "left"),
    [
        ({"tags": [1]}, {"b"}),
        ({"tags": []}, {"a", "b"}),
        ({"tags": ["1"]}, {"a", "b"}),
        ({"days": [date(2030, 1, 1)]}, {"b"}),
        ({"labels": {2, 1}}, {"b"}),
        ({"n": [1, 5]}, {"b"}),
        ({"n": []}, {"a", "b"}),
        ({"code": {1}}, {"b"}),
        ({"in_anything": [1]}, {"b"}),
    ],
)
def test_exclude_takes_a_list_for_the_value_of_a_field_that_holds_lists(
    todos: Collection[Record], excluded: dict[str, Any], left: set[str]
) -> None:
    Tagged(id="a", tags=(1,), days=[date(2030, 1, 1)], labels=frozenset({1, 2}), n=1, code=1, anything=1).save()
    Tagged(id="b", tags=(2, "1"), labels=frozenset({2}), n=2, anything=[1]).save()

    assert {one.id for one in Tagged.records.exclude(**excluded)} == left


@pytest.mark.parametrize("name", ["anything", "either", "read"])
def test_exclude_refuses_a_list_that_may_be_a_value_or_several(name: str) -> None:
    with pytest.raises(InvalidFilterError, match=rf"exclude\(in_{name}=\[…\]\)"):
        Tagged.records.exclude(**{name: [1]})


class Part(BaseModel):
    m: int = Field(default=0, validation_alias="c.d", serialization_alias="c.d")


class Dotted(Record, bucket="payments", collection="todos"):
    n: int = Field(default=0, validation_alias="a.b", serialization_alias="a.b")
    part: Part = Part()


@pytest.mark.parametrize(
    "refused",
    [
        lambda: Dotted.records.filter(n=7),
        lambda: Dotted.records.filter(has_n=True),
        lambda: Dotted.records.filter(F(Dotted.n).has()),
        lambda: Dotted.records.filter(F("a.b") == 7),
        lambda: Dotted.records.filter(F(Dotted.part.m) > 7),
        lambda: Dotted.records.filter(**{"part.c.d": 7}),
        lambda: Dotted.records.exclude(n=7),
        lambda: Dotted.records.exclude(n=[7]),
        lambda: Dotted.records.order_by("-n"),
        lambda: Dotted.records.order_by(F(Dotted.n).desc()),
        lambda: Dotted.records.only("n"),
        lambda: Dotted.records.values(Dotted.n),
        lambda: Dotted.records.filter(_fields=["n"]),
    ],
)
def test_a_name_that_the_server_takes_for_a_path_is_refused(
    todos: Collection[Record], refused: Callable[[], Any]
) -> None:
    with pytest.raises(InvalidFilterError, match="dot"):
        refused()
