"""No row of the matrix is missing, and none is said to be tested where it is not."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from fault_rows import CANNOT_APPLY, ELSEWHERE, PENDING, ROWS

from kinto_orm.cli import COMMANDS

HERE = Path(__file__).parent
TESTS = HERE.parent


def rows_here() -> set[str]:
    """Return the rows that tests or parameters in this directory are named after.

    Rows of the letter O are of another list: the faults that an attack found.
    """
    text = "\n".join(path.read_text("utf-8") for path in HERE.glob("test_*.py"))
    rows = [*re.findall(r"def test_([a-z]\d\d)_", text), *re.findall(r'id="([A-Z]\d\d)\b', text)]
    return {row.upper() for row in rows if row[0] not in "oO"}


def test_there_are_179_rows() -> None:
    assert len(ROWS) == len(set(ROWS)) == 179


def test_every_row_is_tested_or_cannot_apply() -> None:
    found = [rows_here(), set(ELSEWHERE), set(CANNOT_APPLY)]

    assert {row: sum(row in one for one in found) for row in ROWS} == dict.fromkeys(ROWS, 1)
    assert set().union(*found) == set(ROWS)


def test_rows_that_fail_so_far_have_a_test_here() -> None:
    assert set(PENDING) <= rows_here()


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    return {one.name for one in ast.walk(tree) if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_what_stands_elsewhere_is_there() -> None:
    places = {tuple(place.split("::")) for places in ELSEWHERE.values() for place in places}

    assert {place for place in places if place[1] not in functions_of(place[0])} == set()


def test_each_bad_id_has_its_own_parameter() -> None:
    text = (TESTS / "protocol/test_paths.py").read_text("utf-8")

    assert [row for row in ELSEWHERE if row[0] == "A" and row not in text] == []


def test_what_cannot_apply_does_not_exist() -> None:
    assert "replicate" not in COMMANDS
