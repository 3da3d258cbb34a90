"""The three forms of PATCH, and the smallest one that turns one state into another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wiretap import Wiretap

from kinto_orm import (
    BasicPatch,
    Client,
    Collection,
    InvalidTypeError,
    InvalidValueError,
    JSONPatch,
    MergePatch,
    NotStageableError,
    Record,
)
from kinto_orm.protocol.json_values import is_same
from kinto_orm.protocol.patches import apply_merge_patch, merge_patch, written_places

JSON = "application/json"
MERGE = "application/merge-patch+json"

# Few keys and values, so that two data often share some of them.
VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, "a", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
DATA = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False


@pytest.fixture
def record(wire: Wiretap, todos: Collection) -> Record:
    """With a nested value."""
    return Record(collection=todos, id="x", data={"n": {"x": 1, "y": 2}, "q": 1, "tags": ["a"]}).save()


# -- the smallest patch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "kind", "body"),
    [
        pytest.param({"a": 1, "b": [1], "c": 2}, f"PATCH {JSON}", {"c": 2}, id="added"),
        pytest.param({"a": 2, "b": [1]}, f"PATCH {JSON}", {"a": 2}, id="changed"),
        pytest.param({"a": None, "b": [1]}, f"PATCH {JSON}", {"a": None}, id="set to null"),
        pytest.param({"a": 1}, f"PATCH {MERGE}", {"b": None}, id="removed"),
        pytest.param({"a": 2}, f"PATCH {MERGE}", {"b": None, "a": 2}, id="removed and changed"),
        pytest.param({"a": None}, f"PUT {JSON}", {"a": None}, id="removed and set to null"),
        pytest.param({"a": {"x": 1}}, f"PUT {JSON}", {"a": {"x": 1}}, id="removed and set to an object"),
        pytest.param({"a": True, "b": [True]}, f"PATCH {JSON}", {"a": True, "b": [True]}, id="another type"),
    ],
)
def test_a_save_is_the_smallest_change(todos: Collection, wire: Wiretap, after: Any, kind: str, body: Any) -> None:
    record = Record(collection=todos, data={"a": 1, "b": [1]}).save()
    record.data = after

    record.save()

    request = wire.requests[-1]
    assert f"{request.method} {request.headers['Content-Type']}" == kind
    assert wire.bodies[-1] == {"data": body}
    assert is_same(dict(todos.records.get(record.id).data), after)


@given(before=DATA, after=DATA)
@example(before={"a": {"a": 1}}, after={"a": {"b": None}})
@example(before={"a": 1, "b": 1}, after={"a": {"a": 1}})
@example(before={"a": 1, "b": 1}, after={"a": [{"a": None}]})
def test_any_data_becomes_any_other(todos: Collection, before: Any, after: Any) -> None:
    record = todos.records.get(Record(collection=todos, data=before).save().id)
    record.data = after

    record.save()

    assert is_same(dict(todos.records.get(record.id).data), after) and is_same(dict(record.data), after)
    record.delete()


@given(pairs=st.lists(st.tuples(DATA, DATA), min_size=1, max_size=5))
def test_any_data_becomes_any_other_in_a_batch(kinto_client: Client, todos: Collection, pairs: Any) -> None:
    records = [Record(collection=todos, data=before).save() for before, _ in pairs]

    with kinto_client.unit_of_work():
        for record, (_, after) in zip(records, pairs, strict=True):
            record.data = after
            record.save()

    for record, (_, after) in zip(records, pairs, strict=True):
        assert is_same(dict(todos.records.get(record.id).data), after) and not record.is_dirty
        record.delete()


@given(before=DATA, after=DATA)
def test_a_merge_patch_does_what_it_was_made_for(before: Any, after: Any) -> None:
    patch = merge_patch(before, after)

    assert patch is None or is_same(apply_merge_patch(before, patch), after)


# -- each form ------------------------------------------------------------------------------------------------------


def test_a_mapping_sets_whole_keys(record: Record) -> None:
    record.patch({"n": {"x": 5}, "q": None})

    assert record.data == {"n": {"x": 5}, "q": None, "tags": ["a"]}


def test_keywords_and_a_mapping_go_together(record: Record, wire: Wiretap) -> None:
    record.patch({"safe": 1, "if_match": 2}, q=3)

    assert wire.bodies[-1] == {"data": {"safe": 1, "if_match": 2, "q": 3}}


def test_a_basic_patch_is_the_same(record: Record) -> None:
    record.patch(BasicPatch(data={"q": 2}, permissions={"read": ["account:bob"]}))

    assert record.data["q"] == 2 and record.permissions.read == {"account:bob"}


def test_a_merge_patch_goes_into_objects_and_removes(record: Record, wire: Wiretap) -> None:
    record.patch(MergePatch({"n": {"x": 5, "y": None}, "q": None, "new": {"z": None}}))

    assert wire.requests[-1].headers["Content-Type"] == MERGE
    assert record.data == {"n": {"x": 5}, "tags": ["a"], "new": {}}


@pytest.mark.parametrize("value", [[1], 1, "a", None])
def test_o11_an_object_is_not_merged_into_another_value(todos: Collection, wire: Wiretap, value: Any) -> None:
    record = Record(collection=todos, id="o11", data={"flat": value, "deep": {"er": value}}).save()
    sent = len(wire.requests)

    for patch, path in (({"flat": {"a": 1}}, "flat"), ({"deep": {"er": {"a": 1}}}, r"deep\.er")):
        with pytest.raises(InvalidValueError, match=f"records/o11: {path} holds no object"):
            record.patch(MergePatch(patch))

    assert len(wire.requests) == sent
    assert record.patch(MergePatch({"deep": {"new": {"a": 1}}})).data["deep"] == {"er": value, "new": {"a": 1}}


def test_a_json_patch_works_on_parts(record: Record) -> None:
    record.patch(
        JSONPatch(
            [
                {"op": "test", "path": "/data/q", "value": 1},
                {"op": "add", "path": "/data/tags/-", "value": "b"},
                {"op": "move", "from": "/data/n/x", "path": "/data/x"},
            ]
        )
    )

    assert record.data == {"n": {"y": 2}, "q": 1, "tags": ["a", "b"], "x": 1}


@pytest.mark.parametrize(
    ("patch", "kept"),
    [
        pytest.param({"q": 2}, {"a/b~": "mine", "moved": 1}, id="mapping"),
        pytest.param(MergePatch({"q": None}), {"a/b~": "mine", "moved": 1}, id="merge"),
        pytest.param(JSONPatch([{"op": "add", "path": "/data/a~1b~0", "value": 1}]), {"moved": 1}, id="add"),
        pytest.param(
            JSONPatch([{"op": "copy", "from": "/data/q", "path": "/data/moved"}]), {"a/b~": "mine"}, id="copy"
        ),
    ],
)
def test_other_changes_stay_unsaved(record: Record, todos: Collection, patch: Any, kept: Any) -> None:
    record.data.update({"a/b~": "mine", "moved": 1})

    record.patch(patch)

    server = dict(todos.records.get("x").data)
    assert {key: value for key, value in record.data.items() if server.get(key) != value} == kept


def test_any_patch_reaches_an_object_that_was_never_read(record: Record, todos: Collection) -> None:
    for patch in ({"a": 1}, MergePatch({"q": None}), JSONPatch([{"op": "remove", "path": "/data/n"}])):
        Record(collection=todos, id="x").patch(patch)

    assert todos.records.get("x").data == {"tags": ["a"], "a": 1}


# -- refused before it is sent --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        pytest.param({}, InvalidValueError, id="nothing"),
        pytest.param(None, InvalidValueError, id="none"),
        pytest.param(BasicPatch(), InvalidValueError, id="empty patch"),
        pytest.param(BasicPatch({}), InvalidValueError, id="patch of nothing"),
        pytest.param([("a", 1)], InvalidTypeError, id="list"),
        pytest.param("a=1", InvalidTypeError, id="text"),
        pytest.param({"a": float("nan")}, InvalidValueError, id="nan"),
        pytest.param(MergePatch({"a": object()}), InvalidValueError, id="object"),
        pytest.param(JSONPatch([{"op": "add", "path": "/data/a", "value": {1}}]), InvalidValueError, id="set"),
    ],
)
def test_a_patch_that_says_nothing_or_nonsense_is_refused(
    record: Record, wire: Wiretap, patch: Any, error: type[Exception]
) -> None:
    sent = len(wire.said)

    with pytest.raises(error):
        record.patch(patch)

    assert len(wire.said) == sent


def test_a_patch_object_and_values_do_not_mix(record: Record) -> None:
    with pytest.raises(InvalidTypeError, match="not both"):
        record.patch(MergePatch({"q": 1}), q=2)


@pytest.mark.parametrize(("operations", "error"), [([], InvalidValueError), ({"op": "add"}, InvalidTypeError)])
def test_a_json_patch_is_a_list_of_operations(operations: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        JSONPatch(operations)


def test_the_operations_of_a_generator_are_kept() -> None:
    patch = JSONPatch({"op": "remove", "path": f"/data/{key}"} for key in "ab")

    assert len(patch.body) == len(patch.body) == 2


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"done": "maybe"}, id="value"),
        pytest.param({"title": None}, id="null"),
        pytest.param(MergePatch({"title": None}), id="removal of a required key"),
    ],
)
def test_a_patch_that_the_model_could_not_read_again_is_refused(wire: Wiretap, patch: Any) -> None:
    todo = Todo(title="x").save()

    with pytest.raises(InvalidValueError, match=r"title|done"):
        todo.patch(patch)

    assert wire.said == ["PUT If-None-Match: *"]


# -- in a batch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"n": {"x": 5}, "q": None}, id="mapping"),
        pytest.param(MergePatch({"q": 5}), id="plain merge"),
        pytest.param(MergePatch({"n": {"x": 5, "y": None}, "q": None, "new": {"z": None}}), id="merge"),
    ],
)
def test_a_patch_does_the_same_in_a_batch(kinto_client: Client, todos: Collection, record: Record, patch: Any) -> None:
    twin = Record(collection=todos, data=dict(record.data)).save()

    with kinto_client.unit_of_work():
        record.patch(patch)
    twin.patch(patch)

    assert is_same(dict(todos.records.get("x").data), dict(twin.data)) and is_same(dict(record.data), dict(twin.data))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda record: record.patch(MergePatch({"n": {"y": None}}), safe=False), id="merge-patch"),
        pytest.param(lambda record: (record.data.pop("q", None), record.save(safe=False)), id="removed key"),
    ],
)
def test_what_a_batch_can_only_put_whole_needs_its_precondition(
    kinto_client: Client, todos: Collection, record: Record, write: Any
) -> None:
    todos.records.get("x").patch(theirs=1)

    with pytest.raises(NotStageableError, match="overwrite"), kinto_client.unit_of_work():
        write(record)
    write(record)

    assert todos.records.get("x").data["theirs"] == 1


def test_a_change_that_takes_a_put_needs_its_precondition_alone_too(todos: Collection, record: Record) -> None:
    todos.records.get("x").patch(theirs=1)
    record.data = {"n": None}

    with pytest.raises(NotStageableError, match="replace"):
        record.save(safe=False)

    assert record.replace(safe=False).data == {"n": None}


def test_a_merge_patch_of_what_was_never_read_is_refused_in_a_batch(kinto_client: Client, todos: Collection) -> None:
    with pytest.raises(NotStageableError, match="refresh"), kinto_client.unit_of_work():
        Record(collection=todos, id="x").patch(MergePatch({"n": {"x": 5}}))


def test_a_json_patch_is_carried_out_here_in_a_batch(kinto_client: Client, record: Record) -> None:
    with kinto_client.unit_of_work() as uow:
        record.patch(JSONPatch([{"op": "remove", "path": "/data/q"}, {"op": "add", "path": "/data/l", "value": [1]}]))

        (planned,) = uow.plan().writes

    assert (planned.request["method"], list(planned.request["headers"])) == ("PUT", ["If-Match"])
    assert "q" not in record.data
    assert record.collection.records.get(record.id).data["l"] == [1]


def test_a_json_patch_and_another_change_are_two_operations(kinto_client: Client, record: Record) -> None:
    patch = JSONPatch([{"op": "remove", "path": "/data/q"}])

    for first, second in [(patch, {"n": 1}), ({"n": 1}, patch)]:
        with kinto_client.unit_of_work() as uow:
            record.patch(first)
            with pytest.raises(NotStageableError, match="commit in between"):
                record.patch(second)
            uow.rollback()


def test_a_json_patch_of_what_was_never_read_is_refused_in_a_batch(kinto_client: Client, record: Record) -> None:
    with pytest.raises(NotStageableError, match="JSON-Patch"), kinto_client.unit_of_work():
        Record(collection=record.collection, id="x").patch(JSONPatch([{"op": "remove", "path": "/data/q"}]))


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/data", "value": {}},
        {"op": "test", "path": "/data/last_modified", "value": 5},
        {"op": "copy", "from": "/data/id", "path": "/data/n"},
        {"op": "move", "from": "/data/m", "path": "/data/n"},
        {"op": "add", "path": "/permissions/read/-", "value": "account:bob"},
    ],
    ids=str,
)
def test_a_json_patch_may_read_what_the_server_sets(operation: dict[str, Any]) -> None:
    written_places(JSONPatch([operation]))
