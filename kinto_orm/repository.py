"""Each verb on one object, as a flow: which request, with which precondition, and what its answer means.

https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html#concurrency-control
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from kinto_orm.errors import (
    ConflictError,
    DeletedObjectError,
    InvalidValueError,
    NotFoundError,
    NotLoadedError,
    PartialObjectError,
    UsageError,
)
from kinto_orm.messages import Request, Response
from kinto_orm.protocol.answers import error_of, existing_object, read_document, read_object
from kinto_orm.protocol.endpoints import Kind, ObjectPath
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.patches import BasicPatch, JSONPatch, apply_basic_patch, apply_merge_patch
from kinto_orm.protocol.values import JSON, JSONObject, is_same
from kinto_orm.protocol.writes import ABSENT, UNCONDITIONAL, Action, Precondition, Write
from kinto_orm.state import Draft, Intent, ObjectState, Status, Verb

SERVER_OWNED = ("last_modified", "deleted", "__permissions__")
"""Keys of ``data`` that only the server sets: it would act on them, not store them."""

_OLDEST_TIMESTAMP = 10**12
"""In milliseconds: the year 2001."""


def get(path: ObjectPath) -> Flow[ObjectState]:
    """The object as the server has it.

    Raises ``NotFoundError``, and ``ForbiddenError`` where the bucket does not exist or may not be read.
    """
    response = yield Request("GET", str(path))
    stored = read_object(response, path, "GET")
    return ObjectState(path, Status.LOADED).after(stored)


def read_server_info() -> Flow[JSONObject]:
    """What the server says of itself."""
    request = Request("GET", "/")
    response = yield request
    return read_document(response, request)


def write(intent: Intent) -> Flow[ObjectState]:
    """The state of the object after the verb. Sends nothing where nothing changed.

    Raises ``ConflictError`` where the object was changed (or created) meanwhile, ``NotFoundError`` where it is gone.
    """
    planned = plan(intent)
    if planned is None:
        return intent.state
    response = yield planned
    return settle(intent, planned, response)


def plan(intent: Intent) -> Write | None:
    """The write that the verb comes to; ``None`` where nothing has to be sent.

    Raises ``UsageError`` where the object is in no state for the verb, ``InvalidValueError`` for data that only the
    server may set.
    """
    _check_status(intent)
    check_data(intent)
    return _PLANS[intent.verb](intent)


def _check_status(intent: Intent) -> None:
    state, verb = intent.state, intent.verb
    if state.status is Status.DELETED:
        raise DeletedObjectError(f"{state.path} was deleted: refresh() tells whether it came back.")
    if state.is_partial and verb is not Verb.DELETE:
        raise PartialObjectError(
            f"{state.path} holds only some of its fields (only()): refresh() before {verb.value}()."
        )
    is_whole = verb is Verb.SAVE or (verb is Verb.REPLACE and intent.options.safe)
    if state.status is Status.REFERENCE and is_whole:
        raise NotLoadedError(f"{state.path} is a reference, its data was never read: refresh() before {verb.value}().")


def check_data(intent: Intent) -> None:
    """Raises ``InvalidValueError`` where the user set what only the server sets."""
    known = intent.state.data or {}
    wanted = _sent_data(intent)
    for key in SERVER_OWNED:
        if key in wanted and not (key in known and is_same(known[key], wanted[key])):
            raise InvalidValueError(f"{intent.state.path}: data[{key!r}] is set by the server only: remove it.")
    if _is_schema_timestamp(intent, known.get("schema")) and not is_same(
        known["schema"], wanted.get("schema", known["schema"])
    ):
        raise InvalidValueError(f"{intent.state.path}: data['schema'] is set by the server only: leave it.")


def _is_schema_timestamp(intent: Intent, value: JSON) -> bool:
    # Where a collection has a JSON schema, the server keeps the schema's timestamp in this key of its records, and
    # overwrites what is sent there. A smaller number is somebody's own.
    is_record = intent.state.path.kind is Kind.RECORD
    return is_record and isinstance(value, int) and value >= _OLDEST_TIMESTAMP


def _sent_data(intent: Intent) -> JSONObject:
    if intent.verb is not Verb.PATCH:
        return intent.draft.data
    assert intent.patch is not None
    return {} if isinstance(intent.patch, JSONPatch) else intent.patch.body.get("data", {})


def _plan_save(intent: Intent) -> Write | None:
    state, draft = intent.state, intent.draft
    if state.status is Status.NEW:
        return _put(intent, _creating(intent))
    assert state.data is not None
    if is_same(state.data, draft.data) and not draft.permissions:
        return None
    return Write(
        state.path,
        Action.UPDATE,
        _matching(intent),
        old=state.data,
        new=draft.data,
        permissions=draft.permissions,
        all_permissions=draft.all_permissions,
    )


def _plan_replace(intent: Intent) -> Write:
    if intent.state.status is Status.NEW:
        return _put(intent, _creating(intent))
    return _put(intent, _matching(intent))


def _plan_patch(intent: Intent) -> Write:
    state = intent.state
    return Write(state.path, Action.PATCH, _matching(intent), old=state.data, patch=intent.patch)


def _plan_delete(intent: Intent) -> Write:
    return Write(intent.state.path, Action.DELETE, _matching(intent), old=intent.state.data)


_PLANS = {
    Verb.SAVE: _plan_save,
    Verb.REPLACE: _plan_replace,
    Verb.PATCH: _plan_patch,
    Verb.DELETE: _plan_delete,
}


def _put(intent: Intent, precondition: Precondition) -> Write:
    state, draft = intent.state, intent.draft
    # check_data has made sure that what the server owns is unchanged: it is not sent back.
    new = draft.data
    if any(key in new for key in SERVER_OWNED):
        new = {key: value for key, value in new.items() if key not in SERVER_OWNED}
    return Write(
        state.path,
        Action.PUT,
        precondition,
        old=state.data,
        # Of a reference nothing is known: it is made to exist, and keeps what it may have.
        new=None if state.status is Status.REFERENCE and not new else new,
        permissions=draft.permissions,
        all_permissions=draft.all_permissions,
    )


def _creating(intent: Intent) -> Precondition:
    if intent.options.safe and intent.options.if_match is None:
        return ABSENT
    return _matching(intent)  # if_match: the user knows the version that the new object shall replace


def _matching(intent: Intent) -> Precondition:
    if not intent.options.safe:
        return UNCONDITIONAL
    asked = intent.options.if_match
    if asked is None and intent.state.status is Status.LOADED and intent.state.last_modified is None:
        raise NotLoadedError(
            f"{intent.state.path} was loaded without its timestamp, so a safe write is not possible: refresh() it."
        )
    return Precondition(last_modified=intent.state.last_modified if asked is None else asked)


_METHODS = {Action.PUT: "PUT", Action.UPDATE: "PATCH", Action.PATCH: "PATCH", Action.DELETE: "DELETE"}


def settle(intent: Intent, planned: Write, response: Response) -> ObjectState:
    """The state that the answer to the planned write puts the object in.

    Raises the error that the answer stands for.
    """
    method = _METHODS[planned.action]
    if response.status == 412:
        return _settle_conflict(intent, planned, response, method)
    if response.status == 404 and intent.verb is Verb.DELETE and intent.options.if_exists:
        return ObjectState(intent.state.path, Status.DELETED)
    return intent.state.after(read_object(response, planned.path, method))


def _settle_conflict(intent: Intent, planned: Write, response: Response, method: str) -> ObjectState:
    theirs = existing_object(response, str(planned.path))
    if intent.options.if_not_exists and planned.precondition.absent and theirs is not None:
        return intent.state.after(theirs)
    error = error_of(response, method, str(planned.path))
    assert isinstance(error, ConflictError)
    error.base = intent.state.data
    error.mine = wanted_data(intent)
    if theirs is not None:
        error.theirs, error.theirs_last_modified = theirs.data, theirs.last_modified
    raise error


def wanted_data(intent: Intent) -> JSONObject | None:
    """What the object's data would have been after the verb; ``None`` for a delete, or where it cannot be told."""
    if intent.verb is Verb.DELETE:
        return None
    if intent.verb is not Verb.PATCH:
        return intent.draft.data
    return patched_data(intent)


def patched_data(intent: Intent) -> JSONObject | None:
    """What the patch makes of the data last seen; ``None`` where that, or the result, is not known."""
    patch = intent.patch
    if patch is None or isinstance(patch, JSONPatch) or intent.state.data is None:
        return None
    apply = apply_basic_patch if isinstance(patch, BasicPatch) else apply_merge_patch
    return apply(intent.state.data, patch.body.get("data", {}))


def rebase(intent: Intent, error: ConflictError) -> Intent:
    """The same verb, meant for what the server has now: the user chose to write over it.

    Where the object is gone, it is created again.
    """
    if error.theirs is None:
        if intent.verb is Verb.DELETE:
            raise UsageError(f"{intent.state.path} is gone already.")
        state = ObjectState(intent.state.path, Status.NEW)
    else:
        state = replace(
            intent.state,
            status=Status.LOADED,
            data=dict(error.theirs),
            last_modified=error.theirs_last_modified,
            permissions=None,
        )
    return replace(intent, state=state, options=replace(intent.options, if_match=None))


def get_or_create(path: ObjectPath, draft: Draft) -> Flow[tuple[ObjectState, bool]]:
    """The object and whether it was created now, in one request: a 412 carries the data of the one that exists."""
    intent = Intent(Verb.SAVE, ObjectState(path, Status.NEW), draft)
    planned = plan(intent)
    assert planned is not None
    response = yield planned
    if response.status != 412:
        return settle(intent, planned, response), True
    theirs = existing_object(response, str(path))
    if theirs is None:
        # The 412 of a creation always carries the object, unless it was deleted in that very moment.
        raise error_of(response, "PUT", str(path))
    return intent.state.after(theirs), False


def update_or_create(path: ObjectPath, draft: Draft, given: Container[str]) -> Flow[tuple[ObjectState, bool]]:
    """The object with the ``given`` keys set, and whether it was created now (with all of the draft).

    One request where it is new, two where it exists (the second one changes just what the first one showed).
    """
    state, created = yield from get_or_create(path, draft)
    if created:
        return state, True
    assert state.data is not None
    # The rest of the draft are the defaults of its model: they are for a new object only.
    changes = {key: value for key, value in draft.data.items() if key in given}
    merged = replace(draft, data={**state.data, **changes})
    return (yield from write(Intent(Verb.SAVE, state, merged))), False


def get_or_none(path: ObjectPath) -> Flow[ObjectState | None]:
    """The object; ``None`` for a 404 (and only for that)."""
    try:
        return (yield from get(path))
    except NotFoundError:
        return None


def ids_in_chunks(ids: Sequence[str], length: int = 4000) -> list[list[str]]:
    """The ids in groups, each short enough to be named in one URL."""
    chunks: list[list[str]] = []
    room = 0
    for id in ids:
        room -= len(id) + 12  # quotes and comma, percent-encoded
        if room < 0 or not chunks:
            chunks.append([])
            room = length - len(id) - 12
        chunks[-1].append(id)
    return chunks
