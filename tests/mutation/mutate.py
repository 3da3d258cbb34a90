"""Mutations of kinto_orm against its tests, run by hand: ``python tests/mutation/mutate.py --count 60 --seed 1``.

Each mutant is one changed place of a copy of the package: a comparison, a boolean, a number, a condition. Texts, errors
that are raised, and annotations stay. A mutant that the tests of its room, and then those of the rooms around it, let
pass is a survivor: it is printed with its place, and needs a test or a reason. The exit code is their number.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kinto_orm"

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
}
AROUND = [ROOT / "tests" / room for room in ("plugins", "models", "query", "client", "faults", "exactly_once")]
"""Rooms whose tests go through most of the others."""

LEFT_ALONE = (ast.Raise, ast.JoinedStr, ast.AnnAssign, ast.Assert, ast.ImportFrom, ast.Import)


@dataclass(frozen=True)
class Mutant:
    """One place of a module, and the text that takes its place."""

    module: Path
    line: int
    begin: int
    end: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.module.relative_to(ROOT)}:{self.line}: {self.before}  ->  {self.after}"

    @property
    def tests(self) -> list[str]:
        """The tests of the module, which most often find it, and then those of its room."""
        room = ROOT / "tests" / self.module.relative_to(PACKAGE).parts[0]
        folder = room if room.is_dir() else ROOT / "tests"
        paths = [folder / f"test_{self.module.stem}.py", room]
        return [str(path) for path in paths if path.exists()] or [str(around) for around in AROUND]


def mutants_of(module: Path) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    source = module.read_text()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    encoded = source.encode()
    for node in places(ast.parse(source)):
        assert node.end_lineno is not None and node.end_col_offset is not None
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = encoded[begin:end].decode()
        for after in changes_of(node):
            yield Mutant(module, node.lineno, begin, end, " ".join(before.split()), f"({after})")


def places(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions below a node that may be changed."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, LEFT_ALONE):
            continue
        if isinstance(child, ast.arg):  # its annotation
            continue
        if isinstance(child, ast.expr):
            yield child
        yield from places(child)


def changes_of(node: ast.expr) -> Iterator[str]:
    """Yield the texts that may take the place of an expression."""
    copy = deepcopy(node)
    if isinstance(copy, ast.Compare) and type(copy.ops[0]) in SWAPS:
        copy.ops[0] = SWAPS[type(copy.ops[0])]()  # type: ignore[call-overload]  # an operator
        yield ast.unparse(copy)
    elif isinstance(copy, (ast.BoolOp, ast.BinOp)) and type(copy.op) in SWAPS and not _is_text(copy):
        copy.op = SWAPS[type(copy.op)]()  # type: ignore[assignment]  # an operator
        yield ast.unparse(copy)
    elif isinstance(copy, ast.UnaryOp) and isinstance(copy.op, ast.Not):
        yield ast.unparse(copy.operand)
    elif isinstance(copy, ast.IfExp):
        yield ast.unparse(ast.IfExp(ast.UnaryOp(ast.Not(), copy.test), copy.body, copy.orelse))
    elif isinstance(copy, ast.Constant) and isinstance(copy.value, bool):
        yield str(not copy.value)
    elif isinstance(copy, ast.Constant) and isinstance(copy.value, int):
        yield str(copy.value + 1)


def _is_text(node: ast.AST) -> bool:
    return any(
        isinstance(one, ast.JoinedStr) or (isinstance(one, ast.Constant) and isinstance(one.value, str))
        for one in ast.walk(node)
    )


def survives(mutant: Mutant, tests: Sequence[str], copy: Path, timeout: float) -> bool:
    """Return whether the tests pass with the mutant; a hang counts as a failure."""
    target = copy / mutant.module.relative_to(ROOT)
    source = mutant.module.read_bytes()
    target.write_bytes(source[: mutant.begin] + mutant.after.encode() + source[mutant.end :])
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, check=False, timeout=timeout, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return False
    finally:
        target.write_bytes(source)
    return done.returncode == 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the mutants and return the number of survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="how many places to mutate")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--room", default=".", help="one room or module only: protocol, query/cached.py, …")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for the tests of one mutant")
    arguments = parser.parse_args(argv)
    modules = sorted(PACKAGE.rglob(arguments.room if arguments.room.endswith(".py") else f"{arguments.room}/**/*.py"))
    everything = [mutant for module in modules for mutant in mutants_of(module)]
    chosen = random.Random(arguments.seed).sample(everything, min(arguments.count, len(everything)))
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(PACKAGE, copy / "kinto_orm", ignore=shutil.ignore_patterns("__pycache__"))
        for number, mutant in enumerate(chosen, 1):
            is_alive = survives(mutant, mutant.tests, copy, arguments.timeout) and survives(
                mutant, [str(room) for room in AROUND], copy, 2 * arguments.timeout
            )
            survivors += is_alive
            sys.stdout.write(f"{number}/{len(chosen)} {'SURVIVED' if is_alive else 'killed'} {mutant}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{survivors} of {len(chosen)} survived, of {len(everything)} places\n")
    return survivors


if __name__ == "__main__":
    sys.exit(main())
