"""A program that does one job on a real server, and kills itself at one point of it.

Run with the server's URL, the job, the number of the point and a folder; each request has two points, before
it is sent and once it is answered.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from kinto_orm import BulkReport, Client, Record
from kinto_orm.protocol.messages import Request, Response, Transport


class Deadly:
    """A transport whose process ends at one point."""

    def __init__(self, transport: Transport, point: int) -> None:
        self._transport = transport
        self._left = point

    def send(self, request: Request) -> Response:
        self._count_down()
        response = self._transport.send(request)
        self._count_down()
        return response

    def _count_down(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def do(client: Client, job: str, folder: Path) -> BulkReport:
    """Do the job with that client."""
    records = client.bucket("b").collection("c").records
    if job == "apply":
        return client.load_plan(folder / "plan.json").apply()
    if job == "sync":
        return records.sync(folder / "rows.jsonl", delete=True)
    return records.update(count_one, state=folder / "job.sqlite")


def count_one(record: Record) -> None:
    record.data["n"] += 1


def main(url: str, job: str, point: str, folder: str) -> None:
    with Client(url, auth=("user", "embedded"), retry=0) as client:
        client._connection.transport = Deadly(client._connection.transport, int(point))
        do(client, job, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
