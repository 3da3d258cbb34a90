"""The kinds of objects: Bucket, Group, Collection, Record; ``account.py`` has the users.

https://docs.kinto-storage.org/en/stable/concepts.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Self, overload
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr
from typing_extensions import TypeVar

from kinto_orm.errors import InvalidTypeError, NotBoundError, UsageError
from kinto_orm.jobs.dump import DumpReport, dump
from kinto_orm.jobs.load import LoadOptions, LoadReport, PermissionMode, Principals, Target, copy
from kinto_orm.jobs.model_source import model_source
from kinto_orm.jobs.publication import Publication, ReviewFlows
from kinto_orm.jobs.schemas import SchemaDiff, SchemaSource, compare_schema, prepare_schema
from kinto_orm.models.codec import codec_of
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.loading import parent_ids, reference
from kinto_orm.models.managers import Manager, RecordManager
from kinto_orm.models.metaclass import Given, Settable, argument
from kinto_orm.models.permissions import member_texts
from kinto_orm.models.rows import ModelRows
from kinto_orm.models.source import record_schema
from kinto_orm.plugins.attachments import attach
from kinto_orm.plugins.changesets import Changeset, changeset_query, read_changeset
from kinto_orm.plugins.reviews import request_review, require_rules, review
from kinto_orm.protocol.json_values import JSONObject, TimestampInput, say_value, to_json_object
from kinto_orm.protocol.paths import Kind, ObjectPath, check_id
from kinto_orm.protocol.reviews import ReviewStatus, ReviewStep, status_of
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.entry_query import History, history_of
from kinto_orm.query.execution import Place
from kinto_orm.repository.disk import FilePath
from kinto_orm.repository.state import FlowRunner, Progress, Status


class Account(KintoObject):
    """A user, known by ``id`` (a name, or an e-mail address) and password: ``Account(id="alexis", password="…")``.

    The password can be set and saved, and does not show: not in ``data``, a dump, a pickle or a log. The server's hash
    of it is taken out of each answer, so ``password`` is ``None`` again once it is saved. Stands for the principal
    ``account:<id>`` in permissions. Its verbs raise ``CapabilityMissingError`` where the server has no accounts.
    https://docs.kinto-storage.org/en/stable/api/1.x/accounts.html
    """

    __kinto_kind__: ClassVar[Kind] = Kind.ACCOUNT

    if TYPE_CHECKING:
        password: Settable[SecretStr | None, SecretStr | str | None] = argument(default=None)
    else:
        password: SecretStr | None = Field(default=None, repr=False)

    def __kinto_principal__(self) -> str:
        return f"account:{self.__kinto_path__().id}"

    def __kinto_path__(self, *, draw: bool = False) -> ObjectPath:
        if self.__dict__["id"] is None:
            raise NotBoundError("This account has no id, and none is drawn for it: construct it with id=….")
        return super().__kinto_path__(draw=draw)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        state["__dict__"] = {**state["__dict__"], "password": None}
        state["__pydantic_fields_set__"] = state["__pydantic_fields_set__"] - {"password"}
        return state


__all__ = ["Bucket", "Collection", "Group", "Record"]


class Bucket(KintoObject):
    """A bucket holds collections and groups.

    https://docs.kinto-storage.org/en/stable/api/1.x/buckets.html
    """

    __kinto_kind__: ClassVar[Kind] = Kind.BUCKET

    @property
    def collections(self) -> Manager[Collection[Record]]:
        """The collections of the bucket."""
        return Manager.__kinto_make__(Collection, parent=self)

    @property
    def groups(self) -> Manager[Group]:
        """The groups of the bucket."""
        return Manager.__kinto_make__(Group, parent=self)

    @property
    def history(self) -> History:
        """The history of the bucket, the newest entry first: a lazy selection of its entries."""
        return history_of(self.collections.__kinto_reading__().source)

    def dump(self, folder: FilePath, *, horizon: float = 10, progress: Progress | None = None) -> DumpReport:
        """Write the bucket into a folder that can be read in git: groups, collections, records, and their files.

        Each collection is dumped in one state: a list that was changed less than ``horizon`` seconds ago is waited for,
        one that is changed while it is read is read again, and one that never rests is named in the report. Into the
        folder of an earlier dump, also of one that was interrupted, only what changed is written.
        Raises ``UsageError`` for a folder that holds something else, ``OSError`` where it cannot be written.
        """
        return self.__kinto_runner__().run(
            dump(self.__kinto_path__(), folder, self.__kinto_runner__(), horizon=horizon, progress=progress)
        )

    async def adump(self, folder: FilePath, *, horizon: float = 10, progress: Progress | None = None) -> DumpReport:
        """Like :meth:`dump`."""
        return await self.__kinto_runner__().arun(
            dump(self.__kinto_path__(), folder, self.__kinto_runner__(), horizon=horizon, progress=progress)
        )

    def copy_to(
        self,
        client: FlowRunner,
        *,
        bucket: str | None = None,
        permissions: PermissionMode = "exact",
        principals: Principals | None = None,
        delete: bool = False,
        max_deletes: int | float = 0.5,
        timestamps: bool = False,
        horizon: float = 10,
        progress: Progress | None = None,
    ) -> LoadReport:
        """Copy the bucket to another server, or under another id: a dump and a load, without the folder.

        The options are those of ``client.load()``, and ``horizon`` is that of :meth:`dump`.
        """
        return self.__kinto_runner__().run(
            copy(
                self.__kinto_path__(),
                self.__kinto_runner__(),
                load_target(client),
                LoadOptions(bucket, permissions, principals, delete, max_deletes, timestamps, progress),
                horizon=horizon,
            )
        )

    async def acopy_to(
        self,
        client: FlowRunner,
        *,
        bucket: str | None = None,
        permissions: PermissionMode = "exact",
        principals: Principals | None = None,
        delete: bool = False,
        max_deletes: int | float = 0.5,
        timestamps: bool = False,
        horizon: float = 10,
        progress: Progress | None = None,
    ) -> LoadReport:
        """Like :meth:`copy_to`."""
        return await self.__kinto_runner__().arun(
            copy(
                self.__kinto_path__(),
                self.__kinto_runner__(),
                load_target(client),
                LoadOptions(bucket, permissions, principals, delete, max_deletes, timestamps, progress),
                horizon=horizon,
            )
        )

    @overload
    def collection(self, which: str | UUID) -> Collection[Record]: ...
    @overload
    def collection(self, which: type[R]) -> Collection[R]: ...
    def collection(self, which: Any) -> Any:
        """Return a reference to the collection of that id, or to the one of that model; send nothing."""
        if isinstance(which, type) and issubclass(which, Record):
            if which.__kinto_collection__ is None:
                raise InvalidTypeError(f"class {which.__name__}(Record, collection=…) does not say its collection.")
            found = reference(Collection, which.__kinto_collection__, self.client, self)
            found.__kinto_envelope__().record_model = which
            return found
        return reference(Collection, check_id(which, "collection"), self.client, self)

    def group(self, id: str | UUID) -> Group:
        """Return a reference to the group of that id; send nothing."""
        return reference(Group, check_id(id, "group"), self.client, self)


class Group(KintoObject):
    """A group of users, which stands for them in permissions.

    https://docs.kinto-storage.org/en/stable/api/1.x/groups.html
    """

    __kinto_kind__: ClassVar[Kind] = Kind.GROUP
    __kinto_parent__: ClassVar[Any] = Bucket

    if TYPE_CHECKING:
        members: Settable[list[str], Sequence[str | Account]] = argument(default=None)
        bucket: Given[Bucket, Bucket | str | None] = argument(default=None)
    else:
        # pydantic copies the default; of list() it would ask the signature, which takes long.
        members: Annotated[list[str], BeforeValidator(member_texts)] = []

        @property
        def bucket(self):
            """The bucket that holds it."""
            return self.__kinto_bind_parent__()

    def __kinto_principal__(self) -> str:
        return str(self.__kinto_path__())


class _RecordsOf:
    """``records`` on the class and on an object: who asks decides which records."""

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> RecordManager[Record]: ...
    @overload
    def __get__(self, instance: Collection[R], owner: type[Any]) -> RecordManager[R]: ...
    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        if instance is None:
            return RecordManager.__kinto_make__(Record, client=Record.__kinto_client__)
        return RecordManager.__kinto_make__(instance.model, parent=instance)


class _RecordsOfModel:
    """``Todo.records``: the records of the model, in its default collection."""

    def __get__(self, instance: None, owner: type[R]) -> RecordManager[R]:
        if instance is not None:
            raise AttributeError("records")  # find_attribute() says more
        # A query keeps the client that it was made with: another bind() must not send it, or its delete(), elsewhere.
        return RecordManager.__kinto_make__(owner, client=owner.__kinto_client__)


class Record(KintoObject):
    """A record: plain, with its data in ``data``, or the base of your models.

    ``class Todo(Record, bucket="payments", collection="todos")``: both keywords are defaults and may be left out.
    https://docs.kinto-storage.org/en/stable/api/1.x/records.html
    """

    model_config = ConfigDict(ignored_types=(_RecordsOfModel,))

    __kinto_kind__: ClassVar[Kind] = Kind.RECORD

    records = _RecordsOfModel()

    def __init_subclass__(cls, *, bucket: str | None = None, collection: str | None = None) -> None:
        super().__init_subclass__()
        if bucket is not None:
            cls.__kinto_bucket__ = check_id(bucket, "bucket")
        if collection is not None:
            cls.__kinto_collection__ = check_id(collection, "collection")

    if TYPE_CHECKING:
        collection: Given[Collection[Record], Collection[Any] | str | None] = argument(default=None)
        bucket: Given[Bucket, Bucket | str | None] = argument(default=None)
    else:

        @property
        def collection(self):
            """The collection that holds it."""
            return self.__kinto_bind_parent__()

        @property
        def bucket(self):
            """The bucket that holds its collection."""
            return self.collection.bucket


R = TypeVar("R", bound=Record, default=Record)
S = TypeVar("S", bound=Record)

if TYPE_CHECKING:

    class _Typed(Generic[R]):
        """Collections are generic for checkers only: pydantic's generics would make classes at run time."""
else:

    class _Typed:
        def __class_getitem__(cls, item):
            return cls


class Collection(_Typed[R], KintoObject):
    """A collection holds records; ``model=Todo`` says of which class they are.

    https://docs.kinto-storage.org/en/stable/api/1.x/collections.html
    """

    model_config = ConfigDict(ignored_types=(_RecordsOf,))

    __kinto_kind__: ClassVar[Kind] = Kind.COLLECTION
    __kinto_parent__: ClassVar[Any] = Bucket

    schema_: dict[str, Any] | None = Field(default=None, validation_alias="schema", serialization_alias="schema")
    uiSchema: dict[str, Any] | None = None  # noqa: N815  # Kinto's spelling
    displayFields: list[str] | None = None  # noqa: N815  # Kinto's spelling
    sort: str | None = None
    cache_expires: int | None = None
    attachment: dict[str, Any] | None = None

    records = _RecordsOf()

    if TYPE_CHECKING:
        bucket: Given[Bucket, Bucket | str | None] = argument(default=None)
        model: Given[type[R], type[R] | None] = argument(default=None)
    else:

        @property
        def bucket(self):
            """The bucket that holds it."""
            return self.__kinto_bind_parent__()

        @property
        def model(self):
            """The class of its records."""
            return self.__kinto_envelope__().record_model or Record

    def changeset(
        self, *, since: TimestampInput | None = None, expected: TimestampInput | None = None, bust_cache: bool = False
    ) -> Changeset:
        """Return all records and the collection's metadata in one answer, or the changes since that timestamp.

        ``expected`` is the known timestamp of the collection (from ``client.monitor_changes()``): caches on the way
        give an answer that is at least as new. ``bust_cache`` bypasses them. Needs the capability ``changes``.
        https://remote-settings.readthedocs.io/en/latest/client-specifications.html
        """
        return self.__kinto_runner__().run(self.__kinto_changeset__(since, expected, bust_cache=bust_cache))

    async def achangeset(
        self, *, since: TimestampInput | None = None, expected: TimestampInput | None = None, bust_cache: bool = False
    ) -> Changeset:
        """Like :meth:`changeset`."""
        return await self.__kinto_runner__().arun(self.__kinto_changeset__(since, expected, bust_cache=bust_cache))

    def __kinto_changeset__(
        self, since: TimestampInput | None, expected: TimestampInput | None, *, bust_cache: bool
    ) -> Flow[Changeset]:
        query = changeset_query(since, expected, bust_cache=bust_cache)
        return read_changeset(self.__kinto_path__().ids, query, "changeset()", self.__kinto_runner__())

    @overload
    def schema_diff(self, model: None = None, *, enforce_formats: bool = False) -> SchemaDiff[R]: ...
    @overload
    def schema_diff(self, model: type[S], *, enforce_formats: bool = False) -> SchemaDiff[S]: ...
    @overload
    def schema_diff(self, model: Mapping[str, Any], *, enforce_formats: bool = False) -> SchemaDiff[R]: ...
    def schema_diff(self, model: Any = None, *, enforce_formats: bool = False) -> Any:
        """Return the difference between the schema of the collection and that of the model, to be looked at and stored.

        Without ``model`` it is the collection's own; a mapping is a JSON schema. With ``enforce_formats`` each field of
        a format that Kinto does not check gets a pattern. Raises ``InvalidValueError`` for a schema that would make
        Kinto fail, ``UsageError`` for a model without fields.
        https://docs.kinto-storage.org/en/stable/api/1.x/collections.html#collection-json-schema
        """
        return self.__kinto_runner__().run(self.__kinto_schema_diff__(model, enforce_formats=enforce_formats))

    @overload
    async def aschema_diff(self, model: None = None, *, enforce_formats: bool = False) -> SchemaDiff[R]: ...
    @overload
    async def aschema_diff(self, model: type[S], *, enforce_formats: bool = False) -> SchemaDiff[S]: ...
    @overload
    async def aschema_diff(self, model: Mapping[str, Any], *, enforce_formats: bool = False) -> SchemaDiff[R]: ...
    async def aschema_diff(self, model: Any = None, *, enforce_formats: bool = False) -> Any:
        """Like :meth:`schema_diff`."""
        return await self.__kinto_runner__().arun(self.__kinto_schema_diff__(model, enforce_formats=enforce_formats))

    def __kinto_schema_diff__(self, model: Any, *, enforce_formats: bool) -> Flow[SchemaDiff[Any]]:
        given = self.model if model is None or isinstance(model, Mapping) else model
        if isinstance(model, Mapping):
            name = "the given schema"
            wanted = prepare_schema(to_json_object(model, "schema"), enforce_formats=enforce_formats)
        else:
            wanted = schema_of(given, enforce_formats=enforce_formats)
            name = f"the schema of {given.__name__}"
        reading = RecordManager.__kinto_make__(given, parent=self).__kinto_reading__()
        return compare_schema(SchemaSource(self, reading, reading.source.locate(), name), wanted)

    def model_source(self) -> str:
        """Return the source of a Python module with a model of the records, made of the collection's JSON schema.

        The model takes each record that is there now: a field that one does not fit takes any value. Raises
        ``UsageError`` where the collection has no schema.
        """
        return self.__kinto_runner__().run(model_source(self.__kinto_path__(), dir(Record)))

    async def amodel_source(self) -> str:
        """Like :meth:`model_source`."""
        return await self.__kinto_runner__().arun(model_source(self.__kinto_path__(), dir(Record)))

    @property
    def status(self) -> ReviewStatus | None:
        """How far the review of its changes is, as it was seen last; ``None`` where it is under no review."""
        return status_of(self.__kinto_envelope__().data)

    def request_review(self, message: str) -> Self:
        """Ask for a review of the changes and return the collection; send nothing where there are none, or they wait.

        Raises ``ReviewError`` where it is under no review, ``ForbiddenError`` for a user who may not ask.
        https://remote-settings.readthedocs.io/en/latest/tutorial-multi-signoff.html
        """
        return self.__kinto_runner__().run(review(self, ReviewStep.REQUEST, message))

    async def arequest_review(self, message: str) -> Self:
        """Like :meth:`request_review`."""
        return await self.__kinto_runner__().arun(review(self, ReviewStep.REQUEST, message))

    def publication(self, message: str) -> Publication[Self]:
        """Return a block, whose changes of the records are put to review when it is left cleanly.

        ``with todos.publication("new domains"): todos.records.…``. The review is asked for where the block changed
        something, or where an earlier run was ended before it could ask. Entering raises ``CapabilityMissingError`` or
        ``ReviewError`` where the collection is under no review; leaving raises ``ReviewError`` where records were
        changed that the block did not write. Writes of this thread, and of the tasks and threads that kinto_orm starts
        for it, belong to the block.
        https://remote-settings.readthedocs.io/en/latest/tutorial-multi-signoff.html
        """
        return Publication(self, message, ReviewFlows(require_rules, request_review))

    def approve(self, *, seen: TimestampInput | None = None) -> Self:
        """Approve the changes that were read, which publishes them, and return the collection.

        A later change of a record is a ``ConflictError``. With ``seen``, the timestamp of the records that were looked
        at (``records.timestamp()``), a change since that moment is a ``ReviewError``. Raises ``ReviewError`` where the
        changes wait for no review, ``NotLoadedError`` where the collection was never read, ``ForbiddenError`` for a
        user who may not approve.
        """
        return self.__kinto_runner__().run(review(self, ReviewStep.APPROVE, seen=seen))

    async def aapprove(self, *, seen: TimestampInput | None = None) -> Self:
        """Like :meth:`approve`."""
        return await self.__kinto_runner__().arun(review(self, ReviewStep.APPROVE, seen=seen))

    def decline(self, message: str, *, seen: TimestampInput | None = None) -> Self:
        """Send the changes that were read back to their editors, and return the collection; otherwise like
        :meth:`approve`.
        """
        return self.__kinto_runner__().run(review(self, ReviewStep.DECLINE, message, seen=seen))

    async def adecline(self, message: str, *, seen: TimestampInput | None = None) -> Self:
        """Like :meth:`decline`."""
        return await self.__kinto_runner__().arun(review(self, ReviewStep.DECLINE, message, seen=seen))

    def rollback(self, message: str) -> Self:
        """Restore the records as they were last published, and return the collection; send nothing where they are
        equal.

        The changes of all users are lost. Raises ``ConflictError`` where there are changes since the collection was
        read, ``NotLoadedError`` where it was never read.
        """
        return self.__kinto_runner__().run(review(self, ReviewStep.ROLLBACK, message))

    async def arollback(self, message: str) -> Self:
        """Like :meth:`rollback`."""
        return await self.__kinto_runner__().arun(review(self, ReviewStep.ROLLBACK, message))

    def refresh_signature(self) -> Self:
        """Sign the published records again, and return the collection; its status stays."""
        return self.__kinto_runner__().run(review(self, ReviewStep.REFRESH))

    async def arefresh_signature(self) -> Self:
        """Like :meth:`refresh_signature`."""
        return await self.__kinto_runner__().arun(review(self, ReviewStep.REFRESH))


Record.__kinto_parent__ = Collection

for _kind in (Account, Bucket, Group, Collection, Record):
    _kind.__kinto_plain__ = _kind


def schema_of(model: Any, *, enforce_formats: bool = False) -> JSONObject:
    """Return the JSON schema of a model, as it is stored in its collection."""
    if not isinstance(model, type) or not issubclass(model, Record):
        raise InvalidTypeError(f"A schema is made of a model, such as class Todo(Record), not of {say_value(model)}.")
    if not codec_of(model).fields:
        raise UsageError(f"{model.__name__} declares no fields, so it has no schema: give a model that does.")
    return prepare_schema(record_schema(model), enforce_formats=enforce_formats)


def holders_of(one: Any, client: FlowRunner) -> Sequence[KintoObject]:
    """Return what a model or a reference stands for, as new objects: its bucket, and the collection or group.

    A bucket that is loaded is left out, and the bucket ``default``, which Kinto makes. Raises ``NotBoundError`` where
    the model has no collection, ``InvalidTypeError`` for anything else than a model, or a reference to a bucket, group
    or collection.
    """
    if isinstance(one, type) and issubclass(one, Record):
        bucket, collection = parent_ids(one, client)
        holder: KintoObject = Collection(bucket=bucket, id=collection, model=one, client=client)
    elif isinstance(one, Bucket):
        return (Bucket(id=one.id, client=client),)
    elif isinstance(one, (Collection, Group)):
        bucket, id = one.__kinto_path__().ids
        given: dict[str, Any] = {"model": one.model} if isinstance(one, Collection) else {}
        holder = type(one)(bucket=bucket, id=id, client=client, **given)
        if one.bucket.__kinto_envelope__().status is Status.LOADED:
            return (holder,)
    else:
        raise InvalidTypeError(
            f"ensure() takes new objects, models of records, and references to buckets, groups and collections, not "
            f"{say_value(one, 80)}."
        )
    return (holder,) if bucket == "default" else (Bucket(id=bucket, client=client), holder)


def load_target(runner: FlowRunner) -> Target:
    """Return the server of a client as a load sees it; raise ``InvalidTypeError`` for what is no client."""
    if not hasattr(runner, "__kinto_perform__"):
        raise InvalidTypeError(
            f"A bucket is copied to a client, of this server or of another one, not to {say_value(runner)}."
        )

    def records_of(bucket: str, collection: str) -> tuple[Place, ModelRows]:
        parent = reference(Bucket, bucket, runner).collection(collection)
        return RecordManager.__kinto_make__(Record, parent=parent).__kinto_rows__()

    def holder_of(path: ObjectPath) -> KintoObject:
        bucket = reference(Bucket, path.ids[0], runner)
        if path.kind is Kind.BUCKET:
            return bucket
        return bucket.group(path.id) if path.kind is Kind.GROUP else bucket.collection(path.id)

    return Target(runner, holder_of, records_of, attach)
