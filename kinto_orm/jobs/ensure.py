"""Jobs on several objects at once, as flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kinto_orm.errors import (
    ConflictError,
    DuplicateObjectError,
    ForbiddenError,
    InvalidTypeError,
    PermissionsUnknownError,
    UnauthorizedError,
)
from kinto_orm.jobs.schemas import NamedSchema, lacks_schema, refuse_locking, require_enforcement
from kinto_orm.protocol.accounts import without_secrets
from kinto_orm.protocol.json_values import is_same
from kinto_orm.protocol.paths import Kind, ObjectPath
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.reads import get, or_none
from kinto_orm.repository.state import Change, FlowRunner, ObjectState, Outcome, Stateful, Status, Verb
from kinto_orm.unit_of_work.engine import commit, raise_unless_stored
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

NO_SCHEMAS: Mapping[ObjectPath, NamedSchema] = {}


def ensure(
    objects: Sequence[Stateful], runner: FlowRunner, schemas: Mapping[ObjectPath, NamedSchema] = NO_SCHEMAS
) -> Flow[tuple[Outcome[Any], ...]]:
    """Make sure that the objects exist with at least this data and these permissions, in one batch.

    Sends no write where all is there already. Keys, principals and members that others set are left alone; each object
    ends up loaded. ``schemas`` has those of the collections that shall have one. Raises ``CommitError`` where something
    was not stored, ``ForbiddenError`` or ``UnauthorizedError`` where the user may not see what exists and nothing was
    stored, and ``SchemaDiffersError``, before anything is sent, where a collection has another schema, or
    none and records.
    """
    refuse_staging(runner, "ensure()")
    to_create = _to_create(objects)
    for path in schemas:
        yield from require_enforcement(path, runner, "ensure(schema=True)")
    changes: list[Change[Any]] = []
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
            if found is not None:
                yield from refuse_locking(path, wanted)
            creation.holder.__kinto_edit__({"schema": wanted.schema}, {})
        changes.append(creation.holder.__kinto_change__(Verb.SAVE))
    yield from commit(changes, runner)
    for one in changes:
        yield from _look_behind_conflict(one)
    by_object = {id(one.holder): one for one in changes}
    in_order = [by_object[id(one)] for one in objects]
    hidden = next((one.error for one in changes if isinstance(one.error, _HIDING)), None)
    if hidden is not None and all(one.status in ("unchanged", "rejected") for one in changes):
        raise hidden
    raise_unless_stored(in_order)
    return tuple(one.outcome for one in in_order)


def _to_create(objects: Sequence[Stateful]) -> list[Change[Stateful]]:
    """Return the changes that create the objects: accounts first, whose users may be the caller, then parents."""
    creations = [one.__kinto_change__(Verb.SAVE) for one in objects]
    known: set[ObjectPath] = set()
    for one in creations:
        path = one.state.path
        if one.state.status is not Status.NEW:
            raise InvalidTypeError(f"ensure() takes new objects that say what shall be there, not {one.holder!r}.")
        if path in known:
            raise DuplicateObjectError(f"ensure() was given two objects for {path}.")
        known.add(path)
    return sorted(creations, key=_order)


def _order(one: Change[Stateful]) -> tuple[bool, int, Sequence[str]]:
    path = one.state.path
    return path.kind is not Kind.ACCOUNT, path.kind.level, path.ids


def _is_below(path: ObjectPath, missing: set[ObjectPath]) -> bool:
    # Not by the ids alone: a group and a collection of one bucket may have the same.
    holders = [one for one in missing if one.kind in (Kind.BUCKET, Kind.COLLECTION) and len(one.ids) < len(path.ids)]
    return any(path.ids[: len(one.ids)] == one.ids for one in holders)


def _find(path: ObjectPath) -> Flow[ObjectState | None]:
    try:
        return (yield from or_none(get(path)))
    except _HIDING:
        if path.kind not in (Kind.BUCKET, Kind.ACCOUNT):
            raise
        return None  # Kinto says so of what does not exist, too; if it does, creating it will say so


_HIDING = (ForbiddenError, UnauthorizedError)


def _look_behind_conflict(one: Change[Any]) -> Flow[None]:
    """Give the change the server's refusal to show the object, where its creation found one that may not be seen."""
    path = one.state.path
    if not isinstance(one.error, ConflictError) or path.kind not in (Kind.BUCKET, Kind.ACCOUNT):
        return
    try:
        yield from or_none(get(path))
    except _HIDING as hidden:
        hidden.args = (f"{path} exists already, and may not be seen. {hidden}",)
        one.status, one.error = "rejected", hidden


def _complete(wanted: Change[Stateful], found: ObjectState) -> None:
    """Load the object that was found, and add what it lacks."""
    wanted.holder.__kinto_apply_state__(found, None)
    had = found.data or {}
    data = {key: value for key, value in wanted.data.items() if key not in had or not is_same(had[key], value)}
    if found.path.kind is Kind.GROUP and "members" in data:
        members = had.get("members", [])
        data["members"] = [*members, *(one for one in data["members"] if one not in members)]
    data = without_secrets(found.path, data) or {}  # whether a password is the same cannot be told: it stays
    permissions: dict[str, frozenset[str]] = {}
    for name, principals in (wanted.permissions or {}).items():
        if found.permissions is None:
            raise PermissionsUnknownError(f"{found.path}: its permissions cannot be seen, so not completed: {name}.")
        if not found.permissions.get(name, frozenset()) >= set(principals):
            permissions[name] = found.permissions.get(name, frozenset()) | set(principals)
    wanted.holder.__kinto_edit__(data, permissions)
