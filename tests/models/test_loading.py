"""A page of a list becomes objects."""

# ruff: noqa: RUF012  # pydantic copies the defaults of its models

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ConfigDict, Field, model_validator
from wiretap import answer, scripted_client, tap

from kinto_orm import (
    Client,
    Collection,
    DeletedObjectError,
    InvalidValueError,
    PartialObjectError,
    ProtocolError,
    Record,
)
from kinto_orm.models.envelope import pause_collector
from kinto_orm.models.managers import Manager
from kinto_orm.protocol.messages import Request, Response

NOW = datetime(2020, 1, 2, tzinfo=UTC)


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False
    tags: list[str] = []


class Period(Record, bucket="payments", collection="todos"):
    model_config = ConfigDict(strict=True)

    start: datetime
    end: datetime = Field(validation_alias="endsAt", serialization_alias="endsAt")

    @model_validator(mode="after")
    def check(self) -> Period:
        if self.end < self.start:
            raise ValueError("ends before it starts")
        return self


class Tree(Record, bucket="payments", collection="todos"):
    name: str
    below: list[Tree] = []


@pytest.fixture
def rows(todos: Collection) -> None:
    """Two todos, and between them a record that is none."""
    for id, data in (("a", {"title": "A", "note": {"n": 1}}), ("b", {"title": 5}), ("c", {"title": "C", "done": True})):
        todos.records.create(id=id, data=data)


# -- rows that do not fit -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rows")
def test_a_row_that_does_not_fit_is_named() -> None:
    with pytest.raises(InvalidValueError, match=r"records/b does not fit Todo: title"):
        Todo.records.all()


@pytest.mark.usefixtures("rows")
def test_a_row_that_does_not_fit_can_be_skipped() -> None:
    todos = Todo.records.filter(on_invalid="skip").all()

    assert [todo.title for todo in todos] == ["A", "C"] and todos[0].data["note"] == {"n": 1}


@pytest.mark.usefixtures("rows")
def test_a_row_that_does_not_fit_can_be_kept_as_a_plain_record() -> None:
    records = Todo.records.filter(on_invalid="keep").all()

    assert [type(record) for record in records] == [Todo, Record, Todo]
    assert records[1].data == {"title": 5}


@pytest.mark.usefixtures("rows")
def test_a_kept_record_can_be_mended(todos: Collection) -> None:
    record = Todo.records.filter(on_invalid="keep").all()[1]

    record.data["title"] = "B"
    record.save()

    assert Todo.records.get("b").title == "B"


@pytest.mark.usefixtures("rows")
def test_the_client_may_say_what_happens(kinto_client: Client) -> None:
    with kinto_client.clone(on_invalid="skip"):
        assert len(Todo.records.all()) == 2
        assert len(Todo.records.filter(on_invalid="keep").all()) == 3


@pytest.mark.usefixtures("rows")
def test_an_object_that_does_not_fit_is_not_given() -> None:
    with pytest.raises(InvalidValueError, match="title"):
        Todo.records.get("b")


# -- tombstones -----------------------------------------------------------------------------------------------------


def test_what_was_deleted_comes_as_tombstones(todos: Collection) -> None:
    for id in "abc":
        Todo(id=id, title=id).save()
    start = Todo.records.timestamp()
    Todo.records.get("b").delete()
    Todo.records.get("c").patch(done=True)

    changed = {todo.id: todo for todo in Todo.records.since(start) if todo.last_modified > start}

    assert set(changed) == {"b", "c"}
    assert changed["b"].is_deleted and dict(changed["b"].data) == {} and not changed["b"].is_dirty
    assert changed["c"].done
    with pytest.raises(DeletedObjectError):
        changed["b"].save()


# -- partial objects ------------------------------------------------------------------------------------------------


@pytest.fixture
def partial(todos: Collection) -> Todo:
    """Loaded with its tags only."""
    Todo(id="x", title="X", tags=["a"]).save()
    found = Todo.records.only("tags").first()
    assert found is not None
    return found


def test_a_partial_object_has_what_was_asked_for(partial: Todo) -> None:
    assert partial.tags == ["a"] and partial.id == "x" and partial.last_modified
    assert dict(partial.data) == {"tags": ["a"]} and partial == partial and not partial.is_dirty


def test_a_partial_object_does_not_make_up_the_rest(partial: Todo) -> None:
    for field in ("title", "done"):
        with pytest.raises(PartialObjectError, match="refresh"):
            getattr(partial, field)


@pytest.mark.parametrize("verb", ["save", "replace", "patch"])
def test_a_partial_object_is_not_written(kinto_client: Client, partial: Todo, verb: str) -> None:
    wire = tap(kinto_client)

    with pytest.raises(PartialObjectError):
        getattr(partial, verb)(*[{"done": True}] * (verb == "patch"))

    assert not wire.said


def test_a_partial_object_takes_no_changes(partial: Todo) -> None:
    with pytest.raises(PartialObjectError):
        partial.tags = ["b"]
    with pytest.raises(PartialObjectError):
        partial.data["note"] = 1
    with pytest.raises(PartialObjectError):
        partial.data = {"title": "Y"}
    with pytest.raises(PartialObjectError):
        del partial.data["tags"]


def test_a_partial_object_becomes_whole(partial: Todo) -> None:
    partial.refresh()

    partial.done = True
    assert partial.save().title == "X"


def test_a_partial_object_can_be_deleted(partial: Todo) -> None:
    assert partial.delete().is_deleted


def test_a_partial_object_is_read_as_a_whole_one_would_be(todos: Collection) -> None:
    Period(start=NOW, end=NOW).save()

    assert [period.end for period in Period.records.only("endsAt")] == [NOW]


def test_a_part_of_a_model_that_holds_itself_is_read(todos: Collection) -> None:
    Tree(id="x", name="root", below=[Tree(name="leaf")]).save()

    (tree,) = Tree.records.only("below")

    assert [leaf.name for leaf in tree.below] == ["leaf"]


def test_a_part_that_does_not_fit_is_named(todos: Collection) -> None:
    todos.records.create(id="x", data={"title": 5})

    with pytest.raises(InvalidValueError, match="x does not fit Todo: title"):
        Todo.records.only("title").all()


# -- one page, many objects -----------------------------------------------------------------------------------------


@pytest.fixture
def page(todos: Collection) -> list[Todo]:
    """Two objects of one page."""
    for id in "ab":
        todos.records.create(id=id, data={"title": id, "note": {"n": 1}})
    return Todo.records.all()


def test_an_edit_of_one_row_does_not_touch_another(page: list[Todo]) -> None:
    first, second = page

    first.data["note"]["n"] = 2
    first.tags.append("x")
    first.permissions["read"] = ["account:bob"]

    assert first.is_dirty
    assert not second.is_dirty and second.data == {"title": "b", "note": {"n": 1}} and second.tags == []


def test_a_write_of_one_row_does_not_touch_another(page: list[Todo]) -> None:
    first, second = page
    first.title = "A"
    first.save()
    first.delete()

    second.title = "B"

    assert second.save().data == {"title": "B", "note": {"n": 1}}


def test_two_iterations_give_two_objects(page: list[Todo]) -> None:
    page[0].title = "A"

    assert Todo.records.all()[0].title == "a"


def test_rows_know_their_collection_and_client(page: list[Todo], kinto_client: Client) -> None:
    assert page[0].collection.id == "todos" and page[0].bucket.id == "payments"
    assert page[0].client is kinto_client


# -- the collector --------------------------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["enabled", "disabled"])
def collector(request: pytest.FixtureRequest) -> Iterator[bool]:
    """The state of the garbage collector before a page is read."""
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("on_invalid", ["raise", "keep"])
def test_the_collector_is_left_as_it_was(collector: bool, on_invalid: Any) -> None:
    with contextlib.suppress(InvalidValueError):
        Todo.records.filter(on_invalid=on_invalid).all()

    assert gc.isenabled() == collector


def test_the_objects_of_a_page_are_not_looked_at_by_the_next_young_collection() -> None:
    # A thread that another test left may read a page at the same moment.
    assert any(page_is_old_at_once() for _ in range(5))


def page_is_old_at_once() -> bool:
    before = gc.isenabled()
    gc.enable()
    try:
        with pause_collector():
            page = [[number] for number in range(5000)]
        old = {id(each) for each in gc.get_objects(generation=2)}
    finally:
        (gc.enable if before else gc.disable)()

    return all(id(each) in old for each in page)


def test_objects_that_the_program_froze_stay_frozen() -> None:
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        with pause_collector():
            pass

        assert gc.get_freeze_count() > count / 2 > 0  # a thread that another test left may free some of them
    finally:
        gc.unfreeze()


# -- answers that no Kinto gives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Todo, Record])
@pytest.mark.parametrize(
    "response",
    [
        pytest.param(answer({"data": [{"title": "x", "last_modified": 1}]}), id="row without id"),
        pytest.param(answer({"data": [{"id": 5, "title": "x"}]}), id="id that is no text"),
        pytest.param(answer({"data": [{"id": None, "title": "x"}]}), id="null id"),
        pytest.param(answer({"data": ["x"]}), id="row that is no object"),
        pytest.param(answer({"data": {"id": "x"}}), id="no list"),
        pytest.param(answer({}), id="no data"),
        pytest.param(answer([]), id="no object"),
        pytest.param(Response(200, {}, b"<html>"), id="html"),
        pytest.param(Response(200, {}, b""), id="empty"),
        pytest.param(Response(200, {}, b'{"data": [{"id": "x", "title": NaN}]}'), id="nan"),
        pytest.param(answer({"data": []}, status=202), id="202"),
    ],
)
def test_a_page_that_is_none_is_a_protocol_error(model: type[Record], response: Response) -> None:
    with scripted_client(response), pytest.raises(ProtocolError):
        [dict(record.data) for record in model.records]


@pytest.mark.parametrize("model", [Todo, Record])
def test_a_lone_surrogate_in_a_row_is_no_foreign_error(model: type[Record]) -> None:
    response = Response(200, {}, b'{"data": [{"id": "x", "title": "t", "note": "\\ud800", "last_modified": 1}]}')

    with scripted_client(response):
        (record,) = model.records.all()

    assert record.data["note"] == "\ud800"


class Weighed(Record, bucket="payments", collection="todos"):
    weight: float = 0
    weights: list[float] = []


@pytest.mark.parametrize("field", [b'"weight":1e999', b'"weights":[1,-1e999]'])
@pytest.mark.parametrize("read", [lambda: Weighed.records.all(), lambda: Weighed.records.first()], ids=["all", "first"])
def test_a_number_too_large_for_a_float_is_refused(field: bytes, read: Callable[[], Any]) -> None:
    response = Response(200, {}, b'{"data": [{"id": "x", %b, "last_modified": 1}]}' % field)

    with scripted_client(response), pytest.raises(ProtocolError, match="too large for a float"):
        read()


@pytest.mark.parametrize("model", [Todo, Record])
def test_a_timestamp_that_is_none_is_refused(model: type[Record]) -> None:
    response = answer({"data": [{"id": "x", "title": "t", "last_modified": "soon"}]})

    with scripted_client(response), pytest.raises(InvalidValueError, match="last_modified"):
        model.records.all()


@pytest.mark.parametrize("model", [Todo, Record])
def test_a_timestamp_in_text_is_one(model: type[Record]) -> None:
    with scripted_client(answer({"data": [{"id": "x", "title": "t", "last_modified": "5"}]})):
        (record,) = model.records.all()

    assert record.last_modified == 5 and dict(record.data) == {"title": "t"}


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(answer({"data": {"id": "other"}}), id="another object"),
        pytest.param(answer({"data": {}}), id="no id"),
        pytest.param(answer({"data": None}), id="no data"),
        pytest.param(answer(5), id="number"),
        pytest.param(answer({"data": {"id": "x"}, "permissions": {"read": None}}), id="permissions that are none"),
        pytest.param(answer({"data": {"id": "x"}, "permissions": {"read": "bob"}}), id="permissions as text"),
        pytest.param(answer({"data": {"id": "x"}, "permissions": {"read": [5]}}), id="principals as numbers"),
        pytest.param(Response(200, {}, b"OK"), id="text"),
        pytest.param(Response(204, {}, b""), id="nothing"),
    ],
)
def test_an_object_that_is_none_is_a_protocol_error(response: Response) -> None:
    with scripted_client(response), pytest.raises(ProtocolError):
        Record(id="x").refresh()


def test_permissions_of_another_server_version_are_kept_to_themselves() -> None:
    response = answer({"data": {"id": "x", "last_modified": 1}, "permissions": {"read": [], "future": ["account:bob"]}})

    with scripted_client(response):
        record = Record(id="x").refresh()

    assert record.permissions.is_known and dict(record.permissions) == {}


def test_a_row_without_timestamp_is_a_row() -> None:
    with scripted_client(answer({"data": [{"id": "x", "title": "t"}]})):
        assert Todo.records.all()[0].last_modified is None


def test_a_record_that_only_looks_like_a_tombstone_is_a_record(kinto_client: Client, todos: Collection) -> None:
    body = b'{"data": {"deleted": true}}'
    tap(kinto_client).send(
        Request("PUT", f"{todos.__kinto_path__()}/records/x", headers={"Content-Type": "application/json"}, body=body)
    )

    record = todos.records.get("x")

    assert record.data == {"deleted": True} and not record.is_deleted
    assert record.patch(n=1).data["n"] == 1 and todos.records.get_or_create("x")[0] == record


def test_a_row_that_does_not_fit_names_the_ways_around_it(todos: Collection[Record]) -> None:
    class Strict(Record):
        title: int

    todos.records.create(id="a", data={"title": "x"})

    with pytest.raises(InvalidValueError, match="on_invalid="):
        list(Manager.__kinto_make__(Strict, parent=todos))
