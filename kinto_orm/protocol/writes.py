"""One write, and its two encodings: as a single request, and as an entry of a batch.

The server's rules differ: inside a batch it stores the nulls of a merge-patch and refuses a JSON-Patch.
https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html (preconditions)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar, cast

from kinto_orm.errors import InvalidValueError, NotStageableError, PermissionsUnknownError
from kinto_orm.protocol.json_patch import apply_json_patch
from kinto_orm.protocol.json_values import JSON, JSONObject, encode
from kinto_orm.protocol.messages import BlockingTask, Pause, Request, Response
from kinto_orm.protocol.patches import (
    JSON_TYPE,
    MERGE_PATCH_TYPE,
    JSONPatch,
    MergePatch,
    Patch,
    apply_merge_patch,
    changed_keys,
    is_plain,
    merge_patch,
    unmergeable,
)
from kinto_orm.protocol.paths import ObjectPath

PermissionLists: TypeAlias = Mapping[str, Sequence[str]]


class Action(Enum):
    """The effect of a write on its object."""

    PUT = "put"
    UPDATE = "update"
    PATCH = "patch"
    DELETE = "delete"

    __hash__ = object.__hash__  # as in Kind: they are looked up for each write


class Precondition(NamedTuple):
    """``If-None-Match: *`` (absent), ``If-Match`` (the timestamp last seen), or none at all."""

    absent: bool = False
    last_modified: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries it."""
        if self.absent:
            return {"If-None-Match": "*"}
        return {} if self.last_modified is None else {"If-Match": f'"{self.last_modified}"'}


UNCONDITIONAL = Precondition()
ABSENT = Precondition(absent=True)


class Write(NamedTuple):
    """One change of one object.

    PUT stores ``new`` as the whole data (without it, Kinto keeps what is there); UPDATE turns ``old`` into ``new`` in
    the smallest way; PATCH applies ``patch`` (on ``old``, where it is known); DELETE removes the object.
    ``permissions`` are the ones to set; ``all_permissions`` the complete set, where it is known, which a PUT needs as
    soon as it names one.
    """

    path: ObjectPath
    action: Action
    precondition: Precondition
    old: Mapping[str, JSON] | None = None
    new: Mapping[str, JSON] | None = None
    patch: Patch | None = None
    permissions: PermissionLists | None = None
    all_permissions: PermissionLists | None = None

    @property
    def is_guarded(self) -> bool:
        """Whether a precondition keeps it from being applied twice."""
        return self.precondition != UNCONDITIONAL


Encoding: TypeAlias = tuple[str, str | None, JSON]
"""Method, content type and body of a write; ``None`` where it has none."""


def encode_request(write: Write) -> Request:
    """Return the write as a single request."""
    method, content_type, body = _ALONE[write.action](write)
    headers = write.precondition.headers
    if content_type is not None:
        headers["Content-Type"] = content_type
    encoded = None if body is None else encode(body)
    return Request(method, str(write.path), headers=headers, body=encoded, is_guarded=write.is_guarded)


def encode_entry(write: Write) -> JSONObject:
    """Return the write as an entry of a batch.

    Raises ``NotStageableError`` for a write that a batch cannot carry.
    """
    path = str(write.path)
    if "/batch" in path:
        raise NotStageableError(f"Kinto refuses {path} inside a batch (ids that begin with 'batch'): save it alone.")
    method, _, body = _IN_BATCH[write.action](write)
    entry: JSONObject = {"method": method, "path": path}
    if headers := write.precondition.headers:
        entry["headers"] = headers
    if body is not None:
        entry["body"] = body
    return entry


def _encode_whole(write: Write) -> Encoding:
    body: JSONObject = {} if write.new is None else {"data": write.new}
    if write.permissions:
        # A PUT that names one permission empties all that it does not name.
        if write.all_permissions is None:
            raise PermissionsUnknownError(
                f"{write.path}: only some permissions are known, and this write must replace the whole object: "
                "refresh() first, or save the permissions alone."
            )
        body["permissions"] = write.all_permissions
    return "PUT", JSON_TYPE, body


def _encode_update(write: Write, *, may_merge: bool = False) -> Encoding:
    assert write.old is not None and write.new is not None
    body: JSONObject = {"permissions": write.permissions} if write.permissions else {}
    old, changed = write.old, changed_keys(write.old, write.new)
    removes = not old.keys() <= write.new.keys()
    nested = (isinstance(value, dict) and isinstance(old.get(key), dict) for key, value in changed.items())
    merge = merge_patch(old, write.new) if may_merge and (removes or any(nested)) else None
    if merge is None and not removes:
        if changed or not body:
            body["data"] = changed
        return "PATCH", JSON_TYPE, body
    if merge is None:
        _check_whole(write)
        if not write.path.kind.secrets <= write.new.keys():
            raise NotStageableError(
                f"{write.path}: this change takes a PUT of the whole account, and its password is unknown: save it "
                "outside of a unit of work."
            )
        return _encode_whole(write)
    return "PATCH", MERGE_PATCH_TYPE, {"data": merge, **body}


def _encode_patch_alone(write: Write) -> Encoding:
    assert write.patch is not None
    if isinstance(write.patch, MergePatch) and (path := unmergeable(write.old or {}, write.patch.body.get("data", {}))):
        raise InvalidValueError(
            f"{write.path}: {path} holds no object, and Kinto fails to merge an object into any other value: "
            "give the whole key, as by patch({…})."
        )
    return "PATCH", write.patch.content_type, write.patch.body


def _encode_patch_in_batch(write: Write) -> Encoding:
    patch = write.patch
    assert patch is not None
    if isinstance(patch, JSONPatch):
        return _encode_json_patch_in_batch(write, patch)
    body = patch.body
    if not isinstance(patch, MergePatch) or (is_plain(body.get("data", {})) and is_plain(body.get("permissions", {}))):
        return "PATCH", JSON_TYPE, body
    if write.old is None or "permissions" in body:
        raise NotStageableError(
            f"{write.path}: inside a batch Kinto stores the nulls of a merge-patch, and the object's data is not "
            "known here: refresh() it first, or patch it alone."
        )
    _check_whole(write)
    return "PUT", JSON_TYPE, {"data": apply_merge_patch(write.old, body["data"])}


def _encode_json_patch_in_batch(write: Write, patch: JSONPatch) -> Encoding:
    # Kinto refuses JSON-Patch inside a batch. What it makes of the object that we saw says the same.
    if write.old is None:
        raise NotStageableError(
            f"{write.path}: Kinto refuses JSON-Patch inside a batch, and what it makes of the object is not known "
            "here: refresh() the object first, or patch it alone."
        )
    _check_whole(write)
    seen = write.precondition.last_modified
    patched = apply_json_patch(write.old, write.all_permissions, patch.operations, id=write.path.id, last_modified=seen)
    body: JSONObject = {"data": patched.data}
    if patched.permissions is not None:
        body["permissions"] = {name: sorted(principals) for name, principals in patched.permissions.items()}
    return "PUT", JSON_TYPE, body


def _check_whole(write: Write) -> None:
    # A PUT equals a smaller change only while the object is as we saw it.
    if write.precondition == UNCONDITIONAL:
        raise NotStageableError(
            f"{write.path}: this change takes a PUT of the whole object, which with safe=False would also overwrite "
            "what others changed: leave safe=False out, or say replace(safe=False)."
        )


_ALONE: Mapping[Action, Callable[[Write], Encoding]] = {
    Action.PUT: _encode_whole,
    Action.UPDATE: partial(_encode_update, may_merge=True),
    Action.PATCH: _encode_patch_alone,
    Action.DELETE: lambda write: ("DELETE", None, None),
}
_IN_BATCH: Mapping[Action, Callable[[Write], Encoding]] = {
    **_ALONE,
    Action.UPDATE: _encode_update,
    Action.PATCH: _encode_patch_in_batch,
}

T = TypeVar("T")

Flow = Generator[Request | Write, Response, T]

NextFlow = Callable[[], Flow[T] | None]
"""Returns the next flow of a sequence; ``None`` at its end."""


def call_blocking(what: str, work: Callable[[], T]) -> Flow[T]:
    """Call ``work`` between two requests, in a thread where the flow is awaited, and return its result.

    ``what`` names the work in messages. The flow can catch a ``KintoError`` of ``work``; any other error leaves it.
    """
    response = yield BlockingTask(path=what, work=lambda: Response(200, content=work()))
    return cast(T, response.content)


def pause(seconds: float = 0) -> Flow[int]:
    """Wait, and return the time of this machine's clock, in milliseconds since the epoch."""
    response = yield Pause(seconds=seconds)
    return cast(int, response.content)
