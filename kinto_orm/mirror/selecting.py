"""Lists of the file: filters, sort, fields and pages, as Kinto on PostgreSQL has them.

SQL decides where it compares as PostgreSQL does, Python elsewhere.
https://docs.kinto-storage.org/en/stable/api/1.x/filtering.html
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cmp_to_key, lru_cache
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
_TIMESTAMP = re.compile(r'\d+|"\d+"')
_TIMES = {"_since": "GT", "_before": "LT", "_to": "LT"}
_LARGEST = 2**63 - 1
_SQL = {"LT": "<", "MAX": "<=", "EQ": "=", "NOT": "<>", "MIN": ">=", "GT": ">"}

_Row: TypeAlias = tuple[str, int, str | None]
"""Id, version and data of a record."""


class BadQueryError(Exception):
    """A parameter that Kinto refuses; its name is the argument."""

    @property
    def comes_first(self) -> bool:
        """Whether Kinto refuses it before it looks at the preconditions."""
        return str(self) in ("_limit", "_since", "_before", "_to", "id", "last_modified")


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


class Selected(NamedTuple):
    """A page of rows, as JSON text, and the query string of the next page."""

    texts: list[str]
    ids: list[str]
    next_query: str | None


@lru_cache(maxsize=100)
def parse_query(query: str) -> ListQuery:
    """Return the parameters of a query string; raise ``BadQueryError`` for those that Kinto refuses."""
    parameters = parse_qsl(query, keep_blank_values=True)
    given = dict(parameters)
    parts = map(_SORTED.fullmatch, given.get("_sort", "").split(","))
    sort = [(match[2], -1 if match[1] == "-" else 1) for match in parts if match]
    if not any(field == "last_modified" for field, _ in sort):
        sort.append(("last_modified", -1))
    fields = {*given["_fields"].split(","), *ENVELOPE_KEYS} if given.get("_fields") else set[str]()
    limit = given.get("_limit") or "0"
    if not limit.isdecimal():
        raise BadQueryError("_limit")
    return ListQuery(
        [one for one in parameters if one[0] not in ("_limit", "_token")],
        [found for name, value in parameters if (found := _parse_filter(name, value)) is not None],
        sort,
        frozenset(fields),
        min(int(limit), MOST_ROWS) or MOST_ROWS,
        _parse_token(given["_token"], sort) if given.get("_token") else None,
    )


def _parse_filter(name: str, text: str) -> Filter | None:
    if name in _TIMES:
        return Filter("last_modified", _TIMES[name], _timestamp(name, text))
    if name.startswith("_"):
        return None
    match = _NAMED.fullmatch(name)
    operator, field = (match[1].upper(), match[2]) if match else ("EQ", name)
    is_of_list = operator in ("IN", "EXCLUDE")
    value = [_native(part) for part in text.split(",")] if is_of_list else _native(text)
    if operator in ("CONTAINS", "CONTAINS_ANY") and not isinstance(value, list):
        value = [value]
    if field == "last_modified":
        is_refused = operator not in _SQL
    elif field == "id":
        is_refused = operator.startswith("CONTAINS") or (operator == "EQ" and type(value) in (int, float))
        is_refused = is_refused or (is_of_list and not all(isinstance(one, str) for one in value))
    else:
        is_refused = operator == "LIKE" and not isinstance(value, str)
    if is_refused:
        raise BadQueryError(name)
    return Filter(field, operator, _timestamp(name, text) if field == "last_modified" else value)


def _native(text: str) -> Any:
    try:
        value = decode(text.encode(), "a value")
    except ProtocolError:
        return text
    return text if isinstance(value, float) and not isfinite(value) else value


def _timestamp(name: str, text: str) -> int:
    if not _TIMESTAMP.fullmatch(text) or int(text.strip('"')) > _LARGEST:
        raise BadQueryError(name)
    return int(text.strip('"'))


def _parse_token(token: str, sort: Sequence[tuple[str, int]]) -> list[Any]:
    after = json.loads(urlsafe_b64decode(token))
    assert len(after) == len(sort) + 1
    return [ABSENT if one is None else one[0] for one in after]


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

    def page(self) -> Selected:
        """Return one page of the rows."""
        query = self._query
        column = {"id": "id", "last_modified": "version"}.get(query.sort[0][0])
        found = self._in_order_of(column, query.sort[0][1]) if column else self._sorted()
        rows = list(islice(found, query.limit + 1))
        following = self._next_query(rows[query.limit - 1]) if len(rows) > query.limit else None
        del rows[query.limit :]
        return Selected(list(map(self._text, rows)), [row[0] for row in rows], following)

    def _in_order_of(self, column: str, direction: int) -> Iterator[_Row]:
        """Return the rows, read in the order of an index."""
        where, values = self._where, self._values
        sign, way = (">", "ASC") if direction > 0 else ("<", "DESC")
        if self._query.after is not None:
            where, values = f"{where} AND {column} {sign} ?", [*values, self._query.after[0]]
        # Where a field narrows the rows, SQLite shall use its index, and not that of the order.
        order = f"{'+' if 'json_extract' in where else ''}{column} {way}"
        found = self._store.select(self._collection, where, values, order)
        return filter(self._meets, found) if self._rest else found

    def _sorted(self) -> Iterator[_Row]:
        sort, after, compare = self._query.sort, self._query.after, _comparison(self._query.sort)
        rows = filter(self._meets, self._store.select(self._collection, self._where, self._values))
        keyed = [(_place(whole(row), sort), row) for row in rows]
        place = cmp_to_key(compare)
        keyed.sort(key=lambda one: place(one[0]))
        return (row for key, row in keyed if after is None or compare(key, after) > 0)

    def _meets(self, row: _Row) -> bool:
        data = whole(row) if self._rest else {}
        return all(OPERATORS[one.operator](look_up(data, one.field), one.value) for one in self._rest)

    def _next_query(self, last: _Row) -> str:
        after = [None if one is ABSENT else [one] for one in _place(whole(last), self._query.sort)]
        token = urlsafe_b64encode(json.dumps(after).encode()).decode()
        return encode_query([*self._query.parameters, ("_limit", str(self._query.limit)), ("_token", token)])

    def _text(self, row: _Row) -> str:
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


def whole(row: _Row) -> JSONObject:
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


def _place(data: JSONObject, sort: Sequence[tuple[str, int]]) -> list[Any]:
    return [*(look_up(data, field) for field, _ in sort), data["id"]]


def _comparison(sort: Sequence[tuple[str, int]]) -> Callable[[Sequence[Any], Sequence[Any]], int]:
    directions = [*(direction for _, direction in sort), 1]

    def compare(one: Sequence[Any], other: Sequence[Any]) -> int:
        for mine, theirs, direction in zip(one, other, directions, strict=True):
            left, right = order(mine), order(theirs)
            if left != right:
                return -direction if left < right else direction
        return 0

    return compare


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
