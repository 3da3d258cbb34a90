"""Thirteen thousand real records, the ISO codes of ``examples/iso.py``, in one collection."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from wiretap import tap

from kinto_orm import Collection, Record

EXAMPLES = Path(__file__).parents[2] / "examples"


def read_codes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return all records of the example."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    iso = importlib.import_module("iso")
    return [*iso.read_countries(), *iso.read_subdivisions(), *iso.read_languages()]


def test_a_second_sync_of_all_codes_only_reads(monkeypatch: pytest.MonkeyPatch, todos: Collection[Record]) -> None:
    rows = read_codes(monkeypatch)
    assert len(rows) > 13_000
    first = todos.records.sync(rows)
    assert (first.created, first.failed) == (len(rows), [])
    wire = tap(todos.client)

    second = todos.records.sync(rows, delete=True, max_deletes=0)

    assert (second.created, second.updated, second.deleted, second.unchanged) == (0, 0, 0, len(rows))
    assert set(wire.said) == {"GET"}
