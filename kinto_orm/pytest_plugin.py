"""Fixtures for tests that talk to Kinto: ``kinto_server`` and ``kinto_client``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from kinto_orm.client import Client
from kinto_orm.server import EmbeddedServer

SERVER = pytest.StashKey[EmbeddedServer]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--kinto-postgres``."""
    text = "run kinto_server on an embedded PostgreSQL (pip install 'kinto-orm[server-postgres]')"
    parser.getgroup("kinto").addoption("--kinto-postgres", action="store_true", help=text)


@pytest.fixture(scope="session")
def kinto_server_settings() -> Mapping[str, Any]:
    """Return the settings of ``kinto_server``; override this fixture to change them, as to ``{"paginate_by": 5}``."""
    return {}


@pytest.fixture(scope="session")
def kinto_server(
    request: pytest.FixtureRequest, kinto_server_settings: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """Yield an ``EmbeddedServer`` that starts once a session and is emptied after each test."""
    if request.config.getoption("--kinto-postgres"):
        started = EmbeddedServer.postgres(tmp_path_factory.mktemp("kinto"), **kinto_server_settings)
    else:
        started = EmbeddedServer.memory(**kinto_server_settings)
    with started as server:
        request.config.stash[SERVER] = server
        yield server
        del request.config.stash[SERVER]


@pytest.fixture
def kinto_client(kinto_server: EmbeddedServer) -> Iterator[Client]:
    """Yield a ``Client`` of ``kinto_server``."""
    with Client.embedded(server=kinto_server) as client:
        yield client


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Empty the server, after the fixtures of the test itself are torn down."""
    server = item.config.stash.get(SERVER, None)
    if server is not None:
        server.flush()
