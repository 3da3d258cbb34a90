"""The benchmarks run. How fast anything is, no test can say: see ``make bench``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
REFERENCES = {"kinto-http", "import kinto_http"}


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a quick run printed, and the file that it wrote."""
    # Not "kinto_http": the folder tests/kinto_http would pass for it.
    pytest.importorskip(
        "kinto_http.client", reason="kinto-http is what the benchmarks compare with: pip install kinto-http"
    )
    result = tmp_path_factory.mktemp("bench") / "latest.json"
    return run("run.py", "--quick", "--output", str(result)), result


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=1200).stdout


def test_quick_run_measures_every_task_on_every_server(quick_run: tuple[str, Path]) -> None:
    printed, result = quick_run

    tasks = json.loads(result.read_text("utf-8"))["tasks"]

    assert {task["server"] for task in tasks.values()} == {
        "stub",
        "stub, 20 ms away",
        "Kinto in memory",
        "Kinto on PostgreSQL, two processes",
    }
    assert printed.count("to floor") == len(tasks)
    assert all(task["contestants"][0]["name"].partition(",")[0] in REFERENCES for task in tasks.values())


def test_quick_run_writes_every_sample(quick_run: tuple[str, Path]) -> None:
    _, result = quick_run

    tasks = json.loads(result.read_text("utf-8"))["tasks"]

    lines = [line for task in tasks.values() for line in task["contestants"]]
    assert all(line["samples"][0]["cpu"] > 0 for line in lines)
    assert all(line["target"] is None or line["reached"] > 0 for line in lines)


def test_page_has_a_line_for_each_contestant_and_keeps_its_text(quick_run: tuple[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the plots: pip install matplotlib")
    _, result = quick_run
    page = tmp_path / "performance.md"
    page.write_bytes(PAGE.read_bytes())

    for _ in range(2):
        run("page.py", "--result", str(result), "--page", str(page))

    before, after = PAGE.read_text("utf-8"), page.read_text("utf-8")
    tasks = json.loads(result.read_text("utf-8"))["tasks"].values()
    assert after.count("| requests + json |") == len(tasks) - 1
    assert after.startswith(before.partition("<!-- written")[0])
    assert after.endswith(before.partition("<!-- up to here -->")[2])
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".svg"}
