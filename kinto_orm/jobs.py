"""Jobs on several objects at once, as flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kinto_orm.errors import ForbiddenError, InvalidTypeError, PermissionsUnknownError
from kinto_orm.outcomes import Outcome, Staged, commit, raise_unless_stored
from kinto_orm.protocol.endpoints import Kind
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.values import is_same
from kinto_orm.repository import get_or_none
from kinto_orm.state import Draft, Holder, Intent, ObjectState, Status, Verb

_LEVELS = (Kind.BUCKET, Kind.GROUP, Kind.COLLECTION, Kind.RECORD)


def ensure(objects: Sequence[Holder]) -> Flow[tuple[Outcome[Any], ...]]:
    """Makes sure that the objects exist with at least this data and these permissions, in one batch.

    Sends no write where all is there already. Keys and principals that others set are left alone; each object ends
    up loaded. Raises ``CommitError`` where something was not stored.
    """
    described = [(one, *one.__kinto_describe__()) for one in objects]
    for one, state, _ in described:
        if state.status is not Status.NEW:
            raise InvalidTypeError(f"ensure() takes new objects that say what shall be there, not {one!r}.")
    described.sort(key=lambda entry: (_LEVELS.index(entry[1].path.kind), entry[1].path.ids))
    staged: list[Staged[Holder]] = []
    missing: set[tuple[str, ...]] = set()
    for one, state, draft in described:
        found = None if _is_below(state, missing) else (yield from _find(state))
        if found is None:
            missing.add(state.path.ids)
        else:
            _complete(one, found, draft)
        staged.append(Staged(one, Intent(Verb.SAVE, *one.__kinto_describe__())))
    outcomes = {id(outcome.object): outcome for outcome in (yield from commit(staged))}
    in_order = tuple(outcomes[id(one)] for one in objects)
    raise_unless_stored(in_order)
    return in_order


def _is_below(state: ObjectState, missing: set[tuple[str, ...]]) -> bool:
    return any(state.path.ids[:depth] in missing for depth in range(1, len(state.path.ids)))


def _find(state: ObjectState) -> Flow[ObjectState | None]:
    try:
        return (yield from get_or_none(state.path))
    except ForbiddenError:
        if state.path.kind is not Kind.BUCKET:
            raise
        return None  # Kinto says 403 for a bucket that does not exist; if it does, creating it will say so


def _complete(one: Holder, found: ObjectState, draft: Draft) -> None:
    one.__kinto_adopt__(found, None)
    for key, value in draft.data.items():
        if found.data is None or key not in found.data or not is_same(found.data[key], value):
            one.data[key] = value
    for name, principals in (draft.permissions or {}).items():
        if found.permissions is None:
            raise PermissionsUnknownError(f"{found.path}: its permissions cannot be seen, so not completed: {name}.")
        if not found.permissions.get(name, frozenset()) >= set(principals):
            one.permissions[name] = found.permissions.get(name, frozenset()) | set(principals)
