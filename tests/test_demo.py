"""The demo, on less data: ``examples/countries.py``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinto_orm.server import EmbeddedServer, listening

ROOT = Path(__file__).parents[1]
LIMIT = 300


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "countries.py"), "--limit", str(LIMIT), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "PATH": ""}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=300)


def summary_of(run: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the result of each step, from the table at the end."""
    assert (run.returncode, run.stderr) == (0, "")
    table = run.stdout.rpartition("\n\n")[0]
    header, _, *steps, _, _ = table.strip().splitlines()[-13:]
    at, end = header.index("What was done"), header.index("Requests")
    return {line[:at].strip(): line[at:end].strip() for line in steps}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedServer.memory() as server, listening(server) as url:
        yield url


@pytest.fixture(scope="module")
def two_runs(url: str) -> list[dict[str, str]]:
    users = ("--auth", "alice:wonderland", "--second-auth", "bob:builder")
    return [summary_of(run_demo("--server", url, *users)) for _ in range(2)]


def test_the_demo_loads_asks_resolves_commits_and_renames(two_runs: list[dict[str, str]]) -> None:
    first = two_runs[0]

    assert first["Set up"] == "6 objects: 6 created"
    assert first["Load the countries"] == "249 created, 0 there already"
    assert first["Load the subdivisions"] == "300 created, 0 there already"
    assert first["Load the languages"] == "300 created, 0 there already"
    assert first["Ask questions"] == "10 questions answered"
    assert first["Meet a conflict"] == "noticed and resolved: 0 + 2 + 1 = 3 visits"
    assert first["Commit a unit of work"] == "4 writes in one batch: 1 created, 2 updated, 1 deleted"
    assert first["Rename a field"] == "72 changed and sent, 228 left alone"


def test_a_second_run_of_the_demo_on_the_same_server_writes_only_what_is_new(two_runs: list[dict[str, str]]) -> None:
    second = two_runs[1]

    assert second["Set up"] == "6 objects: 6 unchanged"
    assert second["Load the countries"] == "0 created, 249 there already"
    assert second["Load the subdivisions"] == "0 created, 300 there already"
    assert second["Load the languages"] == "0 created, 300 there already"
    assert second["Meet a conflict"] == "noticed and resolved: 3 + 2 + 1 = 6 visits"
    assert second["Rename a field"] == "0 changed and sent, 300 left alone"


def test_the_demo_runs_on_the_embedded_server_by_default() -> None:
    run = run_demo("--limit", "5")

    assert summary_of(run)["Load the languages"] == "5 created, 0 there already"


def test_the_demo_without_a_server_ends_with_one_and_says_which_step_failed() -> None:
    run = run_demo("--server", "http://localhost:1/v1", "--auth", "a:b")

    assert run.returncode == 1
    assert "The demo failed at “Reach a server”: GET / on localhost:1: no connection" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_demo_with_credentials_that_the_server_refuses_says_so(url: str) -> None:
    run = run_demo("--server", url, "--auth", "Bearer nonsense")

    assert run.returncode == 1
    assert "The demo failed at “Set up”: the server does not accept the credentials" in run.stderr
