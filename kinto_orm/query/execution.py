"""Execution of queries: page after page, with one flow for each ending."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, ClassVar, Generic, NamedTuple, NoReturn, Protocol, Self, TypeVar

from typing_extensions import TypeVar as TypeVarWithDefault

from kinto_orm.errors import MultipleObjectsError, NotFoundError, UsageError
from kinto_orm.protocol.filters import Condition, condition, encode_conditions, matches_nothing
from kinto_orm.protocol.json_values import JSON, MISSING, JSONObject, decode, etag, pause_collector
from kinto_orm.protocol.paging import (
    RawPage,
    RawPages,
    check_flags,
    encode_query,
    is_tombstone,
    read_known_count,
    read_timestamp,
    rows_of,
)
from kinto_orm.protocol.paths import Kind, ListPath, PluralPath
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.reads import get, ids_in_chunks, or_none, require_kind
from kinto_orm.repository.state import FlowRunner, ObjectState, OnInvalid, Stateful

T = TypeVar("T")
M = TypeVar("M", bound=Stateful)
M_co = TypeVar("M_co", bound=Stateful, covariant=True)
L = TypeVar("L")
L_co = TypeVar("L_co", covariant=True)
P_co = TypeVarWithDefault("P_co", bound=ListPath, default=PluralPath, covariant=True)

PAGE_SIZE = 5000
"""Records asked for at a time: the memory backend sorts the whole list for each page, and memory grows with it."""

FIRST_PAGE_SIZE = 500
"""Records on the first page of an iteration: the server answers it much sooner than a page of the full size."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The criteria of a query, without the list that they apply to."""

    conditions: tuple[Condition, ...] = ()
    order: tuple[str, ...] | None = None
    fields: tuple[str, ...] = ()
    limit: int | None = None
    skip: int = 0
    page_size: int | None = None
    since: int | None = None
    before: int | None = None
    is_newest_first: bool = False
    """Kinto's order, for the native ``_limit`` only: while others write, its pages may miss updated records."""

    def parameters(self, page_size: int | None = None) -> list[tuple[str, str]]:
        """Return the query parameters."""
        params = encode_conditions(self.conditions)
        if self.since is not None:
            params.append(("_since", etag(self.since)))
        if self.before is not None:
            params.append(("_before", etag(self.before)))
        if self.order:
            params.append(("_sort", ",".join(self.order)))
        elif page_size is not None and not self.is_newest_first:
            params.append(("_sort", "id"))
        if self.fields:
            # Without the key, a tombstone would look like an object.
            wanted = dict.fromkeys((*self.fields, *(("deleted",) if self.may_hold_tombstones else ())))
            params.append(("_fields", ",".join(wanted)))
        if page_size is not None:
            params.append(("_limit", str(page_size)))
        return params

    @property
    def is_filtered(self) -> bool:
        """Whether it selects less than the whole list; ``exclude()`` without values does not."""
        return bool(encode_conditions(self.conditions)) or self.since is not None or self.before is not None

    def check_deletion(self, verb: str, *, everything: bool) -> None:
        """Raise ``UsageError`` where the server would delete more, or less, than the selection."""
        check_flags(everything=everything)
        if self.limit is not None or self.skip or self.fields:
            raise UsageError(
                f"{verb}() deletes all that matches: it cannot be combined with limit(), slices or only()."
            )
        if not self.is_filtered and not everything:
            raise UsageError(f"{verb}() without a filter would delete everything: say {verb}(everything=True).")

    @property
    def may_hold_tombstones(self) -> bool:
        """Whether Kinto adds tombstones: it does as soon as a condition concerns the time of change, and only then."""
        asks_time = any(one.field == "last_modified" for one in self.conditions)
        return asks_time or self.since is not None or self.before is not None

    @property
    def skips_tombstones(self) -> bool:
        """Whether tombstones are left out: they come by ``since()`` alone."""
        return self.since is None


_id_of: Callable[[Any], str] = attrgetter("id")  # its path would have to be made

EVERYTHING = Selection()
"""The whole list."""


class Place(NamedTuple, Generic[P_co]):
    """The client and the list of a query, known when the query ends."""

    runner: FlowRunner
    path: P_co
    parent: Any = None
    """The parent object, where the query was given one: ``Any``, because the models stand above this module."""
    requirement: Callable[[], Flow[Any]] | None = None
    """The check that the server has the list, where the kind of its objects does not tell."""

    def asked(self, flow: Flow[T]) -> Flow[T]:
        """Run the flow, after checking that the server has such lists where not every server has them."""
        if self.requirement is not None:
            yield from self.requirement()
        elif isinstance(self.path, PluralPath):
            yield from require_kind(self.path.kind, self.runner)
        return (yield from flow)


class Row(NamedTuple):
    """One object as a row of a table."""

    data: Mapping[str, JSON]
    """The values of the columns, by wire names."""
    undeclared: Mapping[str, JSON]


class Loader(Protocol[L_co]):
    """A maker of objects from a page."""

    def load(self, rows: LoadedRows, place: Place) -> Sequence[L_co]:
        """Return the objects of a page."""
        ...


class Source(Loader[M_co], Protocol[M_co]):
    """The model and the list of a query; finds client and parent when the query ends."""

    @property
    def kind(self) -> Kind:
        """The kind of the objects."""
        ...

    def locate(self) -> Place:
        """Return the client and the list; raise ``NotBoundError`` where there is none."""
        ...

    def fixed(self, runner: FlowRunner, path: PluralPath) -> Self:
        """Return the same source at that place, independent of defaults; it can be pickled."""
        ...

    def load_one(self, state: ObjectState, place: Place) -> M_co:
        """Return the object of that state."""
        ...

    def resolve_field(self, name: str) -> str:
        """Return the wire name of the field; raise ``InvalidFilterError`` where the model has no such field."""
        ...

    def declared_fields(self) -> Iterable[str]:
        """Return the wire names of the fields that the model declares."""
        ...

    def check_path(self, path: str) -> None:
        """Raise ``InvalidFilterError`` for a declared field that the server would not find by that path."""
        ...

    def condition_value(self, field: str, operator: str, value: Any) -> Any:
        """Return the value as the field of that wire name is written; raise ``InvalidFilterError``."""
        ...

    def holds_lists(self, field: str) -> bool | None:
        """Return whether the field of that wire name is declared to hold lists; ``None``: it may hold others, too."""
        ...

    def check_order(self, field: str) -> None:
        """Raise ``InvalidFilterError`` for a field that the server sorts in another order than Python."""
        ...

    def row_schema(self) -> JSONObject:
        """Return the JSON schema of the declared fields; empty where there are none."""
        ...

    def fields_stand_alone(self) -> bool:
        """Return whether each field is read the same without the others."""
        ...

    def row_of(self, one: Any) -> Row:
        """Return the object as a row."""
        ...


class LoadedRows(NamedTuple):
    """A page before it becomes objects."""

    page: RawPage
    path: PluralPath
    on_invalid: OnInvalid
    is_partial: bool
    may_hold_tombstones: bool
    skips_tombstones: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[L]):
    """One page of a query."""

    objects: Sequence[L]
    timestamp: int | None
    """The timestamp of the whole list, in milliseconds: the cursor for ``since()``.

    In an order other than by id it is that of the first page: what changed since then does not come again here.
    """
    has_more: bool


class PageWalk(Generic[L]):
    """The pages of one iteration: the next one to read, and the objects to keep of it."""

    def __init__(
        self,
        source: Loader[L],
        place: Place[Any],
        selection: Selection,
        on_invalid: OnInvalid,
        *,
        grows: bool = False,
        id_of: Callable[[L], str] | None = None,
    ) -> None:
        self._id_of = id_of
        self._given: set[str] = set()
        self._began: int | None = None
        self.last: RawPage | None = None
        """The page that was read last, undecoded."""
        self._grows = grows and selection.page_size is None
        self._source = source
        self._place = place
        self._selection = selection
        self._on_invalid: OnInvalid = on_invalid
        self._skip = selection.skip
        self._left = selection.limit
        self._pages = RawPages(place.path, self._first_query(), may_hold_tombstones=selection.may_hold_tombstones)

    def _first_query(self) -> str | None:
        if matches_nothing(self._selection.conditions) or self._left == 0:
            return None
        size = FIRST_PAGE_SIZE if self._grows else self._selection.page_size or PAGE_SIZE
        return encode_query(self._selection.parameters(self._size(size)))

    def _size(self, most: int) -> int:
        """Return how many records to ask for: at most so many."""
        return most if self._left is None else min(most, self._left + self._skip)

    def next_page(self) -> Flow[Page[L]] | None:
        """Return the flow that reads the next page; ``None`` at the end."""
        flow = self._pages.next()
        return None if flow is None else self._read(flow)

    def rest(self) -> Flow[list[L]]:
        """Return the objects of all remaining pages."""
        kept: list[L] = []
        while (flow := self.next_page()) is not None:
            kept += (yield from flow).objects
        return kept

    def _read(self, flow: Flow[RawPage]) -> Flow[Page[L]]:
        raw = yield from flow
        self.last = raw
        loaded = self._source.load(self._rows(raw), self._place)
        objects = self._keep(self._fresh(loaded, is_last=raw.next_query is None))
        if self._left == 0:
            self._pages.query = None
        if self._grows and self._pages.query is not None:
            self._pages.query = self._grown(self._pages.query)
            self._grows = False
        if self._began is None or self._id_of is None:
            self._began = raw.timestamp
        return Page(objects, self._began, self._pages.query is not None)

    def _fresh(self, loaded: Sequence[L], *, is_last: bool) -> Sequence[L]:
        """Return the objects that were not given before: in this order, a change moves an object to a later page."""
        if self._id_of is None or (is_last and not self._given):
            return loaded
        by_id = {self._id_of(one): one for one in loaded}
        fresh = [one for id, one in by_id.items() if id not in self._given]
        self._given.update(by_id)
        return fresh

    def _grown(self, query: str) -> str:
        """Return the query of the next page with the full size; as it is where the server has smaller pages itself."""
        size = f"_limit={self._size(PAGE_SIZE)}"
        return "&".join(size if part == f"_limit={FIRST_PAGE_SIZE}" else part for part in query.split("&"))

    def _rows(self, raw: RawPage) -> LoadedRows:
        selection = self._selection
        return LoadedRows(
            raw,
            self._place.path,
            self._on_invalid,
            bool(selection.fields),
            selection.may_hold_tombstones,
            selection.skips_tombstones,
        )

    def _keep(self, objects: Sequence[L]) -> Sequence[L]:
        skipped, self._skip = objects[self._skip :], max(0, self._skip - len(objects))
        if self._left is None:
            return skipped
        kept = skipped[: self._left]
        self._left -= len(kept)
        return kept


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Reading(Generic[M]):
    """A query about to be read: its source, its selection, and the treatment of rows that do not fit the model.

    Each method is the flow of one ending, for the place that the source found.
    """

    source: Source[M]
    selection: Selection = EVERYTHING
    on_invalid: OnInvalid | None = None

    def select(self, **changes: Any) -> Self:
        """Return the same reading with these changes of its selection."""
        return replace(self, selection=replace(self.selection, **changes))

    def walk(self, place: Place, *, grows: bool = False) -> PageWalk[M]:
        """Return the pages, to be read one by one."""
        on_invalid = place.runner.on_invalid if self.on_invalid is None else self.on_invalid
        order = self.selection.order
        is_stable = order is None or order[0] in ("id", "-id")
        id_of = None if is_stable else _id_of
        return PageWalk(self.source, place, self.selection, on_invalid, grows=grows, id_of=id_of)

    def all(self, place: Place) -> Flow[list[M]]:
        """Return all the objects."""
        return (yield from self.walk(place).rest())

    def first(self, place: Place) -> Flow[M | None]:
        """Return the first object."""
        found = yield from self._at_most(1).all(place)
        return found[0] if found else None

    def one(self, place: Place) -> Flow[M]:
        """Return the only object."""
        found = yield from self._at_most(2).all(place)
        if not found:
            raise NotFoundError("No object matches the query.", status=404, method="GET", path=str(place.path))
        if len(found) > 1:
            raise MultipleObjectsError(f"More than one object of {place.path} matches the query.")
        return found[0]

    def _at_most(self, count: int) -> Self:
        limit = self.selection.limit
        return self.select(limit=count if limit is None else min(limit, count))

    def get(self, id: str, place: Place) -> Flow[M]:
        """Return the object of that id: from the list where it was filtered, else by its URL."""
        if self.selection != EVERYTHING:
            found = self.select(conditions=(*self.selection.conditions, condition("id", "", id)))
            return (yield from found.one(place))
        state = yield from get(place.path.object(id))
        return self.source.load_one(state, place)

    def get_or_none(self, id: str, place: Place) -> Flow[M | None]:
        """Return the object of that id; ``None`` where there is none."""
        return or_none(self.get(id, place))

    def get_many(self, ids: Sequence[str], place: Place) -> Flow[list[M]]:
        """Return the objects of these ids that exist, in the order of the ids."""
        found: dict[str, M] = {}
        for chunk in ids_in_chunks(ids):
            some = self.select(conditions=(*self.selection.conditions, condition("id", "in", chunk)))
            for one in (yield from some.all(place)):
                found[_id_of(one)] = one
        return [found[id] for id in ids if id in found]

    def count(self, place: Place) -> Flow[int]:
        """Return the number of objects."""
        selection = self.selection
        if matches_nothing(selection.conditions):
            return 0
        plain = replace(selection, order=None, fields=())
        # The server's count leaves tombstones out; some lists of plugins have none.
        known = None
        if selection.since is None:
            known = yield from read_known_count(place.path, encode_query(plain.parameters()))
        if known is None:
            return len((yield from self.values(("last_modified",), place)))
        count = max(0, known - selection.skip)
        return count if selection.limit is None else min(count, selection.limit)

    def exists(self, place: Place) -> Flow[bool]:
        """Return whether there is any object."""
        return (yield from self.count(place)) > 0

    def timestamp(self, place: Place) -> Flow[int | None]:
        """Return the timestamp of the whole list."""
        return read_timestamp(place.path)

    def values(self, names: tuple[str, ...], place: Place) -> Flow[list[JSONObject]]:
        """Return these fields of each object."""
        some = self.select(fields=names)
        # The rows are not loaded into objects.
        walk = PageWalk(RawRows(), place, some.selection, "raise")
        found: list[JSONObject] = []
        while (flow := walk.next_page()) is not None:
            page = yield from flow
            for row in page.objects:
                picked = ((name, _value_at(row, name)) for name in names)
                found.append({name: value for name, value in picked if value is not MISSING})
        return found


class Endings(Generic[L]):
    """A lazy selection: nothing is sent before it ends, and each iteration reads anew."""

    __slots__ = ()

    _reading: Reading[Any]

    _grows: ClassVar[bool] = False
    """Whether an iteration begins with a small page."""

    def __iter__(self) -> Iterator[L]:
        place = self._reading.source.locate()
        walk = self._reading.walk(place, grows=self._grows)
        while (flow := walk.next_page()) is not None:
            yield from place.runner.run(place.asked(flow)).objects

    async def __aiter__(self) -> AsyncIterator[L]:
        place = self._reading.source.locate()
        walk = self._reading.walk(place, grows=self._grows)
        while (flow := walk.next_page()) is not None:
            for one in (await place.runner.arun(place.asked(flow))).objects:
                yield one

    def all(self) -> list[L]:
        """Return all that is selected, in a list."""
        return self._run(self._reading.all)

    async def aall(self) -> list[L]:
        """Like :meth:`all`."""
        return await self._arun(self._reading.all)

    def first(self) -> L | None:
        """Return the first one; ``None`` where there is none."""
        return self._run(self._reading.first)

    async def afirst(self) -> L | None:
        """Like :meth:`first`."""
        return await self._arun(self._reading.first)

    def count(self) -> int:
        """Return how many there are; tombstones are not counted."""
        return self._run(self._reading.count)

    async def acount(self) -> int:
        """Like :meth:`count`."""
        return await self._arun(self._reading.count)

    def exists(self) -> bool:
        """Return whether there is any."""
        return self._run(self._reading.exists)

    async def aexists(self) -> bool:
        """Like :meth:`exists`."""
        return await self._arun(self._reading.exists)

    def __bool__(self) -> NoReturn:
        raise UsageError("A query has no truth value, because finding out costs a request: use .exists().")

    def _run(self, ending: Callable[[Place], Flow[T]]) -> T:
        place = self._reading.source.locate()
        return place.runner.run(place.asked(ending(place)))

    async def _arun(self, ending: Callable[[Place], Flow[T]]) -> T:
        place = self._reading.source.locate()
        return await place.runner.arun(place.asked(ending(place)))


def _value_at(row: JSONObject, name: str) -> JSON:
    if name in row:
        return row[name]
    value: JSON = row
    for key in name.split("."):
        value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
    return value


class RawRows:
    """Loader of rows as they are."""

    def load(self, rows: LoadedRows, place: Place) -> list[JSONObject]:
        """Return the rows of a page."""
        with pause_collector():
            found = rows_of(decode(rows.page.body, str(rows.path)), rows.path)
        if not (rows.may_hold_tombstones and rows.skips_tombstones):
            return found
        return [row for row in found if not is_tombstone(row)]
