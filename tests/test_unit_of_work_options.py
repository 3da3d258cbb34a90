"""The options of a unit of work: atomic, chunked, lock, on_conflict, on servers with limits of all kinds."""

from __future__ import annotations

from typing import Any

import pytest
from lossy import lossy
from wiretap import Wiretap, tap

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    ForbiddenError,
    Group,
    InvalidIdError,
    InvalidTypeError,
    Record,
    UnitOfWorkError,
)
from kinto_orm.server import EmbeddedServer


@pytest.fixture
def wire(kinto_client: Client, todos: Collection[Record]) -> Wiretap:
    """All that the client sends after the set-up."""
    kinto_client.server_info()
    return tap(kinto_client)


def paths(wire: Wiretap) -> list[list[str]]:
    """The paths of each batch."""
    return [[entry["path"] for entry in body["requests"]] for body in wire.bodies if body and "requests" in body]


def new(todos: Collection[Record], count: int) -> None:
    for number in range(count):
        Record(collection=todos, id=f"r{number:03}", data={"n": number}).save()


# -- lock ---------------------------------------------------------------------------------------------------------

LOCK = "/buckets/payments/collections/lock-billing/records/lock"


@pytest.fixture
def billing(kinto_client: Client) -> Client:
    return kinto_client.clone(bucket="payments")


def test_a_named_lock_goes_first_and_is_made_once(billing: Client, todos: Collection[Record], wire: Wiretap) -> None:
    records = billing.bucket("payments").collection("todos").records

    for id in ("milk", "bread"):
        with billing.unit_of_work(lock="billing") as uow:
            records.create(id=id)

    assert [one.target for one in wire.requests] == [LOCK.removesuffix("/records/lock"), LOCK, "/batch", "/batch"]
    assert paths(wire) == [[LOCK, f"{todos.__kinto_path__()}/records/{id}"] for id in ("milk", "bread")]
    assert [one.object.id for one in uow.outcomes] == ["bread"]


def test_a_plan_shows_the_lock_and_sends_nothing(billing: Client, wire: Wiretap) -> None:
    with billing.unit_of_work(lock="billing") as uow:
        assert str(uow.plan()) == "nothing to send"
        billing.bucket("payments").collection("todos").records.create(id="milk")
        plan = uow.plan()
        sent = list(wire.requests)
        uow.rollback()

    assert plan.lock == {"method": "PUT", "path": LOCK, "body": {}}
    assert str(plan).splitlines()[0] == f"PUT {LOCK} {{}} (the lock)"
    assert sent == wire.requests == []


def test_an_object_as_a_lock_keeps_what_it_is(
    kinto_client: Client, payments: Bucket, todos: Collection[Record]
) -> None:
    staff = Group(bucket=payments, id="staff", members=["account:bob"], permissions={"read": ["account:eve"]}).save()

    with kinto_client.unit_of_work(lock=staff):
        new(todos, 1)

    found = payments.groups.get("staff")
    assert found.members == ["account:bob"]
    assert "account:eve" in found.permissions["read"]
    assert found.last_modified > staff.last_modified


def test_a_lock_with_the_name_of_something_that_exists_leaves_it_alone(
    billing: Client, payments: Bucket, todos: Collection[Record]
) -> None:
    Group(bucket=payments, id="billing", members=["account:bob"]).save()
    Collection(bucket=payments, id="billing", data={"sort": "-n"}).save()

    with billing.unit_of_work(lock="billing"):
        billing.bucket("payments").collection("todos").records.create()

    assert payments.groups.get("billing").members == ["account:bob"]
    assert payments.collections.get("billing").data == {"sort": "-n"}


def test_the_name_of_a_lock_may_begin_with_batch(billing: Client, todos: Collection[Record]) -> None:
    with billing.unit_of_work(lock="batch") as uow:
        billing.bucket("payments").collection("todos").records.create()

    assert [one.status for one in uow.outcomes] == ["created"]


def test_what_is_written_is_no_lock(kinto_client: Client, todos: Collection[Record], wire: Wiretap) -> None:
    milk = todos.records.create(id="milk")
    wire.requests.clear()

    with pytest.raises(UnitOfWorkError, match="is the lock of this unit"), kinto_client.unit_of_work(lock=milk):
        milk.patch(done=True)

    assert wire.requests == []


@pytest.mark.parametrize(
    ("lock", "error"),
    [("", InvalidIdError), ("a b", InvalidIdError), (5, InvalidTypeError), (object(), InvalidTypeError)],
)
def test_what_is_no_lock_is_refused(kinto_client: Client, lock: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        kinto_client.unit_of_work(lock=lock)


def test_a_lock_that_may_not_be_made_stops_the_commit(kinto_client: Client, todos: Collection[Record]) -> None:
    stranger = kinto_client.clone(auth=("stranger", "secret"), bucket="payments")

    with pytest.raises(ForbiddenError), stranger.unit_of_work(lock="billing"):
        stranger.bucket("payments").collection("todos").records.create(id="milk")

    assert todos.records.count() == 0


def test_a_batch_with_a_lock_whose_answer_is_lost_is_stored_once(
    kinto_server: EmbeddedServer, todos: Collection[Record]
) -> None:
    client, adapter = lossy(kinto_server, bucket="payments", collection="todos")
    with client.unit_of_work(lock="billing") as uow:
        Record(id="milk", client=client).save()
        adapter.plan.extend(["ok", "ok", "lost after"])

    assert [(one.status, one.reconciled) for one in uow.outcomes] == [("created", True)]
    client.close()
