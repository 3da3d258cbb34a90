"""Retries: when a request is sent again, and the wait before it; one loop around one HTTP request.

The loop awaits attempts and pauses, which block where the caller does, so threads and event loops share it. Every
failure has a class, and only the class decides:

- *not sent*: there was no connection. Sent again.
- *rejected*: the server refused. Final.
- *not applied*: the server did nothing (429, 409, a 503 of Kinto itself). Sent again.
- *ambiguous*: the answer was lost, or is not Kinto's; the request may have been applied. Sent again, byte for byte,
  only where sending it twice has no second effect: a read, or writes that all carry a precondition.

Apart from these, expired credentials (401) are renewed once, where the auth object can do that: nothing was applied
then, so writes are sent again, too. That counts as no retry.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

from pydantic_core import from_json

from kinto_orm.errors import BackoffError, ConnectionFailedError, ConnectionLostError, LoginFailedError
from kinto_orm.protocol.messages import Request, Response, whole_seconds
from kinto_orm.transport.options import WireOptions
from kinto_orm.transport.reporting import Result
from kinto_orm.transport.requests_errors import FinalConnectionError


def backoff(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Backoff``; ``None`` for a missing or malformed header."""
    value = headers.get("backoff")
    return None if value is None else whole_seconds(value.strip())


BASE = 0.25
CAP = 20.0
MAX_RETRY_AFTER = 60.0
MAX_BACKOFF = 300.0
"""Bounds of the waits, in seconds."""

BUDGET = 500
COST_OF_RETRY = 14
COST_OF_RETRY_NOT_APPLIED = 5
"""In tokens of the budget: numbers that have proven themselves in the clients of large services."""


class Failure(Enum):
    """The class of a failed attempt."""

    NONE = "none"
    """An answer; also one that says no."""
    NOT_SENT = "not sent"
    NOT_APPLIED = "not applied"
    AMBIGUOUS = "ambiguous"
    FINAL = "final"


_NOT_APPLIED = frozenset({409, 425, 429})
_AMBIGUOUS = frozenset({408, 500, 502, 504})
LENGTH = frozenset({"content-length", "transfer-encoding"})
"""The headers that say how long an answer is."""
_ONCE = frozenset({409, 500})
"""Again at most once: a race that is lost twice, or a failure that repeats itself, is for the caller to see."""


class Clock(NamedTuple):
    """The time and the chance of a retry loop, which tests replace.

    ``now`` is monotonic; all are seconds, but for ``random``, a float from 0 to 1.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    asleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random


CLOCK = Clock()


@dataclass(slots=True, eq=False, repr=False)
class RetryBudget:
    """The retries that the requests of one client may make together, so that they do not hammer a server in trouble.

    Each success pays something back.
    """

    tokens: float = BUDGET
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, cost: float) -> bool:
        """Spend that much and return whether it was left."""
        with self._lock:
            if self.tokens < cost:
                return False
            self.tokens -= cost
            return True

    def pay_back(self, amount: float) -> None:
        """Add that much to the budget."""
        with self._lock:
            self.tokens = min(BUDGET, self.tokens + amount)


class Attempt(NamedTuple):
    """One exchange. The deadline is a time of the clock."""

    number: int
    deadline: float
    may_renew: bool = True
    """Whether credentials that are refused now may be renewed; those that were, would be refused again."""


Sleep: TypeAlias = Callable[[float], Awaitable[None]]


def _ignore(*_: object) -> None:
    """Report nothing."""


@dataclass(slots=True, eq=False, repr=False)
class RetryLoop:
    """The loop of one client: its options, and the state that its requests share.

    Of the options, ``retry`` counts attempts after the first one. ``retry_after`` is a fixed wait between two attempts;
    it replaces the server's (``Retry-After``, at most ``MAX_RETRY_AFTER``) and our own: random, up to ``BASE`` at
    first, doubled each time and never above ``CAP``. ``deadline`` bounds a whole call: all its attempts and the waits
    between them. ``on_backoff`` is the treatment of requests while the server asks for a pause (``Backoff``, at most
    ``MAX_BACKOFF``).
    https://docs.kinto-storage.org/en/stable/api/1.x/backoff.html
    """

    options: WireOptions
    clock: Clock
    on_retry: Callable[[Request, int, float, Result], None] = _ignore
    """Called before each new attempt, with the failed one, the wait in seconds, and the failure."""
    on_empty: Callable[[Request], None] = _ignore
    """Called where a request is not sent again because the budget is spent."""
    budget: RetryBudget = field(default_factory=RetryBudget)
    pause_until: float | None = None
    """A time of the clock; ``None`` where the server asked for no pause with its last answer."""

    def note(self, headers: Mapping[str, str]) -> None:
        """Store the pause that an answer asks for; one without the header ends the pause, as does a malformed one."""
        asked = backoff(headers)
        self.pause_until = None if asked is None else self.clock.now() + min(asked, MAX_BACKOFF)

    async def run(
        self, request: Request, attempt: Callable[[Request, Attempt], Awaitable[Result]], sleep: Sleep
    ) -> Response:
        """Return the answer, or raise the last attempt's error: at once where another wait would miss the deadline."""
        deadline = self.clock.now() + self.options.deadline
        if request.attempt > 1:
            await sleep(self.wait(request.attempt - 1))
        may_be_applied = is_renewed = False
        number = 1
        while True:
            if self.pause_until is not None:
                try:
                    left = self._pause(request, self.pause_until, deadline)
                except BackoffError as refusal:  # of this attempt; the earlier ones were sent
                    return _handed_over(refusal, may_be_applied=may_be_applied and request.is_write)
                if left:
                    await sleep(left)
            result = await attempt(request, Attempt(number + is_renewed, deadline, may_renew=not is_renewed))
            failure = failure_of(result)
            if isinstance(result, Response) and result.asks_for_login:
                self.on_retry(request, number, 0.0, result)
                is_renewed = True
                continue
            wait = None if failure is Failure.NONE else self._wait(request, result, failure, number, deadline)
            if wait is None:
                break
            self.on_retry(request, number, wait, result)
            await sleep(wait)
            may_be_applied = may_be_applied or failure is Failure.AMBIGUOUS
            number += 1
        if failure is Failure.NONE:
            self.budget.pay_back(1 if number == 1 else COST_OF_RETRY)
        if isinstance(result, Response) and not may_be_applied:
            return result
        return _handed_over(result, may_be_applied=may_be_applied and request.is_write)

    def wait(self, attempt: int, asked: float | None = None) -> float:
        """Return the seconds to wait after this attempt, the first being 1; ``asked`` is the server's wish."""
        if self.options.retry_after is not None:
            return self.options.retry_after
        if asked is not None:
            # Those who were refused together shall not come back together.
            return min(asked, MAX_RETRY_AFTER) + self.clock.random() * BASE
        # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        # The exponent is bounded because 2.0 ** 1024 overflows.
        return self.clock.random() * min(CAP, BASE * 2.0 ** min(attempt - 1, 64))

    def _pause(self, request: Request, until: float, deadline: float) -> float:
        """Return the seconds for which the server wants to be left alone; raise ``BackoffError`` for too many."""
        left = 0.0 if self.options.on_backoff == "ignore" else max(0.0, until - self.clock.now())
        if left and (self.options.on_backoff == "raise" or until >= deadline):
            raise BackoffError(
                f"{request.method} {request.path} was not sent: the server asks for a pause of {left:.0f} more seconds "
                "(its header Backoff). Wait, or give the client a longer deadline or on_backoff='ignore'.",
                retry_after=left,
            )
        return left

    def _wait(self, request: Request, result: Result, failure: Failure, number: int, deadline: float) -> float | None:
        """Return the seconds until the next attempt; ``None`` where there is none."""
        if not self._may_retry(request, result, failure, number):
            return None
        asked = result.retry_after if isinstance(result, Response) else None
        now = self.clock.now()
        is_too_long = self.options.retry_after is None and asked is not None and now + asked >= deadline
        wait = self.wait(number, asked)
        if is_too_long or now + wait >= deadline:
            return None
        cost = COST_OF_RETRY_NOT_APPLIED if failure is Failure.NOT_APPLIED else COST_OF_RETRY
        if not self.budget.take(cost):
            self.on_empty(request)
            return None
        return wait

    def _may_retry(self, request: Request, result: Result, failure: Failure, number: int) -> bool:
        if failure is Failure.FINAL or number > self.options.retry:
            return False
        if failure is Failure.AMBIGUOUS and not request.is_repeatable:
            return False
        if request.takes_any_answer and isinstance(result, Response):
            return False
        return not (isinstance(result, Response) and result.status in _ONCE and number > 1)


def failure_of(result: Result) -> Failure:
    """Return the class of an attempt's result."""
    if isinstance(result, Response):
        status = result.status
        if status in _NOT_APPLIED or (status == 503 and _is_of_kinto(result)):
            return Failure.NOT_APPLIED
        if status in _AMBIGUOUS or status == 503 or (LENGTH.isdisjoint(result.headers) and _is_cut_short(result)):
            return Failure.AMBIGUOUS
        return Failure.NONE
    if isinstance(result, (FinalConnectionError, LoginFailedError)):
        return Failure.FINAL
    if isinstance(result, ConnectionFailedError):
        return Failure.NOT_SENT
    return Failure.AMBIGUOUS if isinstance(result, ConnectionLostError) else Failure.FINAL


def _is_of_kinto(answer: Response) -> bool:
    """Return whether the answer comes from Kinto itself, and not from a proxy, which does not know what Kinto did."""
    return answer.body.lstrip()[:1] == b"{" and b'"errno"' in answer.body


def _is_cut_short(answer: Response) -> bool:
    """Return whether the connection was closed too early, where no header says how long the answer is.

    Also for a refusal: half a 412 does not say whose write it found.
    """
    if answer.body.lstrip()[:1] not in (b"{", b"["):
        return False
    try:
        from_json(answer.body)
    except ValueError:
        return _is_beginning(answer.body)
    return False


def _is_beginning(body: bytes) -> bool:
    try:
        from_json(body, allow_partial=True)
    except ValueError:
        return False  # it would be no JSON either if there was more of it
    return True


def _handed_over(result: Result, *, may_be_applied: bool) -> Response:
    if isinstance(result, Response):
        return result._replace(is_repeated=True) if may_be_applied else result
    if may_be_applied and not isinstance(result, ConnectionLostError):
        # This failure alone would say that nothing was sent, or that another server answered.
        raise ConnectionLostError(
            f"{str(result).rstrip('.')}. An earlier attempt of this request may have been applied: "
            "read the object before you send it again."
        ) from result
    raise result
