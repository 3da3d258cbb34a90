"""Rows E, with S05: batches."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lossy import LossyAdapter
from scripted_server import Talk, answer, row, said

from kinto_orm import BadRequestError, Client, Collection, CommitError, ForbiddenError, ProtocolError, Record
from kinto_orm.protocol.batches import DEFAULT_BATCH_LIMIT, batch_limit
from kinto_orm.repository.state import Outcome


def entry(id: str, status: int = 201, body: Any = None) -> dict[str, Any]:
    return {"status": status, "path": "/v1", "headers": {}, "body": {"data": row(id)} if body is None else body}


def commit(talk: Talk, answered: Any, ids: str = "abc", **options: Any) -> tuple[Outcome[Any], ...]:
    """Return the outcomes of that many creations, answered like that."""
    script = answered if isinstance(answered, bytes) else said(answered)
    client, _ = talk(said({"settings": {"batch_max_requests": 25}}), script, **options)
    uow = client.unit_of_work()
    with contextlib.suppress(CommitError), uow:
        for id in ids:
            Record(id=id, client=client).save()
    return uow.outcomes


def statuses(outcomes: tuple[Outcome[Any], ...]) -> list[str]:
    return [one.status for one in outcomes]


def test_e01_one_refusal_among_many_is_its_own(talk: Talk) -> None:
    outcomes = commit(talk, {"responses": [entry("a"), entry("b", 403, {"errno": 121}), entry("c")]})

    assert statuses(outcomes) == ["created", "rejected", "created"]
    assert [one.object.is_new for one in outcomes] == [False, True, False]
    assert isinstance(outcomes[1].error, ForbiddenError)


def test_e02_a_failure_inside_a_batch_hides_no_other_outcome(talk: Talk) -> None:
    outcomes = commit(talk, {"responses": [entry("a"), entry("b", 503, {"errno": 201}), entry("c")]})

    assert statuses(outcomes) == ["created", "unknown", "created"]


@pytest.mark.parametrize(
    "answered",
    [
        pytest.param({"responses": [entry("a"), entry("b")]}, id="E03"),
        pytest.param({"responses": [entry("a")] * 4}, id="E04"),
        pytest.param({"responses": []}, id="E05"),
        pytest.param({}, id="E10"),
        pytest.param({"responses": None}, id="E10-null"),
        pytest.param([], id="E10-list"),
        pytest.param(said(b"<html>"), id="E10-html"),
    ],
)
def test_answers_to_other_than_each_write_leave_all_unknown(talk: Talk, answered: Any) -> None:
    outcomes = commit(talk, answered)

    assert statuses(outcomes) == ["unknown"] * 3
    assert all(isinstance(one.error, ProtocolError) for one in outcomes)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        pytest.param({}, DEFAULT_BATCH_LIMIT, id="no settings"),
        pytest.param({"settings": {}}, DEFAULT_BATCH_LIMIT, id="no limit"),
        pytest.param({"settings": {"batch_max_requests": []}}, DEFAULT_BATCH_LIMIT, id="nonsense"),
        pytest.param({"settings": {"batch_max_requests": None}}, None, id="unlimited"),
    ],
)
def test_e10_a_server_that_does_not_tell_its_limit_has_kintos_own(info: dict[str, Any], expected: int | None) -> None:
    assert batch_limit(info) == expected


def test_e07_a_chunk_that_fails_hides_neither_what_was_stored_nor_what_was_not_sent(
    client: Client, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    adapter.plan.extend(["ok", "500 after", "500 after"])

    with pytest.raises(CommitError) as caught, client.unit_of_work(chunked=True):
        [Record(id=f"r{number:02}", client=client).save() for number in range(75)]

    assert statuses(caught.value.outcomes) == ["created"] * 25 + ["unknown"] * 25 + ["not_sent"] * 25


def test_e07_the_unit_of_work_goes_on_where_it_stopped(
    client: Client, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    adapter.plan.extend(["ok", "500 after", "500 after"])

    with client.unit_of_work(chunked=True) as uow:
        for number in range(75):
            Record(id=f"r{number:02}", client=client).save()
        with pytest.raises(CommitError):
            uow.commit()

    assert statuses(uow.outcomes) == ["created"] * 75
    assert todos.records.count() == 75


@pytest.mark.parametrize("body", [None, "<html>", [], {"data": None}, {"data": {"id": "other"}}, 5])
def test_e08_a_body_that_is_none_is_an_error_of_its_own_write(talk: Talk, body: Any) -> None:
    broken = {"status": 201, "path": "/v1", "headers": {}, "body": body}

    outcomes = commit(talk, {"responses": [entry("a"), broken, entry("c")]})

    assert statuses(outcomes) == ["created", "unknown", "created"]
    assert isinstance(outcomes[1].error, ProtocolError)


def test_e13_no_switch_hides_refusals(talk: Talk) -> None:
    outcomes = commit(talk, {"responses": [entry("a"), entry("b", 412, {"errno": 114}), entry("c", 403, {})]})

    assert statuses(outcomes) == ["created", "conflict", "rejected"]
    assert not [name for name in inspect.signature(Client.unit_of_work).parameters if "ignore" in name]


@pytest.mark.parametrize("status", [300, 302, 304, 307])
def test_e14_a_redirect_inside_a_batch_is_no_success(talk: Talk, status: int) -> None:
    (outcome,) = commit(talk, {"responses": [entry("a", status)]}, "a")

    assert not outcome.is_stored
    assert outcome.object.is_new


def test_e18_a_batch_is_no_transaction_and_its_error_says_so(client: Client, todos: Collection[Record]) -> None:
    todos.records.create(id="r07", data={"n": "theirs"})

    with pytest.raises(CommitError, match="24 are stored") as caught, client.unit_of_work():
        [Record(id=f"r{number:02}", data={"n": number}, client=client).save() for number in range(25)]

    assert [one.status for one in caught.value.outcomes].count("created") == 24
    assert todos.records.count() == 25
    assert todos.records.get("r07").data["n"] == "theirs"


def test_s05_a_batch_that_failed_as_a_whole_is_sent_again_and_recognised(
    client: Client, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    adapter.plan.append("500 after")

    with client.unit_of_work() as uow:
        for id in "abc":
            Record(id=id, client=client).save()

    assert [(one.status, one.reconciled) for one in uow.outcomes] == [("created", True)] * 3


def test_a_batch_that_is_refused_is_refused_as_a_whole(talk: Talk) -> None:
    outcomes = commit(talk, answer(b"{}", status="400 Bad Request"))

    assert statuses(outcomes) == ["rejected"] * 3
    assert isinstance(outcomes[0].error, BadRequestError)


# -- O09: a server that takes no more writes --------------------------------------------------------------------------

REFUSALS = {
    "503": said({"errno": 201, "code": 503}, "503 Service Unavailable"),
    "503-proxy": said(b"<html>", "503 Service Unavailable", "Content-Type: text/html"),
    "502": said(b"<html>", "502 Bad Gateway"),
    "507": said({"errno": 999}, "507 Insufficient Storage"),
    "no-credentials": said({"errno": 104}, "401 Unauthorized"),
    "read-only": said({"errno": 115}, "405 Method Not Allowed"),
    "shut-down": said({"errno": 202}, "410 Gone"),
    "too-many": said({"errno": 117}, "429 Too Many Requests"),
}
INFO = said({"settings": {"batch_max_requests": 25}, "capabilities": {}})
EMPTY = said({"data": []}, "200 OK", 'ETag: "5"')


def many(taken: list[int]) -> Iterator[dict[str, Any]]:
    for number in range(1000):
        taken.append(number)
        yield {"id": f"r{number:04}", "n": number}


def page_of(count: int) -> bytes:
    rows = [row(f"r{number:04}", n=number) for number in range(count)]
    return said({"data": rows}, "200 OK", 'ETag: "5"')


WRITERS: dict[str, tuple[list[bytes], Callable[[Client, list[int]], object]]] = {
    "bulk": ([INFO], lambda client, taken: client.bucket("b").collection("c").records.bulk_create(many(taken))),
    "bulk-of-several": (
        [INFO],
        lambda client, taken: client.bulk_create({client.bucket("b").collection("c"): many(taken)}),
    ),
    "update": (
        [page_of(100), INFO],
        lambda client, taken: client.bucket("b").collection("c").records.update({"n": -1}),
    ),
    "sync": ([EMPTY, INFO], lambda client, taken: client.bucket("b").collection("c").records.sync(many([]))),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("writer", WRITERS)
def test_o09_many_writes_end_where_the_server_takes_none(talk: Talk, refusal: str, writer: str) -> None:
    before, write = WRITERS[writer]
    client, server = talk(*before, REFUSALS[refusal])
    taken: list[int] = []

    with pytest.raises(CommitError, match="It stopped there: what came after was not sent") as caught:
        write(client, taken)

    assert len(caught.value.outcomes) == 25
    assert caught.value.report is not None
    assert not caught.value.report.is_complete
    assert len(taken) <= 25
    assert sum(b"POST /v1/batch" in one for one in server.requests) == 1


def test_o09_one_write_that_the_server_cannot_store_does_not_end_the_others(talk: Talk) -> None:
    first = [entry(f"r{number:04}") for number in range(25)]
    first[3] = entry("", 503, {"errno": 201})
    second = [entry(f"r{number:04}") for number in range(25, 50)]
    client, _ = talk(INFO, said({"responses": first}), said({"responses": second}))

    with pytest.raises(CommitError) as caught:
        client.bucket("b").collection("c").records.bulk_create({"id": f"r{number:04}"} for number in range(50))

    assert [one.object.id for one in caught.value.outcomes] == ["r0003"]
    assert caught.value.report is not None
    assert (caught.value.report.created, caught.value.report.is_complete) == (49, True)
