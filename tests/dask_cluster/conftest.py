"""A cluster of two processes, which is there as long as its tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest
from dask_jobs import Todo

from kinto_orm import Bucket, Client, Collection
from kinto_orm.server import EmbeddedServer, ServerThread

PASSWORD = "only-in-the-environment"
SECONDS = 60


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server that the workers reach by its socket."""
    with EmbeddedServer.memory(batch_max_requests=1000) as server:
        yield server


class Watched:
    """A server, and what it is asked for."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self.requests: list[str] = []

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.requests.append("{REQUEST_METHOD} {PATH_INFO}?{QUERY_STRING}".format(**environ))
        return self._server.wsgi(environ, start_response)


@pytest.fixture(scope="module")
def watched(server: EmbeddedServer) -> Watched:
    return Watched(server)


@pytest.fixture(scope="module")
def url(watched: Watched) -> Iterator[str]:
    with ServerThread(cast(EmbeddedServer, watched)) as thread:
        yield thread.url


@pytest.fixture
def asked(watched: Watched) -> list[str]:
    """What the server was asked for."""
    watched.requests.clear()
    return watched.requests


@pytest.fixture
def password() -> str:
    return PASSWORD


@pytest.fixture(scope="module")
def cluster(url: str) -> Iterator[Any]:
    """Two workers with one thread each, which find server and password in their environment."""
    distributed = pytest.importorskip("distributed")
    before = dict(os.environ)
    os.environ.update(TEST_SERVER=url, TEST_PASSWORD=PASSWORD)
    with ExitStack() as stack:
        stack.callback(os.environ.update, before)
        options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        cluster = stack.enter_context(distributed.LocalCluster(host="127.0.0.1", **options))
        yield stack.enter_context(distributed.Client(cluster, timeout=SECONDS))
    del os.environ["TEST_SERVER"], os.environ["TEST_PASSWORD"]


@pytest.fixture
def client(url: str, server: EmbeddedServer) -> Iterator[Client]:
    """A client that asks for a collection that is empty at first."""
    server.flush()
    with Client(url, auth=("user", PASSWORD)) as client:
        client.ensure(Bucket(id="payments"), Collection(bucket="payments", id="todos"))
        yield client
        client.close()


@pytest.fixture
def todos(client: Client) -> Collection[Todo]:
    return client.bucket("payments").collection(Todo)
