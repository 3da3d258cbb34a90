"""The client: the composition root."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar, cast
from uuid import UUID

from kinto_orm.client.admin import AdminMixin
from kinto_orm.client.bulk import ByCollection, CollectionsBulk, OnOutcome
from kinto_orm.client.connection import Connection, Options, started_server
from kinto_orm.errors import ConfigurationError, InvalidTypeError
from kinto_orm.jobs.ensure import ensure
from kinto_orm.jobs.load import LoadOptions, LoadReport, PermissionMode, Principals, load
from kinto_orm.jobs.plans import SyncPlan, load_plan
from kinto_orm.jobs.schemas import NamedSchema
from kinto_orm.models.kinds import Account, Bucket, Collection, Record, holders_of, load_target, schema_of
from kinto_orm.models.kinto_object import KintoObject
from kinto_orm.models.loading import reference
from kinto_orm.models.managers import Manager
from kinto_orm.protocol.entries import PermissionEntry
from kinto_orm.protocol.json_values import JSONObject, copy_json, say_value
from kinto_orm.protocol.paths import endpoint
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.entry_query import EntryQuery, permissions_of
from kinto_orm.query.gather import Gathering
from kinto_orm.repository.disk import FilePath
from kinto_orm.repository.state import OnConflict, OnInvalid, Outcome, Progress, Stateful, Status, Verb
from kinto_orm.server import EmbeddedServer
from kinto_orm.transport.auth import AuthInput
from kinto_orm.transport.options import MAX_RESPONSE_BYTES, OnBackoff
from kinto_orm.transport.reporting import RequestEvent, ResponseEvent, RetryEvent
from kinto_orm.unit_of_work.bulk import BulkReport
from kinto_orm.unit_of_work.unit_of_work import UnitOfWork

T = TypeVar("T")
H = TypeVar("H", bound=Stateful)
M = TypeVar("M", bound=KintoObject)

logger = logging.getLogger("kinto_orm")

EMBEDDED_AUTH = ("user", "embedded")
"""The credentials of an embedded client without ``auth``: the embedded server accepts any."""


class Client(AdminMixin):
    """A connection to a Kinto server, with defaults for bucket and collection.

    ``auth`` takes a tuple, ``"user:password"``, ``"Bearer xyz"``, ``"Basic xyz"``, ``BearerTokenAuth`` or any auth
    object of ``requests``; credentials in ``server_url`` are moved there. Credentials travel over plain http to this
    machine only, unless ``allow_insecure``. ``verify`` is ``False`` or a CA bundle, ``cert`` the client's certificate
    or (certificate, key); ``proxies`` are given here, or by the environment with ``trust_env``.

    Times are seconds: ``timeout`` is (connect, read), ``deadline`` bounds a whole call, ``retry_after`` is a fixed
    wait. ``retry`` is the number of times that a request is sent again where that is safe; ``on_backoff`` says how to
    act while the server asks for a pause. A write whose answer was lost is recognised in the answer to its second
    attempt; with ``strict_retry`` only where no other client can have written the same, else it raises
    ``AmbiguousWriteError``. An answer larger than ``max_response_bytes`` is refused.

    The hooks ``on_request``, ``on_response`` and ``on_retry`` are called with each event; ``log_bodies`` logs bodies
    without values that look secret. With ``dry_mode`` reads are sent and writes are kept for ``plan()``. ``on_invalid``
    says how to treat rows that do not fit their model. Threads send for awaited verbs, up to 32 requests at a time;
    ``async_transport`` is an option no more.

    A client is safe in threads and after a fork. Its pickle holds its options without credentials. Creating one sends
    nothing. Raises ``ConfigurationError`` for options that cannot work.
    """

    def __init__(
        self,
        server_url: str,
        *,
        auth: AuthInput = None,
        bucket: str = "default",
        collection: str | None = None,
        retry: int = 3,
        retry_after: float | None = None,
        timeout: Any = (5, 30),
        deadline: float = 120,
        headers: Mapping[str, str] | None = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
        trust_env: bool = False,
        allow_insecure: bool = False,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        session: Any = None,
        dry_mode: bool = False,
        on_request: Callable[[RequestEvent], object] | None = None,
        on_response: Callable[[ResponseEvent], object] | None = None,
        on_retry: Callable[[RetryEvent], object] | None = None,
        log_bodies: bool = False,
        on_backoff: OnBackoff = "wait",
        strict_retry: bool = False,
        on_invalid: OnInvalid = "raise",
        async_transport: None = None,
    ) -> None:
        # The options are named in this signature and in Options, nowhere else.
        options = Options(**{name: value for name, value in locals().items() if name != "self"})
        self._set_up(options, Connection(options.transport(None)), owns_server=False)

    @classmethod
    def embedded(
        cls,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        server: EmbeddedServer | None = None,
        auth: AuthInput = EMBEDDED_AUTH,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Return a client of a real Kinto inside this process.

        Without ``data_dir`` nothing is kept (extra ``server``); with it the data stays there, in a PostgreSQL that is
        started and stopped with the client (extra ``server-postgres``). ``settings`` are Kinto's; ``server`` is a
        running ``EmbeddedServer``, which the client does not stop. Other options as for ``Client``. Raises
        ``MissingExtraError`` where the extra is not installed.
        """
        if "server_url" in options:
            raise ConfigurationError("An embedded client has its server's URL: it takes no server_url.")
        owns_server = server is None
        server = started_server(data_dir, server, settings)
        client = cls.__new__(cls)
        try:
            chosen_options = Options(server_url=server.url, auth=auth).changed(options)
            connection = Connection(chosen_options.transport(server), server)
            client._set_up(chosen_options, connection, owns_server=owns_server)
        except BaseException:
            if owns_server:
                server.close()
            raise
        return client

    # -- configuration --------------------------------------------------------------------------------------------

    def clone(self, **changes: Any) -> Self:
        """Return a client with these options changed and all others kept.

        The clone shares the connections where it can, and never closes shared ones. It always shares an embedded
        server. The clone of a dry client adds to the same plan, unless it is no longer dry.
        """
        options = self._options.changed(changes)
        clone = type(self).__new__(type(self))
        connection = self._connection.fitting(self._options, options)
        owns_transport = connection is not self._connection
        shared = self._dry_run if self._options.dry_mode and options.dry_mode else None
        clone._set_up(options, connection, owns_server=False, owns_transport=owns_transport, dry_run=shared)
        return clone

    @property
    def server_url(self) -> str:
        """The root URL of the server, as it was given."""
        return self._options.server_url

    def get_endpoint(
        self,
        name: str,
        *,
        bucket: str | None = None,
        group: str | None = None,
        collection: str | None = None,
        id: str | None = None,
    ) -> str:
        """Return the path of a named endpoint, below the root URL; bucket and collection default to the client's.

        Raises ``InvalidIdError`` for an unknown name, and for ids that are missing or invalid.
        """
        return endpoint(
            name,
            bucket=self.default_bucket if bucket is None else bucket,
            group=group,
            collection=self.default_collection if collection is None else collection,
            id=id,
        )

    def bind(self, model: type[M]) -> type[M]:
        """Make this the client of the model, and return the model: its objects then need no other way to find one."""
        if not isinstance(cast(object, model), type) or not issubclass(model, KintoObject):
            raise InvalidTypeError(f"bind() takes a model class, such as Record or your own, not {say_value(model)}.")
        model.__kinto_client__ = self
        return model

    # -- what is on the server ------------------------------------------------------------------------------------

    def server_info(self, *, refresh: bool = False) -> JSONObject:
        """Return the server's description: version, settings, capabilities, user.

        The server is asked once, unless ``refresh``.
        https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html
        """
        return copy_json(self.run(self.__kinto_describe_server__(refresh=refresh)))

    async def aserver_info(self, *, refresh: bool = False) -> JSONObject:
        """Like :meth:`server_info`."""
        return copy_json(await self.arun(self.__kinto_describe_server__(refresh=refresh)))

    @property
    def buckets(self) -> Manager[Bucket]:
        """The buckets that the user may see."""
        return Manager.__kinto_make__(Bucket, client=self)

    def bucket(self, id: str | UUID | None = None) -> Bucket:
        """Return a reference to the bucket of that id, by default the client's bucket; send nothing.

        ``"default"`` is the user's personal bucket; ``personal_bucket()`` returns it with its real id.
        """
        return reference(Bucket, self.default_bucket if id is None else id, self)

    @property
    def permissions(self) -> EntryQuery[PermissionEntry]:
        """The permissions of the user, object by object: a lazy selection of entries.

        https://docs.kinto-storage.org/en/stable/api/1.x/permissions.html
        """
        return permissions_of(self)

    @property
    def accounts(self) -> Manager[Account]:
        """The accounts that the user may see: all of them for administrators, else only the user's account.

        https://docs.kinto-storage.org/en/stable/api/1.x/accounts.html
        """
        return Manager.__kinto_make__(Account, client=self)

    def account(self, id: str) -> Account:
        """Return a reference to the account of that id; send nothing."""
        return reference(Account, id, self)

    def ensure(self, *objects: KintoObject | type[Record], schema: bool = False) -> tuple[Outcome[Any], ...]:
        """Make sure that these new objects exist, with at least their data and permissions, in one batch.

        A model (``Todo``) stands for its collection, and for the bucket of that; so does a reference
        (``payments.collection(Todo)``). With ``schema=True`` an empty collection without a JSON schema gets the one of
        its model. Sends no write where all is there; keys, principals and members of groups that others set are left
        alone. Each object ends up loaded.
        Raises ``CommitError`` where something could not be stored, ``ForbiddenError`` for a bucket of another user,
        ``SchemaDiffersError`` where a collection has another schema than its model, or none and records.
        """
        return self.run(self._ensure(objects, schema=schema))

    async def aensure(self, *objects: KintoObject | type[Record], schema: bool = False) -> tuple[Outcome[Any], ...]:
        """Like :meth:`ensure`."""
        return await self.arun(self._ensure(objects, schema=schema))

    def _ensure(self, given: Sequence[KintoObject | type[Record]], *, schema: bool) -> Flow[tuple[Outcome[Any], ...]]:
        new: list[KintoObject] = []
        named: list[KintoObject | type[Record]] = []
        for one in given:
            if isinstance(one, type) or self._bound(one).__kinto_envelope__().status is Status.REFERENCE:
                named.append(one)
            else:
                new.append(one)
        objects = [*new]
        known = {one.__kinto_path__(draw=True) for one in new}
        for one in named:
            holders = holders_of(one, self)
            objects += [one for one in holders if one.__kinto_path__() not in known]
            known |= {one.__kinto_path__() for one in holders}
        typed = [one for one in objects if isinstance(one, Collection) and one.model is not Record] if schema else []
        schemas = {one.__kinto_path__(): NamedSchema(one.model.__name__, schema_of(one.model)) for one in typed}
        outcomes = yield from ensure(objects, self, schemas)
        found = {one.__kinto_path__(): one for one in objects}
        for one in named:
            if isinstance(one, KintoObject):
                one.__kinto_apply_state__(found[one.__kinto_path__()].__kinto_state__(), None)
        return outcomes

    def _bound(self, one: object) -> KintoObject:
        if not isinstance(one, KintoObject):
            raise InvalidTypeError(
                f"ensure() takes buckets, groups, collections, records and models, not {say_value(one)}."
            )
        if one.client is None:
            one.__kinto_envelope__().client = self
        return one

    def load(
        self,
        folder: FilePath,
        *,
        bucket: str | None = None,
        permissions: PermissionMode = "exact",
        principals: Principals | None = None,
        delete: bool = False,
        max_deletes: int | float = 0.5,
        timestamps: bool = False,
        progress: Progress | None = None,
    ) -> LoadReport:
        """Load the dump of a bucket: create what is missing, change what differs; a second run writes nothing.

        ``bucket`` is another id for it. Permissions are set as dumped, added (``"add"``) or left alone (``"skip"``),
        each principal mapped by ``principals``. With ``delete`` all is deleted that the dump lacks, but no more records
        than ``max_deletes``, as in ``records.sync()``. With ``timestamps`` the records keep theirs, in collections
        that are empty. Files are uploaded. A schema is set when the records are there.
        Raises ``InvalidValueError`` for a damaged dump, ``TooManyDeletesError``, or ``UsageError`` for records in the
        way of ``timestamps``, before anything is sent; ``CommitError`` (with ``.report``) where something was not
        stored, ``VerificationError`` where another client changed what was loaded.
        """
        return self.run(
            load(
                folder,
                load_target(self),
                LoadOptions(bucket, permissions, principals, delete, max_deletes, timestamps, progress),
            )
        )

    async def aload(
        self,
        folder: FilePath,
        *,
        bucket: str | None = None,
        permissions: PermissionMode = "exact",
        principals: Principals | None = None,
        delete: bool = False,
        max_deletes: int | float = 0.5,
        timestamps: bool = False,
        progress: Progress | None = None,
    ) -> LoadReport:
        """Like :meth:`load`."""
        return await self.arun(
            load(
                folder,
                load_target(self),
                LoadOptions(bucket, permissions, principals, delete, max_deletes, timestamps, progress),
            )
        )

    def load_plan(self, path: str | os.PathLike[str]) -> SyncPlan:
        """Return the plan of a sync that ``plan.save()`` wrote to a file; nothing is sent until you apply it.

        Raises ``InvalidValueError`` for a file that holds no plan, ``OSError`` where it cannot be read.
        """
        return self.run(load_plan(path, self, load_target(self).records_of))

    async def aload_plan(self, path: str | os.PathLike[str]) -> SyncPlan:
        """Like :meth:`load_plan`."""
        return await self.arun(load_plan(path, self, load_target(self).records_of))

    def bulk_create(
        self,
        objects: ByCollection,
        *,
        parallel: int = 4,
        on_outcome: OnOutcome = None,
        progress: Progress | None = None,
    ) -> dict[Collection[Any], BulkReport]:
        """Create objects of several collections, in full batches, with one thread for each collection.

        ``{todos: ({"title": …} for …), receipts: [Receipt(…), …]}``. At most ``parallel`` threads, which also run the
        iterables. Returns the counts of each collection. ``on_outcome`` and ``progress`` are called in the caller's
        thread. Raises ``CommitError`` with the outcomes of the objects that were not stored; the others were.
        https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
        """
        return CollectionsBulk(self, Verb.SAVE, "bulk_create", objects, parallel, on_outcome, progress).run()

    async def abulk_create(
        self,
        objects: ByCollection,
        *,
        parallel: int = 4,
        on_outcome: OnOutcome = None,
        progress: Progress | None = None,
    ) -> dict[Collection[Any], BulkReport]:
        """Like :meth:`bulk_create`."""
        return await CollectionsBulk(self, Verb.SAVE, "bulk_create", objects, parallel, on_outcome, progress).arun()

    def bulk_update(
        self,
        objects: ByCollection,
        *,
        parallel: int = 4,
        on_outcome: OnOutcome = None,
        progress: Progress | None = None,
    ) -> dict[Collection[Any], BulkReport]:
        """Save loaded objects of several collections; otherwise like :meth:`bulk_create`."""
        return CollectionsBulk(self, Verb.SAVE, "bulk_update", objects, parallel, on_outcome, progress).run()

    async def abulk_update(
        self,
        objects: ByCollection,
        *,
        parallel: int = 4,
        on_outcome: OnOutcome = None,
        progress: Progress | None = None,
    ) -> dict[Collection[Any], BulkReport]:
        """Like :meth:`bulk_update`."""
        return await CollectionsBulk(self, Verb.SAVE, "bulk_update", objects, parallel, on_outcome, progress).arun()

    def bulk_delete(
        self,
        objects: ByCollection,
        *,
        parallel: int = 4,
        on_outcome: OnOutcome = None,
        progress: Progress | None = None,
    ) -> dict[Collection[Any], BulkReport]:
        """Delete objects of several collections; otherwise like :meth:`bulk_create`."""
        return CollectionsBulk(self, Verb.DELETE, "bulk_delete", objects, parallel, on_outcome, progress).run()

    async def abulk_delete(
        self,
        objects: ByCollection,
        *,
        parallel: int = 4,
        on_outcome: OnOutcome = None,
        progress: Progress | None = None,
    ) -> dict[Collection[Any], BulkReport]:
        """Like :meth:`bulk_delete`."""
        return await CollectionsBulk(self, Verb.DELETE, "bulk_delete", objects, parallel, on_outcome, progress).arun()

    def unit_of_work(
        self,
        *,
        atomic: bool = False,
        lock: str | Stateful | None = None,
        on_conflict: OnConflict = "raise",
        chunked: bool = False,
    ) -> UnitOfWork:
        """Return a block whose writes are staged, and sent as one batch when the block ends without an exception.

        ``with client.unit_of_work() as uow:``. ``atomic``: all or nothing, on a server with the capability
        ``atomic_batch``. ``lock``: a name or an object that all units write first, so that PostgreSQL runs them one
        after the other. ``on_conflict``: as for ``save()``. ``chunked``: as many batches as needed, each independent.
        https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
        """
        return UnitOfWork(self, atomic=atomic, lock=lock, on_conflict=on_conflict, chunked=chunked)

    def gather(self) -> Gathering:
        """Return a block whose reads travel in one request: counts and single objects, of any collections.

        ``with client.gather() as reads: todos_left = reads.count(todos.records.filter(done=False))``, then
        ``todos_left.value``.
        """
        return Gathering(self)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._connection.server is not None:
            raise ConfigurationError(
                "A client of an embedded server lives in its own process only: it cannot be pickled."
            )
        return (type(self)._unpickled, (self._options.without_secrets(),))

    @classmethod
    def _unpickled(cls, options: Options) -> Self:
        client = cls.__new__(cls)
        client._set_up(options, Connection(options.transport(None)), owns_server=False)
        return client

    def __repr__(self) -> str:
        if not hasattr(self, "_options"):  # a traceback may show a client whose options were refused
            return f"<{type(self).__name__}, not set up>"
        collection = f", collection {self.default_collection}" if self.default_collection else ""
        return f"<{type(self).__name__} {self.server_url}, bucket {self.default_bucket}{collection}>"
