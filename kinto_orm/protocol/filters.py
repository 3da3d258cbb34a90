"""Conditions on a plural endpoint, and the parameters that Kinto understands as just these.

Kinto parses a value as JSON first, counts a missing field as greater than and different from everything, ignores
parameters it does not know, and on the memory backend honours only the last ``has_`` (and forgets the filters
before it). So values are always written as JSON, presence is asked for first, and what would be ignored is refused.
https://docs.kinto-storage.org/en/stable/api/1.x/filtering.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kinto_orm.errors import InvalidFilterError, KintoError
from kinto_orm.protocol.timestamps import parse_timestamp
from kinto_orm.protocol.values import JSON, to_json_value

OPERATORS = ("gt", "lt", "min", "max", "not", "in", "exclude", "like", "has", "contains_any", "contains")
"""As Kinto spells them; equality has none. ``contains_any`` stands before its own beginning."""

_OPERATOR_PREFIX = re.compile(rf"({'|'.join(OPERATORS)}|eq)_([\w.]+)")
_OPERATED_FIELD = re.compile(r"[\w.]+")
_DJANGO = re.compile(
    r"(\w+)__(exact|iexact|contains|icontains|in|gt|gte|lt|lte|startswith|endswith|isnull|range|regex|not|like)"
)
_ORDERED = ("gt", "lt", "min", "max")
_TIMESTAMP_OPERATORS = ("", "not", *_ORDERED)

# Kinto's order is null < string < number < boolean < array < object < missing: the first value of the next type
# bounds a range from above where `has_` cannot be used.
_NEXT_TYPE = {str: "-1e308", int: "false", float: "false"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on one field; ``operator`` is empty for equality."""

    field: str
    operator: str
    value: JSON
    needs_field: bool = False
    """Whether objects without the field are to be left out, which Kinto would count in."""

    def __bool__(self) -> bool:
        raise InvalidFilterError(
            "A condition has no truth value: give conditions to filter() one by one (they are ANDed), "
            "not joined by 'and', 'or' or a chained comparison."
        )

    def __or__(self, other: object) -> Condition:
        raise InvalidFilterError("Kinto has no OR: use in_() on one field, or two queries.")

    def __and__(self, other: object) -> Condition:
        raise InvalidFilterError(
            "Give both conditions to filter(), separated by a comma: the server's AND is the only one."
        )

    def __invert__(self) -> Condition:
        raise InvalidFilterError("Kinto has no NOT: use != or exclude().")


def condition(field: str, operator: str, value: Any, *, needs_field: bool = False) -> Condition:
    """A checked condition.

    Raises ``InvalidFilterError`` for what Kinto would refuse, ignore or understand differently.
    """
    if not field or field.startswith("_"):
        raise InvalidFilterError(f"{field!r} cannot be filtered on: Kinto ignores names that begin with '_'.")
    if operator and not _OPERATED_FIELD.fullmatch(field):
        raise InvalidFilterError(f"{operator}_ works on names of letters, digits, '_' and '.', not on {field!r}.")
    try:
        checked = _check_value(field, operator, value)
    except InvalidFilterError:
        raise
    except KintoError as error:
        raise InvalidFilterError(f"filter on {field!r}: {error}") from error
    return Condition(field, operator, checked, needs_field)


def parse_keyword(name: str, value: Any, declared: Iterable[str] = ()) -> Condition:
    """The condition of a Kinto-native keyword: ``gt_priority=3``, ``in_id=[...]``, ``done=False``.

    ``declared`` are field names that stand for themselves although they begin like an operator (``in_stock``).
    """
    if match := _DJANGO.fullmatch(name):
        raise InvalidFilterError(f"{name}: Kinto has no such look-up; write for example gt_{match[1]}=… or F(…).")
    match = None if name in set(declared) else _OPERATOR_PREFIX.fullmatch(name)
    if match and match[1] != "eq":
        return condition(match[2], match[1], value)
    return condition(match[2] if match else name, "", value)


def _check_value(field: str, operator: str, value: Any) -> JSON:
    if operator == "has":
        if not isinstance(value, bool):
            raise InvalidFilterError(f"has_{field} takes True or False, not {value!r:.60}.")
        return value
    if field == "last_modified":
        return _check_timestamp(operator, value)
    if operator in ("in", "exclude"):
        return _check_choices(field, operator, value)
    if operator in ("contains", "contains_any"):
        if field == "id":
            raise InvalidFilterError("id is no array: contains cannot be asked of it.")
        return to_json_value(list(value) if isinstance(value, (set, frozenset)) else value, field)
    checked = to_json_value(value, field)
    _check_scalar(field, operator, checked)
    return checked


def _check_scalar(field: str, operator: str, value: JSON) -> None:
    if field == "id" and not isinstance(value, str):
        raise InvalidFilterError(f"ids are strings: id cannot be compared with {value!r:.60}.")
    if operator in _ORDERED and isinstance(value, (dict, list)):
        raise InvalidFilterError(f"{operator}_{field} cannot order by a {type(value).__name__}: Kinto fails on it.")
    if operator == "like" and not isinstance(value, str):
        raise InvalidFilterError(f"like_{field} takes text, not {value!r:.60}.")
    if operator == "like" and value.endswith("\\"):
        raise InvalidFilterError(f"like_{field}: PostgreSQL fails on a pattern that ends in a backslash.")


def _check_timestamp(operator: str, value: Any) -> int:
    if operator not in _TIMESTAMP_OPERATORS:
        raise InvalidFilterError(f"Kinto refuses {operator}_last_modified; use gt_, lt_, min_, max_ or not_.")
    if isinstance(value, float):
        raise InvalidFilterError(f"last_modified is an integer in milliseconds, not {value!r}.")
    return parse_timestamp(value, "last_modified")


def _check_choices(field: str, operator: str, value: Any) -> list[JSON]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidFilterError(f"{operator}_{field} takes a list of values, not {value!r:.60}.")
    choices: list[JSON] = to_json_value(list(value), field)
    for choice in choices:
        # Kinto splits at every comma before it parses: only text can hide one, as an escape.
        if isinstance(choice, (dict, list)):
            raise InvalidFilterError(f"{operator}_{field} takes plain values, not {choice!r:.60}.")
        if field == "id" and not isinstance(choice, str):
            raise InvalidFilterError(f"ids are strings: {operator}_id cannot hold {choice!r:.60}.")
    return choices


def matches_nothing(conditions: Iterable[Condition]) -> bool:
    """Whether no object can match: ``in_`` with no values, which needs no request."""
    return any(condition.operator == "in" and not condition.value for condition in conditions)


def encode_conditions(conditions: Iterable[Condition]) -> list[tuple[str, str]]:
    """The parameters, in the order in which every backend gives the right answer."""
    present: dict[str, None] = {}
    rest: list[tuple[str, str]] = []
    for one in conditions:
        if one.operator == "has" and one.value:
            present[one.field] = None
            continue
        if one.needs_field and one.field not in present and not _bound_by_type(one, present, rest):
            present[one.field] = None
        # `exclude_` without values excludes nothing; sent empty it would exclude the empty text.
        if not (one.operator == "exclude" and not one.value):
            rest.append((_parameter(one), _encode(one)))
    rest.sort(key=lambda pair: not pair[0].startswith("has_"))
    return [(f"has_{field}", "true") for field in present] + rest


def _bound_by_type(one: Condition, present: Mapping[str, None], rest: list[tuple[str, str]]) -> bool:
    if one.operator == "like":
        # The memory backend answers 500 where `like_` meets a value that is no text: only text passes these two.
        rest += [(f"min_{one.field}", '""'), (f"lt_{one.field}", _NEXT_TYPE[str])]
        return True
    bound = _NEXT_TYPE.get(type(one.value)) if one.operator in ("gt", "min") else None
    if not present or bound is None:
        return False
    rest.append((f"lt_{one.field}", bound))
    return True


def _parameter(one: Condition) -> str:
    if one.operator:
        return f"{one.operator}_{one.field}"
    # A field like `in_stock` reads as an operator: Kinto takes `eq_` for equality, as every member of its enum.
    return f"eq_{one.field}" if _OPERATOR_PREFIX.fullmatch(one.field) else one.field


def _encode(one: Condition) -> str:
    if one.operator in ("in", "exclude"):
        # The trailing comma makes Kinto see a list where there is one value only.
        return ",".join(json.dumps(value).replace(",", "\\u002c") for value in one.value)
    return json.dumps(one.value, separators=(",", ":"))


def check_field_name(name: str) -> str:
    """A field name for ``_sort`` and ``_fields``; raises ``InvalidFilterError`` for one that Kinto would drop."""
    if not _OPERATED_FIELD.fullmatch(name) or name.startswith("_"):
        raise InvalidFilterError(f"{name!r} is no field name: Kinto would ignore it without a word.")
    return name


def as_moment(value: int | str | datetime, what: str) -> int:
    """A timestamp for ``_since`` and ``_before``; raises ``InvalidFilterError``."""
    try:
        return parse_timestamp(value, what)
    except KintoError as error:
        raise InvalidFilterError(str(error)) from error
