"""What an answer means, with literals; whatever comes, it is a value or one of our errors."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wiretap import scripted_client

from kinto_orm import (
    BadRequestError,
    Bucket,
    Client,
    Collection,
    CommitError,
    ConcurrentWriteError,
    ConflictError,
    FieldError,
    ForbiddenError,
    Group,
    JSONPatch,
    KintoError,
    MethodNotAllowedError,
    NotFoundError,
    ProtocolError,
    Record,
    RedirectError,
    ResponseError,
    SchemaValidationError,
    ServerError,
    ServiceGoneError,
    UnauthorizedError,
)
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.paths import Kind, ObjectPath
from kinto_orm.protocol.responses import (
    StoredObject,
    content,
    error_of,
    existing_object,
    raise_for_status,
    read_document,
    read_object,
    schema_errors,
    stored_object,
)
from kinto_orm.protocol.writes import Flow

RECORD = ObjectPath(Kind.RECORD, ("b", "c", "x"))


def answer(body: Any, status: int = 200, **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (300, RedirectError),
        (301, RedirectError),
        (307, RedirectError),
        (400, BadRequestError),
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (405, MethodNotAllowedError),
        (406, BadRequestError),
        (409, ConcurrentWriteError),
        (410, ServiceGoneError),
        (412, ConflictError),
        (413, BadRequestError),
        (415, BadRequestError),
        (429, BadRequestError),
        (500, ServerError),
        (502, ServerError),
        (503, ServerError),
        (507, ServerError),
    ],
)
def test_each_status_has_its_error(status: int, error: type[ResponseError]) -> None:
    """C21, C24, C25: only a 404 is NotFoundError."""
    with pytest.raises(ResponseError) as caught:
        raise_for_status(Response(status), "GET", "/buckets/b")
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.method, caught.value.path) == (status, "GET", "/buckets/b")


@pytest.mark.parametrize("status", [0, 199, 304, 600, 999])
def test_a_status_that_was_not_asked_for_is_a_protocol_error(status: int) -> None:
    with pytest.raises(ProtocolError, match=rf"GET /buckets/b: this status was not asked for \({status}, no content"):
        raise_for_status(Response(status), "GET", "/buckets/b")


def test_a_redirect_names_its_target_without_credentials() -> None:
    response = Response(301, {"location": "https://me:s3cr3t@kinto.test/v2/buckets/b?token=s3cr3t#x"})

    with pytest.raises(RedirectError, match=r"GET /buckets/b: 301 to https://kinto.test/v2/buckets/b\. Redirects are"):
        raise_for_status(response, "GET", "/buckets/b")


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success_is_no_error(status: int) -> None:
    raise_for_status(Response(status), "GET", "/buckets/b")


def test_an_error_says_what_was_asked_what_the_server_said_and_what_to_do() -> None:
    body = {"code": 403, "errno": 121, "error": "Forbidden", "message": "This user cannot access this resource."}
    error = error_of(answer(body, 403), "GET", "/buckets/b")
    assert str(error) == (
        "GET /buckets/b: 403 Forbidden - This user cannot access this resource. "
        "The user of the client (see client.server_info(refresh=True)['user']) may not GET it, or the bucket does "
        "not exist: Kinto does not tell them apart. A bucket that is missing is created by client.ensure()."
    )
    assert error.errno == 121
    assert "ensure" not in str(error_of(answer(body, 403), "DELETE", "/buckets/b"))


@pytest.mark.parametrize("kind", ["bucket", "collection"])
def test_l02_the_404_of_what_is_below_something_missing_names_ensure(kind: str) -> None:
    body = {"errno": 111, "error": "Not Found", "details": {"id": "c", "resource_name": kind}}

    assert "client.ensure(Model)" in str(error_of(answer(body, 404), "PUT", "/buckets/b/collections/c/records/r"))
    body["details"] = {"id": "r", "resource_name": "record"}
    assert "ensure" not in str(error_of(answer(body, 404), "GET", "/buckets/b/collections/c/records/r"))


def test_an_invalid_parameter_is_named() -> None:
    details = [{"location": "querystring", "name": "_since", "description": "Invalid value"}, "noise"]
    error = error_of(answer({"errno": 107, "details": details}, 400), "GET", "/buckets")
    assert "_since: Invalid value" in str(error)
    assert error.details == details


def test_a_missing_object_is_named() -> None:
    body = {"error": "Not Found", "details": {"id": "c", "resource_name": "collection"}}
    assert "collection 'c'" in str(error_of(answer(body, 404), "GET", "/buckets/b/collections/c/records/x"))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>" + b"x" * 2_000_000, id="C01 html"),
        pytest.param(json.dumps({"error": "x" * 10_000, "message": "y" * 10_000}).encode(), id="long message"),
        pytest.param(json.dumps({"details": [{"name": "n", "description": "d" * 500}] * 100}).encode(), id="details"),
        pytest.param(json.dumps({"details": {"resource_name": "r" * 5000, "id": "i" * 5000}}).encode(), id="names"),
    ],
)
@pytest.mark.parametrize("status", [307, 400, 403, 409, 412, 502])
def test_the_text_of_an_error_is_short(body: bytes, status: int) -> None:
    error = error_of(answer(body, status), "GET", "/buckets/b")
    assert len(str(error)) < 600
    assert len(error.body) <= 500


def test_an_error_says_how_long_to_wait() -> None:
    assert error_of(Response(503, {"retry-after": "30"}), "GET", "/").retry_after == 30


@given(
    st.binary(max_size=60) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists),
    st.integers(0, 700),
)
def test_making_an_error_never_fails(body: Any, status: int) -> None:
    said = error_of(
        answer({"errno": body, "error": body, "details": body})
        if not isinstance(body, bytes)
        else answer(body, status),
        "GET",
        "/",
    )
    assert isinstance(said, ResponseError)


# -- objects ----------------------------------------------------------------------------------------------------------


def test_an_object_is_read_without_its_envelope() -> None:
    body = {"data": {"id": "x", "last_modified": 5, "n": 1}, "permissions": {"write": ["me"]}}
    assert read_object(answer(body), RECORD, "GET") == StoredObject({"n": 1}, 5, {"write": frozenset({"me"})})


@pytest.mark.parametrize("permissions", [{}, None])
def test_permissions_that_are_not_shown_are_unknown(permissions: Any) -> None:
    assert stored_object({"id": "x"}, permissions).permissions is None


@pytest.mark.parametrize("last_modified", ["5", None, 5.5, [5], True])
def test_a_last_modified_that_is_no_integer_is_none(last_modified: Any) -> None:
    assert stored_object({"id": "x", "last_modified": last_modified}).last_modified is None


@pytest.mark.parametrize(("method", "is_deleted"), [("DELETE", True), ("GET", False), ("PUT", False)])
def test_only_the_answer_to_a_delete_is_a_tombstone(method: str, is_deleted: bool) -> None:
    """Kinto stores a ``deleted`` that a client sent like any other key."""
    body = {"data": {"id": "x", "last_modified": 5, "deleted": True}}
    assert read_object(answer(body), RECORD, method).is_deleted is is_deleted


def test_an_empty_answer_to_a_delete_is_a_tombstone() -> None:
    """C20."""
    assert read_object(Response(204), RECORD, "DELETE") == StoredObject({}, None, None, is_deleted=True)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>Welcome to the hotel", id="C02"),
        pytest.param(b"", id="C03"),
        pytest.param(b"[]", id="C04"),
        pytest.param(b"null", id="C05"),
        pytest.param(b"{}", id="C06"),
        pytest.param(b'{"data": []}', id="data is a list"),
        pytest.param(b'{"data": "x"}', id="data is text"),
        pytest.param(b'{"data": {"id": "x", "n": 1', id="C10 truncated"),
        pytest.param(b'{"data": {"id": "x", "t": "\xff"}}', id="C14"),
        pytest.param(b'{"data": ' + b"[" * 100_000, id="C15"),
        pytest.param(b'{"data": {"id": "x", "n": ' + b"9" * 5000 + b"}}", id="C16"),
        pytest.param(b'{"data": {"id": "x", "n": NaN}}', id="C17 nan"),
        pytest.param(b'{"data": {"id": "x", "n": -Infinity}}', id="C17 infinity"),
        pytest.param('{"data": {"id": "x"}}'.encode("utf-16"), id="C29"),
        pytest.param(b'{"data": {"id": "y"}}', id="C30 another id"),
        pytest.param(b'{"data": {"n": 1}}', id="C30 no id"),
        pytest.param(b'{"data": {"id": "x"}, "permissions": {"write": 5}}', id="permissions are no lists"),
        pytest.param(b'{"data": {"id": "x"}, "permissions": [1]}', id="permissions are a list"),
        pytest.param(b'{"data": {"id": "x"}, "permissions": "all"}', id="permissions are text"),
        pytest.param(b'{"data": {"id": "x"}, "permissions": {"write": [[]]}}', id="principals are no texts"),
    ],
)
def test_what_is_not_that_object_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_object(answer(body), RECORD, "GET")


def test_a_protocol_error_shows_the_beginning_of_the_answer() -> None:
    with pytest.raises(ProtocolError, match="begins '<html>") as caught:
        content(answer(b"<html>" + b"x" * 100_000), "GET /buckets/b")
    assert len(str(caught.value)) < 600


def test_the_default_bucket_is_answered_with_its_real_id() -> None:
    default = ObjectPath(Kind.BUCKET, ("default",))
    assert read_object(answer({"data": {"id": "0d1c", "last_modified": 5}}), default, "GET").last_modified == 5


def test_a_refused_object_raises_its_error() -> None:
    with pytest.raises(NotFoundError, match="DELETE /buckets/b/collections/c/records/x: 404"):
        read_object(Response(404), RECORD, "DELETE")


# -- the object in a 412 ----------------------------------------------------------------------------------------------


def test_a_412_brings_what_exists() -> None:
    body = {"errno": 114, "details": {"existing": {"id": "x", "last_modified": 5, "n": 1}}}
    assert existing_object(answer(body, 412), "PUT") == StoredObject({"n": 1}, 5, None)


@pytest.mark.parametrize(
    "body", [{}, {"details": None}, {"details": []}, {"details": {"existing": None}}, b"<html>", []]
)
def test_a_412_without_an_object_brings_none(body: Any) -> None:
    assert existing_object(answer(body, 412), "PUT") is None


def test_the_answer_in_a_batch_is_already_decoded() -> None:
    assert content(Response(200, content={"data": 1}), "PUT") == {"data": 1}


# -- documents --------------------------------------------------------------------------------------------------------


def test_a_document_is_a_json_object() -> None:
    assert read_document(answer({"settings": {}}), Request("GET", "/")) == {"settings": {}}


@pytest.mark.parametrize(("body", "status"), [(b"[]", 200), (b"<html>", 200), (b"{}", 503), (b"{}", 302)])
def test_another_answer_is_no_document(body: bytes, status: int) -> None:
    with pytest.raises(KintoError):
        read_document(answer(body, status), Request("GET", "/"))


@pytest.mark.parametrize("depth", [150, 300])
def test_deep_values_that_kinto_stores_are_read(depth: int) -> None:
    body = b'{"data": {"id": "x", "n": ' + b"[" * depth + b"]" * depth + b"}}"
    assert read_object(answer(body), RECORD, "GET").data["n"] == json.loads(b"[" * depth + b"]" * depth)


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
