"""A page of a list becomes objects: one validation call for all its rows, and row by row only where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from kinto_orm.errors import InvalidValueError, ProtocolError
from kinto_orm.models.data import restore_fields
from kinto_orm.models.envelope import Envelope, PageSnapshot, collector_paused, put_in_envelope, without_envelope
from kinto_orm.models.fields import (
    declared_fields,
    field_validator,
    invalid,
    validate_page,
    validate_rows,
    validate_wire,
)
from kinto_orm.models.loading import blank
from kinto_orm.models.metaclass import HIDDEN_FIELDS
from kinto_orm.protocol.paging import rows_of
from kinto_orm.protocol.values import JSONObject, decode, encode
from kinto_orm.query import LoadedRows
from kinto_orm.state import Runner, Status


def load_page(model: type[Any], plain: type[Any], rows: LoadedRows, runner: Runner, parent: Any) -> list[Any]:
    """The objects of the page, sharing one envelope. ``plain`` is the class of rows that do not fit the model.

    Raises ``InvalidValueError`` for a row that does not fit the model, unless they are skipped or kept, and
    ``ProtocolError`` where the page is none.
    """
    shared = Envelope(Status.LOADED, client=runner, parent=parent)
    shared.page = PageSnapshot(rows.page.body, rows.path)
    shared.is_partial = rows.is_partial
    if not rows.is_partial and not rows.may_hold_tombstones:
        try:
            if model is plain and not declared_fields(model):
                return _load_plain(model, rows, shared)
            return _load_at_once(model, rows, shared)
        except ValidationError:
            pass  # row by row then, which names the culprit
    return list(_load_one_by_one(model, plain, rows, shared))


def _load_plain(model: type[Any], rows: LoadedRows, shared: Envelope) -> list[Any]:
    """Objects without declared fields: the page is decoded for their data anyway, so they are made of that."""
    assert shared.page is not None
    with collector_paused():
        try:
            decoded = rows_of(decode(rows.page.body, str(rows.path)), rows.path)
        except ProtocolError:
            decoded = []
        if not decoded or any(type(row.get("last_modified")) not in _TIMESTAMP for row in decoded):
            return _load_at_once(model, rows, shared)  # which knows what it is, or says what is wrong with it
        shared.page.keep(decoded)
        return _share(model, validate_rows(model, decoded), rows, shared)


_TIMESTAMP = (int, type(None))


def _load_at_once(model: type[Any], rows: LoadedRows, shared: Envelope) -> list[Any]:
    with collector_paused():
        return _share(model, validate_page(model, rows.page.body), rows, shared)


def _share(model: type[Any], objects: list[Any], rows: LoadedRows, shared: Envelope) -> list[Any]:
    set_envelope = model._envelope.__set__
    for number, one in enumerate(objects):
        if one.__dict__["id"] is None:
            raise ProtocolError(f"Row {number} of the answer to {rows.path} has no id.")
        set_envelope(one, shared)
    return objects


def _load_one_by_one(model: type[Any], plain: type[Any], rows: LoadedRows, shared: Envelope) -> Iterator[Any]:
    for row in rows_of(decode(rows.page.body, str(rows.path)), rows.path):
        if row.get("deleted") is True and rows.may_hold_tombstones:
            yield _tombstone(model, row, shared)
        elif rows.is_partial:
            yield _partial(model, row, shared)
        else:
            yield from _row(model, plain, row, rows, shared)


def _row(model: type[Any], plain: type[Any], row: JSONObject, rows: LoadedRows, shared: Envelope) -> Iterator[Any]:
    try:
        one = validate_wire(model, _read_part(model, row))
    except ValidationError as error:
        if rows.on_invalid == "raise":
            misfit = invalid(model, error, f"{rows.path}/{row['id']} does not fit ")
            raise InvalidValueError(
                f'{misfit}; filter(on_invalid="skip") leaves such rows out, "keep" gives plain records.'
            ) from error
        if rows.on_invalid == "keep":
            kept = validate_wire(plain, _read_part(plain, row))
            put_in_envelope(kept, shared)
            yield kept
        return
    put_in_envelope(one, shared)
    yield one


def _read_part(model: type[Any], row: JSONObject) -> JSONObject:
    # What is undeclared may be nested deeper than pydantic reads.
    fields = declared_fields(model)
    return {key: value for key, value in row.items() if key in fields or key in HIDDEN_FIELDS}


def _tombstone(model: type[Any], row: JSONObject, shared: Envelope) -> Any:
    envelope = Envelope(Status.DELETED, client=shared.client, parent=shared.parent)
    return _at(blank(model, row["id"], envelope), row)


def _partial(model: type[Any], row: JSONObject, shared: Envelope) -> Any:
    envelope = Envelope(Status.LOADED, client=shared.client, parent=shared.parent)
    envelope.data = without_envelope(row)
    envelope.is_partial = True
    one = _at(blank(model, row["id"], envelope), row)
    fields = declared_fields(model)
    try:
        values = field_validator(model).validate_json(encode({key: row[key] for key in fields if key in row}))
    except ValidationError as error:
        raise invalid(model, error, f"{row['id']} does not fit ") from error
    restore_fields(one, {name: values[name] for wire, name in fields.items() if wire in row})
    return one


def _at(one: Any, row: JSONObject) -> Any:
    one.__dict__["last_modified"] = row.get("last_modified")
    return one
