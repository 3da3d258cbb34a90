"""HTTP by ``requests``: one exchange, with bounds on everything, and every failure as one of our errors.

What a request cannot do here: outlast its deadline, fill the memory, be sent twice where that could do harm.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, NoReturn, TypeAlias, cast, get_args
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter

from kinto_orm.errors import ClientClosedError, ConfigurationError, InvalidTypeError, KintoError
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.transport.async_wire import AsyncWire
from kinto_orm.transport.auth import AuthInput, is_in_clear, parse_auth, parse_headers, take_credentials
from kinto_orm.transport.bodies import Body
from kinto_orm.transport.prepare import Certificate, Limits, Verify, WireOptions
from kinto_orm.transport.reporting import Reporter, RequestEvent, ResponseEvent, RetryEvent
from kinto_orm.transport.requests_errors import FOREIGN_ERRORS, translate
from kinto_orm.transport.retry import (
    Attempt,
    Backoff,
    Pause,
    Result,
    RetryBudget,
    Retrying,
    RetryLoop,
    RetryPolicy,
    Timeout,
    backoff,
    parse_timeout,
    retry_after,
)
from kinto_orm.transport.sessions import Wire, make_wire
from kinto_orm.transport.token_refresh import renewed

MAX_RESPONSE_BYTES = 64 * 1024 * 1024

AsyncTransport: TypeAlias = Literal["threads", "httpx"]
"""What sends the requests that are awaited: the requests of threads, or httpx, whose connections belong to the loop."""

_AS_IN = "as in http://localhost:8888/v1"


class HttpTransport:
    """Sends requests to one server; see :class:`~kinto_orm.protocol.messages.Transport`.

    Safe in threads and after a fork.

    ``timeout`` is ``(connect, read)``, in seconds, for each wait for the network, and ``deadline``, in seconds, for a
    whole call; it replaces that of ``policy``. ``headers`` go with every request. ``cert`` is the client's certificate.
    ``trust_env`` lets the environment give proxies and a CA bundle; netrc is never read. Credentials go over plain
    http to this machine only, unless ``allow_insecure``. ``session`` is used as it is, with its own auth, headers and
    adapters, and never closed. ``adapter`` takes the place of the network for the server's URL; an adapter that is
    no ``HTTPAdapter`` is never closed. ``on_request`` is called before each exchange, ``on_response`` after it,
    ``on_retry`` before each wait for another one, all in the thread that sends. ``log_bodies`` writes what is sent
    and answered to the log too, without what looks like a secret. ``async_transport`` is what :meth:`asend` sends with:
    threads, or httpx (extra ``async``), which takes neither ``session`` nor ``adapter``. Raises ``ConfigurationError``,
    and ``MissingExtraError``.
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
        cert: Certificate = None,
        proxies: Mapping[str, str] | None = None,
        trust_env: bool = False,
        allow_insecure: bool = False,
        session: requests.Session | None = None,
        adapter: BaseAdapter | None = None,
        policy: RetryPolicy | None = None,
        on_request: Callable[[RequestEvent], object] | None = None,
        on_response: Callable[[ResponseEvent], object] | None = None,
        on_retry: Callable[[RetryEvent], object] | None = None,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        log_bodies: bool = False,
        async_transport: AsyncTransport = "threads",
    ) -> None:
        policy = policy or RetryPolicy()
        self._policy = policy if deadline is None else replace(policy, deadline=deadline)
        self._backoff = Backoff(self._policy)
        server_url, auth = merge_credentials(server_url, auth)
        self._server_url = parse_server_url(server_url)
        self._host = urlsplit(self._server_url).netloc
        self._timeout = parse_timeout(timeout)
        self._reporter = Reporter(self._host, self._policy.clock, log_bodies, on_request, on_response, on_retry)
        self._loop = RetryLoop(
            self._policy, RetryBudget(), self._backoff, self._reporter.tell_retry, self._reporter.tell_empty
        )
        self._max_response_bytes = _checked_size(max_response_bytes)
        self._is_closed = False
        options = WireOptions(
            self._server_url,
            parse_auth(auth),
            parse_headers(headers or {}),
            _checked_verify(verify),
            _checked_cert(cert),
            dict(proxies or {}),
            trust_env,
            is_clear=not allow_insecure and is_in_clear(self._server_url),
        )
        self._async_wire = _async_wire(async_transport, options, session, adapter)
        self._wire = make_wire(options, session, adapter)

    @property
    def server_url(self) -> str:
        """The root URL of the server, with the version and without a slash at its end."""
        return self._server_url

    def send(self, request: Request) -> Response:
        """The answer, whatever its status; 3xx are not followed.

        Raises ``ConnectionFailedError`` (nothing was sent), ``ConnectionLostError`` or ``DeadlineError`` (the server
        may have applied the request), ``BackoffError`` (it asks for a pause), ``ProtocolError`` (what came is no HTTP,
        or is too large), ``ClientClosedError``.
        """
        loop = self._start(request)
        result: Result | None = None
        try:
            while True:
                step = loop.send(result)
                if isinstance(step, Pause):
                    self._policy.sleep(step.seconds)
                    result = None
                else:
                    result = self._attempt(request, step)
        except StopIteration as stop:
            return cast(Response, stop.value)

    async def asend(self, request: Request) -> Response:
        """Like :meth:`send`. Where it is cancelled, nothing more is sent.

        What was being sent at that moment may be applied by the server. Threads bring it to its end; httpx closes the
        connection at once.
        """
        loop = self._start(request)
        result: Result | None = None
        try:
            while True:
                step = loop.send(result)
                if isinstance(step, Pause):
                    await self._policy.asleep(step.seconds)
                    result = None
                else:
                    result = await self._aattempt(request, step)
        except StopIteration as stop:
            return cast(Response, stop.value)

    def _start(self, request: Request) -> Retrying:
        if self._is_closed:
            raise ClientClosedError("This client was closed: make a new one.")
        return self._loop.run(request)

    def release(self) -> None:
        """Closes idle sockets; the transport stays usable. Those of an event loop are closed by it, soon."""
        self._wire_of_this_process().release()
        if self._async_wire is not None:
            self._async_wire.release()

    async def arelease(self) -> None:
        """Like :meth:`release`; those of the event loop that runs are closed when it returns."""
        self._wire_of_this_process().release()
        if self._async_wire is not None:
            await self._async_wire.arelease()

    def close(self) -> None:
        """Closes everything that is ours; sending afterwards raises ``ClientClosedError``."""
        self._is_closed = True
        self.release()

    async def aclose(self) -> None:
        """Like :meth:`close`."""
        self._is_closed = True
        await self.arelease()

    def __del__(self) -> None:
        wire = getattr(self, "_wire", None)  # not there where an option was refused
        # At the end of Python the operating system closes them; a forked child only has copies of its parent's.
        is_open = wire is not None and wire.holds_sockets and wire.pid == os.getpid()
        async_wire: AsyncWire | None = getattr(self, "_async_wire", None)
        if (is_open or (async_wire is not None and async_wire.holds_sockets)) and not sys.is_finalizing():
            warnings.warn(
                f"A client of {self._host} was left with open connections: use it in a with block, or close() it.",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"HttpTransport({self._server_url!r})"

    def __reduce__(self) -> NoReturn:
        raise InvalidTypeError("A transport holds sockets and credentials, which cannot be pickled or copied.")

    def _wire_of_this_process(self) -> Wire:
        # After a fork both processes would read each other's answers from the same sockets. No lock: one that another
        # thread held at the moment of the fork would stay locked in the child for ever.
        if self._wire.pid != os.getpid():
            self._wire = self._wire.after_fork()
        return self._wire

    def _attempt(self, request: Request, attempt: Attempt) -> Result:
        """Return the answer, or the error of an exchange without one."""
        started = self._reporter.begin(request, attempt.number)
        result: Result | None = None
        try:
            return (result := self._ask(request, attempt))
        except KintoError as error:
            return (result := error)
        finally:
            self._reporter.end(request, attempt.number, started, result)

    async def _aattempt(self, request: Request, attempt: Attempt) -> Result:
        """Like :meth:`_attempt`."""
        wire = self._async_wire
        if wire is None:
            return await asyncio.to_thread(self._attempt, request, attempt)
        body = self._body(request, attempt.deadline)
        pool = await wire.pool()
        try:
            async with pool.turn(self._limits(attempt.deadline).whole, body.name) as transport:
                started = self._reporter.begin(request, attempt.number)
                response = None
                try:
                    limits = self._limits(attempt.deadline)
                    status, headers, sent = await wire.ask(transport, request, limits, body)
                    response = self._response(request, status, headers, body)
                finally:
                    self._reporter.end(request, attempt.number, started, response)
                assert response is not None
                if attempt.may_renew:
                    response = await wire.renewed(request, response, sent)
        except KintoError as error:
            return error
        return response

    def _ask(self, request: Request, attempt: Attempt) -> Response:
        wire = self._wire_of_this_process()
        body = self._body(request, attempt.deadline)
        try:
            answer = wire.send(request, self._limits(attempt.deadline))
            try:
                for piece in answer.body:
                    body.add(piece)
            finally:
                answer.close()
        except KintoError:
            raise
        except FOREIGN_ERRORS as error:
            failure = translate(error, body.name)
        else:
            response = self._response(request, answer.status, answer.headers, body)
            return renewed(request, response, wire.auth, answer.sent) if attempt.may_renew else response
        raise failure  # out here, so that the error of a library, which may show secrets, does not become its context

    def _response(self, request: Request, status: int, headers: dict[str, str], body: Body) -> Response:
        self._backoff.note(backoff(headers))
        content = b"" if request.method == "HEAD" else body.whole()
        return Response(status, headers, content, retry_after=retry_after(headers))

    def _limits(self, deadline: float) -> Limits:
        # Sockets take no timeout of 0; with so little left, the deadline is what will be reported.
        left = max(deadline - self._policy.clock(), 0.001)
        connect, read = self._timeout
        return Limits(min(connect, left), min(read, left), left)

    def _body(self, request: Request, deadline: float) -> Body:
        return Body(self._reporter.name(request), self._max_response_bytes, deadline, self._policy.clock)


def _async_wire(name: AsyncTransport, options: WireOptions, session: object, adapter: object) -> AsyncWire | None:
    if name not in get_args(AsyncTransport):
        raise ConfigurationError(f"async_transport is 'threads' or 'httpx', not {name!r:.60}.")
    if name == "threads":
        return None
    if session is not None:
        raise ConfigurationError("httpx cannot send by session=, which is one of requests: leave one of both out.")
    if adapter is not None:
        raise ConfigurationError("httpx sends to servers on the network only: threads do for one in this process.")
    return AsyncWire(options)


def merge_credentials(server_url: str, auth: AuthInput) -> tuple[str, AuthInput]:
    """The URL without credentials, and those that were in it or were given apart.

    Raises ``ConfigurationError`` for both at once.
    """
    url, taken = take_credentials(server_url)
    if taken is not None and auth is not None:
        raise ConfigurationError("The credentials are in server_url and in auth=: give them once, as auth=.")
    return url, auth if taken is None else taken


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


def _checked_verify(verify: Verify) -> Verify:
    if isinstance(verify, bool) or (isinstance(cast(object, verify), str) and os.path.exists(verify)):
        return verify
    raise ConfigurationError(f"verify is True, False or the path of a CA bundle that exists, not {verify!r}.")


def _checked_cert(cert: Certificate) -> Certificate:
    paths = cert if isinstance(cert, tuple) else (cert,)
    if cert is None or (len(paths) <= 2 and all(isinstance(path, str) and os.path.exists(path) for path in paths)):
        return cert
    raise ConfigurationError(f"cert is the path of a certificate, or (certificate, key), that exist, not {cert!r:.99}.")


def _checked_size(size: int) -> int:
    if isinstance(cast(object, size), int) and size > 0:
        return size
    raise ConfigurationError(f"max_response_bytes is a whole number above 0, not {size!r:.60}.")
