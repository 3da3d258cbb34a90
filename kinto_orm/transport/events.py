"""What the hooks of a client hear: ``on_request``, ``on_response``, ``on_retry``. Frozen values without secrets."""

from __future__ import annotations

from dataclasses import dataclass


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
