"""What an object is decides what a verb does."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from wiretap import Wiretap, answer, scripted_client

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    ConflictError,
    DeletedObjectError,
    Group,
    InvalidIdError,
    InvalidTypeError,
    InvalidValueError,
    NotBoundError,
    NotFoundError,
    NotLoadedError,
    ReadOnlyError,
    Record,
    UnsavedChangesError,
)

Do = Callable[..., Any]

VERBS = ["save", "replace", "patch", "delete", "refresh"]
ARGUMENTS: dict[str, tuple[Any, ...]] = {"patch": ({"done": True},)}


@pytest.fixture(params=["", "a"], ids=["sync", "async"])
def do(request: pytest.FixtureRequest) -> Do:
    """Calls a verb of an object, or its a-twin."""

    def call(target: Any, verb: str, **options: Any) -> Any:
        arguments = ARGUMENTS.get(verb, ())
        if not request.param:
            return getattr(target, verb)(*arguments, **options)

        async def twin() -> Any:
            return await getattr(target, f"a{verb}")(*arguments, **options)

        return asyncio.run(twin())

    return call


def new(todos: Collection, **options: Any) -> Record:
    return Record(collection=todos, id="milk", data={"title": "Buy milk"}, **options)


def loaded(todos: Collection) -> Record:
    return new(todos).save()


def outdated(todos: Collection) -> Record:
    record = loaded(todos)
    todos.records.get("milk").patch(title="Buy oat milk")
    return record


def last(wire: Wiretap) -> str:
    return wire.said[-1]


# -- new: constructed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["save", "replace"])
def test_a_new_object_is_created_only_where_there_is_none(do: Do, todos: Collection, wire: Wiretap, verb: str) -> None:
    record = do(new(todos), verb)

    assert wire.said == ["PUT If-None-Match: *"]
    assert not record.is_new and not record.is_dirty


@pytest.mark.parametrize("verb", ["save", "replace"])
def test_a_new_object_overwrites_what_is_there_only_when_told_so(
    do: Do, todos: Collection, wire: Wiretap, verb: str
) -> None:
    loaded(todos).patch(old=1)

    record = do(Record(collection=todos, id="milk", data={"title": "New"}), verb, safe=False)

    assert last(wire) == "PUT"
    assert dict(record.data) == {"title": "New"}


@pytest.mark.parametrize("verb", ["save", "replace"])
def test_a_new_object_replaces_the_version_that_the_caller_names(
    do: Do, todos: Collection, wire: Wiretap, verb: str
) -> None:
    version = loaded(todos).last_modified

    do(new(todos), verb, if_match=version)

    assert last(wire) == f'PUT If-Match: "{version}"'


def test_a_new_object_is_patched_without_precondition(do: Do, todos: Collection, wire: Wiretap) -> None:
    loaded(todos)

    record = do(Record(collection=todos, id="milk"), "patch")

    assert last(wire) == "PATCH"
    assert dict(record.data) == {"title": "Buy milk", "done": True}


def test_a_new_object_is_deleted_without_precondition(do: Do, todos: Collection, wire: Wiretap) -> None:
    loaded(todos)

    record = do(new(todos), "delete")

    assert last(wire) == "DELETE"
    assert record.is_deleted


def test_a_new_object_is_refreshed_from_the_server(do: Do, todos: Collection, wire: Wiretap) -> None:
    loaded(todos)

    record = do(Record(collection=todos, id="milk", data={"title": "Other"}), "refresh")

    assert last(wire) == "GET"
    assert record.data["title"] == "Buy milk" and not record.is_new


@pytest.mark.parametrize("verb", ["patch", "delete", "refresh"])
def test_what_must_exist_needs_an_id(do: Do, todos: Collection, wire: Wiretap, verb: str) -> None:
    record = Record(collection=todos, data={})

    with pytest.raises(NotBoundError, match="no id yet"):
        do(record, verb)

    assert record.id is None and not wire.said


# -- reference ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["save", "replace"])
def test_a_reference_is_not_written_whole(do: Do, payments: Bucket, wire: Wiretap, verb: str) -> None:
    with pytest.raises(NotLoadedError):
        do(payments.collection("todos"), verb)

    assert not wire.said


def test_even_an_unsafe_save_of_a_reference_is_refused(do: Do, payments: Bucket, wire: Wiretap) -> None:
    with pytest.raises(NotLoadedError):
        do(payments.collection("todos"), "save", safe=False)

    assert not wire.said


def test_an_unsafe_replace_makes_a_reference_exist_and_drops_no_data(do: Do, payments: Bucket, wire: Wiretap) -> None:
    payments.collection("todos").patch(kept=1)

    collection = do(payments.collection("todos"), "replace", safe=False)

    assert last(wire) == "PUT" and wire.bodies[-1] == {}
    assert dict(collection.data) == {"kept": 1}


def test_an_unsafe_replace_of_a_reference_sends_the_data_that_was_assigned(
    do: Do, payments: Bucket, wire: Wiretap
) -> None:
    collection = payments.collection("todos")
    collection.data = {"sort": "title"}

    do(collection, "replace", safe=False)

    assert wire.bodies[-1] == {"data": {"sort": "title"}}
    assert not collection.is_dirty


@pytest.mark.parametrize(("verb", "request_line"), [("patch", "PATCH"), ("delete", "DELETE"), ("refresh", "GET")])
def test_a_reference_is_enough_for_what_needs_no_data(
    do: Do, payments: Bucket, wire: Wiretap, verb: str, request_line: str
) -> None:
    do(payments.collection("todos"), verb)

    assert wire.said == [request_line]


def test_the_data_of_a_reference_is_neither_read_nor_changed(payments: Bucket) -> None:
    reference = payments.collection("todos")

    with pytest.raises(NotLoadedError):
        reference.data["sort"]
    with pytest.raises(NotLoadedError):
        reference.data["sort"] = "title"
    with pytest.raises(NotLoadedError):
        reference.sort = "title"

    assert not reference.is_dirty


# -- loaded ---------------------------------------------------------------------------------------------------------


def test_a_clean_object_is_not_sent(do: Do, todos: Collection, wire: Wiretap) -> None:
    record = loaded(todos)

    do(record, "save")

    assert wire.said == ["PUT If-None-Match: *"]


def test_a_dirty_object_sends_what_changed(do: Do, todos: Collection, wire: Wiretap) -> None:
    record = loaded(todos)
    version = record.last_modified
    record.data["done"] = True

    do(record, "save")

    assert last(wire) == f'PATCH If-Match: "{version}"'
    assert wire.bodies[-1] == {"data": {"done": True}}


@pytest.mark.parametrize(("verb", "method"), [("replace", "PUT"), ("patch", "PATCH"), ("delete", "DELETE")])
def test_a_loaded_object_is_written_over_the_version_last_seen(
    do: Do, todos: Collection, wire: Wiretap, verb: str, method: str
) -> None:
    record = loaded(todos)
    version = record.last_modified

    do(record, verb)

    assert last(wire) == f'{method} If-Match: "{version}"'


@pytest.mark.parametrize("verb", ["save", "replace", "patch", "delete"])
def test_a_stale_object_is_refused(do: Do, todos: Collection, verb: str) -> None:
    record = outdated(todos)
    record.data["done"] = False

    with pytest.raises(ConflictError):
        do(record, verb)

    assert todos.records.get("milk").data["title"] == "Buy oat milk"


@pytest.mark.parametrize(
    ("verb", "method"), [("save", "PATCH"), ("replace", "PUT"), ("patch", "PATCH"), ("delete", "DELETE")]
)
def test_safe_false_drops_the_precondition(do: Do, todos: Collection, wire: Wiretap, verb: str, method: str) -> None:
    record = outdated(todos)
    record.data["done"] = False

    do(record, verb, safe=False)

    assert last(wire) == method


@pytest.mark.parametrize("verb", ["save", "replace", "patch", "delete"])
@pytest.mark.parametrize("quoted", [False, True], ids=["timestamp", "etag"])
def test_if_match_names_the_version_to_write_over(
    do: Do, todos: Collection, wire: Wiretap, verb: str, quoted: bool
) -> None:
    record = outdated(todos)
    record.data["done"] = False
    version = todos.records.get("milk").last_modified

    do(record, verb, if_match=f'"{version}"' if quoted else version)

    assert last(wire).endswith(f'If-Match: "{version}"')


@pytest.mark.parametrize("verb", ["save", "replace", "patch", "delete"])
@pytest.mark.parametrize("version", ["yesterday", -1, True, 1.5], ids=repr)
def test_a_version_that_is_none_is_refused(do: Do, todos: Collection, wire: Wiretap, verb: str, version: Any) -> None:
    record = loaded(todos)

    with pytest.raises((ValueError, TypeError)):
        do(record, verb, if_match=version)

    assert len(wire.said) == 1


@pytest.mark.parametrize("verb", ["replace", "patch", "delete"])
def test_without_its_timestamp_an_object_is_not_written_by_accident(do: Do, verb: str) -> None:
    with scripted_client(answer({"data": {"id": "milk"}})):
        record = Record(id="milk").refresh()

        with pytest.raises(NotLoadedError, match="timestamp"):
            do(record, verb)


def test_refresh_takes_what_the_server_has(do: Do, todos: Collection, wire: Wiretap) -> None:
    record = outdated(todos)

    do(record, "refresh")

    assert last(wire) == "GET"
    assert record.data["title"] == "Buy oat milk"


def test_refresh_does_not_drop_changes(do: Do, todos: Collection, wire: Wiretap) -> None:
    record = outdated(todos)
    record.data["done"] = True

    with pytest.raises(UnsavedChangesError):
        do(record, "refresh")

    assert record.data["done"] is True and last(wire) != "GET /"


def test_refresh_drops_changes_when_told_so(do: Do, todos: Collection) -> None:
    record = outdated(todos)
    record.data["done"] = True
    record.permissions["read"] = ["account:bob"]

    do(record, "refresh", discard=True)

    assert dict(record.data) == {"title": "Buy oat milk"}
    assert not record.is_dirty


@pytest.mark.parametrize("verb", ["save", "patch", "delete", "refresh"])
def test_what_is_gone_is_not_found(do: Do, todos: Collection, verb: str) -> None:
    record = loaded(todos)
    todos.records.get("milk").delete()
    if verb == "save":
        record.data["done"] = True

    with pytest.raises(NotFoundError):
        do(record, verb)


def test_a_delete_of_what_is_gone_may_be_fine(do: Do, todos: Collection) -> None:
    record = loaded(todos)
    todos.records.get("milk").delete()

    do(record, "delete", if_exists=True)

    assert record.is_deleted


# -- deleted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["save", "replace", "patch", "delete"])
@pytest.mark.parametrize("safe", [True, False])
def test_a_tombstone_is_not_written(do: Do, todos: Collection, wire: Wiretap, verb: str, safe: bool) -> None:
    record = loaded(todos).delete()

    with pytest.raises(DeletedObjectError):
        do(record, verb, safe=safe)

    assert last(wire).startswith("DELETE")


def test_a_tombstone_takes_no_changes(todos: Collection) -> None:
    record = loaded(todos).delete()

    with pytest.raises(DeletedObjectError):
        record.data = {"title": "Other"}
    record.data["title"] = "Other"
    with pytest.raises(DeletedObjectError):
        record.save()


def test_a_tombstone_knows_when_it_was_deleted(do: Do, todos: Collection) -> None:
    record = loaded(todos)
    before = record.last_modified

    do(record, "delete")

    assert record.last_modified > before
    assert not record.is_dirty


def test_a_tombstone_that_came_back_can_be_refreshed(do: Do, todos: Collection) -> None:
    record = loaded(todos).delete()
    Record(collection=todos, id="milk", data={"title": "Again"}).save()

    do(record, "refresh")

    assert not record.is_deleted and record.data["title"] == "Again"


# -- if_not_exists --------------------------------------------------------------------------------------------------


def test_a_new_object_may_take_the_data_of_the_one_that_exists(do: Do, todos: Collection, wire: Wiretap) -> None:
    other = loaded(todos)

    record = do(Record(collection=todos, id="milk", data={"mine": 1}), "save", if_not_exists=True)

    assert len(wire.said) == 2
    assert record == other and not record.is_dirty
    assert not record.permissions.is_known


def test_if_not_exists_creates_where_there_is_none(do: Do, todos: Collection) -> None:
    record = do(new(todos), "save", if_not_exists=True)

    assert record.data["title"] == "Buy milk"


def test_get_or_create_asks_once(todos: Collection, wire: Wiretap) -> None:
    created = todos.records.get_or_create("milk", {"title": "Buy milk"})
    existing = todos.records.get_or_create("milk", {"title": "Other"})

    assert wire.said == ["PUT If-None-Match: *"] * 2
    assert (created[1], existing[1]) == (True, False) and created[0] == existing[0]


def test_get_or_create_of_what_was_deleted_in_that_very_moment_is_a_conflict() -> None:
    with scripted_client(answer({"errno": 114}, 412)) as client, pytest.raises(ConflictError):
        client.bucket("payments").collection("todos").records.get_or_create("milk")


def test_update_or_create_changes_just_these_keys(todos: Collection, wire: Wiretap) -> None:
    todos.records.update_or_create("milk", {"title": "Buy milk"})

    record, created = todos.records.update_or_create("milk", {"done": True})

    assert not created and record.data == {"title": "Buy milk", "done": True}
    assert wire.bodies[-1] == {"data": {"done": True}}


# -- what is made of the arguments ----------------------------------------------------------------------------------


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False


def test_fields_and_data_do_not_mix() -> None:
    with pytest.raises(InvalidTypeError, match="not both"):
        Todo(title="Buy milk", data={"done": True})


def test_a_misspelled_field_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="no field 'titel'; it has title, done"):
        Todo(titel="Buy milk")  # type: ignore[call-arg]


@pytest.mark.parametrize("arguments", [{}, {"title": 5}, {"data": {"done": True}}, {"data": {"title": None}}], ids=repr)
def test_what_does_not_fit_the_model_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match="title"):
        Todo(**arguments)


def test_undeclared_keys_enter_by_the_data(todos: Collection) -> None:
    todo = Todo(data={"title": "Buy milk", "note": 1}).save()

    assert todo.done is False and Todo.records.get(todo.id).data == {"title": "Buy milk", "done": False, "note": 1}


def test_a_record_needs_a_collection(kinto_client: Client) -> None:
    with pytest.raises(NotBoundError, match="no collection"):
        Record(data={}).save()


# -- who it is ------------------------------------------------------------------------------------------------------


def test_the_id_is_drawn_at_the_first_save_and_kept(payments: Bucket) -> None:
    record = Record(collection=payments.collection("missing"), data={})

    for _ in range(2):
        with pytest.raises(NotFoundError):
            record.save()

    assert record.id is not None and record.is_new


def test_the_id_inside_the_data_is_the_id(todos: Collection) -> None:
    record = Record(collection=todos, data={"id": "milk", "last_modified": 12, "title": "Buy milk"})

    assert (record.id, record.last_modified, dict(record.data)) == ("milk", None, {"title": "Buy milk"})


def test_two_ids_must_agree(todos: Collection) -> None:
    with pytest.raises(InvalidIdError):
        Record(collection=todos, id="milk", data={"id": "bread"})
    with pytest.raises(InvalidIdError):
        new(todos).data = {"id": "bread"}


@pytest.mark.parametrize("name", ["id", "last_modified", "collection", "is_new", "save"])
def test_what_only_the_server_or_the_constructor_sets_cannot_be_set(todos: Collection, name: str) -> None:
    with pytest.raises(ReadOnlyError):
        setattr(new(todos), name, "x")


def test_objects_of_one_path_and_data_are_equal(todos: Collection) -> None:
    record = loaded(todos)

    same = todos.records.get("milk")

    assert record == same and hash(record) == hash(same)


def test_objects_that_differ_in_data_have_one_hash(todos: Collection) -> None:
    record, other = loaded(todos), todos.records.get("milk")
    other.data["done"] = True

    assert record != other and len({record, other}) == 2
    assert hash(record) == hash(other)


def test_an_object_without_id_has_no_hash(todos: Collection) -> None:
    with pytest.raises(TypeError):
        hash(Record(collection=todos))


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        pytest.param(
            Record(id="x", bucket="b", collection="c"), Record(id="x", bucket="b", collection="c"), True, id="same"
        ),
        pytest.param(Record(id="x", collection="c"), Record(id="x", collection="d"), False, id="other collection"),
        pytest.param(
            Record(id="x", collection=Collection(id="c", bucket="b")),
            Record(id="x", bucket="b", collection="c"),
            True,
            id="object or id",
        ),
        pytest.param(Collection(id="x", bucket="b"), Collection(id="x", bucket="c"), False, id="other bucket"),
        pytest.param(Collection(id="x", bucket="b"), Group(id="x", bucket="b"), False, id="other kind"),
        pytest.param(Bucket(id="x"), Bucket(id="x", data={"n": 1}), False, id="other data"),
        pytest.param(Bucket(id="x", permissions={"read": ["account:bob"]}), Bucket(id="x"), True, id="permissions"),
    ],
)
def test_objects_are_compared_without_a_client(one: Any, other: Any, equal: bool) -> None:
    assert (one == other) is equal


def test_an_object_is_no_equal_of_other_things(todos: Collection) -> None:
    assert new(todos) != "milk"


@pytest.mark.parametrize(
    "duplicate",
    [
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda record: record.model_copy(), id="model_copy"),
        pytest.param(lambda record: pickle.loads(pickle.dumps(record)), id="pickle"),
    ],
)
def test_a_copy_keeps_the_state(kinto_client: Client, todos: Collection, duplicate: Callable[[Record], Record]) -> None:
    record = Record(collection=todos, id="milk", data={"n": {"a": 1}, "old": 1}, permissions={"read": ["account:bob"]})
    record.save()
    record.data["n"]["a"] = 2
    del record.data["old"]
    record.permissions.add("read", "account:eve")

    other = duplicate(record)

    assert other == record and other.is_dirty
    assert dict(other.save().data) == {"n": {"a": 2}}
    assert other.permissions["read"] == {"account:bob", "account:eve"}
    assert record.is_dirty


def test_a_deep_copy_shares_nothing(todos: Collection) -> None:
    record = Record(collection=todos, id="milk", data={"n": {"a": 1}})

    copy.deepcopy(record).data["n"]["a"] = 2

    assert record.data["n"] == {"a": 1}


def test_a_pickle_holds_no_client(kinto_client: Client, todos: Collection) -> None:
    other = pickle.loads(pickle.dumps(loaded(todos)))

    assert other.client is None
    assert other.refresh().client is kinto_client


def test_the_caller_s_data_is_copied(todos: Collection) -> None:
    data: dict[str, Any] = {"tags": ["a"]}
    record = Record(collection=todos, data=data)

    data["tags"].append("b")

    assert record.data["tags"] == ["a"]


def test_an_object_that_pydantic_made_can_be_saved(todos: Collection) -> None:
    class Todo(Record, bucket="payments", collection="todos"):
        title: str

    todo = Todo.model_validate_json('{"title": "Buy milk", "id": "milk"}')

    assert todo.is_new and todo.save() == todos.records.get("milk")


def test_a_group_takes_no_collection(payments: Bucket) -> None:
    with pytest.raises(InvalidTypeError):
        Group(bucket=payments, collection="todos")  # type: ignore[call-arg]


# -- the default bucket ---------------------------------------------------------------------------------------------


def test_the_default_bucket_answers_with_its_real_id(do: Do, kinto_client: Client) -> None:
    bucket = do(kinto_client.bucket("default"), "refresh")

    do(bucket, "patch")

    assert bucket.id == "default" and bucket.data["done"] is True


def test_objects_of_the_default_bucket_are_written_as_any_other(do: Do, kinto_client: Client) -> None:
    todos = Collection(bucket="default", id="todos", client=kinto_client).save()
    record = do(Record(collection=todos, data={"n": 1}), "save")
    record.data["n"] = 2

    do(record, "save")

    assert [one.data["n"] for one in kinto_client.bucket("default").collection("todos").records] == [2]
    assert do(record, "delete").is_deleted


def test_every_verb_has_a_twin_with_the_same_arguments() -> None:
    for verb in VERBS:
        plain, twin = getattr(Record, verb), getattr(Record, f"a{verb}")

        assert plain.__kwdefaults__ == twin.__kwdefaults__


def test_a_patch_cannot_change_the_id(kinto_client: Client, todos: Collection[Record]) -> None:
    record = Record(collection=todos, id="a", data={"n": 1}).save()

    with pytest.raises(InvalidValueError, match="id"):
        record.patch({"id": "b"})


def test_a_model_takes_keywords_only(todos: Collection[Record]) -> None:
    with pytest.raises(InvalidTypeError, match="Record takes keyword arguments only"):
        Record(todos)  # type: ignore[call-arg]  # the mistake that is tested


def test_the_records_of_a_collection_are_of_a_class_of_records(payments: Bucket) -> None:
    no_models: list[Any] = [Bucket, Collection, int, "Record"]

    for model in no_models:
        with pytest.raises(InvalidTypeError, match="class of records"):
            Collection(bucket=payments, id="c", model=model)


class Errand(Record):
    title: str


@pytest.mark.parametrize("model", [Record, Errand])
def test_a_record_that_was_read_alone_keeps_its_place(
    kinto_client: Client, todos: Collection, model: type[Record]
) -> None:
    client = kinto_client.clone(bucket=todos.bucket.id, collection=todos.id)
    Record(collection=todos, id="milk", data={"title": "Buy milk"}).save()

    with client:
        milk = model.records.get("milk")
        (listed,) = model.records.all()

    assert milk == listed
    with kinto_client:  # whose default is another collection
        places = [copy.copy(milk), milk.model_copy(update={"id": "soap"}), pickle.loads(pickle.dumps(milk)), milk]
        assert [one.collection.id for one in places] == [todos.id] * 4
        assert [one.bucket.id for one in places] == [todos.bucket.id] * 4
