"""Where the server stored what was sent, the objects take it at once: no answer is read in detail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from kinto_orm import Bucket, Client, Collection, Record
from kinto_orm.repository.state import Change, ObjectState
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

    def __kinto_accept__(self, change: Change[Any], stored: dict[str, Any], answer: dict[str, Any]) -> bool:
        is_taken = super().__kinto_accept__(change, stored, answer)
        if is_taken:
            self.quick.append(self.title)
        return is_taken

    def __kinto_apply_state__(self, state: ObjectState, change: Change[Any] | None) -> None:
        self.detailed.append(self.title)
        super().__kinto_apply_state__(state, change)


@pytest.fixture(scope="module", params=["memory", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    if request.param == "memory":
        started = EmbeddedServer.memory()
    else:
        started = EmbeddedServer.postgres(tmp_path_factory.mktemp("quick"))
    with started as running:
        yield running


@pytest.fixture(params=["without a schema", "with a schema"])
def todos(server: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[Collection[Todo]]:
    data = {"schema": SCHEMA} if request.param == "with a schema" else {}
    with Client.embedded(server=server) as client:
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


def test_an_edit_while_a_batch_travels_stays_an_edit(todos: Collection[Todo]) -> None:
    made = [new(number) for number in range(4)]

    def edited() -> Iterator[Todo]:
        yield from made
        made[1].tags.append("late")
        made[2].done = True
        made[3].data["more"] = 1

    todos.records.bulk_create(edited())

    assert Todo.quick == ["Todo 0"]
    assert [one.is_dirty for one in made] == [False, True, True, True]
    for one in made[1:]:
        one.save()
    stored = {one.title: one.data for one in todos.records.all()}
    assert stored["Todo 1"]["tags"] == ["a", "b", "late"]
    assert stored["Todo 2"]["done"] is True
    assert stored["Todo 3"]["more"] == 1
