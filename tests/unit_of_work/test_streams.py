"""Objects in, one outcome for each out, a batch at a time."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from lossy import LossyAdapter, lossy
from wiretap import Wiretap

from kinto_orm import (
    Client,
    Collection,
    ConflictError,
    DeletedObjectError,
    DuplicateObjectError,
    InvalidTypeError,
    Manager,
    NotStageableError,
    Outcome,
    Record,
)
from kinto_orm.server import EmbeddedServer

BATCH = 25


def numbered(count: int) -> Iterator[dict[str, Any]]:
    return ({"id": f"r{n:03}", "n": n} for n in range(count))


def batches(wire: Wiretap) -> list[int]:
    return [len(body["requests"]) for body in wire.bodies if body]


def make(todos: Collection[Record], count: int) -> list[Record]:
    return [outcome.object for outcome in todos.records.stream_create(numbered(count))]


# -- what comes out -------------------------------------------------------------------------------------------------


def test_each_object_has_its_outcome_in_its_order(todos: Collection[Record], wire: Wiretap) -> None:
    outcomes = list(todos.records.stream_create(numbered(60)))

    assert [one.object.data["n"] for one in outcomes] == list(range(60))
    assert {one.status for one in outcomes} == {"created"}
    assert batches(wire) == [25, 25, 10]
    assert todos.records.count() == 60


def test_changed_objects_are_saved_and_clean_ones_keep_their_place(todos: Collection[Record], wire: Wiretap) -> None:
    records = make(todos, 60)
    for record in records[::2]:
        record.data["done"] = True
    wire.requests.clear()

    outcomes = list(todos.records.stream_update(records))

    assert [one.object for one in outcomes] == records
    assert [one.status for one in outcomes] == ["updated", "unchanged"] * 30
    assert batches(wire) == [25, 5]


def test_objects_are_deleted(todos: Collection[Record], wire: Wiretap) -> None:
    records = make(todos, 30)
    wire.requests.clear()

    outcomes = list(todos.records.stream_delete(records))

    assert [(one.object, one.status) for one in outcomes] == [(record, "deleted") for record in records]
    assert batches(wire) == [25, 5]
    assert todos.records.count() == 0


def test_what_fails_does_not_stop_the_rest(todos: Collection[Record], wire: Wiretap) -> None:
    first, stale, deleted = make(todos, 3)
    todos.records.get(stale.id).patch(n=9)
    deleted.delete()
    for record in (first, stale):
        record.data["done"] = True

    created = list(todos.records.stream_create([{"id": "r000"}, {"id": "new"}, deleted]))
    updated = list(todos.records.stream_update([stale, first]))

    assert [one.status for one in created] == ["conflict", "created", "rejected"]
    assert isinstance(created[2].error, DeletedObjectError)
    assert [one.status for one in updated] == ["conflict", "updated"]


def test_an_object_that_is_given_twice_is_written_once(todos: Collection[Record], wire: Wiretap) -> None:
    (record,) = make(todos, 1)
    record.data["n"] = 2

    first, second = todos.records.stream_update([record, record])

    assert (first.status, second.status) == ("updated", "rejected")
    assert isinstance(second.error, DuplicateObjectError)


def test_a_conflict_of_a_stream_can_be_resolved(todos: Collection[Record], wire: Wiretap) -> None:
    (record,) = make(todos, 1)
    todos.records.get("r000").patch(m=1)
    record.data["n"] = 2

    (outcome,) = todos.records.stream_update([record])

    assert isinstance(outcome.error, ConflictError)
    outcome.error.merge()
    assert dict(todos.records.get("r000").data) == {"n": 2, "m": 1}


# -- as they come ---------------------------------------------------------------------------------------------------


class Input:
    """Rows without end, and how many of them were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            self.taken += 1
            yield {"n": self.taken}


def test_nothing_is_taken_or_sent_before_it_is_asked_for(todos: Collection[Record], wire: Wiretap) -> None:
    given = Input()

    stream = todos.records.stream_create(given)

    assert (given.taken, wire.requests) == (0, [])
    next(iter(stream))
    assert (given.taken, batches(wire)) == (BATCH, [BATCH])


def test_a_stream_that_is_left_leaves_the_rest_alone(todos: Collection[Record], wire: Wiretap) -> None:
    given = Input()

    for outcome in todos.records.stream_create(given):
        if outcome.object.data["n"] == 30:
            break

    assert (given.taken, batches(wire)) == (2 * BATCH, [BATCH, BATCH])
    assert todos.records.count() == 2 * BATCH


def test_a_stream_holds_one_batch(todos: Collection[Record]) -> None:
    made: list[weakref.ref[Record]] = []

    def given() -> Iterator[Record]:
        for n in range(8 * BATCH):
            record = Record(collection=todos, data={"n": n})
            made.append(weakref.ref(record))
            yield record

    most = 0
    for number, _ in enumerate(todos.records.stream_create(given())):
        if number % BATCH == 0:
            gc.collect()
            most = max(most, sum(one() is not None for one in made))

    assert most <= 2 * BATCH + 1


def test_many_clean_objects_do_not_pile_up(todos: Collection[Record], wire: Wiretap) -> None:
    (record,) = make(todos, 1)
    taken = 0

    def given() -> Iterator[Record]:
        nonlocal taken
        while True:
            taken += 1
            yield record

    next(iter(todos.records.stream_update(given())))

    assert taken <= 1000


# -- what goes wrong ------------------------------------------------------------------------------------------------


def test_what_the_input_raises_comes_after_the_outcomes_of_what_was_before_it(
    todos: Collection[Record], wire: Wiretap
) -> None:
    def given() -> Iterator[dict[str, Any]]:
        yield from numbered(30)
        raise ZeroDivisionError

    outcomes: list[Outcome[Record]] = []

    def read() -> None:
        for outcome in todos.records.stream_create(given()):
            outcomes.append(outcome)  # noqa: PERF402  the ones before the error are looked at

    with pytest.raises(ZeroDivisionError):
        read()

    assert [one.status for one in outcomes] == ["created"] * 30
    assert todos.records.count() == 30


@pytest.fixture
def network(kinto_server: EmbeddedServer, todos: Collection[Record]) -> Iterator[tuple[Client, LossyAdapter]]:
    client, adapter = lossy(kinto_server, bucket="payments", collection="todos", retry=0)
    client.server_info()
    yield client, adapter
    client.close()


def records_of(client: Client) -> Manager[Record]:
    return client.bucket("payments").collection("todos").records


@pytest.mark.parametrize("fault", ["lost before", "lost after"])
def test_what_a_lost_connection_left_is_given_again(
    fault: Any, network: tuple[Client, LossyAdapter], todos: Collection[Record]
) -> None:
    client, adapter = network
    given = iter([Record(client=client, data={"n": n}) for n in range(80)])
    adapter.plan.extend(["ok", fault])

    first = list(records_of(client).stream_create(given))
    left = [one.object for one in first if not one.is_stored]
    second = list(records_of(client).stream_create([*left, *given]))

    assert [one.status for one in first] == ["created"] * 25 + ["unknown"] * 25
    assert [one.status for one in second] == ["created"] * 55
    assert [one.reconciled for one in second] == [fault == "lost after"] * 25 + [False] * 30
    assert sorted(record.data["n"] for record in todos.records) == list(range(80))


@pytest.mark.parametrize("fault", ["lost before", "lost after"])
@pytest.mark.parametrize("verb", ["stream_update", "stream_delete"])
def test_changes_that_a_lost_connection_left_are_given_again(
    verb: str, fault: Any, network: tuple[Client, LossyAdapter], todos: Collection[Record]
) -> None:
    client, adapter = network
    make(todos, 30)
    records = [record for record in records_of(client)]  # noqa: C416  a copy
    for record in records:
        record.data["done"] = True
    adapter.plan.append(fault)
    stream: Callable[[Iterable[Record]], Iterator[Outcome[Record]]] = getattr(records_of(client), verb)
    given = iter(records)

    first = list(stream(given))
    second = list(stream([*[one.object for one in first if not one.is_stored], *given]))

    assert [one.status for one in first] == ["unknown"] * 25
    assert all(one.is_stored for one in second)
    assert len(second) == 30
    expected = 30 if verb == "stream_update" else 0
    assert len([record for record in todos.records if record.data.get("done")]) == expected


def test_a_batch_that_the_server_undid_is_sent_again_by_itself(
    kinto_server: EmbeddedServer, todos: Collection[Record]
) -> None:
    client, adapter = lossy(kinto_server, retry=2)
    adapter.plan.extend(["503", "409"])

    outcomes = list(records_of(client).stream_create(numbered(30)))

    assert {one.status for one in outcomes} == {"created"}
    client.close()


@pytest.mark.parametrize("verb", ["stream_create", "stream_update", "stream_delete"])
@pytest.mark.parametrize("wrong", [5, {"n": 1}])
def test_what_is_not_many_is_refused(verb: str, wrong: Any, todos: Collection[Record]) -> None:
    with pytest.raises(InvalidTypeError, match="takes many"):
        next(getattr(todos.records, verb)(wrong))


@pytest.mark.parametrize("verb", ["stream_update", "stream_delete"])
def test_only_what_was_loaded_is_changed(verb: str, todos: Collection[Record]) -> None:
    (refused,) = getattr(todos.records, verb)([Record(collection=todos, id="x")])

    assert refused.status == "rejected"
    assert isinstance(refused.error, InvalidTypeError)
    assert "takes loaded objects" in str(refused.error)


def test_a_unit_of_work_takes_no_stream(kinto_client: Client, todos: Collection[Record]) -> None:
    with kinto_client.unit_of_work(), pytest.raises(NotStageableError, match="stream_create"):
        next(todos.records.stream_create([{"n": 1}]))


# -- awaited --------------------------------------------------------------------------------------------------------


def test_streams_are_awaited(todos: Collection[Record], wire: Wiretap) -> None:
    async def all_three() -> list[list[str]]:
        created = [one async for one in todos.records.astream_create(numbered(30))]
        for one in created:
            one.object.data["done"] = True
        updated = [one async for one in todos.records.astream_update(one.object for one in created)]
        deleted = [one async for one in todos.records.astream_delete(one.object for one in updated)]
        return [sorted({one.status for one in each}) for each in (created, updated, deleted)]

    assert asyncio.run(all_three()) == [["created"], ["updated"], ["deleted"]]
    assert batches(wire) == [25, 5] * 3
