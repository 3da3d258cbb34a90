"""What can be done about a conflict: take theirs, write over it, or bring both together; once asked for, or always.

All of it starts from the copy of the object that the 412 carries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from kinto_orm.errors import (
    ConflictError,
    ConnectionLostError,
    DryRunError,
    InvalidTypeError,
    MergeConflict,
    NotFoundError,
    ProtocolError,
    ResponseError,
    ServerError,
)
from kinto_orm.protocol.accounts import without_secrets
from kinto_orm.protocol.json_values import JSONObject, copy_json, to_json_object
from kinto_orm.protocol.merge import merge_data, merge_permissions
from kinto_orm.protocol.messages import Response
from kinto_orm.protocol.patches import BasicPatch
from kinto_orm.protocol.responses import StoredObject
from kinto_orm.protocol.writes import Flow, Write
from kinto_orm.repository.history import read_version
from kinto_orm.repository.reads import get, require_kind
from kinto_orm.repository.reconciling import Verdict, doubted, rebase, rebase_onto, reconcile, wanted_data
from kinto_orm.repository.state import (
    ConflictPolicy,
    Draft,
    FlowRunner,
    Intent,
    ObjectState,
    OnConflict,
    Stateful,
    Status,
    Verb,
)
from kinto_orm.repository.verbs import plan

MOST_ATTEMPTS = 4
"""How often one write is sent at most where others are faster again and again."""

IN_DOUBT = (ConnectionLostError, ProtocolError, ServerError)
"""The errors after which the server may have applied a write."""


def is_abort(error: BaseException) -> bool:
    """Whether Kinto says that its database aborted the transaction: then nothing was done."""
    return isinstance(error, ServerError) and error.status == 503 and error.errno is not None


def check_policy(on_conflict: object) -> None:
    """Raises ``InvalidTypeError`` for what is no way out of a conflict."""
    if not (callable(on_conflict) or on_conflict in get_args(ConflictPolicy)):
        raise InvalidTypeError(
            f"on_conflict is 'raise', 'mine', 'theirs', 'merge' or a function of the conflict, not {on_conflict!r:.60}."
        )


def carry_out(holder: Stateful, intent: Intent, runner: FlowRunner) -> Flow[None]:
    """Sends the verb and puts the object in the state that the answer gives, by the intent's way out of conflicts.

    Raises ``ConflictError`` where there is none, or where others were faster ``MOST_ATTEMPTS`` times.
    """
    conflict: ConflictError | None = None
    for attempt in range(MOST_ATTEMPTS):
        planned = plan(intent)
        if planned is None:
            # The other side had written what was wanted: met now, or in the conflict that this is the way out of.
            if attempt or intent.seen is not None:
                holder.__kinto_apply_state__(intent.state, intent)
            return
        try:
            response = yield from _send(planned, runner)
            verdict = yield from reconcile_by_policy(intent, planned, response, runner)
        except DryRunError:
            return  # it is planned; the object keeps its changes
        except (*IN_DOUBT, GeneratorExit) as error:  # the latter where the call was cancelled, or interrupted
            if not is_abort(error):
                holder.__kinto_mark_uncertain__(doubted(intent))
            raise
        except ConflictError as error:
            make_resolvable(error, runner, holder, intent)
            raise
        if verdict.again is None:
            if verdict.state is not intent.state:
                holder.__kinto_apply_state__(verdict.state, verdict.intent)
            return
        intent, conflict = verdict.again, verdict.conflict
    assert conflict is not None  # without one, an intent is sent again once at most
    make_resolvable(conflict, runner, holder, intent)
    raise conflict


def _send(planned: Write, runner: FlowRunner) -> Flow[Response]:
    yield from require_kind(planned.path.kind, runner)
    return (yield planned)


def reconcile_by_policy(
    intent: Intent, planned: Write, response: Response, runner: FlowRunner, default: OnConflict = "raise"
) -> Flow[Verdict]:
    """What the answer to the write comes to; a conflict is answered as the intent says, else by the default."""
    policy = intent.options.on_conflict or default
    try:
        return (yield from reconcile(intent, planned, response, strict=runner.strict_retry))
    except (ConflictError, NotFoundError) as error:
        if policy == "raise":
            raise
        conflict = error if isinstance(error, ConflictError) else _gone(intent, error)
        return (yield from _resolve(intent, conflict, policy, runner, error))


def _gone(intent: Intent, error: ResponseError) -> ConflictError:
    """A 404 to a write says what a 412 says of a PUT: somebody deleted the object."""
    return ConflictError(
        str(error),
        status=error.status,
        method=error.method,
        path=error.path,
        errno=error.errno,
        details=error.details,
        base=intent.state.data,
        mine=copy_json(without_secrets(intent.state.path, wanted_data(intent))),
    )


def _resolve(
    intent: Intent, conflict: ConflictError, policy: OnConflict, runner: FlowRunner, refusal: ResponseError
) -> Flow[Verdict]:
    choice = policy(conflict) if callable(policy) else policy
    if choice == "raise":
        raise refusal
    if choice == "theirs" or (choice == "mine" and intent.verb is Verb.DELETE and conflict.theirs is None):
        return Verdict(their_state(intent, conflict), None)
    if choice == "mine":
        again = rebase(intent, conflict)
    elif choice == "merge":
        again = yield from merged(intent, conflict, runner)
    else:
        again = _with_data(intent, conflict, choice)
    return Verdict(again.state, again, again=again, conflict=conflict)


def _with_data(intent: Intent, conflict: ConflictError, choice: object) -> Intent:
    if not isinstance(choice, Mapping):
        names = ", ".join(map(repr, get_args(ConflictPolicy)))
        raise InvalidTypeError(
            f"on_conflict gave {choice!r:.60} for {intent.state.path}: it gives {names} or a mapping."
        )
    again = rebase(intent, conflict)
    draft = replace(intent.draft, data=to_json_object(cast(Mapping[str, Any], choice)))
    return replace(again, verb=Verb.SAVE, draft=draft, patch=None)


def their_state(intent: Intent, conflict: ConflictError) -> ObjectState:
    """The state of the object as the server has it. Its permissions are unknown: the 412 does not show them."""
    if conflict.theirs is None:
        return ObjectState(intent.state.path, Status.DELETED)
    return ObjectState(intent.state.path, Status.LOADED, dict(conflict.theirs), conflict.theirs_last_modified)


def merged(intent: Intent, conflict: ConflictError, runner: FlowRunner) -> Flow[Intent]:
    """The intent that brings both sides together.

    Makes a request only where permissions were changed (a 412 shows none), or where what both started from is not
    known here but in the server's history. Raises ``MergeConflict`` where both sides changed the same field.
    """
    if conflict.theirs is None or intent.verb is Verb.DELETE:
        who, other = ("change", "deleted") if conflict.theirs is None else ("delete", "changed")
        raise _merge_conflict(conflict, f"you {who} what somebody else {other}")
    theirs, base = their_state(intent, conflict), (yield from _with_base(intent, runner))
    mine = wanted_data(replace(intent, state=base))
    if mine is None:
        raise _merge_conflict(conflict, "what you started from is not known, here and in the server's history")
    if intent.draft.permissions:
        theirs = yield from get(base.path)
    assert theirs.data is not None
    result = merge_data(base.data, mine, theirs.data)
    if result.conflicts:
        raise _merge_conflict(conflict, f"both changed {', '.join(result.conflicts)}", result.conflicts)
    return _with_merged(intent, base, theirs, result.data)


def _with_base(intent: Intent, runner: FlowRunner) -> Flow[ObjectState]:
    """The state that the intent started from, with its data where the server's history has it."""
    base = intent.state
    seen = base.last_modified if intent.options.if_match is None else intent.options.if_match
    if base.data is not None or seen is None:
        return base
    return replace(base, data=(yield from read_version(base.path, seen, runner)))


def _with_merged(intent: Intent, base: ObjectState, theirs: ObjectState, data: JSONObject) -> Intent:
    again = rebase_onto(intent, theirs)
    patch = intent.patch
    if isinstance(patch, BasicPatch):
        # A plain PATCH sets whole keys: these may have nested changes of theirs by now.
        keys = patch.body.get("data", {})
        return replace(again, patch=replace(patch, data={key: data[key] for key in keys} or None))
    if patch is not None:
        return again
    return replace(again, verb=Verb.SAVE, draft=_merged_draft(intent.draft, base, theirs, data))


def _merged_draft(mine: Draft, base: ObjectState, theirs: ObjectState, data: JSONObject) -> Draft:
    if not mine.permissions or theirs.permissions is None:
        return Draft(data, mine.permissions, None)
    named = {name: frozenset(principals) for name, principals in mine.permissions.items()}
    complete = {name: frozenset(principals) for name, principals in (mine.all_permissions or {}).items()}
    result = merge_permissions(
        base.permissions, complete if base.permissions is not None else named, theirs.permissions
    )
    lists = {name: sorted(principals) for name, principals in result.items()}
    return Draft(data, {name: lists.get(name, []) for name in named}, lists)


def _merge_conflict(conflict: ConflictError, why: str, paths: tuple[str, ...] = ()) -> MergeConflict:
    return MergeConflict(
        f"{conflict.path}: cannot be merged, {why}. Look at .mine and .theirs, then .overwrite() or .reload().",
        paths=paths,
        status=conflict.status,
        method=conflict.method,
        path=conflict.path,
        errno=conflict.errno,
        details=conflict.details,
        base=conflict.base,
        mine=conflict.mine,
        theirs=conflict.theirs,
        theirs_last_modified=conflict.theirs_last_modified,
    )


@dataclass(frozen=True, slots=True)
class ConflictResolution:
    """The ways out of one conflict."""

    error: ConflictError
    runner: FlowRunner
    holder: Stateful
    intent: Intent
    forget: Callable[[], None] | None = None
    """What drops the write from the unit of work that would send it again."""

    def reload(self) -> Stateful:
        """The object, with the server's data."""
        self.holder.__kinto_apply_state__(their_state(self.intent, self.error), None)
        if self.forget is not None:
            self.forget()
        return self.holder

    def overwrite(self) -> Stateful:
        """The object, written over what the server has now."""
        return self.runner.perform(self.holder, rebase(self.intent, self.error))

    async def aoverwrite(self) -> Stateful:
        """Like :meth:`overwrite`."""
        return await self.runner.aperform(self.holder, rebase(self.intent, self.error))

    def merge(self) -> Stateful:
        """The object, with both sides' changes."""
        return self.runner.perform(self.holder, self.runner.run(self._merged()))

    async def amerge(self) -> Stateful:
        """Like :meth:`merge`."""
        return await self.runner.aperform(self.holder, await self.runner.arun(self._merged()))

    def _merged(self) -> Flow[Intent]:
        try:
            return (yield from merged(self.intent, self.error, self.runner))
        except MergeConflict as error:
            make_resolvable(error, self.runner, self.holder, self.intent, self.forget)
            raise


def make_resolvable(
    error: Any, runner: FlowRunner, holder: Stateful, intent: Intent, forget: Callable[[], None] | None = None
) -> None:
    """Gives a conflict its ways out; leaves other errors alone."""
    if isinstance(error, ConflictError):
        error.resolution = ConflictResolution(error, runner, holder, intent, forget)


def conflict_over(
    error: ResponseError,
    theirs: StoredObject | ObjectState | None,
    holder: Stateful,
    intent: Intent,
    runner: FlowRunner,
) -> ResponseError:
    """The error of a refused precondition, with both sides of it and the ways out that a save would have."""
    assert isinstance(error, ConflictError)
    error.base, error.mine = intent.state.data, intent.draft.data
    if theirs is not None:
        error.theirs, error.theirs_last_modified = theirs.data, theirs.last_modified
    make_resolvable(error, runner, holder, intent)
    return error
