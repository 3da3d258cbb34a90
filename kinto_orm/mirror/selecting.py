"""Lists of the file: filters, sort, fields and pages, as Kinto on PostgreSQL has them.

SQL decides where it compares as PostgreSQL does, Python elsewhere.
https://docs.kinto-storage.org/en/stable/api/1.x/filtering.html
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from math import isfinite
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from kinto_orm.errors import ProtocolError
from kinto_orm.mirror.store import Store, json_path
from kinto_orm.protocol.filters import OPERATORS as NAMES
from kinto_orm.protocol.json_values import JSONObject, decode
from kinto_orm.protocol.paging import ENVELOPE_KEYS, encode_query
from kinto_orm.server.jsonb import ABSENT, OPERATORS, look_up, order

MOST_ROWS = 10_000
"""Rows on a page at most, as Kinto has it."""

_NAMED = re.compile(rf"({'|'.join(NAMES)}|eq)_([\w.]+)")
_SORTED = re.compile(r"([-+]?)([\w.]+)")
_TIMES = {"_since": "GT", "_before": "LT", "_to": "LT"}
_LARGEST = 2**63 - 1
_SQL = {"LT": "<", "MAX": "<=", "EQ": "=", "NOT": "<>", "MIN": ">=", "GT": ">"}

StoredRow: TypeAlias = tuple[str, int, str | None]
"""Id, version and data of a record."""


class Filter(NamedTuple):
    """One condition."""

    field: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The parameters of a list."""

    parameters: Sequence[tuple[str, str]]
    filters: Sequence[Filter]
    sort: Sequence[tuple[str, int]]
    fields: frozenset[str]
    limit: int
    after: Sequence[Any] | None
    """The place of the last row of the page before: the value of each sort field, then its id."""

    @property
    def holds_tombstones(self) -> bool:
        """Whether deleted records are in the list, which Kinto adds where it is filtered by time."""
        return any(one.field == "last_modified" for one in self.filters)


@lru_cache(maxsize=100)
def parse_query(query: str) -> ListQuery:
    """Return the parameters of a query string, as the flows of queries make them: what Kinto refuses is not sent."""
    parameters = parse_qsl(query, keep_blank_values=True)
    given = dict(parameters)
    parts = map(_SORTED.fullmatch, given.get("_sort", "").split(","))
    sort = [(match[2], -1 if match[1] == "-" else 1) for match in parts if match]
    if not any(field == "last_modified" for field, _ in sort):
        sort.append(("last_modified", -1))
    fields = {*given["_fields"].split(","), *ENVELOPE_KEYS} if given.get("_fields") else set[str]()
    after = json.loads(urlsafe_b64decode(given["_token"])) if given.get("_token") else None
    return ListQuery(
        [one for one in parameters if one[0] not in ("_limit", "_token")],
        [_parse_filter(name, value) for name, value in parameters if name in _TIMES or not name.startswith("_")],
        [*sort, ("id", 1)],
        frozenset(fields),
        min(int(given.get("_limit") or 0), MOST_ROWS) or MOST_ROWS,
        after and [ABSENT if one is None else one[0] for one in after],
    )


def _parse_filter(name: str, text: str) -> Filter:
    match = _NAMED.fullmatch(name)
    operator, field = (match[1].upper(), match[2]) if match else ("EQ", name)
    operator, field = (_TIMES[name], "last_modified") if name in _TIMES else (operator, field)
    if field == "last_modified":
        return Filter(field, operator, int(text.strip('"')))
    value = [_native(part) for part in text.split(",")] if operator in ("IN", "EXCLUDE") else _native(text)
    if operator in ("CONTAINS", "CONTAINS_ANY") and not isinstance(value, list):
        value = [value]
    return Filter(field, operator, value)


def _native(text: str) -> Any:
    try:
        value = decode(text.encode(), "a value")
    except ProtocolError:
        return text
    return text if isinstance(value, float) and not isfinite(value) else value


class Selection:
    """The rows of one collection that a query selects; used inside of a transaction."""

    def __init__(self, store: Store, collection: int, query: ListQuery, *, only_live: bool = False) -> None:
        self._store = store
        self._collection = collection
        self._query = query
        clauses = ["1" if query.holds_tombstones and not only_live else "mine IS NOT NULL"]
        self._values: list[Any] = []
        self._rest: list[Filter] = []
        for one in query.filters:
            clause, values = _in_sql(one)
            clauses += [clause] if clause else []
            self._values += values
            self._rest += [] if clause else [one]
        self._where = " AND ".join(clauses)

    def count(self) -> int:
        """Return the number of live records, whatever the limit."""
        where = f"mine IS NOT NULL AND {self._where}"
        if not self._rest:
            return self._store.count(self._collection, where, self._values)
        return sum(map(self._meets, self._store.select(self._collection, where, self._values)))

    def page(self) -> tuple[list[StoredRow], str | None]:
        """Return the rows of one page, and the query string of the next one."""
        query = self._query
        column = {"id": "id", "last_modified": "version"}.get(query.sort[0][0])
        found = self._in_order_of(column, query.sort[0][1]) if column else self._sorted()
        rows = list(islice(found, query.limit + 1))
        following = self._next_query(rows[query.limit - 1]) if len(rows) > query.limit else None
        return rows[: query.limit], following

    def _in_order_of(self, column: str, direction: int) -> Iterator[StoredRow]:
        """Return the rows, read in the order of an index."""
        where, values = self._where, self._values
        sign, way = (">", "ASC") if direction > 0 else ("<", "DESC")
        if self._query.after is not None:
            where, values = f"{where} AND {column} {sign} ?", [*values, self._query.after[0]]
        # Where a field narrows the rows, SQLite shall use its index, and not that of the order.
        order = f"{'+' if 'json_extract' in where else ''}{column} {way}"
        found = self._store.select(self._collection, where, values, order)
        return filter(self._meets, found) if self._rest else found

    def _sorted(self) -> Iterator[StoredRow]:
        """Return the rows behind the last one of the page before, sorted here."""
        rows = filter(self._meets, self._store.select(self._collection, self._where, self._values))
        keyed: list[tuple[Sequence[Any], StoredRow | None]] = [(self._place(row), row) for row in rows]
        if self._query.after is not None:
            keyed.append((self._query.after, None))
        for number, (_, direction) in reversed(list(enumerate(self._query.sort))):
            keyed.sort(key=partial(_key, number), reverse=direction < 0)
        sorted_rows = [row for _, row in keyed]
        start = sorted_rows.index(None) + 1 if self._query.after is not None else 0
        return (row for row in sorted_rows[start:] if row is not None)

    def _place(self, row: StoredRow) -> list[Any]:
        data = whole(row)
        return [look_up(data, field) for field, _ in self._query.sort]

    def _meets(self, row: StoredRow) -> bool:
        data = whole(row) if self._rest else {}
        return all(OPERATORS[one.operator](look_up(data, one.field), one.value) for one in self._rest)

    def _next_query(self, last: StoredRow) -> str:
        after = [None if one is ABSENT else [one] for one in self._place(last)]
        token = urlsafe_b64encode(json.dumps(after).encode()).decode()
        return encode_query([*self._query.parameters, ("_limit", str(self._query.limit)), ("_token", token)])

    def text(self, row: StoredRow) -> str:
        """Return the JSON text of a row, with the fields that were asked for."""
        fields = self._query.fields
        if not fields:
            return row_text(*row)
        if row[2] is not None and fields == ENVELOPE_KEYS:
            return row_text(row[0], row[1], "{}")
        return json.dumps(pick(whole(row), fields), ensure_ascii=False)


def row_text(id: str, version: int, mine: str | None) -> str:
    """Return the JSON text of a record, or of the tombstone of a deleted one."""
    rest = '"deleted":true}' if mine is None else mine[1:]
    return f'{{"id":{json.dumps(id)},"last_modified":{version}{"" if rest == "}" else ","}{rest}'


def whole(row: StoredRow) -> JSONObject:
    """Return the record as the server shows it, decoded."""
    found: JSONObject = decode(row_text(*row).encode(), "a record of the mirror's file")
    return found


def pick(data: JSONObject, fields: frozenset[str]) -> JSONObject:
    """Return these fields of the data, with their places in it."""
    picked: JSONObject = {}
    for field in fields:
        first, _, rest = field.partition(".")
        if first not in data:
            continue
        if rest and isinstance(data[first], dict):
            inner = pick(data[first], frozenset({rest}))
            picked[first] = {**picked.get(first, {}), **inner}
        else:
            picked[first] = data[first]
    return picked


def _key(number: int, one: tuple[Sequence[Any], StoredRow | None]) -> tuple[Any, ...]:
    return order(one[0][number])


def _in_sql(one: Filter) -> tuple[str, list[Any]]:
    """Return the condition in SQL, with its values; nothing where SQLite compares in another way."""
    value = one.value
    if one.field == "last_modified":
        return f"version {_SQL[one.operator]} ?", [value]
    if one.field == "id" and one.operator in ("EQ", "IN"):
        values = value if one.operator == "IN" else [value]
        if all(isinstance(each, str) for each in values):
            return "id IN (SELECT value FROM json_each(?))", [json.dumps(values)]
    is_small = not isinstance(value, int) or -_LARGEST <= value <= _LARGEST
    if one.operator == "EQ" and type(value) in _TYPES and is_small and re.fullmatch(r"[\w.]+", one.field):
        # The type, because true is 1 there, and an array its text.
        path, types = json_path(one.field), _TYPES[type(value)]
        return f"json_extract(mine, {path}) = ? AND json_type(mine, {path}) IN {types}", [value]
    return "", []


_TYPES = {
    str: "('text')",
    int: "('integer', 'real')",
    float: "('integer', 'real')",
    bool: "('true', 'false')",
}
