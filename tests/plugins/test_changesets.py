"""What changed in a collection, and in which collections; the plugin is a stand-in: see ``changes_plugin``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wiretap import answer, scripted_client, tap

from kinto_orm import (
    Bucket,
    CapabilityMissingError,
    Changeset,
    Client,
    Collection,
    InvalidIdError,
    InvalidValueError,
    NotFoundError,
    ProtocolError,
    Record,
    RedirectError,
)
from kinto_orm.protocol.messages import Response
from kinto_orm.server import EmbeddedServer

PATH = "/buckets/main/collections/c/changeset"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.memory(includes="changes_plugin", **{"multiauth.policies": "basicauth"}) as server:
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client.embedded(server=server) as client:
        yield client
    server.flush()


@pytest.fixture
def records(client: Client) -> Collection[Record]:
    return Collection(bucket=Bucket(id="main", client=client).save(), id="c", data={"title": "C"}).save()


def fill(collection: Collection[Record]) -> int:
    """Three records; the timestamp of the first one."""
    first = collection.records.create(id="r1", data={"n": 1})
    collection.records.create(id="r2", data={"n": 2})
    collection.records.create(id="r3", data={"n": 3})
    assert first.last_modified is not None
    return first.last_modified


@pytest.mark.parametrize("is_twin", [False, True])
def test_a_changeset_is_the_whole_collection(is_twin: bool, records: Collection[Record]) -> None:
    fill(records)

    found = asyncio.run(records.achangeset()) if is_twin else records.changeset()

    assert (found.metadata["title"], found.metadata["bucket"]) == ("C", "main")
    assert found.timestamp == records.records.timestamp()
    assert [(one["id"], one["n"]) for one in found.changes] == [("r3", 3), ("r2", 2), ("r1", 1)]
    assert (found.updated, found.deleted, found.since) == (found.changes, (), None)


def test_a_changeset_since_a_timestamp_has_what_changed_and_what_was_deleted(records: Collection[Record]) -> None:
    since = fill(records)
    records.records.get("r2").delete()

    found = records.changeset(since=since)

    assert [one["id"] for one in found.updated] == ["r3"]
    assert (found.deleted, found.since) == (("r2",), since)
    assert records.changeset(since=found.timestamp).changes == ()


def test_caches_on_the_way_are_told_how_new_the_answer_must_be(client: Client, records: Collection[Record]) -> None:
    since = fill(records)
    records.changeset()
    wire = tap(client)

    records.changeset()
    records.changeset(since=f'"{since}"')
    records.changeset(expected=since + 5)
    records.changeset(since=since, bust_cache=True)

    first, after, expected, busted = (request.target for request in wire.requests)
    assert first == f"{PATH}?_expected=0"
    assert after == f"{PATH}?_expected={since}&_since=%22{since}%22"
    assert expected == f"{PATH}?_expected={since + 5}"
    assert busted.startswith(f"{PATH}?_expected=9999") and busted.endswith(f"&_since=%22{since}%22")


@pytest.mark.parametrize("is_twin", [False, True])
def test_the_monitor_tells_which_collections_changed(
    is_twin: bool, client: Client, records: Collection[Record]
) -> None:
    fill(records)
    other = Collection(bucket=records.bucket, id="d").save()
    since = records.records.timestamp()
    other.records.create(id="r")

    found = asyncio.run(client.amonitor_changes()) if is_twin else client.monitor_changes()

    assert [one["collection"] for one in found.changes] == ["d", "c"]
    assert found.timestamp == found.changes[0]["last_modified"] == other.records.timestamp()
    assert [one["collection"] for one in client.monitor_changes(since=since).changes] == ["d"]
    assert [one["collection"] for one in client.monitor_changes(bucket="main", collection="c").changes] == ["c"]
    assert client.monitor_changes(bucket="b", bust_cache=True).changes == ()


def test_a_monitor_that_does_not_go_back_so_far_gives_all(client: Client, records: Collection[Record]) -> None:
    fill(records)

    found = client.monitor_changes(since=5)

    assert (len(found.changes), found.since) == (1, None)


def test_a_redirect_without_a_reason_stays_an_error(client: Client) -> None:
    redirected = Response(307, {"location": "http://elsewhere/v1"})

    with pytest.raises(RedirectError):
        scripted_client(INFO, redirected).bucket("main").collection("c").changeset()


def test_pages_are_brought_together() -> None:
    more = {"next-page": f"http://x/v1{PATH}?_expected=0&_token=t"}
    pages = [page({"id": "a"}, headers=more), page({"id": "b", "deleted": True})]

    found = scripted_client(INFO, *pages).bucket("main").collection("c").changeset()

    assert found == Changeset({"m": 1}, 7, ({"id": "a"}, {"id": "b", "deleted": True}))
    assert (found.updated, found.deleted) == (({"id": "a"},), ("b",))


def page(*changes: Any, headers: dict[str, str] | None = None) -> Response:
    return answer({"metadata": {"m": 1}, "timestamp": 7, "changes": list(changes)}, headers=headers)


INFO = answer({"capabilities": {"changes": {}}})


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"timestamp": 7, "changes": []}, id="no metadata"),
        pytest.param({"metadata": {}, "timestamp": "7", "changes": []}, id="no number"),
        pytest.param({"metadata": {}, "timestamp": 7}, id="no changes"),
        pytest.param({"metadata": {}, "timestamp": 7, "changes": [1]}, id="no objects"),
        pytest.param({"metadata": {}, "timestamp": 7, "changes": [{}]}, id="no ids"),
    ],
)
def test_what_is_no_changeset_is_an_error(body: object) -> None:
    with pytest.raises(ProtocolError, match="not a changeset"):
        scripted_client(INFO, answer(body)).bucket("main").collection("c").changeset()


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        pytest.param(lambda one: one.changeset(since=9, expected=8), InvalidValueError, id="expected before since"),
        pytest.param(lambda one: one.changeset(expected=8, bust_cache=True), InvalidValueError, id="twice expected"),
        pytest.param(lambda one: one.changeset(since="x"), InvalidValueError, id="no timestamp"),
        pytest.param(lambda one: one.client.monitor_changes(bucket="my bucket"), InvalidIdError, id="no id"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    ask: Callable[[Collection[Record]], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ask(scripted_client().bucket("main").collection("c"))


def test_a_collection_that_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(NotFoundError):
        client.bucket("main").collection("missing").changeset()


def test_a_server_without_the_plugin_says_so(kinto_client: Client, todos: Collection[Record]) -> None:
    with pytest.raises(CapabilityMissingError, match="kinto-remote-settings"):
        todos.changeset()
    with pytest.raises(CapabilityMissingError, match="changes"):
        kinto_client.monitor_changes()


def test_a_unit_of_work_may_read_a_changeset(client: Client, records: Collection[Record]) -> None:
    with client.unit_of_work():
        assert records.changeset().changes == ()
