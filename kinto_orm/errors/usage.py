"""The root of all errors, and what is wrong with a call before anything is sent."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class KintoError(Exception):
    """Root of every error that kinto_orm raises."""


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


class CapabilityMissingError(UsageError):
    """The server does not advertise what the call rests on: a plugin or a setting is missing there."""


class ReviewError(UsageError):
    """The collection is in no state for that step of its review, or under none; nothing was sent."""


class HistoryIncompleteError(UsageError, LookupError):
    """The server's history does not hold, or not any more, what was asked for."""


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


class AtomicityUnavailableError(UnitOfWorkError):
    """The server does not have the capability ``atomic_batch``; nothing was sent."""


class RolledBackError(UnitOfWorkError):
    """The server undid the write, because another one of the same atomic unit was refused."""


class LockError(UnitOfWorkError):
    """The write was stored without the lock that was asked for."""


class MultipleObjectsError(KintoError, LookupError):
    """``one()`` found more than one object."""


def rebuild(cls: type[KintoError], args: tuple[Any, ...], attributes: Mapping[str, Any]) -> KintoError:
    """The error out of its pickle: ``Exception`` itself would call the class with the message alone."""
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


_HERE = str(Path(__file__).parents[1])


def warn_user(message: str, category: type[Warning]) -> None:
    """Warns, naming the first line up the stack that is not ours."""
    frame = inspect.currentframe()
    level = 0
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level + 1)


class AlertWarning(DeprecationWarning):
    """The server says by its header ``Alert`` that it, or what was used of it, will end.

    https://docs.kinto-storage.org/en/stable/api/1.x/deprecation.html
    """


class PrincipalWarning(UserWarning):
    """The principal is of a form that matches nobody: Kinto takes it, and nobody gets the permission."""
