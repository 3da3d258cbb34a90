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

import importlib
import typing

from kinto_orm.client import Client
from kinto_orm.client.admin import Heartbeat
from kinto_orm.errors import (
    AlertWarning,
    AmbiguousWriteError,
    AtomicityUnavailableError,
    BackoffError,
    BadRequestError,
    BatchTooLargeError,
    CapabilityMissingError,
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
    DuplicateKeyError,
    DuplicateObjectError,
    EmptySourceError,
    FeedLostError,
    FieldError,
    ForbiddenError,
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
    LoginFailedError,
    MergeConflict,
    MethodNotAllowedError,
    MirrorFileError,
    MissingExtraError,
    MultipleObjectsError,
    NestedUnitError,
    NotBoundError,
    NotFoundError,
    NotLoadedError,
    NotStageableError,
    OfflineError,
    PartialObjectError,
    PermissionsUnknownError,
    PrincipalWarning,
    ProtocolError,
    ReadOnlyError,
    RedirectError,
    ResponseError,
    ResponseTooLargeError,
    ReviewError,
    RolledBackError,
    SchemaDiffersError,
    SchemaValidationError,
    SchemaViolationsError,
    ServerError,
    ServerResetError,
    ServiceGoneError,
    StalePlanError,
    TooManyDeletesError,
    TransportError,
    UnauthorizedError,
    UnitClosedError,
    UnitOfWorkError,
    UnsavedChangesError,
    UsageError,
    VerificationError,
)
from kinto_orm.jobs.applying import SyncReport
from kinto_orm.jobs.changes import ChangeFeed, FeedChange, Watch
from kinto_orm.jobs.comparing import PlannedChange
from kinto_orm.jobs.dump import DumpReport
from kinto_orm.jobs.load import LoadReport
from kinto_orm.jobs.plans import SyncPlan
from kinto_orm.jobs.publication import Publication
from kinto_orm.jobs.schemas import SchemaDiff, Violation
from kinto_orm.models.expressions import F
from kinto_orm.models.field_types import OrderedText
from kinto_orm.models.kinds import Account, Bucket, Collection, Group, Record
from kinto_orm.models.managers import Manager, RecordManager
from kinto_orm.models.permissions import Permissions
from kinto_orm.plugins.changesets import Changeset
from kinto_orm.plugins.history import Snapshot
from kinto_orm.protocol.attachments import Attachment
from kinto_orm.protocol.entries import HistoryEntry, PermissionEntry
from kinto_orm.protocol.json_values import MISSING
from kinto_orm.protocol.patches import BasicPatch, JSONPatch, MergePatch
from kinto_orm.protocol.responses import StoredObject
from kinto_orm.protocol.reviews import ReviewStatus
from kinto_orm.query.cached import CachedQuery
from kinto_orm.query.entry_query import EntryQuery, History
from kinto_orm.query.execution import Page
from kinto_orm.query.gather import Deferred, Gathering
from kinto_orm.query.query import ParallelQuery, Partition, Query
from kinto_orm.repository.state import Outcome
from kinto_orm.transport.auth import BearerTokenAuth
from kinto_orm.transport.reporting import RequestEvent, ResponseEvent, RetryEvent
from kinto_orm.unit_of_work.bulk import BulkReport
from kinto_orm.unit_of_work.staging import Plan, PlannedWrite
from kinto_orm.unit_of_work.unit_of_work import UnitOfWork

if typing.TYPE_CHECKING:
    from kinto_orm.transport.browser import BrowserOAuth
    from kinto_orm.transport.fxa import FxaAuth

_AT_FIRST_USE = {"BrowserOAuth": "kinto_orm.transport.browser", "FxaAuth": "kinto_orm.transport.fxa"}
"""Rare names, and the modules that are imported when they are first asked for."""

__all__ = [
    "MISSING",
    "Account",
    "AlertWarning",
    "AmbiguousWriteError",
    "AtomicityUnavailableError",
    "Attachment",
    "BackoffError",
    "BadRequestError",
    "BasicPatch",
    "BatchTooLargeError",
    "BearerTokenAuth",
    "BrowserOAuth",
    "Bucket",
    "BulkReport",
    "CachedQuery",
    "CapabilityMissingError",
    "ChangeFeed",
    "Changeset",
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
    "Deferred",
    "DeletedObjectError",
    "DryRunError",
    "DumpReport",
    "DuplicateKeyError",
    "DuplicateObjectError",
    "EmptySourceError",
    "EntryQuery",
    "F",
    "FeedChange",
    "FeedLostError",
    "FieldError",
    "ForbiddenError",
    "FxaAuth",
    "Gathering",
    "Group",
    "GuardError",
    "Heartbeat",
    "History",
    "HistoryEntry",
    "HistoryIncompleteError",
    "InvalidFilterError",
    "InvalidIdError",
    "InvalidInputError",
    "InvalidPermissionError",
    "InvalidTypeError",
    "InvalidValueError",
    "JSONPatch",
    "KintoError",
    "LoadReport",
    "LockError",
    "LoginFailedError",
    "Manager",
    "MergeConflict",
    "MergePatch",
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
    "OrderedText",
    "Outcome",
    "Page",
    "ParallelQuery",
    "PartialObjectError",
    "Partition",
    "PermissionEntry",
    "Permissions",
    "PermissionsUnknownError",
    "Plan",
    "PlannedChange",
    "PlannedWrite",
    "PrincipalWarning",
    "ProtocolError",
    "Publication",
    "Query",
    "ReadOnlyError",
    "Record",
    "RecordManager",
    "RedirectError",
    "RequestEvent",
    "ResponseError",
    "ResponseEvent",
    "ResponseTooLargeError",
    "RetryEvent",
    "ReviewError",
    "ReviewStatus",
    "RolledBackError",
    "SchemaDiff",
    "SchemaDiffersError",
    "SchemaValidationError",
    "SchemaViolationsError",
    "ServerError",
    "ServerResetError",
    "ServiceGoneError",
    "Snapshot",
    "StalePlanError",
    "StoredObject",
    "SyncPlan",
    "SyncReport",
    "TooManyDeletesError",
    "TransportError",
    "UnauthorizedError",
    "UnitClosedError",
    "UnitOfWork",
    "UnitOfWorkError",
    "UnsavedChangesError",
    "UsageError",
    "VerificationError",
    "Violation",
    "Watch",
]


def __getattr__(name: str) -> object:
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(_AT_FIRST_USE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
