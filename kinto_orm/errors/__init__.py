"""Every exception of kinto_orm.

::

    KintoError
    ├── InvalidInputError (ValueError)         refused before anything was sent
    │   ├── ConfigurationError                 a client option that cannot work
    │   ├── InvalidIdError                     an id that Kinto would refuse or read differently
    │   ├── InvalidValueError                  data that JSON or Kinto cannot carry, with the path of the field
    │   ├── DuplicateKeyError                  two rows of a job have the same key
    │   ├── InvalidPermissionError             an unknown permission name, or a malformed principal
    │   └── InvalidFilterError                 a filter that Kinto would refuse or silently ignore
    ├── InvalidTypeError (TypeError)           the wrong kind of Python object
    ├── UsageError                             the right call at the wrong moment
    │   ├── NotBoundError (LookupError)        no client, no bucket or no collection to work on
    │   ├── NotLoadedError                     the object is only a reference: its data was never read
    │   ├── PartialObjectError                 the object holds only some of its fields
    │   ├── DeletedObjectError                 the object is a tombstone
    │   ├── UnsavedChangesError                the call would drop local changes
    │   ├── PermissionsUnknownError (LookupError)   the server has not shown the permissions
    │   ├── ReadOnlyError (AttributeError)     an attribute that only the server sets
    │   ├── ClientClosedError                  the client was closed
    │   ├── CredentialsMissingError            a client from a pickle was used without ``clone(auth=...)``
    │   ├── DryRunError                        a call that cannot be simulated by ``dry_mode``
    │   ├── CapabilityMissingError             the server lacks a plugin, or a setting
    │   ├── ReviewError                        the review of the collection is not ready for that step
    │   ├── SchemaDiffersError                 the collection has another JSON schema than the model
    │   ├── SchemaViolationsError              records violate the JSON schema that was to be stored
    │   ├── MissingExtraError (ImportError)    an optional dependency is not installed
    │   ├── HistoryIncompleteError (LookupError)    the server's history does not reach back that far
    │   ├── GuardError                         a guard of a job refused it before the first write
    │   │   ├── EmptySourceError               an empty source would delete all records
    │   │   ├── TooManyDeletesError            more deletions than ``max_deletes``
    │   │   └── StalePlanError                 the collection changed since the plan was made
    │   ├── OfflineError                       a mirror answers from its file, which does not have it
    │   ├── MirrorFileError                    the file of a mirror cannot be used
    │   ├── ServerResetError                   the server lost records that a mirror had from it
    │   └── UnitOfWorkError
    │       ├── NotStageableError              the call cannot be part of a unit of work
    │       ├── UnitClosedError                the unit was already left
    │       ├── NestedUnitError                a unit of this client is already open
    │       ├── DuplicateObjectError           two Python objects for one path
    │       ├── BatchTooLargeError             more operations than the server takes in one batch
    │       ├── AtomicityUnavailableError      the server cannot store all or nothing
    │       ├── RolledBackError                undone, because another write of the atomic unit was refused
    │       └── LockError                      stored, but without the requested lock
    ├── TransportError                         no answer arrived
    │   ├── ConnectionFailedError              nothing was sent: refused, no such host, TLS
    │   │   └── LoginFailedError               nothing was sent: there are no credentials to send it with
    │   ├── BackoffError                       nothing was sent: the server asks for a pause
    │   └── ConnectionLostError                the request was sent: the server may have applied it
    │       ├── DeadlineError (TimeoutError)   the answer took too long
    │       └── AmbiguousWriteError            sent again, and the answer does not say whose write it found
    ├── ProtocolError                          the answer is not one that Kinto sends
    │   └── ResponseTooLargeError
    ├── ResponseError                          the server refused the request
    │   ├── RedirectError                      3xx: never followed
    │   ├── BadRequestError                    400
    │   │   └── SchemaValidationError          a JSON schema refused the object
    │   ├── UnauthorizedError                  401
    │   ├── ForbiddenError                     403
    │   ├── NotFoundError (LookupError)        404
    │   ├── MethodNotAllowedError              405
    │   ├── ConcurrentWriteError               409
    │   ├── ServiceGoneError                   410
    │   ├── ConflictError                      412: another client changed the object
    │   │   └── MergeConflict                  both sides changed the same fields
    │   └── ServerError                        5xx
    ├── MultipleObjectsError (LookupError)     ``one()`` found several objects
    ├── CommitError                            some writes of a batch were not stored
    ├── VerificationError                      the server has something else than what was loaded
    └── FeedLostError (LookupError)            the token of a change feed no longer fits the list

    AlertWarning (DeprecationWarning)          the server announces the end of itself or of a feature
    PrincipalWarning (UserWarning)             a principal that matches no user

Error codes: https://docs.kinto-storage.org/en/stable/api/1.x/errors.html
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast


class KintoError(Exception):
    """Root of every error that kinto_orm raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own __reduce__ calls the class with the message: it does not know the keyword-only arguments.
        _, _, *state = cast(tuple[Any, ...], super().__reduce__())
        attributes = state[0] if state else {}
        return _rebuild, (type(self), self.args), attributes | dict.fromkeys(_WAYS_OUT & attributes.keys())


def _rebuild(cls: type[KintoError], args: tuple[Any, ...]) -> KintoError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error


_WAYS_OUT = frozenset({"resolution", "undoing", "restart"})
"""Attributes that rest on a client, which is in no pickle."""


class InvalidInputError(KintoError, ValueError):
    """The input was refused before anything was sent."""


class ConfigurationError(InvalidInputError):
    """An option of the client cannot work."""


class InvalidIdError(InvalidInputError):
    """Kinto would not accept the id; ids are validated, never rewritten."""


class InvalidValueError(InvalidInputError):
    """JSON and Kinto cannot carry the data unchanged."""


class InvalidPermissionError(InvalidInputError):
    """The permission name is unknown for this kind of object, or a principal is malformed."""


class DuplicateKeyError(InvalidInputError):
    """Two rows have the same key, so that which one is meant cannot be known; nothing was written."""


class InvalidFilterError(InvalidInputError):
    """The server would refuse the filter, or silently ignore it."""


class InvalidTypeError(KintoError, TypeError):
    """The argument is of a type that the call does not take."""


class UsageError(KintoError):
    """The call is valid, but not now or not on this object."""


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
    """The client was unpickled, and pickles hold no credentials."""


class DryRunError(UsageError):
    """The call depends on the answer to a write, which ``dry_mode`` does not send."""


class MissingExtraError(UsageError, ImportError):
    """An optional dependency is not installed."""


class CapabilityMissingError(UsageError):
    """The server lacks a plugin or a setting that the call needs."""


class ReviewError(UsageError):
    """The collection is under no review, or its review is in another state; nothing was sent."""


class SchemaDiffersError(UsageError):
    """The collection has another JSON schema than the model, or none and records; nothing was sent."""


class SchemaViolationsError(UsageError):
    """Records violate the JSON schema that was to be stored; nothing was sent.

    ``violations`` has one entry for each field, with ``id``, ``loc`` and ``msg``.
    """

    def __init__(self, message: str, violations: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


class HistoryIncompleteError(UsageError, LookupError):
    """The server's history does not hold the requested version, or no longer does."""


class GuardError(UsageError):
    """A guard refused the job before anything was written."""


class EmptySourceError(GuardError):
    """The source is empty, and to make a collection equal to it would delete all records."""


class TooManyDeletesError(GuardError):
    """The job would delete more records than ``max_deletes`` allows."""


class StalePlanError(GuardError):
    """Another client changed the collection since the plan was made."""


class OfflineError(UsageError):
    """The mirror answers from its file, and does not have what was asked for. Ask the client of the server."""


class MirrorFileError(UsageError):
    """The file of a mirror cannot be used: it is none, or another server's, damaged, or cannot be written."""


class ServerResetError(UsageError):
    """The server lost records that a mirror had from it: it was emptied, or the collection was made again.

    Nothing was changed. ``sync(on_reset="pull")`` takes what is there now and keeps what was changed here;
    ``on_reset="push"`` creates all records again.
    """

    collection: str
    missing: int
    """The number of records that the server had and has no more."""
    kept: int
    """The number of records of the mirror that the server lacks as they are there."""
    result: Any
    """The effects of the sync on other collections."""

    def __init__(self, message: str, *, collection: str = "", missing: int = 0, kept: int = 0) -> None:
        super().__init__(message)
        self.collection, self.missing, self.kept, self.result = collection, missing, kept, None


class UnitOfWorkError(UsageError):
    """The unit of work cannot take this call."""


class NotStageableError(UnitOfWorkError):
    """The call cannot be part of a unit of work."""


class UnitClosedError(UnitOfWorkError):
    """The unit of work was already left."""


class NestedUnitError(UnitOfWorkError):
    """A unit of work of this client is already open."""


class DuplicateObjectError(UnitOfWorkError):
    """Another Python object with the same path is already staged."""


class BatchTooLargeError(UnitOfWorkError):
    """More operations are staged than the server takes in one batch."""


class AtomicityUnavailableError(UnitOfWorkError):
    """The server does not have the capability ``atomic_batch``; nothing was sent."""


class RolledBackError(UnitOfWorkError):
    """The server undid the write, because it refused another write of the same atomic unit."""


class LockError(UnitOfWorkError):
    """The write was stored without the requested lock."""


class MultipleObjectsError(KintoError, LookupError):
    """``one()`` found more than one object."""


# -- requests: no answer came, the answer is not from a Kinto, or the server refused

BODY_EXCERPT = 500
PROTOCOL_MESSAGE = 600


class TransportError(KintoError):
    """No answer arrived."""


class ConnectionFailedError(TransportError):
    """No connection was made and nothing was sent, so sending again is always safe."""


class LoginFailedError(ConnectionFailedError):
    """Nothing was sent: the auth object got no credentials from its login server."""


class BackoffError(TransportError):
    """Nothing was sent: the server asks for a pause that the call may not take.

    ``retry_after`` is the rest of the pause, in seconds.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConnectionLostError(TransportError):
    """The answer was lost: the server may or may not have applied the request."""


class DeadlineError(ConnectionLostError, TimeoutError):
    """The answer did not arrive in time: the server may or may not have applied the request."""


class AmbiguousWriteError(ConnectionLostError):
    """A write whose answer was lost was sent again; the new answer does not say whether the first one was applied.

    The new answer is the cause of this error.
    """


class ProtocolError(KintoError):
    """The answer is not one that a Kinto server sends.

    The message has less than 600 characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) < PROTOCOL_MESSAGE else f"{message[: PROTOCOL_MESSAGE - 2]}…")


class ResponseTooLargeError(ProtocolError):
    """The answer is larger than ``max_response_bytes``."""


class ResponseError(KintoError):
    """The server answered and refused the request.

    ``status`` is the HTTP status, ``errno`` Kinto's error number, ``details`` Kinto's explanation, ``body`` the
    beginning of the answer (at most 500 characters).
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


class RedirectError(ResponseError):
    """3xx: redirects are never followed, because a redirected write is a lost write."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error of one field, with the names that pydantic uses."""

    loc: tuple[str | int, ...]
    """The path of the field, by wire names and positions; empty where Kinto names none."""
    msg: str
    location: str = "body"
    """The part of the request: ``body``, ``querystring``, ``path`` or ``header``."""

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.loc)) or self.location}: {self.msg}"


class BadRequestError(ResponseError):
    """400, or another refusal of the request's content.

    ``errors`` has one entry for each field that Kinto names, by Kinto's names: ``("data", "members", 0)``, or
    ``("_limit",)`` of the query string.
    """

    errors: tuple[FieldError, ...] = ()


class SchemaValidationError(BadRequestError):
    """400: the JSON schema of the collection, or of the bucket, refused the object; nothing was stored.

    ``errors`` has Kinto's entry for the first value that does not fit, with its path in the data: ``("address",
    "zip")``. Kinto names only the end of the path. The client finds the rest in the data that it sent, where only one
    field fits.
    https://docs.kinto-storage.org/en/stable/api/1.x/collections.html#collection-json-schema
    """


class UnauthorizedError(ResponseError):
    """401: no credentials, or wrong ones."""


class ForbiddenError(ResponseError):
    """403: not allowed, or a bucket that does not exist (Kinto does not tell them apart)."""


class NotFoundError(ResponseError, LookupError):
    """404: no such object."""


class MethodNotAllowedError(ResponseError):
    """405: also the answer of a read-only server to writes."""


class ConcurrentWriteError(ResponseError):
    """409: two clients wrote at the same moment. Nothing was stored; the call may be repeated."""


class ServiceGoneError(ResponseError):
    """410: the service was shut down for good."""


class ServerError(ResponseError):
    """5xx: the server failed."""


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
        if self.resolution is None:
            raise UsageError("This conflict comes from another process or was made by hand: load the object again.")
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
        if self.undoing is None:
            raise UsageError("Only an error that a unit of work raised in this process can be compensated.")
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
        if self.restart is None:
            raise UsageError("This error came from another process: call records.changes(), without a token.")
        return self.restart(known)


class VerificationError(KintoError):
    """All was stored, and yet the server has something else than what was loaded: another client was at work."""


_HERE = str(Path(__file__).parents[1])


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn, at the first line up the stack that is outside this package."""
    frame = inspect.currentframe()
    level = 0
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level + 1)


class AlertWarning(DeprecationWarning):
    """The server announces, in its ``Alert`` header, the end of itself or of a feature that was used.

    https://docs.kinto-storage.org/en/stable/api/1.x/deprecation.html
    """


class PrincipalWarning(UserWarning):
    """The principal has a form that matches no user: Kinto takes it, but it grants nothing."""
