"""What went wrong with one exchange by ``httpx``: its errors, as one of ours.

httpx says what it was doing when something broke, so there is less to guess than with ``requests``.
"""

from __future__ import annotations

import ssl
import zlib
from dataclasses import dataclass
from typing import Any

import requests

from kinto_orm.errors import ConnectionFailedError, ConnectionLostError, DeadlineError, KintoError, ProtocolError
from kinto_orm.transport.requests_errors import (
    DAMAGED,
    LOST,
    NO_HTTP,
    NONE_SENT,
    NOT_ASKED_FOR,
    TOO_SLOW,
    FinalConnectionError,
    Kind,
    as_ours,
    causes_of,
    not_sendable,
)


@dataclass(slots=True)
class Progress:
    """How far an exchange has come."""

    is_ready: bool = False
    """Whether the request has its credentials, and httpx has it."""
    is_sent: bool = False
    """Whether the server may have some of it."""
    has_head: bool = False
    """Whether status and headers of the answer have come."""
    _opened: Any = None

    async def note(self, event: str, info: dict[str, Any]) -> None:
        """Hears from httpcore what it does: https://www.encode.io/httpcore/extensions/#trace"""
        # A proxy is asked to CONNECT by a request of its own.
        if event == "http11.send_request_headers.started":
            self.is_sent = info["request"].method != b"CONNECT"
        elif event.endswith("connect_tcp.complete"):
            self._opened = info["return_value"]

    async def hang_up(self) -> None:
        """Closes the connection that was made for this exchange: httpcore forgets it where TLS is not agreed on."""
        if self._opened is not None:
            await self._opened.aclose()


def translate_httpx(error: Exception, name: str, progress: Progress) -> KintoError:
    """Our error for what was raised by the request of this name; its cause is set."""
    causes = list(causes_of(error))
    if not progress.has_head and _is_unsendable(causes):
        failure = as_ours(error, name, not_sendable(error))
        failure.__cause__ = None  # it shows the header or the URL that it refuses
        return failure
    return as_ours(error, name, _of_answer(causes, progress) if progress.is_sent else _of_connection(causes))


def _is_unsendable(causes: list[BaseException]) -> bool:
    import httpx

    kinds = (httpx.LocalProtocolError, httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError)
    return any(isinstance(cause, kinds) for cause in causes)


def _of_connection(causes: list[BaseException]) -> Kind:
    """Nothing was sent; where TLS could not be agreed on, or a proxy refused, next time it will be the same."""
    import httpx

    is_refusal = any(isinstance(cause, ssl.SSLError | httpx.ProxyError) for cause in causes)
    return FinalConnectionError if is_refusal else ConnectionFailedError, NONE_SENT


def _of_answer(causes: list[BaseException], progress: Progress) -> Kind:
    import httpx

    if any(isinstance(cause, httpx.TimeoutException | TimeoutError) for cause in causes):
        return DeadlineError, TOO_SLOW
    if any(isinstance(cause, zlib.error) for cause in causes):
        return ConnectionLostError, DAMAGED
    if any(isinstance(cause, requests.exceptions.ContentDecodingError) for cause in causes):
        return ProtocolError, NOT_ASKED_FOR
    # Of h11: httpcore itself says that the connection was closed.
    if not progress.has_head and any(type(cause).__module__.startswith("h11.") for cause in causes):
        return ProtocolError, NO_HTTP
    return ConnectionLostError, LOST
