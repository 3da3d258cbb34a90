"""What users write is checked by mypy and pyright, both strict and without plugins: ``good.py``, ``bad.py`` and a pulled model."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

MARK = re.compile(r"# error(?:: (?P<checker>\w+))?$")
MYPY_ERROR = re.compile(r"(?P<file>[^:\n]+):(?P<line>\d+): error: (?P<message>.*)")

both_checkers = pytest.mark.parametrize("checker", ["mypy", "pyright"])


@both_checkers
def test_l16_what_users_write_is_inferred(checker: str) -> None:
    errors = [message for (file, _), message in find_errors(checker).items() if file != "bad.py"]

    assert errors == []


@both_checkers
def test_every_misuse_is_refused_and_nothing_else(checker: str) -> None:
    refused = {line for file, line in find_errors(checker) if file == "bad.py"}

    assert refused == set(marked_lines(checker))


def marked_lines(checker: str) -> list[int]:
    lines = (HERE / "bad.py").read_text("utf-8").splitlines()
    marks = [(number, MARK.search(line)) for number, line in enumerate(lines, 1)]
    return [number for number, mark in marks if mark and mark["checker"] in (None, checker)]


@cache
def find_errors(checker: str) -> dict[tuple[str, int], str]:
    return {"mypy": find_with_mypy, "pyright": find_with_pyright}[checker]()


def find_with_mypy() -> dict[tuple[str, int], str]:
    output = run("mypy", "--config-file=setup.cfg", *(str(HERE / f"{name}.py") for name in ("good", "bad", "pulled")))
    assert "checked 3 source files" in output, output
    found = MYPY_ERROR.finditer(output)
    return {(Path(one["file"]).name, int(one["line"])): one[0] for one in found}


def find_with_pyright() -> dict[tuple[str, int], str]:
    # `extraPaths` there finds the package itself, which checkers do not find where it is installed as editable.
    output = json.loads(run("pyright", "--outputjson", f"--project={HERE}", f"--pythonpath={sys.executable}"))
    assert output["summary"]["filesAnalyzed"] >= 3
    found = [one for one in output["generalDiagnostics"] if one["severity"] == "error"]
    return {(Path(one["file"]).name, one["range"]["start"]["line"] + 1): str(one) for one in found}


def run(checker: str, *arguments: str) -> str:
    environment = {**os.environ, "MYPYPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", checker, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout
