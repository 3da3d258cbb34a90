"""The values that travel: a request, and the response to it.

Flows yield requests and receive responses; transports turn the one into the other. Nothing here does I/O.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, TypeAlias

from kinto_orm.protocol.frozen import quickly_made

NO_HEADERS: Mapping[str, str] = {}

Content: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes]
"""A file by its path, its content, or an open file (in binary mode)."""

Target: TypeAlias = str | os.PathLike[str] | IO[bytes]
"""Where a file is put: a path, or an open file (in binary mode)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, relative to the server's root URL."""

    method: str
    path: str
    """Percent-encoded, from the slash after the version prefix: ``/buckets/b``."""
    query: str = ""
    """Percent-encoded query string, without the question mark."""
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    body: bytes | None = None
    is_guarded: bool = False
    """Whether each write in it carries a precondition, so that sending it twice does no more than sending it once."""
    reads_only: bool = False
    """Whether it only reads, although it is a POST."""
    takes_any_answer: bool = False
    """Whether a 5xx is an answer like any other, so that nothing is asked for again because of it."""
    attempt: int = 1
    """Above 1: earlier requests for the same purpose were in vain, and the transport waits before it sends this."""

    @property
    def target(self) -> str:
        """Path and query string, as they go on the wire."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def is_write(self) -> bool:
        """Whether the server may change something because of it."""
        return self.method not in ("GET", "HEAD") and not self.reads_only

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent again where the answer got lost."""
        return self.is_guarded or not self.is_write


@quickly_made
@dataclass(frozen=True, slots=True)
class Response:
    """What the server answered. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    body: bytes = b""
    content: Any = None
    """The body already decoded: the answers inside a batch have it, and no bytes."""
    retry_after: float | None = None
    """The seconds that the server asks to wait before the next attempt, where it does."""
    is_repeated: bool = False
    """Whether an earlier attempt of this very write lost its answer: what is refused now may have been done then."""
    asks_for_login: bool = False
    """Whether nothing of the request was applied, for credentials that have run out and that can be got again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingTask(Request):
    """Work that is done between two requests and takes its time: a file that is read, or fetched from another host.

    Whoever moves the flow calls it, in a thread where the flow is awaited; what it gives is the response.
    """

    method: str = "GET"
    path: str
    """What it is about, for messages."""
    work: Callable[[], Response]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Request):
    """A wait between two requests.

    The content of its response is the time of this machine's clock, in milliseconds since the epoch.
    """

    method: str = "GET"
    path: str = "a pause"
    seconds: float = 0


class Transport(Protocol):
    """What sends a request. Raises ``TransportError`` where no answer came, never a foreign exception."""

    def send(self, request: Request) -> Response:
        """The answer, whatever its status; 3xx are not followed."""
        ...

    async def asend(self, request: Request) -> Response:
        """Like :meth:`send`, without blocking the event loop. Where it is cancelled, nothing more is sent."""
        ...

    def release(self) -> None:
        """Closes idle sockets; the transport stays usable."""
        ...

    async def arelease(self) -> None:
        """Like :meth:`release`."""
        ...

    def close(self) -> None:
        """Closes everything; sending afterwards raises ``ClientClosedError``."""
        ...

    async def aclose(self) -> None:
        """Like :meth:`close`."""
        ...


def whole_seconds(text: str) -> float | None:
    """The number of seconds in a header; ``None`` for anything but a whole number of at most 10 digits."""
    # isdigit() alone is also true of "²" and of the digits of other scripts.
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None
