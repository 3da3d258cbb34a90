"""What counts as a change, and what is therefore sent."""

# ruff: noqa: RUF012  # pydantic copies the defaults of its models

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    computed_field,
    model_serializer,
    model_validator,
)
from wiretap import Wiretap

from kinto_orm import Client, Collection, InvalidTypeError, InvalidValueError, JSONPatch, Record

RESERVED = ["data", "client", "collection", "save", "permissions", "schema", "records", "is_dirty", "_envelope", ""]


class Plain(Record, bucket="payments", collection="todos"):
    """Declares nothing."""


class Step(BaseModel):
    what: str
    at: datetime | None = None


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False
    priority: int = 1
    tags: list[str] = []
    steps: list[Step] = []
    labels: set[str] = Field(default_factory=set)
    due: datetime | None = Field(default=None, validation_alias="dueDate", serialization_alias="dueDate")


def stored(data: dict[str, Any], model: Any = Todo) -> Any:
    """Return an object of the model, loaded from data that another program stored."""
    return model.records.get(Plain(id="x", data=data).save().id)


@pytest.fixture
def todo(wire: Wiretap) -> Todo:
    """Loaded from data that lacks most of the fields."""
    return stored({"title": "Buy milk", "source": {"app": "other"}})


# -- untouched fields are not sent ----------------------------------------------------------------------------------


def test_defaults_that_the_server_lacks_are_no_change(todo: Todo) -> None:
    assert not todo.is_dirty
    assert dict(todo.data) == {"title": "Buy milk", "source": {"app": "other"}}


def test_defaults_that_the_server_lacks_are_never_sent(todo: Todo, wire: Wiretap) -> None:
    todo.done = True

    todo.save()

    assert wire.bodies[-1] == {"data": {"done": True}}


def test_a_new_object_sends_its_defaults_but_not_those_of_none(wire: Wiretap) -> None:
    Todo(title="Buy milk").save()

    assert wire.bodies[-1]["data"] == {
        "title": "Buy milk",
        "done": False,
        "priority": 1,
        "tags": [],
        "steps": [],
        "labels": [],
    }


def test_a_none_that_was_given_is_sent(wire: Wiretap) -> None:
    Todo(title="Buy milk", due=None).save()

    assert wire.bodies[-1]["data"]["dueDate"] is None


@pytest.mark.parametrize(
    "spelling", ["2020-01-02T03:04:05Z", "2020-01-02T03:04:05+00:00", "2020-01-02 03:04:05.000+00:00", 1577934245]
)
def test_an_untouched_date_keeps_its_spelling(wire: Wiretap, spelling: Any) -> None:
    todo = stored({"title": "x", "dueDate": spelling})
    todo.title = "y"

    todo.replace()

    assert wire.bodies[-1]["data"] == {"title": "y", "dueDate": spelling}


def test_a_number_stored_as_text_stays_clean(wire: Wiretap) -> None:
    todo = stored({"title": "x", "priority": "3"})

    assert todo.priority == 3
    assert not todo.is_dirty and todo.data["priority"] == "3"


def test_setting_what_is_there_already_is_no_change(wire: Wiretap) -> None:
    todo = stored({"title": "x", "dueDate": "2020-01-02T03:04:05+00:00", "priority": "3"})

    todo.due = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    todo.priority = 3

    assert not todo.is_dirty


def test_a_date_without_timezone_that_the_server_sent_stops_no_save(wire: Wiretap) -> None:
    todo = stored({"title": "x", "dueDate": "2020-01-02T03:04:05", "steps": [{"what": "go", "at": "2020-01-02T00:00"}]})
    todo.steps[0].what = "run"

    todo.save()

    assert todo.data["dueDate"] == "2020-01-02T03:04:05"


def test_a_new_date_without_timezone_is_refused(todo: Todo) -> None:
    todo.steps.append(Step(what="go", at=datetime(2020, 1, 2)))  # noqa: DTZ001

    with pytest.raises(InvalidValueError, match=r"data\.steps\[0\]\.at"):
        todo.save()


@pytest.mark.parametrize(
    "again", [lambda todo: todo.save(), lambda todo: todo.refresh(), lambda todo: Todo.records.get(todo.id)]
)
def test_an_object_is_clean_after_it_was_saved_or_loaded(wire: Wiretap, again: Any) -> None:
    todo = Todo(title="x", due=datetime.now(timezone(timedelta(hours=2))), labels={"a"}, steps=[Step(what="go")]).save()

    assert not again(todo).is_dirty


# -- what was touched is sent ---------------------------------------------------------------------------------------


def test_an_edit_inside_a_list_is_seen(todo: Todo, wire: Wiretap) -> None:
    todo.tags.append("urgent")

    todo.save()

    assert wire.bodies[-1] == {"data": {"tags": ["urgent"]}}


def test_an_edit_inside_a_model_is_seen(wire: Wiretap) -> None:
    todo = stored({"title": "x", "steps": [{"what": "go", "note": "lost, Step does not declare it"}]})

    todo.steps[0].what = "run"

    assert todo.is_dirty and todo.data["steps"][0]["what"] == "run"


def test_an_edit_inside_undeclared_data_is_seen(todo: Todo, wire: Wiretap) -> None:
    todo.data["source"]["app"] = "mine"

    todo.save()

    assert wire.bodies[-1] == {"data": {"source": {"app": "mine"}}}


@pytest.mark.parametrize(
    "set_it",
    [lambda todo: setattr(todo, "done", False), lambda todo: todo.data.update(done=False)],
    ids=["field", "key"],
)
def test_a_default_that_was_set_is_sent(todo: Todo, wire: Wiretap, set_it: Any) -> None:
    set_it(todo)

    assert todo.data["done"] is False
    todo.save()

    assert wire.bodies[-1] == {"data": {"done": False}}


def test_an_edit_taken_back_is_no_change(todo: Todo) -> None:
    todo.tags.append("urgent")
    todo.data["source"]["app"] = "mine"

    todo.tags.pop()
    todo.data["source"]["app"] = "other"

    assert not todo.is_dirty


def test_an_edit_of_what_a_factory_made_is_seen(todo: Todo) -> None:
    todo.labels.add("a")

    assert todo.is_dirty and todo.data["labels"] == ["a"]


@pytest.mark.parametrize(
    "factory",
    [
        pytest.param(uuid4, id="random"),
        pytest.param(lambda data: UUID(int=random.getrandbits(64) + len(data["title"])), id="of the other fields"),
    ],
)
def test_a_random_default_is_no_change(wire: Wiretap, factory: Any) -> None:
    class Job(Todo):
        token: UUID = Field(default_factory=factory)

    job = stored({"title": "x"}, Job)

    assert not job.is_dirty
    job.token = UUID(int=7)
    assert dict(job.save().data) == {"title": "x", "token": str(UUID(int=7))}


class Job(Todo):
    token: UUID = Field(default_factory=uuid4)
    steps: list[UUID] = Field(default_factory=lambda: [uuid4()])


@pytest.mark.parametrize("way", ["save", "replace", "bulk_update", "unit"])
def test_a_random_default_stays_when_something_else_is_saved(kinto_client: Client, wire: Wiretap, way: str) -> None:
    job = stored({"title": "x"}, Job)
    token, steps = job.token, job.steps
    job.title = "y"
    if way == "bulk_update":
        Job.records.bulk_update([job])
    elif way == "unit":
        with kinto_client.unit_of_work():
            job.save()
    else:
        getattr(job, way)()

    assert (job.token, job.is_dirty) == (token, False) and job.steps is steps
    assert dict(Job.records.get("x").data) == {"title": "y"}


def test_an_edit_after_staging_is_seen_where_defaults_are_random(kinto_client: Client, wire: Wiretap) -> None:
    job = stored({"title": "x", "tags": ["a"]}, Job)
    with kinto_client.unit_of_work():
        job.title = "y"
        job.save()
        job.tags.append("b")
        job.steps.append(UUID(int=7))

    assert job.is_dirty and dict(Job.records.get("x").data) == {"title": "y", "tags": ["a"]}
    assert Job.records.get(job.save().id).data == {"title": "y", "tags": ["a", "b"], "steps": [*map(str, job.steps)]}


def test_a_value_put_into_a_list_that_does_not_belong_there_is_refused(todo: Todo) -> None:
    todo.tags.append(5)  # type: ignore[arg-type]

    with pytest.raises(InvalidValueError, match="tags"):
        todo.save()
    with pytest.raises(InvalidValueError, match="tags"):
        todo.is_dirty  # noqa: B018


@pytest.mark.parametrize("way_out", [lambda todo: todo.refresh(discard=True), lambda todo: todo.delete()])
def test_an_object_with_such_a_value_can_be_dropped(todo: Todo, way_out: Any) -> None:
    todo.tags.append(5)  # type: ignore[arg-type]

    way_out(todo)

    assert not todo.is_dirty


def test_a_list_that_was_held_before_a_save_is_still_the_one(todo: Todo) -> None:
    tags, source = todo.tags, todo.data["source"]
    tags.append("a")
    source["app"] = "mine"
    todo.save()

    tags.append("b")
    source["version"] = 2

    assert todo.is_dirty
    assert dict(todo.save().data)["tags"] == ["a", "b"] and todo.data["source"] == {"app": "mine", "version": 2}


def test_a_list_that_the_server_changed_is_not_the_one_held_before(todo: Todo) -> None:
    tags = todo.tags
    Todo.records.get("x").patch(tags=["theirs"])

    todo.refresh()

    assert todo.tags == ["theirs"] and tags == []


# -- removed and absent keys ----------------------------------------------------------------------------------------


def test_a_removed_key_is_removed_on_the_server(wire: Wiretap) -> None:
    todo = stored({"title": "x", "tags": ["a"], "source": 1})
    del todo.data["tags"], todo.data["source"]

    todo.save()

    assert wire.bodies[-1] == {"data": {"tags": None, "source": None}}
    assert dict(Plain.records.get("x").data) == {"title": "x"}


def test_a_removed_field_falls_back_on_its_default(wire: Wiretap) -> None:
    todo = stored({"title": "x", "priority": 9})

    del todo.data["priority"]

    assert todo.priority == 1 and "priority" not in todo.data


def test_a_removed_field_that_is_edited_is_there_again(wire: Wiretap) -> None:
    todo = stored({"title": "x", "tags": ["a"]})

    del todo.data["tags"]
    todo.tags.append("b")

    assert todo.data["tags"] == ["b"]


def test_a_removed_field_that_is_set_is_there_again(wire: Wiretap) -> None:
    todo = stored({"title": "x", "priority": 9})

    del todo.data["priority"]
    todo.priority = 1

    assert todo.data["priority"] == 1


def test_a_new_object_does_not_send_what_was_removed(wire: Wiretap) -> None:
    todo = Todo(title="x")
    del todo.data["tags"], todo.data["labels"], todo.data["steps"]

    todo.save()

    assert wire.bodies[-1]["data"] == {"title": "x", "done": False, "priority": 1}


def test_a_null_stays_a_null(wire: Wiretap) -> None:
    todo = stored({"title": "x", "dueDate": None})

    assert "dueDate" in todo.data and not todo.is_dirty
    assert todo.replace().data["dueDate"] is None


def test_none_removes_the_properties_of_a_collection(wire: Wiretap, todos: Collection) -> None:
    todos.schema_ = {"type": "object"}
    todos.save()

    todos.schema_ = None
    todos.save()

    assert wire.bodies[-1] == {"data": {"schema": None}} and "schema" not in todos.data


def test_a_null_that_a_collection_has_stays(wire: Wiretap, payments: Any) -> None:
    notes = Collection(bucket=payments, id="notes").save()
    notes.patch(sort=None)

    assert not notes.is_dirty and notes.data["sort"] is None


# -- undeclared keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["save", "replace"])
def test_undeclared_keys_are_kept(todo: Todo, verb: str) -> None:
    todo.title = "y"

    getattr(todo, verb)()

    assert Todo.records.get("x").data["source"] == {"app": "other"}


@pytest.mark.parametrize("model", [Plain, Todo])
@pytest.mark.parametrize("key", RESERVED)
def test_a_key_may_have_any_name(wire: Wiretap, model: Any, key: str) -> None:
    record = stored({"title": "x", key: {"n": 1}}, model)
    record.data[key]["n"] = 2

    record.save()

    assert wire.bodies[-1] == {"data": {key: {"n": 2}}}
    assert model.records.filter(id="x").first().data[key] == {"n": 2}


@pytest.mark.parametrize("key", ["last_modified", "id"])
def test_the_envelope_is_not_data(wire: Wiretap, key: str) -> None:
    record = stored({"title": "x"})

    with pytest.raises(AttributeError, match=key):
        record.data[key] = 1

    assert key not in record.data


@pytest.mark.parametrize("key", ["deleted", "__permissions__"])
def test_what_the_server_owns_cannot_be_sent(wire: Wiretap, key: str) -> None:
    record = stored({"title": "x"})
    record.data[key] = True

    with pytest.raises(InvalidValueError, match=key):
        record.save()
    with pytest.raises(InvalidValueError, match=key):
        record.patch({key: True})


# -- the timestamp of a collection's schema -------------------------------------------------------------------------


@pytest.fixture
def checked(wire: Wiretap, todos: Collection) -> Record:
    """A record that the server validated with the collection's JSON schema."""
    todos.schema_ = {"type": "object", "properties": {"title": {"type": "string"}}, "additionalProperties": False}
    todos.save()
    return Record(collection=todos, id="x", data={"title": "x"}).save()


def test_the_server_s_own_key_is_seen_and_not_sent(checked: Record, wire: Wiretap) -> None:
    checked.data["title"] = "y"

    checked.save()

    assert isinstance(checked.data["schema"], int)
    assert wire.bodies[-1] == {"data": {"title": "y"}}


def test_a_validated_record_can_be_replaced(checked: Record) -> None:
    checked.data = {"title": "y"}

    checked.replace()

    assert set(checked.data) == {"title", "schema"} and not checked.is_dirty


def test_the_server_s_own_key_cannot_be_set(checked: Record) -> None:
    checked.data["schema"] = 5

    with pytest.raises(InvalidValueError, match="schema"):
        checked.save()


@pytest.mark.parametrize("value", [3, True, {"type": "object"}])
def test_a_key_of_that_name_is_the_user_s_where_there_is_no_schema(wire: Wiretap, value: Any) -> None:
    record = stored({"schema": value}, Plain).replace()
    record.data["schema"] = 4

    assert record.save().data["schema"] == 4


def test_keys_that_the_server_adds_are_taken_in(checked: Record, todos: Collection) -> None:
    before = checked.data["schema"]
    todos.patch(schema={"type": "object"})
    checked.data["title"] = "y"

    checked.save()

    assert checked.data["schema"] > before and not checked.is_dirty


# -- models of all sorts --------------------------------------------------------------------------------------------


class Order(Record, bucket="payments", collection="todos"):
    price: int
    count: int = 1
    total: int = 0

    @model_validator(mode="after")
    def add_up(self) -> Order:
        if self.count > self.price:
            raise ValueError("too many")
        self.total = self.price * self.count
        return self


def test_a_model_validator_may_set_other_fields(wire: Wiretap) -> None:
    order = Order(price=3).save()

    order.price = 5
    order.data["count"] = 2

    assert order.total == 10
    assert order.save().data == {"price": 5, "count": 2, "total": 10}


def test_a_model_validator_is_asked_about_each_change(wire: Wiretap) -> None:
    order = Order(price=3).save()

    with pytest.raises(InvalidValueError, match="too many"):
        order.count = 4
    with pytest.raises(InvalidValueError, match="too many"):
        order.data["count"] = 4
    with pytest.raises(InvalidValueError, match="too many"):
        order.patch(count=4)

    assert order.count == 1 and not order.is_dirty


def test_a_model_validator_is_asked_about_a_patch_as_a_whole(wire: Wiretap) -> None:
    order = Order(price=3).save()

    order.patch(count=10, price=20)

    assert (order.price, order.count) == (20, 10)


class Strict(Record, bucket="payments", collection="todos"):
    model_config = ConfigDict(strict=True)

    due: datetime
    labels: set[str] = set()


def test_a_strict_model_takes_json_as_data(wire: Wiretap) -> None:
    record = Strict(data={"due": "2020-01-02T00:00:00Z"}).save()

    record.data["labels"] = ["a"]
    record.patch(due="2021-01-02T00:00:00Z")

    assert (record.due.year, record.labels) == (2021, {"a"})


@pytest.mark.parametrize("value", [{"labels": "a"}, {"due": "soon"}])
def test_a_strict_model_refuses_what_does_not_fit(wire: Wiretap, value: dict[str, Any]) -> None:
    record = Strict(data={"due": "2020-01-02T00:00:00Z"}).save()

    with pytest.raises(InvalidValueError):
        record.data.update(value)
    with pytest.raises(InvalidValueError):
        record.patch(value)


class Fancy(Record, bucket="payments", collection="todos"):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    photo: bytes = b""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return len(self.photo)


def test_a_computed_field_is_never_sent(wire: Wiretap) -> None:
    Fancy(photo=b"\xff").save()

    assert wire.bodies[-1] == {"data": {"photo": "_w=="}}


class Local(Todo):
    cached: str = Field(default="", exclude=True)

    @model_serializer(mode="wrap")
    def add_more(self, handler: Any) -> Any:
        return {**handler(self), "more": 1}


def test_a_field_that_is_never_written_leaves_the_server_s_value(wire: Wiretap) -> None:
    local = stored({"title": "x", "cached": "theirs", "more": 2}, Local)
    local.cached = "mine"
    local.title = "y"

    local.replace()

    assert wire.bodies[-1]["data"] == {"title": "y", "cached": "theirs", "more": 2}


@pytest.mark.parametrize(
    ("aliases", "read"),
    [
        pytest.param({"validation_alias": "dueDate"}, "dueDate", id="only read"),
        pytest.param({"serialization_alias": "dueDate"}, "due", id="only written"),
        pytest.param({"alias": "a", "serialization_alias": "b"}, "a", id="different"),
    ],
)
def test_a_field_that_would_not_be_read_again_is_refused(aliases: Any, read: str) -> None:
    with pytest.raises(InvalidTypeError, match=f"read as '{read}'"):

        class Odd(Record):
            due: str | None = Field(default=None, **aliases)


@pytest.mark.parametrize(
    "aliases",
    [
        pytest.param({"alias": "dueDate"}, id="alias"),
        pytest.param(
            {"validation_alias": AliasChoices("due", "dueDate"), "serialization_alias": "dueDate"}, id="choices"
        ),
    ],
)
def test_a_field_may_have_another_name_on_the_wire(wire: Wiretap, aliases: Any) -> None:
    class Job(Plain):
        due: str | None = Field(default=None, **aliases)

    job = stored({"dueDate": "now"}, Job)
    job.due = "later"

    assert job.save().data == {"dueDate": "later"} and job.due == "later"


def test_bytes_survive_the_way_through_the_data(wire: Wiretap) -> None:
    fancy = Fancy(photo=b"\xff\0a")

    fancy.data["photo"] = fancy.data["photo"]

    assert fancy.photo == b"\xff\0a"


# -- what the call did not send -------------------------------------------------------------------------------------


def test_a_patch_leaves_other_changes_unsaved(todo: Todo, wire: Wiretap) -> None:
    todo.priority = 5
    todo.data["note"] = "mine"
    del todo.data["source"]

    todo.patch(done=True)

    assert wire.bodies[-1] == {"data": {"done": True}}
    assert todo.is_dirty and dict(todo.data) == {"title": "Buy milk", "priority": 5, "done": True, "note": "mine"}


def test_a_patch_of_a_changed_key_settles_it(todo: Todo) -> None:
    todo.priority = 5

    todo.patch(priority=7)

    assert todo.priority == 7 and not todo.is_dirty


def test_a_json_patch_settles_the_keys_that_it_names(todo: Todo) -> None:
    todo.title, todo.priority = "Mine", 7
    todo.data["a/b"] = 1
    todo.permissions["read"] = ["system.Everyone"]
    patch = [
        {"op": "replace", "path": "/data/title", "value": "Theirs"},
        {"op": "add", "path": "/data/a~1b", "value": 2},
    ]

    todo.patch(JSONPatch(patch))

    assert (todo.title, todo.priority, todo.data["a/b"], todo.permissions["read"]) == (
        "Theirs",
        7,
        2,
        {"system.Everyone"},
    )
    assert todo.save().refresh().priority == 7 and not todo.is_dirty


def test_a_patch_of_a_new_object_leaves_its_data_unsaved(todo: Todo, todos: Collection) -> None:
    mine = Todo(id="x", title="Mine", priority=2)

    mine.data["note"] = 1
    mine.patch(done=True)

    assert mine.is_dirty
    del mine.data["note"]
    assert mine.save().data == {"title": "Mine", "source": {"app": "other"}, "done": True, "priority": 2}


def test_changes_that_only_fit_together_stay_unsaved_together(wire: Wiretap) -> None:
    order = Order(price=1).save()
    order.data = {"price": 20, "count": 10}

    order.patch(total=200)

    assert (order.price, order.count) == (20, 10)


def test_a_change_after_staging_stays_unsaved(kinto_client: Client, todo: Todo) -> None:
    with kinto_client.unit_of_work():
        todo.title = "staged"
        todo.save()
        todo.title = "later"
        todo.tags.append("later")

    assert todo.is_dirty
    assert Todo.records.get("x").title == "staged"
    assert Todo.records.get(todo.save().id).tags == ["later"]


def test_a_change_while_the_answer_is_awaited_stays_unsaved(todo: Todo) -> None:
    async def edit_meanwhile() -> None:
        todo.title = "sent"
        saving = asyncio.create_task(todo.asave())
        await asyncio.sleep(0)
        todo.title = "later"
        await saving

    asyncio.run(edit_meanwhile())

    assert todo.title == "later" and todo.is_dirty
    assert Todo.records.get("x").title == "sent"


def test_only_the_keys_given_change_what_exists(wire: Wiretap) -> None:
    Todo(id="x", title="x", priority=9).save()

    todo, created = Todo.records.update_or_create("x", {"title": "y"})

    assert not created and wire.bodies[-1] == {"data": {"title": "y"}}
    assert todo.priority == 9
