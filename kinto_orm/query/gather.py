"""Many small reads in one request: counts and single objects, of any collections.

It saves round trips. The server takes as long as for single reads, and the answers are not one snapshot.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast
from uuid import UUID

from kinto_orm.errors import InvalidTypeError, KintoError, UsageError
from kinto_orm.protocol.json_values import say_value
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.execution import Place
from kinto_orm.query.query import Query
from kinto_orm.repository.reads import or_none
from kinto_orm.repository.state import FlowRunner, Stateful
from kinto_orm.unit_of_work.batches import gather_reads
from kinto_orm.unit_of_work.staging import Fetchable, check_source

T = TypeVar("T")
H = TypeVar("H", bound=Stateful)

_UNREAD: Any = object()


class Deferred(Generic[T]):
    """A value that is available after the block."""

    __slots__ = ("_error", "_value")

    def __init__(self) -> None:
        self._value: T = _UNREAD
        self._error: KintoError | None = None

    @property
    def value(self) -> T:
        """The value. Raises the error of its read, and ``UsageError`` inside the block."""
        if self._error is not None:
            raise self._error
        if self._value is _UNREAD:
            raise UsageError("This was not read yet: the end of the block `with client.gather()` reads it.")
        return self._value

    def __kinto_resolve__(self, value: Any, error: KintoError | None) -> None:
        self._value, self._error = value, error

    def __repr__(self) -> str:
        if self._error is not None:
            return f"<Deferred: {type(self._error).__name__}>"
        return "<Deferred, not read yet>" if self._value is _UNREAD else f"<Deferred: {self._value!r}>"


class Gathering:
    """A block of reads that are sent together; made by ``client.gather()``.

    They are sent when the block ends without an exception. Errors of the server are raised where the value is taken, so
    that one missing object does not hide the others.
    """

    def __init__(self, runner: FlowRunner) -> None:
        self._runner = runner
        self._reads: list[tuple[Flow[Any], Deferred[Any]]] = []

    def count(self, query: Query[Any]) -> Deferred[int]:
        """Read the number of objects of the query."""
        return self._ending(query, attrgetter("count"))

    def exists(self, query: Query[Any]) -> Deferred[bool]:
        """Read whether the query has any object."""
        return self._ending(query, attrgetter("exists"))

    def timestamp(self, query: Query[Any]) -> Deferred[int | None]:
        """Read the timestamp of the query's whole list, in milliseconds."""
        return self._ending(query, attrgetter("timestamp"))

    def get(self, source: Fetchable[H], id: str | UUID) -> Deferred[H]:
        """Read the object of that id. Takes a model, a manager or a query."""
        return self._add(_fetch(source, self._runner, id))

    def get_or_none(self, source: Fetchable[H], id: str | UUID) -> Deferred[H | None]:
        """Read the object of that id, or ``None`` where there is none. Takes a model, a manager or a query."""
        return self._add(or_none(_fetch(source, self._runner, id)))

    def _ending(self, query: Query[Any], ending: Callable[[Any], Callable[[Place], Flow[T]]]) -> Deferred[T]:
        if not isinstance(cast(object, query), Query):
            raise InvalidTypeError(f"A query or a manager is asked here, not {say_value(query)}.")
        reading = query.__kinto_reading__()
        place = reading.source.locate()
        if place.runner is not self._runner:
            raise UsageError(f"{query!r} belongs to another client than this block.")
        return self._add(ending(reading)(place))

    def _add(self, flow: Flow[Any]) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred()
        self._reads.append((flow, deferred))
        return deferred

    def _read_all(self) -> Flow[None]:
        reads, self._reads = self._reads, []
        found = yield from gather_reads([flow for flow, _ in reads], self._runner)
        for (_, deferred), (value, error) in zip(reads, found, strict=True):
            deferred.__kinto_resolve__(value, error)

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
