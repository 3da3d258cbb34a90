"""Each test of this folder runs on a Kinto with the memory backend; in ``tox -e slow`` on one with PostgreSQL, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from canary import CANARY_HEADERS
from servers import BACKENDS
from wiretap import Wiretap, tap

from kinto_orm import Client
from kinto_orm.server import EmbeddedServer


@pytest.fixture(params=BACKENDS)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    server = request.getfixturevalue("kinto_server" if request.param == "memory" else "postgres_server")
    yield server
    server.flush()


@pytest.fixture
def kinto_client(server: EmbeddedServer) -> Iterator[Client]:
    """The client of the other tests, on both backends."""
    with Client.embedded(server=server, headers=CANARY_HEADERS) as client:
        yield client


@pytest.fixture
def wire(kinto_client: Client) -> Wiretap:
    """All that the client sends."""
    return tap(kinto_client)
