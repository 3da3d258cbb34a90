"""The load of the soak test: some threads that share one client, write as users do, and keep a journal.

``python workload.py URL SECONDS FOLDER THREADS SEED TIMEOUT``. Each thread has one bucket to itself, so that it knows
its content; all of them also count in one shared record. Each write carries a token that no other write has.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from kinto_orm import (
    Bucket,
    Client,
    Collection,
    CommitError,
    ConflictError,
    ConnectionFailedError,
    KintoError,
    NotFoundError,
    Outcome,
    ProtocolError,
    Record,
    ResponseError,
    ServerError,
    TransportError,
)

MOST_RECORDS = 150
"""How many records a thread keeps: with more it deletes."""
UNIT = 25
BULK = 40
PATIENCE = 90
"""Seconds to find out, at the end, what became of the writes whose answers were lost."""
AUTH = ("soak", "secret")
IN_DOUBT = (TransportError, ProtocolError, ServerError)
ANSWERS = (*IN_DOUBT, ResponseError)
"""What may happen to a write; any other exception is a mistake."""


class Journal:
    """What a thread wrote and what came of it, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")

    def note(self, **entry: Any) -> None:
        """Add a line."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


class Worker:
    """One thread: its records, what it knows of them, and what it does."""

    def __init__(self, client: Client, number: int, folder: Path, seed: int) -> None:
        self.name = f"w{number}"
        self.counts: Counter[str] = Counter()
        self._client = client
        self._random = random.Random(seed * 1000 + number)
        self._journal = Journal(folder / f"{self.name}.jsonl")
        self._records: dict[str, Record] = {}
        self._doubtful: set[str] = set()
        """The ids of records of which a write got lost, or is not known to be."""
        self._number = 0
        self._shared = client.bucket("shared").collection("c").records

    # -- the course of things -------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Create the bucket, before anything fails."""
        bucket = Bucket(id=self.name, client=self._client).save()
        self._collection = Collection(bucket=bucket, id="c").save()

    def run(self, seconds: float) -> None:
        """Do random work, and at the end find out the state of each record."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._try(self._next())
        deadline = time.monotonic() + PATIENCE
        while self._doubtful and time.monotonic() < deadline:
            self._try(self._clear_up_all)
        for id in sorted(self._doubtful):
            self._complain(f"what became of {id} could not be found out")
        self._journal.note(final={id: one.data["op"] for id, one in self._records.items() if id not in self._doubtful})

    def _next(self) -> Callable[[], None]:
        if self._doubtful and self._random.random() < 0.3:
            return self._clear_up
        if len(self._records) < 2 * UNIT:
            return self._bulk_create
        if len(self._records) > MOST_RECORDS:
            return self._unit_of_deletions
        writing = [self._create, self._save, self._patch, self._delete, self._count_up]
        return self._random.choice([*writing, *writing, self._unit, self._bulk_create, self._bulk_update, self._read])

    def _try(self, act: Callable[[], None]) -> None:
        self.counts[act.__name__.lstrip("_")] += 1
        try:
            act()
        except IN_DOUBT:
            time.sleep(0.05)  # reads, or the server is down
        except Exception:  # noqa: BLE001  a mistake, of the client or of this program: it is shown at the end
            self._complain(traceback.format_exc(limit=-4, chain=False))

    def _complain(self, text: str) -> None:
        self._journal.note(violation=text)

    # -- single writes --------------------------------------------------------------------------------------------

    def _create(self) -> None:
        record = Record(collection=self._collection, data=self._data())
        self._write(record, record.save)

    def _save(self) -> None:
        record = self._some(1)[0]
        record.data.update(self._data())
        self._write(record, record.save)

    def _patch(self) -> None:
        record, token = self._some(1)[0], self._token()
        self._write(record, lambda: record.patch(op=token), token)

    def _delete(self) -> None:
        record = self._some(1)[0]
        self._write(record, record.delete, "deleted")

    def _write(self, record: Record, act: Callable[[], object], token: str | None = None) -> None:
        token = token or str(record.data["op"])
        try:
            act()
        except ANSWERS as error:
            self._take(record, token, error)
        else:
            self._take(record, token, None)

    def _take(self, record: Record, token: str, error: KintoError | None) -> None:
        """Note the outcome of one write."""
        uri = str(record.__kinto_path__(draw=True))
        id = uri.rpartition("/")[2]
        if error is None:
            self._doubtful.discard(id)
            self._records[id] = record
            if token == "deleted":
                self._records.pop(id)
            self._journal.note(uri=uri, token=token, outcome="stored")
            return
        if not isinstance(error, ANSWERS):
            raise error
        is_refusal = isinstance(error, ConflictError | NotFoundError)
        if is_refusal and id not in self._doubtful:
            self._complain(f"{error!r}, although nobody else writes {uri}")
        is_unsent = isinstance(error, ConnectionFailedError)
        self._journal.note(uri=uri, token=token, outcome="refused" if is_refusal or is_unsent else "unknown")
        self._records[id] = record
        self._doubtful.add(id)

    # -- many writes ----------------------------------------------------------------------------------------------

    def _unit(self) -> None:
        tokens: dict[int, str] = {}
        unit = self._client.unit_of_work()
        records = self._some(UNIT)
        for number, record in enumerate(records):
            if number % 5 == 0:
                unit.delete(record)
                tokens[id(record)] = "deleted"
            elif number % 5 == 1:
                record = unit.save(Record(collection=self._collection, data=self._data()))
                tokens[id(record)] = str(record.data["op"])
            elif number % 5 == 2:
                tokens[id(record)] = self._token()
                unit.patch(record, op=tokens[id(record)])
            else:
                record.data.update(self._data())
                tokens[id(record)] = str(unit.save(record).data["op"])
        self._commit(unit, tokens)

    def _unit_of_deletions(self) -> None:
        unit = self._client.unit_of_work()
        records = self._some(UNIT)
        for record in records:
            unit.delete(record)
        self._commit(unit, dict.fromkeys(map(id, records), "deleted"))

    def _commit(self, unit: Any, tokens: dict[int, str]) -> None:
        """Commit, and again the rest: up to three times."""
        for _ in range(3):
            try:
                outcomes = unit.commit()
            except CommitError as error:
                self._take_outcomes(error.outcomes, tokens)
                time.sleep(0.2)  # the server may be down
            else:
                self._take_outcomes(outcomes, tokens)
                return

    def _take_outcomes(self, outcomes: Iterable[Outcome[Any]], tokens: dict[int, str]) -> None:
        for one in outcomes:
            self.counts["reconciled"] += one.reconciled
            if one.status == "unchanged":  # created and deleted again, as far as this thread knows
                self._doubtful.add(one.object.id)
            else:
                self._take(one.object, tokens[id(one.object)], one.error)

    def _bulk_create(self) -> None:
        self._bulk(self._collection.records.bulk_create, self._new())

    def _bulk_update(self) -> None:
        records = [record for record in self._some(BULK) if not record.is_new]  # as those are whose creation got lost
        for record in records:
            record.data.update(self._data())
        self._bulk(self._collection.records.bulk_update, iter(records))

    def _new(self) -> Iterator[Record]:
        for _ in range(BULK):
            yield Record(collection=self._collection, data=self._data())

    def _bulk(self, verb: Callable[..., object], records: Iterator[Record]) -> None:
        def note(outcome: Outcome[Record]) -> None:
            self.counts["reconciled"] += outcome.reconciled
            self._take(outcome.object, str(outcome.object.data["op"]), outcome.error)

        try:
            verb(records, on_outcome=note)
        except CommitError:
            # What it did not try because the server could not be reached has its changes still to be sent.
            self._doubtful.update(id for id, one in self._records.items() if one.is_dirty)

    # -- the rest -------------------------------------------------------------------------------------------------

    def _count_up(self) -> None:
        """Add one to the shared record; the token tells writes apart that count to the same number."""
        token = self._token()
        try:
            for attempt in self._shared.edit("counter", attempts=50):
                with attempt as counter:
                    counter.data["n"] += 1
                    counter.data["op"] = token
        except ConflictError:
            self._journal.note(shared=token, outcome="refused")
        except IN_DOUBT:
            self._journal.note(shared=token, outcome="unknown")
        else:
            self._journal.note(shared=token, outcome="stored")

    def _read(self) -> None:
        """Read all records: they must be as this thread knows them."""
        found = {one.id: one.data["op"] for one in self._collection.records if one.id not in self._doubtful}
        known = {id: one.data["op"] for id, one in self._records.items() if id not in self._doubtful}
        if found != known:
            differing = {id for id in found.keys() | known.keys() if found.get(id) != known.get(id)}
            self._complain(f"{len(differing)} records are not as this thread knows them: {sorted(differing)[:3]}")

    def _clear_up(self) -> None:
        """Find out the state of a record."""
        id = self._random.choice(sorted(self._doubtful))
        try:
            self._records[id].refresh(discard=True)
        except NotFoundError:
            del self._records[id]
        self._doubtful.discard(id)

    def _clear_up_all(self) -> None:
        """Find out the states of all records at once, without haste: the server may be far behind."""
        patient = self._client.clone(timeout=(10, 30), deadline=60)
        found = {one.id: one for one in patient.bucket(self.name).collection("c").records}
        for id in self._doubtful:
            if id in found:
                self._records[id] = found[id]
            else:
                self._records.pop(id, None)
        self._doubtful.clear()

    def _some(self, count: int) -> list[Record]:
        """Return records to write: mostly ones that are not in doubt."""
        sure = sorted(self._records.keys() - self._doubtful) if self._random.random() < 0.9 else sorted(self._records)
        ids = sure if len(sure) >= count else sorted(self._records)
        return [self._records[id] for id in self._random.sample(ids, min(count, len(ids)))]

    def _data(self) -> dict[str, Any]:
        return {"op": self._token(), "n": self._random.randrange(10**6), "tags": ["x"] * self._random.randrange(5)}

    def _token(self) -> str:
        self._number += 1
        return f"{self.name}-{self._number}"


def collect_cycles() -> None:
    """Collect cycles all the time: a lost answer leaves its error, traceback and frames in one, which is no leak."""
    while True:
        time.sleep(5)
        gc.collect()


def main() -> None:
    url, seconds, folder, threads, seed, timeout = sys.argv[1:]
    retries: Counter[str] = Counter()
    client = Client(
        url,
        auth=AUTH,
        timeout=(float(timeout), float(timeout)),
        deadline=10 * float(timeout),
        retry=5,
        on_retry=lambda event: retries.update(["retries"]),
    )
    workers = [Worker(client, number, Path(folder), int(seed)) for number in range(int(threads))]
    shared = Collection(bucket=Bucket(id="shared", client=client).save(), id="c").save()
    Record(collection=shared, id="counter", data={"n": 0, "op": ""}).save()
    for worker in workers:
        worker.set_up()
    print("ready", flush=True)
    sys.stdin.readline()
    threading.Thread(target=collect_cycles, daemon=True).start()
    running = [threading.Thread(target=worker.run, args=(float(seconds),)) for worker in workers]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    client.close()
    counts = sum((worker.counts for worker in workers), retries)
    (Path(folder) / "counts.json").write_text(json.dumps(counts))


if __name__ == "__main__":
    main()
