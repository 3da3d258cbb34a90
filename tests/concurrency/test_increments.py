"""What four writers count at once, and were told to be stored, is counted: where If-Match is exact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from racing import Connect, clients, make_collection, race, records_of

from kinto_orm import Client, CommitError, ConflictError, ServerError

WRITERS = 4
TIMES = 5

REFUSED = (ConflictError, ServerError, CommitError)
"""Others were faster, or the server aborted the transaction again and again."""

Increment = Callable[[Client, str], None]
"""Adds one to a field of the counter; raises what is in ``REFUSED`` where that was not stored."""


def read_and_save(client: Client, field: str) -> None:
    counter = records_of(client).get("counter")
    counter.data[field] += 1
    counter.save()


def edit(client: Client, field: str) -> None:
    for attempt in records_of(client).edit("counter"):
        with attempt as counter:
            counter.data[field] += 1


def decide_by_function(client: Client, field: str) -> None:
    counter = records_of(client).get("counter")
    counter.data[field] += 1
    counter.save(on_conflict=lambda conflict: one_more(conflict, field))


def commit_atomically(client: Client, field: str) -> None:
    with client.unit_of_work(atomic=True, on_conflict=lambda conflict: one_more(conflict, field)) as unit:
        unit.get(records_of(client), "counter").data[field] += 1


def one_more(conflict: ConflictError, field: str) -> Any:
    assert conflict.theirs is not None
    return {**conflict.theirs, field: conflict.theirs[field] + 1}


def merge(client: Client, field: str) -> None:
    counter = records_of(client).get("counter")
    counter.data[field] += 1
    counter.save(on_conflict="merge")


def count(increment: Increment, client: Client, field: str) -> int:
    """How many of the increments were acknowledged."""
    acknowledged = 0
    for _ in range(TIMES):
        try:
            increment(client, field)
            acknowledged += 1
        except REFUSED:
            pass
    return acknowledged


@pytest.mark.parametrize("increment", [read_and_save, edit, decide_by_function, commit_atomically])
def test_each_increment_that_was_acknowledged_is_counted(increment: Increment, ours: Connect) -> None:
    with clients(ours, WRITERS) as writers:
        records = make_collection(writers[0])
        records.create(id="counter", data={"n": 0})

        acknowledged = race([partial(count, increment, one, "n") for one in writers])

        assert sum(acknowledged) == records.get("counter").data["n"]
        assert sum(acknowledged) >= TIMES


def test_what_each_counts_in_a_field_of_its_own_is_merged(ours: Connect) -> None:
    fields = [f"n{number}" for number in range(WRITERS)]
    with clients(ours, WRITERS) as writers:
        records = make_collection(writers[0])
        records.create(id="counter", data=dict.fromkeys(fields, 0))

        acknowledged = race([partial(count, merge, one, field) for one, field in zip(writers, fields, strict=True)])

        assert dict(zip(fields, acknowledged, strict=True)) == records.get("counter").data
        assert sum(acknowledged) >= TIMES
