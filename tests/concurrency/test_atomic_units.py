"""Units that are all or nothing: every reader sees the whole of each or none of it."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial

from racing import Connect, clients, make_collection, race, records_of

from kinto_orm import Client, CommitError, Record

WRITERS = 4
TIMES = 5
SHARED = ("first", "second", "third")
"""Records that each unit changes."""
PARTS = ("a", "b")
"""Records that each unit makes, in place of those of the unit before."""


class Writer:
    """Commits one unit after the other, each by its name in all of its records."""

    def __init__(self, client: Client, number: int) -> None:
        self.client = client
        self.number = number
        self.parts: list[Record] = []
        self.stored: list[str] = []
        self.mixed = False
        """Whether something of a refused unit was reported as stored."""

    def run(self) -> None:
        for time in range(TIMES):
            self.commit(f"unit-{self.number}-{time}")

    def commit(self, name: str) -> None:
        records = records_of(self.client)
        parts = [Record(client=self.client, id=f"{name}-{part}", data={"by": name}) for part in PARTS]
        try:
            with self.client.unit_of_work(atomic=True) as unit:
                for id in SHARED:
                    unit.get(records, id).data["by"] = name
                for one in parts:
                    one.save()
                for one in self.parts:
                    one.delete()
        except CommitError:
            self.mixed |= any(one.is_stored for one in unit.outcomes)
        else:
            self.stored.append(name)
            self.parts = parts


def look(client: Client, done: threading.Event) -> list[str]:
    """Look again and again until all is done, and return the faults that were seen."""
    wrong: list[str] = []
    while not done.wait(0.01):
        wrong += partial_units(client)
    return wrong


def partial_units(client: Client) -> list[str]:
    """Return the units of which only a part is there, by one list request: one SQL statement, so one snapshot."""
    (page,) = records_of(client).pages()
    by_whom = Counter((record.id in SHARED, record.data["by"]) for record in page.objects)
    return [
        f"{count} records by {name}"
        for (is_shared, name), count in by_whom.items()
        if count != (len(SHARED) if is_shared else len(PARTS))
    ]


def test_no_part_of_a_unit_is_ever_seen(ours: Connect) -> None:
    with clients(ours, WRITERS + 1) as (reader, *connected):
        records = make_collection(reader)
        for id in SHARED:
            records.create(id=id, data={"by": "nobody"})
        writers = [Writer(client, number) for number, client in enumerate(connected)]
        done = threading.Event()

        def write() -> list[str]:
            try:
                race([one.run for one in writers])
            finally:
                done.set()
            return []

        wrong, _ = race([partial(look, reader, done), write])

        assert not any(one.mixed for one in writers)
        assert wrong == []
        assert partial_units(reader) == []
        kept = {f"{one.stored[-1]}-{part}" for one in writers if one.stored for part in PARTS}
        assert {record.id for record in records} == {*SHARED, *kept}
        assert records.get(SHARED[0]).data["by"] in {name for one in writers for name in one.stored}
        assert sum(len(one.stored) for one in writers) >= TIMES
