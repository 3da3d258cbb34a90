"""Lists of the file: filters, sort, fields and pages, as Kinto on PostgreSQL has them.

SQL decides where it compares as PostgreSQL does, Python elsewhere.
https://docs.kinto-storage.org/en/stable/api/1.x/filtering.html
"""

from __future__ import annotations

import json
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from itertools import islice
from json.encoder import encode_basestring_ascii
from typing import Any, cast
from urllib.parse import unquote

from kinto_orm.errors import InvalidFilterError
from kinto_orm.mirror.store import Store, StoredRow, json_path
from kinto_orm.protocol.filters import Condition, parse_conditions
from kinto_orm.protocol.json_values import JSONObject, decode
from kinto_orm.protocol.paging import ENVELOPE_KEYS, encode_query
from kinto_orm.server.jsonb import ABSENT, OPERATORS, look_up, order

MOST_ROWS = 10_000
"""Rows on a page at most, as Kinto has it."""

_FIELD = re.compile(r"[\w.]+")
_SORTED = re.compile(r"\s*([-+]?)([\w.]+)\s*")
_IS_LIVE = "mine IS NOT NULL"
_LARGEST = 2**63 - 1
_SQL = {"lt": "<", "max": "<=", "": "=", "not": "<>", "min": ">=", "gt": ">"}


class Selection:
    """The rows of one collection that a query string selects; what Kinto refuses is a ``ValueError``.

    It is used inside of a transaction. ``only_live`` leaves tombstones out, which Kinto adds to a list that is filtered
    by time.
    """

    def __init__(self, store: Store, collection: int, query: str, *, only_live: bool = False) -> None:
        self._store = store
        self._collection = collection
        given = read_query(query)
        self._parameters = [one for one in given.items() if one[0] not in ("_limit", "_token")]
        limit = float(given.get("_limit", "").strip('"') or 0)
        if not 0 <= limit <= _LARGEST:
            raise InvalidFilterError("_limit is a number of rows.")
        self._limit = min(int(limit), MOST_ROWS) or MOST_ROWS
        self.fields = given.get("_fields", "")
        parts = map(_SORTED.fullmatch, given.get("_sort", "").split(","))
        self._sort = [(match[2], -1 if match[1] == "-" else 1) for match in parts if match]
        self._sort += [] if "last_modified" in dict(self._sort) else [("last_modified", -1)]
        self._sort.append(("id", 1))
        after = _read_token(given["_token"]) if given.get("_token") else None
        self._after = None if after is None else [after.get(field, ABSENT) for field, _ in self._sort]
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
        place = zip(self._sort, self._place(rows[-2]), strict=True)
        after = {field: value for (field, _), value in place if value is not ABSENT}
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
        after = [] if self._after is None else [(self._after, None)]
        keyed = [*((self._place(row), row) for row in rows), *after]
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


def read_query(query: str) -> dict[str, str]:
    """Return the parameters of a query string, which may be a user's own; Kinto splits at ``;``, too."""
    pairs = [one.partition("=") for one in query.replace("+", " ").replace(";", "&").split("&") if one]
    given = {unquote(name): unquote(value) for name, _, value in pairs}
    if len(given) < len(pairs):
        raise InvalidFilterError(f"{query}: Kinto makes a list of a parameter that is there twice; a mirror does not.")
    return given


def _read_token(token: str) -> JSONObject:
    """Return the place in a token; Kinto takes none back that holds a list or an object."""
    place: JSONObject = json.loads(urlsafe_b64decode(token))
    is_place = isinstance(place, dict) and {"id", "last_modified"} <= place.keys()
    if not is_place or any(isinstance(one, list | dict) for one in place.values()):
        raise InvalidFilterError("_token has invalid content.")
    return place


def row_text(id: str, version: int, mine: str | None, fields: str = "") -> str:
    """Return the JSON text of a record, or of the tombstone of a deleted one; of some fields where they are named."""
    if fields:
        return json.dumps(_pick(whole((id, version, mine)), [*fields.split(","), *ENVELOPE_KEYS]), ensure_ascii=False)
    rest = '"deleted":true}' if mine is None else mine[1:]
    return f'{{"id":{encode_basestring_ascii(id)},"last_modified":{version}{"" if rest == "}" else ","}{rest}'


def whole(row: StoredRow) -> JSONObject:
    """Return the record as the server shows it, decoded."""
    return cast(JSONObject, decode(row_text(*row).encode(), "a record of the mirror's file"))


def _pick(data: JSONObject, fields: Iterable[str]) -> JSONObject:
    """Return these fields of the data, with their places in it."""
    inner: dict[str, list[str]] = {}
    for first, _, rest in (field.partition(".") for field in fields):
        inner.setdefault(first, []).append(rest)
    return {
        key: _pick(data[key], rests) if all(rests) and isinstance(data[key], dict) else data[key]
        for key, rests in inner.items()
        if key in data
    }


def _in_sql(one: Condition) -> tuple[str, list[Any]]:
    """Return the condition in SQL, with its values; nothing where SQLite compares in another way.

    Raises ``InvalidFilterError`` for what Kinto refuses: texts, and times until tomorrow, are compared with such only.
    """
    value = one.value
    values = one.value if isinstance(one.value, list) and one.operator in ("in", "exclude") else [value]
    is_time, is_of_text = one.field == "last_modified", one.operator == "like" or one.field == "id"
    is_wrong = is_time and (one.operator not in _SQL or value >= (time.time() + 86_400) * 1000)
    if is_wrong or (is_of_text and one.operator != "has" and not all(isinstance(each, str) for each in values)):
        raise InvalidFilterError(f"Kinto does not take {one.operator}_{one.field}={value!r}.")
    if is_time:
        return f"version {_SQL[one.operator]} ?", [value]
    if one.field == "id" and one.operator in ("", "in"):
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
