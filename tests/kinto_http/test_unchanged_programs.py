"""What unchanged public programs need of the drop-in: one test for each row of section M of the faults."""

from __future__ import annotations

from typing import Any

import pytest
from small_server import BATCH, scripted
from wiretap import Wiretap, answer

from kinto_orm.kinto_http import Client, KintoBatchException, KintoException
from kinto_orm.kinto_http.batch import BatchSession


@pytest.mark.parametrize(
    ("params", "query"),
    [
        pytest.param({"enabled": "true"}, "enabled=true", id="text"),
        pytest.param({"version": "1.0"}, "version=1.0", id="text-like-a-number"),
        pytest.param({"gt_n": "3"}, "gt_n=3", id="operator"),
        pytest.param({"s": '"3"'}, "s=%223%22", id="quoted"),
        pytest.param({"like_s": "*a*"}, "like_s=%2Aa%2A", id="pattern"),
        pytest.param({"has_s": "false"}, "has_s=false", id="presence"),
        pytest.param({"in_n": ["1", "2"]}, "in_n=1%2C2", id="choices"),
        pytest.param({"exclude_n": "1"}, "exclude_n=1", id="one-choice"),
        pytest.param({"enabled": True}, "enabled=true", id="boolean"),
        pytest.param({"n": None}, "n=null", id="null"),
        pytest.param({"id": "123"}, "id=%22123%22", id="ids-are-text"),
        pytest.param({"in_id": ["123", "r"]}, "in_id=%22123%22%2C%22r%22", id="chosen-ids-are-text"),
        pytest.param({"in_s": ["a,b"]}, "in_s=%22a%5Cu002cb%22", id="choice-with-a-comma"),
    ],
)
def test_m01_the_text_of_a_keyword_is_sent_as_it_is(
    client: Client, wire: Wiretap, params: dict[str, Any], query: str
) -> None:
    client.get_records(**params)
    client.delete_records(**params)

    assert [request.query.startswith(query) for request in wire.requests] == [True, True]


def test_m01_the_history_is_purged_by_raw_text(client: Client, wire: Wiretap) -> None:
    client.purge_history(user_id="account:a", _before='"12"')

    assert [request.query for request in wire.requests] == ["user_id=account%3Aa&_before=%2212%22"]


def test_m01_a_backport_with_a_text_filter_deletes_no_record(client: Client) -> None:
    client.create_record(id="r", data={"enabled": True, "version": 1})

    found = [client.get_records(enabled="true"), client.get_records(version="1"), client.get_records(in_version="1,2")]

    assert [[record["id"] for record in records] for records in found] == [["r"]] * 3


def test_m02_a_raw_request_waits_like_a_verb(client: Client, wire: Wiretap) -> None:
    with client.batch() as batch:
        body, headers = batch.session.request("put", "/v1/buckets/b/collections/c/records/r", data={"n": 1})
        batch.session.request("get", "/buckets/b/collections/c/records/r")
        before = list(wire.requests)

    assert (before, body["data"], headers["ETag"]) == ([], {}, {})
    assert [result["data"]["n"] for result in batch.results()] == [1, 1]


def test_m02_an_aborted_block_sends_no_raw_request(client: Client, wire: Wiretap) -> None:
    def abort() -> None:
        with client.batch() as batch:
            batch.session.request("put", "/buckets/b/collections/c/records/r", data={"n": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        abort()

    assert wire.requests == []


def test_m02_a_refused_raw_request_is_told_with_its_parts(client: Client) -> None:
    with pytest.raises(KintoBatchException) as caught, client.batch() as batch:
        batch.session.request("patch", "/buckets/b/collections/c/records/missing", payload={"data": {"n": 1}})

    (error,) = caught.value.exceptions
    assert (error.request["path"], error.response.status_code, error.response["body"]["errno"]) == (
        "/buckets/b/collections/c/records/missing",
        404,
        110,
    )


def test_m02_a_request_that_no_batch_can_hold_is_refused_at_the_call(client: Client, wire: Wiretap) -> None:
    with pytest.raises(KintoException, match="inside a batch"), client.batch() as batch:
        batch.session.request("post", "/batch", payload={"requests": []})

    assert wire.requests == []


def test_m03_a_batch_shows_what_waits_and_how_much_the_server_takes(client: Client) -> None:
    with client.batch() as batch:
        batch.create_record(id="r", data={"n": 1})
        batch.delete_record(id="s", if_exists=True)
        shown, limit = batch.session.requests, batch.session.batch_max_requests
        batch.session.batch_max_requests = 1

    assert (limit, batch.session.requests) == (BATCH, [])
    assert shown == [
        ("PUT", "/buckets/b/collections/c/records/r", {"data": {"n": 1}}, {"If-None-Match": "*"}),
        ("DELETE", "/buckets/b/collections/c/records/s", {}, None),
    ]


def test_m04_a_restore_keeps_the_timestamps(client: Client) -> None:
    client.create_record(data={"id": "r", "last_modified": 1_000, "n": 1})
    client.update_record(data={"id": "s", "last_modified": 2_000}, safe=False)
    with client.batch() as batch:
        batch.create_record(id="t", data={"last_modified": 3_000})
        batch.create_collection(id="d", data={"last_modified": 4_000})

    assert [record["last_modified"] for record in client.get_records(_sort="id")] == [1_000, 2_000, 3_000]
    assert client.get_collection(id="d")["data"]["last_modified"] == 4_000


@pytest.mark.parametrize("timestamp", ["1000", True, None, 1.5])
def test_m04_a_timestamp_that_the_server_would_drop_is_not_sent(
    client: Client, wire: Wiretap, timestamp: object
) -> None:
    client.create_record(id="r", data={"last_modified": timestamp})

    assert b"last_modified" not in (wire.requests[0].body or b"")


def test_m04_a_timestamp_that_breaks_the_list_for_ever_is_refused(client: Client, wire: Wiretap) -> None:
    with pytest.raises(KintoException, match="milliseconds"):
        client.create_record(id="r", data={"last_modified": 10**15})

    assert wire.requests == []


def test_m11_a_batch_is_sent_by_hand(client: Client) -> None:
    session = BatchSession(client, batch_max_requests=1)
    session.request("PUT", "/buckets/b/collections/c/records/r")
    session.request("PUT", "/buckets/b/collections/c/records/s")

    results = session.send()

    assert [[one["status"] for one in body["responses"]] for body, _ in results] == [[201], [201]]


def test_m11_a_stub_of_a_server_may_answer_a_batch_with_nothing(caplog: pytest.LogCaptureFixture) -> None:
    client = scripted(answer({"responses": []}))
    with client.batch() as batch:
        batch.session.batch_max_requests = 0
        batch.create_record(id="r", data={})

    assert batch.results() == []
    assert "the server is a stub" in caplog.text
