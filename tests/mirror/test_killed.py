"""A process that is killed (SIGKILL) at a statement of a sync; another sync ends it: nothing is lost, nothing twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kinto_orm import Bucket, Client, Collection
from kinto_orm.mirror import Mirror
from kinto_orm.server import EmbeddedServer, ServerThread

PROGRAM = """
import os, sys
from kinto_orm import Client
from kinto_orm.mirror import Mirror
left = int(sys.argv[3])
def trace(statement):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
mirror = Mirror(sys.argv[1], Client(sys.argv[2], auth=("user", "embedded")))
mirror.collection("c", bucket="b")
with mirror._store.transaction(writes=False) as connection:
    connection.set_trace_callback(trace)
mirror.sync()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no process is killed like this here")
def test_a_killed_sync_is_ended_by_another(tmp_path: Path) -> None:
    server = EmbeddedServer.memory(batch_max_requests=4)
    thread = ServerThread(server)
    with server, Client.embedded(server=server) as direct:
        collection = Collection(bucket=Bucket(id="b", client=direct).save(), id="c").save()
        with Client(thread.url, auth=("user", "embedded")) as client:
            mirror = Mirror(tmp_path / "mirror.sqlite", client)
            records = mirror.collection("c", bucket="b").records
            point, was_killed, version = 2, True, 0
            while was_killed:
                version += 1
                for number in range(6):
                    records.update_or_create(f"mine{number}", {"mine": version})
                    collection.records.update_or_create(f"mine{number}", {"theirs": version})
                    collection.records.create(data={"n": number})
                mirror.close()

                arguments = [sys.executable, "-c", PROGRAM, mirror.path, thread.url, str(point)]
                done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=120)
                was_killed = done.returncode == -signal.SIGKILL
                assert was_killed or done.returncode == 0, done.stderr

                assert mirror.sync().ok and mirror.pending == []
                stored = {one.id: dict(one.data) for one in collection.records}
                assert stored == {one.id: dict(one.data) for one in records}
                assert len(stored) == 6 * (1 + version)
                assert all(stored[f"mine{number}"] == {"mine": version, "theirs": version} for number in range(6))
                point += 9
            mirror.close()
        thread.stop()
    assert version > 3
