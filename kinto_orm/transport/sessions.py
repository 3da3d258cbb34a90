"""The sessions of ``requests`` behind the transport: ours, prepared once, or the user's.

A request here cannot follow a redirect, read netrc, or keep a cookie.
"""

from __future__ import annotations

import http.client
import io
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import requests
import urllib3
from requests import PreparedRequest, adapters, sessions
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ClosedPoolError, HTTPError

from kinto_orm.errors import ConfigurationError
from kinto_orm.protocol.messages import Request
from kinto_orm.transport.auth import (
    Authenticator,
    anonymous,
    is_plain,
    own_headers,
    parse_auth,
    refuse_in_clear,
    signed,
    with_credentials,
)
from kinto_orm.transport.options import WireOptions
from kinto_orm.transport.requests_errors import as_of_requests

POOL_SIZE = 32
"""How many connections are kept for the next requests."""


class Limits(NamedTuple):
    """How long one exchange may take, in seconds: for connecting, for each wait, and until all of it has come."""

    connect: float
    read: float
    whole: float


# A time of time.monotonic(). urllib3 passes nothing from a pool to the reader of an answer; an exchange has one thread.
answer_deadline: ContextVar[float | None] = ContextVar("answer_deadline", default=None)
"""Until when the answers to requests that are sent now have to be read; later reads raise ``TimeoutError``."""


class DeadlineAdapter(HTTPAdapter):
    """The network, within :data:`answer_deadline`. Not for SOCKS proxies, which bring other connections."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Create the pools."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pools of a proxy."""
        manager = super().proxy_manager_for(proxy, **options)
        if isinstance(manager, ProxyManager):
            manager.pool_classes_by_scheme = _POOLS
        return manager


class _Pool(HTTPConnectionPool):
    def _new_conn(self) -> Any:
        return _heeding(super()._new_conn())


class _TLSPool(HTTPSConnectionPool):
    def _new_conn(self) -> Any:
        return _heeding(super()._new_conn())


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TLSPool}


def _heeding(connection: Any) -> Any:
    # No connection class of ours: vcrpy replaces urllib3's.
    connection.response_class = BoundedResponse
    return connection


MAX_INTERIM = 100
"""Answers with a status from 100 to 199 before the one that counts."""


class BoundedResponse(http.client.HTTPResponse):
    """An answer as http.client reads it, from the status line on, until :data:`answer_deadline`."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        deadline = answer_deadline.get()
        self._source: _Bounded | None = None
        if deadline is not None:
            self._source = _Bounded(sock, self.fp.detach(), deadline)
            self.fp = io.BufferedReader(self._source)

    def begin(self) -> None:
        """Read the status line and the headers, and skip interim answers (103 Early Hints).

        Raises ``IncompleteRead`` where the connection ends among the headers, which http.client takes for their end.
        """
        for _ in range(MAX_INTERIM):
            super().begin()
            if self._source is not None and self._source.has_ended:
                raise http.client.IncompleteRead(b"")
            if not 100 <= self.status < 200 or self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return
            self.headers = None  # type: ignore[assignment]  # so that begin() reads the next ones
        raise http.client.BadStatusLine("interim answers without end")


class _Bounded(io.RawIOBase):
    """The reading end of a socket: no read of it ends after the deadline."""

    def __init__(self, sock: Any, inner: io.RawIOBase, deadline: float) -> None:
        self._socket = sock
        self._inner = inner
        self._deadline = deadline
        self._timeout = sock.gettimeout()
        self.has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the call has passed")
        if self._timeout is None or left < self._timeout:
            self._socket.settimeout(left)
        count = self._inner.readinto(buffer)
        self.has_ended = count == 0
        return count

    def close(self) -> None:
        self._inner.close()
        super().close()


HELD_LOCATION = "x-kinto-orm-location"

_NO_RETRIES = urllib3.Retry(0, read=False)
"""The setting of a ``requests`` adapter that does not retry."""


class Answer(NamedTuple):
    """An answer whose body is still to be read."""

    status: int
    headers: dict[str, str]
    """The headers, by their names in lower case."""
    body: Iterator[bytes]
    """The decoded body, a bounded piece at a time."""
    close: Callable[[], object]
    """Ends the exchange. A connection whose answer was not read to its end is closed."""
    sent: PreparedRequest | None = None
    """The request, with its credentials; ``None`` where they cannot be renewed."""


def _shipped(function: object, module: ModuleType) -> object:
    """Return the function if the module defines it, else an object that is no function at all."""
    is_own = isinstance(function, FunctionType) and function.__globals__ is vars(module)
    return function if is_own else object()


_SESSION = requests.Session
_SEND = _shipped(requests.Session.send, sessions)
_GET_ADAPTER = _shipped(requests.Session.get_adapter, sessions)
_ADAPTER_SEND = _shipped(HTTPAdapter.send, adapters)


def _is_patched() -> bool:
    """Return whether a program replaced a function of ``requests``, or the connections of ``urllib3``.

    ``responses``, requests-mock, vcrpy and instrumentations do so, and programs with a timeout for all requests.
    """
    return not (
        _SESSION.send is _SEND
        and _SESSION.get_adapter is _GET_ADAPTER
        and DeadlineAdapter.send is _ADAPTER_SEND
        and vars(adapters)["TimeoutSauce"] is urllib3.Timeout
        and _Pool.ConnectionCls is HTTPConnection
        and _TLSPool.ConnectionCls is HTTPSConnection
    )


class _Headers:
    """The headers of all requests, merged once. They may be secret: ``vars()`` does not show them."""

    __slots__ = ("_authorization", "_names", "all")

    def __init__(self, options: WireOptions, auth: Authenticator | None) -> None:
        given = {name.lower() for name in options.headers or ()}
        own = {name: value for name, value in own_headers().items() if name.lower() not in given}
        self.all = {**own, **(options.headers or {})}
        self._names = {name.lower(): name for name in self.all}
        self._authorization = auth.reveal() if is_plain(auth) and auth is not None else None

    def of(self, request: Request) -> dict[str, str]:
        """Return the headers of the request, with credentials that are plain."""
        headers = self.all.copy()
        for name, value in request.headers.items():
            headers[self._names.get(name.lower(), name)] = value
        if request.body is not None or request.is_write:
            headers["Content-Length"] = str(len(request.body or b""))
        if self._authorization is not None:
            headers[self._names.get("authorization", "Authorization")] = self._authorization
        return headers


class ManagedSession:
    """A session of ours, in which all but the request itself is prepared once.

    Requests go straight to the pool of its adapter where nothing of the user's is in between, else through
    ``requests``.
    """

    def __init__(
        self, options: WireOptions, adapter: BaseAdapter | None, ancestor: ManagedSession | None = None
    ) -> None:
        self.pid = os.getpid()
        self._options = options
        self.auth = parse_auth(options.auth)
        """The object that adds the credentials."""
        self._adapter = adapter
        # Kept after a fork only: closing the parent's pools could wait for a lock that is never released.
        self._ancestor = ancestor
        self._session = _own_session(options, adapter)
        self._is_network = _is_network(self._session, options.server_url)
        self._headers = _Headers(options, self.auth)
        self._is_clear = self._is_network and options.is_clear(self._session.proxies)
        if self._is_clear:
            refuse_in_clear(CaseInsensitiveDict(self._headers.all), self.auth)
        self._path = urlsplit(options.server_url).path
        self._pool: HTTPConnectionPool | None = None
        self._may_use_pool = (
            adapter is None
            and type(self._session) is _SESSION
            and is_plain(self.auth)
            and not self._session.proxies
            and not self._is_clear
        )
        self.holds_sockets = False

    def send(self, request: Request, limits: Limits) -> Answer:
        """Send the request and return the answer."""
        is_direct = self._may_use_pool and not _is_patched()
        # An auth object of the user's may take its time, which does not count for the answer.
        prepared = None if is_direct else self._prepare(request)
        token = answer_deadline.set(time.monotonic() + limits.whole)
        held_none = not self.holds_sockets
        self.holds_sockets = self._is_network  # first: a session that another thread releases stays released
        try:
            if prepared is None:
                return self._send_by_pool(request, limits)
            return self._send_by_requests(prepared, limits)
        except BaseException:
            if held_none:
                self.holds_sockets = False
            raise
        finally:
            answer_deadline.reset(token)

    def _send_by_pool(self, request: Request, limits: Limits) -> Answer:
        try:
            raw = (self._pool or self._open_pool()).urlopen(
                request.method,
                self._path + request.target,
                body=request.body,
                headers=self._headers.of(request),
                retries=_NO_RETRIES,
                timeout=urllib3.Timeout(connect=limits.connect, read=limits.read),
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            if isinstance(error, ClosedPoolError):  # another thread released the sockets
                self._pool = None
            raise as_of_requests(error) from error
        headers = {name.lower(): value for name, value in raw.headers.itermerged()}
        return Answer(raw.status, headers, _decoded(raw), raw.close)

    def _open_pool(self) -> HTTPConnectionPool:
        options, session = self._options, self._session
        adapter: Any = session.get_adapter(options.server_url)
        root = PreparedRequest()
        root.method, root.url, root.headers = "GET", options.server_url, CaseInsensitiveDict()
        pool: HTTPConnectionPool = adapter.get_connection_with_tls_context(
            root, session.verify, proxies={}, cert=options.cert
        )
        adapter.cert_verify(pool, options.server_url, session.verify, options.cert)
        self._pool = pool
        return pool

    def _prepare(self, request: Request) -> PreparedRequest:
        prepared = PreparedRequest()
        prepared.method = request.method
        prepared.url = self._options.server_url + request.target
        prepared.headers = CaseInsensitiveDict(self._headers.of(request))
        prepared.body = request.body
        prepared = signed(prepared, self.auth)
        if self._is_clear:
            refuse_in_clear(prepared.headers)
        return prepared

    def _send_by_requests(self, prepared: PreparedRequest, limits: Limits) -> Answer:
        prepared.hooks.setdefault("response", []).append(_hold_location)
        return _answer_of(
            self._session.send(
                prepared,
                stream=True,
                allow_redirects=False,
                timeout=(limits.connect, limits.read),
                proxies=self._session.proxies,
                cert=self._options.cert,
            )
        )

    def release(self) -> None:
        """Close idle sockets."""
        self.holds_sockets = False
        self._pool = None
        _close_pools(self._session)

    def after_fork(self) -> Wire:
        """Return the session that replaces this one in a forked child."""
        if isinstance(self._adapter, HTTPAdapter):
            self._adapter.close()
        return ManagedSession(self._options, self._adapter, ancestor=self)


class ExternalSession:
    """A session of the user's, which may change at any time: it prepares every request itself, and is never closed."""

    holds_sockets = False
    """When the sockets of this session are closed is for its owner to say."""

    def __init__(self, options: WireOptions, session: requests.Session) -> None:
        self.pid = os.getpid()
        self._options = options
        self._auth = parse_auth(options.auth)
        self._session = session

    @property
    def auth(self) -> Authenticator | None:
        """The function that adds credentials: the client's, else the session's."""
        theirs = self._session.auth
        return self._auth or (HTTPBasicAuth(*theirs) if isinstance(theirs, tuple) else theirs)

    def send(self, request: Request, limits: Limits) -> Answer:
        """Send the request and return the answer. Its headers have no limit but that for each wait."""
        # What is passed here takes the place of the session's own setting: auth, verify and hooks would get lost.
        answer = self._session.request(
            request.method,
            self._options.server_url + request.target,
            data=request.body,
            headers={**self._headers(), **(self._options.headers or {}), **request.headers},
            auth=self._sign,
            verify=self._session.verify if self._options.verify is True else self._options.verify,
            cert=self._options.cert or self._session.cert,
            proxies=dict(self._options.proxies or {}) or None,
            timeout=(limits.connect, limits.read),
            stream=True,
            allow_redirects=False,
            hooks={"response": [*_hooks(self._session), _hold_location]},
        )
        return _answer_of(answer)

    def _sign(self, prepared: PreparedRequest) -> PreparedRequest:
        result = with_credentials(prepared, self.auth or anonymous)
        proxies = {**self._session.proxies, **(self._options.proxies or {})}
        if self._options.is_clear(proxies) and _is_network(self._session, self._options.server_url):
            refuse_in_clear(result.headers)
        return result

    def _headers(self) -> dict[str, str]:
        untouched = requests.utils.default_headers()
        theirs = self._session.headers
        return {name: value for name, value in own_headers().items() if theirs.get(name) == untouched.get(name)}

    def release(self) -> None:
        """Release nothing: the session belongs to the user."""

    def after_fork(self) -> Wire:
        """Return the session that replaces this one in a forked child."""
        _close_pools(self._session)
        return ExternalSession(self._options, self._session)


Wire: TypeAlias = ManagedSession | ExternalSession


def make_wire(options: WireOptions, adapter: BaseAdapter | None) -> Wire:
    """Return the wire of the user's session, or of a new one."""
    if options.session is None:
        return ManagedSession(options, adapter)
    if adapter is not None:
        raise ConfigurationError("session= and adapter= exclude each other: mount the adapter on your session.")
    return ExternalSession(options, options.session)


def _own_session(options: WireOptions, adapter: BaseAdapter | None) -> requests.Session:
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.trust_env = options.trust_env
    # As the options say, and where these allow it the environment.
    proxies = dict(options.proxies or {})
    settings: Any = session.merge_environment_settings(options.server_url, proxies, None, options.verify, None)
    session.verify, session.proxies = settings["verify"], dict(settings["proxies"])
    for scheme in ("http://", "https://"):
        session.mount(scheme, DeadlineAdapter(pool_maxsize=POOL_SIZE, max_retries=0))
    if adapter is not None:
        session.mount(options.server_url, adapter)
    return session


def _is_network(session: requests.Session, url: str) -> bool:
    """Return whether requests reach the network, and not an adapter that replaces it."""
    return isinstance(session.get_adapter(url), HTTPAdapter)


def _close_pools(session: requests.Session) -> None:
    # Only these are known to be usable afterwards. Closing another one could stop the server that is behind it.
    for adapter in session.adapters.values():
        if isinstance(adapter, HTTPAdapter):
            for manager in (adapter.poolmanager, *adapter.proxy_manager.values()):
                _close_pools_of(manager)
            adapter.close()


def _close_pools_of(manager: urllib3.PoolManager) -> None:
    # The manager would only forget its pools, to be closed when they are collected: after a failed attempt that is
    # some time later, because urllib3's frames and their exception refer to each other.
    for key in manager.pools.keys():  # noqa: SIM118  it refuses to be iterated, because of threads
        pool = manager.pools.get(key)
        if pool is not None:
            pool.close()


def _hooks(session: requests.Session) -> list[Callable[..., Any]]:
    """Return the functions that the session's user gave it for each answer: requests takes one, or several."""
    hooks = session.hooks.get("response") or []
    return [hooks] if callable(hooks) else list(hooks)


def _hold_location(answer: requests.Response, **_: object) -> None:
    """Hide the target of a redirect from requests, which would read its whole body even without following it."""
    if "location" in answer.headers:
        answer.headers[HELD_LOCATION] = answer.headers.pop("location")


def _answer_of(answer: requests.Response) -> Answer:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if HELD_LOCATION in headers:
        headers["location"] = headers.pop(HELD_LOCATION)
    return Answer(answer.status_code, headers, _decoded_pieces(answer), answer.close, answer.request)


# The body of an answer, decoded piece by piece, so that its reader can bound its size and its time.

CHUNK = 256 * 1024
_GZIP = b"\x1f\x8b"


def _decoded_pieces(answer: requests.Response) -> Iterator[bytes]:
    """Return the decoded body of an answer of ``requests``, a bounded piece at a time, each as soon as it is there."""
    raw: Any = answer.raw
    if raw is None or getattr(answer, "_content_consumed", False):
        return iter([answer.content])  # an adapter, a hook or a session of the user's has read it already
    if not isinstance(raw, urllib3.BaseHTTPResponse):
        return _chunks(raw, raw.read)  # requests does not decode the file of an adapter or of vcrpy
    return _decoded(raw)


def _decoded(raw: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Return the decoded body of an answer of ``urllib3``, as :func:`_decoded_pieces` does."""
    # read1 gives what has come so far: waiting for a full chunk could take for ever.
    chunks = _chunks(raw, partial(raw.read1, decode_content=False))
    encoding = raw.headers.get("content-encoding", "").strip().lower()
    return chunks if encoding in ("", "identity") else _inflated(chunks, encoding)


def _chunks(raw: Any, read: Callable[[int], bytes]) -> Iterator[bytes]:
    while not getattr(raw, "closed", False) and (chunk := read(CHUNK)):
        yield chunk


def _inflated(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the content of gzip or deflate, a bounded piece at a time.

    Raises ``zlib.error`` for a damaged body, a part of one, or bytes after its end, and ``ContentDecodingError`` for
    another encoding.
    """
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise requests.exceptions.ContentDecodingError
    inflater: Any = None
    for chunk in chunks:
        rest = chunk
        while rest:
            if inflater is not None and inflater.eof and not rest.startswith(_GZIP[: len(rest)]):
                raise zlib.error
            if inflater is None or inflater.eof:  # the first member, or the next one
                inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: with the header of gzip or of zlib
            yield inflater.decompress(rest, CHUNK)
            rest = inflater.unconsumed_tail or inflater.unused_data
    if inflater is not None:  # the answer to HEAD says how a body would be encoded, and has none
        yield inflater.flush()
        if not inflater.eof:
            raise zlib.error  # requests and urllib3 take a stream that is cut short for a whole one
