"""Somebody else was faster, and some of many writes were not stored: the errors that know a way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class CommitError(KintoError):
    """Some writes of a batch were not stored; the others were.

    ``outcomes`` has one entry for each staged object, in staging order.
    """

    def __init__(self, message: str, outcomes: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.outcomes = tuple(outcomes)

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (type(self), self.args, {"outcomes": self.outcomes}))
