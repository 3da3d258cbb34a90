"""Many intents in one batch, and one honest outcome for each.

A batch is one HTTP request but not simply one transaction: what is refused leaves the others stored, a 409 undoes
what was answered before it. Only what was stored is adopted by its object.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeAlias, TypeVar

from kinto_orm.conflicts import make_resolvable
from kinto_orm.errors import (
    BatchTooLargeError,
    CommitError,
    ConcurrentWriteError,
    ConflictError,
    ConnectionFailedError,
    DuplicateObjectError,
    KintoError,
    NotFoundError,
    ProtocolError,
    ResponseError,
    ServerError,
    TransportError,
)
from kinto_orm.messages import Response
from kinto_orm.protocol.batch import DEFAULT_BATCH_LIMIT, batch_limit, batch_request, count_void, split_answer
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.values import JSONObject
from kinto_orm.protocol.writes import Write, encode_entry
from kinto_orm.repository import plan, settle
from kinto_orm.state import Holder, Intent, Runner, Status, Verb

OutcomeStatus: TypeAlias = Literal[
    "created", "updated", "deleted", "unchanged", "conflict", "gone", "rejected", "rolled_back", "unknown", "not_sent"
]

STORED = ("created", "updated", "deleted", "unchanged")
"""The outcomes after which the object is what the server has."""

H = TypeVar("H", bound=Holder, covariant=True)
S = TypeVar("S", bound=Holder)


@dataclass(frozen=True, slots=True)
class Staged(Generic[H]):
    """An intent and the object that takes its result."""

    holder: H
    intent: Intent


@dataclass(frozen=True, slots=True)
class Outcome(Generic[H]):
    """What became of one staged object."""

    object: H
    verb: Verb
    status: OutcomeStatus
    error: KintoError | None = None
    reconciled: bool = False

    @property
    def is_stored(self) -> bool:
        """Whether the server has what was wanted."""
        return self.status in STORED


@dataclass(frozen=True, slots=True)
class _Planned(Generic[S]):
    """What is staged, the write it comes to, and that write as an entry of a batch."""

    staged: Staged[S]
    write: Write
    entry: JSONObject


def commit(staged: Sequence[Staged[S]], runner: Runner | None = None) -> Flow[list[Outcome[S]]]:
    """One outcome for each, in order, after at most one ``POST /batch`` in that order.

    Never raises for what the server or the network did: that is in the outcomes. Raises before anything is sent
    where an object is in no state for its verb. With a runner, the size is compared with what the server takes:
    raises ``BatchTooLargeError``.
    """
    writes = [plan(one.intent) for one in staged]
    sent = [
        _Planned(one, write, encode_entry(write))
        for one, write in zip(staged, writes, strict=True)
        if write is not None
    ]
    outcomes = iter((yield from _send(sent, runner))) if sent else iter(())
    return [next(outcomes) if write is not None else _unchanged(one) for one, write in zip(staged, writes, strict=True)]


def _send(sent: Sequence[_Planned[S]], runner: Runner | None) -> Flow[list[Outcome[S]]]:
    try:
        limit = batch_limit((yield from runner.describe_server())) if runner is not None else None
    except _FAILED as error:
        return _all_failed(sent, "not_sent", error)
    if limit is not None and len(sent) > limit:
        raise BatchTooLargeError(
            f"{len(sent)} operations are staged and the server takes {limit} in one batch: use fewer at a time, or "
            "bulk_create(), which writes in several batches."
        )
    request = batch_request([one.entry for one in sent])
    try:
        response = yield request
        answers = split_answer(response, [one.write for one in sent])
    except KintoError as error:
        return _all_failed(sent, _status_of_failure(error), error)
    void = count_void(answers)
    return [
        _outcome(one.staged, one.write, answer, is_void=index < void)
        for index, (one, answer) in enumerate(zip(sent, answers, strict=True))
    ]


_FAILED = (TransportError, ProtocolError, ResponseError)


def _all_failed(sent: Sequence[_Planned[S]], status: OutcomeStatus, error: KintoError) -> list[Outcome[S]]:
    return [Outcome(one.staged.holder, one.staged.intent.verb, status, error) for one in sent]


def _unchanged(one: Staged[S]) -> Outcome[S]:
    return Outcome(one.holder, one.intent.verb, "unchanged")


def stage_changed(holder: S) -> Staged[S] | Outcome[S]:
    """The object to be saved; where it surely is what the server has, the outcome of that."""
    if holder.__kinto_is_untouched__():
        return Outcome(holder, Verb.SAVE, "unchanged")
    state, draft = holder.__kinto_describe__()
    return Staged(holder, Intent(Verb.SAVE, state, draft))


def _outcome(one: Staged[S], write: Write, answer: Response, *, is_void: bool) -> Outcome[S]:
    verb = one.intent.verb
    if is_void and answer.status != 409:
        return Outcome(one.holder, verb, "rolled_back", _rolled_back(write))
    try:
        state = settle(one.intent, write, answer)
    except KintoError as error:
        make_resolvable(error, one.holder.__kinto_runner__(), one.holder, one.intent)
        return Outcome(one.holder, verb, _status_of_refusal(error), error)
    status = _status_of_success(one.intent, state.status)
    try:
        one.holder.__kinto_adopt__(state, one.intent)
    except KintoError as error:
        # The server has it, but it does not fit the model, which so keeps its old state.
        return Outcome(one.holder, verb, status, error)
    return Outcome(one.holder, verb, status)


def _rolled_back(write: Write) -> ConcurrentWriteError:
    return ConcurrentWriteError(
        f"{write.path}: a 409 further on in the batch rolled this write back; commit again.", status=409
    )


def _status_of_success(intent: Intent, status: Status) -> OutcomeStatus:
    if status is Status.DELETED:
        return "deleted"
    return "created" if intent.state.status is Status.NEW else "updated"


def _status_of_refusal(error: KintoError) -> OutcomeStatus:
    if isinstance(error, ConflictError):
        return "conflict"
    if isinstance(error, ConcurrentWriteError):
        return "rolled_back"
    if isinstance(error, NotFoundError):
        return "gone"
    return "unknown" if isinstance(error, (ProtocolError, ServerError)) else "rejected"


def _status_of_failure(error: KintoError) -> OutcomeStatus:
    """What a failure of the whole batch means for each write."""
    if isinstance(error, ConnectionFailedError):
        return "not_sent"
    if isinstance(error, ConcurrentWriteError):
        return "rolled_back"
    # A 5xx rolls everything back on PostgreSQL and nothing on the memory backend: we cannot know which it is.
    if isinstance(error, (TransportError, ProtocolError, ServerError)):
        return "unknown"
    return "rejected" if isinstance(error, ResponseError) else "not_sent"


def _said(outcome: Outcome[Holder]) -> str:
    return str(outcome.error).rstrip(".")


def raise_unless_stored(outcomes: Sequence[Outcome[Holder]]) -> None:
    """Raises ``CommitError`` with all the outcomes where one of them has an error."""
    failed = [one for one in outcomes if one.error is not None]
    if not failed:
        return
    first = failed[0]
    stored = sum(one.is_stored for one in outcomes)
    raise CommitError(
        f"{len(failed)} of {len(outcomes)} writes failed ({stored} are stored). "
        f"The first one: {first.status}: {_said(first)}. See .outcomes for each.",
        outcomes,
    ) from first.error


@dataclass
class BulkReport:
    """How many objects a bulk verb wrote, by outcome; the ones that failed are kept whole."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: list[Outcome[Holder]] = field(default_factory=list)
    is_complete: bool = True
    """Whether all objects were tried; not where the server could not be reached any more."""

    @property
    def stored(self) -> int:
        """How many the server has as wanted."""
        return self.created + self.updated + self.deleted + self.unchanged

    def add(self, outcome: Outcome[Holder]) -> None:
        """Counts one outcome."""
        if outcome.is_stored:
            setattr(self, outcome.status, getattr(self, outcome.status) + 1)
        if outcome.error is not None:
            self.failed.append(outcome)


def full_batch(runner: Runner) -> Flow[int]:
    """How many writes the batches of :func:`commit_all` hold on that client's server."""
    return batch_limit((yield from runner.describe_server())) or DEFAULT_BATCH_LIMIT


def commit_all(
    staged: Iterable[Staged[S] | Outcome[S]], limit: int, on_outcome: Callable[[Outcome[S]], object] | None
) -> Flow[BulkReport]:
    """Writes them all, in full batches of ``limit``, holding one batch in memory.

    Where it is known beforehand that there is nothing to write, ``staged`` gives the outcome instead.
    ``on_outcome`` is called with each outcome. The batches are separate transactions; a failed one does not stop
    the others, unless the server cannot be reached at all. What ``staged`` raises gets a note of what is stored.
    """
    bulk = _Bulk(BulkReport(), on_outcome)
    try:
        for one in staged:
            if isinstance(one, Outcome):
                bulk.take([one])
                continue
            bulk.plan(one)
            if len(bulk.batch) == limit:
                bulk.take((yield from _send(list(bulk.batch.values()), None)))
                bulk.batch.clear()
            if not bulk.report.is_complete:
                return bulk.report
        bulk.take((yield from _send(list(bulk.batch.values()), None)) if bulk.batch else [])
    except Exception as error:
        error.add_note(f"{bulk.report.stored} objects were stored before this; what came after them was not sent.")
        raise
    return bulk.report


@dataclass(frozen=True, slots=True)
class _Bulk(Generic[S]):
    """A bulk verb at work: what becomes of each object is told at once."""

    report: BulkReport
    on_outcome: Callable[[Outcome[S]], object] | None
    batch: dict[int, _Planned[S]] = field(default_factory=dict)
    """The batch that is being filled, by the identities of its objects."""

    def plan(self, one: Staged[S]) -> None:
        """Adds the write to the batch; where there is none, that is an outcome by itself."""
        try:
            write = plan(one.intent)
            if write is None:
                self.take([_unchanged(one)])
                return
            if id(one.holder) in self.batch:
                raise DuplicateObjectError(f"{write.path} was given twice: it is written once.")
            self.batch[id(one.holder)] = _Planned(one, write, encode_entry(write))
        except KintoError as error:
            self.take([Outcome(one.holder, one.intent.verb, "rejected", error)])

    def take(self, outcomes: Sequence[Outcome[S]]) -> None:
        """Counts the outcomes and tells them."""
        for outcome in outcomes:
            self.report.add(outcome)
            if isinstance(outcome.error, TransportError):
                self.report.is_complete = False
            if self.on_outcome is not None:
                self.on_outcome(outcome)


def raise_for_report(report: BulkReport, verb: str) -> BulkReport:
    """The report; raises ``CommitError`` with the failed outcomes where there are any."""
    if report.failed:
        first = report.failed[0]
        rest = "" if report.is_complete else " It stopped there: what came after was not sent."
        raise CommitError(
            f"{verb}: failed for {len(report.failed)}, stored for {report.stored} objects. "
            f"The first one: {first.status}: {_said(first)}. See .outcomes for the failed ones.{rest}",
            report.failed,
        ) from first.error
    return report
