"""The unit of work on a real Kinto: staging, batches, and the outcomes of a commit."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from lossy import LossyAdapter
from wiretap import tap

from kinto_orm import (
    BatchTooLargeError,
    Bucket,
    Client,
    Collection,
    CommitError,
    ConflictError,
    ConnectionFailedError,
    DeletedObjectError,
    DuplicateObjectError,
    Group,
    InvalidTypeError,
    InvalidValueError,
    JSONPatch,
    NestedUnitError,
    NotFoundError,
    NotLoadedError,
    NotStageableError,
    Record,
    UnitClosedError,
    UnitOfWork,
    UnitOfWorkError,
)
from kinto_orm.transport.reporting import ResponseEvent


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    priority: int = 1


@pytest.fixture
def client(kinto_client: Client, sent: list[ResponseEvent]) -> Iterator[Client]:
    with kinto_client.clone(on_response=sent.append) as client:
        client.server_info()
        yield client


@pytest.fixture
def payments(client: Client) -> Bucket:
    return Bucket(id="payments", client=client).save()


@pytest.fixture
def other(kinto_client: Client, todos: Collection[Record]) -> Collection[Record]:
    """The same collection, of another client: its writes are never staged."""
    return kinto_client.bucket("payments").collection("todos")


@pytest.fixture
def record(todos: Collection[Record]) -> Record:
    return todos.records.create(id="one", data={"title": "one", "done": False})


def batches(sent: list[ResponseEvent]) -> int:
    return sum(one.target == "/batch" for one in sent)


def writes(sent: list[ResponseEvent]) -> list[str]:
    return [f"{one.method} {one.target}" for one in sent if one.method not in ("GET", "HEAD")]


def on_server(client: Client, id: str = "one") -> dict[str, Any]:
    return dict(client.bucket("payments").collection("todos").records.get(id).data)


def change_elsewhere(other: Collection[Record], id: str = "one", **data: Any) -> None:
    other.records.get(id).patch(**data)


# -- what is staged -----------------------------------------------------------------------------------------------


def test_save_replace_patch_delete_and_create_are_sent_as_one_batch(
    client: Client, todos: Collection[Record], sent: list[ResponseEvent]
) -> None:
    saved, replaced, patched, deleted = (todos.records.create(id=id, data={"n": 1}) for id in "abcd")
    sent.clear()

    with client.unit_of_work() as uow:
        saved.data["n"] = 2
        saved.save()
        replaced.replace()
        patched.patch(n=3)
        deleted.delete()
        todos.records.create(id="e", data={"n": 4})

    assert writes(sent) == ["POST /batch"]
    assert [one.status for one in uow.outcomes] == ["updated", "updated", "updated", "deleted", "created"]
    assert {one.id: one.data["n"] for one in todos.records} == {"a": 2, "b": 1, "c": 3, "e": 4}


def test_awaited_verbs_are_staged_too(client: Client, record: Record, todos: Collection[Record]) -> None:
    async def work() -> tuple[str, ...]:
        async with client.unit_of_work() as uow:
            await record.apatch(done=True)
            await todos.records.acreate(id="two")
        return tuple(one.status for one in uow.outcomes)

    assert asyncio.run(work()) == ("updated", "created")


def test_a_staged_save_returns_the_object_which_stays_new_until_the_commit(
    client: Client, todos: Collection[Record]
) -> None:
    record = Record(collection=todos, data={"title": "x"})

    with client.unit_of_work() as uow:
        staged = record.save()
        before = record.is_new, uow.outcomes

    assert staged is record
    assert before == (True, ())
    assert not record.is_dirty


def test_reads_run_at_once_and_do_not_see_what_is_staged(client: Client, record: Record) -> None:
    with client.unit_of_work():
        record.patch(done=True)

        seen = on_server(client)

    assert seen["done"] is False


def test_the_block_makes_its_client_the_active_one(kinto_client: Client, todos: Collection[Record]) -> None:
    other = kinto_client.clone(bucket="payments", collection="todos")

    with other.unit_of_work() as uow:
        record = Record(data={"title": "x"}).save()

    assert record.client is other
    assert [one.object for one in uow.outcomes] == [record]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda todos: todos.records.get_or_create("x"), id="get_or_create"),
        pytest.param(lambda todos: todos.records.update_or_create("x"), id="update_or_create"),
        pytest.param(lambda todos: todos.records.bulk_create([{"n": 1}]), id="bulk_create"),
        pytest.param(lambda todos: todos.records.bulk_update([edited(todos)]), id="bulk_update"),
        pytest.param(lambda todos: todos.records.bulk_delete([edited(todos)]), id="bulk_delete"),
        pytest.param(lambda todos: todos.records.filter(done=False).update(done=True), id="query.update"),
        pytest.param(lambda todos: todos.records.filter(done=False).delete(), id="query.delete"),
        pytest.param(lambda todos: todos.client.ensure(Bucket(id="payments")), id="ensure"),
        pytest.param(lambda todos: todos.records.bulk_update([]), id="bulk_update of nothing"),
        pytest.param(lambda todos: todos.records.filter(in_id=[]).delete(), id="delete of nothing"),
    ],
)
def test_other_writing_calls_are_refused_in_the_block(
    call: Any, client: Client, todos: Collection[Record], record: Record, sent: list[ResponseEvent]
) -> None:
    sent.clear()

    with client.unit_of_work(), pytest.raises(NotStageableError, match="cannot be part of a unit of work"):
        call(todos)

    assert writes(sent) == []


def edited(todos: Collection[Record]) -> Record:
    record = todos.records.get("one")
    record.data["n"] = 1
    return record


def test_another_client_writes_at_once(client: Client, other: Collection[Record], sent: list[ResponseEvent]) -> None:
    sent.clear()

    with client.unit_of_work() as uow:
        Record(collection=other, id="x").save()
        stored = not other.records.get("x").is_new

    assert stored
    assert uow.outcomes == ()
    assert writes(sent) == []


def test_a_clone_writes_at_once(client: Client, todos: Collection[Record]) -> None:
    clone = client.clone(bucket="payments", collection="todos")

    with client.unit_of_work() as uow:
        record = Record(id="x", client=clone).save()

        assert not record.is_new
    assert uow.outcomes == ()


def test_a_write_after_the_block_was_left_runs_at_once(client: Client, record: Record) -> None:
    with client.unit_of_work():
        pass

    record.patch(done=True)

    assert on_server(client)["done"] is True


def test_a_unit_that_was_left_takes_nothing_more(client: Client, record: Record) -> None:
    with client.unit_of_work() as uow:
        pass

    for call in (lambda: uow.save(record), uow.commit, uow.__enter__, lambda: uow.get(Todo, "one")):
        with pytest.raises(UnitClosedError, match="open another one"):
            call()


def test_a_unit_of_the_same_client_cannot_be_nested(client: Client) -> None:
    with client.unit_of_work(), pytest.raises(NestedUnitError), client.unit_of_work():
        pass


def test_units_of_different_clients_can_be_nested(client: Client, kinto_client: Client, record: Record) -> None:
    mine = Record(collection=kinto_client.bucket("payments").collection("todos"), id="two")

    with client.unit_of_work() as outer, kinto_client.unit_of_work() as inner:
        record.patch(done=True)
        mine.save()

    assert [len(outer.outcomes), len(inner.outcomes)] == [1, 1]


def test_a_second_object_of_a_staged_path_is_refused(client: Client, todos: Collection[Record], record: Record) -> None:
    with client.unit_of_work():
        record.patch(done=True)

        with pytest.raises(DuplicateObjectError, match="use that one"):
            todos.records.get("one").patch(done=False)

    assert on_server(client)["done"] is True


def test_what_a_batch_cannot_carry_is_refused_when_it_is_staged(client: Client, record: Record) -> None:
    patch = JSONPatch([{"op": "remove", "path": "/data/missing"}])

    with client.unit_of_work() as uow:
        for staged_before in (0, 1):
            with pytest.raises((InvalidValueError, NotStageableError), match=r"operations\[0\]|JSON-Patch"):
                record.patch(patch)
            assert len(uow.plan().writes) == staged_before
            record.patch(n=1)


def test_an_id_that_begins_with_batch_is_refused_with_the_reason(client: Client, todos: Collection[Record]) -> None:
    with client.unit_of_work(), pytest.raises(NotStageableError, match="begin with 'batch'"):
        Record(collection=todos, id="batch-1").save()


def test_an_object_in_no_state_for_the_verb_is_refused_when_it_is_staged(client: Client, record: Record) -> None:
    gone = record.delete()

    with client.unit_of_work():
        with pytest.raises(DeletedObjectError):
            gone.save()
        with pytest.raises(NotLoadedError):
            client.bucket("payments").save()


def test_dry_mode_stages_and_does_not_send(client: Client, record: Record, sent: list[ResponseEvent]) -> None:
    dry = client.clone(dry_mode=True)
    one = dry.bucket("payments").collection("todos").records.get("one")
    sent.clear()

    with dry.unit_of_work() as unit:
        one.patch(done=True)
        before = unit.plan().as_json()

    assert writes(sent) == []
    assert [one.status for one in unit.outcomes] == ["planned"]
    assert dry.plan().as_json() == [{**before[0], "batch": 1}]


def test_what_a_dry_unit_has_planned_is_not_planned_again(client: Client, record: Record) -> None:
    dry = client.clone(dry_mode=True)

    with dry.unit_of_work(lock=client.bucket("payments").collection("todos")) as unit:
        Record(collection=dry.bucket("payments").collection("todos"), id="new").save()
        assert [one["method"] for one in unit.plan().as_json()] == ["PUT", "PUT"]
        unit.commit()

    assert [write.request["path"].rpartition("/")[2] for write in dry.plan().writes] == ["todos", "new"]


# -- frozen at the call -------------------------------------------------------------------------------------------


def test_a_dictionary_that_is_edited_after_staging_changes_nothing(client: Client, todos: Collection[Record]) -> None:
    given: dict[str, Any] = {"tags": ["a"]}

    with client.unit_of_work():
        record = Record(collection=todos, id="x", data=given).save()
        given["tags"].append("b")
        record.data["tags"].append("c")

    assert on_server(client, "x") == {"tags": ["a"]}


def test_a_patch_that_is_edited_after_staging_changes_nothing(client: Client, record: Record) -> None:
    tags = ["a"]

    with client.unit_of_work():
        record.patch(tags=tags)
        tags.append("b")

    assert on_server(client)["tags"] == ["a"]


def test_edits_after_staging_stay_dirty_after_the_commit(client: Client, record: Record) -> None:
    with client.unit_of_work():
        record.data["title"] = "staged"
        record.save()
        record.data["title"] = "later"
        record.data["n"] = 1

    assert record.is_dirty
    assert record.data == {"title": "later", "done": False, "n": 1}
    assert on_server(client)["title"] == "staged"


def test_what_cannot_be_written_is_refused_when_it_is_staged(client: Client, record: Record) -> None:
    with client.unit_of_work(), pytest.raises(InvalidValueError):
        record.patch(n=float("nan"))


# -- threads and tasks --------------------------------------------------------------------------------------------


def in_thread(call: Any) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_another_thread_writes_at_once(client: Client, record: Record, sent: list[ResponseEvent]) -> None:
    sent.clear()

    with client.unit_of_work() as uow:
        in_thread(lambda: record.patch(done=True))

    assert writes(sent) == ["PATCH /buckets/payments/collections/todos/records/one"]
    assert uow.outcomes == ()


def test_another_thread_stages_explicitly(client: Client, todos: Collection[Record], sent: list[ResponseEvent]) -> None:
    a, b, c, d = (todos.records.create(id=id, data={"n": 0}) for id in "abcd")
    a.data["n"] = 1
    sent.clear()

    with client.unit_of_work() as uow:
        for call in (
            lambda: uow.save(a),
            lambda: uow.replace(b),
            lambda: uow.patch(c, {"safe": 1}, n=2),
            lambda: uow.delete(d, if_exists=True),
        ):
            in_thread(call)

    assert writes(sent) == ["POST /batch"]
    assert [one.status for one in uow.outcomes] == ["updated", "updated", "updated", "deleted"]


def test_an_object_without_a_client_gets_the_unit_s_when_it_is_staged_explicitly(
    client: Client, todos: Collection[Record]
) -> None:
    todo = Todo(title="x")

    with client.unit_of_work() as uow:
        in_thread(lambda: uow.save(todo))

    assert todo.client is client
    assert not todo.is_new


def test_an_object_of_another_client_cannot_be_staged(client: Client, other: Collection[Record]) -> None:
    with client.unit_of_work() as uow, pytest.raises(NotStageableError, match="another client"):
        uow.save(Record(collection=other, id="x"))


def test_tasks_and_their_threads_are_inside_the_block(client: Client, todos: Collection[Record]) -> None:
    async def work() -> int:
        async with client.unit_of_work() as uow, asyncio.TaskGroup() as group:
            group.create_task(Record(collection=todos, id="a").asave())
            group.create_task(asyncio.to_thread(Record(collection=todos, id="b").save))
        return len(uow.outcomes)

    assert asyncio.run(work()) == 2


def test_a_task_that_outlives_the_block_neither_stages_nor_writes(
    client: Client, record: Record, sent: list[ResponseEvent]
) -> None:
    async def late(left: asyncio.Event) -> None:
        await left.wait()
        with pytest.raises(UnitClosedError):
            await record.apatch(done=True)
        with pytest.raises(UnitClosedError):
            await client.bucket("payments").collections.aget_or_create("x")

    async def work() -> None:
        left = asyncio.Event()
        async with client.unit_of_work():
            task = asyncio.create_task(late(left))
        left.set()
        await task

    sent.clear()
    asyncio.run(work())

    assert writes(sent) == []


def test_a_task_that_outlives_the_block_may_open_a_unit_of_its_own(client: Client, record: Record) -> None:
    async def late(left: asyncio.Event) -> None:
        await left.wait()
        async with client.unit_of_work():
            await record.apatch(done=True)

    async def work() -> None:
        left = asyncio.Event()
        async with client.unit_of_work():
            task = asyncio.create_task(late(left))
        left.set()
        await task

    asyncio.run(work())

    assert on_server(client)["done"] is True


def test_while_the_block_commits_nothing_more_is_taken(client: Client, todos: Collection[Record]) -> None:
    late: list[type[Exception]] = []

    def stage(event: ResponseEvent) -> None:
        if event.target == "/batch":
            with pytest.raises(UnitClosedError) as caught:
                uow.save(Record(collection=slow.bucket("payments").collection("todos"), id="late"))
            late.append(caught.type)

    slow = client.clone(on_response=stage)
    with slow.unit_of_work() as uow:
        Record(collection=slow.bucket("payments").collection("todos"), id="x").save()

    assert late == [UnitClosedError]


def test_what_is_being_sent_cannot_be_staged_again_and_no_second_commit_starts(
    client: Client, todos: Collection[Record]
) -> None:
    caught: list[str] = []

    def interfere(event: ResponseEvent) -> None:
        if event.target == "/batch":
            for call in (record.save, uow.commit):
                with pytest.raises(UnitOfWorkError) as error:
                    call()
                caught.append(str(error.value))

    slow = client.clone(on_response=interfere)
    record = Record(collection=slow.bucket("payments").collection("todos"), id="x")
    with slow.unit_of_work() as uow:
        record.save()
        uow.commit()

    assert ["is being sent" in caught[0], "being committed already" in caught[1]] == [True, True]


def test_what_is_staged_while_others_are_sent_waits_for_the_next_commit(
    client: Client, todos: Collection[Record]
) -> None:
    def stage(event: ResponseEvent) -> None:
        if event.target == "/batch" and late.is_new:
            late.save()

    slow = client.clone(on_response=stage)
    first, late = (Record(collection=slow.bucket("payments").collection("todos"), id=id) for id in ("first", "late"))
    with slow.unit_of_work() as uow:
        first.save()
        sent_first = uow.commit()
        sent_then = uow.commit()

    assert [[one.object.id for one in sent] for sent in (sent_first, sent_then)] == [["first"], ["late"]]


async def cancel_when_stored(uow: UnitOfWork, adapter: LossyAdapter, *before: str) -> None:
    """Commit, and cancel the call when the server has stored a batch, behind these ones, whose answer is lost."""
    stored, is_cancelled = threading.Event(), threading.Event()

    def lose() -> None:
        stored.set()
        is_cancelled.wait(30)

    adapter.plan += [*before, lose]
    task = asyncio.create_task(uow.acommit())
    await asyncio.to_thread(stored.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    is_cancelled.set()


def test_a_cancelled_commit_can_be_repeated(network: tuple[Client, LossyAdapter]) -> None:
    client, adapter = network
    record = Record(collection=client.bucket("payments").collection("todos"), id="x")

    async def work() -> None:
        async with client.unit_of_work() as uow:
            record.save()
            await cancel_when_stored(uow, adapter)
            outcomes.append(uow.outcomes)
            outcomes.append(await uow.acommit())  # it was stored, and the answer was lost

    outcomes: list[Any] = []
    asyncio.run(work())

    assert outcomes[0] == ()
    assert [(one.status, one.reconciled) for one in outcomes[1]] == [("created", True)]


def test_of_a_cancelled_commit_in_batches_only_what_was_not_stored_is_repeated(
    network: tuple[Client, LossyAdapter],
) -> None:
    client, adapter = network
    todos = client.bucket("payments").collection("todos")
    client.server_info()

    async def work() -> None:
        async with client.unit_of_work(chunked=True) as uow:
            for number in range(30):
                Record(collection=todos, id=f"r{number}").save()
            await cancel_when_stored(uow, adapter, "ok")
            statuses.append([(one.status, one.reconciled) for one in uow.outcomes])
            statuses.append([(one.status, one.reconciled) for one in await uow.acommit()])

    statuses: list[Any] = []
    asyncio.run(work())

    assert statuses == [[("created", False)] * 25, [("created", True)] * 5]
    assert todos.records.count() == 30


# -- leaving the block --------------------------------------------------------------------------------------------


def test_a_block_that_raises_sends_nothing(client: Client, record: Record, sent: list[ResponseEvent]) -> None:
    sent.clear()

    def work() -> None:
        with client.unit_of_work():
            record.patch(done=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()

    assert sent == []
    assert record.is_dirty is False


def test_an_async_block_that_raises_sends_nothing(client: Client, record: Record, sent: list[ResponseEvent]) -> None:
    async def work() -> None:
        async with client.unit_of_work():
            await record.apatch(done=True)
            raise ZeroDivisionError

    sent.clear()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(work())

    assert sent == []


def test_a_block_without_writes_sends_nothing(client: Client, record: Record, sent: list[ResponseEvent]) -> None:
    sent.clear()

    with client.unit_of_work() as uow:
        record.save()

    assert sent == []
    assert [one.status for one in uow.outcomes] == ["unchanged"]


def test_units_left_out_of_order_send_nothing_of_the_outer_one(
    client: Client, kinto_client: Client, record: Record, sent: list[ResponseEvent]
) -> None:
    outer, inner = client.unit_of_work(), kinto_client.unit_of_work()
    outer.__enter__()
    inner.__enter__()
    record.patch(done=True)
    sent.clear()

    with pytest.raises(UnitOfWorkError, match="innermost"):
        outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)

    assert sent == []
    assert on_server(client)["done"] is False


def test_a_generator_that_holds_a_unit_cannot_leave_it_in_another_context(
    client: Client, record: Record, sent: list[ResponseEvent]
) -> None:
    def hold() -> Iterator[None]:
        with client.unit_of_work():
            record.patch(done=True)
            yield

    generator = hold()
    contextvars.copy_context().run(next, generator)
    sent.clear()

    with pytest.raises(UnitOfWorkError, match="a generator or a task holds it"):
        next(generator)

    assert sent == []


def test_a_generator_that_is_thrown_away_sends_nothing(client: Client, record: Record) -> None:
    def hold() -> Iterator[None]:
        with client.unit_of_work():
            record.patch(done=True)
            yield

    generator = hold()
    next(generator)
    generator.close()

    record.patch(n=1)

    assert on_server(client) == {"title": "one", "done": False, "n": 1}


# -- plan and order -----------------------------------------------------------------------------------------------


def test_the_plan_is_exactly_what_is_sent(kinto_client: Client, todos: Collection[Record]) -> None:
    client = kinto_client.clone(headers={"X-Own": "connection"})
    wire = tap(client)
    record = client.bucket("payments").collection("todos").records.create(id="b", data={"n": 1})

    with client.unit_of_work() as uow:
        record.patch(n=2)
        Record(collection=record.collection, id="a", data={"n": 1}).save()
        plan = uow.plan()

    assert wire.bodies[-1] == {"requests": [one.request for one in plan.writes]}
    assert str(plan).splitlines() == [
        "PUT /buckets/payments/collections/todos/records/a If-None-Match: * {'data': {'n': 1}}",
        f"PATCH /buckets/payments/collections/todos/records/b {if_match(plan)} {{'data': {{'n': 2}}}}",
    ]


def if_match(plan: Any) -> str:
    return f"If-Match: {plan.writes[1].request['headers']['If-Match']}"


def test_a_plan_of_nothing_says_so(client: Client) -> None:
    with client.unit_of_work() as uow:
        assert str(uow.plan()) == "nothing to send"


def test_a_plan_sends_nothing(client: Client, record: Record, sent: list[ResponseEvent]) -> None:
    sent.clear()

    with client.unit_of_work() as uow:
        record.patch(done=True)
        plan = uow.plan()
        uow.rollback()

    assert [str(one).split()[0] for one in plan.writes] == ["PATCH"]
    assert sent == []


def test_parents_are_created_first_whatever_the_order_of_the_calls(client: Client) -> None:
    bucket = Bucket(id="new", client=client)
    collection = Collection(bucket=bucket, id="things")

    with client.unit_of_work() as uow:
        for one in (Record(collection=collection, id="x"), collection, Group(bucket=bucket, id="staff"), bucket):
            one.save()
        order = [one.object.id for one in uow.plan().writes]

    assert order == ["new", "staff", "things", "x"]
    assert [one.object.id for one in uow.outcomes] == ["x", "things", "staff", "new"]
    assert {one.status for one in uow.outcomes} == {"created"}


def test_deletions_come_last_and_children_first(client: Client, payments: Bucket, record: Record) -> None:
    group = Group(bucket=payments, id="staff").save()

    with client.unit_of_work() as uow:
        for one in (payments, record.collection, group, record):
            one.delete()
        Bucket(id="another", client=client).save()
        order = [(one.verb.value, one.object.id) for one in uow.plan().writes]

    expected = [("save", "another"), *(("delete", id) for id in ("one", "todos", "staff", "payments"))]
    assert order == expected
    assert {one.status for one in uow.outcomes} == {"deleted", "created"}


def test_nothing_is_written_below_what_is_deleted(client: Client, todos: Collection[Record]) -> None:
    with client.unit_of_work() as uow:
        todos.delete()
        Record(collection=todos, id="x").save()
        with pytest.raises(NotStageableError, match="above it is deleted"):
            uow.commit()
        uow.rollback()

    assert not todos.is_deleted


# -- commit -------------------------------------------------------------------------------------------------------


def test_a_commit_in_the_block_sends_what_is_staged_so_far(client: Client, todos: Collection[Record]) -> None:
    with client.unit_of_work() as uow:
        Record(collection=todos, id="a").save()
        first = uow.commit()
        Record(collection=todos, id="b").save()

    assert [one.object.id for one in first] == ["a"]
    assert [one.object.id for one in uow.outcomes] == ["a", "b"]


def test_a_second_commit_sends_nothing_again(client: Client, record: Record, sent: list[ResponseEvent]) -> None:
    sent.clear()

    with client.unit_of_work() as uow:
        record.patch(done=True)
        uow.commit()
        again = uow.commit()

    assert again == ()
    assert batches(sent) == 1
    assert [one.status for one in uow.outcomes] == ["updated"]


def test_rollback_forgets_what_is_staged_and_keeps_the_local_changes(
    client: Client, record: Record, sent: list[ResponseEvent]
) -> None:
    sent.clear()

    with client.unit_of_work() as uow:
        record.data["title"] = "x"
        record.save()
        uow.rollback()

    assert sent == []
    assert record.is_dirty


def test_too_many_operations_are_refused_before_anything_is_sent(
    client: Client, todos: Collection[Record], sent: list[ResponseEvent]
) -> None:
    sent.clear()

    def work() -> None:
        with client.unit_of_work():
            for number in range(26):
                Record(collection=todos, id=f"r{number}").save()

    with pytest.raises(BatchTooLargeError, match="26 writes are staged and the server takes 25"):
        work()

    assert writes(sent) == []


def test_one_stale_object_among_good_ones_fails_alone(
    client: Client, todos: Collection[Record], other: Collection[Record]
) -> None:
    a, stale, c = (todos.records.create(id=id, data={"n": 1}) for id in "abc")
    change_elsewhere(other, "b", n=5)

    for one in (a, stale, c):
        one.data["n"] = 2

    with pytest.raises(CommitError, match="1 of 3 writes failed") as caught, client.unit_of_work() as uow:
        _ = [one.save() for one in (a, stale, c)]

    assert caught.value.outcomes == uow.outcomes
    assert [one.status for one in uow.outcomes] == ["updated", "conflict", "updated"]
    assert [one.is_dirty for one in (a, stale, c)] == [False, True, False]
    assert isinstance(uow.outcomes[1].error, ConflictError)
    assert uow.outcomes[1].error.theirs == {"n": 5}


def test_what_failed_stays_staged_for_a_second_commit(
    client: Client, todos: Collection[Record], other: Collection[Record], sent: list[ResponseEvent]
) -> None:
    good, stale = (todos.records.create(id=id, data={"n": 1}) for id in "ab")
    change_elsewhere(other, "b", m=5)

    with client.unit_of_work() as uow:
        good.patch(n=2)
        stale.patch(n=2)
        with pytest.raises(CommitError):
            uow.commit()
        assert [one.object for one in uow.plan().writes] == [stale]
        uow.outcomes[1].error.overwrite()
        again = uow.commit()

    assert [one.status for one in again] == ["updated"]
    assert [one.status for one in uow.outcomes] == ["updated", "updated"]
    assert on_server(client, "b") == {"n": 2, "m": 5}


def test_a_conflict_that_is_reloaded_leaves_the_unit(client: Client, record: Record, other: Collection[Record]) -> None:
    change_elsewhere(other, title="theirs")

    with client.unit_of_work() as uow:
        record.patch(title="mine")
        with pytest.raises(CommitError):
            uow.commit()
        uow.outcomes[0].error.reload()

        assert uow.plan().writes == ()
    assert (record.data["title"], record.is_dirty) == ("theirs", False)


def test_a_conflict_with_what_is_gone_is_reloaded_as_a_tombstone(
    client: Client, record: Record, other: Collection[Record]
) -> None:
    other.records.get("one").delete()

    with client.unit_of_work() as uow:
        record.replace()
        with pytest.raises(CommitError):
            uow.commit()
        uow.outcomes[0].error.reload()

    assert record.is_deleted


def test_what_was_staged_before_a_refresh_overwrites_nothing_unseen(
    client: Client, record: Record, other: Collection[Record]
) -> None:
    change_elsewhere(other, title="theirs")

    with client.unit_of_work() as uow:
        record.data["done"] = True
        record.save()
        with pytest.raises(CommitError):
            uow.commit()
        record.refresh(discard=True)
        record.patch(n=1)

    assert on_server(client) == {"title": "theirs", "done": False, "n": 1}


def test_a_refused_write_is_rejected_and_a_missing_one_is_gone(client: Client, todos: Collection[Record]) -> None:
    stranger = client.clone(auth=("stranger", "x")).bucket("payments").collection("todos")
    gone = todos.records.create(id="gone")
    client.bucket("payments").collection("todos").records.get("gone").delete()

    with pytest.raises(CommitError) as refused, stranger.client.unit_of_work():
        Record(collection=stranger, id="x").save()
    with pytest.raises(CommitError) as missed, client.unit_of_work():
        gone.delete()

    assert [refused.value.outcomes[0].status, missed.value.outcomes[0].status] == ["rejected", "gone"]


def test_a_server_that_cannot_be_reached_leaves_all_unsent() -> None:
    client = Client("http://127.0.0.1:9/v1", retry=0, timeout=0.5)

    with pytest.raises(CommitError) as caught, client.unit_of_work() as uow:
        Bucket(id="x", client=client).save()

    assert [one.status for one in uow.outcomes] == ["not_sent"]
    assert isinstance(caught.value.__cause__, ConnectionFailedError)


def test_options_of_a_staged_write_are_kept(client: Client, todos: Collection[Record], record: Record) -> None:
    with client.unit_of_work() as uow:
        mine = Record(collection=todos, id="one", data={"n": 1}).save(if_not_exists=True)
        Record(collection=todos, id="never-there").delete(if_exists=True)

    assert [one.status for one in uow.outcomes] == ["unchanged", "deleted"]
    assert mine.data == {"title": "one", "done": False}


def planned(uow: Any) -> list[tuple[str, Any]]:
    return [(one.request["method"], one.request.get("body")) for one in uow.plan().writes]


# -- the identity map ---------------------------------------------------------------------------------------------


def test_get_gives_one_object_for_one_path(client: Client, record: Record) -> None:
    with client.unit_of_work() as uow:
        one = uow.get(Todo, "one")

        assert uow.get(record.collection.records, "one") is one


def test_a_changed_object_of_get_joins_the_commit(client: Client, record: Record) -> None:
    with client.unit_of_work() as uow:
        todo = uow.get(Todo, "one")
        todo.priority = 5
        early = planned(uow)
        todo.title = "later"

    assert early == [("PATCH", {"data": {"priority": 5}})]
    assert [one.status for one in uow.outcomes] == ["updated"]
    assert on_server(client) == {"title": "later", "done": False, "priority": 5}


def test_an_unchanged_object_of_get_is_not_sent(client: Client, record: Record, sent: list[ResponseEvent]) -> None:
    with client.unit_of_work() as uow:
        uow.get(Todo, "one")
        uow.get(record.collection.records.only("title"), "one")
        sent.clear()

    assert sent == []
    assert uow.outcomes == ()


def test_an_object_of_get_that_was_staged_sends_what_was_staged(client: Client, record: Record) -> None:
    with client.unit_of_work() as uow:
        todo = uow.get(Todo, "one")
        todo.title = "staged"
        todo.save()
        todo.title = "later"

    assert on_server(client)["title"] == "staged"
    assert todo.is_dirty


def test_get_gives_the_staged_object(client: Client, record: Record) -> None:
    with client.unit_of_work() as uow:
        record.patch(done=True)

        assert uow.get(record.collection.records, "one") is record


def test_another_object_of_a_path_of_get_is_refused(client: Client, record: Record) -> None:
    with client.unit_of_work() as uow:
        uow.get(Todo, "one")
        with pytest.raises(DuplicateObjectError):
            record.patch(done=True)


def test_get_of_what_is_not_there_says_so(client: Client, todos: Collection[Record]) -> None:
    async def work() -> None:
        async with client.unit_of_work() as uow:
            await uow.aget(Todo, "none")

    with pytest.raises(NotFoundError):
        asyncio.run(work())


def test_a_stale_object_of_get_joins_again(client: Client, record: Record, other: Collection[Record]) -> None:
    with client.unit_of_work() as uow:
        todo = uow.get(Todo, "one")
        change_elsewhere(other, done=True)
        todo.title = "x"
        with pytest.raises(CommitError):
            uow.commit()
        uow.outcomes[0].error.overwrite()

    assert on_server(client)["title"] == "x"


def test_repr_says_how_much_is_staged(client: Client, record: Record) -> None:
    with client.unit_of_work() as uow:
        record.patch(done=True)
        inside = repr(uow)

    assert (inside, repr(uow)) == ("<UnitOfWork of 1 staged objects>", "<UnitOfWork of 0 staged objects, left>")


@pytest.mark.parametrize("verb", ["save", "replace", "patch", "delete"])
@pytest.mark.parametrize("wrong", ["text", Record], ids=["text", "class"])
def test_only_objects_are_staged(verb: str, wrong: Any, client: Client) -> None:
    with client.unit_of_work() as uow, pytest.raises(InvalidTypeError, match=rf"{verb}.. takes an object"):
        getattr(uow, verb)(wrong)


def test_a_unit_loads_from_what_can_be_asked_only(client: Client) -> None:
    with client.unit_of_work() as uow, pytest.raises(InvalidTypeError, match="a model, a manager or a query"):
        uow.get("todos", "x")  # type: ignore[type-var]


def test_what_cancelled_itself_out_and_was_stored_since_is_deleted_where_that_is_staged(
    client: Client, todos: Collection[Record]
) -> None:
    uow = client.unit_of_work()
    record = Record(collection=todos, id="x", client=client)
    uow.save(record)
    uow.delete(record)
    record.save()

    uow.delete(record)
    outcomes = uow.commit()

    assert [one.status for one in outcomes] == ["deleted"]
    assert todos.records.count() == 0
