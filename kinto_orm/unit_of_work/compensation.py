"""Undoing the stored part of a failed commit, by writes that each carry a precondition.

It is not a rollback: others have seen the stored objects, and their later writes are left alone and reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from kinto_orm.errors import KintoError, UnitOfWorkError
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.paging import read_count
from kinto_orm.protocol.patches import JSONPatch
from kinto_orm.protocol.paths import Kind, ObjectPath, PluralPath
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.reconciling import wanted_data
from kinto_orm.repository.state import Change, FlowRunner, ObjectState, Outcome, Status, Verb
from kinto_orm.repository.verbs import SERVER_OWNED, is_schema_timestamp
from kinto_orm.unit_of_work.engine import CommitOptions, commit
from kinto_orm.unit_of_work.staging import in_order

_CHILDREN = {Kind.BUCKET: (Kind.COLLECTION, Kind.GROUP), Kind.COLLECTION: (Kind.RECORD,)}


def compensate(changes: Sequence[Change[Any]], runner: FlowRunner) -> Flow[tuple[Outcome[Any], ...]]:
    """Undo each stored change, the last one first, and return one outcome for each.

    A created object is deleted, a changed one gets its data and permissions back, a deleted one is created again, each
    only where no client wrote it since. A change that cannot be undone has the reason in ``error``. Each object then
    has the server's state.
    """
    found: dict[ObjectPath, Outcome[Any]] = {}
    undone: dict[ObjectPath, Change[Any]] = {}
    stored = [(one, one.sent, one.after) for one in changes if one.is_stored]
    paths = [after.path for _, sent, after in stored if sent is not None and after is not None]
    for one, sent, after in stored:
        if sent is None or after is None:
            continue
        try:
            undone[after.path] = _inverse(sent, after)
        except KintoError as error:
            found[after.path] = Outcome(one.holder, one.verb, "not_sent", error)
    for some in _by_level(in_order(undone.values())):
        ready = yield from _without_others(some, found)
        for inverse in (yield from commit(ready, runner, CommitOptions(chunked=True))):
            found[inverse.state.path] = _with_what_is_missing(inverse)
    return tuple(found[path] for path in reversed(paths) if path in found)


def _with_what_is_missing(inverse: Change[Any]) -> Outcome[Any]:
    """Return the outcome; with an error where the object was created again, but not with all that it had."""
    outcome = inverse.outcome
    if outcome.error is not None or inverse.state.status is not Status.NEW or inverse.permissions is not None:
        return outcome
    error = UnitOfWorkError(
        f"{inverse.state.path} was created again without its permissions: they were not known, its creator has some."
    )
    return replace(outcome, error=error)


def _by_level(ordered: Iterable[Change[Any]]) -> list[list[Change[Any]]]:
    """Return the changes in groups: objects of others in a bucket or collection show only once ours are deleted."""
    groups: list[list[Change[Any]]] = [[]]
    for one in ordered:
        if one.verb is Verb.DELETE and one.state.path.kind in _CHILDREN and groups[-1]:
            last = groups[-1][-1]
            if last.verb is not Verb.DELETE or last.state.path.kind is not one.state.path.kind:
                groups.append([])
        groups[-1].append(one)
    return groups


def _without_others(changes: Sequence[Change[Any]], found: dict[ObjectPath, Outcome[Any]]) -> Flow[list[Change[Any]]]:
    """Return the changes without deletions that would take along objects of other clients."""
    ready: list[Change[Any]] = []
    for one in changes:
        path = one.state.path
        count = 0
        for kind in _CHILDREN.get(path.kind, ()) if one.verb is Verb.DELETE else ():
            count += yield from read_count(PluralPath(kind, path.ids), "")
        if count:
            error = UnitOfWorkError(f"{path} was created by this unit, but others have put {count} objects into it.")
            found[path] = Outcome(one.holder, Verb.DELETE, "not_sent", error)
        else:
            ready.append(one)
    return ready


def _inverse(change: Change[Any], after: ObjectState) -> Change[Any]:
    """Return the change that undoes the other one; raise ``UnitOfWorkError`` where there is none."""
    before, expected = change.state, change.options.if_match
    if (
        before.path.kind is Kind.ACCOUNT
        and before.status is not Status.NEW
        and (after.status is Status.DELETED or not before.path.kind.secrets.isdisjoint(wanted_data(change) or ()))
    ):
        raise _unknown(before, "its password was")
    if not change.options.safe:
        raise UnitOfWorkError(f"{before.path} was written with safe=False: what it replaced, if anything, is unknown.")
    if before.is_partial or expected not in (None, before.last_modified):
        raise _unknown(before, "its data was")  # not all of it, or not in the version that was expected
    if after.status is Status.DELETED:
        return _restoration(change)
    # The whole object, so that nothing of it counts as an unsaved edit.
    now = Change(change.holder, Verb.SAVE, after, after.data or {})
    if before.status is Status.NEW and change.verb is not Verb.PATCH:
        return Change(change.holder, Verb.DELETE, after, {}, seen=now)
    if before.data is None or after.data is None:
        raise _unknown(before, "its data was")
    changed = _changed_permissions(change)
    if changed and before.permissions is None:
        raise _unknown(before, "its permissions were")
    known = before.permissions or {}
    permissions = {name: sorted(known.get(name, frozenset())) for name in changed}
    complete = {name: sorted(principals) for name, principals in known.items()} if permissions else None
    data = _with_servers_own(before.data, after)
    return Change(change.holder, Verb.SAVE, after, data, permissions or None, complete, seen=now)


def _restoration(deletion: Change[Any]) -> Change[Any]:
    before, path = deletion.state, deletion.state.path
    if before.data is None:
        raise _unknown(before, "its data was")
    if path.kind in _CHILDREN:
        raise UnitOfWorkError(f"{path} was deleted with all that was in it, which cannot be brought back.")
    known = before.permissions
    complete = None if known is None else {name: sorted(principals) for name, principals in known.items()}
    data = {key: value for key, value in before.data.items() if key not in SERVER_OWNED}
    return Change(deletion.holder, Verb.SAVE, ObjectState(path, Status.NEW), data, complete, complete or {})


def _unknown(state: ObjectState, what: str) -> UnitOfWorkError:
    return UnitOfWorkError(f"{state.path} cannot be brought back: {what} not known before.")


def _with_servers_own(data: JSONObject, after: ObjectState) -> JSONObject:
    """Return the old data with the current values of the keys that the server sets."""
    assert after.data is not None
    own = {*SERVER_OWNED}
    if is_schema_timestamp(after.path.kind, after.data.get("schema")):
        own.add("schema")
    kept = {key: value for key, value in data.items() if key not in own}
    return {**kept, **{key: after.data[key] for key in own if key in after.data}}


def _changed_permissions(change: Change[Any]) -> set[str]:
    if change.patch is None:
        return set(change.permissions or ())
    if isinstance(change.patch, JSONPatch):
        return set(change.state.permissions or ()) if change.state.permissions else set()
    return set(change.patch.body.get("permissions", ()))
