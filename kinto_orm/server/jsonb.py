"""JSON compared as PostgreSQL compares jsonb, so that the memory backend selects and sorts the same objects.

https://www.postgresql.org/docs/current/datatype-json.html
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Protocol

ABSENT = object()
"""The value of a field that an object does not have: as SQL's NULL, it sorts behind everything."""


class Filter(Protocol):
    """A condition of Kinto on one field."""

    field: str
    value: Any
    operator: Any


def meets(data: Mapping[str, Any], conditions: Iterable[Filter]) -> bool:
    """Return whether an object meets all conditions."""
    for condition in conditions:
        wanted = condition.value
        if condition.field == "id" and isinstance(wanted, int) and condition.operator.name != "HAS":
            wanted = str(wanted)
        elif condition.field == "last_modified" and isinstance(wanted, str):
            wanted = int(wanted.strip('"'))
        if not OPERATORS[condition.operator.name](look_up(data, condition.field), wanted):
            return False
    return True


def look_up(data: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path; PostgreSQL finds no key that has a dot in it."""
    if "." not in path:
        return data.get(path, ABSENT)
    value: Any = data
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return ABSENT
        value = value[key]
    return value


def order(value: Any, *, is_inside: bool = False) -> tuple[Any, ...]:
    """Return a key by which values compare and sort: Object > Array > Boolean > Number > String > Null.

    An empty array is less than everything, unless it is inside of another value.
    """
    if isinstance(value, str):
        return 1, value
    if isinstance(value, bool):
        return 3, value
    if isinstance(value, int | float):
        return 2, value
    if value is None:
        return (0,)
    if isinstance(value, list):
        rank = 4 if value or is_inside else -1
        return rank, len(value), [order(each, is_inside=True) for each in value]
    if isinstance(value, Mapping):
        return 5, len(value), [(key, order(value[key], is_inside=True)) for key in sorted(value, key=_place)]
    return (6,)


def contains(whole: Any, part: Any) -> bool:
    """Return whether a value contains another, as ``@>`` does: each key or element of the part, in any order."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(contains(have, want) for have in whole) for want in part)
    return order(whole) == order(part)


def text(value: Any) -> str | None:
    """Return a value as ``->>`` writes it; ``None`` for null and for what is absent."""
    if value is None or value is ABSENT:
        return None
    return value if isinstance(value, str) else _json(value)


def is_like(value: Any, pattern: str) -> bool:
    """Return whether the text of a value is like the pattern, of which a part without ``*`` may be anywhere.

    ``%``, ``_`` and the backslash have the meaning of SQL, because Kinto does not escape them.
    """
    written = text(value)
    if written is None:
        return False
    sql = (pattern if "*" in pattern else f"*{pattern}*").replace("*", "%")
    pieces = re.findall(r"\\(?:.|$)|%|_|[^\\%_]+", _fold(sql), re.DOTALL)
    expression = "".join({"%": ".*", "_": "."}.get(each) or re.escape(each.removeprefix("\\")) for each in pieces)
    return re.fullmatch(expression, _fold(written), re.DOTALL) is not None


def _is_any_of(value: Any, wanted: Any) -> bool:
    key = order(value)
    return any(order(each) == key for each in wanted)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, wanted: compare(order(value), order(wanted))


OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "LT": _ordered(operator.lt),
    "MAX": _ordered(operator.le),
    "EQ": _ordered(operator.eq),
    "NOT": _ordered(operator.ne),
    "MIN": _ordered(operator.ge),
    "GT": _ordered(operator.gt),
    "IN": _is_any_of,
    "EXCLUDE": lambda value, wanted: not _is_any_of(value, wanted),
    "LIKE": is_like,
    "HAS": lambda value, wanted: (value is not ABSENT) == bool(wanted),
    "CONTAINS": contains,
    "CONTAINS_ANY": lambda value, wanted: isinstance(value, list) and any(_is_any_of(one, wanted) for one in value),
}
"""The comparisons, by the names that Kinto has for them."""


def _place(key: str) -> tuple[int, bytes]:
    """Return the place of a key in an object: shorter ones are first."""
    encoded = key.encode()
    return len(encoded), encoded


def _json(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_json(key)}: {_json(value[key])}' for key in sorted(value, key=_place))}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_json, value))}]"
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")
    return json.dumps(value, ensure_ascii=False)


def _fold(written: str) -> str:
    """Return the text in lower case, letter by letter, as PostgreSQL does."""
    return written.lower() if written.isascii() else "".join(letter.lower()[0] for letter in written)
