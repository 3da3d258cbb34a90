"""A lock for units of work: an object that each of them writes first in its batch.

On PostgreSQL its row stays locked until the batch is stored, so units with the same lock come one after the other, and
what ``If-Match`` compares with cannot change meanwhile. On the memory backend it has no effect.
"""

from __future__ import annotations

from kinto_orm.errors import InvalidTypeError
from kinto_orm.protocol.answers import raise_for_status
from kinto_orm.protocol.endpoints import Kind, ObjectPath, check_id
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.writes import ABSENT, UNCONDITIONAL, Action, Write
from kinto_orm.state import Holder, Runner


def lock_path(lock: str | Holder, runner: Runner) -> ObjectPath:
    """The object of the lock: the one that was given, or a group of that name in the client's default bucket."""
    if isinstance(lock, str):
        return ObjectPath(Kind.GROUP, (runner.default_bucket, check_id(lock, "lock")))
    if not hasattr(lock, "__kinto_path__"):
        raise InvalidTypeError(f"lock is a name or an object of Kinto's, not {lock!r:.60}.")
    return lock.__kinto_path__()


def lock_write(path: ObjectPath) -> Write:
    """The write that takes the lock: of an object that is somebody's own, it keeps the data."""
    return Write(path, Action.PUT, UNCONDITIONAL, new={"members": []} if path.kind is Kind.GROUP else None)


def create_lock(path: ObjectPath) -> Flow[None]:
    """Makes sure that the object of a named lock is there: two units that both create it would not wait for each other.

    Raises the error of the server where it cannot be created.
    """
    if path.kind is not Kind.GROUP:
        return
    response = yield Write(path, Action.PUT, ABSENT, new={"members": []})
    if response.status not in (409, 412):  # those say that somebody else was faster
        raise_for_status(response, "PUT", path)
