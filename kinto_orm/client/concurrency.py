"""Several sequences of flows, moved side by side: by threads, or by tasks of an event loop.

Memory is bounded: what was not taken yet makes the workers wait. When the iteration ends, however it ends, they stop
after the request that they are at, and it waits for them: nothing goes on behind the caller's back.
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
    """Who may do what next. It does not wait and has no lock: who moves it has them.

    In order, a sequence comes after the other, and twice as many as there are workers are begun; each has one result
    waiting. Else results come as they come, and as many wait.
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
        """Whether a worker can go on: with a new sequence, or to its end because there is none."""
        is_near = not self._ordered or self._begun < self._first + self._held
        return self._is_stopped or self._begun == len(self._sequences) or is_near

    def begin(self) -> int | None:
        """The sequence that the worker takes; ``None`` where none is left."""
        if self._is_stopped or self._begun == len(self._sequences):
            return None
        self._begun += 1
        return self._begun - 1

    def may_fetch(self, number: int) -> bool:
        """Whether the worker can go on with that sequence, or to its end."""
        if self._is_stopped:
            return True
        if self._ordered:
            return not self._ready[number]
        return sum(map(len, self._ready)) + self._fetching < self._held

    def fetch(self, number: int) -> Flow[T] | None:
        """The flow to run; ``None`` where none comes any more."""
        flow = None if self._is_stopped else self._sequences[number]()
        if flow is None:
            self._has_ended[number] = True
        else:
            self._fetching += 1
        return flow

    def put(self, number: int, result: T) -> None:
        """Takes the result of the flow."""
        self._fetching -= 1
        self._ready[number].append(result)

    def fail(self, error: BaseException) -> None:
        """Takes the error of a worker: all others stop."""
        self._error = self._error or error
        self._is_stopped = True

    # -- what the consumer asks -----------------------------------------------------------------------------------

    def may_take(self) -> bool:
        """Whether there is a result, an error, or the end."""
        return self._is_stopped or self._next() is not None or self._first == len(self._sequences)

    def take(self) -> list[T]:
        """The next result; empty at the end. Raises the error of a worker, after what had come before it."""
        ready = self._next()
        if ready is not None:
            return [ready.popleft()]
        if self._error is not None:
            raise self._error
        return []

    def stop(self) -> None:
        """Makes the workers stop."""
        self._is_stopped = True

    def _next(self) -> deque[T] | None:
        while self._first < len(self._sequences) and self._has_ended[self._first] and not self._ready[self._first]:
            self._first += 1
        some = self._ready[self._first : self._first + 1] if self._ordered else self._ready[self._first :]
        return next((one for one in some if one), None)


def in_threads(work: ConcurrentFlows[T], run: Callable[[Flow[T]], T]) -> Generator[T]:
    """The results, with threads that are there as long as the iteration."""
    condition = threading.Condition()
    # Each in a context of its own, so that hooks find there what the caller put there.
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
    except BaseException as error:  # noqa: BLE001  it is raised where the results are taken
        _when(condition, _always, partial(work.fail, error))


def _when(condition: threading.Condition, may: Callable[[], bool], do: Callable[[], R]) -> R:
    with condition:
        condition.wait_for(may)
        done = do()
        condition.notify_all()
        return done


async def in_tasks(work: ConcurrentFlows[T], run: Callable[[Flow[T]], Awaitable[T]]) -> AsyncGenerator[T]:
    """The results, with tasks that are there as long as the iteration; where it is cancelled, so are they."""
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
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  it is raised where the results are taken
        await _awhen(condition, _always, partial(work.fail, error))


async def _awhen(condition: asyncio.Condition, may: Callable[[], bool], do: Callable[[], R]) -> R:
    async with condition:
        await condition.wait_for(may)
        done = do()
        condition.notify_all()
        return done


def _always() -> bool:
    return True
