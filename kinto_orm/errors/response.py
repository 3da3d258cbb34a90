"""An answer came and said no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kinto_orm.errors.usage import KintoError, rebuild

BODY_EXCERPT = 500


class ResponseError(KintoError):
    """The server answered, and said no.

    ``status`` is the HTTP status, ``errno`` Kinto's own number, ``details`` what Kinto says in detail,
    ``body`` the beginning of the answer (at most 500 characters).
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
    """What is wrong with one field: the names are those that pydantic gives to the same."""

    loc: tuple[str | int, ...]
    """The path of the field, by wire names and positions; empty where Kinto names none."""
    msg: str
    location: str = "body"
    """The part of the request: ``body``, ``querystring``, ``path`` or ``header``."""

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.loc)) or self.location}: {self.msg}"


class BadRequestError(ResponseError):
    """400 and the other refusals of what was sent.

    ``errors`` has one entry for each field that Kinto names, by Kinto's names for them: ``("data", "members", 0)``,
    or ``("_limit",)`` of the query string.
    """

    errors: tuple[FieldError, ...] = ()


class SchemaValidationError(BadRequestError):
    """400: the JSON schema of the collection, or of the bucket, refused the object; nothing was stored.

    ``errors`` has what Kinto says, which is the first thing that does not fit, with its path in the data:
    ``("address", "zip")``. Kinto itself tells the end of the path only; the rest is found in what was sent, where only
    one field can be meant.
    https://docs.kinto-storage.org/en/stable/api/1.x/collections.html#collection-json-schema
    """


class UnauthorizedError(ResponseError):
    """401: no credentials, or wrong ones."""


class ForbiddenError(ResponseError):
    """403: not allowed, or a bucket that does not exist (Kinto does not tell them apart)."""


class NotFoundError(ResponseError, LookupError):
    """404: no such object."""


class MethodNotAllowedError(ResponseError):
    """405: also what a read-only server answers to writes."""


class ConcurrentWriteError(ResponseError):
    """409: two writers at the same moment; nothing was stored, the call may be repeated."""


class ServiceGoneError(ResponseError):
    """410: the service was shut down for good."""


class ServerError(ResponseError):
    """5xx: the server failed."""
