"""The exceptions of the reference client, by their names, and what each of ours becomes.

All of them are ``KintoError`` too, and the error that they stand for is their ``__cause__``: so ``except KintoError``
works on both sides of a migration.
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
    """What was asked, with the names of ``requests``."""

    method: str
    path_url: str
    url: str
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class GivenResponse:
    """What was answered, with the names of ``requests``. Unlike there, it is true whatever the status."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether the status says so."""
        return self.status_code < 400

    def json(self) -> Any:
        """The body, decoded; raises ``ValueError`` where it is not JSON."""
        return json.loads(self.content)


class KintoException(KintoError):
    """What went wrong: ``message``, and ``request`` and ``response`` where there are any."""

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
            said = f"{self.request.method} {self.request.path_url} - {self.response.status_code}"
            return f"{said} {self.message}"
        return self.message or ""


class BucketNotFound(KintoException):
    """There is no such bucket, or it may not be read: Kinto does not tell them apart."""


class CollectionNotFound(KintoException):
    """There is no such collection."""


class BackoffException(KintoException):
    """The server asks not to be called for ``backoff`` seconds, which is longer than the client may wait."""

    def __init__(self, message: str | None, backoff: float, exception: BaseException | None = None) -> None:
        super().__init__(message, exception)
        self.args = (message, backoff)
        self.backoff = backoff


class ConnectionException(KintoException, requests.exceptions.ConnectionError):
    """No answer came. The reference client lets the error of ``requests`` through: this one is that, too."""


class TimeoutException(ConnectionException, requests.exceptions.Timeout):
    """The answer did not come in time."""


class KintoBatchException(KintoException):
    """Some requests of a batch failed.

    ``exceptions`` has one for each that did, with its own ``request`` and ``response``; ``results`` is what came back,
    as pairs of body and headers, one for each ``POST /batch``.
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
    """The last request of a call and the answer to it, for the exception that may come of them."""

    server_url: str = ""
    request: Request | None = None
    response: Response | None = None

    def asked(self) -> AskedRequest | None:
        """The request as exceptions show it."""
        if self.request is None:
            return None
        path = urlsplit(self.server_url).path.rstrip("/") + self.request.target
        url = self.server_url.rstrip("/") + self.request.target
        return AskedRequest(self.request.method, path, url, self.request.body)

    def given(self) -> GivenResponse | None:
        """The answer as exceptions show it."""
        return None if self.response is None else given_response(self.response)


def given_response(response: Response) -> GivenResponse:
    """The response with the names of ``requests``."""
    content = response.body if response.content is None else json.dumps(response.content).encode()
    return GivenResponse(response.status, CaseInsensitiveDict(response.headers), content)


def translated(error: KintoError, exchange: Exchange) -> KintoException:
    """The reference client's exception for one of ours; to be raised ``from`` it.

    A ``KintoException`` is returned as it is, with request and response.
    """
    asked, given = exchange.asked(), exchange.given()
    if isinstance(error, KintoBatchException):
        return error  # has those of each of its own
    if isinstance(error, KintoException):
        said = error
    elif isinstance(error, BackoffError):
        return BackoffException(str(error), error.retry_after)
    elif isinstance(error, TransportError):
        given = None  # what came before is not the answer to this request
        said = (TimeoutException if isinstance(error, DeadlineError) else ConnectionException)(str(error))
    elif isinstance(error, ResponseError) and given is not None and given.status_code == error.status:
        said = KintoException(f"{given.status_code} - {_said(given)}")
    else:
        given = None  # refused before it was sent, or because of the answer to something else
        said = KintoException(str(error))
    said.request, said.response = asked, given
    return said


@contextmanager
def translating() -> Generator[None]:
    """A block whose errors become those of the reference client."""
    try:
        yield
    except KintoException:
        raise
    except KintoError as error:
        raise translated(error, Exchange()) from error


def _said(given: GivenResponse) -> Any:
    try:
        return given.json()
    except ValueError:
        return given.text
