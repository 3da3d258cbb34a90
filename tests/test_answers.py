"""What an answer means: an object, or the error it stands for."""

from __future__ import annotations

from typing import Any

import pytest
from wiretap import answer, scripted_client

from kinto_orm import (
    BadRequestError,
    ConcurrentWriteError,
    ConflictError,
    ForbiddenError,
    MethodNotAllowedError,
    NotFoundError,
    ProtocolError,
    Record,
    RedirectError,
    ResponseError,
    ServerError,
    ServiceGoneError,
    UnauthorizedError,
)
from kinto_orm.messages import Request, Response
from kinto_orm.protocol.answers import read_document


def refusal(response: Response) -> ResponseError:
    """The error that a GET of a record raises."""
    with scripted_client(response), pytest.raises(ResponseError) as caught:
        Record(id="x").refresh()
    return caught.value


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, RedirectError),
        (304, RedirectError),
        (400, BadRequestError),
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (405, MethodNotAllowedError),
        (409, ConcurrentWriteError),
        (410, ServiceGoneError),
        (412, ConflictError),
        (415, BadRequestError),
        (429, BadRequestError),
        (500, ServerError),
        (503, ServerError),
        (100, ServerError),
        (999, ServerError),
    ],
)
def test_each_status_is_its_error(status: int, error: type[ResponseError]) -> None:
    raised = refusal(answer({"errno": 1}, status))

    assert type(raised) is error and (raised.status, raised.errno) == (status, 1)


def test_an_error_says_what_was_asked_and_what_the_server_said() -> None:
    said = {
        "errno": 107,
        "error": "Invalid parameters",
        "message": "title in body: Required.",
        "details": [{"location": "body", "name": "title", "description": "Required"}],
    }

    raised = refusal(answer(said, 400))

    assert "GET /buckets/payments/collections/todos/records/x: 400 Invalid parameters" in str(raised)
    assert "title: Required" in str(raised)


def test_a_missing_parent_is_named() -> None:
    raised = refusal(answer({"errno": 111, "details": {"id": "todos", "resource_name": "collection"}}, 404))

    assert "collection 'todos'" in str(raised)


@pytest.mark.parametrize(
    "content",
    [None, [], "no", 5, {}, {"errno": "x", "details": 5}, {"details": [5, {}]}, {"message": "x" * 5000}],
    ids=repr,
)
@pytest.mark.parametrize("status", [400, 404, 412, 503])
def test_whatever_an_error_holds_it_is_that_error(status: int, content: Any) -> None:
    assert refusal(answer(content, status)).status == status


def test_an_error_page_of_a_proxy_is_kept_in_part() -> None:
    raised = refusal(Response(502, {}, b"<html>" + b"x" * 5000))

    assert type(raised) is ServerError and raised.body.startswith("<html>") and len(raised.body) == 2000


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3.0), ("", None), ("soon", None), ("-1", None), ("9" * 40, None), ("\u0663", None)]
)
def test_retry_after_is_read(header: str, seconds: float | None) -> None:
    assert refusal(answer({}, 503, {"retry-after": header})).retry_after == seconds


def test_a_delete_that_is_answered_with_nothing_deleted() -> None:
    with scripted_client(Response(204)):
        assert Record(id="x").delete().is_deleted


@pytest.mark.parametrize("content", [[], "x", None, 5], ids=repr)
def test_a_document_is_an_object(content: Any) -> None:
    with pytest.raises(ProtocolError, match="no JSON object"):
        read_document(answer(content), Request("GET", "/"))
