"""Applying a JSON-Patch to an object the way the Kinto server does.

The operations work on ``{"data": {…}, "permissions": {"read": {"principal": …}}}``: a permission is an object there,
whose keys are the principals.
https://docs.kinto-storage.org/en/stable/api/1.x/records.html#modifying-records, https://www.rfc-editor.org/rfc/rfc6902
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from kinto_orm.errors import InvalidValueError, PermissionsUnknownError
from kinto_orm.protocol.json_values import JSON, JSONObject, copy_json, is_same, say_value, to_json_value

_Steps: TypeAlias = tuple[str, ...]
"""A parsed JSON pointer (RFC 6901): keys and indexes."""

_MEMBERS = frozenset({"op", "path", "from", "value"})
_INDEX = re.compile("0|[1-9][0-9]{0,17}")
_BAD_ESCAPE = re.compile("~(?![01])")

_OWN_KEYS = ("id", "last_modified")
_SERVER_KEYS = (*_OWN_KEYS, "deleted", "__permissions__")
"""Keys of the data that only the server sets: it refuses, ignores or obeys a value there, never stores it."""

_UNKNOWN: JSON = object()
"""The placeholder of an ``id`` or ``last_modified`` that the caller does not know."""

_UNREADABLE = "it reads the id or last_modified of the object, which is unknown: refresh() it first"


class Patched(NamedTuple):
    """The result of the operations."""

    data: JSONObject
    """The data without ``id`` and ``last_modified``; shares nothing with the arguments."""
    permissions: dict[str, frozenset[str]] | None
    """``None``: they stay unchanged."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Operation:
    """One operation, checked and parsed."""

    index: int
    op: str
    path: str
    target: _Steps
    source: _Steps | None
    members: Mapping[str, JSON]

    @property
    def value(self) -> JSON:
        """The value of the operation; raises ``InvalidValueError`` where it has none."""
        if self.path.startswith(("/permissions/read/", "/permissions/write/")):
            # Kinto stores the principal as it stands in the path: escaped.
            return self.path.rpartition("/")[2]
        if "value" not in self.members:
            raise self.error("it needs a value")
        return self.members["value"]

    @property
    def origin(self) -> _Steps:
        """The place from which a move or copy takes the value; raises ``InvalidValueError`` where it is missing."""
        if self.source is None:
            raise self.error("it needs a 'from'")
        return self.source

    def error(self, reason: str) -> InvalidValueError:
        """Return the error that says why the operation cannot be applied."""
        return InvalidValueError(f"{self}: {reason}.")

    def concerns(self, steps: _Steps) -> bool:
        """Return whether the operation names this place, or one above or below it."""
        named = (self.target,) if self.source is None else (self.target, self.source)
        return any(one[: len(steps)] == steps[: len(one)] for one in named)

    def __str__(self) -> str:
        origin = "" if self.source is None else f" {self.members['from']:.100} to"
        return f"operations[{self.index}], {self.op}{origin} {self.path:.100}"


def apply_json_patch(
    data: Mapping[str, JSON],
    permissions: Mapping[str, Iterable[str]] | None,
    operations: Iterable[Mapping[str, Any]],
    *,
    id: str | None = None,
    last_modified: int | None = None,
) -> Patched:
    """Return the data and permissions after all operations; the arguments stay unchanged.

    ``id`` and ``last_modified`` (in milliseconds) are for operations that read them. As on the server, a permission
    that is removed whole is kept (give it an empty object instead), and values beside ``/data`` and ``/permissions``
    are dropped. The server itself adds the writer to ``write`` afterwards. Raises ``InvalidValueError``, which names
    the operation that cannot be applied. Raises ``PermissionsUnknownError`` where an operation names permissions and
    they are ``None``.
    """
    steps = _read_operations(operations)
    known = {"id": id, "last_modified": last_modified}
    unknown = {key: _UNKNOWN if value is None else value for key, value in known.items()}
    document: JSONObject = {"data": {**unknown, **copy_json(dict(data))}, "permissions": _as_objects(permissions)}
    own = {key: document["data"][key] for key in _SERVER_KEYS if key in document["data"]}
    for step in steps:
        if permissions is None and step.concerns(("permissions",)):
            raise PermissionsUnknownError(
                f"{step}: the permissions of the object are unknown: refresh() it first, or patch its data alone."
            )
        _APPLY[step.op](step, document)
    patched = _data_of(document, own, steps)
    return Patched(patched, None if permissions is None else _permissions_of(document, permissions, steps))


def _as_objects(permissions: Mapping[str, Iterable[str]] | None) -> JSONObject:
    # Kinto always has these two, and the others only where they are granted.
    sets = {"read": (), "write": (), **(permissions or {})}
    return {name: {principal: principal for principal in principals} for name, principals in sets.items()}


# -- reading the operations -------------------------------------------------------------------------------------------


def _read_operations(operations: Iterable[Mapping[str, Any]]) -> list[_Operation]:
    if isinstance(operations, (str, bytes, Mapping)):
        raise InvalidValueError(f"A JSON-Patch is a list of operations, not {say_value(operations)}.")
    return [_read_operation(*each) for each in enumerate(to_json_value(list(operations), "operations"))]


def _read_operation(index: int, members: JSON) -> _Operation:
    where = f"operations[{index}]"
    if not isinstance(members, dict):
        raise InvalidValueError(
            f"{where}: {say_value(members)} is not an operation: give an object with 'op' and 'path'."
        )
    if unknown := members.keys() - _MEMBERS:
        raise InvalidValueError(
            f"{where}: Kinto refuses {min(unknown)!r}; an operation has 'op', 'path', 'from', 'value'."
        )
    op: JSON = members.get("op")
    if not isinstance(op, str) or op not in _APPLY:
        raise InvalidValueError(f"{where}: {say_value(op)} is not an operation: use one of {', '.join(_APPLY)}.")
    path = _check_pointer(members.get("path"), f"{where}, {op}: 'path'")
    # Kinto takes an empty 'from' for none, and reads it only where it is needed.
    origin = _check_pointer(members["from"], f"{where}, {op}: 'from'") if members.get("from") else None
    source = None if origin is None or op not in ("move", "copy") else _read_pointer(origin, f"{where}, {op}: 'from'")
    return _Operation(index, op, path, _read_pointer(path, f"{where}, {op}: 'path'"), source, members)


def _check_pointer(pointer: JSON, what: str) -> str:
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise InvalidValueError(f"{what} must be a JSON pointer such as /data/title, not {say_value(pointer)}.")
    return pointer


def _read_pointer(pointer: str, what: str) -> _Steps:
    if _BAD_ESCAPE.search(pointer):
        raise InvalidValueError(f"{what}: {say_value(pointer)} has a ~ that is neither ~0 (for ~) nor ~1 (for /).")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


# -- applying one -----------------------------------------------------------------------------------------------------


def _find(operation: _Operation, document: JSON, steps: _Steps) -> JSON:
    found = document
    for step in steps:
        if isinstance(found, dict):
            if step not in found:
                raise operation.error(f"there is no {say_value(step)}")
            found = found[step]
        else:
            found = found[_index(operation, found, step)]
    return found


def _index(operation: _Operation, items: JSON, step: str, *, room: int = 0) -> int:
    """Return the index in a list; ``room`` is 1 where the index after the last item is valid, too."""
    if not isinstance(items, list):
        raise operation.error(f"there is no {say_value(step)} in a value that is neither object nor list")
    if room and step == "-":
        return len(items)
    if not _INDEX.fullmatch(step):
        raise operation.error(f"{say_value(step)} is not an index")
    index = int(step)
    if index >= len(items) + room:
        raise operation.error(f"there is no item {index}, the list has {len(items)}")
    return index


def _put(operation: _Operation, document: JSON, value: JSON) -> None:
    *above, last = operation.target
    parent = _find(operation, document, tuple(above))
    if isinstance(parent, dict):
        parent[last] = value
        return
    index = _index(operation, parent, last, room=1)
    parent.insert(index, value)


def _take(operation: _Operation, document: JSON, steps: _Steps) -> JSON:
    value = _find(operation, document, steps)
    parent = _find(operation, document, steps[:-1])
    del parent[steps[-1] if isinstance(parent, dict) else int(steps[-1])]
    return value


def _add(operation: _Operation, document: JSON) -> None:
    _put(operation, document, operation.value)


def _remove(operation: _Operation, document: JSON) -> None:
    _take(operation, document, operation.target)


def _replace(operation: _Operation, document: JSON) -> None:
    value = operation.value
    _find(operation, document, operation.target)
    parent, last = _find(operation, document, operation.target[:-1]), operation.target[-1]
    parent[last if isinstance(parent, dict) else int(last)] = value


def _move(operation: _Operation, document: JSON) -> None:
    origin, target = operation.origin, operation.target
    if origin != target and origin == target[: len(origin)]:
        raise operation.error("a value cannot be moved into itself")
    if origin == target:
        _find(operation, document, origin)
    else:
        _put(operation, document, _take(operation, document, origin))


def _copy(operation: _Operation, document: JSON) -> None:
    _put(operation, document, copy_json(_find(operation, document, operation.origin)))


def _test(operation: _Operation, document: JSON) -> None:
    found = _find(operation, document, operation.target)
    if _find_unknown(found) is not None:
        raise operation.error(_UNREADABLE)
    if not is_same(found, operation.value):
        raise operation.error(f"the value is {say_value(found)}, not {say_value(operation.value)}")


_APPLY: dict[str, Callable[[_Operation, JSON], None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}


# -- reading the result -----------------------------------------------------------------------------------------------


def _last_at(operations: list[_Operation], *steps: str) -> _Operation:
    """Return the last operation that may have changed this place."""
    return next(one for one in reversed(operations) if one.concerns(steps))


def _data_of(document: JSONObject, own: JSONObject, operations: list[_Operation]) -> JSONObject:
    data = document.get("data")
    if not isinstance(data, dict):
        raise _last_at(operations, "data").error("the data must stay an object")
    for key in _SERVER_KEYS:
        # The server sets these keys itself.
        if key in data and not (key in own and is_same(own[key], data[key])):
            raise _last_at(operations, "data", key).error(f"data[{key!r}] is set by the server only: leave it")
    data = {key: value for key, value in data.items() if key not in _OWN_KEYS}
    unknown = _find_unknown(data)
    if unknown is not None:
        raise _last_at(operations, "data", *unknown).error(_UNREADABLE)
    return data


def _find_unknown(value: JSON) -> _Steps | None:
    """Return the place of a value that the caller did not know; ``None`` where there is none."""
    pending: list[tuple[_Steps, JSON]] = [((), value)]
    while pending:
        steps, one = pending.pop()
        if one is _UNKNOWN:
            return steps
        if isinstance(one, (dict, list)):
            items = one.items() if isinstance(one, dict) else enumerate(one)
            pending.extend(((*steps, str(step)), item) for step, item in items)
    return None


def _permissions_of(
    document: JSONObject, old: Mapping[str, Iterable[str]], operations: list[_Operation]
) -> dict[str, frozenset[str]] | None:
    patched = document.get("permissions")
    if not isinstance(patched, dict):
        raise _last_at(operations, "permissions").error("the permissions must stay an object")
    before = {name: frozenset(principals) for name, principals in old.items()}
    after = dict(before)
    for name, principals in patched.items():
        if not isinstance(principals, (dict, list)) or not all(isinstance(one, str) for one in principals):
            raise _last_at(operations, "permissions", name).error(f"{name} must be an object whose keys are principals")
        if principals or name in before:
            after[name] = frozenset(principals)
    return None if after == before else after
