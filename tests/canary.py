"""A secret that must not be seen: what the suite's clients hold, looked for in all that the suite leaves behind.

Logs, warnings, the messages of our errors, the reports of tests with what they captured, temporary files, cassettes.
"""

from __future__ import annotations

import logging
import os
import secrets
import warnings
from base64 import b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kinto_orm import KintoError

# In the environment, because the processes of pytest-xdist have to look for the same one.
CANARY = os.environ.setdefault("KINTO_ORM_CANARY", secrets.token_hex(16))
CANARY_AUTH = ("canary", CANARY)
CANARY_HEADERS = {"X-Api-Key": CANARY}

CASSETTES = Path(__file__).parents[1] / "cassettes"
LOGGERS = ("kinto_orm", "urllib3", "requests")
MAX_FILES, MAX_SIZE = 3000, 2**20


class Canary(logging.Handler):
    """A pytest plugin that fails the session where the secret was seen, and says where."""

    def __init__(self, secret: str = CANARY) -> None:
        super().__init__(logging.DEBUG)
        self.forms = (secret, b64encode(f"canary:{secret}".encode()).decode())
        self.seen: list[str] = []
        self.looked_at = 0

    def look(self, where: str, *texts: object) -> None:
        """Remembers the place where one of the texts holds the secret."""
        self.looked_at += 1
        if any(form in str(text) for text in texts for form in self.forms):
            self.seen.append(where)

    def emit(self, record: logging.LogRecord) -> None:
        """Inspect a line of the log."""
        self.look(f"log of {record.name}: {record.msg}", record.getMessage(), record.exc_info)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Listen to the log and to the messages of our errors."""
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)
        logging.getLogger("kinto_orm").setLevel(logging.DEBUG)  # those of the others would drown a failing test's log
        watcher = self

        def watched(error: KintoError, *args: Any, **options: Any) -> None:
            watcher.look(f"message of {type(error).__name__}", *args)
            super(KintoError, error).__init__(*args, **options)

        KintoError.__init__ = watched  # type: ignore[method-assign]  # every error goes through it

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, nodeid: str) -> None:
        """Inspect a warning."""
        self.look(f"warning in {nodeid}", warning_message.message)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Inspect the output, the log and the failure of a test."""
        self.look(f"report of {report.nodeid}", report.longreprtext, *(text for _, text in report.sections))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Inspect files, and fail the session where the secret was seen."""
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)
        factory = getattr(session.config, "_tmp_path_factory", None)
        folders = [CASSETTES, *([factory.getbasetemp()] if factory is not None else [])]
        self.look_at_files(path for folder in folders for path in files_in(folder))
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output["canary"] = self.seen
        elif self.seen:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take the findings of another process of pytest-xdist."""
        self.seen += getattr(node, "workeroutput", {}).get("canary", [])

    def look_at_files(self, paths: Iterable[Path]) -> None:
        """Inspect files."""
        for path in paths:
            self.look(f"file {path}", path.read_bytes().decode("latin-1"))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says where the secret was seen."""
        if self.seen:
            terminalreporter.section("a secret was shown", red=True)
            for where in self.seen:
                terminalreporter.line(where)


def files_in(folder: Path) -> Iterator[Path]:
    """Small files; not those of databases, which belong to the server."""
    count = 0
    for place, folders, files in os.walk(folder):
        if "PG_VERSION" in files:
            folders.clear()
            continue
        for name in files:
            path = Path(place, name)
            if count < MAX_FILES and path.is_file() and not path.is_symlink() and path.stat().st_size < MAX_SIZE:
                count += 1
                yield path
