"""Batches: what is written inside the block waits, and is sent in as few ``POST /batch`` as the server allows.

Each verb is a flow that stops at its first write; the answer out of the batch lets it go on, as its own answer would.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

from kinto_orm.errors import ConcurrentWriteError, DryRunError, KintoError, NotStageableError, TransportError
from kinto_orm.kinto_http.exceptions import Exchange, KintoBatchException, KintoException, translated
from kinto_orm.kinto_http.session import described
from kinto_orm.kinto_http.utils import chunks
from kinto_orm.kinto_http.verbs import arun, as_request, resumed, run
from kinto_orm.protocol.batches import DEFAULT_BATCH_LIMIT, batch_limit, batch_request, count_void, split_answer
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.writes import Flow, Write, encode_entry

T = TypeVar("T")
C = TypeVar("C")


@dataclass(slots=True)
class Step:
    """A verb that waits for the batch: its flow, what it wants to send, that as an entry, and what was said to it."""

    flow: Flow[Any]
    item: Request | Write
    entry: JSONObject
    said: JSONObject | None = None


class BatchSession:
    """The session of a client inside a batch: reads are done at once, writes wait for :meth:`send`.

    ``batch_max_requests`` is asked from the server where it is ``None``; 0 is no limit. What it lacks is the
    session's that is behind it.
    """

    def __init__(self, client: Any, batch_max_requests: int | None = None, ignore_4xx_errors: bool = False) -> None:
        self.session = client.session
        self._limit = batch_max_requests
        self._ignores_4xx = ignore_4xx_errors
        self._steps: list[Step] = []
        self._sent: list[Step] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, flow: Flow[T]) -> T:
        """What the flow reads; where it writes, an empty document, and the flow waits."""
        item, result = self._begun(flow)
        return result if item is None else run(self.session, resumed(item, flow))

    async def arun(self, flow: Flow[T]) -> T:
        """Like :meth:`run`."""
        item, result = self._begun(flow)
        return result if item is None else await arun(self.session, resumed(item, flow))

    def _begun(self, flow: Flow[Any]) -> tuple[Request | None, Any]:
        """The request to be made at once, or else what the call gives."""
        try:
            item = next(flow)
            if isinstance(item, Request) and not item.is_write:
                return item, None
            self._steps.append(Step(flow, item, encode_entry(item) if isinstance(item, Write) else entry_of(item)))
        except StopIteration as stop:
            return None, stop.value
        except KintoError as error:
            raise translated(error, Exchange()) from error
        return None, defaultdict(dict)

    def clone(self, **changes: Any) -> NoReturn:
        """Raises ``KintoException``: inside a batch, the options of the session cannot change."""
        raise KintoException(f"Inside a batch, {', '.join(changes)} cannot change: give it to batch() itself.")

    def reset(self) -> None:
        """Forgets what waits."""
        self._steps = []

    def send(self) -> None:
        """Sends what waits. Raises ``KintoBatchException`` where some of it was not done."""
        if self._take_waiting():
            run(self.session, self._sending())

    async def asend(self) -> None:
        """Like :meth:`send`."""
        if self._take_waiting():
            await arun(self.session, self._sending())

    def results(self) -> list[Any]:
        """The body of the answer to each write, in their order; empty before the batch was sent."""
        return [said["body"] for said in self._said]

    @property
    def _said(self) -> list[JSONObject]:
        return [step.said for step in self._sent if step.said is not None]

    def _take_waiting(self) -> bool:
        """Takes what waits as what is sent; whether there is any."""
        self._sent = list(self._steps)
        return bool(self._sent)

    def _sending(self) -> Flow[None]:
        limit = (yield from self._ask_limit()) if self._limit is None else self._limit
        failures: list[KintoException] = []
        pending, attempt = self._sent, 1
        while pending:
            again: list[Step] = []
            for steps in chunks(pending, limit):
                try:
                    response = yield batch_request([step.entry for step in steps], attempt=attempt)
                except DryRunError:
                    _plan(steps)
                    continue
                answers = split_answer(response, len(steps), with_headers=True)
                void = count_void(answers)
                if attempt > getattr(self.session, "nb_retry", 0):
                    failures += yield from self._settled(steps, answers, void)
                else:
                    again += steps[:void]  # a 409 undid them: sent again, as any request that was not applied
                    failures += yield from self._settled(steps[void:], answers[void:], 0)
            pending, attempt = again, attempt + 1
        if failures:
            raise KintoBatchException(failures, [({"responses": said}, {}) for said in chunks(self._said, limit)])

    def _ask_limit(self) -> Flow[int]:
        try:
            return batch_limit((yield from described(self.session))) or 0
        except TransportError:
            if not getattr(self.session, "dry_mode", False):
                raise
            return DEFAULT_BATCH_LIMIT  # what is only planned needs no server

    def _settled(self, steps: Sequence[Step], answers: Sequence[Response], void: int) -> Flow[list[KintoException]]:
        """The errors that count; each step knows what was said to it."""
        failures: list[KintoException] = []
        for index, (step, answer) in enumerate(zip(steps, answers, strict=True)):
            is_void = index < void
            body: Any = answer.content
            try:
                body = yield from _finished(step, answer, is_void=is_void)
            except KintoError as error:
                if is_void or not (self._ignores_4xx and 400 <= answer.status < 500):
                    failures.append(self._translated(error, step, answer))
            step.said = {"status": answer.status, "path": step.entry["path"], "body": body}
        return failures

    def _translated(self, error: KintoError, step: Step, answer: Response) -> KintoException:
        url: str = getattr(self.session, "server_url", None) or ""
        said = translated(error, Exchange(url, as_request(step.item), answer))
        if said is not error:
            said.__cause__ = error
        return said


def _plan(steps: Sequence[Step]) -> None:
    for step in steps:
        step.flow.close()
        step.said = {"status": 200, "body": {}}


def _finished(step: Step, answer: Response, *, is_void: bool) -> Flow[Any]:
    """The body of the answer to the step; of its last answer, where one was not enough."""
    if is_void and answer.status != 409:
        step.flow.close()
        raise ConcurrentWriteError(f"{step.entry['path']}: a 409 further on rolled this back.", status=409)
    try:
        item = step.flow.send(answer)
    except StopIteration as stop:
        return answer.content if answer.status < 400 else {"data": stop.value}
    result = yield from resumed(item, step.flow)
    return {"data": result} if step.entry["method"] == "DELETE" else result


def entry_of(request: Request) -> JSONObject:
    """A request that is no write of one object, as an entry; raises ``NotStageableError`` for what cannot be one."""
    if "/batch" in request.target or request.path.endswith("/attachment") or request.body is not None:
        raise NotStageableError(f"Kinto refuses {request.method} {request.path} inside a batch: call it outside.")
    entry: JSONObject = {"method": request.method, "path": request.target}
    return {**entry, "headers": dict(request.headers)} if request.headers else entry


class Batch(Generic[C]):
    """The block of a batch: ``with client.batch() as batch:``, or ``async with``.

    What is written inside is sent when the block is left, and not at all where it is left by an exception.
    """

    def __init__(self, client: C, session: BatchSession) -> None:
        self._client = client
        self._session = session

    def __enter__(self) -> C:
        return self._client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._session.send()
        finally:
            self._session.reset()

    async def __aenter__(self) -> C:
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._session.asend()
        finally:
            self._session.reset()

    def __await__(self) -> Generator[Any, Any, Self]:
        """Itself: ``with await client.batch() as batch:`` is how the reference client has it."""
        yield from ()
        return self
