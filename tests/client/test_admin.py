"""Server administration, and the user's personal bucket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wiretap import Wiretap, answer, scripted_client, tap

from kinto_orm import (
    Bucket,
    CapabilityMissingError,
    Client,
    Collection,
    ForbiddenError,
    Heartbeat,
    NotStageableError,
    Record,
    ServerError,
    UnauthorizedError,
    UsageError,
)
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.writes import Flow
from kinto_orm.server import EmbeddedServer


@pytest.fixture
def flushable(kinto_client: Client) -> Client:
    """A client of a server that anybody can empty."""
    return kinto_client


@pytest.fixture(scope="module")
def server_without_plugins() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.memory(includes="", **{"multiauth.policies": "basicauth"}) as server:
        yield server


@pytest.fixture
def bare(server_without_plugins: EmbeddedServer) -> Iterator[Client]:
    """A client of a server without plugins."""
    with Client.embedded(server=server_without_plugins) as client:
        yield client
    server_without_plugins.flush()


# -- how the server is ------------------------------------------------------------------------------------------------


def test_a_server_that_is_well_says_so(kinto_client: Client) -> None:
    found = kinto_client.heartbeat()

    assert found.checks == {"storage": True, "permission": True, "cache": True}
    assert (found.is_healthy, found.unhealthy) == (True, ())
    assert asyncio.run(kinto_client.aheartbeat()) == found


def test_a_server_that_is_not_well_says_what_is_wrong_and_is_asked_once(
    kinto_client: Client, kinto_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    application: Any = kinto_server._app
    monkeypatch.setitem(application.registry.heartbeats, "storage", lambda request: False)
    heard: list[int | None] = []

    with kinto_client.clone(on_response=lambda event: heard.append(event.status)) as client:
        found = client.heartbeat()

    assert (found.is_healthy, found.unhealthy, found.status) == (False, ("storage",), 503)
    assert heard == [503]


def test_what_was_not_checked_is_not_unhealthy() -> None:
    assert Heartbeat({"storage": True, "changes": None}).is_healthy


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(Response(503, {"content-type": "text/html"}, b"<h1>busy</h1>"), id="a proxy"),
        pytest.param(answer({"errno": 201, "code": 503}, 503), id="an error"),
        pytest.param(answer({}, 503), id="nothing"),
        pytest.param(answer({"storage": False}, 500), id="another status"),
    ],
)
def test_an_answer_that_is_no_heartbeat_is_an_error(response: Response) -> None:
    with pytest.raises(ServerError):
        scripted_client(response).heartbeat()


def test_the_version_is_what_the_operator_says(tmp_path: Path) -> None:
    said = {"name": "kinto", "version": "1.2", "commit": "abc"}
    path = tmp_path / "version.json"
    path.write_text(json.dumps(said), encoding="utf-8")
    from kinto.core.views.version import version_view

    try:
        with EmbeddedServer.memory(version_json_path=str(path)) as server, Client.embedded(server=server) as client:
            assert client.version() == said == asyncio.run(client.aversion())
    finally:
        vars(version_view).pop("__json__", None)  # Kinto keeps it for the whole process


def test_a_server_that_says_no_version_is_told_from_a_broken_one(kinto_client: Client) -> None:
    with kinto_client.clone(retry=0) as client, pytest.raises(ServerError) as failed:
        client.version()

    assert "project_version" in failed.value.__notes__[0]


# -- flush ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_twin", [False, True])
def test_a_flush_removes_everything_of_everybody(is_twin: bool, flushable: Client) -> None:
    other = flushable.clone(auth=("somebody", "else"))
    Bucket(id="theirs", client=other).save()
    Bucket(id="mine", client=flushable).save()

    asyncio.run(flushable.aflush(everything=True)) if is_twin else flushable.flush(everything=True)

    assert flushable.buckets.all() == other.buckets.all() == []


def test_a_flush_has_to_be_meant(flushable: Client) -> None:
    Bucket(id="mine", client=flushable).save()
    wire = tap(flushable)

    with pytest.raises(UsageError, match="everything=True"):
        flushable.flush()

    assert wire.requests == []


def test_a_flush_is_no_part_of_a_unit(flushable: Client) -> None:
    with flushable.unit_of_work(), pytest.raises(NotStageableError, match="flush"):
        flushable.flush(everything=True)


def test_a_server_without_the_endpoint_is_not_asked(bare: Client) -> None:
    wire = tap(bare)

    with pytest.raises(CapabilityMissingError, match=r"kinto\.plugins\.flush"):
        bare.flush(everything=True)

    assert {request.method for request in wire.requests} == {"GET"}


def test_locks_are_made_again_after_a_flush(flushable: Client) -> None:
    for _ in range(2):
        Bucket(id="b", client=flushable).save()
        with flushable.unit_of_work(lock="l"):
            Collection(bucket=flushable.bucket("b"), id="c").save()
        flushable.flush(everything=True)


# -- the personal bucket ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_twin", [False, True])
def test_the_personal_bucket_has_its_real_id(is_twin: bool, kinto_client: Client) -> None:
    bucket = asyncio.run(kinto_client.apersonal_bucket()) if is_twin else kinto_client.personal_bucket()

    assert bucket.id == kinto_client.server_info()["user"]["bucket"]
    assert (bucket.is_new, bucket.is_dirty, bucket.permissions.is_known) == (False, False, True)
    assert kinto_client.buckets.get(str(bucket.id)) == bucket


def test_what_is_loaded_by_either_name_is_the_same_version_of_the_same_object(kinto_client: Client) -> None:
    todos = Collection(bucket="default", id="todos", client=kinto_client).save()
    record = todos.records.create(id="r", data={"n": 1})

    real = kinto_client.personal_bucket().collection("todos").records.get("r")
    real.patch(n=2)
    record.refresh().patch(n=3)

    assert (record.data, record.id) == ({"n": 3}, "r")
    assert real.refresh().last_modified == record.last_modified
    assert [one.id for one in kinto_client.bucket().collection("todos").records.page_size(1)] == ["r"]


def test_the_history_knows_what_is_in_the_personal_bucket_by_its_real_path(kinto_client: Client) -> None:
    Record(bucket="default", collection="todos", id="r", client=kinto_client).save()
    bucket = kinto_client.personal_bucket()

    bucket.collection("todos").records.create(id="s")

    uris = {kinto_client.run(_history(name)) for name in ("default", str(bucket.id))}
    records = f"/buckets/{bucket.id}/collections/todos/records"
    assert uris == {(f"{records}/s", f"{records}/r")}


def _history(bucket: str) -> Flow[tuple[str, ...]]:
    response = yield Request("GET", f"/buckets/{bucket}/history", "resource_name=record")
    return tuple(entry["uri"] for entry in json.loads(response.body)["data"])


def test_a_server_without_personal_buckets_says_so(bare: Client) -> None:
    with pytest.raises(CapabilityMissingError, match="default_bucket"):
        bare.personal_bucket()


def test_nobody_has_no_personal_bucket(kinto_client: Client) -> None:
    with kinto_client.clone(auth=None) as nobody, pytest.raises(UnauthorizedError):
        nobody.personal_bucket()


def test_a_bucket_without_an_id_is_the_client_s_own_default(kinto_client: Client) -> None:
    wire: Wiretap = tap(kinto_client)

    assert kinto_client.bucket().id == "default"
    assert kinto_client.clone(bucket="payments").bucket().id == "payments"
    assert wire.requests == []
    with pytest.raises(ForbiddenError):
        kinto_client.clone(bucket="payments").bucket().refresh()
