"""Reports of each exchange to the client's hooks and to the log, the same for every sender."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

from kinto_orm.errors import AlertWarning, KintoError, warn_user
from kinto_orm.protocol.json_values import JSON
from kinto_orm.protocol.messages import Request, Response

Result: TypeAlias = Response | KintoError
"""The result of an exchange: an answer, or the reason why there is none."""

MAX_SHOWN = 2000
"""In characters."""

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|authorization|credential|api_?-?key|cookie", re.IGNORECASE
)
HIDDEN = "***"


def redacted(body: bytes | None) -> str:
    """Return the body as text: JSON without secrets and without the object in a 412; other bodies as their size."""
    if not body:
        return "nothing"
    try:
        shown = json.dumps(redact(json.loads(body), hides_existing=True), ensure_ascii=False)
    except (ValueError, RecursionError):
        return f"{len(body)} bytes that are not JSON"
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}… ({len(body)} bytes)"


def redact(value: JSON, *, hides_existing: bool = False) -> JSON:
    """Return the JSON value with ``***`` for the values of keys that look secret, also where a JSON-Patch sets one.

    ``hides_existing``: for the object in a 412, too.
    """
    if isinstance(value, list):
        return [redact(item, hides_existing=hides_existing) for item in value]
    if not isinstance(value, dict):
        return value
    is_secret = isinstance(value.get("path"), str) and _SECRET_KEY.search(value["path"]) is not None
    return {
        key: HIDDEN
        if _SECRET_KEY.search(key)
        or (is_secret and key == "value")
        or (hides_existing and key == "existing" and isinstance(item, dict))
        else redact(item, hides_existing=hides_existing)
        for key, item in value.items()
    }


MAX_ALERTS = 100
"""A server that says something new each time shall not fill the memory."""


@dataclass(slots=True, eq=False, repr=False)
class Alerts:
    """The alerts of one server, each shown once for its code and URL."""

    _known: set[tuple[str, str]] = field(default_factory=set)
    _untold: list[str] = field(default_factory=list)

    def note(self, response: Response) -> None:
        """Store the alert of an answer; never fails, whatever the header holds."""
        header = response.headers.get("alert")
        if not header or len(self._known) >= MAX_ALERTS:
            return
        alert = _parsed(header)
        key = (_short(alert.get("code")), _short(alert.get("url")))
        if key not in self._known:
            self._known.add(key)
            code, url = key
            self._untold.append(f"The server says ({code}): {_short(alert.get('message'))} {url}".rstrip())

    def tell(self) -> None:
        """Warn of the stored alerts. To be called after the result is safe: a warning may be an error."""
        while self._untold:
            warn_user(self._untold.pop(0), AlertWarning)


def _parsed(header: str) -> dict[str, Any]:
    try:
        alert = json.loads(header)
    except (ValueError, RecursionError):
        alert = None
    return alert if isinstance(alert, dict) else {"message": header}


def _short(value: object) -> str:
    return "" if value is None else str(value)[:200]


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """A request that is about to be sent. ``attempt`` counts from 1; ``target`` is path and query string."""

    method: str
    target: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ResponseEvent:
    """An exchange that has ended; ``status`` is ``None`` where no answer came. ``elapsed_ms`` are milliseconds."""

    method: str
    target: str
    status: int | None
    elapsed_ms: float
    attempt: int


@dataclass(frozen=True, slots=True)
class RetryEvent:
    """A request that will be sent again: which attempt failed, why, and the wait before the next one, in seconds.

    ``reason`` is the status of the answer, or the name of the error where none came.
    """

    method: str
    target: str
    attempt: int
    reason: str
    wait: float


logger = logging.getLogger("kinto_orm")

E = TypeVar("E")


class Reporter(NamedTuple):
    """Who hears of the exchanges with one host. A hook that fails does no harm."""

    host: str
    clock: Callable[[], float]
    log_bodies: bool
    on_request: Callable[[RequestEvent], object] | None
    on_response: Callable[[ResponseEvent], object] | None
    on_retry: Callable[[RetryEvent], object] | None

    def name(self, request: Request) -> str:
        """Return the name of the request in errors and in the log."""
        return f"{request.method} {request.path} on {self.host}"

    def begin(self, request: Request, attempt: int) -> float:
        """Report that an exchange begins, and return the time of it."""
        if self.on_request is not None:
            self._tell(self.on_request, RequestEvent(request.method, request.target, attempt))
        return self.clock()

    def end(self, request: Request, attempt: int, started: float, result: Result | None) -> None:
        """Report how an exchange ended: with a response, or without one."""
        is_logged = logger.isEnabledFor(logging.DEBUG)
        if not is_logged and self.on_response is None:
            return
        elapsed_ms = (self.clock() - started) * 1000
        response = result if isinstance(result, Response) else None
        status = None if response is None else response.status
        if is_logged:
            shown = "no answer" if status is None else status
            logger.debug("%s %s: %s, %.0f ms, attempt %d", request.method, request.path, shown, elapsed_ms, attempt)
            if self.log_bodies:
                came = None if response is None else response.body
                bodies = (redacted(request.body), redacted(came))
                logger.debug("%s %s: %s -> %s", request.method, request.path, *bodies)
        if self.on_response is not None:
            self._tell(self.on_response, ResponseEvent(request.method, request.target, status, elapsed_ms, attempt))

    def tell_retry(self, request: Request, attempt: int, wait: float, result: Result) -> None:
        """Report that the request is sent again after this attempt, in so many seconds."""
        reason = str(result.status) if isinstance(result, Response) else type(result).__name__
        logger.warning("%s: %s in attempt %d, again in %.2f s", self.name(request), reason, attempt, wait)
        if self.on_retry is not None:
            self._tell(self.on_retry, RetryEvent(request.method, request.target, attempt, reason, wait))

    def tell_empty(self, request: Request) -> None:
        """Report that the request is not sent again, because the retry budget is spent."""
        logger.warning("%s: not sent again, because the retry budget of this client is empty", self.name(request))

    def _tell(self, hook: Callable[[E], object], event: E) -> None:
        try:
            hook(event)
        except Exception:
            # A failing observer must not make a stored write look like a lost one.
            logger.exception("The hook for a %s failed", type(event).__name__)
