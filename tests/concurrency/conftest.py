"""Two servers with stock settings and two with ours, each in its own process, on one PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import OURS, STOCK, Servers, serve_kinto

from kinto_orm.server.cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("concurrency"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def stock_servers(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Servers]:
    with serve_kinto(cluster, STOCK, database=_name("stock", request)) as servers:
        yield servers


@pytest.fixture(scope="module")
def our_servers(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Servers]:
    with serve_kinto(cluster, OURS, database=_name("ours", request)) as servers:
        yield servers


def _name(kind: str, request: pytest.FixtureRequest) -> str:
    """A database for each module."""
    return f"{kind}_{request.path.stem}"
