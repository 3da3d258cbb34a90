"""Pauses that are noted instead of made. Import it before the clients, which keep a reference to ``time.sleep``."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

_noted: dict[int, list[float]] = {}
_really_sleep = time.sleep


@contextmanager
def noted_in(waits: list[float]) -> Generator[None]:
    """Make ``time.sleep`` return at once in this thread during the block, and note the seconds in ``waits``."""
    _noted[threading.get_ident()] = waits
    try:
        yield
    finally:
        del _noted[threading.get_ident()]


def _sleep(seconds: float, /) -> None:
    waits = _noted.get(threading.get_ident())
    if waits is None:
        _really_sleep(seconds)
    else:
        waits.append(seconds)


time.sleep = _sleep
