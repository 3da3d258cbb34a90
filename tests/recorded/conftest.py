"""The fixture ``wire``: a client of a recorded server."""

from __future__ import annotations

from pathlib import Path

import pytest
from recording import Wire


@pytest.fixture
def wire(request: pytest.FixtureRequest, tmp_path: Path) -> Wire:
    """The cassette that has the name of the test."""
    return Wire(str(request.node.name).removeprefix("test_"), tmp_path / "data")
