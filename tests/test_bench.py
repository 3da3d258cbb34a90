"""The benchmarks run. How fast anything is, no test can say: see ``make bench``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "benchmarks" / "run.py"


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a quick run printed, and the file that it wrote."""
    # Not "kinto_http": the folder tests/kinto_http would pass for it.
    pytest.importorskip(
        "kinto_http.client", reason="kinto-http is what the benchmarks compare with: pip install kinto-http"
    )
    result = tmp_path_factory.mktemp("bench") / "latest.json"
    command = [sys.executable, str(RUN), "--quick", "--output", str(result)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout, result


def test_quick_run_prints_a_table_for_each_task(quick_run: tuple[str, Path]) -> None:
    printed, _ = quick_run

    assert printed.count("to k-http") == 2 * 7
    assert printed.count("requests + json") == 7


def test_quick_run_writes_every_sample(quick_run: tuple[str, Path]) -> None:
    _, result = quick_run

    tasks = json.loads(result.read_text("utf-8"))["tasks"]

    assert set(tasks) == {
        "write",
        "read-1000",
        "get",
        "save",
        "save-changed",
        "commit",
        "kinto-write",
    }
    assert all(line["samples"][0]["cpu"] > 0 for task in tasks.values() for line in task["contestants"])
