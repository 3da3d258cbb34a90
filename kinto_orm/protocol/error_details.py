"""The fields that a 400 names. Kinto sends only the end of a field's path; the data that was sent shows the rest.

https://docs.kinto-storage.org/en/stable/api/1.x/errors.html#validation-errors
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from kinto_orm.errors import FieldError
from kinto_orm.protocol.json_values import JSON, JSONObject

INVALID_PARAMETERS = 107
"""Kinto's error number for an invalid request."""

_KINTOS_OWN = re.compile(r"(data|permissions)(\..*)?|")
"""The names of the parts of a body; a JSON schema names keys of the data."""

_OBJECTS = re.compile(r"/buckets/[^/]+/(groups|collections)(/[^/]+(/records(/[^/]+)?)?)?|/buckets(/[^/]+)?")
_MISSING = re.compile(r"(.*) is a required property", re.DOTALL)
_UNEXPECTED = re.compile(r"Additional properties are not allowed \((.*) (?:was|were) unexpected\)", re.DOTALL)

_Path = tuple[str | int, ...]


def is_of_a_schema(errno: Any, details: Any, path: str) -> bool:
    """Return whether a JSON schema, of the collection or the bucket, refused the object."""
    found = _entries(details)
    return (
        errno == INVALID_PARAMETERS
        and len(found) == 1
        and found[0].get("location") == "body"
        and not _is_kintos_own(found[0].get("name"))
        and _OBJECTS.fullmatch(path) is not None
    )


def _is_kintos_own(name: Any) -> bool:
    return name is None or (isinstance(name, str) and _KINTOS_OWN.fullmatch(name) is not None)


def field_errors(details: Any) -> tuple[FieldError, ...]:
    """Return the errors of fields in Kinto's ``details``, with Kinto's names."""
    return tuple(
        FieldError(_parts(one.get("name")), str(one.get("description", "")), str(one.get("location", "")))
        for one in _entries(details)
    )


def _entries(details: Any) -> list[JSONObject]:
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


def _parts(name: Any) -> _Path:
    if isinstance(name, str):
        return tuple(int(part) if part.isdecimal() else part for part in name.split(".")) if name else ()
    return (name,) if type(name) is int else ()


def schema_errors(details: Any, data: JSONObject | None) -> tuple[FieldError, ...]:
    """Return the errors of a JSON schema, with paths in the data that was sent; ``None`` where it is unknown.

    Kinto names the last part of the path. For a missing or unexpected key it names the object around it, or something
    else. Where several fields fit none is chosen, and the path is its last part only.
    """
    (entry,) = _entries(details)
    name, message = entry.get("name"), str(entry.get("description", ""))
    if missing := _MISSING.fullmatch(message):
        paths = [_in_object(name, key, data, is_there=False) for key in _names(missing[1])]
    elif unexpected := _UNEXPECTED.fullmatch(message):
        paths = [_in_object(name, key, data, is_there=True) for key in _names(unexpected[1])]
    else:
        paths = [_found(name, message, data)]
    return tuple(FieldError(path, message) for path in paths or [_found(name, message, data)])


def _names(text: str) -> list[str]:
    """Return the names in a message, which shows them as Python does."""
    try:
        return [name for name in ast.literal_eval(f"[{text}]") if isinstance(name, str)]
    except (SyntaxError, ValueError):
        return []


def _in_object(name: Any, key: str, data: JSONObject | None, *, is_there: bool) -> _Path:
    """Return the path of a key that is, or is not, in the object of that name, or at the top of the data."""
    may_be_at_top = not is_there or name == "additionalProperties"
    found = [
        path
        for path, value in _walk(data)
        if isinstance(value, dict) and (key in value) is is_there and (path[-1] == name if path else may_be_at_top)
    ]
    return (*found[0], key) if len(found) == 1 else (key,)


def _found(name: Any, message: str, data: JSONObject | None) -> _Path:
    if not isinstance(name, (str, int)):
        return ()  # Kinto takes the last step in the schema for a name, even a number
    found = [(path, value) for path, value in _walk(data) if path and path[-1] == name]
    if len(found) > 1:
        found = [(path, value) for path, value in found if message.startswith(f"{value!r} ")]
    return found[0][0] if len(found) == 1 else (name,)


def _walk(value: JSON, path: _Path = ()) -> Iterator[tuple[_Path, JSON]]:
    """Yield each value with its path."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from _walk(one, (*path, key))
