"""Change feeds, mirrors, and pages of one state, beside writers that commit late.

On PostgreSQL, timestamps are older than the transactions that write them.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from racing import SECONDS, Connect, clients, connect_to, make_collection, race, records_of
from servers import Servers

from kinto_orm import Client, CommitError, ConflictError, Record, UnitOfWork
from kinto_orm.mirror import Mirror, MirrorResult
from kinto_orm.repository.state import STORED

HORIZON = 2.0
"""In seconds. About a batch that takes as long nothing is promised: see :func:`skip_if_slow`."""

WRITERS = 3
BATCHES = 10
SIZE = 10

SECONDS_OF_WATCHING = float(os.environ.get("KINTO_ORM_SECONDS_OF_WATCHING", "4"))
"""Longer by hand: KINTO_ORM_SECONDS_OF_WATCHING=600."""


def took(write_all: Callable[[], object]) -> float:
    """Return the seconds that a write took."""
    start = time.monotonic()
    write_all()
    return time.monotonic() - start


def skip_if_slow(seconds: float, horizon: float) -> None:
    """Skip a test whose longest batch took as long as the horizon: the disk of a busy machine can stand still."""
    if seconds >= horizon:
        pytest.skip(f"a batch took {seconds:.1f} s: nothing is promised with a horizon of {horizon} s")


def write(client: Client, number: int) -> float:
    """Create records in batches, then change some of them and delete others; return the longest batch, in seconds."""
    records, longest = records_of(client), 0.0
    for batch in range(BATCHES):
        ids = [f"{number}-{batch}-{index}" for index in range(SIZE)]
        created = took(partial(records.bulk_create, [{"id": id} for id in ids]))
        kept, gone = records.get_many(ids[:4]), records.get_many(ids[4:6])
        for one in kept:
            one.data["n"] = batch
        updated = took(partial(records.bulk_update, kept))
        deleted = took(partial(records.bulk_delete, gone))
        longest = max(longest, created, updated, deleted)
    return longest


@pytest.mark.parametrize("settings", ["stock", "our"])
def test_a_feed_misses_nothing_and_gives_nothing_twice(
    request: pytest.FixtureRequest, settings: str, bucket: str
) -> None:
    servers: Servers = request.getfixturevalue(f"{settings}_servers")
    connect: Connect = connect_to(servers, bucket)
    given: list[tuple[str, str, int]] = []
    times: list[float] = []
    is_written = threading.Event()

    def follow(client: Client) -> Callable[[], None]:
        def polling() -> None:
            token, last = None, 0.0
            deadline = time.monotonic() + SECONDS
            while not last and time.monotonic() < deadline:
                last = is_written.is_set()
                if last:
                    time.sleep(HORIZON)
                feed = records_of(client).changes(since=token, horizon=HORIZON)
                given.extend((one.kind, one.record.id, one.record.last_modified or 0) for one in feed)
                token = feed.token
                time.sleep(0.03)

        return polling

    def work(writers: list[Client]) -> Callable[[], None]:
        def writing() -> None:
            try:
                times.extend(race([partial(write, one, number) for number, one in enumerate(writers)]))
            finally:
                is_written.set()

        return writing

    with clients(connect, WRITERS + 1) as (reader, *writers):
        make_collection(reader)
        race([follow(reader), work(writers)])
        stored = {(one.id, one.last_modified) for one in records_of(reader)}

    assert [change for change, count in Counter(given).items() if count > 1] == []
    skip_if_slow(max(times), HORIZON)
    assert stored - {(id, timestamp) for _, id, timestamp in given} == set()
    assert len(stored) == WRITERS * BATCHES * (SIZE - 2)
    deleted = {id for kind, id, _ in given if kind == "deleted"}
    assert len(deleted) == WRITERS * BATCHES * 2


SHARED = [f"shared-{index}" for index in range(SIZE)]


def write_on(client: Client, number: int) -> int:
    """Write batches until the time is over: of shared records, and of new ones, some of which are deleted later.

    Return the number of batches.
    """
    collection, n, until = client.bucket().collection("c"), 0, time.monotonic() + SECONDS_OF_WATCHING
    while time.monotonic() < until:
        n += 1
        with client.unit_of_work() as unit:
            for id in SHARED[n % 2 :: 2]:
                Record(id=id, data={"by": number, "n": n}, collection=collection).replace(safe=False)
            for index in range(3):
                collection.records.create(id=f"{number}-{n}-{index}", data={"n": n})
            if n > 3:
                collection.records.ref(f"{number}-{n - 3}-0").delete()
            commit_at_last(unit)
    return n


def commit_at_last(unit: UnitOfWork) -> None:
    """Commit, and again what other writers undid: on a busy machine they may be faster four times."""
    while True:
        try:
            unit.commit()
        except CommitError as error:
            if not {one.status for one in error.outcomes} <= {*STORED, "rolled_back"}:
                raise
        else:
            return


Given: TypeAlias = Mapping[str, list[tuple[str, int, dict[str, Any]]]]
"""The changes that a watch gave, by id: kind, timestamp and data of each."""


def watch(client: Client) -> Given:
    """Watch the collection until it has a record ``end``."""
    given: defaultdict[str, list[tuple[str, int, dict[str, Any]]]] = defaultdict(list)
    for change in records_of(client).watch(every=0.05, max_every=1):
        record = change.record
        if record.id == "end":
            return given
        data = {} if change.kind == "deleted" else dict(record.data)
        given[record.id].append((change.kind, record.last_modified or 0, data))
    raise AssertionError("a watch does not end")


@pytest.mark.parametrize("settings", ["stock", "our"])
def test_a_watch_gives_each_change_in_order_per_record(
    request: pytest.FixtureRequest, settings: str, bucket: str
) -> None:
    connect: Connect = connect_to(request.getfixturevalue(f"{settings}_servers"), bucket)
    seconds = SECONDS_OF_WATCHING + SECONDS
    with clients(connect, WRITERS + 1) as (reader, *writers), ThreadPoolExecutor(1) as thread:
        make_collection(reader).bulk_create({"id": id} for id in SHARED)
        watching = thread.submit(watch, reader)
        try:
            batches = race([partial(write_on, one, number) for number, one in enumerate(writers)], seconds)
        finally:
            records_of(writers[0]).create(id="end")
        given = watching.result(SECONDS)
        stored = {one.id: one.last_modified for one in records_of(reader) if one.id != "end"}

    assert stored == {id: changes[-1][1] for id, changes in given.items() if changes[-1][0] == "changed"}
    for id, changes in given.items():
        timestamps = [timestamp for _, timestamp, _ in changes]
        assert len(timestamps) == len(set(timestamps)), id
        # At READ COMMITTED, a writer that waits for another one stores the timestamp that it drew before.
        assert timestamps == sorted(timestamps) or settings == "stock", id
        for number in range(WRITERS):
            counted = [data["n"] for _, _, data in changes if data.get("by") == number]
            assert counted == sorted(counted), id
    for number, count in enumerate(batches):
        created = {f"{number}-{n}-{index}" for n in range(1, count + 1) for index in range(3)}
        deleted = {f"{number}-{n}-0" for n in range(1, count - 2)}
        assert created - deleted == {id for id in stored if id.startswith(f"{number}-")}
        assert deleted <= {id for id, changes in given.items() if changes[-1][0] == "deleted"}


@pytest.mark.parametrize("settings", ["stock", "our"])
def test_a_mirror_misses_nothing_and_loses_nothing(
    request: pytest.FixtureRequest, settings: str, bucket: str, tmp_path: Path
) -> None:
    connect: Connect = connect_to(request.getfixturevalue(f"{settings}_servers"), bucket)
    is_written, results = threading.Event(), list[MirrorResult]()

    def poll(mirror: Mirror) -> int:
        """Edit records of the mirror and sync it, until the others are done; return the number of edits."""
        mine, n = mirror.collection("c").records.create(id="mine", data={"n": 0}), 0
        while not is_written.is_set():
            n += 1
            mine.patch({"n": n})
            results.append(mirror.sync(on_conflict="theirs"))
        return n

    with clients(connect, WRITERS + 1) as (reader, *writers), ThreadPoolExecutor(1) as thread:
        make_collection(reader).bulk_create({"id": id} for id in SHARED)
        mirror = Mirror(tmp_path / "mirror.sqlite", reader)
        records = mirror.collection("c").records
        polling = thread.submit(poll, mirror)
        try:
            race([partial(write_on, one, number) for number, one in enumerate(writers)], SECONDS_OF_WATCHING + SECONDS)
        finally:
            is_written.set()
        edits = polling.result(SECONDS)
        last = mirror.sync()
        stored = {one.id: dict(one.data) for one in records_of(reader)}
        kept = {one.id: dict(one.data) for one in records}
        assert last.ok and mirror.pending == [] and mirror.verify().ok
        mirror.close()

    assert len(results) > 1 and [one.errors for one in results if one.errors] == []
    assert stored == kept and stored["mine"] == {"n": edits}


def store(client: Client, mine: list[Record], n: int) -> None:
    """Store the number in all of these records, in one batch."""
    with client.unit_of_work():
        for one in mine:
            one.data["n"] = n
            one.save()


@pytest.mark.parametrize("settings", ["stock", "our"])
def test_pages_of_one_state_hold_no_half_transaction(
    request: pytest.FixtureRequest, settings: str, bucket: str
) -> None:
    connect: Connect = connect_to(request.getfixturevalue(f"{settings}_servers"), bucket)
    states: list[dict[str, int]] = []
    times: list[float] = []
    is_over = threading.Event()

    def count_up(client: Client, number: int) -> Callable[[], None]:
        def writing() -> None:
            mine, n = records_of(client).get_many([f"{number}-{index}" for index in range(SIZE)]), 0
            while not is_over.is_set():
                for _ in range(5):
                    n += 1
                    times.append(took(partial(store, client, mine, n)))
                is_over.wait(2 * HORIZON)

        return writing

    def read(client: Client) -> Callable[[], None]:
        def reading() -> None:
            deadline = time.monotonic() + SECONDS
            try:
                while len(states) < 3 and time.monotonic() < deadline:
                    with suppress(ConflictError):  # others went on writing
                        found = records_of(client).page_size(3).consistent(horizon=HORIZON / 2)
                        states.append({one.id: one.data["n"] for one in found})
            finally:
                is_over.set()

        return reading

    with clients(connect, WRITERS) as (reader, *writers):
        records = make_collection(reader)
        records.bulk_create(
            {"id": f"{number}-{index}", "n": 0} for number in range(WRITERS - 1) for index in range(SIZE)
        )
        race([read(reader), *(count_up(one, number) for number, one in enumerate(writers))])

    assert len(states) == 3
    skip_if_slow(max(times), HORIZON / 2)
    for state in states:
        assert {(id[0], n) for id, n in state.items()} == {("0", state["0-0"]), ("1", state["1-0"])}
