"""The verbs of both clients from one definition, and the movement of their flows.

A verb is written once, as a method that returns a flow. :func:`verb` turns it into a method that runs the flow (on
``Client``) or awaits it (on ``AsyncClient``); checkers and editors see the parameters as they are written.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MethodType
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, TypeAlias, TypeVar, cast, overload
from urllib.parse import parse_qsl
from uuid import UUID

from kinto_orm.errors import DryRunError, KintoError, ResponseError
from kinto_orm.kinto_http.endpoints import Endpoints, as_id
from kinto_orm.kinto_http.exceptions import Exchange, KintoException, body_of, translate
from kinto_orm.protocol.json_values import decode
from kinto_orm.protocol.messages import BlockingTask, Request, Response, run_blocking
from kinto_orm.protocol.paths import EntriesPath, Kind, ObjectPath, PluralPath
from kinto_orm.protocol.writes import Action, Flow, Write, encode_request

P = ParamSpec("P")
T = TypeVar("T")

Document: TypeAlias = dict[str, Any]
"""``{"data": {...}, "permissions": {...}}``, or the data of one object."""

Id: TypeAlias = str | int | UUID
"""The id of an object; ``None`` stands for the client's bucket or collection."""

Data: TypeAlias = Mapping[str, Any] | None
Grants: TypeAlias = Any
"""Permissions: a mapping of names to lists of principals, or an object whose ``as_dict()`` returns one."""

Timestamp: TypeAlias = int | str
"""Milliseconds, or an ETag with or without its quotes."""

logger = logging.getLogger("kinto_http")

GIVEN_NOTHING: Any = inspect.Parameter.empty
"""The default of an id that deletes: an empty id or ``None`` that the caller gives there is a mistake."""


class Face:
    """The base of the clients; :attr:`session` carries out their calls."""

    session: Any
    endpoints: Endpoints
    bucket_name: Id | None
    collection_name: Id | None
    read_timestamps: dict[PluralPath, int | None]
    """The timestamps of the lists that were just read, and not written since."""

    def _ids(self, kind: Kind, id: Id | None, bucket: Id | None = None, collection: Id | None = None) -> ObjectPath:
        """Return the path of an object; bucket and collection default to the client's."""
        if kind is Kind.BUCKET:
            return self._list(kind).object(self._bucket(id))
        above = self._list(kind, bucket, collection)
        return above.object(self._collection(id) if kind is Kind.COLLECTION else as_id(self._require(id, kind.value)))

    def _list(self, kind: Kind, bucket: Id | None = None, collection: Id | None = None) -> PluralPath:
        """Return the path of a list; bucket and collection default to the client's."""
        if kind is Kind.BUCKET:
            return PluralPath(kind)
        above = (self._bucket(bucket),)
        return PluralPath(kind, (*above, self._collection(collection)) if kind is Kind.RECORD else above)

    def _endpoint(self, name: str, bucket: Id | None, collection: Id | None, **ids: Any) -> str:
        """Return the path of a named endpoint; bucket and collection default to the client's."""
        bucket = self.bucket_name if bucket is None else bucket
        collection = self.collection_name if collection is None else collection
        return self.endpoints.get(name, bucket=bucket, collection=collection, **ids)

    def _history(self, bucket: Id | None) -> EntriesPath:
        return EntriesPath("history", (self._bucket(bucket),))

    def _bucket(self, id: Id | None) -> str:
        return as_id(self._require(self.bucket_name if id is None else id, "bucket"), "bucket")

    def _collection(self, id: Id | None) -> str:
        return as_id(self._require(self.collection_name if id is None else id, "collection"), "collection")

    def _require(self, id: Id | None, what: str) -> Id:
        if id is None:
            raise KintoException(f"Cannot get {what} endpoint, {what} is missing")
        return id

    def _id_to_delete(self, id: Id | None, own: Id | None) -> Id | None:
        """Return the id to delete by: the client's only where none was given."""
        if id is GIVEN_NOTHING:
            return own
        if id is None:
            raise KintoException("The id to delete is None. Leave id= out where you mean the client's own.")
        return id


def id_of(id: Id | None, data: Data, missing: str | None = None) -> Id | None:
    """Return the given id, or else the one in the data; raise ``KeyError`` of that text where there is none."""
    found: Id | None = id if id is not None or data is None else data.get("id")
    if found is None and missing is not None:
        raise KeyError(missing)
    return found


def fill_from_original(original: Data, id: Id | None, if_match: Timestamp | None) -> tuple[Id | None, Timestamp | None]:
    """Return id and timestamp; values that were not given are those of the original object."""
    if not original:
        return id, if_match
    return (original.get("id") if id is None else id), original.get("last_modified") if if_match is None else if_match


class Blocking(Face):
    """A client whose verbs return results."""


class Awaiting(Face):
    """A client whose verbs are awaited."""


class Verb(Generic[P, T]):
    """A method of both clients, made from one that returns a flow."""

    def __init__(self, build: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        is_read = build.__name__.startswith(("get_", "server_info", "download_"))

        def start(face: Face, /, *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
            if not is_read:
                face.read_timestamps.clear()
            return (yield from build(face, *args, **kwargs))  # errors of build() are raised where the flow runs, too

        def blocking(self: Face, /, *args: P.args, **kwargs: P.kwargs) -> T:
            return run(self.session, start(self, *args, **kwargs))

        async def awaiting(self: Face, /, *args: P.args, **kwargs: P.kwargs) -> T:
            return await arun(self.session, start(self, *args, **kwargs))

        self._blocking = _present(blocking, build)
        self._awaiting = _present(awaiting, build)
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], Any]: ...
    @overload
    def __get__(self, instance: Awaiting, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, instance: Blocking, owner: type) -> Callable[P, T]: ...
    def __get__(self, instance: Face | None, owner: type) -> Callable[..., Any]:
        function = self._awaiting if issubclass(owner, Awaiting) else self._blocking
        return function if instance is None else cast(Callable[..., Any], MethodType(function, instance))


def verb(build: Callable[Concatenate[Any, P], Flow[T]]) -> Verb[P, T]:
    """Return the verb of the method, which returns a flow."""
    return Verb(build)


def _present(function: Callable[..., Any], build: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, with the name, signature and docstring of the method it was made from."""
    functools.update_wrapper(function, build)
    signature = inspect.signature(build)
    result = str(signature.return_annotation).removeprefix("Flow[").removesuffix("]")
    function.__signature__ = signature.replace(return_annotation=result)  # type: ignore[attr-defined]  # inspect reads it
    return function


def run(session: Any, flow: Flow[T]) -> T:
    """Return the result of the flow, moved by a session or by a user's object in its place."""
    if hasattr(type(session), "run"):
        return cast(T, session.run(flow))
    return run_blocking(run_by_request(session, flow, call_here))


async def arun(session: Any, flow: Flow[T]) -> T:
    """Like :func:`run`."""
    if hasattr(type(session), "arun"):
        return cast(T, await session.arun(flow))
    return await run_by_request(session, flow, asyncio.to_thread)


def watch(flow: Flow[T], exchange: Exchange) -> Flow[T]:
    """Run the flow, and store its last request and answer in ``exchange``; in dry mode, return ``{}`` for a write."""
    try:
        item = next(flow)
        while True:
            # Work of this machine is no exchange with the server.
            exchange.request, exchange.response = None if isinstance(item, BlockingTask) else as_request(item), None
            if exchange.request is not None:
                logger.info("%s %s", exchange.request.method, exchange.request.path)
            try:
                response = yield item
            except KintoError as error:
                item = flow.throw(error)
            else:
                exchange.response = None if exchange.request is None else response
                item = flow.send(response)
    except StopIteration as stop:
        return cast(T, stop.value)
    except DryRunError:
        return cast(T, {})
    finally:
        flow.close()


def resume(item: Request | Write, flow: Flow[T]) -> Flow[T]:
    """Run the rest of a flow whose first request was already taken."""
    try:
        while True:
            try:
                response = yield item
            except KintoError as error:
                item = flow.throw(error)
            else:
                item = flow.send(response)
    except StopIteration as stop:
        return cast(T, stop.value)
    finally:
        flow.close()


def as_request(item: Request | Write) -> Request:
    """Return the request of an item of a flow."""
    return encode_request(item) if isinstance(item, Write) else item


async def run_by_request(session: Any, flow: Flow[T], call: Callable[..., Awaitable[Any]]) -> T:
    """Return the result of the flow, each of whose requests is one call of ``session.request``, made by ``call``.

    Raises ``KintoException``.
    """
    double = Double(session)
    try:
        item = next(flow)
        while True:
            item = flow.send(await call(double.answer, item))
    except StopIteration as stop:
        return cast(T, stop.value)
    except KintoError as error:
        double.fail(error)
    finally:
        flow.close()


async def call_here(answer: Callable[[Any], Response], item: Request | Write) -> Response:
    """Call the function in this thread."""
    return answer(item)


class Double:
    """An object with a ``request`` method, in the place of a session: it is called as the reference client calls it.

    It returns body and headers, and raises ``KintoException``.
    """

    def __init__(self, session: Any) -> None:
        self._request: Callable[..., tuple[Any, Any]] = session.request
        server_url = getattr(session, "server_url", None)
        self._exchange = Exchange(server_url if isinstance(server_url, str) else "")
        self._refusal: KintoException | None = None

    def answer(self, item: Request | Write) -> Response:
        """Return the answer to one request of a flow."""
        if isinstance(item, BlockingTask):
            return item.work()
        exchange = self._exchange
        exchange.request, exchange.response, self._refusal = as_request(item), None, None
        method, path, options = _call_of(item, exchange.request)
        try:
            body, headers = self._request(method, path, **options)
        except KintoException as error:
            self._refusal = error
            if not isinstance(getattr(error.response, "status_code", None), int):
                raise
            exchange.response = _response(error.response.status_code, error.response.headers, body_of(error.response))
        else:
            exchange.response = _response(204 if body is None else 200, headers, body)
        return exchange.response

    def fail(self, error: KintoError) -> NoReturn:
        """Raise the exception that the caller gets for an error of the flow: its own, where it has raised one."""
        refusal = self._refusal
        if refusal is None:
            raise translate(error, self._exchange) from error
        if isinstance(error, KintoException):
            error.request, error.response = refusal.request, refusal.response
            raise error
        raise (refusal if isinstance(error, ResponseError) else translate(error, self._exchange)) from error


def _call_of(item: Request | Write, request: Request) -> tuple[str, str, dict[str, Any]]:
    """Return the arguments with which the reference client calls ``Session.request``."""
    method = request.method.lower()
    if isinstance(item, Write):
        conditions: dict[str, str] | None = dict(item.precondition.headers) or None
        if item.action is Action.PUT:
            data = None if item.new is None else dict(item.new)
            permissions = None if item.permissions is None else dict(item.permissions)
            return method, str(item.path), {"data": data, "permissions": permissions, "headers": conditions}
        if item.action is Action.DELETE:
            return method, str(item.path), {"headers": conditions}
    options: dict[str, Any] = {"headers": dict(request.headers)} if request.headers else {}
    if request.body is not None:
        options["payload"] = decode(request.body, "the request")  # raises for other bodies than JSON
    params = parse_qsl(request.query, keep_blank_values=True)
    return method, request.path, {**options, "params": dict(params)} if params else options


def _response(status: int, headers: Any, body: Any) -> Response:
    items = headers.items() if isinstance(headers, Mapping) else ()
    return Response(status, {str(name).lower(): str(value) for name, value in items}, content=body)
