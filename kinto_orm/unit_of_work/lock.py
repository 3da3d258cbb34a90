"""A lock for units of work: an object that each of them writes first in its batch.

On PostgreSQL its row stays locked until the batch is stored, so units with the same lock come one after the other, and
the versions that ``If-Match`` compares cannot change in between. On the memory backend it has no effect.
"""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass

from kinto_orm.errors import DryRunError, InvalidTypeError, UnitOfWorkError
from kinto_orm.protocol.paths import Kind, ObjectPath, check_id
from kinto_orm.protocol.responses import raise_for_status
from kinto_orm.protocol.writes import ABSENT, UNCONDITIONAL, Action, Flow, Write
from kinto_orm.repository.state import FlowRunner, Stateful

MOST_ATTEMPTS = 4
"""The number of attempts to create one object where other clients write to the same list."""


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock of a unit of work: an object of that name, or the caller's object."""

    path: ObjectPath
    is_named: bool

    def check(self, staged: Container[ObjectPath]) -> None:
        """Raise ``UnitOfWorkError`` where the unit writes the object, too: it would conflict with itself."""
        if self.path in staged:
            raise UnitOfWorkError(
                f"{self.path} is the lock of this unit, and cannot be written in it: take another one."
            )

    def prepare(self, runner: FlowRunner) -> Flow[Write]:
        """Return the write that takes the lock; create the object of a name first, where it is missing."""
        if self.is_named:
            return (yield from runner.prepare_lock(self.path))
        return lock_write(self.path)


def lock_of(lock: str | Stateful, runner: FlowRunner) -> Lock:
    """Return the lock: the given object, or one for that name in the client's default bucket."""
    if isinstance(lock, str):
        # Alone in its list: two objects of one list that are written in the same millisecond get a 409, which would
        # undo the lock and store the rest without it. The id never begins with "batch", which a batch does not take.
        name = check_id(f"lock-{check_id(lock, 'lock')}", "lock")
        return Lock(ObjectPath(Kind.RECORD, (runner.default_bucket, name, "lock")), is_named=True)
    if not hasattr(lock, "__kinto_path__"):
        raise InvalidTypeError(f"lock is a name or an object of Kinto's, not {lock!r:.60}.")
    return Lock(lock.__kinto_path__(), is_named=False)


def lock_write(path: ObjectPath) -> Write:
    """Return the write that takes the lock. It has no data, so the object keeps its data."""
    return Write(path, Action.PUT, UNCONDITIONAL)


def create_lock(path: ObjectPath) -> Flow[None]:
    """Make sure that the object of a name exists: two units that both create it would not wait for each other.

    Raises the error of the server where it cannot be created.
    """
    for one in (ObjectPath(Kind.COLLECTION, path.ids[:-1]), path):
        with suppress(DryRunError):  # the creation is planned, like the rest of the unit
            yield from _create(one)


def _create(path: ObjectPath) -> Flow[None]:
    write = Write(path, Action.PUT, ABSENT, new={})
    response = yield write
    for _ in range(MOST_ATTEMPTS - 1):
        if response.status != 409:  # another client wrote to the list at that moment; the object may still be missing
            break
        response = yield write
    if response.status != 412:
        raise_for_status(response, "PUT", path)
