"""Many reads in one request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from wiretap import Wiretap, answer, scripted_client, tap

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    Deferred,
    F,
    ForbiddenError,
    InvalidIdError,
    InvalidTypeError,
    NotFoundError,
    Record,
    ServerError,
    UsageError,
)
from kinto_orm.server import EmbeddedServer


class Todo(Record, bucket="payments", collection="todos"):
    title: str = ""
    done: bool = False


@pytest.fixture
def notes(payments: Bucket) -> Collection[Record]:
    return Collection(bucket=payments, id="notes").save()


@pytest.fixture
def wire(kinto_client: Client, todos: Collection[Record], notes: Collection[Record]) -> Wiretap:
    """All that is sent after the set-up: five todos, of which two are done, and one note."""
    todos.records.bulk_create({"id": f"t{n}", "title": f"todo {n}", "done": n < 2} for n in range(5))
    notes.records.create(id="n0", data={"text": "hello"})
    kinto_client.server_info()
    return tap(kinto_client)


def sent(wire: Wiretap) -> list[str]:
    return [f"{request.method} {request.path}" for request in wire.requests]


def test_reads_of_several_collections_take_one_request(
    kinto_client: Client, todos: Collection[Record], notes: Collection[Record], wire: Wiretap
) -> None:
    with kinto_client.gather() as reads:
        done = reads.count(todos.records.filter(done=True))
        all_notes = reads.count(notes.records)
        is_empty = reads.exists(todos.records.filter(done=7))
        when = reads.timestamp(notes.records)
        first = reads.get(Todo, "t0")
        note = reads.get(notes.records, "n0")
        bucket = reads.get(kinto_client.buckets, "payments")
        missing = reads.get_or_none(notes.records, "n1")

    assert sent(wire) == ["POST /batch"]
    assert (done.value, all_notes.value, is_empty.value) == (2, 1, False)
    assert when.value == notes.records.timestamp()
    assert (type(first.value), first.value.title, first.value.client) == (Todo, "todo 0", kinto_client)
    assert note.value == notes.records.get("n0")
    assert (bucket.value.id, missing.value) == ("payments", None)


def test_what_was_read_can_be_saved(kinto_client: Client, wire: Wiretap) -> None:
    with kinto_client.gather() as reads:
        todo = reads.get(Todo, "t4")

    todo.value.done = True
    todo.value.save()

    assert [said.split()[0] for said in wire.said] == ["POST", "PATCH"]
    assert "If-Match" in wire.said[1]
    assert todo.value.permissions.is_known


def test_more_reads_than_a_batch_takes_are_sent_in_several(
    kinto_client: Client, todos: Collection[Record], wire: Wiretap
) -> None:
    with kinto_client.gather() as reads:
        found = [reads.get_or_none(todos.records, f"t{n}") for n in range(30)]

    assert [len(body["requests"]) for body in wire.bodies] == [25, 5]
    assert [one.value and one.value.id for one in found] == [f"t{n}" if n < 5 else None for n in range(30)]


def test_what_a_batch_does_not_take_goes_alone(
    kinto_client: Client, payments: Bucket, todos: Collection[Record], wire: Wiretap
) -> None:
    Collection(bucket=payments, id="batches").save()
    todos.records.create(id="batch-1")
    wire.requests.clear()

    with kinto_client.gather() as reads:
        one = reads.get(todos.records, "batch-1")
        other = reads.get(todos.records, "t1")
        count = reads.count(payments.collection("batches").records)
        slash = reads.count(todos.records.filter(F("title") == "/batch"))

    assert sent(wire)[0] == "POST /batch"
    assert sorted(sent(wire)[1:])[:2] == [
        "GET /buckets/payments/collections/todos/records/batch-1",
        "HEAD /buckets/payments/collections/batches/records",
    ]
    assert (one.value.id, other.value.id, count.value, slash.value) == ("batch-1", "t1", 0, 0)


def test_an_error_is_raised_where_the_value_is_taken(kinto_client: Client, wire: Wiretap) -> None:
    with kinto_client.gather() as reads:
        missing = reads.get(Todo, "missing")
        forbidden = reads.count(kinto_client.bucket("nobodys").collection("c").records)
        there = reads.get(Todo, "t0")

    assert there.value.title == "todo 0"
    for _ in range(2):
        with pytest.raises(NotFoundError):
            _ = missing.value
        with pytest.raises(ForbiddenError):
            _ = forbidden.value
    assert repr(missing) == "<Deferred: NotFoundError>"


def test_a_value_that_is_not_read_yet_says_so(kinto_client: Client, wire: Wiretap) -> None:
    with kinto_client.gather() as reads:
        todo = reads.get(Todo, "t0")
        with pytest.raises(UsageError, match="not read yet"):
            _ = todo.value
        assert repr(todo) == "<Deferred, not read yet>"

    assert repr(todo) == f"<Deferred: {todo.value!r}>"


def test_nothing_is_asked_where_the_block_raises(kinto_client: Client, wire: Wiretap) -> None:
    waiting: list[Deferred[Todo]] = []

    def leave() -> None:
        with kinto_client.gather() as reads:
            waiting.append(reads.get(Todo, "t0"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()

    assert wire.requests == []
    with pytest.raises(UsageError):
        _ = waiting[0].value


def test_nothing_is_asked_where_nothing_is_wanted(kinto_client: Client, wire: Wiretap) -> None:
    with kinto_client.gather():
        pass

    assert wire.requests == []


def test_a_query_that_can_match_nothing_asks_nothing(
    kinto_client: Client, todos: Collection[Record], wire: Wiretap
) -> None:
    with kinto_client.gather() as reads:
        count = reads.count(todos.records.filter(in_id=[]))

    assert (count.value, wire.requests) == (0, [])


def test_a_unit_of_work_reads_at_once(kinto_client: Client, todos: Collection[Record], wire: Wiretap) -> None:
    with kinto_client.unit_of_work() as uow:
        todos.records.create(id="new")
        with kinto_client.gather() as reads:
            count = reads.count(todos.records)
            todo = reads.get(Todo, "t4")
        todo.value.done = True
        todo.value.save()

    assert count.value == 5
    assert [one.status for one in uow.outcomes] == ["created", "updated"]


def test_dry_mode_reads(kinto_client: Client, todos: Collection[Record], wire: Wiretap) -> None:
    dry = kinto_client.clone(dry_mode=True)

    with dry.gather() as reads:
        count = reads.count(dry.bucket("payments").collection("todos").records)

    assert count.value == 5


@pytest.fixture
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server that takes no writes, which so refuses every batch."""
    client = Client.embedded(settings={"readonly": True})
    yield client
    client.close()


def test_a_read_only_server_is_asked_one_by_one(read_only: Client) -> None:
    wire = tap(read_only)

    with read_only.gather() as reads:
        buckets = reads.count(read_only.buckets)
        missing = reads.get(read_only.buckets, "b")

    assert (buckets.value, sent(wire)) == (0, ["GET /", "HEAD /buckets", "GET /buckets/b"])
    with pytest.raises(ForbiddenError):
        _ = missing.value


def test_reads_are_awaited(kinto_client: Client, todos: Collection[Record], wire: Wiretap) -> None:
    async def read() -> tuple[int, Todo]:
        async with kinto_client.gather() as reads:
            count = reads.count(todos.records)
            todo = reads.get(Todo, "t0")
        return count.value, todo.value

    count, todo = asyncio.run(read())

    assert (count, todo.title, sent(wire)) == (5, "todo 0", ["POST /batch"])


def test_nothing_is_asked_where_the_awaited_block_raises(kinto_client: Client, wire: Wiretap) -> None:
    async def leave() -> None:
        async with kinto_client.gather() as reads:
            reads.get(Todo, "t0")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(leave())

    assert wire.requests == []


def test_what_is_no_id_or_no_source_is_refused_at_once(kinto_client: Client, todos: Collection[Record]) -> None:
    with kinto_client.gather() as reads:
        with pytest.raises(InvalidIdError):
            reads.get(todos.records, "a b")
        with pytest.raises(InvalidTypeError):
            reads.get(todos, "a")  # type: ignore[type-var]  # not its records


def test_a_query_of_another_client_is_refused(
    kinto_server: EmbeddedServer, kinto_client: Client, wire: Wiretap
) -> None:
    with Client.embedded(server=kinto_server) as other, kinto_client.gather() as reads:
        with pytest.raises(UsageError, match="another client"):
            reads.count(other.buckets)
        with pytest.raises(UsageError, match="another client"):
            reads.get(other.buckets, "payments")

    assert wire.requests == []


def test_a_batch_that_fails_as_a_whole_is_an_error_of_the_block() -> None:
    client = scripted_client(answer({}), answer({"errno": 999}, status=500))

    def read() -> None:
        with client.gather() as reads:
            reads.count(client.buckets)

    with pytest.raises(ServerError):
        read()
