"""Undeclared keys inside fields: values that another program stored there are kept.

A field is compared in three forms of JSON: as the server stored it, as the model writes that again (``before``), and as
the model writes the field now. The keys that the model loses in the second form are undeclared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from functools import partial
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic_core import from_json

from kinto_orm.errors import InvalidValueError
from kinto_orm.protocol.json_values import (
    JSON,
    MAX_INTEGER,
    MIN_INTEGER,
    MISSING,
    JSONObject,
    copy_json,
    is_same,
    say_path,
)

_Path: TypeAlias = tuple[str | int, ...]


def with_undeclared(stored: JSON, before: JSON, now: JSON, path: _Path, *, keeps_defaults: bool = False) -> JSON:
    """Return the current value, with the undeclared keys of the stored one, and its spelling of unchanged parts.

    Defaults that the server lacks are left out, unless ``keeps_defaults``, for those that differ each time. Raises
    ``InvalidValueError`` for a list whose items cannot be matched with those before, where keys would be lost.
    """
    if stored is MISSING:
        return now
    if is_same(before, now) and not (keeps_defaults and isinstance(now, (dict, list))):
        return stored
    if isinstance(stored, dict) and isinstance(before, dict) and isinstance(now, dict):
        return _merged(stored, before, now, path, keeps_defaults)
    if isinstance(stored, list) and isinstance(before, list) and isinstance(now, list):
        return _paired(stored, before, now, path, keeps_defaults)
    _refuse_loss([stored], [before], path)
    return now


def read_text(text: JSON) -> JSON:
    """Return the object or list that the text is the JSON of; else the text itself."""
    try:
        value = from_json(text)
    except (ValueError, TypeError):
        return text  # too deep, or no text
    return value if isinstance(value, (dict, list)) else text


def _refuse_loss(stored: list[JSON], before: list[JSON], path: _Path) -> None:
    # Texts of JSON that the type of the field does not tell from others: in a union, or in another text of JSON.
    pairs = zip(stored, before, strict=True) if len(stored) == len(before) else ()
    if any(isinstance(one, str) and _has_undeclared(one, again) for one, again in pairs):
        raise InvalidValueError(
            f"data.{say_path(path)}: the JSON in this text holds keys that the model does not declare, and that would "
            "be lost: declare them, or give the whole text to patch()."
        )


def _merged(stored: JSONObject, before: JSONObject, now: JSONObject, path: _Path, keeps_defaults: bool) -> JSONObject:  # noqa: FBT001
    merged: JSONObject = {}
    for key, value in stored.items():
        if key in now:
            merged[key] = with_undeclared(
                value, before.get(key, MISSING), now[key], (*path, key), keeps_defaults=keeps_defaults
            )
        elif key not in before:
            merged[key] = copy_json(value)
    for key, value in now.items():
        if key not in stored and (keeps_defaults or not is_same(value, before.get(key, MISSING))):
            merged[key] = value
    return merged


def _paired(stored: list[JSON], before: list[JSON], now: list[JSON], path: _Path, keeps_defaults: bool) -> list[JSON]:  # noqa: FBT001
    # PostgreSQL has made an integer of a large float, which is read as one, and could not be sent.
    large = [item for item in stored if isinstance(item, float) and not MIN_INTEGER <= item <= MAX_INTEGER]
    if not large and not any(isinstance(item, (dict, list)) for item in stored):
        if is_same(before, now):
            return stored
        _refuse_loss(stored, before, path)
        return now
    is_matched = len(stored) == len(before)
    old = dict.fromkeys(range(len(stored)))
    paired = list(now)
    new: list[int] = []
    for index, item in enumerate(now):
        same = _find(item, index, old, before) if is_matched else None
        if same is None:
            new.append(index)
        else:
            del old[same]
            paired[index] = with_undeclared(
                stored[same], before[same], item, (*path, index), keeps_defaults=keeps_defaults
            )
    if is_matched and len(old) == len(new) == 1:
        (one,), (other,) = old, new
        paired[other] = with_undeclared(
            stored[one], before[one], now[other], (*path, other), keeps_defaults=keeps_defaults
        )
    elif new and any(_has_undeclared(stored[one], before[one] if is_matched else MISSING) for one in old):
        raise InvalidValueError(
            f"data.{say_path(path)}: several items changed, and some of those that the server has hold keys that the "
            "model does not declare: change one item at a time, or give the whole list to patch() of a fresh object."
        )
    return paired


def _find(item: JSON, index: int, old: Mapping[int, None], before: list[JSON]) -> int | None:
    # Mostly it is where it was.
    if index in old and is_same(before[index], item):
        return index
    return next((one for one in old if is_same(before[one], item)), None)


def _has_undeclared(stored: JSON, before: JSON) -> bool:
    if before is MISSING:
        return isinstance(stored, (dict, list))
    if isinstance(stored, dict) and isinstance(before, dict):
        return any(key not in before or _has_undeclared(value, before[key]) for key, value in stored.items())
    if isinstance(stored, list) and isinstance(before, list):
        return len(stored) != len(before) or any(map(_has_undeclared, stored, before))
    if isinstance(stored, str) and isinstance(before, str) and stored != before:
        opened = read_text(stored)
        return opened is not stored and _has_undeclared(opened, read_text(before))
    return False


def normal(data: JSON, now: JSON, *, keeps_defaults: bool) -> JSON:
    """Return ``now`` with the keys that only ``data`` has; its own ones go, unless ``keeps_defaults``."""
    if isinstance(data, dict) and isinstance(now, dict):
        inner = partial(normal, keeps_defaults=keeps_defaults)
        others = {key: inner(value, now[key]) if key in now else value for key, value in data.items()}
        return {**now, **others} if keeps_defaults else others
    if isinstance(data, list) and isinstance(now, list) and len(data) == len(now):
        return [normal(*pair, keeps_defaults=keeps_defaults) for pair in zip(data, now, strict=True)]
    return now


def difference(value: Any, again: Any, path: _Path) -> str | None:
    """Return the path of the first part of a value that did not come back equal; ``None`` where all of it did."""
    parts = parts_of(value)
    if parts is None or type(value) is not type(again):
        return None if _is_equal(value, again) else f"data.{say_path(path)}"
    others = parts_of(again) or {}
    if parts.keys() != others.keys():
        return f"data.{say_path(path)}"
    found = (difference(item, others[key], (*path, key)) for key, item in parts.items())
    return next((one for one in found if one is not None), None)


def _is_equal(value: Any, again: Any) -> bool:
    if type(value) is not type(again):
        # A subclass of text or a number is written as one; True is no number.
        is_basic = isinstance(value, (str, int, float)) and not isinstance(value, bool) and not isinstance(again, bool)
        return is_basic and bool(value == again)
    if not any("__eq__" in vars(one) for one in type(value).__mro__[:-1]):
        return vars(value) == vars(again) if hasattr(value, "__dict__") else repr(value) == repr(again)
    return bool(value == again)


def parts_of(value: Any) -> Mapping[Any, Any] | None:
    """Return the parts that a value is compared by; ``None`` where it is compared as a whole."""
    whole: Any = value
    if isinstance(value, BaseModel):
        # A record in a field would lose its id and its undeclared keys.
        others = whole.to_dict() if hasattr(value, "__kinto_kind__") else value.__pydantic_extra__ or {}
        return {**others, **{name: value.__dict__.get(name) for name in type(value).__pydantic_fields__}}
    if is_dataclass(value):
        return {one.name: getattr(value, one.name) for one in dataclass_fields(value)}
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple, deque)):
        return dict(enumerate(value))
    return None
