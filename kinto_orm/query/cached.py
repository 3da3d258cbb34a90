"""Reads that rest on the timestamp of a list: queries that keep what they have read, and pages of one state.

Kinto answers ``304 Not Modified`` by the timestamp of the whole list. On PostgreSQL that is not always true: a
transaction that began earlier and ends later does not raise it. So it is trusted only of a *settled* list, whose
objects were read at least one horizon after its last change.
https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import UUID

from kinto_orm.errors import ConflictError, KintoError, MultipleObjectsError, NotFoundError, ServerError, TransportError
from kinto_orm.protocol.paging import (
    check_finite,
    check_flags,
    check_seconds,
    check_timestamp,
    read_state,
    seconds_to_last,
    settled_until,
    with_condition,
)
from kinto_orm.protocol.paths import check_id
from kinto_orm.protocol.writes import Flow, pause
from kinto_orm.query.execution import Endings, Place, Reading
from kinto_orm.repository.state import Stateful, Status
from kinto_orm.unit_of_work.unit_of_work import open_unit

M = TypeVar("M", bound=Stateful)

MOST_ATTEMPTS = 3
"""The number of times that pages of one state are read, while others write."""


class ConditionalReads(Endings[M]):
    """The part of a query that rests on the timestamp of its list."""

    __slots__ = ()

    def cached(
        self, *, max_age: float = 60, horizon: float = 10, revalidate: float = 900, stale_ok: bool = False
    ) -> CachedQuery[M]:
        """Return a query that keeps the objects it has read, and asks the server only whether they changed.

        The server is asked at most once in ``max_age`` seconds, or for as long as the server lets an answer be used
        again (``cache_expires``, for anonymous readers); a write of the same client makes it ask at once. Where
        nothing changed, its answer has no body; of a whole list, in its default order, only changes are read. That is
        trusted only of objects that were read a ``horizon`` (seconds) after the last change of the list, which no
        transaction of the server exceeds. What does not move the timestamp of a list (rights that were given on a
        collection, imports with timestamps of the past) is seen after at most ``revalidate`` seconds.

        ``stale_ok``: while the server is down, the query gives the objects that it has, and has the reason in
        :attr:`~kinto_orm.CachedQuery.error`; it asks again after ``max_age``. Whatever the server refuses is raised.
        https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
        """
        return CachedQuery(self._reading, max_age, horizon, revalidate, stale_ok)

    def consistent(self, *, horizon: float = 10) -> list[M]:
        """Return all the objects, as they were together at one moment, also where they are on several pages.

        A list of several pages is read when it has been quiet for a ``horizon``, in seconds, which no transaction of
        the server exceeds: the call waits for that. Each page has the precondition that nothing was written since.
        Raises ``ConflictError`` where others go on writing: three times, the pages were no state of the list.
        https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
        """
        return self._run(partial(_read_state, self._reading, check_finite("horizon", horizon)))

    async def aconsistent(self, *, horizon: float = 10) -> list[M]:
        """Like :meth:`consistent`."""
        return await self._arun(partial(_read_state, self._reading, check_finite("horizon", horizon)))


def _read_state(reading: Reading[M], horizon: float, place: Place) -> Flow[list[M]]:
    """Return the objects of one state of the list; raise ``ConflictError`` where there is none for long enough."""
    walk = reading.walk(place)
    flow = walk.next_page()
    page = None if flow is None else (yield from flow)
    if page is None or not page.has_more:
        return [] if page is None else list(page.objects)  # one answer is one state
    for attempt in range(1, MOST_ATTEMPTS + 1):
        state = yield from read_state(place.path)
        timestamp = check_timestamp(state.timestamp, place.path)
        unsettled = timestamp - (yield from settled_until(state.date, horizon))
        if unsettled > 0:
            yield from pause(unsettled / 1000)
        try:
            return (yield from with_condition(reading.all(place), "If-Match", timestamp)) or []
        except ConflictError:
            if attempt == MOST_ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")  # pragma: no cover  the line above ends it


@dataclass(frozen=True, slots=True)
class _Read(Generic[M]):
    """One reading of the list, or of its changes."""

    objects: list[M]
    timestamp: int
    """The timestamp of the list when its first page was read, in milliseconds."""
    settled: int
    """No transaction adds anything up to this timestamp any more."""
    lasts: float
    """The number of seconds for which the server lets its answer be used again."""


@dataclass(frozen=True, slots=True)
class _Kept(Generic[M]):
    """The objects that are kept; times are milliseconds of this machine's clock."""

    read: _Read[M]
    place: Place
    fetched_at: int
    """The last time that the server answered."""
    asked_at: int
    """The last time that it was asked."""
    read_at: int
    """The last time that all objects were read."""
    writes: int
    """The number of writes that the client had sent by then."""

    @property
    def is_settled(self) -> bool:
        return self.read.timestamp <= self.read.settled

    @property
    def cursor(self) -> int:
        """The timestamp after which changes are to be read."""
        return min(self.read.timestamp, self.read.settled)


class CachedQuery(Generic[M]):
    """A query that keeps its objects in memory: made by ``query.cached()``.

    The objects are shared by all who ask: to change one, ``get()`` it from the query itself. They are kept for one
    client at a time; another client, who may be another user, reads anew. Inside a unit of work the server is always
    asked. A pickle keeps no objects.
    """

    def __init__(
        self,
        reading: Reading[M],
        max_age: float,
        horizon: float,
        revalidate: float,
        stale_ok: bool,  # noqa: FBT001  a pickle gives it by its place
    ) -> None:
        self.error: KintoError | None = None
        """The reason for which the server did not answer the last time, where ``stale_ok`` let the objects stay."""
        self._reading = reading
        check_flags(stale_ok=stale_ok)
        self._stale_ok = stale_ok
        self._max_age = check_seconds("max_age", max_age)
        self._horizon = check_finite("horizon", horizon)
        self._revalidate = check_seconds("revalidate", revalidate)
        self._kept: _Kept[M] | None = None

    @property
    def fetched_at(self) -> datetime | None:
        """The last time that the server answered; ``None`` before the first one."""
        kept = self._kept
        return None if kept is None else datetime.fromtimestamp(kept.fetched_at / 1000, UTC)

    @property
    def is_fresh(self) -> bool:
        """Whether the objects are young enough, so that the server would not be asked now."""
        kept = self._kept
        return kept is not None and self._is_fresh(kept, round(datetime.now(UTC).timestamp() * 1000))

    def all(self, *, refresh: bool = False) -> list[M]:
        """Return all the objects, in a list; ``refresh`` reads all of them from the server."""
        return self._run(refresh=refresh)

    async def aall(self, *, refresh: bool = False) -> list[M]:
        """Like :meth:`all`."""
        return await self._arun(refresh=refresh)

    def __iter__(self) -> Iterator[M]:
        return iter(self.all())

    async def __aiter__(self) -> AsyncIterator[M]:
        for one in await self.aall():
            yield one

    def first(self) -> M | None:
        """Return the first object; ``None`` where there is none."""
        return next(iter(self._run()), None)

    async def afirst(self) -> M | None:
        """Like :meth:`first`."""
        return next(iter(await self._arun()), None)

    def one(self) -> M:
        """Return the only object; raise ``NotFoundError`` for none and ``MultipleObjectsError`` for several."""
        return _only(self._run())

    async def aone(self) -> M:
        """Like :meth:`one`."""
        return _only(await self._arun())

    def get(self, id: str | UUID) -> M:
        """Return the object of that id; raise ``NotFoundError`` where the query has none."""
        return _only([one for one in self._run() if one.__kinto_path__().id == self._checked(id)])

    async def aget(self, id: str | UUID) -> M:
        """Like :meth:`get`."""
        return _only([one for one in await self._arun() if one.__kinto_path__().id == self._checked(id)])

    def count(self) -> int:
        """Return the number of objects."""
        return len(self._run())

    async def acount(self) -> int:
        """Like :meth:`count`."""
        return len(await self._arun())

    def exists(self) -> bool:
        """Return whether there is any object."""
        return bool(self._run())

    async def aexists(self) -> bool:
        """Like :meth:`exists`."""
        return bool(await self._arun())

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._reading, self._max_age, self._horizon, self._revalidate, self._stale_ok))

    def __repr__(self) -> str:
        count = "nothing" if self._kept is None else f"{len(self._kept.read.objects)} objects"
        return f"<CachedQuery of {self._reading.source.kind.plural}: {count} kept>"

    def _checked(self, id: str | UUID) -> str:
        return check_id(id, kind=self._reading.source.kind)

    def _run(self, *, refresh: bool = False) -> list[M]:
        place = self._reading.source.locate()
        return place.runner.run(place.asked(self._answer(place, refresh=refresh)))

    async def _arun(self, *, refresh: bool = False) -> list[M]:
        place = self._reading.source.locate()
        return await place.runner.arun(place.asked(self._answer(place, refresh=refresh)))

    def _is_fresh(self, kept: _Kept[M], now: int) -> bool:
        is_young = 0 <= now - kept.asked_at < max(self._max_age, kept.read.lasts) * 1000
        return is_young and kept.writes == kept.place.runner.__kinto_writes__

    # -- the flows ------------------------------------------------------------------------------------------------

    def _answer(self, place: Place, *, refresh: bool) -> Flow[list[M]]:
        kept, now, writes = self._kept, (yield from pause()), place.runner.__kinto_writes__
        if kept is not None and (kept.place.runner is not place.runner or kept.place.path != place.path):
            kept = None
        if kept is not None and not refresh and open_unit(place.runner) is None and self._is_fresh(kept, now):
            return list(kept.read.objects)
        self._kept = None  # whatever the server refuses, is not answered from here
        try:
            if kept is None or refresh or not 0 <= now - kept.read_at < self._revalidate * 1000:
                fresh = _Kept((yield from self._read(self._reading, place)), place, now, now, now, writes)
            else:
                fresh = replace((yield from self._ask(kept, now)), fetched_at=now, asked_at=now, writes=writes)
            self._kept, self.error = fresh, None
        except (TransportError, ServerError) as error:
            if kept is None or refresh or not self._stale_ok:
                raise
            self._kept = fresh = replace(kept, asked_at=now)
            self.error = error
        return list(fresh.read.objects)

    def _ask(self, kept: _Kept[M], now: int) -> Flow[_Kept[M]]:
        """Return what the server has now, of which only the difference is read where that is possible."""
        selection = self._reading.selection
        is_whole_list = not selection.is_filtered and selection.limit is None and not selection.skip
        merges = is_whole_list and selection.order is None and not selection.is_newest_first
        reading = self._reading.select(since=kept.cursor) if merges else self._reading
        flow = self._read(reading, kept.place)
        found = yield from with_condition(flow, "If-None-Match", kept.read.timestamp) if kept.is_settled else flow
        if found is None:
            return kept
        if not merges:
            return replace(kept, read=found, read_at=now)
        merged = _merged(kept.read.objects, found)
        # Tombstones may be purged, and the list may be another one by now.
        state = yield from read_state(kept.place.path)
        if found.timestamp < kept.read.timestamp or state.count != len(merged.objects):
            merged = yield from self._read(self._reading, kept.place)
            return replace(kept, read=merged, read_at=now)
        return replace(kept, read=merged)

    def _read(self, reading: Reading[M], place: Place) -> Flow[_Read[M]]:
        walk = reading.walk(place)
        objects: list[M] = []
        timestamp, settled, lasts = None, 0, 0.0
        while (flow := walk.next_page()) is not None:
            page = yield from flow
            objects += page.objects
            if timestamp is None and walk.last is not None:
                settled = yield from settled_until(walk.last.date, self._horizon)
                timestamp, lasts = check_timestamp(page.timestamp, place.path), seconds_to_last(walk.last.cache_control)
        return _Read(objects, timestamp or 0, settled, lasts)


def _merged(objects: list[M], changes: _Read[M]) -> _Read[M]:
    """Return the objects with the changes, by id."""
    by_id = {one.__kinto_path__().id: one for one in objects}
    for one in changes.objects:
        id = one.__kinto_path__().id
        if one.__kinto_state__().status is Status.DELETED:
            by_id.pop(id, None)
        else:
            by_id[id] = one
    return replace(changes, objects=[by_id[id] for id in sorted(by_id)])


def _only(objects: list[M]) -> M:
    if not objects:
        raise NotFoundError("No object matches the query.", status=404, method="GET", path="")
    if len(objects) > 1:
        raise MultipleObjectsError("More than one object matches the query.")
    return objects[0]
