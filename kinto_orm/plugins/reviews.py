"""Flows for the steps of a review; each is sent only where it changes something, for the version that was read.

With the signer plugin every write of a record also changes its collection: a precondition on the collection covers all
its records.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from kinto_orm.errors import (
    AmbiguousWriteError,
    DryRunError,
    InvalidTypeError,
    KintoError,
    NotLoadedError,
    ReviewError,
    UnsavedChangesError,
)
from kinto_orm.protocol.json_values import TimestampInput, is_same, parse_timestamp, say_value
from kinto_orm.protocol.paging import read_timestamp
from kinto_orm.protocol.patches import BasicPatch
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath
from kinto_orm.protocol.responses import error_of, existing_object, raise_for_status
from kinto_orm.protocol.reviews import ReviewRules, ReviewStatus, ReviewStep, rules_of, status_of
from kinto_orm.protocol.writes import Action, Flow, Precondition, Write
from kinto_orm.repository.conflicts import IN_DOUBT, conflict_over, is_abort
from kinto_orm.repository.reads import get, require_capability, user_id
from kinto_orm.repository.state import Change, FlowRunner, ObjectState, Stateful, Status, Verb
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

H = TypeVar("H", bound=Stateful)

CAPABILITY = "signer"

_OF_THE_MOMENT = (ReviewStep.REQUEST, ReviewStep.REFRESH)
"""The steps that concern the current collection, not the version that the caller read."""


def review(holder: H, step: ReviewStep, message: str | None = None, *, seen: TimestampInput | None = None) -> Flow[H]:
    """Carry out one step of a review and return the collection; send nothing where the step is already done.

    ``seen`` is the timestamp of the records that the caller looked at. Raises ``ReviewError`` where the status of the
    collection does not allow the step. Raises ``ConflictError`` where the collection, or one of its records, was
    changed since it was read. Raises ``NotLoadedError`` where the collection was never read.
    """
    if step.what.comment is not None and not isinstance(message, str):
        raise InvalidTypeError(f"The message of a review is text, not {say_value(message)}.")
    timestamp = None if seen is None else parse_timestamp(seen, "seen")
    runner = holder.__kinto_runner__()
    refuse_staging(runner, f"{step.name.lower()} of a review")
    rules = yield from require_rules(holder.__kinto_path__(), f"A review ({step.name.lower()})", runner)
    info = yield from runner.__kinto_describe_server__()
    review = Review(holder.__kinto_change__(Verb.SAVE), step, message, runner, user_id(info))
    before = yield from review.look(rules, timestamp)
    status = status_of(before.data)
    if status in step.what.is_done_at:
        holder.__kinto_apply_state__(before, None)
        return holder
    review.check(status, rules)
    yield from review.carry_out(before)
    return holder


def request_review(holder: H, message: str, seen: int | None) -> Flow[H]:
    """Ask for a review of the records as they were seen."""
    return review(holder, ReviewStep.REQUEST, message, seen=seen)


def require_rules(path: ObjectPath, what: str, runner: FlowRunner) -> Flow[ReviewRules]:
    """Return the rules of the collection's review, which ``what`` rests on; raise ``ReviewError`` where it has none."""
    rules = rules_of((yield from require_capability(CAPABILITY, what, runner)), *path.ids)
    if rules is None:
        raise ReviewError(f"{path} is under no review: the server's capability signer does not name it.")
    return rules


class Review(NamedTuple, Generic[H]):
    """One step of a review, on one collection."""

    collection: Change[H]
    """The collection as it was at the call, and as a save would store it."""
    step: ReviewStep
    message: str | None
    runner: FlowRunner
    user: str | None

    @property
    def holder(self) -> H:
        """The collection's object."""
        return self.collection.holder

    @property
    def state(self) -> ObjectState:
        """The server's last word about the collection."""
        return self.collection.state

    def look(self, rules: ReviewRules, seen: int | None) -> Flow[ObjectState]:
        """Return the state of the collection that the step concerns."""
        state, path = self.state, self.state.path
        is_dirty = self.collection.permissions or not is_same(state.data or {}, self.collection.data)
        if state.status is not Status.DELETED and not state.is_partial and is_dirty:
            raise UnsavedChangesError(f"{path} has unsaved changes: save() them, or refresh(discard=True).")
        is_seen = state.status is Status.LOADED and state.last_modified is not None and not state.is_partial
        if self.step in _OF_THE_MOMENT or (seen is not None and not is_seen):
            state = yield from get(path)
        elif not is_seen:
            raise NotLoadedError(
                f"{path} was never read, and a review judges the version that was read: refresh() it and its records."
            )
        if seen is not None:
            self.check(status_of(state.data), rules)
            yield from self._compare(seen)
        return state

    def _compare(self, seen: int) -> Flow[None]:
        records = PluralPath(Kind.RECORD, self.state.path.ids)
        now = yield from read_timestamp(records)
        if now != seen:
            raise ReviewError(
                f"{records} were changed since you read them: then at {seen}, now at {now}. Read them again."
            )

    def check(self, status: ReviewStatus | None, rules: ReviewRules) -> None:
        """Raise ``ReviewError`` where the step is not possible in this status."""
        possible = rules.sources(self.step)
        if status not in possible and status not in self.step.what.is_done_at:
            names = " or ".join(sorted(one.value for one in possible if one is not None))
            raise ReviewError(
                f"{self.state.path} is {status.value if status else 'in no status'}, and {self.step.name.lower()} "
                f"needs a collection that is {names}. Nothing was sent. refresh() it where that may have changed."
            )

    def carry_out(self, before: ObjectState) -> Flow[None]:
        """Send the step and read the collection again: the answer shows the request, not its effect."""
        path = before.path
        patch = BasicPatch(data=self.step.data(self.message))
        precondition = Precondition(last_modified=before.last_modified)
        failure: KintoError | None = None
        try:
            response = yield Write(path, Action.PATCH, precondition, old=before.data, patch=patch)
            if response.status == 412 and not response.is_repeated:
                error, theirs = error_of(response, "PATCH", str(path)), existing_object(response, str(path))
                raise conflict_over(error, theirs, self.collection, self.runner)
            raise_for_status(response, "PATCH", path)
        except DryRunError:
            return  # the step is planned; the collection keeps its state
        except IN_DOUBT as error:
            if is_abort(error):
                raise
            failure = error
        after = yield from get(path)
        if failure is not None and not self._is_done(after, before):
            if after.last_modified == before.last_modified:
                raise failure
            raise AmbiguousWriteError(
                f"{path}: the answer to {self.step.name.lower()} was lost and the collection was changed since: "
                "refresh() it and look."
            ) from failure
        self.holder.__kinto_apply_state__(after, None)

    def _is_done(self, after: ObjectState, before: ObjectState) -> bool:
        """Return whether the collection shows that the step was applied, and by the same user."""
        what, data = self.step.what, after.data or {}
        wanted = {} if what.comment is None or self.step is ReviewStep.ROLLBACK else {what.comment: self.message}
        if what.actor is not None:
            wanted[what.actor] = self.user
        if self.runner.strict_retry and (what.actor is None or self.user is None):
            return False  # another user may have done the same
        is_there = status_of(data) is (what.leads_to or status_of(before.data))
        is_changed = after.last_modified != before.last_modified
        if what.moment is not None:  # a write by another client changes the timestamp, too
            is_changed = data.get(what.moment) != (before.data or {}).get(what.moment)
        return is_changed and is_there and all(data.get(key) == value for key, value in wanted.items())
