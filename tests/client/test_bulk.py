"""Bulk verbs on several collections at once: one writer for each, one outcome for each object."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wiretap import Wiretap, answer, tap

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    CommitError,
    DuplicateObjectError,
    InvalidFilterError,
    InvalidTypeError,
    NotStageableError,
    Outcome,
    Record,
    UsageError,
)
from kinto_orm.errors import ConnectionFailedError
from kinto_orm.protocol.messages import Request, Response


class Receipt(Record):
    total: int


@pytest.fixture
def receipts(payments: Bucket) -> Collection[Receipt]:
    return Collection(bucket=payments, id="receipts", model=Receipt).save()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [one for one in threading.enumerate() if one.name == "kinto-orm"]


def some(count: int, **data: Any) -> Iterator[dict[str, Any]]:
    return ({"id": f"x{number:03}", "total": number, **data} for number in range(count))


@pytest.mark.parametrize("parallel", [1, 2, 8])
def test_several_collections_are_written_at_once(
    kinto_client: Client, todos: Collection[Record], receipts: Collection[Receipt], parallel: int
) -> None:
    told: list[Outcome[Any]] = []
    objects = {todos: some(60), receipts: [Receipt(total=number) for number in range(30)]}

    reports = kinto_client.bulk_create(objects, parallel=parallel, on_outcome=told.append)

    assert [(one.created, one.failed, one.is_complete) for one in reports.values()] == [(60, [], True), (30, [], True)]
    assert (list(reports), len(told)) == ([todos, receipts], 90)
    assert (todos.records.count(), sum(one.total for one in receipts.records)) == (60, 435)


def test_they_are_updated_and_deleted(
    kinto_client: Client, todos: Collection[Record], receipts: Collection[Receipt]
) -> None:
    kinto_client.bulk_create({todos: some(3), receipts: some(2)})
    both: dict[Collection[Any], list[Any]] = {todos: todos.records.all(), receipts: receipts.records.all()}
    for one in (*both[todos][1:], *both[receipts]):
        one.data["total"] = 100

    updated = kinto_client.bulk_update(both)
    deleted = kinto_client.bulk_delete(both)

    assert [(one.updated, one.unchanged) for one in updated.values()] == [(2, 1), (2, 0)]
    assert [one.deleted for one in deleted.values()] == [3, 2]
    assert not todos.records.exists() and not receipts.records.exists()


def test_it_is_awaited(kinto_client: Client, todos: Collection[Record], receipts: Collection[Receipt]) -> None:
    async def write() -> list[int]:
        created = await kinto_client.abulk_create({todos: some(30), receipts: some(30)}, on_outcome=lambda one: None)
        both: dict[Collection[Any], list[Any]] = {todos: await todos.records.aall(), receipts: []}
        both[todos][0].data["total"] = -1
        updated = await kinto_client.abulk_update(both)
        deleted = await kinto_client.abulk_delete(both)
        return [*(one.created for one in created.values()), updated[todos].updated, deleted[todos].deleted]

    assert asyncio.run(write()) == [30, 30, 1, 30]


def test_what_was_refused_is_told_with_its_outcomes_and_the_rest_is_stored(
    kinto_client: Client, todos: Collection[Record], receipts: Collection[Receipt]
) -> None:
    receipts.records.create(id="x001", total=7)

    with pytest.raises(CommitError, match="bulk_create: failed for 1, stored for 32 objects") as caught:
        kinto_client.bulk_create({todos: some(30), receipts: some(3)})

    assert [(one.object.collection, one.object.id, one.status) for one in caught.value.outcomes] == [
        (receipts, "x001", "conflict")
    ]
    assert (todos.records.count(), receipts.records.count()) == (30, 3)


def test_an_input_that_raises_stops_the_others_and_what_is_stored_is_said(
    kinto_client: Client, todos: Collection[Record], receipts: Collection[Receipt]
) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from some(5)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more") as caught:
        kinto_client.bulk_create({todos: broken(), receipts: some(100_000)})

    stored = todos.records.count() + receipts.records.count()
    assert caught.value.__notes__ == [f"{stored} objects were stored before this; what came after them was not sent."]
    assert 5 <= stored < 2000


def test_where_an_input_raises_all_that_is_stored_is_told(
    kinto_client: Client, todos: Collection[Record], receipts: Collection[Receipt]
) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from some(60)
        raise RuntimeError("no more")

    told: list[Outcome[Any]] = []

    with pytest.raises(RuntimeError, match="no more"):
        kinto_client.bulk_create({todos: broken(), receipts: some(100_000)}, on_outcome=told.append)

    stored = [*todos.records, *receipts.records]
    assert sorted(one.object.id for one in told) == sorted(one.id for one in stored)


def test_a_callback_that_raises_stops_it_and_all_that_is_stored_is_counted(
    kinto_client: Client, todos: Collection[Record], receipts: Collection[Receipt]
) -> None:
    def stop(outcome: Outcome[Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        kinto_client.bulk_create({todos: some(100_000), receipts: some(100_000)}, on_outcome=stop)

    stored = todos.records.count() + receipts.records.count()
    assert caught.value.__notes__[0].startswith(f"{stored} objects were stored before this")


def test_cancelled_it_loses_nothing_and_can_be_repeated(
    kinto_client: Client, todos: Collection[Record], receipts: Collection[Receipt]
) -> None:
    class Stuck(Wiretap):
        """After two batches, it does not come back with what the server has stored."""

        stored = 0

        async def asend(self, request: Request) -> Response:
            response = await super().asend(request)
            self.stored += 1
            if self.stored > 2:
                await asyncio.Event().wait()
            return response

    kinto_client.bulk_create({todos: some(100), receipts: some(100)})
    both: dict[Collection[Any], list[Any]] = {todos: todos.records.all(), receipts: receipts.records.all()}
    for one in (*both[todos], *both[receipts]):
        one.data["total"] = -1
    told: list[Outcome[Any]] = []
    wire = Stuck(kinto_client._connection.transport)
    kinto_client._connection.transport, direct = wire, wire.transport

    async def cancel() -> str:
        writing = asyncio.create_task(kinto_client.abulk_update(both, on_outcome=told.append))
        async with asyncio.timeout(10):
            while wire.stored < 4:
                await asyncio.sleep(0.001)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await writing
        assert len(asyncio.all_tasks()) == 1
        return str(caught.value.__notes__[0])

    note = asyncio.run(cancel())
    kinto_client._connection.transport = direct
    before = {(one.collection, one.id): one for records in both for one in records.records.filter(total=-1)}
    reports = kinto_client.bulk_update(both)

    assert note == "50 objects were stored before this; a batch of each collection may be stored, too."
    assert (len(told), len(before)) == (50, 100)
    assert sum(one.updated + one.unchanged for one in reports.values()) == 200
    after = {(one.collection, one.id): one for records in both for one in records.records.filter(total=-1)}
    assert len(after) == 200
    assert all(after[key].last_modified == one.last_modified for key, one in before.items())  # none was written twice


def test_an_input_is_asked_for_no_more_than_is_sent(
    kinto_client: Client, todos: Collection[Record], receipts: Collection[Receipt]
) -> None:
    asked: list[int] = []
    told: list[int] = []

    def counted() -> Iterator[dict[str, Any]]:
        for one in some(400):
            asked.append(1)
            yield one

    def tell(outcome: Outcome[Any]) -> None:
        told.append(1)
        assert len(asked) - len(told) <= 6 * 25

    kinto_client.bulk_create({todos: counted(), receipts: some(3)}, parallel=2, on_outcome=tell)

    assert (len(asked), len(told)) == (400, 403)


def test_a_server_that_goes_away_leaves_one_outcome_for_each_that_was_tried(
    kinto_client: Client, todos: Collection[Record], receipts: Collection[Receipt]
) -> None:
    class Gone:
        def send(self, request: Request) -> Response:
            if request.path == "/batch":
                raise ConnectionFailedError("gone")
            return answer({"settings": {"batch_max_requests": 25}})

        def release(self) -> None: ...

    both = {todos: some(40), receipts: some(40)}
    wire = tap(kinto_client)
    wire.transport = Gone()  # type: ignore[assignment]  # all that is needed of a transport

    with pytest.raises(CommitError, match="It stopped there") as caught:
        kinto_client.bulk_create(both)

    assert [one.status for one in caught.value.outcomes] == ["not_sent"] * 50


@pytest.mark.parametrize(
    ("objects", "options", "error"),
    [
        pytest.param(lambda todos: [todos], {}, InvalidTypeError, id="no mapping"),
        pytest.param(lambda todos: {"todos": []}, {}, InvalidTypeError, id="no collection"),
        pytest.param(lambda todos: {todos: Record()}, {}, InvalidTypeError, id="one object"),
        pytest.param(lambda todos: {todos: []}, {"parallel": 0}, InvalidFilterError, id="no thread"),
        pytest.param(
            lambda todos: {todos: [], Collection(bucket=todos.bucket, id="todos", data={"a": 1}): []},
            {},
            DuplicateObjectError,
            id="two writers",
        ),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_sent(
    kinto_client: Client, todos: Collection[Record], objects: Callable[[Any], Any], options: Any, error: type[Exception]
) -> None:
    given = objects(todos)
    wire = tap(kinto_client)

    with pytest.raises(error):
        kinto_client.bulk_create(given, **options)

    assert wire.requests == []


def test_a_collection_of_another_client_is_refused(kinto_client: Client, todos: Collection[Record]) -> None:
    with pytest.raises(UsageError, match="belongs to another client"):
        kinto_client.clone(bucket="b").bulk_create({todos: []})


def test_a_collection_without_a_client_is_written_by_this_one(kinto_client: Client, todos: Collection[Record]) -> None:
    unbound: Collection[Record] = Collection(bucket="payments", id="todos")

    assert kinto_client.bulk_create({unbound: some(2)})[unbound].created == 2
    assert kinto_client.bulk_create({}) == {}


def test_it_cannot_be_part_of_a_unit_of_work(kinto_client: Client, todos: Collection[Record]) -> None:
    with kinto_client.unit_of_work(), pytest.raises(NotStageableError, match=r"bulk_create\(\)"):
        kinto_client.bulk_create({todos: some(1)})
