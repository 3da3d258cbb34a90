"""Rows of sections K and L of the faults that were found, each test named by the id of its row."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from pydantic import Field
from wiretap import Wiretap, scripted_client, tap

from kinto_orm import (
    BatchTooLargeError,
    Client,
    ConflictError,
    F,
    InvalidFilterError,
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
