"""The same calls on the reference client and on ours, against one server: the same results, but for the departures."""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections.abc import Callable
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from kinto_orm import kinto_http as ours
from kinto_orm.server import EmbeddedServer

theirs: Any = pytest.importorskip("kinto_http.client", reason="kinto-http is not installed: pip install kinto-http")
import kinto_http as reference  # noqa: E402  where it is installed
import kinto_http.replication  # noqa: E402

AUTH = ("alexis", "p4ssw0rd")
BOB = ("bob", "s3cret")
Scenario = Callable[[Any, Any], Any]
"""Takes the package and a client of it; gives what the calls gave."""

SCENARIOS: dict[str, Scenario] = {}
DEPARTURES: dict[str, tuple[Scenario, Any, Any]] = {}
"""Scenario, what the reference client gives, what ours gives: see docs/migrating.md."""


def same(scenario: Scenario) -> Scenario:
    """Register a scenario with the same results."""
    SCENARIOS[scenario.__name__] = scenario
    return scenario


def departs(theirs: Any, ours: Any) -> Callable[[Scenario], Scenario]:
    """Register a scenario with these results."""

    def keep(scenario: Scenario) -> Scenario:
        DEPARTURES[scenario.__name__] = (scenario, theirs, ours)
        return scenario

    return keep


def said(call: Callable[[], Any]) -> Any:
    """Return the result of the call, or the exception with all that users look at."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  whatever it is, it is compared
        shown: list[Any] = [type(error).__name__, str(error)]
        response = getattr(error, "response", None)
        if response is not None:
            shown += [response.status_code, response.json(), error.request.method, error.request.path_url]
        return shown


# -- one object -------------------------------------------------------------------------------------------------------


@same
def creating(package: Any, client: Any) -> Any:
    return [
        client.create_bucket(id="x", data={"a": 1}, permissions={"read": ["system.Everyone"]}),
        client.create_bucket(data={"id": "y"}),
        client.create_group(id="g", bucket="x", data={"members": ["bob"]}),
        client.create_group(bucket="x", data={"id": "h", "members": []}, permissions={"read": ["bob"]}),
        client.create_collection(id="k", bucket="x", data={"sort": "-n"}),
        client.create_record(id="r", bucket="x", collection="k", data={"n": 1}),
        client.create_record(bucket="x", collection="k", data={"id": "s", "n": 2}),
        client.create_record(data={"n": 3}),
        client.create_record(id="empty"),
    ]


@same
def creating_what_exists(package: Any, client: Any) -> Any:
    client.create_record(id="r", data={"n": 1}, permissions={"read": ["bob"]})
    client.create_group(id="g", data={"members": []})
    return [
        said(lambda: client.create_record(id="r", data={"n": 2})),
        client.create_record(id="r", data={"n": 2}, if_not_exists=True),
        client.create_record(data={"id": "r", "n": 2}, if_not_exists=True),
        client.create_bucket(if_not_exists=True),
        client.create_collection(if_not_exists=True),
        client.create_group(id="g", data={"members": ["bob"]}, if_not_exists=True),
        client.create_record(id="new", data={}, if_not_exists=True),
        client.create_record(id="r", data={"n": 3}, safe=False),
        client.create_record(id="r", safe=False),
        said(lambda: client.create_bucket()),
    ]


@same
def updating(package: Any, client: Any) -> Any:
    record = client.create_record(id="r", data={"n": 1}, permissions={"read": ["bob"]})["data"]
    first = client.update_record(data={**record, "n": 2})
    return [
        first,
        said(lambda: client.update_record(data={**record, "n": 3})),
        client.update_record(data={**record, "n": 3}, safe=False),
        client.update_record(id="r", data={"n": 4}),
        client.update_record(id="fresh", data={"n": 5}),
        client.update_record(id="r", permissions={"write": ["bob"]}),
        said(lambda: client.update_record(id="r", data={"n": 6}, if_match=record["last_modified"])),
        said(lambda: client.update_record(id="r", data={"n": 6}, if_match=f'"{record["last_modified"]}"')),
        client.update_record(id="r", data={"n": 7}, if_match=record["last_modified"], safe=False),
        client.update_bucket(data={"a": 1}),
        client.update_collection(data={"b": 1}),
        client.update_group(id="g", data={"members": ["bob"]}),
        said(lambda: client.update_record(data={"n": 1})),
        said(lambda: client.update_group(data={"members": []})),
    ]


@same
def patching(package: Any, client: Any) -> Any:
    kinds = package.patch_type
    record = client.create_record(id="r", data={"n": 1, "deep": {"a": 1, "b": 2}})["data"]
    client.create_group(id="g", data={"members": []})
    return [
        client.patch_record(id="r", data={"m": 2}),
        said(lambda: client.patch_record(data={**record, "m": 3})),
        said(lambda: client.patch_record(original=record, changes=kinds.BasicPatch({"m": 3}))),
        client.patch_record(id="r", permissions={"read": ["bob"]}),
        client.patch_record(id="r", changes=kinds.BasicPatch(data={"m": None}, permissions={"read": []})),
        client.patch_record(id="r", changes=kinds.MergePatch(data={"deep": {"a": None}, "m": None})),
        client.patch_record(id="r", changes=kinds.JSONPatch([{"op": "remove", "path": "/data/n"}])),
        said(lambda: client.patch_record(id="missing", data={"n": 1})),
        said(lambda: client.patch_record(data={"n": 1})),
        said(lambda: client.patch_record(id="r", changes=5)),
        client.patch_bucket(data={"a": 1}),
        client.patch_collection(data={"b": 1}),
        client.patch_group(id="g", data={"c": 1}),
    ]


@same
def deleting(package: Any, client: Any) -> Any:
    record = client.create_record(id="r", data={"n": 1})["data"]
    client.update_record(id="r", data={"n": 2})
    client.create_group(id="g", data={"members": []})
    return [
        said(lambda: client.delete_record(id="r", if_match=record["last_modified"])),
        client.delete_record(id="r"),
        said(lambda: client.delete_record(id="r")),
        client.delete_record(id="r", if_exists=True),
        client.delete_group(id="g"),
        client.delete_group(id="g", if_exists=True),
        client.delete_collection(),
        client.delete_collection(if_exists=True),
        client.delete_bucket(),
        client.delete_bucket(if_exists=True),
        client.delete_bucket(id="never", if_exists=True),
        said(lambda: client.get_bucket()),
    ]


@same
def reading(package: Any, client: Any) -> Any:
    client.create_record(id="r", data={"n": 1, "m": 2})
    return [
        client.get_bucket(),
        client.get_collection(),
        client.get_record(id="r"),
        client.get_record(id="r", _fields="n"),
        said(lambda: client.get_record(id="missing")),
        said(lambda: client.get_collection(id="missing")),
        said(lambda: client.get_collection(id="c", bucket="missing")),
        said(lambda: client.get_group(id="missing")),
        said(lambda: client.get_bucket(id="missing")),
        client.get_bucket(id="default")["data"]["id"],
    ]


@same
def dates_and_odd_values(package: Any, client: Any) -> Any:
    data = {
        "date": date(2026, 11, 25),
        "naive": datetime(2026, 11, 25, 12),  # noqa: DTZ001  the reference client takes it
        "aware": datetime(2026, 11, 25, 12, tzinfo=UTC),
        "tuple": (1, 2),
        "number": {1: "a"},
        "text": "œ\U0001f600",
        "deep": [{"a": [None, True, 1.5]}],
    }
    return [
        client.create_record(id="r", data=data),
        said(lambda: client.create_record(id="s", data={"o": object()})[0]),
    ]


# -- who may do what --------------------------------------------------------------------------------------------------


@same
def being_somebody_else(package: Any, client: Any) -> Any:
    client.create_record(id="r", data={"n": 1})
    bob = client.clone(auth=BOB)
    nobody = client.clone(auth=("", ""))
    return [
        said(lambda: bob.get_bucket()),
        said(lambda: bob.get_collection()),
        said(lambda: bob.create_record(id="s", data={})),
        said(lambda: bob.create_collection(id="s")),
        said(lambda: bob.create_group(id="s", data={"members": []})),
        said(lambda: bob.delete_bucket()),
        said(lambda: bob.update_record(id="r", data={})),
        said(lambda: bob.get_records())[0],
        bob.get_buckets(),
        repr(bob).replace(bob.session.server_url, "URL"),
        nobody.session.auth,
    ]


# -- lists ------------------------------------------------------------------------------------------------------------


def twelve(client: Any) -> None:
    with client.batch() as batch:
        for n in range(12):
            batch.create_record(id=f"r{n:02}", data={"n": n, "even": n % 2 == 0, "s": f"t{n % 3}", "l": [n, n + 1]})


@same
def listing(package: Any, client: Any) -> Any:
    twelve(client)
    timestamp = client.get_records_timestamp()
    middle = client.get_record(id="r05")["data"]["last_modified"]
    client.delete_record(id="r11")
    return [
        client.get_records(),
        client.get_records(_sort="n"),
        client.get_records(_sort="-n,id"),
        client.get_records(_limit=3),
        client.get_records(_limit=3, _sort="n"),
        client.get_records(_limit=2, pages=2),
        client.get_records(_limit=2, pages=2, _sort="n"),
        client.get_records(_limit=2, pages=float("inf")),
        client.get_records(_since=middle),
        client.get_records(_since=f'"{middle}"'),
        client.get_records(_before=middle),
        client.get_records(_fields="n"),
        client.get_records(if_none_match=timestamp),
        client.get_buckets(),
        client.get_collections(),
        client.get_groups(),
        client.get_collections(bucket="b", _limit=1),
        len(list(client.get_paginated_records())),
        len(list(client.get_paginated_records(_limit=3))),
        list(client.get_paginated_records(_limit=3, _sort="n")),
    ]


@same
def filtering(package: Any, client: Any) -> Any:
    twelve(client)
    return [
        client.get_records(even=True),
        client.get_records(n=3),
        client.get_records(s="t1"),
        client.get_records(in_id=["r01", "r02"]),
        client.get_records(in_id="r01"),
        client.get_records(exclude_s=["t1"]),
        client.get_records(in_s=["t1", "t2"]),
        client.get_records(min_n=9),
        client.get_records(max_n=2),
        client.get_records(gt_n=9),
        client.get_records(lt_n=2),
        client.get_records(not_even=True),
        client.get_records(like_s="*1"),
        client.get_records(has_missing=True),
        client.get_records(has_missing="false"),
        client.get_records(contains_l=[3]),
        client.get_records(contains_any_l=[3, 9]),
        client.get_records(even=False, _sort="-n", gt_n=3),
        client.get_records(s='"t1"'),
        client.get_records(even="true"),
        client.get_records(n="3"),
        client.get_records(in_n=["1", "2"]),
        client.get_records(like_s="t*"),
    ]


@same
def filtering_by_texts_that_look_like_numbers(package: Any, client: Any) -> Any:
    client.create_record(id="text", data={"version": "1.0"})
    client.create_record(id="number", data={"version": 1})
    return [client.get_records(version="1.0"), client.get_records(version='"1.0"')]


@same
def history_and_permissions(package: Any, client: Any) -> Any:
    record = client.create_record(id="r", data={"n": 1})["data"]
    client.update_record(id="r", data={"n": 2})
    client.delete_record(id="r")
    return [
        [plain(entry) for entry in client.get_history(resource_name="record", collection_id="c")],
        [plain(entry) for entry in client.get_history(_limit=2)],
        [plain(entry) for entry in client.get_history(_since=record["last_modified"] - 1, _limit=1, action="delete")],
        [entry["uri"] for entry in client.get_permissions() if "b" in entry["uri"]],
        [entry["uri"] for entry in client.get_permissions(exclude_resource_names=("bucket", "record"))],
        [entry["uri"] for entry in client.get_permissions(params={"resource_name": "bucket"})],
        len(client.purge_history(record_id="r")),
        client.get_history(record_id="r"),
    ]


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("id", "date", "last_modified")}


@same
def deleting_lists(package: Any, client: Any) -> Any:
    with client.batch() as batch:
        for n in range(3):
            batch.create_record(id=f"r{n}", data={"n": n})
            batch.create_group(id=f"g{n}", data={"members": []})
    timestamp = client.get_records_timestamp()
    client.update_record(id="r0", data={})
    return [
        said(lambda: client.delete_records(if_match=timestamp)),
        client.delete_records(),
        client.delete_records(),
        client.delete_groups(),
        client.delete_collections(),
        client.delete_buckets(),
        client.get_buckets(),
    ]


# -- batches ----------------------------------------------------------------------------------------------------------


@same
def batches(package: Any, client: Any) -> Any:
    client.create_record(id="old", data={"n": 0})
    with client.batch(collection="d") as batch:
        batch.create_collection()
        created = batch.create_record(id="r", data={"n": 1})
        batch.update_record(id="r", data={"n": 2})
        batch.patch_record(id="r", data={"m": 3})
        batch.create_record(collection="c", id="x", data={"n": 1}, permissions={"read": ["bob"]})
        batch.delete_record(collection="c", id="old")
    return [dict(created), batch.results(), client.get_records(), client.get_records(collection="d")]


@same
def batches_larger_than_the_server_takes(package: Any, client: Any) -> Any:
    twelve(client)
    with client.batch() as batch:
        for n in range(12):
            batch.delete_record(id=f"r{n:02}")
    return [batch.results(), client.get_records()]


@same
def batches_that_fail(package: Any, client: Any) -> Any:
    client.create_record(id="taken", data={})
    told: list[Any] = []

    def fill(client: Any) -> Any:
        with client.batch() as batch:
            told.append(batch)
            batch.create_record(id="a", data={}, safe=False)
            batch.create_record(id="taken", data={})
            batch.delete_record(id="missing")
            batch.create_record(id="z", data={}, safe=False)

    with pytest.raises(package.KintoBatchException) as caught:
        fill(client)
    fill(client.clone(ignore_batch_4xx=True))
    with pytest.raises(ZeroDivisionError):
        leave(client)
    error: Any = caught.value
    return [
        [(one.response.status_code, one.request.method) for one in error.exceptions],
        told[0].results(),
        [[entry["body"] for entry in body["responses"]] for body, _ in error.results],
        [record["id"] for record in client.get_records(_sort="id")],
    ]


def leave(client: Any) -> None:
    with client.batch() as batch:
        batch.create_record(id="never", data={})
        _ = 1 / 0


@same
def reviews(package: Any, client: Any) -> Any:
    return [
        client.request_review("please"),
        client.decline_changes("no", id="c"),
        client.approve_changes(data={"more": 1}),
        client.rollback_changes("oops", "c", "b"),
        client.get_collection(),
    ]


# -- the client itself ------------------------------------------------------------------------------------------------


@same
def paths(package: Any, client: Any) -> Any:
    names = ("root", "batch", "permissions", "buckets", "bucket", "history", "groups", "collections", "collection")
    return [
        [client.get_endpoint(name) for name in (*names, "records", "changeset")],
        client.get_endpoint("record", id="r"),
        client.get_endpoint("record", id=1, bucket="x", collection="y"),
        client.get_endpoint("group", group="g"),
        said(lambda: client.get_endpoint("record")),
        package.Endpoints("/v1").get("bucket", bucket="b"),
        said(lambda: package.Endpoints().get("bucket")),
    ]


@same
def clones(package: Any, client: Any) -> Any:
    clone = client.clone(bucket="x", collection="y")

    class Mine(package.Client):
        pass

    url = client.session.server_url
    mine = Mine(server_url=url, auth="user:pass:word").clone(collection="z")
    return [
        (clone.bucket_name, clone.collection_name, clone.session is client.session),
        [repr(one).replace(url, "URL") for one in (client, clone, mine, package.Client(server_url=url))],
        type(mine).__name__,
        mine.session.auth,
        (client.session.nb_retry, client.session.retry_after),
        said(lambda: package.Client()),
        said(lambda: package.Client(session=client.session, auth=AUTH)),
        said(lambda: package.create_session("http://x/v1", session=client.session)),
        type(said(lambda: package.Client(server_url=url, auth="nonsense"))[0]).__name__,
        package.Client(server_url=url, auth="Bearer+OIDC abc").session.auth.token,
        package.Client(server_url=url, auth="Basic abc").session.auth.type,
        package.Client(server_url=url, auth="").server_info()["settings"],
        client.server_info()["capabilities"],
    ]


@same
def session_requests(package: Any, client: Any) -> Any:
    session = client.session
    body, headers = session.request("put", "/buckets/b/collections/c/records/r", data={"n": 1}, permissions={})
    return [
        body,
        headers["ETag"],
        headers["etag"],
        session.request("get", "buckets/b/collections/c/records", params={"n": 1, "in_id": ["r"]})[0],
        session.request("head", "/buckets/b/collections/c/records")[0],
        session.request("get", session.server_url + "/buckets/b")[0]["data"]["id"],
        session.request(
            "get", "/buckets/b", headers={"If-None-Match": session.request("get", "/buckets/b")[1]["ETag"]}
        )[0],
        said(lambda: session.request("get", "/buckets/b", data={"n": 1})),
        said(lambda: session.request("post", "/buckets", payload={"data": {"id": "?"}})),
        session.request("patch", "/buckets/b", payload={"data": {"n": 1}})[0],
    ]


@same
def diffs_and_orders(package: Any, client: Any) -> Any:
    records = [{"id": "a", "n": 1, "s": "x"}, {"id": "b", "n": 3, "s": "y"}, {"id": "c", "n": 2, "s": "x"}]
    changed = [{"id": "a", "n": 1, "s": "x", "last_modified": 9}, {"id": "b", "n": 4, "s": "y"}, {"id": "d", "n": 5}]
    utils = package.utils
    return [
        utils.collection_diff([dict(one) for one in changed], records),
        utils.sort_records(records, "s,-n"),
        utils.sort_records(records, "-id"),
        utils.records_equal(records[0], changed[0]),
        [utils.slugify(text) for text in ("My Bucket", "chârs", "en-US", 1)],
        [utils.quote(text) for text in ("1", '"1"', 1)],
        list(utils.chunks([1, 2, 3], 2)),
        list(utils.chunks([1, 2, 3], 0)),
        utils.urljoin("http://x/v1/", "/buckets"),
    ]


@same
def replication(package: Any, client: Any) -> Any:
    twelve(client)
    package.replication.replicate(client, client.clone(bucket="copy"))
    copied = client.get_records(bucket="copy", _sort="n")
    return [[{key: one[key] for key in one if key != "last_modified"} for one in copied]]


# -- departures: what the reference client gives, what ours gives -----------------------------------------------------


@departs(5, 7)
def q16_limit_is_how_many_records(package: Any, client: Any) -> Any:
    twelve(client)
    return len(client.get_records(_limit=7))


@departs((5, 7), (12, 0))
def q40_a_list_is_deleted_to_its_end(package: Any, client: Any) -> Any:
    twelve(client)
    return len(client.delete_records()), len(client.get_records())


@departs(1, 0)
def since_none_is_not_sent(package: Any, client: Any) -> Any:
    # Kinto understands null as 0 on memory, with the tombstones, and on PostgreSQL as never.
    client.create_record(id="r")
    client.delete_record(id="r")
    return len(client.get_records(_since=None))


@departs(True, False)
def q27_the_timestamp_is_that_of_now(package: Any, client: Any) -> Any:
    before = client.get_records_timestamp()
    client.create_record(data={})
    return client.get_records_timestamp() == before


@departs("foobar", "KintoException")
def q9_ids_are_never_rewritten(package: Any, client: Any) -> Any:
    found = said(lambda: client.create_record(id="foo.bar", data={}))
    return found["data"]["id"] if isinstance(found, dict) else found[0]


@departs(0, 12)
def q8_an_id_of_nothing_deletes_nothing(package: Any, client: Any) -> Any:
    twelve(client)
    for _ in range(3):  # Kinto deletes one page each time
        said(lambda: client.delete_record(id="..."))
    return len(client.get_records())


@departs([True, "KintoException"], [False, "KintoException"])
def q55_only_the_prefix_is_taken_off_a_path(package: Any, client: Any) -> Any:
    with client.batch() as batch:
        batch.create_collection(id="prefs-records")
    client.create_collection(id="prefs-v1", if_not_exists=True)

    def empty() -> None:
        with client.batch() as batch:
            batch.delete_records(collection="prefs-v1")

    said(empty)
    found = said(lambda: client.get_collection(id="prefs-records"))
    return [isinstance(found, list), "KintoException"]


@departs(True, False)
def q35_a_bucket_of_somebody_else_is_not_gone(package: Any, client: Any) -> Any:
    return said(lambda: client.clone(auth=BOB).delete_bucket(if_exists=True)) is None


@departs("JSONDecodeError", "KintoException")
def q46_an_answer_that_is_no_json(package: Any, client: Any) -> Any:
    return said(lambda: client.session.request("get", "/../contribute.json/.."))[0] and _no_json(package)


def _no_json(package: Any) -> Any:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        client = package.Client(server_url=f"http://127.0.0.1:{server.server_address[1]}/v1", auth=AUTH)
        return said(lambda: client.server_info())[0]


# -- the comparison ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_clients_give_the_same(name: str, url: str, small_server: EmbeddedServer) -> None:
    expected = outcome(reference, SCENARIOS[name], url)
    small_server.flush()

    found = outcome(ours, SCENARIOS[name], url)

    assert expected == found


@pytest.mark.parametrize("name", DEPARTURES)
def test_our_client_departs_in_just_this(name: str, url: str, small_server: EmbeddedServer) -> None:
    scenario, theirs, ours_gives = DEPARTURES[name]

    found_theirs = scenario(reference, set_up(reference, url))
    small_server.flush()
    found_ours = scenario(ours, set_up(ours, url))

    assert (theirs, ours_gives) == (found_theirs, found_ours)


def set_up(package: Any, url: str) -> Any:
    client = package.Client(server_url=url, auth=AUTH, bucket="b", collection="c")
    client.create_bucket()
    client.create_collection()
    return client


def outcome(package: Any, scenario: Scenario, url: str) -> Any:
    """Return the result of the scenario, with drawn and measured values replaced by their ranks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the reference client leaves its sockets open
        found = json.dumps(scenario(package, set_up(package, url)), default=str)
    for rank, timestamp in enumerate(sorted(set(re.findall(r"\b1[0-9]{12}\b", found)))):
        found = found.replace(timestamp, str(rank))
    for rank, id in enumerate(dict.fromkeys(re.findall(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", found))):
        found = found.replace(id, f"id {rank}")
    return json.loads(found)
