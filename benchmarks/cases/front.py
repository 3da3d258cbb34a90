"""A server in front of Kinto that counts the requests and, by its script, misbehaves."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import urlsplit

SECONDS_TO_WAIT = 5
"""A socket that says nothing for so long is given up."""


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    number: int
    """Counts from 0."""
    method: str
    target: str
    headers: Mapping[str, str]
    """With lower-case names."""
    body: bytes
    connection: socket.socket

    @property
    def is_write(self) -> bool:
        return self.method not in ("GET", "HEAD")


Script: TypeAlias = Callable[[Request], bytes | None]
"""The answer to a request; ``None`` closes the connection without one."""


class Front:
    """A server on a socket that answers by its script and remembers its requests."""

    def __init__(self, script: Script) -> None:
        self.requests: list[Request] = []
        self._script = script
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.host}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.is_write]

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):  # closed already
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as incoming:
            while request := self._read(incoming, connection):
                self.requests.append(request)
                answer = self._script(request)
                if answer is None:
                    return
                connection.sendall(answer)

    def _read(self, incoming: BinaryIO, connection: socket.socket) -> Request | None:
        method, _, rest = incoming.readline().decode("latin-1").partition(" ")
        headers: dict[str, str] = {}
        while line := incoming.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if not method:
            return None
        body = incoming.read(int(headers.get("content-length", 0)))
        return Request(len(self.requests), method, rest.split(" ")[0], headers, body, connection)


@contextmanager
def serving(script: Script) -> Generator[Front]:
    """Run a front that follows this script, as long as the block lasts."""
    front = Front(script)
    try:
        yield front
    finally:
        front.close()


def forwarder(url: str) -> Callable[[Request], bytes]:
    """Return a script that passes a request on to the server at this URL, and its answer back."""
    address = urlsplit(url).netloc

    def forward(request: Request) -> bytes:
        upstream = http.client.HTTPConnection(address, timeout=SECONDS_TO_WAIT)
        with contextlib.closing(upstream):
            upstream.request(request.method, request.target, request.body or None, dict(request.headers))
            response = upstream.getresponse()
            body = response.read()
            kept = [pair for pair in response.getheaders() if pair[0].lower() not in ("connection", "content-length")]
            return answer(body, *kept, status=f"{response.status} {response.reason}")

    return forward


def answer(body: bytes = b"", *headers: tuple[str, str], status: str = "200 OK") -> bytes:
    """Return an answer as it goes on the wire."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def said(content: Any, *headers: tuple[str, str], status: str = "200 OK") -> bytes:
    """Return an answer in JSON; bytes are sent unchanged."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return answer(body, ("Content-Type", "application/json"), *headers, status=status)


def row(id: str, **data: Any) -> dict[str, Any]:
    """Return a record as Kinto sends it."""
    return {"id": id, "last_modified": 5, **data}
