"""A block whose changes are published: a review is asked for at its end, if there is something to review.

https://remote-settings.readthedocs.io/en/latest/tutorial-multi-signoff.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from kinto_orm.errors import DryRunError, InvalidTypeError, ReviewError, UsageError
from kinto_orm.protocol.json_values import JSON, JSONObject, decode, etag, is_stored_as, say_value
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.paging import RawPages, encode_query, read_timestamp, rows_of
from kinto_orm.protocol.patches import BasicPatch
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath
from kinto_orm.protocol.reviews import ReviewRules, ReviewStatus, ReviewStep, status_of
from kinto_orm.protocol.writes import Action, Flow, Precondition, Write
from kinto_orm.repository.reads import get, user_id
from kinto_orm.repository.state import FlowRunner, Stateful, add_observer, remove_observer
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

H = TypeVar("H", bound=Stateful)

HORIZON = 10_000
"""How far below the list's timestamp a transaction may still commit, in milliseconds."""

_MOST_NAMED = 5


class ReviewFlows(NamedTuple):
    """The flows of a review, which belong to a room above this one."""

    require: Callable[[ObjectPath, str, FlowRunner], Flow[ReviewRules]]
    """Raises where the collection is under no review."""
    request: Callable[[Stateful, str, int | None], Flow[object]]
    """Asks for the review of the records as they were seen at that timestamp."""


class Publication(Generic[H]):
    """A block whose changes are published: made by ``collection.publication()``.

    Left cleanly, it asks for a review where there is something to review; left by an exception, it does not.
    """

    def __init__(self, collection: H, message: str, flows: ReviewFlows) -> None:
        if not isinstance(message, str):
            raise InvalidTypeError(f"The message is text for the reviewers, not {say_value(message)}.")
        self.collection = collection
        self.is_requested = False
        """Whether the review was asked for; known when the block was left."""
        self._message = message
        self._flows = flows
        self._runner = collection.__kinto_runner__()
        self._path = PluralPath(Kind.RECORD, collection.__kinto_path__().ids)
        self._start = 0
        self._before: Mapping[str, int] = {}
        self._written = Written(self._path)
        self._is_open = False

    def __enter__(self) -> Self:
        self._runner.run(self._begin())
        self._watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if kind is None:
            self._runner.run(self._end())

    async def __aenter__(self) -> Self:
        await self._runner.arun(self._begin())
        self._watch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if kind is None:
            await self._runner.arun(self._end())

    def _watch(self) -> None:
        self._is_open = True
        add_observer(self._written.note)

    def _stop(self) -> None:
        remove_observer(self._written.note)
        self._is_open = False

    def _begin(self) -> Flow[None]:
        if self._is_open:
            raise UsageError(f"This publication of {self._path} is open already: make another one.")
        refuse_staging(self._runner, "publication()")
        yield from self._flows.require(self.collection.__kinto_path__(), "publication()", self._runner)
        self._written, self.is_requested = Written(self._path), False
        self._start = (yield from read_timestamp(self._path)) or 0
        self._before, _ = yield from self._read()

    def _read(self) -> Flow[tuple[dict[str, int], int | None]]:
        """Return what was changed last, also what was committed late: timestamps by id, and the list's own."""
        found: dict[str, int] = {}
        since = ("_since", etag(max(0, self._start - HORIZON)))
        query = encode_query([since, ("_sort", "last_modified"), ("_fields", "last_modified")])
        pages = RawPages(self._path, query, may_hold_tombstones=True)
        timestamp: int | None = None
        while (flow := pages.next()) is not None:
            page = yield from flow
            rows = rows_of(decode(page.body, str(self._path)), self._path)
            found |= {row["id"]: row["last_modified"] for row in rows}
            timestamp = page.timestamp
        return found, timestamp

    def _end(self) -> Flow[None]:
        if self._written.is_planned:
            yield from self._plan()
            return
        after, seen = yield from self._read()
        changes = {id: timestamp for id, timestamp in after.items() if self._before.get(id) != timestamp}
        self._check_are_own(changes)
        if not changes and not (yield from self._is_left_over()):
            return
        before = self.collection.__kinto_state__().last_modified
        yield from self._flows.request(self.collection, self._message, seen)
        state = self.collection.__kinto_state__()
        self.is_requested = status_of(state.data) is ReviewStatus.TO_REVIEW and state.last_modified != before

    def _check_are_own(self, changes: Mapping[str, int]) -> None:
        foreign = sorted(id for id, timestamp in changes.items() if not self._written.has(id, timestamp))
        if foreign:
            named = ", ".join(foreign[:_MOST_NAMED]) + (", …" if len(foreign) > _MOST_NAMED else "")
            raise ReviewError(
                f"{self._path}: {len(foreign)} records were changed during the block, but not by it ({named}), so no "
                "review was asked for. What the block wrote is stored: look at the changes, then request_review()."
            )

    def _is_left_over(self) -> Flow[bool]:
        """Return whether this user's own changes wait, for which an earlier run did not ask for a review."""
        user = user_id((yield from self._runner.__kinto_describe_server__()))
        state = yield from get(self.collection.__kinto_path__())
        data = state.data or {}
        is_own = user is not None and data.get("last_edit_by") == user
        return is_own and status_of(data) is ReviewStatus.WORK_IN_PROGRESS

    def _plan(self) -> Flow[None]:
        """Plan the request of a dry client: the collection shows none of the writes that were only planned."""
        state = yield from get(self.collection.__kinto_path__())
        patch = BasicPatch(data=ReviewStep.REQUEST.data(self._message))
        with suppress(DryRunError):  # it is in the plan
            yield Write(state.path, Action.PATCH, Precondition(last_modified=state.last_modified), patch=patch)


class _Write(NamedTuple):
    """A request, or an entry of a batch."""

    method: str
    path: str
    body: JSON
    is_repeated: bool
    """Whether an earlier attempt lost its answer."""


class Written:
    """The versions of records that the clients of a context wrote, by their requests and the responses to them."""

    def __init__(self, path: PluralPath) -> None:
        self._path = path
        self._own: dict[str, int] = {}
        self._attached: set[str] = set()
        """Records whose file was written: the response does not show their timestamp, and the next read does."""
        self._deleted: set[str] = set()
        """Records whose deletion was applied and its answer lost, so that the timestamp is not known."""
        self.is_planned = False
        """Whether a dry client planned a write."""

    def has(self, id: str, last_modified: int) -> bool:
        """Return whether that version was written here."""
        return self._own.get(id) == last_modified or id in self._deleted

    def note(self, request: Request, response: Response | None) -> None:
        """Take what a request wrote."""
        if request.path == "/batch" and request.body is not None:
            self._note_batch(decode(request.body, "a batch"), response)
        elif request.path.startswith(str(self._path)):
            if response is None:
                self.is_planned = True
                return
            is_json = "json" in request.headers.get("Content-Type", "json")
            sent = decode(request.body, request.path) if request.body and is_json else None
            self._note(
                _Write(request.method, request.path, sent, response.is_repeated), response.status, _json(response)
            )

    def _note_batch(self, sent: JSON, response: Response | None) -> None:
        entries = sent.get("requests", ()) if isinstance(sent, dict) else ()
        if response is None:
            prefix = str(self._path)
            self.is_planned |= any(_is_write(one) and one["path"].startswith(prefix) for one in entries)
            return
        body = _json(response)
        answers = body.get("responses") if isinstance(body, dict) else None
        for entry, answer in zip(entries, answers if isinstance(answers, list) else (), strict=False):
            path = str(entry.get("path"))
            if path.startswith(str(self._path)) and isinstance(answer, dict):
                write = _Write(entry.get("method", "GET"), path, entry.get("body"), response.is_repeated)
                self._note(write, answer.get("status", 500), answer.get("body"))

    def _note(self, write: _Write, status: int, said: JSON) -> None:
        id, _, below = write.path.removeprefix(str(self._path)).strip("/").partition("/")
        is_read = write.method in ("GET", "HEAD")
        if below == "attachment" and status < 300:
            self._attached.add(id)
        elif status < 300 and (not is_read or id in self._attached):
            self._attached.discard(id)
            self._take(said)
        elif write.is_repeated and status == 404 and write.method == "DELETE":
            self._deleted.add(id)
        elif write.is_repeated and status == 412:
            self._take_existing(write.body, said)

    def _take(self, said: JSON) -> None:
        data = said.get("data") if isinstance(said, dict) else None
        for row in data if isinstance(data, list) else [data]:
            if isinstance(row, dict) and isinstance(row.get("id"), str) and type(row.get("last_modified")) is int:
                self._own[row["id"]] = row["last_modified"]
                self._deleted.discard(row["id"])

    def _take_existing(self, sent: JSON, said: JSON) -> None:
        """Take the version that a 412 shows, where it is what was sent: the answer to the first attempt was lost."""
        details = said.get("details") if isinstance(said, dict) else None
        existing = details.get("existing") if isinstance(details, dict) else None
        data = sent.get("data", {}) if isinstance(sent, dict) else None
        if not isinstance(existing, dict) or not isinstance(data, dict):
            return
        if all(key in existing and is_stored_as(value, existing[key]) for key, value in data.items()):
            self._take({"data": existing})


def _is_write(entry: JSONObject) -> bool:
    return entry.get("method") not in (None, "GET", "HEAD")


def _json(response: Response) -> JSON:
    if response.content is not None:
        return response.content
    return decode(response.body, "a write") if response.body[:1] in (b"{", b"[") else None
