"""Reads of single objects, of the server's description of itself, and of its capabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from kinto_orm.errors import CapabilityMissingError, NotFoundError
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.messages import Request
from kinto_orm.protocol.paths import Kind, ObjectPath
from kinto_orm.protocol.responses import read_document, read_object
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.state import FlowRunner, ObjectState, Status

T = TypeVar("T")

_REMEDIES = {
    "accounts": "add kinto.plugins.accounts to its kinto.includes",
    "attachments": "install kinto-attachment there and add kinto_attachment to its kinto.includes",
    "changes": "install kinto-remote-settings there and add kinto_remote_settings.changes to its kinto.includes",
    "default_bucket": "add kinto.plugins.default_bucket to its kinto.includes",
    "flush_endpoint": "add kinto.plugins.flush to its kinto.includes",
    "history": "add kinto.plugins.history to its kinto.includes",
    "permissions_endpoint": "set kinto.experimental_permissions_endpoint = true there",
    "schema": "set kinto.experimental_collection_schema_validation = true there",
    "signer": "install kinto-remote-settings there and add kinto_remote_settings.signer to its kinto.includes",
}
"""The way to give a server each capability."""


def require_capability(name: str, what: str, runner: FlowRunner) -> Flow[JSONObject]:
    """Return the server's description of the capability, which ``what`` needs.

    Raises ``CapabilityMissingError``, which names the plugin, where the server does not advertise it.
    """
    for refresh in (False, True):  # it may have been added since the server was asked
        info = yield from runner.__kinto_describe_server__(refresh=refresh)
        found = info.get("capabilities", {}).get(name)
        if isinstance(found, dict):
            return found
    raise CapabilityMissingError(
        f"{what} needs the capability {name!r}, which the server does not have: {_REMEDIES[name]}. Nothing was sent."
    )


def require_kind(kind: Kind, runner: FlowRunner) -> Flow[None]:
    """Raise ``CapabilityMissingError`` unless the server supports the kind."""
    if kind.capability is not None:
        yield from require_capability(kind.capability, f"An {kind.value}", runner)


def get(path: ObjectPath, *, attempt: int = 1) -> Flow[ObjectState]:
    """Return the object as the server has it; ``attempt`` above 1 waits a little, after failed attempts.

    Raises ``NotFoundError``, and ``ForbiddenError`` where the bucket does not exist or may not be read.
    """
    response = yield Request("GET", str(path), attempt=attempt)
    stored = read_object(response, path, "GET")
    return ObjectState(path, Status.LOADED).after(stored)


def read_server_info() -> Flow[JSONObject]:
    """Return the server's description of itself; parts of another type than Kinto's are left out."""
    request = Request("GET", "/")
    response = yield request
    info = read_document(response, request)
    return {key: value for key, value in info.items() if key not in _MAPPINGS or isinstance(value, dict)}


_MAPPINGS = ("capabilities", "settings", "user")


def user_id(info: JSONObject) -> str | None:
    """Return the principal of the user in the server's description; ``None`` for an anonymous one."""
    id = info.get("user", {}).get("id")
    return id if isinstance(id, str) else None


def or_none(flow: Flow[T]) -> Flow[T | None]:
    """Return the result of the flow; ``None`` where it ends with a 404."""
    try:
        return (yield from flow)
    except NotFoundError:
        return None


def ids_in_chunks(ids: Sequence[str], length: int = 4000) -> list[list[str]]:
    """Return the ids in groups, each short enough for one URL."""
    chunks: list[list[str]] = []
    room = 0
    for id in ids:
        room -= len(id) + 12  # quotes and comma, percent-encoded
        if room < 0 or not chunks:
            chunks.append([])
            room = length - len(id) - 12
        chunks[-1].append(id)
    return chunks
