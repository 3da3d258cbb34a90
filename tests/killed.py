"""Work in a process that is killed with SIGKILL at one of many points: after a request, or beside a file."""

from __future__ import annotations

import itertools
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kinto_orm import Client
from kinto_orm.repository import disk
from kinto_orm.server import EmbeddedServer


def points() -> Iterator[int]:
    """Return the points at which a test kills: each sixth one; all in ``tox -e slow``."""
    return itertools.count(0, 1 if os.environ.get("KINTO_ORM_EVERYTHING") else 6)


def start_server(config: pytest.Config, folder: Path, **options: Any) -> EmbeddedServer:
    """Return a server of the test alone: in memory, or on PostgreSQL where pytest has the option for it."""
    if config.getoption("--kinto-postgres"):
        return EmbeddedServer.postgres(folder / "data", **options)
    return EmbeddedServer.memory(**options)


def kill_at(point: int, url: str, work: Callable[[Client], object], **options: Any) -> bool:
    """Do the work in another process, with a client of that server; return whether it was killed at the point.

    A point is a response of the server, or a file that is about to take its place.
    """
    with warnings.catch_warnings():
        # The threads of the parent wait for requests: they hold no lock that the child needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            _work_in_child(point, url, work, options)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the work itself failed"
    return False


def _work_in_child(point: int, url: str, work: Callable[[Client], object], options: dict[str, Any]) -> None:
    left = itertools.count(point, -1)

    def count_down(*_: object) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    close = disk.NewFile.close

    def close_or_die(file: disk.NewFile) -> Any:
        count_down()
        return close(file)

    pytest.MonkeyPatch().setattr(disk.NewFile, "close", close_or_die)
    client = Client(url, on_response=count_down, **options)
    work(client)
    os._exit(0)
