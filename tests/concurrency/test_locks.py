"""What a lock is good for: a stock Kinto, at READ COMMITTED, where If-Match alone lets several writers win."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from racing import Connect, clients, make_collection, race, records_of
from servers import Servers, hold_row
from wiretap import tap

from kinto_orm import AtomicityUnavailableError, Client, CommitError, ConflictError, Group, Record
from kinto_orm.repository.state import Stateful

WRITERS = 4
TIMES = 5

Lock = str | Stateful | None


def one_more(conflict: ConflictError) -> Any:
    assert conflict.theirs is not None
    return {**conflict.theirs, "n": conflict.theirs["n"] + 1}


def increment(client: Client, id: str, lock: Lock) -> None:
    with client.unit_of_work(lock=lock, on_conflict=one_more) as unit:
        unit.get(records_of(client), id).data["n"] += 1


def count(client: Client, id: str, lock: Lock) -> int:
    """How many of the increments were acknowledged; the others met a conflict, and were not stored without the lock."""
    acknowledged = 0
    for _ in range(TIMES):
        try:
            increment(client, id, lock)
            acknowledged += 1
        except CommitError as error:
            if [one.status for one in error.outcomes] != ["conflict"]:
                raise
    return acknowledged


def test_with_a_lock_each_increment_that_was_acknowledged_is_counted(stock: Connect) -> None:
    with clients(stock, WRITERS) as writers:
        records = make_collection(writers[0])
        records.create(id="counter", data={"n": 0})

        acknowledged = race([partial(count, one, "counter", "first-used-by-all") for one in writers])

        assert sum(acknowledged) == records.get("counter").data["n"]
        assert sum(acknowledged) >= TIMES


def test_two_locks_in_one_bucket_do_not_meet(stock: Connect) -> None:
    ids = ("red", "blue")
    with clients(stock, 2 * len(ids)) as writers:
        records = make_collection(writers[0])
        for id in ids:
            records.create(id=id, data={"n": 0})

        acknowledged = race([partial(count, one, id, id) for one, id in zip(writers, ids * 2, strict=True)])

        counted = [records.get(id).data["n"] for id in ids]
        assert counted == [acknowledged[0] + acknowledged[2], acknowledged[1] + acknowledged[3]]


def test_an_object_is_a_lock_as_well(stock: Connect) -> None:
    with clients(stock, WRITERS) as writers:
        records = make_collection(writers[0])
        records.create(id="counter", data={"n": 0})
        staff = Group(bucket=writers[0].default_bucket, client=writers[0], id="staff", members=["account:bob"]).save()
        locks = [one.bucket(one.default_bucket).group("staff") for one in writers]

        acknowledged = race([partial(count, one, "counter", lock) for one, lock in zip(writers, locks, strict=True)])

        assert sum(acknowledged) == records.get("counter").data["n"]
        assert staff.refresh().members == ["account:bob"]


def meet(servers: Servers, held: str, writers: list[Client], increments: list[Callable[[], None]]) -> list[str]:
    """Return the results of two increments from the same version: both wait while the object is held."""
    with ThreadPoolExecutor(len(writers)) as threads:
        with hold_row(servers.database, held, waiting=len(writers)):
            running = [threads.submit(one) for one in increments]
        return sorted("stored" if one.exception(30) is None else type(one.exception()).__name__ for one in running)


@pytest.mark.parametrize(
    ("lock", "became"), [(None, ["stored", "stored"]), ("common", ["CommitError", "stored"])], ids=["without", "with"]
)
def test_without_a_lock_both_writers_are_told_that_they_won(
    lock: Lock, became: list[str], stock: Connect, stock_servers: Servers
) -> None:
    id = f"met-{'with' if lock else 'without'}"
    with clients(stock, 2) as writers:
        make_collection(writers[0]).create(id=id, data={"n": 0})
        seen = [records_of(one).get(id) for one in writers]

        def add_one(client: Client, record: Record) -> None:
            with client.unit_of_work(lock=lock):
                record.patch(n=record.data["n"] + 1)

        found = meet(stock_servers, id, writers, [partial(add_one, *each) for each in zip(writers, seen, strict=True)])

        assert found == became
        assert records_of(writers[0]).get(id).data["n"] == 1


def test_without_a_lock_increments_are_lost_sooner_or_later(stock: Connect) -> None:
    with clients(stock, WRITERS) as writers:
        records = make_collection(writers[0])
        records.create(id="counter", data={"n": 0})
        acknowledged = 0
        for _ in range(5):
            acknowledged += sum(race([partial(count, one, "counter", None) for one in writers]))
            if acknowledged > records.get("counter").data["n"]:
                return

    pytest.skip(f"these writers met {acknowledged} times without any loss: this machine is in no hurry")


def test_a_stock_server_takes_no_atomic_unit(stock: Connect) -> None:
    with clients(stock, 1) as (client,):
        records = make_collection(client)
        wire = tap(client)

        with pytest.raises(AtomicityUnavailableError, match="atomic_batch"), client.unit_of_work(atomic=True):
            records.create(id="one")

        assert [request.method for request in wire.requests if request.is_write] == []
        assert records.count() == 0
