"""What ``docs/comparison.md`` says of kinto_orm is what happens: see ``make comparison``."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "comparison.md"
SCRIPT = ROOT / "benchmarks" / "compare.py"


def table(page: Path) -> list[list[str]]:
    """Return the cells of each row: id, attempt, and the results with kinto-http and with kinto_orm."""
    lines = page.read_text("utf-8").splitlines()
    start = lines.index("|---|---|---|---|") + 1
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]


def of_kinto_orm(rows: Iterable[list[str]]) -> dict[str, str]:
    return {id: cell for id, _, _, cell in rows}


def test_page_has_forty_cases_each_once() -> None:
    rows = table(PAGE)

    assert len(rows) == 40
    assert len({row[0] for row in rows}) == 40


def test_page_says_that_kinto_orm_is_fine() -> None:
    assert [row[0] for row in table(PAGE) if not row[3].endswith(": **fine**")] == []


def test_page_says_what_kinto_orm_does_today(tmp_path: Path) -> None:
    pytest.importorskip("kinto_http", reason="kinto-http is what the page compares with: pip install kinto-http")
    written = tmp_path / "comparison.md"

    subprocess.run(
        [sys.executable, str(SCRIPT), "--output", str(written)], check=True, capture_output=True, timeout=120
    )

    assert of_kinto_orm(table(written)) == of_kinto_orm(table(PAGE))
