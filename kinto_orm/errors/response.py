"""Errors of requests: no answer came, the answer is not from a Kinto, or the server refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinto_orm.errors.usage import KintoError, rebuild

BODY_EXCERPT = 500
PROTOCOL_MESSAGE = 600


class TransportError(KintoError):
    """No answer arrived."""


class ConnectionFailedError(TransportError):
    """No connection was made and nothing was sent, so sending again is always safe."""


class LoginFailedError(ConnectionFailedError):
    """Nothing was sent: the auth object got no credentials from its login server."""


class BackoffError(TransportError):
    """Nothing was sent: the server asks for a pause that the call may not take.

    ``retry_after`` is the rest of the pause, in seconds.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (type(self), self.args, {"retry_after": self.retry_after}))


class ConnectionLostError(TransportError):
    """The answer was lost: the server may or may not have applied the request."""


class DeadlineError(ConnectionLostError, TimeoutError):
    """The answer did not arrive in time: the server may or may not have applied the request."""


class AmbiguousWriteError(ConnectionLostError):
    """A write whose answer was lost was sent again; the new answer does not say whether the first one was applied.

    The new answer is the cause of this error.
    """


class ProtocolError(KintoError):
    """The answer is not one that a Kinto server sends.

    The message has less than 600 characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) < PROTOCOL_MESSAGE else f"{message[: PROTOCOL_MESSAGE - 2]}…")


class ResponseTooLargeError(ProtocolError):
    """The answer is larger than ``max_response_bytes``."""


class ResponseError(KintoError):
    """The server answered and refused the request.

    ``status`` is the HTTP status, ``errno`` Kinto's error number, ``details`` Kinto's explanation, ``body`` the
    beginning of the answer (at most 500 characters).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        method: str = "",
        path: str = "",
        errno: int | None = None,
        details: Any = None,
        body: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.method = method
        self.path = path
        self.errno = errno
        self.details = details
        self.body = body[:BODY_EXCERPT]
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own __reduce__ calls cls(message): it does not know the keyword-only arguments.
        return (rebuild, (type(self), self.args, {k: v for k, v in vars(self).items() if k != "resolution"}))


class RedirectError(ResponseError):
    """3xx: redirects are never followed, because a redirected write is a lost write."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error of one field, with the names that pydantic uses."""

    loc: tuple[str | int, ...]
    """The path of the field, by wire names and positions; empty where Kinto names none."""
    msg: str
    location: str = "body"
    """The part of the request: ``body``, ``querystring``, ``path`` or ``header``."""

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.loc)) or self.location}: {self.msg}"


class BadRequestError(ResponseError):
    """400, or another refusal of the request's content.

    ``errors`` has one entry for each field that Kinto names, by Kinto's names: ``("data", "members", 0)``, or
    ``("_limit",)`` of the query string.
    """

    errors: tuple[FieldError, ...] = ()


class SchemaValidationError(BadRequestError):
    """400: the JSON schema of the collection, or of the bucket, refused the object; nothing was stored.

    ``errors`` has Kinto's entry for the first value that does not fit, with its path in the data: ``("address",
    "zip")``. Kinto names only the end of the path. The client finds the rest in the data that it sent, where only one
    field fits.
    https://docs.kinto-storage.org/en/stable/api/1.x/collections.html#collection-json-schema
    """


class UnauthorizedError(ResponseError):
    """401: no credentials, or wrong ones."""


class ForbiddenError(ResponseError):
    """403: not allowed, or a bucket that does not exist (Kinto does not tell them apart)."""


class NotFoundError(ResponseError, LookupError):
    """404: no such object."""


class MethodNotAllowedError(ResponseError):
    """405: also the answer of a read-only server to writes."""


class ConcurrentWriteError(ResponseError):
    """409: two clients wrote at the same moment. Nothing was stored; the call may be repeated."""


class ServiceGoneError(ResponseError):
    """410: the service was shut down for good."""


class ServerError(ResponseError):
    """5xx: the server failed."""
