"""A change feed beside writers that commit late: on PostgreSQL, whose timestamps are older than their transactions."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from racing import SECONDS, Connect, clients, connect_to, make_collection, race, records_of
from servers import Servers

from kinto_orm import Client

HORIZON = 2.0
"""In seconds; no batch of these tests takes as long."""

WRITERS = 3
BATCHES = 10
SIZE = 10


def write(client: Client, number: int) -> None:
    """Create records in batches, then change some of them and delete others."""
    records = records_of(client)
    for batch in range(BATCHES):
        ids = [f"{number}-{batch}-{index}" for index in range(SIZE)]
        records.bulk_create({"id": id} for id in ids)
        kept, gone = records.get_many(ids[:4]), records.get_many(ids[4:6])
        for one in kept:
            one.data["n"] = batch
        records.bulk_update(kept)
        records.bulk_delete(gone)


@pytest.mark.parametrize("settings", ["stock", "our"])
def test_a_feed_misses_nothing_and_gives_nothing_twice(
    request: pytest.FixtureRequest, settings: str, bucket: str
) -> None:
    servers: Servers = request.getfixturevalue(f"{settings}_servers")
    connect: Connect = connect_to(servers, bucket)
    given: list[tuple[str, str, int]] = []
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
                race([lambda client=one, number=number: write(client, number) for number, one in enumerate(writers)])
            finally:
                is_written.set()

        return writing

    with clients(connect, WRITERS + 1) as (reader, *writers):
        make_collection(reader)
        race([follow(reader), work(writers)])
        stored = {(one.id, one.last_modified) for one in records_of(reader)}

    assert [change for change, times in Counter(given).items() if times > 1] == []
    assert stored - {(id, timestamp) for _, id, timestamp in given} == set()
    assert len(stored) == WRITERS * BATCHES * (SIZE - 2)
    deleted = {id for kind, id, _ in given if kind == "deleted"}
    assert len(deleted) == WRITERS * BATCHES * 2
