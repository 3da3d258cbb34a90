"""The command, called in this process."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kinto_orm.cli import main


@dataclass(frozen=True)
class Run:
    """One run of the command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """The JSON values that it printed."""
        return [json.loads(line) for line in self.out.splitlines()]


class Command:
    """The command, called in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str | Path, stdin: str | None = None) -> Run:
        if stdin is not None:
            self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        self._capsys.readouterr()
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        shown = self._capsys.readouterr()
        return Run(code, shown.out, shown.err)

    def in_terminal(self, *arguments: str | Path, answers: str = "", width: int = 100) -> Run:
        """Run it as in a terminal, which answers its questions with these lines."""
        with self._monkeypatch.context() as patched:
            patched.setenv("COLUMNS", str(width))
            patched.setenv("TERM", "xterm")
            patched.delenv("NO_COLOR", raising=False)
            for name in ("stdout", "stderr"):
                patched.setattr(f"sys.{name}.isatty", lambda: True, raising=False)
            stdin = io.StringIO(answers)
            stdin.isatty = lambda: True  # type: ignore[method-assign]
            patched.setattr("sys.stdin", stdin)
            return self(*arguments)
