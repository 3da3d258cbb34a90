"""The server of the oracle: with the plugins that some of the verbs need, or what stands in for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kinto_orm.server import EmbeddedServer
from kinto_orm.server.application import DEFAULT_SETTINGS


@pytest.fixture(scope="session")
def kinto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Start a server of this folder alone: that of the plugin has the settings of the folder that ran first."""
    settings = {
        "includes": f"{DEFAULT_SETTINGS['includes']} attachment_stub signer_stub",
        "signer.to_review_enabled": "true",
        "attachment.base_path": str(tmp_path_factory.mktemp("files")),
        "attachment.base_url": "http://files.example/",
    }
    with EmbeddedServer.memory(flush=True, **settings) as server:
        yield server


@pytest.fixture(autouse=True)
def emptied(kinto_server: EmbeddedServer) -> Iterator[None]:
    """Empty the server after each test."""
    yield
    kinto_server.flush()
