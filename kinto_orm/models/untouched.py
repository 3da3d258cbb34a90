"""Whether a row of a page is as it came, told without looking at what the server sent of it.

To set a field, a key or a permission takes the object out of the envelope that the rows of its page share. So the rows
still in it can only have been edited in place: in the lists and the like that their fields hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from kinto_orm.models.envelope import PageSnapshot, collector_paused, shared_page
from kinto_orm.models.fields import validate_page
from kinto_orm.protocol.endpoints import PluralPath

# These very classes: those below them may hold anything. What is equal and of one type is the same on the wire, but
# for times (there are time zones) and decimals (1.0 and 1.00).
_TOLD_BY_EQUALITY = frozenset({str, int, float, bool, type(None), bytes, date, timedelta, UUID})
_IMMUTABLE = _TOLD_BY_EQUALITY | {datetime, time, Decimal}


def is_untouched(model: Any, path: PluralPath | None = None) -> bool:
    """Whether it is a row of a page (of that list), surely as it came; ``False`` where that takes a closer look."""
    page = shared_page(model)
    if page is None or (path is not None and page.path != path):
        return False
    held = _editable(model)
    if not held:
        return True
    as_sent = _as_sent(page, type(model)).get(model.__dict__["id"])
    return as_sent is not None and all(
        name in as_sent and _is_surely_same(value, as_sent[name]) for name, value in held.items()
    )


def _editable(model: Any) -> dict[str, Any]:
    """The values of the fields that can be edited in place."""
    return {name: value for name, value in model.__dict__.items() if type(value) not in _IMMUTABLE}


def _as_sent(page: PageSnapshot, model: type[Any]) -> Mapping[str, Mapping[str, Any]]:
    """For each id, the values that can be edited in place: those of the page validated once more."""
    found = page.editable.get(model)
    if found is None:
        try:
            with collector_paused():
                found = {one.id: _editable(one) for one in validate_page(model, page.body)}
        except ValidationError:
            found = {}  # some rows do not fit: they were skipped, or are plain
        page.editable[model] = found
    return found


def _is_surely_same(one: Any, other: Any) -> bool:
    # A random default differs each time, a model or a set may hold a True in the place of a 1: a closer look is taken.
    if type(one) is not type(other):
        return False
    if type(one) is dict:
        return one.keys() == other.keys() and all(_is_surely_same(value, other[key]) for key, value in one.items())
    if type(one) is list or type(one) is tuple:
        return len(one) == len(other) and all(map(_is_surely_same, one, other))
    if isinstance(one, Enum):
        return one is other
    return type(one) in _TOLD_BY_EQUALITY and bool(one == other)
