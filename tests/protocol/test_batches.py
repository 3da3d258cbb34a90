"""The batch, with literals: its limit, its one request, and the answer to each entry."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_orm import ProtocolError, ResponseError
from kinto_orm.protocol.batches import (
    DEFAULT_BATCH_LIMIT,
    as_responses,
    batch_limit,
    batch_request,
    count_void,
    read_answers,
)
from kinto_orm.protocol.messages import Response
from kinto_orm.protocol.paths import Kind, ObjectPath
from kinto_orm.protocol.writes import UNCONDITIONAL, Action, Precondition, Write, encode_entry

_id = st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9_-]{0,8}\Z").filter(lambda id: not id.startswith("batch"))


def put(id: str) -> Write:
    return Write(ObjectPath(Kind.RECORD, ("b", "c", id)), Action.PUT, UNCONDITIONAL, new={"n": id})


def answer(*entries: Any) -> Response:
    return Response(200, {}, json.dumps({"responses": entries}).encode())


def split_answer(response: Response, count: int) -> list[Response]:
    return as_responses(read_answers(response, count), response)


@pytest.mark.parametrize(
    ("info", "limit"),
    [
        pytest.param({"settings": {"batch_max_requests": 7}}, 7, id="given"),
        pytest.param({"settings": {"batch_max_requests": None}}, None, id="null"),
        pytest.param({"settings": {"batch_max_requests": ""}}, None, id="empty"),
        pytest.param({"settings": {"batch_max_requests": 0}}, None, id="zero"),
        pytest.param({"settings": {}}, DEFAULT_BATCH_LIMIT, id="absent"),
        pytest.param({}, DEFAULT_BATCH_LIMIT, id="no settings"),
        pytest.param({"settings": []}, DEFAULT_BATCH_LIMIT, id="settings are a list"),
        pytest.param({"settings": {"batch_max_requests": -1}}, DEFAULT_BATCH_LIMIT, id="negative"),
        pytest.param({"settings": {"batch_max_requests": "7"}}, DEFAULT_BATCH_LIMIT, id="text"),
        pytest.param({"settings": {"batch_max_requests": True}}, DEFAULT_BATCH_LIMIT, id="true"),
        pytest.param({"settings": {"batch_max_requests": False}}, DEFAULT_BATCH_LIMIT, id="false"),
        pytest.param({"settings": {"batch_max_requests": [7]}}, DEFAULT_BATCH_LIMIT, id="list"),
    ],
)
def test_the_limit_is_what_the_server_says(info: dict[str, Any], limit: int | None) -> None:
    assert batch_limit(info) == limit


def test_the_request_carries_each_write_with_its_own_precondition() -> None:
    path = ObjectPath(Kind.RECORD, ("b", "c", "x"))
    writes = [put("a"), Write(path, Action.DELETE, Precondition(last_modified=5))]
    request = batch_request([encode_entry(write) for write in writes])
    assert (request.method, request.path, dict(request.headers)) == (
        "POST",
        "/batch",
        {"Content-Type": "application/json"},
    )
    assert json.loads(request.body or b"") == {
        "requests": [
            {"method": "PUT", "path": "/buckets/b/collections/c/records/a", "body": {"data": {"n": "a"}}},
            {"method": "DELETE", "path": "/buckets/b/collections/c/records/x", "headers": {"If-Match": '"5"'}},
        ]
    }


@given(st.lists(_id, max_size=20))
def test_any_batch_splits_back_in_order(ids: list[str]) -> None:
    writes = [put(id) for id in ids]
    entries = json.loads(batch_request([encode_entry(write) for write in writes]).body or b"")["requests"]
    echoed = [{"status": 201, "path": f"/v1{entry['path']}", "body": entry["body"]} for entry in entries]
    assert [one.content["data"]["n"] for one in split_answer(answer(*echoed), len(writes))] == ids


def test_the_answer_to_each_has_its_status_headers_and_body() -> None:
    entry = {"status": 412, "path": "/v1/x", "headers": {"ETag": '"5"', "Retry-After": 3}, "body": {"errno": 114}}
    (one,) = split_answer(answer(entry), 1)
    assert (one.status, dict(one.headers), one.content) == (412, {"etag": '"5"', "retry-after": "3"}, {"errno": 114})


@pytest.mark.parametrize("headers", [None, [], "none"])
def test_headers_that_are_none_are_no_headers(headers: Any) -> None:
    (one,) = split_answer(answer({"status": 200, "headers": headers}), 1)
    assert dict(one.headers) == {}


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([], id="none"),
        pytest.param([{"status": 201}], id="too few"),
        pytest.param([{"status": 201}] * 3, id="too many"),
    ],
)
def test_another_number_of_answers_is_an_error(entries: list[Any]) -> None:
    with pytest.raises(ProtocolError, match=f"2 requests was answered with {len(entries)} answers"):
        split_answer(answer(*entries), 2)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="no responses"),
        pytest.param(b'{"responses": {}}', id="responses are an object"),
        pytest.param(b'{"responses": [[]]}', id="entry is a list"),
        pytest.param(b'{"responses": [{}]}', id="no status"),
        pytest.param(b'{"responses": [{"status": "201"}]}', id="status is text"),
        pytest.param(b'{"responses": [{"status": true}]}', id="status is true"),
    ],
)
def test_what_is_no_answer_to_a_batch_is_an_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        split_answer(Response(200, {}, body), 1)


@pytest.mark.parametrize("status", [302, 400, 403, 405, 409, 500, 502, 503])
def test_a_batch_that_failed_as_a_whole_raises_its_error(status: int) -> None:
    with pytest.raises(ResponseError, match=f"POST /batch: {status}"):
        split_answer(Response(status), 1)


@pytest.mark.parametrize(
    ("statuses", "void"),
    [
        pytest.param([], 0, id="empty"),
        pytest.param([201, 412, 404, 400, 403], 0, id="refusals undo nothing"),
        pytest.param([409, 201], 1, id="first"),
        pytest.param([201, 409, 201], 2, id="middle"),
        pytest.param([201, 409, 201, 409, 201, 201], 4, id="up to the last"),
        pytest.param([201, 201, 409], 3, id="all"),
    ],
)
def test_a_409_voids_all_up_to_it(statuses: list[int], void: int) -> None:
    assert count_void([Response(status) for status in statuses]) == void
