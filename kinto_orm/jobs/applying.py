"""Write the changes of a plan: each with the precondition of the record that was compared, in full batches.

https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

from kinto_orm.errors import KintoError, StalePlanError, UnitOfWorkError
from kinto_orm.jobs.comparing import FieldRules, PlannedChange
from kinto_orm.jobs.planning import Planned
from kinto_orm.protocol.batches import ATOMIC_CAPABILITY, DEFAULT_BATCH_LIMIT, batch_limit
from kinto_orm.protocol.json_values import JSONObject, etag, is_stored_as
from kinto_orm.protocol.messages import Request
from kinto_orm.protocol.paging import is_tombstone
from kinto_orm.protocol.responses import raise_for_status
from kinto_orm.protocol.writes import Flow, call_blocking
from kinto_orm.query.execution import PageWalk, RawRows, Selection
from kinto_orm.repository.state import Change, ObjectState, OnConflict, Outcome, Progress, Stateful, Status, Verb
from kinto_orm.repository.verbs import encode_change
from kinto_orm.unit_of_work.batches import full_batch
from kinto_orm.unit_of_work.bulk import Bulk, BulkReport, raise_for_report, report_of
from kinto_orm.unit_of_work.engine import CommitOptions, commit

OnOutcome: TypeAlias = Callable[[Outcome[Any]], object]


@dataclass
class SyncReport(BulkReport):
    """How many records a sync created, updated, deleted and left unchanged; the failed ones are kept whole."""

    without_key: int = 0
    """The number of records of the target that lack the natural key; they were left alone."""
    is_atomic: bool = False
    """Whether all was stored in one transaction, which a change by another client would have undone."""


@dataclass(eq=False, repr=False)
class Applying:
    """The writing of one plan."""

    planned: Planned
    on_conflict: OnConflict = "raise"
    progress: Progress | None = None
    on_outcome: OnOutcome | None = None

    def __post_init__(self) -> None:
        counts = self.planned.counts
        self._report = SyncReport(unchanged=counts.unchanged, without_key=counts.without_key)
        self._done: frozenset[str] = frozenset()
        """The ids of records that an earlier run of the same plan has written."""

    def write(self, verb: str) -> Flow[SyncReport]:
        """Write all changes, and report. Raises ``CommitError`` where records were not stored; the others were."""
        if self.planned.counts.changes:
            yield from self._write_all()
        raise_for_report(self._report, verb)
        return self._report

    def apply(self) -> Flow[SyncReport]:
        """Write all changes, unless another client changed the collection since the plan was made.

        Raises ``StalePlanError`` then, and nothing is stored.
        """
        timestamp = self.planned.timestamp
        if not self.planned.counts.changes or timestamp is None:
            return (yield from self.write("apply"))
        info = yield from self.planned.place.runner.__kinto_describe_server__()
        limit = batch_limit(info) or DEFAULT_BATCH_LIMIT
        # The guard takes the place of one change.
        is_atomic = ATOMIC_CAPABILITY in info.get("capabilities", {}) and self.planned.counts.changes < limit
        if is_atomic:
            try:
                return (yield from self._write_at_once(timestamp))
            except StalePlanError:
                yield from self._find_done(timestamp)
        else:
            yield from self._check_unmoved(timestamp)
        return (yield from self.write("apply"))

    def _write_at_once(self, timestamp: int) -> Flow[SyncReport]:
        """Write all changes in one transaction, guarded by the timestamp of the list."""
        runner, path = self.planned.place.runner, self.planned.place.path
        changes = yield from call_blocking("changes", lambda: list(self.planned.changes))
        staged = [self._stage(change) for change in changes]
        if all(one.status is None for one in staged):
            guard = Request("HEAD", str(path), headers={"If-Match": etag(timestamp)})
            yield from commit(staged, runner, CommitOptions(atomic=True, guard=guard))
            self._report.is_atomic = True
        for one in staged:
            if one.status is None:
                one.status = "not_sent"
                one.error = UnitOfWorkError(f"{one.state.path} was not sent: another change of the plan was refused.")
            self._tell(one)
        self._tell_progress(len(changes))
        raise_for_report(self._report, "apply")
        return self._report

    def _write_all(self) -> Flow[None]:
        runner = self.planned.place.runner
        limit = yield from full_batch(runner)
        changes = iter(self.planned.changes)
        written = 0
        while chunk := (yield from call_blocking("changes", lambda: list(islice(changes, limit)))):
            yield from self._write(chunk)
            written += len(chunk)
            self._tell_progress(written)
            if not self._report.is_complete:
                return

    def _tell_progress(self, written: int) -> None:
        if self.progress is not None:
            self.progress(written, self.planned.counts.changes, "write records")

    def _write(self, chunk: list[PlannedChange]) -> Flow[None]:
        left = [change for change in chunk if change.id not in self._done]
        self._report.unchanged += len(chunk) - len(left)
        options = CommitOptions(chunked=True, on_conflict=self.on_conflict)
        bulk = Bulk(map(self._stage, left), self.planned.place.runner, options)
        yield from report_of(bulk, self.on_outcome, report=self._report)

    def _tell(self, answered: Change[Stateful]) -> None:
        self._report.add(answered)
        if self.on_outcome is not None:
            self.on_outcome(answered.outcome)

    def _stage(self, change: PlannedChange) -> Change[Stateful]:
        path = self.planned.place.path.object(change.id)
        state = ObjectState(path, Status.NEW)
        if change.kind != "create":
            state = ObjectState(path, Status.LOADED, change.old, change.last_modified)
        verb = Verb.DELETE if change.kind == "delete" else Verb.SAVE
        staged = self.planned.codec.change(verb, state, change.new, self.planned.place)
        try:
            encode_change(staged)
        except KintoError as error:
            staged.status, staged.error = "rejected", error
        return staged

    def _check_unmoved(self, timestamp: int) -> Flow[None]:
        """Raise ``StalePlanError`` where the list has another timestamp, and not for this plan's own writes alone."""
        path = self.planned.place.path
        response = yield Request("HEAD", str(path), headers={"If-Match": etag(timestamp)})
        if response.status == 412:
            yield from self._find_done(timestamp)
        else:
            raise_for_status(response, "HEAD", str(path))

    def _find_done(self, timestamp: int) -> Flow[None]:
        """Find the changes that an interrupted run of this plan has stored; raise for any change of another client."""
        path, changes = self.planned.place.path, self.planned.changes
        done: set[str] = set()
        newest = 0
        now: int | None = None
        walk = PageWalk(RawRows(), self.planned.place, Selection(since=timestamp), "raise")
        while (flow := walk.next_page()) is not None:
            page = yield from flow
            now = page.timestamp if now is None else now
            found = yield from call_blocking("changes", partial(changes.find, [row["id"] for row in page.objects]))
            for row in page.objects:
                change = found.get(row["id"])
                if change is None or not _is_done(change, row):
                    raise StalePlanError(
                        f"Another client changed {path}/{row['id']} since the plan was made: make a new plan. Nothing "
                        "was stored."
                    )
                done.add(row["id"])
                newest = max(newest, row["last_modified"])
        if now is None or newest < now:
            # Nothing in the list tells why it moved: it was emptied, restored, or purged of its tombstones.
            raise StalePlanError(
                f"{path} is not the list of which the plan was made: make a new plan. Nothing was sent."
            )
        self._done = frozenset(done)


def _is_done(change: PlannedChange, row: JSONObject) -> bool:
    """Return whether the record is as the change wants it: an earlier run of the plan was interrupted after it."""
    if is_tombstone(row):
        return change.kind == "delete"
    rules = FieldRules(dict)
    return change.new is not None and is_stored_as(rules.own(change.new), rules.own(row))
