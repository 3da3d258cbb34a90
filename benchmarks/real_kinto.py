"""Collections on a real Kinto: empty ones to write into, a filled one to read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import requests
from job import AUTH, BATCH, BUCKET
from rows import stored_articles


@dataclass
class Kinto:
    """A server and what we made there."""

    url: str
    _numbers: count[int] = field(default_factory=count)
    _filled: dict[int, str] = field(default_factory=dict)

    def empty_collection(self) -> str:
        """The id of a new one."""
        id = f"empty-{next(self._numbers)}"
        self._create(id)
        return id

    def filled_collection(self, size: int) -> str:
        """The id of the one with so many records."""
        if size not in self._filled:
            id = self._filled[size] = f"filled-{size}"
            self._create(id)
            rows = stored_articles(size)
            while chunk := list(islice(rows, BATCH)):
                self._send("POST", "/batch", {"requests": [_put(id, row) for row in chunk]})
        return self._filled[size]

    def _create(self, id: str) -> None:
        self._send("PUT", f"/buckets/{BUCKET}", {})
        self._send("PUT", f"/buckets/{BUCKET}/collections/{id}", {})

    def _send(self, method: str, path: str, body: dict[str, Any]) -> None:
        requests.request(method, self.url + path, json=body, auth=AUTH, timeout=60).raise_for_status()


def _put(collection: str, row: dict[str, Any]) -> dict[str, Any]:
    data = {key: value for key, value in row.items() if key != "last_modified"}
    path = f"/buckets/{BUCKET}/collections/{collection}/records/{row['id']}"
    return {"method": "PUT", "path": path, "body": {"data": data}}
