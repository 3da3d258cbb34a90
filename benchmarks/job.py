"""One measurement, in the form that the worker process gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

AUTH = ("bench", "mark")
BUCKET = "bench"
BATCH = 25
"""Kinto's own limit."""
CHANGED_EVERY = 100
"""Every 100th of the loaded records is changed: 1 %."""
COLLECTIONS = 4
"""Where work is on several ones."""
WARM_UP = 50
"""Records: enough to connect, and to build what is built once."""


@dataclass(frozen=True, slots=True)
class Job:
    """The task, its size, and its server."""

    contender: str
    """``module:function``."""
    url: str
    collection: str
    count: int
    page_size: int | None = 1000
    first: int = 0
    """The number of the first record, where records are named."""
    is_cold: bool = False
    """Without a warm-up."""
    counts_calls: bool = False
    """Count the calls inside of kinto_orm instead of measuring."""

    def numbers(self) -> range:
        """Return the numbers of the named records."""
        return range(self.first, self.first + self.count)

    def collections(self) -> dict[str, range]:
        """Return the ids of several collections, and the numbers of the records of each one."""
        share = self.count // COLLECTIONS
        return {f"{self.collection}-{one}": range(one * share, (one + 1) * share) for one in range(COLLECTIONS)}


Work = Callable[[], int]
"""What is measured; gives how many records it has done."""

Contender = Callable[[Job], Work]
"""Prepares the work, which is not measured."""
