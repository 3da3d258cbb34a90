"""The tests of this folder run on a Kinto with the memory backend, and in ``tox -e postgres`` on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from kinto_orm.server import EmbeddedServer

Send = Callable[..., requests.Response]


@pytest.fixture(scope="session")
def memory_server() -> Iterator[EmbeddedServer]:
    """Start a Kinto on the memory storage as Kinto ships it: ours compares values as PostgreSQL does."""
    with EmbeddedServer.memory(flush=True, storage_backend="kinto.core.storage.memory") as server:
        yield server


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    is_memory = not request.config.getoption("--kinto-postgres")
    server = request.getfixturevalue("memory_server" if is_memory else "kinto_server")
    yield server
    server.flush()


@pytest.fixture
def is_memory(server: EmbeddedServer) -> bool:
    return "storage_url" not in server.settings


@pytest.fixture
def send(server: EmbeddedServer) -> Iterator[Send]:
    """Sends just what it is told, as the user of the session or another."""
    with requests.Session() as session:
        session.mount(server.url, server.adapter())

        def send(
            method: str, target: str, json: Any = None, *, data: bytes | None = None, user: str = "me", **headers: str
        ) -> requests.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            url = target if target.startswith("http") else server.url + target
            return session.request(method, url, json=json, data=data, headers=named, auth=(user, "secret"))

        yield send


@pytest.fixture
def records(send: Send) -> str:
    """The path of the records of an empty collection."""
    for path in ("/buckets/b", "/buckets/b/collections/c"):
        assert send("PUT", path).status_code == 201
    return "/buckets/b/collections/c/records"
