"""Queries as tables of Arrow, and frames of pandas and polars: read page by page, each page put in columns at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from kinto_orm.errors import UsageError
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.columns import UNDECLARED, Column, FoundTable, TypedTable, arrow, declared_columns, import_extra
from kinto_orm.query.execution import Place, Reading
from kinto_orm.repository.state import Stateful

M = TypeVar("M", bound=Stateful)

ALWAYS_THERE = frozenset({"id", "last_modified", "deleted"})
"""What each row may have, whatever the model."""


def read_arrow(reading: Reading[M], place: Place) -> Flow[Any]:
    """The objects, as a table of Arrow."""
    arrow()
    return (yield from _read(reading, place))


def read_pandas(reading: Reading[M], place: Place) -> Flow[Any]:
    """The objects, as a frame of pandas."""
    import_extra("pandas", "to_pandas()", "pandas")  # before anything is asked
    arrow("to_pandas()", "pandas")
    return to_pandas((yield from _read(reading, place)))


def to_pandas(table: Any) -> Any:
    """The table as a frame of pandas, with types that have a null of their own, so that no whole number is a float.

    Lists and objects keep the types of Arrow: Dask makes texts of Python objects.
    """
    pandas = import_extra("pandas", "to_pandas()", "pandas")
    pa = arrow()
    types = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}
    return table.to_pandas(
        types_mapper=lambda one: pandas.ArrowDtype(one) if pa.types.is_nested(one) else types.get(one)
    )


def read_columns(reading: Reading[M], columns: Sequence[str], place: Place) -> Flow[Any]:
    """These columns of the table; only they are asked for, where the others make no difference to them."""
    return (yield from _read(_narrowed(reading, columns, place), place)).select(columns)


def _narrowed(reading: Reading[M], columns: Sequence[str], place: Place) -> Reading[M]:
    on_invalid = place.runner.on_invalid if reading.on_invalid is None else reading.on_invalid
    # Which rows do not fit the model is only known of whole ones; tombstones have fields of their own.
    can_be = on_invalid == "raise" and not reading.selection.may_hold_tombstones and reading.source.fields_stand_alone()
    if not can_be or UNDECLARED in columns:
        return reading
    asked = reading.selection.fields or [name for name in columns if name not in ALWAYS_THERE]
    if not reading.selection.fields and any("." in name for name in asked):
        return reading  # to the server, a dot leads into an object
    return reading.select(fields=tuple(name for name in asked if name.partition(".")[0] in columns) or ("id",))


def empty_table(reading: Reading[M]) -> Any:
    """The table without rows; raises ``UsageError`` where the model does not say which columns it has."""
    table = new_table(reading)
    if isinstance(table, FoundTable):
        raise UsageError("Only of a model with declared fields are the columns known before the records are read.")
    return table.table()


def read_polars(reading: Reading[M], place: Place) -> Flow[Any]:
    """The objects, as a frame of polars."""
    polars = import_extra("polars", "to_polars()", "polars")
    arrow("to_polars()", "polars")
    return polars.from_arrow((yield from _read(reading, place)))


def new_table(reading: Reading[M]) -> TypedTable | FoundTable:
    """An empty table for what is to be read: with known columns where the model declares fields."""
    asked = list(dict.fromkeys(name.partition(".")[0] for name in reading.selection.fields))
    schema = reading.source.row_schema()
    if not schema:
        return FoundTable(dict.fromkeys(["id", "last_modified", *asked]))
    columns = declared_columns(schema)
    names = {one.name for one in columns}
    if asked:
        columns = [one for one in columns if one.name in asked]
    if not asked or not names.issuperset({*asked} - ALWAYS_THERE):
        columns.append(Column(UNDECLARED, arrow().string(), is_text=True))
    if reading.selection.may_hold_tombstones and "deleted" not in names:
        columns.append(Column("deleted", arrow().bool_()))
    return TypedTable([*_envelope(), *columns])


def _envelope() -> list[Column]:
    return [Column("id", arrow().string()), Column("last_modified", arrow().int64())]


def _read(reading: Reading[M], place: Place) -> Flow[Any]:
    table = new_table(reading)
    walk = reading.walk(place)
    while (flow := walk.next_page()) is not None:
        table.add([reading.source.row_of(one) for one in (yield from flow).objects])
    return table.table()
