"""The root of all errors, and the errors of calls that are refused before anything is sent."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class KintoError(Exception):
    """Root of every error that kinto_orm raises."""


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

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (type(self), self.args, {"violations": self.violations}))


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

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (type(self), self.args, vars(self)))


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


def rebuild(cls: type[KintoError], args: tuple[Any, ...], attributes: Mapping[str, Any]) -> KintoError:
    """Return the error from its pickle.

    ``Exception`` itself would call the class with the message alone.
    """
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


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
