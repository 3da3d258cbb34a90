"""Translation of the errors of the libraries below into ours.

No error of ``requests``, ``urllib3`` or the operating system leaves the transport.
"""

from __future__ import annotations

import http.client
import ssl
import traceback
import zlib
from collections.abc import Iterator
from typing import TypeAlias

import requests
from urllib3 import exceptions as urllib3_errors

from kinto_orm.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    DeadlineError,
    KintoError,
    ProtocolError,
    TransportError,
)

FOREIGN_ERRORS = (
    OSError,  # also: every exception of requests
    urllib3_errors.HTTPError,
    http.client.HTTPException,
    zlib.error,
    ValueError,  # http.client and urllib3 refuse illegal headers and URLs with it
    Warning,  # where warnings are errors: urllib3 warns before it sends without verifying
)
"""All that sending may raise."""

UNSURE = "The server may have applied the request: read the object before you send it again."
HARMLESS = "Nothing was to be written: ask again."
LOST = f"the connection was lost. {UNSURE}"
NONE_SENT = "no connection, so nothing was sent. Check server_url, proxies and that the server is up."
TOO_SLOW = f"the answer took too long. {UNSURE}"
NO_HTTP = "the answer is no HTTP. Is server_url the address of a Kinto server?"
DAMAGED = f"the compressed answer is damaged or cut short. {UNSURE}"
NOT_ASKED_FOR = "the answer is compressed in a way not asked for."
NOT_SENT_SOMEHOW = "the request could not be sent: see the cause of this error."

Kind: TypeAlias = tuple[type[KintoError], str]
"""The class of an error, and its text."""


class FinalConnectionError(ConnectionFailedError):
    """No connection, for a reason that does not go away by trying again: TLS, credentials, a proxy that refuses."""


def translate(error: Exception, name: str, *, is_read: bool) -> KintoError:
    """Return our error for one of ``FOREIGN_ERRORS``, raised by the request of this name; its cause is set."""
    causes = list(_causes_of(error))
    kind, text = _classified(causes)
    if is_read:
        text = text.replace(UNSURE, HARMLESS)
    # Only what the operating system says: other texts may contain the URL of a proxy, with its password.
    reasons = [f" ({cause.strerror})" for cause in causes if isinstance(cause, OSError) and cause.strerror]
    translated = kind(f"{name}: {text}{''.join(reasons[-1:])}")
    translated.__cause__ = scrubbed(error)
    return translated


def scrubbed(error: BaseException) -> BaseException | None:
    """Return the error without the secrets that it and its causes hold; ``None`` where its text may be one.

    The libraries below attach requests, pools and connections to their errors, with credentials in clear, also in the
    local variables of the tracebacks. An error about a header or a URL shows it.
    """
    causes = list(_causes_of(error))
    for cause in causes:
        cause.__traceback__ = cause.__context__ = None
        for name, value in list(vars(cause).items()):
            if not isinstance(value, BaseException) and name != "__notes__":
                setattr(cause, name, None)
    return None if any(isinstance(cause, ValueError) for cause in causes) else error


def as_of_requests(error: Exception) -> Exception:
    """Return the error of ``requests`` for one of ``urllib3``, as an adapter of ``requests`` raises it."""
    reason = getattr(error, "reason", None) or error
    kinds = ((kind, ours) for kind, ours in _OF_REQUESTS if isinstance(reason, kind))
    return next((ours(error) for _, ours in kinds), None) or requests.ConnectionError(error)


_OF_REQUESTS: tuple[tuple[type[Exception], type[requests.RequestException]], ...] = (
    (urllib3_errors.NewConnectionError, requests.ConnectionError),
    (urllib3_errors.ConnectTimeoutError, requests.ConnectTimeout),
    (urllib3_errors.SSLError, requests.exceptions.SSLError),
    (urllib3_errors.ReadTimeoutError, requests.ReadTimeout),
    (urllib3_errors.InvalidHeader, requests.exceptions.InvalidHeader),
)

_NO_CONNECTION = (
    urllib3_errors.ConnectTimeoutError,  # also: refused, no such host
    urllib3_errors.ProxyError,
    urllib3_errors.ClosedPoolError,  # another thread called release() between two steps of ours
)
_TOO_SLOW = (requests.Timeout, urllib3_errors.TimeoutError, TimeoutError)
_BROKEN_OFF = (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionError)
_NO_HTTP = (http.client.HTTPException, urllib3_errors.InvalidHeader)
_BROKEN_SOMEHOW = (requests.ConnectionError, urllib3_errors.ProtocolError, urllib3_errors.SSLError)

# The first row counts of which any cause is an instance: from what says most to what says least.
_KINDS: tuple[tuple[tuple[type[Exception], ...], type[KintoError], str], ...] = (
    (_NO_CONNECTION, ConnectionFailedError, NONE_SENT),
    (_TOO_SLOW, DeadlineError, TOO_SLOW),
    (_BROKEN_OFF, ConnectionLostError, LOST),
    (_NO_HTTP, ProtocolError, NO_HTTP),
    (_BROKEN_SOMEHOW, ConnectionLostError, LOST),
    ((zlib.error,), ConnectionLostError, DAMAGED),
    ((requests.exceptions.ContentDecodingError,), ProtocolError, NOT_ASKED_FOR),
)


def _classified(causes: list[BaseException]) -> Kind:
    kind, text = _kind(causes)
    # A retrying adapter of the user's reports its last attempt only, and urllib3 calls itself for each one.
    if issubclass(kind, ConnectionFailedError) and any(_frames(cause, "urlopen") > 1 for cause in causes):
        return ConnectionLostError, LOST
    return kind, text


def _kind(causes: list[BaseException]) -> Kind:
    if any(_is_refusal(cause) for cause in causes):
        return FinalConnectionError, NONE_SENT
    if any(_is_of_handshake(cause) for cause in causes):
        return ConnectionFailedError, NONE_SENT
    for types, kind, text in _KINDS:
        if any(isinstance(cause, types) for cause in causes):
            return kind, text
    if any(isinstance(cause, ValueError) for cause in causes):
        name = type(causes[0]).__name__
        return TransportError, f"the request could not be sent: {name}. Check the headers, the URL and the proxies."
    return TransportError, NOT_SENT_SOMEHOW


def _is_refusal(cause: BaseException) -> bool:
    """Return whether TLS could not be agreed on, or a proxy refused to CONNECT: a retry would end the same."""
    is_tls = isinstance(cause, ssl.SSLError) and _is_of_handshake(cause)
    return is_tls or (isinstance(cause, OSError) and str(cause).startswith("Tunnel connection failed"))


def _is_of_handshake(cause: BaseException) -> bool:
    # urllib3 tells neither a TLS error nor a timeout of the handshake, before which nothing is sent, from a later one.
    return _frames(cause, "do_handshake") > 0


def _frames(cause: BaseException, name: str) -> int:
    """Return the number of calls of this function that the exception went through."""
    # A set: what is caught and raised again goes through the same frame twice.
    return len({frame for frame, _ in traceback.walk_tb(cause.__traceback__) if frame.f_code.co_name == name})


def _causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and the errors that it wraps, without ``__context__``, which may be our caller's."""
    yield error
    for inner in (error.__cause__, getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            yield from _causes_of(inner)
