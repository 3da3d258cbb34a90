"""What is told of each exchange: to the hooks of the client, and to the log. The same, whatever sends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from kinto_orm.messages import Request, Response
from kinto_orm.transport.events import RequestEvent, ResponseEvent, RetryEvent
from kinto_orm.transport.redaction import redacted
from kinto_orm.transport.retry import Result

logger = logging.getLogger("kinto_orm")

E = TypeVar("E")


@dataclass(slots=True)
class Exchange:
    """One request and its answer, where one came."""

    response: Response | None = None


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who hears of the exchanges with one host. A hook that fails does no harm."""

    host: str
    clock: Callable[[], float]
    log_bodies: bool
    on_request: Callable[[RequestEvent], object] | None
    on_response: Callable[[ResponseEvent], object] | None
    on_retry: Callable[[RetryEvent], object] | None

    def name(self, request: Request) -> str:
        """How errors and the log call the request."""
        return f"{request.method} {request.path} on {self.host}"

    @contextmanager
    def exchange(self, request: Request, attempt: int) -> Generator[Exchange]:
        """Tells that the exchange begins, and how it ended: with the answer that was set inside the block, or none."""
        self._tell(self.on_request, RequestEvent(request.method, request.target, attempt))
        exchange = Exchange()
        started = self.clock()
        try:
            yield exchange
        finally:
            elapsed_ms = (self.clock() - started) * 1000
            status = None if exchange.response is None else exchange.response.status
            event = ResponseEvent(request.method, request.target, status, elapsed_ms, attempt)
            self._report(event, request, exchange.response)

    def tell_retry(self, request: Request, attempt: int, wait: float, result: Result) -> None:
        """Tells that the request is sent again after this attempt, in so many seconds."""
        reason = str(result.status) if isinstance(result, Response) else type(result).__name__
        logger.warning("%s: %s in attempt %d, again in %.2f s", self.name(request), reason, attempt, wait)
        self._tell(self.on_retry, RetryEvent(request.method, request.target, attempt, reason, wait))

    def tell_empty(self, request: Request) -> None:
        """Tells that the request is not sent again, because all others were so often."""
        logger.warning("%s: not sent again, because the retry budget of this client is empty", self.name(request))

    def _report(self, event: ResponseEvent, request: Request, response: Response | None) -> None:
        status = "no answer" if event.status is None else event.status
        logger.debug(
            "%s %s: %s, %.0f ms, attempt %d", event.method, request.path, status, event.elapsed_ms, event.attempt
        )
        if self.log_bodies:
            came = None if response is None else response.body
            logger.debug("%s %s: %s -> %s", event.method, request.path, redacted(request.body), redacted(came))
        self._tell(self.on_response, event)

    def _tell(self, hook: Callable[[E], object] | None, event: E) -> None:
        try:
            if hook is not None:
                hook(event)
        except Exception:
            # A failing observer must not make a stored write look like a lost one.
            logger.exception("The hook for a %s failed", type(event).__name__)
