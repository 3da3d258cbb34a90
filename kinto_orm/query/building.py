"""Arguments of a query's methods, turned into a selection; arguments that Kinto would ignore are refused here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast
from uuid import UUID

from kinto_orm.errors import InvalidFilterError, InvalidTypeError, InvalidValueError
from kinto_orm.protocol.filters import (
    Condition,
    as_moment,
    check_field_name,
    condition,
    encode_conditions,
    split_keyword,
)
from kinto_orm.protocol.json_values import TimestampInput, say_value
from kinto_orm.protocol.paging import check_finite
from kinto_orm.protocol.paths import Kind, check_id
from kinto_orm.query.execution import Reading
from kinto_orm.repository.state import OnInvalid, Stateful

M = TypeVar("M", bound=Stateful)


def with_expressions(reading: Reading[M], conditions: Iterable[Condition | bool]) -> Reading[M]:
    """Return the reading with these conditions added."""
    return _with_conditions(reading, [_checked(one) for one in conditions])


def with_keywords(reading: Reading[M], keywords: Mapping[str, Any]) -> Reading[M]:
    """Return the reading with Kinto's keywords added."""
    declared = tuple(reading.source.declared_fields())
    conditions: list[Condition] = []
    for name, value in keywords.items():
        if name.startswith("_"):
            if name not in _NATIVE:
                raise InvalidFilterError(f"Kinto would ignore {name}=; it knows {', '.join(_NATIVE)}.")
            reading = _NATIVE[name](reading, value)
        else:
            conditions.append(_keyword_condition(reading, *split_keyword(name, declared), value))
    return _with_conditions(reading, conditions)


def _keyword_condition(reading: Reading[M], operator: str, name: str, value: Any) -> Condition:
    field = reading.source.resolve_field(name)
    return condition(field, operator, reading.source.condition_value(field, operator, value))


def without(reading: Reading[M], conditions: Iterable[Condition | bool], keywords: Mapping[str, Any]) -> Reading[M]:
    """Return the reading without the objects that these equalities describe."""
    declared = tuple(reading.source.declared_fields())
    equalities = [_checked(one) for one in conditions]
    for name, value in keywords.items():
        operator, field = split_keyword(name, declared)
        if not operator and isinstance(value, (list, tuple, set, frozenset)):
            operator = _operator_for_list(reading, field)
        equalities.append(_keyword_condition(reading, operator, field, value))
    return _with_conditions(reading, [_negated(one) for one in equalities])


def _operator_for_list(reading: Reading[M], name: str) -> str:
    holds_lists = reading.source.holds_lists(reading.source.resolve_field(name))
    if holds_lists is None:
        raise InvalidFilterError(
            f"exclude({name}=[…]): the field may hold lists and other values, so that the list may be one value or "
            f"several. Write exclude(in_{name}=[…]) for several, exclude(F({name!r}) == […]) for the list."
        )
    return "" if holds_lists else "in"


def ordered(reading: Reading[M], fields: Sequence[Any]) -> Reading[M]:
    """Return the reading in this order."""
    if not fields:
        raise InvalidFilterError("order_by() needs at least one field.")
    return reading.select(order=tuple(_order_name(reading, one) for one in fields), is_newest_first=False)


def narrowed(reading: Reading[M], fields: Sequence[Any]) -> Reading[M]:
    """Return the reading of these fields only."""
    return reading.select(fields=field_names(reading, fields, "only"))


def sliced(reading: Reading[M], part: slice) -> Reading[M]:
    """Return the reading of a part, counted from its beginning."""
    if not isinstance(part, slice):
        raise InvalidTypeError("A query has no index: use .first(), or a slice such as [:10].")
    start = 0 if part.start is None else check_count(part.start, "The start of a slice")
    stop = None if part.stop is None else check_count(part.stop, "The end of a slice", least=start)
    if part.step not in (None, 1):
        raise InvalidFilterError("A query takes slices forward only, with a step of one: [:10], [10:20].")
    selection = reading.selection
    left = None if selection.limit is None else max(0, selection.limit - start)
    asked = None if stop is None else stop - start
    limit = min((one for one in (left, asked) if one is not None), default=None)
    return reading.select(skip=selection.skip + start, limit=limit)


def with_page_count(reading: Reading[M], pages: float | None) -> Reading[M]:
    """Return the reading of that many pages of the native ``_limit``."""
    size = reading.selection.limit
    if pages is None:
        return reading
    if not size:
        raise InvalidFilterError("pages= needs _limit=, the number of objects on each page.")
    limit = None if pages == float("inf") else check_count(pages, "pages", least=1) * size
    return reading.select(page_size=size, limit=limit, is_newest_first=False)


def with_policy(reading: Reading[M], on_invalid: OnInvalid | None) -> Reading[M]:
    """Return the reading with this treatment of rows that do not fit their model."""
    if on_invalid not in (None, "raise", "skip", "keep"):
        raise InvalidFilterError(f"on_invalid is 'raise', 'skip' or 'keep', not {say_value(on_invalid)}.")
    return reading if on_invalid is None else replace(reading, on_invalid=on_invalid)


def field_names(reading: Reading[M], fields: Sequence[Any], verb: str) -> tuple[str, ...]:
    """Return the wire names of the fields."""
    if not fields:
        raise InvalidFilterError(f"{verb}() needs at least one field.")
    names = tuple(_field_name(reading, one) for one in fields)
    for name in names:
        reading.source.check_path(name)
    return names


def moment(timestamp: TimestampInput, what: str, overlap: float = 0) -> int:
    """Return the timestamp in milliseconds, ``overlap`` seconds earlier."""
    try:
        earlier = round(check_finite("overlap", overlap) * 1000)
    except InvalidValueError as error:
        raise InvalidFilterError(str(error)) from error
    return max(0, as_moment(timestamp, what) - earlier)


def check_ids(ids: Iterable[str | UUID], kind: Kind) -> list[str]:
    """Return the valid ids, each once."""
    if isinstance(ids, str) or not isinstance(cast(object, ids), Iterable):
        raise InvalidTypeError("get_many() takes a list of ids; for one id use get().")
    return list(dict.fromkeys(check_id(id, kind=kind) for id in ids))


def check_count(value: Any, what: str, least: int = 0, most: int | None = None) -> int:
    """Return the number; raise ``InvalidTypeError`` or ``InvalidFilterError`` where it is invalid."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{what} must be a whole number, not {say_value(value)}.")
    if value < least:
        raise InvalidFilterError(f"{what} must be at least {least}, not {value}.")
    if most is not None and value > most:
        raise InvalidFilterError(f"{what} must be at most {most}, not {value}.")
    return value


def _with_conditions(reading: Reading[M], more: list[Condition]) -> Reading[M]:
    if not more:
        return reading
    for one in more:
        if "." in one.field:
            reading.source.check_path(one.field)
    conditions = (*reading.selection.conditions, *more)
    encode_conditions(conditions)  # an invalid condition raises here, in the user's line
    return reading.select(conditions=conditions)


def _checked(one: object) -> Condition:
    if not isinstance(one, Condition):
        raise InvalidFilterError(
            f"filter() takes conditions on the class (Todo.priority >= 3), not {say_value(one)}: "
            "a comparison of one object's values is done at once, in Python."
        )
    return one


def _negated(one: Condition) -> Condition:
    if one.operator not in ("", "in"):
        raise InvalidFilterError("exclude() takes equalities only: write the opposite condition in filter().")
    return replace(one, operator="exclude" if one.operator else "not", needs_field=False)


def _field_name(reading: Reading[M], one: Any) -> str:
    name = getattr(one, "__kinto_field__", None)
    if isinstance(name, str):
        return check_field_name(name)  # of an expression: F("key") may name an undeclared key
    if not isinstance(one, str):
        raise InvalidTypeError(f"A field is named by its text or by the class (Todo.title), not {say_value(one)}.")
    return reading.source.resolve_field(check_field_name(one))


def _order_name(reading: Reading[M], one: Any) -> str:
    name = getattr(one, "__kinto_order__", None)
    if isinstance(name, str):
        sign, field = "-", check_field_name(name.removeprefix("-"))
    elif isinstance(one, str) and one[:1] in ("-", "+"):
        sign, field = one[0], _field_name(reading, one[1:])
    else:
        sign, field = "", _field_name(reading, one)
    reading.source.check_order(field)
    return f"-{field}" if sign == "-" else field


def _names(value: Any) -> list[Any]:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)


_NATIVE: dict[str, Callable[[Reading[Any], Any], Reading[Any]]] = {
    "_sort": lambda reading, value: ordered(reading, _names(value)),
    # Kinto's keyword has Kinto's order: the newest first.
    "_limit": lambda one, value: one.select(
        limit=check_count(value, "_limit"), is_newest_first=one.selection.order is None
    ),
    "_fields": lambda reading, value: narrowed(reading, _names(value)),
    "_since": lambda reading, value: reading.select(since=moment(value, "_since")),
    "_before": lambda reading, value: reading.select(before=moment(value, "_before")),
}
