"""The progress bar of scripts: on a terminal, and nowhere else."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminal import show_in_terminal

from kinto_orm.cli_options import progress_bar

ROOT = Path(__file__).parents[1]
SCRIPT = """
from kinto_orm import Bucket, Client, Collection
from kinto_orm.cli_options import progress_bar

with Client.embedded() as client:
    client.ensure(Bucket(id="b"), Collection(bucket="b", id="c"))
    with progress_bar() as progress:
        client.bucket("b").collection("c").records.sync(({"id": f"r{n}"} for n in range(60)), progress=progress)
        print("beside it")
    client.close()
"""


def run(stderr: int) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, stderr=stderr, timeout=60, check=True
    )


def test_a_terminal_shows_how_far_a_sync_is() -> None:
    done, shown = show_in_terminal(run)

    assert "60/60" in shown
    assert done.stdout == b"beside it\n"


def test_a_pipe_shows_nothing() -> None:
    assert run(subprocess.PIPE).stderr == b""


def test_without_rich_nothing_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    load = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return load(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    with progress_bar() as progress:
        progress(1, 2, "sync")

    assert capsys.readouterr().err == ""
