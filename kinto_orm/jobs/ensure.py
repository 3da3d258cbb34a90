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
from kinto_orm.repository.state import Change, FlowRunner, ObjectState, Outcome, Stateful, Status, Verb
from kinto_orm.unit_of_work import commit, raise_unless_stored

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
    to_create = _to_create(objects)
    for path in schemas:
        yield from require_enforcement(path, runner, "ensure(schema=True)")
    changes: list[Change[Stateful]] = []
    missing: set[ObjectPath] = set()
    for creation in to_create:
        path = creation.state.path
        found = None if _is_below(path, missing) else (yield from _find(path))
        if found is None:
            missing.add(path)
        else:
            _complete(creation, found)
        wanted = schemas.get(path)
        if wanted is not None and lacks_schema(None if found is None else found.data, wanted, path):
            creation.holder.__kinto_edit__({"schema": wanted.schema}, {})
        changes.append(creation.holder.__kinto_change__(Verb.SAVE))
    by_object = {id(one.holder): one for one in (yield from commit(changes, runner))}
    in_order = [by_object[id(one)] for one in objects]
    raise_unless_stored(in_order)
    return tuple(one.outcome for one in in_order)


def _to_create(objects: Sequence[Stateful]) -> list[Change[Stateful]]:
    """Return the changes that create the objects, parents first."""
    creations = [one.__kinto_change__(Verb.SAVE) for one in objects]
    known: set[ObjectPath] = set()
    for one in creations:
        path = one.state.path
        if one.state.status is not Status.NEW:
            raise InvalidTypeError(f"ensure() takes new objects that say what shall be there, not {one.holder!r}.")
        if path in known:
            raise DuplicateObjectError(f"ensure() was given two objects for {path}.")
        known.add(path)
    return sorted(creations, key=lambda one: (one.state.path.kind.level, one.state.path.ids))


def _is_below(path: ObjectPath, missing: set[ObjectPath]) -> bool:
    # Not by the ids alone: a group and a collection of one bucket may have the same.
    holders = [one for one in missing if one.kind in (Kind.BUCKET, Kind.COLLECTION) and len(one.ids) < len(path.ids)]
    return any(path.ids[: len(one.ids)] == one.ids for one in holders)


def _find(path: ObjectPath) -> Flow[ObjectState | None]:
    try:
        return (yield from get_or_none(path))
    except ForbiddenError:
        if path.kind is not Kind.BUCKET:
            raise
        return None  # Kinto says 403 for a bucket that does not exist; if it does, creating it will say so


def _complete(wanted: Change[Stateful], found: ObjectState) -> None:
    """Load the object that was found, and add what it lacks."""
    wanted.holder.__kinto_apply_state__(found, None)
    had = found.data or {}
    data = {key: value for key, value in wanted.data.items() if key not in had or not is_same(had[key], value)}
    data = without_secrets(found.path, data) or {}  # whether a password is the same cannot be told: it stays
    permissions: dict[str, frozenset[str]] = {}
    for name, principals in (wanted.permissions or {}).items():
        if found.permissions is None:
            raise PermissionsUnknownError(f"{found.path}: its permissions cannot be seen, so not completed: {name}.")
        if not found.permissions.get(name, frozenset()) >= set(principals):
            permissions[name] = found.permissions.get(name, frozenset()) | set(principals)
    wanted.holder.__kinto_edit__(data, permissions)
