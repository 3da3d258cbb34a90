"""The page on coverage names everything that the reference client has, and tests that are there."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kinto_orm import kinto_http as ours

reference: Any = pytest.importorskip("kinto_http", reason="kinto-http is not installed: pip install kinto-http")

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "coverage.md").read_text(encoding="utf-8")
ROWS = [re.split(r" ?\| ?", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| ")]
FEATURES = [row for row in ROWS if row[0] != "`kinto-http`" and not row[0].startswith("---")]
CLIENTS = [reference.Client, reference.AsyncClient]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


NAMED = {name for row in FEATURES for name in quoted(row[0])}
SHOWN = sorted({test for row in FEATURES for test in quoted(row[3])})


def verbs(client: type[Any]) -> list[str]:
    """Return the public methods, without other names of the same method."""
    return [name for name in dir(client) if name[0] != "_"]


def names_of(module: Any) -> set[str]:
    """Return the names that a module defines itself, as its users would write them."""
    own = {
        name
        for name, one in vars(module).items()
        if name[0] != "_" and (name.isupper() or getattr(one, "__module__", None) == module.__name__)
    }
    return {f"{module.__name__.partition('.')[2]}.{name}" for name in own - {"TYPE_CHECKING"}}


MODULES = [one.name for one in pkgutil.iter_modules(reference.__path__) if not one.ispkg]


def test_every_verb_of_the_reference_client_has_a_row_and_is_there_in_ours() -> None:
    found = [(client.__name__, name) for client in CLIENTS for name in verbs(client)]

    assert [one for one in found if one[1] not in NAMED] == []
    assert [(client, name) for client, name in found if not hasattr(getattr(ours, client), name)] == []


def test_every_option_of_the_reference_client_has_a_row() -> None:
    options = set(inspect.signature(reference.Client).parameters)

    assert options - NAMED == set()


def test_every_name_of_a_module_has_a_row() -> None:
    found = {one for name in MODULES for one in names_of(importlib.import_module(f"kinto_http.{name}"))}

    assert {one for one in found if one not in NAMED and one.partition(".")[2] not in NAMED} == set()


def test_what_the_package_exports_has_a_row() -> None:
    named = {name.rpartition(".")[2] for name in NAMED}

    assert {name for name in reference.__all__ if name not in named | set(MODULES)} - {"logger"} == set()


@cache
def functions_of(path: str) -> set[str]:
    """Return the functions of a test module, also those of its classes."""
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}


def is_there(shown: str) -> bool:
    """Return whether a test exists that is named by its path below tests/, with a scenario in brackets."""
    spelled = re.fullmatch(r"(.+\.py)::(\w+)(?:\[(\w+)\])?", shown)
    if spelled is None:
        return False
    path, test, case = spelled.groups()
    return {test} | ({case} if case else set()) <= functions_of(path)


def test_every_test_that_is_named_is_there() -> None:
    assert [shown for shown in SHOWN if not is_there(shown)] == []


def test_every_row_is_whole_and_shown_by_a_test() -> None:
    assert [row for row in FEATURES if len(row) != 4 or not all(row)] == []
    assert [row for row in FEATURES if not quoted(row[3])] == []
