"""Queries of the lists whose entries have no URL: a bucket's history, and the user's permissions.

https://docs.kinto-storage.org/en/stable/api/1.x/history.html
https://docs.kinto-storage.org/en/stable/api/1.x/permissions.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, Self, TypeVar, cast

from kinto_orm.errors import InvalidFilterError
from kinto_orm.protocol.entries import PERMISSIONS_ORDER, HistoryEntry, PermissionEntry, history_entry, permission_entry
from kinto_orm.protocol.filters import Condition
from kinto_orm.protocol.json_values import JSON, JSONObject, TimestampInput, decode, parse_timestamp
from kinto_orm.protocol.paging import encode_query, entries_of
from kinto_orm.protocol.paths import EntriesPath, ObjectPath
from kinto_orm.protocol.writes import Flow
from kinto_orm.query import building
from kinto_orm.query.execution import Endings, LoadedRows, PageWalk, Place, Reading, Selection, Source
from kinto_orm.query.writing import delete_selected
from kinto_orm.repository.history import conditions_about, history_path, require_history
from kinto_orm.repository.reads import require_capability
from kinto_orm.repository.state import FlowRunner
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

E = TypeVar("E")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RawEntries:
    """Loader of entries as they are; any field can be selected."""

    def load(self, rows: LoadedRows, place: Place) -> Sequence[JSONObject]:
        """Return the entries of a page."""
        return entries_of(decode(rows.page.body, str(rows.path)), rows.path)

    def declared_fields(self) -> tuple[str, ...]:
        """Return no names: no field is declared."""
        return ()

    def check_path(self, path: str) -> None:
        """Do nothing: no field is declared."""

    def condition_value(self, field: str, operator: str, value: Any) -> Any:
        """Return the value itself: entries are of no model."""
        return value

    def resolve_field(self, name: str) -> str:
        """Return the name unchanged."""
        return name

    def holds_lists(self, field: str) -> bool | None:
        """Return ``False``: no field is declared."""
        return False

    def check_order(self, field: str) -> None:
        """Do nothing: the server may sort by any field."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EntrySource(RawEntries, Generic[E]):
    """The list of the entries, and the fields that a query may use."""

    plural: str
    fields: tuple[str, ...]
    """The fields for filters. Kinto refuses other names, and ignores some that it knows."""
    order: tuple[str, ...]
    """An order in which each page continues the last one, while others write."""
    sortable: tuple[str, ...]
    """The fields that every entry has, so that no page leaves an entry out in their order."""
    parse: Callable[[JSONObject], E]
    locate: Callable[[], Place[Any]]
    """Function that returns the client and the list; raises ``NotBoundError`` where there is none."""

    def load(self, rows: LoadedRows, place: Place) -> Sequence[Any]:
        """Return the entries of a page."""
        found = RawEntries.load(self, rows, place)
        # With a condition on the time, Kinto adds tombstones of purged entries.
        live = [row for row in found if "uri" in row or not (rows.is_partial or row.get("deleted") is True)]
        return live if rows.is_partial else [self.parse(row) for row in live]

    def resolve_field(self, name: str) -> str:
        """Return the name; raise ``InvalidFilterError`` where filters cannot use it."""
        if name in self.fields or (name.startswith("target.") and "target" in self.fields):
            return name
        raise InvalidFilterError(
            f"{self.plural} cannot be filtered on {name!r}: Kinto would refuse or ignore it; "
            f"they have {', '.join(self.fields)}."
        )

    def check(self, selection: Selection) -> None:
        """Raise ``InvalidFilterError`` where Kinto would ignore a part of the selection, or lose entries."""
        unsafe = [name for name in selection.order or () if name.lstrip("-") not in self.sortable]
        if unsafe:
            raise InvalidFilterError(
                f"{self.plural} cannot be sorted by {', '.join(unsafe)}: pages would lose entries without it; "
                f"sort by {', '.join(self.sortable)}."
            )
        if selection.fields:
            raise InvalidFilterError(f"{self.plural} are read whole: leave _fields= out.")
        asks_time = selection.since is not None or selection.before is not None
        if asks_time and "last_modified" not in self.fields:
            raise InvalidFilterError(f"{self.plural} have no time: Kinto would ignore _since= and _before=.")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EntryReading(Reading[Any]):
    """A query of entries about to be read."""

    def walk(self, place: Place, *, grows: bool = False) -> PageWalk[Any]:
        """Return the pages, to be read one by one."""
        source = cast(EntrySource[Any], self.source)
        return PageWalk(source, place, replace(self.selection, order=self.selection.order or source.order), "raise")

    def count(self, place: Place) -> Flow[int]:
        """Return the number of entries."""
        # HEAD returns no count of the history: the entries are read and counted, with one small field each.
        return len((yield from self.select(fields=("uri",)).all(place)))

    def exists(self, place: Place) -> Flow[bool]:
        """Return whether there is any entry."""
        return (yield from self.first(place)) is not None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EntryQuery(Endings[E]):
    """A lazy selection of entries: nothing is sent before it ends, and each iteration reads anew.

    Each ending raises ``CapabilityMissingError`` where the server lacks the plugin, before anything else is sent.
    """

    _reading: Reading[Any]

    # -- refine ---------------------------------------------------------------------------------------------------

    def filter(self, *conditions: Condition | bool, **keywords: Any) -> Self:
        """Select the entries that meet all the conditions.

        Takes Kinto's keywords (``resource_name="record", in_action=["update", "delete"], _since=…, _limit=10``) and
        expressions (``F("user_id") == "account:bob"``). Raises ``InvalidFilterError`` for conditions that Kinto would
        refuse or ignore.
        """
        for one in conditions:
            if isinstance(one, Condition):
                self._source.resolve_field(one.field)
        reading = building.with_keywords(building.with_expressions(self._reading, conditions), keywords)
        self._source.check(reading.selection)
        return self._refined(reading.select(conditions=tuple(map(_as_dated, reading.selection.conditions))))

    def limit(self, count: int) -> Self:
        """Select the first ``count`` entries, on however many pages."""
        return self._refined(self._reading.select(limit=building.check_count(count, "limit")))

    def page_size(self, count: int) -> Self:
        """Read the same entries, ``count`` at a time."""
        return self._refined(self._reading.select(page_size=building.check_count(count, "page_size", least=1)))

    def __getitem__(self, part: slice) -> Self:
        return self._refined(building.sliced(self._reading, part))

    @property
    def _source(self) -> EntrySource[E]:
        return cast(EntrySource[E], self._reading.source)

    def _refined(self, reading: Reading[Any]) -> Self:
        return type(self)(reading.select(is_newest_first=False))

    def __repr__(self) -> str:
        selection = self._reading.selection
        size = "all" if selection.limit is None else selection.limit
        what = encode_query(selection.parameters()) or "no filter"
        return f"<{type(self).__name__} of {size} {self._source.plural}: {what}>"


def _as_dated(one: Condition) -> Condition:
    """Return the condition with the times of entries as Kinto stores them."""
    if one.field != "date":
        return one
    value: JSON = list(map(_date_text, one.value)) if isinstance(one.value, list) else _date_text(one.value)
    return replace(one, value=value)


def _date_text(value: JSON) -> JSON:
    # As Kinto: by isoformat(), without microseconds that are 0. "+" comes before ".", so that the order is right.
    try:
        date = datetime.fromisoformat(value)
        return value if date.tzinfo is None else date.astimezone(UTC).isoformat()
    except (TypeError, ValueError, OverflowError):
        return value  # a pattern, or the beginning of a date


class History(EntryQuery[HistoryEntry]):
    """The history of a bucket, the newest entry first: a lazy selection of its entries.

    A user who may not read the bucket sees the entries of objects that they may read. The history is deleted with its
    bucket.
    """

    __slots__ = ()

    def since(self, timestamp: TimestampInput) -> Self:
        """Select the entries after the timestamp (milliseconds, ETag or aware datetime)."""
        return self._refined(self._reading.select(since=building.moment(timestamp, "since")))

    def before(self, timestamp: TimestampInput) -> Self:
        """Select the entries before the timestamp (milliseconds, ETag or aware datetime)."""
        return self._refined(self._reading.select(before=building.moment(timestamp, "before")))

    def timestamp(self) -> int | None:
        """Return the timestamp of the bucket's history, in milliseconds, whatever the filters."""
        return self._run(self._reading.timestamp)

    async def atimestamp(self) -> int | None:
        """Like :meth:`timestamp`."""
        return await self._arun(self._reading.timestamp)

    def purge(self, *, everything: bool = False, if_match: TimestampInput | None = None) -> int:
        """Delete the entries on the server, on every page, and return their number.

        Objects can no longer be reverted to purged versions. ``if_match`` is the :meth:`timestamp` that the history
        must have: raises ``ConflictError`` where it has a newer entry. Raises ``UsageError`` without a filter, unless
        ``everything=True``.
        """
        return self._run(self._purging(if_match, everything=everything))

    async def apurge(self, *, everything: bool = False, if_match: TimestampInput | None = None) -> int:
        """Like :meth:`purge`."""
        return await self._arun(self._purging(if_match, everything=everything))

    def _purging(self, if_match: TimestampInput | None, *, everything: bool) -> Callable[[Place[Any]], Flow[int]]:
        reading = self._reading
        reading.selection.check_deletion("purge", everything=everything)
        timestamp = None if if_match is None else parse_timestamp(if_match, "if_match")
        refuse_staging(reading.source.locate().runner, "purge()")
        return lambda place: delete_selected(reading.selection, place, reading.count, if_match=timestamp)


_ALWAYS_THERE = ("last_modified", "id", "date", "action", "uri", "resource_name")
_KINDS = ("group_id", "collection_id", "record_id")


def history_of(inside: Source[Any], about: ObjectPath | None = None) -> History:
    """Return the history of the bucket that the list ``inside`` is in, or of one object of that list."""
    source = EntrySource(
        "history entries",
        fields=(*_ALWAYS_THERE, "user_id", "bucket_id", *_KINDS, "target"),
        order=("-last_modified",),
        sortable=_ALWAYS_THERE,
        parse=history_entry,
        locate=partial(_locate_history, inside, about),
    )
    return History(_reading_of(source, Selection(conditions=conditions_about(about) if about is not None else ())))


def _locate_history(inside: Source[Any], about: ObjectPath | None) -> Place[Any]:
    runner, path, *_ = inside.locate()
    if about is None:
        needs: Callable[[], Flow[Any]] = partial(require_capability, "history", "bucket.history", runner)
        return Place(runner, history_path(path.parent_ids[0]), requirement=needs)
    return Place(runner, history_path(about.ids[0]), requirement=partial(require_history, "history()", about, runner))


def permissions_of(runner: FlowRunner) -> EntryQuery[PermissionEntry]:
    """Return the permissions of the client's user."""
    source = EntrySource(
        "permission entries",
        fields=("uri", "resource_name", "id", "bucket_id", *_KINDS),
        order=PERMISSIONS_ORDER,
        sortable=PERMISSIONS_ORDER,
        parse=permission_entry,
        locate=partial(_locate_permissions, runner),
    )
    return EntryQuery(_reading_of(source, Selection()))


def _locate_permissions(runner: FlowRunner) -> Place[Any]:
    needs = partial(require_capability, "permissions_endpoint", "client.permissions", runner)
    return Place(runner, EntriesPath("permissions"), requirement=needs)


def _reading_of(source: EntrySource[Any], selection: Selection) -> EntryReading:
    return EntryReading(cast(Source[Any], source), selection)
