"""Writes that are sent as batches, and what the answers say of each.

A batch is one HTTP request but not simply one transaction: what is refused leaves the others stored, a 409 undoes
what was answered before it. Only what was stored is adopted by its object.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from kinto_orm.errors import (
    AtomicityUnavailableError,
    BadRequestError,
    BatchTooLargeError,
    ConcurrentWriteError,
    DryRunError,
    KintoError,
    LockError,
    ProtocolError,
    ResponseError,
    RolledBackError,
    TransportError,
    UnitOfWorkError,
)
from kinto_orm.protocol.batches import (
    ATOMIC_CAPABILITY,
    DEFAULT_BATCH_LIMIT,
    batch_limit,
    batch_request,
    count_void,
    is_rolled_back,
    split_answer,
)
from kinto_orm.protocol.messages import Response
from kinto_orm.protocol.writes import Flow, Write, encode_entry
from kinto_orm.repository import Verdict, doubted, reconcile_at_once, require_kind
from kinto_orm.repository.conflicts import IN_DOUBT, make_resolvable, reconcile_by_policy
from kinto_orm.repository.state import FlowRunner, Intent, OnConflict, Stateful
from kinto_orm.unit_of_work.outcome import (
    Outcome,
    OutcomeStatus,
    Prepared,
    Staged,
    prepare,
    status_of_failure,
    status_of_refusal,
    status_of_success,
)

MOST_ROUNDS = 4
"""How often what was rolled back, or goes on top of somebody else's change, is sent at most: one batch a round."""

S = TypeVar("S", bound=Stateful)


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """How a commit goes about it."""

    atomic: bool = False
    lock: Write | None = None
    """What is written first in each batch, so that the server lets one such batch in after the other."""
    on_conflict: OnConflict = "raise"
    chunked: bool = False


class Operation(Generic[S]):
    """One staged write on its way: the intent that is sent now, and its outcome in the end."""

    __slots__ = ("before", "holder", "intent", "is_in_doubt", "outcome", "prepared", "verb")

    def __init__(self, staged: Staged[S]) -> None:
        self.holder = staged.holder
        self.verb = staged.intent.verb
        self.before = staged.intent.state
        self.outcome: Outcome[S] | None = None
        self.is_in_doubt = False
        self.intent = staged.intent
        self.prepared = staged.prepared or prepare(staged.intent)

    def change(self, intent: Intent) -> Prepared | None:
        """What the other intent, which is sent from now on, comes to. Raises where the object is in no state for it."""
        self.intent = intent
        self.prepared = prepare(intent)
        return self.prepared

    @property
    def write(self) -> Write:
        """What is sent, of one that sends something."""
        assert self.prepared is not None
        return self.prepared.write

    def doubt(self) -> None:
        """Remembers that a first attempt, whose answer got lost, may be why the second one was refused."""
        self.is_in_doubt = True
        self.intent = replace(self.intent, state=replace(self.intent.state, in_doubt=doubted(self.intent)))

    def unchanged(self) -> Outcome[S]:
        """The outcome of what needs no writing."""
        self.outcome = Outcome(self.holder, self.verb, "unchanged")
        return self.outcome

    def fail(self, status: OutcomeStatus, error: KintoError) -> None:
        """The outcome is that; the object keeps its changes."""
        if status == "rolled_back" and self.is_in_doubt:
            status = "unknown"
        if status == "unknown" and (self.is_in_doubt or isinstance(error, IN_DOUBT)):
            self.holder.__kinto_mark_uncertain__(doubted(self.intent))
        make_resolvable(error, self.holder.__kinto_runner__(), self.holder, self.intent)
        self.outcome = Outcome(self.holder, self.verb, status, error)

    def succeed(self, verdict: Verdict) -> None:
        """The outcome is that the server has it, or that the object takes what the server has."""
        state, is_theirs = verdict.state, verdict.intent is None
        status = status_of_success(self.before, state)
        if is_theirs or (verdict.is_clean and status != "deleted"):
            status = "unchanged"
        after = None if is_theirs or verdict.is_clean else state
        error: KintoError | None = None
        try:
            self.holder.__kinto_apply_state__(state, verdict.intent)
        except KintoError as misfit:
            error = misfit  # the server has it, but it does not fit the model, which so keeps its old state
        self.outcome = Outcome(self.holder, self.verb, status, error, verdict.reconciled, verdict.intent, after)


def commit(
    staged: Sequence[Staged[S]], runner: FlowRunner, options: CommitOptions = CommitOptions()
) -> Flow[list[Outcome[S]]]:
    """One outcome for each, in order; they are sent in that order, as one ``POST /batch`` where nothing goes wrong.

    What the server rolled back is sent again, as often as the client's ``retry`` says, and so is what is to go on top
    of somebody else's change; each time as a batch of its own. Never raises for what the server or the network did:
    that is in the outcomes. Raises before anything is sent where an object is in no state for its verb, and
    ``BatchTooLargeError``, ``AtomicityUnavailableError``.
    """
    operations = [Operation(one) for one in staged]
    to_send = [one for one in operations if one.prepared is not None]
    if to_send:
        yield from _Sending[S](runner, options).send(to_send)
    return [one.outcome or one.unchanged() for one in operations]


def send_batch(operations: Sequence[Operation[S]], runner: FlowRunner) -> Flow[None]:
    """Gives each operation its outcome; they fit into one batch."""
    yield from _Sending[S](runner, CommitOptions(chunked=True)).send(operations)


class _Sending(Generic[S]):
    """A commit at work."""

    def __init__(self, runner: FlowRunner, options: CommitOptions) -> None:
        self._runner = runner
        self._options = options
        self._limit: int | None = None
        self._failure: KintoError | None = None
        """Why nothing more is sent: what comes after could depend on what failed."""
        self._is_racing = False
        """Whether other writers were in the way, so that a little time should pass before the next batch."""

    def send(self, operations: Sequence[Operation[S]]) -> Flow[None]:
        try:
            yield from self._ask_server(len(operations))
            for kind in {one.intent.state.path.kind for one in operations}:
                yield from require_kind(kind, self._runner)
        except _FAILED as error:
            for one in operations:
                one.fail("not_sent", error)
            return
        yield from self._send_in_chunks(operations)

    def _ask_server(self, count: int, *, refresh: bool = False) -> Flow[None]:
        info = yield from self._runner.describe_server(refresh=refresh)
        if self._options.atomic and ATOMIC_CAPABILITY not in info.get("capabilities", {}):
            raise AtomicityUnavailableError(
                f"The server does not have the capability {ATOMIC_CAPABILITY!r}, so it cannot store all or nothing: "
                "add kinto_orm.server.atomic_batch to its kinto.includes (on PostgreSQL), or leave atomic=True out."
            )
        limit = batch_limit(info)
        self._limit = limit
        taken = count + (self._options.lock is not None)
        if limit is not None and taken > limit and not self._options.chunked:
            raise BatchTooLargeError(
                f"{taken} operations are staged and the server takes {limit} in one batch: use fewer at a time, "
                "unit_of_work(chunked=True), or bulk_create(), which write in several batches."
            )

    def _takes_fewer(self, count: int) -> Flow[bool]:
        """Whether the server takes fewer than that in one batch by now: then it did nothing with this one.

        Raises ``BatchTooLargeError`` where it all must be one batch.
        """
        try:
            yield from self._ask_server(count - (self._options.lock is not None), refresh=True)
        except _FAILED:
            return False
        return self._limit is not None and count > self._limit

    def _send_in_chunks(self, operations: Sequence[Operation[S]]) -> Flow[None]:
        rest = list(operations)
        while rest:
            chunk, rest = rest[: self._room()], rest[self._room() :]
            if self._failure is None:
                yield from self._send_until_settled(chunk)
            else:
                _skip(chunk, self._failure)

    def _send_until_settled(self, chunk: Sequence[Operation[S]]) -> Flow[None]:
        """Before anything that comes after it: that may be below what is in here."""
        for attempt in range(1, MOST_ROUNDS + 1):
            chunk = yield from self._send_chunk(chunk, attempt)
            if not chunk:
                return

    def _room(self) -> int:
        limit = self._limit
        if limit is None:
            limit = DEFAULT_BATCH_LIMIT if self._options.chunked else 10**9
        return max(1, limit - (self._options.lock is not None))

    def _send_chunk(self, chunk: Sequence[Operation[S]], attempt: int) -> Flow[list[Operation[S]]]:
        """Sends one batch; those of its operations that are to be sent again."""
        lock = self._options.lock
        count = len(chunk) + (lock is not None)
        try:
            wait = attempt if self._is_racing else 1
            response = yield batch_request(
                [one.prepared.entry for one in chunk if one.prepared is not None],
                lock=None if lock is None else encode_entry(lock),
                atomic=self._options.atomic,
                attempt=wait,
            )
            answers = split_answer(response, count)
        except GeneratorExit:  # the call was cancelled, or interrupted from the keyboard: it may have been stored
            for one in chunk:
                one.holder.__kinto_mark_uncertain__(doubted(one.intent))
            raise
        except DryRunError:
            for one in chunk:
                one.outcome = Outcome(one.holder, one.verb, "planned")
            return []
        except KintoError as error:
            if isinstance(error, BadRequestError) and (yield from self._takes_fewer(count)):
                yield from self._send_in_chunks(chunk)
                return []
            return self._fail_together(chunk, error, attempt)
        void = count_void(answers)
        lock_error = None
        if lock is not None:
            lock_error = _lock_error(lock, answers.pop(0), is_void=void > 0)
            if lock_error is not None:
                self._runner.forget_lock(lock.path)
            void = max(0, void - 1)
        verdicts = yield from self._judge_all(chunk, answers, void, is_undone=is_rolled_back(response))
        return self._apply(chunk, verdicts, attempt, lock_error)

    def _judge_all(
        self, chunk: Sequence[Operation[S]], answers: Sequence[Response], void: int, *, is_undone: bool
    ) -> Flow[list[Verdict | KintoError]]:
        verdicts: list[Verdict | KintoError] = []
        for index, (one, answer) in enumerate(zip(chunk, answers, strict=True)):
            # What was below something that was rolled back was refused for want of that.
            is_void = index < void or (void > 0 and answer.status in (403, 404))
            if answer.status < 300 and not is_void and not is_undone:
                verdicts.append(_accepted(one, answer))
            else:
                verdicts.append((yield from self._judge(one, answer, is_void=is_void, is_undone=is_undone)))
        return verdicts

    def _judge(
        self, one: Operation[S], answer: Response, *, is_void: bool, is_undone: bool
    ) -> Flow[Verdict | KintoError]:
        """What the answer means for the write; nothing is adopted yet."""
        if is_void and answer.status != 409:
            if answer.is_repeated and answer.status >= 400:
                one.doubt()
            return ConcurrentWriteError(
                f"{one.write.path}: a 409 in the same batch rolled this write back; commit again.", status=409
            )
        if is_undone and answer.status < 400:
            return RolledBackError(
                f"{one.write.path}: not stored, because another write of this atomic unit was refused; commit again."
            )
        try:
            policy = self._options.on_conflict
            return (yield from reconcile_by_policy(one.intent, one.write, answer, self._runner, policy))
        except KintoError as error:
            return error
        except Exception as error:  # noqa: BLE001  the policy is the user's own code: what was stored must not be hidden
            return _of_policy(one.write, error)

    def _apply(
        self,
        chunk: Sequence[Operation[S]],
        verdicts: Sequence[Verdict | KintoError],
        attempt: int,
        lock_error: LockError | None,
    ) -> list[Operation[S]]:
        # In an atomic unit one refusal is the end for all.
        is_over = self._options.atomic and any(
            isinstance(one, KintoError) and not _is_of_others(one) for one in verdicts
        )
        again: list[Operation[S]] = []
        for one, verdict in zip(chunk, verdicts, strict=True):
            if isinstance(verdict, KintoError):
                if _is_of_others(verdict) and not is_over and self._may_repeat(verdict, attempt):
                    self._is_racing = self._is_racing or isinstance(verdict, ConcurrentWriteError)
                    again.append(one)
                else:
                    one.fail(status_of_refusal(verdict), verdict)
            elif verdict.again is None:
                one.succeed(verdict)
            elif is_over or attempt == MOST_ROUNDS:
                _give_up(one, verdict)
            else:
                again += self._again(one, verdict)
            if lock_error is not None and one.outcome is not None and one.outcome.is_stored:
                one.outcome = replace(one.outcome, error=lock_error)
        return again

    def _again(self, one: Operation[S], verdict: Verdict) -> list[Operation[S]]:
        assert verdict.again is not None
        try:
            if one.change(verdict.again) is not None:
                return [one]
        except KintoError as error:
            one.fail("rejected", error)
            return []
        # Our own lost write, or somebody else's that came to the same.
        is_clean = not verdict.reconciled
        one.succeed(Verdict(verdict.state, verdict.again, verdict.reconciled, is_clean=is_clean))
        return []

    def _may_repeat(self, error: KintoError, attempt: int) -> bool:
        # What an atomic unit undid goes along with what is sent on top of somebody else's change.
        return attempt < MOST_ROUNDS and (isinstance(error, RolledBackError) or attempt <= self._runner.retry)

    def _fail_together(self, chunk: Sequence[Operation[S]], error: KintoError, attempt: int) -> list[Operation[S]]:
        status = status_of_failure(error)
        if isinstance(error, ConcurrentWriteError) and self._may_repeat(error, attempt):
            self._is_racing = True
            return list(chunk)
        self._failure = error
        for one in chunk:
            one.fail(status, error)
        return []


def _accepted(one: Operation[S], answer: Response) -> Verdict | KintoError:
    """What a 2xx means for the write."""
    try:
        return reconcile_at_once(one.intent, one.write, answer)
    except KintoError as error:
        return error


_FAILED = (TransportError, ProtocolError, ResponseError)


def _is_of_others(error: KintoError) -> bool:
    """Whether a write was only undone because of another one."""
    return isinstance(error, (ConcurrentWriteError, RolledBackError))


def _of_policy(write: Write, error: Exception) -> UnitOfWorkError:
    failure = UnitOfWorkError(f"{write.path}: on_conflict= raised {error!r:.200}, so the conflict stays.")
    failure.__cause__ = error
    return failure


def _give_up(one: Operation[S], verdict: Verdict) -> None:
    error: KintoError | None = verdict.conflict
    if error is None:
        error = RolledBackError(
            f"{one.intent.state.path}: an earlier write whose answer got lost is stored; what changed since was not "
            "sent, because another write of this unit was in the way: commit again."
        )
    one.fail(status_of_refusal(error), error)


def _skip(operations: Sequence[Operation[S]], failure: KintoError) -> None:
    for one in operations:
        error = UnitOfWorkError(f"{one.write.path} was not sent, because a batch before it failed: {failure}")
        one.fail("not_sent", error)


def _lock_error(lock: Write, answer: Response, *, is_void: bool) -> LockError | None:
    if answer.status < 300 and not is_void:
        return None
    why = "was undone by a 409 in its batch" if is_void else f"could not be taken ({answer.status})"
    return LockError(
        f"The lock {lock.path} {why}, so this was stored without it: another unit of work may have written at the "
        "same time. Check that the lock's object exists and may be written, and that nobody writes without the lock."
    )
