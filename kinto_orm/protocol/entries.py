"""Entries of the two lists whose entries have no URL: history and permissions.

https://docs.kinto-storage.org/en/stable/api/1.x/history.html
https://docs.kinto-storage.org/en/stable/api/1.x/permissions.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from kinto_orm.errors import ProtocolError
from kinto_orm.protocol.json_values import JSON, JSONObject, say_value
from kinto_orm.protocol.responses import StoredObject, stored_object

PERMISSIONS_ORDER = ("uri",)
"""The order in which no page of the list of permissions leaves an entry out.

Every entry has a URI, and no two have the same one; neither holds for their ids.
"""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One write of one object: its author, its time, and the object after it."""

    id: str
    """The id of the entry itself."""
    last_modified: int
    """The time of the entry, in milliseconds; :attr:`target` has the timestamp of the object."""
    date: datetime
    """The time of the entry, with a timezone."""
    action: str
    """``"create"``, ``"update"`` or ``"delete"``."""
    user_id: str | None
    """The principal of the author; ``None`` for a request without credentials."""
    resource_name: str
    """The kind of the object, such as ``"record"``."""
    uri: str
    """The path of the object."""
    target: StoredObject = field(hash=False)
    """The object after that write: its data, timestamp and permissions."""
    bucket_id: str
    group_id: str | None = None
    collection_id: str | None = None
    record_id: str | None = None


@dataclass(frozen=True, slots=True)
class PermissionEntry:
    """The permissions of the client's user on one object, granted by the object itself or by the settings."""

    uri: str
    """The path of the object; ``"/"`` for the server itself."""
    resource_name: str
    """The kind of the object, such as ``"record"``; ``"root"`` for the server itself."""
    permissions: frozenset[str]
    """Names such as ``"read"`` or ``"record:create"``, with those that follow from others."""
    id: str | None = None
    bucket_id: str | None = None
    group_id: str | None = None
    collection_id: str | None = None
    record_id: str | None = None


def history_entry(row: JSONObject) -> HistoryEntry:
    """Return the entry of a row; raise ``ProtocolError`` for a malformed one."""
    target: JSON = row.get("target")
    data: JSON = target.get("data") if isinstance(target, dict) else None
    uri, action = _text(row, "uri"), _text(row, "action")
    if not isinstance(target, dict) or not isinstance(data, dict) or type(row.get("last_modified")) is not int:
        raise ProtocolError(f"This is not an entry of a history: {str(row)[:200]}.")
    is_deleted = action == "delete"
    if is_deleted:  # then Kinto's own "deleted" is not data
        data = {name: value for name, value in data.items() if name != "deleted"}
    return HistoryEntry(
        id=_text(row, "id"),
        last_modified=row["last_modified"],
        date=_date(row),
        action=action,
        user_id=_text_or_none(row, "user_id"),
        resource_name=_text(row, "resource_name"),
        uri=uri,
        target=stored_object(data, target.get("permissions"), is_deleted=is_deleted),
        # Kinto names the bucket only in entries of the bucket itself.
        bucket_id=[*uri.split("/"), "", "", ""][2],
        group_id=_text_or_none(row, "group_id"),
        collection_id=_text_or_none(row, "collection_id"),
        record_id=_text_or_none(row, "record_id"),
    )


def permission_entry(row: JSONObject) -> PermissionEntry:
    """Return the entry of a row; raise ``ProtocolError`` for a malformed one."""
    permissions = row.get("permissions")
    if not isinstance(permissions, list) or not all(isinstance(one, str) for one in permissions):
        raise ProtocolError(f"This is not an entry of a list of permissions: {str(row)[:200]}.")
    return PermissionEntry(
        uri=_text(row, "uri"),
        resource_name=_text(row, "resource_name"),
        permissions=frozenset(permissions),
        id=_text_or_none(row, "id"),
        bucket_id=_text_or_none(row, "bucket_id"),
        group_id=_text_or_none(row, "group_id"),
        collection_id=_text_or_none(row, "collection_id"),
        record_id=_text_or_none(row, "record_id"),
    )


def _text(row: JSONObject, name: str) -> str:
    value: JSON = row.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"An entry in the answer has no {name}: {str(row)[:200]}.")
    return value


def _text_or_none(row: JSONObject, name: str) -> str | None:
    return None if row.get(name) is None else _text(row, name)


def _date(row: JSONObject) -> datetime:
    try:
        date = datetime.fromisoformat(_text(row, "date"))
    except ValueError as error:
        raise ProtocolError(f"The date of an entry is malformed: {say_value(row['date'])}.") from error
    if date.tzinfo is None:
        raise ProtocolError(f"The date of an entry has no timezone: {say_value(row['date'])}.")
    return date
