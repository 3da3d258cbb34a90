"""What each verb on one object comes to: which write, with which precondition.

https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html#concurrency-control
"""

from __future__ import annotations

from kinto_orm.errors import DeletedObjectError, InvalidValueError, NotLoadedError, PartialObjectError
from kinto_orm.protocol.accounts import check_json_patch, check_password
from kinto_orm.protocol.json_values import JSON, JSONObject, is_same
from kinto_orm.protocol.patches import JSONPatch
from kinto_orm.protocol.paths import Kind
from kinto_orm.protocol.writes import ABSENT, UNCONDITIONAL, Action, Precondition, Write
from kinto_orm.repository.state import Intent, Status, Verb

SERVER_OWNED = ("last_modified", "deleted", "__permissions__")
"""Keys of ``data`` that only the server sets: it would act on them, not store them."""

_SERVER_OWNED = frozenset(SERVER_OWNED)

_OLDEST_TIMESTAMP = 10**12
"""In milliseconds: the year 2001."""


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
    _check_password(intent, wanted)
    for key in () if _SERVER_OWNED.isdisjoint(wanted) else SERVER_OWNED:
        if key in wanted and not (key in known and is_same(known[key], wanted[key])):
            raise InvalidValueError(f"{intent.state.path}: data[{key!r}] is set by the server only: remove it.")
    if (
        "schema" in known
        and is_schema_timestamp(intent.state.path.kind, known["schema"])
        and not is_same(known["schema"], wanted.get("schema", known["schema"]))
    ):
        raise InvalidValueError(f"{intent.state.path}: data['schema'] is set by the server only: leave it.")


def _check_password(intent: Intent, sent: JSONObject) -> None:
    path = intent.state.path
    if path.kind is not Kind.ACCOUNT or intent.verb is Verb.DELETE:
        return
    if isinstance(intent.patch, JSONPatch):
        check_json_patch(path, intent.patch)
    elif "password" in sent:
        check_password(path, sent["password"])
    elif intent.state.status is Status.NEW and intent.verb is not Verb.PATCH:
        raise InvalidValueError(f"{path}: a new account needs a password: Account(id=…, password=…).")
    elif intent.verb is Verb.REPLACE:
        # The server has shown a hash, if anything.
        raise InvalidValueError(f"{path}: replace() stores all of an account, and its password is unknown: save() it.")


def is_schema_timestamp(kind: Kind, value: JSON) -> bool:
    """Whether this value of the key ``schema`` is the server's own."""
    # Where a collection has a JSON schema, the server keeps the schema's timestamp in this key of its records, and
    # overwrites what is sent there. A smaller number is somebody's own.
    return kind is Kind.RECORD and isinstance(value, int) and value >= _OLDEST_TIMESTAMP


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
    # What a write in doubt may have stored is not what the object holds, even where that is as it was before.
    if is_same(state.data, draft.data) and not draft.permissions and state.in_doubt is None:
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
    known = None if state.permissions is None else {name: sorted(given) for name, given in state.permissions.items()}
    return Write(state.path, Action.PATCH, _matching(intent), old=state.data, patch=intent.patch, all_permissions=known)


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
    if not _SERVER_OWNED.isdisjoint(new):
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
