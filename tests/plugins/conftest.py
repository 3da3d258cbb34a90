"""A Kinto with attachments, in this process, and the host of its files."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from file_host import FileHost, serve_files
from lossy import LossyAdapter, lossy

from kinto_orm import Bucket, Client, Collection, Record
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.application import DEFAULT_SETTINGS

PLUGINS = [name for name in ("attachment_stub", "kinto_attachment") if find_spec(name)]
"""``tox -e plugins`` has the second one, too."""


@pytest.fixture(scope="session")
def file_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileHost]:
    with serve_files(tmp_path_factory.mktemp("files")) as host:
        yield host


@pytest.fixture(scope="session", params=PLUGINS)
def server(request: pytest.FixtureRequest, file_host: FileHost) -> Iterator[EmbeddedServer]:
    """The server, with the plugin or what stands in for it."""
    includes = f"{DEFAULT_SETTINGS['includes']} {request.param}"
    settings = {"attachment.base_path": str(file_host.folder), "attachment.base_url": file_host.url}
    with EmbeddedServer.memory(includes=includes, **settings) as server:
        yield server


@pytest.fixture
def network(server: EmbeddedServer, file_host: FileHost) -> Iterator[tuple[Client, LossyAdapter]]:
    """A client of that server, whose answers may get lost."""
    client, adapter = lossy(server, bucket="b", collection="c")
    with client:
        client.ensure(Bucket(id="b"), Collection(bucket="b", id="c"))
        adapter.sent.clear()
        yield client, adapter
    client.close()
    server.flush()
    file_host.asked.clear()
    for file in file_host.files():
        file.unlink()


@pytest.fixture
def client(network: tuple[Client, LossyAdapter]) -> Client:
    return network[0]


@pytest.fixture
def adapter(network: tuple[Client, LossyAdapter]) -> LossyAdapter:
    return network[1]


@pytest.fixture
def collection(client: Client) -> Collection[Record]:
    return client.bucket("b").collection("c")
