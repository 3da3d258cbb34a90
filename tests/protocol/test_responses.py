"""What an answer means, with literals; whatever comes, it is a value or one of our errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_orm import (
    BadRequestError,
    ConcurrentWriteError,
    ConflictError,
    ForbiddenError,
    KintoError,
    MethodNotAllowedError,
    NotFoundError,
    ProtocolError,
    RedirectError,
    ResponseError,
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
    stored_object,
)

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
        "The caller may not do that, or the bucket does not exist: Kinto does not tell them apart."
    )
    assert error.errno == 121


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
    assert error_of(Response(503, retry_after=30), "GET", "/").retry_after == 30


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


@pytest.mark.parametrize("permissions", [{}, None, [], "all"])
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
