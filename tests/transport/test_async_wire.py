"""What only ``async_transport="httpx"`` does: event loops, cancelling, and what it cannot carry.

What is the same whatever sends is in ``transport/test_http.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from canary import CANARY
from fault_proxy import FaultProxy, hang_after
from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPDigestAuth
from scripted_server import Script, Serve, Server, answer, chunked, hang

from kinto_orm import Bucket, Client, Collection, Record
from kinto_orm.errors import ConfigurationError, ConnectionFailedError, KintoError, MissingExtraError
from kinto_orm.protocol.messages import Request
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.serving import ServerThread
from kinto_orm.transport import HttpTransport, ResponseEvent, RetryPolicy
from kinto_orm.transport.async_wire import AsyncWire
from kinto_orm.transport.httpx_messages import has_more
from kinto_orm.transport.prepare import POOL_SIZE

ROOT = Path(__file__).parents[2]
GET = Request("GET", "/buckets/b")
PUT = Request("PUT", "/buckets/b", headers={"Content-Type": "application/json"}, body=b"{}")
ONCE = RetryPolicy(retries=0)

LONGEST_STALL = {"threads": 2.0, "httpx": 0.5}
"""Seconds: many times what it is, because the machine may be busy, and threads wait for Python's lock.

Sent by the loop itself, 200 saves would hold it for 4 s.
"""


@asynccontextmanager
async def open_transport(server: Server | str, **options: Any) -> AsyncIterator[HttpTransport]:
    url = server if isinstance(server, str) else server.url
    transport = HttpTransport(url, **{"async_transport": "httpx", "policy": ONCE, **options})
    try:
        yield transport
    finally:
        await transport.aclose()


def wire_of(transport: HttpTransport) -> AsyncWire:
    wire = vars(transport)["_async_wire"]
    assert isinstance(wire, AsyncWire)
    return wire


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.002)


class Held:
    """A script that sends something, and waits until the other side hangs up."""

    def __init__(self, first: bytes = b"") -> None:
        self.first = first
        self.begun = threading.Event()
        self.ended = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        connection.sendall(self.first)
        self.begun.set()
        with contextlib.suppress(OSError):
            while connection.recv(4096):
                pass
        self.ended.set()


# Cancelling


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"", id="before-the-answer"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Be", id="in-its-head"),
        pytest.param(chunked(b"[1"), id="in-its-body"),
    ],
)
def test_a_cancelled_request_ends_at_once_and_hangs_up(serve: Serve, first: bytes) -> None:
    held = Held(first)
    server = serve(held, answer(b"[2]"))
    told: list[ResponseEvent] = []

    async def cancelled() -> bytes:
        async with open_transport(server, on_response=told.append) as transport:
            task = asyncio.create_task(transport.asend(PUT))
            await until(held.begun.is_set)
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - started < 1
            assert await asyncio.to_thread(held.ended.wait, 2)
            return (await transport.asend(GET)).body

    assert asyncio.run(cancelled()) == b"[2]"
    assert len(server.requests) == 2
    assert [event.status for event in told] == [None, 200]


@pytest.mark.parametrize("is_cancelled", [True, False], ids=["cancelled", "too-late"])
def test_a_tls_handshake_that_is_given_up_is_hung_up(is_cancelled: bool) -> None:
    held = Held()

    def accept() -> None:
        connection, _ = listener.accept()
        with connection:
            held(connection)

    async def give_up(url: str) -> None:
        async with open_transport(url, timeout=(0.2, 5)) as transport:
            task = asyncio.create_task(transport.asend(PUT))
            await until(held.begun.is_set)
            if is_cancelled:
                task.cancel()
            with pytest.raises(asyncio.CancelledError if is_cancelled else ConnectionFailedError):
                await task
            assert await asyncio.to_thread(held.ended.wait, 2)

    gc.disable()  # else the collector may close it
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=accept)
            thread.start()
            asyncio.run(give_up(f"https://127.0.0.1:{listener.getsockname()[1]}/v1"))
            thread.join()
    finally:
        gc.enable()


def test_a_cancelled_request_gives_its_turn_to_another(serve: Serve) -> None:
    server = serve(*[hang] * POOL_SIZE, answer(b"[1]"))

    async def crowd() -> bytes:
        async with open_transport(server) as transport:
            first = [asyncio.create_task(transport.asend(PUT)) for _ in range(POOL_SIZE)]
            await until(lambda: len(server.requests) == POOL_SIZE)
            waiting = [asyncio.create_task(transport.asend(GET)) for _ in range(2)]
            await asyncio.sleep(0.02)
            assert len(server.requests) == POOL_SIZE
            waiting[0].cancel()
            first[0].cancel()
            result = await asyncio.wait_for(waiting[1], 2)
            for task in first:
                task.cancel()
            await asyncio.gather(*first, waiting[0], return_exceptions=True)
        return result.body

    assert asyncio.run(crowd()) == b"[1]"
    assert len(server.requests) == POOL_SIZE + 1


def test_a_request_whose_turn_does_not_come_was_not_sent(serve: Serve) -> None:
    server = serve()

    async def crowd() -> None:
        async with open_transport(server, deadline=0.05) as transport:
            pool = await wire_of(transport).pool()
            async with AsyncExitStack() as others:
                for _ in range(POOL_SIZE):
                    await others.enter_async_context(pool.turn(1, "another"))
                with pytest.raises(ConnectionFailedError, match=f"{POOL_SIZE} other requests were on their way"):
                    await transport.asend(PUT)

    asyncio.run(crowd())
    assert server.requests == []


def test_a_cancelled_save_ends_at_once_and_is_recognised_by_the_next_one(kinto_server: EmbeddedServer) -> None:
    credentials = ("cancelling", "secret")

    async def cancelled(proxy: FaultProxy) -> list[str]:
        client = Client(proxy.url, auth=credentials, bucket="b", collection="c", async_transport="httpx")
        todos = await Collection(bucket=await Bucket(id="b", client=client).asave(), id="c").asave()
        record = Record(collection=todos, id="one", data={"n": 1})
        proxy.plan(hang_after)
        task = asyncio.create_task(record.asave())
        await until(lambda: proxy.seen[-1].status == 201 and proxy.seen[-1].path.endswith("/records/one"))
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 1
        assert record.is_dirty
        await record.asave()
        assert not record.is_dirty
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


@pytest.mark.parametrize("way", ["threads", "httpx"])
def test_two_hundred_saves_do_not_block_the_loop(url_of_another_process: str, way: Any) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    async def save(url: str) -> int:
        client = Client(url, async_transport=way)
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
    print(f"the longest stall of the loop, {way}: {longest * 1000:.1f} ms")  # noqa: T201  it is a measurement
    assert longest < LONGEST_STALL[way]


def test_each_connection_is_one_of_its_own_transport_and_is_used_again() -> None:
    async def ask(server: Server) -> list[int]:
        async with open_transport(server) as transport:
            await transport.asend(GET)
            await transport.asend(GET)
            first = server.connections
            async with asyncio.TaskGroup() as group:
                for _ in range(3 * POOL_SIZE):
                    group.create_task(transport.asend(GET))
            pool = await wire_of(transport).pool()
            assert len(vars(pool)["_idle"]) == len(vars(pool)["_all"]) == server.connections
            return [first, server.connections]

    with Echo() as server:
        first, all_ = asyncio.run(ask(server))

    assert first == 1
    assert 1 < all_ <= POOL_SIZE


def test_event_loops_in_threads_share_a_transport() -> None:
    with Echo() as server:
        transport = HttpTransport(server.url, async_transport="httpx", policy=ONCE)

        async def ask(name: int) -> list[bytes]:
            requests = (transport.asend(Request("GET", f"/{name}/{n}")) for n in range(20))
            return [each.body for each in await asyncio.gather(*requests)]

        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda name: asyncio.run(ask(name)), range(4)))
        transport.close()

    assert found == [[f"/v1/{name}/{n}".encode() for n in range(20)] for name in range(4)]


@pytest.mark.parametrize("is_released", [False, True], ids=["with-its-loop", "before"])
def test_the_connections_of_a_loop_end_with_it(serve: Serve, is_released: bool) -> None:
    first, second = Held(answer(b"[1]")), Held(answer(b"[2]"))
    server = serve(first, second)
    transport = HttpTransport(server.url, async_transport="httpx", policy=ONCE)

    async def ask() -> bytes:
        response = await transport.asend(GET)
        if is_released:
            transport.release()
        return response.body

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [asyncio.run(ask()), asyncio.run(ask())]
        gc.collect()

    assert found == [b"[1]", b"[2]"]
    assert first.ended.wait(1) and second.ended.wait(1)
    assert not wire_of(transport).holds_sockets
    transport.close()


def test_idle_connections_of_a_loop_in_another_thread_are_released(serve: Serve) -> None:
    held = Held(answer(b"[1]"))
    server = serve(held)
    asked, over = threading.Event(), threading.Event()
    transport = HttpTransport(server.url, async_transport="httpx", policy=ONCE)

    async def ask() -> None:
        await transport.asend(GET)
        asked.set()
        await asyncio.to_thread(over.wait, 5)

    thread = threading.Thread(target=lambda: asyncio.run(ask()))
    thread.start()
    assert asked.wait(5)
    transport.close()

    assert held.ended.wait(2)
    over.set()
    thread.join()


def test_a_request_on_its_way_survives_a_release(serve: Serve) -> None:
    go = threading.Event()

    def late(connection: socket.socket) -> None:
        go.wait(5)
        connection.sendall(answer(b"[1]"))

    server = serve(late)

    async def ask() -> bytes:
        async with open_transport(server) as transport:
            task = asyncio.create_task(transport.asend(GET))
            await until(lambda: server.requests)
            await transport.arelease()
            go.set()
            return (await task).body

    assert asyncio.run(ask()) == b"[1]"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # by asyncio: this is how not to end a loop
def test_a_loop_that_was_closed_carelessly_is_forgotten(serve: Serve) -> None:
    server = serve()
    transport = HttpTransport(server.url, async_transport="httpx", policy=ONCE)
    for _ in range(2):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(transport.asend(GET)).status == 200
        loop.close()

    assert list(vars(wire_of(transport))["_pools"]) == [loop]
    transport.release()
    assert not wire_of(transport).holds_sockets
    del loop
    gc.collect()  # here, where the warnings of asyncio are let pass


def test_hooks_are_called_in_the_loop(serve: Serve) -> None:
    threads: list[threading.Thread] = []

    async def ask(url: str) -> None:
        async with open_transport(url, on_request=lambda event: threads.append(threading.current_thread())) as it:
            await it.asend(GET)

    asyncio.run(ask(serve().url))

    assert threads == [threading.current_thread()]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio says it in its own words, too
def test_a_transport_left_with_connections_of_a_loop_says_so(serve: Serve) -> None:
    held = Held(answer(b"[1]"))
    server = serve(held)

    async def leave() -> None:
        left = [HttpTransport(server.url, async_transport="httpx", policy=ONCE)]
        await left[0].asend(GET)
        with pytest.warns(ResourceWarning, match=f"A client of {server.host} was left with open connections"):
            left.clear()
        gc.collect()  # the warning held it
        assert await asyncio.to_thread(held.ended.wait, 2)

    asyncio.run(leave())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12: the servers here are threads
def test_a_child_process_has_connections_of_its_own(serve: Serve) -> None:
    server = serve(answer(b"1"), answer(b"2"), answer(b"3"))
    transport = HttpTransport(server.url, async_transport="httpx", policy=ONCE)
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
        runner.run(transport.aclose())
    assert server.connections == 2


def test_another_process_is_known_by_its_id(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate the fork inside this process, where coverage sees it."""
    server = serve()

    async def ask() -> bool:
        async with open_transport(server) as transport:
            await transport.asend(GET)
            with monkeypatch.context() as child:
                child.setattr(os, "getpid", lambda: 1)
                held_by_parent = not wire_of(transport).holds_sockets
                await transport.asend(GET)
        return held_by_parent

    assert asyncio.run(ask())
    assert server.connections == 2


# What it cannot carry


class Auth(AuthBase):
    """Credentials of a user's class, which change the request."""

    def __init__(self, act: Callable[[PreparedRequest], object]) -> None:
        self.act = act

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        self.act(r)
        return r


def send(server: Server, **options: Any) -> None:
    async def ask() -> None:
        async with open_transport(server, **options) as transport:
            await transport.asend(PUT)

    asyncio.run(ask())


def test_an_auth_object_that_answers_a_challenge_is_refused(serve: Serve) -> None:
    server = serve()

    with pytest.raises(ConfigurationError, match=r"HTTPDigestAuth wants to see the answer.*threads send it"):
        send(server, auth=HTTPDigestAuth("user", CANARY))
    assert server.requests == []


def test_an_auth_object_that_makes_a_stream_of_the_body_is_refused(serve: Serve) -> None:
    server = serve()

    with pytest.raises(ConfigurationError, match="made a stream of the body"):
        send(server, auth=Auth(lambda r: setattr(r, "body", iter([b"{}"]))))
    assert server.requests == []


def test_an_auth_object_may_take_its_time_in_a_thread(serve: Serve) -> None:
    server, threads = serve(), list[threading.Thread]()

    def act(r: PreparedRequest) -> None:
        threads.append(threading.current_thread())
        r.body = "text"
        r.headers["Authorization"] = "Own xyz"

    send(server, auth=Auth(act))

    assert threads != [threading.current_thread()]
    assert server.header("Authorization") == "Own xyz"
    assert server.requests[0].endswith(b"\r\n\r\ntext")


def test_an_auth_object_that_takes_too_long_has_sent_nothing(serve: Serve) -> None:
    server = serve()

    with pytest.raises(ConnectionFailedError, match="nothing was sent"):
        send(server, auth=Auth(lambda r: time.sleep(0.2)), deadline=0.05)
    assert server.requests == []


def test_a_bug_in_an_auth_object_is_not_hidden(serve: Serve) -> None:
    with pytest.raises(ZeroDivisionError):
        send(serve(), auth=Auth(lambda r: 1 // 0))


def test_an_auth_object_whose_request_failed_has_sent_nothing(serve: Serve) -> None:
    def fail(r: PreparedRequest) -> None:
        raise OSError(f"no token for {CANARY}")

    server = serve()

    with pytest.raises(KintoError) as failed:
        send(server, auth=Auth(fail))

    assert CANARY not in str(failed.value)
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            {"async_transport": "aiohttp"}, "async_transport is 'threads' or 'httpx', not 'aiohttp'", id="name"
        ),
        pytest.param({"adapter": HTTPAdapter()}, "on the network only", id="adapter"),
        pytest.param({"session": requests.Session()}, "httpx cannot send by session=", id="session"),
        pytest.param({"verify": __file__}, "no certificates that can be used", id="verify"),
        pytest.param({"cert": __file__}, "no certificates that can be used", id="cert"),
        pytest.param({"proxies": {"https": f"socks9://me:{CANARY}@proxy"}}, "none that httpx takes", id="proxy"),
    ],
)
def test_what_httpx_cannot_do_is_said_at_once(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as failed:
        HttpTransport("https://kinto.test", **{"async_transport": "httpx", **options})

    assert CANARY not in f"{failed.value} {failed.value.__context__}"


@pytest.mark.parametrize(
    ("module", "options", "expected"),
    [
        pytest.param("httpx", {}, r"httpx is not installed.*pip install 'kinto-orm\[async\]'.*threads", id="httpx"),
        pytest.param("socksio", {"proxies": {"https": "socks5://proxy"}}, r"socksio.*threads", id="socks"),
    ],
)
def test_what_is_not_installed_is_named(
    module: str, options: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingExtraError, match=expected) as failed:
        Client("https://kinto.test", async_transport="httpx", **options)

    assert failed.value.name == module


def test_httpx_is_imported_by_those_only_who_ask_for_it() -> None:
    program = (
        "import sys, kinto_orm; kinto_orm.Client('https://kinto.test').close(); "
        "print(*sorted({'httpx', 'httpcore', 'anyio', 'h11'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert done.stdout.split() == []


def test_a_connection_is_not_kept_where_nobody_can_tell_what_is_left_on_it() -> None:
    import httpx

    assert has_more(httpx.Response(200, content=b"[]"))


def test_a_folder_of_certificates_can_be_trusted(tmp_path: Path) -> None:
    with contextlib.closing(HttpTransport("https://kinto.test", async_transport="httpx", verify=str(tmp_path))) as it:
        assert wire_of(it)


def test_the_password_of_a_proxy_does_not_show() -> None:
    proxies = {"https": f"me:{CANARY}@proxy.test:3128"}
    with contextlib.closing(HttpTransport("https://kinto.test", async_transport="httpx", proxies=proxies)) as it:
        assert CANARY not in f"{vars(it)} {vars(wire_of(it))}"
