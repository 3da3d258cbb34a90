"""What a failure means, how long to wait, and the one place that sends a request again.

In this version only what certainly never left is sent again: see ``ConnectionFailedError``.
"""

from __future__ import annotations

import http.client
import math
import random
import ssl
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, cast

import requests
from urllib3 import exceptions as urllib3_errors

from kinto_orm.errors import (
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    DeadlineError,
    KintoError,
    ProtocolError,
    TransportError,
)

T = TypeVar("T")

Timeout: TypeAlias = float | tuple[float | None, float | None] | None
"""Seconds for each wait for the network: one number for all, or ``(connect, read)``; ``None`` for no limit."""

FOREIGN_ERRORS = (
    OSError,  # also: every exception of requests
    urllib3_errors.HTTPError,
    http.client.HTTPException,
    zlib.error,
    ValueError,  # http.client and urllib3 refuse illegal headers and URLs with it
)
"""All that sending may raise."""

UNSURE = "The server may have applied the request: read the object before you send it again."
_LOST = f"the connection was lost. {UNSURE}"
_NONE_SENT = "no connection, so nothing was sent. Check server_url, proxies and that the server is up."


class FinalConnectionError(ConnectionFailedError):
    """No connection, for a reason that does not go away by trying again: TLS, credentials, a proxy that refuses."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how fast a request is sent again. All times are seconds.

    ``retries`` is how often after the first time; ``retry_after`` a fixed wait between two attempts, otherwise the
    wait is a random one, up to ``base`` at first, doubled each time and never above ``cap``. ``deadline`` bounds a
    whole call: all its attempts and the waits between them. ``clock`` must be monotonic; ``clock``, ``sleep`` and
    ``random`` (a float from 0 to 1) are replaced by tests. Raises ``ConfigurationError``.
    """

    retries: int = 3
    retry_after: float | None = None
    base: float = 0.25
    cap: float = 20.0
    deadline: float = 120.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        if not _is_number(self.retries) or not isinstance(cast(object, self.retries), int) or self.retries < 0:
            raise ConfigurationError(f"retry is a whole number of retries from 0 up, not {self.retries!r}.")
        _check_seconds("retry_after", 0 if self.retry_after is None else self.retry_after)
        for name in ("base", "cap", "deadline"):
            _check_seconds(name, getattr(self, name))
        if self.deadline == 0:
            raise ConfigurationError("deadline is above 0: it bounds a whole call, in seconds.")

    def wait(self, attempt: int) -> float:
        """The seconds to wait after this attempt, the first being 1."""
        if self.retry_after is not None:
            return self.retry_after
        # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        # The exponent is bounded because 2.0 ** 1024 overflows.
        return self.random() * min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))


def send_with_retry(
    send: Callable[[int, float], T],
    policy: RetryPolicy,
    on_retry: Callable[[int, float, ConnectionFailedError], None],
) -> T:
    """What ``send(attempt, deadline)`` gives; the deadline is a time of ``policy.clock``.

    Before each new attempt ``on_retry(attempt, wait, error)`` is told which one failed, how, and the seconds of the
    wait. Raises what ``send`` raised, at once when another wait would end after the deadline.
    """
    deadline = policy.clock() + policy.deadline
    attempt = 1
    while True:
        try:
            return send(attempt, deadline)
        except ConnectionFailedError as error:
            wait = policy.wait(attempt)
            if not _is_worthwhile(error, attempt, policy) or policy.clock() + wait >= deadline:
                raise
            on_retry(attempt, wait, error)
        policy.sleep(wait)
        attempt += 1


def _is_worthwhile(error: ConnectionFailedError, attempt: int, policy: RetryPolicy) -> bool:
    return attempt <= policy.retries and not isinstance(error, FinalConnectionError)


def parse_timeout(timeout: Timeout) -> tuple[float, float]:
    """The seconds for connecting and for each read, infinity for no limit. Raises ``ConfigurationError``."""
    pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if len(pair) != 2 or not all(seconds is None or (_is_number(seconds) and seconds > 0) for seconds in pair):
        raise ConfigurationError(f"timeout is (connect, read), in seconds above 0, or one for both, not {timeout!r}.")
    connect, read = (math.inf if seconds is None else seconds for seconds in pair)
    return connect, read


def translate(error: Exception, name: str) -> KintoError:
    """Our error for one of ``FOREIGN_ERRORS``, raised by the request of this name; to be raised ``from`` it."""
    # The prepared request holds the credentials in clear: it must not travel along as part of the cause.
    if isinstance(error, requests.RequestException):
        error.request = None
    causes = list(_causes(error))
    kind, text = _classified(causes)
    return kind(f"{name}: {text}{_reason(causes)}")


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
    (_NO_CONNECTION, ConnectionFailedError, _NONE_SENT),
    (_TOO_SLOW, DeadlineError, f"the answer took too long. {UNSURE}"),
    (_BROKEN_OFF, ConnectionLostError, _LOST),
    (_NO_HTTP, ProtocolError, "the answer is no HTTP. Is server_url the address of a Kinto server?"),
    (_BROKEN_SOMEHOW, ConnectionLostError, _LOST),
    ((zlib.error,), ConnectionLostError, f"the compressed answer is damaged or cut short. {UNSURE}"),
    ((requests.exceptions.ContentDecodingError,), ProtocolError, "the answer is compressed in a way not asked for."),
)


def _classified(causes: list[BaseException]) -> tuple[type[KintoError], str]:
    kind, text = _kind(causes)
    # A retrying adapter of the user's reports its last attempt only, and urllib3 calls itself for each one.
    if issubclass(kind, ConnectionFailedError) and any(_frames(cause, "urlopen") > 1 for cause in causes):
        return ConnectionLostError, _LOST
    return kind, text


def _kind(causes: list[BaseException]) -> tuple[type[KintoError], str]:
    if any(_is_refusal(cause) for cause in causes):
        return FinalConnectionError, _NONE_SENT
    if any(_is_of_handshake(cause) for cause in causes):
        return ConnectionFailedError, _NONE_SENT
    for types, kind, text in _KINDS:
        if any(isinstance(cause, types) for cause in causes):
            return kind, text
    return TransportError, "the request could not be sent: see the cause of this error."


def _is_refusal(cause: BaseException) -> bool:
    """Whether TLS could not be agreed on, or a proxy refused to CONNECT: next time it will be the same."""
    is_tls = isinstance(cause, ssl.SSLError) and _is_of_handshake(cause)
    return is_tls or (isinstance(cause, OSError) and str(cause).startswith("Tunnel connection failed"))


def _is_of_handshake(cause: BaseException) -> bool:
    # urllib3 tells neither a TLS error nor a timeout of the handshake, before which nothing is sent, from a later one.
    return _frames(cause, "do_handshake") > 0


def _frames(cause: BaseException, name: str) -> int:
    """How many calls of this function the exception went through."""
    # A set: what is caught and raised again goes through the same frame twice.
    return len({frame for frame, _ in traceback.walk_tb(cause.__traceback__) if frame.f_code.co_name == name})


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps. Not ``__context__``: there could be anything that our caller was handling."""
    yield error
    for inner in (error.__cause__, getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            yield from _causes(inner)


def _reason(causes: list[BaseException]) -> str:
    # Only what the operating system says: other texts may contain the URL of a proxy, with its password.
    reasons = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return f" ({reasons[-1]})" if reasons else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_seconds(name: str, value: float) -> None:
    if not _is_number(value) or value < 0:
        raise ConfigurationError(f"{name} is a number of seconds from 0 up, not {value!r}.")
