"""Every exception of kinto_orm.

::

    KintoError
    ├── InvalidInputError (ValueError)         refused before anything was sent
    │   ├── ConfigurationError                 a client option that cannot work
    │   ├── InvalidIdError                     an id that Kinto would refuse, or worse, understand differently
    │   ├── InvalidValueError                  data that JSON or Kinto cannot carry, with the path of the field
    │   ├── InvalidPermissionError             a permission name or a principal that is none
    │   └── InvalidFilterError                 a filter that Kinto would refuse or silently ignore
    ├── InvalidTypeError (TypeError)           the wrong kind of Python object
    ├── UsageError                             the right call at the wrong moment
    │   ├── NotBoundError (LookupError)        no client, no bucket or no collection to work on
    │   ├── NotLoadedError                     the object is only a reference: its data was never read
    │   ├── PartialObjectError                 the object holds some of its fields only
    │   ├── DeletedObjectError                 the object is a tombstone
    │   ├── UnsavedChangesError                the call would drop local changes
    │   ├── PermissionsUnknownError (LookupError)   the server has not shown the permissions
    │   ├── ReadOnlyError (AttributeError)     an attribute that only the server sets
    │   ├── ClientClosedError                  the client was closed
    │   ├── CredentialsMissingError            a client that was pickled, used without ``clone(auth=...)``
    │   ├── DryRunError                        a call that cannot be simulated by ``dry_mode``
    │   ├── MissingExtraError (ImportError)    an optional dependency is not installed
    │   └── UnitOfWorkError
    │       ├── NotStageableError              the call cannot be part of a unit of work
    │       ├── UnitClosedError                the unit was already left
    │       ├── NestedUnitError                a unit of this client is already open
    │       ├── DuplicateObjectError           two Python objects for one path
    │       └── BatchTooLargeError             more operations than the server takes in one batch
    ├── TransportError                         no answer came
    │   ├── ConnectionFailedError              nothing was sent: refused, no such host, TLS
    │   ├── BackoffError                       nothing was sent: the server asks for a pause
    │   └── ConnectionLostError                something was sent: the server may have applied it
    │       ├── DeadlineError (TimeoutError)   the answer took too long
    │       └── AmbiguousWriteError            sent again, and the answer does not tell whose write it found
    ├── ProtocolError                          an answer came that no Kinto gives
    │   └── ResponseTooLargeError
    ├── ResponseError                          an answer came and said no
    │   ├── RedirectError                      3xx: never followed
    │   ├── BadRequestError                    400
    │   ├── UnauthorizedError                  401
    │   ├── ForbiddenError                     403
    │   ├── NotFoundError (LookupError)        404
    │   ├── MethodNotAllowedError              405
    │   ├── ConcurrentWriteError               409
    │   ├── ServiceGoneError                   410
    │   ├── ConflictError                      412: somebody else changed the object
    │   └── ServerError                        5xx
    ├── MultipleObjectsError (LookupError)     ``one()`` found more than one
    └── CommitError                            some writes of a batch were not stored

    AlertWarning (DeprecationWarning)          the server says that it, or something that was used, will end
    PrincipalWarning (UserWarning)             a principal that no server of Kinto's own makes

Error codes: https://docs.kinto-storage.org/en/stable/api/1.x/errors.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

BODY_EXCERPT = 500
PROTOCOL_MESSAGE = 600


class KintoError(Exception):
    """Root of every error that kinto_orm raises."""


class AlertWarning(DeprecationWarning):
    """The server says by its header ``Alert`` that it, or what was used of it, will end.

    https://docs.kinto-storage.org/en/stable/api/1.x/deprecation.html
    """


class PrincipalWarning(UserWarning):
    """The principal is of a form that matches nobody: Kinto takes it, and gives nobody the permission."""


class InvalidInputError(KintoError, ValueError):
    """The input was refused before anything was sent."""


class ConfigurationError(InvalidInputError):
    """An option of the client cannot work."""


class InvalidIdError(InvalidInputError):
    """The id is none that Kinto accepts; ids are validated, never rewritten."""


class InvalidValueError(InvalidInputError):
    """The data cannot be carried unchanged by JSON and Kinto."""


class InvalidPermissionError(InvalidInputError):
    """The permission name is unknown for this kind of object, or the principals are none."""


class InvalidFilterError(InvalidInputError):
    """The filter would be refused, or silently ignored, by the server."""


class InvalidTypeError(KintoError, TypeError):
    """The argument is of a type that the call does not take."""


class UsageError(KintoError):
    """The call is right but not now, or not on this object."""


class NotBoundError(UsageError, LookupError):
    """No client, bucket or collection is known for the object."""


class NotLoadedError(UsageError):
    """The object is a reference whose data was never read."""


class PartialObjectError(UsageError):
    """The object holds only the fields that ``only()`` asked for."""


class DeletedObjectError(UsageError):
    """The object was deleted."""


class UnsavedChangesError(UsageError):
    """The call would drop local changes."""


class PermissionsUnknownError(UsageError, LookupError):
    """The server has not shown the permissions of this object."""


class ReadOnlyError(UsageError, AttributeError):
    """Only the server sets this attribute."""


class ClientClosedError(UsageError):
    """The client was closed."""


class CredentialsMissingError(UsageError):
    """The client came out of a pickle, which holds no credentials."""


class DryRunError(UsageError):
    """The call depends on the answer to a write, which ``dry_mode`` does not send."""


class MissingExtraError(UsageError, ImportError):
    """An optional dependency is not installed."""


class UnitOfWorkError(UsageError):
    """The unit of work cannot take this call."""


class NotStageableError(UnitOfWorkError):
    """The call cannot be part of a unit of work."""


class UnitClosedError(UnitOfWorkError):
    """The unit of work was already left."""


class NestedUnitError(UnitOfWorkError):
    """A unit of work of this client is already open."""


class DuplicateObjectError(UnitOfWorkError):
    """Another Python object of the same path is already staged."""


class BatchTooLargeError(UnitOfWorkError):
    """More operations are staged than the server takes in one batch."""


class TransportError(KintoError):
    """No answer came."""


class ConnectionFailedError(TransportError):
    """No connection: nothing was sent, so sending again is always safe."""


class BackoffError(TransportError):
    """Nothing was sent: the server asks for a pause, of ``retry_after`` more seconds, which the call may not take."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, {"retry_after": self.retry_after}))


class ConnectionLostError(TransportError):
    """The answer got lost: the server may or may not have applied the request."""


class DeadlineError(ConnectionLostError, TimeoutError):
    """The answer did not come in time: the server may or may not have applied the request."""


class AmbiguousWriteError(ConnectionLostError):
    """A write whose answer got lost was sent again, and its answer does not tell whether the first one was applied.

    What came instead is the cause of this error.
    """


class ProtocolError(KintoError):
    """The answer is none that a Kinto server gives. The message has less than 600 characters."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) < PROTOCOL_MESSAGE else f"{message[: PROTOCOL_MESSAGE - 2]}…")


class ResponseTooLargeError(ProtocolError):
    """The answer is larger than ``max_response_bytes``."""


class ResponseError(KintoError):
    """The server answered, and said no.

    ``status`` is the HTTP status, ``errno`` Kinto's own number, ``details`` what Kinto says in detail,
    ``body`` the beginning of the answer (at most 500 characters).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        method: str = "",
        path: str = "",
        errno: int | None = None,
        details: Any = None,
        body: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.method = method
        self.path = path
        self.errno = errno
        self.details = details
        self.body = body[:BODY_EXCERPT]
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own __reduce__ calls cls(message): it does not know the keyword-only arguments.
        return (_rebuild, (type(self), self.args, {k: v for k, v in vars(self).items() if k != "resolution"}))


def _rebuild(cls: type[KintoError], args: tuple[Any, ...], attributes: Mapping[str, Any]) -> KintoError:
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


class RedirectError(ResponseError):
    """3xx: redirects are never followed, because a redirected write is a lost write."""


class BadRequestError(ResponseError):
    """400 and the other refusals of what was sent."""


class UnauthorizedError(ResponseError):
    """401: no credentials, or wrong ones."""


class ForbiddenError(ResponseError):
    """403: not allowed, or a bucket that does not exist (Kinto does not tell them apart)."""


class NotFoundError(ResponseError, LookupError):
    """404: no such object."""


class MethodNotAllowedError(ResponseError):
    """405: also what a read-only server answers to writes."""


class ConcurrentWriteError(ResponseError):
    """409: two writers at the same moment; nothing was stored, the call may be repeated."""


class ServiceGoneError(ResponseError):
    """410: the service was shut down for good."""


class ServerError(ResponseError):
    """5xx: the server failed."""


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


class MultipleObjectsError(KintoError, LookupError):
    """``one()`` found more than one object."""


class CommitError(KintoError):
    """Some writes of a batch were not stored; the others were.

    ``outcomes`` has one entry for each staged object, in staging order.
    """

    def __init__(self, message: str, outcomes: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.outcomes = tuple(outcomes)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, {"outcomes": self.outcomes}))
