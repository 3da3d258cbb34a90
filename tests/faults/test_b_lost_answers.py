"""Rows B, with C31, I12, P01 and P02: lost answers, retries, back-off."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests
from lossy import LossyAdapter
from scripted_server import Talk, answer, hang_up, one, page, said, send_and_close

from kinto_orm import (
    AmbiguousWriteError,
    Client,
    Collection,
    CommitError,
    ConnectionFailedError,
    ConnectionLostError,
    InvalidValueError,
    JSONPatch,
    Record,
    ServerError,
)
from kinto_orm.transport.retry import Clock

REFUSAL = {"code": 503, "errno": 201, "error": "Service Unavailable"}
HUGE = "1" + "0" * 400


def time_out() -> None:
    raise requests.ReadTimeout


@pytest.fixture
def record(client: Client) -> Record:
    return Record(id="x", data={"n": 1, "list": []}, client=client).save()


def test_b01_a_creation_without_id_is_sent_again_with_the_id_it_had(
    client: Client, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    adapter.plan.append("lost after")

    record = Record(data={"n": 1}, client=client).save()

    assert [one.id for one in todos.records] == [record.id]
    assert adapter.sent[0] == adapter.sent[1]


def test_b10_a_creation_that_times_out_is_made_once(
    client: Client, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    adapter.plan.append(time_out)

    record = Record(data={"n": 1}, client=client).save()

    assert [one.id for one in todos.records] == [record.id]


def test_b02_our_own_creation_is_no_conflict_but_strictly_it_is_in_doubt(client: Client, adapter: LossyAdapter) -> None:
    adapter.plan.extend(["lost after", "ok", "lost after"])

    assert not Record(id="a", data={"n": 1}, client=client).save().is_new
    with pytest.raises(AmbiguousWriteError):
        Record(id="b", data={"n": 1}, client=client.clone(strict_retry=True)).save()


def test_b03_our_own_creation_is_ours_where_another_would_do_too(client: Client, adapter: LossyAdapter) -> None:
    adapter.plan.append("lost after")

    assert Record(id="a", data={"n": 1}, client=client).save(if_not_exists=True).data["n"] == 1


def test_b04_a_deletion_whose_answer_is_lost_is_done(client: Client, record: Record, adapter: LossyAdapter) -> None:
    adapter.plan.append("lost after")

    assert record.delete().is_deleted


@pytest.mark.parametrize("fault", [pytest.param("lost after", id="B05"), pytest.param("502 after", id="B09")])
def test_something_is_appended_once(
    record: Record, adapter: LossyAdapter, todos: Collection[Record], fault: Any
) -> None:
    adapter.plan.append(fault)

    record.patch(JSONPatch([{"op": "add", "path": "/data/list/-", "value": 1}]))

    assert todos.records.get("x").data["list"] == [1]


def test_b06_our_own_change_is_no_conflict(record: Record, adapter: LossyAdapter) -> None:
    adapter.plan.append("lost after")
    record.data["n"] = 2

    assert not record.save().is_dirty


def test_b28_an_unconditional_write_in_doubt_is_never_sent_again(record: Record, adapter: LossyAdapter) -> None:
    adapter.sent.clear()
    adapter.plan.append("lost after")

    with pytest.raises(ConnectionLostError):
        record.replace(safe=False)

    assert len(adapter.sent) == 1


@pytest.mark.parametrize("fault", [pytest.param("lost after", id="B07"), pytest.param("502 after", id="B08")])
def test_a_batch_whose_answer_is_lost_is_recognised_write_by_write(
    client: Client, adapter: LossyAdapter, todos: Collection[Record], fault: Any
) -> None:
    adapter.plan.append(fault)

    with client.unit_of_work() as uow:
        for id in "abc":
            Record(id=id, data={"n": 1}).save()

    assert [(one.status, one.reconciled) for one in uow.outcomes] == [("created", True)] * 3
    assert [one.id for one in todos.records] == ["a", "b", "c"]


def test_b07_a_batch_in_doubt_lists_each_write(client: Client, adapter: LossyAdapter) -> None:
    adapter.plan.extend(["lost after"] + ["lost before"] * 3)

    with pytest.raises(CommitError) as caught, client.unit_of_work():
        [Record(id=id, client=client).save() for id in "abc"]

    assert [one.status for one in caught.value.outcomes] == ["unknown"] * 3


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("Wed, 21 Oct 2099 07:28:00 GMT", id="B11"),
        pytest.param("1000000000", id="B12"),
    ],
)
def test_a_wait_beyond_the_deadline_is_the_callers_to_decide(talk: Talk, header: str) -> None:
    client, server = talk(said(REFUSAL, "503 Service Unavailable", f"Retry-After: {header}"), retry=3, retry_after=None)

    with pytest.raises(ServerError) as caught:
        client.server_info()

    assert caught.value.retry_after is not None and caught.value.retry_after > 10**8
    assert len(server.requests) == 1


def test_b13_a_wait_that_is_no_number_of_seconds_is_none(talk: Talk) -> None:
    client, server = talk(said(REFUSAL, "503 Service Unavailable", f"Retry-After: {HUGE}"), said({}), retry=1)

    client.server_info()

    assert len(server.requests) == 2


def test_b21_a_pause_that_is_no_number_of_seconds_does_not_lose_a_stored_write(talk: Talk) -> None:
    client, server = talk(said({"data": {"id": "x", "last_modified": 5}}, "201 Created", f"Backoff: {HUGE}"))

    Record(id="x", client=client).save()
    Record(id="x", client=client).save()

    assert len(server.requests) == 2


def test_b23_time_limits_are_on_by_default() -> None:
    options = Client("http://localhost:8888/v1")._options

    assert (options.timeout, options.deadline) == ((5, 30), 120)


@pytest.mark.parametrize("pages", [pytest.param(6, id="B25"), pytest.param(10, id="B26")])
def test_a_page_that_always_drops_is_asked_for_retry_times_more(talk: Talk, pages: int) -> None:
    good = [page(f"r{number}", token=number) for number in range(1, pages)]
    client, server = talk(*good, hang_up, retry=3)

    with pytest.raises(ConnectionLostError):
        client.bucket("b").collection("c").records.all()

    assert len(server.requests) == pages + 3


def test_b27_a_write_that_dies_on_a_kept_connection_was_sent_once(talk: Talk) -> None:
    client, server = talk(said({}), hang_up, retry=3)
    client.server_info()

    with pytest.raises(ConnectionLostError):
        Record(id="x", client=client).replace(safe=False)

    assert [request.split()[0] for request in server.requests] == [b"GET", b"PUT"]


def test_b27_an_idle_connection_that_was_closed_is_replaced(talk: Talk) -> None:
    client, server = talk(send_and_close(said({})), one())
    client.server_info()
    time.sleep(0.05)

    Record(id="x", client=client).replace(safe=False)

    assert len(server.requests) == 2


def test_c31_a_refused_connection_says_where_it_went(dead_url: str) -> None:
    client = Client(dead_url.replace("//", "//user:s3cr3t@"), retry=0)

    with pytest.raises(ConnectionFailedError, match=dead_url.split("/")[2]) as caught:
        client.server_info()

    assert isinstance(caught.value.__cause__, requests.ConnectionError)
    assert "s3cr3t" not in str(caught.value)


def test_i12_time_is_measured_by_a_clock_that_never_jumps() -> None:
    assert Clock().now is time.monotonic


def test_p01_a_failure_that_repeats_itself_is_not_hammered(talk: Talk) -> None:
    client, server = talk(answer(b"{}", status="500 Internal Server Error"), retry=9)

    with pytest.raises(ServerError):
        client.server_info()

    assert len(server.requests) == 2


@pytest.mark.parametrize("is_staged", [False, True])
def test_p01_a_value_may_become_an_object(
    client: Client, record: Record, todos: Collection[Record], *, is_staged: bool
) -> None:
    """Kinto answers 500 to a merge-patch that does that."""
    record.data["n"] = {"a": 1}
    del record.data["list"]

    if is_staged:
        with client.unit_of_work():
            record.save()
    else:
        record.save()

    assert dict(todos.records.get("x").data) == {"n": {"a": 1}}


def test_p02_a_nul_is_refused_before_it_makes_postgresql_fail(client: Client, adapter: LossyAdapter) -> None:
    with pytest.raises(InvalidValueError, match=r"data\.a\[0\]"):
        Record(data={"a": ["\0"]}, client=client).save()

    assert adapter.sent == []
