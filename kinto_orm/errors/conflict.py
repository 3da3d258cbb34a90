"""The errors that know a way out: a conflict, a commit that was stored in part, a feed that lost its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from kinto_orm.errors.response import ResponseError
from kinto_orm.errors.usage import KintoError, UsageError, rebuild


class Resolution(Protocol):
    """What can be done about a conflict; set by the client that met it."""

    def reload(self) -> Any:
        """The object, with the server's data."""
        ...

    def overwrite(self) -> Any:
        """The object, written over what the server has now."""
        ...

    async def aoverwrite(self) -> Any:
        """Like :meth:`overwrite`."""
        ...

    def merge(self) -> Any:
        """The object, with the changes of both sides."""
        ...

    async def amerge(self) -> Any:
        """Like :meth:`merge`."""
        ...


class ConflictError(ResponseError):
    """412: the object was changed by somebody else since we last saw it.

    ``base`` is what we last saw, ``mine`` what we wanted, ``theirs`` what the server has now: each the ``data`` of
    the object without ``id`` and ``last_modified``, or ``None`` where there is no object. ``theirs_last_modified``
    is the timestamp of theirs, in milliseconds. It all comes from the answer itself: no further request was made.
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
            raise UsageError("This conflict came from another process or was made by hand: load the object again.")
        assert self.resolution is not None
        return self.resolution

    def reload(self) -> Any:
        """The object, with the server's data; the local changes are dropped. Makes no request."""
        return self._resolution().reload()

    def overwrite(self) -> Any:
        """The object, written over what the server has now (and only over that: a newer change conflicts again)."""
        return self._resolution().overwrite()

    async def aoverwrite(self) -> Any:
        """Like :meth:`overwrite`."""
        return await self._resolution().aoverwrite()

    def merge(self) -> Any:
        """The object, stored with the changes of both sides: each field as the side has it that changed it.

        Raises ``MergeConflict`` where both changed the same field, or one of them deleted the object.
        """
        return self._resolution().merge()

    async def amerge(self) -> Any:
        """Like :meth:`merge`."""
        return await self._resolution().amerge()


class MergeConflict(ConflictError):  # noqa: N818  the word that version control has made everybody's
    """Both sides changed the same fields, so that they cannot be brought together.

    ``paths`` names them; it is empty where one side deleted the object.
    """

    def __init__(self, message: str, *, paths: Sequence[str] = (), **context: Any) -> None:
        super().__init__(message, **context)
        self.paths = tuple(paths)


class Undoing(Protocol):
    """What undoes the stored part of a commit; set by the unit of work that met the failure."""

    def compensate(self) -> Sequence[Any]:
        """What became of undoing each stored write."""
        ...

    async def acompensate(self) -> Sequence[Any]:
        """Like :meth:`compensate`."""
        ...


class CommitError(KintoError):
    """Some writes of a batch were not stored; the others were.

    ``outcomes`` has one entry for each staged object, in staging order.
    """

    def __init__(self, message: str, outcomes: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.outcomes = tuple(outcomes)
        self.undoing: Undoing | None = None

    def _undoing(self) -> Undoing:
        if getattr(self, "undoing", None) is None:
            raise UsageError("Only the error of a unit of work can be compensated, and in the process it came from.")
        assert self.undoing is not None
        return self.undoing

    def compensate(self) -> Sequence[Any]:
        """Undoes what was stored: one outcome for each such write, the last one first, also where it was not possible.

        Created objects are deleted, changed ones get their data back, deleted ones are created again, each only where
        nobody wrote it since: ``error`` says why something was left. It is no transaction: others may have seen it.
        """
        return self._undoing().compensate()

    async def acompensate(self) -> Sequence[Any]:
        """Like :meth:`compensate`."""
        return await self._undoing().acompensate()

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (type(self), self.args, {"outcomes": self.outcomes}))


class FeedLostError(KintoError, LookupError):
    """The token of a change feed does not lead to the list as it is now, so some changes cannot be told any more.

    The list was flushed, deleted and made again, restored from a backup, purged of tombstones, or somebody imported
    records with timestamps of the past. :meth:`reconcile` gives the true difference.
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
