"""The records of a collection as they were: what the server's snapshot says, and whether that is all.

The server takes the records that did not change since, and out of the history what the others were like. Where the
history does not reach back it leaves them out, without a word: so what changed is looked at once more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar
from uuid import UUID

from kinto_orm.errors import CapabilityMissingError, NotFoundError, UsageError
from kinto_orm.protocol.filters import condition
from kinto_orm.protocol.json_values import JSONObject, encode
from kinto_orm.protocol.messages import Request
from kinto_orm.protocol.paging import RawPage, rows_of
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath, check_id
from kinto_orm.protocol.responses import content, raise_for_status
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.entry_query import RawEntries
from kinto_orm.query.execution import LoadedRows, PageWalk, Place, Source
from kinto_orm.query.selection import Selection
from kinto_orm.repository import (
    deletion_of,
    get_or_none,
    history_path,
    ids_in_chunks,
    incomplete_history,
    require_history,
    version_at,
)
from kinto_orm.repository.state import ObjectState, Stateful, Status

M = TypeVar("M", bound=Stateful)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Snapshot(Generic[M]):
    """The records of a collection as they were at one time: lazy, and asked anew by each iteration.

    The last changed ones come first, in one answer of the server, which takes neither filters nor pages. They are
    loaded as they were, with the timestamps of then: saving or deleting one that was changed since is a conflict.
    Each ending raises ``HistoryIncompleteError`` where the history does not reach back to what a record was like.
    https://docs.kinto-storage.org/en/stable/api/1.x/history.html
    """

    source: Source[M]
    timestamp: int
    """The time, in milliseconds since the epoch."""

    def __iter__(self) -> Iterator[M]:
        yield from self.all()

    async def __aiter__(self) -> AsyncIterator[M]:
        for one in await self.aall():
            yield one

    def all(self) -> list[M]:
        """All the records, in a list."""
        return self._run(self._all)

    async def aall(self) -> list[M]:
        """Like :meth:`all`."""
        return await self._arun(self._all)

    def count(self) -> int:
        """How many records there were."""
        return self._run(self._count)

    async def acount(self) -> int:
        """Like :meth:`count`."""
        return await self._arun(self._count)

    def get(self, id: str | UUID) -> M:
        """The record of that id, read by itself, with its permissions where they may be seen.

        Raises ``NotFoundError`` where it was not there then.
        """
        return self._run(self._getting(id))

    async def aget(self, id: str | UUID) -> M:
        """Like :meth:`get`."""
        return await self._arun(self._getting(id))

    def _getting(self, id: str | UUID) -> Callable[[Place], Flow[M]]:
        checked = check_id(id)
        return lambda place: self._get(place.path.object(checked), place)

    def _get(self, path: ObjectPath, place: Place) -> Flow[M]:
        yield from require_history("as_of()", path, place.runner)
        found: ObjectState | None = yield from get_or_none(path)
        if found is None or (found.last_modified or 0) > self.timestamp:
            found = yield from version_at(path, self.timestamp, exists=found is not None)
        if found is None or found.status is Status.DELETED:
            raise NotFoundError(f"{path} was not there at {self.timestamp}.", status=404, method="GET", path=str(path))
        return self.source.load_one(found, place)

    def _all(self, place: Place) -> Flow[list[M]]:
        rows = yield from self._rows(place)
        page = RawPage(encode({"data": rows}), self.timestamp, None)
        loaded = LoadedRows(
            page, place.path, on_invalid=place.runner.on_invalid, is_partial=False, may_hold_tombstones=False
        )
        return list(self.source.load(loaded, place))

    def _count(self, place: Place) -> Flow[int]:
        return len((yield from self._rows(place)))

    def _rows(self, place: Place) -> Flow[list[JSONObject]]:
        path = place.path
        yield from require_history("as_of()", path, place.runner)
        deleted = yield from deletion_of(path)
        if deleted is not None and deleted > self.timestamp:
            raise incomplete_history(f"{path} (the collection was deleted since, and made again)", self.timestamp)
        found = yield from self._snapshot(path)
        changed = yield from self._changed_since(place)
        if deleted is not None:
            # The server also finds what was in the collection before it was deleted.
            found = [row for row in found if row["id"] not in changed or row.get("last_modified", 0) > deleted]
        yield from self._check_is_complete(changed - {row["id"] for row in found}, place)
        return [row for row in found if not _is_tombstone(row)]

    def _snapshot(self, path: PluralPath) -> Flow[list[JSONObject]]:
        bucket, collection = path.parent_ids
        url = f"{ObjectPath(Kind.BUCKET, (bucket,))}/snapshot/collections/{collection}@{self.timestamp}"
        response = yield Request("GET", url)
        if response.status == 404:
            raise CapabilityMissingError(
                "as_of() needs a Kinto whose history plugin gives snapshots of collections, which this one does not; "
                "as_of(…).get(id) does without."
            )
        raise_for_status(response, "GET", url)
        return rows_of(content(response, f"GET {url}"), path)

    def _changed_since(self, place: Place) -> Flow[set[str]]:
        """The ids of the records that were created, changed or deleted since."""
        rows = yield from _all_rows(place, Selection(since=self.timestamp, fields=("id",)))
        return {row["id"] for row in rows}

    def _check_is_complete(self, missing: Iterable[str], place: Place) -> Flow[None]:
        """Raises ``HistoryIncompleteError`` unless the history tells of all these that they were created since."""
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
        place = self.source.locate()
        return place.runner.run(ending(place))

    async def _arun(self, ending: Callable[[Place], Flow[T]]) -> T:
        place = self.source.locate()
        return await place.runner.arun(ending(place))

    def __bool__(self) -> NoReturn:
        raise UsageError("A snapshot has no truth value, because finding out costs a request: use .count().")

    def __repr__(self) -> str:
        return f"<Snapshot of all {self.source.kind.plural} at {self.timestamp}>"


def _all_rows(place: Place[Any], selection: Selection) -> Flow[list[JSONObject]]:
    return PageWalk(RawEntries(), place, selection, "raise").rest()


def _is_tombstone(row: JSONObject) -> bool:
    return row.get("deleted") is True and row.keys() == {"id", "last_modified", "deleted"}
