"""Read, change, save, and again from the start where another client was faster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from kinto_orm.errors import ConcurrentWriteError, ConflictError, ResponseError, UsageError
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.protocol.writes import Flow
from kinto_orm.query import Place

M = TypeVar("M", bound=KintoObject)


@dataclass(frozen=True, slots=True)
class Editing(Generic[M]):
    """The attempts to change one object: ``for attempt in …: with attempt as one: …``, or with ``async``."""

    locate: Callable[[], Place]
    load: Callable[[int, Place], Flow[M]]
    """Gives the object, for the attempt of that number."""
    attempts: int

    def __iter__(self) -> Iterator[Attempt[M]]:
        for attempt in self._attempts():
            yield attempt
            if attempt.is_done:
                return

    async def __aiter__(self) -> AsyncIterator[Attempt[M]]:
        for attempt in self._attempts():
            yield attempt
            if attempt.is_done:
                return

    def _attempts(self) -> Iterator[Attempt[M]]:
        place = self.locate()
        place.runner.refuse_staging("edit()")
        for number in range(1, self.attempts + 1):
            yield Attempt(self, place, number)


class Attempt(Generic[M]):
    """One attempt: a block that gets the object as it is now, and saves it at its end.

    Where another client changed it in between, the next attempt begins; the last one raises ``ConflictError``.
    """

    def __init__(self, editing: Editing[M], place: Place, number: int) -> None:
        self._editing = editing
        self._place = place
        self._object: M | None = None
        self.number = number
        """Counts from 1."""
        self._is_over = False

    @property
    def is_done(self) -> bool:
        """Whether the object is saved; raises ``UsageError`` where the block was never entered."""
        if self._object is None:
            raise UsageError("edit() gives attempts to be entered: for attempt in …edit(id): with attempt as one: …")
        return self._is_over

    def _flow(self) -> Flow[M]:
        return self._editing.load(self.number, self._place)

    def _next_one_may_try(self, error: ResponseError) -> None:
        if self.number == self._editing.attempts:
            raise error

    def __enter__(self) -> M:
        self._object = self._place.runner.run(self._flow())
        return self._object

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                if not self._entered().is_deleted:  # which the block may have done by itself
                    self._entered().save()
                self._is_over = True
            except (ConflictError, ConcurrentWriteError) as conflict:
                self._next_one_may_try(conflict)

    async def __aenter__(self) -> M:
        self._object = await self._place.runner.arun(self._flow())
        return self._object

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                if not self._entered().is_deleted:
                    await self._entered().asave()
                self._is_over = True
            except (ConflictError, ConcurrentWriteError) as conflict:
                self._next_one_may_try(conflict)

    def _entered(self) -> Any:
        assert self._object is not None
        return self._object
