"""Two servers with stock settings and two with ours, each in its own process, on one PostgreSQL; and embedded ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from racing import Connect, connect_inside, connect_to
from servers import OURS, STOCK, Servers, serve_kinto

from kinto_orm.server import EmbeddedServer
from kinto_orm.server.cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("concurrency"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def stock_servers(cluster: Cluster) -> Iterator[Servers]:
    with serve_kinto(cluster, STOCK, database="stock") as servers:
        yield servers


@pytest.fixture(scope="session")
def our_servers(cluster: Cluster) -> Iterator[Servers]:
    with serve_kinto(cluster, OURS, database="ours") as servers:
        yield servers


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.postgres(tmp_path_factory.mktemp("embedded")) as server:
        yield server


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """A bucket for each test: the servers are those of all."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


@pytest.fixture
def stock(stock_servers: Servers, bucket: str) -> Connect:
    return connect_to(stock_servers, bucket)


@pytest.fixture(params=["embedded", "processes"])
def ours(request: pytest.FixtureRequest, bucket: str) -> Connect:
    """Clients of our settings: of one server in this process, or of several processes."""
    if request.param == "embedded":
        return connect_inside(request.getfixturevalue("embedded_server"), bucket)
    return connect_to(request.getfixturevalue("our_servers"), bucket)
