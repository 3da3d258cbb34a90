"""Rows of sections K and L of the faults that were found, each test named by the id of its row."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
from pydantic import BaseModel, Field
from wiretap import Wiretap, scripted_client, tap

from kinto_orm import (
    BatchTooLargeError,
    Client,
    Collection,
    ConflictError,
    F,
    InvalidFilterError,
    InvalidTypeError,
    InvalidValueError,
    NotFoundError,
    Record,
    UsageError,
)
from kinto_orm.protocol.messages import Request, Response


class Task(Record, bucket="payments", collection="todos"):
    title: str
    n: int = 0
    tags: list[str] = Field(default_factory=list)


class Size(BaseModel):
    width: int = Field(alias="w")
    price: Decimal = Decimal(1)
    at: datetime | None = None


class File(BaseModel):
    size: int
    inner: Size | None = None
    id: str = ""


class Loose(Record):
    title: str
    attachment: File | None = Field(default=None, validation_alias="att", serialization_alias="att")


@pytest.fixture
def client(kinto_client: Client) -> Client:
    kinto_client.ensure(Task)
    kinto_client.bind(Task)
    for n in range(3):
        Task(id=f"t{n}", title=f"{n}", n=n, tags=["a"]).save()
    return kinto_client


def test_k01_a_condition_on_the_time_of_change_gives_no_tombstones(client: Client) -> None:
    Task.records.get("t2").delete()
    now = Task.records.timestamp() or 0

    late = Task.records.filter(Task.last_modified > 3)

    assert [one.title for one in late] == ["0", "1"]
    assert (late.count(), len(late.values("title")), len(Task.records.before(now + 1).all())) == (2, 2, 2)


def test_k02_counting_what_changed_counts_the_tombstones(client: Client) -> None:
    before = Task.records.timestamp()
    Task.records.get("t2").delete()

    changed = Task.records.since(before or 0)
    with client.gather() as gathered:
        count, exists = gathered.count(changed), gathered.exists(changed)

    assert len(changed.all()) == changed.count() == count.value == 1
    assert changed.exists() is exists.value is True


def test_k03_a_key_called_deleted_makes_no_tombstone(client: Client) -> None:
    path = "/buckets/payments/collections/todos/records/own"
    put(client, path)

    found = client.bucket("payments").collection("todos").records.filter(F("deleted") == True)  # noqa: E712

    assert [(one.id, one.is_deleted, one.data["title"]) for one in found] == [("own", False, "x")]


@pytest.mark.parametrize("model", [Task, Record])
def test_k03_nor_does_it_where_there_are_tombstones(client: Client, model: type[Record]) -> None:
    before = Task.records.timestamp() or 0
    put(client, "/buckets/payments/collections/todos/records/own")
    Task.records.get("t2").delete()
    records = client.bucket("payments").collection("todos" if model is Record else Task).records

    changed = records.since(before)
    until_now = records.before((records.timestamp() or 0) + 1)

    assert {one.id: one.is_deleted for one in changed} == {"own": False, "t2": True}
    assert {one.id for one in until_now} == {"t0", "t1", "own"}
    assert {row["title"] for row in until_now.values("title")} == {"0", "1", "x"}


@pytest.fixture
def wire(client: Client) -> Wiretap:
    return tap(client)


def put(client: Client, path: str) -> None:
    body = json.dumps({"data": {"title": "x", "deleted": True}}).encode()
    client._connection.transport.send(Request("PUT", path, headers={"Content-Type": "application/json"}, body=body))


def test_k06_an_undeclared_key_is_named_by_f_everywhere(client: Client) -> None:
    put(client, "/buckets/payments/collections/todos/records/own")

    assert Task.records.filter(F("deleted") == True).values(F("deleted")) == [{"deleted": True}]  # noqa: E712
    assert Task.records.order_by(F("deleted").desc(), "n").first() is not None
    assert len(Task.records.only(F("deleted"), "title").all()) == 4
    with pytest.raises(InvalidFilterError, match="has no field 'titel'"):
        Task.records.order_by("titel")


def test_k07_an_object_is_patched_and_deleted_by_its_id_alone(client: Client, wire: Wiretap) -> None:
    Task.records.ref("t0").patch(title="new")
    Task.records.ref("t1").delete()
    assert [request.method for request in wire.requests] == ["PATCH", "DELETE"]

    assert Task.records.ref("t0").refresh().title == "new"
    with pytest.raises(NotFoundError):
        Task.records.ref("missing").patch(title="x")


def test_k07_an_object_of_an_id_alone_is_told_to_be_a_reference() -> None:
    with pytest.raises(InvalidValueError, match=r"title: Field required.* Task\.records\.ref\('t1'\)"):
        Task(id="t1").delete()  # type: ignore[call-arg]


def test_k07_membership_is_refused_with_the_form_to_write(client: Client) -> None:
    with pytest.raises(UsageError, match="get_or_none"):
        _ = "t0" in Task.records


@pytest.mark.parametrize(
    ("keyword", "advice"),
    [
        ("n__gte", "min_n=…"),
        ("n__lte", "max_n=…"),
        ("title__in", "in_title=…"),
        ("title__icontains", "like_title='*…*'"),
        ("title__isnull", "has_title=False"),
        ("n__range", "min_n=… and max_n=…"),
    ],
)
def test_k12_a_look_up_of_django_is_told_the_form_of_kinto(client: Client, keyword: str, advice: str) -> None:
    with pytest.raises(InvalidFilterError) as caught:
        Task.records.filter(**{keyword: 1})

    assert advice in str(caught.value)


def test_k12_objects_is_told_to_be_records(client: Client) -> None:
    with pytest.raises(AttributeError, match=r"write Task\.records"):
        _ = Task.objects  # type: ignore[attr-defined]


def test_l17_a_list_without_a_count_is_counted_by_reading() -> None:
    rows: list[dict[str, Any]] = [{"id": "a", "last_modified": 1}, {"id": "b", "last_modified": 2}]
    client = scripted_client(Response(200), Response(200, body=json.dumps({"data": rows}).encode()))

    assert client.bucket("b").collection("c").records.count() == 2


def test_l03_creating_an_id_that_is_taken_says_that_it_exists(client: Client) -> None:
    with pytest.raises(ConflictError, match="exists already") as caught:
        Task(id="t0", title="x").save()

    assert caught.value.theirs is not None and caught.value.theirs["title"] == "0"


def test_l14_a_unit_that_is_too_large_counts_its_writes_and_its_lock(client: Client) -> None:
    def commit() -> None:
        with client.unit_of_work(lock="billing"):
            for n in range(25):
                Task(title=str(n)).save()

    with pytest.raises(BatchTooLargeError, match="25 writes and the lock are staged"):
        commit()


@pytest.mark.parametrize("verb", ["save", "replace", "delete"])
def test_l15_forcing_a_write_and_matching_a_version_exclude_each_other(client: Client, verb: str) -> None:
    task = Task.records.get("t0")
    task.title = "new"

    with pytest.raises(UsageError, match="give one of both"):
        getattr(task, verb)(safe=False, if_match=3)

    assert Task.records.get("t0").title == "0"


@pytest.mark.parametrize("order", ["last_modified", "-n", "n", "title"])
def test_k09_what_the_loop_saves_does_not_come_again(order: str, client: Client) -> None:
    seen: list[str] = []

    for task in Task.records.order_by(order, "last_modified").page_size(2):
        seen.append(task.id)
        assert len(seen) < 10
        task.n += 10
        task.save()

    assert sorted(seen) == ["t0", "t1", "t2"]


def test_k09_the_cursor_of_such_a_loop_brings_what_it_saved(client: Client) -> None:
    pages = []

    for page in Task.records.since(0).order_by("last_modified").page_size(2).pages():
        pages.append(page)
        for task in page.objects:
            task.patch(n=task.n + 10)

    assert sum(len(page.objects) for page in pages) == 3
    assert Task.records.since(pages[-1].timestamp or 0).count() == 3


def test_k10_keys_of_an_existing_object_are_set_without_its_other_fields(client: Client, wire: Wiretap) -> None:
    task, created = Task.records.update_or_create("t1", {"n": 4})

    assert (created, task.title, task.n, task.is_dirty) == (False, "1", 4, False)
    assert [request.method for request in wire.requests] == ["GET", "PATCH"]
    assert Task.records.get_or_create("t1", {"n": 5}) == (task, False)


@pytest.mark.parametrize("verb", ["update_or_create", "get_or_create"])
def test_k10_what_makes_no_object_creates_none(verb: str, client: Client, wire: Wiretap) -> None:
    with pytest.raises(InvalidValueError, match=r"todos/records/new does not exist, and cannot be created .*title"):
        getattr(Task.records, verb)("new", {"n": 4})
    assert len(wire.requests) == 1
    with pytest.raises(InvalidValueError, match="n: Input should be a valid integer"):
        getattr(Task.records, verb)("t1", {"n": "many"})
    assert len(wire.requests) == 1


def test_k10_all_succeed_who_set_keys_at_once(client: Client) -> None:
    start = Barrier(8)

    def set_key(number: int) -> tuple[Record, bool]:
        start.wait()
        return client.bucket("payments").collection("todos").records.update_or_create("new", {f"k{number}": number})

    with ThreadPoolExecutor(8) as pool:
        created = [created for _, created in pool.map(set_key, range(8))]

    assert created.count(True) == 1
    assert client.bucket("payments").collection("todos").records.get("new").data == {f"k{n}": n for n in range(8)}


def test_k08_a_query_keeps_the_client_that_it_was_made_with(client: Client) -> None:
    client.bind(Loose)
    Loose.__kinto_client__ = None
    before = Loose.records.order_by("title")
    client.clone(bucket="payments", collection="todos").bind(Loose)
    query = Loose.records.filter(title="1")
    pickled = pickle.dumps(query)
    client.ensure(Collection(bucket="payments", id="50"))
    client.clone(bucket="payments", collection="50").bind(Loose)

    assert [one.id for one in query] == ["t1"]
    assert list(Loose.records) == list(before) == []  # that was made before the class had a client
    assert pickle.loads(pickled).count() == 0  # as the class where it is read


def test_k13_a_field_of_a_field_makes_a_condition(client: Client) -> None:
    client.clone(bucket="payments", collection="todos").bind(Loose)
    now = datetime(2026, 5, 1, tzinfo=UTC)
    for n in range(4):
        inner = Size(w=n, at=now + timedelta(hours=n)) if n else None
        Loose(id=f"l{n}", title="x", attachment=File(size=9 + n, inner=inner, id=f"f{n}")).save()
    loose = Loose.records.filter(title="x")
    file: Any = F(Loose.attachment)  # checkers: only where the field may not be None

    assert repr(file.inner.width) == "Loose.attachment.inner.width"
    assert [one.id for one in loose.filter(file.size > 10)] == ["l2", "l3"]
    assert [one.id for one in loose.filter(file.inner.width <= 2)] == ["l1", "l2"]
    assert [one.id for one in loose.filter(F(file.id).in_(["f1", "f3"]))] == ["l1", "l3"]
    moment = (now + timedelta(hours=2)).astimezone(timezone(timedelta(hours=5)))
    assert [one.id for one in loose.filter(file.inner.at >= moment)] == ["l2", "l3"]
    assert [one.id for one in loose.filter(F(file.inner.at).has(), **{"gt_att.inner.at": moment})] == ["l3"]
    assert [one.id for one in loose.order_by(file.size.desc())] == ["l3", "l2", "l1", "l0"]
    assert loose.values(file.inner.width)[1:2] == [{"att.inner.w": 1}]
    again = pickle.loads(pickle.dumps(file.inner.width))
    assert (again.__kinto_field__, copy.deepcopy(again)) == ("att.inner.w", again)


def test_k13_conditions_inside_fields_tell_the_truth_or_are_refused(client: Client) -> None:
    price: Any = F(Loose.attachment)["inner"]["price"]

    for refused in (lambda: price > Decimal(9), lambda: Loose.records.order_by(price)):
        with pytest.raises(InvalidFilterError, match=r"Size\.price"):
            refused()
    with pytest.raises(InvalidFilterError, match=r"Size\.price"):
        Loose.records.filter(**{"att.inner.price": Decimal(9)})


def test_k13_what_is_no_field_is_no_attribute(client: Client) -> None:
    with pytest.raises(AttributeError, match=r"Loose\.attachment has no field 'sise'; it has size, inner, id"):
        _ = F(Loose.attachment).sise  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"Task\.title .*\['x'\]"):
        _ = F(Task.title).x  # type: ignore[attr-defined]


def test_k07_a_list_is_no_element_of_a_list(client: Client) -> None:
    for field in (F(Task.tags), F("tags")):
        with pytest.raises(InvalidFilterError, match=r"contains\('a', 'b'\).*contains_tags="):
            field.contains(["a", "b"])
        with pytest.raises(InvalidFilterError, match=r"contains_any\('a'\)"):
            field.contains_any({"a"})
    assert Task.records.filter(F(Task.tags).contains("a")).count() == 3


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda: Task.records.delete("p1"), r"\.ref\('p1'\)\.delete\(\)"),
        (lambda: Task.records.get(title="x"), r"filter\(title=…\)\.one\(\)"),
        (lambda: Task.records.get_or_none(title="x"), r"filter\(title=…\)\.first\(\)"),
        (lambda: Task.records.get(), r"get\(id\)"),
    ],
)
def test_k12_a_call_of_another_orm_is_told_the_form(client: Client, call: Any, advice: str) -> None:
    with pytest.raises(InvalidTypeError, match=advice):
        call()


def test_k12_awaited_calls_are_told_the_form_too(client: Client) -> None:
    with pytest.raises(InvalidTypeError, match=r"filter\(title=…\)\.one\(\)"):
        asyncio.run(Task.records.aget(title="x"))  # type: ignore[call-arg]
    with pytest.raises(InvalidTypeError, match=r"\.ref\('p1'\)\.adelete\(\)"):
        asyncio.run(Task.records.adelete("p1"))  # type: ignore[misc]
