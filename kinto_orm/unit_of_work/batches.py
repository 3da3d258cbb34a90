"""Entries to answers: the one place that sends ``POST /batch``.

A batch is one HTTP request but not simply one transaction: a refusal leaves the others stored, a 409 undoes what was
answered before it. https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from kinto_orm.errors import BadRequestError, ConcurrentWriteError, DryRunError, KintoError
from kinto_orm.protocol.batches import (
    DEFAULT_BATCH_LIMIT,
    as_responses,
    batch_limit,
    batch_request,
    count_void,
    is_rolled_back,
    read_answers,
)
from kinto_orm.protocol.json_values import JSON, JSONObject
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.writes import Flow, Write
from kinto_orm.repository.state import FlowRunner


class Entry(Protocol):
    """An item that travels in a batch."""

    @property
    def entry(self) -> JSONObject | None:
        """The encoded request."""
        ...


E = TypeVar("E", bound=Entry)


class Answers(NamedTuple):
    """The answers to one batch, in detail."""

    responses: Sequence[Response]
    void: int
    """So many at the beginning do not hold: a 409 after them undid them."""
    is_undone: bool
    """Whether the server undid all of the batch, which was atomic."""
    lock: Response | None
    """The answer to the entry that took the lock."""
    is_lock_void: bool


class Batches(Generic[E]):
    """Items on their way through as few batches as the server allows.

    A subclass reads the answers (:meth:`take`) and decides which items are sent again.
    """

    with_headers = False
    """Whether the headers of 2xx answers are read."""

    limit: int | None = None
    """The number of entries that the server takes in one batch; ``None``: as many as there are."""
    lock: JSONObject | None = None
    """The entry that goes first in each batch."""
    is_atomic = False
    failure: KintoError | None = None
    """The reason why nothing more is sent: the rest could depend on what failed."""
    _is_racing = False
    """Whether other writers were in the way, so that a little time should pass before the next batch."""

    def send(self, items: Sequence[E]) -> Flow[None]:
        """Send the items in their order, until each has its final answer."""
        rest = items
        while rest:
            if self.failure is not None:
                self.skip(rest, self.failure)
                return
            room = len(rest) if self.limit is None else max(1, self.limit - (self.lock is not None))
            batch, rest = rest[:room], rest[room:]
            attempt = 1
            while batch:  # before the rest is sent: its objects may be below these
                batch = yield from self.exchange(batch, attempt)
                attempt += 1

    def exchange(self, batch: Sequence[E], attempt: int) -> Flow[Sequence[E]]:
        """Send one batch; return the items to be sent again."""
        count = len(batch) + (self.lock is not None)
        try:
            response = yield batch_request(
                [one.entry for one in batch if one.entry is not None],
                lock=self.lock,
                atomic=self.is_atomic,
                attempt=attempt if self._is_racing else 1,
            )
            found = self.read(response, count)
            if self.accept(batch, response, found):
                return ()
            answers = self._detail(response, found)
        except GeneratorExit:  # the call was cancelled, or interrupted from the keyboard: it may have been stored
            self.leave(batch)
            raise
        except DryRunError as error:
            self.plan(batch, error)
            return ()
        except KintoError as error:
            if isinstance(error, BadRequestError) and (yield from self.takes_fewer(count)):
                yield from self.send(batch)
                return ()
            self._is_racing = self._is_racing or isinstance(error, ConcurrentWriteError)
            return self.fail(batch, error, attempt)
        self._is_racing = self._is_racing or answers.void > 0 or answers.is_lock_void
        return (yield from self.take(batch, answers, attempt))

    def _detail(self, response: Response, found: Sequence[JSON]) -> Answers:
        responses = as_responses(found, response, with_headers=self.with_headers)
        void, is_undone = count_void(responses), is_rolled_back(response)
        if self.lock is None:
            return Answers(responses, void, is_undone, None, is_lock_void=False)
        return Answers(responses[1:], max(0, void - 1), is_undone, responses[0], is_lock_void=void > 0)

    def read(self, response: Response, count: int) -> Sequence[JSON]:
        """Return the answer to each entry, as the server sent it."""
        return read_answers(response, count)

    def accept(self, batch: Sequence[E], response: Response, found: Sequence[JSON]) -> bool:
        """Take the answers as they are, where that needs no closer look; return whether it was done."""
        return False

    def take(self, batch: Sequence[E], answers: Answers, attempt: int) -> Flow[Sequence[E]]:
        """Read the answers to the batch; return the items to be sent again."""
        raise NotImplementedError

    def fail(self, batch: Sequence[E], error: KintoError, attempt: int) -> Sequence[E]:
        """Note that the batch failed as a whole; return the items to be sent again."""
        raise error

    def skip(self, items: Sequence[E], failure: KintoError) -> None:
        """Note that these were not sent, because a batch before them failed."""

    def plan(self, batch: Sequence[E], error: DryRunError) -> None:
        """Note that a dry client kept the batch and sent nothing."""
        raise error

    def leave(self, batch: Sequence[E]) -> None:
        """Note that the caller waits no more, and the batch may be stored."""

    def takes_fewer(self, count: int) -> Flow[bool]:
        """Ask again how many entries the server takes; return whether these were too many, so that none was done."""
        yield from ()
        return False


def full_batch(runner: FlowRunner) -> Flow[int]:
    """Return how many entries a batch holds on that client's server."""
    return batch_limit((yield from runner.__kinto_describe_server__())) or DEFAULT_BATCH_LIMIT


def gather_reads(flows: Sequence[Flow[Any]], runner: FlowRunner) -> Flow[list[tuple[Any, KintoError | None]]]:
    """Return the result of each flow, or the error that it ends with; their requests travel in batches.

    A batch of reads takes the server as long as the reads by themselves, and is no snapshot; it saves round trips.
    """
    reads = [_Read(flow) for flow in flows]
    info = yield from runner.__kinto_describe_server__()
    is_readonly = info.get("settings", {}).get("readonly") is True  # then it refuses every POST
    batches = _ReadBatches()
    batches.limit = batch_limit(info) or DEFAULT_BATCH_LIMIT
    while waiting := [one for one in reads if one.request is not None]:
        together = [] if is_readonly else [one for one in waiting if not one.must_go_alone]
        if together:
            yield from batches.send(together)
        else:
            waiting[0].move((yield cast(Request, waiting[0].request)))
    return [(one.value, one.error) for one in reads]


class _Read:
    """A flow on its way: the request that it waits for, or its result."""

    def __init__(self, flow: Flow[Any]) -> None:
        self._flow = flow
        self.request: Request | None = None
        self.value: Any = None
        self.error: KintoError | None = None
        self.move(None)

    def move(self, answer: Response | None) -> None:
        """Go on with the answer to the request."""
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
    def entry(self) -> JSONObject | None:
        """The request as an entry of a batch."""
        return None if self.request is None else {"method": self.request.method, "path": self.request.target}


class _ReadBatches(Batches[_Read]):
    with_headers = True

    def take(self, batch: Sequence[_Read], answers: Answers, attempt: int) -> Flow[Sequence[_Read]]:
        for one, answer in zip(batch, answers.responses, strict=True):
            one.move(answer)
        yield from ()
        return ()
