"""An operation is a flow: a generator that yields requests, receives responses and returns its result.

A flow decides and does no I/O; a runner moves it. The same flow is driven by ``requests``, awaited, or answered
out of a batch.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TypeVar, cast

from kinto_orm.messages import Request, Response
from kinto_orm.protocol.writes import Write

T = TypeVar("T")

Flow = Generator[Request | Write, Response, T]


def with_headers(flow: Flow[T], headers: Mapping[str, str]) -> Flow[T]:
    """The same flow, whose requests carry these headers too. The writes in it keep their own preconditions."""
    try:
        item = next(flow)
        while True:
            response = yield replace(item, headers={**item.headers, **headers}) if isinstance(item, Request) else item
            item = flow.send(response)
    except StopIteration as stop:
        return cast(T, stop.value)
    finally:
        flow.close()
