"""The exceptions of the reference client, and the translation of ours into them.

All of them are a ``KintoError``, too, and the translated error is their ``__cause__``: so ``except KintoError`` works
on both sides of a migration.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.structures import CaseInsensitiveDict

from kinto_orm.errors import BackoffError, DeadlineError, KintoError, ResponseError, TransportError
from kinto_orm.protocol.messages import Request, Response


@dataclass(frozen=True)
class AskedRequest:
    """The request, with the names of ``requests``."""

    method: str
    path_url: str
    url: str
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class GivenResponse:
    """The answer, with the names of ``requests``. Unlike theirs, it is true for every status."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status_code < 400

    def json(self) -> Any:
        """Return the decoded body; raise ``ValueError`` where it is not JSON."""
        return json.loads(self.content)


class KintoException(KintoError):
    """An error: ``message``, and ``request`` and ``response`` where there are any."""

    request: Any = None
    response: Any = None

    def __init__(self, message: str | None = None, exception: BaseException | None = None) -> None:
        super().__init__(message)
        self.message = message
        if exception is not None:
            self.request = getattr(exception, "request", None)
            self.response = getattr(exception, "response", None)

    def __str__(self) -> str:
        if self.request is not None and self.response is not None:
            request_line = f"{self.request.method} {self.request.path_url} - {self.response.status_code}"
            return f"{request_line} {self.message}"
        return self.message or ""


class BucketNotFound(KintoException):
    """There is no such bucket, or the caller may not read it: Kinto does not tell them apart."""


class CollectionNotFound(KintoException):
    """There is no such collection."""


class BackoffException(KintoException):
    """The server asks for a pause of ``backoff`` seconds, which is longer than the client may wait."""

    def __init__(self, message: str | None, backoff: float, exception: BaseException | None = None) -> None:
        super().__init__(message, exception)
        self.args = (message, backoff)
        self.backoff = backoff


class ConnectionException(KintoException, requests.exceptions.ConnectionError):
    """No answer arrived. The reference client raises the error of ``requests``: this one is that, too."""


class TimeoutException(ConnectionException, requests.exceptions.Timeout):
    """The answer did not arrive in time."""


class KintoBatchException(KintoException):
    """Some requests of a batch failed.

    ``exceptions`` has one for each of them, with its ``request`` and ``response``; ``results`` holds pairs of body and
    headers, one for each ``POST /batch``.
    """

    def __init__(self, exceptions: Sequence[KintoException], results: Sequence[tuple[Any, Any]]) -> None:
        super().__init__("\n".join(str(one) for one in exceptions))
        self.args = (exceptions, results)
        self.exceptions = list(exceptions)
        self.results = list(results)

    def __str__(self) -> str:
        return self.message or ""


@dataclass
class Exchange:
    """The last request of a call and its answer, for an exception."""

    server_url: str = ""
    request: Request | None = None
    response: Response | None = None

    def show_request(self) -> AskedRequest | None:
        """Return the request as exceptions show it."""
        if self.request is None:
            return None
        path = urlsplit(self.server_url).path.rstrip("/") + self.request.target
        url = self.server_url.rstrip("/") + self.request.target
        return AskedRequest(self.request.method, path, url, self.request.body)


def given_response(response: Response) -> GivenResponse:
    """Return the response with the names of ``requests``."""
    content = response.body if response.content is None else json.dumps(response.content).encode()
    return GivenResponse(response.status, CaseInsensitiveDict(response.headers), content)


def translate(error: KintoError, exchange: Exchange) -> KintoException:
    """Return the reference client's exception for one of ours; to be raised ``from`` it.

    A ``KintoException`` is returned as it is, with request and response.
    """
    asked, given = exchange.show_request(), None if exchange.response is None else given_response(exchange.response)
    if isinstance(error, KintoBatchException):
        return error  # its exceptions are translated already
    if isinstance(error, KintoException):
        translation = error
    elif isinstance(error, BackoffError):
        return BackoffException(str(error), error.retry_after)
    elif isinstance(error, TransportError):
        given = None  # an earlier answer is not the answer to this request
        translation = (TimeoutException if isinstance(error, DeadlineError) else ConnectionException)(str(error))
    elif isinstance(error, ResponseError) and given is not None and given.status_code == error.status:
        translation = KintoException(f"{given.status_code} - {body_of(given)}")
    else:
        given = None  # refused before it was sent, or after the answer to another request
        translation = KintoException(str(error))
    translation.request, translation.response = asked, given
    return translation


@contextmanager
def translate_errors(exchange: Exchange | None = None) -> Generator[None]:
    """Turn the errors of the block into those of the reference client, which show the exchange."""
    try:
        yield
    except KintoError as error:
        translation = translate(error, exchange or Exchange())
        if translation is error:
            raise
        raise translation from error


def body_of(response: Any) -> Any:
    """Return the decoded body of a response with the names of ``requests``; its text where it is not JSON."""
    try:
        return response.json()
    except ValueError:
        return response.text
