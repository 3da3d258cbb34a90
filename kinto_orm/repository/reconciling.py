"""The meaning of the answer to a write for its object, also after a lost answer.

A write whose answer was lost is sent again, and finds its own result: a 412 that carries the wanted data, a 404 for the
deleted object. That is success, not a conflict.
https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html#concurrency-control
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from kinto_orm.errors import (
    AmbiguousWriteError,
    ConflictError,
    InvalidValueError,
    PermissionsUnknownError,
    ProtocolError,
    SchemaValidationError,
    UsageError,
)
from kinto_orm.protocol.accounts import without_secrets
from kinto_orm.protocol.json_patch import apply_json_patch
from kinto_orm.protocol.json_values import JSONObject, copy_json, is_same, is_stored_as
from kinto_orm.protocol.merge import merge_data
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.patches import BasicPatch, JSONPatch, apply_basic_patch, apply_merge_patch
from kinto_orm.protocol.paths import Kind, PluralPath
from kinto_orm.protocol.responses import (
    StoredObject,
    content,
    error_of,
    existing_object,
    raise_for_status,
    read_object,
    schema_errors,
)
from kinto_orm.protocol.writes import Action, Flow, PermissionLists, Write
from kinto_orm.repository.state import Change, ObjectState, Status, Verb
from kinto_orm.repository.verbs import SERVER_OWNED, plan, without_schema_timestamp

METHODS = {Action.PUT: "PUT", Action.UPDATE: "PATCH", Action.PATCH: "PATCH", Action.DELETE: "DELETE"}


class Verdict(NamedTuple):
    """The result of a write: the state of its object, and the change that brought it there.

    With ``again`` that is not the end: this change is to be sent next, on top of ``change``, which is found applied.
    """

    state: ObjectState
    change: Change[Any] | None
    """``None`` where the object takes the server's state, and its changes are dropped."""
    reconciled: bool = False
    """Whether the answer to an earlier attempt got lost, and this one showed that it had been applied."""
    again: Change[Any] | None = None
    conflict: ConflictError | None = None
    """The conflict that ``again`` resolves."""
    is_clean: bool = False
    """Whether nothing was stored: there is an object already (``if_not_exists``), or none any more (``if_exists``)."""


def reconcile(change: Change[Any], response: Response, *, strict: bool = False) -> Flow[Verdict]:
    """Return the verdict of the answer to the change's write.

    Raises the error that the answer stands for. Where an earlier answer got lost and this one does not tell whose
    write it found, raises ``AmbiguousWriteError``; with ``strict`` also where another client may have written the same.
    """
    write = _written(change)
    method = METHODS[write.action]
    if response.status not in (403, 404, 412):
        return reconcile_at_once(change, response)
    lost = [change, *change.doubts] if response.is_repeated and not change.only_asks else change.doubts
    if response.status != 403:
        _check_is_whole(response, f"{method} {write.path}")
    if response.status == 412:
        return (yield from _reconcile_412(change, response, lost, strict=strict))
    if write.action is Action.DELETE and response.status in (403, 404):
        gone = yield from _reconcile_gone(change, response, lost, strict=strict)
        if gone is not None:
            return gone
    if response.status == 404:
        raise error_of(response, method, str(write.path))  # gone, whatever an earlier attempt did
    return reconcile_at_once(change, response)


def reconcile_at_once(change: Change[Any], response: Response) -> Verdict:
    """Like :func:`reconcile`, of an answer that tells by itself whose write it answers: any but a refusal."""
    write = _written(change)
    try:
        stored = read_object(response, write.path, METHODS[write.action])
    except SchemaValidationError as error:
        error.errors = schema_errors(error.details, wanted_data(change))
        raise
    return Verdict(change.state.after(stored), change)


def _written(change: Change[Any]) -> Write:
    change.write = change.write or plan(change)
    assert change.write is not None, "nothing of the change was sent"
    return change.write


def _check_is_whole(response: Response, what: str) -> None:
    # A 412 that was cut short, or a proxy's 404, must not count as the object's deletion.
    if not isinstance(content(response, what), dict):
        raise ProtocolError(
            f"The answer to {what} ({response.status}) is none of Kinto's: whether it was applied is unknown."
        )


def doubted(change: Change[Any]) -> Change[Any]:
    """Return the memory of a write whose answer was lost; the same write in doubt twice is one."""
    earlier = change.state.in_doubt
    if earlier is not None and change.only_asks:
        return earlier
    if earlier is not None and _says_the_same(earlier, change):
        return replace(change, state=change.state._replace(in_doubt=earlier.state.in_doubt))
    return change


def _says_the_same(one: Change[Any], other: Change[Any]) -> bool:
    if (one.verb, one.patch, one.options, one.state.last_modified) != (
        other.verb,
        other.patch,
        other.options,
        other.state.last_modified,
    ):
        return False
    return is_same(one.data, other.data) and one.permissions == other.permissions


def _reconcile_412(
    change: Change[Any], response: Response, lost: Sequence[Change[Any]], *, strict: bool
) -> Flow[Verdict]:
    write = _written(change)
    theirs = existing_object(response, str(write.path))
    for one in lost if theirs is not None else ():
        assert theirs is not None
        found = (yield from _confirmed(one, theirs)) if _may_be_result(one, theirs) else None
        if found is not None:
            _check_strictness(one, strict=strict)
            return _recognised(change, one, found)
    if change.options.if_not_exists and write.precondition.absent and theirs is not None:
        return Verdict(change.state.after(theirs), change, is_clean=True)
    error = error_of(response, METHODS[write.action], str(write.path))
    assert isinstance(error, ConflictError)
    error.base = change.state.data
    error.mine = copy_json(without_secrets(write.path, wanted_data(change)))  # the object may share it
    if theirs is not None:
        error.theirs, error.theirs_last_modified = theirs.data, theirs.last_modified
    if write.precondition.absent and theirs is not None:
        error.args = (
            f"PUT {write.path}: 412. The id exists already: see .theirs, get() the object, take it by "
            "save(if_not_exists=True), or choose another id.",
        )
    raise error


def _recognised(change: Change[Any], lost: Change[Any], found: StoredObject) -> Verdict:
    state = change.state.after(found)
    if lost is change:
        return Verdict(state, change, reconciled=True)
    now = state._replace(permissions=state.permissions or change.state.permissions)
    again = rebase_onto(_on_top(change, lost, found.data), now)
    wanted = (wanted_data(change), wanted_data(again))
    is_done = any(one is not None and is_stored_as(_own(lost, one), _own(lost, found.data)) for one in wanted)
    # No answer shows whether a password is stored: a password that is wanted now is sent on top.
    has_secret = not lost.state.path.kind.secrets.isdisjoint(wanted[0] or ())
    if is_done and not has_secret and _sent_permissions(change) == _sent_permissions(lost):
        # It was applied to the version of the lost one: others may have written in between.
        return Verdict(state, replace(change, state=lost.state), reconciled=True)
    # The wanted data may have changed since. No other client wrote in between, so it may be sent on top.
    return Verdict(state, lost, reconciled=True, again=again)


def _on_top(change: Change[Any], lost: Change[Any], data: JSONObject) -> Change[Any]:
    """Return the change such that the lost one's effect stays: a patch, and the changes of others merged into it."""
    was_merged = lost.seen is not None
    if change.verb is Verb.SAVE or (change.verb is Verb.REPLACE and was_merged):
        # ``shown`` is the object as it was then: since that it was edited.
        return replace(change, data=merge_data(lost.shown.data, change.data, data).data, seen=change.shown)
    patch, mine = change.patch, wanted_data(change)
    if isinstance(patch, BasicPatch) and was_merged and mine is not None:
        merged = merge_data(change.state.data, mine, data).data
        return replace(change, patch=replace(patch, data={key: merged[key] for key in patch.data or {}} or None))
    return change


def _may_be_result(lost: Change[Any], theirs: StoredObject) -> bool:
    """Return whether this is the data that the lost write wanted, stored after it was sent."""
    seen = lost.state.last_modified if lost.options.if_match is None else lost.options.if_match
    if lost.verb is Verb.DELETE or (seen is not None and theirs.last_modified == seen):
        return False
    wanted = wanted_data(lost)
    if wanted is None:
        raise AmbiguousWriteError(
            f"{lost.state.path}: the answer to a patch was lost, and its result is unknown, "
            "because the object was never read: refresh() it and look."
        )
    is_alike = is_stored_as(_own(lost, wanted), _own(lost, theirs.data))
    if is_alike and not lost.state.path.kind.secrets.isdisjoint(wanted):
        raise AmbiguousWriteError(
            f"{lost.state.path}: the answer to a write with a password was lost, and no answer shows which password "
            "the server has: log in with it, or refresh() the object and set it again."
        )
    return is_alike


def _own(lost: Change[Any], data: JSONObject) -> JSONObject:
    """Return the data without the keys that the server sets."""
    kind = lost.state.path.kind
    left_out = {*SERVER_OWNED, *kind.secrets}
    return {key: value for key, value in without_schema_timestamp(kind, data).items() if key not in left_out}


def _confirmed(lost: Change[Any], theirs: StoredObject) -> Flow[StoredObject | None]:
    """Return the object, where it has the permissions of the lost write, too: a 412 does not show them."""
    wanted = _sent_permissions(lost)
    if not wanted:
        return theirs
    response = yield Request("GET", str(lost.state.path))
    found = read_object(response, lost.state.path, "GET")
    if found.permissions is None:
        raise AmbiguousWriteError(
            f"{lost.state.path}: the answer to a write of its permissions was lost, and the server does not show them: "
            "it is unknown whether it was applied."
        )
    # The server adds the writer.
    has_all = all(found.permissions.get(name, frozenset()) >= set(wanted[name]) for name in wanted)
    return found if has_all and _may_be_result(lost, found) else None


def _sent_permissions(change: Change[Any]) -> PermissionLists:
    if change.patch is None or isinstance(change.patch, JSONPatch):
        return change.permissions or {}
    sent: dict[str, list[str] | None] = change.patch.body.get("permissions", {})
    return {name: principals or [] for name, principals in sent.items()}


def _check_strictness(lost: Change[Any], *, strict: bool) -> None:
    # No other client has an id that this client drew.
    if strict and not (lost.state.status is Status.NEW and lost.state.has_drawn_id):
        raise AmbiguousWriteError(
            f"{lost.state.path} has the wanted content, and the answer to the first attempt was lost: it may be our "
            "write, or the same one by another client (strict_retry). refresh() the object and decide."
        )


def _reconcile_gone(
    change: Change[Any], response: Response, lost: Sequence[Change[Any]], *, strict: bool
) -> Flow[Verdict | None]:
    """Resolve a DELETE that was answered 403 or 404; return ``None`` where it was refused."""
    was_lost = any(one.verb is Verb.DELETE for one in lost)
    may_be_in_bucket = was_lost and change.state.path.kind is not Kind.ACCOUNT
    if response.status == 403 and not (may_be_in_bucket and (yield from _is_bucket_gone(change))):
        return None
    if response.status == 404 and not (was_lost or change.options.if_exists):
        return None
    if was_lost and not change.options.if_exists:
        _check_strictness(change, strict=strict)
    state = ObjectState(change.state.path, Status.DELETED)
    return Verdict(state, change, reconciled=was_lost, is_clean=not was_lost)


def _is_bucket_gone(change: Change[Any]) -> Flow[bool]:
    """Return whether the bucket no longer exists: Kinto answers 403 for it, and for all its objects."""
    list_path = str(PluralPath(Kind.BUCKET, ()))
    response = yield Request("GET", list_path, query=f"id=%22{change.state.path.ids[0]}%22")
    raise_for_status(response, "GET", list_path)
    found = content(response, f"GET {list_path}")
    return isinstance(found, dict) and found.get("data") == []


def wanted_data(change: Change[Any]) -> JSONObject | None:
    """Return the object's data after the verb; ``None`` for a delete, or where it is unknown."""
    if change.verb is Verb.DELETE:
        return None
    if change.verb is not Verb.PATCH:
        return change.data
    patch, data = change.patch, change.state.data
    assert patch is not None
    if data is None:
        return None
    if isinstance(patch, JSONPatch):
        return _json_patched(data, change.state, patch)
    apply = apply_basic_patch if isinstance(patch, BasicPatch) else apply_merge_patch
    return apply(data, patch.body.get("data", {}))


def _json_patched(data: JSONObject, state: ObjectState, patch: JSONPatch) -> JSONObject | None:
    try:
        return apply_json_patch(
            data, state.permissions, patch.operations, id=state.path.id, last_modified=state.last_modified
        ).data
    except (InvalidValueError, PermissionsUnknownError):
        return None


def rebase(change: Change[Any], error: ConflictError) -> Change[Any]:
    """Return the same verb on the server's current version: the user chose to write over it.

    Where the object is gone, it is created again.
    """
    if error.theirs is not None:
        state = ObjectState(change.state.path, Status.LOADED, dict(error.theirs), error.theirs_last_modified)
        return rebase_onto(change, state)
    if change.verb is Verb.DELETE:
        raise UsageError(f"{change.state.path} is gone already.")
    return rebase_onto(change, ObjectState(change.state.path, Status.NEW))


def rebase_onto(change: Change[Any], state: ObjectState) -> Change[Any]:
    """Return the same verb on this state of its object."""
    options = change.options._replace(if_match=None)
    return replace(change, state=state, options=options, seen=change.shown)
