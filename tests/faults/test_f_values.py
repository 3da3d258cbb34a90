"""Rows F: values and filters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from lossy import LossyAdapter

from kinto_orm import (
    BasicPatch,
    Client,
    Collection,
    Group,
    InvalidPermissionError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    PrincipalWarning,
    Record,
    UsageError,
)

CYCLE: dict[str, Any] = {}
CYCLE["self"] = [CYCLE]
DEEP: list[Any] = []
for _ in range(2000):
    DEEP = [DEEP]

REFUSED = [
    pytest.param({"a": [float("nan")]}, r"data\.a\[0\]", id="F01"),
    pytest.param({"a": {"b": float("inf")}}, r"data\.a\.b", id="F01-infinity"),
    pytest.param({"a": {True: "x"}}, r"data\.a: the key True", id="F03"),
    pytest.param({"a": {None: "x"}}, r"data\.a: the key None", id="F03-none"),
    pytest.param({1: "int", "1": "str"}, "data: the key 1", id="F04"),
    pytest.param({"a": datetime(2026, 1, 1)}, r"data\.a: .* no timezone", id="F05"),  # noqa: DTZ001
    pytest.param({"a": {1, 2}}, r"data\.a: a set", id="F06"),
    pytest.param({"a": b"x"}, r"data\.a: a bytes", id="F06-bytes"),
    pytest.param({"a": "\ud800"}, r"data\.a: .*surrogate", id="F11"),
    pytest.param({"a": ["x\0"]}, r"data\.a\[0\]: .*NUL", id="F12"),
    pytest.param({"a": 10**30}, r"data\.a: .*rounds", id="F13"),
    pytest.param({"a": 2**64}, r"data\.a: .*rounds", id="F13-first"),
    pytest.param({"a": -(2**63) - 1}, r"data\.a: .*rounds", id="F13-negative"),
    pytest.param(CYCLE, r"data\.self.* cycle", id="F15"),
    pytest.param({"a": {(1, 2): 3}}, r"data\.a: the key \(1, 2\)", id="F15-tuple"),
    pytest.param({"a": DEEP}, r"data\.a\[0\].*deeper", id="F15-deep"),
]


def assign(client: Client, data: Any) -> None:
    Record(id="x", client=client).data = data


WAYS: list[Callable[[Client, Any], object]] = [
    lambda client, data: Record(data=data, client=client),
    lambda client, data: Record(id="x", client=client).patch(data),
    lambda client, data: Record(id="x", client=client).patch(BasicPatch(data=data)),
    lambda client, data: client.bucket("b").collection("c").records.create(id="x", data=data),
    assign,
]


@pytest.mark.parametrize(("data", "message"), REFUSED)
@pytest.mark.parametrize("way", WAYS, ids=["constructor", "patch", "basic-patch", "create", "assignment"])
def test_what_would_not_arrive_is_refused_with_its_path(
    client: Client, adapter: LossyAdapter, data: Any, message: str, way: Callable[[Client, Any], object]
) -> None:
    with pytest.raises((InvalidValueError, InvalidTypeError), match=message):
        way(client, data)

    assert adapter.sent == []


def test_f06_what_has_one_spelling_is_sent_in_it(client: Client, todos: Collection[Record]) -> None:
    data = {
        "t": time(3, 4),
        "d": date(2026, 1, 2),
        "n": Decimal("1.50"),
        "u": UUID(int=1),
        "z": datetime(2026, 1, 2, tzinfo=UTC),
    }

    Record(id="x", data=data, client=client).save()

    assert dict(todos.records.get("x").data) == {
        "t": "03:04:00",
        "d": "2026-01-02",
        "n": "1.50",
        "u": "00000000-0000-0000-0000-000000000001",
        "z": "2026-01-02T00:00:00.000000Z",
    }


def test_f13_the_largest_integers_come_back_exactly(client: Client, todos: Collection[Record]) -> None:
    data = {"max": 2**64 - 1, "min": -(2**63)}

    Record(id="x", data=data, client=client).save()

    assert dict(todos.records.get("x").data) == data


def test_f62_a_float_may_come_back_one_bit_off_and_the_object_then_has_what_the_server_has(
    client: Client, todos: Collection[Record]
) -> None:
    """As documented: an exact number is text, or an integer."""
    record = Record(id="x", data={"f": 123456789.123456789}, client=client).save()

    stored = todos.records.get("x").data["f"]
    assert math.isclose(stored, 123456789.123456789, rel_tol=1e-15)
    assert (record.data["f"], record.is_dirty) == (stored, False)


def edited(record: Record, data: dict[str, Any]) -> Record:
    record.data.update(data)
    return record


@pytest.mark.parametrize(
    ("key", "value"),
    [pytest.param("last_modified", "abc", id="F20"), pytest.param("deleted", True, id="F21")],
)
def test_what_only_the_server_sets_is_refused(client: Client, adapter: LossyAdapter, key: str, value: Any) -> None:
    record = Record(id="x", client=client).save()
    adapter.sent.clear()

    for data in ({**record.data, key: value}, {key: value}):
        with pytest.raises(KintoError, match=key):
            record.patch(data)
        with pytest.raises(KintoError, match=key):
            edited(record, data).save()

    assert adapter.sent == []


def test_f20_a_timestamp_is_read_only(client: Client) -> None:
    with pytest.raises((UsageError, InvalidValueError)):
        Record(id="x", client=client).save().last_modified = 5  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize("principal", ["not a principal ", "bob", "system.Nobody", "account:", "/buckets/b", "*"])
def test_f33_a_principal_that_matches_nobody_is_a_warning(principal: str) -> None:
    record = Record(id="x")

    with pytest.warns(PrincipalWarning, match="matches nobody") as told:
        record.permissions = {"read": [principal]}

    assert told[0].filename == __file__
    assert record.permissions.read == {principal}


def test_f33_principals_of_known_forms_are_taken_silently(client: Client) -> None:
    known = [
        "system.Everyone",
        "system.Authenticated",
        "account:bob",
        "basicauth:0d1c",
        "my-openid:a b@c",
        "/buckets/b/groups/g",
    ]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = Record(id="x", permissions={"read": [*known, Group(bucket="b", id="h", client=client)]})

    assert record.permissions.read == {*known, "/buckets/b/groups/h"}


def test_principals_that_are_none_are_still_refused() -> None:
    with pytest.raises(InvalidPermissionError):
        Record(id="x", permissions={"read": [" "]})
