"""What all requests of a client have in common, and a request made ready with it: headers, length, credentials.

Whatever sends it, it is the same request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import requests
from requests import PreparedRequest
from requests.structures import CaseInsensitiveDict

from kinto_orm.protocol.messages import Request
from kinto_orm.transport.auth import Authenticator, is_plain, own_headers, refuse_in_clear, signed

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


class Limits(NamedTuple):
    """How long one exchange may take, in seconds: for connecting, for each wait, and until all of it has come."""

    connect: float
    read: float
    whole: float


class Preparer:
    """Headers, length and credentials of requests; all but the request itself is prepared once.

    ``sender`` is the library that sends, and its version. Raises ``ConfigurationError`` for credentials that everybody
    could read.
    """

    def __init__(self, options: WireOptions, *, sender: str | None = None, is_network: bool = True) -> None:
        self._options = options
        given = {name.lower() for name in options.headers}
        own = {name: value for name, value in own_headers(sender).items() if name.lower() not in given}
        self._headers = {**own, **options.headers}
        self._names = {name.lower(): name for name in self._headers}
        self._plain_auth = options.auth if is_plain(options.auth) else None
        self._is_clear = options.is_clear and is_network
        if self._is_clear:
            refuse_in_clear(CaseInsensitiveDict(self._headers), options.auth)

    def headers(self, request: Request) -> dict[str, str]:
        """Return the headers of the request, with credentials that are plain."""
        headers = self._headers.copy()
        for name, value in request.headers.items():
            headers[self._names.get(name.lower(), name)] = value
        if request.body is not None or request.is_write:
            headers["Content-Length"] = str(len(request.body or b""))
        if self._plain_auth is not None:
            headers[self._names.get("authorization", "Authorization")] = self._plain_auth.reveal()
        return headers

    def prepare(self, request: Request) -> PreparedRequest:
        """Return the request with its credentials; an auth object of the user's may take its time."""
        prepared = PreparedRequest()
        prepared.method = request.method
        prepared.url = self._options.server_url + request.target
        prepared.headers = CaseInsensitiveDict(self.headers(request))
        prepared.body = request.body
        prepared = signed(prepared, self._options.auth)
        if self._is_clear:
            refuse_in_clear(prepared.headers)
        return prepared


def way_out(session: requests.Session, options: WireOptions) -> tuple[Verify, dict[str, str]]:
    """How this session shall verify servers, and its proxies: as the options say, and where they let it, as the
    environment does.
    """
    url, proxies = options.server_url, dict(options.proxies)
    settings: Any = session.merge_environment_settings(url, proxies, None, options.verify, None)
    return settings["verify"], dict(settings["proxies"])
