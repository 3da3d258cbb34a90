"""The connections of one event loop: how many requests use them at a time, and how they end with the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kinto_orm.errors import ConnectionFailedError
from kinto_orm.transport.prepare import POOL_SIZE

if TYPE_CHECKING:
    import httpx


class Pool:
    """The connections of one event loop. It is closed with the loop, by ``loop.shutdown_asyncgens()``, at the latest.

    No more than ``POOL_SIZE`` requests are on their way at a time; the others wait, in the order of their coming.
    Each has a transport of httpx to itself, which keeps one connection: a transport with many compares each of them
    with all others, twice for each request.
    """

    def __init__(self, make: Callable[[], httpx.AsyncHTTPTransport], on_end: Callable[[Pool], object]) -> None:
        self._make = make
        self._on_end = on_end
        self._all: list[httpx.AsyncHTTPTransport] = []
        self._idle: list[httpx.AsyncHTTPTransport] = []  # the last one that was used is taken first
        self._slots = asyncio.Semaphore(POOL_SIZE)
        self._users = 0
        self._is_left = False
        self._life = self._live()
        self._ending: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Makes the loop know of it."""
        await anext(self._life)

    async def _live(self) -> AsyncGenerator[None]:
        # A loop that is shut down closes the generators that were begun in it: that is where connections can still be
        # closed properly. asyncio.run() does so.
        try:
            yield
        finally:
            self._on_end(self)
            for transport in self._all:
                await transport.aclose()

    @asynccontextmanager
    async def turn(self, seconds: float, name: str) -> AsyncGenerator[httpx.AsyncHTTPTransport]:
        """A block that may send a request, by what it is given.

        Raises ``ConnectionFailedError`` where its turn did not come within the seconds.
        """
        self._users += 1
        try:
            await self._wait_for_slot(seconds, name)
            transport = self._idle.pop() if self._idle else self._new()
            try:
                yield transport
            finally:
                self._idle.append(transport)
                self._slots.release()
        finally:
            self._users -= 1
            if self._is_left:
                await self.leave()

    def _new(self) -> httpx.AsyncHTTPTransport:
        self._all.append(self._make())
        return self._all[-1]

    async def _wait_for_slot(self, seconds: float, name: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise ConnectionFailedError(
                f"{name}: nothing was sent, because {POOL_SIZE} other requests were on their way until the deadline. "
                "Start less at a time, or give the client a longer deadline."
            ) from None

    async def leave(self) -> None:
        """Closes the connections, as soon as nobody uses them any more."""
        self._is_left = True
        if not self._users:
            await self._life.aclose()

    def leave_soon(self) -> None:
        """Like :meth:`leave`; called by the loop itself."""
        self._ending = asyncio.ensure_future(self.leave())
