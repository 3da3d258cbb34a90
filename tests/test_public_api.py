"""The public names: there, documented, and each verb with a twin that awaits."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import kinto_orm
from kinto_orm import (
    Account,
    Bucket,
    CachedQuery,
    Client,
    Collection,
    EntryQuery,
    Group,
    History,
    Manager,
    Partition,
    Query,
    Record,
    RecordManager,
    Snapshot,
    SyncPlan,
    UnitOfWork,
    errors,
)
from kinto_orm.models.kinto_object import KintoObject

DOCS = Path(__file__).parents[1] / "docs"
SURFACES: list[type[Any]] = [Client, Account, Bucket, Group, Collection, Record, Query, Manager, UnitOfWork]
SURFACES += [CachedQuery, EntryQuery, History, Partition, RecordManager, Snapshot, SyncPlan]

WITHOUT_IO: dict[type[Any], set[str]] = {
    Client: {
        "account",
        "bind",
        "bucket",
        "clear_plan",
        "clone",
        "close",
        "embedded",
        "gather",
        "get_endpoint",
        "plan",
        "unit_of_work",
    },
    KintoObject: {"model_construct", "model_copy", "to_dict"},
    Bucket: {"collection", "group"},
    Collection: {"publication"},
    EntryQuery: {"filter", "limit", "page_size"},
    History: {"before", "since"},
    Manager: {"ref", "as_of", "edit", "history"},
    Partition: {"on"},
    RecordManager: {"as_of", "attachment", "changes", "edit", "history", "unsaved", "watch"},
    SyncPlan: {"as_json"},
    Query: {"before", "cached", "exclude", "filter", "limit", "only", "order_by", "page_size", "parallel", "since"},
    UnitOfWork: {"delete", "patch", "plan", "replace", "rollback", "save"},
}
"""Methods that ask the server nothing, and so need no twin."""

RUNNERS = {
    *(
        (Client, "run"),
        (Client, "close"),
        (Query, "pages"),
        (Manager, "pages"),
        (Partition, "pages"),
        (Partition, "read"),
    ),
    *((Manager, f"stream_{verb}") for verb in ("create", "update", "delete")),
    *((RecordManager, name) for name in ("pages", "stream_create", "stream_update", "stream_delete")),
}
"""What moves flows itself."""


def own_methods(surface: type[Any]) -> dict[str, Any]:
    """Return the public methods and properties that are ours, not pydantic's."""
    ours = (cls for cls in reversed(surface.__mro__) if cls.__module__.startswith("kinto_orm"))
    found = {name: value for cls in ours for name, value in vars(cls).items() if not name.startswith("_")}
    return {
        name: one for name, one in found.items() if inspect.isfunction(one) or isinstance(one, (property, classmethod))
    }


def public_names(surface: type[Any]) -> set[str]:
    """Return the names that a user sees on an object of the class: ours, without the twins."""
    ours = [cls for cls in surface.__mro__ if cls.__module__.startswith("kinto_orm")]
    found = {name for cls in ours for name in (*vars(cls), *vars(cls).get("__annotations__", {})) if name[0] != "_"}
    return found - {twin_of(name) for name in found} - set(dir(BaseModel))


def names_in_the_pages() -> set[str]:
    """Return all words in the samples of docs/ and between backticks; api.md lists more."""
    pages = [page for page in DOCS.glob("*.md") if page.name not in ("changelog.md", "coverage.md")]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    return set(re.findall(r"\w+", " ".join(re.findall(r"(?ms)^```.*?^```|`[^`]+`", text))))


def find_twins() -> Iterator[tuple[type[Any], str]]:
    for surface in SURFACES:
        for name in dir(surface):
            method = inspect.getattr_static(surface, name)
            verb = "sync" if name == "async_" else name[1:]
            if inspect.isfunction(method) and name.startswith("a") and hasattr(surface, verb):
                yield surface, verb


TWINS = list(find_twins())


def twin_of(verb: str) -> str:
    """Return the name of the awaitable twin; ``async`` is a keyword of Python."""
    return "async_" if verb == "sync" else f"a{verb}"


def body_of(method: Any) -> list[ast.stmt]:
    """Return the statements of the method, without its docstring."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(method))).body
    assert isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
    return [one for one in function.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]


class Plain(ast.NodeTransformer):
    """Takes the awaiting out of a statement."""

    def visit_Await(self, node: ast.Await) -> ast.AST:
        plain: ast.AST = self.visit(node.value)
        return plain

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        node.attr = node.attr.replace("__kinto_aperform__", "__kinto_perform__")
        node.attr = {"arun": "run", "_arun": "_run", "asave": "save"}.get(node.attr, node.attr)
        return node


def without_twin(surface: type[Any]) -> set[str]:
    """Return the methods that ask the server and have no twin."""
    methods = {name for name, method in own_methods(surface).items() if inspect.isfunction(method)}
    silent = set().union(*(names for cls, names in WITHOUT_IO.items() if issubclass(surface, cls)))
    twins = {twin_of(name) for name in methods}
    return {name for name in methods - silent - twins if twin_of(name) not in methods}


def has_same_signature(surface: type[Any], name: str) -> bool:
    verb, twin = (inspect.signature(getattr(surface, one)) for one in (name, twin_of(name)))
    returned = str(twin.return_annotation)
    return verb.parameters == twin.parameters and str(verb.return_annotation) in (
        returned,
        returned.replace("Async", ""),
    )


def says_the_same(surface: type[Any], name: str) -> bool:
    verb, twin = (body_of(getattr(surface, one)) for one in (name, twin_of(name)))
    same = [ast.dump(one) for one in verb] == [ast.dump(Plain().visit(one)) for one in twin]
    return same and (len(verb) == 1 or surface is UnitOfWork)


def is_awaited(surface: type[Any], name: str) -> bool:
    twin = getattr(surface, twin_of(name))
    awaits = inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin)
    return awaits and not inspect.iscoroutinefunction(getattr(surface, name))


def test_the_public_names_are_sorted() -> None:
    # As ruff sorts them: constants first.
    assert kinto_orm.__all__ == sorted(
        kinto_orm.__all__, key=lambda name: (not (len(name) > 1 and name.isupper()), name)
    )


def test_every_public_name_is_there_and_documented() -> None:
    assert [name for name in kinto_orm.__all__ if not inspect.getdoc(getattr(kinto_orm, name))] == []


def test_nothing_public_is_left_out_of_the_public_names() -> None:
    names = [name for name in dir(kinto_orm) if name[0] != "_"]
    public = {name for name in names if not inspect.ismodule(getattr(kinto_orm, name))}
    assert public == set(kinto_orm.__all__)


def test_rare_names_are_loaded_when_they_are_first_asked_for() -> None:
    table = kinto_orm._AT_FIRST_USE
    code = f"import sys, kinto_orm; loaded = set(sys.modules); print(*sorted(loaded & {set(table.values())}))"

    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert loaded.split() == []
    assert table.keys() <= set(dir(kinto_orm)) & set(kinto_orm.__all__)
    assert {name: getattr(kinto_orm, name).__module__ for name in table} == table


def test_checkers_see_the_rare_names_too() -> None:
    branches = [one for one in ast.parse(inspect.getsource(kinto_orm)).body if isinstance(one, ast.If)]

    imported = [one for branch in branches for one in branch.body if isinstance(one, ast.ImportFrom)]

    assert {name.name: one.module for one in imported for name in one.names} == kinto_orm._AT_FIRST_USE


def test_every_exception_is_a_public_name() -> None:
    exceptions = {name for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, Exception)}
    assert exceptions <= set(kinto_orm.__all__)


def test_every_public_method_is_documented() -> None:
    methods = {(surface, name): one for surface in SURFACES for name, one in own_methods(surface).items()}

    assert [one for one, method in methods.items() if not inspect.getdoc(method)] == []


def test_every_public_name_of_a_class_is_in_the_documentation() -> None:
    # All members of these are listed by Sphinx, which is enough for values.
    listed = re.findall(r"autoclass:: (?:[a-z]\S*\.)?(\w+)\n   :members:\n", (DOCS / "api.md").read_text("utf-8"))
    values = set(listed) - {surface.__name__ for surface in SURFACES}
    classes = [one for name in kinto_orm.__all__ if inspect.isclass(one := getattr(kinto_orm, name))]
    words = names_in_the_pages()

    missing = {one.__name__: public_names(one) - words for one in classes if one.__name__ not in values}

    assert [(name, sorted(names)) for name, names in missing.items() if names] == []


def test_every_method_that_asks_the_server_has_a_twin() -> None:
    assert {surface.__name__: found for surface in SURFACES if (found := without_twin(surface))} == {}


def test_a_twin_has_the_same_signature() -> None:
    assert [one for one in TWINS if not has_same_signature(*one)] == []


def test_a_verb_and_its_twin_say_the_same() -> None:
    assert [one for one in TWINS if one not in RUNNERS and not says_the_same(*one)] == []


def test_a_twin_awaits_and_its_verb_does_not() -> None:
    assert [one for one in TWINS if not is_awaited(*one)] == []


def test_queries_clients_and_units_work_with_async_for_and_async_with() -> None:
    assert all(hasattr(one, "__aiter__") for one in (Query, Manager, EntryQuery, Snapshot))
    assert all(hasattr(one, "__aenter__") and hasattr(one, "__aexit__") for one in (Client, UnitOfWork))


@pytest.mark.parametrize(
    ("surface", "verbs"),
    [
        (Record, {"asave", "areplace", "apatch", "adelete", "arefresh"}),
        (Query, {"aget", "aget_or_none", "aget_many", "afirst", "aone", "aall", "acount", "aexists", "avalues"}),
        (Query, {"apages", "atimestamp", "adelete", "aupdate"}),
        (Manager, {"acreate", "aget_or_create", "aupdate_or_create", "abulk_create", "abulk_update", "abulk_delete"}),
        (RecordManager, {"aattach", "adetach", "adownload"}),
        (Manager, {"arevert"}),
        (EntryQuery, {"aall", "acount", "aexists", "afirst"}),
        (History, {"apurge", "atimestamp"}),
        (Snapshot, {"aall", "acount", "aget"}),
        (Client, {"aserver_info", "aensure"}),
        (UnitOfWork, {"acommit", "aget"}),
    ],
)
def test_the_twins_that_were_promised_are_there(surface: type[Any], verbs: set[str]) -> None:
    assert {verb for verb in verbs if not hasattr(surface, verb)} == set()


def test_kinto_spells_the_verbs_of_all_kinds_alike() -> None:
    verbs = {"save", "replace", "patch", "delete", "refresh"}
    assert all(verbs <= set(dir(kind)) for kind in (Account, Bucket, Group, Collection, Record))
