"""A sync moves changes both ways, merges, and loses nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kinto_orm import Collection, InvalidValueError, Record, ServerResetError, UsageError
from kinto_orm.protocol.messages import Request

from .conftest import Device, remote


def put(todos: Collection[Record], id: str, **data: Any) -> None:
    todos.records.update_or_create(id, data)


def test_records_go_both_ways(device: Device, todos: Collection[Record]) -> None:
    put(todos, "theirs", n=1)
    device.save("mine", n=2)
    assert [(one.id, one.kind) for one in device.mirror.pending] == [("mine", "created")]

    result = device.sync()

    assert result.ok and device.mirror.pending == []
    assert remote(todos) == device.data == {"theirs": {"n": 1}, "mine": {"n": 2}}
    assert ([path[-6:] for path in result.pulled], [path[-4:] for path in result.pushed]) == (["theirs"], ["mine"])


def test_changes_and_deletions_go_both_ways(device: Device, todos: Collection[Record]) -> None:
    for id in ("a", "b", "c", "d"):
        put(todos, id, n=1)
    device.sync()
    put(todos, "a", n=2)
    todos.records.get("b").delete()
    device.save("c", n=3)
    device.delete("d")

    result = device.sync()

    assert result.ok
    assert remote(todos) == device.data == {"a": {"n": 2}, "c": {"n": 3}}
    assert (len(result.pulled), len(result.pushed)) == (2, 2)
    assert device.sync().ok and device.data == remote(todos)


def test_different_fields_are_merged(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1, y=1)
    device.sync()
    put(todos, "a", x=2)
    device.save("a", y=2)

    result = device.sync()

    assert result.ok and len(result.merged) == 1
    assert remote(todos) == device.data == {"a": {"x": 2, "y": 2}}


def test_the_same_field_is_a_conflict_until_it_is_resolved(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1, y=1)
    put(todos, "b", x=1)
    device.sync()
    put(todos, "a", x=2, z=1)
    device.save("a", x=3, y=3)
    device.save("b", x=4)

    assert not device.sync().ok
    result = device.sync()

    (conflict,) = device.mirror.conflicts
    assert result.conflicts == ["/buckets/payments/collections/todos/records/a"]
    assert (conflict.base, conflict.mine, conflict.theirs) == (
        {"x": 1, "y": 1},
        {"x": 3, "y": 3},
        {"x": 2, "y": 1, "z": 1},
    )
    assert conflict.fields == ("x",)
    assert remote(todos)["b"] == {"x": 4}  # the others go on
    assert conflict.merge(prefer="theirs") == {"x": 2, "y": 3, "z": 1}
    conflict.resolve(conflict.merge(prefer="mine"))
    assert device.sync().ok
    assert remote(todos)["a"] == device.data["a"] == {"x": 3, "y": 3, "z": 1}


@pytest.mark.parametrize(
    ("on_conflict", "expected"),
    [
        ("mine", {"x": 3, "y": 3, "z": 1}),
        ("theirs", {"x": 2, "y": 3, "z": 1}),
        (lambda one: {"x": one.mine["x"]}, {"x": 3}),
    ],
)
def test_conflicts_are_resolved_as_asked(
    device: Device, todos: Collection[Record], on_conflict: Any, expected: Any
) -> None:
    put(todos, "a", x=1, y=1)
    device.sync()
    put(todos, "a", x=2, z=1)
    device.save("a", x=3, y=3)

    result = device.sync(on_conflict=on_conflict)

    assert result.ok
    assert remote(todos)["a"] == device.data["a"] == expected


class Counted(Record, bucket="payments", collection="todos"):
    n: int


@pytest.mark.parametrize("data", [{"n": "x"}, {"n": 4, "id": "another"}])
def test_data_that_no_one_could_read_resolves_no_conflict(
    device: Device, todos: Collection[Record], data: dict[str, Any]
) -> None:
    records = device.mirror.collection(Counted).records
    put(todos, "a", n=1)
    device.sync()
    put(todos, "a", n=2)
    device.save("a", n=3)
    result = device.sync(on_conflict=lambda one: data)

    assert [(one.id, type(one.error)) for one in result.errors] == [("a", InvalidValueError)]
    assert len(result.conflicts) == 1 and result.pushed == [] and remote(todos) == {"a": {"n": 2}}
    (conflict,) = device.mirror.conflicts
    with pytest.raises(InvalidValueError, match="records/a"):
        conflict.resolve(data)
    conflict.resolve(records.get("a").to_dict())
    assert device.sync().ok and remote(todos) == device.data == {"a": {"n": 3}}


def test_a_side_that_does_not_fit_the_model_can_be_taken(device: Device, todos: Collection[Record]) -> None:
    device.mirror.collection(Counted)
    put(todos, "a", n=1)
    device.sync()
    put(todos, "a", n="x")
    device.save("a", n=3)
    device.sync()

    device.mirror.conflicts[0].take_theirs()

    assert device.sync().ok and remote(todos) == device.data == {"a": {"n": "x"}}


@pytest.mark.parametrize("on_conflict", ["park", "mine", "theirs"])
def test_a_deletion_here_meets_a_change_there(device: Device, todos: Collection[Record], on_conflict: Any) -> None:
    put(todos, "a", x=1)
    device.sync()
    put(todos, "a", x=2)
    device.delete("a")

    device.sync(on_conflict=on_conflict)

    if on_conflict == "park":
        (conflict,) = device.mirror.conflicts
        assert (conflict.mine, conflict.theirs, conflict.fields) == (None, {"x": 2}, ())
        conflict.keep_mine()
        assert device.sync().ok
    expected: Any = {"a": {"x": 2}} if on_conflict == "theirs" else {}
    assert remote(todos) == device.data == expected


@pytest.mark.parametrize("on_conflict", ["park", "mine", "theirs"])
def test_a_change_here_meets_a_deletion_there(device: Device, todos: Collection[Record], on_conflict: Any) -> None:
    put(todos, "a", x=1)
    device.sync()
    todos.records.get("a").delete()
    device.save("a", x=2)

    result = device.sync(on_conflict=on_conflict)

    if on_conflict == "park":
        (conflict,) = device.mirror.conflicts
        assert (conflict.mine, conflict.theirs) == ({"x": 2}, None)
        conflict.keep_mine()
        result = device.sync()
    assert result.ok
    assert (len(result.recreated) == 1) is (on_conflict == "mine")
    expected: Any = {} if on_conflict == "theirs" else {"a": {"x": 2}}
    assert remote(todos) == device.data == expected
    assert device.sync().ok and device.mirror.pending == []


def test_two_mirrors_that_bring_a_record_back_merge(device: Device, other: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1, y=1)
    device.sync()
    other.sync()
    todos.records.get("a").delete()
    device.save("a", x=2)
    other.save("a", y=2)

    assert device.sync(on_conflict="mine").ok and other.sync(on_conflict="mine").ok and device.sync().ok

    assert remote(todos) == device.data == other.data == {"a": {"x": 2, "y": 2}}


def test_both_delete(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1)
    device.sync()
    todos.records.get("a").delete()
    device.delete("a")

    assert device.sync().ok and device.mirror.pending == [] and device.data == {}


def test_a_field_that_is_removed_disappears_on_both_sides(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1, y=1, z=1)
    device.sync()
    record = todos.records.get("a")
    del record.data["x"]
    record.save()
    device.save("a", y=None)

    assert device.sync().ok
    assert remote(todos) == device.data == {"a": {"z": 1}}


def test_an_object_that_was_saved_before_a_sync_can_be_saved_after_it(
    device: Device, todos: Collection[Record]
) -> None:
    record = device.save("a", x=1)

    device.sync()

    record.data["x"] = 2
    record.save()
    assert device.sync().ok and remote(todos) == {"a": {"x": 2}}


def test_an_edit_during_the_push_survives(device: Device, todos: Collection[Record]) -> None:
    device.save("a", x=1, y=1)

    def edit(request: Any, answer: Any) -> None:
        if request.method == "POST":
            device.wire.after = None
            device.save("a", x=2)

    device.wire.after = edit
    assert device.sync().ok
    assert (remote(todos), device.data) == ({"a": {"x": 1, "y": 1}}, {"a": {"x": 2, "y": 1}})
    assert device.sync().ok
    assert remote(todos) == {"a": {"x": 2, "y": 1}}


def test_an_edit_during_the_pull_survives(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1, y=1)
    device.sync()
    put(todos, "a", y=2)

    def edit(request: Any, answer: Any) -> None:
        if request.method == "GET" and "_since" in request.url:
            device.wire.after = None
            device.save("a", x=2)

    device.wire.after = edit
    assert device.sync().ok
    assert remote(todos) == device.data == {"a": {"x": 2, "y": 2}}


def test_a_rival_between_pull_and_push_is_merged(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1, y=1)
    device.sync()
    device.save("a", x=2)

    def rival(request: Any) -> None:
        if request.method == "POST":
            device.wire.before = None
            put(todos, "a", y=2)

    device.wire.before = rival
    assert device.sync().ok
    assert remote(todos) == device.data == {"a": {"x": 2, "y": 2}}


def test_a_rival_s_deletion_between_pull_and_push_is_a_conflict(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1)
    device.sync()
    device.save("a", x=2)

    def rival(request: Any) -> None:
        if request.method == "POST":
            device.wire.before = None
            todos.records.get("a").delete()

    device.wire.before = rival
    result = device.sync()

    assert (len(result.conflicts), device.mirror.conflicts[0].theirs) == (1, None)
    device.mirror.conflicts[0].take_theirs()
    assert device.sync().ok and device.data == {} == remote(todos)


def test_nothing_changed_is_one_request(device: Device, todos: Collection[Record]) -> None:
    device.mirror._horizon = 0
    put(todos, "a", x=1)
    device.sync()
    device.sync()
    device.wire.sent.clear()

    assert device.sync().ok
    assert [method for method, _, _ in device.wire.sent] == ["HEAD"]


def test_a_pull_alone_writes_nothing(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1)
    device.save("b", x=2)

    result = device.sync(push=False)

    assert result.pushed == [] and remote(todos) == {"a": {"x": 1}} and len(device.mirror.pending) == 1
    assert {method for method, _, _ in device.wire.sent} <= {"GET", "HEAD"}


def test_a_conflict_that_moved_on_is_looked_at_again(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1)
    device.sync()
    put(todos, "a", x=2)
    device.save("a", x=3)
    device.sync()
    (conflict,) = device.mirror.conflicts
    device.save("a", x=4)

    with pytest.raises(UsageError, match="again"):
        conflict.keep_mine()
    assert device.mirror.conflicts[0].mine == {"x": 4}
    put(todos, "a", x=4)
    assert device.sync().ok  # both sides agree now


# -- what a server loses -------------------------------------------------------------------------------------------


def lose(todos: Collection[Record]) -> None:
    """Make the collection anew: records and tombstones are gone."""
    todos.refresh().delete()
    Collection(bucket=todos.bucket, id="todos").save()


def prepared(device: Device, todos: Collection[Record]) -> None:
    for id in ("a", "b", "c"):
        put(todos, id, x=1)
    device.sync()
    device.save("a", x=2)
    device.delete("c")
    lose(todos)
    put(todos, "foreign", x=9)


def test_a_collection_that_was_made_anew_is_noticed(device: Device, todos: Collection[Record]) -> None:
    prepared(device, todos)
    before = device.data

    with pytest.raises(ServerResetError) as caught:
        device.sync()

    assert (caught.value.missing, caught.value.kept) == (3, 2)
    assert (before, {"foreign": {"x": 9}}) == (device.data, remote(todos))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_collection_that_is_made_anew_in_a_sync_is_noticed(
    device: Device, todos: Collection[Record], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr("kinto_orm.mirror.syncing.PAGE_SIZE", 2)
    ids = ["a", "b", "c", "d"]
    for id in ids:
        put(todos, id, x=1)
    device.sync()
    for id in ids[:3]:
        put(todos, id, x=2)
    device.save("a", y=1)
    device.save("mine", y=1)

    def begin_anew(request: Any) -> None:
        if request.method == method and (method == "POST" or "_token" in request.url):
            device.wire.before = None
            lose(todos)
            put(todos, "foreign", x=9)

    device.wire.before = begin_anew
    for _ in range(2):  # it goes on asking
        with pytest.raises(ServerResetError):
            device.sync()
        assert {*ids, "mine"} <= device.data.keys() and device.data["a"] == {"x": 2, "y": 1}

    assert device.sync(on_reset="push").ok
    assert remote(todos) == device.data and sorted(device.data) == [*ids, "foreign", "mine"]


def test_a_collection_that_was_made_anew_with_some_of_its_ids_is_noticed(
    device: Device, todos: Collection[Record]
) -> None:
    device.mirror._horizon = 0
    for id in ("a", "b", "c"):
        put(todos, id, x=1)
    device.sync()
    lose(todos)
    put(todos, "c", x=3)

    for _ in range(2):
        with pytest.raises(ServerResetError):
            device.sync()
        assert sorted(device.data) == ["a", "b", "c"]

    assert device.sync(on_reset="pull").ok
    assert remote(todos) == device.data == {"c": {"x": 3}}


@pytest.mark.parametrize(
    ("on_reset", "expected"),
    [
        ("pull", {"a": {"x": 2}, "foreign": {"x": 9}}),
        ("push", {"a": {"x": 2}, "b": {"x": 1}, "foreign": {"x": 9}}),
    ],
)
def test_a_reset_is_mended_as_asked(device: Device, todos: Collection[Record], on_reset: Any, expected: Any) -> None:
    prepared(device, todos)

    result = device.sync(on_reset=on_reset)

    assert result.ok and result.reset == ["/buckets/payments/collections/todos"]
    assert remote(todos) == device.data == expected
    assert device.sync().ok and device.mirror.pending == []


def test_lost_tombstones_leave_no_ghosts(device: Device, todos: Collection[Record], kinto_server: Any) -> None:
    for id in ("a", "b", "c"):
        put(todos, id, x=1)
    device.sync()
    device.save("b", x=2)
    for id in ("b", "c"):
        todos.records.get(id).delete()
    storage = kinto_server._app.registry.storage
    storage.purge_deleted("record", "/buckets/payments/collections/todos")

    result = device.sync(on_conflict="mine")

    assert result.ok and len(result.recreated) == 1
    assert remote(todos) == device.data == {"a": {"x": 1}, "b": {"x": 2}}


def test_records_with_timestamps_of_the_past_are_found(device: Device, todos: Collection[Record]) -> None:
    put(todos, "a", x=1)
    device.mirror._horizon = 0
    device.sync()
    body = json.dumps({"data": {"x": 7, "last_modified": 1_600_000_000_000}}).encode()
    put_old = Request("PUT", f"{todos.records.__kinto_reading__().source.locate().path}/old", body=body)
    assert device.online._connection.transport.send(put_old).status == 201

    assert device.sync().ok
    assert device.data == remote(todos) == {"a": {"x": 1}, "old": {"x": 7}}
