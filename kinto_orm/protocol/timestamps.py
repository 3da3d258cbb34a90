"""Timestamps are integers, in milliseconds since the epoch; an ETag is the quoted form.

https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TypeAlias

from kinto_orm.errors import InvalidTypeError, InvalidValueError

TimestampInput: TypeAlias = int | str | datetime
"""What callers may give: milliseconds, an ETag (quoted or not), or an aware datetime."""

_DIGITS = re.compile(r'"?([0-9]{1,19})"?')


def parse_timestamp(value: TimestampInput, what: str = "timestamp") -> int:
    """The timestamp in milliseconds.

    Raises ``InvalidValueError`` for text that is no ETag and for naive datetimes, ``InvalidTypeError`` for the rest.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str, datetime)):
        raise InvalidTypeError(f"{what} must be an int, an ETag or a datetime, not {type(value).__name__}.")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidValueError(f"{what}: {value} has no timezone.")
        return round(value.timestamp() * 1000)
    if isinstance(value, str):
        match = _DIGITS.fullmatch(value.strip())
        if not match:
            raise InvalidValueError(f'{what} must be digits, quoted or not ("1234"), not {value!r:.60}.')
        return int(match[1])
    if value < 0:
        raise InvalidValueError(f"{what} must not be negative: {value}.")
    return value


def etag(timestamp: int) -> str:
    """The ETag of a timestamp: its digits in double quotes."""
    return f'"{timestamp}"'
