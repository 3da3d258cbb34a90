"""The write of each verb on one object, with its precondition.

https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html#concurrency-control
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kinto_orm.errors import DeletedObjectError, InvalidValueError, NotLoadedError, PartialObjectError
from kinto_orm.protocol.accounts import check_json_patch, check_password
from kinto_orm.protocol.json_values import JSON, JSONObject, is_same
from kinto_orm.protocol.patches import JSONPatch
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath, draw_id
from kinto_orm.protocol.writes import ABSENT, UNCONDITIONAL, Action, Precondition, Write, encode_entry
from kinto_orm.repository.state import NO_OPTIONS, Change, ObjectState, Status, Verb

H = TypeVar("H")

SERVER_OWNED = ("last_modified", "deleted", "__permissions__")
"""Keys of ``data`` that only the server sets: it would act on them, not store them."""

_SERVER_OWNED = frozenset(SERVER_OWNED)

_OLDEST_TIMESTAMP = 10**12
"""In milliseconds: the year 2001."""


def encode_change(change: Change[Any]) -> bool:
    """Encode the change for a batch, unless it is encoded; return whether anything has to be sent.

    Raises like :func:`plan`, and ``NotStageableError`` for a change that a batch cannot carry.
    """
    if change.entry is not None:
        return True
    write = change.write = plan(change)
    if write is None:
        return False
    change.entry = encode_entry(write)
    return True


class Creations:
    """The creations of records of one list, encoded for a batch: what is the same for all is looked at once."""

    def __init__(self, path: PluralPath) -> None:
        """Raise ``NotStageableError`` for a list that a batch cannot write to."""
        self.path = path
        sample = path.object("0")
        self._entry = encode_entry(Write(sample, Action.PUT, ABSENT, new={}))
        self._begin = str(sample)[:-1]

    def encode(self, holder: H, data: JSONObject, mark: Any) -> Change[H] | None:
        """Return the change that stores the object under a new id; ``None`` where that takes a closer look."""
        if not _SERVER_OWNED.isdisjoint(data):
            return None
        id = draw_id(self.path.kind)
        path = ObjectPath(self.path.kind, (*self.path.parent_ids, id))
        change = Change(holder, Verb.SAVE, ObjectState(path, Status.NEW, has_drawn_id=True), data, all_permissions={})
        change.mark = mark
        change.entry = {**self._entry, "path": self._begin + id, "body": {"data": data}}
        return change


def plan(change: Change[Any]) -> Write | None:
    """Return the write that carries out the change; ``None`` where nothing has to be sent.

    Raises ``UsageError`` where the object is in no state for the verb, ``InvalidValueError`` for data that only the
    server may set.
    """
    if change.state.status is not Status.NEW or change.state.is_partial:
        _check_status(change)
    check_data(change)
    return _PLANS[change.verb](change)


def _check_status(change: Change[Any]) -> None:
    state, verb = change.state, change.verb
    if state.status is Status.DELETED:
        raise DeletedObjectError(f"{state.path} was deleted: refresh() tells whether it came back.")
    if state.is_partial and verb is not Verb.DELETE:
        raise PartialObjectError(
            f"{state.path} holds only some of its fields (only()): refresh() before {verb.value}()."
        )
    is_whole = verb is Verb.SAVE or (verb is Verb.REPLACE and change.options.safe)
    if state.status is Status.REFERENCE and is_whole:
        raise NotLoadedError(f"{state.path} is a reference, its data was never read: refresh() before {verb.value}().")


def check_data(change: Change[Any]) -> None:
    """Raise ``InvalidValueError`` where the user set a key that only the server sets."""
    state = change.state
    known = state.data or {}
    wanted = change.data
    if change.patch is not None:
        wanted = {} if isinstance(change.patch, JSONPatch) else change.patch.body.get("data", {})
    if state.path.kind is Kind.ACCOUNT:
        _check_password(change, wanted)
    for key in () if _SERVER_OWNED.isdisjoint(wanted) else SERVER_OWNED:
        if key in wanted and not (key in known and is_same(known[key], wanted[key])):
            raise InvalidValueError(f"{state.path}: data[{key!r}] is set by the server only: remove it.")
    if (
        "schema" in known
        and is_schema_timestamp(state.path.kind, known["schema"])
        and not is_same(known["schema"], wanted.get("schema", known["schema"]))
    ):
        raise InvalidValueError(f"{state.path}: data['schema'] is set by the server only: leave it.")


def _check_password(change: Change[Any], sent: JSONObject) -> None:
    path = change.state.path
    if change.verb is Verb.DELETE:
        return
    if isinstance(change.patch, JSONPatch):
        check_json_patch(path, change.patch)
    elif "password" in sent:
        check_password(path, sent["password"])
    elif change.state.status is Status.NEW and change.verb is not Verb.PATCH:
        raise InvalidValueError(f"{path}: a new account needs a password: Account(id=…, password=…).")
    elif change.verb is Verb.REPLACE:
        # The server has shown a hash, if anything.
        raise InvalidValueError(f"{path}: replace() stores all of an account, and its password is unknown: save() it.")


def is_schema_timestamp(kind: Kind, value: JSON) -> bool:
    """Return whether this value of the key ``schema`` is the server's own."""
    # Where a collection has a JSON schema, the server keeps the schema's timestamp in this key of its records, and
    # overwrites it in what is sent. A smaller number is the user's own.
    return kind is Kind.RECORD and isinstance(value, int) and value >= _OLDEST_TIMESTAMP


def without_schema_timestamp(kind: Kind, data: JSONObject) -> JSONObject:
    """Return the data without a ``schema`` that is the server's own."""
    if not is_schema_timestamp(kind, data.get("schema")):
        return data
    return {key: value for key, value in data.items() if key != "schema"}


def _plan_save(change: Change[Any]) -> Write | None:
    state = change.state
    if state.status is Status.NEW:
        return _put(change, ABSENT if change.options is NO_OPTIONS else _creating(change))
    assert state.data is not None
    # A write in doubt may have stored something else than the object holds, even where that is as it was before.
    if is_same(state.data, change.data) and not change.permissions and state.in_doubt is None:
        return None
    return Write(
        state.path,
        Action.UPDATE,
        _matching(change),
        old=state.data,
        new=change.data,
        permissions=change.permissions,
        all_permissions=change.all_permissions,
    )


def _plan_patch(change: Change[Any]) -> Write:
    state = change.state
    known = None if state.permissions is None else {name: sorted(given) for name, given in state.permissions.items()}
    return Write(state.path, Action.PATCH, _matching(change), old=state.data, patch=change.patch, all_permissions=known)


_PLANS: Mapping[Verb, Callable[[Change[Any]], Write | None]] = {
    Verb.SAVE: _plan_save,
    Verb.REPLACE: lambda one: _put(one, _creating(one) if one.state.status is Status.NEW else _matching(one)),
    Verb.PATCH: _plan_patch,
    Verb.DELETE: lambda one: Write(one.state.path, Action.DELETE, _matching(one), old=one.state.data),
}


def _put(change: Change[Any], precondition: Precondition) -> Write:
    state = change.state
    # check_data has made sure that the server's keys are unchanged: they are not sent back.
    new = change.data
    if not _SERVER_OWNED.isdisjoint(new):
        new = {key: value for key, value in new.items() if key not in SERVER_OWNED}
    return Write(
        state.path,
        Action.PUT,
        precondition,
        old=state.data,
        # The data of a reference is unknown: the object is made to exist, and keeps any data.
        new=None if state.status is Status.REFERENCE and not new else new,
        permissions=change.permissions,
        all_permissions=change.all_permissions,
    )


def _must_ask(change: Change[Any]) -> bool:
    """Return whether the object may be there in a version that an earlier change of ours made, or that followed it.

    This is the one place that asks about doubt: an object that counts as new, or was never read, has no version to
    expect, so its write expects no object, and the 412 tells which one is there.
    """
    is_creation_in_doubt = any(one.state.status is Status.NEW and one.verb in _CREATING for one in change.doubts)
    return is_creation_in_doubt or isinstance(change.patch, JSONPatch)  # applied twice, that does more than once


_CREATING = (Verb.SAVE, Verb.REPLACE)


def _creating(change: Change[Any]) -> Precondition:
    if change.options.safe and change.options.if_match is None:
        return ABSENT
    return _matching(change)  # if_match: the user knows the version that the new object shall replace


def _matching(change: Change[Any]) -> Precondition:
    if not change.options.safe:
        return UNCONDITIONAL
    state, asked = change.state, change.options.if_match
    if asked is None and state.in_doubt is not None and state.last_modified is None and _must_ask(change):
        return ABSENT
    if asked is None and state.status is Status.LOADED and state.last_modified is None:
        raise NotLoadedError(
            f"{state.path} was loaded without its timestamp, so a safe write is not possible: refresh() it."
        )
    return Precondition(last_modified=state.last_modified if asked is None else asked)
