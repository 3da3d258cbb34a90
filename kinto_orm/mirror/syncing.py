"""A sync as a flow: pull what changed on the server, merge, push what changed here.

Each step leaves the file in a state from which another sync goes on: a page is taken together with the place that it
reaches, and what is sent is noted before it is sent. The pull goes on from a *cursor* that is at least one horizon old,
because on PostgreSQL late commits appear below the list's timestamp. A record at the cursor, the *anchor*, and the
number of records tell whether it is still the same list.
https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeGuard, TypeVar

from kinto_orm.client import Client
from kinto_orm.errors import (
    BackoffError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    InvalidTypeError,
    KintoError,
    NotStageableError,
    ProtocolError,
    ResponseError,
    ServerError,
    ServerResetError,
    TransportError,
    UsageError,
)
from kinto_orm.mirror import merging
from kinto_orm.mirror.reports import Conflict, MirrorResult, OnConflict, OnReset, SyncError, VerifyReport
from kinto_orm.mirror.store import ON_SERVER, PARKED, TO_PUSH, UNPUSHED, Lease, Row, Store
from kinto_orm.models.kinds import Collection, Record
from kinto_orm.protocol import paging
from kinto_orm.protocol.filters import condition, encode_conditions
from kinto_orm.protocol.json_values import JSONObject, etag, is_same, pause_collector, say_value
from kinto_orm.protocol.messages import Request, Response, whole_seconds
from kinto_orm.protocol.paths import Kind, check_id
from kinto_orm.protocol.writes import Flow, call_blocking, pause
from kinto_orm.query.execution import PAGE_SIZE, PageWalk, RawRows, Selection
from kinto_orm.repository.reads import ids_in_chunks
from kinto_orm.repository.state import Change, ObjectState, Status, Verb, add_observer, remove_observer
from kinto_orm.repository.verbs import without_schema_timestamp
from kinto_orm.unit_of_work.batches import full_batch
from kinto_orm.unit_of_work.bulk import Bulk
from kinto_orm.unit_of_work.engine import carry_out

T = TypeVar("T")
Visit: TypeAlias = Callable[[Mapping[str, JSONObject], Mapping[str, Row]], None]

MOST_ROUNDS = 4
"""The number of times that a record is pushed at most, on top of what other clients wrote in between."""
SECONDS_BETWEEN_LOOKS = 0.05
MOST_BACKOFF = 3600.0
"""Seconds; the clock of the machine may have been wrong when a longer pause was noted."""
MOST_FAILURES = 3
"""Records that the server fails to store, one by one, before the push is given up."""

WRONG_RECORD = {400, 413, 422}
"""Statuses that say that a record will never be stored; others of the kind pass: 429 is of a proxy that is busy."""

_PAUSED_UNTIL = "paused until"
_deciding: ContextVar[str] = ContextVar("kinto_orm_deciding", default="")
"""The file whose sync waits for the caller's decision on a conflict."""
_BEHIND_ALL_IDS = "\U0010ffff"


class SyncOptions(NamedTuple):
    """The options of a sync."""

    on_conflict: OnConflict = "park"
    on_reset: OnReset = "ask"
    push: bool = True
    horizon: float = 10
    models: Mapping[str, type[Record]] = {}
    """The models of collections, by their paths, where they are known."""


def sync_collections(
    store: Store, online: Client, collections: Sequence[tuple[int, Collection[Record]]], options: SyncOptions
) -> Flow[MirrorResult]:
    """Sync the collections, one after the other, and return the effects; only one sync of the file runs at a time.

    Errors of the server and the network are in the result. Raises ``ServerResetError`` when the other collections are
    done, and ``MirrorFileError``.
    """
    result = MirrorResult()
    resets: list[ServerResetError] = []

    def note_pause(request: Request, response: Response | None) -> None:
        if seconds := None if response is None else whole_seconds(response.headers.get("backoff", "").strip()):
            store.set_note(_PAUSED_UNTIL, str(time.time() + seconds))

    add_observer(note_pause)
    try:
        with closing((yield from _wait_for_lease(store))):
            failure = yield from find_obstacle(store, online)
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
    finally:
        remove_observer(note_pause)
    for reset in resets:
        reset.result = result
        raise reset
    return result


def _wait_for_lease(store: Store) -> Flow[Lease]:
    """Return the lease of the file when no other sync runs; raise ``UsageError`` where one waits for this call."""
    if _deciding.get() == store.path:
        raise UsageError("The function of on_conflict decides on one conflict, and cannot sync: it waits for itself.")
    while (lease := store.lease()) is None:
        yield from pause(SECONDS_BETWEEN_LOOKS)
    return lease


def find_obstacle(store: Store, online: Client) -> Flow[KintoError | None]:
    """Return the error for which no sync can begin; raise ``MirrorFileError`` where the file is another user's."""
    left = float(store.note(_PAUSED_UNTIL) or 0) - time.time()
    if 0 < left <= MOST_BACKOFF:
        return BackoffError(f"Nothing was sent: the server asks for a pause of {left:.0f} s more.", retry_after=left)
    try:
        info = yield from online.__kinto_describe_server__()
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
        self._place, self._codec = online.records.__kinto_rows__()
        self._list = self._place.path
        self._options = options
        self._result = result
        self._name = str(online.__kinto_path__())
        """The path of the collection."""
        self._failures = 0
        self._before = (0, 0)
        """The place that was reached before this sync."""

    def run(self) -> Flow[None]:
        """Sync the collection; raise the errors that concern all of it."""
        self._before = cursor, timestamp = yield from self._do(partial(self._store.place, self._number))
        state = yield from paging.read_state(self._list)
        if not state.timestamp == timestamp == cursor or state.count != (yield from self._count()):
            yield from self._pull(state)
        yield from self._resolve()
        if self._options.push:
            yield from self._push_rounds()
        for row in (yield from self._rows(f"({PARKED} OR ({UNPUSHED} AND refused IS version))")):
            (self._result.conflicts if row.is_parked else self._result.refused).append(self._path(row.id))

    def _do(self, work: Callable[[], T]) -> Flow[T]:
        """Use the file, in a thread where the flow is awaited."""
        return (yield from call_blocking(self._store.path, work))

    def _rows(self, where: str, *values: Any, after: str = "") -> Flow[list[Row]]:
        return (yield from self._do(partial(self._store.rows, self._number, where, *values, after=after)))

    def _count(self) -> Flow[int]:
        """Return how many records the server has, as far as it is known here."""
        return (yield from self._do(partial(self._store.count, self._number, ON_SERVER)))

    def _path(self, id: str) -> str:
        return f"{self._name}/records/{id}"

    # -- pull -----------------------------------------------------------------------------------------------------

    def _pull(self, state: paging.ListState | None = None) -> Flow[None]:
        """Take what changed on the server. ``state`` is the list a moment ago."""
        timestamp = yield from self._pull_pages()
        if state is None or state.timestamp != timestamp:
            state = yield from paging.read_state(self._list)
        # Where others write at this moment, the next sync counts.
        if state.timestamp == timestamp and state.count != (yield from self._count()):
            yield from self._reconcile(timestamp)

    def _pull_pages(self) -> Flow[int]:
        """Take the pages of what changed since the cursor; return the timestamp of the list."""
        cursor, before = yield from self._do(partial(self._store.place, self._number))
        anchor = yield from self._do(partial(self._store.anchor, self._number, cursor))
        since = max(0, min(cursor, cursor if anchor is None else anchor[1]) - 1)
        parameters = [("_since", etag(since))] if cursor else []
        query = paging.encode_query([*parameters, ("_sort", "last_modified"), ("_limit", str(PAGE_SIZE))])
        pages = paging.RawPages(self._list, query, may_hold_tombstones=bool(cursor))
        timestamp = limit = 0
        while (flow := pages.next()) is not None:
            page = yield from flow
            with pause_collector():
                rows = paging.timestamped_rows(page, self._list)
            if len(pages.seen) == 1:
                timestamp = paging.check_timestamp(page.timestamp, self._list)
                limit = min(timestamp, (yield from paging.settled_until(page.date, self._options.horizon)))
                is_lost = timestamp < before or (yield from self._lacks(anchor, rows, since))
                if is_lost and (yield from self._reconcile(timestamp)):
                    return (yield from self._pull_pages())  # from the beginning of another list
            reached = timestamp if pages.query is None else rows[-1]["last_modified"] if rows else 0
            place = max(cursor, min(reached, limit)), 0 if pages.query is not None else timestamp
            yield from self._do(partial(self._take, rows, place, holds_tombstones=bool(parameters)))
        return timestamp

    def _lacks(self, anchor: tuple[str, int] | None, rows: Sequence[JSONObject], since: int) -> Flow[bool]:
        """Return whether the anchor left the list without a trace."""
        if anchor is None or any(row["id"] == anchor[0] for row in rows):
            return False
        about = [("_since", etag(since)), *encode_conditions([condition("id", "", anchor[0])])]
        return not (yield from paging.read_rows(self._list, paging.encode_query(about)))

    def _take(
        self, rows: Sequence[JSONObject], place: tuple[int, int] | None = None, *, holds_tombstones: bool = False
    ) -> None:
        """Take these rows of the server, and the place that is reached with them, in one transaction."""
        with self._store.transaction(), pause_collector():
            known = self._store.of_ids(self._number, [row["id"] for row in rows])
            new: list[tuple[str, str, int]] = []
            for row in rows:
                is_deleted = holds_tombstones and paging.is_tombstone(row)
                id, modified = row.pop("id"), row.pop("last_modified")
                if id in known:
                    self._take_one(known[id], modified, None if is_deleted else row)
                elif not is_deleted:
                    new.append((id, merging.text_of(row), modified))
            if new:
                self._store.add(self._number, new)
                self._result.pulled += [self._path(id) for id, _, _ in new]
            if place is not None:
                self._store.set_place(self._number, *place)

    def _take_one(self, row: Row, modified: int, theirs: JSONObject | None) -> None:
        if theirs is not None and row.theirs is not None and modified == row.modified:
            return  # the overlap brings it again
        at = modified, self._store.next_version(self._number)
        after, effect = merging.deleted(row, *at) if theirs is None else merging.incoming(row, theirs, *at)
        if after != row:
            self._store.put(self._number, after)
        if effect in ("pulled", "merged") and after.version != row.version:
            (self._result.pulled if effect == "pulled" else self._result.merged).append(self._path(row.id))

    # -- reconcile ------------------------------------------------------------------------------------------------

    def _reconcile(self, timestamp: int) -> Flow[bool]:
        """Compare all ids with the server's; return whether it is another list, which is to be read from its beginning.

        It is another one where nothing is there as it was before this sync: what was taken or pushed since then may
        be of a list that was made in the middle of it. Raises ``ServerResetError`` where the caller wants to be asked.
        """
        gone: list[str] = []
        changed: list[str] = []
        is_another = any(self._before)

        def compare(theirs: Mapping[str, JSONObject], mine: Mapping[str, Row]) -> None:
            nonlocal is_another
            gone.extend(mine.keys() - theirs.keys())
            same = [id for id, row in theirs.items() if id in mine and mine[id].modified == row["last_modified"]]
            is_another = is_another and not any(theirs[id]["last_modified"] <= max(self._before) for id in same)
            changed.extend(theirs.keys() - same)

        yield from self._compare(compare, "last_modified")
        if gone and is_another:
            yield from self._do(partial(self._reset, len(gone)))
            return True
        yield from self._do(partial(self._remove, gone, timestamp))
        for chunk in ids_in_chunks(changed):
            about = paging.encode_query(encode_conditions([condition("id", "in", chunk)]))
            rows = yield from paging.read_rows(self._list, about)
            yield from self._do(partial(self._take, rows))
        return False

    def _compare(self, visit: Visit, *fields: str) -> Flow[None]:
        """Call ``visit`` with the server's records, and those that it has as far as is known, by id, range by range."""
        walk = PageWalk(RawRows(), self._place, Selection(fields=fields), "raise")
        after = ""
        while (flow := walk.next_page()) is not None:
            page = yield from flow
            theirs = {row["id"]: row for row in page.objects}
            up_to = max(theirs, default=_BEHIND_ALL_IDS) if page.has_more else _BEHIND_ALL_IDS
            rows = yield from self._rows(f"{ON_SERVER} AND id <= ?", up_to, after=after)
            visit(theirs, {row.id: row for row in rows})
            after = up_to

    def _remove(self, ids: Sequence[str], timestamp: int) -> None:
        """Take the deletion of records whose tombstones are lost."""
        with self._store.transaction():
            for row in self._store.of_ids(self._number, ids).values():
                self._take_one(row, max(timestamp, row.modified or 0), None)

    def _reset(self, missing: int) -> None:
        """Begin anew with another list."""
        if self._options.on_reset == "ask":
            self._store.set_place(self._number, *self._before)
            kept = self._store.count(self._number, UNPUSHED)
            raise ServerResetError(
                f"{self._name}: the server lost {missing} records that the mirror had from it, and has none as it was: "
                f"it was emptied, or the collection was made again. {kept} changes of the mirror are not there. "
                'Nothing was removed here; say sync(on_reset="pull") to take what is there now and keep these changes, '
                'or sync(on_reset="push") to create all records again.',
                collection=self._name,
                missing=missing,
                kept=kept,
            )
        gone = self._store.forget_server(self._number, keeps_all=self._options.on_reset == "push")
        self._before = (0, 0)
        self._result.pulled += map(self._path, gone)
        self._result.reset.append(self._name)

    # -- conflicts ------------------------------------------------------------------------------------------------

    def _resolve(self) -> Flow[None]:
        """Resolve the conflicts as the caller wants it."""
        policy, context = self._options.on_conflict, copy_context()
        context.run(_deciding.set, self._store.path)
        model = self._options.models.get(self._name, Record)
        for row in (yield from self._rows(PARKED)) if policy != "park" else ():
            conflict = Conflict(self._store, self._number, self._name, row, model)
            choice = context.run(policy, conflict) if callable(policy) else policy
            if choice == "park":
                continue
            if isinstance(choice, str):
                choice = conflict.merge(prefer=choice)
            elif choice is not None and not isinstance(choice, Mapping):
                raise UsageError(f"on_conflict gave {say_value(choice)}: give 'park', 'mine', 'theirs', data or None.")
            try:
                yield from self._do(partial(conflict.resolve, choice))
            except (InvalidInputError, InvalidTypeError) as error:  # it stays in conflict
                self._result.errors.append(SyncError(self._name, row.id, error))
                continue
            if conflict.theirs is None and choice is not None:
                self._result.recreated.append(self._path(row.id))

    # -- push -----------------------------------------------------------------------------------------------------

    def _push_rounds(self) -> Flow[None]:
        again = yield from self._push()
        for _ in range(MOST_ROUNDS - 1) if again else ():
            yield from self._pull()
            yield from self._resolve()
            if not (again := (yield from self._push())):
                return
        self._result.errors += [SyncError(self._name, id, error) for id, error in again.items()]

    def _push(self) -> Flow[dict[str, KintoError]]:
        """Push the changes; return the errors of those that another client got in the way of, by id."""
        again: dict[str, KintoError] = {}
        after, limit = "", (yield from full_batch(self._place.runner))
        while rows := (yield from self._do(partial(self._begin_to_send, after, limit))):
            by_id = {row.id: row for row in rows}
            failure: KintoError | None = None
            bulk = Bulk((yield from self._do(partial(self._changes, rows))), self._place.runner)
            while (flow := bulk.next_batch()) is not None:
                answered: list[Change[Any]] = []
                for change in (yield from flow):
                    assert isinstance(change, Change)
                    if not _is_of_the_batch(change.error):
                        failure = failure or _failure_of(change)
                        answered.append(change)
                    elif failure is None:
                        alone = yield from self._push_alone(by_id[change.state.path.id])
                        self._failures += isinstance(alone.error, ServerError)
                        is_over = isinstance(alone.error, TransportError) or self._failures == MOST_FAILURES
                        failure = alone.error if is_over else None
                        answered.append(alone)
                yield from self._do(partial(self._note, answered, by_id, again))
            if failure is not None:
                self._result.errors.append(SyncError(self._name, None, failure))
                return {}
            after = rows[-1].id
        return again

    def _begin_to_send(self, after: str, limit: int) -> list[Row]:
        """Note in the file what is about to be sent, and return it."""
        with self._store.transaction():
            rows = [merging.sending(row) for row in self._store.rows(self._number, TO_PUSH, after=after, limit=limit)]
            self._store.put(self._number, *rows)
        return rows

    def _changes(self, rows: Sequence[Row]) -> list[Change[Any]]:
        """Return what is to be sent; refuse what cannot be."""
        changes: list[Change[Any]] = []
        for row in rows:
            try:
                changes.append(self._change(row))
            except KintoError as error:
                self._store.put(self._number, merging.refused(row, str(error), row.version))
        return changes

    def _change(self, row: Row) -> Change[Any]:
        mine, path = merging.data_of(row.mine), self._list.object(row.id)
        state = ObjectState(path, Status.LOADED, merging.data_of(row.theirs), row.modified)
        if row.theirs is None:
            state, mine = ObjectState(path, Status.NEW), without_schema_timestamp(Kind.RECORD, mine or {})
        return self._codec.change(Verb.DELETE if mine is None else Verb.SAVE, state, mine, self._place)

    def _push_alone(self, row: Row) -> Flow[Change[Any]]:
        """Push a record of a batch that the server refused whole."""
        change = self._change(row)
        try:
            yield from carry_out(change, self._place.runner)
        except KintoError as error:
            change.error = change.error or error
            change.status = change.status or "rejected"
        return change

    def _note(self, changes: Sequence[Change[Any]], sent: Mapping[str, Row], again: dict[str, KintoError]) -> None:
        """Note the server's answers in the file, in one transaction."""
        with self._store.transaction():
            known = self._store.of_ids(self._number, [change.state.path.id for change in changes])
            for change in changes:
                row, error = known[change.state.path.id], change.error
                if change.is_stored:
                    self._store.put(self._number, self._stored(change, row))
                    self._result.pushed.append(self._path(row.id))
                elif isinstance(error, ConflictError) and error.theirs is not None:
                    again[row.id] = error
                    self._take_one(row, error.theirs_last_modified or 0, dict(error.theirs))
                elif change.status in ("conflict", "gone") and change.verb is Verb.DELETE:
                    self._store.put(self._number, merging.settled(row, None, row.modified or 0))
                elif change.status in ("conflict", "gone", "rolled_back"):
                    again[row.id] = error or KintoError(str(change.state.path))  # the next pull brings its tombstone
                elif change.status != "unknown":
                    self._store.put(self._number, self._refused(change, row, sent[row.id].version))

    def _refused(self, change: Change[Any], row: Row, version: int) -> Row:
        """Return the row that was not stored: a wrong one is not sent again before it is edited."""
        error = change.error if change.status == "rejected" else None
        if error is None:
            return merging.refused(row, None, None)
        if not isinstance(error, ResponseError) or _is_of_the_record(error):
            return merging.refused(row, str(error), version)
        # A right, or a setting of the server, may come.
        if error.path != "/batch":
            self._result.errors.append(SyncError(self._name, row.id, error))
        return merging.refused(row, str(error), None)

    def _stored(self, change: Change[Any], row: Row) -> Row:
        state = change.after
        if change.verb is Verb.DELETE:
            return merging.settled(row, None, (row.modified if state is None else state.last_modified) or 0)
        if state is None or state.data is None:  # as the server has it: nothing was sent
            return merging.pushed(row, merging.data_of(row.theirs) or {}, row.modified or 0, row.version)
        version = self._store.next_version(self._number)
        return merging.pushed(row, state.data, state.last_modified or 0, version)

    # -- dumps, and verification ----------------------------------------------------------------------------------

    def load_dump(self, rows: Sequence[JSONObject]) -> int:
        """Take these rows of an earlier moment of the server; return how many were new."""
        by_age = sorted(rows, key=lambda row: row["last_modified"])
        rows = list({check_id(row["id"]): row for row in by_age if not paging.is_tombstone(row)}.values())
        with self._store.transaction():
            known = self._store.of_ids(self._number, [row["id"] for row in rows])
            pairs = [(row, known.get(row["id"], Row(row["id"]))) for row in rows]
            newer = [row for row, it in pairs if it.mine == it.theirs and row["last_modified"] > (it.modified or 0)]
            cursor, timestamp = self._store.place(self._number)
            if not cursor and by_age:
                # What was committed late when the dump was made is in the part that is read again.
                cursor, timestamp = max(1, by_age[-1]["last_modified"] - round(self._options.horizon * 1000)), 0
            self._take(newer, (cursor, timestamp))
        return len(newer)

    def verify(self, report: VerifyReport) -> Flow[None]:
        """Compare all records with the server's."""

        def compare(theirs: Mapping[str, JSONObject], mine: Mapping[str, Row]) -> None:
            report.extra += [self._path(id) for id in mine if id not in theirs]
            report.missing += [self._path(id) for id in theirs if id not in mine]
            report.different += [self._path(id) for id in mine if id in theirs and not _is_equal(mine[id], theirs[id])]

        yield from self._compare(compare)


def _is_equal(row: Row, theirs: JSONObject) -> bool:
    try:
        known = merging.data_of(row.theirs)
    except ProtocolError:
        return False
    return row.modified == theirs["last_modified"] and is_same(known, paging.without_envelope(theirs))


def _is_of_the_batch(error: KintoError | None) -> bool:
    """Return whether the server refused the batch for the sake of one of its records, or a batch cannot carry it."""
    if isinstance(error, ForbiddenError | ServerError) or _is_of_the_record(error):
        return error.path == "/batch"
    return isinstance(error, NotStageableError)


def _is_of_the_record(error: KintoError | None) -> TypeGuard[BadRequestError]:
    """Return whether the server will never store the record as it is."""
    return isinstance(error, BadRequestError) and error.status in WRONG_RECORD


def _failure_of(change: Change[Any]) -> KintoError | None:
    """Return the error for which nothing more is pushed now."""
    error = change.error
    is_of_one = change.status == "rejected" and isinstance(error, ResponseError) and error.path != "/batch"
    is_of_all = change.status in ("unknown", "not_sent", "rejected") and not is_of_one
    return error if is_of_all and isinstance(error, TransportError | ProtocolError | ResponseError) else None
