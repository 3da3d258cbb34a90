"""Many small reads in one request: counts and single objects, of as many collections as you like.

A batch of reads takes the server as long as the reads by themselves, and is no snapshot; it saves the journeys.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast
from uuid import UUID

from kinto_orm.errors import KintoError, NotFoundError, UsageError
from kinto_orm.messages import Request, Response
from kinto_orm.outcomes import full_batch
from kinto_orm.protocol.batch import batch_request, split_answer
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.values import JSONObject
from kinto_orm.protocol.writes import Write
from kinto_orm.query import Place, Query
from kinto_orm.staging import Fetchable, check_source
from kinto_orm.state import Holder, Runner

T = TypeVar("T")
H = TypeVar("H", bound=Holder)

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

    def __kinto_settle__(self, value: Any, error: KintoError | None) -> None:
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

    def __init__(self, runner: Runner) -> None:
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
        found = yield from gathered([one.flow for one in reads], self._runner)
        for one, (value, error) in zip(reads, found, strict=True):
            one.deferred.__kinto_settle__(value, error)

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


def _fetch(source: Fetchable[H], runner: Runner, id: str | UUID) -> Flow[H]:
    check_source(source)
    return source.__kinto_fetch__(runner, id)


def _fetch_or_none(flow: Flow[H]) -> Flow[H | None]:
    try:
        return (yield from flow)
    except NotFoundError:
        return None


def gathered(flows: Sequence[Flow[Any]], runner: Runner) -> Flow[list[tuple[Any, KintoError | None]]]:
    """What each of the flows gives, or the error that it ends with; their requests travel in batches."""
    reads = [_Moving(flow) for flow in flows]
    limit = yield from _batch_of_reads(runner)
    while waiting := [one for one in reads if one.request is not None]:
        together = [one for one in waiting if not one.must_go_alone][:limit]
        if together:
            yield from _ask_together(together)
        else:
            alone = waiting[0]
            alone.move((yield cast(Request, alone.request)))
    return [(one.value, one.error) for one in reads]


def _batch_of_reads(runner: Runner) -> Flow[int]:
    """How many reads travel together; none to a read-only server, which refuses every ``POST``."""
    info = yield from runner.describe_server()
    settings = info.get("settings")
    if isinstance(settings, dict) and settings.get("readonly") is True:
        return 0
    return (yield from full_batch(runner))


def _ask_together(reads: Sequence[_Moving]) -> Flow[None]:
    response = yield batch_request([one.entry for one in reads])
    for one, answer in zip(reads, split_answer(response, len(reads), with_headers=True), strict=True):
        one.move(answer)


class _Moving:
    """A flow on its way: the request that it waits for, or what it came to."""

    def __init__(self, flow: Flow[Any]) -> None:
        self._flow = flow
        self.request: Request | None = None
        self.value: Any = _UNREAD
        self.error: KintoError | None = None
        self.move(None)

    def move(self, answer: Response | None) -> None:
        """Goes on with the answer to the request."""
        try:
            request = next(self._flow) if answer is None else self._flow.send(answer)
        except StopIteration as stop:
            self.request, self.value = None, stop.value
        except KintoError as error:
            self.request, self.error = None, error
        else:
            assert not isinstance(request, Write) and not request.is_write
            self.request = request

    @property
    def must_go_alone(self) -> bool:
        """Whether it breaks a batch: a conditional read crashes it, a path with "/batch" is refused with all others."""
        assert self.request is not None
        return "/batch" in self.request.target or "If-None-Match" in self.request.headers

    @property
    def entry(self) -> JSONObject:
        """The request as an entry of a batch."""
        assert self.request is not None
        return {"method": self.request.method, "path": self.request.target}
