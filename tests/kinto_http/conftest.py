"""A Kinto on a socket, with small pages and batches, and a client of ours for it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from small_server import AUTH, BATCH, PAGE, listen
from wiretap import Wiretap

from kinto_orm import kinto_http
from kinto_orm.server import EmbeddedServer, listening


@pytest.fixture(scope="session")
def small_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.memory(paginate_by=PAGE, batch_max_requests=BATCH) as server:
        yield server


@pytest.fixture(scope="session")
def small_url(small_server: EmbeddedServer) -> Iterator[str]:
    with listening(small_server) as url:
        yield url


@pytest.fixture
def url(small_server: EmbeddedServer, small_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty server."""
    # Kinto orders the timestamps of one list; those of two lists may be equal, or in either order, within a
    # millisecond. Tests compare the order of all timestamps of a call, so the server's clock ticks at each look.
    ticks = itertools.count(int(time.time() * 1000))
    monkeypatch.setattr("kinto.core.utils.msec_time", lambda: next(ticks))
    yield small_url
    small_server.flush()


@pytest.fixture
def client(url: str) -> Iterator[kinto_http.Client]:
    """A client of ours, with a bucket and a collection on the server."""
    with kinto_http.Client(server_url=url, auth=AUTH, bucket="b", collection="c") as client:
        client.create_bucket()
        client.create_collection()
        yield client


@pytest.fixture
def wire(client: kinto_http.Client) -> Wiretap:
    """What the client sends from now on."""
    return listen(client)
