"""HTTP by ``requests``: one exchange, with bounds on everything, and every failure as one of our errors.

What a request cannot do here: follow a redirect, read netrc, keep a cookie, outlast its deadline, fill the memory.
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn, TypeAlias, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests import PreparedRequest
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict

from kinto_orm.errors import (
    ClientClosedError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidTypeError,
    KintoError,
    ResponseTooLargeError,
)
from kinto_orm.messages import Request, Response
from kinto_orm.transport.auth import Authenticator, AuthInput, anonymous, own_headers, parse_auth, parse_headers, signed
from kinto_orm.transport.retry import FOREIGN_ERRORS, RetryPolicy, Timeout, parse_timeout, send_with_retry, translate

logger = logging.getLogger("kinto_orm")

Verify: TypeAlias = bool | str

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
POOL_SIZE = 32
CHUNK = 256 * 1024
HELD_LOCATION = "x-kinto-orm-location"

_AS_IN = "as in http://localhost:8888/v1"


@dataclass(frozen=True, slots=True)
class RequestSent:
    """One HTTP exchange that has ended: what ``on_request`` is called with.

    ``status`` is ``None`` where no answer came; ``elapsed_ms`` are milliseconds; ``attempt`` counts from 1.
    """

    method: str
    target: str
    status: int | None
    elapsed_ms: float
    attempt: int


class HttpTransport:
    """Sends requests to one server; see :class:`kinto_orm.messages.Transport`. Safe in threads and after a fork.

    ``timeout`` is ``(connect, read)``, in seconds, for each wait for the network, and ``deadline``, in seconds, for a
    whole call; it replaces that of ``policy``. ``headers`` go with every request. ``trust_env`` lets the environment
    give proxies and a CA bundle; netrc is never read. ``session`` is used as it is, with its own auth, headers and
    adapters, and never closed. ``adapter`` takes the place of the network for the server's URL; an adapter that is
    no ``HTTPAdapter`` is never closed. ``on_request`` is called after each exchange, in the calling thread.
    Raises ``ConfigurationError``.
    """

    def __init__(
        self,
        server_url: str,
        *,
        auth: AuthInput = None,
        timeout: Timeout = (5, 30),
        deadline: float | None = None,
        headers: Mapping[str, str] | None = None,
        verify: Verify = True,
        proxies: Mapping[str, str] | None = None,
        trust_env: bool = False,
        session: requests.Session | None = None,
        adapter: BaseAdapter | None = None,
        policy: RetryPolicy | None = None,
        on_request: Callable[[RequestSent], object] | None = None,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        policy = policy or RetryPolicy()
        self._policy = policy if deadline is None else replace(policy, deadline=deadline)
        self._server_url = parse_server_url(server_url)
        self._host = urlsplit(self._server_url).netloc
        self._timeout = parse_timeout(timeout)
        self._on_request = on_request
        self._max_response_bytes = max_response_bytes
        self._is_closed = False
        common = parse_auth(auth), parse_headers(headers or {}), _checked_verify(verify), dict(proxies or {}), trust_env
        options = _Options(self._server_url, *common)
        self._wire = _wire(options, session, adapter)

    @property
    def server_url(self) -> str:
        """The root URL of the server, with the version and without a slash at its end."""
        return self._server_url

    def send(self, request: Request) -> Response:
        """The answer, whatever its status; 3xx are not followed.

        Raises ``ConnectionFailedError`` (nothing was sent), ``ConnectionLostError`` or ``DeadlineError`` (the server
        may have applied the request), ``ProtocolError`` (what came is no HTTP, or is too large), ``ClientClosedError``.
        """
        if self._is_closed:
            raise ClientClosedError("This client was closed: make a new one.")
        return send_with_retry(partial(self._exchange, request), self._policy, partial(self._warn, request))

    def release(self) -> None:
        """Closes idle sockets; the transport stays usable."""
        self._wire_of_this_process().release()

    def close(self) -> None:
        """Closes everything that is ours; sending afterwards raises ``ClientClosedError``."""
        self._is_closed = True
        self.release()

    def __repr__(self) -> str:
        return f"HttpTransport({self._server_url!r})"

    def __reduce__(self) -> NoReturn:
        raise InvalidTypeError("A transport holds sockets and credentials, which cannot be pickled or copied.")

    def _wire_of_this_process(self) -> _Wire:
        # After a fork both processes would read each other's answers from the same sockets. No lock: one that another
        # thread held at the moment of the fork would stay locked in the child for ever.
        if self._wire.pid != os.getpid():
            self._wire = self._wire.after_fork()
        return self._wire

    def _exchange(self, request: Request, attempt: int, deadline: float) -> Response:
        started = self._policy.clock()
        status = None
        try:
            response = self._ask(request, deadline)
            status = response.status
            return response
        finally:
            elapsed_ms = (self._policy.clock() - started) * 1000
            self._report(RequestSent(request.method, request.target, status, elapsed_ms, attempt), request.path)

    def _ask(self, request: Request, deadline: float) -> Response:
        wire = self._wire_of_this_process()
        try:
            with wire.send(request, self._time_left(deadline)) as answer:
                body = self._read(answer, request, deadline)
        except KintoError:
            raise
        except FOREIGN_ERRORS as error:
            raise translate(error, self._name(request)) from error
        return Response(answer.status_code, _headers(answer), b"" if request.method == "HEAD" else body)

    def _time_left(self, deadline: float) -> tuple[float, float]:
        # Sockets take no timeout of 0; with so little left, the deadline is what will be reported.
        left = max(deadline - self._policy.clock(), 0.001)
        connect, read = self._timeout
        return min(connect, left), min(read, left)

    def _read(self, answer: requests.Response, request: Request, deadline: float) -> bytes:
        pieces: list[bytes] = []
        size = 0
        for piece in _pieces(answer):
            size += len(piece)
            if size > self._max_response_bytes:
                raise ResponseTooLargeError(
                    f"{self._name(request)}: the answer has more than {self._max_response_bytes} bytes. "
                    "Ask for less at a time, or raise max_response_bytes."
                )
            if self._policy.clock() > deadline:
                raise TimeoutError
            pieces.append(piece)
        return b"".join(pieces)

    def _name(self, request: Request) -> str:
        return f"{request.method} {request.path} on {self._host}"

    def _report(self, event: RequestSent, path: str) -> None:
        status = "no answer" if event.status is None else event.status
        logger.debug("%s %s: %s, %.0f ms, attempt %d", event.method, path, status, event.elapsed_ms, event.attempt)
        try:
            if self._on_request is not None:
                self._on_request(event)
        except Exception:
            # The server has answered already: a failing observer must not make a stored write look like a lost one.
            logger.exception("on_request failed")

    def _warn(self, request: Request, attempt: int, wait: float, error: ConnectionFailedError) -> None:
        kind = type(error).__name__
        logger.warning("%s: %s in attempt %d, again in %.2f s", self._name(request), kind, attempt, wait)


def parse_server_url(url: str) -> str:
    """The root URL in its normal form: scheme and host in lower case, no slash at the end, ``/v1`` unless it ends in
    another version.

    The version is appended because Kinto answers 307 without one, and redirects are never followed. Raises
    ``ConfigurationError`` for anything but ``http`` and ``https`` with a host, for a query string, a fragment, and
    for credentials, which it does not show.
    """
    if not isinstance(cast(object, url), str) or not url.isprintable() or re.search(r"[\s\\]", url):
        raise ConfigurationError(f"server_url is a string without spaces or backslashes, {_AS_IN}.")
    if "@" in url:
        raise ConfigurationError("server_url holds no credentials: leave them out and give auth=(user, password).")
    if "?" in url or "#" in url or not re.match(r"https?://[^/]", url, re.IGNORECASE):
        raise ConfigurationError(f"server_url is http:// or https:// and a host, without a query string, {_AS_IN}.")
    try:
        root = str(requests.Request("GET", url).prepare().url).rstrip("/")
        parts = urlsplit(root)
        _ = parts.port  # raises ValueError
    except (requests.RequestException, ValueError) as error:
        raise ConfigurationError(f"server_url is not {url!r}, but {_AS_IN}.") from error
    return root if re.search(r"/v\d+\Z", parts.path) else f"{root}/v1"


@dataclass(frozen=True, slots=True)
class _Options:
    """What every request has in common."""

    server_url: str
    auth: Authenticator | None = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    verify: Verify
    proxies: dict[str, str] = field(repr=False)
    trust_env: bool


class _OwnWire:
    """A session of ours. Nobody else changes it, so all but the request itself is prepared once."""

    def __init__(self, options: _Options, adapter: BaseAdapter | None, ancestor: _OwnWire | None = None) -> None:
        self.pid = os.getpid()
        self._options = options
        self._adapter = adapter
        # Kept after a fork only: closing the parent's pools could wait for a lock that nobody will ever release.
        self._ancestor = ancestor
        self._session = _own_session(options, adapter)
        self._template = PreparedRequest()
        self._template.headers = CaseInsensitiveDict({**own_headers(), **options.headers})

    def send(self, request: Request, timeout: tuple[float, float]) -> requests.Response:
        prepared = signed(self._prepared(request), self._options.auth)
        prepared.hooks.setdefault("response", []).append(_hold_location)
        return self._session.send(
            prepared, stream=True, allow_redirects=False, timeout=timeout, proxies=self._session.proxies
        )

    def _prepared(self, request: Request) -> PreparedRequest:
        prepared = PreparedRequest()
        prepared.method = request.method
        prepared.url = self._options.server_url + request.target
        prepared.headers = self._template.headers.copy()
        prepared.headers.update(request.headers)
        prepared.body = request.body
        if request.body is not None or request.is_write:
            prepared.headers["Content-Length"] = str(len(request.body or b""))
        return prepared

    def release(self) -> None:
        _close_pools(self._session)

    def after_fork(self) -> _Wire:
        if isinstance(self._adapter, HTTPAdapter):
            self._adapter.close()
        return _OwnWire(self._options, self._adapter, ancestor=self)


class _BroughtWire:
    """A session of the user's, which may change at any time: it prepares every request itself, and is never closed."""

    def __init__(self, options: _Options, session: requests.Session) -> None:
        self.pid = os.getpid()
        self._options = options
        self._session = session

    def send(self, request: Request, timeout: tuple[float, float]) -> requests.Response:
        # What is passed here takes the place of the session's own setting: auth, verify and hooks would get lost.
        return self._session.request(
            request.method,
            self._options.server_url + request.target,
            data=request.body,
            headers={**self._headers(), **self._options.headers, **request.headers},
            auth=self._options.auth or self._session.auth or anonymous,
            verify=self._session.verify if self._options.verify is True else self._options.verify,
            proxies=dict(self._options.proxies) or None,
            timeout=timeout,
            stream=True,
            allow_redirects=False,
            hooks={"response": [*_hooks(self._session), _hold_location]},
        )

    def _headers(self) -> dict[str, str]:
        untouched = requests.utils.default_headers()
        theirs = self._session.headers
        return {name: value for name, value in own_headers().items() if theirs.get(name) == untouched.get(name)}

    def release(self) -> None:
        """Does nothing: when the sockets of this session are closed is for its owner to say."""

    def after_fork(self) -> _Wire:
        _close_pools(self._session)
        return _BroughtWire(self._options, self._session)


_Wire: TypeAlias = _OwnWire | _BroughtWire


def _wire(options: _Options, session: requests.Session | None, adapter: BaseAdapter | None) -> _Wire:
    if session is None:
        return _OwnWire(options, adapter)
    if adapter is not None:
        raise ConfigurationError("session= and adapter= exclude each other: mount the adapter on your session.")
    return _BroughtWire(options, session)


def _own_session(options: _Options, adapter: BaseAdapter | None) -> requests.Session:
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.trust_env = options.trust_env
    settings = session.merge_environment_settings(options.server_url, dict(options.proxies), None, options.verify, None)
    session.verify, session.proxies = settings["verify"], settings["proxies"]
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=POOL_SIZE, max_retries=0))
    if adapter is not None:
        session.mount(options.server_url, adapter)
    return session


def _close_pools(session: requests.Session) -> None:
    # Only these are known to be usable afterwards. Closing another one could stop the server that is behind it.
    for adapter in session.adapters.values():
        if isinstance(adapter, HTTPAdapter):
            adapter.close()


def _hooks(session: requests.Session) -> list[Callable[..., Any]]:
    hooks = session.hooks.get("response") or []
    return [hooks] if callable(hooks) else list(hooks)


def _hold_location(answer: requests.Response, **_: object) -> None:
    """Hides the target of a redirect from requests, which reads the whole body of one even where it does not follow."""
    if "location" in answer.headers:
        answer.headers[HELD_LOCATION] = answer.headers.pop("location")


def _headers(answer: requests.Response) -> dict[str, str]:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if HELD_LOCATION in headers:
        headers["location"] = headers.pop(HELD_LOCATION)
    return headers


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    """The body, decoded, a bounded piece at a time, each as soon as it is there."""
    raw: Any = answer.raw
    if raw is None or getattr(answer, "_content_consumed", False):
        return iter([answer.content])  # an adapter, a hook or a session of the user's has read it already
    if not isinstance(raw, urllib3.BaseHTTPResponse):
        return _chunks(raw.read)  # requests does not decode the file of an adapter, nor that of vcrpy
    # read1 gives what has come so far: waiting for a full chunk could take for ever.
    chunks = _chunks(partial(raw.read1, decode_content=False))
    encoding = raw.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return chunks
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _inflated(chunks)
    raise requests.exceptions.ContentDecodingError


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := read(CHUNK):
        yield chunk


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: with the header of gzip or of zlib
    rest = next(chunks, b"")
    if not rest:
        return  # the answer to HEAD says how a body would be encoded, and has none
    while rest:
        yield inflater.decompress(rest, CHUNK)
        rest = inflater.unconsumed_tail or next(chunks, b"")
    yield inflater.flush()
    if not inflater.eof or inflater.unused_data:
        raise zlib.error  # requests and urllib3 take a stream that is cut short for a whole one


def _checked_verify(verify: Verify) -> Verify:
    if isinstance(verify, bool) or (isinstance(cast(object, verify), str) and os.path.exists(verify)):
        return verify
    raise ConfigurationError(f"verify is True, False or the path of a CA bundle that exists, not {verify!r}.")
