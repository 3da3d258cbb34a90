"""Jobs on several objects at once, as flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kinto_orm.errors import DuplicateObjectError, ForbiddenError, InvalidTypeError, PermissionsUnknownError
from kinto_orm.jobs.schemas import NamedSchema, lacks_schema, require_enforcement
from kinto_orm.protocol.accounts import without_secrets
from kinto_orm.protocol.json_values import is_same
from kinto_orm.protocol.paths import Kind, ObjectPath
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository import get_or_none
from kinto_orm.repository.state import Draft, FlowRunner, Intent, ObjectState, Stateful, Status, Verb
from kinto_orm.unit_of_work import Outcome, Staged, commit, raise_unless_stored

NO_SCHEMAS: Mapping[ObjectPath, NamedSchema] = {}


def ensure(
    objects: Sequence[Stateful], runner: FlowRunner, schemas: Mapping[ObjectPath, NamedSchema] = NO_SCHEMAS
) -> Flow[tuple[Outcome[Any], ...]]:
    """Make sure that the objects exist with at least this data and these permissions, in one batch.

    Sends no write where all is there already. Keys and principals that others set are left alone; each object ends
    up loaded. ``schemas`` has those of the collections that shall have one. Raises ``CommitError`` where something was
    not stored, and ``SchemaDiffersError``, before anything is sent, where a collection has another schema.
    """
    runner.refuse_staging("ensure()")
    described = _described(objects)
    for path in schemas:
        yield from require_enforcement(path, runner, "ensure(schema=True)")
    staged: list[Staged[Stateful]] = []
    missing: set[ObjectPath] = set()
    for one, state, draft in described:
        found = None if _is_below(state, missing) else (yield from _find(state))
        if found is None:
            missing.add(state.path)
        else:
            _complete(one, found, draft)
        wanted = schemas.get(state.path)
        if wanted is not None and lacks_schema(None if found is None else found.data, wanted, state.path):
            one.__kinto_edit__({"schema": wanted.schema}, {})
        staged.append(Staged(one, Intent(Verb.SAVE, *one.__kinto_describe__())))
    outcomes = {id(outcome.object): outcome for outcome in (yield from commit(staged, runner))}
    in_order = tuple(outcomes[id(one)] for one in objects)
    raise_unless_stored(in_order)
    return in_order


def _described(objects: Sequence[Stateful]) -> list[tuple[Stateful, ObjectState, Draft]]:
    """The objects, parents first."""
    described = [(one, *one.__kinto_describe__()) for one in objects]
    known: set[ObjectPath] = set()
    for one, state, _ in described:
        if state.status is not Status.NEW:
            raise InvalidTypeError(f"ensure() takes new objects that say what shall be there, not {one!r}.")
        if state.path in known:
            raise DuplicateObjectError(f"ensure() was given two objects for {state.path}.")
        known.add(state.path)
    return sorted(described, key=lambda entry: (entry[1].path.kind.level, entry[1].path.ids))


def _is_below(state: ObjectState, missing: set[ObjectPath]) -> bool:
    # Not by the ids alone: a group and a collection of one bucket may have the same.
    path = state.path
    holders = [one for one in missing if one.kind in (Kind.BUCKET, Kind.COLLECTION) and len(one.ids) < len(path.ids)]
    return any(path.ids[: len(one.ids)] == one.ids for one in holders)


def _find(state: ObjectState) -> Flow[ObjectState | None]:
    try:
        return (yield from get_or_none(state.path))
    except ForbiddenError:
        if state.path.kind is not Kind.BUCKET:
            raise
        return None  # Kinto says 403 for a bucket that does not exist; if it does, creating it will say so


def _complete(one: Stateful, found: ObjectState, draft: Draft) -> None:
    one.__kinto_apply_state__(found, None)
    had = found.data or {}
    data = {key: value for key, value in draft.data.items() if key not in had or not is_same(had[key], value)}
    data = without_secrets(found.path, data) or {}  # whether a password is the same cannot be told: it stays
    permissions: dict[str, frozenset[str]] = {}
    for name, principals in (draft.permissions or {}).items():
        if found.permissions is None:
            raise PermissionsUnknownError(f"{found.path}: its permissions cannot be seen, so not completed: {name}.")
        if not found.permissions.get(name, frozenset()) >= set(principals):
            permissions[name] = found.permissions.get(name, frozenset()) | set(principals)
    one.__kinto_edit__(data, permissions)
