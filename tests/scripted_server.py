"""A server on a real socket that says what it was told to: for what a healthy Kinto never does.

Its fixtures ``serve``, ``connect``, ``waits`` and ``dead_url`` are in ``conftest.py``.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias

from kinto_orm import Client
from kinto_orm.transport.http import HttpTransport

Script: TypeAlias = bytes | Callable[[socket.socket], None]
Serve: TypeAlias = Callable[..., "Server"]
Connect: TypeAlias = Callable[..., HttpTransport]
Talk: TypeAlias = Callable[..., "tuple[Client, Server]"]

RECORDS = "/buckets/b/collections/c/records"


def answer(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def said(body: Any, status: str = "200 OK", *headers: str) -> bytes:
    """Return an answer of Kinto: anything as JSON, but bytes unchanged."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer(raw, "Content-Type: application/json", *headers, status=status)


def row(id: str = "x", **data: Any) -> dict[str, Any]:
    """Return a record as Kinto sends it."""
    return {"id": id, "last_modified": 5, **data}


def one(id: str = "x", **data: Any) -> bytes:
    """Return the answer that is this record."""
    return said({"data": row(id, **data)})


def page(*ids: str, token: int | None = None, host: str = "http://elsewhere/v1", etag: str = '"5"') -> bytes:
    """Return a page of records; ``token`` names the next one."""
    following = [] if token is None else [f"Next-Page: {host}{RECORDS}?_token={token}"]
    return said({"data": [row(id) for id in ids]}, "200 OK", f"ETag: {etag}", *following)


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


class Server:
    """Gives the n-th request the n-th script, the last one also to all later requests; remembers what came.

    A script is the bytes of an answer, or a function that does what it likes with the socket, which is then closed.
    """

    def __init__(self, *script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = list(script or [answer()])
        self.requests: list[bytes] = []
        self.connections = 0
        self._tls = tls
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.host}/v1"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):  # closed already
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            with connection, connection.makefile("rb") as incoming:
                while request := read_request(incoming):
                    script = self._next(request)
                    if not isinstance(script, bytes):
                        return script(connection)
                    connection.sendall(script)
        except OSError:
            pass  # the client, or the end of the test, closed the connection

    def _next(self, request: bytes) -> Script:
        with self._lock:
            self.requests.append(request)
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def header(self, name: str) -> str | None:
        """Return the header of the last request."""
        lines = self.requests[-1].split(b"\r\n\r\n")[0].decode("latin-1").splitlines()[1:]
        return {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}.get(name.lower())


def read_request(incoming: BinaryIO) -> bytes:
    head, length = b"", 0
    while line := incoming.readline():
        head += line
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        if line == b"\r\n":
            return head + incoming.read(length)
    return b""


def drip(data: bytes) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    return script


def hang(connection: socket.socket) -> None:
    connection.recv(1)  # nothing comes: returns when the client gives up


def hang_up(connection: socket.socket) -> None:
    """Close without an answer."""


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def send_and_close(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)
