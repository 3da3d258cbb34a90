"""What only a transactional Kinto does to a batch: on PostgreSQL."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kinto_orm import Bucket, Client, Collection, CommitError, Record
from kinto_orm.protocol.messages import Request, Response, Transport
from kinto_orm.repository.state import Outcome
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.application import build_application, drop_connections
from kinto_orm.server.embedded import SECRET

TOO_LARGE = 10**16
"""A timestamp that makes this server fail."""


@dataclass
class Meddler:
    """Puts a timestamp into one entry of the next batch: what the library never sends, and the server fails on."""

    transport: Transport
    index: int
    last_modified: int

    def send(self, request: Request) -> Response:
        if request.path == "/batch":
            body = json.loads(request.body or b"")
            if self.index < len(body["requests"]):
                body["requests"][self.index]["body"]["data"]["last_modified"] = self.last_modified
            request = replace(request, body=json.dumps(body).encode())
        return self.transport.send(request)

    async def asend(self, request: Request) -> Response:
        return self.send(request)

    def release(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def client(postgres_server: EmbeddedServer) -> Iterator[Client]:
    with Client.embedded(server=postgres_server) as client:
        yield client
    postgres_server.flush()


@pytest.fixture
def things(client: Client) -> Collection[Record]:
    everybody = {"write": ["system.Authenticated"]}
    return Collection(bucket=Bucket(id="b", permissions=everybody).save(), id="things").save()


def meddle(client: Client, index: int, last_modified: int) -> Client:
    """Return a clone whose batches fail at that entry."""
    clone = client.clone(headers={"X-Own": "connection"})
    clone._connection.transport = Meddler(clone._connection.transport, index, last_modified)
    return clone


def create(client: Client, *ids: str) -> tuple[Outcome[Any], ...]:
    """Return the outcomes of new records, which are all sent in one batch."""
    unit = client.unit_of_work()
    with pytest.raises(CommitError), unit:
        _ = [Record(bucket="b", collection="things", id=id, data={"n": 1}).save() for id in ids]
    return unit.outcomes


def test_a_409_in_the_middle_is_reported_as_it_is(client: Client, things: Collection[Record]) -> None:
    taken = things.records.create(id="taken").last_modified
    assert taken is not None

    outcomes = create(meddle(client, 2, taken), "a", "b", "c", "d", "e")

    said = {one.object.id: one.status for one in outcomes}
    assert said == {"a": "rolled_back", "b": "rolled_back", "c": "rolled_back", "d": "created", "e": "created"}
    assert {record.id for record in things.records} == {"taken", "d", "e"}
    assert [one.object.is_new for one in outcomes] == [True, True, True, False, False]


def test_what_a_409_rolled_back_is_stored_by_a_second_commit(client: Client, things: Collection[Record]) -> None:
    taken = things.records.create(id="taken").last_modified
    assert taken is not None
    clashing = meddle(client, 1, taken)

    with clashing.unit_of_work() as uow:
        _ = [Record(bucket="b", collection="things", id=id, data={"n": 1}).save() for id in "abc"]
        with pytest.raises(CommitError):
            uow.commit()
        assert [one.object.id for one in uow.plan().writes] == ["a", "b"]
        clashing._connection.transport = client._connection.transport

    assert [one.status for one in uow.outcomes] == ["created", "created", "created"]
    assert {record.id for record in things.records} == {"taken", "a", "b", "c"}


def test_a_batch_that_fails_stores_nothing(client: Client, things: Collection[Record]) -> None:
    outcomes = create(meddle(client.clone(retry=0), 1, TOO_LARGE), "a", "b", "c")

    assert [one.status for one in outcomes] == ["rolled_back", "rolled_back", "rolled_back"]
    assert not things.records.exists()
    assert all(one.object.is_new for one in outcomes)


def test_a_412_in_the_middle_leaves_the_others_stored(client: Client, things: Collection[Record]) -> None:
    things.records.create(id="b")

    outcomes = create(client, "a", "b", "c")

    assert [one.status for one in outcomes] == ["created", "conflict", "created"]
    assert {record.id for record in things.records} == {"a", "b", "c"}


@pytest.fixture(scope="module")
def processes(postgres_server: EmbeddedServer) -> Iterator[list[Client]]:
    """Clients of four servers on one PostgreSQL, which no lock of ours keeps apart."""
    servers = [EmbeddedServer(postgres_server.settings) for _ in range(4)]
    yield [Client.embedded(server=server, retry_after=0.01) for server in servers]
    for server in servers:
        server.close()


def test_of_four_racing_writers_one_wins(things: Collection[Record], processes: list[Client]) -> None:
    things.records.create(id="one", data={"n": 0})

    for round_ in range(5):
        winners = race(processes, round_)

        assert len(winners) == 1
        assert things.records.get("one").data["n"] == winners[0]


def race(clients: list[Client], round_: int) -> list[str]:
    """Return the records of the writers whose answers say that they are stored."""
    barrier = threading.Barrier(len(clients))
    winners: list[str] = []

    def work(client: Client, number: int) -> None:
        record = client.bucket("b").collection("things").records.get("one")
        record.data["n"] = f"{round_}-{number}"
        unit = client.unit_of_work()
        unit.save(record)
        barrier.wait()
        try:
            unit.commit()
        except CommitError:
            return
        winners.append(record.data["n"])

    threads = [threading.Thread(target=work, args=(client, number)) for number, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return winners


def test_backends_on_postgresql_say_who_commits(postgres_server: EmbeddedServer) -> None:
    by_request, by_itself = (
        build_application({**postgres_server.settings, SECRET: "x", "transaction_per_request": setting})
        for setting in (True, False)
    )

    for app, commits in ((by_request, False), (by_itself, True)):
        registry: Any = getattr(app, "registry")  # noqa: B009 - not of every WSGI application
        assert registry.storage.client.commit_manually is commits
        assert registry.permission.client.commit_manually is commits
        drop_connections(app)
