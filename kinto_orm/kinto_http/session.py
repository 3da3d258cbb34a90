"""The session: the options and connections of a client. A ``kinto_orm.Client`` moves its flows."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn, Self, TypeVar, cast
from urllib.parse import urlsplit

import requests
import requests.adapters
import urllib3
from requests.structures import CaseInsensitiveDict

from kinto_orm.client import Client as OurClient
from kinto_orm.errors import ConfigurationError, InvalidTypeError
from kinto_orm.kinto_http.constants import USER_AGENT
from kinto_orm.kinto_http.exceptions import BackoffException, Exchange, KintoException, translate_errors
from kinto_orm.kinto_http.login import BearerTokenAuth
from kinto_orm.kinto_http.utils import json_dumps
from kinto_orm.kinto_http.verbs import call_here, run_by_request, watch
from kinto_orm.protocol.messages import Request, run_blocking
from kinto_orm.protocol.paging import encode_query
from kinto_orm.protocol.patches import JSON_TYPE
from kinto_orm.protocol.responses import content, raise_for_status
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.reads import read_server_info
from kinto_orm.transport.auth import BearerTokenAuth as OurTokenAuth
from kinto_orm.transport.auth import parse_auth
from kinto_orm.transport.retry import backoff
from kinto_orm.unit_of_work.staging import Plan

T = TypeVar("T")

logger = logging.getLogger("kinto_http")

__all__ = ["USER_AGENT", "BackoffException", "KintoException", "Session", "create_session", "logger"]

_REQUEST_OPTIONS = frozenset({"auth", "timeout", "verify", "cert", "proxies"})

ONE_DAY = 86_400
"""The deadline of a whole call, in seconds: the reference client has none."""


class Lease:
    """Closes a client when the last session that uses it is gone: users of the reference client close nothing."""

    def __init__(self, client: OurClient) -> None:
        # Not __del__: in a cycle, the transport could be finalized first, and would complain of open sockets.
        weakref.finalize(self, client.close).atexit = False


class Session:
    """The connection of a client. Its attributes may be changed; the next request follows them.

    ``timeout`` is seconds, or ``(connect, read)``; without one, the client waits for an answer without limit. With
    ``dry_mode``, reads are sent and writes are kept in ``planned``, also those of the dry clones.
    """

    def __init__(
        self,
        server_url: str | None,
        auth: Any = None,
        timeout: Any = False,
        headers: Mapping[str, str] | None = None,
        retry: int = 0,
        retry_after: float | None = None,
        dry_mode: bool = False,
    ) -> None:
        self.server_url = server_url
        self.auth = auth
        self.timeout = timeout
        self.headers = dict(headers or {})
        self.nb_retry = retry
        self.retry_after = retry_after
        self.dry_mode = dry_mode
        self.backoff: float | None = None  # until when the server asks for a pause, in seconds since the epoch
        self._client: OurClient | None = None
        self._leases: tuple[Lease, ...] = ()
        self._followed: dict[str, Any] = {}
        if isinstance(server_url, str):
            _ = self.client  # raises for options that cannot work

    @classmethod
    def over(cls, client: OurClient) -> Self:
        """Return a session that shares the connections, and the embedded server, of a ``kinto_orm.Client``."""
        session = cls(None)
        session.server_url = client.server_url
        session._client, session._followed = client, session._options()
        return session

    @property
    def client(self) -> OurClient:
        """The ``kinto_orm.Client`` that moves the flows; use it to go on with models.

        Raises ``KintoException`` where there is no ``server_url``.
        """
        options = self._options()
        if self._client is None:
            if self.server_url is None:
                raise KintoException("This client has no server_url: give it one, as in http://localhost:8888/v1.")
            with translate_errors():
                self._client = OurClient(deadline=ONE_DAY, allow_insecure=True, **options)
            self._leases = (Lease(self._client),)
        elif options != self._followed:
            changes = {name: value for name, value in options.items() if value != self._followed[name]}
            with translate_errors():
                self._client = self._client.clone(**changes)
            self._leases = (*self._leases, Lease(self._client))
        self._followed = options
        return self._client

    @property
    def planned(self) -> Plan:
        """The requests that ``dry_mode`` kept: the ``plan()`` of the ``kinto_orm.Client``."""
        return self.client.plan()

    def _options(self) -> dict[str, Any]:
        return {
            "server_url": self.server_url,
            "auth": self.auth or None,  # (), [] and False are no credentials, as for requests
            "timeout": convert_timeout(None if self.timeout is False else self.timeout),
            "headers": {"User-Agent": USER_AGENT, **self.headers},
            "retry": self.nb_retry,
            "retry_after": self.retry_after,
            "dry_mode": self.dry_mode,
        }

    def clone(self, **changes: Any) -> Session:
        """Return a session with these options changed and all others kept; it shares connections where it can."""
        session = object.__new__(type(self))
        session.__dict__.update(self.__dict__, headers=dict(self.headers))
        for name, value in changes.items():
            setattr(session, _ATTRIBUTES.get(name, name), value)
        session.auth = convert_auth(session.auth)
        if session.server_url is not None:
            _ = session.client
        return session

    def run(self, flow: Flow[T]) -> T:
        """Return the result of the flow; in dry mode, ``{}`` for a write. Raises ``KintoException``."""
        if self._is_replaced():
            return run_blocking(run_by_request(self, flow, call_here))
        with self._exchange() as exchange:
            return self.client.run(watch(flow, exchange))

    async def arun(self, flow: Flow[T]) -> T:
        """Like :meth:`run`."""
        if self._is_replaced():
            return await run_by_request(self, flow, asyncio.to_thread)
        with self._exchange() as exchange:
            return await self.client.arun(watch(flow, exchange))

    @contextmanager
    def _exchange(self) -> Generator[Exchange]:
        """Yield the exchange of one call; note the pause that its answer asks for, and translate its errors."""
        exchange = Exchange(self.server_url or "")
        try:
            with translate_errors(exchange):
                yield exchange
        finally:
            if exchange.response is not None:
                seconds = backoff(exchange.response.headers)
                self.backoff = time.time() + seconds if seconds else None

    def _is_replaced(self) -> bool:
        # A double in a test, or a subclass that inspects each request, gets each request.
        return "request" in vars(self) or type(self).request is not _OWN_REQUEST

    def request(
        self,
        method: str,
        endpoint: str,
        data: Any = None,
        permissions: Any = None,
        payload: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        files: Any = None,
        allow_redirects: bool = True,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Return body and headers of the answer to any request below the root URL.

        Redirects are never followed: with ``allow_redirects=False`` they are an answer like others. ``options`` are
        ``auth``, ``timeout``, ``verify``, ``cert`` and ``proxies``, for this request. Raises ``KintoException``.
        """
        if unknown := ", ".join(sorted(options.keys() - _REQUEST_OPTIONS)):
            known = ", ".join(sorted(_REQUEST_OPTIONS))
            raise TypeError(f"request() takes no {unknown}=; of the options of requests it takes {known}.")
        body = payload_of(data, permissions, payload)
        path, _, query = path_below(self, endpoint).partition("?")
        query = "&".join(
            filter(None, [query, encode_query([(one, _plain(one, value)) for one, value in (params or {}).items()])])
        )
        asked = Request(method.upper(), path, query, dict(headers or {}))
        if asked.is_write:
            asked = _add_body(asked, body, files)
        elif body:
            raise KintoException("GET requests are not allowed to have a body!")
        flow = _ask(asked, is_redirect_taken=not allow_redirects)
        client = self.client.clone(**options) if options else self.client
        try:
            with self._exchange() as exchange:
                return client.run(watch(flow, exchange)) or ({}, CaseInsensitiveDict())
        finally:
            if options:
                client.close()

    def __reduce__(self) -> NoReturn:
        raise InvalidTypeError("A session holds sockets and credentials, which cannot be pickled or copied.")

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()


_OWN_REQUEST = Session.request

_ATTRIBUTES = {"retry": "nb_retry"}
"""Options whose attributes have another name."""


def create_session(server_url: str | None = None, auth: Any = None, session: Any = None, **kwargs: Any) -> Any:
    """Return the session, with the given options, or a new one for that server.

    ``session`` may also be a ``kinto_orm.Client``, whose connections are then shared. Raises ``AttributeError`` for
    both and for neither, ``ValueError`` for an invalid ``auth``.
    """
    if session is not None:
        if server_url is not None or auth is not None:
            raise AttributeError(
                "You cannot specify session and server_url or auth. Chose either session or (auth + server_url)."
            )
        found = Session.over(session) if isinstance(session, OurClient) else session
        changes = {name: value for name, value in kwargs.items() if value}
        return change_session(found, changes) if changes else found
    if server_url is None and auth is None:
        raise AttributeError("You need to either set session or auth + server_url")
    return Session(server_url=server_url, auth=convert_auth(auth, server_url), **kwargs)


def change_session(session: Any, changes: Mapping[str, Any]) -> Any:
    """Return the session with these options changed; for a user's session, a new one for the same server."""
    if hasattr(type(session), "run"):
        return session.clone(**changes)
    known = {name: getattr(session, name, None) for name in ("server_url", "auth")}
    return create_session(**{**known, **changes})


def describe_server(session: Any, *, refresh: bool = False) -> Flow[Any]:
    """Return the description of the session's server; it is asked once, where the session can keep it."""
    client = getattr(session, "client", None)
    return client.__kinto_describe_server__(refresh=refresh) if isinstance(client, OurClient) else read_server_info()


def convert_auth(auth: Any, server_url: str | None = None) -> Any:
    """Return the credentials as a session keeps them: text as a tuple, or as an auth object where it names its scheme.

    Raises ``ValueError`` for text that is neither.
    """
    if not isinstance(auth, str):
        if hasattr(auth, "server_url"):
            auth.server_url = server_url  # auth objects of users may expect it
        return auth
    if not auth:
        return auth
    try:
        parsed = parse_auth(auth)
    except ConfigurationError as error:
        raise ValueError(f"Unsupported `auth` parameter value. {error}") from error
    if isinstance(parsed, OurTokenAuth):
        scheme, token = auth.split(None, 1)
        return BearerTokenAuth(token, type=scheme)
    user, password = auth.split(":", 1)
    return user, password


def _ask(request: Request, *, is_redirect_taken: bool) -> Flow[tuple[Any, CaseInsensitiveDict[str]]]:
    """Return body and headers of the answer; ``None`` for an answer without a body."""
    response = yield request
    is_redirect = 300 <= response.status < 400
    if response.status != 304 and not (is_redirect and is_redirect_taken):
        raise_for_status(response, request.method, request.path)
    headers = CaseInsensitiveDict(response.headers)
    if response.status in (204, 304) or request.method == "HEAD":
        return None, headers
    return content(response, f"{request.method} {request.path}"), headers


def path_below(session: Any, endpoint: str) -> str:
    """Return the path below the root URL of the session, from a path with or without the version, or a whole URL."""
    path = endpoint
    if urlsplit(endpoint).scheme:
        root = (session.server_url or "").rstrip("/")
        if not endpoint.startswith(f"{root}/"):
            raise KintoException(f"{endpoint} is not below {root}: the credentials are for that server only.")
        path = endpoint.removeprefix(root)
    path = f"/{path.lstrip('/')}"
    return _VERSION.sub("", path, count=1)


_VERSION = re.compile(r"^/v\d+(?=/)")


def payload_of(data: Any, permissions: Any, payload: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the body of a request, made of its parts."""
    body = dict(payload or {})
    if data is not None:
        body["data"] = data
    if permissions is not None:
        body["permissions"] = permissions.as_dict() if hasattr(permissions, "as_dict") else permissions
    return body


def _plain(name: str, value: Any) -> str:
    if name.startswith(("in_", "exclude_")) and not isinstance(value, str):
        return ",".join(one if isinstance(one, str) else json.dumps(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value)


def _add_body(request: Request, body: Mapping[str, Any], files: Any) -> Request:
    headers = {"Content-Type": JSON_TYPE, **request.headers}
    if files is None:
        return replace(request, headers=headers, body=json_dumps(body).encode())
    fields = {name: value if isinstance(value, str | bytes) else json_dumps(value) for name, value in body.items()}
    form = requests.Request("POST", "http://localhost", data=fields, files=files).prepare()
    content_type = form.headers["Content-Type"]
    return replace(request, headers={**headers, "Content-Type": content_type}, body=cast(bytes, form.body))


def convert_timeout(timeout: Any) -> Any:
    """Return the timeout as the class that a program has put in the place of ``requests``' own makes it.

    Programs patch ``requests.adapters.TimeoutSauce`` to bound all their requests.
    """
    sauce = cast(Any, requests.adapters).TimeoutSauce
    if sauce is urllib3.Timeout:
        return timeout
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    made = sauce(connect=connect, read=read)
    return made.connect_timeout, made.read_timeout
