"""Queries as tables of Arrow, and frames of pandas and polars: read page by page, each page put in columns at once.

The types of the columns come from the JSON schema of what the model writes, so they are those of the wire values.
https://arrow.apache.org/docs/python/data.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from kinto_orm.errors import InvalidValueError, MissingExtraError, UsageError
from kinto_orm.protocol.json_values import JSON, JSONObject, encode
from kinto_orm.protocol.paging import TOMBSTONE_KEYS
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.execution import Place, Reading, Row
from kinto_orm.repository.conflicts import check_callbacks
from kinto_orm.repository.state import Progress, Stateful, Tally

M = TypeVar("M", bound=Stateful)

UNDECLARED = "_undeclared"
"""The column of the keys that the model does not declare, as JSON text."""


def read_arrow(reading: Reading[M], progress: Progress | None, place: Place) -> Flow[Any]:
    """Return the objects as an Arrow table."""
    arrow()
    return (yield from _read(reading, place, progress))


def read_pandas(reading: Reading[M], progress: Progress | None, place: Place) -> Flow[Any]:
    """Return the objects as a pandas frame."""
    import_extra("pandas", "to_pandas()", "pandas")  # before anything is sent
    arrow("to_pandas()", "pandas")
    return to_pandas((yield from _read(reading, place, progress)))


def to_pandas(table: Any) -> Any:
    """Return the table as a frame of pandas, with nullable types, so that no integer becomes a float.

    Lists and objects keep the types of Arrow: Dask makes texts of Python objects.
    """
    pandas = import_extra("pandas", "to_pandas()", "pandas")
    pa = arrow()
    types = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}
    return table.to_pandas(
        types_mapper=lambda one: pandas.ArrowDtype(one) if pa.types.is_nested(one) else types.get(one)
    )


def read_columns(reading: Reading[M], columns: Sequence[str], place: Place) -> Flow[Any]:
    """Return these columns of the table; only they are read, where the others do not matter."""
    return (yield from _read(_narrowed(reading, columns, place), place)).select(columns)


def _narrowed(reading: Reading[M], columns: Sequence[str], place: Place) -> Reading[M]:
    on_invalid = place.runner.on_invalid if reading.on_invalid is None else reading.on_invalid
    # Only whole rows show whether they fit the model; tombstones have other fields.
    can_be = on_invalid == "raise" and not reading.selection.may_hold_tombstones and reading.source.fields_stand_alone()
    if not can_be or UNDECLARED in columns:
        return reading
    asked = reading.selection.fields or [name for name in columns if name not in TOMBSTONE_KEYS]
    if not reading.selection.fields and any("." in name for name in asked):
        return reading  # to the server, a dot leads into an object
    return reading.select(fields=tuple(name for name in asked if name.partition(".")[0] in columns) or ("id",))


def empty_table(reading: Reading[M]) -> Any:
    """Return the table without rows; raise ``UsageError`` where the model does not declare the columns."""
    table = new_table(reading)
    if isinstance(table, FoundTable):
        raise UsageError("Only a model with declared fields has known columns before the records are read.")
    return table.table()


def read_polars(reading: Reading[M], progress: Progress | None, place: Place) -> Flow[Any]:
    """Return the objects as a polars frame."""
    polars = import_extra("polars", "to_polars()", "polars")
    arrow("to_polars()", "polars")
    return polars.from_arrow((yield from _read(reading, place, progress)))


def new_table(reading: Reading[M]) -> TypedTable | FoundTable:
    """Return an empty table for the reading, with typed columns where the model declares fields."""
    asked = list(dict.fromkeys(name.partition(".")[0] for name in reading.selection.fields))
    schema = reading.source.row_schema()
    if not schema:
        marks = ["deleted"] if _marks_deleted(reading) else []
        return FoundTable(dict.fromkeys(["id", "last_modified", *asked, *marks]))
    definitions = schema.get("$defs", {})
    columns = [_column(name, field, definitions) for name, field in schema["properties"].items()]
    names = {one.name for one in columns}
    if asked:
        columns = [one for one in columns if one.name in asked]
    if not asked or not names.issuperset({*asked} - TOMBSTONE_KEYS):
        columns.append(Column(UNDECLARED, arrow().string(), is_text=True))
    if _marks_deleted(reading):
        columns.append(Column("deleted", arrow().bool_()))
    return TypedTable([*_envelope(), *columns])


def _marks_deleted(reading: Reading[M]) -> bool:
    """Return whether each row says whether it is a tombstone; a field of that name has its own values."""
    return reading.selection.since is not None and "deleted" not in reading.source.declared_fields()


def _envelope() -> list[Column]:
    return [Column("id", arrow().string()), Column("last_modified", arrow().int64())]


def _read(reading: Reading[M], place: Place, progress: Progress | None = None) -> Flow[Any]:
    check_callbacks(progress=progress)
    table = new_table(reading)
    tally = Tally(progress, "read records", (yield from reading.count(place)) if progress is not None else None)
    walk = reading.walk(place)
    while (flow := walk.next_page()) is not None:
        objects = (yield from flow).objects
        rows = [reading.source.row_of(one) for one in objects]
        if _marks_deleted(reading):
            rows = [Row({"deleted": False, **row.data}, row.undeclared) for row in rows]
        table.add(rows)
        tally.add(len(objects))
    return table.table()


def import_extra(module: str, what: str, extra: str) -> Any:
    """Return a package of an extra; raise ``MissingExtraError``, which says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        message = f"{what} needs {module}, which is not installed ({error}): pip install 'kinto-orm[{extra}]'."
        raise MissingExtraError(message, name=module) from error


def arrow(what: str = "to_arrow()", extra: str = "arrow") -> Any:
    """Return the package ``pyarrow``; raise ``MissingExtraError`` where it is not installed."""
    return import_extra("pyarrow", what, extra)


class Column(NamedTuple):
    """A column of known type."""

    name: str
    type: Any
    """The Arrow type."""
    wire: Any = None
    """The Arrow type of the JSON values, where it differs: times are texts there."""
    is_text: bool = False
    """Whether it holds JSON texts, because the schema gives its field no single type."""

    def array(self, values: Sequence[JSON]) -> Any:
        """Return the values as an array; raise ``InvalidValueError`` where they are of another type."""
        pa = arrow()
        try:
            return _texts(values, pa) if self.is_text else _cast(values, self.wire or self.type, self.type, pa)
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise InvalidValueError(
                f"The column {self.name!r} is of type {self.type}, which a value of this page does not fit: {error} "
                "Change the field's type in the model, or leave it out with only()."
            ) from error


def _cast(values: Sequence[JSON], wire: Any, final: Any, pa: Any) -> Any:
    """Return an array of the final type, cast part by part: Arrow also casts the values hidden below a null."""
    if wire == final:
        return pa.array(values, final)
    if pa.types.is_struct(final):
        pa.array(values, wire)  # raises for values that are not objects
        rows: list[Any] = [value or {} for value in values]
        parts = [
            _cast([row.get(field.name) for row in rows], wire.field(field.name).type, field.type, pa) for field in final
        ]
        return pa.StructArray.from_arrays(
            parts, fields=list(final), mask=pa.array([one is None for one in values], pa.bool_())
        )
    if pa.types.is_list(final):
        lists = pa.array(values, wire)
        inner = [item for value in values if value is not None for item in value]
        items = _cast(inner, wire.value_type, final.value_type, pa)
        return pa.ListArray.from_arrays(lists.offsets, items, type=final, mask=lists.is_null())
    return pa.array(values, wire).cast(final)


def _column(name: str, field: JSONObject, definitions: JSONObject) -> Column:
    types = _types(field, definitions, ())
    return Column(name, arrow().string(), is_text=True) if types is None else Column(name, *types)


def _types(field: JSONObject, definitions: JSONObject, above: tuple[str, ...]) -> tuple[Any, Any] | None:
    """Return the types of the column and of the JSON; ``None`` where the field has not one type beside null."""
    if "anyOf" in field:
        kinds = [one for one in field["anyOf"] if one != {"type": "null"}]
        return _types(kinds[0], definitions, above) if len(kinds) == 1 else None
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return None if name in above else _types(definitions[name], definitions, (*above, name))
    pa = arrow()
    kind = field.get("type")
    if kind == "string":
        times = {"date-time": pa.timestamp("us", "UTC"), "date": pa.date32()}
        return times.get(field.get("format", ""), pa.string()), pa.string()
    if kind == "array" and isinstance(field.get("items"), dict) and "prefixItems" not in field:
        item = _types(field["items"], definitions, above)
        return None if item is None else (pa.list_(item[0]), pa.list_(item[1]))
    if kind == "object":
        return _struct(field, definitions, above)
    plain = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    return (plain[kind], plain[kind]) if kind in plain else None


def _struct(field: JSONObject, definitions: JSONObject, above: tuple[str, ...]) -> tuple[Any, Any] | None:
    pa = arrow()
    inner = {name: _types(one, definitions, above) for name, one in field.get("properties", {}).items()}
    found = {name: types for name, types in inner.items() if types is not None}
    if not found or len(found) < len(inner) or field.get("additionalProperties", False) is not False:
        return None
    final, wire = ([(name, types[side]) for name, types in found.items()] for side in (0, 1))
    return pa.struct(final), pa.struct(wire)


class TypedTable:
    """A table with known columns, built page by page."""

    def __init__(self, columns: Iterable[Column]) -> None:
        pa = arrow()
        self._columns = list(columns)
        self.schema: Any = pa.schema([(one.name, one.type) for one in self._columns])
        self._batches: list[Any] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Add a page."""
        arrays = [one.array(_values(rows, one.name)) for one in self._columns]
        self._batches.append(arrow().record_batch(arrays, schema=self.schema))

    def table(self) -> Any:
        """Return the whole table."""
        return arrow().Table.from_batches(self._batches, self.schema)


def _values(rows: Sequence[Row], name: str) -> list[JSON]:
    if name == UNDECLARED:
        return [row.undeclared or None for row in rows]
    return [row.data.get(name) for row in rows]


class FoundTable:
    """A table whose columns are the keys of all pages, with types that hold all their values.

    Where no type does, the column holds JSON texts.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._sizes: list[int] = []
        self._columns: dict[str, dict[int, tuple[Any, bool]]] = {name: {} for name in names}

    def add(self, rows: Sequence[Row]) -> None:
        """Add a page."""
        for name in dict.fromkeys(key for row in rows for key in row.data):
            values = [row.data.get(name) for row in rows]
            self._columns.setdefault(name, {})[len(self._sizes)] = _array_or_text(values)
        self._sizes.append(len(rows))

    def table(self) -> Any:
        """Return the whole table."""
        return arrow().table({name: self._whole(chunks) for name, chunks in self._columns.items()})

    def _whole(self, chunks: Mapping[int, tuple[Any, bool]]) -> Any:
        pa = arrow()
        none = pa.nulls(0), False
        arrays = [chunks.get(page, none)[0] for page in range(len(self._sizes))]
        arrays = [one if len(one) else pa.nulls(size) for one, size in zip(arrays, self._sizes, strict=True)]
        if not any(is_text for _, is_text in chunks.values()):
            try:
                return pa.chunked_array(_of_one_type(arrays, pa))
            except pa.ArrowException:
                pass
        kept = [
            array if chunks.get(page, none)[1] else _texts(array.to_pylist(), pa) for page, array in enumerate(arrays)
        ]
        return pa.chunked_array(kept, pa.string())


def _array_or_text(values: Sequence[JSON]) -> tuple[Any, bool]:
    pa = arrow()
    try:
        return pa.array(values), False
    except (pa.ArrowException, OverflowError):
        return _texts(values, pa), True


def _of_one_type(arrays: Sequence[Any], pa: Any) -> list[Any]:
    schemas = [pa.schema([("it", one.type)]) for one in arrays] or [pa.schema([("it", pa.null())])]
    whole = pa.unify_schemas(schemas, promote_options="permissive").field("it").type
    return [one.cast(whole) for one in arrays] or [pa.nulls(0)]


def _texts(values: Iterable[JSON], pa: Any) -> Any:
    return pa.array([None if value is None else encode(value).decode() for value in values], pa.string())
