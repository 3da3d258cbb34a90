"""The tests of this folder run in memory; those that are not marked ``in_memory`` in ``tox -e postgres``, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from canary import CANARY_HEADERS
from wiretap import Wiretap, tap

from kinto_orm import Client
from kinto_orm.server import EmbeddedServer


@pytest.fixture
def server(request: pytest.FixtureRequest, kinto_server: EmbeddedServer) -> EmbeddedServer:
    """The server of the other tests; parametrized with ``"memory"`` for what PostgreSQL has no part in."""
    if getattr(request, "param", None) == "memory" and request.config.getoption("--kinto-postgres"):
        pytest.skip("it is the same on PostgreSQL")
    return kinto_server


@pytest.fixture
def kinto_client(server: EmbeddedServer) -> Iterator[Client]:
    """The client of the other tests."""
    with Client.embedded(server=server, headers=CANARY_HEADERS) as client:
        yield client


@pytest.fixture
def wire(kinto_client: Client) -> Wiretap:
    """All that the client sends."""
    return tap(kinto_client)
