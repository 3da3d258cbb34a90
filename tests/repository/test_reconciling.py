"""What becomes of writes whose answer gets lost, on a real Kinto behind a network that loses things."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from lossy import Fault, LossyAdapter, lossy

from kinto_orm import (
    AmbiguousWriteError,
    BasicPatch,
    Bucket,
    Client,
    Collection,
    CommitError,
    ConflictError,
    ConnectionLostError,
    Group,
    JSONPatch,
    MergePatch,
    NotFoundError,
    ProtocolError,
    Record,
    ServerError,
    UnauthorizedError,
)
from kinto_orm.protocol.json_values import decode
from kinto_orm.protocol.messages import Request
from kinto_orm.server import EmbeddedServer

AFTER: list[Fault] = ["lost after", "502 after", "500 after"]


@pytest.fixture
def record(client: Client) -> Record:
    return Record(id="one", data={"n": 1, "q": 1, "l": []}, client=client).save()


def history(todos: Collection[Record], id: str = "one") -> list[str]:
    """Return the actions on the record, the last first."""
    client = todos.client
    assert client is not None
    transport = client._connection.transport  # type: ignore[attr-defined]  # it is a Client
    answer = transport.send(Request("GET", "/buckets/payments/history", query=f"record_id=%22{id}%22"))
    return [entry["action"] for entry in decode(answer.body, "history")["data"]]


WRITES = [
    pytest.param(lambda one: one.patch(n=2), {"n": 2, "q": 1, "l": []}, id="patch"),
    pytest.param(lambda one: one.patch(MergePatch({"q": None})), {"n": 1, "l": []}, id="merge-patch"),
    pytest.param(
        lambda one: one.patch(JSONPatch([{"op": "add", "path": "/data/l/-", "value": 7}])),
        {"n": 1, "q": 1, "l": [7]},
        id="json-patch",
    ),
    pytest.param(lambda one: edited(one, n=2).save(), {"n": 2, "q": 1, "l": []}, id="save"),
    pytest.param(lambda one: edited(one, n=2).replace(), {"n": 2, "q": 1, "l": []}, id="replace"),
]


def edited(one: Record, **values: Any) -> Record:
    one.data.update(values)
    return one


@pytest.mark.parametrize("fault", AFTER)
@pytest.mark.parametrize(("write", "expected"), WRITES)
def test_a_change_whose_answer_is_lost_is_made_once(
    record: Record,
    adapter: LossyAdapter,
    todos: Collection[Record],
    fault: Fault,
    write: Callable[[Record], Any],
    expected: Any,
) -> None:
    adapter.plan.append(fault)

    write(record)

    assert dict(record.data) == expected
    assert not record.is_dirty
    assert dict(todos.records.get("one").data) == expected
    assert record.last_modified == todos.records.get("one").last_modified
    assert history(todos) == ["update", "create"]
    assert adapter.sent[-1] == adapter.sent[-2]


@pytest.mark.parametrize("fault", AFTER)
def test_a_creation_whose_answer_is_lost_is_made_once(
    client: Client, adapter: LossyAdapter, todos: Collection[Record], fault: Fault
) -> None:
    adapter.plan.append(fault)

    record = Record(data={"x": 1.1}).save()

    assert [dict(one.data) for one in todos.records] == [{"x": 1.1}]
    assert (record.is_new, record.is_dirty) == (False, False)


def test_a_creation_with_permissions_is_recognised_by_them_too(client: Client, adapter: LossyAdapter) -> None:
    adapter.plan.append("lost after")

    record = Record(id="one", permissions={"read": ["system.Everyone"]}).save()

    assert "system.Everyone" in record.permissions["read"]


@pytest.mark.parametrize("fault", AFTER)
def test_a_deletion_whose_answer_is_lost_is_made_once(
    record: Record, adapter: LossyAdapter, todos: Collection[Record], fault: Fault
) -> None:
    adapter.plan.append(fault)

    assert record.delete().is_deleted

    assert history(todos) == ["delete", "create"]


def test_the_deletion_of_a_bucket_is_recognised_although_kinto_then_says_403(
    client: Client, adapter: LossyAdapter
) -> None:
    bucket = Bucket(id="other", client=client).save()
    adapter.plan.append("lost after")

    assert bucket.delete().is_deleted


def test_a_deletion_that_is_forbidden_stays_so(kinto_server: EmbeddedServer, payments: Bucket) -> None:
    payments.permissions.add("read", "system.Everyone")
    payments.save()
    stranger, adapter = lossy(kinto_server, auth=("bob", "x"))
    adapter.plan.append("lost after")

    with stranger, pytest.raises(AmbiguousWriteError, match="403"):
        stranger.buckets.get("payments").delete()

    stranger.close()


def test_get_or_create_knows_its_own_creation(client: Client, adapter: LossyAdapter) -> None:
    adapter.plan.append("lost after")

    record, created = client.bucket("payments").collection("todos").records.get_or_create("x", {"n": 1})

    assert (created, dict(record.data)) == (True, {"n": 1})


def test_what_somebody_else_wrote_in_between_is_a_conflict(
    record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    adapter.plan.append(lambda: todos.records.get("one").patch(n=9))

    with pytest.raises(ConflictError) as caught:
        record.patch(n=2)

    assert (caught.value.theirs or {})["n"] == 9


@pytest.mark.parametrize("write", [lambda one: one.replace(safe=False), lambda one: one.delete(safe=False)])
def test_a_forced_write_is_not_sent_again(
    record: Record, adapter: LossyAdapter, write: Callable[[Record], Any]
) -> None:
    adapter.plan.append("lost after")
    count = len(adapter.sent)

    with pytest.raises(ConnectionLostError):
        write(record)

    assert len(adapter.sent) == count + 1


@pytest.mark.parametrize("fault", ["503", "409"])
def test_a_forced_write_is_sent_again_where_nothing_was_done(
    record: Record, adapter: LossyAdapter, fault: Fault
) -> None:
    adapter.plan.append(fault)

    record.data["n"] = 2

    assert record.replace(safe=False).last_modified == record.collection.records.get("one").last_modified


def test_a_write_in_doubt_is_recognised_by_the_next_save(
    record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    """Retries end; the object remembers, and a later save finds its own work instead of a conflict."""
    adapter.plan.extend(["lost after", "lost before", "lost before", "lost before"])
    record.data["n"] = 2
    with pytest.raises(ConnectionLostError):
        record.save()
    assert record.is_dirty

    record.save()

    assert not record.is_dirty
    assert history(todos) == ["update", "create"]


def test_what_changed_since_a_write_in_doubt_goes_on_top_of_it(
    record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    adapter.plan.extend(["lost after", "lost before", "lost before", "lost before"])
    record.data["n"] = 2
    with pytest.raises(ConnectionLostError):
        record.save()

    record.data["n"] = 3
    record.save()

    assert todos.records.get("one").data["n"] == 3
    assert history(todos) == ["update", "update", "create"]


@pytest.mark.parametrize("first", ["lost after", "lost before"])
def test_what_was_taken_back_since_a_write_in_doubt_is_taken_back_on_the_server(
    record: Record, adapter: LossyAdapter, todos: Collection[Record], first: Fault
) -> None:
    adapter.plan.extend([first, "lost before", "lost before", "lost before"])
    record.data["n"] = 2
    with pytest.raises(ConnectionLostError):
        record.save()

    record.data["n"] = 1
    record.save()

    assert todos.records.get("one").data["n"] == 1
    assert record.last_modified == todos.records.get("one").last_modified


def test_a_write_in_doubt_is_recognised_by_one_that_is_sent_twice_itself(
    record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    adapter.plan.extend(["lost after", "lost before", "lost before", "lost before"])
    with pytest.raises(ConnectionLostError):
        record.patch(n=2)

    adapter.plan.append("lost before")
    record.patch(q=5)

    assert dict(todos.records.get("one").data) == {"n": 2, "q": 5, "l": []}


LOST = ["lost after", "lost before", "lost before", "lost before"]
"""Applied, and no attempt of the call hears of it."""
APPEND = JSONPatch([{"op": "add", "path": "/data/l/-", "value": 7}])


@pytest.fixture
def doubtful(client: Client, adapter: LossyAdapter) -> Record:
    """A record whose creation was applied, and whose object does not know."""
    adapter.plan.extend(LOST)
    record = Record(id="one", data={"n": 1, "q": 1, "l": []}, client=client)
    with pytest.raises(ConnectionLostError):
        record.save()
    return record


@pytest.mark.parametrize("times", [0, 1, 2])
def test_o01_a_patch_of_a_creation_in_doubt_is_applied_once(
    doubtful: Record, adapter: LossyAdapter, todos: Collection[Record], times: int
) -> None:
    for _ in range(times):
        adapter.plan.extend(["ok", *LOST] if doubtful.is_new else LOST)
        with pytest.raises(ConnectionLostError):
            doubtful.patch(APPEND)

    doubtful.patch(APPEND)

    assert dict(todos.records.get("one").data) == {"n": 1, "q": 1, "l": [7]}
    assert (doubtful.is_new, doubtful.is_dirty, doubtful.data["l"]) == (False, False, [7])
    assert history(todos) == ["update", "create"]


@pytest.mark.parametrize("write", [lambda one: one.patch(n=7), lambda one: one.delete()], ids=["patch", "delete"])
def test_o01_what_others_wrote_over_a_creation_in_doubt_is_a_conflict(
    doubtful: Record, todos: Collection[Record], write: Callable[[Record], Any]
) -> None:
    todos.records.get("one").patch(n=9)

    with pytest.raises(ConflictError) as caught:
        write(doubtful)

    assert caught.value.theirs == {"n": 9, "q": 1, "l": []}
    assert todos.records.get("one").data["n"] == 9


def test_o01_a_deletion_of_a_creation_in_doubt_deletes_it(doubtful: Record, todos: Collection[Record]) -> None:
    assert doubtful.delete().is_deleted

    assert history(todos) == ["delete", "create"]


@pytest.mark.parametrize("is_raced", [False, True])
def test_o01_a_unit_that_patches_a_creation_in_doubt_overwrites_nothing(
    client: Client, doubtful: Record, adapter: LossyAdapter, todos: Collection[Record], *, is_raced: bool
) -> None:
    client.server_info()
    uow = client.unit_of_work()
    uow.patch(doubtful, n=7)
    adapter.plan.extend(["lost before"] * 4)
    with pytest.raises(CommitError):
        uow.commit()
    if is_raced:
        todos.records.get("one").patch(n=9)
        with pytest.raises(CommitError) as caught:
            uow.commit()
        assert [one.status for one in caught.value.outcomes] == ["conflict"]
    else:
        uow.commit()

    assert todos.records.get("one").data["n"] == (9 if is_raced else 7)


def test_o01_a_json_patch_in_doubt_of_what_was_never_read_is_not_sent_again(
    client: Client, record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    known_by_its_id = Record(id="one", client=client)
    adapter.plan.extend(LOST)
    with pytest.raises(ConnectionLostError):
        known_by_its_id.patch(APPEND)

    with pytest.raises(AmbiguousWriteError, match="never read"):
        known_by_its_id.patch(APPEND)
    known_by_its_id.refresh()

    assert known_by_its_id.data["l"] == [7]
    assert history(todos) == ["update", "create"]


def test_a_save_on_top_of_a_creation_in_doubt_whose_answer_is_lost_too_is_recognised(
    doubtful: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    doubtful.data["n"] = 2
    adapter.plan.extend(["ok", "lost before", "lost before", "lost before", "lost before"])
    with pytest.raises(ConnectionLostError):
        doubtful.save()

    doubtful.save()

    assert todos.records.get("one").data["n"] == 2
    assert not doubtful.is_dirty
    assert history(todos) == ["update", "create"]


def test_of_several_writes_in_doubt_the_one_that_was_applied_is_recognised(
    record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    adapter.plan.extend(["lost after", *["lost before"] * 15])
    for n in (2, 2, 3, 4):
        record.data["n"] = n
        with pytest.raises(ConnectionLostError):
            record.save()

    record.save()

    assert todos.records.get("one").data["n"] == 4
    assert history(todos) == ["update", "update", "create"]


def test_a_save_after_a_patch_in_doubt_leaves_what_that_did(
    record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    """Sending the object's data alone would undo the patch's change, which the object never had."""
    adapter.plan.extend(["lost after", "lost before", "lost before", "lost before"])
    with pytest.raises(ConnectionLostError):
        record.patch(n=2)

    record.data["q"] = 5
    record.save()

    assert dict(todos.records.get("one").data) == {"n": 2, "q": 5, "l": []}
    assert not record.is_dirty


@pytest.mark.parametrize(
    "write",
    [lambda one: edited(one, n={"mine": 1}).save(), lambda one: one.patch(n={"mine": 1})],
    ids=["save", "patch"],
)
def test_a_merge_in_doubt_is_not_written_over_by_the_next_commit(
    client: Client, record: Record, adapter: LossyAdapter, todos: Collection[Record], write: Callable[[Record], Any]
) -> None:
    client.server_info()
    todos.records.get("one").patch(n={"theirs": 1}, q=9)
    adapter.plan.extend(["ok", "lost after", "lost before", "lost before", "lost before"])

    with client.unit_of_work(on_conflict="merge") as uow:
        write(record)
        with pytest.raises(CommitError):
            uow.commit()

    assert [(one.status, one.reconciled) for one in uow.outcomes] == [("updated", True)]
    assert dict(todos.records.get("one").data) == {"n": {"mine": 1, "theirs": 1}, "q": 9, "l": []}
    assert history(todos) == ["update", "update", "create"]


def test_what_goes_on_top_of_a_write_in_doubt_waits_where_an_atomic_unit_fails(
    client: Client, record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    client.server_info()
    stale = Record(id="two", data={"n": 1}).save()
    todos.records.get("two").patch(n=5)
    adapter.plan.extend(["lost after", "lost before", "lost before", "lost before"])
    with pytest.raises(ConnectionLostError):
        edited(record, n=2).save()

    uow = client.unit_of_work(atomic=True)
    uow.save(edited(record, n=3))
    uow.save(edited(stale, n=7))
    with pytest.raises(CommitError) as caught:
        uow.commit()
    uow.rollback()

    assert [one.status for one in caught.value.outcomes] == ["rolled_back", "conflict"]
    assert todos.records.get("one").data["n"] == 2
    assert todos.records.get(record.save().id).data["n"] == 3


def test_a_merge_in_doubt_that_is_compensated_leaves_what_others_wrote(
    client: Client, record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    client.server_info()
    other = Record(id="two", data={"n": 1}).save()
    todos.records.get("one").patch(q=9)
    todos.records.get("two").patch(n=5)
    adapter.plan.extend(["ok", "lost after", "lost before", "lost before", "lost before"])

    with client.unit_of_work(on_conflict="merge") as uow:
        edited(record, n=2).save()
        edited(other, n=7).save()
        with pytest.raises(CommitError):
            uow.commit()
        with pytest.raises(CommitError) as caught:
            uow.commit()
        caught.value.compensate()
        uow.rollback()

    assert dict(todos.records.get("one").data) == {"n": 1, "q": 9, "l": []}


def test_a_deletion_in_doubt_is_recognised_by_the_next_one(record: Record, adapter: LossyAdapter) -> None:
    adapter.plan.extend(["lost after", "lost before", "lost before", "lost before"])
    with pytest.raises(ConnectionLostError):
        record.delete()

    assert record.delete().is_deleted


@pytest.mark.parametrize("in_a_unit", [False, True], ids=["alone", "in-a-unit"])
def test_a_cancelled_write_is_recognised_by_the_next_save(
    client: Client, record: Record, adapter: LossyAdapter, todos: Collection[Record], in_a_unit: bool
) -> None:
    client.server_info()
    stored = threading.Event()
    adapter.plan.append(stored.set)

    async def write() -> None:
        record.data["n"] = 2
        if not in_a_unit:
            await record.asave()
            return
        async with client.unit_of_work():
            await record.asave()

    async def cancelled() -> None:
        task = asyncio.create_task(write())
        while not stored.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert record.is_dirty

    record.save()

    assert not record.is_dirty
    assert history(todos) == ["update", "create"]


def test_a_refresh_ends_the_doubt(record: Record, adapter: LossyAdapter, todos: Collection[Record]) -> None:
    adapter.plan.extend(["lost after"] * 4)
    with pytest.raises(ConnectionLostError):
        record.delete()

    with pytest.raises(NotFoundError):
        record.refresh()
    todos.records.create(id="one", data={"n": 5})
    record.refresh()

    assert record.data["n"] == 5


# -- strictly -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda one: one.patch(n=2), id="patch"),
        pytest.param(lambda one: one.delete(), id="delete"),
        pytest.param(lambda one: Record(id="two", client=one.client).save(), id="chosen-id"),
    ],
)
def test_strictly_only_what_nobody_else_can_have_written_is_recognised(
    client: Client, record: Record, adapter: LossyAdapter, write: Callable[[Record], Any]
) -> None:
    strict = client.clone(strict_retry=True)
    one = strict.bucket("payments").collection("todos").records.get("one")
    adapter.plan.append("lost after")

    with strict, pytest.raises(AmbiguousWriteError):
        write(one)


def test_strictly_an_id_that_we_drew_is_nobody_else_s(client: Client, adapter: LossyAdapter) -> None:
    strict = client.clone(strict_retry=True)
    adapter.plan.append("lost after")

    with strict:
        assert not Record(data={"n": 1}).save().is_new


def test_a_patch_of_what_was_never_read_cannot_be_told(client: Client, record: Record, adapter: LossyAdapter) -> None:
    unread = Record(id="one", client=client)
    adapter.plan.append("lost after")

    with pytest.raises(AmbiguousWriteError, match="never read"):
        unread.patch({"n": 2}, if_match=record.last_modified)


def test_permissions_that_the_server_does_not_show_cannot_be_told() -> None:
    """By a setting of Kinto, users are not writers of the objects that they create."""
    with EmbeddedServer.memory(explicit_permissions=False, bucket_write_principals="system.Everyone") as server:
        client, adapter = lossy(server)
        bucket = Bucket(id="b", client=client).save()
        adapter.plan.append("lost after")

        with pytest.raises(AmbiguousWriteError, match="does not show them"):
            bucket.patch(BasicPatch(permissions={"read": ["system.Everyone"]}), safe=True)

        client.close()


# -- batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", AFTER)
def test_a_batch_whose_answer_is_lost_is_stored_once(
    client: Client, record: Record, adapter: LossyAdapter, todos: Collection[Record], fault: Fault
) -> None:
    gone = Record(id="gone").save()
    client.server_info()
    adapter.plan.append(fault)

    with client.unit_of_work() as uow:
        record.patch(n=2)
        new = Record(id="new", data={"n": 3}).save()
        gone.delete()
        Group(id="g", bucket="payments", members=["account:bob"]).save()

    assert [(one.status, one.reconciled) for one in uow.outcomes] == [
        ("updated", True),
        ("created", True),
        ("deleted", True),
        ("created", True),
    ]
    assert {one.id: one.data["n"] for one in todos.records} == {"one": 2, "new": 3}
    assert (record.is_dirty, new.is_dirty, gone.is_deleted) == (False, False, True)


def test_a_commit_in_doubt_is_recognised_by_the_next_one(
    client: Client, record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    client.server_info()
    adapter.plan.extend(["lost after", "lost before", "lost before", "lost before"])

    with client.unit_of_work() as uow:
        record.patch(n=2)
        Record(id="new", data={"n": 3}).save()
        with pytest.raises(CommitError) as caught:
            uow.commit()

    assert [one.status for one in caught.value.outcomes] == ["unknown", "unknown"]
    assert [(one.status, one.reconciled) for one in uow.outcomes] == [("updated", True), ("created", True)]
    assert history(todos) == ["update", "create"]


def test_a_batch_with_a_forced_write_is_not_sent_again(client: Client, record: Record, adapter: LossyAdapter) -> None:
    client.server_info()
    adapter.plan.append("lost after")

    with client.unit_of_work() as uow:
        record.replace(safe=False)
        with pytest.raises(CommitError):
            uow.commit()
        assert [one.status for one in uow.outcomes] == ["unknown"]
        uow.rollback()


def test_a_batch_that_was_not_applied_is_sent_again(client: Client, record: Record, adapter: LossyAdapter) -> None:
    client.server_info()
    adapter.plan.extend(["503", "409"])

    with client.unit_of_work() as uow:
        record.patch(n=2)

    assert [(one.status, one.reconciled) for one in uow.outcomes] == [("updated", False)]


def test_what_a_batch_had_stored_is_recognised_although_a_409_comes_after_it_then(
    client: Client, adapter: LossyAdapter
) -> None:
    client.server_info()
    adapter.plan.extend(["500 inside", "409 inside"])
    records = client.bucket("payments").collection("todos").records

    outcomes = list(records.stream_create({"n": n} for n in range(3)))

    assert [(one.status, one.reconciled) for one in outcomes] == [
        ("created", True),
        ("unknown", False),
        ("created", False),
    ]


def test_what_kinto_says_it_did_not_do_leaves_no_doubt(
    record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    adapter.plan.extend(["503"] * 4)
    record.data["n"] = 2
    with pytest.raises(ServerError):
        record.save()
    todos.records.get("one").patch(n=2)

    with pytest.raises(ConflictError):
        record.save()


def test_a_bulk_goes_on_after_a_lost_answer(client: Client, adapter: LossyAdapter, todos: Collection[Record]) -> None:
    client.server_info()
    adapter.plan.extend(["ok", "lost after", "ok"])

    report = client.bucket("payments").collection("todos").records.bulk_create({"n": n} for n in range(60))

    assert (report.created, todos.records.count()) == (60, 60)


def test_a_server_that_goes_on_failing_is_reported(record: Record, adapter: LossyAdapter) -> None:
    adapter.plan.extend(["500 after"] * 2)

    with pytest.raises(AmbiguousWriteError) as caught:
        record.patch(n=2)

    assert isinstance(caught.value.__cause__, ServerError)


def test_a_refusal_without_doubt_is_plain(kinto_server: EmbeddedServer) -> None:
    nobody, adapter = lossy(kinto_server, auth=None)
    adapter.plan.append("503")

    with nobody, pytest.raises(UnauthorizedError):
        Bucket(id="x").save()

    nobody.close()


# -- answers that are none of Kinto's -----------------------------------------------------------------------------


def test_a_conflict_that_is_cut_short_does_not_say_that_the_object_is_gone(
    record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    todos.records.get("one").patch(n=9)
    adapter.plan.extend(["cut short"] * 4)
    record.data["n"] = 2

    with pytest.raises(ProtocolError):
        record.save(on_conflict="theirs")

    assert (record.is_deleted, record.is_dirty) == (False, True)


def test_a_conflict_that_is_cut_short_once_is_asked_for_again(
    record: Record, adapter: LossyAdapter, todos: Collection[Record]
) -> None:
    todos.records.get("one").patch(n=9)
    adapter.plan.append("cut short")
    record.data["n"] = 2

    record.save(on_conflict="theirs")

    assert (dict(record.data)["n"], record.is_deleted, record.is_dirty) == (9, False, False)


def test_a_404_that_is_not_kinto_s_does_not_say_that_the_object_is_gone(record: Record, adapter: LossyAdapter) -> None:
    adapter.plan.append("404")

    with pytest.raises(ProtocolError):
        record.delete(if_exists=True)

    assert not record.is_deleted
