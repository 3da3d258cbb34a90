"""The public ``Query``: its methods refine it into a new one, or end it by asking the server.

https://docs.kinto-storage.org/en/stable/api/1.x/filtering.html
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from functools import partial, wraps
from inspect import iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, ParamSpec, TypeVar, cast
from uuid import UUID

from kinto_orm.errors import InvalidTypeError, UsageError
from kinto_orm.protocol.filters import Condition
from kinto_orm.protocol.json_values import JSONObject, TimestampInput
from kinto_orm.protocol.paging import encode_query
from kinto_orm.protocol.paths import ObjectPath, check_id
from kinto_orm.protocol.writes import Flow, NextFlow
from kinto_orm.query import building
from kinto_orm.query.cached import ConditionalReads
from kinto_orm.query.execution import PAGE_SIZE, Page, Place, Reading
from kinto_orm.query.frames import read_arrow, read_pandas, read_polars
from kinto_orm.query.partitions import TOLERANCE, cut_into_ranges
from kinto_orm.query.writing import UpdateOptions, delete, update
from kinto_orm.repository.state import FlowRunner, OnConflict, OnInvalid, Outcome, Progress, Stateful
from kinto_orm.unit_of_work.bulk import BulkReport

M = TypeVar("M", bound=Stateful)
T = TypeVar("T")
P = ParamSpec("P")

MOST_THREADS = 32
"""The number of connections that a client keeps."""

MOST_RANGES = 256
"""The most ranges that are looked for; with more pages, a range holds several."""


def _advising(advice: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a method so that a call with other arguments than its own raises ``InvalidTypeError`` with the advice.

    The advice has ``{id}`` where the first argument goes, and ``{keywords}`` where the keywords go.
    """

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        def check(args: tuple[object, ...], keywords: Mapping[str, object]) -> None:
            try:
                signature(method).bind(*args, **keywords)
            except TypeError as misfit:
                id = repr(args[1]) if len(args) > 1 else "id"
                named = ", ".join(f"{name}=…" for name in keywords)
                raise InvalidTypeError(f"{misfit}: {advice.format(id=id, keywords=named)}") from misfit

        @wraps(method)
        def call(*args: P.args, **keywords: P.kwargs) -> T:
            try:
                return method(*args, **keywords)
            except TypeError:
                check(args, keywords)  # only now, because it takes long
                raise

        @wraps(method)
        async def acall(*args: P.args, **keywords: P.kwargs) -> Any:
            try:
                return await cast(Any, method)(*args, **keywords)
            except TypeError:
                check(args, keywords)
                raise

        return cast(Callable[P, T], acall) if iscoroutinefunction(method) else call

    return decorate


_GET = "write .get({id}) with an id, or .filter({keywords}).one()."
_GET_OR_NONE = "write .get_or_none({id}) with an id, or .filter({keywords}).first()."
_DELETE = "this deletes all that the query selects; for one object write .ref({id})."


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Query(ConditionalReads[M]):
    """A lazy selection: nothing is sent before it ends, and each iteration reads anew."""

    _reading: Reading[M]

    _grows: ClassVar[bool] = True

    # -- refine ---------------------------------------------------------------------------------------------------

    def filter(
        self,
        *conditions: Condition | bool,
        on_invalid: OnInvalid | None = None,
        pages: float | None = None,
        **keywords: Any,
    ) -> Query[M]:
        """Select the objects that meet all the conditions.

        Conditions are expressions (``Todo.priority >= 3``, ``F(Todo.title).like("a*")``) or Kinto's keywords
        (``gt_priority=3, done=False, in_id=[...], _sort="-last_modified", _limit=10, _since=...``). ``_limit`` alone is
        the number of objects; with ``pages=float("inf")`` it is the number on each page. Raises ``InvalidFilterError``
        for conditions that Kinto would refuse or ignore.
        """
        reading = building.with_expressions(self._reading, conditions)
        reading = building.with_keywords(reading, keywords)
        reading = building.with_page_count(reading, pages)
        return Query(building.with_policy(reading, on_invalid))

    def exclude(self, *conditions: Condition | bool, **keywords: Any) -> Query[M]:
        """Leave out the objects that meet any of the conditions, which must be equalities.

        A list of values is excluded value by value; where the model's field holds lists, it is one of them. Objects
        without the field stay.
        """
        return Query(building.without(self._reading, conditions, keywords))

    def order_by(self, *fields: object) -> Query[M]:
        """Sort by these fields; ``"-name"`` for the largest first.

        No object comes twice, also where the loop itself saves it. While others write, each object comes exactly once
        only in an order that never changes for an object, such as ``id`` (the default).
        """
        return Query(building.ordered(self._reading, fields))

    def only(self, *fields: object) -> Query[M]:
        """Read these fields only; such objects cannot be saved."""
        return Query(building.narrowed(self._reading, fields))

    def limit(self, count: int) -> Query[M]:
        """Select the first ``count`` objects, on however many pages."""
        return self._select(limit=building.check_count(count, "limit"))

    def page_size(self, count: int) -> Query[M]:
        """Read the same objects, ``count`` at a time."""
        return self._select(page_size=building.check_count(count, "page_size", least=1))

    def since(self, timestamp: TimestampInput, *, overlap: float = 0) -> Query[M]:
        """Select the objects changed after the timestamp (milliseconds, ETag or aware datetime), with tombstones.

        On PostgreSQL a long transaction may become visible after later ones: ``overlap`` (seconds) looks back further,
        so that objects may come again and none is missed.
        """
        return self._select(since=building.moment(timestamp, "since", overlap))

    def before(self, timestamp: TimestampInput) -> Query[M]:
        """Select the objects last changed before the timestamp (milliseconds, ETag or aware datetime)."""
        return self._select(before=building.moment(timestamp, "before"))

    def __getitem__(self, part: slice) -> Query[M]:
        return Query(building.sliced(self._reading, part))

    def partitions(self, count: int) -> tuple[Partition[M], ...]:
        """Return at most ``count`` parts of the query, disjoint and complete, in the order of ids.

        Each object is in exactly one of them, while others write too: the parts are ranges of ids, which never change.
        They hold about equal numbers of objects. Each part is a query, and can be pickled. Raises ``UsageError`` where
        the query has an order other than by id, or a limit.
        """
        return self._run(partial(_cut, self._reading, building.check_count(count, "partitions", least=1)))

    async def apartitions(self, count: int) -> tuple[Partition[M], ...]:
        """Like :meth:`partitions`."""
        return await self._arun(partial(_cut, self._reading, building.check_count(count, "partitions", least=1)))

    def parallel(self, threads: int, *, ordered: bool = True) -> ParallelQuery[M]:
        """Return an iterable of the same objects, whose pages are fetched by this number of threads.

        Each thread has its own connection and its own ranges of ids, as in :meth:`partitions`; with one thread, any
        query is read one page ahead. Without ``ordered``, objects come as they arrive. It is faster only where the
        server has several processes.
        """
        return ParallelQuery(self._reading, building.check_count(threads, "parallel", 1, MOST_THREADS), ordered)

    # -- end ------------------------------------------------------------------------------------------------------

    def pages(self) -> Iterator[Page[M]]:
        """Yield the pages, one after the other."""
        place = self._reading.source.locate()
        walk = self._reading.walk(place, grows=self._grows)
        while (flow := walk.next_page()) is not None:
            yield place.runner.run(place.asked(flow))

    async def apages(self) -> AsyncIterator[Page[M]]:
        """Like :meth:`pages`."""
        place = self._reading.source.locate()
        walk = self._reading.walk(place, grows=self._grows)
        while (flow := walk.next_page()) is not None:
            yield await place.runner.arun(place.asked(flow))

    def one(self) -> M:
        """Return the only object; raise ``NotFoundError`` for none and ``MultipleObjectsError`` for several."""
        return self._run(self._reading.one)

    async def aone(self) -> M:
        """Like :meth:`one`."""
        return await self._arun(self._reading.one)

    @_advising(_GET)
    def get(self, id: str | UUID) -> M:
        """Return the object of that id; an unrefined query gives it its permissions. Raises ``NotFoundError``."""
        return self._run(partial(self._reading.get, self._checked(id)))

    @_advising(_GET)
    async def aget(self, id: str | UUID) -> M:
        """Like :meth:`get`."""
        return await self._arun(partial(self._reading.get, self._checked(id)))

    @_advising(_GET_OR_NONE)
    def get_or_none(self, id: str | UUID) -> M | None:
        """Return the object of that id; ``None`` where there is none."""
        return self._run(partial(self._reading.get_or_none, self._checked(id)))

    @_advising(_GET_OR_NONE)
    async def aget_or_none(self, id: str | UUID) -> M | None:
        """Like :meth:`get_or_none`."""
        return await self._arun(partial(self._reading.get_or_none, self._checked(id)))

    def get_many(self, ids: Iterable[str | UUID]) -> list[M]:
        """Return the objects of these ids that exist, in the order of the ids: one request, or a few for many ids."""
        return self._run(partial(self._reading.get_many, building.check_ids(ids, self._reading.source.kind)))

    async def aget_many(self, ids: Iterable[str | UUID]) -> list[M]:
        """Like :meth:`get_many`."""
        return await self._arun(partial(self._reading.get_many, building.check_ids(ids, self._reading.source.kind)))

    def values(self, *fields: object) -> list[JSONObject]:
        """Return these fields of each object, as plain dictionaries."""
        return self._run(partial(self._reading.values, building.field_names(self._reading, fields, "values")))

    async def avalues(self, *fields: object) -> list[JSONObject]:
        """Like :meth:`values`."""
        return await self._arun(partial(self._reading.values, building.field_names(self._reading, fields, "values")))

    def to_arrow(self, *, progress: Progress | None = None) -> Any:
        """Return the objects as a ``pyarrow.Table`` (extra ``arrow``), read page by page.

        It has a column for each declared field, with its wire name and type, ``id``, ``last_modified``, and
        ``_undeclared`` for all other keys, as JSON.

        Without a model, it has a column for each key of any page. ``progress`` is called after each page with the
        number of objects read, their total, and of what. Raises ``InvalidValueError`` for values that do not fit.
        """
        return self._run(partial(read_arrow, self._reading, progress))

    async def ato_arrow(self, *, progress: Progress | None = None) -> Any:
        """Like :meth:`to_arrow`."""
        return await self._arun(partial(read_arrow, self._reading, progress))

    def to_pandas(self, *, progress: Progress | None = None) -> Any:
        """Return the objects as a ``pandas.DataFrame`` (extra ``pandas``); otherwise like :meth:`to_arrow`."""
        return self._run(partial(read_pandas, self._reading, progress))

    async def ato_pandas(self, *, progress: Progress | None = None) -> Any:
        """Like :meth:`to_pandas`."""
        return await self._arun(partial(read_pandas, self._reading, progress))

    def to_polars(self, *, progress: Progress | None = None) -> Any:
        """Return the objects as a ``polars.DataFrame`` (extra ``polars``); otherwise like :meth:`to_arrow`."""
        return self._run(partial(read_polars, self._reading, progress))

    async def ato_polars(self, *, progress: Progress | None = None) -> Any:
        """Like :meth:`to_polars`."""
        return await self._arun(partial(read_polars, self._reading, progress))

    def timestamp(self) -> int | None:
        """Return the timestamp of the whole list, in milliseconds; each change of an object moves it."""
        return self._run(self._reading.timestamp)

    async def atimestamp(self) -> int | None:
        """Like :meth:`timestamp`."""
        return await self._arun(self._reading.timestamp)

    @_advising(f"{_DELETE}delete()")
    def delete(
        self, *, everything: bool = False, max_deletes: int | float | None = None, progress: Progress | None = None
    ) -> int:
        """Delete the objects on the server, without reading them, and return their number.

        Raises ``UsageError`` without a filter, unless ``everything=True``. With ``max_deletes``, a number of objects or
        a share of the list as a float, they are counted first: raises ``TooManyDeletesError`` where there are more, and
        deletes only in the counted state of the list. ``progress`` is called with the number deleted, the total or
        ``None``, and the step.
        """
        return self._run(delete(self._reading, everything=everything, max_deletes=max_deletes, progress=progress))

    @_advising(f"{_DELETE}adelete()")
    async def adelete(
        self, *, everything: bool = False, max_deletes: int | float | None = None, progress: Progress | None = None
    ) -> int:
        """Like :meth:`delete`."""
        return await self._arun(
            delete(self._reading, everything=everything, max_deletes=max_deletes, progress=progress)
        )

    def update(
        self,
        change: Callable[[M], object] | Mapping[str, Any] | None = None,
        /,
        *,
        state: str | os.PathLike[str] | None = None,
        on_conflict: OnConflict = "raise",
        progress: Progress | None = None,
        on_outcome: Callable[[Outcome[M]], object] | None = None,
        **values: Any,
    ) -> BulkReport:
        """Change each object, by a function or by wire names and values, and write the changed ones in full batches.

        Each write carries ``If-Match``; ``on_conflict`` is as in ``save()``. A mapping takes any key, also the name of
        an option. Repeating an interrupted call does not write stored values again. Where the result of a function
        depends on the old value, such as a counter, name a file as ``state``: each write is noted there before it is
        sent, and another call with the same file goes on from there, even after its process was killed. A record that
        another client changed since is reported as ``unknown`` where no one can tell whether its write was stored.
        ``progress`` is called with the number of objects done, their total, and the step; ``on_outcome`` with each
        outcome. Raises ``CommitError`` (with ``.report``) where objects were not stored; the others were.
        """
        return self._run(update(self._reading, change, values, UpdateOptions(state, on_conflict, progress, on_outcome)))

    async def aupdate(
        self,
        change: Callable[[M], object] | Mapping[str, Any] | None = None,
        /,
        *,
        state: str | os.PathLike[str] | None = None,
        on_conflict: OnConflict = "raise",
        progress: Progress | None = None,
        on_outcome: Callable[[Outcome[M]], object] | None = None,
        **values: Any,
    ) -> BulkReport:
        """Like :meth:`update`; the file is used in a thread."""
        return await self._arun(
            update(self._reading, change, values, UpdateOptions(state, on_conflict, progress, on_outcome))
        )

    # -- the rest -------------------------------------------------------------------------------------------------

    def __kinto_reading__(self) -> Reading[M]:
        """Return the list and the selection, for jobs and gatherings."""
        return self._reading

    def __kinto_locate__(self, runner: FlowRunner, id: str | UUID) -> ObjectPath:
        return self._reading.source.locate().path.object(self._checked(id))

    def __kinto_fetch__(self, runner: FlowRunner, id: str | UUID) -> Flow[M]:
        """Return the flow of ``get(id)``, for a unit of work."""
        place = self._reading.source.locate()
        if place.runner is not runner:
            raise UsageError(f"{self!r} belongs to another client than this block.")
        return self._reading.get(self._checked(id), place)

    if not TYPE_CHECKING:  # else checkers would take any name for an attribute

        def __getattr__(self, name):
            if name in _OF_WHOLE_LISTS:
                raise AttributeError(
                    f"{name}() is for a whole collection, not for a query: todos.records.{name}(). It would miss the "
                    "records that are outside of the filter."
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __contains__(self, id: object) -> NoReturn:
        raise UsageError("Looking for an id costs a request: write .get_or_none(id), or .filter(id=…).exists().")

    def __repr__(self) -> str:
        selection = self._reading.selection
        size = "all" if selection.limit is None else selection.limit
        what = encode_query(selection.parameters()) or "no filter"
        return f"<Query of {size} {self._reading.source.kind.plural}: {what}>"

    def _select(self, **changes: Any) -> Query[M]:
        return Query(self._reading.select(**changes))

    def _checked(self, id: str | UUID) -> str:
        return check_id(id, kind=self._reading.source.kind)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Partition(Query[M]):
    """A part of a query: the objects whose ids are in a range. It can be pickled and read elsewhere.

    The pickle holds no credentials. Where it is read, the client is found in this order: ``client=``, the model's
    client, the active one, and last its own, which raises ``CredentialsMissingError`` where it had any.
    """

    _grows: ClassVar[bool] = False

    start: str | None
    """The least id; ``None`` for the first part."""
    stop: str | None
    """The id before which it ends; ``None`` for the last part."""
    size: int
    """The number of its objects when it was made."""

    def on(self, client: FlowRunner | Callable[[], FlowRunner]) -> Partition[M]:
        """Return the same part, read by this client, or by the one that the function returns."""
        runner = client() if callable(client) else client
        source = self._reading.source
        reading = replace(self._reading, source=source.fixed(runner, source.locate().path))
        return Partition(reading, self.start, self.stop, self.size)

    def read(self, client: FlowRunner | Callable[[], FlowRunner] | None = None) -> Iterator[M]:
        """Return an iterator over the objects, page by page."""
        return iter(self if client is None else self.on(client))

    async def aread(self, client: FlowRunner | Callable[[], FlowRunner] | None = None) -> AsyncIterator[M]:
        """Like :meth:`read`."""
        async for one in self if client is None else self.on(client):
            yield one


_OF_WHOLE_LISTS = ("changes", "sync", "plan", "diff")


def _cut(reading: Reading[M], count: int, place: Place) -> Flow[tuple[Partition[M], ...]]:
    fixed = replace(reading, source=reading.source.fixed(place.runner, place.path))
    return tuple(
        Partition(one.narrow(fixed), one.start, one.stop, one.count)
        for one in (yield from cut_into_ranges(reading, place, lambda _: count))
    )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ParallelQuery(Generic[M]):
    """A query for iteration, whose pages are fetched by several threads; in ``async for``, by tasks.

    Each iteration has its own threads, which end with it: at its end, when it is left early, or when one of them fails,
    whose error is raised. At most two pages for each thread are in memory.

    An ``async for`` that is left early is ended by the event loop, soon after; ``aclosing(aiter(query))`` waits for
    that.
    """

    _reading: Reading[M]
    _threads: int
    _ordered: bool

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
        """Yield the pages, in order or as they arrive. Each says whether its range of ids has more."""
        place = self._reading.source.locate()
        walks = place.runner.run(place.asked(self._walks(place)))
        return place.runner.__kinto_run_all__(walks, workers=self._threads, ordered=self._ordered)

    async def apages(self) -> AsyncGenerator[Page[M]]:
        """Like :meth:`pages`."""
        place = self._reading.source.locate()
        walks = await place.runner.arun(place.asked(self._walks(place)))
        async with aclosing(
            place.runner.__kinto_arun_all__(walks, workers=self._threads, ordered=self._ordered)
        ) as pages:
            async for page in pages:
                yield page

    def __repr__(self) -> str:
        return f"<ParallelQuery of {self._reading.source.kind.plural}, {self._threads} threads>"

    def _walks(self, place: Place) -> Flow[list[NextFlow[Page[M]]]]:
        if self._threads == 1:
            return [self._reading.walk(place).next_page]  # one thread needs no ranges
        ranges = yield from cut_into_ranges(self._reading, place, self._parts)
        return [one.narrow(self._reading).walk(place).next_page for one in ranges]

    def _parts(self, count: int) -> int:
        """Return the number of ranges for so many objects: of a page each, so that they can be fetched in order."""
        size = self._reading.selection.page_size or PAGE_SIZE
        if count <= size:
            return 1
        # A range slightly larger than a page would cost a second page.
        pages = math.ceil(count * (1 + TOLERANCE) / size)
        # The same number for each thread.
        return min(math.ceil(pages / self._threads), MOST_RANGES // self._threads) * self._threads
