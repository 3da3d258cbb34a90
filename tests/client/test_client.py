"""The client: its options, what clones share, how objects find it, when it ends, what a pickle of it keeps."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import logging
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import pytest
import requests
from wiretap import Script, Wiretap, tap

from kinto_orm import (
    BearerTokenAuth,
    Bucket,
    Client,
    ClientClosedError,
    Collection,
    ConfigurationError,
    ConflictError,
    ConnectionFailedError,
    CredentialsMissingError,
    DryRunError,
    ForbiddenError,
    InvalidIdError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    MergePatch,
    NotBoundError,
    ProtocolError,
    Record,
    TransportError,
)
from kinto_orm.client.connection import Options
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.state import active_runner
from kinto_orm.server import EmbeddedServer
from kinto_orm.transport.auth import parse_auth
from kinto_orm.transport.http import HttpTransport
from kinto_orm.transport.reporting import RequestEvent, ResponseEvent, RetryEvent

URL = "http://localhost:8888/v1"
CANARY = "s3cr3t-canary"

OPTIONS: dict[str, Any] = {
    "auth": ("alexis", CANARY),
    "bucket": "payments",
    "collection": "receipts",
    "retry": 1,
    "retry_after": 2.5,
    "timeout": (1, 2),
    "deadline": 9,
    "headers": {"X-Own": CANARY},
    "verify": False,
    "proxies": {"http": f"http://me:{CANARY}@proxy:3128"},
    "cert": __file__,
    "trust_env": True,
    "allow_insecure": True,
    "max_response_bytes": 1,
    "log_bodies": True,
    "session": requests.Session(),
    "dry_mode": True,
    "on_request": print,
    "on_response": print,
    "on_retry": print,
    "on_backoff": "raise",
    "strict_retry": True,
    "on_invalid": "skip",
}
OTHERS: dict[str, Any] = {
    "auth": "Bearer xyz",
    "bucket": "default",
    "collection": None,
    "retry": 0,
    "retry_after": None,
    "timeout": 5,
    "deadline": 10,
    "headers": None,
    "verify": True,
    "proxies": None,
    "cert": None,
    "trust_env": False,
    "allow_insecure": False,
    "max_response_bytes": 2**20,
    "log_bodies": False,
    "session": None,
    "dry_mode": False,
    "on_request": None,
    "on_response": None,
    "on_retry": None,
    "on_backoff": "wait",
    "strict_retry": False,
    "on_invalid": "raise",
}


class Todo(Record, collection="todos"):
    title: str


@pytest.fixture
def wire(kinto_client: Client) -> Wiretap:
    return tap(kinto_client)


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.memory() as server:
        yield server


@pytest.fixture
def nowhere() -> str:
    """Return a URL at which no server listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


# -- options and clones -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", OPTIONS)
def test_a_clone_keeps_every_option_but_the_changed_one(changed: str) -> None:
    client = Client(URL, **OPTIONS)

    clone = client.clone(**{changed: OTHERS[changed]})

    kept = {name: getattr(clone._options, name) for name in OPTIONS}
    expected = {**OPTIONS, changed: OTHERS[changed]}
    assert kept == {**expected, "auth": parse_auth(expected["auth"])}
    assert clone.server_url == URL


def test_a_clone_may_have_another_server() -> None:
    clone = Client(URL, **OPTIONS).clone(server_url="https://other/v1")

    assert (clone.server_url, clone.default_bucket) == ("https://other/v1", "payments")


def test_a_clone_is_of_the_same_class() -> None:
    class Mine(Client):
        pass

    assert type(Mine(URL).clone(bucket="b")) is Mine


SHARING = {"bucket", "collection", "dry_mode", "on_invalid", "strict_retry"}
"""The options that make no difference to the connections."""


@pytest.mark.parametrize("changed", sorted(SHARING))
def test_a_clone_shares_the_connections(changed: str) -> None:
    client = Client(URL, **OPTIONS)

    assert client.clone(**{changed: OTHERS[changed]})._connection is client._connection


@pytest.mark.parametrize("changed", sorted(set(OPTIONS) - SHARING))
def test_a_clone_that_connects_otherwise_has_its_own_connections(changed: str) -> None:
    client = Client(URL, **OPTIONS)

    assert client.clone(**{changed: OTHERS[changed]})._connection is not client._connection


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no option bukket"):
        Client(URL).clone(bukket="payments")
    with pytest.raises(TypeError, match="bukket"):
        Client(URL, bukket="payments")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({"bucket": ""}, InvalidIdError, id="empty-bucket"),
        pytest.param({"bucket": "a/b"}, InvalidIdError, id="bucket-with-slash"),
        pytest.param({"collection": "a b"}, InvalidIdError, id="collection-with-space"),
        pytest.param({"on_invalid": "ignore"}, ConfigurationError, id="on_invalid"),
        pytest.param({"auth": 5}, ConfigurationError, id="auth"),
        pytest.param({"timeout": 0}, ConfigurationError, id="timeout"),
        pytest.param({"retry": -1}, ConfigurationError, id="retry"),
        pytest.param({"headers": {"X": "a\nb"}}, ConfigurationError, id="headers"),
        pytest.param({"headers": ["X"]}, ConfigurationError, id="list-of-headers"),
        pytest.param({"proxies": "http://proxy:3128"}, ConfigurationError, id="one-proxy"),
        pytest.param({"proxies": {"http": 5}}, ConfigurationError, id="proxy-that-is-a-number"),
        pytest.param({"session": 5}, ConfigurationError, id="session"),
        pytest.param({"on_request": 5}, ConfigurationError, id="on_request"),
        pytest.param({"on_response": 5}, ConfigurationError, id="on_response"),
        pytest.param({"on_retry": 5}, ConfigurationError, id="on_retry"),
        pytest.param({"on_backoff": "run"}, ConfigurationError, id="on_backoff"),
    ],
)
def test_an_option_that_cannot_work_is_refused(options: dict[str, Any], error: type[KintoError]) -> None:
    with pytest.raises(error):
        Client(URL, **options)
    with pytest.raises(error):
        Client(URL).clone(**options)


def test_the_message_names_the_option() -> None:
    with pytest.raises(ConfigurationError, match=r"^retry is"):
        Client(URL, retry=-1)


@pytest.mark.parametrize("wrong", ["Record", 5, Bucket(id="b")], ids=["text", "number", "object"])
def test_only_a_model_class_can_be_bound(wrong: Any) -> None:
    with pytest.raises(InvalidTypeError, match=r"bind\(\) takes a model class"):
        Client(URL).bind(wrong)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8888/v1",
        "ftp://localhost/v1",
        f"{URL}?a=b",
        f"{URL}#a",
        f"http://me:/{CANARY}@localhost/v1",
        "http://",
    ],
)
def test_a_wrong_server_url_is_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(ConfigurationError, match="server_url") as caught:
        Client(url)

    assert CANARY not in str(caught.value)


def test_options_reach_what_is_sent() -> None:
    session = requests.Session()
    session.mount("http://", answering := Answering())
    client = Client(URL, session=session, auth=BearerTokenAuth("xyz"), headers={"X-Own": "1"}, timeout=(3, 4))

    client.server_info()

    (request, options) = answering.seen
    assert (request.headers["Authorization"], request.headers["X-Own"]) == ("Bearer xyz", "1")
    assert options["timeout"] == (3, 4)


class Answering(requests.adapters.BaseAdapter):
    """Answers everything with ``{}`` and keeps the last request."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        self.seen = request, options
        response = requests.Response()
        response.status_code, response._content, response.request = 200, b"{}", request
        return response

    def close(self) -> None: ...


# -- endpoints and defaults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("root", "/"),
        ("batch", "/batch"),
        ("permissions", "/permissions"),
        ("buckets", "/buckets"),
        ("bucket", "/buckets/payments"),
        ("history", "/buckets/payments/history"),
        ("groups", "/buckets/payments/groups"),
        ("group", "/buckets/payments/groups/g"),
        ("collections", "/buckets/payments/collections"),
        ("collection", "/buckets/payments/collections/receipts"),
        ("records", "/buckets/payments/collections/receipts/records"),
        ("record", "/buckets/payments/collections/receipts/records/r"),
        ("attachment", "/buckets/payments/collections/receipts/records/r/attachment"),
        ("changeset", "/buckets/payments/collections/receipts/changeset"),
    ],
)
def test_endpoints_have_the_client_s_defaults(name: str, path: str) -> None:
    client = Client(URL, bucket="payments", collection="receipts")

    assert client.get_endpoint(name, group="g", id="r") == path


def test_an_endpoint_of_another_bucket_and_collection() -> None:
    path = Client(URL, bucket="payments").get_endpoint("record", bucket="b", collection="c", id="r")

    assert path == "/buckets/b/collections/c/records/r"


@pytest.mark.parametrize(
    ("name", "ids", "message"),
    [
        pytest.param("recrod", {}, "There is no endpoint 'recrod'; there are root, batch", id="unknown"),
        pytest.param("record", {"id": "r"}, "needs collection", id="no-collection"),
        pytest.param("record", {"collection": "c"}, "needs id", id="no-id"),
        pytest.param("group", {}, "needs group", id="no-group"),
        pytest.param("bucket", {"bucket": ""}, "is no bucket", id="empty"),
        pytest.param("bucket", {"bucket": "a/../b"}, "is no bucket", id="path"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(name: str, ids: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidIdError, match=message):
        Client(URL).get_endpoint(name, **ids)


def test_bucket_and_collection_are_defaults_of_what_is_read_and_written(kinto_client: Client, todos: Any) -> None:
    client = kinto_client.clone(bucket="payments", collection="todos")

    with client:
        record = Record(data={"n": 1}).save()
        found = Collection.records.filter(_limit=10).all()

    assert found == [record]
    assert client.bucket("payments").collections.all() == [todos]


def test_the_default_bucket_of_a_user_works(kinto_client: Client) -> None:
    record = Record(collection="todos", data={"n": 1}, client=kinto_client).save()

    assert kinto_client.bucket("default").collection("todos").records.get(record.id).data == {"n": 1}


# -- server information -------------------------------------------------------------------------------------------


def test_the_server_is_asked_once_what_it_can(kinto_client: Client, wire: Wiretap) -> None:
    first = kinto_client.server_info()
    second = kinto_client.clone(collection="todos").server_info()

    assert "accounts" in first["capabilities"]
    assert second == first
    assert [request.path for request in wire.requests] == ["/"]


def test_the_server_is_asked_again_on_demand(kinto_client: Client, wire: Wiretap) -> None:
    kinto_client.server_info()
    asyncio.run(kinto_client.aserver_info(refresh=True))
    asyncio.run(kinto_client.aserver_info())

    assert len(wire.requests) == 2


def test_another_user_is_told_of_itself(kinto_client: Client) -> None:
    other = kinto_client.clone(auth=("other", "x"))

    assert kinto_client.server_info()["user"]["id"] != other.server_info()["user"]["id"]


def test_a_server_that_is_none_is_noticed() -> None:
    client = Client(URL)
    client._connection.transport = Script([Response(200, body=b"<html>Hello</html>")])

    with pytest.raises(ProtocolError):
        client.server_info()


# -- how an object finds its client -------------------------------------------------------------------------------


@pytest.fixture
def bound(kinto_client: Client) -> type[Record]:
    class Bound(Record, bucket="b", collection="c"):
        pass

    return Client("http://bound/v1").bind(Bound)


def test_a_client_given_explicitly_comes_first(bound: type[Record]) -> None:
    given, parent = Client("http://given/v1"), Client("http://parent/v1")

    assert bound(collection=parent.bucket("b").collection("c"), client=given).__kinto_runner__() is given


def test_the_parent_s_client_comes_before_the_class_s(bound: type[Record]) -> None:
    parent = Client("http://parent/v1")

    assert bound(collection=parent.bucket("b").collection("c")).__kinto_runner__() is parent


def test_the_class_s_client_comes_before_the_active_one(bound: type[Record], kinto_client: Client) -> None:
    runner = bound().__kinto_runner__()

    assert isinstance(runner, Client)
    assert runner.server_url == "http://bound/v1"


def test_the_active_client_comes_last(kinto_client: Client) -> None:
    assert Record(collection="c").__kinto_runner__() is kinto_client


def test_an_object_stays_with_the_client_it_found(kinto_client: Client, todos: Collection[Record]) -> None:
    record = Record(bucket="payments", collection="todos").save()

    with Client(URL):
        assert record.__kinto_runner__() is kinto_client
        record.refresh()


def test_without_any_client_the_four_ways_are_named() -> None:
    with pytest.raises(NotBoundError) as caught:
        Record(collection="c", data={"n": 1}).save()

    assert all(way in str(caught.value) for way in ("client=", "parent", "client.bind(", "with client:"))
    assert isinstance(caught.value, LookupError)


def test_a_query_without_any_client_says_so_when_it_ends() -> None:
    query = Todo.records.filter(title="x")

    with pytest.raises(NotBoundError):
        query.all()


def test_the_innermost_client_is_the_active_one(kinto_client: Client) -> None:
    inner = kinto_client.clone(bucket="b")

    with inner, inner:
        inside = active_runner("x")

    assert inside is inner
    assert active_runner("x") is kinto_client


def test_a_thread_has_no_active_client_of_its_own(kinto_client: Client) -> None:
    seen: list[object] = []

    def look() -> None:
        with pytest.raises(NotBoundError):
            active_runner("x")
        with kinto_client:
            seen.append(active_runner("x"))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

    assert seen == [kinto_client]


def test_a_task_has_the_active_client_of_where_it_was_started(kinto_client: Client) -> None:
    other = kinto_client.clone(bucket="b")

    async def inside() -> object:
        return await asyncio.to_thread(active_runner, "x")

    async def work() -> tuple[object, object]:
        async with other:
            task = asyncio.create_task(inside())
        return await task, active_runner("x")

    assert asyncio.run(work()) == (other, kinto_client)


def test_blocks_left_out_of_order_leave_the_right_client() -> None:
    first, second = Client(URL), Client(URL)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)

    assert active_runner("x") is second

    second.__exit__(None, None, None)
    with pytest.raises(NotBoundError):
        active_runner("x")


# -- the end ------------------------------------------------------------------------------------------------------


def test_a_closed_client_says_so() -> None:
    client = Client(URL)
    client.close()
    client.close()

    with pytest.raises(ClientClosedError, match="make a new one"):
        client.server_info()


def test_leaving_the_block_does_not_end_the_client(own_server: EmbeddedServer) -> None:
    client = Client.embedded(server=own_server)
    with client:
        pass

    assert client.server_info()["settings"]


def test_a_clone_that_is_closed_leaves_what_it_shares(own_server: EmbeddedServer) -> None:
    client = Client.embedded(server=own_server)
    clones = [client.clone(bucket="b"), client.clone(auth=("other", "x"))]
    for clone in clones:
        clone.close()

    assert client.server_info()["settings"]
    for clone in clones:
        with pytest.raises(ClientClosedError):
            clone.server_info(refresh=True)


def test_a_client_that_is_closed_ends_the_server_that_it_started() -> None:
    client = Client.embedded()
    server = client._connection.server
    assert server is not None

    client.close()

    assert server.is_closed


def test_a_client_leaves_a_server_that_it_was_given(own_server: EmbeddedServer) -> None:
    Client.embedded(server=own_server).close()

    assert not own_server.is_closed


def test_a_server_that_was_given_for_wrong_options_is_left(own_server: EmbeddedServer) -> None:
    with pytest.raises(ConfigurationError):
        Client.embedded(server=own_server, retry=-1)

    assert not own_server.is_closed


def test_a_server_that_was_started_for_wrong_options_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[EmbeddedServer] = []
    memory = EmbeddedServer.memory

    def start(**settings: Any) -> EmbeddedServer:
        started.append(memory(**settings))
        return started[-1]

    monkeypatch.setattr(EmbeddedServer, "memory", start)
    with pytest.raises(InvalidIdError):
        Client.embedded(bucket="a b")
    with pytest.raises(ConfigurationError):
        Client.embedded(retry=-1)

    assert [server.is_closed for server in started] == [True, True]


def test_settings_of_an_embedded_server_reach_it(own_server: EmbeddedServer) -> None:
    client = Client.embedded(settings={"batch_max_requests": 3})

    assert client.server_info()["settings"]["batch_max_requests"] == 3
    client.close()
    with pytest.raises(ConfigurationError, match="running already"):
        Client.embedded(server=own_server, settings={"batch_max_requests": 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"bukket": "b"}, "no option bukket", id="unknown-option"),
        pytest.param({"server_url": URL}, "server_url", id="server_url"),
        pytest.param({"server": 5}, "an EmbeddedServer", id="server"),
        pytest.param({"settings": ["a"]}, "a mapping", id="settings"),
        pytest.param({"data_dir": 5}, "a path", id="number-as-folder"),
        pytest.param({"data_dir": ""}, "is empty", id="empty-folder"),
    ],
)
def test_what_cannot_be_embedded_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(KintoError, match=message):
        Client.embedded(**arguments)


def test_an_embedded_client_cannot_move(kinto_client: Client) -> None:
    with pytest.raises(ConfigurationError, match="make a new one"):
        kinto_client.clone(server_url=URL)


# -- secrets and pickles ------------------------------------------------------------------------------------------


def test_repr_shows_no_secret() -> None:
    client = Client(URL, **OPTIONS)

    assert repr(client) == f"<Client {URL}, bucket payments, collection receipts>"
    assert CANARY not in repr(client._options) + repr(client._connection) + str(vars(client))


def test_a_pickle_keeps_the_options_and_no_secret() -> None:
    options = {**OPTIONS, "session": None}
    pickled = pickle.dumps(Client(URL, **options))

    restored = pickle.loads(pickled)

    lost = dict.fromkeys(("auth", "headers", "proxies", "on_request", "on_response", "on_retry"))
    assert {name: getattr(restored._options, name) for name in options} == {**options, **lost}
    assert CANARY.encode() not in pickled


def test_a_client_out_of_a_pickle_asks_for_its_credentials(nowhere: str) -> None:
    restored = pickle.loads(pickle.dumps(Client(nowhere, auth=("alexis", CANARY), retry=0)))

    with pytest.raises(CredentialsMissingError, match=r"clone\(auth=…\)"):
        restored.server_info()
    with pytest.raises(CredentialsMissingError):
        restored.clone(collection="c").server_info()
    with pytest.raises(TransportError):
        restored.clone(auth=("alexis", CANARY)).server_info()


@pytest.mark.parametrize(
    ("options", "again"),
    [
        pytest.param({"headers": {"Authorization": CANARY}}, {"headers": None}, id="headers"),
        pytest.param({"proxies": OPTIONS["proxies"]}, {"proxies": None}, id="proxies"),
        pytest.param({"session": OPTIONS["session"]}, {"session": None}, id="session"),
        pytest.param({"session": OPTIONS["session"]}, {"auth": None}, id="session-then-auth"),
    ],
)
def test_whatever_may_hold_secrets_has_to_be_given_again(
    options: dict[str, Any], again: dict[str, Any], nowhere: str
) -> None:
    restored = pickle.loads(pickle.dumps(Client(nowhere, retry=0, **options)))

    with pytest.raises(CredentialsMissingError):
        pickle.loads(pickle.dumps(restored)).server_info()
    with pytest.raises(TransportError):
        restored.clone(**again).server_info()


def test_an_anonymous_client_out_of_a_pickle_works(nowhere: str) -> None:
    restored = pickle.loads(pickle.dumps(Client(nowhere, retry=0)))

    with pytest.raises(TransportError):
        restored.server_info()


def test_an_embedded_client_cannot_be_pickled(kinto_client: Client) -> None:
    with pytest.raises(ConfigurationError, match="cannot be pickled"):
        pickle.dumps(kinto_client)


def test_an_object_can_be_copied_with_its_embedded_client(todos: Collection[Record]) -> None:
    record = todos.records.create(data={"n": [1]})

    assert copy.deepcopy(record).client is record.client


# -- servers that do not answer -----------------------------------------------------------------------------------


def test_a_dead_server_is_a_transport_error_within_the_timeout(nowhere: str) -> None:
    started = time.monotonic()

    with pytest.raises(TransportError):
        Client(nowhere, timeout=1, retry=1, retry_after=0.01).server_info()

    assert time.monotonic() - started < 20


def test_a_silent_server_is_a_transport_error_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout=(1, 0.1), retry=0)
        started = time.monotonic()

        with pytest.raises(TransportError):
            client.server_info()

    assert time.monotonic() - started < 20


def test_a_dead_server_is_a_transport_error_for_who_awaits_too(nowhere: str) -> None:
    with pytest.raises(TransportError):
        asyncio.run(Client(nowhere, retry=0).aserver_info())


# -- dry mode -----------------------------------------------------------------------------------------------------


@pytest.fixture
def dry(kinto_client: Client, todos: Collection[Record]) -> Client:
    todos.records.create(id="one", data={"title": "one"})
    return kinto_client.clone(dry_mode=True)


def test_dry_mode_reads_and_logs_writes(dry: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kinto_orm")
    records = dry.bucket("payments").collection("todos").records
    record = records.get("one")
    wire = tap(dry)

    record.patch(title="x")
    record.delete()
    record.save()
    Record(collection=record.collection, id="two").save()

    path = "/buckets/payments/collections/todos/records"
    assert caplog.messages == [
        f"(dry mode) PATCH {path}/one",
        f"(dry mode) DELETE {path}/one",
        f"(dry mode) PUT {path}/two",
    ]
    assert wire.requests == []


def test_dry_mode_checks_what_it_does_not_send(dry: Client) -> None:
    with pytest.raises(InvalidValueError):
        Bucket(id="b", data={"deleted": True}, client=dry).save()


def test_dry_mode_refuses_what_needs_the_answer_to_a_write(dry: Client) -> None:
    def put_twice() -> Flow[None]:
        yield Request("PUT", "/buckets/x", body=b"{}")
        yield Request("PUT", "/buckets/y", body=b"{}")

    with pytest.raises(DryRunError, match=r"client\.plan"):
        dry.run(put_twice())

    assert dry.plan().as_json() == [{"method": "PUT", "path": "/buckets/x", "body": {}}]


def test_dry_mode_ensures_what_is_there_and_plans_the_rest(dry: Client) -> None:
    outcomes = dry.ensure(Bucket(id="payments"), Bucket(id="x"), Collection(bucket="x", id="c"))

    assert [one.status for one in outcomes] == ["unchanged", "planned", "planned"]
    assert str(dry.plan()) == (
        "batch 1: PUT /buckets/x If-None-Match: * {'data': {}}\n"
        "batch 1: PUT /buckets/x/collections/c If-None-Match: * {'data': {}}"
    )


def test_a_plan_has_the_exact_request_of_each_write(dry: Client) -> None:
    records = dry.bucket("payments").collection("todos").records
    one = records.get("one")
    path = "/buckets/payments/collections/todos/records"

    one.patch(MergePatch({"title": None}))
    assert records.filter(title="one").delete() == 1
    with dry.unit_of_work(atomic=True):
        Record(collection=one.collection, id="two", data={"n": 1}).save()

    planned = json.loads(json.dumps(dry.plan().as_json()))
    assert planned == [
        {
            "method": "PATCH",
            "path": f"{path}/one",
            "headers": {"If-Match": f'"{one.last_modified}"', "Content-Type": "application/merge-patch+json"},
            "body": {"data": {"title": None}},
        },
        {"method": "DELETE", "path": f"{path}?title=%22one%22"},
        {
            "method": "PUT",
            "path": f"{path}/two",
            "headers": {"X-Batch-Atomic": "true", "If-None-Match": "*"},
            "body": {"data": {"n": 1}},
            "batch": 1,
        },
    ]
    assert f"PATCH {path}/one If-Match: " in str(dry.plan())


def test_an_object_keeps_what_is_only_planned(dry: Client) -> None:
    one = dry.bucket("payments").collection("todos").records.get("one")
    one.data["title"] = "two"

    one.save()
    one.save()

    assert one.is_dirty
    assert [write.request["headers"]["If-Match"] for write in dry.plan().writes] == [f'"{one.last_modified}"'] * 2


@pytest.mark.parametrize(
    ("method", "id", "is_new", "dirty", "planned"),
    [
        pytest.param("get_or_create", "one", False, False, ["PUT"], id="get_or_create-existing"),
        pytest.param("get_or_create", "two", True, True, ["PUT"], id="get_or_create-new"),
        pytest.param("update_or_create", "one", False, True, ["PUT", "PATCH"], id="update_or_create-existing"),
        pytest.param("update_or_create", "two", True, True, ["PUT"], id="update_or_create-new"),
    ],
)
def test_dry_mode_tells_by_a_read_what_would_be_created(
    method: str, id: str, is_new: bool, dirty: bool, planned: list[str], dry: Client
) -> None:
    records = dry.bucket("payments").collection("todos").records

    record, created = getattr(records, method)(id, {"title": "new"})

    assert (created, record.is_new, record.is_dirty) == (is_new, is_new, dirty)
    assert [write.request["method"] for write in dry.plan().writes] == planned


def test_dry_mode_plans_what_goes_into_a_bucket_that_is_only_planned(dry: Client) -> None:
    bucket = Bucket(id="x", client=dry).save()

    _, created = bucket.collections.get_or_create("c")

    assert created
    assert [write.request["path"] for write in dry.plan().writes] == ["/buckets/x", "/buckets/x/collections/c"]


def test_bulk_verbs_count_what_is_planned(dry: Client) -> None:
    records = dry.bucket("payments").collection("todos").records

    report = records.bulk_create({"n": n} for n in range(30))

    assert (report.planned, report.created, report.stored, report.failed) == (30, 0, 0, [])
    assert {write.batch for write in dry.plan().writes} == {1, 2}


def test_dry_clones_plan_together_and_a_plan_can_be_cleared(dry: Client, kinto_client: Client) -> None:
    Bucket(id="x", client=dry.clone(bucket="other", headers={"X-Own": "1"})).save()
    Bucket(id="y", client=dry).save()
    assert [write.request["path"] for write in dry.plan().writes] == ["/buckets/x", "/buckets/y"]

    dry.clone().clear_plan()

    assert [str(one.plan()) for one in (dry, kinto_client, dry.clone(dry_mode=False))] == ["nothing to send"] * 3


def test_a_planned_lock_is_not_there_for_who_is_not_dry(dry: Client, kinto_client: Client) -> None:
    for _ in range(2):
        with dry.unit_of_work(lock="l"):
            Record(collection=dry.bucket("payments").collection("todos"), id="two").save()
    with kinto_client.unit_of_work(lock="l"):
        kinto_client.bucket("payments").collection("todos").records.get("one").patch(n=1)

    ids = [(write.request["path"].rpartition("/")[2], write.batch) for write in dry.plan().writes]
    lock = [("lock", 1), ("two", 1), ("lock", 2), ("two", 2)]
    assert ids == [("lock-l", None), ("lock", None), *lock]
    assert kinto_client.bucket("default").collection("lock-l").records.get("lock")


def test_a_plan_shows_no_password_and_no_file(dry: Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for request in (
        Request("PUT", "/accounts/a", body=b'{"data":{"password":"p4ss"}}'),
        Request("POST", "/buckets/b/collections/c/records/r/attachment", headers=headers, body=b"--x--"),
    ):
        with pytest.raises(DryRunError):
            dry.run(_send(request))

    assert "p4ss" not in str(dry.plan())
    assert dry.plan().as_json()[1]["body"] == "5 bytes of multipart/form-data; boundary=x"


def _send(request: Request) -> Flow[None]:
    yield request


# -- many at once -------------------------------------------------------------------------------------------------


def test_fifty_saves_at_once(kinto_client: Client, todos: Collection[Record]) -> None:
    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(Record(collection=todos, data={"n": number}).asave())

    asyncio.run(work())

    assert sorted(record.data["n"] for record in todos.records) == list(range(50))


def test_only_the_sending_leaves_the_event_loop_s_thread(kinto_client: Client) -> None:
    threads: list[threading.Thread] = []
    client = kinto_client.clone(on_request=lambda event: threads.append(threading.current_thread()))

    asyncio.run(client.aserver_info())

    assert threads
    assert threading.main_thread() not in threads


def test_an_awaited_error_is_the_same_as_a_plain_one(todos: Collection[Record]) -> None:
    todos.records.create(id="one")

    async def work() -> None:
        with pytest.raises(ConflictError) as caught:
            await Record(collection=todos, id="one", data={"n": 1}).asave()
        await caught.value.aoverwrite()

    asyncio.run(work())

    assert todos.records.get("one").data == {"n": 1}


def test_hooks_hear_of_every_exchange(kinto_client: Client) -> None:
    asked: list[RequestEvent] = []
    heard: list[ResponseEvent] = []
    client = kinto_client.clone(on_request=asked.append, on_response=heard.append)

    Bucket(id="b", client=client).save()

    assert asked == [RequestEvent("PUT", "/buckets/b", 1)]
    assert [(one.method, one.target, one.status, one.attempt) for one in heard] == [("PUT", "/buckets/b", 201, 1)]


def test_a_hook_hears_of_every_retry() -> None:
    heard: list[RetryEvent] = []
    client = Client("http://127.0.0.1:9", retry=1, retry_after=0.01, on_retry=heard.append)

    with client, pytest.raises(ConnectionFailedError):
        client.server_info()

    assert heard == [RetryEvent("GET", "/", 1, "ConnectionFailedError", 0.01)]


def test_users_of_one_embedded_server_have_their_own_permissions(kinto_client: Client, todos: Any) -> None:
    bob = kinto_client.clone(auth=("bob", "x"))
    bob_id = bob.server_info()["user"]["id"]
    Record(collection=todos, id="shared", permissions={"read": [bob_id]}).save()
    todos.records.create(id="private")
    records = bob.bucket("payments").collection("todos").records

    shared = records.get("shared")

    assert not shared.permissions.is_known
    for call in (lambda: records.get("private"), lambda: shared.patch(n=1)):
        with pytest.raises(ForbiddenError):
            call()


def test_what_the_server_says_is_a_copy(kinto_client: Client) -> None:
    kinto_client.server_info()["settings"]["batch_max_requests"] = 1

    assert kinto_client.server_info()["settings"]["batch_max_requests"] == 25


def test_the_signature_and_the_options_have_the_same_names_and_defaults() -> None:
    parameters = inspect.signature(Client).parameters.values()
    in_signature = {one.name: one.default for one in parameters}
    in_options = {one.name: MISSING if one.name == "server_url" else one.default for one in fields(Options)}

    assert {**in_signature, "server_url": MISSING} == {name: in_options[name] for name in in_options if name != "lacks"}


def test_o16_a_client_that_is_not_set_up_can_be_shown() -> None:
    assert repr(Client.__new__(Client)) == "<Client, not set up>"
    assert repr(HttpTransport.__new__(HttpTransport)) == "HttpTransport(None)"
