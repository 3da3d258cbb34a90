"""Many intents in one batch, and one honest outcome for each.

A batch is one HTTP request but not simply one transaction: what is refused leaves the others stored, a 409 undoes
what was answered before it. Only what was stored is adopted by its object.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, Literal, TypeAlias, TypeVar

from kinto_orm.errors import (
    CommitError,
    ConcurrentWriteError,
    ConflictError,
    ConnectionFailedError,
    KintoError,
    NotFoundError,
    ProtocolError,
    ResponseError,
    ServerError,
    TransportError,
)
from kinto_orm.messages import Response
from kinto_orm.protocol.batch import batch_request, count_void, split_answer
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.writes import Write
from kinto_orm.repository import plan, settle
from kinto_orm.state import Holder, Intent, Status, Verb

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


def commit(staged: Sequence[Staged[S]]) -> Flow[list[Outcome[S]]]:
    """One outcome for each, in order, after at most one ``POST /batch`` in that order.

    Never raises for what the server or the network did: that is in the outcomes. Raises before anything is sent
    where an object is in no state for its verb.
    """
    planned = [(one, plan(one.intent)) for one in staged]
    sent = [(one, write) for one, write in planned if write is not None]
    outcomes = iter((yield from _send(sent))) if sent else iter(())
    return [next(outcomes) if write is not None else _unchanged(one) for one, write in planned]


def _send(sent: Sequence[tuple[Staged[S], Write]]) -> Flow[list[Outcome[S]]]:
    writes = [write for _, write in sent]
    request = batch_request(writes)
    try:
        response = yield request
        answers = split_answer(response, writes)
    except KintoError as error:
        status = _status_of_failure(error)
        return [Outcome(one.holder, one.intent.verb, status, error) for one, _ in sent]
    void = count_void(answers)
    return [
        _outcome(one, write, answer, is_void=index < void)
        for index, ((one, write), answer) in enumerate(zip(sent, answers, strict=True))
    ]


def _unchanged(one: Staged[S]) -> Outcome[S]:
    return Outcome(one.holder, one.intent.verb, "unchanged")


def _outcome(one: Staged[S], write: Write, answer: Response, *, is_void: bool) -> Outcome[S]:
    try:
        if is_void and answer.status != 409:
            return Outcome(one.holder, one.intent.verb, "rolled_back", _rolled_back(write))
        state = settle(one.intent, write, answer)
        one.holder.__kinto_adopt__(state, one.intent)
        return Outcome(one.holder, one.intent.verb, _status_of_success(one.intent, state.status))
    except KintoError as error:
        return Outcome(one.holder, one.intent.verb, _status_of_refusal(error), error)


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


def raise_unless_stored(outcomes: Sequence[Outcome[Holder]]) -> None:
    """Raises ``CommitError`` with all the outcomes where one of them was not stored."""
    refused = [one for one in outcomes if not one.is_stored]
    if not refused:
        return
    first = refused[0]
    raise CommitError(
        f"{len(refused)} of {len(outcomes)} writes were not stored ({len(outcomes) - len(refused)} were). "
        f"The first one: {first.status}: {first.error}. See .outcomes for each.",
        outcomes,
    ) from first.error


@dataclass
class BulkReport:
    """How many objects a bulk verb wrote, by outcome; the ones that were not stored are kept whole."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: list[Outcome[Holder]] = field(default_factory=list)

    @property
    def stored(self) -> int:
        """How many the server has as wanted."""
        return self.created + self.updated + self.deleted + self.unchanged

    def add(self, outcome: Outcome[Holder]) -> None:
        """Counts one outcome."""
        if outcome.is_stored:
            setattr(self, outcome.status, getattr(self, outcome.status) + 1)
        else:
            self.failed.append(outcome)


def commit_all(
    staged: Iterable[Staged[S]], limit: int, on_outcome: Callable[[Outcome[S]], object] | None
) -> Flow[BulkReport]:
    """Writes them all, in full batches of ``limit``, holding one batch in memory.

    ``on_outcome`` is called with each outcome. The batches are separate transactions; a failed one does not stop
    the others, unless the server cannot be reached at all.
    """
    report = BulkReport()
    source: Iterator[Staged[S]] = iter(staged)
    while chunk := list(islice(source, limit)):
        for outcome in (yield from commit(chunk)):
            report.add(outcome)
            if on_outcome is not None:
                on_outcome(outcome)
        if report.failed and isinstance(report.failed[-1].error, TransportError):
            break
    return report


def raise_for_report(report: BulkReport, verb: str) -> BulkReport:
    """The report; raises ``CommitError`` with the failed outcomes where there are any."""
    if report.failed:
        first = report.failed[0]
        raise CommitError(
            f"{verb}: {len(report.failed)} objects were not stored, {report.stored} were. "
            f"The first one: {first.status}: {first.error}. See .outcomes for the failed ones.",
            report.failed,
        ) from first.error
    return report
