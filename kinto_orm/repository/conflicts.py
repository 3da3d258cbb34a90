"""Conflict resolution, per call or as a policy: take theirs, write over it, or merge both sides.

It starts from the copy of the object in the 412.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast, get_args

from kinto_orm.errors import (
    ConflictError,
    ConnectionLostError,
    InvalidTypeError,
    MergeConflict,
    NotFoundError,
    ProtocolError,
    ResponseError,
    ServerError,
)
from kinto_orm.protocol.accounts import without_secrets
from kinto_orm.protocol.json_values import JSONObject, copy_json, say_value, to_json_object
from kinto_orm.protocol.merge import merge_permissions
from kinto_orm.protocol.messages import Response
from kinto_orm.protocol.patches import BasicPatch
from kinto_orm.protocol.responses import StoredObject
from kinto_orm.protocol.writes import Flow, PermissionLists
from kinto_orm.repository.history import read_version
from kinto_orm.repository.reads import get
from kinto_orm.repository.reconciling import Verdict, rebase, rebase_onto, reconcile, wanted_data
from kinto_orm.repository.state import (
    Change,
    ConflictPolicy,
    FlowRunner,
    ObjectState,
    OnConflict,
    Stateful,
    Status,
    Verb,
)

IN_DOUBT = (ConnectionLostError, ProtocolError, ServerError)
"""The errors after which the server may have applied a write."""


def is_abort(error: BaseException) -> bool:
    """Return whether Kinto says that its database aborted the transaction, so that nothing was stored."""
    return isinstance(error, ServerError) and error.status == 503 and error.errno is not None


def check_policy(on_conflict: object) -> None:
    """Raise ``InvalidTypeError`` for a value that is no way out of a conflict."""
    if not (callable(on_conflict) or on_conflict in get_args(ConflictPolicy)):
        raise InvalidTypeError(
            "on_conflict is 'raise', 'mine', 'theirs', 'merge' or a function of the conflict, "
            f"not {say_value(on_conflict)}."
        )


def check_callbacks(**callbacks: object) -> None:
    """Raise ``InvalidTypeError`` for a callback that is no function: it would fail when a part is written."""
    for name, one in callbacks.items():
        if one is not None and not callable(one):
            raise InvalidTypeError(f"{name} is a function, not {say_value(one)}.")


def reconcile_by_policy(
    change: Change[Any], response: Response, runner: FlowRunner, default: OnConflict = "raise"
) -> Flow[Verdict]:
    """Return the verdict of the answer to the write; resolve a conflict by the change's policy, else by the default."""
    policy = change.options.on_conflict or default
    try:
        return (yield from reconcile(change, response, strict=runner.strict_retry))
    except (ConflictError, NotFoundError) as error:
        if policy == "raise":
            raise
        conflict = error if isinstance(error, ConflictError) else _gone(change, error)
        return (yield from _resolve(change, conflict, policy, runner, error))


def _gone(change: Change[Any], error: ResponseError) -> ConflictError:
    """Return the conflict of a 404 to a write: another client deleted the object."""
    conflict = ConflictError(str(error))
    mine = copy_json(without_secrets(change.state.path, wanted_data(change)))
    vars(conflict).update(vars(error), base=change.state.data, mine=mine)
    return conflict


def _resolve(
    change: Change[Any], conflict: ConflictError, policy: OnConflict, runner: FlowRunner, refusal: ResponseError
) -> Flow[Verdict]:
    choice = policy(conflict) if callable(policy) else policy
    if choice == "raise":
        raise refusal
    if choice == "theirs" or (choice == "mine" and change.verb is Verb.DELETE and conflict.theirs is None):
        return Verdict(their_state(change, conflict), None)
    if choice == "mine":
        again = rebase(change, conflict)
    elif choice == "merge":
        again = yield from merged(change, conflict, runner)
    else:
        again = _with_data(change, conflict, choice)
    return Verdict(again.state, again, again=again, conflict=conflict)


def _with_data(change: Change[Any], conflict: ConflictError, choice: object) -> Change[Any]:
    if not isinstance(choice, Mapping):
        names = ", ".join(map(repr, get_args(ConflictPolicy)))
        raise InvalidTypeError(
            f"on_conflict gave {say_value(choice)} for {change.state.path}: it gives {names} or a mapping."
        )
    data = to_json_object(cast(Mapping[str, Any], choice))
    change.holder.__kinto_check__(data)
    return replace(rebase(change, conflict), verb=Verb.SAVE, data=data, patch=None)


def their_state(change: Change[Any], conflict: ConflictError) -> ObjectState:
    """Return the object's state on the server. Its permissions are unknown: the 412 does not show them."""
    if conflict.theirs is None:
        return ObjectState(change.state.path, Status.DELETED)
    return ObjectState(change.state.path, Status.LOADED, dict(conflict.theirs), conflict.theirs_last_modified)


def merged(change: Change[Any], conflict: ConflictError, runner: FlowRunner) -> Flow[Change[Any]]:
    """Return the change that merges both sides.

    Sends a request only where permissions were changed (a 412 shows none), or where only the server's history has the
    common base. Raises ``MergeConflict`` where both sides changed the same field.
    """
    if conflict.theirs is None or change.verb is Verb.DELETE:
        who, other = ("change", "deleted") if conflict.theirs is None else ("delete", "changed")
        raise _merge_conflict(conflict, f"you {who} the object that another client {other}")
    theirs, base = their_state(change, conflict), (yield from _with_base(change, runner))
    mine = wanted_data(replace(change, state=base))
    if mine is None:
        raise _merge_conflict(
            conflict, "the version that you started from is known neither here nor in the server's history"
        )
    if change.permissions:
        theirs = yield from get(base.path)
    assert theirs.data is not None
    result = change.holder.__kinto_merge__(base.data, mine, theirs.data)
    if result.conflicts:
        raise _merge_conflict(conflict, f"both changed {', '.join(result.conflicts)}", result.conflicts)
    return _with_merged(change, base, theirs, result.data)


def _with_base(change: Change[Any], runner: FlowRunner) -> Flow[ObjectState]:
    """Return the state that the change started from, with its data where the server's history has it."""
    base = change.state
    seen = base.last_modified if change.options.if_match is None else change.options.if_match
    if base.data is not None or seen is None:
        return base
    return base._replace(data=(yield from read_version(base.path, seen, runner)))


def _with_merged(change: Change[Any], base: ObjectState, theirs: ObjectState, data: JSONObject) -> Change[Any]:
    again = rebase_onto(change, theirs)
    patch = change.patch
    if isinstance(patch, BasicPatch):
        # A plain PATCH sets whole keys: these may have nested changes of theirs by now.
        keys = patch.body.get("data", {})
        return replace(again, patch=replace(patch, data={key: data[key] for key in keys} or None))
    if patch is not None:
        return again
    merged_permissions, complete = _merged_permissions(change, base, theirs)
    return replace(again, verb=Verb.SAVE, data=data, permissions=merged_permissions, all_permissions=complete)


def _merged_permissions(
    mine: Change[Any], base: ObjectState, theirs: ObjectState
) -> tuple[PermissionLists | None, PermissionLists | None]:
    """Return the permissions to set, and the complete set where it is known."""
    if not mine.permissions or theirs.permissions is None:
        return mine.permissions, None
    named = {name: frozenset(principals) for name, principals in mine.permissions.items()}
    complete = {name: frozenset(principals) for name, principals in (mine.all_permissions or {}).items()}
    result = merge_permissions(
        base.permissions, complete if base.permissions is not None else named, theirs.permissions
    )
    lists = {name: sorted(principals) for name, principals in result.items()}
    return {name: lists.get(name, []) for name in named}, lists


def _merge_conflict(conflict: ConflictError, why: str, paths: tuple[str, ...] = ()) -> MergeConflict:
    failure = MergeConflict(
        f"{conflict.path}: cannot be merged, {why}. Look at .mine and .theirs, then .overwrite() or .reload()."
    )
    vars(failure).update(vars(conflict), paths=paths)
    return failure


class ConflictResolution(NamedTuple):
    """The ways out of one conflict."""

    error: ConflictError
    runner: FlowRunner
    change: Change[Stateful]
    forget: Callable[[], None] | None = None
    """Drops the write from the unit of work that would send it again."""

    def reload(self) -> Stateful:
        """Return the object, with the server's data."""
        holder = self.change.holder
        holder.__kinto_apply_state__(their_state(self.change, self.error), None)
        if self.forget is not None:
            self.forget()
        return holder

    def overwrite(self) -> Stateful:
        """Return the object, written over the server's version."""
        return self.runner.__kinto_perform__(self._rebased())

    async def aoverwrite(self) -> Stateful:
        """Like :meth:`overwrite`."""
        return await self.runner.__kinto_aperform__(self._rebased())

    def merge(self) -> Stateful:
        """Return the object, with the changes of both sides."""
        return self.runner.__kinto_perform__(self.runner.run(self._merged()))

    async def amerge(self) -> Stateful:
        """Like :meth:`merge`."""
        return await self.runner.__kinto_aperform__(await self.runner.arun(self._merged()))

    def _rebased(self) -> Change[Stateful]:
        return rebase(self.change, self.error)

    def _merged(self) -> Flow[Change[Stateful]]:
        try:
            return (yield from merged(self.change, self.error, self.runner))
        except MergeConflict as error:
            make_resolvable(error, self.runner, self.change, self.forget)
            raise


def make_resolvable(
    error: Any, runner: FlowRunner, change: Change[Any], forget: Callable[[], None] | None = None
) -> None:
    """Give a conflict its ways out; leave other errors alone."""
    if isinstance(error, ConflictError):
        error.resolution = ConflictResolution(error, runner, change, forget)


def conflict_over(
    error: ResponseError, theirs: StoredObject | ObjectState | None, change: Change[Any], runner: FlowRunner
) -> ResponseError:
    """Return the error of a refused precondition, with both sides of it and the ways out that a save would have."""
    assert isinstance(error, ConflictError)
    error.base, error.mine = change.state.data, change.data
    if theirs is not None:
        error.theirs, error.theirs_last_modified = theirs.data, theirs.last_modified
    make_resolvable(error, runner, change)
    return error
