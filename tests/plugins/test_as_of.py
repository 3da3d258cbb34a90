"""What records were like (as_of), and going back to that (revert)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from wiretap import answer, scripted_client, tap

from kinto_orm import (
    Bucket,
    CapabilityMissingError,
    Client,
    Collection,
    ConflictError,
    ConnectionLostError,
    ForbiddenError,
    Group,
    HistoryIncompleteError,
    InvalidFilterError,
    InvalidTypeError,
    InvalidValueError,
    NotFoundError,
    NotStageableError,
    PartialObjectError,
    Record,
    UnsavedChangesError,
    UsageError,
)

CAPABLE = answer({"capabilities": {"history": {}}})
NONE = answer({"data": []})


class Todo(Record):
    title: str
    done: bool = False


@pytest.fixture
def times(todos: Collection[Record]) -> list[int]:
    """Four times: after one was created, after two was created, after one was changed, after two was deleted."""
    one = todos.records.create(id="one", data={"n": 1}, permissions={"read": ["system.Everyone"]})
    found = [one.last_modified]
    two = todos.records.create(id="two", data={"n": 1})
    found.append(two.last_modified)
    one.data["n"] = 2
    one.permissions["read"] = []
    one.save()
    found.append(one.last_modified)
    two.delete()
    found.append(two.last_modified)
    assert found == sorted(found, key=lambda time: time or 0)
    return [time for time in found if time is not None]


def contents(records: Any) -> dict[str, Any]:
    return {record.id: dict(record.data) for record in records}


# -- as_of --------------------------------------------------------------------------------------------------------


def test_the_records_as_they_were(todos: Collection[Record], times: list[int]) -> None:
    assert [contents(todos.records.as_of(time)) for time in (times[0] - 1, *times)] == [
        {},
        {"one": {"n": 1}},
        {"one": {"n": 1}, "two": {"n": 1}},
        {"one": {"n": 2}, "two": {"n": 1}},
        {"one": {"n": 2}},
    ]
    assert [todos.records.as_of(time).count() for time in (times[0] - 1, *times)] == [0, 1, 2, 2, 1]
    assert contents(todos.records.as_of(times[-1] + 1000).all()) == {"one": {"n": 2}}


@pytest.mark.parametrize("form", [str, '"{}"'.format, lambda time: datetime.fromtimestamp(time / 1000, UTC)])
def test_a_time_has_every_form_of_a_timestamp(todos: Collection[Record], times: list[int], form: Any) -> None:
    assert todos.records.as_of(form(times[0])).timestamp == times[0]


@pytest.mark.parametrize("wrong", ["yesterday", -1, datetime(2026, 1, 1), None, 1.5])  # noqa: DTZ001
def test_what_is_no_time_is_refused(todos: Collection[Record], wrong: Any) -> None:
    with pytest.raises(InvalidFilterError):
        todos.records.as_of(wrong)


def test_one_record_as_it_was(todos: Collection[Record], times: list[int], kinto_client: Client) -> None:
    then = todos.records.as_of(times[0])

    one = then.get("one")

    assert (one.data, one.last_modified) == ({"n": 1}, times[0])
    assert one.permissions["read"] == {"system.Everyone"}
    assert todos.records.as_of(times[1]).get("two").data == {"n": 1}
    assert todos.records.as_of(times[2]).get("one").data == {"n": 2}
    for missing in (then, todos.records.as_of(times[3])):
        with pytest.raises(NotFoundError):
            missing.get("two")
    with pytest.raises(NotFoundError):
        then.get("never")


def test_an_id_that_was_deleted_and_used_again_is_not_there_in_between(todos: Collection[Record]) -> None:
    """Kinto's snapshot has a tombstone in the place of the record."""
    record = todos.records.create(id="x", data={"n": 1})
    created = record.last_modified or 0
    record.delete()
    deleted = record.last_modified or 0
    todos.records.create(id="x", data={"n": 2})

    assert contents(todos.records.as_of(created)) == {"x": {"n": 1}}
    assert todos.records.as_of(deleted).all() == []
    assert todos.records.as_of(deleted).count() == 0
    with pytest.raises(NotFoundError):
        todos.records.as_of(deleted).get("x")


def test_a_snapshot_asks_when_it_ends_and_each_time_anew(todos: Collection[Record], times: list[int]) -> None:
    client = todos.client
    assert isinstance(client, Client)
    client.server_info()
    wire = tap(client)
    snapshot = todos.records.as_of(times[1])

    assert repr(snapshot) == f"<Snapshot of all records at {times[1]}>"
    assert wire.requests == []
    assert contents(snapshot) == contents(snapshot)
    assert {one.method for one in wire.requests} == {"GET"}
    with pytest.raises(UsageError, match="count"):
        bool(snapshot)


def test_records_of_a_model_are_of_that_model(payments: Bucket, todos: Collection[Record]) -> None:
    typed = Collection(bucket=payments, id="todos", model=Todo)
    todo = typed.records.create(id="x", title="then")
    then = todo.last_modified or 0
    todo.patch(title="now")

    found = typed.records.as_of(then)

    assert [(type(one), one.title) for one in found] == [(Todo, "then")]
    assert found.get("x").title == "then"


def test_a_record_of_then_does_not_overwrite_what_came_since(todos: Collection[Record], times: list[int]) -> None:
    one, two = sorted(todos.records.as_of(times[1]), key=lambda record: record.id)
    one.data["more"] = two.data["more"] = True

    for write in (one.save, one.delete, one.replace, two.replace):
        with pytest.raises(ConflictError):
            write()
    for late in (two.save, two.delete):
        with pytest.raises(NotFoundError):
            late()

    assert contents(todos.records) == {"one": {"n": 2}}
    with pytest.raises(ConflictError) as conflict:
        one.save()
    assert dict(conflict.value.merge().data) == {"n": 2, "more": True}


def test_a_record_of_then_does_not_say_what_is_there_now(todos: Collection[Record], times: list[int]) -> None:
    then = todos.records.as_of(times[0]).get("one")

    with pytest.raises(ConflictError):
        todos.records.revert(then, to=times[0])

    assert contents(todos.records) == {"one": {"n": 2}}


def test_a_record_that_did_not_change_since_is_saved_as_ever(todos: Collection[Record], times: list[int]) -> None:
    (one,) = todos.records.as_of(times[3])

    one.data["n"] = 3
    one.save()

    assert contents(todos.records) == {"one": {"n": 3}}


def test_what_others_than_records_were_like_has_no_snapshot(payments: Bucket, kinto_client: Client) -> None:
    for manager in (payments.collections, payments.groups, kinto_client.buckets):
        with pytest.raises(UsageError, match="for records"):
            manager.as_of(5)


def test_a_snapshot_takes_no_filters(todos: Collection[Record]) -> None:
    assert not hasattr(todos.records.as_of(5), "filter")
    assert not hasattr(todos.records.filter(n=1), "as_of")


def test_a_purged_history_is_not_taken_for_what_was(todos: Collection[Record], times: list[int]) -> None:
    """Kinto leaves out what it does not find."""
    todos.bucket.history.filter(record_id="one").purge()

    assert contents(todos.records.as_of(times[2])) == {"one": {"n": 2}, "two": {"n": 1}}
    for time in times[:2]:
        with pytest.raises(HistoryIncompleteError, match="records/one"):
            todos.records.as_of(time).all()
        with pytest.raises(HistoryIncompleteError, match="records/one"):
            todos.records.as_of(time).get("one")
    assert todos.records.as_of(times[1]).get("two").data == {"n": 1}


def test_a_history_without_its_beginning_is_not_taken_for_what_was(todos: Collection[Record], times: list[int]) -> None:
    todos.bucket.history.filter(action="create", record_id="two").purge()

    with pytest.raises(HistoryIncompleteError, match="records/two"):
        todos.records.as_of(times[1]).count()
    with pytest.raises(HistoryIncompleteError, match="records/two"):
        todos.records.as_of(times[1]).get("two")


def test_a_deleted_collection_takes_its_past_along(
    payments: Bucket, todos: Collection[Record], times: list[int]
) -> None:
    """Kinto forgets the tombstones, but not the history."""
    todos.refresh().delete()
    again = Collection(bucket=payments, id="todos").save()
    between = again.last_modified or 0
    again.records.create(id="one", data={"n": 3})

    with pytest.raises(HistoryIncompleteError, match="collection was deleted"):
        again.records.as_of(times[1]).all()
    assert again.records.as_of(times[1]).get("one").data == {"n": 1}
    assert again.records.as_of(between).all() == []
    with pytest.raises(NotFoundError):
        again.records.as_of(between).get("one")
    assert contents(again.records.as_of(datetime.now(UTC) + timedelta(minutes=1))) == {"one": {"n": 3}}


def test_a_collection_that_is_not_there_has_no_past(payments: Bucket) -> None:
    with pytest.raises(NotFoundError):
        payments.collection("none").records.as_of(5).all()


def test_a_server_without_snapshots_says_so() -> None:
    client = scripted_client(CAPABLE, NONE, answer({"code": 404, "errno": 111}, 404))

    with pytest.raises(CapabilityMissingError, match="snapshots"):
        client.bucket("b").collection("c").records.as_of(5).all()


def test_small_pages_are_all_read() -> None:
    with Client.embedded(settings={"paginate_by": 2}):
        todos = Collection(bucket=Bucket(id="payments").save(), id="todos").save()
        todos.records.bulk_create({"id": f"r{n}", "n": n} for n in range(5))
        then = todos.records.timestamp()
        assert then is not None
        todos.records.filter(min_n=2).update(n=9)
        todos.records.bulk_create({"id": f"s{n}"} for n in range(5))

        assert contents(todos.records.as_of(then)) == {f"r{n}": {"n": n} for n in range(5)}


def test_the_past_of_the_default_bucket(kinto_client: Client) -> None:
    notes = kinto_client.bucket("default").collection("notes")
    note = notes.records.create(id="x", data={"n": 1})
    then = note.last_modified or 0
    note.patch(n=2)

    assert contents(notes.records.as_of(then)) == {"x": {"n": 1}}
    assert notes.records.as_of(then).get("x").data == {"n": 1}
    assert notes.records.revert("x", to=then).data == {"n": 1}
    first = notes.records.history("x").filter(action="update").first()
    assert first is not None
    assert notes.records.revert(note.refresh(), to=first).data == {"n": 1}


def test_who_may_read_the_collection_may_read_its_past(payments: Bucket, kinto_client: Client) -> None:
    bob = kinto_client.clone(auth=("bob", "secret"))
    collection = Collection(bucket=payments, id="shared").save()
    record = collection.records.create(id="x", data={"n": 1})
    hidden = record.last_modified or 0
    collection.permissions.add("read", bob.server_info()["user"]["id"])
    collection.save()
    record.patch(n=2)
    shown = record.last_modified or 0
    record.patch(n=3)
    records = bob.bucket("payments").collection("shared").records

    assert contents(records.as_of(shown)) == {"x": {"n": 2}} == contents([records.as_of(shown).get("x")])
    assert contents(records.as_of(hidden)) == {"x": {"n": 1}}
    with pytest.raises(HistoryIncompleteError, match="may not be seen"):
        records.as_of(hidden).get("x")
    with pytest.raises(ForbiddenError):
        records.revert("x", to=shown)
    with pytest.raises(ForbiddenError):
        bob.bucket("payments").history.purge(everything=True)


def test_the_past_is_awaited(todos: Collection[Record], times: list[int]) -> None:
    async def awaited() -> None:
        snapshot = todos.records.as_of(times[1])

        assert contents([one async for one in snapshot]) == contents(await snapshot.aall()) == contents(snapshot)
        assert await snapshot.acount() == 2
        assert (await snapshot.aget("one")).data == {"n": 1}
        assert (await todos.records.arevert("one", to=times[0])).data == {"n": 1}

    asyncio.run(awaited())


# -- revert -------------------------------------------------------------------------------------------------------


def test_a_record_goes_back_to_what_it_was(todos: Collection[Record], times: list[int], kinto_client: Client) -> None:
    record = todos.records.get("one")
    seen = record.last_modified
    wire = tap(kinto_client)

    reverted = todos.records.revert(record, to=times[0])

    assert reverted is record
    assert (record.data, record.permissions["read"], record.is_dirty) == ({"n": 1}, {"system.Everyone"}, False)
    assert wire.said[-1] == f'PUT If-Match: "{seen}"'
    again = todos.records.get("one")
    assert (again, again.last_modified, again.permissions) == (record, record.last_modified, record.permissions)
    assert again.last_modified is not None
    assert again.last_modified > times[2]


def test_a_record_goes_back_to_an_entry_of_its_history(todos: Collection[Record], times: list[int]) -> None:
    entry = todos.records.history("one").filter(action="create").first()
    assert entry is not None

    assert todos.records.revert("one", to=entry).data == {"n": 1}


@pytest.mark.parametrize("by", ["id", "reference"])
def test_what_was_not_seen_is_read_first(
    payments: Bucket, todos: Collection[Record], kinto_client: Client, by: str
) -> None:
    seen = todos.last_modified
    todos.patch(sort="n")
    last = todos.last_modified
    assert seen is not None
    wire = tap(kinto_client)
    one = "todos" if by == "id" else payments.collection("todos")

    reverted = payments.collections.revert(one, to=seen)

    assert (reverted.sort, reverted.is_dirty) == (None, False)
    assert (reverted is one) is (by == "reference")
    assert wire.said[-1] == f'PUT If-Match: "{last}"'


def test_somebody_s_newer_change_is_not_lost(todos: Collection[Record], times: list[int]) -> None:
    record = todos.records.get("one")
    todos.records.get("one").patch(n=3)

    with pytest.raises(ConflictError) as conflict:
        todos.records.revert(record, to=times[0])

    assert (conflict.value.mine, conflict.value.theirs) == ({"n": 1}, {"n": 3})
    assert contents(todos.records) == {"one": {"n": 3}}
    assert (record.data, record.is_dirty) == ({"n": 2}, False)
    assert conflict.value.overwrite() is record
    assert contents(todos.records) == {"one": {"n": 1}} == contents([record])


def test_a_deletion_that_was_not_seen_is_not_undone(todos: Collection[Record], times: list[int]) -> None:
    record = todos.records.get("one")
    todos.records.get("one").delete()

    with pytest.raises(ConflictError):
        todos.records.revert(record, to=times[0])

    assert not todos.records.exists()


@pytest.mark.parametrize("by", ["id", "tombstone"])
def test_a_deleted_record_is_created_again(
    todos: Collection[Record], times: list[int], kinto_client: Client, by: str
) -> None:
    record = todos.records.get("one").delete()
    wire = tap(kinto_client)

    reverted = todos.records.revert(record if by == "tombstone" else "one", to=times[0])

    assert wire.said[-1] == "PUT If-None-Match: *"
    assert (reverted.data, reverted.permissions["read"]) == ({"n": 1}, {"system.Everyone"})
    assert (reverted.is_deleted, reverted.is_dirty, reverted.is_new) == (False, False, False)
    assert (reverted is record) is (by == "tombstone")
    reverted.patch(n=5)
    assert contents(todos.records) == {"one": {"n": 5}}


def test_a_record_that_somebody_else_created_again_stays(todos: Collection[Record], times: list[int]) -> None:
    record = todos.records.get("one").delete()
    todos.records.create(id="one", data={"n": 7})

    with pytest.raises(ConflictError):
        todos.records.revert(record, to=times[0])

    assert contents(todos.records) == {"one": {"n": 7}}
    assert record.is_deleted


def test_what_is_as_it_was_is_not_written(todos: Collection[Record], times: list[int], kinto_client: Client) -> None:
    same = todos.records.revert("one", to=times[0])
    wire = tap(kinto_client)

    assert todos.records.revert("one", to=times[0]) == same
    assert todos.records.revert("one", to=times[-1] + 10**6).last_modified == same.last_modified
    assert set(wire.said) == {"GET"}


def test_permissions_alone_are_reverted(todos: Collection[Record], times: list[int]) -> None:
    record = todos.records.get("one")
    before = record.last_modified or 0
    record.permissions["read"] = ["account:bob"]
    record.save()

    assert todos.records.revert("one", to=before).permissions["read"] == set()


def test_what_was_not_there_cannot_come_back(todos: Collection[Record], times: list[int]) -> None:
    two = todos.records.history("two").first()
    assert two is not None

    for to in (times[0], times[3], two):
        with pytest.raises(UsageError, match="did not exist then"):
            todos.records.revert("two", to=to)
    with pytest.raises(UsageError, match="did not exist then"):
        todos.records.revert("never", to=times[3])

    assert contents(todos.records) == {"one": {"n": 2}}


def test_a_history_that_does_not_reach_back_is_no_reason_to_write(todos: Collection[Record], times: list[int]) -> None:
    todos.bucket.history.filter(record_id="one").purge()

    with pytest.raises(HistoryIncompleteError):
        todos.records.revert("one", to=times[0])

    assert contents(todos.records) == {"one": {"n": 2}}


def test_local_changes_are_not_dropped(todos: Collection[Record], times: list[int], kinto_client: Client) -> None:
    record = todos.records.get("one")
    record.data["n"] = 8
    wire = tap(kinto_client)

    with pytest.raises(UnsavedChangesError):
        todos.records.revert(record, to=times[0])
    with pytest.raises(UnsavedChangesError):
        todos.records.revert(Record(collection=todos, id="one", data={"n": 9}), to=times[0])

    assert wire.requests == []
    assert record.data == {"n": 8}


def test_objects_that_cannot_be_reverted_are_refused(
    payments: Bucket, todos: Collection[Record], times: list[int], kinto_client: Client
) -> None:
    (partial,) = todos.records.only("n")
    stranger = Collection(bucket=payments, id="other").save().records.create(id="one")
    entry = stranger.collection.records.history("one").first()
    assert entry is not None
    wire = tap(kinto_client)

    with pytest.raises(PartialObjectError):
        todos.records.revert(partial, to=times[0])
    with pytest.raises(InvalidTypeError):
        todos.records.revert(stranger, to=times[0])
    with pytest.raises(InvalidValueError, match="an entry of"):
        todos.records.revert("one", to=entry)
    with pytest.raises(InvalidValueError):
        todos.records.revert("one", to="yesterday")
    with pytest.raises(NotStageableError), kinto_client.unit_of_work():
        todos.records.revert("one", to=times[0])

    assert wire.requests == []


def test_a_version_that_does_not_fit_its_model_is_not_written(payments: Bucket, todos: Collection[Record]) -> None:
    plain = todos.records.create(id="x", data={"titel": "misspelled"})
    then = plain.last_modified or 0
    plain.replace()
    plain.data = {"title": "right"}
    plain.replace()
    typed = Collection(bucket=payments, id="todos", model=Todo)

    with pytest.raises(InvalidValueError, match="wrote nothing"):
        typed.records.revert("x", to=then)

    assert contents(todos.records) == {"x": {"title": "right"}}


def test_what_does_not_fit_its_model_goes_back_to_what_does(payments: Bucket, todos: Collection[Record]) -> None:
    typed = Collection(bucket=payments, id="todos", model=Todo)
    then = typed.records.create(id="x", title="right").last_modified
    assert then is not None
    todos.records.get("x").patch(title=5)

    assert typed.records.revert("x", to=then).title == "right"


def test_the_schema_s_timestamp_is_left_to_the_server(payments: Bucket) -> None:
    collection = Collection(bucket=payments, id="strict", data={"schema": {"type": "object"}}).save()
    record = collection.records.create(id="x", data={"n": 1})
    then = record.last_modified or 0
    record.patch(n=2)
    collection.schema_ = {"type": "object", "title": "another"}
    collection.save()

    reverted = collection.records.revert(record, to=then)

    assert reverted.data == {"n": 1, "schema": collection.last_modified}
    assert collection.records.revert("x", to=then).last_modified == reverted.last_modified


def test_groups_collections_and_buckets_go_back_too(kinto_client: Client, payments: Bucket) -> None:
    group = Group(bucket=payments, id="staff", members=["account:bob"]).save()
    collection = Collection(bucket=payments, id="c", data={"sort": "n"}).save()
    before = [one.last_modified or 0 for one in (group, collection, payments)]
    group.members = []
    group.save()
    collection.delete()
    payments.data["title"] = "new"
    payments.save()

    assert payments.groups.revert(group, to=before[0]).members == ["account:bob"]
    assert payments.collections.revert("c", to=before[1]).sort == "n"
    assert kinto_client.buckets.revert("payments", to=before[2]).data == {}


def test_after_a_lost_answer_the_revert_finds_its_own_write(todos: Collection[Record], times: list[int]) -> None:
    client = todos.client
    assert isinstance(client, Client)
    record = todos.records.get("one")
    wire = tap(client)
    real = wire.send

    def lose(request: Any) -> Any:
        response = real(request)
        if request.method == "PUT":
            raise ConnectionLostError("the answer got lost")
        return response

    wire.send = lose  # type: ignore[method-assign]
    with pytest.raises(ConnectionLostError):
        todos.records.revert(record, to=times[0])
    wire.send = real  # type: ignore[method-assign]

    assert todos.records.revert(record, to=times[0]).data == {"n": 1}
    assert todos.records.history("one").count() == 3
