"""What the answer to a write means for its object, also where an earlier answer got lost.

A write whose answer was lost is sent again, and finds its own result: a 412 that carries what was wanted, a 404 for
what was to be deleted. That is success, not a conflict.
https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html#concurrency-control
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from kinto_orm.protocol.frozen import quickly_made
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
    locate_errors,
    raise_for_status,
    read_object,
)
from kinto_orm.protocol.writes import Action, Flow, PermissionLists, Write
from kinto_orm.repository.state import Intent, ObjectState, Status, Verb
from kinto_orm.repository.verbs import SERVER_OWNED, is_schema_timestamp

_METHODS = {Action.PUT: "PUT", Action.UPDATE: "PATCH", Action.PATCH: "PATCH", Action.DELETE: "DELETE"}


@quickly_made
@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a write: the state of its object, and the intent that brought it there.

    With ``again`` that is not the end: this intent is to be sent next.
    """

    state: ObjectState
    intent: Intent | None
    """``None`` where the object takes what the server has, and its own changes are dropped."""
    reconciled: bool = False
    """Whether the answer to an earlier attempt got lost, and this one showed that it had been applied."""
    again: Intent | None = None
    conflict: ConflictError | None = None
    """What ``again`` is the answer to."""
    is_clean: bool = False
    """Whether nothing was stored: there is an object already (``if_not_exists``), or none any more (``if_exists``)."""


def reconcile(intent: Intent, planned: Write, response: Response, *, strict: bool = False) -> Flow[Verdict]:
    """What the answer to the planned write comes to.

    Raises the error that the answer stands for. Where an earlier answer got lost and this one does not tell whose
    write it found, raises ``AmbiguousWriteError``; with ``strict`` also where somebody else may have written the same.
    """
    method = _METHODS[planned.action]
    if response.status not in (403, 404, 412):
        return reconcile_at_once(intent, planned, response)
    lost = [intent, *_doubts(intent)] if response.is_repeated else _doubts(intent)
    if response.status != 403:
        _check_is_whole(response, f"{method} {planned.path}")
    if response.status == 412:
        return (yield from _reconcile_412(intent, planned, response, lost, strict=strict))
    if planned.action is Action.DELETE and response.status in (403, 404):
        gone = yield from _reconcile_gone(intent, response, lost, strict=strict)
        if gone is not None:
            return gone
    if response.status == 404:
        raise error_of(response, method, str(planned.path))  # gone, whatever became of an earlier attempt
    return reconcile_at_once(intent, planned, response)


def reconcile_at_once(intent: Intent, planned: Write, response: Response) -> Verdict:
    """Like :func:`settle`, of an answer that tells by itself whose write it is the answer to: any but a refusal."""
    try:
        stored = read_object(response, planned.path, _METHODS[planned.action])
    except SchemaValidationError as error:
        locate_errors(error, wanted_data(intent))
        raise
    return Verdict(intent.state.after(stored), intent)


def _check_is_whole(response: Response, what: str) -> None:
    # Else a 412 that was cut short, or a 404 of something in front of the server, would say that the object is gone.
    if not isinstance(content(response, what), dict):
        raise ProtocolError(
            f"The answer to {what} ({response.status}) is none of Kinto's: whether it was applied is unknown."
        )


def _doubts(intent: Intent) -> list[Intent]:
    """The earlier writes of the object that may have been applied, the last one first: one of them at most was."""
    found: list[Intent] = []
    earlier = intent.state.in_doubt
    while earlier is not None:
        found.append(earlier)
        earlier = earlier.state.in_doubt
    return found


def doubted(intent: Intent) -> Intent:
    """What an object remembers of a write whose answer got lost; the same write in doubt twice is one."""
    earlier = intent.state.in_doubt
    if earlier is not None and _says_the_same(earlier, intent):
        return replace(intent, state=replace(intent.state, in_doubt=earlier.state.in_doubt))
    return intent


def _says_the_same(one: Intent, other: Intent) -> bool:
    if (one.verb, one.patch, one.options, one.state.last_modified) != (
        other.verb,
        other.patch,
        other.options,
        other.state.last_modified,
    ):
        return False
    return is_same(one.draft.data, other.draft.data) and one.draft.permissions == other.draft.permissions


def _reconcile_412(
    intent: Intent, planned: Write, response: Response, lost: Sequence[Intent], *, strict: bool
) -> Flow[Verdict]:
    theirs = existing_object(response, str(planned.path))
    for one in lost if theirs is not None else ():
        assert theirs is not None
        found = (yield from _confirmed(one, theirs)) if _may_be_result(one, theirs) else None
        if found is not None:
            _check_strictness(one, strict=strict)
            return _recognised(intent, one, found)
    if intent.options.if_not_exists and planned.precondition.absent and theirs is not None:
        return Verdict(intent.state.after(theirs), intent, is_clean=True)
    error = error_of(response, _METHODS[planned.action], str(planned.path))
    assert isinstance(error, ConflictError)
    error.base = intent.state.data
    error.mine = copy_json(without_secrets(planned.path, wanted_data(intent)))  # the object may share it
    if theirs is not None:
        error.theirs, error.theirs_last_modified = theirs.data, theirs.last_modified
    raise error


def _recognised(intent: Intent, lost: Intent, found: StoredObject) -> Verdict:
    state = intent.state.after(found)
    if lost is intent:
        return Verdict(state, intent, reconciled=True)
    now = replace(state, permissions=state.permissions or intent.state.permissions)
    again = rebase_onto(_on_top(intent, lost, found.data), now)
    wanted = (wanted_data(intent), wanted_data(again))
    is_done = any(one is not None and is_stored_as(_own(lost, one), _own(lost, found.data)) for one in wanted)
    # Nobody sees whether a password is stored: one that is wanted now goes on top.
    has_secret = not lost.state.path.kind.secrets.isdisjoint(wanted[0] or ())
    if is_done and not has_secret and _sent_permissions(intent) == _sent_permissions(lost):
        # What it was applied to is what the lost one was meant for: others may have written in between.
        return Verdict(state, replace(intent, state=lost.state), reconciled=True)
    # What was wanted may have changed since. Nobody else wrote in between, so it may go on top of it.
    return Verdict(state, intent, reconciled=True, again=again)


def _on_top(intent: Intent, lost: Intent, data: JSONObject) -> Intent:
    """The intent, such that what the lost one did stays: a patch, and the changes of others that it was merged with."""
    was_merged = lost.seen is not None
    if intent.verb is Verb.SAVE or (intent.verb is Verb.REPLACE and was_merged):
        shown = lost.seen or lost.draft  # what the object was like then: since that it was edited
        draft = replace(intent.draft, data=merge_data(shown.data, intent.draft.data, data).data)
        return replace(intent, draft=draft, seen=intent.seen or intent.draft)
    patch, mine = intent.patch, wanted_data(intent)
    if isinstance(patch, BasicPatch) and was_merged and mine is not None:
        merged = merge_data(intent.state.data, mine, data).data
        return replace(intent, patch=replace(patch, data={key: merged[key] for key in patch.data or {}} or None))
    return intent


def _may_be_result(lost: Intent, theirs: StoredObject) -> bool:
    """Whether this is the data that the lost write wanted, stored after it was sent."""
    seen = lost.state.last_modified if lost.options.if_match is None else lost.options.if_match
    if lost.verb is Verb.DELETE or (seen is not None and theirs.last_modified == seen):
        return False
    wanted = wanted_data(lost)
    if wanted is None:
        raise AmbiguousWriteError(
            f"{lost.state.path}: the answer to a patch got lost, and what it made of the object cannot be told, "
            "because the object was never read: refresh() it, and see."
        )
    is_alike = is_stored_as(_own(lost, wanted), _own(lost, theirs.data))
    if is_alike and not lost.state.path.kind.secrets.isdisjoint(wanted):
        raise AmbiguousWriteError(
            f"{lost.state.path}: the answer to a write with a password got lost, and whether it is this password that "
            "the server has cannot be told: log in with it, or refresh() the object and set it again."
        )
    return is_alike


def _own(lost: Intent, data: JSONObject) -> JSONObject:
    """The data without what the server sets by itself."""
    left_out = {key for key in (*SERVER_OWNED, *lost.state.path.kind.secrets) if key in data}
    if "schema" in data and is_schema_timestamp(lost.state.path.kind, data["schema"]):
        left_out.add("schema")
    return {key: value for key, value in data.items() if key not in left_out} if left_out else data


def _confirmed(lost: Intent, theirs: StoredObject) -> Flow[StoredObject | None]:
    """The object, where its permissions are what the lost write wanted, too: a 412 does not show them."""
    wanted = _sent_permissions(lost)
    if not wanted:
        return theirs
    response = yield Request("GET", str(lost.state.path))
    found = read_object(response, lost.state.path, "GET")
    if found.permissions is None:
        raise AmbiguousWriteError(
            f"{lost.state.path}: the answer to a write of its permissions got lost, and the server does not show them: "
            "whether it was applied cannot be told."
        )
    # The server adds the writer.
    has_all = all(found.permissions.get(name, frozenset()) >= set(wanted[name]) for name in wanted)
    return found if has_all and _may_be_result(lost, found) else None


def _sent_permissions(intent: Intent) -> PermissionLists:
    if intent.patch is None or isinstance(intent.patch, JSONPatch):
        return intent.draft.permissions or {}
    sent: dict[str, list[str] | None] = intent.patch.body.get("permissions", {})
    return {name: principals or [] for name, principals in sent.items()}


def _check_strictness(lost: Intent, *, strict: bool) -> None:
    # An id that we drew ourselves is nobody else's.
    if strict and not (lost.state.status is Status.NEW and lost.state.has_drawn_id):
        raise AmbiguousWriteError(
            f"{lost.state.path} is as it was to be, and the answer to the first attempt got lost: it may be our write, "
            "or the same one by somebody else (strict_retry). refresh() the object and decide."
        )


def _reconcile_gone(
    intent: Intent, response: Response, lost: Sequence[Intent], *, strict: bool
) -> Flow[Verdict | None]:
    """What a deletion comes to that found nothing; ``None`` where it was refused."""
    was_lost = any(one.verb is Verb.DELETE for one in lost)
    may_be_in_bucket = was_lost and intent.state.path.kind is not Kind.ACCOUNT
    if response.status == 403 and not (may_be_in_bucket and (yield from _is_bucket_gone(intent))):
        return None
    if response.status == 404 and not (was_lost or intent.options.if_exists):
        return None
    if was_lost and not intent.options.if_exists:
        _check_strictness(intent, strict=strict)
    state = ObjectState(intent.state.path, Status.DELETED)
    return Verdict(state, intent, reconciled=was_lost, is_clean=not was_lost)


def _is_bucket_gone(intent: Intent) -> Flow[bool]:
    """Whether the bucket is not there any more: Kinto answers 403 for it, and for all that was in it."""
    list_path = str(PluralPath(Kind.BUCKET, ()))
    response = yield Request("GET", list_path, query=f"id=%22{intent.state.path.ids[0]}%22")
    raise_for_status(response, "GET", list_path)
    found = content(response, f"GET {list_path}")
    return isinstance(found, dict) and found.get("data") == []


def wanted_data(intent: Intent) -> JSONObject | None:
    """What the object's data would have been after the verb; ``None`` for a delete, or where it cannot be told."""
    if intent.verb is Verb.DELETE:
        return None
    if intent.verb is not Verb.PATCH:
        return intent.draft.data
    patch, data = intent.patch, intent.state.data
    assert patch is not None
    if data is None:
        return None
    if isinstance(patch, JSONPatch):
        return _json_patched(data, intent.state, patch)
    apply = apply_basic_patch if isinstance(patch, BasicPatch) else apply_merge_patch
    return apply(data, patch.body.get("data", {}))


def _json_patched(data: JSONObject, state: ObjectState, patch: JSONPatch) -> JSONObject | None:
    try:
        return apply_json_patch(
            data, state.permissions, patch.operations, id=state.path.id, last_modified=state.last_modified
        ).data
    except (InvalidValueError, PermissionsUnknownError):
        return None


def rebase(intent: Intent, error: ConflictError) -> Intent:
    """The same verb, meant for what the server has now: the user chose to write over it.

    Where the object is gone, it is created again.
    """
    if error.theirs is not None:
        state = ObjectState(intent.state.path, Status.LOADED, dict(error.theirs), error.theirs_last_modified)
        return rebase_onto(intent, state)
    if intent.verb is Verb.DELETE:
        raise UsageError(f"{intent.state.path} is gone already.")
    return rebase_onto(intent, ObjectState(intent.state.path, Status.NEW))


def rebase_onto(intent: Intent, state: ObjectState) -> Intent:
    """The same verb, meant for this state of its object."""
    options = replace(intent.options, if_match=None)
    return replace(intent, state=state, options=options, seen=intent.seen or intent.draft)
