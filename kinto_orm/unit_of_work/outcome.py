"""The outcome of a write: its status, and the error of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from kinto_orm.repository.conflicts import is_abort
from kinto_orm.repository.state import Change, ObjectState, Outcome, OutcomeStatus, Status


def status_of_success(before: ObjectState, after: ObjectState) -> OutcomeStatus:
    """Return the status of a write that brought the object from the one state to the other."""
    if after.status is Status.DELETED:
        return "deleted"
    return "created" if before.status is Status.NEW else "updated"


def status_of_refusal(error: KintoError) -> OutcomeStatus:
    """Return the status of one write that was refused."""
    if isinstance(error, ConflictError):
        return "gone" if error.status == 404 else "conflict"
    if isinstance(error, (ConcurrentWriteError, RolledBackError)):
        return "rolled_back"
    if isinstance(error, NotFoundError):
        return "gone"
    return "unknown" if isinstance(error, (TransportError, ProtocolError, ServerError)) else "rejected"


def status_of_failure(error: KintoError) -> OutcomeStatus:
    """Return the status of each write of a batch that failed as a whole."""
    if isinstance(error, (ConnectionFailedError, BackoffError)):
        return "not_sent"
    if isinstance(error, ConcurrentWriteError) or is_abort(error):
        return "rolled_back"
    # Any other 5xx rolls everything back on PostgreSQL and nothing on the memory backend: we cannot know which it is.
    if isinstance(error, (TransportError, ProtocolError, ServerError)):
        return "unknown"
    return "rejected" if isinstance(error, ResponseError) else "not_sent"


def said(failed: Outcome[Any] | Change[Any]) -> str:
    """Return the text of the error, to be part of a sentence."""
    return str(failed.error).rstrip(".")


def raise_unless_stored(changes: Sequence[Change[Any]], undoing: Undoing | None = None) -> None:
    """Raise ``CommitError`` with all outcomes where one has an error; ``undoing`` can undo the others."""
    failed = [one for one in changes if one.error is not None]
    if not failed:
        return
    first = next((one for one in failed if one.status != "rolled_back"), failed[0])
    stored = sum(one.is_stored for one in changes)
    error = CommitError(
        f"{len(failed)} of {len(changes)} writes failed ({stored} are stored). "
        f"The first one: {first.status}: {said(first)}. See .outcomes for each.",
        [one.outcome for one in changes],
    )
    error.undoing = undoing
    raise error from first.error
