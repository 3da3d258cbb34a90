"""The history of objects: their entries, the records of a collection as they were, and going back to a version.

For ``as_of()`` the server takes the records that did not change since, and takes the others from its history.
Where the history does not reach back, the server leaves records out without an error: ``Snapshot`` checks for that.
https://docs.kinto-storage.org/en/stable/api/1.x/history.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar, cast
from uuid import UUID

from kinto_orm.errors import (
    CapabilityMissingError,
    InvalidTypeError,
    InvalidValueError,
    NotFoundError,
    PartialObjectError,
    UnsavedChangesError,
    UsageError,
)
from kinto_orm.protocol.entries import HistoryEntry
from kinto_orm.protocol.filters import condition
from kinto_orm.protocol.json_values import JSONObject, TimestampInput, encode, is_same, parse_timestamp
from kinto_orm.protocol.messages import Request
from kinto_orm.protocol.paging import RawPage, is_tombstone, rows_of
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath, check_id
from kinto_orm.protocol.responses import content, raise_for_status
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.building import moment
from kinto_orm.query.entry_query import History, RawEntries, history_of
from kinto_orm.query.execution import LoadedRows, PageWalk, Place, Selection, Source
from kinto_orm.query.query import Query
from kinto_orm.repository.history import (
    deletion_of,
    history_path,
    incomplete_history,
    require_history,
    version_at,
    version_in,
)
from kinto_orm.repository.reads import get, ids_in_chunks, or_none
from kinto_orm.repository.state import Change, ObjectState, Stateful, Status, Verb
from kinto_orm.repository.verbs import without_schema_timestamp
from kinto_orm.unit_of_work.engine import carry_out
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

M = TypeVar("M", bound=Stateful)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Snapshot(Generic[M]):
    """The records of a collection as they were at one time: lazy, and read anew by each iteration.

    The server sends all records in one answer, the last changed first; it takes neither filters nor pages here. The
    records have the data and the timestamps of that time, so saving or deleting one that was changed since conflicts.
    Every ending raises ``HistoryIncompleteError`` where the history does not reach back to a record's version.
    https://docs.kinto-storage.org/en/stable/api/1.x/history.html
    """

    _source: Source[M]
    timestamp: int
    """The time, in milliseconds since the epoch."""

    def __iter__(self) -> Iterator[M]:
        yield from self.all()

    async def __aiter__(self) -> AsyncIterator[M]:
        for one in await self.aall():
            yield one

    def all(self) -> list[M]:
        """Return all the records, in a list."""
        return self._run(self._all)

    async def aall(self) -> list[M]:
        """Like :meth:`all`."""
        return await self._arun(self._all)

    def count(self) -> int:
        """Return the number of records at that time."""
        return self._run(self._count)

    async def acount(self) -> int:
        """Like :meth:`count`."""
        return await self._arun(self._count)

    def get(self, id: str | UUID) -> M:
        """Return the record of that id, read alone, with its permissions where the caller may see them.

        Raises ``NotFoundError`` where there was no such record at that time.
        """
        return self._run(partial(self._get, check_id(id)))

    async def aget(self, id: str | UUID) -> M:
        """Like :meth:`get`."""
        return await self._arun(partial(self._get, check_id(id)))

    def _get(self, id: str, place: Place) -> Flow[M]:
        path = place.path.object(id)
        yield from require_history("as_of()", path, place.runner)
        found: ObjectState | None = yield from or_none(get(path))
        if found is None or (found.last_modified or 0) > self.timestamp:
            found = yield from version_at(path, self.timestamp, exists=found is not None)
        if found is None or found.status is Status.DELETED:
            raise NotFoundError(f"{path} did not exist at {self.timestamp}.", status=404, method="GET", path=str(path))
        return self._source.load_one(found, place)

    def _all(self, place: Place) -> Flow[list[M]]:
        rows = yield from self._rows(place)
        page = RawPage(encode({"data": rows}), self.timestamp, None)
        loaded = LoadedRows(
            page, place.path, on_invalid=place.runner.on_invalid, is_partial=False, may_hold_tombstones=False
        )
        return list(self._source.load(loaded, place))

    def _count(self, place: Place) -> Flow[int]:
        return len((yield from self._rows(place)))

    def _rows(self, place: Place) -> Flow[list[JSONObject]]:
        path = place.path
        yield from require_history("as_of()", path, place.runner)
        deleted = yield from deletion_of(path)
        if deleted is not None and deleted > self.timestamp:
            raise incomplete_history(f"{path} (the collection was deleted since, and created again)", self.timestamp)
        found = yield from self._snapshot(path)
        rows = yield from _all_rows(place, Selection(since=self.timestamp, fields=("id",)))
        changed = {row["id"] for row in rows}  # which were created, changed or deleted since
        if deleted is not None:
            # The server also finds what was in the collection before it was deleted.
            found = [row for row in found if row["id"] not in changed or row.get("last_modified", 0) > deleted]
        yield from self._check_is_complete(changed - {row["id"] for row in found}, place)
        return [row for row in found if not is_tombstone(row)]

    def _snapshot(self, path: PluralPath) -> Flow[list[JSONObject]]:
        bucket, collection = path.parent_ids
        url = f"{ObjectPath(Kind.BUCKET, (bucket,))}/snapshot/collections/{collection}@{self.timestamp}"
        response = yield Request("GET", url)
        if response.status == 404:
            raise CapabilityMissingError(
                "as_of() needs a Kinto whose history plugin has snapshots of collections, and this one has none; "
                "as_of(…).get(id) does not need them."
            )
        raise_for_status(response, "GET", url)
        return rows_of(content(response, f"GET {url}"), path)

    def _check_is_complete(self, missing: Iterable[str], place: Place) -> Flow[None]:
        """Raise ``HistoryIncompleteError`` unless the history shows that all these were created since."""
        collection = place.path.parent_ids[-1]
        entries: Place[Any] = Place(place.runner, history_path(place.path.parent_ids[0]))
        about = (condition("resource_name", "", "record"), condition("collection_id", "", collection))
        for chunk in ids_in_chunks(sorted(missing)):
            conditions = (*about, condition("record_id", "in", chunk))
            selection = Selection(conditions, order=("last_modified",), fields=("record_id", "action"))
            first: dict[str, str] = {}
            for row in (yield from _all_rows(entries, selection)):
                first.setdefault(row["record_id"], row["action"])
            for id in chunk:
                if first.get(id) != "create":
                    raise incomplete_history(str(place.path.object(id)), self.timestamp)

    def _run(self, ending: Callable[[Place], Flow[T]]) -> T:
        place = self._source.locate()
        return place.runner.run(ending(place))

    async def _arun(self, ending: Callable[[Place], Flow[T]]) -> T:
        place = self._source.locate()
        return await place.runner.arun(ending(place))

    def __bool__(self) -> NoReturn:
        raise UsageError("A snapshot has no truth value, because finding out costs a request: use .count().")

    def __repr__(self) -> str:
        return f"<Snapshot of all {self._source.kind.plural} at {self.timestamp}>"


def _all_rows(place: Place[Any], selection: Selection) -> Flow[list[JSONObject]]:
    return PageWalk(RawEntries(), place, selection, "raise").rest()


class HistoryMixin(Query[M]):
    """The verbs of managers that rest on the history of the bucket."""

    __slots__ = ()

    def history(self, one: M | str | UUID, /) -> History:
        """Return the history of the object, or of the object that had that id, the newest entry first.

        Nothing is sent before the query ends.
        """
        place = self._reading.source.locate()
        path = _path_of(one, place)
        return history_of(self._reading.source, path)

    def as_of(self, timestamp: TimestampInput) -> Snapshot[M]:
        """Return the records of the collection as they were at that time (milliseconds, ETag or aware datetime).

        Iterate over it, or end it with ``all``, ``count`` or ``get``. Raises ``UsageError`` for other kinds of objects.
        """
        kind = self._reading.source.kind
        if kind is not Kind.RECORD:
            raise UsageError(f"as_of() is for records: Kinto has no snapshots of {kind.plural}; look at history(id).")
        return Snapshot(self._reading.source, moment(timestamp, "as_of"))

    def revert(self, one: M | str | UUID, /, *, to: TimestampInput | HistoryEntry) -> M:
        """Store the object as it was at that time, or after that entry of its history, and return it.

        Permissions are restored where the history shows them. The write has a precondition: for an object, the version
        it holds; for an id, the current version. A deleted object is created again, unless another client created it.
        Raises ``ConflictError`` where another client changed the object since. Raises ``UsageError`` where the object
        did not exist at that time. Raises ``HistoryIncompleteError`` where the history does not reach back that far.
        Raises ``UnsavedChangesError`` where local changes would be lost.
        """
        return self._run(_reverting(self, one, to))

    async def arevert(self, one: M | str | UUID, /, *, to: TimestampInput | HistoryEntry) -> M:
        """Like :meth:`revert`."""
        return await self._arun(_reverting(self, one, to))


class _Reverting(NamedTuple, Generic[M]):
    """One call of ``revert()``."""

    source: Source[M]
    given: M | None
    """The given object; ``None`` where an id was given."""
    id: str
    when: int | HistoryEntry

    def flow(self, place: Place) -> Flow[M]:
        """Store the old version and return the object."""
        refuse_staging(place.runner, "revert()")
        path = _path_of(self.id if self.given is None else self.given, place)
        if isinstance(self.when, HistoryEntry):
            _check_is_about(self.when, path)
        status = Status.REFERENCE if self.given is None else _checked_status(self.given)
        yield from require_history("revert()", path, place.runner)
        if self.given is None or status is Status.REFERENCE:
            return (yield from self._after_reading(path, place))
        if status is Status.DELETED:
            return (yield from self._store(ObjectState(path, Status.NEW), place))
        return (yield from self._write_over(self.given, place))

    def _after_reading(self, path: ObjectPath, place: Place) -> Flow[M]:
        state = (yield from or_none(get(path))) or ObjectState(path, Status.NEW)
        is_loaded = state.status is Status.LOADED
        if is_loaded and not isinstance(self.when, HistoryEntry) and (state.last_modified or 0) <= self.when:
            return self._taken(self.source.load_one(state, place))
        return (yield from self._store(state, place))

    def _store(self, state: ObjectState, place: Place) -> Flow[M]:
        """Write the old version over a state that no object holds yet, or create the object again."""
        version = yield from self._version(state.path, exists=state.status is Status.LOADED)
        if state.status is Status.LOADED and _is_as_in(state, version):
            return self._taken(self.source.load_one(state, place))
        data, permissions = _wanted(version)
        stored = self._loaded(version, data, place)
        change = Change(stored, Verb.REPLACE, state, data, permissions or None, permissions or None)
        yield from carry_out(change, place.runner)
        return self._taken(stored)

    def _write_over(self, holder: M, place: Place) -> Flow[M]:
        version = yield from self._version(holder.__kinto_path__(), exists=True)
        data, permissions = _wanted(version)
        self._loaded(version, data, place)
        shown = holder.__kinto_change__(Verb.REPLACE)
        # ``seen``: the object's data is not the version that is sent, and must not count as edits made since.
        change = replace(
            shown, data=data, permissions=permissions or None, all_permissions=permissions or None, seen=shown
        )
        yield from carry_out(change, place.runner)
        return holder

    def _taken(self, stored: M) -> M:
        """Give the caller's object the stored state and return it."""
        if self.given is None:
            return stored
        self.given.__kinto_apply_state__(stored.__kinto_state__(), None)
        return self.given

    def _version(self, path: ObjectPath, *, exists: bool) -> Flow[ObjectState]:
        if isinstance(self.when, HistoryEntry):
            found: ObjectState | None = version_in(self.when, path)
        else:
            found = yield from version_at(path, self.when, exists=exists)
        if found is None or found.status is Status.DELETED:
            raise UsageError(f"{path} did not exist then: to go back to that, delete() it. Nothing was written.")
        return found

    def _loaded(self, version: ObjectState, data: JSONObject, place: Place) -> M:
        """Return the object as it shall be; raise ``InvalidValueError`` where the version no longer fits its model."""
        state = ObjectState(version.path, Status.LOADED, data, version.last_modified)
        try:
            return self.source.load_one(state, place)
        except InvalidValueError as error:
            raise InvalidValueError(f"revert() wrote nothing, because the old version does not fit: {error}") from error


def _reverting(query: Query[M], one: M | str | UUID, to: TimestampInput | HistoryEntry) -> Callable[[Place], Flow[M]]:
    when = to if isinstance(to, HistoryEntry) else parse_timestamp(to, "to")
    if not isinstance(one, str | UUID):
        return _Reverting(query.__kinto_reading__().source, one, "", when).flow
    return _Reverting(query.__kinto_reading__().source, None, check_id(one), when).flow


def _path_of(one: Stateful | str | UUID, place: Place) -> ObjectPath:
    """Return the path of the object; raise ``InvalidTypeError`` where the manager's list does not hold it."""
    if place.path.kind is Kind.ACCOUNT:
        raise UsageError("Kinto keeps no history of accounts.")
    is_object = hasattr(type(one), "__kinto_path__")
    path = cast(Stateful, one).__kinto_path__() if is_object else place.path.object(check_id(one))
    if path.plural != place.path:
        raise InvalidTypeError(f"{path} is not in {place.path}: ask the manager of its list.")
    return path


def _checked_status(given: Stateful) -> Status:
    """Return the status of the object; raise where it is partial, or has unsaved changes."""
    state = given.__kinto_state__()
    if state.is_partial:
        raise PartialObjectError(f"{given!r} holds only some of its fields (only()): refresh() it, or give its id.")
    if state.status is not Status.DELETED and given.is_dirty:
        raise UnsavedChangesError(
            f"{given!r} has unsaved changes, which revert() would drop: refresh(discard=True) it, or give its id."
        )
    return state.status


def _check_is_about(entry: HistoryEntry, path: ObjectPath) -> None:
    # The history names the default bucket by its real id.
    mine, its = (uri.split("/")[3 if path.ids[0] == "default" else 2 :] for uri in (str(path), entry.uri))
    if mine != its:
        raise InvalidValueError(f"to= is an entry of {entry.uri}, not of {path}.")


def _wanted(version: ObjectState) -> tuple[JSONObject, dict[str, list[str]]]:
    """Return the data and the permissions that bring the version back."""
    # The server sets its own key again.
    data = dict(without_schema_timestamp(version.path.kind, version.data or {}))
    permissions = {name: sorted(principals) for name, principals in (version.permissions or {}).items()}
    return data, permissions


def _is_as_in(state: ObjectState, version: ObjectState) -> bool:
    """Return whether the object, just read, has the content of that version."""
    (data, granted), (data_then, granted_then) = _wanted(state), _wanted(version)
    return is_same(data, data_then) and (not granted_then or _named(granted) == _named(granted_then))


def _named(permissions: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: principals for name, principals in permissions.items() if principals}
