"""What users write and what checkers make of it. Read by mypy and pyright, both strict, and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, MutableMapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, field_validator
from typing_extensions import assert_type

from kinto_orm import (
    Attachment,
    Bucket,
    BulkReport,
    Client,
    Collection,
    CommitError,
    F,
    Group,
    History,
    HistoryEntry,
    KintoError,
    Manager,
    Outcome,
    Page,
    PermissionEntry,
    Permissions,
    Query,
    Record,
    RecordManager,
    ReviewStatus,
    Snapshot,
    UnitOfWork,
    kinto_http,
)
from kinto_orm.protocol.filters import Condition

T = TypeVar("T")


# -- declaring ----------------------------------------------------------------------------------------------------


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    done: bool = False
    priority: int = 1
    tags: list[str] = []
    due: datetime | None = Field(default=None, validation_alias="dueDate", serialization_alias="dueDate")


class Address(BaseModel):
    city: str
    zip: str | None = None


class Order(Record, collection="orders"):
    address: Address
    lines: list[Address] = Field(default_factory=lambda: [])
    size: Annotated[int, AfterValidator(abs)] = 0
    collection_: str = Field(default="", validation_alias="collection", serialization_alias="collection")

    @field_validator("size")
    @classmethod
    def check_size(cls, value: int) -> int:
        return value

    @property
    def city(self) -> str:
        return self.address.city


class Note(Record):
    pass


class Urgent(Todo, collection="urgent"):
    level: int


class Stamped(BaseModel):
    created: datetime | None = None


class Signed:
    def signature(self) -> str:
        return ""


class Letter(Stamped, Signed, Record, collection="letters"):
    text: str


class Measurement(Record, Generic[T]):
    value: T


class Temperature(Measurement[float], collection="temperatures"):
    unit: str = "C"


class Team(Group):
    nickname: str | None = None


# -- constructing -------------------------------------------------------------------------------------------------


def construct(client: Client, payments: Bucket, staff: Group, todos: Collection[Record]) -> None:
    assert_type(Todo(title="x"), Todo)
    Todo(title="x", done=True, priority=2, tags=["a"], due=None)
    Todo(title="x", id="a", collection=todos, bucket="b", client=client, permissions={"read": [staff, "account:bob"]})
    Todo(title="x", id=UUID(int=1), collection="todos", bucket=payments, permissions={"write": ("account:bob",)})
    Todo(title="x", id=None, collection=None, bucket=None, client=None, permissions=None)
    Order(address=Address(city="Paris"), id="a", size=3, collection_="here")
    Note(data={"title": "x"}, id="a")
    Urgent(title="x", level=3, id="a", collection=todos)
    Letter(text="Dear", created=None, id="a")
    assert_type(Measurement(value=3), Measurement[int])
    Temperature(value=3.5, id="a", unit="K")
    Team(id="a", members=["account:bob"], nickname="them", bucket=payments)


def construct_the_four_kinds(client: Client, staff: Group) -> None:
    payments = Bucket(id="payments", data={"description": "My payments"}, client=client)
    group = Group(bucket=payments, id="staff", members=["account:bob"])
    collection = Collection(bucket=payments, id="todos", permissions={"record:create": ["system.Authenticated"]})
    typed = Collection(bucket="payments", id="todos", sort="-title", schema_={"type": "object"}, model=Todo)
    record = Record(collection=collection, data={"title": "x"}, id="a", permissions={"read": [staff]})

    assert_type(payments.save(), Bucket)
    assert_type(group.save(), Group)
    assert_type(collection, Collection[Record])
    assert_type(typed, Collection[Todo])
    assert_type(typed.save(), Collection[Todo])
    assert_type(record.save(), Record)
    assert_type(typed.model, type[Todo])


# -- reading, setting, and the verbs ------------------------------------------------------------------------------


def read(todo: Todo, letter: Letter, temperature: Temperature, group: Group, collection: Collection[Todo]) -> None:
    assert_type(todo.title, str)
    assert_type(todo.due, datetime | None)
    assert_type(todo.tags, list[str])
    assert_type(todo.id, str)
    assert_type(todo.last_modified, int | None)
    assert_type(todo.permissions, Permissions)
    assert_type(todo.permissions.read, frozenset[str])
    assert_type(todo.permissions["read"], frozenset[str])
    assert_type(todo.data, MutableMapping[str, Any])
    assert_type(todo.collection, Collection[Record])
    assert_type(todo.bucket, Bucket)
    assert_type(todo.is_new or todo.is_dirty or todo.is_deleted, bool)
    assert_type(letter.created, datetime | None)
    assert_type(temperature.value, float)
    assert_type(group.members, list[str])
    assert_type(group.bucket, Bucket)
    assert_type(collection.bucket, Bucket)
    assert_type(collection.schema_, dict[str, Any] | None)
    assert_type(todo.model_dump(), dict[str, Any])


def change(todo: Todo, staff: Group) -> None:
    todo.title = "y"
    todo.due = None
    todo.tags.append("z")
    todo.data["undeclared"] = 3
    todo.data = {"title": "y"}
    todo.permissions = {"read": ["x", staff]}
    todo.permissions["write"] = [staff]
    todo.permissions.add("write", "account:bob", staff)


def write(todo: Todo) -> None:
    assert_type(todo.save(), Todo)
    assert_type(todo.save(safe=False, if_match=3, if_not_exists=True), Todo)
    assert_type(todo.patch({"safe": 1}, title="y"), Todo)
    assert_type(todo.replace(safe=False), Todo)
    assert_type(todo.delete(if_exists=True), Todo)
    assert_type(todo.refresh(discard=True), Todo)


async def write_async(todo: Todo) -> None:
    assert_type(await todo.asave(), Todo)
    assert_type(await todo.apatch(title="y"), Todo)
    assert_type(await todo.areplace(), Todo)
    assert_type(await todo.adelete(), Todo)
    assert_type(await todo.arefresh(), Todo)


# -- managers and queries -----------------------------------------------------------------------------------------


def find_managers(client: Client, payments: Bucket, todos: Collection[Todo]) -> None:
    assert_type(Todo.records, RecordManager[Todo])
    assert_type(Urgent.records, RecordManager[Urgent])
    assert_type(Record.records, RecordManager[Record])
    assert_type(Collection.records, RecordManager[Record])
    assert_type(todos.records, RecordManager[Todo])
    assert_type(payments.collection(Todo), Collection[Todo])
    assert_type(payments.collection(Todo).records, RecordManager[Todo])
    assert_type(payments.collection("x"), Collection[Record])
    assert_type(payments.collection("x").records, RecordManager[Record])
    assert_type(payments.group("staff"), Group)
    assert_type(payments.collections, Manager[Collection[Record]])
    assert_type(payments.groups, Manager[Group])
    assert_type(client.buckets, Manager[Bucket])
    assert_type(client.bucket("b"), Bucket)
    assert_type(client.bind(Todo), type[Todo])


def select(now: datetime) -> None:
    query = Todo.records.filter(
        Todo.priority >= 3, F(Todo.title).like("a*"), Todo.title == "x", done=False, _sort="-last_modified"
    )
    assert_type(query, Query[Todo])
    assert_type(query.exclude(Todo.title == "x", done=True), Query[Todo])
    assert_type(query.only(Todo.title), Query[Todo])
    assert_type(query.order_by(Todo.priority, "-title", F(Todo.due).desc()), Query[Todo])
    assert_type(query.limit(3).page_size(2).since(1).before(now), Query[Todo])
    assert_type(query[:10], Query[Todo])
    assert_type(query[10:20], Query[Todo])
    assert_type(F(Todo.due) >= now, Condition)
    assert_type(F(Todo.title) == "x", Condition)
    assert_type(F(Order.address)["city"] != "Paris", Condition)
    assert_type(F("undeclared").in_(["a", "b"]), Condition)
    Todo.records.filter(F(Todo.due) >= now, Todo.id != "x", Todo.done == True)
    Letter.records.filter(Letter.text > "a", F(Letter.created).has())


def end(query: Query[Todo]) -> None:
    assert_type(query.first(), Todo | None)
    assert_type(query.one(), Todo)
    assert_type(query.get("x"), Todo)
    assert_type(query.get_or_none("x"), Todo | None)
    assert_type(query.get_many(["x"]), list[Todo])
    assert_type(query.all(), list[Todo])
    assert_type(query.pages(), Iterator[Page[Todo]])
    assert_type(query.count(), int)
    assert_type(query.exists(), bool)
    assert_type(query.delete(), int)
    assert_type(query.update(lambda todo: assert_type(todo, Todo)), BulkReport)
    assert_type(query.update(lambda todo: todo.tags.append("x")), BulkReport)
    assert_type(query.update(done=True), BulkReport)
    for todo in query:
        assert_type(todo, Todo)
    for page in query.pages():
        assert_type(page.objects[0], Todo)


async def end_async(query: Query[Todo]) -> None:
    assert_type(await query.afirst(), Todo | None)
    assert_type(await query.aget("x"), Todo)
    assert_type(await query.aall(), list[Todo])
    assert_type(await query.aupdate(lambda todo: assert_type(todo, Todo)), BulkReport)
    assert_type(query.apages(), AsyncIterator[Page[Todo]])
    async for todo in query:
        assert_type(todo, Todo)


def create(manager: Manager[Todo], todo: Todo) -> None:
    assert_type(manager.create(title="x", id="a", permissions={"read": ["x"]}), Todo)
    assert_type(manager.get_or_create("x"), tuple[Todo, bool])
    assert_type(manager.update_or_create("x", {"done": True}), tuple[Todo, bool])
    assert_type(manager.bulk_create([todo, {"title": "x"}]), BulkReport)
    assert_type(manager.bulk_update(one for one in manager), BulkReport)
    manager.bulk_delete([todo], on_outcome=lambda outcome: assert_type(outcome, Outcome[Todo]))


def attach(todos: Collection[Todo], todo: Todo, stream: BytesIO) -> None:
    assert_type(todos.records.attachment(todo), Attachment | None)
    assert_type(todos.records.attach(todo, "a.png", mimetype="image/png"), Outcome[Todo])
    assert_type(todos.records.attach(todo, stream, filename="a.png"), Outcome[Todo])
    assert_type(todos.records.detach(todo, safe=False), Outcome[Todo])
    assert_type(todos.records.download(todo, Path("folder")), Path)
    todos.records.download(todo, stream)


def review(todos: Collection[Todo]) -> None:
    assert_type(todos.status, ReviewStatus | None)
    assert_type(todos.request_review("please"), Collection[Todo])
    assert_type(todos.approve(seen=todos.records.timestamp()), Collection[Todo])


# -- history and permissions --------------------------------------------------------------------------------------


def look_back(client: Client, todos: Collection[Todo], todo: Todo) -> None:
    assert_type(todos.records.as_of(5), Snapshot[Todo])
    assert_type(todos.records.as_of("5").get("x"), Todo)
    assert_type([one.title for one in todos.records.as_of(5)], list[str])
    assert_type(todos.records.history(todo).filter(action="create"), History)
    for entry in client.bucket("b").history.since(5)[:3]:
        assert_type(entry, HistoryEntry)
        assert_type(entry.target.data, dict[str, Any])
        assert_type(todos.records.revert(todo, to=entry), Todo)
    assert_type(todos.records.revert("x", to=datetime.now(UTC)), Todo)
    assert_type(client.bucket("b").history.purge(everything=True), int)
    assert_type(client.permissions.filter(resource_name="record").first(), PermissionEntry | None)


async def look_back_async(client: Client, todos: Collection[Todo]) -> None:
    async for entry in client.permissions:
        assert_type(entry.permissions, frozenset[str])
    async for todo in todos.records.as_of(5):
        assert_type(todo, Todo)
    assert_type(await todos.records.arevert("x", to=5), Todo)
    assert_type(await client.bucket("b").history.apurge(everything=True), int)


# -- units of work ------------------------------------------------------------------------------------------------


def work(client: Client, todos: Collection[Todo], todo: Todo) -> None:
    with client.unit_of_work() as uow:
        assert_type(uow, UnitOfWork)
        assert_type(uow.get(Todo, "x"), Todo)
        assert_type(uow.get(todos.records, "x"), Todo)
        assert_type(uow.get(Todo.records.filter(done=True), "x"), Todo)
        assert_type(uow.save(todo), Todo)
    assert_type(uow.outcomes, tuple[Outcome[Any], ...])
    assert_type(client.ensure(Bucket(id="b"), Collection(bucket="b", id="c", model=Todo)), tuple[Outcome[Any], ...])


def what_errors_hold(client: Client) -> None:
    try:
        Todo(title="x").save()
    except CommitError as failed:
        for outcome in failed.outcomes:
            assert_type(outcome.status, str)
            assert_type(outcome.error, KintoError | None)
            assert_type(outcome.is_stored, bool)
        assert_type([one.is_stored for one in failed.compensate()], list[bool])
    assert_type(Order.records.filter(Order.address.city == "Paris"), Query[Order])
    assert_type(Todo.records.order_by(F(Todo.priority).desc(), "-title"), Query[Todo])


async def work_async(client: Client) -> None:
    async with client.unit_of_work() as uow:
        assert_type(await uow.aget(Todo, "x"), Todo)
    async with client as same:
        assert_type(same, Client)


# -- the drop-in for kinto-http: one definition of each verb, for both clients ---------------------------------------


def drop_in(client: kinto_http.Client, uuid: UUID) -> None:
    assert_type(client.create_record(id=uuid, data={"n": 1}, permissions={"read": ["x"]}), dict[str, Any])
    assert_type(client.get_records(_sort="n", in_id=["a"]), list[dict[str, Any]])
    assert_type(client.get_records_timestamp(), str)
    assert_type(client.get_endpoint("record", id="r"), str)
    assert_type(client.request_review("please", "c", if_match=3), dict[str, Any])
    assert_type(client.clone(collection="c"), kinto_http.Client)
    for page in client.get_paginated_records(pages=2):
        assert_type(page, dict[str, Any])
    with client.batch() as batch:
        assert_type(batch, kinto_http.Client)
        batch.delete_bucket()


async def drop_in_async(client: kinto_http.AsyncClient) -> None:
    assert_type(await client.create_record(id=3, data={"n": 1}), dict[str, Any])
    assert_type(await client.get_permissions(["record"], resource_name="bucket"), list[dict[str, Any]])
    async for page in await client.get_paginated_records():
        assert_type(page, dict[str, Any])
    async with client.batch() as batch:
        assert_type(batch, kinto_http.AsyncClient)
