"""Transports for tests: one that writes down what a client sends, one that answers from a script."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kinto_orm import Client
from kinto_orm.protocol.messages import Request, Response, Transport

PRECONDITIONS = ("If-Match", "If-None-Match")


@dataclass
class Wiretap:
    """Passes everything on to the real transport, and writes it down."""

    transport: Transport
    requests: list[Request] = field(default_factory=list)

    def send(self, request: Request) -> Response:
        self.requests.append(request)
        return self.transport.send(request)

    async def asend(self, request: Request) -> Response:
        self.requests.append(request)
        return await self.transport.asend(request)

    def release(self) -> None:
        self.transport.release()

    def close(self) -> None:
        self.transport.close()

    @property
    def said(self) -> list[str]:
        """Method and precondition of each request."""
        return [_say(request) for request in self.requests]

    @property
    def bodies(self) -> list[Any]:
        """The decoded body of each request."""
        return [None if request.body is None else json.loads(request.body) for request in self.requests]


def tap(client: Client) -> Wiretap:
    """Return the list of requests that the client sends from now on."""
    wire = Wiretap(client._connection.transport)
    client._connection.transport = wire
    return wire


def _say(request: Request) -> str:
    conditions = [f"{name}: {request.headers[name]}" for name in PRECONDITIONS if name in request.headers]
    return " ".join([request.method, *conditions])


@dataclass
class Script:
    """Answers with each response in turn."""

    responses: list[Response]

    def send(self, request: Request) -> Response:
        return self.responses.pop(0)

    async def asend(self, request: Request) -> Response:
        return self.send(request)

    def release(self) -> None: ...

    def close(self) -> None: ...


def scripted_client(*responses: Response) -> Client:
    """Return a client whose server gives just this answer."""
    client = Client("http://localhost:8888/v1", bucket="payments", collection="todos")
    client._connection.transport = Script(list(responses))
    return client


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    return Response(status, headers or {}, json.dumps(content).encode())
