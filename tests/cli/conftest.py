"""The command in this process, against the real Kinto of the suite on a socket."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from canary import CANARY
from command_line import Command

from kinto_orm import Bucket, Client, Collection, Record
from kinto_orm.cli_options import AUTH_VARIABLE, SERVER_VARIABLE
from kinto_orm.server import EmbeddedServer, listening


@pytest.fixture(autouse=True)
def own_logger() -> Iterator[None]:
    """The logger as a program finds it. What a command does to it ends with the test: its stderr is closed then."""
    logger = logging.getLogger("kinto_orm")
    before = logger.level, list(logger.handlers)
    logger.setLevel(logging.NOTSET)  # the canary hears all of it in other tests
    yield
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


@pytest.fixture(scope="session")
def served() -> Iterator[str]:
    """The URL of a server that all these tests use; each one empties it."""
    with EmbeddedServer.memory(flush=True) as server, listening(server) as url:
        yield url


@pytest.fixture(scope="session")
def another_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.memory() as server:
        yield server


@pytest.fixture
def elsewhere(another_server: EmbeddedServer) -> Iterator[str]:
    """The URL of another server, which is empty."""
    with listening(another_server) as url:
        yield url
    another_server.flush()


@pytest.fixture
def url(served: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the server, which the environment names too."""
    monkeypatch.setenv(SERVER_VARIABLE, served)
    monkeypatch.setenv(AUTH_VARIABLE, f"canary:{CANARY}")
    monkeypatch.setenv("VISUAL", "true")  # an editor that changes nothing and does not wait
    return served


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A client of the same user."""
    client = Client(url, auth=("canary", CANARY))
    client.flush(everything=True)
    with client:
        yield client
    client.close()


@pytest.fixture
def kinto(client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command."""
    return Command(capsys, monkeypatch)


@pytest.fixture
def cfg(client: Client) -> Collection[Record]:
    """The collection ``main/cfg``, with three records."""
    bucket = Bucket(id="main", client=client).save()
    collection = Collection(bucket=bucket, id="cfg").save()
    collection.records.bulk_create(
        [{"id": "a", "title": "Ann", "n": 1}, {"id": "b", "title": "Bob", "n": 2}, {"id": "c", "title": "Cy", "n": 3}]
    )
    return collection
