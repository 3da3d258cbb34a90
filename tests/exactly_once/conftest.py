"""The server of the oracle: with the plugins that some of the verbs need, or what stands in for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kinto_orm.server.application import DEFAULT_SETTINGS


@pytest.fixture(scope="session")
def kinto_server_settings(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "flush": True,
        "includes": f"{DEFAULT_SETTINGS['includes']} attachment_stub signer_stub",
        "signer.to_review_enabled": "true",
        "attachment.base_path": str(folder),
        "attachment.base_url": "http://files.example/",
    }
