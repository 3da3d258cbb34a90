"""Whatever comes back from a server: a value that was asked for, or one of our errors, in bounded time."""

from __future__ import annotations

import contextlib
import gzip
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripted_server import Server, answer, page, row, said, send_and_close

from kinto_orm import Client, KintoError, Record
from kinto_orm.protocol.json_values import copy_json

OBJECT = {"data": row("x", n=1, text="é", deep={"list": [1, {"a": None}]}), "permissions": {"write": ["account:bob"]}}
LIST = {"data": [row("x", n=1), row("y", n=2)]}
INFO = {"settings": {"batch_max_requests": 25}, "capabilities": {}, "user": {"id": "account:bob"}}
BATCH = {"responses": [{"status": 201, "path": "/v1", "headers": {}, "body": OBJECT}]}
LIMIT = 8
"""Seconds for one call: its deadline is 1, and the machine may be busy."""


def commit(client: Client) -> Any:
    client._connection.server_info = copy_json(INFO)
    with client.unit_of_work() as uow:
        Record(id="x", data={"n": 1}, client=client).save()
    return uow.outcomes[0].object


def is_list(found: Any) -> bool:
    return isinstance(found, list)


CALLS: list[tuple[Any, Callable[[Client], Any], Callable[[Any], bool]]] = [
    (OBJECT, lambda client: client.bucket("b").collection("c").records.get("x"), lambda found: found.id == "x"),
    (LIST, lambda client: client.bucket("b").collection("c").records.all(), is_list),
    (LIST, lambda client: [dict(one.data) for one in client.bucket("b").collection("c").records], is_list),
    (OBJECT, lambda client: Record(id="x", data={"n": 1}, client=client).save(), lambda found: not found.is_new),
    (INFO, lambda client: client.server_info(refresh=True), lambda found: isinstance(found, dict)),
    (BATCH, commit, lambda found: not found.is_new),
    (None, lambda client: client.bucket("b").collection("c").records.count(), lambda found: found >= 0),
]

NASTY = st.sampled_from(
    [None, True, -1, 2**70, 1e308, "", "\0", "x", [], {}, [[]], {"id": 5}, "\ud800", 10**400, [None] * 50]
)


@st.composite
def damaged_json(draw: st.DrawFn, value: Any) -> Any:
    """Draw the value with one part of it gone, repeated, or replaced."""
    paths = list(places(value))
    path = draw(st.sampled_from(paths))
    damaged = copy_json(value)
    parent = damaged
    for step in path[:-1]:
        parent = parent[step]
    action = draw(st.sampled_from(["remove", "replace", "nest", "double"]))
    if not path:
        return draw(NASTY)
    if action == "remove":
        del parent[path[-1]]
    elif action == "double" and isinstance(parent, list):
        parent.append(parent[path[-1]])
    elif action == "nest":
        parent[path[-1]] = {"data": parent[path[-1]]}
    else:
        parent[path[-1]] = draw(NASTY)
    return damaged


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from places(item, (*path, key))


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Draw the bytes cut short, with some of them changed, inserted or repeated."""
    at = draw(st.integers(0, len(data)))
    noise = draw(st.binary(min_size=1, max_size=8))
    action = draw(st.sampled_from(["none", "cut", "flip", "insert", "repeat"]))
    return {
        "none": data,
        "cut": data[:at],
        "flip": data[:at] + noise + data[at + len(noise) :],
        "insert": data[:at] + noise + data[at:],
        "repeat": data[:at] + data[max(0, at - 40) :],
    }[action]


@st.composite
def hostile_answers(draw: st.DrawFn, value: Any) -> bytes:
    """Draw a valid answer, damaged in its JSON, its compression, its headers or its bytes."""
    body = json.dumps(draw(st.one_of(st.just(value), damaged_json(value)))).encode()
    headers = draw(
        st.lists(
            st.sampled_from(
                [
                    "Content-Type: text/html",
                    "ETag: x",
                    'ETag: "99999999999999999999"',
                    "Next-Page: x",
                    "Next-Page: http://[",
                    "Backoff: -1",
                    "Retry-After: x",
                    "Total-Objects: x",
                    "Total-Objects: 5",
                    "Location: http://[",
                    "Content-Length: 5",
                    "Transfer-Encoding: chunked",
                    "Set-Cookie: \x01=\x02",
                    "X" * 300 + ": 1",
                ]
            ),
            max_size=3,
        )
    )
    if draw(st.booleans()):
        body = draw(damaged_bytes(gzip.compress(body)))
        headers.append("Content-Encoding: gzip")
    statuses = ["200 OK", "201 Created", "204 Nothing", "304 Same", "302 There", "412 No", "500 Oh", "999 ?"]
    status = draw(st.sampled_from(statuses))
    return draw(damaged_bytes(answer(body, *headers, status=status)))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


NAMES = ["get", "list", "data", "save", "info", "commit", "count"]


@pytest.mark.parametrize(("valid", "call", "is_right"), CALLS, ids=NAMES)
@given(data=st.data())
def test_an_answer_gives_what_was_asked_for_or_one_of_our_errors(
    server: Server, valid: Any, call: Callable[[Client], Any], is_right: Callable[[Any], bool], data: st.DataObject
) -> None:
    server.script = [send_and_close(data.draw(hostile_answers(valid)))]
    started = time.monotonic()

    client = Client(server.url, bucket="b", collection="c", retry=0, timeout=0.5, deadline=1)
    with client, contextlib.suppress(KintoError):
        assert is_right(call(client))

    assert time.monotonic() - started < LIMIT


@pytest.mark.parametrize(("valid", "call", "is_right"), CALLS[:-1], ids=NAMES[:-1])
def test_a_healthy_answer_gives_what_was_asked_for(
    server: Server, valid: Any, call: Callable[[Client], Any], is_right: Callable[[Any], bool]
) -> None:
    server.script = [said(valid)]

    with Client(server.url, bucket="b", collection="c", retry=0) as client:
        assert is_right(call(client))


@given(header=st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=60))
@example("http://evil.example/v1/buckets/b/collections/c/records?_token=1")
def test_no_next_page_leads_to_another_list(server: Server, header: str) -> None:
    server.requests.clear()
    server.script = [said({"data": []}, "200 OK", f"Next-Page: {header}"), page()]

    client = Client(server.url, bucket="b", collection="c", retry=0, timeout=0.5, deadline=1)
    with client, contextlib.suppress(KintoError):
        client.bucket("b").collection("c").records.all()

    assert {request.split()[1].split(b"?")[0] for request in server.requests} == {
        b"/v1/buckets/b/collections/c/records"
    }
