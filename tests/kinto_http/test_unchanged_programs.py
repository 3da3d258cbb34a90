"""What unchanged public programs need of the drop-in: one test for each row of section M of the faults."""

from __future__ import annotations

import io
import re
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from urllib.parse import quote

import pytest
import requests
import urllib3
from scripted_server import Serve, said
from small_server import AUTH, BATCH, listen, scripted
from wiretap import Wiretap, answer

from kinto_orm.kinto_http import (
    BucketNotFound,
    Client,
    CollectionNotFound,
    KintoBatchException,
    KintoException,
    Session,
    constants,
    session,
)
from kinto_orm.kinto_http.batch import BatchSession
from kinto_orm.protocol.messages import Response


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
    client = scripted(answer({"settings": {"batch_max_requests": 25}}), answer({"responses": []}))
    with client.batch() as batch:
        batch.create_record(id="r", data={})

    assert batch.results() == []
    assert "the server is a stub" in caplog.text


def test_m11_a_kinto_whose_answers_got_lost_on_the_way_is_an_error() -> None:
    client = scripted(answer({"http_api_version": "1.23", "settings": {}}), answer({"responses": []}))

    with (
        pytest.raises(KintoException, match="answered with 0 answers: what was stored is unknown"),
        client.batch() as batch,
    ):
        batch.create_record(id="r", data={})


def test_m05_the_user_agent_is_that_of_the_reference_client(url: str) -> None:
    with Client(server_url=url, auth=AUTH) as plain, Client(server_url=url, headers={"User-Agent": "mine"}) as own:
        sent = [one.session.client._options.headers for one in (plain, own)]

    assert session.USER_AGENT == constants.USER_AGENT
    assert re.fullmatch(r"kinto_http/11\.11\.0 requests/[\d.]+ python/[\d.]+", session.USER_AGENT)
    assert [headers["User-Agent"] for headers in sent] == [session.USER_AGENT, "mine"]


@pytest.mark.parametrize(
    ("status", "reads", "forced_writes"),
    [
        (500, 2, 1),
        (501, 1, 1),
        (502, 3, 1),
        (503, 3, 3),
        (504, 3, 1),
        (505, 1, 1),
        (507, 1, 1),
        (409, 2, 2),
        (429, 3, 3),
    ],
)
def test_m09_what_is_sent_again_is_what_the_documentation_says(
    serve: Serve, status: int, reads: int, forced_writes: int
) -> None:
    server = serve(said({"code": status, "errno": 999}, f"{status} No"))
    with Client(server_url=server.url, bucket="b", collection="c", retry=2, retry_after=0) as client:
        with pytest.raises(KintoException):
            client.get_record(id="r")
        seen = len(server.requests)
        with pytest.raises(KintoException):
            client.update_record(id="r", data={}, safe=False)

    assert (seen, len(server.requests) - seen) == (reads, forced_writes)


@pytest.mark.parametrize("auth", [(), [], False, "", None])
def test_m06_falsy_credentials_are_nobody(url: str, auth: Any) -> None:
    with Client(server_url=url, auth=auth) as client:
        assert "user" not in client.server_info()
        assert client.session.auth == auth


def test_m06_credentials_that_are_none_are_an_exception_of_the_reference_client(url: str) -> None:
    with pytest.raises(KintoException):
        Client(server_url=url, auth=(1, 2, 3))


class Telling(Session):
    """A session of a user's own class."""

    asked: list[tuple[str, str, dict[str, Any]]]

    def request(self, method: str, endpoint: str, *args: Any, **options: Any) -> Any:
        vars(self).setdefault("asked", []).append((method, endpoint, options))
        return super().request(method, endpoint, *args, **options)


@pytest.fixture
def telling(client: Client) -> Client:
    return Client(session=Telling(client.session.server_url, AUTH), bucket="b", collection="c")


def test_m07_a_session_of_ones_own_is_called_as_the_reference_client_calls_it(telling: Client) -> None:
    telling.create_record(id="r", data={"id": "r", "n": 1}, permissions={"read": ["x"]})
    telling.patch_record(id="r", data={"n": 2}, if_match=1, safe=False)
    telling.get_records(n=2, in_id=["r"])
    telling.delete_record(id="r")

    record = "/buckets/b/collections/c/records/r"
    assert telling.session.asked == [
        (
            "put",
            record,
            {
                "data": {"id": "r", "n": 1},
                "permissions": {"read": ["x"]},
                "headers": {"If-None-Match": "*"},
            },
        ),
        ("patch", record, {"payload": {"data": {"n": 2}}, "headers": {"Content-Type": "application/json"}}),
        ("get", "/buckets/b/collections/c/records", {"params": {"n": "2", "in_id": '"r"'}}),
        ("delete", record, {"headers": None}),
    ]


def test_m07_its_refusals_are_exceptions_of_the_reference_client(telling: Client) -> None:
    refused: list[KintoException] = []
    for call in (
        lambda: telling.get_record(id="missing"),
        lambda: telling.get_collection(id="missing"),
        lambda: telling.patch_record(id="missing", data={"n": 1}),
        lambda: telling.delete_record(id="missing"),
    ):
        with pytest.raises(KintoException) as caught:
            call()
        refused.append(caught.value)

    assert [type(one) for one in refused] == [KintoException, CollectionNotFound, KintoException, KintoException]
    assert [one.response.status_code for one in refused] == [404] * 4
    assert telling.delete_record(id="missing", if_exists=True) is None


def test_m07_so_are_they_where_the_request_of_all_sessions_is_patched(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(session: Session, method: str, endpoint: str, **options: Any) -> NoReturn:
        error = KintoException(f"{method} {endpoint}")
        error.response = SimpleNamespace(status_code=403, headers={}, json=lambda: {"errno": 121})
        raise error

    monkeypatch.setattr(Session, "request", refuse)

    with pytest.raises(BucketNotFound) as caught:
        client.get_bucket()
    with pytest.raises(KintoException, match="get /buckets/b/collections/c/records") as other:
        client.get_records()
    assert (caught.value.response.status_code, other.value.response.status_code) == (403, 403)


def test_m07_an_error_of_its_own_reaches_the_caller(client: Client) -> None:
    broken = KintoException("no network")

    def fail(method: str, endpoint: str, **options: Any) -> NoReturn:
        raise broken

    with pytest.raises(KintoException) as caught:
        Client(session=SimpleNamespace(request=fail), bucket="b").get_bucket()

    assert caught.value is broken


def test_m07_a_double_may_answer_with_anything() -> None:
    body = object()
    client = Client(session=SimpleNamespace(request=lambda *args, **options: (body, None)), bucket="b")

    assert client.get_bucket() is body
    assert client.create_bucket() is body


def test_m08_a_time_limit_that_the_program_sets_for_all_requests_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Limited(urllib3.Timeout):
        def __init__(self, *, connect: Any, read: Any) -> None:
            super().__init__(connect=connect or 0.2, read=read or 0.2)

    monkeypatch.setattr("requests.adapters.TimeoutSauce", Limited)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(server_url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1", auth=AUTH)

        with pytest.raises(requests.exceptions.ConnectionError):
            client.server_info()


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"attachment": ("a.txt", b"text", "text/plain")}, id="named"),
        pytest.param([("attachment", ("a.txt", io.BytesIO(b"text"), "text/plain"))], id="pairs"),
        pytest.param({"attachment": ("a.txt", "text")}, id="text"),
    ],
)
def test_m10_files_go_in_every_form_that_requests_takes(files: Any) -> None:
    client = scripted(Response(201, body=b"{}"))
    wire = listen(client)

    client.session.request("post", "/buckets/b", data={"n": 1}, files=files)

    (request,) = wire.requests
    assert request.headers["Content-Type"].startswith("multipart/form-data")
    body = request.body or b""
    assert b'name="data"\r\n\r\n{"n": 1}' in body
    assert b'name="attachment"; filename="a.txt"' in body and b"\r\n\r\ntext\r\n" in body


def test_m10_a_file_is_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    path.write_bytes(b"x")
    client = scripted(Response(201, body=b"{}"))
    wire = listen(client)

    with path.open("rb") as file:
        client.session.request("post", "/buckets/b", files={"attachment": file})

    assert b'filename="b.bin"' in (wire.requests[0].body or b"")


def test_m10_the_session_tells_until_when_the_server_wants_a_pause() -> None:
    client = scripted(answer({}, headers={"backoff": "30"}), answer({}), answer({}, headers={"backoff": "x"}))
    before = time.time()

    found: list[float | None] = []
    for _ in range(3):
        client.session.request("get", "/")
        found.append(client.session.backoff)

    assert found[1:] == [None, None]
    assert before + 30 <= (found[0] or 0) <= time.time() + 30


@pytest.mark.parametrize("endpoint", ["/v1/buckets/b", "v1/buckets/b", "/buckets/b", "{url}/buckets/b"])
def test_m10_the_version_may_stand_in_the_url_or_in_the_path(client: Client, endpoint: str) -> None:
    root = client.session.server_url.removesuffix("/v1")
    with Client(server_url=root, auth=AUTH) as versionless:
        body, _ = versionless.session.request("get", endpoint.format(url=f"{root}/v1"))

    assert body["data"]["id"] == "b"


def test_m10_a_stub_of_a_server_may_leave_ids_out() -> None:
    stub = answer({"data": {"status": "signed"}})
    client = scripted(stub, stub, stub, stub)

    found = [client.get_collection(), client.patch_collection(data={}), client.create_record(id="r")]

    assert [one["data"] for one in found] == [{"status": "signed"}] * 3
    assert client.delete_record(id="r") == {"status": "signed"}


def test_m10_an_answer_that_is_another_object_is_refused() -> None:
    with pytest.raises(KintoException, match="another object"):
        scripted(answer({"data": {"id": "other"}})).get_record(id="r")


@pytest.mark.parametrize("since", [1.5, 1, "1", '"1"'])
def test_m11_moments_are_sent_as_they_are(client: Client, wire: Wiretap, since: Any) -> None:
    client.get_history(_since=since, _before=since)
    client.get_records(_since=since, _to=since)

    text = quote(str(since))
    assert [request.query for request in wire.requests] == [f"_since={text}&_before={text}"] * 2


def test_m11_redirects_are_an_answer_where_they_are_not_to_be_followed() -> None:
    moved = Response(307, {"location": "http://elsewhere/"}, b'{"code": 307}')

    body, headers = scripted(moved).session.request("get", "/", allow_redirects=False)

    assert (body, headers["Location"]) == ({"code": 307}, "http://elsewhere/")
    with pytest.raises(KintoException):
        scripted(moved).session.request("get", "/")


def test_m11_options_of_requests_hold_for_one_request(client: Client) -> None:
    body, _ = client.session.request("get", "/", auth=None, timeout=60)

    assert "user" not in body
    assert "user" in client.session.request("get", "/")[0]
    with pytest.raises(TypeError, match="takes no stream"):
        client.session.request("get", "/", stream=True)
