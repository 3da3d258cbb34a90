"""The forms of the design that users are promised run as they are written there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pydantic import Field

from kinto_orm import BasicPatch, BearerTokenAuth, Bucket, Client, Collection, F, Group, JSONPatch, MergePatch, Record


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False
    priority: int = 1
    tags: list[str] = []  # noqa: RUF012 - pydantic copies it
    due: datetime | None = Field(default=None, validation_alias="dueDate", serialization_alias="dueDate")


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client.embedded()
    yield client
    client.close()


def test_clients() -> None:
    client = Client(server_url="http://localhost:8888/v1", auth=("alexis", "p4ssw0rd"))
    assert client.default_bucket == "default"

    client = Client("http://localhost:8888/v1", auth=("token", "secret"), bucket="payments", collection="receipts")
    assert client.get_endpoint("record", id="c6894b2c") == "/buckets/payments/collections/receipts/records/c6894b2c"

    orders = client.clone(collection="orders")
    assert (orders.default_bucket, orders.default_collection) == ("payments", "orders")
    for auth in ("user:password", "Bearer xyz", "Bearer+OIDC xyz", "Basic xyz", BearerTokenAuth("xyz", type="OIDC")):
        assert Client("http://localhost:8888/v1", auth=auth)


def test_objects(client: Client) -> None:
    payments = Bucket(id="payments", data={"description": "My payments"}, client=client).save()
    staff = Group(bucket=payments, id="staff", members=["account:bob"]).save()
    todos = Collection(bucket=payments, id="todos", permissions={"record:create": ["system.Authenticated"]}).save()

    Record(collection=todos, data={"title": "Todo #1", "status": "done"}).save()
    record = Record(collection=todos, id="todo2", data={"title": "Todo #2"}, permissions={"read": [staff]}).save()

    assert record.data["title"] == "Todo #2"
    assert (record.id, record.collection, record.is_new, record.is_dirty) == ("todo2", todos, False, False)
    assert record.permissions.read == {"/buckets/payments/groups/staff"}
    record.data["status"] = "doing"
    record.save()
    record.patch(status="done")
    record.patch(MergePatch({"status": None}))
    record.patch(JSONPatch([{"op": "add", "path": "/data/n", "value": 1}]))
    record.patch(BasicPatch(data={"n": 2}, permissions={"read": ["system.Everyone"]}))
    assert record.data == {"title": "Todo #2", "n": 2}
    record.replace()
    record.refresh()
    record.delete()
    assert record.is_deleted
    assert client.server_info()["capabilities"]["history"]


def test_typed_records(client: Client) -> None:
    client.ensure(Bucket(id="payments"), Collection(bucket="payments", id="todos"))
    payments = client.bucket("payments")
    now = datetime.now(UTC)

    with client:
        todo = Todo(title="Buy milk").save()
        todo.done = True
        todo.save()
        assert Todo.records.filter(Todo.priority >= 3).first() is None
        urgent = Todo(title="Buy soap", priority=3, due=now).save()
        assert Todo.records.filter(Todo.priority >= 3).first() == urgent
    todos = payments.collection(Todo)

    assert isinstance(todos.records.get(todo.id), Todo)
    assert type(payments.collection("todos").records.get(todo.id)) is Record
    assert todos.records.filter(F(Todo.due) >= now).all() == [urgent]


def test_queries(client: Client) -> None:
    client.ensure(Bucket(id="payments"), Collection(bucket="payments", id="todos"))
    todos = client.bucket("payments").collection(Todo)
    todos.records.bulk_create({"title": f"buy {n}", "priority": n, "id": f"t{n:02}"} for n in range(30))

    with client.clone(bucket="payments", collection="todos"):
        assert len(Collection.records.filter(_limit=10).all()) == 10
    assert len(todos.records.filter(_limit=10).all()) == 10
    assert len(todos.records.filter(_limit=10, pages=float("inf")).all()) == 30
    assert len(todos.records.page_size(10).all()) == 30
    found = todos.records.filter(Todo.priority >= 3, F(Todo.title).like("buy*"), done=False, _sort="-last_modified")
    assert [one.priority for one in found[:2]] == [29, 28]
    assert [one.id for one in client.buckets] == ["payments"]
    assert client.bucket("payments").collections.get("todos").id == "todos"
    assert not client.bucket("payments").groups.exists()


def test_units_of_work(client: Client) -> None:
    client.ensure(Bucket(id="payments"), Collection(bucket="payments", id="todos"))
    todos = client.bucket("payments").collection(Todo)
    todo, old = (todos.records.create(title=title) for title in ("todo", "old"))

    with client.unit_of_work() as uow:
        new = Record(collection=todos, data={"title": "new"}).save()
        todo.done = True
        todo.save()
        old.delete()
        plan = str(uow.plan())

    assert [line.split()[0] for line in plan.splitlines()][-1] == "DELETE"
    assert [(one.object, one.status) for one in uow.outcomes] == [
        (new, "created"),
        (todo, "updated"),
        (old, "deleted"),
    ]


async def awaited(client: Client) -> list[str]:
    async with client:
        todo = await Todo(title="Buy milk").asave()
        async with client.unit_of_work():
            todo.done = True
            await todo.asave()
        return [one.title async for one in Todo.records.filter(done=True)]


def test_twins(client: Client) -> None:
    client.ensure(Bucket(id="payments"), Collection(bucket="payments", id="todos"))

    assert asyncio.run(awaited(client)) == ["Buy milk"]
