"""One measurement, as the worker process gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

AUTH = ("bench", "mark")
BUCKET = "bench"
BATCH = 25
"""Kinto's own limit."""
CHANGED_EVERY = 100
"""Every 100th of the loaded records is changed: 1 %."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to do, how often, and where."""

    contender: str
    """``module:function``."""
    url: str
    collection: str
    count: int
    page_size: int = 1000


Work = Callable[[], int]
"""What is measured; gives how many records it has done."""

Contender = Callable[[Job], Work]
"""Prepares the work, which is not measured."""
