"""JSON values: what the wire can carry, and their bytes.

A value that would arrive changed, or break the server, is refused here with the path of the field.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from math import isclose, isfinite
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

from pydantic_core import from_json, to_json

from kinto_orm.errors import InvalidTypeError, InvalidValueError, ProtocolError

TimestampInput: TypeAlias = int | str | datetime
"""The forms of a timestamp in arguments: milliseconds, an ETag (quoted or not), or an aware datetime."""

_DIGITS = re.compile(r'"?([0-9]{1,19})"?')


def parse_timestamp(value: TimestampInput, what: str = "timestamp") -> int:
    """Return the timestamp in milliseconds.

    Raises ``InvalidValueError`` for other text and for naive datetimes, ``InvalidTypeError`` for other types.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str, datetime)):
        raise InvalidTypeError(f"{what} must be an int, an ETag or a datetime, not {type(value).__name__}.")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidValueError(f"{what}: {value} has no timezone: give it one, such as tzinfo=UTC.")
        return round(value.timestamp() * 1000)
    if isinstance(value, str):
        match = _DIGITS.fullmatch(value.strip())
        if not match:
            raise InvalidValueError(
                f"{what} is milliseconds as digits, an ETag ('\"1234\"') or an aware datetime, not {say_value(value)}."
            )
        return int(match[1])
    if value < 0:
        raise InvalidValueError(f"{what} must not be negative: {value}.")
    return value


def etag(timestamp: int) -> str:
    """Return the ETag of a timestamp: its digits in double quotes."""
    return f'"{timestamp}"'


JSON: TypeAlias = Any
"""A JSON value. ``Any``, because JSON enters and leaves here."""

JSONObject: TypeAlias = dict[str, Any]

J = TypeVar("J")


class _Missing:
    """The type of ``MISSING``."""

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: JSON = _Missing()
"""The value of a key that is not there, where ``None`` would be a null."""

MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1
"""Kinto turns integers outside of these bounds into floats."""

MAX_DEPTH = 200
"""Kinto answers 500 somewhere between 400 and 500 nested values."""


def to_json_value(value: Any, path: str = "") -> JSON:
    """Return a deep copy of the value, made of JSON types only.

    Dates and aware datetimes become ISO 8601 strings, UUIDs, Decimals and enums their text or value. Raises
    ``InvalidValueError``, which names the path, for values that cannot be carried unchanged: NaN and infinities, NUL,
    lone surrogates, integers that Kinto would turn into floats, naive datetimes, keys that are not strings, cycles.
    """
    return _convert(value, (path,))


def to_json_object(value: Any, path: str = "data") -> JSONObject:
    """Like :func:`to_json_value`, for a mapping."""
    if not isinstance(value, Mapping):
        raise InvalidValueError(f"{path} must be a mapping, not {type(value).__name__}.")
    return _convert_mapping(value, (path,))


_Path: TypeAlias = tuple[str | int, ...]
"""The path of a value: the name of its outermost value, then keys and indexes. Only errors turn it into text."""


def say_path(steps: Iterable[str | int]) -> str:
    """Return the path inside a JSON value as text: ``address.city``, ``tags[0]``.

    A key that would be misread (empty, or with a dot or a bracket) is written as ``["a.b"]``: no two paths look alike.
    """
    return "".join(map(_say_step, steps)).removeprefix(".")


def _say_step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step and "." not in step and "[" not in step else f"[{json.dumps(step, ensure_ascii=False)}]"


def say_value(value: object, most: int | None = 60) -> str:
    """Return the beginning of the ``repr`` of a value, for a message."""
    try:
        return repr(value)[:most]
    except RecursionError:
        return f"a {type(value).__name__} nested deeper than {MAX_DEPTH} levels"


def _say(path: _Path) -> str:
    return str(path[0]) + "".join(map(_say_step, path[1:]))


def _convert(value: Any, path: _Path) -> JSON:
    if value is None or value is True or value is False:
        return value
    converter = _CONVERTERS.get(type(value))
    if converter is not None:
        return converter(value, path)
    for base, converter in _CONVERTERS.items():
        if isinstance(value, base):
            return converter(value, path)
    raise InvalidValueError(f"{_say(path) or 'value'}: a {type(value).__name__} cannot be sent as JSON.")


def _convert_text(value: str, path: _Path) -> str:
    _check_text(value, path)
    return str(value)


def _check_text(value: str, path: _Path, of: str = "") -> None:
    if "\0" in value:
        raise InvalidValueError(
            f"{_say(path)}{of}: text with a NUL character makes Kinto on PostgreSQL answer 503 for ever."
        )
    if value.isascii():
        return
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidValueError(
            f"{_say(path)}{of}: text with a lone surrogate cannot be sent: {error.reason}."
        ) from error


def _convert_integer(value: int, path: _Path) -> int:
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise InvalidValueError(
            f"{_say(path)}: Kinto keeps integers from -2**63 to 2**64-1 only, and rounds the others."
        )
    return int(value)


def _convert_float(value: float, path: _Path) -> float:
    if not isfinite(value):
        raise InvalidValueError(f"{_say(path)}: {value} is not JSON.")
    return float(value)


def _convert_datetime(value: datetime, path: _Path) -> str:
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidValueError(
            f"{_say(path)}: this datetime has no timezone; use datetime.now(timezone.utc) or .replace(tzinfo=…)."
        )
    try:
        return datetime_text(value)
    except OverflowError as error:
        raise InvalidValueError(f"{_say(path)}: {value} has no date in UTC: {error}.") from error


def datetime_text(value: datetime) -> str:
    """Return the text of a datetime, which orders as its value does: in UTC, with six digits after the second.

    One without a timezone has none in its text either. Raises ``OverflowError`` outside of the years 1 to 9999.
    """
    if value.tzinfo is None or value.utcoffset() is None:
        return value.isoformat()
    return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def sorted_set(items: list[JSON]) -> list[JSON]:
    """Return the values of a set in the one order that they have on the wire."""
    try:
        return sorted(items)  # texts or numbers, as nearly always
    except TypeError:
        return sorted(items, key=lambda item: (type(item).__name__, encode(item)))


def _convert_mapping(value: Mapping[Any, Any], path: _Path) -> JSONObject:
    _check_depth(path)
    converted: JSONObject = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidValueError(f"{_say(path)}: the key {key!r} is no string; JSON has string keys only.")
        _check_text(key, path, f", key {say_value(key, 40)}")
        converted[str(key)] = _convert(item, (*path, key))
    return converted


def _convert_sequence(value: Iterable[Any], path: _Path) -> list[JSON]:
    _check_depth(path)
    return [_convert(item, (*path, index)) for index, item in enumerate(value)]


def _convert_to_text(value: Any, path: _Path) -> str:
    return str(value)


def _check_depth(path: _Path) -> None:
    if len(path) > MAX_DEPTH + 1:
        raise too_deep(f"{_say(path)[:60]}…")


def too_deep(what: str) -> InvalidValueError:
    """Return the error for a value that is nested too deep for Kinto, and maybe for Python."""
    return InvalidValueError(f"{what}: nested deeper than {MAX_DEPTH} levels, or a cycle.")


_CONVERTERS: dict[type, Any] = {
    Enum: lambda value, path: _convert(value.value, path),  # before str and int, which many enums also are
    str: _convert_text,
    int: _convert_integer,
    float: _convert_float,
    dict: _convert_mapping,
    list: _convert_sequence,
    tuple: _convert_sequence,
    Mapping: _convert_mapping,
    datetime: _convert_datetime,  # before date, which it also is
    date: lambda value, path: value.isoformat(),
    time: _convert_to_text,
    UUID: _convert_to_text,
    Decimal: _convert_to_text,
}


def encode(value: JSON) -> bytes:
    """Return the bytes of a JSON value (UTF-8)."""
    try:
        return to_json(value)
    except ValueError:
        # pydantic's writer stops at 255 levels; what Kinto stored deeper is sent back by the standard library.
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


_MOST_FROZEN_BY_PYTHON = 1_000
"""More objects than Python 3.12 freezes as it starts; a program that calls ``gc.freeze()`` freezes many more."""


@contextmanager
def pause_collector() -> Generator[None]:
    """Pause garbage collection: thousands of new objects that all stay alive make it the largest cost of a page."""
    was_enabled = gc.isenabled()
    if was_enabled:
        gc.collect(0)  # so that afterwards all young objects are those of the page
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if gc.get_freeze_count() < _MOST_FROZEN_BY_PYTHON:  # else the program froze its objects
                # Both together move the young objects to the oldest generation, without looking at them.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def copy_json(value: J) -> J:
    """Return a deep copy of a JSON value."""
    copied: Any = value
    try:
        if isinstance(value, dict):
            copied = {key: copy_json(item) if isinstance(item, (dict, list)) else item for key, item in value.items()}
        elif isinstance(value, list):
            copied = [copy_json(item) for item in value]
    except RecursionError:
        raise too_deep("A value cannot be copied") from None
    return cast(J, copied)


def decode(body: bytes, what: str) -> JSON:
    """Return the JSON value of an answer. ``what`` names the request.

    Raises ``ProtocolError`` for anything that is not exactly JSON in UTF-8, and for numbers that no float holds.
    """
    try:
        return parse_json(body)
    except ValueError as error:
        excerpt = body[:200].decode("utf-8", "replace")
        raise ProtocolError(f"The answer to {what} {error}; it begins {excerpt!r}.") from error


def parse_json(body: bytes) -> JSON:
    """Return the JSON value. Raises ``ValueError``, which says what is wrong with it."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        # pydantic's parser stops at 200 levels, which Kinto stores: the standard library's goes on.
        try:
            value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is not JSON ({error})") from error
    if _may_hold_large(body):
        value = _with_floats(value)
        try:
            json.dumps(value, allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise ValueError("has a number that is too large for a float") from error
    return value


def may_overflow(body: bytes) -> bool:
    """Return whether JSON may hold what pydantic reads as a number, and no Kinto stores: NaN, Infinity, 1e999."""
    return body.find(b"NaN") >= 0 or body.find(b"Infinity") >= 0 or _may_hold_large(body)


def _may_hold_large(body: bytes) -> bool:
    numbers = body.translate(_NUMBERS, b"+")
    return numbers.find(_LONG_NUMBER) >= 0 or _LARGE_EXPONENT.search(numbers) is not None


def _refuse_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")


def _with_floats(value: JSON) -> JSON:
    """Return the value with the large floats that PostgreSQL has made integers of, from their shortest text."""
    if isinstance(value, dict):
        return {key: _with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(_with_floats, value))
    if type(value) is int and not MIN_INTEGER <= value <= MAX_INTEGER and abs(value) <= _LARGEST_FLOAT:
        number = float(value)
        return number if number == value or Decimal(repr(number)) == value else value
    return value


def is_surely_carried(text: bytes) -> bool:
    """Return whether :func:`to_json_value` surely takes all of this JSON text; ``False`` where it must look."""
    # By find(): `in` tries first whether the bytes are a number, which takes longer than the search.
    if text.find(b"\\u0000") >= 0 or text.find(b"NaN") >= 0 or text.find(b"Infinity") >= 0:
        return False
    is_shallow = len(text) < 2 * MAX_DEPTH or text.count(b"[") + text.count(b"{") < MAX_DEPTH
    return is_shallow and text.translate(_NUMBERS).find(_LONG_NUMBER) < 0


_LARGEST_FLOAT = int(Decimal(repr(sys.float_info.max)))
# Five times as fast as a regular expression.
_LONG_NUMBER = b"0" * 19
_NUMBERS = bytes.maketrans(b"123456789E", b"000000000e")
_LARGE_EXPONENT = re.compile(rb"e000+(?:[,}\]\s]|$)")


def is_same(one: JSON, other: JSON) -> bool:
    """Return whether two JSON values are the same on the wire: ``1`` and ``True`` are not, ``1`` and ``1.0`` are."""
    if one is other:
        return bool(one == one)  # all but NaN
    # Most of what differs is told apart by Python itself; what it takes for equal may hold a True in the place of a 1.
    try:
        return bool(one == other) and (_are_alike if type(one) is type(other) is dict else _is_alike)(one, other)
    except (ValueError, TypeError, RecursionError):
        return False  # an array, or a cycle: no JSON


def _is_alike(one: JSON, other: JSON) -> bool:
    """Return whether values that are equal for Python are the same on the wire, too."""
    if type(one) is str:
        return True
    if one is other:
        return bool(one == one)
    if isinstance(one, dict) and isinstance(other, dict):
        return _are_alike(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return TEXTS.issuperset(map(type, one)) or all(map(_is_alike, one, other))
    return isinstance(one, bool) == isinstance(other, bool)


TEXTS = frozenset({str})


def _are_alike(one: JSONObject, other: JSONObject) -> bool:
    # A loop, because each record of a list is looked at: nearly all of its values need no call.
    for key, value in one.items():
        kind = type(value)
        if kind is str or (kind is list and TEXTS.issuperset(map(type, value))):
            continue
        if kind is int or kind is float:
            if type(other[key]) is bool or value != value:
                return False
        elif not _is_alike(value, other[key]):
            return False
    return True


def is_stored_as(sent: JSON, stored: JSON) -> bool:
    """Return whether Kinto may have made the stored value of the sent one.

    One float in eight is stored with another last digit, and the largest ones as integers.
    """
    if isinstance(sent, dict) and isinstance(stored, dict):
        return sent.keys() == stored.keys() and all(is_stored_as(value, stored[key]) for key, value in sent.items())
    if isinstance(sent, list) and isinstance(stored, list):
        return len(sent) == len(stored) and all(map(is_stored_as, sent, stored))
    if isinstance(sent, float) and isinstance(stored, (int, float)) and not isinstance(stored, bool):
        return isclose(sent, stored, rel_tol=1e-15)
    return is_same(sent, stored)
