"""The audit of the soak test tells doubles from repetitions that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit import Findings, _audit_thread

URI = "/buckets/w0/collections/c/records/r"


class History:
    """A server that has these entries in its history, and no record."""

    def __init__(self, *entries: tuple[str, str]) -> None:
        self._entries = entries

    def rows(self, target: str) -> Iterator[dict[str, Any]]:
        if "/history" in target:
            for action, token in self._entries:
                yield {"action": action, "uri": URI, "target": {"data": {"op": token}}}


def find(folder: Path, writes: list[tuple[str, str]], *entries: tuple[str, str]) -> list[str]:
    journal = folder / "w0.jsonl"
    lines: list[dict[str, Any]] = [{"uri": URI, "token": token, "outcome": outcome} for token, outcome in writes]
    journal.write_text("\n".join(json.dumps(line) for line in [*lines, {"final": {}}]))
    findings = Findings()
    _audit_thread(journal, History(*entries), findings)  # type: ignore[arg-type]  # it asks for rows only
    return findings.violations


def test_o01_create_delete_create_delete_is_no_double(tmp_path: Path) -> None:
    writes = [("1", "stored"), ("deleted", "stored"), ("2", "unknown"), ("deleted", "stored")]

    assert find(tmp_path, writes, ("create", "1"), ("delete", ""), ("create", "2"), ("delete", "")) == []


@pytest.mark.parametrize("second", ["create", "update"])
def test_o01_one_write_that_is_stored_twice_is_a_double(tmp_path: Path, second: str) -> None:
    writes = [("1", "stored"), ("deleted", "stored")]
    between = [("delete", "")] if second == "create" else []

    found = find(tmp_path, writes, ("create", "1"), *between, (second, "1"), ("delete", ""))

    assert [text.partition(":")[0] for text in found] == ["stored 2 times"]
