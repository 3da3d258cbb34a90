"""Flows that are looked at on their way, and flows that a user's own ``request`` moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

from kinto_orm.errors import KintoError
from kinto_orm.kinto_http.exceptions import Exchange, KintoException
from kinto_orm.protocol.json_values import decode, encode
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.writes import Flow, Write, encode_request

T = TypeVar("T")

logger = logging.getLogger("kinto_http")

Answer = Callable[..., tuple[Any, Any]]
"""A function like ``Session.request``: it gives body and headers, and raises ``KintoException``."""


def watched(flow: Flow[T], exchange: Exchange) -> Flow[T]:
    """The same flow; ``exchange`` knows its last request and answer."""
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
    """The rest of a flow that has already said what it sends first."""
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
    """The request that the item of a flow is."""
    return encode_request(item) if isinstance(item, Write) else item


def moved_by_request(request: Answer, flow: Flow[T]) -> T:
    """The result of the flow, each of whose requests goes through that function."""
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
        options["payload"] = decode(asked.body, "the request")  # what is no JSON cannot go this way
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
