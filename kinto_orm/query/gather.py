"""Many small reads in one request: counts and single objects, of as many collections as you like.

A batch of reads takes the server as long as the reads by themselves, and is no snapshot; it saves the journeys.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from kinto_orm.errors import KintoError, NotFoundError, UsageError
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.execution import Place
from kinto_orm.query.query import Query
from kinto_orm.repository.state import FlowRunner, Stateful
from kinto_orm.unit_of_work.batches import gather_reads
from kinto_orm.unit_of_work.staging import Fetchable, check_source

T = TypeVar("T")
H = TypeVar("H", bound=Stateful)

_UNREAD: Any = object()


class Deferred(Generic[T]):
    """A value that is there when the block is left."""

    __slots__ = ("_error", "_value")

    def __init__(self) -> None:
        self._value: T = _UNREAD
        self._error: KintoError | None = None

    @property
    def value(self) -> T:
        """The value. Raises what reading it raised, and ``UsageError`` before the block was left."""
        if self._error is not None:
            raise self._error
        if self._value is _UNREAD:
            raise UsageError("This was not read yet: it is when the block `with client.gather()` is left cleanly.")
        return self._value

    def __kinto_resolve__(self, value: Any, error: KintoError | None) -> None:
        self._value, self._error = value, error

    def __repr__(self) -> str:
        if self._error is not None:
            return f"<Deferred: {type(self._error).__name__}>"
        return "<Deferred, not read yet>" if self._value is _UNREAD else f"<Deferred: {self._value!r}>"


@dataclass(frozen=True, slots=True)
class _Read:
    """A read that was asked for, and who waits for it."""

    flow: Flow[Any]
    deferred: Deferred[Any]


class Gathering:
    """Reads that are asked together. Made by ``client.gather()``; left cleanly, it asks; by an exception, it does not.

    Errors of the server are raised where the value is taken, so that one missing object does not hide the others.
    """

    def __init__(self, runner: FlowRunner) -> None:
        self._runner = runner
        self._reads: list[_Read] = []

    def count(self, query: Query[Any]) -> Deferred[int]:
        """How many objects the query has."""
        return self._ending(query, query.reading.count)

    def exists(self, query: Query[Any]) -> Deferred[bool]:
        """Whether the query has any object."""
        return self._ending(query, query.reading.exists)

    def timestamp(self, query: Query[Any]) -> Deferred[int | None]:
        """The timestamp of the query's whole list, in milliseconds."""
        return self._ending(query, query.reading.timestamp)

    def get(self, source: Fetchable[H], id: str | UUID) -> Deferred[H]:
        """The object of that id. Takes a model, a manager or a query."""
        return self._add(_fetch(source, self._runner, id))

    def get_or_none(self, source: Fetchable[H], id: str | UUID) -> Deferred[H | None]:
        """The object of that id; ``None`` where there is none. Takes a model, a manager or a query."""
        return self._add(_fetch_or_none(_fetch(source, self._runner, id)))

    def _ending(self, query: Query[Any], ending: Callable[[Place], Flow[T]]) -> Deferred[T]:
        place = query.reading.source.locate()
        if place.runner is not self._runner:
            raise UsageError(f"{query!r} belongs to another client than this block.")
        return self._add(ending(place))

    def _add(self, flow: Flow[Any]) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred()
        self._reads.append(_Read(flow, deferred))
        return deferred

    def _read_all(self) -> Flow[None]:
        reads, self._reads = self._reads, []
        found = yield from gather_reads([one.flow for one in reads], self._runner)
        for one, (value, error) in zip(reads, found, strict=True):
            one.deferred.__kinto_resolve__(value, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._runner.run(self._read_all())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self._runner.arun(self._read_all())


def _fetch(source: Fetchable[H], runner: FlowRunner, id: str | UUID) -> Flow[H]:
    check_source(source)
    return source.__kinto_fetch__(runner, id)


def _fetch_or_none(flow: Flow[H]) -> Flow[H | None]:
    try:
        return (yield from flow)
    except NotFoundError:
        return None
