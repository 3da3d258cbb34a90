"""The values that travel: a request, and the response to it.

Flows yield requests and receive responses; transports turn the one into the other. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

NO_HEADERS: Mapping[str, str] = {}


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

    @property
    def target(self) -> str:
        """Path and query string, as they go on the wire."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def is_write(self) -> bool:
        """Whether the server may change something because of it."""
        return self.method not in ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Response:
    """What the server answered. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    body: bytes = b""
    content: Any = None
    """The body already decoded: the answers inside a batch have it, and no bytes."""


class Transport(Protocol):
    """What sends a request. Raises ``TransportError`` where no answer came, never a foreign exception."""

    def send(self, request: Request) -> Response:
        """The answer, whatever its status; 3xx are not followed."""
        ...

    def release(self) -> None:
        """Closes idle sockets; the transport stays usable."""
        ...

    def close(self) -> None:
        """Closes everything; sending afterwards raises ``ClientClosedError``."""
        ...
