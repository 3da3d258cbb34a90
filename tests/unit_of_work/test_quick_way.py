"""Where the server stored what was sent, the objects take it at once: no answer is read in detail."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from kinto_orm import Bucket, Client, Collection, Record
from kinto_orm.models import envelope
from kinto_orm.protocol.responses import ShownPermissions
from kinto_orm.repository.state import Change, ObjectState, StoredRows
from kinto_orm.server import EmbeddedServer

COUNT = 30
"""More than one batch."""
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}}


class Todo(Record):
    title: str
    done: bool = False
    priority: int = 1
    score: float = 0.5
    tags: list[str] = []  # noqa: RUF012  pydantic copies it
    place: dict[str, int] | None = None

    quick: ClassVar[list[str]] = []
    detailed: ClassVar[list[str]] = []
    late_edit: ClassVar[Callable[[Any], object] | None] = None
    """An edit that is made when the answer has come, and the object does not know yet."""

    def __kinto_accept__(
        self, change: Change[Any], row: dict[str, Any], shown: ShownPermissions, rows: StoredRows
    ) -> bool:
        if (edit := type(self).late_edit) is not None:
            edit(self)
        is_taken = super().__kinto_accept__(change, row, shown, rows)
        if is_taken:
            self.quick.append(self.title)
        return is_taken

    def __kinto_apply_state__(self, state: ObjectState, change: Change[Any] | None) -> None:
        self.detailed.append(self.title)
        super().__kinto_apply_state__(state, change)


@pytest.fixture(params=["without a schema", "with a schema"])
def todos(kinto_server: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[Collection[Todo]]:
    data = {"schema": SCHEMA} if request.param == "with a schema" else {}
    with Client.embedded(server=kinto_server) as client:
        bucket = Bucket(id="b", client=client).save()
        yield Collection(bucket=bucket, id="c", data=data, model=Todo).save()
        bucket.delete()
    Todo.quick.clear()
    Todo.detailed.clear()


def new(number: int) -> Todo:
    return Todo(title=f"Todo {number}", priority=number, tags=["a", "b"], place={"zebra": 1, "ant": number})


def test_creations_take_the_quick_way(todos: Collection[Todo]) -> None:
    made = [new(number) for number in range(COUNT)]

    todos.records.bulk_create(made)

    assert (len(Todo.quick), Todo.detailed) == (COUNT, [])
    assert all(not one.is_new and not one.is_dirty for one in made)


def test_new_dictionaries_become_plain_records_the_quick_way(todos: Collection[Todo]) -> None:
    rows = [{"title": f"Todo {number}", "place": {"zebra": 1, "ant": number}} for number in range(COUNT)]
    plain = Collection(bucket=todos.bucket, id=todos.id, client=todos.client)

    made = [outcome.object for outcome in plain.records.stream_create(rows)]
    rows[0]["title"] = "Edited"
    made[1].data["place"]["ant"] = 5
    made[2].data["more"] = 6

    assert [one.is_dirty for one in made[:4]] == [False, True, True, False]
    assert [one.data["title"] for one in made] == [f"Todo {number}" for number in range(COUNT)]
    assert all("write" in one.permissions for one in made)
    plain.records.bulk_update(made)
    assert {one.id: dict(one.data) for one in plain.records.all()} == {one.id: dict(one.data) for one in made}


def test_a_dictionary_that_the_input_uses_again_is_stored_as_it_was(todos: Collection[Todo]) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        row: dict[str, Any] = {"tags": []}
        for number in range(3):
            row["number"] = number
            row["tags"].append(number)
            yield row

    plain = Collection(bucket=todos.bucket, id=todos.id, client=todos.client)
    made = [outcome.object for outcome in plain.records.stream_create({**row, "title": "t"} for row in rows())]
    made += [outcome.object for outcome in plain.records.stream_create(rows())]

    assert [one.data["tags"] for one in made] == [[0], [0, 1], [0, 1, 2]] * 2
    assert [one.refresh().data["number"] for one in made] == [0, 1, 2] * 2


def test_a_sync_takes_the_quick_way(todos: Collection[Todo]) -> None:
    todos.records.bulk_create([new(number) for number in range(COUNT)])
    stored = todos.records.all()
    rows = [{**one.data, "id": one.id, "priority": one.priority + number % 2} for number, one in enumerate(stored)]
    rows += [{"id": f"another-{number}", "title": "Another", "place": {"zebra": 1}} for number in range(COUNT)]
    Todo.quick.clear()
    found: list[Any] = []

    report = todos.records.sync(rows, on_outcome=found.append)

    assert (report.created, report.updated) == (COUNT, COUNT // 2)
    assert (len(Todo.quick), Todo.detailed) == (COUNT + COUNT // 2, [])
    written = [outcome.object for outcome in found]
    assert not any(one.is_new or one.is_dirty for one in written)
    assert [dict(one.data) for one in written] == [dict(todos.records.get(one.id).data) for one in written]


def test_a_new_object_that_is_looked_at_while_it_travels_takes_what_was_stored(
    todos: Collection[Todo], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [new(number) for number in range(3)]
    monkeypatch.setattr(Todo, "late_edit", lambda one: repr(one) if one.title == "Todo 1" else None)

    todos.records.bulk_create(made)

    assert [one.is_new or one.is_dirty for one in made] == [False] * 3
    assert (sorted(Todo.quick), Todo.detailed) == (["Todo 0", "Todo 2"], ["Todo 1"])
    assert [one.refresh().title for one in made] == ["Todo 0", "Todo 1", "Todo 2"]


def test_a_change_is_freed_without_a_collection(todos: Collection[Todo]) -> None:
    made: list[weakref.ref[Todo]] = []

    def objects() -> Iterator[Todo]:
        for number in range(COUNT):
            one = new(number)
            made.append(weakref.ref(one))
            yield one

    gc.collect()
    gc.disable()
    try:
        todos.records.bulk_create(objects())
        left = [one for one in made if one() is not None]
    finally:
        gc.enable()

    assert left == []


def test_units_of_changed_records_take_the_quick_way(todos: Collection[Todo]) -> None:
    todos.records.bulk_create(new(number) for number in range(20))
    changed = todos.records.all()
    Todo.quick.clear()

    assert isinstance(todos.client, Client)
    with todos.client.unit_of_work():
        for one in changed:
            one.done = True
            one.tags.append("c")
            one.save()

    assert (len(Todo.quick), Todo.detailed) == (20, [])
    assert all(not one.is_dirty for one in changed)


@pytest.mark.parametrize("save", [Todo.save, Todo.replace])
def test_a_single_write_takes_the_quick_way(todos: Collection[Todo], save: Callable[[Todo], Todo]) -> None:
    one = Todo(collection=todos, title="One")

    save(one)
    one.place = {"zebra": 2, "ant": 1}
    save(one)

    assert (len(Todo.quick), Todo.detailed) == (2, [])
    assert not one.is_dirty


def test_a_value_that_is_stored_another_way_stays_as_it_is_and_clean(todos: Collection[Todo]) -> None:
    one = Todo(data={"title": "One", "extra": 1e22})  # PostgreSQL makes an integer of it

    todos.records.bulk_create([new(0), one, new(2)])

    assert sorted(Todo.quick + Todo.detailed) == ["One", "Todo 0", "Todo 2"]
    assert one.data["extra"] == 1e22
    assert not one.is_dirty


EDITS: dict[str, Callable[[Todo], object]] = {
    "Todo 1": lambda one: one.tags.append("late"),
    "Todo 2": lambda one: setattr(one, "done", True),
    "Todo 3": lambda one: one.data.update(more=1),
    "Todo 4": lambda one: one.data.pop("place"),
    "Todo 5": lambda one: setattr(one, "title", "Another"),
    "Todo 6": lambda one: one.permissions.assign({"read": ["system.Everyone"]}),
}


@pytest.mark.parametrize("is_new", [True, False], ids=["creation", "change"])
def test_an_edit_while_a_batch_travels_stays_an_edit(
    todos: Collection[Todo], monkeypatch: pytest.MonkeyPatch, *, is_new: bool
) -> None:
    made = [new(number) for number in range(len(EDITS) + 1)]
    if not is_new:
        todos.records.bulk_create(made)
        for one in made:
            one.title, one.score = f"{one.title} again", 1.5
    monkeypatch.setattr(Todo, "late_edit", lambda one: EDITS.get(one.title.removesuffix(" again"), id)(one))

    if is_new:
        todos.records.bulk_create(made)
    else:
        todos.records.bulk_update(made)
    monkeypatch.setattr(Todo, "late_edit", None)

    assert [one.is_dirty for one in made] == [False, *[True] * len(EDITS)]
    for one in made[1:]:
        one.save()
        assert not one.is_dirty
    found = {one.id: one.refresh() for one in todos.records.all()}
    stored = [found[one.id or ""] for one in made]
    assert stored[1].tags == ["a", "b", "late"]
    assert stored[2].done is True
    assert stored[3].data["more"] == 1
    assert "place" not in stored[4].data
    assert stored[5].title == "Another"
    assert "system.Everyone" in stored[6].permissions["read"]
    assert all(dict(one.data) == dict(other.data) for one, other in zip(made, stored, strict=True))


def test_later_edits_are_compared_with_what_was_stored_last(todos: Collection[Todo]) -> None:
    one = new(1)
    todos.records.bulk_create([one])
    for title in ("Two", "Three"):
        one.title = title
        one.tags.append(title)
        one.save()

    one.title, one.score = "Three", 0.5
    assert todos.records.unsaved(one) == {}
    one.title = "Two"
    one.tags.remove("Three")
    assert todos.records.unsaved(one) == {
        "title": ("Three", "Two"),
        "tags": (["a", "b", "Two", "Three"], ["a", "b", "Two"]),
    }
    one.save()
    assert todos.records.get(one.id or "") == one
    assert Todo.detailed == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_can_look_at_objects_that_another_thread_was_looking_at() -> None:
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with envelope._putting:
            is_held.set()
            may_end.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert is_held.wait(60)
    threading.Timer(0.1, may_end.set).start()

    child = os.fork()  # waits for the thread
    if child == 0:
        os._exit(0 if envelope._putting.acquire(timeout=30) else 1)

    assert os.waitpid(child, 0)[1] == 0
    thread.join()
