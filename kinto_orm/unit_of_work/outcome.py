"""What became of one write of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

from kinto_orm.errors import (
    BackoffError,
    CommitError,
    ConcurrentWriteError,
    ConflictError,
    ConnectionFailedError,
    KintoError,
    NotFoundError,
    ProtocolError,
    ResponseError,
    RolledBackError,
    ServerError,
    TransportError,
    Undoing,
)
from kinto_orm.protocol.frozen import quickly_made
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.writes import Write, encode_entry
from kinto_orm.repository import plan
from kinto_orm.repository.conflicts import is_abort
from kinto_orm.repository.state import Intent, ObjectState, Stateful, Status, Verb

OutcomeStatus: TypeAlias = Literal[
    "created",
    "updated",
    "deleted",
    "unchanged",
    "conflict",
    "gone",
    "rejected",
    "rolled_back",
    "unknown",
    "not_sent",
    "planned",
]
"""``unchanged``: the object is what the server has, and nothing had to be stored. ``conflict``, ``gone``: somebody else
changed or deleted it. ``rejected``: the server refused it. ``rolled_back``: the server undid it, because of another
write of the same batch. ``unknown``: the answer got lost. ``not_sent``: nothing was sent. ``planned``: nothing
was sent, because the client is dry; the object keeps its changes."""

STORED = ("created", "updated", "deleted", "unchanged")
"""The outcomes after which the object is what the server has."""

H = TypeVar("H", bound=Stateful, covariant=True)


class Prepared(NamedTuple):
    """A write, and how it goes into a batch."""

    write: Write
    entry: JSONObject


def prepare(intent: Intent) -> Prepared | None:
    """What the intent comes to; ``None`` where nothing has to be sent.

    Raises where the object is in no state for it, and ``NotStageableError`` for what a batch cannot carry.
    """
    write = plan(intent)
    return None if write is None else Prepared(write, encode_entry(write))


@quickly_made
@dataclass(frozen=True, slots=True)
class Staged(Generic[H]):
    """An intent and the object that takes its result."""

    holder: H
    intent: Intent
    prepared: Prepared | None = None
    """What the intent comes to, where somebody has asked; else whoever sends it will."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[H]):
    """What became of one staged object."""

    object: H
    verb: Verb
    status: OutcomeStatus
    error: KintoError | None = None
    reconciled: bool = False
    """Whether the answer to a first attempt got lost, and a second one showed that it had been applied."""
    intent: Intent | None = field(default=None, repr=False, compare=False)
    after: ObjectState | None = field(default=None, repr=False, compare=False)
    """What was sent, and what the server has since: where something was stored, what ``compensate()`` needs."""

    @property
    def is_stored(self) -> bool:
        """Whether the server has what was wanted."""
        return self.status in STORED


def status_of_success(before: ObjectState, after: ObjectState) -> OutcomeStatus:
    """The status of a write that brought the object from the one state to the other."""
    if after.status is Status.DELETED:
        return "deleted"
    return "created" if before.status is Status.NEW else "updated"


def status_of_refusal(error: KintoError) -> OutcomeStatus:
    """What the answer to one write means."""
    if isinstance(error, ConflictError):
        return "gone" if error.status == 404 else "conflict"
    if isinstance(error, (ConcurrentWriteError, RolledBackError)):
        return "rolled_back"
    if isinstance(error, NotFoundError):
        return "gone"
    return "unknown" if isinstance(error, (TransportError, ProtocolError, ServerError)) else "rejected"


def status_of_failure(error: KintoError) -> OutcomeStatus:
    """What a failure of the whole batch means for each of its writes."""
    if isinstance(error, (ConnectionFailedError, BackoffError)):
        return "not_sent"
    if isinstance(error, ConcurrentWriteError) or is_abort(error):
        return "rolled_back"
    # Any other 5xx rolls everything back on PostgreSQL and nothing on the memory backend: we cannot know which it is.
    if isinstance(error, (TransportError, ProtocolError, ServerError)):
        return "unknown"
    return "rejected" if isinstance(error, ResponseError) else "not_sent"


def said(outcome: Outcome[Stateful]) -> str:
    """What the error says, to be part of a sentence."""
    return str(outcome.error).rstrip(".")


def raise_unless_stored(outcomes: Sequence[Outcome[Stateful]], undoing: Undoing | None = None) -> None:
    """Raises ``CommitError`` with all the outcomes where one of them has an error; ``undoing`` can undo the others."""
    failed = [one for one in outcomes if one.error is not None]
    if not failed:
        return
    first = next((one for one in failed if one.status != "rolled_back"), failed[0])
    stored = sum(one.is_stored for one in outcomes)
    error = CommitError(
        f"{len(failed)} of {len(outcomes)} writes failed ({stored} are stored). "
        f"The first one: {first.status}: {said(first)}. See .outcomes for each.",
        outcomes,
    )
    error.undoing = undoing
    raise error from first.error
