"""A query that is read by several threads, each with its own ranges of ids, or ahead by one."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from kinto_orm.protocol.writes import Flow, NextFlow
from kinto_orm.query.execution import PAGE_SIZE, Page, Place, Reading
from kinto_orm.query.partitions import TOLERANCE
from kinto_orm.repository.state import Stateful

M = TypeVar("M", bound=Stateful)

MOST_THREADS = 32
"""As many connections as a client keeps."""

MOST_RANGES = 256
"""So many ranges are looked for at most; they hold several pages each where there are more pages."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ParallelQuery(Generic[M]):
    """A query to be iterated, whose pages are fetched by several threads; awaited, by tasks of the event loop.

    Each iteration has its own threads, which end with it: when its end was reached, when it is left early, or when one
    of them fails, which is raised. At most two pages for each thread are in memory.

    The event loop ends an ``async for`` that is left early, soon after; ``aclosing(aiter(query))`` waits for that.
    """

    reading: Reading[M]
    threads: int
    ordered: bool

    def __iter__(self) -> Iterator[M]:
        with closing(self.pages()) as pages:
            for page in pages:
                yield from page.objects

    async def __aiter__(self) -> AsyncGenerator[M]:
        async with aclosing(self.apages()) as pages:
            async for page in pages:
                for one in page.objects:
                    yield one

    def pages(self) -> Generator[Page[M]]:
        """The pages; not ordered, as they come. Each tells whether its own range of ids has more."""
        place = self.reading.source.locate()
        walks = place.runner.run(place.asked(self._walks(place)))
        return place.runner.run_concurrently(walks, workers=self.threads, ordered=self.ordered)

    async def apages(self) -> AsyncGenerator[Page[M]]:
        """Like :meth:`pages`."""
        place = self.reading.source.locate()
        walks = await place.runner.arun(place.asked(self._walks(place)))
        async with aclosing(place.runner.arun_concurrently(walks, workers=self.threads, ordered=self.ordered)) as pages:
            async for page in pages:
                yield page

    def __repr__(self) -> str:
        return f"<ParallelQuery of {self.reading.source.kind.plural}, {self.threads} threads>"

    def _walks(self, place: Place) -> Flow[list[NextFlow[Page[M]]]]:
        if self.threads == 1:
            return [self.reading.walk(place).next_page]  # any order will do
        ranges = yield from self.reading.ranges(place, self._parts)
        return [self.reading.within(one).walk(place).next_page for one in ranges]

    def _parts(self, count: int) -> int:
        """Into how many ranges so many objects are cut: of a page each, so that they can be fetched in order."""
        size = self.reading.selection.page_size or PAGE_SIZE
        if count <= size:
            return 1
        # A range that is a little too large would be a page and the rest of another.
        pages = math.ceil(count * (1 + TOLERANCE) / size)
        # As many for each thread.
        return min(math.ceil(pages / self.threads), MOST_RANGES // self.threads) * self.threads
