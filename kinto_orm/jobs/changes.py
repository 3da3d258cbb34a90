"""A feed of a list's changes, which misses none and gives each once, also while several writers commit late.

On PostgreSQL a record gets its timestamp when it is written and becomes visible when its transaction is committed: a
poller that goes on from the list's ETag misses the late ones. So a feed goes on from a *cursor* that is at least one
horizon old, and remembers which changes above the cursor it has given.
https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
"""

from __future__ import annotations

import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from kinto_orm.errors import (
    FeedLostError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    ServerError,
    TransportError,
)
from kinto_orm.protocol.filters import condition, encode_conditions
from kinto_orm.protocol.json_values import JSONObject, encode, etag, say_value
from kinto_orm.protocol.messages import Request
from kinto_orm.protocol.paging import (
    ListState,
    RawPage,
    RawPages,
    check_finite,
    check_seconds,
    check_timestamp,
    encode_query,
    is_tombstone,
    list_timestamp,
    random_wait,
    read_rows,
    read_state,
    settled_until,
    timestamped_rows,
)
from kinto_orm.protocol.responses import raise_for_status
from kinto_orm.protocol.writes import Flow, pause
from kinto_orm.query.execution import LoadedRows, Place, Source
from kinto_orm.repository.conflicts import check_callbacks
from kinto_orm.repository.state import OnInvalid, Stateful

M = TypeVar("M", bound=Stateful)

MOST_GIVEN = 10_000
"""The number of changes above the cursor that a token remembers; with more of them, the feed waits for the horizon."""

PAGE_SIZE = 5000

SLACK = 1
"""Seconds that a wait for the horizon takes longer: the resolution of the header Date."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class FeedChange(Generic[M]):
    """One change of a list."""

    kind: Literal["changed", "deleted"]
    """The server does not tell created from updated."""
    record: M
    """The record as it is now, or its tombstone."""


@dataclass(slots=True, eq=False, repr=False)
class Position:
    """The place that a feed has reached in a list: a token is this, as text."""

    path: str
    cursor: int = 0
    """All changes up to this timestamp were given, and none is added there any more."""
    timestamp: int = 0
    """The timestamp that the list had."""
    count: int = 0
    """The number of live records up to the cursor."""
    anchor: tuple[str, int] | None = None
    """A live record up to the cursor, and its timestamp: the list is another one where it is gone without a trace."""
    given: dict[str, int] = field(default_factory=dict)
    """The changes above the cursor that were given, by id: the timestamp, with a minus for a tombstone."""

    @property
    def is_settled(self) -> bool:
        """Return whether all that the list held was given, and was old enough."""
        return self.cursor == self.timestamp and not self.given

    def encode(self) -> str:
        """Return the token."""
        fields = [_VERSION, self.path, self.cursor, self.timestamp, self.count, self.anchor, self.given]
        packed = zlib.compress(json.dumps(fields, separators=(",", ":")).encode())
        return urlsafe_b64encode(packed).decode().rstrip("=")


def read_token(token: object, path: str) -> Position:
    """Return the position of a token of the list at ``path``.

    Raises ``InvalidTypeError`` or ``InvalidValueError`` where it is no token of that list.
    """
    if not isinstance(token, str):
        raise InvalidTypeError(f"since is the token of a feed (feed.token), not {say_value(token)}.")
    try:
        packed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        version, its_path, *numbers, anchor, given = json.loads(zlib.decompress(packed))
        cursor, timestamp, count = map(int, numbers)
        found = Position(str(its_path), cursor, timestamp, count, None, {str(k): int(v) for k, v in given.items()})
        if anchor is not None:
            found.anchor = (str(anchor[0]), int(anchor[1]))
    except (ValueError, TypeError, AttributeError, IndexError, zlib.error) as error:
        raise InvalidValueError(
            f"since is the token of a feed (feed.token), not {say_value(token)}. What changed after a timestamp is in "
            "records.since(timestamp)."
        ) from error
    if version != _VERSION:
        raise InvalidValueError(f"This token is of another version of kinto_orm (form {version}): begin without one.")
    if found.path != path:
        raise InvalidValueError(f"This token is of {found.path}, not of {path}.")
    return found


class _Step(NamedTuple):
    """One row of a poll, and the change that it stands for; none where it was given before."""

    id: str
    last_modified: int
    is_live: bool
    change: FeedChange[Any] | None


class ChangeFeed(Generic[M]):
    """The changes of a list since a token: made by ``records.changes()``.

    Each iteration (``for`` or ``async for``) gives the changes since the last one, so the same feed can be iterated
    again and again. Raises ``FeedLostError`` where the token does not fit the list any more.
    """

    def __init__(
        self,
        source: Source[M],
        since: str | None,
        *,
        horizon: float,
        on_invalid: OnInvalid | None = None,
        known: Mapping[str, int] | None = None,
    ) -> None:
        self._source = source
        self._place = source.locate()
        self._horizon = check_finite("horizon", horizon)
        self._on_invalid: OnInvalid = on_invalid or self._place.runner.on_invalid
        path = str(self._place.path)
        self._position = Position(path) if since is None else read_token(since, path)
        self._token = since
        """The token that counts for as long as a reconciliation is not at its end."""
        self._known = known

    @property
    def token(self) -> str:
        """The text from which another feed goes on, after the changes that this one has given."""
        return self._position.encode() if self._known is None else self._token or Position(self._position.path).encode()

    def __iter__(self) -> Iterator[FeedChange[M]]:
        poll = self._poll()
        for flow in poll.flows():
            for step in self._place.runner.run(flow):
                poll.take(step)
                if step.change is not None:
                    yield step.change
        self._known = None

    async def __aiter__(self) -> AsyncIterator[FeedChange[M]]:
        poll = self._poll()
        for flow in poll.flows():
            for step in await self._place.runner.arun(flow):
                poll.take(step)
                if step.change is not None:
                    yield step.change
        self._known = None

    def _poll(self) -> _Poll[M]:
        if self._known is not None:
            self._position = Position(self._position.path)
        loader = _Loader(self._source, self._place, self._on_invalid)
        return _Poll(loader, self._position, self._horizon, self._known, self._lost)

    def _lost(self, reason: str) -> FeedLostError:
        error = FeedLostError(
            f"The change feed of {self._position.path} lost its place: {reason}. Some changes cannot be told any more: "
            "error.reconcile(known={id: last_modified}) gives the difference to the records that you have."
        )
        token = self.token
        error.restart = lambda known: ChangeFeed(
            self._source,
            token,
            horizon=self._horizon,
            on_invalid=self._on_invalid,
            known=_check_known(known),
        )
        return error

    def __repr__(self) -> str:
        return f"<ChangeFeed of {self._position.path} at {self._position.cursor}>"


class Watch(ChangeFeed[M]):
    """The changes of a list, as they come: made by ``records.watch()``.

    The loop (``for`` or ``async for``) ends only by an error, or by the caller. Another loop goes on from there.
    """

    def __init__(
        self,
        source: Source[M],
        since: str | None,
        *,
        horizon: float,
        every: float,
        max_every: float,
        on_error: Callable[[KintoError], object] | None,
    ) -> None:
        super().__init__(source, since, horizon=horizon)
        self._wait = self._every = check_finite("every", every)
        check_callbacks(on_error=on_error)
        self._most = max(self._every, check_seconds("max_every", max_every))
        self._on_error = on_error

    def __iter__(self) -> Iterator[FeedChange[M]]:
        while True:
            seconds = self._next_wait()
            try:
                for change in super().__iter__():
                    seconds = self._wait = self._every
                    yield change
            except (TransportError, ServerError) as error:
                self._tell(error)
            self._place.runner.run(pause(seconds))

    async def __aiter__(self) -> AsyncIterator[FeedChange[M]]:
        while True:
            seconds = self._next_wait()
            try:
                async for change in super().__aiter__():
                    seconds = self._wait = self._every
                    yield change
            except (TransportError, ServerError) as error:
                self._tell(error)
            await self._place.runner.arun(pause(seconds))

    def _next_wait(self) -> float:
        """Return the wait after a poll in which nothing came: each is twice as long, and not the same everywhere."""
        seconds, self._wait = self._wait, min(2 * self._wait, self._most)
        return random_wait(seconds)

    def _tell(self, error: KintoError) -> None:
        if self._on_error is None:
            raise error
        self._on_error(error)

    def __repr__(self) -> str:
        return f"<Watch of {self._position.path}, every {self._every} s>"


class _Loader(NamedTuple, Generic[M]):
    """Makes records of rows."""

    source: Source[M]
    place: Place
    on_invalid: OnInvalid

    def load(self, rows: Sequence[JSONObject], page: RawPage, *, is_whole: bool) -> Iterable[tuple[JSONObject, M]]:
        """Return the live rows with their records; ``is_whole`` says that they are all that the page holds.

        Rows that do not fit the model are left out, kept as plain records or raise, as the feed says.
        """
        raw = page if is_whole else page._replace(body=encode({"data": rows}))
        found = self.source.load(self._rows(raw, may_hold_tombstones=False), self.place)
        if len(found) == len(rows):
            return zip(rows, found, strict=True)
        by_id = {row["id"]: row for row in rows}
        return ((by_id[one.__kinto_path__().id], one) for one in found)

    def load_tombstone(self, row: JSONObject) -> M:
        """Return the tombstone of a deleted record."""
        raw = RawPage(encode({"data": [row]}), None, None)
        return self.source.load(self._rows(raw, may_hold_tombstones=True), self.place)[0]

    def _rows(self, page: RawPage, *, may_hold_tombstones: bool) -> LoadedRows:
        return LoadedRows(
            page, self.place.path, self.on_invalid, is_partial=False, may_hold_tombstones=may_hold_tombstones
        )


class _Poll(Generic[M]):
    """One iteration of a feed: walks through the rows above the cursor, in the order of their timestamps."""

    def __init__(
        self,
        loader: _Loader[M],
        position: Position,
        horizon: float,
        known: Mapping[str, int] | None,
        lost: Callable[[str], FeedLostError],
    ) -> None:
        self._loader = loader
        self._path = loader.place.path
        self._position = position
        self._horizon = horizon
        self._known = known or {}
        self._unseen = set(self._known)
        self._lost = lost
        self._is_over = self._is_full = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pages = RawPages(self._path, None)
        self._state: ListState | None = None
        """The list before the walk, up to the cursor."""
        self._limit = self._timestamp = 0
        """The cursor after the walk, and the timestamp of the list when it began."""
        self._departed = self._seen = self._live = 0
        """How many records left the part up to the cursor; rows of this walk, and live ones up to the limit."""
        self._awaited = {id for id, timestamp in self._position.given.items() if timestamp > 0}
        """What was given above the cursor and is not seen again yet."""

    def flows(self) -> Iterator[Flow[list[_Step]]]:
        """Yield the flows of the iteration; the steps of each are taken before the next one is asked for."""
        while not self._is_over:
            yield self._begin()
            while (flow := self._pages.next()) is not None:
                yield self._read_page(flow)
            if not self._is_full and not self._is_over:
                yield self._finish()

    def take(self, step: _Step) -> None:
        """Move the position past the step."""
        if not step.last_modified:
            return  # a record that is gone, which a reconciliation found: it has no place in the list
        position = self._position
        self._seen += 1
        position.given.pop(step.id, None)
        if step.last_modified > self._limit:
            position.cursor = max(position.cursor, self._limit)
            position.given[step.id] = step.last_modified if step.is_live else -step.last_modified
        else:
            position.cursor = step.last_modified
            self._live += step.is_live
        if step.is_live and step.last_modified <= self._limit:
            position.anchor = (step.id, step.last_modified)
        elif position.anchor is not None and position.anchor[0] == step.id:
            position.anchor = None
        # Those that departed and were not seen yet count as there: the next walk has to explain them.
        before = 0 if self._state is None else self._state.count
        position.count = before + self._live + max(0, self._departed - self._seen)

    # -- the flows ------------------------------------------------------------------------------------------------

    def _begin(self) -> Flow[list[_Step]]:
        if self._is_full:
            yield from pause(self._horizon * 2 + SLACK)
            self._is_full = False
        self._begin_anew()
        position = self._position
        if not position.cursor:
            self._pages = RawPages(self._path, self._encode())
            return []
        # Before the list: what departs after the count is in the list that is read then.
        state = yield from read_state(self._path, encode_query([("_before", etag(position.cursor + 1))]))
        timestamp = check_timestamp(state.timestamp, self._path)
        if position.is_settled and timestamp == position.timestamp and state.count == position.count:
            self._is_over = True
            return []
        if timestamp < position.timestamp:
            raise self._lost(f"the timestamp of the list went back from {position.timestamp} to {timestamp}")
        if state.count > position.count:
            raise self._lost("records were added with timestamps of the past")
        if position.anchor is not None:
            yield from self._check_anchor(*position.anchor)
        self._state, self._departed = state, position.count - state.count
        self._pages = RawPages(self._path, self._encode(("_since", etag(position.cursor))), may_hold_tombstones=True)
        return []

    def _encode(self, *parameters: tuple[str, str]) -> str:
        return encode_query([*parameters, ("_sort", "last_modified"), ("_limit", str(PAGE_SIZE))])

    def _check_anchor(self, id: str, last_modified: int) -> Flow[None]:
        """Raise ``FeedLostError`` where the record is neither there nor deleted since."""
        path, cursor = self._path.object(id), self._position.cursor
        response = yield Request("HEAD", str(path))
        if response.status == 404:
            about = [("_since", etag(cursor)), *encode_conditions([condition("id", "", id)])]
            if not (yield from read_rows(self._path, encode_query(about))):
                raise self._lost(f"the record {id} is gone, and has no tombstone")
            return
        raise_for_status(response, "HEAD", path)
        found = list_timestamp(response)
        if found is not None and found != last_modified and found <= cursor:
            raise self._lost(f"the record {id} has an older timestamp than it had")

    def _read_page(self, flow: Flow[RawPage]) -> Flow[list[_Step]]:
        page = yield from flow
        if len(self._pages.seen) == 1:
            yield from self._set_limit(page)
        rows = timestamped_rows(page, self._path)
        self._cut(rows)
        if self._pages.query is None and not self._is_full:
            self._check_is_explained(rows)
        return self._steps(rows, page)

    def _set_limit(self, page: RawPage) -> Flow[None]:
        limit = yield from settled_until(page.date, self._horizon)
        self._timestamp = check_timestamp(page.timestamp, self._path)
        self._limit = max(self._position.cursor, min(self._timestamp, limit))

    def _cut(self, rows: list[JSONObject]) -> None:
        """Leave out the rows above the limit that a token could not remember: they are read again later."""
        given = self._position.given
        room = MOST_GIVEN - len(given)
        for index, row in enumerate(rows):
            room -= row["last_modified"] > self._limit and row["id"] not in given
            if room < 0:
                del rows[index:]
                self._is_full, self._pages.query = True, None
                return

    def _check_is_explained(self, rows: Sequence[JSONObject]) -> None:
        """Raise ``FeedLostError`` where records left the list without being seen in this walk, which these rows end."""
        if self._departed > self._seen + len(rows):
            raise self._lost(f"{self._departed} records were changed or deleted, and {self._seen + len(rows)} came")
        if gone := self._awaited.difference(row["id"] for row in rows):
            raise self._lost(f"the record {min(gone)} is gone, and has no tombstone")

    def _steps(self, rows: Sequence[JSONObject], page: RawPage) -> list[_Step]:
        self._awaited.difference_update(row["id"] for row in rows)
        self._unseen.difference_update(row["id"] for row in rows)
        # Kinto adds tombstones to a list that is filtered by time, and to no other.
        deleted = {id(row) for row in rows if self._state is not None and is_tombstone(row)}
        fresh = [row for row in rows if not self._is_known(row, is_live=id(row) not in deleted)]
        live = [row for row in fresh if id(row) not in deleted]
        is_whole = len(live) == len(rows) and not self._is_full
        changes: dict[int, FeedChange[M]] = {
            id(row): FeedChange("changed", one) for row, one in self._loader.load(live, page, is_whole=is_whole)
        }
        for row in fresh:
            if id(row) in deleted:
                changes[id(row)] = FeedChange("deleted", self._loader.load_tombstone(row))
        return [_Step(row["id"], row["last_modified"], id(row) not in deleted, changes.get(id(row))) for row in rows]

    def _is_known(self, row: JSONObject, *, is_live: bool) -> bool:
        """Return whether the change was given before, or is none for the caller who reconciles."""
        timestamp: int = row["last_modified"]
        given = self._position.given.get(row["id"])
        return given == (timestamp if is_live else -timestamp) or timestamp == self._known.get(row["id"], 0)

    def _finish(self) -> Flow[list[_Step]]:
        position = self._position
        position.cursor, position.timestamp = max(position.cursor, self._limit), self._timestamp
        position.given = {id: one for id, one in position.given.items() if abs(one) > position.cursor}
        position.count = self._live + (0 if self._state is None else self._state.count)
        is_quiet = self._state is None or self._state.timestamp == self._timestamp
        if len(self._pages.seen) > 1 or not is_quiet:
            # Something was written during the walk: a record may have been counted twice.
            counted = yield from read_state(self._path, encode_query([("_before", etag(position.cursor + 1))]))
            position.count = min(position.count, counted.count)
        if position.anchor is None and position.count:
            yield from self._find_anchor()
        self._is_over = True
        return [
            _Step(id, 0, is_live=False, change=FeedChange("deleted", self._loader.load_tombstone(_gone(id))))
            for id in sorted(self._unseen)
        ]

    def _find_anchor(self) -> Flow[None]:
        cursor = self._position.cursor
        parameters = [("_before", etag(cursor + 1)), *encode_conditions([_IS_LIVE])]
        shape = [("_sort", "-last_modified"), ("_fields", "last_modified"), ("_limit", "1")]
        for row in (yield from read_rows(self._path, encode_query([*parameters, *shape]))):
            self._position.anchor = (row["id"], row["last_modified"])


_IS_LIVE = condition("deleted", "not", value=True)


def _gone(id: str) -> JSONObject:
    return {"id": id, "deleted": True}


def _check_known(known: object) -> Mapping[str, int]:
    if not isinstance(known, Mapping):
        raise InvalidTypeError(f"known is a mapping of ids to timestamps (last_modified), not {say_value(known)}.")
    for id, one in known.items():
        if not isinstance(id, str) or type(one) is not int:
            raise InvalidTypeError(
                f"known is a mapping of ids to timestamps (last_modified), not {say_value(id)}: {say_value(one)}."
            )
    return known
