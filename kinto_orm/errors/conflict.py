"""The errors that offer a way out: conflicts, partial commits, and a feed that lost its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from kinto_orm.errors.response import ResponseError
from kinto_orm.errors.usage import KintoError, UsageError, rebuild


class Resolution(Protocol):
    """Resolution of one conflict; the client that met the conflict provides it."""

    def reload(self) -> Any:
        """Give the object the server's data and return it."""
        ...

    def overwrite(self) -> Any:
        """Write the object over the server's version and return it."""
        ...

    async def aoverwrite(self) -> Any:
        """Like :meth:`overwrite`."""
        ...

    def merge(self) -> Any:
        """Store the changes of both sides and return the object."""
        ...

    async def amerge(self) -> Any:
        """Like :meth:`merge`."""
        ...


class ConflictError(ResponseError):
    """412: another client changed the object since it was read.

    ``base`` is the version that was read, ``mine`` the wanted one, ``theirs`` the one on the server: each is the
    ``data`` of the object without ``id`` and ``last_modified``, or ``None`` where there is no object.
    ``theirs_last_modified`` is the timestamp of ``theirs``, in milliseconds. All four come from the answer itself: no
    further request was made.
    https://docs.kinto-storage.org/en/stable/api/1.x/timestamps.html
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 412,
        base: Mapping[str, Any] | None = None,
        mine: Mapping[str, Any] | None = None,
        theirs: Mapping[str, Any] | None = None,
        theirs_last_modified: int | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, status=status, **context)
        self.base = base
        self.mine = mine
        self.theirs = theirs
        self.theirs_last_modified = theirs_last_modified
        self.resolution: Resolution | None = None

    def _resolution(self) -> Resolution:
        if getattr(self, "resolution", None) is None:
            raise UsageError("This conflict comes from another process or was made by hand: load the object again.")
        assert self.resolution is not None
        return self.resolution

    def reload(self) -> Any:
        """Give the object the server's data and return it; local changes are dropped.

        Makes no request.
        """
        return self._resolution().reload()

    def overwrite(self) -> Any:
        """Write the object over the server's version and return it.

        Only the version in this error is overwritten: a newer change raises another ``ConflictError``.
        """
        return self._resolution().overwrite()

    async def aoverwrite(self) -> Any:
        """Like :meth:`overwrite`."""
        return await self._resolution().aoverwrite()

    def merge(self) -> Any:
        """Store the changes of both sides and return the object; each field takes the value of the side that changed
        it.

        Raises ``MergeConflict`` where both sides changed the same field, or one side deleted the object.
        """
        return self._resolution().merge()

    async def amerge(self) -> Any:
        """Like :meth:`merge`."""
        return await self._resolution().amerge()


class MergeConflict(ConflictError):  # noqa: N818  the word of version control
    """Both sides changed the same fields, so the changes cannot be merged.

    ``paths`` names the fields; it is empty where one side deleted the object.
    """

    def __init__(self, message: str, *, paths: Sequence[str] = (), **context: Any) -> None:
        super().__init__(message, **context)
        self.paths = tuple(paths)


class WriteOutcome(Protocol):
    """The result of one write, as an error has it: a :class:`~kinto_orm.Outcome`."""

    @property
    def object(self) -> Any:
        """The object; ``Any``, because an error does not know the class of what it is about."""
        ...

    @property
    def status(self) -> str:
        """The word for the result, as of ``Outcome``."""
        ...

    @property
    def error(self) -> KintoError | None:
        """The reason why it was not stored."""
        ...

    @property
    def is_stored(self) -> bool:
        """Whether the server has the object as it was wanted."""
        ...


class Undoing(Protocol):
    """Undoing of the stored part of a commit; the unit of work that failed provides it."""

    def compensate(self) -> Sequence[WriteOutcome]:
        """Undo each stored write and return the outcomes."""
        ...

    async def acompensate(self) -> Sequence[WriteOutcome]:
        """Like :meth:`compensate`."""
        ...


class CommitError(KintoError):
    """Some writes of a batch were not stored; the others were.

    ``outcomes`` has one entry for each staged object, in staging order. ``report`` is the ``BulkReport`` of a bulk verb
    or a job; its ``outcomes`` are the failed ones only.
    """

    def __init__(self, message: str, outcomes: Sequence[WriteOutcome] = (), *, report: Any = None) -> None:
        super().__init__(message)
        self.outcomes = tuple(outcomes)
        self.report = report
        self.undoing: Undoing | None = None

    def _undoing(self) -> Undoing:
        if getattr(self, "undoing", None) is None:
            raise UsageError("Only an error that a unit of work raised in this process can be compensated.")
        assert self.undoing is not None
        return self.undoing

    def compensate(self) -> Sequence[WriteOutcome]:
        """Undo the stored writes, the last one first, and return one outcome for each, undone or not.

        Created objects are deleted, changed objects get their data back, deleted objects are created again. An object
        that another client wrote since is left alone, and ``error`` of its outcome says why. This is no transaction:
        other clients may have seen the writes.
        """
        return self._undoing().compensate()

    async def acompensate(self) -> Sequence[WriteOutcome]:
        """Like :meth:`compensate`."""
        return await self._undoing().acompensate()

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (type(self), self.args, {"outcomes": self.outcomes, "report": self.report}))


class FeedLostError(KintoError, LookupError):
    """The token of a change feed no longer fits the list, so some changes can no longer be told.

    The list was flushed, deleted and created again, restored from a backup, purged of tombstones, or a client imported
    records with timestamps of the past. :meth:`reconcile` returns the true difference.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.restart: Callable[[Mapping[str, int]], Any] | None = None

    def reconcile(self, known: Mapping[str, int]) -> Any:
        """Return a feed that gives the difference between the list and the records that you have.

        ``known`` has the ``last_modified`` of each of them, in milliseconds, by its id. Iterate the feed as any other:
        it reads the whole list, gives what is new or changed, then what is gone, and goes on from there.
        """
        if getattr(self, "restart", None) is None:
            raise UsageError("This error came from another process: call records.changes(), without a token.")
        assert self.restart is not None
        return self.restart(known)

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (type(self), self.args, {}))


class VerificationError(KintoError):
    """All was stored, and yet the server has something else than what was loaded: another client was at work."""
