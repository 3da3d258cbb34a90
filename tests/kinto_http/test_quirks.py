"""What the reference client does and ours does not, one test a quirk, by the numbers in docs/migrating.md."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import threading
import warnings
from typing import Any

import pytest
import requests
from small_server import AUTH, BATCH, PAGE, scripted
from wiretap import Script, Wiretap, answer

import kinto_orm
from kinto_orm import kinto_http
from kinto_orm.errors import ConflictError, KintoError, ResponseTooLargeError
from kinto_orm.kinto_http import Client, KintoBatchException, KintoException, objects, utils
from kinto_orm.kinto_http.patch_type import BasicPatch, JSONPatch, MergePatch
from kinto_orm.protocol.messages import Request, Response


def fill(client: Client, count: int = 12) -> None:
    with client.batch() as batch:
        for n in range(count):
            batch.create_record(id=f"r{n:02}", data={"n": n})


def refused(status: int, **headers: str) -> Response:
    return Response(status, headers, json.dumps({"errno": 201, "message": "no"}).encode())


# -- the package and its clients --------------------------------------------------------------------------------------


def test_q01_the_error_of_a_pause_is_exported() -> None:
    assert issubclass(kinto_http.BackoffException, KintoException)


def test_q02_one_login_serves_several_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = kinto_http.BrowserOAuth()
    _ = Client(server_url="http://one/v1", auth=auth), Client(server_url="http://two/v1", auth=auth)
    asked: list[str] = []
    monkeypatch.setattr(auth, "_log_in", lambda root: asked.append(root) or kinto_http.BearerTokenAuth("token"))

    auth(requests.Request("GET", "http://one/v1/buckets").prepare())

    assert asked == ["http://one/v1"]


def test_q02_the_auth_object_of_a_user_may_wait_for_the_url() -> None:
    class Mine:
        server_url = ""

        def __call__(self, request: Any) -> Any:
            return request

    auth = Mine()

    Client(server_url="http://one/v1", auth=auth)

    assert auth.server_url == "http://one/v1"


def test_q03_a_client_without_url_says_so_before_anything_is_sent() -> None:
    with pytest.raises(KintoException, match="no server_url"):
        Client(auth=AUTH).get_bucket()


def test_q04_a_client_of_kinto_orm_brings_its_own_connection(client: Client) -> None:
    with client.session.client.clone(verify=False) as orm:
        face = Client(session=orm, bucket="b")

        assert face.get_bucket() == client.get_bucket()


def test_q05_a_clone_keeps_everything(url: str) -> None:
    client = Client(server_url=url, auth=AUTH, dry_mode=True, timeout=3, headers={"X-A": "1"}, ignore_batch_4xx=True)

    clone = client.clone(auth=("bob", "secret"))

    session = clone.session
    assert (session.dry_mode, session.timeout, session.headers) == (True, 3, {"X-A": "1"})
    assert clone._ignore_batch_4xx


def test_q06_options_of_a_clone_count(client: Client) -> None:
    clone = client.clone(retry=10, timeout=3, headers={"X-A": "1"})

    assert (clone.session.nb_retry, clone.session.timeout, clone.session.headers) == (10, 3, {"X-A": "1"})
    assert (client.session.nb_retry, client.session.timeout) == (0, None)


def test_q06_a_client_on_a_session_takes_options_too(client: Client) -> None:
    other = Client(session=client.session, retry=2)

    assert (other.session.nb_retry, client.session.nb_retry) == (2, 0)


def test_q07_the_server_is_described_once_for_all(client: Client, wire: Wiretap) -> None:
    client.server_info()
    client.clone(collection="d").server_info()
    with client.batch() as batch:
        batch.create_record(id="r")

    assert [request.path for request in wire.requests] == ["/", "/batch"]


def test_the_description_can_be_refreshed(client: Client, wire: Wiretap) -> None:
    client.server_info()
    client.server_info(refresh=True)

    assert len(wire.requests) == 2


# -- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["...", "?", " ", "\U0001f600", "", "a/b", "foo.bar", ".."])
def test_q08_q09_what_is_no_id_is_refused(client: Client, wire: Wiretap, id: str) -> None:
    for call in (client.delete_record, client.get_record, client.create_record, client.get_group):
        with pytest.raises(KintoException, match="is no"):
            call(id=id)

    assert wire.requests == []


def test_q10_numbers_are_ids(client: Client) -> None:
    with client.batch() as batch:
        for idx in range(3):
            batch.update_record(data={"id": idx})

    assert [record["id"] for record in client.get_records(_sort="id")] == ["0", "1", "2"]


@pytest.mark.parametrize("id", [None, ""])
def test_q11_no_id_is_not_the_default(client: Client, wire: Wiretap, id: Any) -> None:
    with pytest.raises(KintoException):
        client.delete_bucket(id=id)
    with pytest.raises(KintoException):
        client.delete_collection(id=id)

    assert wire.requests == []


# -- reading ----------------------------------------------------------------------------------------------------------


def test_q12_objects_can_be_read_with_their_permissions_inside_a_batch(client: Client) -> None:
    client.create_record(id="r", permissions={"read": ["bob"]})

    with client.batch() as batch:
        found = batch.get_record(id="r")

    assert found["permissions"]["read"] == ["bob"]


def test_q13_unchanged_is_not_empty(client: Client) -> None:
    timestamp = client.get_records_timestamp()

    assert isinstance(client.get_records(if_none_match=timestamp), objects.Unchanged)
    client.create_record(id="r")
    assert len(client.get_records(if_none_match=timestamp)) == 1
    assert list(client.get_paginated_records(if_none_match=client.get_records_timestamp())) == []
    assert not isinstance(client.get_groups(), objects.Unchanged)


def pages(count: int) -> list[Response]:
    follow = "http://localhost:8888/v1/buckets/b/collections/c/records?_token={}"
    return [
        answer({"data": [{"id": f"r{n}", "last_modified": n}]}, headers={"next-page": follow.format(n)} if n else {})
        for n in reversed(range(count))
    ]


def test_q14_a_thousand_pages_are_no_problem() -> None:
    first, *others = pages(1200)
    others.insert(998, Response(200, {"total-objects": "1200"}))  # the answer to a HEAD: whether the pages have an end

    assert len(scripted(first, first, *others).get_records()) == 1200
    assert len(list(scripted(first, first, *others).get_paginated_records())) == 1200


def test_q15_a_page_that_fails_is_asked_for_only_as_often_as_said() -> None:
    client = scripted(*pages(3)[:2], refused(500), *pages(1))

    with pytest.raises(KintoException, match="500"):
        client.get_records()


def test_q17_a_pause_asked_for_does_not_break_a_list() -> None:
    first, last = pages(2)
    client = scripted(first, Response(200, {**first.headers, "backoff": "60"}, first.body), last)

    assert len(client.get_records()) == 2


def test_q18_several_pages_are_read_in_an_order_that_does_not_move(client: Client, wire: Wiretap) -> None:
    fill(client)
    before = len(wire.requests)

    found = client.get_records()
    paged = [record for page in client.get_paginated_records() for record in page["data"]]

    assert [record["n"] for record in found] == list(reversed(range(12)))
    assert [record["n"] for record in paged] == list(range(12))
    queries = [request.query for request in wire.requests[before:]]
    assert queries[0] == queries[4] == ""  # as the reference client asks, until there is a second page
    assert all("_sort=id" in query for query in (*queries[1:4], *queries[5:]))


def test_q18_one_page_is_asked_for_as_the_reference_client_does(client: Client, wire: Wiretap) -> None:
    client.get_records()
    client.get_history(resource_name="record")
    list(client.get_paginated_records(_limit=3))

    assert [request.query for request in wire.requests] == ["", "resource_name=record", "_limit=3"]


def test_q18_a_list_that_is_too_large_for_one_answer_is_read_in_pages() -> None:
    class Limited(Script):
        def send(self, request: Request) -> Response:
            if "_limit" not in request.query:
                raise ResponseTooLargeError("too large")
            return super().send(request)

    client = scripted()
    client.session.client._connection.transport = Limited([answer({"data": [{"id": "r"}]})] * 2)

    assert client.get_records() == client.get_records(_sort="n") == [{"id": "r"}]


def test_q19_credentials_stay_on_their_server(client: Client) -> None:
    away = answer(
        {"data": []}, headers={"next-page": "http://evil.example/v1/buckets/b/collections/c/records?_token=a"}
    )
    client = scripted(away, answer({"data": []}))

    assert client.get_records() == []  # only the query of such a URL is used
    with pytest.raises(KintoException, match="not below"):
        client.session.request("get", "http://evil.example/v1/")


def test_q20_pages_are_counted(client: Client) -> None:
    fill(client)

    found = list(client.get_paginated_records(_limit=3, pages=2))

    assert [len(page["data"]) for page in found] == [3, 3]


def test_q22_numbers_and_commas_can_be_chosen(client: Client) -> None:
    fill(client, 3)
    client.create_record(id="comma", data={"s": "a,b"})

    assert [record["id"] for record in client.get_records(in_n=[1, 2], _sort="id")] == ["r01", "r02"]
    assert [record["id"] for record in client.get_records(in_s=["a,b", "c"])] == ["comma"]


def test_q23_fields_and_orders_may_be_lists(client: Client) -> None:
    fill(client, 3)

    found = client.get_records(_fields=["n"], _sort=["-n"])

    assert [record["n"] for record in found] == [2, 1, 0]
    assert {"id", "last_modified", "n"} == set(found[0])


@pytest.mark.parametrize("params", [{"_sorted": "n"}, {"name__like": "a"}])
def test_q24_what_kinto_would_ignore_is_refused(client: Client, wire: Wiretap, params: dict[str, Any]) -> None:
    with pytest.raises(KintoException):
        client.get_records(**params)
    with pytest.raises(KintoException, match="takes no parameter"):
        client.get_record(id="r", colection="c")

    assert wire.requests == []


def test_q25_fields_with_the_names_of_arguments_can_be_asked_for(client: Client) -> None:
    client.create_record(id="r", data={"bucket": "main", "collection": "x", "pages": 1})

    assert len(client.get_records(eq_bucket="main", eq_collection="x", eq_pages=1)) == 1
    assert len(client.get_records(eq_bucket="other")) == 0


def test_q26_permissions_are_filtered_by_keywords(client: Client) -> None:
    found = client.get_permissions(resource_name="collection")

    assert [entry["uri"] for entry in found] == ["/buckets/b/collections/c"]


def test_q28_one_timestamp_is_kept_of_a_list_that_was_read(client: Client) -> None:
    fill(client)
    other = Client(server_url=client.session.server_url, auth=AUTH, bucket="b", collection="c")

    client.get_records()
    kept = dict(client.read_timestamps)
    other.create_record(id="later")
    read, now, again = [client.get_records_timestamp() for _ in range(3)]

    assert (len(kept), client.read_timestamps) == (1, {})
    assert int(read) < int(now) == int(again)
    assert [record["id"] for record in client.get_records(_since=read)] == ["later"]


def test_q28_the_timestamp_of_a_list_is_forgotten_at_the_next_write(client: Client) -> None:
    client.get_records()

    record = client.create_record()

    assert client.get_records_timestamp() == str(record["data"]["last_modified"])


def test_q29_permissions_are_all_of_them(client: Client) -> None:
    for n in range(PAGE + 2):
        client.create_bucket(id=f"x{n}")

    found = client.get_permissions(resource_name="bucket")

    assert len(found) == PAGE + 3
    assert sorted(entry["id"] for entry in found) == [entry["id"] for entry in found]
    assert "/" in {entry["uri"] for entry in client.get_permissions()}
    assert found != client.get_permissions(resource_name="bucket", _sort="-uri")


# -- writing ----------------------------------------------------------------------------------------------------------


def test_q31_an_update_without_timestamp_is_told_to_be_unsafe(client: Client, wire: Wiretap) -> None:
    # As in the reference client: update_ has always created, too. Models are safe by themselves.
    client.update_record(id="r", data={"n": 1})

    assert wire.said == ["PUT"]


def test_q32_a_patch_sets_no_timestamp(client: Client) -> None:
    future = 100_000_000_000_000
    client.create_record(id="r")

    client.patch_record(id="r", data={"last_modified": future, "n": 1}, safe=False)

    assert client.get_record(id="r")["data"]["last_modified"] < future


def test_q33_a_conflict_says_what_is_there_now(client: Client) -> None:
    record = client.create_record(id="r", data={"n": 1})["data"]
    client.update_record(id="r", data={"n": 2})

    with pytest.raises(KintoException) as caught:
        client.update_record(data={**record, "n": 3})

    cause = caught.value.__cause__
    assert isinstance(cause, ConflictError)
    assert (cause.mine, cause.theirs) == ({"n": 3}, {"n": 2})


def test_q35_somebody_elses_bucket_is_not_deleted(client: Client) -> None:
    bob = client.clone(auth=("bob", "secret"))

    with pytest.raises(KintoException, match="403"):
        bob.delete_bucket(if_exists=True)

    assert client.get_bucket()


def test_q36_what_may_exist_may_do_so_in_a_batch(client: Client) -> None:
    client.create_record(id="there", data={"n": 1}, permissions={"read": ["bob"]})

    with client.batch() as batch:
        batch.create_record(id="there", data={"n": 2}, if_not_exists=True)
        batch.delete_record(id="missing", if_exists=True)
        batch.delete_bucket(id="missing", if_exists=True)

    there, missing, bucket = batch.results()
    assert (there["data"]["n"], there["permissions"]["read"]) == (1, ["bob"])
    assert (missing, bucket) == ({"data": None}, {"data": None})


def test_q37_changes_and_data_exclude_each_other(client: Client, wire: Wiretap) -> None:
    with pytest.raises(TypeError, match="not both"):
        client.patch_record(id="r", changes=BasicPatch({"n": 1}), data={"n": 2})
    with pytest.raises(TypeError):
        client.request_review("hi", changes=BasicPatch({"n": 1}))  # type: ignore[call-arg]  # that is the mistake

    assert wire.requests == []


@pytest.mark.parametrize("changes", [{}, None])
def test_q38_a_patch_of_nothing_is_refused(client: Client, wire: Wiretap, changes: Any) -> None:
    with pytest.raises(KintoException, match="needs data or permissions"):
        client.patch_record(id="r", changes=changes)
    with pytest.raises(KintoError):
        JSONPatch([])
    with pytest.raises(TypeError, match="couldn't understand"):
        client.patch_record(id="r", changes={"a": 1})

    assert wire.requests == []


def test_q39_changes_are_safe_with_the_original(client: Client, wire: Wiretap) -> None:
    record = client.create_record(id="r", data={"n": 1})["data"]

    client.patch_record(original=record, changes=BasicPatch({"n": 2}))

    assert f'PATCH If-Match: "{record["last_modified"]}"' == wire.said[-1]


def test_q40_history_is_purged_to_its_end(client: Client) -> None:
    fill(client)

    assert len(client.purge_history(resource_name="record")) == 12
    assert client.get_history(resource_name="record") == []


def test_q40_a_list_that_changes_meanwhile_is_not_deleted_further(client: Client) -> None:
    fill(client)
    timestamp = client.get_records_timestamp()

    assert len(client.delete_records(if_match=timestamp)) == 12


def test_q40_a_list_is_deleted_to_its_end_by_a_batch_too(client: Client) -> None:
    fill(client)

    with client.batch() as batch:
        batch.delete_records()
        batch.create_record(id="new")

    assert [record["id"] for record in client.get_records()] == ["new"]
    assert len(batch.results()[0]["data"]) == 12


def test_q41_what_matches_is_deleted(client: Client) -> None:
    fill(client)

    assert len(client.delete_records(min_n=6)) == 6
    assert len(client.get_records()) == 6


def test_q42_only_a_missing_bucket_is_not_found() -> None:
    with pytest.raises(KintoException) as caught:
        scripted(refused(503)).get_bucket()

    assert type(caught.value) is KintoException


# -- the session ------------------------------------------------------------------------------------------------------


def test_q43_the_scheme_of_an_auth_string_comes_first() -> None:
    auth = kinto_http.create_session("http://x/v1", auth="Bearer abc:def").auth

    assert (auth.type, auth.token) == ("Bearer", "abc:def")
    assert "abc" not in repr(auth)


@pytest.mark.parametrize("text", ["bearer", "mybearertoken", "Token x"])
def test_q43_other_strings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Unsupported `auth`"):
        kinto_http.create_session("http://x/v1", auth=text)


def test_q44_netrc_is_never_read(client: Client, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login secret password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))

    anonymous = Client(server_url=client.session.server_url, auth="")

    assert "user" not in anonymous.server_info()


def test_q45_a_client_can_be_closed(url: str) -> None:
    with Client(server_url=url, auth=AUTH) as client:
        client.server_info()

    with pytest.raises(KintoException, match="closed"):
        client.get_buckets()


def test_q46_every_failure_is_a_kinto_exception() -> None:
    with pytest.raises(KintoException) as caught:
        Client(server_url="http://127.0.0.1:9/v1", auth=AUTH).server_info()

    assert isinstance(caught.value, requests.exceptions.ConnectionError)
    assert caught.value.request.path_url == "/v1/"
    with pytest.raises(KintoException, match="not JSON"):
        scripted(Response(200, {}, b"<html>")).server_info()


def test_q49_a_creation_whose_answer_got_lost_is_recognised(client: Client) -> None:
    record = client.create_record(id="r", data={"n": 1}, permissions={"read": ["bob"]})
    existing = client.get_record(id="r")
    client = scripted(
        Response(412, {}, json.dumps({"details": {"existing": record["data"]}}).encode(), is_repeated=True),
        answer(existing),
        answer(existing),
    )

    assert existing == client.create_record(id="r", data={"n": 1}, permissions={"read": ["bob"]})


def test_q49_a_deletion_whose_answer_got_lost_is_recognised() -> None:
    client = scripted(Response(404, {}, b'{"errno": 110}', is_repeated=True))

    assert client.delete_record(id="r") == {"id": "r", "deleted": True}


def test_q53_q54_a_dry_client_reads_and_writes_nothing(client: Client) -> None:
    client.create_record(id="r", data={"n": 1})
    dry = client.clone(dry_mode=True)

    given = [
        dry.create_record(id="s", data={"n": 2}),
        dry.update_record(id="r", data={"n": 2}),
        dry.patch_record(id="r", data={"n": 2}),
        dry.delete_record(id="r"),
        dry.delete_records(),
        dry.session.request("put", "/buckets/x")[0],
    ]

    assert given == [{}] * 6
    assert [{"n": record["n"]} for record in dry.get_records()] == [{"n": 1}]
    assert not client.session.planned.writes
    requests = dry.session.planned.as_json()
    methods = [(request["method"], request["path"].rpartition("/")[2]) for request in requests]
    assert methods == [("PUT", "s"), ("PUT", "r"), ("PATCH", "r"), ("DELETE", "r"), ("DELETE", "records"), ("PUT", "x")]
    assert requests[0]["body"] == {"data": {"n": 2}}
    assert dry.get_permissions()


def test_a_dry_batch_is_planned_in_batches_of_the_servers_size() -> None:
    client = scripted(answer({"settings": {"batch_max_requests": 1}}), dry_mode=True)

    with client.batch() as batch:
        batch.create_bucket()
        batch.create_collection(id="cid")

    assert batch.results() == [{}, {}]
    assert [(one["path"], one["batch"]) for one in client.session.planned.as_json()] == [
        ("/buckets/b", 1),
        ("/buckets/b/collections/cid", 2),
    ]


def test_a_dry_batch_needs_no_server() -> None:
    dry = Client(server_url="http://127.0.0.1:9/v1", auth=AUTH, dry_mode=True, bucket="b")

    with dry.batch() as batch:
        batch.create_bucket()
        batch.create_collection(id="c")

    assert batch.results() == [{}, {}]
    assert [one["batch"] for one in dry.session.planned.as_json()] == [1, 1]


def test_the_clones_of_a_dry_client_plan_together(client: Client) -> None:
    dry = client.clone(dry_mode=True)

    dry.clone(bucket="other").create_bucket()
    dry.clone(retry=3).create_record(id="r")

    assert [write.request["path"].rpartition("/")[2] for write in dry.session.planned.writes] == ["other", "r"]


# -- batches ----------------------------------------------------------------------------------------------------------


def test_q30_reads_inside_a_batch_are_done_at_once(client: Client) -> None:
    client.create_record(id="r", data={"n": 1})

    with client.batch() as batch:
        found = [batch.get_record(id="r")["data"]["n"], len(batch.get_records()), batch.get_records_timestamp()]
        found.append(len(list(batch.get_paginated_records())))
        assert batch.get_history() and batch.get_permissions() and batch.server_info() and batch.get_bucket()

    assert [1, 1, client.get_records_timestamp(), 1] == found
    assert batch.results() == []


def test_q51_an_empty_batch_sends_nothing(client: Client, wire: Wiretap) -> None:
    with client.batch():
        pass

    assert wire.requests == []


def test_q55_ids_may_end_in_a_version(client: Client) -> None:
    client.create_bucket(id="v1")
    with client.batch(bucket="v1") as batch:
        batch.create_collection(id="prefs-v1")
        batch.create_record(collection="prefs-v1", id="r-v1", data={})

    assert [record["id"] for record in client.get_records(bucket="v1", collection="prefs-v1")] == ["r-v1"]


def test_q56_a_client_in_a_batch_can_be_shown_and_cloned(client: Client) -> None:
    with client.batch() as batch:
        assert repr(client) == repr(batch)
        batch.clone(collection="d").create_collection()
        with pytest.raises(KintoException, match="in a batch already"):
            batch.batch()
        with pytest.raises(KintoException, match="cannot change"):
            batch.clone(auth=("bob", "secret"))

    assert [result["data"]["id"] for result in batch.results()] == ["d"]
    assert client.get_collection(id="d")


def test_q57_options_of_a_batch_count(client: Client) -> None:
    with client.batch(retry=12, headers={"X-A": "1"}) as batch:
        assert (batch.session.nb_retry, batch.session.headers) == (12, {"X-A": "1"})


def test_q58_what_is_sent_is_what_it_was_at_the_call(client: Client) -> None:
    data: dict[str, Any] = {"list": [1]}
    with client.batch() as batch:
        batch.create_record(id="r", data=data)
        data["list"].append(2)

    assert client.get_record(id="r")["data"]["list"] == [1]


def update_thrice(client: Client) -> list[Any]:
    with client.batch() as batch:
        for _ in range(3):
            batch.update_record(id="r", data={})
    return batch.results()


def entries(*statuses: int) -> Response:
    body = {"data": {"id": "r", "last_modified": 1}, "permissions": {}}
    return answer({"responses": [{"status": one, "path": "", "headers": {}, "body": body} for one in statuses]})


INFO = answer({"settings": {"batch_max_requests": BATCH}})


@pytest.mark.parametrize("ignores", [True, False])
def test_q59_what_a_409_undid_is_no_success(ignores: bool) -> None:
    client = scripted(INFO, entries(201, 409, 201), ignore_batch_4xx=ignores)

    with pytest.raises(KintoBatchException) as caught:
        update_thrice(client)

    assert len(caught.value.exceptions) == 2
    assert "rolled this back" in str(caught.value.exceptions[0])
    assert caught.value.exceptions[1].response.status_code == 409


def test_q60_what_a_409_undid_is_sent_again() -> None:
    client = scripted(INFO, entries(201, 409, 201), entries(201, 201), retry=1)

    assert len(update_thrice(client)) == 3


def test_q61_an_answer_of_null_is_no_crash() -> None:
    client = scripted(INFO, answer({"responses": [{"status": 404, "path": "", "headers": {}, "body": None}]}))

    with pytest.raises(KintoBatchException, match="404"), client.batch() as batch:
        batch.delete_record(id="r")


def test_q62_success_is_no_warning(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), client.batch() as batch:
        batch.create_record(id="r")

    assert caplog.records == []


def test_q63_a_failed_batch_says_which_request_failed(client: Client) -> None:
    client.create_record(id="taken")

    batches: list[Client] = []

    def create() -> None:
        with client.batch() as batch:
            batches.append(batch)
            batch.create_record(id="new")
            batch.create_record(id="taken")

    with pytest.raises(KintoBatchException) as caught:
        create()

    (error,) = caught.value.exceptions
    assert (error.request.method, error.request.path_url) == ("PUT", "/buckets/b/collections/c/records/taken")
    assert error.response.json()["details"]["existing"]["id"] == "taken"
    assert isinstance(error.__cause__, ConflictError)
    assert len(batches[0].results()) == 2


def test_a_batch_that_fails_as_a_whole_is_one_error() -> None:
    client = scripted(INFO, refused(500))

    with pytest.raises(KintoException, match="500"), client.batch() as batch:
        batch.delete_record(id="r")

    assert batch.results() == []


def test_what_a_batch_cannot_carry_is_refused_at_the_call(client: Client) -> None:
    with client.batch() as batch:
        with pytest.raises(KintoException, match="JSON-Patch"):
            batch.patch_record(id="r", changes=JSONPatch([{"op": "remove", "path": "/data/n"}]))
        with pytest.raises(KintoException, match="nulls"):
            batch.patch_record(id="r", changes=MergePatch({"n": None}))
        with pytest.raises(KintoException, match="inside a batch"):
            batch.add_attachment("r", b"content", filename="a.txt")

    assert batch.results() == []


# -- errors -----------------------------------------------------------------------------------------------------------


def test_q64_q65_an_error_says_what_was_asked_and_answered(client: Client) -> None:
    with pytest.raises(KintoException) as caught:
        client.get_record(id="missing")

    error = caught.value
    assert error.response and error.response.status_code == 404
    assert not error.response.ok and "missing" in error.response.text
    assert (error.__cause__.status, error.__cause__.errno) == (404, 110)  # type: ignore[union-attr]  # ours has both
    assert error.response.headers["content-type"] == "application/json"


def test_errors_are_those_of_kinto_orm_too(client: Client) -> None:
    with pytest.raises(KintoError):
        client.get_bucket(id="missing")


@pytest.mark.parametrize(
    "error",
    [
        KintoException("a"),
        kinto_http.BackoffException("a", 3),
        kinto_http.BucketNotFound("b", KintoException()),
        KintoBatchException([KintoException("a")], [({}, {})]),
        kinto_http.TimeoutException("a"),
    ],
)
def test_errors_can_be_pickled(error: KintoException) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert (type(error), str(error), error.message) == (type(copy), str(copy), copy.message)


def test_a_pause_that_takes_too_long_is_its_own_error() -> None:
    client = scripted()
    error = kinto_orm.BackoffError("later", retry_after=9)

    said = kinto_http.exceptions.translate(error, kinto_http.exceptions.Exchange())

    assert isinstance(said, kinto_http.BackoffException)
    assert said.backoff == 9
    assert client.session.backoff is None


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_q75_arguments_that_do_not_exist_are_refused(client: Client, wire: Wiretap) -> None:
    with pytest.raises(TypeError):
        client.approve_changes(message="r+")  # type: ignore[call-arg]  # that is the mistake
    with pytest.raises(TypeError):
        client.delete_collection(collection="x")  # type: ignore[call-arg]  # that is the mistake

    assert wire.requests == []


def test_q77_deletions_are_replicated(client: Client) -> None:
    fill(client, 3)
    copy = client.clone(bucket="copy")
    kinto_http.replication.replicate(client, copy)
    client.delete_record(id="r01")

    kinto_http.replication.replicate(client, copy)

    assert [record["id"] for record in copy.get_records(_sort="id")] == ["r00", "r02"]


def test_q78_collections_of_different_names_are_replicated(client: Client) -> None:
    fill(client, 3)
    copy = client.clone(collection="other")

    kinto_http.replication.replicate(client, copy)

    assert len(copy.get_records()) == 3


def test_q79_what_is_equal_is_not_written(client: Client) -> None:
    fill(client, 3)
    copy = client.clone(bucket="copy")
    kinto_http.replication.replicate(client, copy)
    timestamp = copy.get_records_timestamp()

    kinto_http.replication.replicate(client, copy)

    assert timestamp == copy.get_records_timestamp()


def test_q80_the_command_replicates(client: Client) -> None:
    fill(client, 3)
    url = client.session.server_url

    kinto_http.replication.main(
        ["-s", url, "-a", ":".join(AUTH), "-b", "copy", "-c", "c", "-o", url, "--origin-bucket", "b"]
    )

    assert len(client.get_records(bucket="copy")) == 3


def test_q84_a_diff_changes_nothing() -> None:
    source = [{"id": "a", "n": 1, "last_modified": 5}]

    to_create, to_update, to_delete = utils.collection_diff(source, [{"id": "a", "n": 2}])

    assert (to_create, to_update, to_delete) == ([], [({"id": "a", "n": 2}, {"id": "a", "n": 1})], [])
    assert source[0]["last_modified"] == 5
    assert not utils.records_equal({"schema": "mine"}, {"schema": "other"})
    assert utils.records_equal({"schema": 1795000000000}, {})


def test_q85_records_are_sorted_as_the_server_does(client: Client) -> None:
    values = [-5, -10, 10, 1.5, "é", "b", None, True, [1]]
    with client.batch() as batch:
        for n, value in enumerate(values):
            batch.create_record(id=f"r{n}", data={"v": value, "n": n})
    with client.batch() as batch:
        batch.create_record(id="none", data={"n": 99})
    records = client.get_records()

    for sort in ("v,n", "-v,n", "-n"):
        expected = [record["id"] for record in client.get_records(_sort=sort)]
        assert expected == [record["id"] for record in utils.sort_records(records, sort)]


def test_q86_the_log_says_what_is_asked(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="kinto_http"):
        client.create_record(id="r", data={"secret": "hidden"})

    assert [record.getMessage() for record in caplog.records] == ["PUT /buckets/b/collections/c/records/r"]


def test_slugs_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="Nothing of"):
        utils.slugify("...")


def test_an_announced_end_of_service_is_a_warning() -> None:
    client = scripted(answer({"data": {"id": "b"}}, headers={"alert": '{"code": "soft-eol"}'}))

    with pytest.warns(DeprecationWarning, match="soft-eol"):
        client.get_bucket()


def test_one_client_serves_many_threads(client: Client) -> None:
    def write(n: int) -> None:
        for m in range(5):
            client.create_record(id=f"t{n}-{m}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(client.get_records()) == 20


def test_the_attributes_of_a_session_may_be_changed(client: Client) -> None:
    wanted = client.clone(auth=("bob", "secret")).server_info()["user"]

    client.session.auth = ("bob", "secret")

    assert wanted == client.server_info()["user"]


def test_reviews_of_an_async_client_are_sent(url: str, client: Client) -> None:
    async def ask() -> Any:
        async with kinto_http.AsyncClient(server_url=url, auth=AUTH, bucket="b", collection="c") as other:
            return await other.request_review("please")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = asyncio.run(ask())  # Q81

    assert found["data"]["status"] == "to-review"
