"""Lists of the file: filters, sort, fields and pages, as Kinto on PostgreSQL has them.

SQL decides where it compares as PostgreSQL does, Python elsewhere.
https://docs.kinto-storage.org/en/stable/api/1.x/filtering.html
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from itertools import islice
from json.encoder import encode_basestring_ascii
from typing import Any, TypeAlias
from urllib.parse import unquote

from kinto_orm.mirror.store import Store, json_path
from kinto_orm.protocol.filters import Condition, parse_conditions
from kinto_orm.protocol.json_values import JSONObject, decode
from kinto_orm.protocol.paging import ENVELOPE_KEYS, encode_query
from kinto_orm.server.jsonb import ABSENT, OPERATORS, look_up, order

MOST_ROWS = 10_000
"""Rows on a page at most, as Kinto has it."""

_FIELD = re.compile(r"[\w.]+")
_SORTED = re.compile(r"([-+]?)([\w.]+)")
_IS_LIVE = "mine IS NOT NULL"
_LARGEST = 2**63 - 1
_SQL = {"lt": "<", "max": "<=", "": "=", "not": "<>", "min": ">=", "gt": ">"}

StoredRow: TypeAlias = tuple[str, int, str | None]
"""Id, version and data of a record."""


class Selection:
    """The rows of one collection that a query string selects, as flows make it: what Kinto refuses is not sent.

    It is used inside of a transaction. ``only_live`` leaves tombstones out, which Kinto adds to a list that is filtered
    by time.
    """

    def __init__(self, store: Store, collection: int, query: str, *, only_live: bool = False) -> None:
        self._store = store
        self._collection = collection
        # A query string may be a user's own (``kinto_http``'s ``session.request``): Kinto splits at ``;``, too.
        pairs = [one.partition("=") for one in query.replace("+", " ").replace(";", "&").split("&") if one]
        parameters = [(unquote(name), unquote(value)) for name, _, value in pairs]
        given = dict(parameters)
        self._parameters = [one for one in parameters if one[0] not in ("_limit", "_token")]
        self._limit = min(int(given.get("_limit") or 0), MOST_ROWS) or MOST_ROWS
        self._fields = {*given["_fields"].split(","), *ENVELOPE_KEYS} if given.get("_fields") else None
        parts = map(_SORTED.fullmatch, given.get("_sort", "").split(","))
        self._sort = [(match[2], -1 if match[1] == "-" else 1) for match in parts if match]
        self._sort += [] if "last_modified" in dict(self._sort) else [("last_modified", -1)]
        self._sort.append(("id", 1))
        after = json.loads(urlsafe_b64decode(given["_token"])) if given.get("_token") else None
        self._after: list[Any] | None = after and [ABSENT if one is None else one[0] for one in after]
        """The place of the last row of the page before: the value of each sort field."""
        conditions = parse_conditions(self._parameters)
        clauses = [(one, *_in_sql(one)) for one in conditions]
        shows_all = not only_live and "last_modified" in [one.field for one in conditions]
        self._where = " AND ".join(["1" if shows_all else _IS_LIVE, *[clause for _, clause, _ in clauses if clause]])
        self._values = [value for _, _, values in clauses for value in values]
        self._rest = [one for one, clause, _ in clauses if not clause]
        """The conditions that SQLite would answer in another way."""

    def count(self) -> int:
        """Return the number of live records, whatever the limit."""
        where = f"{_IS_LIVE} AND {self._where}"
        if not self._rest:
            return self._store.count(self._collection, where, self._values)
        return sum(map(self._meets, self._store.select(self._collection, where, self._values)))

    def page(self) -> tuple[list[StoredRow], str | None]:
        """Return the rows of one page, and the query string of the next one."""
        column = {"id": "id", "last_modified": "version"}.get(self._sort[0][0])
        found = self._in_order_of(column, self._sort[0][1]) if column else self._sorted()
        rows = list(islice(found, self._limit + 1))
        if len(rows) <= self._limit:
            return rows, None
        after = [None if one is ABSENT else [one] for one in self._place(rows[-2])]
        token = urlsafe_b64encode(json.dumps(after).encode()).decode()
        return rows[:-1], encode_query([*self._parameters, ("_limit", str(self._limit)), ("_token", token)])

    def _in_order_of(self, column: str, direction: int) -> Iterator[StoredRow]:
        """Return the rows, read in the order of an index."""
        where, values = self._where, self._values
        sign, way = (">", "ASC") if direction > 0 else ("<", "DESC")
        if self._after is not None:
            where, values = f"{where} AND {column} {sign} ?", [*values, self._after[0]]
        # Where a field narrows the rows, SQLite shall use its index, and not that of the order.
        order = f"{'+' if 'json_extract' in where else ''}{column} {way}"
        found = self._store.select(self._collection, where, values, order)
        return filter(self._meets, found) if self._rest else found

    def _sorted(self) -> Iterator[StoredRow]:
        """Return the rows behind the last one of the page before, sorted here."""
        rows = filter(self._meets, self._store.select(self._collection, self._where, self._values))
        keyed: list[tuple[Sequence[Any], StoredRow | None]] = [(self._place(row), row) for row in rows]
        if self._after is not None:
            keyed.append((self._after, None))
        for number, (_, direction) in reversed(list(enumerate(self._sort))):
            keyed.sort(key=lambda one, number=number: order(one[0][number]), reverse=direction < 0)  # type: ignore[misc]  # mypy infers no default
        in_order = [row for _, row in keyed]
        return filter(None, in_order[in_order.index(None) + 1 :] if self._after is not None else in_order)

    def _place(self, row: StoredRow) -> list[Any]:
        data = whole(row)
        return [look_up(data, field) for field, _ in self._sort]

    def _meets(self, row: StoredRow) -> bool:
        data = whole(row) if self._rest else {}
        return all(OPERATORS[one.operator.upper() or "EQ"](look_up(data, one.field), one.value) for one in self._rest)

    def texts(self, rows: Sequence[StoredRow]) -> list[str]:
        """Return the JSON texts of rows, with the fields that were asked for."""
        if self._fields is None:
            return [row_text(*row) for row in rows]
        return [json.dumps(_pick(whole(row), self._fields), ensure_ascii=False) for row in rows]


def row_text(id: str, version: int, mine: str | None) -> str:
    """Return the JSON text of a record, or of the tombstone of a deleted one."""
    rest = '"deleted":true}' if mine is None else mine[1:]
    return f'{{"id":{encode_basestring_ascii(id)},"last_modified":{version}{"" if rest == "}" else ","}{rest}'


def whole(row: StoredRow) -> JSONObject:
    """Return the record as the server shows it, decoded."""
    found: JSONObject = decode(row_text(*row).encode(), "a record of the mirror's file")
    return found


def _pick(data: JSONObject, fields: set[str]) -> JSONObject:
    """Return these fields of the data, with their places in it."""
    picked: JSONObject = {}
    for field in fields:
        first, _, rest = field.partition(".")
        if first not in data:
            continue
        if rest and isinstance(data[first], dict):
            inner = _pick(data[first], {rest})
            picked[first] = {**picked.get(first, {}), **inner}
        else:
            picked[first] = data[first]
    return picked


def _in_sql(one: Condition) -> tuple[str, list[Any]]:
    """Return the condition in SQL, with its values; nothing where SQLite compares in another way."""
    value = one.value
    if one.field == "last_modified":
        return f"version {_SQL[one.operator]} ?", [value]
    if one.field == "id" and one.operator in ("", "in"):
        values = value if one.operator == "in" else [value]
        if all(isinstance(each, str) for each in values):
            return "id IN (SELECT value FROM json_each(?))", [json.dumps(values)]
    is_small = not isinstance(value, int) or -_LARGEST <= value <= _LARGEST
    if one.operator == "" and type(value) in _TYPES and is_small and _FIELD.fullmatch(one.field):
        path = json_path(one.field)
        clause = f"json_extract(mine, {path}) = ?"
        # There, true is 1, and an array is its text.
        is_mistakable = value[:1] in ("[", "{") if isinstance(value, str) else value in (0, 1)
        return f"{clause} AND json_type(mine, {path}) IN {_TYPES[type(value)]}" if is_mistakable else clause, [value]
    return "", []


_TYPES = {str: "('text')", bool: "('true', 'false')", **dict.fromkeys((int, float), "('integer', 'real')")}
