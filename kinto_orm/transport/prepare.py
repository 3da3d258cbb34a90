"""What all requests of a client have in common, and a request made ready with it: headers, length, credentials.

Whatever sends it, it is the same request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import requests
from requests import PreparedRequest
from requests.structures import CaseInsensitiveDict

from kinto_orm.protocol.messages import Request
from kinto_orm.transport.auth import Authenticator, own_headers, refuse_in_clear, signed

Verify: TypeAlias = bool | str
Certificate: TypeAlias = str | tuple[str, str] | None

POOL_SIZE = 32
"""How many connections are kept for the next requests."""


@dataclass(frozen=True, slots=True)
class WireOptions:
    """What every request has in common."""

    server_url: str
    auth: Authenticator | None = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    verify: Verify
    cert: Certificate
    proxies: dict[str, str] = field(repr=False)
    trust_env: bool
    is_clear: bool
    """Whether credentials that everybody on the way can read must not be sent."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one exchange may take, in seconds: for connecting, for each wait, and until all of it has come."""

    connect: float
    read: float
    whole: float


class Preparer:
    """Makes requests ready to be sent. All but the request itself is prepared once.

    ``sender`` is the library that sends, and its version. Raises ``ConfigurationError`` for credentials that everybody
    could read.
    """

    def __init__(self, options: WireOptions, *, sender: str | None = None, is_network: bool = True) -> None:
        self._options = options
        self._headers = CaseInsensitiveDict({**own_headers(sender), **options.headers})
        self._is_clear = options.is_clear and is_network
        if self._is_clear:
            refuse_in_clear(self._headers, options.auth)

    def prepare(self, request: Request) -> PreparedRequest:
        """The request with its credentials; an auth object of the user's may take its time."""
        prepared = signed(self._unsigned(request), self._options.auth)
        if self._is_clear:
            refuse_in_clear(prepared.headers)
        return prepared

    def _unsigned(self, request: Request) -> PreparedRequest:
        prepared = PreparedRequest()
        prepared.method = request.method
        prepared.url = self._options.server_url + request.target
        prepared.headers = self._headers.copy()
        prepared.headers.update(request.headers)
        prepared.body = request.body
        if request.body is not None or request.is_write:
            prepared.headers["Content-Length"] = str(len(request.body or b""))
        return prepared


def way_out(session: requests.Session, options: WireOptions) -> tuple[Verify, dict[str, str]]:
    """How this session shall verify servers, and its proxies: as the options say, and where they let it, as the
    environment does.
    """
    url, proxies = options.server_url, dict(options.proxies)
    settings: Any = session.merge_environment_settings(url, proxies, None, options.verify, None)
    return settings["verify"], dict(settings["proxies"])
