"""Awaiting: the threads that send for event loops, turns, and what cancelling does.

What is the same whatever sends is in ``transport/test_http.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy, drop_after, meanwhile
from scripted_server import Script, Serve, Server, answer

from kinto_orm import Bucket, Client, Collection, Record
from kinto_orm.errors import ClientClosedError, ConfigurationError, ConnectionFailedError
from kinto_orm.protocol.messages import Request
from kinto_orm.server import EmbeddedServer, ServerThread
from kinto_orm.transport.http import HttpTransport
from kinto_orm.transport.options import WireOptions
from kinto_orm.transport.reporting import RequestEvent
from kinto_orm.transport.sessions import POOL_SIZE

ROOT = Path(__file__).parents[2]
GET = Request("GET", "/buckets/b")
PUT = Request("PUT", "/buckets/b", headers={"Content-Type": "application/json"}, body=b"{}")
name: ContextVar[str] = ContextVar("name")

LONGEST_STALL = 2.0
"""Seconds: many times what it is, because the machine may be busy. Sent by the loop itself, 200 saves take 4 s."""


@asynccontextmanager
async def open_transport(server: Server, **options: Any) -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(WireOptions(server.url, **{"retry": 0, **options}))
    try:
        yield transport
    finally:
        transport.close()


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.002)


# Cancelling


def test_a_cancelled_request_ends_at_once_and_nothing_more_is_sent(serve: Serve) -> None:
    go = threading.Event()
    server = serve(lambda connection: go.wait(30))  # then it hangs up, for which a request is sent again

    async def cancelled() -> None:
        async with open_transport(server, retry=3, retry_after=0.001, timeout=(30, 30)) as transport:
            task = asyncio.create_task(transport.asend(GET))
            await until(lambda: server.requests)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=20)
            assert done and task.cancelled()
            go.set()

    before = set(threading.enumerate())  # other tests left clients that wait for their next request
    asyncio.run(cancelled())
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("kinto-orm"):
            thread.join(30)
    assert len(server.requests) == 1


def test_a_request_that_waits_for_its_turn_can_be_cancelled(serve: Serve) -> None:
    go = threading.Event()

    def late(connection: Any) -> None:
        go.wait(30)
        connection.sendall(answer(b"[1]", "Connection: close"))  # closed, so that the client cannot use it again

    server = serve(*[late] * POOL_SIZE, answer(b"[2]"))

    async def crowd() -> list[bytes]:
        async with open_transport(server) as transport:
            first = [asyncio.create_task(transport.asend(GET)) for _ in range(POOL_SIZE)]
            await until(lambda: len(server.requests) == POOL_SIZE)
            waiting = [asyncio.create_task(transport.asend(GET)) for _ in range(2)]
            await asyncio.sleep(0.02)
            assert len(server.requests) == POOL_SIZE
            waiting[0].cancel()
            go.set()
            await asyncio.gather(*first)
            return [(await waiting[1]).body]

    assert asyncio.run(crowd()) == [b"[2]"]
    assert len(server.requests) == POOL_SIZE + 1


def test_a_cancelled_request_keeps_its_turn_until_its_thread_is_free(serve: Serve) -> None:
    go = threading.Event()

    def late(connection: Any) -> None:
        go.wait(30)
        connection.sendall(answer(b"{}", "Connection: close"))  # see above

    server = serve(*[late] * POOL_SIZE, answer(b"[2]"))

    async def crowd() -> bytes:
        async with open_transport(server) as transport:
            tasks = [asyncio.create_task(transport.asend(PUT)) for _ in range(POOL_SIZE)]
            await until(lambda: len(server.requests) == POOL_SIZE)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            next_one = asyncio.create_task(transport.asend(GET))
            await asyncio.sleep(0.02)
            assert not next_one.done()
            go.set()
            return (await asyncio.wait_for(next_one, 60)).body

    assert asyncio.run(crowd()) == b"[2]"


def test_a_request_whose_turn_does_not_come_was_not_sent(serve: Serve) -> None:
    server, go = serve(), threading.Event()

    async def crowd() -> None:
        async with open_transport(server, deadline=0.1) as transport:
            threads = vars(transport)["_threads"]
            others = [asyncio.create_task(threads.run(lambda: go.wait(30), 5)) for _ in range(POOL_SIZE)]
            await asyncio.sleep(0)
            with pytest.raises(ConnectionFailedError, match=f"{POOL_SIZE} other requests were on their way"):
                await transport.asend(PUT)
            go.set()
            await asyncio.gather(*others)

    asyncio.run(crowd())
    assert server.requests == []


def test_a_cancelled_save_ends_at_once_and_is_recognised_by_the_next_one(kinto_server: EmbeddedServer) -> None:
    credentials = ("cancelling", "secret")
    go = threading.Event()

    async def cancelled(proxy: FaultProxy) -> list[str]:
        client = Client(proxy.url, auth=credentials, bucket="b", collection="c", timeout=(30, 30))
        todos = await Collection(bucket=await Bucket(id="b", client=client).asave(), id="c").asave()
        record = Record(collection=todos, id="one", data={"n": 1})
        proxy.plan(meanwhile(lambda: go.wait(30), drop_after))
        task = asyncio.create_task(record.asave())
        await until(lambda: proxy.seen[-1].status == 201 and proxy.seen[-1].path.endswith("/records/one"))
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=20)
        assert done and task.cancelled()
        assert record.is_dirty
        await record.asave()
        assert not record.is_dirty
        go.set()
        await client.aclose()
        proxy.wait_until_idle()
        return [f"{seen.method} {seen.status}" for seen in list(proxy.seen)[2:]]

    with ServerThread(kinto_server) as thread, FaultProxy(thread.url) as proxy:
        said = asyncio.run(cancelled(proxy))

    assert said[:2] == ["PUT 201", "PUT 412"]


# Event loops


class Echo(Server):
    """Answers with the path that was asked for."""

    def _next(self, request: bytes) -> Script:
        with self._lock:
            self.requests.append(request)
        return answer(request.split()[1])


SERVER = """
import sys, time
from scripted_server import Server, one

class Storing(Server):
    def _next(self, request):
        time.sleep(0.02)
        return one(request.split()[1].decode().rpartition("/")[2])

with Storing() as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def url_of_another_process() -> Iterator[str]:
    """A server that does not compete with the event loop for Python's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        yield process.stdout.readline().strip()
        process.stdin.close()


def test_two_hundred_saves_do_not_block_the_loop(url_of_another_process: str) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    async def save(url: str) -> int:
        client = Client(url)
        todos = client.bucket("b").collection("c")
        records = [Record(collection=todos, id=f"r{number}", data={"n": number}) for number in range(200)]
        await Record(collection=todos, id="first", data={}).asave()  # what is imported and built once
        watching = asyncio.create_task(watch())
        async with asyncio.TaskGroup() as group:
            for record in records:
                group.create_task(record.asave())
        watching.cancel()
        await client.aclose()
        return sum(not record.is_new for record in records)

    # What other tests have left would be looked through by the garbage collector, which is a stall, too.
    gc.collect()
    gc.freeze()
    try:
        assert asyncio.run(save(url_of_another_process)) == 200
    finally:
        gc.unfreeze()
    print(f"the longest stall of the loop: {longest * 1000:.1f} ms")  # noqa: T201  it is a measurement
    assert longest < LONGEST_STALL


def test_event_loops_in_threads_share_a_transport() -> None:
    with Echo() as server:
        transport = HttpTransport(WireOptions(server.url, retry=0))

        async def ask(name: int) -> list[bytes]:
            requests = (transport.asend(Request("GET", f"/{name}/{n}")) for n in range(50))
            return [each.body for each in await asyncio.gather(*requests)]

        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda name: asyncio.run(ask(name)), range(4)))
        turns = vars(vars(transport)["_threads"])["_turns"]
        transport.close()

    assert found == [[f"/v1/{name}/{n}".encode() for n in range(50)] for name in range(4)]
    assert len(turns) <= 4


def test_loops_that_have_ended_are_forgotten(serve: Serve) -> None:
    server = serve()
    transport = HttpTransport(WireOptions(server.url, retry=0))
    for _ in range(3):
        assert asyncio.run(transport.asend(GET)).status == 200

    assert len(vars(vars(transport)["_threads"])["_turns"]) == 1
    transport.close()
    assert server.connections == 1


def test_a_loop_may_end_before_the_request_of_a_cancelled_call(serve: Serve) -> None:
    go = threading.Event()

    def late(connection: Any) -> None:
        go.wait(30)
        connection.sendall(answer(b"{}", "Connection: close"))

    server = serve(late, answer())
    transport = HttpTransport(WireOptions(server.url, retry=0))

    async def cancelled() -> None:
        task = asyncio.create_task(transport.asend(GET))
        await until(lambda: server.requests)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    go.set()

    assert asyncio.run(transport.asend(GET)).status == 200
    transport.close()


def test_hooks_are_called_in_the_thread_with_the_context_of_the_caller(serve: Serve) -> None:
    seen: list[tuple[threading.Thread, str]] = []

    def note(event: RequestEvent) -> None:
        seen.append((threading.current_thread(), name.get()))

    async def ask() -> None:
        name.set("mine")
        async with open_transport(serve(), on_request=note) as transport:
            await transport.asend(GET)

    asyncio.run(ask())

    ((thread, value),) = seen
    assert thread is not threading.current_thread()
    assert value == "mine"


def test_the_threads_end_with_the_transport(serve: Serve) -> None:
    async def ask() -> list[threading.Thread]:
        async with open_transport(serve()) as transport:
            before = set(threading.enumerate())
            await asyncio.gather(*[transport.asend(GET) for _ in range(4)])
            return [each for each in set(threading.enumerate()) - before if each.name.startswith("kinto-orm")]

    threads = asyncio.run(ask())

    for thread in threads:
        thread.join(60)
    assert threads and not any(thread.is_alive() for thread in threads)


def test_a_transport_that_is_closed_while_requests_wait_says_so(serve: Serve) -> None:
    async def ask() -> None:
        async with open_transport(serve()) as transport:
            await transport.asend(GET)
            vars(vars(transport)["_threads"])["_executor"][1].shutdown(wait=False)  # by another thread, just now
            with pytest.raises(ClientClosedError, match="Nothing was sent"):
                await transport.asend(GET)

    asyncio.run(ask())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12: the servers here are threads
def test_a_child_process_has_threads_of_its_own(serve: Serve) -> None:
    server = serve(answer(b"1"), answer(b"2"), answer(b"3"))
    transport = HttpTransport(WireOptions(server.url, retry=0))
    reader, writer = os.pipe()
    with asyncio.Runner() as runner, os.fdopen(reader, "rb") as result:
        runner.run(transport.asend(GET))
        child = os.fork()
        if child == 0:  # pragma: no cover  coverage ends where the process does
            try:
                os.write(writer, asyncio.run(transport.asend(GET)).body)
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)

        assert result.read() == b"2"
        assert runner.run(transport.asend(GET)).body == b"3"
        transport.close()
    assert server.connections == 2


# What there was


@pytest.mark.parametrize("value", ["threads", "httpx", "aiohttp", False])
def test_async_transport_is_an_option_no_more(value: Any, kinto_server: EmbeddedServer) -> None:
    client = Client("https://kinto.test")
    makers = (
        lambda: Client("https://kinto.test", async_transport=value),
        lambda: Client.embedded(server=kinto_server, async_transport=value),
        lambda: client.clone(async_transport=value),
    )
    for make in makers:
        with pytest.raises(ConfigurationError, match=r"no async_transport any more.*cancelled sends nothing more"):
            make()
