"""The rows of a job: dictionaries, models, a file (.jsonl, .json, .csv), a query, or any other iterable.

All but a ``.json`` file are read as they come, some rows at a time.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any, Literal, Protocol, TypeAlias, cast

from kinto_orm.errors import InvalidTypeError, InvalidValueError, KintoError
from kinto_orm.jobs.comparing import GivenRow
from kinto_orm.protocol.json_values import JSON, JSONObject, parse_json, say_value
from kinto_orm.protocol.paging import is_tombstone
from kinto_orm.protocol.writes import Flow, call_blocking
from kinto_orm.query.execution import Page, PageWalk, Place, RawRows
from kinto_orm.query.query import Query
from kinto_orm.repository.disk import FilePath, check_path, read_lines
from kinto_orm.repository.state import Change, FlowRunner, ObjectState, Stateful, Verb

Rows: TypeAlias = Iterable[Any] | FilePath | Query[Any]
"""The rows that a job takes: an iterable of mappings or of models, a path, or a query."""

ROWS_AT_A_TIME = 500
"""The number of rows that are taken from a source at a time."""


NumberedRow: TypeAlias = tuple[int, Any]
"""A row of the source as it came, after its number, from 1; lines of a file are counted, a header too."""


class RowCodec(Protocol):
    """The model of the records, as a job sees it."""

    def encode(self, given: Any, mode: Literal["exact", "given"] | None) -> GivenRow:
        """Return the row in JSON types and by wire names, checked by the model.

        ``mode`` is ``exact`` for a mapping and ``given`` for a model unless it is said. Raises ``InvalidInputError``
        with the path of a value that does not fit.
        """
        ...

    def values_of(self, given: Any) -> Mapping[str, JSON]:
        """Return the values of a row by wire names, with its ``id``; raises ``InvalidTypeError`` for another thing."""
        ...

    def key_values(self, values: Mapping[str, JSON], names: Sequence[str]) -> Mapping[str, JSON]:
        """Return these values of a row, by wire names, as the model writes them; as they are where they do not fit."""
        ...

    def parse_cells(self, cells: Mapping[str, str]) -> JSONObject:
        """Return the values of the cells of a table, as the fields of the model want them."""
        ...

    def canonical(self, data: JSONObject) -> Mapping[str, JSON]:
        """Return the declared fields of this data as the model writes them; nothing where the data does not fit."""
        ...

    def make(self, state: ObjectState, place: Place) -> Stateful:
        """Return an object in that state."""
        ...

    def change(self, verb: Verb, state: ObjectState, data: JSONObject | None, place: Place) -> Change[Stateful]:
        """Return the verb on an object in that state, which has ``data`` as an unsaved change."""
        ...


class Source(Protocol):
    """Rows that are taken some at a time."""

    name: str
    is_partial: bool
    """Whether its rows are records of which only some fields were asked for."""

    def take(self) -> Flow[list[NumberedRow]]:
        """Return the next rows; none at the end."""
        ...

    def describe(self, position: int) -> str:
        """Return the words for one row in a message: ``line 3 of rows.csv``."""
        ...


def open_source(rows: Rows, codec: RowCodec, runner: FlowRunner) -> Source:
    """Return the source; nothing is read yet.

    Raises ``InvalidTypeError`` for a single row and for what cannot be iterated, ``InvalidValueError`` for a file of
    another kind.
    """
    if isinstance(rows, (str, os.PathLike)):
        return _open_file(rows, codec)
    if isinstance(rows, Query):
        return _QueryRows(rows, runner)
    if isinstance(rows, (Mapping, bytes)) or hasattr(rows, "__kinto_change__") or not hasattr(rows, "__iter__"):
        raise InvalidTypeError(
            f"A job takes many rows, a path (.jsonl, .json, .csv) or a query, not {type(rows).__name__}: "
            f"{say_value(rows)}."
        )
    return _IterableRows(iter(rows))


def _open_file(path: FilePath, codec: RowCodec) -> Source:
    name = PurePath(path).name
    suffix = PurePath(path).suffix.lower()
    readers: dict[str, Callable[[], Iterator[NumberedRow]]] = {
        ".jsonl": lambda: read_json_lines(read_lines(path), name),
        ".json": lambda: read_json("".join(read_lines(path)), name),
        ".csv": lambda: read_csv(read_lines(path), name, codec.parse_cells),
    }
    if suffix not in readers:
        raise InvalidValueError(f"{name}: rows are read from files that end in .jsonl, .json or .csv.")
    return _FileRows(name, "row" if suffix == ".json" else "line", readers[suffix])


def read_dump(path: FilePath) -> list[JSONObject]:
    """Return the rows of a dump; raise ``InvalidValueError`` where it is none."""
    name, lines = check_path(path), read_lines(path)
    found = read_json_lines(lines, name) if name.endswith(".jsonl") else read_json("".join(lines), name)
    rows: list[JSONObject] = []
    for number, row in found:
        if not (isinstance(row.get("id"), str) and type(row.get("last_modified")) is int):
            raise InvalidValueError(f"{name}, row {number}: a dump is a list of records with last_modified.")
        rows.append(row)
    return rows


class _IterableRows:
    name = "the source"
    is_partial = False

    def __init__(self, rows: Iterator[Any]) -> None:
        self._rows = enumerate(rows, 1)

    def take(self) -> Flow[list[NumberedRow]]:
        yield from ()
        # Here, and not in a thread: the iterable is the caller's own code.
        return list(islice(self._rows, ROWS_AT_A_TIME))

    def describe(self, position: int) -> str:
        return f"row {position} of the source"


class _FileRows:
    is_partial = False

    def __init__(self, name: str, unit: str, read: Callable[[], Iterator[NumberedRow]]) -> None:
        self.name = name
        self._unit = unit
        self._read = read
        self._rows: Iterator[NumberedRow] | None = None

    def take(self) -> Flow[list[NumberedRow]]:
        return (yield from call_blocking(self.name, self._take))

    def _take(self) -> list[NumberedRow]:
        if self._rows is None:
            self._rows = self._read()
        return list(islice(self._rows, ROWS_AT_A_TIME))

    def describe(self, position: int) -> str:
        return f"{self._unit} {position} of {self.name}"


class _QueryRows:
    """The records that a query selects, as the server has them; a query of another client is run by that one."""

    def __init__(self, query: Query[Any], runner: FlowRunner) -> None:
        reading = query.__kinto_reading__()
        self._place = reading.source.locate()
        self._is_ours = self._place.runner is runner
        self._walk: PageWalk[JSONObject] = PageWalk(RawRows(), self._place, reading.selection, "raise")
        self._may_hold_tombstones = reading.selection.may_hold_tombstones
        self._count = 0
        self.name = str(self._place.path)
        self.is_partial = bool(reading.selection.fields)

    def take(self) -> Flow[list[NumberedRow]]:
        while (flow := self._walk.next_page()) is not None:
            page = yield from (flow if self._is_ours else self._read_elsewhere(flow))
            rows = [row for row in page.objects if not (self._may_hold_tombstones and is_tombstone(row))]
            if rows:
                first, self._count = self._count + 1, self._count + len(rows)
                return list(enumerate(rows, first))
        return []

    def _read_elsewhere(self, flow: Flow[Page[JSONObject]]) -> Flow[Page[JSONObject]]:
        return call_blocking(self.name, lambda: self._place.runner.run(flow))

    def describe(self, position: int) -> str:
        return f"record {position} of {self.name}"


def read_json_lines(lines: Iterable[str], name: str) -> Iterator[NumberedRow]:
    """Read JSON Lines; empty lines are left out.

    Raises ``InvalidValueError`` for a line that is no JSON object.
    https://jsonlines.org/
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"line {number} of {name}"
            yield number, _object(_parse(line, where), where)


def read_json(text: str, name: str) -> Iterator[NumberedRow]:
    """Read a JSON document: a list of objects, or ``{"data": [...]}``. Raises ``InvalidValueError`` for any other."""
    found = _parse(text, name)
    rows = found.get("data") if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise InvalidValueError(f'{name} holds no list of rows: it is a list, or {{"data": [...]}}.')
    return ((number, _object(row, f"row {number} of {name}")) for number, row in enumerate(rows, 1))


def read_csv(
    lines: Iterable[str], name: str, parse_cells: Callable[[Mapping[str, str]], JSONObject]
) -> Iterator[NumberedRow]:
    """Read a table whose first line has the wire names; an empty cell is a missing key.

    Raises ``InvalidValueError`` for a header or a row that cannot be read.
    https://www.rfc-editor.org/rfc/rfc4180
    """
    reader = csv.reader(lines, strict=True)
    header = _header(_next_row(reader, f"line 1 of {name}"), name)
    start = reader.line_num + 1
    while (cells := _next_row(reader, f"line {start} of {name}")) is not None:
        if cells:
            where = f"line {start} of {name}"
            if len(cells) > len(header):
                raise InvalidValueError(f"{where}: it has {len(cells)} cells, the header has {len(header)}.")
            given = {key: cell for key, cell in zip(header, cells, strict=False) if cell}
            yield start, _at(where, parse_cells, given)
        start = reader.line_num + 1


def _next_row(reader: Any, where: str) -> list[str] | None:
    try:
        return cast("list[str] | None", next(reader, None))
    except csv.Error as error:
        hint = ": perhaps a quote is not closed (csv.field_size_limit() takes more)" if "limit" in str(error) else ""
        raise InvalidValueError(f"{where}: {error}{hint}.") from error


def _header(names: list[str] | None, name: str) -> list[str]:
    if not names:
        raise InvalidValueError(f"{name} has no header: its first line names the columns.")
    if len(names) == 1 and (found := {";", "\t"} & set(names[0])):
        raise InvalidValueError(f"{name}: its cells are separated by {found.pop()!r}: separate them by commas.")
    for column, wire_name in enumerate(names, 1):
        if not wire_name:
            raise InvalidValueError(f"{name}: column {column} has no name in the header.")
        if names.index(wire_name) < column - 1:
            raise InvalidValueError(f"{name}: the header names {wire_name!r} twice.")
    return names


def _at(where: str, call: Callable[[Any], JSONObject], argument: Any) -> JSONObject:
    try:
        return call(argument)
    except KintoError as error:
        raise InvalidValueError(f"{where}: {error}") from error


def _parse(text: str, where: str) -> JSON:
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise InvalidValueError(f"{where} {error}.") from error


def _object(value: JSON, where: str) -> JSONObject:
    if not isinstance(value, dict):
        raise InvalidValueError(f"{where} is no JSON object: {say_value(value)}.")
    return value
