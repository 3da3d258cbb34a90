"""Many objects in full batches, on a real Kinto."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from wiretap import Wiretap

from kinto_orm import (
    Client,
    Collection,
    CommitError,
    ConflictError,
    DeletedObjectError,
    InvalidIdError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    Outcome,
    Record,
)


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False


def rows(count: int) -> Iterator[dict[str, Any]]:
    return ({"id": f"r{number:02}", "title": f"t{number}"} for number in range(count))


def sizes(wire: Wiretap) -> list[int]:
    """How many operations each batch had."""
    return [
        len(body["requests"])
        for request, body in zip(wire.requests, wire.bodies, strict=True)
        if request.path == "/batch"
    ]


def test_sixty_records_are_created_in_three_batches(todos: Collection[Record], wire: Wiretap) -> None:
    report = todos.records.bulk_create(rows(60))

    assert sizes(wire) == [25, 25, 10]
    assert (report.created, report.stored, report.failed) == (60, 60, [])
    assert todos.records.count() == 60


def test_a_generator_is_read_one_batch_at_a_time(todos: Collection[Record], wire: Wiretap) -> None:
    stored: list[int] = []

    def source() -> Iterator[Mapping[str, Any]]:
        for number, row in enumerate(rows(51)):
            if number % 25 == 0:
                stored.append(todos.records.count())
            yield row

    todos.records.bulk_create(source())

    assert stored == [0, 25, 50]


def test_objects_and_mappings_are_taken(todos: Collection[Record], wire: Wiretap) -> None:
    given = [Record(data={"n": 1}), {"n": 2}, Record(collection=todos, id="three", data={"n": 3})]

    report = todos.records.bulk_create(given)

    assert report.created == 3
    assert sorted(record.data["n"] for record in todos.records) == [1, 2, 3]
    assert isinstance(given[0], Record)
    assert not given[0].is_dirty


def test_typed_records_are_created_by_their_own_manager(kinto_client: Client, wire: Wiretap) -> None:
    Todo.records.bulk_create([Todo(title="a"), {"title": "b"}])

    assert sorted(todo.title for todo in Todo.records) == ["a", "b"]


def test_each_outcome_is_told(todos: Collection[Record]) -> None:
    told: list[str] = []

    todos.records.bulk_create(rows(3), on_outcome=lambda one: told.append(f"{one.object.id} {one.status}"))

    assert told == ["r00 created", "r01 created", "r02 created"]


def test_one_that_exists_fails_alone_and_is_reported_at_the_end(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.create(id="r30", data={"title": "mine"})

    with pytest.raises(CommitError, match="bulk_create: failed for 1, stored for 59 objects") as caught:
        todos.records.bulk_create(rows(60))

    ((outcome),) = caught.value.outcomes
    assert (outcome.status, outcome.object.id) == ("conflict", "r30")
    assert todos.records.count() == 60
    assert todos.records.get("r30").data == {"title": "mine"}


def test_a_conflict_of_a_bulk_can_be_resolved(todos: Collection[Record]) -> None:
    todos.records.create(id="r00", data={"title": "mine"})

    with pytest.raises(CommitError) as caught:
        todos.records.bulk_create(rows(1))
    caught.value.outcomes[0].error.overwrite()

    assert todos.records.get("r00").data == {"title": "t0"}


def test_two_rows_of_one_id_are_created_once(todos: Collection[Record]) -> None:
    with pytest.raises(CommitError) as caught:
        todos.records.bulk_create([{"id": "x", "n": 1}, {"id": "x", "n": 2}])

    assert [type(one.error) for one in caught.value.outcomes] == [ConflictError]
    assert todos.records.get("x").data == {"n": 1}


def test_only_changed_objects_are_sent_in_full_batches(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.bulk_create(rows(60))
    records = todos.records.all()
    for record in records[::2]:
        record.data["done"] = True
    wire.requests.clear()

    report = todos.records.bulk_update(records)

    assert sizes(wire) == [25, 5]
    assert (report.updated, report.unchanged) == (30, 30)
    assert not any(record.is_dirty for record in records)


def test_a_stale_object_of_a_bulk_update_stays_dirty(todos: Collection[Record]) -> None:
    todos.records.bulk_create(rows(30))
    records = todos.records.all()
    todos.records.get("r20").patch(title="theirs")
    for record in records:
        record.data["n"] = 1

    with pytest.raises(CommitError) as caught:
        todos.records.bulk_update(records)

    assert [one.object.id for one in caught.value.outcomes] == ["r20"]
    assert [record.id for record in records if record.is_dirty] == ["r20"]
    assert todos.records.filter(n=1).count() == 29


def test_the_same_object_twice_is_written_once(todos: Collection[Record]) -> None:
    record = todos.records.create(data={"n": 1})
    record.data["n"] = 2

    with pytest.raises(CommitError, match="was given twice"):
        todos.records.bulk_update([record, record])

    assert todos.records.get(record.id).data == {"n": 2}


def test_objects_are_deleted_in_full_batches(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.bulk_create(rows(30))
    records = todos.records.all()
    wire.requests.clear()

    report = todos.records.bulk_delete(records)

    assert sizes(wire) == [25, 5]
    assert report.deleted == 30
    assert all(record.is_deleted for record in records)


def test_what_was_changed_meanwhile_is_not_deleted(todos: Collection[Record]) -> None:
    todos.records.bulk_create(rows(3))
    records = todos.records.all()
    todos.records.get("r01").patch(title="theirs")

    with pytest.raises(CommitError) as caught:
        todos.records.bulk_delete(records)

    assert [one.status for one in caught.value.outcomes] == ["conflict"]
    assert [record.id for record in todos.records] == ["r01"]


def test_a_deleted_object_among_others_fails_alone(todos: Collection[Record]) -> None:
    gone, there = (todos.records.create(id=id) for id in "ab")
    gone.delete()

    with pytest.raises(CommitError) as caught:
        todos.records.bulk_delete([gone, there])

    assert [type(one.error) for one in caught.value.outcomes] == [DeletedObjectError]
    assert there.is_deleted


def test_a_query_updates_what_it_selects(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.bulk_create(rows(60))
    wire.requests.clear()

    report = todos.records.filter(max_title="t4").update(done=True)

    changed = todos.records.filter(done=True).count()
    assert (report.updated, sum(sizes(wire))) == (changed, changed)
    assert 0 < changed < 60


def test_a_query_updates_by_a_function_and_sends_what_changed(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.bulk_create([{"n": 1}, {"n": 2}])

    def change(record: Record) -> None:
        record.data["n"] = 2

    report = todos.records.page_size(1).update(change)

    assert (report.updated, report.unchanged) == (1, 1)


def test_what_a_function_raises_says_what_is_stored(todos: Collection[Record]) -> None:
    todos.records.bulk_create(rows(30))

    def change(record: Record) -> None:
        record.data["n"] = 1 // (27 - int(record.id[1:]))

    with pytest.raises(ZeroDivisionError) as caught:
        todos.records.update(change)

    assert caught.value.__notes__[0].startswith("27 objects were stored before this")


@pytest.mark.parametrize(
    ("invalid", "error", "message"),
    [
        pytest.param({"id": "bad"}, InvalidValueError, r"item 40 \(id 'bad'\): Todo: title: Field", id="value"),
        pytest.param({"title": "x", "id": "a/b"}, InvalidIdError, r"item 40 \(id 'a/b'\)", id="id"),
        pytest.param({"title": "x", "dona": 1}, KintoError, "item 40: .*'dona'", id="unknown key"),
        pytest.param({1: "x"}, KintoError, "item 40", id="a key that is no text"),
        pytest.param(Collection(bucket="b", id="c"), InvalidTypeError, r"item 40 .*is no Todo", id="another kind"),
        pytest.param(None, InvalidTypeError, "item 40: None is no Todo", id="none"),
        pytest.param("a", InvalidTypeError, r"item 40: 'a' is no Todo\. .* ref\(id\)", id="an id"),
    ],
)
def test_k04_an_invalid_item_is_refused_alone(
    invalid: Any, error: type[Exception], message: str, kinto_client: Client, todos: Collection[Record]
) -> None:
    given = [{"title": str(n)} for n in range(99)]
    told: list[Outcome[Todo]] = []

    with pytest.raises(CommitError, match=message) as caught:
        Todo.records.bulk_create([*given[:40], invalid, *given[40:]], on_outcome=told.append)

    ((refused),) = caught.value.outcomes
    assert (refused.status, refused.object) == ("rejected", invalid)
    assert isinstance(refused.error, error)
    assert (caught.value.report.created, len(told), told.index(refused)) == (99, 100, 40)
    assert Todo.records.count() == 99


def test_k04_an_invalid_item_does_not_end_a_stream(kinto_client: Client, todos: Collection[Record]) -> None:
    given = [{"title": "a"}, {"title": 5}, {"title": "c"}]

    assert [one.status for one in Todo.records.stream_create(given)] == ["created", "rejected", "created"]
    with pytest.raises(CommitError, match=r"failed for 1, stored for 2 .*item 1: Todo: title: "):
        kinto_client.bulk_create({kinto_client.bucket("payments").collection(Todo): given})


def test_k05_what_a_callback_raises_says_all_that_is_stored(todos: Collection[Record]) -> None:
    def stop(outcome: Outcome[Record]) -> None:
        if outcome.object.id == "r30":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        todos.records.bulk_create(rows(60), on_outcome=stop)

    assert todos.records.count() == 50
    assert caught.value.__notes__[0].startswith("50 objects were stored before this")


@pytest.mark.parametrize("one", [{"title": "x"}, Record(data={})], ids=["mapping", "object"])
def test_one_object_is_not_many(one: Any, todos: Collection[Record]) -> None:
    with pytest.raises(InvalidTypeError, match="takes many objects, not one"):
        todos.records.bulk_create(one)


def test_the_awaited_twins_do_the_same(todos: Collection[Record]) -> None:
    async def work() -> tuple[int, int, int]:
        created = await todos.records.abulk_create(rows(3))
        records = await todos.records.aall()
        records[0].data["n"] = 1
        updated = await todos.records.abulk_update(records)
        deleted = await todos.records.abulk_delete(records)
        return created.created, updated.updated, deleted.deleted

    assert asyncio.run(work()) == (3, 1, 3)


@pytest.mark.parametrize("verb", ["bulk_create", "bulk_update", "bulk_delete"])
def test_objects_of_another_collection_are_refused(verb: str, todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.bulk_create(rows(2))
    archive = Collection(bucket=todos.bucket, id="archive").save()
    sent = len(wire.requests)

    with pytest.raises(CommitError, match=r"is not of /buckets/.*/archive/records: .* data"):
        getattr(archive.records, verb)(list(todos.records.all()))

    assert [request for request in wire.requests[sent:] if request.is_write] == []
    assert (todos.records.count(), archive.records.count()) == (2, 0)


def test_a_copy_of_the_data_goes_to_the_other_collection(todos: Collection[Record]) -> None:
    todos.records.bulk_create(rows(2))
    archive = Collection(bucket=todos.bucket, id="archive").save()

    archive.records.bulk_create({"id": one.id, **one.data} for one in todos.records)

    assert [one.data["title"] for one in archive.records] == ["t0", "t1"]


@pytest.mark.parametrize("verb", ["bulk_update", "bulk_delete"])
@pytest.mark.parametrize("one", [{"id": "r00"}, Record(id="r00")], ids=["mapping", "new"])
def test_only_what_was_loaded_is_updated_or_deleted_in_bulk(verb: str, one: Any, todos: Collection[Record]) -> None:
    todos.records.bulk_create(rows(1))

    with pytest.raises(CommitError, match=rf"{verb}.. takes loaded objects"):
        getattr(todos.records, verb)([one])

    assert [one.data["title"] for one in todos.records] == ["t0"]


@pytest.mark.parametrize("wrong", [None, 5])
def test_what_cannot_be_iterated_is_refused(wrong: Any, todos: Collection[Record]) -> None:
    with pytest.raises(InvalidTypeError, match=r"bulk_create.. takes many objects"):
        todos.records.bulk_create(wrong)


def test_progress_of_a_bulk_verb_is_told(kinto_client: Client, todos: Collection[Record]) -> None:
    told: list[Any] = []

    todos.records.bulk_create(rows(30), progress=lambda *args: told.append(args))
    todos.records.bulk_delete(todos.records.all(), progress=lambda *args: told.append(args))
    kinto_client.bulk_create({todos: list(rows(30))}, progress=lambda *args: told.append(args))

    assert told == [(done, total, "write records") for total in (None, 30, 30) for done in (25, 30)]
