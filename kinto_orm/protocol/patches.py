"""The three forms of PATCH, and the smallest one that turns one state into another.

https://docs.kinto-storage.org/en/stable/api/1.x/records.html#modifying-records
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kinto_orm.errors import InvalidPermissionError, InvalidTypeError, InvalidValueError
from kinto_orm.protocol.json_values import JSON, JSONObject, is_same, say_value, to_json_object, to_json_value

# Kinto compares this header letter by letter: with a charset behind it, a merge-patch silently stores its nulls.
JSON_TYPE = "application/json"
MERGE_PATCH_TYPE = "application/merge-patch+json"
JSON_PATCH_TYPE = "application/json-patch+json"


@dataclass(frozen=True)
class BasicPatch:
    """A patch that sets the named keys of ``data`` and the named permissions, each to a whole new value.

    ``None`` is stored as null.
    """

    data: Mapping[str, Any] | None = None
    permissions: Mapping[str, Iterable[str]] | None = None
    content_type: str = field(default=JSON_TYPE, init=False)

    @property
    def body(self) -> JSONObject:
        """The body of the request, checked."""
        return _body(self.data, self.permissions)


@dataclass(frozen=True)
class MergePatch:
    """A patch that merges into ``data`` at every level; ``None`` removes the key (RFC 7396)."""

    data: Mapping[str, Any] | None = None
    permissions: Mapping[str, Iterable[str] | None] | None = None
    content_type: str = field(default=MERGE_PATCH_TYPE, init=False)

    @property
    def body(self) -> JSONObject:
        """The body of the request, checked."""
        return _body(self.data, self.permissions)


@dataclass(frozen=True)
class JSONPatch:
    """A patch of operations on the whole object: ``/data/…``, ``/permissions/read/principal`` (RFC 6902)."""

    operations: Iterable[Mapping[str, Any]]
    content_type: str = field(default=JSON_PATCH_TYPE, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.operations, Mapping) or not isinstance(self.operations, Iterable):
            raise InvalidTypeError(f"JSONPatch takes a list of operations, not a {type(self.operations).__name__}.")
        object.__setattr__(self, "operations", tuple(self.operations))
        if not all(isinstance(one, Mapping) for one in self.operations):
            raise InvalidTypeError("JSONPatch takes a list of operations, each one a mapping with 'op' and 'path'.")
        if not self.operations:
            raise InvalidValueError("JSONPatch needs at least one operation: the server refuses an empty one.")

    @property
    def body(self) -> JSON:
        """The body of the request, checked."""
        return to_json_value(self.operations, "operations")


Patch: TypeAlias = BasicPatch | MergePatch | JSONPatch


def _body(data: Mapping[str, Any] | None, permissions: Mapping[str, Iterable[str] | None] | None) -> JSONObject:
    body: JSONObject = {}
    if data is not None:
        body["data"] = to_json_object(data)
    if permissions:
        body["permissions"] = {name: _principals(name, value) for name, value in permissions.items()}
    if not body:
        raise InvalidValueError("A patch needs data or permissions: the server refuses an empty one.")
    return body


def _principals(name: str, principals: Iterable[str] | None) -> list[str] | None:
    if isinstance(principals, (str, bytes)):
        raise InvalidPermissionError(f"{name} takes a list of principals, not {say_value(principals)}.")
    return None if principals is None else sorted(principals)


def written_places(patch: JSONPatch) -> list[str]:
    """Return the pointers to what the operations write.

    Raises ``InvalidValueError`` for an operation on what the server sets, or on no part of an object.
    """
    places: list[str] = []
    for one in patch.body:
        pointer = str(one.get("path", ""))
        parts = pointer.split("/")
        if len(parts) < 2 or parts[1] not in ("data", "permissions"):
            raise InvalidValueError(
                f"JSON-Patch: {pointer!r} is no place in an object: it begins with /data/ or /permissions/."
            )
        if one.get("op") != "test":
            places += [pointer, *([str(one.get("from", ""))] if one.get("op") == "move" else [])]
    for place in places:
        if place in ("/data/id", "/data/last_modified"):
            raise InvalidValueError(f"JSON-Patch: {place!r} cannot be written: the server sets it.")
    return places


def changed_keys(old: Mapping[str, JSON], new: Mapping[str, JSON]) -> JSONObject:
    """Return the keys of ``new`` that are missing or different in ``old``, with their new values."""
    # A text that is the very same needs no call; a NaN is not the same as itself.
    return {
        key: value
        for key, value in new.items()
        if key not in old or not ((value is old[key] and value == value) or is_same(old[key], value))
    }


def removed_keys(old: Mapping[str, JSON], new: Mapping[str, JSON]) -> tuple[str, ...]:
    """Return the keys of ``old`` that ``new`` lacks."""
    return () if old.keys() <= new.keys() else tuple(key for key in old if key not in new)


def merge_patch(old: Mapping[str, JSON], new: Mapping[str, JSON]) -> JSONObject | None:
    """Return the smallest merge-patch that turns ``old`` into ``new``; ``None`` where the server takes none."""
    patch: JSONObject = dict.fromkeys(removed_keys(old, new))
    for key, value in changed_keys(old, new).items():
        below = old.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            inner = merge_patch(below, value)
            if inner is None:
                return None
            patch[key] = inner
        elif value is None or isinstance(value, dict):
            # In a merge-patch a null removes; and Kinto answers 500 where an object is merged into a plain value.
            return None
        else:
            patch[key] = value
    return patch


def apply_basic_patch(data: Mapping[str, JSON], patch: Mapping[str, JSON]) -> JSONObject:
    """Return the data after a basic patch."""
    return {**data, **patch}


def apply_merge_patch(data: Mapping[str, JSON], patch: Mapping[str, JSON]) -> JSONObject:
    """Return the data after a merge-patch (RFC 7396)."""
    merged = dict(data)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = apply_merge_patch(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def unmergeable(data: Mapping[str, JSON], patch: Mapping[str, JSON]) -> str:
    """Return the path where a merge-patch merges an object into another value, a 500 of Kinto, or ``""``."""
    for key, value in patch.items():
        if isinstance(value, dict) and key in data:
            below = data[key]
            found = unmergeable(below, value) if isinstance(below, dict) else ""
            if found or not isinstance(below, dict):
                return f"{key}.{found}".rstrip(".")
    return ""


def is_plain(patch: JSONObject) -> bool:
    """Return whether a merge-patch of data has the same effect as a basic patch."""
    return not any(value is None or isinstance(value, dict) for value in patch.values())
