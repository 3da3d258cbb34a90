"""Several writers fill one collection at once, which Kinto answers with 409s: what is said to be stored, is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import pytest
import requests
from racing import ME, clients, connect_to, make_collection, race, records_of
from servers import Servers

from kinto_orm import Client, CommitError, Outcome, Record

WRITERS = 4
EACH = 30
TIMES = 20
"""How often what was not stored is given again at most."""

Create = Callable[[Client, Iterable[Record]], list[Outcome[Record]]]


def stream(client: Client, objects: Iterable[Record]) -> list[Outcome[Record]]:
    return list(records_of(client).stream_create(objects))


def bulk(client: Client, objects: Iterable[Record]) -> list[Outcome[Record]]:
    outcomes: list[Outcome[Record]] = []
    with suppress(CommitError):  # has those of the outcomes that failed
        records_of(client).bulk_create(objects, on_outcome=outcomes.append)
    return outcomes


@pytest.fixture(params=["stock_servers", "our_servers"])
def servers(request: pytest.FixtureRequest) -> Servers:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Servers)
    return found


def run_ahead_of_the_clock(client: Client) -> None:
    """Put a record with a timestamp of the future into the collection.

    Kinto gives the next timestamp to each later write, so two writers who meet get the same one, which is a 409.
    """
    future = int(time.time() * 1000) + 3_600_000
    records = records_of(client)
    answer = requests.put(
        f"{client.server_url}/buckets/{client.default_bucket}/collections/c/records/ahead",
        json={"data": {"last_modified": future}},
        auth=ME,
        timeout=30,
    )
    assert answer.status_code == 201
    assert records.timestamp() == future


def numbers(records: Iterable[Record]) -> list[int]:
    return sorted(record.data["n"] for record in records if record.id != "ahead")


@pytest.mark.parametrize("create", [stream, bulk])
def test_what_is_reported_as_stored_is_and_the_rest_is_when_given_again(
    create: Create, servers: Servers, bucket: str
) -> None:
    with clients(connect_to(servers, bucket), WRITERS) as writers:
        records = make_collection(writers[0])
        run_ahead_of_the_clock(writers[0])
        left = [
            [Record(client=one, data={"n": first + n}) for n in range(EACH)]
            for one, first in zip(writers, range(0, WRITERS * EACH, EACH), strict=True)
        ]
        stored: list[int] = []
        for _ in range(TIMES):
            found = race([partial(create, one, objects) for one, objects in zip(writers, left, strict=True)])

            assert [[one.object for one in outcomes] for outcomes in found] == left
            stored += [one.object.data["n"] for outcomes in found for one in outcomes if one.is_stored]
            assert sorted(stored) == numbers(records)
            left = [[one.object for one in outcomes if not one.is_stored] for outcomes in found]
            if not any(left):
                break

    assert sorted(stored) == list(range(WRITERS * EACH))
