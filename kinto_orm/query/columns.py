"""Columns of Arrow: which type each declared field has, and what a page adds to it.

The types come from the JSON schema of what the model writes, so that they are those of the values on the wire.
https://arrow.apache.org/docs/python/data.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from kinto_orm.errors import InvalidValueError, MissingExtraError
from kinto_orm.protocol.json_values import JSON, JSONObject, encode

UNDECLARED = "_undeclared"
"""The column of the keys that the model does not declare, as a text of JSON."""


@dataclass(frozen=True, slots=True)
class Row:
    """One object, as it is put in columns."""

    data: Mapping[str, JSON]
    """What the columns hold, by wire names."""
    undeclared: Mapping[str, JSON]


def import_extra(module: str, what: str, extra: str) -> Any:
    """A package of an extra; raises ``MissingExtraError``, which says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        message = f"{what} needs {module}, which is not installed ({error}): pip install 'kinto-orm[{extra}]'."
        raise MissingExtraError(message, name=module) from error


def arrow(what: str = "to_arrow()", extra: str = "arrow") -> Any:
    """The package ``pyarrow``; raises ``MissingExtraError`` where it is not installed."""
    return import_extra("pyarrow", what, extra)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of known type."""

    name: str
    type: Any
    """The type of Arrow."""
    wire: Any = None
    """That of the JSON that it is made of, where it differs: times are texts there."""
    is_text: bool = False
    """Whether it holds texts of JSON, because no type says what its field may be."""

    def array(self, values: Sequence[JSON]) -> Any:
        """The values; raises ``InvalidValueError`` where they are of another type."""
        pa = arrow()
        try:
            return _texts(values, pa) if self.is_text else _cast(values, self.wire or self.type, self.type, pa)
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise InvalidValueError(
                f"The column {self.name!r} is of type {self.type}, which a value of this page does not fit: {error} "
                "Change the field's type in the model, or leave it out with only()."
            ) from error


def _cast(values: Sequence[JSON], wire: Any, final: Any, pa: Any) -> Any:
    """An array of the final type; a part at a time, for Arrow casts what is hidden below a null, too."""
    if wire == final:
        return pa.array(values, final)
    if pa.types.is_struct(final):
        pa.array(values, wire)  # raises for what is no object
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


def declared_columns(schema: JSONObject) -> list[Column]:
    """The columns of the fields in the JSON schema."""
    definitions = schema.get("$defs", {})
    return [_column(name, field, definitions) for name, field in schema["properties"].items()]


def _column(name: str, field: JSONObject, definitions: JSONObject) -> Column:
    types = _types(field, definitions, ())
    return Column(name, arrow().string(), is_text=True) if types is None else Column(name, *types)


def _types(field: JSONObject, definitions: JSONObject, above: tuple[str, ...]) -> tuple[Any, Any] | None:
    """The types of the column and of the JSON; ``None`` where there is no one type beside null."""
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
    """A table whose columns are known beforehand, made page by page."""

    def __init__(self, columns: Iterable[Column]) -> None:
        pa = arrow()
        self._columns = list(columns)
        self.schema: Any = pa.schema([(one.name, one.type) for one in self._columns])
        self._batches: list[Any] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Takes a page."""
        arrays = [one.array(_values(rows, one.name)) for one in self._columns]
        self._batches.append(arrow().record_batch(arrays, schema=self.schema))

    def table(self) -> Any:
        """All of it."""
        return arrow().Table.from_batches(self._batches, self.schema)


def _values(rows: Sequence[Row], name: str) -> list[JSON]:
    if name == UNDECLARED:
        return [row.undeclared or None for row in rows]
    return [row.data.get(name) for row in rows]


class FoundTable:
    """A table whose columns are what is found: the keys of all pages, with the types that hold all their values.

    Where no type does, the column holds texts of JSON.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._sizes: list[int] = []
        self._columns: dict[str, dict[int, tuple[Any, bool]]] = {name: {} for name in names}

    def add(self, rows: Sequence[Row]) -> None:
        """Takes a page."""
        for name in dict.fromkeys(key for row in rows for key in row.data):
            values = [row.data.get(name) for row in rows]
            self._columns.setdefault(name, {})[len(self._sizes)] = _array_or_text(values)
        self._sizes.append(len(rows))

    def table(self) -> Any:
        """All of it."""
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
        kept = [array if chunks.get(page, none)[1] else _as_text(array, pa) for page, array in enumerate(arrays)]
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


def _as_text(array: Any, pa: Any) -> Any:
    return _texts(array.to_pylist(), pa)


def _texts(values: Iterable[JSON], pa: Any) -> Any:
    return pa.array([None if value is None else encode(value).decode() for value in values], pa.string())
