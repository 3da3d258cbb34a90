"""An operation is a flow: a generator that yields requests, receives responses and returns its result.

A flow decides and does no I/O; a runner moves it. The same flow is driven by ``requests``, awaited, or answered
out of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from kinto_orm.messages import Request, Response
from kinto_orm.protocol.writes import Write

T = TypeVar("T")

Flow = Generator[Request | Write, Response, T]

NextFlow = Callable[[], Flow[T] | None]
"""Gives the next flow of a sequence; ``None`` at its end."""
