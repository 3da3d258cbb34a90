"""The request, the response, and the transport that turns one into the other.

Flows yield requests and receive responses. Nothing here does I/O.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import IO, Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

T = TypeVar("T")

NO_HEADERS: Mapping[str, str] = {}

Content: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes]
"""A file by its path, its content, or an open file (in binary mode)."""

Target: TypeAlias = str | os.PathLike[str] | IO[bytes]
"""The place for a file: a path, or an open file (in binary mode)."""


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
    """Whether each write in it carries a precondition, so that sending it twice has no second effect."""
    reads_only: bool = False
    """Whether it only reads, although it is a POST."""
    takes_any_answer: bool = False
    """Whether a 5xx is an answer like any other, and not a reason to send the request again."""
    attempt: int = 1
    """Above 1: earlier requests for the same purpose failed, and the transport waits before it sends this one."""

    @property
    def target(self) -> str:
        """Path and query string, as they go on the wire."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def is_write(self) -> bool:
        """Whether the server may change something when it gets the request."""
        return self.method not in ("GET", "HEAD") and not self.reads_only

    @property
    def is_repeatable(self) -> bool:
        """Whether the transport may send it again after a lost answer."""
        return self.is_guarded or not self.is_write


class Response(NamedTuple):
    """The server's answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = NO_HEADERS
    body: bytes = b""
    content: Any = None
    """The decoded body of an answer inside a batch, which has no bytes."""
    is_repeated: bool = False
    """Whether an earlier attempt of this write lost its answer, and may have done what is refused now."""
    user: str | None = None
    """The principal whose credentials the request carried, where the client knows it."""
    asks_for_login: bool = False
    """Whether the credentials have run out and can be renewed; nothing of the request was applied."""

    @property
    def retry_after(self) -> float | None:
        """The pause before the next attempt that the server asks for, in seconds."""
        return retry_after(self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingTask(Request):
    """Blocking work between two requests: a file that is read, or fetched from another host.

    The runner calls ``work`` (in a thread when async) and sends its result into the flow.
    """

    method: str = "GET"
    path: str
    """The subject of the work, for messages."""
    work: Callable[[], Response]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Request):
    """A wait between two requests.

    The content of its response is the time of this machine's clock, in milliseconds since the epoch.
    """

    method: str = "GET"
    path: str = "a pause"
    seconds: float = 0


class DownloadOptions(NamedTuple):
    """How a file is downloaded."""

    overwrite: bool = False
    """Whether a file that is there already is replaced."""
    max_bytes: int | None = None
    """The largest file to accept; ``None`` for the size that its record says, else for a default."""
    allow_hosts: Collection[str] = ()
    """The hosts to which a redirect may lead, as ``host`` or ``host:port``."""
    keeps_same: bool = False
    """Whether the same file that is there already is not fetched again, although another one is replaced."""


class Download(NamedTuple):
    """A file of any host, its place, and what is known of it."""

    url: str
    target: Target
    size: int | None
    """In bytes; ``None`` where it is unknown."""
    sha256: str | None
    """In hexadecimal; ``None`` where it is unknown."""
    options: DownloadOptions


class Transport(Protocol):
    """The sender of requests. Raises ``TransportError`` where no answer arrives, never a foreign exception."""

    def send(self, request: Request) -> Response:
        """Send the request and return the answer, whatever its status; redirects are not followed."""
        ...

    async def asend(self, request: Request) -> Response:
        """Like :meth:`send`, without blocking the event loop. A cancelled call sends nothing more."""
        ...

    def release(self) -> None:
        """Close idle sockets; the transport stays usable."""
        ...

    def close(self) -> None:
        """Close all sockets; sending afterwards raises ``ClientClosedError``."""
        ...


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that is never suspended, because what it awaits blocks instead."""
    try:
        work.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("what blocks never suspends")  # pragma: no cover  the line above ends it


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds of ``Retry-After``, given as such or as a date; ``None`` for a missing or malformed header.

    https://www.rfc-editor.org/rfc/rfc9110#name-retry-after
    """
    value = headers.get("retry-after")
    if not value:
        return None
    seconds = whole_seconds(value.strip())
    return seconds if seconds is not None else _until(value.strip(), now or datetime.now(UTC))


def _until(date: str, now: datetime) -> float | None:
    try:
        when = parsedate_to_datetime(date)
        aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)  # a date in "-0000"
        return max(0.0, (aware - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def whole_seconds(text: str) -> float | None:
    """Return the number of seconds in a header; ``None`` for anything but a whole number of at most 10 digits."""
    # isdigit() alone is also true of "²" and of the digits of other scripts.
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None
