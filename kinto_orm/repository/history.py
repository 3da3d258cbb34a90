"""Earlier versions of an object, from the history of its bucket.

https://docs.kinto-storage.org/en/stable/api/1.x/history.html
"""

from __future__ import annotations

from collections.abc import Mapping

from kinto_orm.errors import HistoryIncompleteError, ResponseError
from kinto_orm.protocol.entries import HistoryEntry, history_entry
from kinto_orm.protocol.filters import Condition, condition, encode_conditions
from kinto_orm.protocol.json_values import JSONObject, decode
from kinto_orm.protocol.paging import encode_query, entries_of, read_page
from kinto_orm.protocol.paths import EntriesPath, Kind, ListPath, ObjectPath, PluralPath
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.reads import require_capability
from kinto_orm.repository.state import FlowRunner, ObjectState, Status

VERSION = "target.data.last_modified"
"""The field of an entry by which it says which version of its object it holds."""


def history_path(bucket: str) -> EntriesPath:
    """Return the path of the history of the bucket."""
    return EntriesPath("history", (bucket,))


def conditions_about(path: ObjectPath) -> tuple[Condition, ...]:
    """Return the conditions that select the entries of one object."""
    # Only the entries of the bucket itself have its id; all of its history are of the one bucket.
    names = {Kind.BUCKET: (), Kind.RECORD: ("collection_id", "record_id")}.get(path.kind, (f"{path.kind.value}_id",))
    wanted = {**dict(zip(names, path.ids[1:], strict=True)), "resource_name": path.kind.value}
    return tuple(condition(name, "", value) for name, value in wanted.items())


def require_history(what: str, path: ListPath | ObjectPath, runner: FlowRunner) -> Flow[None]:
    """Make sure that the server keeps a history of the object, which ``what`` needs.

    Raises ``CapabilityMissingError`` where the server has no history, and ``HistoryIncompleteError`` where its settings
    exclude the object.
    """
    _check_is_kept((yield from require_capability("history", what, runner)), path)


def _check_is_kept(capability: JSONObject, path: ListPath | ObjectPath) -> None:
    """Raise ``HistoryIncompleteError`` where the capability says that the history excludes the object."""
    excluded = capability.get("excluded_resources")
    for one in excluded if isinstance(excluded, list) else ():
        named = one if isinstance(one, dict) else {}
        uri = "".join(f"/{kind.plural}/{named[kind.value]}" for kind in Kind if kind.value in named)
        if uri and f"{path}/".startswith(f"{uri}/"):
            raise HistoryIncompleteError(
                f"The server keeps no history of {path}: its setting history.exclude_resources names {uri}. "
                "What it kept before that is in bucket.history."
            )


def read_version(path: ObjectPath, last_modified: int, runner: FlowRunner) -> Flow[JSONObject | None]:
    """Return the object's data at that very timestamp; ``None`` where the history does not show it."""
    info = yield from runner.__kinto_describe_server__()
    if path.kind is Kind.ACCOUNT or "history" not in info.get("capabilities", {}):
        return None
    try:
        entry = yield from _entry(path, condition(VERSION, "", last_modified))
    except ResponseError:
        return None
    return None if entry is None else entry.target.data


def read_permissions(path: ObjectPath, runner: FlowRunner) -> Flow[Mapping[str, frozenset[str]] | None]:
    """Return the permissions of an object that the server does not show itself; ``None`` where the history does not.

    Every change of permissions is a write, so that the newest entry has those of now.
    """
    info = yield from runner.__kinto_describe_server__()
    capability = info.get("capabilities", {}).get("history")
    if path.kind is Kind.ACCOUNT or not isinstance(capability, dict):
        return None
    try:
        _check_is_kept(capability, path)
        entry = yield from _entry(path)
    except (HistoryIncompleteError, ResponseError):
        return None
    return None if entry is None or entry.target.is_deleted else entry.target.permissions


def version_at(path: ObjectPath, timestamp: int, *, exists: bool) -> Flow[ObjectState | None]:
    """Return the version of the object at that time, not its current one; ``None`` before its creation.

    ``exists``: whether it exists now. Reads one version and not the whole history. Raises ``HistoryIncompleteError``
    where the history does not reach back that far.
    """
    entry = yield from _entry(path, condition(VERSION, "max", timestamp))
    if entry is not None:
        deleted = yield from deletion_of(path.plural, timestamp)
        # The records of a deleted collection are deleted without entries.
        is_gone = deleted is not None and deleted >= (entry.target.last_modified or 0)
        return ObjectState(path, Status.DELETED) if is_gone else version_in(entry, path)
    first = yield from _entry(path, order="last_modified")
    if (first is None and exists) or (first is not None and first.action != "create"):
        raise incomplete_history(str(path), timestamp)
    return None


def deletion_of(path: PluralPath, until: int | None = None) -> Flow[int | None]:
    """Return the time of the last deletion of the records' collection, until then; ``None`` where there is none.

    ``None`` also for lists that are deleted with the history itself.
    """
    if path.kind is not Kind.RECORD:
        return None
    conditions = [condition("action", "", "delete")]
    if until is not None:
        conditions.append(condition(VERSION, "max", until))
    entry = yield from _entry(ObjectPath(Kind.COLLECTION, path.parent_ids), *conditions)
    return None if entry is None else entry.target.last_modified


def version_in(entry: HistoryEntry, path: ObjectPath) -> ObjectState:
    """Return the object at that path as the entry shows it."""
    if entry.target.is_deleted:
        return ObjectState(path, Status.DELETED, last_modified=entry.target.last_modified)
    return ObjectState(path, Status.LOADED, entry.target.data, entry.target.last_modified, entry.target.permissions)


def incomplete_history(what: str, timestamp: int) -> HistoryIncompleteError:
    """Return the error that names the missing history."""
    return HistoryIncompleteError(
        f"What {what} was like at {timestamp} cannot be told: it was changed since, and its history does not reach "
        "back to then (it was purged, trimmed, not kept yet, or may not be seen)."
    )


def _entry(path: ObjectPath, *conditions: Condition, order: str = "-last_modified") -> Flow[HistoryEntry | None]:
    """Return the newest entry of the object, or the first one in another order, that meets the conditions."""
    parameters = encode_conditions((*conditions_about(path), *conditions))
    history = history_path(path.ids[0])
    page = yield from read_page(history, encode_query([*parameters, ("_sort", order), ("_limit", "1")]))
    rows = entries_of(decode(page.body, str(history)), history)
    return history_entry(rows[0]) if rows else None
