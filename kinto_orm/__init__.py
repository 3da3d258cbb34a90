"""An ORM for Kinto: buckets, groups, collections and records as pydantic models.

::

    from kinto_orm import Client, Record

    class Todo(Record, collection="todos"):
        title: str
        done: bool = False

    with Client("http://localhost:8888/v1", auth=("alexis", "p4ssw0rd")):
        todo = Todo(title="Buy milk").save()

https://docs.kinto-storage.org
"""

from kinto_orm.client import Client
from kinto_orm.errors import (
    AmbiguousWriteError,
    BackoffError,
    BadRequestError,
    BatchTooLargeError,
    ClientClosedError,
    CommitError,
    ConcurrentWriteError,
    ConfigurationError,
    ConflictError,
    ConnectionFailedError,
    ConnectionLostError,
    CredentialsMissingError,
    DeadlineError,
    DeletedObjectError,
    DryRunError,
    DuplicateObjectError,
    ForbiddenError,
    InvalidFilterError,
    InvalidIdError,
    InvalidInputError,
    InvalidPermissionError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    MethodNotAllowedError,
    MissingExtraError,
    MultipleObjectsError,
    NestedUnitError,
    NotBoundError,
    NotFoundError,
    NotLoadedError,
    NotStageableError,
    PartialObjectError,
    PermissionsUnknownError,
    ProtocolError,
    ReadOnlyError,
    RedirectError,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
    ServiceGoneError,
    TransportError,
    UnauthorizedError,
    UnitClosedError,
    UnitOfWorkError,
    UnsavedChangesError,
    UsageError,
)
from kinto_orm.models import Bucket, Collection, F, Group, Manager, Permissions, Record
from kinto_orm.outcomes import BulkReport, Outcome
from kinto_orm.protocol.patches import BasicPatch, JSONPatch, MergePatch
from kinto_orm.query import Page, Query
from kinto_orm.transport import BearerTokenAuth, RequestEvent, ResponseEvent, RetryEvent
from kinto_orm.unit_of_work import UnitOfWork

__all__ = [
    "AmbiguousWriteError",
    "BackoffError",
    "BadRequestError",
    "BasicPatch",
    "BatchTooLargeError",
    "BearerTokenAuth",
    "Bucket",
    "BulkReport",
    "Client",
    "ClientClosedError",
    "Collection",
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
    "DuplicateObjectError",
    "F",
    "ForbiddenError",
    "Group",
    "InvalidFilterError",
    "InvalidIdError",
    "InvalidInputError",
    "InvalidPermissionError",
    "InvalidTypeError",
    "InvalidValueError",
    "JSONPatch",
    "KintoError",
    "Manager",
    "MergePatch",
    "MethodNotAllowedError",
    "MissingExtraError",
    "MultipleObjectsError",
    "NestedUnitError",
    "NotBoundError",
    "NotFoundError",
    "NotLoadedError",
    "NotStageableError",
    "Outcome",
    "Page",
    "PartialObjectError",
    "Permissions",
    "PermissionsUnknownError",
    "ProtocolError",
    "Query",
    "ReadOnlyError",
    "Record",
    "RedirectError",
    "RequestEvent",
    "ResponseError",
    "ResponseEvent",
    "ResponseTooLargeError",
    "RetryEvent",
    "ServerError",
    "ServiceGoneError",
    "TransportError",
    "UnauthorizedError",
    "UnitClosedError",
    "UnitOfWork",
    "UnitOfWorkError",
    "UnsavedChangesError",
    "UsageError",
]
