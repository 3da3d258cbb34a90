"""The options of a unit of work: atomic, chunked, lock, on_conflict, on servers with limits of all kinds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lossy import lossy
from wiretap import Wiretap, tap

from kinto_orm import (
    AtomicityUnavailableError,
    BatchTooLargeError,
    Bucket,
    Client,
    Collection,
    CommitError,
    ForbiddenError,
    Group,
    InvalidIdError,
    InvalidTypeError,
    LockError,
    Outcome,
    Record,
    UnitOfWorkError,
)
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.server import EmbeddedServer


def paths(wire: Wiretap) -> list[list[str]]:
    """Return the paths of each batch."""
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


def test_a_named_lock_that_somebody_deleted_is_made_again_the_next_time(
    billing: Client, todos: Collection[Record]
) -> None:
    records = billing.bucket("payments").collection("todos").records
    with billing.unit_of_work(lock="billing"):
        records.create(id="milk")
    billing.bucket("payments").collection("lock-billing").delete()

    with pytest.raises(CommitError) as caught, billing.unit_of_work(lock="billing"):
        records.create(id="bread")
    with billing.unit_of_work(lock="billing") as uow:
        records.create(id="butter")

    assert [type(one.error) for one in caught.value.outcomes] == [LockError]
    assert [(one.status, one.error) for one in uow.outcomes] == [("created", None)]


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


# -- chunked, and the limit of a batch ------------------------------------------------------------------------------


class Limited:
    """Passes all on, but for the limit in what the server says of itself; sizes of the batches are written down."""

    MISSING = "missing"

    def __init__(self, client: Client, limits: list[Any]) -> None:
        self.client = client
        self.inner = client._connection.transport
        self.limits = limits
        self.batches: list[int] = []

    def send(self, request: Request) -> Response:
        if request.path == "/batch":
            assert request.body is not None
            size = len(json.loads(request.body)["requests"])
            self.batches.append(size)
        response = self.inner.send(request)
        if request.path != "/":
            return response
        limit = self.limits.pop(0) if len(self.limits) > 1 else self.limits[0]
        info = json.loads(response.body)
        if limit == self.MISSING:
            del info["settings"]["batch_max_requests"]
        else:
            info["settings"]["batch_max_requests"] = limit
        return response._replace(body=json.dumps(info).encode())

    async def asend(self, request: Request) -> Response:
        return self.send(request)

    def release(self) -> None:
        self.inner.release()

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def limited(kinto_server: EmbeddedServer, todos: Collection[Record]) -> Iterator[Callable[..., Limited]]:
    """Makes clients of a server that says this of its limit: each in turn, the last one for ever."""
    clients: list[Client] = []

    def make(*limits: Any) -> Limited:
        client = Client.embedded(server=kinto_server, bucket="payments", collection="todos")
        clients.append(client)
        client._connection.transport = Limited(client, list(limits))
        return client._connection.transport

    yield make
    for client in clients:
        client.close()


def create(client: Client, count: int, **options: Any) -> tuple[Outcome[Any], ...]:
    with client.unit_of_work(**options) as uow:
        for number in range(count):
            Record(client=client, id=f"r{number:03}").save()
    return uow.outcomes


@pytest.mark.parametrize(
    "limit", [Limited.MISSING, "", 0, None, 25, 7], ids=["missing", "empty", "0", "null", "25", "7"]
)
def test_a_chunked_unit_is_stored_whatever_the_limit_is(
    limit: Any, limited: Callable[..., Limited], todos: Collection[Record]
) -> None:
    server = limited(limit)

    outcomes = create(server.client, 30, chunked=True)

    assert [one.object.id for one in outcomes] == [f"r{number:03}" for number in range(30)]
    assert {one.status for one in outcomes} == {"created"}
    assert server.batches == ([7, 7, 7, 7, 2] if limit == 7 else [25, 5])
    assert todos.records.count() == 30


@pytest.mark.parametrize("limit", [Limited.MISSING, 25, 7], ids=["missing", "25", "7"])
def test_more_than_the_limit_is_refused_unless_chunked(
    limit: Any, limited: Callable[..., Limited], todos: Collection[Record]
) -> None:
    server = limited(limit)

    with pytest.raises(BatchTooLargeError, match="26 writes"):
        create(server.client, 26)

    assert (server.batches, todos.records.count()) == ([], 0)


def test_a_limit_that_was_lowered_meanwhile_is_found_out(
    limited: Callable[..., Limited], todos: Collection[Record]
) -> None:
    server = limited(100, 25)  # the server takes 25, but said something else when it was asked first

    outcomes = create(server.client, 40, chunked=True)

    assert {one.status for one in outcomes} == {"created"}
    assert server.batches == [40, 25, 15]
    assert todos.records.count() == 40


def test_a_limit_that_was_lowered_meanwhile_refuses_what_must_be_one_batch(
    limited: Callable[..., Limited], todos: Collection[Record]
) -> None:
    server = limited(100, 25)

    with pytest.raises(BatchTooLargeError):
        create(server.client, 40)

    assert (server.batches, todos.records.count()) == ([40], 0)


def test_in_a_chunked_unit_each_write_has_its_outcome(kinto_client: Client, todos: Collection[Record]) -> None:
    todos.records.create(id="r010")

    def commit() -> None:
        with kinto_client.unit_of_work(chunked=True):
            new(todos, 40)

    with pytest.raises(CommitError, match="1 of 40") as caught:
        commit()

    failed = {one.object.id: one.status for one in caught.value.outcomes if not one.is_stored}
    assert failed == {"r010": "conflict"}
    assert todos.records.count() == 40


def test_what_comes_after_a_chunk_that_failed_is_not_sent(
    kinto_server: EmbeddedServer, todos: Collection[Record]
) -> None:
    client, adapter = lossy(kinto_server, retry=0, bucket="payments", collection="todos")
    adapter.plan.extend(["ok", "lost before"])

    with pytest.raises(CommitError) as caught:
        create(client, 70, chunked=True)

    assert [one.status for one in caught.value.outcomes] == ["created"] * 25 + ["unknown"] * 25 + ["not_sent"] * 20
    client.close()


def test_a_second_commit_sends_the_rest(kinto_server: EmbeddedServer, todos: Collection[Record]) -> None:
    client, adapter = lossy(kinto_server, retry=0, bucket="payments", collection="todos")
    adapter.plan.extend(["ok", "lost after"])

    with client.unit_of_work(chunked=True) as uow:
        for number in range(70):
            Record(client=client, id=f"r{number:03}").save()
        with pytest.raises(CommitError):
            uow.commit()
        adapter.sent.clear()

    assert len(adapter.sent) == 2
    assert {one.status for one in uow.outcomes} == {"created"}
    assert [one.reconciled for one in uow.outcomes] == [False] * 25 + [True] * 25 + [False] * 20
    client.close()


# -- atomic ---------------------------------------------------------------------------------------------------------


def test_an_atomic_unit_is_stored(kinto_client: Client, todos: Collection[Record], wire: Wiretap) -> None:
    with kinto_client.unit_of_work(atomic=True) as uow:
        new(todos, 2)

    assert [one.status for one in uow.outcomes] == ["created", "created"]
    assert wire.requests[0].headers["X-Batch-Atomic"] == "true"


def test_an_atomic_unit_with_a_refusal_stores_nothing(kinto_client: Client, todos: Collection[Record]) -> None:
    changed, deleted = todos.records.create(id="x", data={"n": 1}), todos.records.create(id="y")
    todos.records.create(id="r001")

    def commit() -> None:
        with kinto_client.unit_of_work(atomic=True):
            changed.patch(n=2)
            deleted.delete()
            new(todos, 2)

    with pytest.raises(CommitError) as caught:
        commit()

    assert [one.status for one in caught.value.outcomes] == ["rolled_back", "rolled_back", "rolled_back", "conflict"]
    assert {record.id: dict(record.data) for record in todos.records} == {"r001": {}, "x": {"n": 1}, "y": {}}
    assert (changed.data["n"], deleted.is_deleted) == (1, False)


def test_after_the_conflict_is_settled_a_second_commit_stores_all(
    kinto_client: Client, todos: Collection[Record]
) -> None:
    taken = todos.records.create(id="r001")

    with kinto_client.unit_of_work(atomic=True) as uow:
        new(todos, 2)
        with pytest.raises(CommitError):
            uow.commit()
        nothing = todos.records.get_or_none("r000")
        with Client.embedded(server=kinto_client._connection.server) as other:  # at once
            other.bucket("payments").collection("todos").records.get(taken.id).delete()

    assert nothing is None
    assert [one.status for one in uow.outcomes] == ["created", "created"]


def test_nothing_is_sent_to_a_server_that_has_no_atomic_batches(todos: Collection[Record]) -> None:
    client = Client.embedded(server=todos.client._connection.server, bucket="payments", collection="todos")  # type: ignore[union-attr]
    wire = tap(client)
    info = client.server_info()
    client._connection.server_info = {**info, "capabilities": {}}
    wire.requests.clear()

    with pytest.raises(AtomicityUnavailableError):
        create(client, 1, atomic=True)

    assert (wire.requests, todos.records.count()) == ([], 0)
    client.close()


def test_a_unit_is_atomic_or_chunked(kinto_client: Client) -> None:
    with pytest.raises(UnitOfWorkError, match="atomic or chunked"):
        kinto_client.unit_of_work(atomic=True, chunked=True)


def test_an_atomic_unit_takes_a_lock(billing: Client, todos: Collection[Record], wire: Wiretap) -> None:
    with billing.unit_of_work(atomic=True, lock="billing") as uow:
        billing.bucket("payments").collection("todos").records.create(id="milk")

    assert [one.status for one in uow.outcomes] == ["created"]


def test_each_chunk_takes_the_lock(billing: Client, todos: Collection[Record], wire: Wiretap) -> None:
    records = billing.bucket("payments").collection("todos").records

    with billing.unit_of_work(chunked=True, lock="billing"):
        for number in range(30):
            records.create(id=f"r{number:03}")

    assert [(len(batch), batch[0]) for batch in paths(wire)] == [(25, LOCK), (7, LOCK)]
