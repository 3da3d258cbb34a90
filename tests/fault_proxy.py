"""A proxy that fails on purpose, in front of a real Kinto on a socket.

It understands just enough HTTP to fail at a chosen moment: before a request reaches the server, or after the server
has applied it. A fault is a function of the exchange, so a test may also act in between::

    with FaultProxy(upstream) as proxy:
        client = Client(proxy.url)
        proxy.plan(drop_after, ok, reset_after, only=is_write)
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Self, TypeAlias
from urllib.parse import urlsplit

HEADERS_THAT_MATTER = ("content-type", "if-match", "if-none-match")
RETRY_AFTER = 0
"""What ``busy_before`` asks for, in seconds."""
DELAY = 0.03
"""How long ``delay`` holds the answer back, in seconds."""
PATIENCE = 60
"""Seconds after which a side that says nothing is given up: no test waits that long."""
LENGTH_OF_LOG = 10_000


class ClosedError(OSError):
    """The other side closed the connection in the middle of a message."""


@dataclass
class Seen:
    """One request as it came, and what was done with it."""

    method: str
    target: str
    headers: Mapping[str, str]
    """Those that say what the request means, with lower-case names."""
    body_hash: str
    wire_hash: str
    """Of the head and the body: equal only where a request was sent again byte for byte."""
    body: bytes = field(repr=False)
    fault: str = "ok"
    status: int | None = None
    """What the server answered; ``None`` where the request never reached it."""

    @property
    def path(self) -> str:
        """The target without its query string."""
        return self.target.partition("?")[0]

    @property
    def is_write(self) -> bool:
        """Whether it may change something."""
        return self.method not in ("GET", "HEAD")

    @property
    def is_applied(self) -> bool:
        """Whether the server did what it says."""
        return self.is_write and self.status is not None and self.status < 300

    @property
    def unguarded(self) -> list[str]:
        """The paths that it may change without a precondition: its own, or those in its batch."""
        if not self.path.endswith("/batch"):
            return [self.path] if self.is_write and not _has_precondition(self.headers) else []
        entries = json.loads(self.body)["requests"]
        return [
            entry["path"]
            for entry in entries
            if entry["method"] not in ("GET", "HEAD") and not _has_precondition(entry.get("headers", {}))
        ]


def _has_precondition(headers: Mapping[str, str]) -> bool:
    return not {"if-match", "if-none-match"}.isdisjoint(map(str.lower, headers))


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def encode(self, *, has_length: bool = True) -> bytes:
        """Return the whole answer as it goes on the wire."""
        skipped = _HOP_BY_HOP if has_length else {*_HOP_BY_HOP, "content-length"}
        lines = [f"HTTP/1.1 {self.status} {self.reason}"]
        lines += [f"{name}: {value}" for name, value in self.headers if name.lower() not in skipped]
        if not has_length:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


def _own_answer(status: int, reason: str, content_type: str, body: bytes, *headers: tuple[str, str]) -> Answer:
    own = (("Content-Type", content_type), ("Content-Length", str(len(body))))
    return Answer(status, reason, (*own, *headers), body)


class Exchange:
    """One request that waits for its answer: what a fault decides about."""

    def __init__(self, proxy: FaultProxy, connection: _Connection, seen: Seen, raw: bytes) -> None:
        self.proxy = proxy
        self.seen = seen
        self._connection = connection
        self._raw = raw

    def apply(self) -> Answer:
        """Forward the request and return the server's answer."""
        answer = self._connection.upstream.ask(self._raw, self.seen.method)
        self.seen.status = answer.status
        return answer

    def send(self, data: bytes) -> None:
        """Send these bytes to the client."""
        self._connection.client.sendall(data)

    def close(self) -> None:
        """Close the client's connection."""
        self._connection.is_open = False

    def reset(self) -> None:
        """Reset the client's connection, with a RST."""
        self._connection.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def hang(self) -> None:
        """Says nothing until the client gives up."""
        self._connection.client.recv(1)
        self.close()


Fault: TypeAlias = Callable[[Exchange], None]
Chooser: TypeAlias = Callable[[Seen], Fault]


def ok(exchange: Exchange) -> None:
    """No fault."""
    exchange.send(exchange.apply().encode())


def drop_before(exchange: Exchange) -> None:
    """Close the connection before the server gets the request."""
    exchange.close()


def drop_after(exchange: Exchange) -> None:
    """Let the server apply the request, then close the connection without an answer."""
    exchange.apply()
    exchange.close()


def reset_after(exchange: Exchange) -> None:
    """Let the server apply the request, then reset the connection."""
    exchange.apply()
    exchange.reset()


def hang_after(exchange: Exchange) -> None:
    """Let the server apply the request, then send nothing."""
    exchange.apply()
    exchange.hang()


def bad_gateway_after(exchange: Exchange) -> None:
    """Let the server apply the request, then answer 502 in HTML, as a proxy would."""
    exchange.apply()
    exchange.send(_own_answer(502, "Bad Gateway", "text/html", b"<html><h1>502 Bad Gateway</h1></html>").encode())


def busy_before(exchange: Exchange) -> None:
    """Kinto says 503 and does nothing.

    https://docs.kinto-storage.org/en/stable/api/1.x/errors.html
    """
    body = b'{"code":503,"errno":201,"error":"Service Unavailable","message":"Service temporary unavailable"}'
    answer = _own_answer(
        503, "Service Unavailable", "application/json", body, ("Retry-After", str(exchange.proxy.retry_after))
    )
    exchange.send(answer.encode())


def busy_html_before(exchange: Exchange) -> None:
    """Something in front of Kinto says 503, in HTML: the client cannot know that nothing was done."""
    exchange.send(_own_answer(503, "Service Unavailable", "text/html", b"<html><h1>503</h1></html>").encode())


def truncate(exchange: Exchange) -> None:
    """Let the server apply the request, then send half of its answer, under the length of the whole."""
    answer = exchange.apply()
    exchange.send(answer.encode()[: -(len(answer.body) // 2) or None])
    exchange.close()


def truncate_no_length(exchange: Exchange) -> None:
    """Let the server apply the request, then send half of its answer, without a length."""
    answer = exchange.apply()
    exchange.send(answer.encode(has_length=False)[: -(len(answer.body) // 2) or None])
    exchange.close()


def delay(exchange: Exchange) -> None:
    """Delay the answer, for less than the client waits."""
    answer = exchange.apply()
    exchange.proxy.is_stopping.wait(DELAY)
    exchange.send(answer.encode())


FAULTS: Mapping[str, Fault] = {
    "drop_before": drop_before,
    "drop_after": drop_after,
    "reset_after": reset_after,
    "hang_after": hang_after,
    "502_after": bad_gateway_after,
    "503_before": busy_before,
    "503_html_before": busy_html_before,
    "truncate": truncate,
    "truncate_no_length": truncate_no_length,
    "delay": delay,
}
"""All faults, by the names that tests go by."""


def meanwhile(act: Callable[[], object], then: Fault) -> Fault:
    """Let the server apply the request and another client act, then send the answer the way of ``then``."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.apply()
        act()
        then(_Applied(exchange, answer))

    return fault


class _Applied(Exchange):
    """An exchange whose request was forwarded already."""

    def __init__(self, exchange: Exchange, answer: Answer) -> None:
        super().__init__(exchange.proxy, exchange._connection, exchange.seen, b"")
        self._answer = answer

    def apply(self) -> Answer:
        return self._answer


def is_write(seen: Seen) -> bool:
    """Return whether the request may change something: for ``plan(only=...)``."""
    return seen.is_write


@dataclass
class _Plan:
    """Faults that are used up one by one, by the requests that they are meant for."""

    faults: deque[Fault]
    only: Callable[[Seen], bool]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, seen: Seen) -> Fault:
        with self._lock:
            return self.faults.popleft() if self.faults and self.only(seen) else ok


class FaultProxy:
    """A proxy on a free port of 127.0.0.1 that passes requests on to ``upstream``, a root URL, or loses them by plan.

    The server gets each client's connection as a separate one, kept alive as long. Nothing outlives :meth:`stop`.
    """

    def __init__(self, upstream: str, *, retry_after: int = RETRY_AFTER, length_of_log: int = LENGTH_OF_LOG) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None and parts.port is not None
        self.upstream = (parts.hostname, parts.port)
        self.retry_after = retry_after
        self.seen: deque[Seen] = deque(maxlen=length_of_log)
        self.choose: Chooser = lambda seen: ok
        self.is_stopping = threading.Event()
        self._lock = threading.Lock()
        self._is_idle = threading.Condition(self._lock)
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        self._acceptor = threading.Thread(target=self._accept, name="fault proxy")
        self._acceptor.start()

    def plan(self, *faults: Fault, only: Callable[[Seen], bool] = lambda seen: True) -> None:
        """Plan the faults of the next requests, or of those for which ``only`` is true; later ones pass."""
        self.choose = _Plan(deque(faults), only)

    @property
    def unused(self) -> int:
        """How many planned faults no request has met yet."""
        return len(self.choose.faults) if isinstance(self.choose, _Plan) else 0

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        with self._lock:
            return len(self._connections)

    def _accept(self) -> None:
        while not self.is_stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.settimeout(PATIENCE)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(client,), name="fault proxy's connection")
            with self._lock:
                self._connections[thread] = client
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, _Upstream(self.upstream) as upstream, client.makefile("rb") as incoming:
                connection = _Connection(client, upstream)
                while connection.is_open and (raw := read_message(incoming)):
                    self._answer(connection, raw)
        except (OSError, http.client.HTTPException):
            pass  # one side went away, or the proxy is being stopped: the other side sees the connection close
        finally:
            with self._lock:
                del self._connections[threading.current_thread()]
                self._is_idle.notify_all()

    def _answer(self, connection: _Connection, raw: bytes) -> None:
        seen = _describe(raw)
        fault = self.choose(seen)
        seen.fault = getattr(fault, "__name__", repr(fault))
        self.seen.append(seen)
        connection.is_open = b"\r\nconnection: close\r\n" not in raw.partition(b"\r\n\r\n")[0].lower() + b"\r\n"
        fault(Exchange(self, connection, seen, raw))

    def wait_until_idle(self, timeout: float = 60) -> None:
        """Return when no client is connected, so that no request is still on its way."""
        with self._is_idle:
            assert self._is_idle.wait_for(lambda: not self._connections, timeout), f"{self._connections} stay open"

    def stop(self) -> None:
        """Close every connection, and return when all threads have ended. A second call does nothing."""
        self.is_stopping.set()
        _shut(self._listener)
        self._listener.close()
        self._acceptor.join()
        with self._lock:
            open_ones = dict(self._connections)
            for client in open_ones.values():
                _shut(client)
        for thread in open_ones:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Upstream:
    """The proxy's own connection to the server, opened when it is first needed."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def ask(self, raw: bytes, method: str) -> Answer:
        """Return the server's answer to this request."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=PATIENCE)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(raw)
        with http.client.HTTPResponse(self._socket, method=method) as response:
            response.begin()
            return Answer(response.status, response.reason, tuple(response.getheaders()), response.read())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()


@dataclass
class _Connection:
    """A client's connection, and the one to the server that belongs to it."""

    client: socket.socket
    upstream: _Upstream
    is_open: bool = True


def read_message(incoming: BinaryIO) -> bytes:
    """Return the next request, head and body; nothing where the client has gone.

    Raises ``ClosedError`` in the middle of one. Requests in chunks are not understood: our client sends none.
    """
    head, length = b"", 0
    while line := incoming.readline():
        head += line
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        assert name.lower() != b"transfer-encoding", "requests in chunks are not understood"
        if line == b"\r\n":
            body = incoming.read(length)
            if len(body) < length:
                raise ClosedError
            return head + body
    if head:
        raise ClosedError
    return b""


def _describe(raw: bytes) -> Seen:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    kept = {name: headers[name] for name in HEADERS_THAT_MATTER if name in headers}
    return Seen(method, target, kept, _hash(body), _hash(raw), body)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        each.shutdown(socket.SHUT_RDWR)
