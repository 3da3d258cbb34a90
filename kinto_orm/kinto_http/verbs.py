"""The verbs of both clients from one definition, and the movement of their flows.

A verb is written once, as a method that returns a flow. :func:`verb` turns it into a method that runs the flow (on
``Client``) or awaits it (on ``AsyncClient``); checkers and editors see the parameters as they are written.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload
from uuid import UUID

from kinto_orm.errors import KintoError
from kinto_orm.kinto_http.endpoints import Endpoints, as_id
from kinto_orm.kinto_http.exceptions import Exchange, KintoException
from kinto_orm.protocol.json_values import decode, encode
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.paths import EntriesPath, Kind, ObjectPath, PluralPath
from kinto_orm.protocol.writes import Flow, Write, encode_request

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

Answer = Callable[..., tuple[Any, Any]]
"""A function like ``Session.request``, which returns body and headers and raises ``KintoException``."""

GIVEN_NOTHING: Any = inspect.Parameter.empty
"""The default of an id that deletes: an empty id or ``None`` that the caller gives there is a mistake."""


class Face:
    """The base of the clients; :attr:`session` carries out their calls."""

    session: Any
    endpoints: Endpoints
    bucket_name: Id | None
    collection_name: Id | None

    def _ids(self, kind: Kind, id: Id | None, bucket: Id | None = None, collection: Id | None = None) -> ObjectPath:
        """Return the path of an object; bucket and collection default to the client's."""
        ids = [self._bucket(id if kind is Kind.BUCKET else bucket)]
        if kind is Kind.RECORD:
            ids.append(self._collection(collection))
        if kind is Kind.COLLECTION:
            ids.append(self._collection(id))
        elif kind is not Kind.BUCKET:
            ids.append(as_id(self._needed(id, kind.value)))
        return ObjectPath(kind, tuple(ids))

    def _list(self, kind: Kind, bucket: Id | None = None, collection: Id | None = None) -> PluralPath:
        """Return the path of a list; bucket and collection default to the client's."""
        if kind is Kind.BUCKET:
            return PluralPath(kind)
        above = (self._bucket(bucket),)
        return PluralPath(kind, (*above, self._collection(collection)) if kind is Kind.RECORD else above)

    def _history(self, bucket: Id | None) -> EntriesPath:
        return EntriesPath("history", (self._bucket(bucket),))

    def _bucket(self, id: Id | None) -> str:
        return as_id(self._needed(self.bucket_name if id is None else id, "bucket"), "bucket")

    def _collection(self, id: Id | None) -> str:
        return as_id(self._needed(self.collection_name if id is None else id, "collection"), "collection")

    def _needed(self, id: Id | None, what: str) -> Id:
        if id is None:
            raise KintoException(f"Cannot get {what} endpoint, {what} is missing")
        return id

    def _deleted(self, id: Id | None, own: Id | None) -> Id | None:
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


def seen(original: Data, id: Id | None, if_match: Timestamp | None) -> tuple[Id | None, Timestamp | None]:
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
        def started(face: Face, /, *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
            return (yield from build(face, *args, **kwargs))  # errors of build() are raised where the flow runs, too

        def blocking(self: Face, /, *args: P.args, **kwargs: P.kwargs) -> T:
            return run(self.session, started(self, *args, **kwargs))

        async def awaiting(self: Face, /, *args: P.args, **kwargs: P.kwargs) -> T:
            return await arun(self.session, started(self, *args, **kwargs))

        self._blocking = _presented(blocking, build)
        self._awaiting = _presented(awaiting, build)
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


def _presented(function: Callable[..., Any], build: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, with the name, signature and docstring of the method it was made from."""
    functools.update_wrapper(function, build)
    signature = inspect.signature(build)
    result = str(signature.return_annotation).removeprefix("Flow[").removesuffix("]")
    function.__signature__ = signature.replace(return_annotation=result)  # type: ignore[attr-defined]  # inspect reads it
    return function


def run(session: Any, flow: Flow[T]) -> T:
    """Return the result of the flow, moved by a session or by a user's object in its place."""
    return session.run(flow) if hasattr(type(session), "run") else moved_by_request(session.request, flow)


async def arun(session: Any, flow: Flow[T]) -> T:
    """Like :func:`run`."""
    if hasattr(type(session), "arun"):
        return cast(T, await session.arun(flow))
    return await awaited_by_request(session.request, flow)


def watched(flow: Flow[T], exchange: Exchange) -> Flow[T]:
    """Run the flow, and store its last request and answer in ``exchange``."""
    try:
        item = next(flow)
        while True:
            exchange.request, exchange.response = as_request(item), None
            logger.info("%s %s", exchange.request.method, exchange.request.path)
            try:
                response = yield item
            except KintoError as error:
                item = flow.throw(error)
            else:
                exchange.response = response
                item = flow.send(response)
    except StopIteration as stop:
        return cast(T, stop.value)
    finally:
        flow.close()


def resumed(item: Request | Write, flow: Flow[T]) -> Flow[T]:
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


def moved_by_request(request: Answer, flow: Flow[T]) -> T:
    """Return the result of the flow, each of whose requests is sent by that function."""
    try:
        item = next(flow)
        while True:
            item = flow.send(_answered(request, as_request(item)))
    except StopIteration as stop:
        return cast(T, stop.value)
    finally:
        flow.close()


async def awaited_by_request(request: Answer, flow: Flow[T]) -> T:
    """Like :func:`moved_by_request`; the function runs in a thread."""
    try:
        item = next(flow)
        while True:
            item = flow.send(await asyncio.to_thread(_answered, request, as_request(item)))
    except StopIteration as stop:
        return cast(T, stop.value)
    finally:
        flow.close()


def _answered(request: Answer, asked: Request) -> Response:
    options: dict[str, Any] = {"headers": dict(asked.headers)}
    if asked.body is not None:
        options["payload"] = decode(asked.body, "the request")  # raises for other bodies than JSON
    try:
        body, headers = request(asked.method.lower(), asked.target, **options)
    except KintoException as error:
        if not isinstance(getattr(error.response, "status_code", None), int):
            raise
        return _refused(error.response)
    lower = {str(name).lower(): str(value) for name, value in dict(headers).items()}
    return Response(204, lower) if body is None else Response(200, lower, encode(body), body)


def _refused(response: Any) -> Response:
    headers = {str(name).lower(): str(value) for name, value in dict(response.headers).items()}
    return Response(response.status_code, headers, encode(response.json()))
