"""Lists of the file: filters, sort, fields and pages, as Kinto on PostgreSQL has them.

SQL narrows the candidates where it surely loses none; Python decides.
https://docs.kinto-storage.org/en/stable/api/1.x/filtering.html
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from math import isfinite
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from kinto_orm.mirror.store import Store, json_field
from kinto_orm.protocol.filters import OPERATORS as NAMES
from kinto_orm.protocol.json_values import JSON, JSONObject, decode
from kinto_orm.protocol.paging import encode_query
from kinto_orm.server.jsonb import ABSENT, OPERATORS, look_up, order

MOST_ROWS = 10_000
"""Rows on a page at most, as Kinto has it."""

_NAMED = re.compile(rf"({'|'.join(NAMES)}|eq)_([\w.]+)")
_SORTED = re.compile(r"([-+]?)([\w.]+)")
_TIMESTAMP = re.compile(r'\d+|"\d+"')
_TIMES = {"_since": "GT", "_before": "LT", "_to": "LT"}
_LARGEST = 2**63 - 1
_SQL = {"LT": "<", "MAX": "<=", "EQ": "=", "NOT": "<>", "MIN": ">=", "GT": ">"}


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


def parse_query(query: str) -> ListQuery:
    """Return the parameters of a query string; raise ``BadQueryError`` for those that Kinto refuses."""
    parameters = parse_qsl(query, keep_blank_values=True)
    given = dict(parameters)
    sort = [
        (match[2], -1 if match[1] == "-" else 1)
        for part in given.get("_sort", "").split(",")
        if (match := _SORTED.fullmatch(part.strip()))
    ]
    if not any(field == "last_modified" for field, _ in sort):
        sort.append(("last_modified", -1))
    fields = (
        frozenset(given["_fields"].split(",")) | {"id", "last_modified"} if given.get("_fields") else frozenset[str]()
    )
    return ListQuery(
        [one for one in parameters if one[0] not in ("_limit", "_token")],
        [found for name, value in parameters if (found := _parse_filter(name, value)) is not None],
        sort,
        fields,
        _parse_limit(given.get("_limit", "")),
        _parse_token(given["_token"], sort) if given.get("_token") else None,
    )


def _parse_filter(name: str, text: str) -> Filter | None:
    stripped = name.strip()
    if stripped in _TIMES:
        return Filter("last_modified", _TIMES[stripped], _timestamp(stripped, text))
    if stripped.startswith("_"):
        return None
    match = _NAMED.fullmatch(stripped)
    operator, field = (match[1].upper(), match[2]) if match else ("EQ", stripped)
    value: Any
    if operator in ("IN", "EXCLUDE"):
        value = [_native(part) for part in text.split(",")]
    else:
        value = _native(text)
        if operator in ("CONTAINS", "CONTAINS_ANY") and not isinstance(value, list):
            value = [value]
    if field == "last_modified":
        if operator in ("IN", "EXCLUDE", "HAS", "LIKE", "CONTAINS", "CONTAINS_ANY"):
            raise BadQueryError(stripped)
        value = _timestamp(stripped, text)
    elif operator == "LIKE" and not isinstance(value, str):
        raise BadQueryError(stripped)
    elif field == "id":
        _check_id(stripped, operator, value)
    return Filter(field, operator, value)


def _check_id(name: str, operator: str, value: Any) -> None:
    if operator in ("CONTAINS", "CONTAINS_ANY"):
        raise BadQueryError(name)
    if operator in ("IN", "EXCLUDE") and not all(isinstance(one, str) for one in value):
        raise BadQueryError(name)
    if operator == "EQ" and type(value) in (int, float):
        raise BadQueryError(name)


def _native(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, float) and not isfinite(value) else value


def _refuse(name: str) -> JSON:
    raise ValueError(name)


def _timestamp(name: str, text: str) -> int:
    if not _TIMESTAMP.fullmatch(text) or int(text.strip('"')) > _LARGEST:
        raise BadQueryError(name)
    return int(text.strip('"'))


def _parse_limit(text: str) -> int:
    try:
        limit = int(float(text)) if text else 0
    except (ValueError, OverflowError):
        raise BadQueryError("_limit") from None
    if not 0 <= limit <= _LARGEST:
        raise BadQueryError("_limit")
    return min(limit, MOST_ROWS) or MOST_ROWS


def _parse_token(token: str, sort: Sequence[tuple[str, int]]) -> list[Any]:
    try:
        after = json.loads(urlsafe_b64decode(token))
    except ValueError:
        after = None
    if not isinstance(after, list) or len(after) != len(sort) + 1:
        raise BadQueryError("_token")
    return [ABSENT if one is None else one[0] for one in after]


class Selection:
    """The rows of one collection that a query selects."""

    def __init__(self, store: Store, collection: int, query: ListQuery, *, only_live: bool = False) -> None:
        self._store = store
        self._collection = collection
        self._query = query
        narrowed = [_narrow(one) for one in query.filters]
        clauses = [clause for clause, _, _ in narrowed if clause]
        self._where = " AND ".join(["1" if query.holds_tombstones and not only_live else "mine IS NOT NULL", *clauses])
        self._values = [value for _, values, _ in narrowed for value in values]
        self._rest = [one for one, (_, _, is_exact) in zip(query.filters, narrowed, strict=True) if not is_exact]

    def count(self) -> int:
        """Return the number of live records, whatever the limit."""
        where = f"mine IS NOT NULL AND {self._where}"
        if not self._rest:
            return self._store.count(self._collection, where, self._values)
        found = self._store.select(self._collection, where, self._values)
        return sum(self._meets(_whole(*one)) for one in found)

    def page(self) -> Selected:
        """Return one page of the rows."""
        query, sort = self._query, self._query.sort
        column = {"id": "id", "last_modified": "version"}.get(sort[0][0])
        rows = self._in_order_of(column, sort[0][1]) if column else self._sorted()
        rows, has_more = rows[: query.limit], len(rows) > query.limit
        token = self._token(_whole(*rows[-1])) if has_more else None
        texts = [self._text(*one) for one in rows]
        if token is None:
            return Selected(texts, [id for id, _, _ in rows], None)
        following = encode_query([*query.parameters, ("_limit", str(query.limit)), ("_token", token)])
        return Selected(texts, [id for id, _, _ in rows], following)

    def _in_order_of(self, column: str, direction: int) -> list[tuple[str, int, str | None]]:
        """Return the rows of the page and one more, read in the order of an index."""
        wanted, found = self._query.limit + 1, list[tuple[str, int, str | None]]()
        sign, way = (">", "ASC") if direction > 0 else ("<", "DESC")
        # Where a field narrows the rows, SQLite shall use its index, and not that of the order.
        is_narrow = "json_extract" in self._where
        order = f"{'+' if is_narrow else ''}{column} {way}"
        at = 0 if column == "id" else 1
        last: Any = None if self._query.after is None else self._query.after[0]
        while len(found) < wanted:
            bound, values = ("", []) if last is None else (f" AND {column} {sign} ?", [last])
            size = wanted if not self._rest else max(wanted, 1000)
            some = self._store.select(self._collection, self._where + bound, [*self._values, *values], order, size)
            found += some if not self._rest else [one for one in some if self._meets(_whole(*one))]
            if len(some) < size:
                break
            last = some[-1][at]
        return found[:wanted]

    def _sorted(self) -> list[tuple[str, int, str | None]]:
        rows = [(_whole(*one), one) for one in self._store.select(self._collection, self._where, self._values)]
        rows = [one for one in rows if self._meets(one[0])]
        compare = _comparison(self._query.sort)
        keyed = [(_place(data, self._query.sort), one) for data, one in rows]
        after = self._query.after
        if after is not None:
            keyed = [one for one in keyed if compare(one[0], after) > 0]
        place = cmp_to_key(compare)
        keyed.sort(key=lambda one: place(one[0]))
        return [one for _, one in keyed]

    def _meets(self, data: JSONObject) -> bool:
        return all(OPERATORS[one.operator](look_up(data, one.field), one.value) for one in self._rest)

    def _token(self, data: JSONObject) -> str:
        after = [None if one is ABSENT else [one] for one in _place(data, self._query.sort)]
        return urlsafe_b64encode(json.dumps(after).encode()).decode()

    def _text(self, id: str, version: int, mine: str | None) -> str:
        if not self._query.fields:
            return row_text(id, version, mine)
        wanted = self._query.fields
        if mine is not None and wanted == {"id", "last_modified"}:
            return row_text(id, version, "{}")
        return json.dumps(pick(_whole(id, version, mine), wanted), ensure_ascii=False)


def row_text(id: str, version: int, mine: str | None) -> str:
    """Return the JSON text of a record, or of the tombstone of a deleted one."""
    rest = '"deleted":true}' if mine is None else mine[1:]
    return f'{{"id":{json.dumps(id)},"last_modified":{version}{"" if rest == "}" else ","}{rest}'


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


def _whole(id: str, version: int, mine: str | None) -> JSONObject:
    found: JSONObject = decode(row_text(id, version, mine).encode(), "a record of the mirror's file")
    return found


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


def _narrow(one: Filter) -> tuple[str, list[Any], bool]:
    """Return a clause in SQL that all matching rows meet, its values, and whether only those meet it."""
    if one.field == "last_modified":
        return f"version {_SQL[one.operator]} ?", [one.value], True
    if one.field == "id" and one.operator in ("EQ", "IN"):
        values = one.value if one.operator == "IN" else [one.value]
        if all(isinstance(value, str) for value in values) and len(values) < 10_000:
            return f"id IN ({', '.join('?' * len(values))})", list(values), True
    if one.operator == "EQ" and re.fullmatch(r"[\w.]+", one.field) and _is_plain(one.value):
        return f"{json_field(one.field)} = ?", [one.value], False
    return "", [], False


def _is_plain(value: Any) -> bool:
    """Return whether SQLite finds the value: what it makes of larger integers and other types is something else."""
    if isinstance(value, int):
        return -_LARGEST <= value <= _LARGEST
    return isinstance(value, str) or (isinstance(value, float) and isfinite(value))
