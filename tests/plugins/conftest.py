"""A Kinto with attachments, in this process, and the host of its files."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from file_host import FileHost, serve_files
from lossy import LossyAdapter, lossy

from kinto_orm import Bucket, Client, Collection, Record
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.application import DEFAULT_SETTINGS

PLUGINS = [name for name in ("attachment_stub", "kinto_attachment") if find_spec(name)]
"""``tox -e py312`` has the second one, too."""

SIGNERS = [name for name in ("signer_stub", "kinto_remote_settings") if find_spec(name)]
"""The second one is on no package index: it counts where it was installed from its repository."""


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
def collection(client: Client) -> Collection[Record]:
    return client.bucket("b").collection("c")


# -- reviews ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session", params=SIGNERS)
def signing_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A server with the signer, or what stands in for it."""
    with EmbeddedServer.memory(**signer_settings(request.param, tmp_path_factory.mktemp("keys"))) as server:
        yield server


def signer_settings(plugin: str, folder: Path) -> dict[str, Any]:
    """Return the settings of Kinto with that plugin, and reviews of the bucket ``workspace``."""
    includes = f"{DEFAULT_SETTINGS['includes']} {plugin}"
    settings: dict[str, Any] = {"includes": includes, "signer.to_review_enabled": "true"}
    if plugin == "signer_stub":
        return settings
    key = folder / "key.pem"
    key.write_text(import_module("ecdsa").SigningKey.generate(curve=import_module("ecdsa").NIST384p).to_pem().decode())
    return {
        **settings,
        "signer.resources": "/buckets/workspace -> /buckets/preview -> /buckets/main",
        "signer.ecdsa.private_key": str(key),
    }
