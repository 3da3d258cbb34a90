"""Objects made from the server's answers, or from their path alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import repeat
from typing import Any, TypeVar

from pydantic import ValidationError

from kinto_orm.errors import InvalidValueError, NotBoundError, ProtocolError, UnsavedChangesError
from kinto_orm.models.codec import Codec, codec_of, invalid
from kinto_orm.models.data import apply_snapshot, remember_defaults, remember_texts, restore_fields
from kinto_orm.models.envelope import Envelope, PageSnapshot, SharedEnvelope, bare, is_kinto_object, put_in_envelope
from kinto_orm.models.permissions import Permissions
from kinto_orm.protocol.json_values import JSONObject, decode, may_overflow, pause_collector
from kinto_orm.protocol.paging import is_tombstone, rows_of, without_envelope
from kinto_orm.protocol.paths import Kind, ObjectPath, check_id
from kinto_orm.protocol.responses import ShownPermissions
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.execution import LoadedRows
from kinto_orm.repository.reads import get, require_kind
from kinto_orm.repository.state import FlowRunner, ObjectState, Status

T = TypeVar("T")

SMALL_PAGE = 20_000
"""Bytes of a page whose objects are too few to make the garbage collector run."""


def find_parent(cls: type[Any], bucket: Any, collection: Any, runner: Callable[[], FlowRunner]) -> Any:
    """Return the parent of an object of that class: as given, else the class's, else the client's default."""
    given = collection if cls.__kinto_kind__ is Kind.RECORD else bucket
    if is_kinto_object(given):
        return given
    if is_kinto_object(bucket):
        return reference(cls.__kinto_parent__, _collection_id(cls, collection, runner()), runner(), bucket)
    return reference_at(cls.__kinto_parent__, parent_ids(cls, runner(), bucket, collection), runner())


def parent_ids(cls: type[Any], runner: FlowRunner, bucket: Any = None, collection: Any = None) -> tuple[str, ...]:
    """Return the ids of the parent of an object of that class: as given, else the class's, else the client's default.

    Raises ``NotBoundError`` where there is no collection.
    """
    if cls.__kinto_parent__ is None:
        return ()
    id = bucket or cls.__kinto_bucket__ or runner.default_bucket
    return (id, _collection_id(cls, collection, runner)) if cls.__kinto_kind__ is Kind.RECORD else (id,)


def _collection_id(cls: type[Any], given: Any, runner: FlowRunner) -> Any:
    id = given or cls.__kinto_collection__ or runner.default_collection
    if id is None:
        raise NotBoundError(
            f"{cls.__name__} belongs to no collection: give collection=…, declare class {cls.__name__}(Record, "
            "collection=…), or give the client a default (collection=…)."
        )
    return id


def reference(cls: type[T], id: Any, runner: FlowRunner | None, parent: Any = None) -> T:
    """Return an object of which only the path is known."""
    model: Any = cls
    kind: Kind = model.__kinto_kind__
    one: T = blank(cls, check_id(id, kind.value, kind), Envelope(Status.REFERENCE, client=runner, parent=parent))
    return one


def reference_at(cls: Any, ids: Sequence[str], runner: FlowRunner) -> Any:
    """Return the object of that class with these ids, from its bucket down, of which only the path is known."""
    if not ids:
        return None
    parent = reference_at(cls.__kinto_parent__, ids[:-1], runner)
    return blank(cls, ids[-1], Envelope(Status.REFERENCE, client=runner, parent=parent))


def blank(cls: type[Any], id: str, envelope: Envelope) -> Any:
    """Return an object without fields, in that envelope."""
    return bare(cls, {"id": id, "last_modified": None}, envelope)


def load(model: Any, state: ObjectState) -> None:
    """Put the object in the state that the server gave. Raises ``InvalidValueError`` where it does not fit."""
    fresh, data = _read(type(model), state)
    apply_snapshot(model, fresh, data)
    model.__dict__["id"] = state.path.id
    become_loaded(model, model.__kinto_envelope__(), state.last_modified, state.permissions)


def load_one(cls: type[Any], state: ObjectState, runner: FlowRunner, parent: Any) -> Any:
    """Return a new object in the state that the server gave; without a parent, it finds it by its path.

    Raises ``InvalidValueError`` where the state does not fit.
    """
    fresh, data = _read(cls, state)
    envelope = Envelope(Status.LOADED, client=runner, parent=parent)
    envelope.path = state.path
    if state.permissions is not None:
        envelope.permissions = Permissions(cls.__kinto_kind__, state.permissions)
    return _loaded(fresh, data, envelope)


def _read(cls: type[Any], state: ObjectState) -> tuple[Any, JSONObject]:
    assert state.data is not None
    row = {**state.data, "id": state.path.id, "last_modified": state.last_modified}
    try:
        return codec_of(cls).load(row), state.data
    except InvalidValueError as error:
        raise InvalidValueError(f"{state.path} as the server has it now does not fit {error}") from error


def become_loaded(model: Any, envelope: Envelope, last_modified: int | None, shown: ShownPermissions) -> None:
    """Make the object, which has the server's data, one that was loaded."""
    model.__dict__["last_modified"] = last_modified
    envelope.status = Status.LOADED
    envelope.in_doubt = None
    envelope.is_partial = False
    if envelope.permissions is not None:
        envelope.permissions.__kinto_show__(shown)
    elif shown is not None:
        envelope.permissions = Permissions(type(model).__kinto_kind__, shown)


def mark_deleted(model: Any, state: ObjectState) -> None:
    """Make the object a tombstone."""
    envelope = model.__kinto_envelope__()
    envelope.status = Status.DELETED
    envelope.in_doubt = None
    if state.last_modified is not None:
        model.__dict__["last_modified"] = state.last_modified


def fetched(cls: type[Any], runner: FlowRunner, path: ObjectPath) -> Flow[Any]:
    """Return the flow that loads an object."""
    yield from require_kind(path.kind, runner)
    state = yield from get(path)
    return load_one(cls, state, runner, None)


def refreshed(model: T, *, discard: bool) -> Flow[T]:
    """Return the flow that loads the object again."""
    one: Any = model
    # In this order, because a value that was put in by hand may not show whether it is a change.
    if not discard and not one.is_new and one.is_dirty:
        raise UnsavedChangesError(
            f"{one!r} has unsaved changes, which refresh() would drop: save(), or refresh(discard=True)."
        )
    path: ObjectPath = one.__kinto_path__()
    yield from require_kind(path.kind, one.__kinto_runner__())
    load(one, (yield from get(path)))
    return model


def load_page(model: type[Any], rows: LoadedRows, runner: FlowRunner, parent: Any) -> list[Any]:
    """Return the objects of the page, which share one envelope.

    Raises ``InvalidValueError`` for a row that does not fit the model, unless they are skipped or kept, and
    ``ProtocolError`` for a malformed page.
    """
    shared = SharedEnvelope(Status.LOADED, client=runner, parent=parent)
    shared.page = PageSnapshot(rows.page.body, rows.path)
    if not rows.is_partial and not rows.may_hold_tombstones:
        try:
            with pause_collector() if len(rows.page.body) > SMALL_PAGE else nullcontext():
                return _load_at_once(codec_of(model), rows, shared)
        except ValidationError:
            pass  # row by row then, which names the culprit
    return list(_load_one_by_one(model, rows, shared))


def _load_at_once(codec: Codec, rows: LoadedRows, shared: Envelope) -> list[Any]:
    page = shared.page
    assert page is not None
    if codec.is_surely_plain:  # the page is decoded for the data anyway
        decoded = rows_of(decode(rows.page.body, str(rows.path)), rows.path)
        page.keep(decoded)
        objects = codec.load_plain(decoded)
    else:
        if not codec.is_surely_finite and may_overflow(rows.page.body):
            decode(rows.page.body, str(rows.path))  # refuses them outside texts; pydantic would take them as numbers
        objects = codec.load_page(rows.page.body)
    deque(map(codec.model._envelope.__set__, objects, repeat(shared)), maxlen=0)
    ids = [one.__dict__["id"] for one in objects]
    if None in ids:
        raise ProtocolError(f"Row {ids.index(None)} of the answer to {rows.path} has no id.")
    if codec.varies:
        page.has_varying_defaults = True
        remember_texts(objects, page, codec)
    return objects


def _load_one_by_one(model: type[Any], rows: LoadedRows, shared: Envelope) -> Iterator[Any]:
    for row in rows_of(decode(rows.page.body, str(rows.path)), rows.path):
        if rows.may_hold_tombstones and is_tombstone(row):
            if not rows.skips_tombstones:
                yield _at(
                    blank(model, row["id"], Envelope(Status.DELETED, client=shared.client, parent=shared.parent)), row
                )
        elif rows.is_partial:
            yield _partial(model, row, shared)
        else:
            yield from _row(model, row, rows, shared)


def _row(model: type[Any], row: JSONObject, rows: LoadedRows, shared: Envelope) -> Iterator[Any]:
    envelope = Envelope(Status.LOADED, client=shared.client, parent=shared.parent)
    try:
        one = codec_of(model).load(row)
    except InvalidValueError as error:
        if rows.on_invalid == "raise":
            raise InvalidValueError(
                f"{rows.path}/{row['id']} does not fit {error}; "
                'filter(on_invalid="skip") leaves such rows out, "keep" gives plain records.'
            ) from error
        if rows.on_invalid == "keep":
            yield _loaded(codec_of(model.__kinto_plain__).load(row), without_envelope(row), envelope)
        return
    yield _loaded(one, without_envelope(row), envelope)


def _loaded(one: Any, data: JSONObject, envelope: Envelope) -> Any:
    envelope.data = data
    put_in_envelope(one, envelope)
    remember_defaults(one, envelope)
    return one


def _partial(model: type[Any], row: JSONObject, shared: Envelope) -> Any:
    envelope = Envelope(Status.LOADED, client=shared.client, parent=shared.parent)
    envelope.data = without_envelope(row)
    envelope.is_partial = True
    one = _at(blank(model, row["id"], envelope), row)
    try:
        values = codec_of(model).load_part(row)
    except ValidationError as error:
        raise invalid(model, error, f"{row['id']} does not fit ") from error
    restore_fields(one, values)
    return one


def _at(one: Any, row: JSONObject) -> Any:
    one.__dict__["last_modified"] = row.get("last_modified")
    return one
