"""Many reads in one request: the flows that yield them move together.

A batch of reads takes the server as long as the reads by themselves, and is no snapshot; it saves the journeys.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from kinto_orm.errors import KintoError
from kinto_orm.protocol.batches import batch_request, split_answer
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.writes import Flow, Write
from kinto_orm.repository.state import FlowRunner
from kinto_orm.unit_of_work.bulk import full_batch

_UNREAD: Any = object()


def gather_reads(flows: Sequence[Flow[Any]], runner: FlowRunner) -> Flow[list[tuple[Any, KintoError | None]]]:
    """What each of the flows gives, or the error that it ends with; their requests travel in batches."""
    reads = [_Moving(flow) for flow in flows]
    limit = yield from _batch_of_reads(runner)
    while waiting := [one for one in reads if one.request is not None]:
        together = [one for one in waiting if not one.must_go_alone][:limit]
        if together:
            yield from _ask_together(together)
        else:
            alone = waiting[0]
            alone.move((yield cast(Request, alone.request)))
    return [(one.value, one.error) for one in reads]


def _batch_of_reads(runner: FlowRunner) -> Flow[int]:
    """How many reads travel together; none to a read-only server, which refuses every ``POST``."""
    info = yield from runner.describe_server()
    settings = info.get("settings")
    if isinstance(settings, dict) and settings.get("readonly") is True:
        return 0
    return (yield from full_batch(runner))


def _ask_together(reads: Sequence[_Moving]) -> Flow[None]:
    response = yield batch_request([one.entry for one in reads])
    for one, answer in zip(reads, split_answer(response, len(reads), with_headers=True), strict=True):
        one.move(answer)


class _Moving:
    """A flow on its way: the request that it waits for, or what it came to."""

    def __init__(self, flow: Flow[Any]) -> None:
        self._flow = flow
        self.request: Request | None = None
        self.value: Any = _UNREAD
        self.error: KintoError | None = None
        self.move(None)

    def move(self, answer: Response | None) -> None:
        """Goes on with the answer to the request."""
        try:
            request = next(self._flow) if answer is None else self._flow.send(answer)
        except StopIteration as stop:
            self.request, self.value = None, stop.value
        except KintoError as error:
            self.request, self.error = None, error
        else:
            assert not isinstance(request, Write) and not request.is_write
            self.request = request

    @property
    def must_go_alone(self) -> bool:
        """Whether it breaks a batch: a conditional read crashes it, a path with "/batch" is refused with all others."""
        assert self.request is not None
        return "/batch" in self.request.target or "If-None-Match" in self.request.headers

    @property
    def entry(self) -> JSONObject:
        """The request as an entry of a batch."""
        assert self.request is not None
        return {"method": self.request.method, "path": self.request.target}
