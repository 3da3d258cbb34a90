"""Every name of the reference client is importable here, or named in the documentation as one that is not."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

reference: Any = pytest.importorskip("kinto_http", reason="kinto-http is not installed: pip install kinto-http")
MIGRATING = Path(__file__).parents[2] / "docs" / "migrating.md"


def modules() -> list[str]:
    return ["", *(f".{one.name}" for one in pkgutil.iter_modules(reference.__path__))]


def names_of(module: ModuleType) -> list[str]:
    """Return the names that a program may take from the module: those defined in the package, and its constants."""
    found = [name for name, value in vars(module).items() if not name.startswith("_") and is_own(name, value)]
    for name in list(found):
        if inspect.isclass(owner := getattr(module, name)):
            found += [f"{name}.{one}" for kind in owner.__mro__ if is_own(name, kind) for one in vars(kind)]
    return [name for name in found if not any(part.startswith("_") for part in name.split("."))]


def is_own(name: str, value: object) -> bool:
    if inspect.ismodule(value):  # an imported module is not the module's name
        return value.__name__ == f"kinto_http.{name}" and value.__name__ in sys.modules
    if inspect.isclass(value) or inspect.isroutine(value):
        return str(value.__module__).startswith("kinto_http")
    is_typing = hasattr(value, "_name") or name == "TYPE_CHECKING"
    return type(value).__module__ in ("builtins", "re", "functools", "logging") and not is_typing


def lacks(module: ModuleType, name: str) -> bool:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            return True
        found = getattr(found, part)
    return False


@pytest.mark.parametrize("module", modules())
def test_m12_every_name_is_there_or_said_not_to_be(module: str) -> None:
    theirs, ours = (importlib.import_module(f"{package}{module}") for package in ("kinto_http", "kinto_orm.kinto_http"))

    names = names_of(theirs) if not module else [one for one in names_of(theirs) if one != "utils"]
    missing = [f"{module}.{name}".lstrip(".") for name in names if lacks(ours, name)]

    said = MIGRATING.read_text()
    assert [name for name in missing if f"`{name}`" not in said and f"`{name.rpartition('.')[0]}`" not in said] == []


def test_m12_what_is_said_not_to_be_there_is_not() -> None:
    line = next(one for one in MIGRATING.read_text().splitlines() if one.startswith("Not there: "))

    for name in line.removeprefix("Not there: ").split(". ")[0].split(", "):
        module, _, rest = name.strip("`").partition(".")
        assert lacks(importlib.import_module(f"kinto_orm.kinto_http.{module}"), rest), name
