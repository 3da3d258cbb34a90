"""HTTP by ``requests``: one exchange, with bounds on everything, and every failure as one of our errors.

A request here cannot outlast its deadline, fill the memory, or be sent twice where that could do harm.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from asyncio import AbstractEventLoop
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

from requests.adapters import BaseAdapter

from kinto_orm.errors import (
    ClientClosedError,
    ConnectionFailedError,
    InvalidTypeError,
    KintoError,
    ResponseTooLargeError,
)
from kinto_orm.protocol.messages import Request, Response, run_blocking
from kinto_orm.transport.options import WireOptions, parse_timeout
from kinto_orm.transport.reporting import Reporter, Result
from kinto_orm.transport.requests_errors import FOREIGN_ERRORS, translate
from kinto_orm.transport.retry import CLOCK, Attempt, Clock, RetryLoop
from kinto_orm.transport.sessions import POOL_SIZE, Answer, Limits, Wire, make_wire
from kinto_orm.transport.token_refresh import renewed

T = TypeVar("T")

_CLOSED = "This client was closed: make a new one."


class HttpTransport:
    """Sender of requests to one server; see :class:`~kinto_orm.protocol.messages.Transport`.

    Safe in threads and after a fork. ``adapter`` replaces the network for the server's URL; it is closed only if it is
    an ``HTTPAdapter``. Raises ``ConfigurationError``.
    """

    def __init__(self, options: WireOptions, *, adapter: BaseAdapter | None = None, clock: Clock = CLOCK) -> None:
        options = options.checked()
        self._clock = clock
        self._server_url = options.server_url
        self._host = urlsplit(self._server_url).netloc
        self._timeout = parse_timeout(options.timeout)
        self._reporter = Reporter(
            self._host, clock.now, options.log_bodies, options.on_request, options.on_response, options.on_retry
        )
        self._loop = RetryLoop(options, clock, self._reporter.tell_retry, self._reporter.tell_empty)
        self._max_response_bytes = options.max_response_bytes
        self._is_closed = False
        use_server = getattr(options.auth, "__kinto_use_server__", None)
        if use_server is not None:  # it asks the server how to log in, before it has credentials
            use_server(self._server_url, partial(ask_anonymously, options, adapter=adapter, clock=clock))
        self._threads = SendingThreads()
        self._wire = make_wire(options, adapter)

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
        return run_blocking(self._loop.run(request, self._attempt, self._sleep))

    async def asend(self, request: Request) -> Response:
        """Send as :meth:`send` does, in a thread. Where it is cancelled, nothing more is sent.

        A request that is on its way at that moment goes on to its end, and the server may apply it.
        """
        return await self._loop.run(request, self._aattempt, self._clock.asleep)

    def release(self) -> None:
        """Close idle sockets; the transport stays usable."""
        self._wire_of_this_process().release()

    def close(self) -> None:
        """Close all connections of the transport; sending afterwards raises ``ClientClosedError``."""
        self._is_closed = True
        self.release()
        self._threads.close()

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

    async def _attempt(self, request: Request, attempt: Attempt) -> Result:
        """Return the answer, or the error of an exchange without one; block until then."""
        if self._is_closed:  # perhaps between two attempts
            return ClientClosedError(_CLOSED)
        started = self._reporter.begin(request, attempt.number)
        result: Result | None = None
        try:
            return (result := self._ask(request, attempt))
        except KintoError as error:
            return (result := error)
        finally:
            self._reporter.end(request, attempt.number, started, result)

    async def _sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    async def _aattempt(self, request: Request, attempt: Attempt) -> Result:
        """Return what :meth:`_attempt` returns, once it was the turn of this request."""
        if self._is_closed:
            return ClientClosedError(_CLOSED)
        seconds = attempt.deadline - self._clock.now()
        try:
            return await self._threads.run(lambda: run_blocking(self._attempt(request, attempt)), seconds)
        except ClientClosedError as error:
            return error
        except TimeoutError:
            return ConnectionFailedError(
                f"{self._reporter.name(request)}: nothing was sent, because {POOL_SIZE} other requests were on their "
                "way until the deadline. Start fewer at a time, or give the client a longer deadline."
            )

    def _ask(self, request: Request, attempt: Attempt) -> Response:
        wire = self._wire_of_this_process()
        # Sockets take no timeout of 0; with so little left, the deadline is what will be reported.
        left = max(attempt.deadline - self._clock.now(), 0.001)
        connect, read = self._timeout
        try:
            answer = wire.send(request, Limits(min(connect, left), min(read, left), left))
            try:
                content = self._read(request, answer, attempt.deadline)
            finally:
                answer.close()
        except KintoError:
            raise
        except FOREIGN_ERRORS as error:
            failure = translate(error, self._reporter.name(request), is_read=not request.is_write)
        else:
            self._loop.note(answer.headers)
            response = Response(answer.status, answer.headers, content)
            return renewed(request, response, wire.auth, answer.sent) if attempt.may_renew else response
        raise failure  # out here, so that the error of a library, which may show secrets, does not become its context

    def _read(self, request: Request, answer: Answer, deadline: float) -> bytes:
        """Return the decoded body. Raises ``ResponseTooLargeError``, and ``TimeoutError`` after the deadline."""
        pieces: list[bytes] = []
        size = 0
        for piece in answer.body:
            size += len(piece)
            if size > self._max_response_bytes:
                raise ResponseTooLargeError(
                    f"{self._reporter.name(request)}: the answer has more than {self._max_response_bytes} bytes. "
                    "Ask for less at a time, or raise max_response_bytes."
                )
            if self._clock.now() > deadline:
                raise TimeoutError
            pieces.append(piece)
        return b"" if request.method == "HEAD" else b"".join(pieces)


class SendingThreads:
    """The threads that send for event loops.

    No more than ``POOL_SIZE`` requests of a loop are on their way at a time; the others wait, in the order of their
    coming. Left to the executor, which would begin the next one in the same thread, 2,000 saves keep the loop from its
    work for 1.2 s, instead of 0.2: they compete with it for Python's lock.
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


def ask_anonymously(
    options: WireOptions, seconds: float, *, adapter: BaseAdapter | None = None, clock: Clock = CLOCK
) -> Response:
    """Return what the server says of itself, asked without credentials, in the way of these options."""
    asking = replace(options, auth=None, headers=None, session=None, deadline=seconds)
    asking = replace(asking, on_request=None, on_response=None, on_retry=None)
    transport = HttpTransport(asking, adapter=adapter, clock=clock)
    try:
        return transport.send(Request("GET", "/"))
    finally:
        transport.close()
