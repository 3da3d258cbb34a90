"""Concurrency: several sequences of flows, moved by threads or by tasks of an event loop.

Memory is bounded: the workers wait while the consumer has results to take. When the iteration ends, the workers stop
after their current request, and all of them are joined before it returns.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextvars import copy_context
from functools import partial
from typing import Generic, TypeVar

from kinto_orm.protocol.writes import Flow, NextFlow

T = TypeVar("T")
R = TypeVar("R")


class ConcurrentFlows(Generic[T]):
    """The state of the workers and of the consumer, without waiting and without a lock: its callers have them.

    In order, one sequence comes after the other; twice as many sequences as workers are started, each with one result
    waiting. Out of order, results come as they arrive, and as many wait.
    """

    def __init__(self, sequences: Sequence[NextFlow[T]], workers: int, *, ordered: bool) -> None:
        self._sequences = sequences
        self._held = 2 * workers
        self._ordered = ordered
        self._ready: list[deque[T]] = [deque() for _ in sequences]
        self._has_ended = [False] * len(sequences)
        self._begun = self._first = self._fetching = 0
        self._error: BaseException | None = None
        self._is_stopped = False
        self.workers = min(workers, len(sequences))

    # -- what workers ask -----------------------------------------------------------------------------------------

    def may_begin(self) -> bool:
        """Return whether a worker can go on: start a new sequence, or end because there is none."""
        is_near = not self._ordered or self._begun < self._first + self._held
        return self._is_stopped or self._begun == len(self._sequences) or is_near

    def begin(self) -> int | None:
        """Return the sequence for a worker; ``None`` where none is left."""
        if self._is_stopped or self._begun == len(self._sequences):
            return None
        self._begun += 1
        return self._begun - 1

    def may_fetch(self, number: int) -> bool:
        """Return whether the worker can go on with that sequence, or end."""
        if self._is_stopped:
            return True
        if self._ordered:
            return not self._ready[number]
        return sum(map(len, self._ready)) + self._fetching < self._held

    def fetch(self, number: int) -> Flow[T] | None:
        """Return the next flow of the sequence; ``None`` at its end."""
        flow = None if self._is_stopped else self._sequences[number]()
        if flow is None:
            self._has_ended[number] = True
        else:
            self._fetching += 1
        return flow

    def put(self, number: int, result: T) -> None:
        """Store the result of a flow."""
        self._fetching -= 1
        self._ready[number].append(result)

    def fail(self, error: BaseException) -> None:
        """Store the error of a worker, and stop all others."""
        self._error = self._error or error
        self._is_stopped = True

    # -- what the consumer asks -----------------------------------------------------------------------------------

    def may_take(self) -> bool:
        """Return whether there is a result, an error, or the end."""
        return self._is_stopped or self._next() is not None or self._first == len(self._sequences)

    def take(self) -> list[T]:
        """Return the next result in a list, which is empty at the end.

        Raises the error of a worker, after the results before it.
        """
        ready = self._next()
        if ready is not None:
            return [ready.popleft()]
        if self._error is not None:
            raise self._error
        return []

    def stop(self) -> None:
        """Stop the workers."""
        self._is_stopped = True

    def _next(self) -> deque[T] | None:
        while self._first < len(self._sequences) and self._has_ended[self._first] and not self._ready[self._first]:
            self._first += 1
        some = self._ready[self._first : self._first + 1] if self._ordered else self._ready[self._first :]
        return next((one for one in some if one), None)


def in_threads(work: ConcurrentFlows[T], run: Callable[[Flow[T]], T]) -> Generator[T]:
    """Yield the results, produced by threads that live as long as the iteration."""
    condition = threading.Condition()
    # Each thread runs in a copy of the caller's context, so that hooks find the caller's context variables.
    threads = [
        threading.Thread(target=copy_context().run, args=(_work, work, run, condition), name="kinto-orm", daemon=True)
        for _ in range(work.workers)
    ]
    try:
        for thread in threads:
            thread.start()
        while taken := _when(condition, work.may_take, work.take):
            yield taken[0]
    finally:
        _when(condition, _always, work.stop)
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _work(work: ConcurrentFlows[T], run: Callable[[Flow[T]], T], condition: threading.Condition) -> None:
    try:
        while (number := _when(condition, work.may_begin, work.begin)) is not None:
            may_fetch, fetch = partial(work.may_fetch, number), partial(work.fetch, number)
            while (flow := _when(condition, may_fetch, fetch)) is not None:
                _when(condition, _always, partial(work.put, number, run(flow)))
    except BaseException as error:  # noqa: BLE001  the consumer raises it
        _when(condition, _always, partial(work.fail, error))


def _when(condition: threading.Condition, may: Callable[[], bool], do: Callable[[], R]) -> R:
    with condition:
        condition.wait_for(may)
        done = do()
        condition.notify_all()
        return done


async def in_tasks(work: ConcurrentFlows[T], run: Callable[[Flow[T]], Awaitable[T]]) -> AsyncGenerator[T]:
    """Yield the results, produced by tasks that live as long as the iteration; cancelling it cancels them."""
    condition = asyncio.Condition()
    tasks = [asyncio.create_task(_awork(work, run, condition)) for _ in range(work.workers)]
    try:
        while taken := await _awhen(condition, work.may_take, work.take):
            yield taken[0]
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        raise
    finally:
        await _awhen(condition, _always, work.stop)
        await asyncio.gather(*tasks, return_exceptions=True)


async def _awork(
    work: ConcurrentFlows[T], run: Callable[[Flow[T]], Awaitable[T]], condition: asyncio.Condition
) -> None:
    try:
        while (number := await _awhen(condition, work.may_begin, work.begin)) is not None:
            may_fetch, fetch = partial(work.may_fetch, number), partial(work.fetch, number)
            while (flow := await _awhen(condition, may_fetch, fetch)) is not None:
                await _awhen(condition, _always, partial(work.put, number, await run(flow)))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  the consumer raises it
        await _awhen(condition, _always, partial(work.fail, error))


async def _awhen(condition: asyncio.Condition, may: Callable[[], bool], do: Callable[[], R]) -> R:
    async with condition:
        await condition.wait_for(may)
        done = do()
        condition.notify_all()
        return done


def _always() -> bool:
    return True
