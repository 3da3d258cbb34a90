"""Collections on a real Kinto: empty ones to write into, filled ones to read from and to delete from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count, islice
from typing import Any

import requests
from job import AUTH, BATCH, BUCKET, WARM_UP
from rows import stored_articles
from tasks import Before, Task

Row = Mapping[str, Any]
Fill = Callable[[str, Iterable[Row]], None]
"""Puts rows into the collection of that id."""


@dataclass
class Kinto:
    """A server and the collections that we made there."""

    url: str
    fill: Fill
    _numbers: count[int] = field(default_factory=count)
    _filled: dict[int, str] = field(default_factory=dict)

    def collection(self, task: Task) -> str:
        """Return the id of the collection for the next run."""
        if task.before is Before.NOTHING:
            return self._create()
        if task.before is Before.OWN_RECORDS:
            return self._create(task.count + WARM_UP)
        size = task.stored or task.count
        if size not in self._filled:
            self._filled[size] = self._create(size)
        return self._filled[size]

    def _create(self, size: int = 0) -> str:
        id = f"collection-{next(self._numbers)}"
        _send("PUT", f"{self.url}/buckets/{BUCKET}", {})
        _send("PUT", f"{self.url}/buckets/{BUCKET}/collections/{id}", {})
        self.fill(id, map(_without_timestamp, stored_articles(size)))
        return id


def filler_in_batches(url: str) -> Fill:
    """Fill by requests, as any client would."""

    def fill(collection: str, rows: Iterable[Row]) -> None:
        source = iter(rows)
        path = f"/buckets/{BUCKET}/collections/{collection}/records"
        while chunk := list(islice(source, BATCH)):
            entries = [{"method": "PUT", "path": f"{path}/{row['id']}", "body": {"data": row}} for row in chunk]
            _send("POST", f"{url}/batch", {"requests": entries})

    return fill


def filler_by_sql(database: str) -> Fill:
    """Fill the table of Kinto's PostgreSQL backend: by requests, 50,000 records take minutes."""
    engine = import_module("sqlalchemy").create_engine(database)
    statement = import_module("sqlalchemy").text(
        "INSERT INTO objects (id, parent_id, resource_name, data, deleted)"
        " VALUES (:id, :parent, 'record', (:data)::JSONB, FALSE)"
    )

    def fill(collection: str, rows: Iterable[Row]) -> None:
        parent = f"/buckets/{BUCKET}/collections/{collection}"
        inserted = [
            {"id": row["id"], "parent": parent, "data": json.dumps({key: row[key] for key in row if key != "id"})}
            for row in rows
        ]
        if inserted:
            with engine.begin() as connection:
                connection.execute(statement, inserted)

    return fill


def _without_timestamp(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "last_modified"}


def _send(method: str, url: str, body: dict[str, Any]) -> None:
    requests.request(method, url, json=body, auth=AUTH, timeout=60).raise_for_status()
