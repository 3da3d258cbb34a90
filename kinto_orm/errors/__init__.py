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

from kinto_orm.errors.conflict import (
    CommitError,
    ConflictError,
    FeedLostError,
    MergeConflict,
    Resolution,
    Undoing,
    VerificationError,
)
from kinto_orm.errors.response import (
    AmbiguousWriteError,
    BackoffError,
    BadRequestError,
    ConcurrentWriteError,
    ConnectionFailedError,
    ConnectionLostError,
    DeadlineError,
    FieldError,
    ForbiddenError,
    LoginFailedError,
    MethodNotAllowedError,
    NotFoundError,
    ProtocolError,
    RedirectError,
    ResponseError,
    ResponseTooLargeError,
    SchemaValidationError,
    ServerError,
    ServiceGoneError,
    TransportError,
    UnauthorizedError,
)
from kinto_orm.errors.usage import (
    AlertWarning,
    AtomicityUnavailableError,
    BatchTooLargeError,
    CapabilityMissingError,
    ClientClosedError,
    ConfigurationError,
    CredentialsMissingError,
    DeletedObjectError,
    DryRunError,
    DuplicateKeyError,
    DuplicateObjectError,
    EmptySourceError,
    GuardError,
    HistoryIncompleteError,
    InvalidFilterError,
    InvalidIdError,
    InvalidInputError,
    InvalidPermissionError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    LockError,
    MirrorFileError,
    MissingExtraError,
    MultipleObjectsError,
    NestedUnitError,
    NotBoundError,
    NotLoadedError,
    NotStageableError,
    OfflineError,
    PartialObjectError,
    PermissionsUnknownError,
    PrincipalWarning,
    ReadOnlyError,
    ReviewError,
    RolledBackError,
    SchemaDiffersError,
    SchemaViolationsError,
    ServerResetError,
    StalePlanError,
    TooManyDeletesError,
    UnitClosedError,
    UnitOfWorkError,
    UnsavedChangesError,
    UsageError,
)

__all__ = [
    "AlertWarning",
    "AmbiguousWriteError",
    "AtomicityUnavailableError",
    "BackoffError",
    "BadRequestError",
    "BatchTooLargeError",
    "CapabilityMissingError",
    "ClientClosedError",
    "CommitError",
    "ConcurrentWriteError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionFailedError",
    "ConnectionLostError",
    "CredentialsMissingError",
    "DeadlineError",
    "DeletedObjectError",
    "DryRunError",
    "DuplicateKeyError",
    "DuplicateObjectError",
    "EmptySourceError",
    "FeedLostError",
    "FieldError",
    "ForbiddenError",
    "GuardError",
    "HistoryIncompleteError",
    "InvalidFilterError",
    "InvalidIdError",
    "InvalidInputError",
    "InvalidPermissionError",
    "InvalidTypeError",
    "InvalidValueError",
    "KintoError",
    "LockError",
    "LoginFailedError",
    "MergeConflict",
    "MethodNotAllowedError",
    "MirrorFileError",
    "MissingExtraError",
    "MultipleObjectsError",
    "NestedUnitError",
    "NotBoundError",
    "NotFoundError",
    "NotLoadedError",
    "NotStageableError",
    "OfflineError",
    "PartialObjectError",
    "PermissionsUnknownError",
    "PrincipalWarning",
    "ProtocolError",
    "ReadOnlyError",
    "RedirectError",
    "Resolution",
    "ResponseError",
    "ResponseTooLargeError",
    "ReviewError",
    "RolledBackError",
    "SchemaDiffersError",
    "SchemaValidationError",
    "SchemaViolationsError",
    "ServerError",
    "ServerResetError",
    "ServiceGoneError",
    "StalePlanError",
    "TooManyDeletesError",
    "TransportError",
    "UnauthorizedError",
    "Undoing",
    "UnitClosedError",
    "UnitOfWorkError",
    "UnsavedChangesError",
    "UsageError",
    "VerificationError",
]

# Tracebacks and pickles name the public place.
for _name in __all__:
    globals()[_name].__module__ = __name__
