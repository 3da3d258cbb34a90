"""What the wire can carry, what it cannot, and what comes back."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_orm import Collection, InvalidValueError, ProtocolError, Record
from kinto_orm.protocol.json_values import (
    MAX_INTEGER,
    MIN_INTEGER,
    decode,
    encode,
    is_same,
    is_stored_as,
    to_json_object,
    to_json_value,
)


class Color(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Point(NamedTuple):
    x: int
    y: int


class Text(str):
    """A user's subclass of string."""


# Text that JSON and PostgreSQL carry: no lone surrogates, no NUL.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
# Kinto's parser is one unit off in the last place for some doubles of more digits.
NUMBERS = st.integers(MIN_INTEGER, MAX_INTEGER) | st.integers(-(10**6), 10**6).map(
    lambda thousandths: thousandths / 1000
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
KEYS = TEXTS.filter(lambda key: key not in {"id", "last_modified", "deleted", "schema", "__permissions__"})


@given(data=st.dictionaries(KEYS, JSON_VALUES, max_size=6))
def test_json_comes_back_exactly(todos: Collection, data: dict[str, Any]) -> None:
    saved = Record(collection=todos, data=data).save()

    loaded = todos.records.get(saved.id)

    assert is_same(dict(loaded.data), data) and is_same(dict(saved.data), data)
    saved.delete()


@given(value=JSON_VALUES)
def test_the_bytes_of_a_value_are_read_as_that_value(value: Any) -> None:
    assert is_same(decode(encode(value), "a test"), value)


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        pytest.param({"a": math.nan}, "data.a", "nan", id="nan"),
        pytest.param({"a": [0, -math.inf]}, "data.a[1]", "inf", id="infinity"),
        pytest.param({"a": {"b": "x\0"}}, "data.a.b", "NUL", id="nul"),
        pytest.param({"x\0": 1}, "data, key", "NUL", id="nul in a key"),
        pytest.param({"a": "\ud800"}, "data.a", "surrogate", id="lone surrogate"),
        pytest.param({"a": {"\udfff": 1}}, "data.a, key", "surrogate", id="lone surrogate in a key"),
        pytest.param({"a": MAX_INTEGER + 1}, "data.a", "rounds", id="too large"),
        pytest.param({"a": MIN_INTEGER - 1}, "data.a", "rounds", id="too small"),
        pytest.param({"a": {5: 1}}, "data.a", "5", id="key that is no string"),
        pytest.param({"a": datetime(2020, 1, 1)}, "data.a", "timezone", id="naive datetime"),  # noqa: DTZ001
        pytest.param({"a": b"x"}, "data.a", "bytes", id="bytes"),
        pytest.param({"a": {1, 2}}, "data.a", "set", id="set"),
        pytest.param({"a": timedelta(1)}, "data.a", "timedelta", id="timedelta"),
        pytest.param({"a": [Path("x")]}, "data.a[0]", "Path", id="path"),
        pytest.param({"a": (x for x in "ab")}, "data.a", "generator", id="generator"),
        pytest.param({"a": Record}, "data.a", "Kinto", id="class"),
    ],
)
def test_what_the_wire_cannot_carry_is_refused_with_its_path(value: Any, path: str, reason: str) -> None:
    with pytest.raises(InvalidValueError) as refused:
        Record(data=value)

    assert str(refused.value).startswith(path) and reason in str(refused.value)


@pytest.mark.parametrize("value", [[("a", 1)], "text", 5, object()], ids=["pairs", "text", "number", "object"])
def test_data_is_a_mapping(value: Any) -> None:
    with pytest.raises(InvalidValueError, match="mapping"):
        to_json_object(value)


@pytest.mark.parametrize(
    ("value", "json"),
    [
        pytest.param(True, True, id="boolean"),
        pytest.param(MAX_INTEGER, MAX_INTEGER, id="largest integer"),
        pytest.param((1, [2]), [1, [2]], id="tuple"),
        pytest.param(Point(1, 2), [1, 2], id="named tuple"),
        pytest.param(OrderedDict(a=MappingProxyType({"b": 1})), {"a": {"b": 1}}, id="mappings"),
        pytest.param(Color.RED, "red", id="enum"),
        pytest.param(Size.BIG, 3, id="enum of integers"),
        pytest.param(Text("x"), "x", id="subclass of str"),
        pytest.param(datetime(2020, 1, 2, tzinfo=UTC), "2020-01-02T00:00:00.000000Z", id="UTC"),
        pytest.param(
            datetime(2020, 1, 2, tzinfo=timezone(timedelta(hours=2))),
            "2020-01-01T22:00:00.000000Z",
            id="other timezone",
        ),
        pytest.param(date(2020, 1, 2), "2020-01-02", id="date"),
        pytest.param(time(3, 4), "03:04:00", id="time"),
        pytest.param(UUID(int=1), "00000000-0000-0000-0000-000000000001", id="uuid"),
        pytest.param(Decimal("1.50"), "1.50", id="decimal"),
    ],
)
def test_what_has_one_spelling_in_json_is_taken(value: Any, json: Any) -> None:
    converted = to_json_value(value)

    assert is_same(converted, json) and type(converted) is type(json)


def test_a_value_is_copied() -> None:
    inner = [1]

    copied = to_json_value({"a": inner})
    inner.append(2)

    assert copied == {"a": [1]}


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (0, False), ([1], [True]), ({"a": 0}, {"a": False}), ({}, {"a": None}), ([], [None])]
)
def test_values_that_differ_on_the_wire_are_not_the_same(one: Any, other: Any) -> None:
    assert not is_same(one, other) and not is_same(other, one)


@pytest.mark.parametrize("number", [2e19, -1e19, 1e22, 1e23, 2.0**70, 1.1e300, 1.7976931348623157e308])
def test_a_large_float_that_postgresql_made_an_integer_of_is_read_as_a_float(number: float) -> None:
    text = str(int(Decimal(repr(number)))).encode()
    (read,) = decode(b'{"of": [%b]}' % text, "a test")["of"]

    assert type(read) is float and read == number


@pytest.mark.parametrize("number", [0, 2**63, 2**64 - 1, -(2**63), 2**64 + 1, 10**400])
def test_other_integers_stay_integers(number: int) -> None:
    read = decode(str(number).encode(), "a test")

    assert type(read) is int and read == number


def test_one_number_has_two_types() -> None:
    assert is_same({"a": [1]}, {"a": [1.0]})


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b'{"a": 1}x', b"<html>", b"[" * 100_000],
    ids=lambda body: repr(body[:9]),
)
def test_what_is_not_json_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="GET /x is not JSON"):
        decode(body, "GET /x")


@pytest.mark.parametrize("depth", [10, 199, 250, 400])
def test_deep_values_that_kinto_stores_are_read_and_written(depth: int) -> None:
    body = b"[" * depth + b"]" * depth

    assert encode(decode(body, "a test")) == body


@pytest.mark.parametrize(
    ("sent", "stored", "expected"),
    [
        (0.1, 0.10000000000000002, True),
        (0.1, 0.11, False),
        (1e22, 10**22, True),
        (1.0, True, False),
        (1, True, False),
        (1, 2, False),
        ({"a": [0.1]}, {"a": [0.10000000000000002]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1.0, 2], [1.0], False),
        ([1.0], {"0": 1.0}, False),
    ],
)
def test_kinto_stores_floats_nearly_as_they_are_sent(sent: Any, stored: Any, expected: bool) -> None:
    assert is_stored_as(sent, stored) is expected
