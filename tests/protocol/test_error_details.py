"""What a 400 says of each field, and what a JSON schema refused, with its path."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from wiretap import answer, scripted_client

from kinto_orm import (
    BadRequestError,
    Bucket,
    Client,
    Collection,
    CommitError,
    FieldError,
    Group,
    JSONPatch,
    Record,
    ResponseError,
    SchemaValidationError,
)
from kinto_orm.protocol.error_details import schema_errors
from kinto_orm.protocol.messages import Request
from kinto_orm.protocol.responses import raise_for_status
from kinto_orm.protocol.writes import Flow

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "address": {
            "type": "object",
            "properties": {"zip": {"type": "string"}, "lines": {"type": "array", "items": {"type": "string"}}},
            "required": ["zip"],
            "additionalProperties": False,
        },
    },
    "required": ["title"],
    "additionalProperties": False,
}


@pytest.fixture
def addresses(payments: Bucket) -> Collection[Record]:
    """A collection whose records have a JSON schema."""
    return Collection(bucket=payments, id="addresses", data={"schema": SCHEMA}).save()


def address(**changes: Any) -> dict[str, Any]:
    return {"title": "home", "address": {"zip": "1", **changes}}


@pytest.mark.parametrize(
    ("data", "paths"),
    [
        pytest.param({"title": 5}, [("title",)], id="wrong type"),
        pytest.param({}, [("title",)], id="missing"),
        pytest.param({"title": "x", "b": 1, "it's": 2}, [("b",), ("it's",)], id="too much"),
        pytest.param(address(zip=1), [("address", "zip")], id="nested"),
        pytest.param(address(lines=["x", 5]), [("address", "lines", 1)], id="in a list"),
        pytest.param({"title": "x", "address": {}}, [("zip",)], id="missing here or there: Kinto does not tell"),
        pytest.param(address(b=1), [("address", "b")], id="too much below"),
    ],
)
def test_a_schema_says_which_field_it_refuses(
    data: dict[str, Any], paths: list[tuple[str | int, ...]], addresses: Collection[Record]
) -> None:
    with pytest.raises(SchemaValidationError, match="JSON schema") as refused:
        addresses.records.create(data=data)

    assert sorted(error.loc for error in refused.value.errors) == paths
    assert all(error.msg == refused.value.details[0]["description"] for error in refused.value.errors)
    assert addresses.records.count() == 0


def test_a_refused_change_is_located_in_the_object_that_it_would_have_made(addresses: Collection[Record]) -> None:
    record = addresses.records.create(data=address())

    record.data["address"]["zip"] = 1
    with pytest.raises(SchemaValidationError) as of_save:
        record.save()
    with pytest.raises(SchemaValidationError) as of_patch:
        record.patch(address={"zip": 1})
    with pytest.raises(SchemaValidationError) as of_json_patch:
        record.patch(JSONPatch([{"op": "replace", "path": "/data/address/zip", "value": 1}]))
    with pytest.raises(SchemaValidationError) as awaited:
        asyncio.run(record.asave())

    for refused in (of_save, of_patch, of_json_patch, awaited):
        assert [str(error) for error in refused.value.errors] == ["address.zip: 1 is not of type 'string'"]
    assert record.is_dirty


def test_of_an_object_that_was_never_read_the_end_of_the_path_is_known(addresses: Collection[Record]) -> None:
    addresses.records.create(id="home", data=address())

    with pytest.raises(SchemaValidationError) as refused:
        Record(collection=addresses, id="home").patch(address={"zip": 1})

    assert [error.loc for error in refused.value.errors] == [("zip",)]


def test_each_outcome_of_a_unit_has_its_own_fields(kinto_client: Client, addresses: Collection[Record]) -> None:
    unit = kinto_client.unit_of_work()
    unit.save(Record(collection=addresses, id="a", data=address()))
    unit.save(Record(collection=addresses, id="b", data=address(zip=1)))
    unit.save(Record(collection=addresses, id="c", data={}))

    with pytest.raises(CommitError) as failed:
        unit.commit()

    errors = [one.error for one in failed.value.outcomes]
    assert [one.status for one in failed.value.outcomes] == ["created", "rejected", "rejected"]
    assert [error.errors[0].loc for error in errors if isinstance(error, SchemaValidationError)] == [
        ("address", "zip"),
        ("title",),
    ]


def test_the_outcomes_of_a_bulk_verb_have_their_fields(addresses: Collection[Record]) -> None:
    with pytest.raises(CommitError) as failed:
        addresses.records.bulk_create([address(), address(zip=1)])

    (outcome,) = failed.value.outcomes
    assert [error.loc for error in outcome.error.errors] == [("address", "zip")]


def test_a_buckets_schema_refuses_its_groups_too(payments: Bucket) -> None:
    payments.data["group:schema"] = {"properties": {"size": {"type": "integer"}}}
    payments.save()

    with pytest.raises(SchemaValidationError) as refused:
        Group(bucket=payments, id="staff", data={"members": [], "size": "many"}).save()

    assert [error.loc for error in refused.value.errors] == [("size",)]


@pytest.mark.parametrize(
    ("ask", "fields"),
    [
        pytest.param(
            lambda bucket: Collection(bucket=bucket, id="c", data={"schema": {"type": 5}}).save(),
            [FieldError(("data", "schema"), "type5 is not valid under any of the given schemas")],
            id="the schema itself",
        ),
        pytest.param(
            lambda bucket: Group(bucket=bucket, id="g", members=["system.Everyone"]).save(),
            [FieldError(("data", "members", 0), "'system.Everyone' is not a valid user ID.")],
            id="a member",
        ),
        pytest.param(
            lambda bucket: bucket.client.run(_sent("GET", "/buckets", query="_limit=x")),
            [FieldError(("_limit",), '"x" is not a number', "querystring")],
            id="a parameter",
        ),
        pytest.param(
            lambda bucket: bucket.client.run(_sent("PUT", "/buckets/b", body=b"{")),
            [
                FieldError((), "Invalid JSON: Parse error at offset 1: Missing a name for object member."),
                FieldError((), "Required"),
            ],
            id="no field",
        ),
    ],
)
def test_what_kinto_refuses_by_itself_has_its_fields_too(
    ask: Callable[[Bucket], object], fields: list[FieldError], payments: Bucket
) -> None:
    with pytest.raises(BadRequestError) as refused:
        ask(payments)

    assert list(refused.value.errors) == fields
    assert type(refused.value) is BadRequestError


def _sent(method: str, path: str, *, query: str = "", body: bytes | None = None) -> Flow[None]:
    response = yield Request(method, path, query, {"Content-Type": "application/json"}, body)
    raise_for_status(response, method, path)


def test_the_fields_survive_pickling(addresses: Collection[Record]) -> None:
    with pytest.raises(SchemaValidationError) as refused:
        addresses.records.create(data=address(zip=1))

    assert pickle.loads(pickle.dumps(refused.value)).errors == refused.value.errors


@pytest.mark.parametrize(
    "details",
    [
        pytest.param(None, id="none"),
        pytest.param(["no object"], id="no objects"),
        pytest.param([{"location": "body"}], id="no name"),
        pytest.param([{"location": "path", "name": "id"}], id="not of the body"),
        pytest.param([{"location": "body", "name": "data.x"}], id="Kinto's own"),
        pytest.param(
            [{"location": "body", "name": "x"}, {"location": "body", "name": "y"}], id="two: a schema has one"
        ),
    ],
)
def test_other_refusals_are_of_no_schema(details: object) -> None:
    client = scripted_client(answer({"errno": 107, "details": details}, 400))

    with pytest.raises(BadRequestError) as refused:
        client.run(_sent("PUT", "/buckets/b/collections/c/records/r", body=b"{}"))

    assert type(refused.value) is BadRequestError


@pytest.mark.parametrize(
    ("path", "errno"),
    [
        pytest.param("/buckets/b/collections/c/records/r/attachment", 107, id="an attachment"),
        pytest.param("/buckets/b/collections/c/records/r", 109, id="a plugin"),
    ],
)
def test_what_plugins_refuse_is_of_no_schema(path: str, errno: int) -> None:
    details = [{"location": "body", "name": "size", "description": "too large"}]
    client = scripted_client(answer({"errno": errno, "details": details}, 400))

    with pytest.raises(ResponseError) as refused:
        client.run(_sent("POST", path, body=b"{}"))

    assert type(refused.value) is BadRequestError
    assert [error.loc for error in refused.value.errors] == [("size",)]


@pytest.mark.parametrize(
    ("name", "message", "loc"),
    [
        pytest.param({"type": "string"}, "1 is not valid", (), id="the name is a part of the schema"),
        pytest.param("k", "it is a required property", ("k",), id="a name that is none"),
        pytest.param("k", "5 is not of type 'string'", ("y", "k"), id="told by its value"),
        pytest.param("k", "6 is not of type 'string'", ("k",), id="none of them has the value"),
        pytest.param(1, "'x' is not of type 'integer'", ("z", 1), id="in a list"),
        pytest.param("y", "'b' is a required property", ("y", "b"), id="not at the top, which has it"),
    ],
)
def test_a_path_is_given_where_only_one_field_can_be_meant(name: Any, message: str, loc: tuple[str, ...]) -> None:
    data = {"x": {"k": "text"}, "y": {"k": 5}, "z": [1, "x"], "b": 1}

    (error,) = schema_errors([json.loads(json.dumps({"name": name, "description": message}))], data)

    assert error == FieldError(loc, message)
