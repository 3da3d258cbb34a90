"""Real collections: what Firefox's settings hold must survive every verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kinto_orm import Collection
from kinto_orm.protocol.json_values import is_same

DUMPS = sorted((Path(__file__).parents[3] / "shared" / "data").glob("*.json"))

pytestmark = pytest.mark.skipif(not DUMPS, reason="the dumps lie beside the repository")


@pytest.fixture(params=DUMPS, ids=lambda path: path.stem, scope="module")
def rows(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """The records of one dump, with their ids and timestamps."""
    found: list[dict[str, Any]] = json.loads(request.param.read_bytes())["data"]
    return found


def content(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Id to data."""
    return {row["id"]: {key: value for key, value in row.items() if key not in ("id", "last_modified")} for row in rows}


def stored(todos: Collection) -> dict[str, Any]:
    return {record.id: dict(record.data) for record in todos.records}


def test_a_dump_comes_back_as_it_was(todos: Collection, rows: list[dict[str, Any]]) -> None:
    report = todos.records.bulk_create(rows)

    assert report.created == len(rows)
    assert is_same(stored(todos), content(rows))


def test_a_loaded_dump_is_clean(todos: Collection, rows: list[dict[str, Any]]) -> None:
    todos.records.bulk_create(rows)

    report = todos.records.bulk_update(todos.records)

    assert report.unchanged == len(rows) and report.updated == 0


def test_an_edit_of_a_dump_changes_just_that(todos: Collection, rows: list[dict[str, Any]]) -> None:
    todos.records.bulk_create(rows)
    expected = content(rows)
    records = todos.records.all()
    for record in records:
        removed = next(iter(record.data))
        del record.data[removed], expected[record.id][removed]
        record.data["edited"] = expected[record.id]["edited"] = {"by": ["us"]}

    report = todos.records.bulk_update(records)

    assert report.updated == len(rows)
    assert is_same(stored(todos), expected)


def test_a_dump_can_be_deleted(todos: Collection, rows: list[dict[str, Any]]) -> None:
    todos.records.bulk_create(rows)

    report = todos.records.bulk_delete(todos.records)

    assert report.deleted == len(rows) and todos.records.count() == 0
