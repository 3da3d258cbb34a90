"""What checkers must refuse: each line with a mark is an error, and nothing else is. Never run.

``# error`` is refused by both, ``# error: pyright`` by that one only: mypy checks no class keywords where there is a
metaclass, and pydantic has one (Python refuses them when the class is made).
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from kinto_orm import Bucket, Client, Collection, F, Group, Query, Record, kinto_http


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False
    priority: int = 1
    due: datetime | None = Field(default=None, validation_alias="dueDate", serialization_alias="dueDate")


class Urgent(Todo):
    level: int


class Misspelled(Record, colection="todos"):  # error: pyright
    title: str


class Numbered(Record, bucket=3):  # error: pyright
    title: str


def construct(client: Client, todos: Collection[Record], staff: Group) -> None:
    Todo()  # error
    Todo("x")  # error
    Todo(title=3)  # error
    Todo(titel="x")  # error
    Todo(title="x", titel="y")  # error
    Todo(title="x", dueDate=None)  # error
    Todo(title="x", id=3)  # error
    Todo(title="x", collection=3)  # error
    Todo(title="x", collection=staff)  # error
    Todo(title="x", bucket=todos)  # error
    Todo(title="x", client="http://localhost:8888/v1")  # error
    Todo(title="x", permissions=["account:bob"])  # error
    Todo(title="x", permissions={"read": [3]})  # error
    Todo(title="x", last_modified=3)  # error
    Urgent(title="x")  # error
    Urgent(level=3)  # error
    Record(collection=todos, data={}, title="x")  # error
    Bucket(id="a", bucket="b")  # error
    Group(id="a", members=[3])  # error
    Collection(bucket="b", id="c", model=Group)  # error
    Collection(bucket="b", id="c", sort=3)  # error


def change(todo: Todo, todos: Collection[Record]) -> None:
    todo.title = 3  # error
    todo.titel = "x"  # error
    todo.id = "x"  # error
    todo.last_modified = 3  # error
    todo.collection = todos  # error
    todo.client = None  # error
    todo.is_new = False  # error
    todo.data = 3  # error
    todo.permissions = {"read": [3]}  # error
    todo.save(True)  # error
    todo.save(on_confict="mine")  # error
    todo.delete(if_not_exists=True)  # error


def read(todo: Todo, todos: Collection[Todo]) -> None:
    todo.titel  # error
    todo.records  # error
    Todo.titel  # error
    todos.records.get("x").titel  # error
    wrong: int = todos.records.get("x").title  # error
    todo.due.year  # error


def select(query: Query[Todo], now: datetime) -> None:
    query.filter(Todo.due >= now)  # error
    query.filter(Todo.priority >= "3")  # error
    query.filter("done")  # error
    query.filter(F(Todo.title).startswith("a"))  # error
    query.limit("3")  # error
    query[0]  # error
    len(query)  # error
    query.first().title  # error
    query.update(lambda todo: todo.titel)  # error
    query.get(3)  # error


def look_back(client: Client, todos: Collection[Todo]) -> None:
    todos.records.as_of(5).filter(done=True)  # error
    todos.records.revert("x")  # error
    todos.records.revert("x", to=1.5)  # error
    todos.records.history(5)  # error
    client.permissions.purge()  # error


def work(client: Client) -> None:
    with client.unit_of_work() as uow:
        uow.get(Todo, 3)  # error
        uow.get(Todo, "x").titel  # error
        uow.save("x")  # error
    client.bind(int)  # error
    client.bucket(3)  # error


async def work_async(todo: Todo) -> None:
    (await todo.asave()).titel  # error
    todo.asave().title  # error


def drop_in(client: kinto_http.Client) -> None:
    client.get_record("r")  # error
    client.create_record(dat={})  # error
    client.get_records_timestamp().titel  # error
    client.delete_record(id=None)  # error
    client.update_record(id="r", if_match=[])  # error
    client.approve_changes(message="r+")  # error


async def drop_in_async(client: kinto_http.AsyncClient) -> None:
    client.get_record(id="r")["data"]  # error
    await client.delete_records(if_exists=True, safe=3)  # error
