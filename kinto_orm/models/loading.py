"""Objects out of what the server said, or out of nothing but their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kinto_orm.errors import NotBoundError, UnsavedChangesError
from kinto_orm.models.data import take_snapshot
from kinto_orm.models.envelope import Envelope, bare, is_kinto_object
from kinto_orm.models.fields import FieldsBefore, declared_fields, validated
from kinto_orm.models.permissions import Permissions
from kinto_orm.protocol.endpoints import Kind, ObjectPath, check_id
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.values import is_same
from kinto_orm.repository import get, require_kind
from kinto_orm.state import Intent, ObjectState, Runner, Status


def find_parent(cls: type[Any], bucket: Any, collection: Any, runner: Callable[[], Runner]) -> Any:
    """The parent of an object of that class: as given, else the class's, else the client's default."""
    parent_class = cls.__kinto_parent__
    if cls.__kinto_kind__ is not Kind.RECORD:
        if is_kinto_object(bucket):
            return bucket
        return reference(parent_class, bucket or cls.__kinto_bucket__ or runner().default_bucket, runner(), None)
    if is_kinto_object(collection):
        return collection
    id = collection or cls.__kinto_collection__ or runner().default_collection
    if id is None:
        raise NotBoundError(
            f"{cls.__name__} belongs to no collection: give collection=…, declare class {cls.__name__}(Record, "
            "collection=…), or give the client a default (collection=…)."
        )
    above = find_parent(parent_class, bucket or cls.__kinto_bucket__, None, runner)
    return reference(parent_class, id, runner(), above)


def reference(cls: type[Any], id: Any, runner: Runner | None, parent: Any) -> Any:
    """An object of which only the place is known."""
    kind: Kind = cls.__kinto_kind__
    return blank(cls, check_id(id, kind.value, kind), Envelope(Status.REFERENCE, client=runner, parent=parent))


def reference_at(cls: Any, ids: Sequence[str], runner: Runner) -> Any:
    """The object of that class with these ids, from its bucket down, of which only the place is known."""
    return reference(cls, ids[-1], runner, reference_at(cls.__kinto_parent__, ids[:-1], runner)) if ids else None


def blank(cls: type[Any], id: str, envelope: Envelope) -> Any:
    """An object without fields, in that envelope."""
    return bare(cls, {"id": id, "last_modified": None}, envelope)


def load(model: Any, state: ObjectState) -> None:
    """Puts the object in the state that the server gave. Raises ``InvalidValueError`` where it does not fit."""
    cls = type(model)
    assert state.data is not None
    fields = declared_fields(cls)
    declared = {key: value for key, value in state.data.items() if key in fields}
    fresh = validated(cls, declared, f"{state.path} as the server has it now does not fit ")
    take_snapshot(model, fresh, state.data)
    _become_loaded(model, state)


def is_as_sent(state: ObjectState, intent: Intent) -> bool:
    """Whether the server stored just the data that was sent, and added nothing."""
    seen = intent.seen or intent.draft
    return intent.patch is None and state.data is not None and is_same(state.data, seen.data)


def take_as_sent(model: Any, state: ObjectState) -> None:
    """Puts the object, which is as it was sent, in the state that the server gave: its fields need no validation."""
    cls, envelope = type(model), model.__kinto_envelope__()
    assert state.data is not None
    fields = declared_fields(cls)
    names = {fields[key] for key in state.data if key in fields}
    envelope.data, envelope.absent = state.data, {}
    object.__setattr__(model, "__pydantic_fields_set__", names)
    _become_loaded(model, state)
    if envelope.dumped is not None:
        # They were written out a moment ago, to see that nobody has edited them since they were sent.
        envelope.before = FieldsBefore(cls, state.data, frozenset(names), envelope.dumped[1])


def _become_loaded(model: Any, state: ObjectState) -> None:
    envelope = model.__kinto_envelope__()
    model.__dict__.update(id=state.path.id, last_modified=state.last_modified)
    envelope.status = Status.LOADED
    envelope.before = envelope.in_doubt = None
    envelope.is_partial = False
    if envelope.permissions is not None:
        envelope.permissions.__kinto_show__(state.permissions)
    elif state.permissions is not None:
        envelope.permissions = Permissions(type(model).__kinto_kind__, state.permissions)


def become_tombstone(model: Any, state: ObjectState) -> None:
    """Makes a tombstone of the object."""
    envelope = model.__kinto_envelope__()
    envelope.status = Status.DELETED
    envelope.in_doubt = None
    if state.last_modified is not None:
        model.__dict__["last_modified"] = state.last_modified


def fetched(cls: type[Any], runner: Runner, parent: Any, path: ObjectPath) -> Flow[Any]:
    """The flow that loads an object."""
    yield from require_kind(path.kind, runner)
    state = yield from get(path)
    model = reference(cls, path.id, runner, parent)
    load(model, state)
    return model


def refreshed(model: Any, *, discard: bool) -> Flow[Any]:
    """The flow that loads the object again."""
    # In this order: what was put in by hand may be such that nobody can tell whether it is a change.
    if not discard and not model.is_new and model.is_dirty:
        raise UnsavedChangesError(
            f"{model!r} has unsaved changes, which refresh() would drop: save(), or refresh(discard=True)."
        )
    path: ObjectPath = model.__kinto_path__()
    yield from require_kind(path.kind, model.__kinto_runner__())
    state = yield from get(path)
    load(model, state)
    return model
