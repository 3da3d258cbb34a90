"""Changes to outcomes: the one engine that sends writes, in batches or alone.

Objects take only stored data. Where the server stored everything as sent, the objects take it at once; any other answer
is read in detail, by the rules of ``repository.reconciling``.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from kinto_orm.errors import (
    AtomicityUnavailableError,
    BackoffError,
    BatchTooLargeError,
    CommitError,
    ConcurrentWriteError,
    ConflictError,
    ConnectionFailedError,
    DryRunError,
    KintoError,
    LockError,
    NotFoundError,
    ProtocolError,
    ResponseError,
    RolledBackError,
    ServerError,
    StalePlanError,
    TransportError,
    Undoing,
    UnitOfWorkError,
)
from kinto_orm.protocol.batches import ATOMIC_CAPABILITY, DEFAULT_BATCH_LIMIT, batch_limit, is_rolled_back
from kinto_orm.protocol.json_values import JSON, JSONObject, is_same
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.responses import ShownPermissions, content, shown_permissions
from kinto_orm.protocol.writes import Flow, Write, encode_entry
from kinto_orm.repository.conflicts import IN_DOUBT, is_abort, make_resolvable, reconcile_by_policy
from kinto_orm.repository.reads import require_kind
from kinto_orm.repository.reconciling import Verdict, doubted, reconcile_at_once
from kinto_orm.repository.state import Change, FlowRunner, OnConflict, Outcome, OutcomeStatus, Stateful, Status, Verb
from kinto_orm.repository.verbs import encode_change, is_schema_timestamp, plan
from kinto_orm.unit_of_work.batches import Answers, Batches

MOST_ROUNDS = 4
"""The number of times that a write is sent at most which was rolled back, or goes on top of another client's change."""

S = TypeVar("S", bound=Stateful)


class CommitOptions(NamedTuple):
    """The options of a commit."""

    atomic: bool = False
    lock: Write | None = None
    """The write that goes first in each batch, so that the server lets one such batch in after the other."""
    on_conflict: OnConflict = "raise"
    chunked: bool = False
    guard: Request | None = None
    """A read that goes first in an atomic batch: unless the server allows it, nothing is stored."""


ONE_BATCH = CommitOptions()


def commit(
    changes: Sequence[Change[S]], runner: FlowRunner, options: CommitOptions = ONE_BATCH
) -> Flow[Sequence[Change[S]]]:
    """Send the changes in their order, as one ``POST /batch`` where all are stored, and return them with their
    outcomes.

    Changes that the server rolled back are sent again, up to the client's ``retry``; so are changes on top of another
    client's; each time in another batch. Errors of the server and the network are in the outcomes, and never raised.
    Raises before anything is sent where the state of an object forbids its verb, and ``BatchTooLargeError``,
    ``AtomicityUnavailableError``.
    """
    to_send = [one for one in changes if encode_change(one)]
    if to_send:
        yield from _Sending(runner, options).begin(to_send)
    for one in changes:
        if one.status is None:
            one.status = "unchanged"
    return changes


def send_batch(changes: Sequence[Change[Any]], runner: FlowRunner, options: CommitOptions) -> Flow[bool]:
    """Send these encoded changes, which fit into one batch; each has its outcome then.

    Return whether the server may take another batch: it does not where it is down, or refuses any write.
    """
    sending = _Sending(runner, options)
    yield from sending.begin(changes)
    return not _ends_all(sending.failure)


def carry_out(change: Change[S], runner: FlowRunner) -> Flow[None]:
    """Send the change as a single request, and give its object the state in the answer.

    Raises ``ConflictError`` where its policy has no way out, or where other clients were faster ``MOST_ROUNDS`` times.
    """
    change.write = plan(change)
    if change.write is not None:
        yield from require_kind(change.state.path.kind, runner)
        yield from _SendingAlone(runner, ONE_BATCH).send([change])
    elif change.seen is not None:
        # The other side of a conflict had written what was wanted.
        change.holder.__kinto_apply_state__(change.state, change)
    if change.error is not None:
        raise change.error


class _Sending(Batches[Change[Any]]):
    """A commit at work."""

    def __init__(self, runner: FlowRunner, options: CommitOptions) -> None:
        self._runner = runner
        self._options = options
        self.is_atomic = options.atomic
        if options.lock is not None:
            self.lock = encode_entry(options.lock)
        elif options.guard is not None:
            guard = options.guard
            self.lock = {"method": guard.method, "path": guard.target, "headers": dict(guard.headers)}

    def begin(self, changes: Sequence[Change[Any]]) -> Flow[None]:
        """Ask the server for its limits, and send."""
        try:
            yield from self._ask_server(len(changes))
            for kind in {one.state.path.kind for one in changes}:
                yield from require_kind(kind, self._runner)
        except _FAILED as error:
            self.failure = error
            for one in changes:
                self._fail(one, "not_sent", error)
            return
        yield from self.send(changes)

    def _ask_server(self, count: int, *, refresh: bool = False) -> Flow[None]:
        info = yield from self._runner.__kinto_describe_server__(refresh=refresh)
        if self.is_atomic and ATOMIC_CAPABILITY not in info.get("capabilities", {}):
            raise AtomicityUnavailableError(
                f"The server does not have the capability {ATOMIC_CAPABILITY!r}, so it cannot store all or nothing: "
                "add kinto_orm.server.atomic_batch to its kinto.includes (on PostgreSQL), or leave atomic=True out."
            )
        limit = batch_limit(info)
        taken = count + (self.lock is not None)
        if limit is not None and taken > limit and not self._options.chunked:
            raise BatchTooLargeError(
                f"{count} writes{'' if self.lock is None else ' and the lock'} are staged and the server takes {limit} "
                "operations in one batch: use fewer at a time, "
                "unit_of_work(chunked=True), or bulk_create(), which write in several batches."
            )
        self.limit = DEFAULT_BATCH_LIMIT if limit is None and self._options.chunked else limit

    def takes_fewer(self, count: int) -> Flow[bool]:
        """See :meth:`Batches.takes_fewer`. Raises ``BatchTooLargeError`` where it all must be one batch."""
        try:
            yield from self._ask_server(count - (self.lock is not None), refresh=True)
        except _FAILED:
            return False
        return self.limit is not None and count > self.limit

    # -- stored as sent -------------------------------------------------------------------------------------------

    def accept(self, batch: Sequence[Change[Any]], response: Response, found: Sequence[JSON]) -> bool:
        """Give the objects their stored data, where no part of the answer needs a closer look."""
        # Checked before anything is accepted: an answer that undoes others, or answers a repeated request.
        if response.is_repeated or is_rolled_back(response):
            return False
        bodies = [one.get("body") for one in found if type(one) is dict and one.get("status") in _STORED]
        if len(bodies) < len(found):
            return False
        self._accept_bodies(batch, bodies if self.lock is None else bodies[1:])
        return True

    def _accept_bodies(self, batch: Sequence[Change[Any]], bodies: Sequence[JSON]) -> None:
        shown: ShownPermissions = None
        permissions: JSON = None
        rows = [_stored_as_sent(one, body) for one, body in zip(batch, bodies, strict=True)]
        for one, body, row in zip(batch, bodies, rows, strict=True):
            if row is not None and body.get("permissions") != permissions:  # mostly they are the same for all
                try:
                    shown = shown_permissions(body.get("permissions"))
                    permissions = body.get("permissions")
                except ProtocolError:
                    row = None  # it is raised again below
            if row is not None and one.holder.__kinto_accept__(one, row, shown, rows):
                asked = one.origin or one
                asked.status = "created" if asked.state.status is Status.NEW else "updated"
                asked.error, asked.other_form, asked.answer = None, None if one is asked else one, body
            else:
                self._settle(one, _accepted(one, Response(200, content=body)))

    # -- read in detail -------------------------------------------------------------------------------------------

    def take(self, batch: Sequence[Change[Any]], answers: Answers, attempt: int) -> Flow[Sequence[Change[Any]]]:
        """Judge the answers; nothing is applied before all are judged."""
        self._check_guard(answers)
        lock_error, batch = self._lock_error(answers), list(batch)
        verdicts: list[Verdict | KintoError] = []
        try:
            for index, (one, answer) in enumerate(zip(batch, answers.responses, strict=True)):
                # What was below something that was rolled back was refused for want of that.
                is_void = index < answers.void or (answers.void > 0 and answer.status in (403, 404))
                if is_void and answer.is_repeated and answer.status >= 400 and answer.status != 409:
                    batch[index] = one = _in_doubt(one)
                if answer.status < 300 and not is_void and not answers.is_undone:
                    verdicts.append(_accepted(one, answer))
                else:
                    verdicts.append((yield from self._judge(one, answer, is_void=is_void, is_undone=answers.is_undone)))
        except GeneratorExit:
            self.leave(batch)
            raise
        return self._apply(batch, verdicts, attempt, lock_error)

    def _check_guard(self, answers: Answers) -> None:
        """Raise ``StalePlanError`` where the guard was refused, so that nothing of the batch is stored."""
        guard, answer = self._options.guard, answers.lock
        if guard is None or answer is None or answer.status < 300:
            return
        # A first attempt whose answer got lost may have moved the list itself: the answers to its writes tell.
        if not answer.is_repeated:
            raise StalePlanError(
                f"{guard.path}: another client changed it since the plan was made. Nothing was stored."
            )

    def _lock_error(self, answers: Answers) -> LockError | None:
        lock = self._options.lock
        if lock is None or answers.lock is None or (answers.lock.status < 300 and not answers.is_lock_void):
            return None
        self._runner.__kinto_locks__.discard(lock.path)
        why = (
            "was undone by a 409 in its batch"
            if answers.is_lock_void
            else f"could not be taken ({answers.lock.status})"
        )
        return LockError(
            f"The lock {lock.path} {why}, so this was stored without it: another unit of work may have written at the "
            "same time. Check that the lock's object exists and may be written, and that no client writes without the "
            "lock."
        )

    def _judge(
        self, one: Change[Any], answer: Response, *, is_void: bool, is_undone: bool
    ) -> Flow[Verdict | KintoError]:
        """Return the meaning of the answer for the write; nothing is applied yet."""
        path = one.state.path
        if is_void and answer.status != 409:
            return ConcurrentWriteError(
                f"{path}: a 409 in the same batch rolled this write back; commit again.", status=409
            )
        if is_undone and answer.status < 400:
            return RolledBackError(
                f"{path}: not stored, because another write of this atomic unit was refused; commit again."
            )
        try:
            policy = self._options.on_conflict
            return (yield from reconcile_by_policy(one, answer, self._runner, policy))
        except KintoError as error:
            return error
        except Exception as error:  # noqa: BLE001  the policy is the user's own code, and may raise anything
            return self._policy_error(one, error)

    def _policy_error(self, one: Change[Any], error: Exception) -> KintoError:
        """Return the error for a conflict policy (a function of the user) that raised: the others must not suffer."""
        failure = UnitOfWorkError(f"{one.state.path}: on_conflict= raised {error!r:.200}, so the conflict stays.")
        failure.__cause__ = error
        return failure

    def _apply(
        self,
        batch: Sequence[Change[Any]],
        verdicts: Sequence[Verdict | KintoError],
        attempt: int,
        lock_error: LockError | None,
    ) -> list[Change[Any]]:
        # In an atomic unit one refusal is the end for all.
        is_over = self.is_atomic and any(isinstance(one, KintoError) and not _is_of_others(one) for one in verdicts)
        again: list[Change[Any]] = []
        for one, verdict in zip(batch, verdicts, strict=True):
            if isinstance(verdict, KintoError):
                if _is_of_others(verdict) and not is_over and self.may_repeat(verdict, attempt):
                    again.append(one)
                else:
                    self._settle(one, verdict)
            elif verdict.again is None:
                self._settle(one, verdict)
            elif is_over or attempt == MOST_ROUNDS:
                self._give_up(one, verdict)
            else:
                again += self._send_again(one, verdict, verdict.again)
            asked = one.origin or one
            if lock_error is not None and asked.is_stored:
                asked.error = lock_error
        return again

    def _send_again(self, one: Change[Any], verdict: Verdict, again: Change[Any]) -> list[Change[Any]]:
        again.origin = asked = one.origin or one
        try:
            if self.encode(again):
                if verdict.reconciled:
                    # The object has what was found, whatever becomes of the rest.
                    one.holder.__kinto_apply_state__(verdict.state, verdict.change)
                    asked.again = replace(again)
                return [again]
        except KintoError as error:
            self._fail(again, "rejected", error)
            return []
        # Our own lost write, or another client's that wanted the same.
        self._settle(one, Verdict(verdict.state, again, verdict.reconciled, is_clean=not verdict.reconciled))
        return []

    def encode(self, change: Change[Any]) -> bool:
        """Encode the change; return whether anything has to be sent."""
        return encode_change(change)

    def may_repeat(self, error: KintoError, attempt: int) -> bool:
        """Return whether a write that was undone because of another one is sent again."""
        # Changes that an atomic unit undid are sent again with those on top of another client's change.
        return attempt < MOST_ROUNDS and (isinstance(error, RolledBackError) or attempt <= self._runner.retry)

    # -- outcomes -------------------------------------------------------------------------------------------------

    def _settle(self, one: Change[Any], verdict: Verdict | KintoError) -> None:
        """Give the change its outcome: the object takes the verdict's state, or keeps its changes."""
        if isinstance(verdict, KintoError):
            self._fail(one, self.status_of(verdict), verdict)
            return
        asked, state, is_theirs = one.origin or one, verdict.state, verdict.change is None
        if state.status is Status.DELETED and not is_theirs:
            asked.status = "deleted"
        elif is_theirs or verdict.is_clean:
            asked.status = "unchanged"
        else:
            asked.status = "created" if asked.state.status is Status.NEW else "updated"
        asked.error, asked.is_reconciled = None, verdict.reconciled
        asked.other_form = None if verdict.change is asked else verdict.change
        asked.answer = None if is_theirs or verdict.is_clean else state
        try:
            one.holder.__kinto_apply_state__(state, verdict.change)
        except KintoError as misfit:
            asked.error = misfit  # the server has it, but it does not fit the model, which so keeps its old state

    def _fail(self, one: Change[Any], status: OutcomeStatus, error: KintoError) -> None:
        asked = one.origin or one
        if status == "rolled_back" and one.was_lost:
            status = "unknown"
        if status == "unknown" and (one.was_lost or isinstance(error, IN_DOUBT)):
            one.holder.__kinto_mark_uncertain__(doubted(one))
        make_resolvable(error, one.holder.__kinto_runner__(), one)
        asked.status, asked.error = status, error

    def _give_up(self, one: Change[Any], verdict: Verdict) -> None:
        error: KintoError | None = verdict.conflict
        if error is None:
            error = RolledBackError(
                f"{one.state.path}: an earlier write whose answer got lost is stored; what changed since was not "
                "sent, because another write of this unit was in the way: commit again."
            )
        self._fail(one, self.status_of(error), error)

    def status_of(self, error: KintoError) -> OutcomeStatus:
        """Return the outcome of a write that ended with this error."""
        return status_of_refusal(error)

    def fail(self, batch: Sequence[Change[Any]], error: KintoError, attempt: int) -> Sequence[Change[Any]]:
        """Give each its outcome, unless the batch is sent again: the server rolled it back as a whole."""
        if isinstance(error, ConcurrentWriteError) and self.may_repeat(error, attempt):
            return batch
        self.failure = error
        for one in batch:
            self._fail(one, status_of_failure(error), error)
        return ()

    def skip(self, items: Sequence[Change[Any]], failure: KintoError) -> None:
        """Give each its outcome: it was not sent."""
        for one in items:
            error = UnitOfWorkError(f"{one.state.path} was not sent, because a batch before it failed: {failure}")
            self._fail(one, "not_sent", error)

    def plan(self, batch: Sequence[Change[Any]], error: DryRunError) -> None:
        """Give each its outcome: the objects keep their changes."""
        for one in batch:
            (one.origin or one).status = "planned"

    def leave(self, batch: Sequence[Change[Any]]) -> None:
        """Leave each object in doubt."""
        for one in batch:
            one.holder.__kinto_mark_uncertain__(doubted(one))


class _SendingAlone(_Sending):
    """A batch of one, encoded as a single request."""

    def exchange(self, batch: Sequence[Change[Any]], attempt: int) -> Flow[Sequence[Change[Any]]]:
        """Send the one change; return it where it is sent again, in another form."""
        (one,) = batch
        try:
            assert one.write is not None
            response = yield one.write
        except GeneratorExit:
            self.leave(batch)
            raise
        except DryRunError as error:
            self.plan(batch, error)
            return ()
        except KintoError as error:
            return self.fail(batch, error, attempt)
        if response.status in _STORED and not response.is_repeated:
            with suppress(ProtocolError):  # which is raised again below
                self._accept_bodies(batch, [content(response, "")])
                return ()
        answers = Answers([response], 0, is_undone=False, lock=None, is_lock_void=False)
        return (yield from self.take(batch, answers, attempt))

    def encode(self, change: Change[Any]) -> bool:
        """See :meth:`_Sending.encode`."""
        change.write = plan(change)
        return change.write is not None

    def may_repeat(self, error: KintoError, attempt: int) -> bool:
        """Return ``False``: the transport has sent it again as often as the client says."""
        return False

    def status_of(self, error: KintoError) -> OutcomeStatus:
        """See :meth:`_Sending.status_of`."""
        return status_of_failure(error)

    def _policy_error(self, one: Change[Any], error: Exception) -> KintoError:
        raise error


_STORED = (200, 201)
_SAVING = (Verb.SAVE, Verb.REPLACE)
_FAILED = (TransportError, ProtocolError, ResponseError)


def _stored_as_sent(one: Change[Any], body: JSON) -> JSONObject | None:
    """Return the row of a change that the server has as it was sent; ``None`` for any other.

    A collection with a schema adds the schema's timestamp.
    """
    row: Any = body.get("data") if type(body) is dict else None
    # What several calls made together is not what the object looks like.
    is_row = type(row) is dict and type(row.get("last_modified")) is int
    if not is_row or one.verb not in _SAVING or one.seen is not None:
        return None
    wanted = {**one.data, "id": one.state.path.ids[-1], "last_modified": row["last_modified"]}
    if "schema" in row and is_schema_timestamp(one.state.path.kind, row["schema"]):
        wanted.setdefault("schema", row["schema"])
    return row if is_same(wanted, row) else None


def _in_doubt(one: Change[Any]) -> Change[Any]:
    """Return the change, with a first attempt in doubt that may be why the second one was refused."""
    lost = replace(one, state=one.state._replace(in_doubt=doubted(one)))
    lost.write, lost.entry, lost.origin, lost.was_lost = one.write, one.entry, one.origin or one, True
    return lost


def _accepted(one: Change[Any], answer: Response) -> Verdict | KintoError:
    """Return the meaning of a 2xx for the write."""
    try:
        return reconcile_at_once(one, answer)
    except KintoError as error:
        return error


def _is_of_others(error: KintoError) -> bool:
    """Return whether a write was only undone because of another one."""
    return isinstance(error, (ConcurrentWriteError, RolledBackError))


def _ends_all(failure: KintoError | None) -> bool:
    """Return whether the failure of a whole batch would meet the next batch, too."""
    if isinstance(failure, ResponseError):
        return failure.status >= 500 or failure.status in _OF_ANY_WRITE
    return isinstance(failure, TransportError)


_OF_ANY_WRITE = (401, 405, 410, 429)
"""The refusals of a batch that do not depend on its content: no credentials, read-only, shut down, too many."""


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
