"""HTTP by ``requests``: one exchange, with bounds on everything, and every failure as one of our errors.

A request here cannot outlast its deadline, fill the memory, or be sent twice where that could do harm.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import warnings
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter

from kinto_orm.errors import ClientClosedError, ConfigurationError, ConnectionFailedError, InvalidTypeError, KintoError
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.transport.auth import AuthInput, parse_auth, parse_headers, take_credentials
from kinto_orm.transport.bodies import Body
from kinto_orm.transport.reporting import Reporter, RequestEvent, ResponseEvent, RetryEvent
from kinto_orm.transport.requests_errors import FOREIGN_ERRORS, translate
from kinto_orm.transport.retry import (
    Attempt,
    Backoff,
    Pause,
    Result,
    RetryBudget,
    RetryLoop,
    RetryPolicy,
    Timeout,
    backoff,
    parse_timeout,
    retry_after,
)
from kinto_orm.transport.sessions import POOL_SIZE, Certificate, Limits, Verify, Wire, WireOptions, make_wire
from kinto_orm.transport.token_refresh import renewed

T = TypeVar("T")

MAX_RESPONSE_BYTES = 64 * 1024 * 1024

_AS_IN = "as in http://localhost:8888/v1"


class HttpTransport:
    """Sender of requests to one server; see :class:`~kinto_orm.protocol.messages.Transport`.

    Safe in threads and after a fork.

    ``timeout`` is ``(connect, read)``, in seconds, for each wait for the network, and ``deadline``, in seconds, for a
    whole call; it replaces that of ``policy``. ``headers`` are sent with every request. ``cert`` is the client's
    certificate. ``trust_env`` lets the environment give proxies and a CA bundle; netrc is never read. Credentials
    travel over plain http to this machine only, unless ``allow_insecure``. ``session`` is used unchanged, with its
    auth, headers and adapters, and never closed. ``adapter`` replaces the network for the server's URL; it is closed
    only if it is an ``HTTPAdapter``. ``on_request`` is called before each exchange, ``on_response`` after it,
    ``on_retry`` before each wait for another one, all in the thread that sends. ``log_bodies`` also logs bodies,
    without values that look secret. Raises ``ConfigurationError``.
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
        authenticator = parse_auth(auth)
        use_server = getattr(authenticator, "__kinto_use_server__", None)
        if use_server is not None:  # it asks the server how to log in, before it has credentials
            asking: dict[str, Any] = {"timeout": timeout, "verify": verify, "cert": cert, "proxies": proxies}
            asking |= {"trust_env": trust_env, "adapter": adapter, "policy": self._policy}
            asking |= {"max_response_bytes": max_response_bytes}
            use_server(self._server_url, partial(ask_anonymously, self._server_url, options=asking))
        options = WireOptions(
            self._server_url,
            authenticator,
            parse_headers(headers or {}),
            _checked_verify(verify),
            _checked_cert(cert),
            dict(proxies or {}),
            trust_env,
            allow_insecure,
        )
        self._threads = SendingThreads()
        self._wire = make_wire(options, session, adapter)

    @property
    def server_url(self) -> str:
        """The root URL of the server, with the version and without a slash at its end."""
        return self._server_url

    def send(self, request: Request) -> Response:
        """Send the request and return the answer, whatever its status; redirects are not followed.

        Raises ``ConnectionFailedError`` (nothing was sent), ``ConnectionLostError`` or ``DeadlineError`` (the server
        may have applied the request), ``BackoffError`` (it asks for a pause), ``ProtocolError`` (the answer is not
        HTTP, or too large), ``ClientClosedError``.
        """
        self._check_open()
        return self._loop.drive(request, partial(self._attempt, request), self._policy.sleep)

    async def asend(self, request: Request) -> Response:
        """Send as :meth:`send` does, in a thread. Where it is cancelled, nothing more is sent.

        A request that is on its way at that moment goes on to its end, and the server may apply it.
        """
        self._check_open()
        loop = self._loop.run(request)
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

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError("This client was closed: make a new one.")

    def release(self) -> None:
        """Close idle sockets; the transport stays usable."""
        self._wire_of_this_process().release()

    async def arelease(self) -> None:
        """Like :meth:`release`."""
        self.release()

    def close(self) -> None:
        """Close all connections of the transport; sending afterwards raises ``ClientClosedError``."""
        self._is_closed = True
        self.release()
        self._threads.close()

    async def aclose(self) -> None:
        """Like :meth:`close`."""
        self.close()

    def __del__(self) -> None:
        wire = getattr(self, "_wire", None)  # not there where an option was refused
        # At the end of Python the operating system closes them; a forked child only has copies of its parent's.
        if wire is not None and wire.holds_sockets and wire.pid == os.getpid() and not sys.is_finalizing():
            warnings.warn(
                f"A client of {self._host} was left with open connections: use it in a with block, or close() it.",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"HttpTransport({getattr(self, '_server_url', None)!r})"

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
        """Return what :meth:`_attempt` returns, once it was the turn of this request."""
        seconds = attempt.deadline - self._policy.clock()
        try:
            return await self._threads.run(partial(self._attempt, request, attempt), seconds)
        except TimeoutError:
            return ConnectionFailedError(
                f"{self._reporter.name(request)}: nothing was sent, because {POOL_SIZE} other requests were on their "
                "way until the deadline. Start fewer at a time, or give the client a longer deadline."
            )

    def _ask(self, request: Request, attempt: Attempt) -> Response:
        wire = self._wire_of_this_process()
        # Sockets take no timeout of 0; with so little left, the deadline is what will be reported.
        left = max(attempt.deadline - self._policy.clock(), 0.001)
        connect, read = self._timeout
        body = Body(self._reporter.name(request), self._max_response_bytes, attempt.deadline, self._policy.clock)
        try:
            answer = wire.send(request, Limits(min(connect, left), min(read, left), left))
            try:
                for piece in answer.body:
                    body.add(piece)
            finally:
                answer.close()
        except KintoError:
            raise
        except FOREIGN_ERRORS as error:
            failure = translate(error, body.name, is_read=not request.is_write)
        else:
            self._backoff.note(backoff(answer.headers))
            content = b"" if request.method == "HEAD" else body.whole()
            response = Response(answer.status, answer.headers, content, retry_after=retry_after(answer.headers))
            return renewed(request, response, wire.auth, answer.sent) if attempt.may_renew else response
        raise failure  # out here, so that the error of a library, which may show secrets, does not become its context


class SendingThreads:
    """The threads that send for event loops.

    No more than ``POOL_SIZE`` requests of a loop are on their way at a time; the others wait, in the order of their
    coming: threads that begin all at once would compete with the loop for Python's lock.
    """

    def __init__(self) -> None:
        # No lock: one that another thread held at the moment of a fork would stay locked in the child for ever.
        self._executor: tuple[int, ThreadPoolExecutor] | None = None
        self._turns: dict[AbstractEventLoop, asyncio.Semaphore] = {}

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Return the result of ``work``, which a thread calls in the context of the caller.

        Work that has begun goes on to its end in its thread where this is cancelled, and keeps its turn until then.
        Raises ``TimeoutError`` where the turn does not come within the seconds.
        """
        loop = asyncio.get_running_loop()
        turns = self._turns.get(loop) or self._new_turns(loop)
        if turns.locked():
            async with asyncio.timeout(seconds):
                await turns.acquire()
        else:
            await turns.acquire()  # at once
        future: Future[T] | None = None
        try:
            future = self._submit(partial(copy_context().run, work))
            return await asyncio.wrap_future(future)
        finally:
            if future is None or future.done():
                turns.release()
            else:
                future.add_done_callback(partial(_release, loop, turns))

    def _new_turns(self, loop: AbstractEventLoop) -> asyncio.Semaphore:
        for known in list(self._turns):
            if known.is_closed():
                self._turns.pop(known, None)
        turns = self._turns[loop] = asyncio.Semaphore(POOL_SIZE)
        return turns

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        if self._executor is None or self._executor[0] != os.getpid():  # the threads did not survive the fork
            self._executor = (os.getpid(), ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="kinto-orm"))
        try:
            return self._executor[1].submit(work)
        except RuntimeError as error:
            raise ClientClosedError(f"Nothing was sent: this client was closed, or Python ends ({error}).") from error

    def close(self) -> None:
        """End the threads, each after the request that it is at."""
        executor, self._executor = self._executor, None
        if executor is not None and executor[0] == os.getpid():
            executor[1].shutdown(wait=False)


def _release(loop: AbstractEventLoop, turns: asyncio.Semaphore, _: object) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(turns.release)


def ask_anonymously(server_url: str, seconds: float, *, options: Mapping[str, Any] = MappingProxyType({})) -> Response:
    """Return what the server says of itself, asked without credentials by a transport with these options."""
    transport = HttpTransport(server_url, deadline=seconds, **options)
    try:
        return transport.send(Request("GET", "/"))
    finally:
        transport.close()


def merge_credentials(server_url: str, auth: AuthInput) -> tuple[str, AuthInput]:
    """Return the URL without credentials, and the credentials in it or beside it.

    Raises ``ConfigurationError`` for both at once.
    """
    url, taken = take_credentials(server_url)
    if taken is not None and auth is not None:
        raise ConfigurationError("The credentials are in server_url and in auth=: give them once, as auth=.")
    return url, auth if taken is None else taken


def parse_server_url(url: str) -> str:
    """Return the root URL in its normal form: lower-case scheme and host, no final slash, ``/v1`` if it has no version.

    The version is appended because Kinto answers 307 without one, and redirects are never followed. Raises
    ``ConfigurationError`` for anything but ``http`` and ``https`` with a host, for a query string, a fragment, and for
    credentials, which it does not show.
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
