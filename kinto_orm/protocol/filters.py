"""Conditions on a plural endpoint, and the parameters that Kinto understands in the same way.

Kinto parses a value as JSON first, counts a missing field as greater than and different from everything, ignores
unknown parameters, makes one list of a repeated parameter, and on the memory backend honours only the last ``has_``
(and forgets the filters before it). So values are always encoded as JSON, presence is asked for first and once, no name
is repeated, and parameters that Kinto would ignore are refused.
https://docs.kinto-storage.org/en/stable/api/1.x/filtering.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from sys import float_info
from typing import Any

from kinto_orm.errors import InvalidFilterError, KintoError, ProtocolError
from kinto_orm.protocol.json_values import JSON, decode, parse_timestamp, say_value, to_json_value

OPERATORS = ("gt", "lt", "min", "max", "not", "in", "exclude", "like", "has", "contains_any", "contains")
"""As Kinto spells them; equality has none. ``contains_any`` stands before its own beginning."""

_OPERATOR_PREFIX = re.compile(rf"({'|'.join(OPERATORS)}|eq)_([\w.]+)")
_OPERATOR_BEGINNING = re.compile(rf"({'|'.join(OPERATORS)}|eq)_(.+)", re.DOTALL)
_OPERATED_FIELD = re.compile(r"[\w.]+")
_DJANGO = re.compile(
    r"(\w+)__(exact|iexact|contains|icontains|in|gt|gte|lt|lte|startswith|endswith|isnull|range|regex|not|like)"
)
_INSTEAD = {
    **{name: f"{name}_{{0}}=…" for name in ("gt", "lt", "in", "not")},
    "exact": "{0}=…",
    "iexact": "like_{0}=…, which ignores case",
    "contains": "like_{0}='*…*' for text, or contains_{0}=[…] for a list",
    "icontains": "like_{0}='*…*'",
    "gte": "min_{0}=…",
    "lte": "max_{0}=…",
    "startswith": "like_{0}='…*'",
    "endswith": "like_{0}='*…'",
    "isnull": "has_{0}=False for a missing field, or {0}=None for null",
    "range": "min_{0}=… and max_{0}=…",
    "regex": "like_{0}='*…*': there are no regular expressions",
    "like": "like_{0}='…*'",
}
"""The forms to write in the place of Django's look-ups."""
ORDERING = ("gt", "lt", "min", "max")
_TIMESTAMP_OPERATORS = ("", "not", *ORDERING)
_TIMES = {"_since": "gt", "_before": "lt", "_to": "lt"}
_ALWAYS_PRESENT = ("id", "last_modified")
# A missing field never meets these; `gt`, `min`, `not` and `exclude` it does.
_PROVING_PRESENCE = ("", "lt", "max", "in", "like", "contains", "contains_any")

# Kinto's order is null < string < number < boolean < array < object < missing: the first value of the next type
# bounds a range from above where `has_` cannot be used.
_LEAST_NUMBER = repr(-float_info.max)
_FIRST_OF_TYPE = {str: '""', int: _LEAST_NUMBER, float: _LEAST_NUMBER, bool: "false"}
_NEXT_TYPE = {str: _LEAST_NUMBER, int: "false", float: "false"}

# A pattern is a regular expression on the memory backend, and has `%` and `_` as wildcards on PostgreSQL.
_SPECIAL_IN_PATTERN = re.compile(r"[!-)+-/:-@\[-`{-~]")


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
    """Return a checked condition.

    Raises ``InvalidFilterError`` for a condition that Kinto would refuse, ignore or understand differently.
    """
    try:
        _check_name(field, operator)
        _check_spelling(field, value)
        checked = _check_value(field, operator, value)
    except InvalidFilterError:
        raise
    except KintoError as error:
        raise InvalidFilterError(f"filter on {field!r}: {error}") from error
    return Condition(field, operator, checked, needs_field)


def _check_spelling(field: str, value: Any) -> None:
    """Raise ``InvalidFilterError`` for a value that is a text on the wire, and compared as one there."""
    if isinstance(value, Decimal) or (isinstance(value, time) and value.tzinfo is not None):
        raise InvalidFilterError(
            f"filter on {field!r}: the server compares the text of a {type(value).__name__}, which is not in the order "
            "of its value and may be written in several ways: compare a number."
        )


def _check_name(field: str, operator: str) -> None:
    # Kinto strips the names of parameters before it looks at them.
    if not field or field.startswith("_") or field != field.strip():
        raise InvalidFilterError(
            f"{field!r} cannot be filtered on: Kinto ignores names that begin with '_', and strips them of spaces."
        )
    is_plain = _OPERATED_FIELD.fullmatch(field)
    if not is_plain:
        to_json_value(field, "the name")
    if operator and not is_plain:
        raise InvalidFilterError(f"{operator}_ works on names of letters, digits, '_' and '.', not on {field!r}.")
    if operator == "contains" and field.startswith("any_"):
        raise InvalidFilterError(
            f"Kinto would read contains_{field} as contains_any_ on {field[4:]!r}; use contains_any_{field}."
        )
    # It takes the value for a list before it finds that such a name is no operator and a field.
    if not is_plain and field.startswith(("in_", "exclude_", "contains_")):
        raise InvalidFilterError(f"{field!r} cannot be filtered on: Kinto would take the value for a list.")


def split_keyword(name: str, declared: Iterable[str] = ()) -> tuple[str, str]:
    """Return operator and field of a keyword (``gt_n``) that is no ``declared`` field; raise ``InvalidFilterError``."""
    if match := _DJANGO.fullmatch(name):
        raise InvalidFilterError(f"{name}: Kinto has no such look-up; write {_INSTEAD[match[2]].format(match[1])}.")
    match = None if name in set(declared) else _OPERATOR_BEGINNING.fullmatch(name)
    if match is None:
        return "", name
    if not _OPERATED_FIELD.fullmatch(match[2]):
        raise InvalidFilterError(
            f"{name!r}: Kinto's operators work on names of letters, digits, '_' and '.' only. "
            f"Where this is the name of a field, write F({name!r}) == …."
        )
    return "" if match[1] == "eq" else match[1], match[2]


def _check_value(field: str, operator: str, value: Any) -> JSON:
    if operator == "has":
        if field == "last_modified":
            raise InvalidFilterError("Kinto refuses has_last_modified: it is always there.")
        if not isinstance(value, bool):
            raise InvalidFilterError(f"has_{field} takes True or False, not {say_value(value)}.")
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
        raise InvalidFilterError(f"ids are strings: id cannot be compared with {say_value(value)}.")
    if operator in ORDERING and isinstance(value, (dict, list)):
        raise InvalidFilterError(f"{operator}_{field} cannot order by a {type(value).__name__}: Kinto fails on it.")
    if operator == "like" and not isinstance(value, str):
        raise InvalidFilterError(f"like_{field} takes text, not {say_value(value)}.")


def _check_timestamp(operator: str, value: Any) -> int:
    if operator not in _TIMESTAMP_OPERATORS:
        raise InvalidFilterError(f"Kinto refuses {operator}_last_modified; use gt_, lt_, min_, max_ or not_.")
    if isinstance(value, float):
        raise InvalidFilterError(f"last_modified is an integer in milliseconds, not {say_value(value)}.")
    return parse_timestamp(value, "last_modified")


def _check_choices(field: str, operator: str, value: Any) -> list[JSON]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidFilterError(f"{operator}_{field} takes a list of values, not {say_value(value)}.")
    choices: list[JSON] = to_json_value(list(value), field)
    for choice in choices:
        if isinstance(choice, (dict, list)):
            raise InvalidFilterError(f"{operator}_{field} takes plain values, not {say_value(choice)}.")
        if field == "id" and not isinstance(choice, str):
            raise InvalidFilterError(f"ids are strings: {operator}_id cannot hold {say_value(choice)}.")
    return choices


def matches_nothing(conditions: Iterable[Condition]) -> bool:
    """Return whether no object can match: ``in_`` with no values, which needs no request."""
    return any(condition.operator == "in" and not condition.value for condition in conditions)


def encode_conditions(conditions: Iterable[Condition]) -> list[tuple[str, str]]:
    """Return the parameters, in the order in which every backend gives the right answer.

    Raises ``InvalidFilterError`` where only PostgreSQL would give it.
    """
    given = tuple(conditions)
    presence = dict.fromkeys((f"has_{one.field}", _encode(one)) for one in given if one.operator == "has")
    rest: list[tuple[str, str]] = []
    for field in _fields_needing_presence(given):
        bounds = [bound for one in given if one.field == field and (bound := _type_bound(one))]
        # The one `has_` goes where nothing else would do; `_type_bound` has one for text and numbers.
        if bounds and (presence or _needs_has(given, field)):
            rest.append((f"lt_{field}", bounds[0]))
        else:
            presence[f"has_{field}", "true"] = None
    if len(presence) > 1:
        names = " and ".join(name for name, _ in presence)
        raise InvalidFilterError(
            f"Kinto's memory backend honours only the last of {names}, and would give too much. "
            "Where an object without the field may be in the answer, use exclude(field=value) in the place of !=."
        )
    for one in given:
        rest += _encode_plainly(one)
    return _tell_apart([*presence, *rest])


def _fields_needing_presence(given: Sequence[Condition]) -> list[str]:
    """Return the fields whose absence must be ruled out, because no condition on them does."""
    needing = dict.fromkeys([one.field for one in given if one.needs_field])
    if not needing:
        return []
    proven = {one.field for one in given if one.operator in _PROVING_PRESENCE or (one.operator == "has" and one.value)}
    return [field for field in needing if field not in proven and field not in _ALWAYS_PRESENT]


def _needs_has(given: Sequence[Condition], but: str) -> bool:
    """Return whether another field than this one can only be proven by ``has_``."""
    bounded = {one.field for one in given if _type_bound(one)}
    return any(field != but and field not in bounded for field in _fields_needing_presence(given))


def _type_bound(one: Condition) -> str | None:
    # A keyword (`gt_n=0`) has no bound: it means values of the next types, too.
    return _NEXT_TYPE.get(type(one.value)) if one.needs_field and one.operator in ("gt", "min") else None


def _encode_plainly(one: Condition) -> list[tuple[str, str]]:
    # `exclude_` without values excludes nothing.
    if one.operator == "has" or (one.operator == "exclude" and not one.value):
        return []
    parameter = (_parameter(one), _encode(one))
    if one.needs_field and one.operator in ("lt", "max") and one.field not in _ALWAYS_PRESENT:
        # A null comes before all that it can be compared with.
        least = _FIRST_OF_TYPE.get(type(one.value))
        return [parameter] if least is None else [(f"min_{one.field}", least), parameter]
    if one.operator == "like" and one.field != "id":
        # The memory backend answers 500 where `like_` meets a value that is no text: only text passes these two.
        return [(f"min_{one.field}", '""'), (f"lt_{one.field}", _LEAST_NUMBER), parameter]
    if one.operator in ("contains", "contains_any"):
        # The memory backend looks for single letters in text, which comes before every array.
        return [(f"min_{one.field}", "[]"), parameter]
    return [parameter]


def _tell_apart(parameters: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the parameters, each once, and with spaces behind a repeated name.

    Kinto would make a list of the values of one name, and compare with that. It strips names after that.
    """
    seen: dict[str, int] = {}
    apart: list[tuple[str, str]] = []
    for name, value in dict.fromkeys(parameters):
        times = seen.get(name, 0)
        apart.append((name + " " * times, value))
        seen[name] = times + 1
    return apart


def _parameter(one: Condition) -> str:
    if one.operator:
        return f"{one.operator}_{one.field}"
    # A field like `in_stock` reads as an operator: Kinto takes `eq_` for equality, as every member of its enum.
    return f"eq_{one.field}" if _OPERATOR_PREFIX.fullmatch(one.field) else one.field


def _encode(one: Condition) -> str:
    if one.operator in ("in", "exclude"):
        # Kinto splits at every comma before it parses: only text can hide one, as an escape.
        return ",".join(json.dumps(value).replace(",", "\\u002c") for value in one.value)
    if one.operator == "like":
        return json.dumps(_SPECIAL_IN_PATTERN.sub(r"\\\g<0>", one.value))
    return json.dumps(one.value, separators=(",", ":"))


def parse_conditions(parameters: Iterable[tuple[str, str]]) -> list[Condition]:
    """Return the conditions in the parameters of a query, as the server reads what :func:`encode_conditions` made."""
    named = [(name.strip(), text) for name, text in parameters]
    return [_parse(name, text) for name, text in named if name in _TIMES or not name.startswith("_")]


def _parse(name: str, text: str) -> Condition:
    match = _OPERATOR_PREFIX.fullmatch(name)
    operator, field = (match[1].removeprefix("eq"), match[2]) if match else (_TIMES.get(name, ""), name)
    if name in _TIMES or field == "last_modified":
        return Condition("last_modified", operator, parse_timestamp(text))
    is_list = operator in ("in", "exclude")
    value = [_parse_value(one) for one in text.split(",") if one] if is_list else _parse_value(text)
    is_element = operator in ("contains", "contains_any") and not isinstance(value, list)
    return Condition(field, operator, [value] if is_element else value)


def _parse_value(text: str) -> JSON:
    try:
        return decode(text.encode(), "a value")
    except ProtocolError:
        return text


def check_field_name(name: str) -> str:
    """Return a field name for ``_sort`` and ``_fields``; raise ``InvalidFilterError`` for one that Kinto would drop."""
    if not _OPERATED_FIELD.fullmatch(name) or name.startswith("_"):
        raise InvalidFilterError(f"{name!r} is no field name: Kinto would ignore it without a word.")
    return name


def as_moment(value: int | str | datetime, what: str) -> int:
    """Return a timestamp for ``_since`` and ``_before``; raise ``InvalidFilterError`` for an invalid one."""
    try:
        return parse_timestamp(value, what)
    except KintoError as error:
        raise InvalidFilterError(str(error)) from error
