"""The client: where everything is put together, and what moves the flows."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from uuid import UUID

from kinto_orm.conflicts import make_resolvable
from kinto_orm.connection import Connection, Options, started_server
from kinto_orm.errors import (
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    CredentialsMissingError,
    DryRunError,
    InvalidTypeError,
    KintoError,
)
from kinto_orm.jobs import ensure
from kinto_orm.messages import Request
from kinto_orm.models import Bucket, KintoObject, Manager, bucket_reference, manager_of
from kinto_orm.outcomes import Outcome
from kinto_orm.protocol.endpoints import check_id, endpoint
from kinto_orm.protocol.flows import Flow
from kinto_orm.protocol.values import JSONObject, copy_json
from kinto_orm.protocol.writes import Write, encode_request
from kinto_orm.repository import plan, read_server_info, write
from kinto_orm.server import EmbeddedServer
from kinto_orm.state import Holder, Intent, OnInvalid, activate, deactivate
from kinto_orm.transport import AuthInput, RequestSent
from kinto_orm.unit_of_work import UnitOfWork, open_unit

T = TypeVar("T")
H = TypeVar("H", bound=Holder)
M = TypeVar("M", bound=KintoObject)

logger = logging.getLogger("kinto_orm")

EMBEDDED_AUTH = ("user", "embedded")
"""The credentials of an embedded client that was given none: any will do there."""


class Client:
    """A connection to a Kinto server, with defaults for bucket and collection.

    ``auth`` takes a tuple, ``"user:password"``, ``"Bearer xyz"``, ``"Basic xyz"``, ``BearerTokenAuth`` or any auth
    object of ``requests``. ``timeout`` is (connect, read) and ``deadline`` bounds a whole call, in seconds.
    ``retry`` is how often a request that was certainly not sent is sent again, ``retry_after`` the fixed wait in
    seconds. With ``dry_mode`` reads are real and ``save``, ``patch`` and the like are logged, not sent.
    ``on_invalid`` says what happens to rows that do not fit their model.

    Safe in threads and after a fork. Pickled, it is its options without credentials.
    Raises ``ConfigurationError`` for options that cannot work; asks nothing.
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
        proxies: Mapping[str, str] | None = None,
        trust_env: bool = False,
        session: Any = None,
        dry_mode: bool = False,
        on_request: Callable[[RequestSent], object] | None = None,
        on_invalid: OnInvalid = "raise",
    ) -> None:
        options = Options(
            server_url=server_url,
            auth=auth,
            bucket=bucket,
            collection=collection,
            retry=retry,
            retry_after=retry_after,
            timeout=timeout,
            deadline=deadline,
            headers=headers,
            verify=verify,
            proxies=proxies,
            trust_env=trust_env,
            session=session,
            dry_mode=dry_mode,
            on_request=on_request,
            on_invalid=on_invalid,
        )
        self._set_up(options, Connection(options.transport(None)), owns_server=False)

    def _set_up(
        self, options: Options, connection: Connection, *, owns_server: bool, owns_transport: bool = True
    ) -> None:
        check_id(options.bucket, "bucket")
        if options.collection is not None:
            check_id(options.collection, "collection")
        if options.on_invalid not in ("raise", "skip", "keep"):
            raise ConfigurationError(f"on_invalid is 'raise', 'skip' or 'keep', not {options.on_invalid!r}.")
        self._options = options
        self._connection = connection
        self._owns_server = owns_server
        self._owns_transport = owns_transport
        self._is_closed = False

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
        """A client of a real Kinto inside this process.

        Without ``data_dir`` nothing is kept (extra ``server``); with it the data lives there, in a PostgreSQL that
        is started and stopped with the client (extra ``server-postgres``). ``settings`` are Kinto's own; ``server``
        is an ``EmbeddedServer`` that is running already and is left running. Other options as for ``Client``.
        Raises ``MissingExtraError`` where the extra is not installed.
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
        """A client with these options changed and all others kept.

        Shares the connections where it can; never closes what it shares. An embedded server is shared always.
        """
        options = self._options.changed(changes)
        clone = type(self).__new__(type(self))
        connection = self._connection.fitting(self._options, options)
        clone._set_up(options, connection, owns_server=False, owns_transport=connection is not self._connection)
        return clone

    @property
    def server_url(self) -> str:
        """The root URL of the server, as it was given."""
        return self._options.server_url

    @property
    def default_bucket(self) -> str:
        """The default bucket."""
        return self._options.bucket

    @property
    def default_collection(self) -> str | None:
        """The default collection."""
        return self._options.collection

    @property
    def on_invalid(self) -> OnInvalid:
        """What happens to rows that do not fit their model."""
        return self._options.on_invalid

    def get_endpoint(
        self,
        name: str,
        *,
        bucket: str | None = None,
        group: str | None = None,
        collection: str | None = None,
        id: str | None = None,
    ) -> str:
        """The path of a named endpoint, below the root URL; bucket and collection default to the client's.

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
        """The model, with this client as its own: its objects need no other way to find one."""
        if not isinstance(cast(object, model), type) or not issubclass(model, KintoObject):
            raise InvalidTypeError(f"bind() takes a model class, such as Record or your own, not {model!r:.60}.")
        model.__kinto_client__ = self
        return model

    # -- what is on the server ------------------------------------------------------------------------------------

    def server_info(self, *, refresh: bool = False) -> JSONObject:
        """What the server says of itself: version, settings, capabilities, user. Asked once, unless refreshed.

        https://docs.kinto-storage.org/en/stable/api/1.x/utilities.html
        """
        return self.run(self.describe_server(refresh=refresh))

    async def aserver_info(self, *, refresh: bool = False) -> JSONObject:
        """Like :meth:`server_info`."""
        return await self.arun(self.describe_server(refresh=refresh))

    @property
    def buckets(self) -> Manager[Bucket]:
        """The buckets that the user may see."""
        return manager_of(Bucket, plain=Bucket, client=self)

    def bucket(self, id: str | UUID) -> Bucket:
        """A reference to the bucket of that id (``"default"`` is the user's own); asks nothing."""
        return bucket_reference(check_id(id, "bucket"), self)

    def ensure(self, *objects: Holder) -> tuple[Outcome[Any], ...]:
        """Makes sure that these new objects exist, with at least their data and permissions, in one batch.

        Sends no write where all is there; keys and principals that others set are left alone. Each object ends up
        loaded. Raises ``CommitError`` where something could not be stored.
        """
        return self.run(ensure(self._bound(objects), self))

    async def aensure(self, *objects: Holder) -> tuple[Outcome[Any], ...]:
        """Like :meth:`ensure`."""
        return await self.arun(ensure(self._bound(objects), self))

    def _bound(self, objects: tuple[Holder, ...]) -> tuple[Holder, ...]:
        for one in objects:
            if not isinstance(one, KintoObject):
                raise InvalidTypeError(f"ensure() takes buckets, groups, collections and records, not {one!r:.80}.")
            if one.client is None:
                one.__kinto_envelope__().client = self
        return objects

    def unit_of_work(self) -> UnitOfWork:
        """A block whose writes are staged and sent as one batch when it is left cleanly.

        ``with client.unit_of_work() as uow:``; nothing is sent where the block raises.
        https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
        """
        return UnitOfWork(self)

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, flow: Flow[T]) -> T:
        """The result of the flow: its requests are sent one after the other."""
        try:
            item = next(flow)
            while True:
                request = self._admit(flow, item)
                try:
                    response = self._connection.transport.send(request)
                except KintoError as error:
                    item = flow.throw(error)
                else:
                    item = flow.send(response)
        except StopIteration as stop:
            return cast(T, stop.value)
        finally:
            flow.close()  # where it was left by an exception, it cleans up now

    async def arun(self, flow: Flow[T]) -> T:
        """The result of the flow. Only the sending is done in a thread.

        A cancelled call may have been sent: the server may have applied it.
        """
        try:
            item = next(flow)
            while True:
                request = self._admit(flow, item)
                try:
                    response = await asyncio.to_thread(self._connection.transport.send, request)
                except KintoError as error:
                    item = flow.throw(error)
                else:
                    item = flow.send(response)
        except StopIteration as stop:
            return cast(T, stop.value)
        finally:
            flow.close()  # where it was left by an exception, it cleans up now

    def perform(self, holder: H, intent: Intent) -> H:
        """Carries out the intent now, or stages it in the unit of work that is open."""
        unit = open_unit(self)
        return unit.stage(holder, intent) if unit is not None else self.run(self._perform(holder, intent))

    async def aperform(self, holder: H, intent: Intent) -> H:
        """Like :meth:`perform`."""
        unit = open_unit(self)
        return unit.stage(holder, intent) if unit is not None else await self.arun(self._perform(holder, intent))

    def _perform(self, holder: H, intent: Intent) -> Flow[H]:
        if self._options.dry_mode:
            planned = plan(intent)
            if planned is not None:
                logger.info("(dry mode) %s %s", planned.action.value, planned.path)
            return holder
        try:
            state = yield from write(intent)
        except ConflictError as error:
            make_resolvable(error, self, holder, intent)
            raise
        if state is not intent.state:
            holder.__kinto_adopt__(state, intent)
        return holder

    def refuse_staging(self, what: str) -> None:
        """Raises ``NotStageableError`` inside a unit of work of this client, which ``what`` cannot be part of."""
        if (unit := open_unit(self)) is not None:
            unit.admit(None, what)

    def describe_server(self, *, refresh: bool = False) -> Flow[JSONObject]:
        """The flow of :meth:`server_info`."""
        connection = self._connection
        if connection.server_info is None or refresh:
            connection.server_info = yield from read_server_info()
        return cast(JSONObject, copy_json(connection.server_info))

    def _admit(self, flow: Flow[Any], item: Request | Write) -> Request:
        """The request, if it may be sent now."""
        request = encode_request(item) if isinstance(item, Write) else item
        if self._is_closed:
            raise ClientClosedError("This client was closed: make a new one.")
        if lacks := self._options.lacks:
            missing = ", ".join(f"{name}=…" for name in sorted(lacks))
            raise CredentialsMissingError(f"This client came out of a pickle, without secrets: use clone({missing}).")
        if request.is_write:
            self._admit_write(flow, request)
        return request

    def _admit_write(self, flow: Flow[Any], request: Request) -> None:
        if (unit := open_unit(self)) is not None:
            unit.admit(flow, f"{request.method} {request.path}")
        if self._options.dry_mode:
            raise DryRunError(
                f"{request.method} {request.path}: dry_mode does not send it, and the call needs its answer."
            )

    # -- lifetime -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the client, and the embedded server that it started. A clone closes only what is its own."""
        self._is_closed = True
        if self._owns_transport:
            self._connection.transport.close()
        if self._owns_server and self._connection.server is not None:
            self._connection.server.close()

    def __enter__(self) -> Self:
        activate(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if deactivate(self):
            self._connection.transport.release()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

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
        collection = f", collection {self.default_collection}" if self.default_collection else ""
        return f"<{type(self).__name__} {self.server_url}, bucket {self.default_bucket}{collection}>"
