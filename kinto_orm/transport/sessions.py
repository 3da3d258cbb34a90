"""The sessions of ``requests`` behind the transport: ours, prepared once, or one that the user brought.

What a request cannot do here: follow a redirect, read netrc, keep a cookie.
"""

from __future__ import annotations

import http.client
import io
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeAlias

import requests
import urllib3
from requests import PreparedRequest
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager

from kinto_orm.errors import ConfigurationError
from kinto_orm.protocol.messages import Request
from kinto_orm.transport.auth import Authenticator, anonymous, own_headers, refuse_in_clear, with_credentials
from kinto_orm.transport.prepare import POOL_SIZE, Limits, Preparer, WireOptions, way_out

# Of time.monotonic(). The pools of urllib3 hand nothing on to what reads an answer; one exchange is in one thread.
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def answered_within(seconds: float) -> Generator[None]:
    """The answers to requests that are sent inside the block have to be read within so many seconds.

    Reading one that is late raises ``TimeoutError``.
    """
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


class DeadlineAdapter(HTTPAdapter):
    """The network, heeding :func:`answered_within`. Not for SOCKS proxies, which bring connections of their own."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Makes the pools."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """The pools of a proxy."""
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
    # Not a class of connection of our own: vcrpy puts its own in the place of urllib3's.
    connection.response_class = Answer
    return connection


class Answer(http.client.HTTPResponse):
    """What http.client reads from a socket, from the status line on."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        deadline = _deadline.get()
        if deadline is not None:
            self.fp = io.BufferedReader(_Bounded(sock, self.fp.detach(), deadline))


class _Bounded(io.RawIOBase):
    """The reading end of a socket: no read of it ends after the deadline."""

    def __init__(self, sock: Any, inner: io.RawIOBase, deadline: float) -> None:
        self._socket = sock
        self._inner = inner
        self._deadline = deadline
        self._timeout = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the call has passed")
        if self._timeout is None or left < self._timeout:
            self._socket.settimeout(left)
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()


HELD_LOCATION = "x-kinto-orm-location"


class ManagedSession:
    """A session of ours. Nobody else changes it, so all but the request itself is prepared once."""

    def __init__(
        self, options: WireOptions, adapter: BaseAdapter | None, ancestor: ManagedSession | None = None
    ) -> None:
        self.pid = os.getpid()
        self._options = options
        self._adapter = adapter
        # Kept after a fork only: closing the parent's pools could wait for a lock that nobody will ever release.
        self._ancestor = ancestor
        self._session = _own_session(options, adapter)
        self._is_network = _is_network(self._session, options.server_url)
        self._preparer = Preparer(options, is_network=self._is_network)
        self.holds_sockets = False

    @property
    def auth(self) -> Authenticator | None:
        """What adds the credentials."""
        return self._options.auth

    def send(self, request: Request, limits: Limits) -> requests.Response:
        """The answer, its body still to be read."""
        prepared = self._preparer.prepare(request)
        prepared.hooks.setdefault("response", []).append(_hold_location)
        with answered_within(limits.whole):
            answer = self._session.send(
                prepared,
                stream=True,
                allow_redirects=False,
                timeout=(limits.connect, limits.read),
                proxies=self._session.proxies,
                cert=self._options.cert,
            )
        self.holds_sockets = self._is_network
        return answer

    def release(self) -> None:
        """Closes idle sockets."""
        self.holds_sockets = False
        _close_pools(self._session)

    def after_fork(self) -> Wire:
        """What takes its place in a forked child."""
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
        self._session = session

    @property
    def auth(self) -> Authenticator | None:
        """What adds the credentials: the client's own, else the session's."""
        theirs = self._session.auth
        return self._options.auth or (HTTPBasicAuth(*theirs) if isinstance(theirs, tuple) else theirs)

    def send(self, request: Request, limits: Limits) -> requests.Response:
        """The answer, its body still to be read. Its headers have no limit but that for each wait."""
        # What is passed here takes the place of the session's own setting: auth, verify and hooks would get lost.
        return self._session.request(
            request.method,
            self._options.server_url + request.target,
            data=request.body,
            headers={**self._headers(), **self._options.headers, **request.headers},
            auth=self._sign,
            verify=self._session.verify if self._options.verify is True else self._options.verify,
            cert=self._options.cert or self._session.cert,
            proxies=dict(self._options.proxies) or None,
            timeout=(limits.connect, limits.read),
            stream=True,
            allow_redirects=False,
            hooks={"response": [*_hooks(self._session), _hold_location]},
        )

    def _sign(self, prepared: PreparedRequest) -> PreparedRequest:
        result = with_credentials(prepared, self.auth or anonymous)
        if self._options.is_clear and _is_network(self._session, self._options.server_url):
            refuse_in_clear(result.headers)
        return result

    def _headers(self) -> dict[str, str]:
        untouched = requests.utils.default_headers()
        theirs = self._session.headers
        return {name: value for name, value in own_headers().items() if theirs.get(name) == untouched.get(name)}

    def release(self) -> None:
        """Does nothing: the session is its owner's."""

    def after_fork(self) -> Wire:
        """What takes its place in a forked child."""
        _close_pools(self._session)
        return ExternalSession(self._options, self._session)


Wire: TypeAlias = ManagedSession | ExternalSession


def make_wire(options: WireOptions, session: requests.Session | None, adapter: BaseAdapter | None) -> Wire:
    """The wire of a session that the user brought, or of one of our own."""
    if session is None:
        return ManagedSession(options, adapter)
    if adapter is not None:
        raise ConfigurationError("session= and adapter= exclude each other: mount the adapter on your session.")
    return ExternalSession(options, session)


def _own_session(options: WireOptions, adapter: BaseAdapter | None) -> requests.Session:
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.trust_env = options.trust_env
    session.verify, session.proxies = way_out(session, options)
    for scheme in ("http://", "https://"):
        session.mount(scheme, DeadlineAdapter(pool_maxsize=POOL_SIZE, max_retries=0))
    if adapter is not None:
        session.mount(options.server_url, adapter)
    return session


def _is_network(session: requests.Session, url: str) -> bool:
    """Whether requests go out, and not to what an adapter put in their place."""
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
    hooks = session.hooks.get("response") or []
    return [hooks] if callable(hooks) else list(hooks)


def _hold_location(answer: requests.Response, **_: object) -> None:
    """Hides the target of a redirect from requests, which reads the whole body of one even where it does not follow."""
    if "location" in answer.headers:
        answer.headers[HELD_LOCATION] = answer.headers.pop("location")


def headers_of(answer: requests.Response) -> dict[str, str]:
    """The headers of an answer, by their names in lower case."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if HELD_LOCATION in headers:
        headers["location"] = headers.pop(HELD_LOCATION)
    return headers
