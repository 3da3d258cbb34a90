"""What a failed commit stored is undone, as far as that can be, and what is left says why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from wiretap import tap

from kinto_orm import (
    BasicPatch,
    Bucket,
    Client,
    Collection,
    CommitError,
    ConflictError,
    Group,
    JSONPatch,
    MergePatch,
    Outcome,
    Record,
    UnitOfWork,
    UnitOfWorkError,
    UsageError,
)

Stage = Callable[[UnitOfWork], Any]


@pytest.fixture
def taken(todos: Collection[Record]) -> Record:
    """What cannot be created, because it is there."""
    return todos.records.create(id="taken")


@pytest.fixture
def fail(kinto_client: Client, todos: Collection[Record], taken: Record) -> Callable[..., CommitError]:
    """The error of a unit with what is staged, and with a creation that is refused."""

    def commit(stage: Stage, **options: Any) -> None:
        with kinto_client.unit_of_work(**options) as uow:
            stage(uow)
            Record(collection=todos, id="taken").save()

    def fail(stage: Stage, **options: Any) -> CommitError:
        with pytest.raises(CommitError) as caught:
            commit(stage, **options)
        return caught.value

    return fail


def said(outcomes: Sequence[Outcome[Any]]) -> list[tuple[str, str]]:
    return [(one.object.id, one.status) for one in outcomes]


# -- what can be undone ---------------------------------------------------------------------------------------------


def test_what_was_created_is_deleted(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    new = Record(collection=todos, id="new", data={"n": 1})

    undone = fail(lambda uow: new.save()).compensate()

    assert said(undone) == [("new", "deleted")]
    assert todos.records.get_or_none("new") is None
    assert new.is_deleted


CHANGES: dict[str, Callable[[Record], Any]] = {
    "save": lambda record: setattr(record, "data", {"n": 2, "deep": {"a": 2}, "new": 1}) or record.save(),  # type: ignore[func-returns-value]
    "replace": lambda record: setattr(record, "data", {"n": 2}) or record.replace(),  # type: ignore[func-returns-value]
    "patch": lambda record: record.patch(n=2, new=1),
    "merge-patch": lambda record: record.patch(MergePatch({"n": None, "deep": {"a": 2}})),
    "json-patch": lambda record: record.patch(JSONPatch([{"op": "add", "path": "/data/new", "value": 1}])),
}
BEFORE = {"n": 1, "deep": {"a": 1}, "gone": None}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_gets_its_data_back(
    change: str, todos: Collection[Record], fail: Callable[..., CommitError]
) -> None:
    record = todos.records.create(id="x", data=BEFORE)

    error = fail(lambda uow: CHANGES[change](record))
    changed = todos.records.get("x").data
    undone = error.compensate()

    assert dict(changed) != BEFORE
    assert said(undone) == [("x", "updated")]
    assert dict(todos.records.get("x").data) == dict(record.data) == BEFORE
    assert not record.is_dirty


PERMISSIONS: dict[str, Callable[[Record], Any]] = {
    "save": lambda record: record.permissions.add("read", "account:new") or record.save(),  # type: ignore[func-returns-value]
    "patch": lambda record: record.patch(BasicPatch(permissions={"read": ["account:new"]})),
    "json-patch": lambda record: record.patch(
        JSONPatch([{"op": "add", "path": "/permissions/read/account:new", "value": None}])
    ),
}


@pytest.mark.parametrize("change", PERMISSIONS)
def test_what_was_changed_gets_its_permissions_back(
    change: str, todos: Collection[Record], fail: Callable[..., CommitError]
) -> None:
    record = todos.records.create(id="x", data={"n": 1}, permissions={"read": ["account:old"], "write": ["account:w"]})
    before = todos.records.get("x").permissions

    error = fail(lambda uow: PERMISSIONS[change](record))
    changed = todos.records.get("x").permissions
    error.compensate()

    assert "account:new" in changed["read"]
    assert todos.records.get("x").permissions == before
    assert dict(todos.records.get("x").data) == {"n": 1}


def test_what_was_deleted_is_created_again(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    record = todos.records.create(id="x", data={"n": 1}, permissions={"read": ["account:eve"]})

    undone = fail(lambda uow: record.delete()).compensate()

    assert [(one.object.id, one.status, one.error) for one in undone] == [("x", "created", None)]
    found = todos.records.get("x")
    assert (dict(found.data), found.permissions["read"]) == ({"n": 1}, {"account:eve"})
    assert not record.is_deleted


def test_a_group_that_was_deleted_has_its_members_again(payments: Bucket, fail: Callable[..., CommitError]) -> None:
    staff = Group(bucket=payments, id="staff", members=["account:bob"]).save()

    fail(lambda uow: staff.delete()).compensate()

    assert payments.groups.get("staff").members == ["account:bob"]


def test_the_last_one_comes_first(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    a, b = (todos.records.create(id=id, data={"n": 1}) for id in "ab")

    def stage(uow: UnitOfWork) -> None:
        a.patch(n=2)
        Record(collection=todos, id="c").save()
        b.delete()

    assert said(fail(stage).compensate()) == [("b", "created"), ("c", "deleted"), ("a", "updated")]


def test_more_than_a_batch_is_undone(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    def stage(uow: UnitOfWork) -> None:
        for number in range(40):
            Record(collection=todos, id=f"r{number}").save()

    undone = fail(stage, chunked=True).compensate()

    assert {one.status for one in undone} == {"deleted"}
    assert [record.id for record in todos.records] == ["taken"]


def test_what_is_merged_goes_back_to_theirs(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    stale = todos.records.create(id="x", data={"n": 1, "m": 1})
    todos.records.get("x").patch(m=2)

    fail(lambda uow: stale.patch(n=2), on_conflict=lambda conflict: "merge" if conflict.base else "raise").compensate()

    assert dict(todos.records.get("x").data) == {"n": 1, "m": 2}


def test_nothing_stored_is_nothing_to_undo(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    error = fail(lambda uow: Record(collection=todos, id="new").save(), atomic=True)
    wire = tap(todos.client)  # type: ignore[arg-type]  # it has one

    assert error.compensate() == ()
    assert wire.requests == []


def test_undoing_is_awaited(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    error = fail(lambda uow: Record(collection=todos, id="new").save())

    assert said(asyncio.run(error.acompensate())) == [("new", "deleted")]


def test_what_is_undone_inside_the_block_is_sent_at_once(
    kinto_client: Client, todos: Collection[Record], taken: Record
) -> None:
    with kinto_client.unit_of_work() as uow:
        Record(collection=todos, id="new").save()
        Record(collection=todos, id="taken").save()
        with pytest.raises(CommitError) as caught:
            uow.commit()
        undone = caught.value.compensate()
        still_there = todos.records.get_or_none("new")
        uow.rollback()

    assert said(undone) == [("new", "deleted")]
    assert still_there is None


def test_an_error_from_elsewhere_undoes_nothing() -> None:
    with pytest.raises(UsageError, match="process"):
        CommitError("by hand").compensate()


# -- containers -----------------------------------------------------------------------------------------------------


def test_what_was_created_with_its_children_is_deleted_with_them(
    kinto_client: Client, fail: Callable[..., CommitError]
) -> None:
    def stage(uow: UnitOfWork) -> None:
        bucket = Bucket(id="new", client=kinto_client).save()
        Group(bucket=bucket, id="g").save()
        Record(collection=Collection(bucket=bucket, id="c").save(), id="r").save()

    undone = fail(stage).compensate()

    assert said(undone) == [("r", "deleted"), ("c", "deleted"), ("g", "deleted"), ("new", "deleted")]
    assert [bucket.id for bucket in kinto_client.buckets] == ["payments"]


def test_of_two_that_were_created_only_the_one_with_others_in_it_is_left(
    payments: Bucket, fail: Callable[..., CommitError]
) -> None:
    red, blue = Collection(bucket=payments, id="red"), Collection(bucket=payments, id="blue")
    error = fail(lambda uow: (red.save(), blue.save(), Record(collection=red, id="mine").save()))
    Record(collection=payments.collection("blue"), id="theirs").save()

    assert said(error.compensate()) == [("mine", "deleted"), ("blue", "not_sent"), ("red", "deleted")]


def test_what_the_server_adds_by_itself_is_left_to_it(payments: Bucket, fail: Callable[..., CommitError]) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    record = Collection(bucket=payments, id="c", data={"schema": schema}).save().records.create(id="x", data={"n": 1})

    undone = fail(lambda uow: record.patch(n=2)).compensate()

    assert said(undone) == [("x", "updated")]
    assert payments.collection("c").records.get("x").data["n"] == 1


def test_what_others_have_put_something_into_is_left(
    kinto_client: Client, payments: Bucket, fail: Callable[..., CommitError]
) -> None:
    new = Collection(bucket=payments, id="new")
    error = fail(lambda uow: (new.save(), Record(collection=new, id="mine").save()))
    Record(collection=payments.collection("new"), id="theirs").save()

    undone = error.compensate()

    assert said(undone) == [("mine", "deleted"), ("new", "not_sent")]
    assert "others have put 1 objects into it" in str(undone[1].error)
    assert [record.id for record in payments.collection("new").records] == ["theirs"]


# -- what cannot be undone ------------------------------------------------------------------------------------------


def test_what_was_changed_since_is_a_conflict(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    record = todos.records.create(id="x", data={"n": 1})
    new = Record(collection=todos, id="new")
    error = fail(lambda uow: (record.patch(n=2), new.save()))
    todos.records.get("x").patch(m=1)
    todos.records.get("new").patch(m=1)

    undone = error.compensate()

    assert said(undone) == [("new", "conflict"), ("x", "conflict")]
    assert all(isinstance(one.error, ConflictError) for one in undone)
    assert dict(todos.records.get("x").data) == {"n": 2, "m": 1}
    assert dict(todos.records.get("new").data) == {"m": 1}


def test_what_was_created_since_by_somebody_else_is_left(
    todos: Collection[Record], fail: Callable[..., CommitError]
) -> None:
    record = todos.records.create(id="x", data={"n": 1})
    error = fail(lambda uow: record.delete())
    todos.records.create(id="x", data={"theirs": 1})

    assert said(error.compensate()) == [("x", "conflict")]
    assert dict(todos.records.get("x").data) == {"theirs": 1}


def test_what_was_deleted_since_is_gone(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    new = Record(collection=todos, id="new")
    error = fail(lambda uow: new.save())
    todos.records.get("new").delete()

    assert said(error.compensate()) == [("new", "gone")]


def test_undoing_twice_does_no_harm(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    record = todos.records.create(id="x", data={"n": 1})
    gone = todos.records.create(id="gone", data={"n": 1})
    error = fail(lambda uow: (record.patch(n=2), Record(collection=todos, id="new").save(), gone.delete()))
    error.compensate()

    undone = error.compensate()

    assert said(undone) == [("gone", "conflict"), ("new", "gone"), ("x", "conflict")]
    assert dict(todos.records.get("x").data) == dict(todos.records.get("gone").data) == {"n": 1}


def loaded_by_list(todos: Collection[Record], **query: Any) -> Record:
    return next(iter(todos.records.filter(id="x", **query)))


CANNOT: dict[str, tuple[Callable[[Collection[Record]], Any], str]] = {
    "deleted by its id": (lambda todos: Record(collection=todos, id="x").delete(), "its data was not known"),
    "deleted with some of its fields": (lambda todos: todos.records.only("m").get("x").delete(), "its data was not"),
    "deleted whatever it was": (lambda todos: loaded_by_list(todos).delete(safe=False), "safe=False"),
    "patched by its id": (lambda todos: Record(collection=todos, id="x").patch(n=2), "its data was not known"),
    "written over": (lambda todos: Record(collection=todos, id="x", data={"n": 2}).replace(safe=False), "safe=False"),
    "patched whatever it was": (lambda todos: loaded_by_list(todos).patch(n=2, safe=False), "safe=False"),
    "written over a version": (
        lambda todos: Record(collection=todos, id="x", data={"n": 2}).save(
            if_match=todos.records.get("x").last_modified
        ),
        "its data was not known",
    ),
    "permissions unknown": (
        lambda todos: loaded_by_list(todos).patch(BasicPatch(permissions={"read": ["account:new"]})),
        "its permissions were not known",
    ),
}


@pytest.mark.parametrize("case", CANNOT)
def test_what_cannot_be_undone_says_why_and_stays(
    case: str, todos: Collection[Record], fail: Callable[..., CommitError]
) -> None:
    write, why = CANNOT[case]
    todos.records.create(id="x", data={"n": 1, "m": 1})
    error = fail(lambda uow: write(todos))
    stored = todos.records.get_or_none("x")

    (undone,) = error.compensate()

    assert undone.status == "not_sent"
    assert isinstance(undone.error, UnitOfWorkError)
    assert why in str(undone.error)
    found = todos.records.get_or_none("x")
    assert (found and dict(found.data)) == (stored and dict(stored.data))


def test_a_container_that_was_deleted_does_not_come_back(payments: Bucket, fail: Callable[..., CommitError]) -> None:
    other = Collection(bucket=payments, id="other").save()

    (undone,) = fail(lambda uow: other.delete()).compensate()

    assert (undone.status, "with all that was in it" in str(undone.error)) == ("not_sent", True)


def test_what_existed_already_is_left(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    todos.records.create(id="x", data={"theirs": 1})
    mine = Record(collection=todos, id="x", data={"mine": 1})

    undone = fail(lambda uow: mine.save(if_not_exists=True)).compensate()

    assert undone == ()
    assert dict(todos.records.get("x").data) == {"theirs": 1}


def test_what_was_gone_already_does_not_come_back(todos: Collection[Record], fail: Callable[..., CommitError]) -> None:
    record = todos.records.create(id="x", data={"n": 1})
    todos.records.get("x").delete()

    undone = fail(lambda uow: record.delete(if_exists=True)).compensate()

    assert undone == ()
    assert todos.records.get_or_none("x") is None


def test_permissions_that_were_never_known_are_not_brought_back_and_that_is_said(
    todos: Collection[Record], fail: Callable[..., CommitError]
) -> None:
    todos.records.create(id="x", data={"n": 1}, permissions={"read": ["account:eve"]})
    record = loaded_by_list(todos)

    (undone,) = fail(lambda uow: record.delete()).compensate()

    assert undone.status == "created"
    assert "without its permissions" in str(undone.error)
    assert dict(todos.records.get("x").data) == {"n": 1}


def test_n_a_created_bucket_stays_where_another_client_put_a_group_into_it(
    kinto_client: Client, fail: Callable[..., CommitError]
) -> None:
    error = fail(lambda uow: Bucket(id="fresh", client=kinto_client).save())
    Group(bucket="fresh", id="theirs", client=kinto_client.clone()).save()

    (outcome,) = error.compensate()

    assert outcome.status != "deleted"
    assert kinto_client.buckets.get("fresh").id == "fresh"
