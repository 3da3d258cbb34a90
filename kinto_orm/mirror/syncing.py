"""A sync as a flow: pull what changed on the server, merge, push what changed here.

Each step leaves the file in a state from which another sync goes on: a page is taken together with the place that it
reaches, and what is sent is noted before it is sent. The pull goes on from a *cursor* that is at least one horizon old,
because on PostgreSQL late commits appear below the list's timestamp. A record at the cursor, the *anchor*, and the
number of records tell whether it is still the same list.
https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from kinto_orm.client import Client
from kinto_orm.errors import (
    BackoffError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    InvalidValueError,
    KintoError,
    NotStageableError,
    ProtocolError,
    ResponseError,
    ServerError,
    ServerResetError,
    TransportError,
    UsageError,
)
from kinto_orm.jobs.sources import read_json, read_json_lines
from kinto_orm.mirror import merging
from kinto_orm.mirror.reports import Conflict, MirrorResult, OnConflict, OnReset, SyncError, VerifyReport
from kinto_orm.mirror.store import Position, Row, Store
from kinto_orm.models import Collection, Record
from kinto_orm.protocol.filters import condition, encode_conditions
from kinto_orm.protocol.json_values import JSONObject, etag, is_same
from kinto_orm.protocol.messages import Request, Response, whole_seconds
from kinto_orm.protocol.paging import (
    ListState,
    check_progress,
    check_timestamp,
    encode_query,
    is_tombstone,
    read_page,
    read_rows,
    read_state,
    settled_until,
    timestamped_rows,
    without_envelope,
)
from kinto_orm.protocol.paths import Kind
from kinto_orm.protocol.writes import Flow, call_blocking, pause
from kinto_orm.query import PageWalk, RawRows
from kinto_orm.query.execution import EVERYTHING, PAGE_SIZE, Selection
from kinto_orm.repository import ids_in_chunks, without_schema_timestamp
from kinto_orm.repository.disk import Disk
from kinto_orm.repository.state import Change, ObjectState, Status, Verb, add_observer, remove_observer
from kinto_orm.unit_of_work import Bulk, carry_out

T = TypeVar("T")

MOST_ROUNDS = 4
"""The number of times that a record is pushed at most, on top of what other clients wrote in between."""
PUSHED_AT_A_TIME = 500
SECONDS_BETWEEN_LOOKS = 0.05
MOST_BACKOFF = 3600.0
"""Seconds; the clock of the machine may have been wrong when a longer pause was noted."""
MOST_FAILURES = 3
"""Records that the server fails to store, one by one, before the push is given up."""


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """The options of a sync."""

    on_conflict: OnConflict = "park"
    on_reset: OnReset = "ask"
    push: bool = True
    horizon: float = 10


def sync_collections(
    store: Store, online: Client, collections: Sequence[tuple[int, Collection[Record]]], options: SyncOptions
) -> Flow[MirrorResult]:
    """Sync the collections, one after the other, and return the effects; only one sync of the file runs at a time.

    Errors of the server and the network are in the result. Raises ``ServerResetError`` when the other collections are
    done, and ``MirrorFileError``.
    """
    result = MirrorResult()
    resets: list[ServerResetError] = []
    observer = _BackoffObserver()
    add_observer(observer)
    try:
        with (yield from _lease(store)):
            if (failure := _paused(store)) is None:
                failure = yield from _check_user(store, online)
            for number, collection in collections if failure is None else ():
                try:
                    yield from CollectionSync(store, number, collection, options, result).run()
                except ServerResetError as error:
                    resets.append(error)
                except (ResponseError, ProtocolError) as error:
                    result.errors.append(SyncError(str(collection.__kinto_path__()), None, error))
                except TransportError as error:
                    failure = error
                    break
            if failure is not None:
                result.errors.append(SyncError("", None, failure))
            if observer.seconds:
                store.set_number(_PAUSED_UNTIL, time.time() + observer.seconds)
    finally:
        remove_observer(observer)
    for reset in resets:
        reset.result = result
        raise reset
    return result


_PAUSED_UNTIL = "paused until"


class _BackoffObserver:
    """Notes for how many seconds the server asks for a pause."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, request: Request, response: Response | None) -> None:
        asked = None if response is None else response.headers.get("backoff")
        self.seconds = (whole_seconds(asked.strip()) or 0.0) if asked else self.seconds


def _lease(store: Store) -> Flow[AbstractContextManager[object]]:
    """Wait until no other sync of the file runs; return the block that keeps it so."""
    while True:
        lease = ExitStack()
        if lease.enter_context(store.lease()):
            return lease
        lease.close()
        yield from pause(SECONDS_BETWEEN_LOOKS)


def _paused(store: Store) -> KintoError | None:
    """Return the error of a sync while the server asks for a pause."""
    seconds = store.number(_PAUSED_UNTIL) - time.time()
    if not 0 < seconds <= MOST_BACKOFF:
        return None
    return BackoffError(f"Nothing was sent: the server asks for a pause of {seconds:.0f} s more.", retry_after=seconds)


def _check_user(store: Store, online: Client) -> Flow[KintoError | None]:
    """Raise ``MirrorFileError`` where the file is another user's; return the error of asking who the user is."""
    try:
        info = yield from online.describe_server()
    except (TransportError, ResponseError, ProtocolError) as error:
        return error
    user = info.get("user")
    store.check_user(str(user.get("id", "")) if isinstance(user, dict) else "")
    return None


class CollectionSync:
    """The sync of one collection."""

    def __init__(
        self, store: Store, number: int, online: Collection[Record], options: SyncOptions, result: MirrorResult
    ) -> None:
        self._store = store
        self._number = number
        self._online = online
        self._source = online.records.reading.source
        self._place = self._source.locate()
        self._list = self._place.path
        self._options = options
        self._result = result
        self._name = str(online.__kinto_path__())
        """The path of the collection."""

    def run(self) -> Flow[None]:
        """Sync the collection; raise the errors that concern all of it."""
        position = yield from self._do(partial(self._store.position, self._number))
        state = yield from read_state(self._list)
        known = yield from self._do(partial(self._store.count_on_server, self._number))
        if not (state.timestamp == position.timestamp == position.cursor and state.count == known):
            yield from self._pull(state)
        yield from self._resolve()
        if self._options.push:
            yield from self._push_rounds()
        yield from self._do(self._report)

    def _do(self, work: Callable[[], T]) -> Flow[T]:
        """Use the file, in a thread where the flow is awaited."""
        return (yield from call_blocking(self._store.path, work))

    def _path(self, id: str) -> str:
        return f"{self._list}/{id}"

    def _report(self) -> None:
        self._result.conflicts += [self._path(row.id) for row in self._store.parked(self._number)]
        self._result.refused += [self._path(row.id) for row in self._store.unpushed(self._number) if row.is_refused]

    # -- pull -----------------------------------------------------------------------------------------------------

    def _pull(self, state: ListState | None = None) -> Flow[None]:
        """Take what changed on the server. ``state`` is the list a moment ago."""
        for _ in range(MOST_ROUNDS):
            timestamp = yield from self._pull_pages()
            if state is None or state.timestamp != timestamp:
                state = yield from read_state(self._list)
            if state.timestamp == timestamp:
                known = yield from self._do(partial(self._store.count_on_server, self._number))
                if known != state.count:
                    yield from self._reconcile(timestamp, is_same_list=True)
                return
            state = None

    def _pull_pages(self) -> Flow[int]:
        """Take the pages of what changed since the cursor; return the timestamp of the list."""
        position = yield from self._do(partial(self._store.position, self._number))
        anchor = yield from self._do(partial(self._store.anchor, self._number, position.cursor))
        since = max(0, min(position.cursor, position.cursor if anchor is None else anchor[1]) - 1)
        parameters = [("_since", etag(since))] if position.cursor else []
        query: str | None = encode_query([*parameters, ("_sort", "last_modified"), ("_limit", str(PAGE_SIZE))])
        seen: set[str] = set()
        timestamp = limit = 0
        while query is not None:
            check_progress(query, seen, self._list)
            page = yield from read_page(self._list, query)
            rows = timestamped_rows(page, self._list)
            if len(seen) == 1:
                timestamp = check_timestamp(page.timestamp, self._list)
                limit = min(timestamp, (yield from settled_until(page.server_time, self._options.horizon)))
                is_lost = timestamp < position.timestamp or (yield from self._lacks(anchor, rows, since))
                if is_lost and (yield from self._reconcile(timestamp, is_same_list=False)):
                    return (yield from self._pull_pages())  # from the beginning of another list
            query = page.next_query
            reached = timestamp if query is None else rows[-1]["last_modified"] if rows else 0
            place = Position(max(position.cursor, min(reached, limit)), 0 if query is not None else timestamp)
            yield from self._do(partial(self._take, rows, place, holds_tombstones=bool(parameters)))
        return timestamp

    def _lacks(self, anchor: tuple[str, int] | None, rows: Sequence[JSONObject], since: int) -> Flow[bool]:
        """Return whether the anchor left the list without a trace."""
        if anchor is None or any(row["id"] == anchor[0] for row in rows):
            return False
        about = [("_since", etag(since)), *encode_conditions([condition("id", "", anchor[0])])]
        return not (yield from read_rows(self._list, encode_query(about)))

    def _take(self, rows: Sequence[JSONObject], place: Position | None, *, holds_tombstones: bool) -> None:
        """Take these rows of the server, and the place that is reached with them, in one transaction."""
        with self._store.transaction():
            known = self._store.of_ids(self._number, [row["id"] for row in rows])
            new: list[tuple[str, int, str]] = []
            for row in rows:
                is_deleted = holds_tombstones and is_tombstone(row)
                if row["id"] in known:
                    self._take_one(known[row["id"]], row, is_deleted=is_deleted)
                elif not is_deleted:
                    new.append((row["id"], row["last_modified"], merging.text_of(without_envelope(row))))
            if new:
                self._store.add_synced(self._number, new)
                self._result.pulled += [self._path(id) for id, _, _ in new]
            if place is not None:
                self._store.set_position(self._number, place)

    def _take_one(self, row: Row, theirs: JSONObject, *, is_deleted: bool) -> None:
        modified: int = theirs["last_modified"]
        if modified == row.theirs_modified or (row.is_on_server and not is_deleted and modified == row.base_modified):
            return  # the overlap brings it again
        version = self._store.next_version(self._number)
        if is_deleted:
            after, effect = merging.deleted(row, modified, version)
        else:
            after, effect = merging.incoming(row, without_envelope(theirs), modified, version)
        if after != row:
            self._store.put(self._number, after)
        if effect in ("pulled", "merged") and after.version != row.version:
            (self._result.pulled if effect == "pulled" else self._result.merged).append(self._path(row.id))

    # -- reconcile ------------------------------------------------------------------------------------------------

    def _reconcile(self, timestamp: int, *, is_same_list: bool) -> Flow[bool]:
        """Compare all ids with the server's; return whether it is another list, which is to be read from its beginning.

        Raises ``ServerResetError`` where it is another list and the caller wants to be asked.
        """
        gone: list[str] = []
        changed: list[str] = []
        common = 0
        walk = PageWalk(RawRows(), self._place, Selection(fields=("last_modified",)), "raise")
        after = ""
        while (flow := walk.next_page()) is not None:
            page = yield from flow
            theirs = {row["id"]: row["last_modified"] for row in page.objects}
            up_to = max(theirs, default=None) if page.has_more else None
            mine = yield from self._do(partial(self._store.between, self._number, after, up_to))
            known = {row.id: row for row in mine}
            gone += [id for id, row in known.items() if row.is_on_server and id not in theirs]
            changed += [id for id, at in theirs.items() if not _is_known(known.get(id), at)]
            common += sum(_is_known(known.get(id), at) for id, at in theirs.items())
            after = up_to or after
        if gone and not common:
            yield from self._do(partial(self._reset, len(gone)))
            return True
        yield from self._do(partial(self._remove, gone, timestamp))
        for chunk in ids_in_chunks(changed):
            about = encode_query(encode_conditions([condition("id", "in", chunk)]))
            rows = yield from read_rows(self._list, about)
            yield from self._do(partial(self._take, rows, None, holds_tombstones=False))
        return False

    def _remove(self, ids: Sequence[str], timestamp: int) -> None:
        """Take the deletion of records whose tombstones are lost."""
        with self._store.transaction():
            for row in self._store.of_ids(self._number, ids).values():
                self._take_one(row, {"last_modified": max(timestamp, row.base_modified or 0)}, is_deleted=True)

    def _reset(self, missing: int) -> None:
        """Begin anew with another list."""
        kept = len(self._store.unpushed(self._number))
        if self._options.on_reset == "ask":
            raise ServerResetError(
                f"{self._name}: the server lost {missing} records that the mirror had from it, and has none of them "
                f"as it was: it was emptied, or the collection was made again. {kept} changes of the mirror are not "
                'there. Nothing was changed; say sync(on_reset="pull") to take what is there now and keep these '
                'changes, or sync(on_reset="push") to create all records again.',
                collection=self._name,
                missing=missing,
                kept=kept,
            )
        with self._store.transaction():
            for row in self._store.rows(self._number):
                if self._options.on_reset == "push":
                    after = merging.remade(row)
                else:
                    after = merging.lost(row, self._store.next_version(self._number))
                if after.mine is None and row.mine is not None:
                    self._result.pulled.append(self._path(row.id))
                self._store.put(self._number, after)
            self._store.set_position(self._number, Position(0, 0))
        self._result.reset.append(self._name)

    # -- conflicts ------------------------------------------------------------------------------------------------

    def _resolve(self) -> Flow[None]:
        """Resolve the conflicts as the caller wants it."""
        policy = self._options.on_conflict
        if policy == "park":
            return
        for row in (yield from self._do(partial(self._store.parked, self._number))):
            conflict = conflict_of(self._store, self._number, self._name, row)
            choice = policy(conflict) if callable(policy) else policy
            if choice == "park":
                continue
            if isinstance(choice, str):
                choice = conflict.merge(prefer=choice)
            elif choice is not None and not isinstance(choice, Mapping):
                raise UsageError(f"on_conflict gave {choice!r:.60}: it gives 'park', 'mine', 'theirs', data or None.")
            yield from self._do(partial(conflict.resolve, choice))
            if conflict.theirs is None and choice is not None:
                self._result.recreated.append(self._path(row.id))

    # -- push -----------------------------------------------------------------------------------------------------

    def _push_rounds(self) -> Flow[None]:
        again: dict[str, KintoError] = {}
        for number in range(MOST_ROUNDS):
            again = yield from self._push()
            if not again:
                return
            if number < MOST_ROUNDS - 1:
                yield from self._pull()
                yield from self._resolve()
        self._result.errors += [SyncError(self._name, id, error) for id, error in again.items()]

    def _push(self) -> Flow[dict[str, KintoError]]:
        """Push the changes; return the errors of those that another client got in the way of, by id."""
        again: dict[str, KintoError] = {}
        after = ""
        while rows := (yield from self._do(partial(self._begin_to_send, after))):
            versions = {row.id: row.version for row in rows}
            changes = yield from self._do(partial(self._changes, rows))
            bulk = Bulk(changes, self._place.runner)
            alone: list[str] = []
            failure: KintoError | None = None
            while (flow := bulk.next_batch()) is not None:
                for one in (yield from flow):
                    assert isinstance(one, Change)
                    yield from self._do(partial(self._answered, one, versions, again, alone))
                    failure = failure or _stops(one, alone)
            if failure is None:
                failure = yield from self._push_alone([row for row in rows if row.id in alone], versions, again)
            if failure is not None:
                self._result.errors.append(SyncError(self._name, None, failure))
                return {}
            after = rows[-1].id
        return again

    def _begin_to_send(self, after: str) -> list[Row]:
        """Note in the file what is about to be sent, and return it."""
        with self._store.transaction():
            rows = [merging.sending(row) for row in self._store.to_push(self._number, after, PUSHED_AT_A_TIME)]
            for row in rows:
                self._store.put(self._number, row)
        return rows

    def _changes(self, rows: Sequence[Row]) -> list[Change[Any]]:
        """Return what is to be sent; refuse what cannot be."""
        changes: list[Change[Any]] = []
        with self._store.transaction():
            for row in rows:
                try:
                    changes.append(self._change(row))
                except KintoError as error:
                    self._store.put(self._number, merging.refused(row, str(error), row.version))
        return changes

    def _change(self, row: Row) -> Change[Any]:
        path, mine = self._list.object(row.id), merging.data_of(row.mine)
        if mine is not None and not row.is_on_server:
            data = without_schema_timestamp(Kind.RECORD, mine)
            return Record(id=row.id, data=data, collection=self._online).__kinto_change__(Verb.SAVE)
        state = ObjectState(path, Status.LOADED, merging.data_of(row.base), row.base_modified)
        record = self._source.load_one(state, self._place)
        if mine is None:
            return record.__kinto_change__(Verb.DELETE)
        record.data = mine
        return record.__kinto_change__(Verb.SAVE)

    def _push_alone(
        self, rows: Sequence[Row], versions: Mapping[str, int], again: dict[str, KintoError]
    ) -> Flow[KintoError | None]:
        """Push records one by one, of a batch that the server refused whole; return the error that ends the push."""
        failures = 0
        for row in rows:
            change = self._change(row)
            try:
                yield from carry_out(change, self._place.runner)
            except KintoError as error:
                change.error = change.error or error
                change.status = change.status or "rejected"
            yield from self._do(partial(self._answered, change, versions, again, None))
            failures += isinstance(change.error, ServerError)
            if isinstance(change.error, TransportError) or failures == MOST_FAILURES:
                return change.error
        return None

    def _answered(
        self,
        change: Change[Any],
        versions: Mapping[str, int],
        again: dict[str, KintoError],
        alone: list[str] | None,
    ) -> None:
        """Note the server's answer to one change in the file, in one transaction."""
        id = change.state.path.id
        with self._store.transaction():
            row = self._store.get(self._number, id)
            assert row is not None
            if change.is_stored:
                self._stored(change, row)
            elif isinstance(change.error, ConflictError) and change.error.theirs is not None:
                again[id] = change.error
                theirs = {**change.error.theirs, "last_modified": change.error.theirs_last_modified}
                self._take_one(row, theirs, is_deleted=False)
            elif change.status in ("conflict", "gone"):
                self._gone(change, row, again)
            elif change.status == "rolled_back":
                again[id] = change.error or KintoError(str(change.state.path))
            elif alone is not None and _is_of_the_batch(change.error):
                alone.append(id)
            elif change.status != "unknown":
                self._refused(change, row, versions[id])

    def _refused(self, change: Change[Any], row: Row, version: int) -> None:
        """Note that the record was not stored: a wrong one is not sent again before it is edited."""
        error = change.error if change.status == "rejected" else None
        # A right, or a setting of the server, may come.
        may_change = isinstance(error, ResponseError) and not isinstance(error, BadRequestError)
        after = merging.refused(row, str(error), version)
        if error is None or may_change:
            after = replace(after, refused=row.refused, error=None if error is None else str(error))
        self._store.put(self._number, after)
        if may_change and error is not None and not _is_whole(error):
            self._result.errors.append(SyncError(self._name, row.id, error))

    def _stored(self, change: Change[Any], row: Row) -> None:
        state = change.after
        if change.verb is Verb.DELETE:
            modified = row.base_modified if state is None else state.last_modified
            after = merging.push_deleted(row, modified or 0)
        elif state is None or state.data is None:  # as the server has it: nothing was sent
            after = merging.pushed(row, merging.data_of(row.base) or {}, row.base_modified or 0, row.version)
        else:
            version = self._store.next_version(self._number)
            after = merging.pushed(row, state.data, state.last_modified or 0, version)
        self._store.put(self._number, after)
        self._result.pushed.append(self._path(row.id))

    def _gone(self, change: Change[Any], row: Row, again: dict[str, KintoError]) -> None:
        """Note that the server has the record no more: the next pull brings its tombstone."""
        if change.verb is Verb.DELETE:
            self._store.put(self._number, merging.push_deleted(row, row.base_modified or 0))
        else:
            again[row.id] = change.error or KintoError(str(change.state.path))

    def load_dump(self, rows: Sequence[JSONObject]) -> int:
        """Take these rows of an earlier moment of the server; return how many were new."""
        with self._store.transaction():
            known = self._store.of_ids(self._number, [row["id"] for row in rows])
            newer = [row for row in rows if _is_newer(row, known.get(row["id"]))]
            place = self._store.position(self._number)
            if not place.cursor and rows:
                # What was committed late when the dump was made is in the part that is read again.
                latest = max(row["last_modified"] for row in rows)
                place = Position(max(1, latest - round(self._options.horizon * 1000)), 0)
            self._take(newer, place, holds_tombstones=False)
        return len(newer)

    # -- verify ---------------------------------------------------------------------------------------------------

    def verify(self, report: VerifyReport) -> Flow[None]:
        """Compare all records with the server's."""
        walk = PageWalk(RawRows(), self._place, EVERYTHING, "raise")
        after = ""
        while (flow := walk.next_page()) is not None:
            page = yield from flow
            theirs = {row["id"]: row for row in page.objects}
            up_to = max(theirs, default=None) if page.has_more else None
            rows = yield from self._do(partial(self._store.between, self._number, after, up_to))
            mine = {row.id: row for row in rows if row.is_on_server}
            report.extra += [self._path(id) for id in mine if id not in theirs]
            report.missing += [self._path(id) for id in theirs if id not in mine]
            report.different += [self._path(id) for id in mine if id in theirs and not _is_equal(mine[id], theirs[id])]
            after = up_to or after


def conflict_of(store: Store, number: int, collection: str, row: Row) -> Conflict:
    """Return the conflict of a row, which can be resolved."""

    def resolve(seen: Row, data: JSONObject | None) -> None:
        with store.transaction():
            row = store.get(number, seen.id)
            if row is None or (row.version, row.theirs_modified) != (seen.version, seen.theirs_modified):
                raise UsageError(
                    f"{collection}/records/{seen.id}: the record was changed since this conflict was read, and nothing "
                    "was stored: look at mirror.conflicts again."
                )
            store.put(number, merging.resolved(row, data, store.next_version(number)))

    return Conflict(collection, row, resolve)


def _is_known(row: Row | None, modified: int) -> bool:
    """Return whether the file has the record in the server's version, or knows its side of a conflict."""
    return row is not None and row.is_on_server and modified == row.server_modified


def _is_equal(row: Row, theirs: JSONObject) -> bool:
    try:
        known = merging.data_of(row.theirs if row.is_parked else row.base)
    except ProtocolError:
        return False
    return row.server_modified == theirs["last_modified"] and is_same(known, without_envelope(theirs))


def _is_of_the_batch(error: KintoError | None) -> bool:
    """Return whether the server refused the batch for the sake of one of its records, or a batch cannot carry it."""
    is_refusal = isinstance(error, BadRequestError | ForbiddenError | ServerError)
    return (is_refusal and _is_whole(error)) or isinstance(error, NotStageableError)


def _is_whole(error: KintoError | None) -> bool:
    return isinstance(error, ResponseError) and error.path == "/batch"


def _stops(change: Change[Any], alone: Sequence[str]) -> KintoError | None:
    """Return the error for which nothing more is pushed now."""
    is_kept = change.state.path.id in alone or change.status not in ("unknown", "not_sent", "rejected")
    error = None if is_kept else change.error
    if isinstance(error, ResponseError) and not _is_whole(error) and change.status == "rejected":
        return None
    return error if isinstance(error, TransportError | ProtocolError | ResponseError) else None


def read_dump(path: str | os.PathLike[str], disk: Disk) -> list[JSONObject]:
    """Return the rows of a dump; raise ``InvalidValueError`` where it is none."""
    name, lines = os.fspath(path), disk.read_lines(path)
    found = read_json_lines(lines, name) if name.endswith(".jsonl") else read_json("".join(lines), name)
    rows: list[JSONObject] = []
    for number, row in found:
        if not (isinstance(row.get("id"), str) and type(row.get("last_modified")) is int):
            raise InvalidValueError(f"{name}, row {number}: a dump is a list of records with last_modified.")
        rows.append(row)
    return rows


def _is_newer(theirs: JSONObject, mine: Row | None) -> bool:
    if mine is None:
        return True
    is_touched = mine.is_unpushed or mine.is_parked
    known = mine.server_modified if mine.is_on_server else mine.gone
    return not is_touched and theirs["last_modified"] > (known or 0)
