"""How long a server asks to be left alone: ``Retry-After`` and ``Backoff``, read so that they can never raise.

https://docs.kinto-storage.org/en/stable/api/1.x/backoff.html
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from kinto_orm.messages import whole_seconds


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The seconds of ``Retry-After``, given as such or as a date; ``None`` where it is missing or says nothing.

    https://www.rfc-editor.org/rfc/rfc9110#name-retry-after
    """
    value = headers.get("retry-after", "").strip()
    seconds = whole_seconds(value)
    return seconds if seconds is not None or not value else _until(value, now or datetime.now(UTC))


def backoff(headers: Mapping[str, str]) -> float | None:
    """The seconds of ``Backoff``; ``None`` where it is missing or says nothing."""
    return whole_seconds(headers.get("backoff", "").strip())


def _until(date: str, now: datetime) -> float | None:
    try:
        when = parsedate_to_datetime(date)
        aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)  # a date in "-0000"
        return max(0.0, (aware - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
