"""What all tests share: the Hypothesis profiles, and a bucket with a collection on a real Kinto in this process.

``kinto_server`` comes from our own pytest plugin: we are its first user.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import requests
from awaited import Awaited
from canary import CANARY_HEADERS, Canary
from hypothesis import HealthCheck, settings
from lossy import LossyAdapter, lossy
from scripted_server import Connect, Script, Serve, Server
from wiretap import Wiretap, tap

from kinto_orm import Bucket, Client, Collection, Record
from kinto_orm.server import EmbeddedServer, embedded
from kinto_orm.transport.http import HttpTransport
from kinto_orm.transport.options import WireOptions
from kinto_orm.transport.reporting import ResponseEvent
from kinto_orm.transport.retry import Clock

_SLOW_SERVER = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=10, **_SLOW_SERVER)
_EXAMPLES = 60 if os.environ.get("KINTO_ORM_EVERYTHING") else 20
settings.register_profile("ci", max_examples=_EXAMPLES, derandomize=True, **_SLOW_SERVER)
settings.register_profile("nightly", max_examples=500, **_SLOW_SERVER)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

# A password takes Kinto a third of a second to hash, and as long to check; with the least cost it takes none.
bcrypt.gensalt = partial(bcrypt.gensalt, rounds=4)


def pytest_configure(config: pytest.Config) -> None:
    """Watches that the suite shows none of its secrets."""
    config.pluginmanager.register(Canary(), "canary")


_answer, _start = EmbeddedServer.wsgi, embedded.build_application


def _answer_untraced(self: EmbeddedServer, environ: Any, start_response: Any, /) -> Any:
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        return _answer(self, environ, start_response)
    finally:
        sys.settrace(tracer)


def _start_untraced(settings: Mapping[str, Any]) -> Any:
    tracer, of_threads = sys.gettrace(), threading.gettrace()  # Kinto starts in another thread
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]  # as Python documents it
    try:
        return _start(settings)
    finally:
        sys.settrace(tracer)
        threading.settrace(of_threads)  # type: ignore[arg-type]  # it may be None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Coverage rests while Kinto starts and answers: it would double the time of code that it does not measure.

    In ``tests/server`` it goes on: backends of ours run inside of Kinto.
    """
    if sys.gettrace() is not None:
        goes_on = Path(__file__).with_name("server") in item.path.parents
        EmbeddedServer.wsgi = _answer if goes_on else _answer_untraced  # type: ignore[method-assign]
        embedded.build_application = _start if goes_on else _start_untraced


@pytest.fixture(scope="session")
def kinto_server_settings() -> Mapping[str, Any]:
    """A server that can be emptied by a request, as servers for tests can."""
    return {"flush": True}


@pytest.fixture
def kinto_client(kinto_server: EmbeddedServer) -> Iterator[Client]:
    """The client of our plugin, with its own secret."""
    with Client.embedded(server=kinto_server, headers=CANARY_HEADERS) as client:
        yield client


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A Kinto on PostgreSQL, for the tests that run on it, too; each one empties it."""
    with EmbeddedServer.postgres(tmp_path_factory.mktemp("postgres"), flush=True) as server:
        yield server


@pytest.fixture
def payments(kinto_client: Client) -> Bucket:
    """A bucket on the server."""
    return Bucket(id="payments", client=kinto_client).save()


@pytest.fixture
def todos(payments: Bucket) -> Collection[Record]:
    """A collection on the server."""
    return Collection(bucket=payments, id="todos").save()


@pytest.fixture
def wire(kinto_client: Client, todos: Collection[Record]) -> Wiretap:
    """All that the client sends after the set-up: the collection ``todos`` is there, and the server is known."""
    kinto_client.server_info()
    return tap(kinto_client)


@pytest.fixture
def sent() -> list[ResponseEvent]:
    """A list for a client to write its requests down: ``on_response=sent.append``."""
    return []


@pytest.fixture
def rival(kinto_client: Client, todos: Collection[Record]) -> Collection[Record]:
    """The same collection, by another client."""
    return kinto_client.clone(headers={}).bucket("payments").collection("todos")


@pytest.fixture
def network(kinto_server: EmbeddedServer, todos: Collection[Record]) -> Iterator[tuple[Client, LossyAdapter]]:
    """A client of the collection ``todos``, and the adapter that loses its answers; folders may override it."""
    client, adapter = lossy(kinto_server, bucket="payments", collection="todos")
    client.server_info()
    with client:
        yield client, adapter
    client.close()


@pytest.fixture
def client(network: tuple[Client, LossyAdapter]) -> Client:
    """The client of ``network``."""
    return network[0]


@pytest.fixture
def adapter(network: tuple[Client, LossyAdapter]) -> LossyAdapter:
    """The adapter of ``network``."""
    return network[1]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(*script: Script, tls: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(*script, tls=tls))
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture
def way() -> str:
    """What sends: one of ``WAYS``. The tests of the wire are about all of them."""
    return "pool"


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def connect(waits: list[float], way: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Make transports that do not really sleep."""
    if way == "requests":
        send = requests.Session.send
        monkeypatch.setattr(requests.Session, "send", lambda *args, **options: send(*args, **options))

    async def asleep(seconds: float) -> None:
        waits.append(seconds)

    with asyncio.Runner() as runner, ExitStack() as ends:

        def make(server: Server | str, **options: Any) -> HttpTransport:
            url = server if isinstance(server, str) else server.url
            clock = options.pop("clock", Clock(sleep=waits.append, asleep=asleep, random=lambda: 1.0))
            kind = Awaited if way == "threads" else HttpTransport
            adapter = options.pop("adapter", None)
            transport = kind(WireOptions(url, **options), adapter=adapter, clock=clock)
            if isinstance(transport, Awaited):
                transport.runner = runner
            ends.callback(transport.close)
            return transport

        yield make


@pytest.fixture
def dead_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
