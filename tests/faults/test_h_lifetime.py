"""Rows H, with I04 and I05: concurrency, lifetime, dry runs."""

from __future__ import annotations

import gc
import logging
import pickle
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from lossy import LossyAdapter
from scripted_server import Script, Server, Talk, one, said

from kinto_orm import Client, ClientClosedError, Collection, ConnectionLostError, CredentialsMissingError, Record


def test_h01_a_client_can_be_pickled_as_its_options(talk: Talk) -> None:
    client, server = talk(said({}), auth="Bearer t0k3n", headers=None, collection="todos", max_response_bytes=2**20)
    client.server_info()

    dumped = pickle.dumps(client)
    restored = pickle.loads(dumped)

    assert b"t0k3n" not in dumped
    assert (restored.default_collection, restored._options.max_response_bytes) == ("todos", 2**20)
    with pytest.raises(CredentialsMissingError):
        restored.server_info()
    with restored.clone(auth="Bearer t0k3n") as mended:
        mended.server_info()
    assert server.header("Authorization") == "Bearer t0k3n"


class Echo(Server):
    """Answers each record with its own id, a little late."""

    def _next(self, request: bytes) -> Script:
        with self._lock:
            self.requests.append(request)
        time.sleep(0.002)
        return one(request.split()[1].decode().rpartition("/")[2])


def test_h03_fifty_threads_get_their_own_answers_and_leave_nothing_open() -> None:
    with Echo() as server, Client(server.url, bucket="b", collection="c", retry=0) as client:
        records = client.bucket("b").collection("c").records
        with ThreadPoolExecutor(50) as pool:
            found = list(pool.map(lambda n: records.get(f"r{n}").id, range(300)))

        assert found == [f"r{n}" for n in range(300)]
        assert server.connections <= 50
        client.close()
        with pytest.raises(ClientClosedError):
            client.server_info()


def test_h04_a_pause_for_one_thread_is_a_wait_for_the_others(talk: Talk) -> None:
    client, _ = talk(said({}, "200 OK", "Backoff: 1"), said({}), deadline=30)
    client.server_info()
    found: list[Any] = []
    started = time.monotonic()

    thread = threading.Thread(target=lambda: found.append(client.server_info(refresh=True)))
    thread.start()
    thread.join()

    assert found == [{}]
    assert 0.5 < time.monotonic() - started < 25


def held(root: object, *others: object) -> int:
    """Return how many objects the root holds, directly or not, but for those that the others hold, and code."""
    code = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, logging.Logger)
    seen, left = {id(one) for one in others}, [root]
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, code):
            seen.add(id(one))
            left += gc.get_referents(one)
    return len(seen)


def test_o18_a_client_keeps_nothing_of_writes_whose_answers_got_lost(
    client: Client, adapter: LossyAdapter, todos: Collection[Record], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="kinto_orm")
    unretried = client.clone(retry=0)
    collection = unretried.bucket("payments").collection("todos")

    def write(cycles: range) -> int:
        for n in cycles:
            adapter.plan.extend(["lost after", "ok", "lost after", "ok", "ok"])
            record = Record(id=f"x{n}", collection=collection, data={"n": n})
            for verb in (record.save, record.save, lambda record=record: record.patch(n=-1), record.delete):
                with suppress(ConnectionLostError):
                    verb()
            adapter.plan.clear()
        return held(unretried, adapter)

    before, after = write(range(5)), write(range(5, 20))

    assert not todos.records.exists()
    assert after <= before + 5


def test_i04_a_clone_of_a_dry_run_is_one(client: Client, adapter: LossyAdapter) -> None:
    dry = client.clone(dry_mode=True, timeout=7, headers={"X-Own": "1"}).clone(auth=("somebody", "else"))

    Record(id="x", client=dry).save()

    assert adapter.sent == []
    assert (dry._options.timeout, dry._options.headers) == (7, {"X-Own": "1"})


def test_i05_a_dry_run_reads_really_and_says_what_it_would_write(
    client: Client, adapter: LossyAdapter, todos: Collection[Record], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="kinto_orm")
    todos.records.create(id="x", data={"n": 1})
    adapter.sent.clear()
    record = client.clone(dry_mode=True).bucket("payments").collection("todos").records.get("x")

    record.data["n"] = 2
    record.save()
    record.delete()

    assert adapter.sent == []
    assert [line for line in caplog.messages if "dry" in line] == [
        "(dry mode) PATCH /buckets/payments/collections/todos/records/x",
        "(dry mode) DELETE /buckets/payments/collections/todos/records/x",
    ]
