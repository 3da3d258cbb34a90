"""Jobs whose process is killed (SIGKILL) at twenty points and that run again: the same end, nothing written twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kinto_orm import Bucket, Client, Collection
from kinto_orm.server import EmbeddedServer, ServerThread

from .killed_job import do

PROGRAM = Path(__file__).with_name("killed_job.py")
POINTS = range(1, 21)

BEFORE = [{"id": f"r{number:02}", "n": number} for number in range(30)]
AFTER = [{"id": f"r{number:02}", "n": number + 100 * (number % 3)} for number in range(8, 40)]
COUNTED = [{**row, "n": row["n"] + 1} for row in BEFORE]


@pytest.fixture(scope="module", params=["memory", "postgres"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, str]]:
    """A server that takes few writes in one batch, a client of it in this process, and its URL for others."""
    options: dict[str, Any] = {"batch_max_requests": 4, "flush": True}
    if request.param == "memory":
        server = EmbeddedServer.memory(**options)
    else:
        server = EmbeddedServer.postgres(tmp_path_factory.mktemp("killed"), **options)
    thread = ServerThread(server)
    with server, Client.embedded(server=server, bucket="b", collection="c") as client:
        yield client, thread.url
        thread.stop()


@pytest.fixture
def records(served: tuple[Client, str]) -> Any:
    client, _ = served
    client.flush(everything=True)
    collection = Collection(bucket=Bucket(id="b", client=client).save(), id="c").save()
    collection.records.bulk_create(BEFORE)
    client.bucket("b").history.purge(everything=True)
    return collection.records


def kill(url: str, job: str, point: int, folder: Path) -> None:
    """Start the job as a process, which is killed at that point."""
    arguments = [sys.executable, str(PROGRAM), url, job, str(point), str(folder)]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr


def writes(client: Client) -> Counter[str]:
    """Return how often each record was written, by the server's history."""
    entries = client.bucket("b").history.filter(resource_name="record")
    return Counter(entry.record_id for entry in entries)


def stored(records: Any) -> list[dict[str, Any]]:
    return [{"id": one.id, **one.data} for one in records]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("job", ["sync", "apply"])
def test_a_job_that_is_killed_is_finished_by_the_next_run(
    served: tuple[Client, str], records: Any, tmp_path: Path, job: str, point: int
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in AFTER))
    plan = records.plan(AFTER, delete=True)
    plan.save(tmp_path / "plan.json")

    client, url = served

    kill(url, job, point, tmp_path)
    do(client, job, tmp_path)

    assert stored(records) == AFTER
    assert writes(client) == Counter(change.id for change in plan)


@pytest.mark.parametrize("point", POINTS)
def test_an_update_that_is_killed_counts_each_record_once(
    served: tuple[Client, str], records: Any, tmp_path: Path, point: int
) -> None:
    client, url = served

    kill(url, "update", point, tmp_path)
    do(client, "update", tmp_path)

    assert stored(records) == COUNTED
    assert writes(client) == Counter(row["id"] for row in BEFORE)
