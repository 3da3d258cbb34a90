"""Batches: writes inside the block wait, and are sent in as few ``POST /batch`` as the server allows.

Each verb is a flow that stops at its first write; the answer in the batch moves it on, as a single answer would.
https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Self, TypeVar

from requests.structures import CaseInsensitiveDict

from kinto_orm.errors import (
    ConcurrentWriteError,
    DryRunError,
    KintoError,
    NotStageableError,
    ResponseError,
    TransportError,
)
from kinto_orm.kinto_http.exceptions import Exchange, KintoBatchException, KintoException, translate, translate_errors
from kinto_orm.kinto_http.objects import post
from kinto_orm.kinto_http.session import describe_server, path_below, payload_of
from kinto_orm.kinto_http.utils import chunks, json_dumps
from kinto_orm.kinto_http.verbs import arun, as_request, resume, run
from kinto_orm.protocol.batches import DEFAULT_BATCH_LIMIT, batch_limit
from kinto_orm.protocol.json_values import JSONObject
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.responses import content
from kinto_orm.protocol.writes import Flow, Write, encode_entry
from kinto_orm.unit_of_work.batches import Answers, Batches

T = TypeVar("T")
C = TypeVar("C")

logger = logging.getLogger("kinto_http.batch")


class WrapDict(dict[str, Any]):
    """A part of a batch, as Kinto has it, with its keys as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class RequestDict(WrapDict):
    """One request of a batch, with the names of ``requests``."""

    @property
    def path_url(self) -> str:
        """The path."""
        return str(self["path"])


class ResponseDict(WrapDict):
    """The answer to one request of a batch, with the names of ``requests``."""

    @property
    def status_code(self) -> int:
        """The status."""
        return int(self["status"])

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status_code < 400

    @property
    def text(self) -> str:
        """The body as text."""
        return json.dumps(self["body"])

    def json(self) -> Any:
        """Return the body."""
        return self["body"]


@dataclass(slots=True)
class Step:
    """A verb that waits for the batch: its flow, its request, the request as an entry, and the answer to it."""

    flow: Flow[Any]
    item: Request | Write
    entry: JSONObject
    answer: JSONObject | None = None


class BatchSession:
    """The session of a client inside a batch: reads are sent at once, writes wait for :meth:`send`.

    ``batch_max_requests`` is asked from the server where it is ``None``; 0 is no limit. Attributes that it lacks are
    those of the session behind it.
    """

    def __init__(self, client: Any, batch_max_requests: int | None = 0, ignore_4xx_errors: bool = False) -> None:
        self.session = client.session
        self._limit = batch_max_requests
        self._ignores_4xx = ignore_4xx_errors
        self._is_kinto = False
        self._steps: list[Step] = []
        self._sent: list[Step] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    @property
    def requests(self) -> list[tuple[str, str, Any, Any]]:
        """The requests that wait, each as method, path, body and headers."""
        waiting = (step.entry for step in self._steps)
        return [(str(one["method"]), str(one["path"]), one.get("body", {}), one.get("headers")) for one in waiting]

    @property
    def batch_max_requests(self) -> int:
        """The most requests in one batch, 0 for no limit. Reading it asks the server, where that was not asked yet."""
        if self._limit is None:
            self._limit = run(self.session, self._ask_limit())
        return self._limit

    @batch_max_requests.setter
    def batch_max_requests(self, limit: int) -> None:
        self._limit = limit

    def request(
        self,
        method: str,
        endpoint: str,
        data: Any = None,
        permissions: Any = None,
        payload: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Any, Any]:
        """Let any request wait, a read too; return an empty document and empty headers."""
        request = Request(method.upper(), path_below(self.session, endpoint), headers=dict(headers or {}))
        with translate_errors():
            entry = {**entry_of(request), "body": json.loads(json_dumps(payload_of(data, permissions, payload)))}
        flow = post(request)
        next(flow)
        self._steps.append(Step(flow, request, entry))
        return defaultdict(dict), defaultdict(dict)

    def run(self, flow: Flow[T]) -> T:
        """Return the result of a flow that reads; let a flow that writes wait, and return an empty document."""
        item, result = self._begin(flow)
        return result if item is None else run(self.session, resume(item, flow))

    async def arun(self, flow: Flow[T]) -> T:
        """Like :meth:`run`."""
        item, result = self._begin(flow)
        return result if item is None else await arun(self.session, resume(item, flow))

    def _begin(self, flow: Flow[Any]) -> tuple[Request | None, Any]:
        """Return the request to send at once, or else the result of the call."""
        with translate_errors():
            try:
                item = next(flow)
            except StopIteration as stop:
                return None, stop.value
            if isinstance(item, Request) and not item.is_write:
                return item, None
            self._steps.append(Step(flow, item, encode_entry(item) if isinstance(item, Write) else entry_of(item)))
        return None, defaultdict(dict)

    def clone(self, **changes: Any) -> NoReturn:
        """Raise ``KintoException``: inside a batch, the options of the session cannot change."""
        raise KintoException(f"Inside a batch, {', '.join(changes)} cannot change: give it to batch() itself.")

    def reset(self) -> None:
        """Forget the waiting requests."""
        self._steps = []

    def send(self) -> list[tuple[Any, Any]]:
        """Send the waiting requests; return body and headers of the answer to each ``POST /batch``.

        Raises ``KintoBatchException`` where some of them were refused.
        """
        return run(self.session, self._send_all())

    async def asend(self) -> list[tuple[Any, Any]]:
        """Like :meth:`send`."""
        return await arun(self.session, self._send_all())

    def results(self) -> list[Any]:
        """Return the body of the answer to each write, in their order; empty before the batch was sent."""
        return [answer["body"] for answer in self._answers]

    @property
    def _answers(self) -> list[JSONObject]:
        return [step.answer for step in self._sent if step.answer is not None]

    def _send_all(self) -> Flow[list[tuple[Any, Any]]]:
        self._sent = list(self._steps)
        if not self._sent:
            return []
        limit = (yield from self._ask_limit()) if self._limit is None else self._limit
        batches = _StepBatches(
            limit or None, self.session, ignores_4xx=self._ignores_4xx, may_be_stub=not self._is_kinto
        )
        yield from batches.send(self._sent)
        results = [({"responses": answers}, CaseInsensitiveDict[str]()) for answers in chunks(self._answers, limit)]
        if batches.failures:
            raise KintoBatchException(batches.failures, results)
        return results

    def _ask_limit(self) -> Flow[int]:
        try:
            info = yield from describe_server(self.session)
        except TransportError:
            if not getattr(self.session, "dry_mode", False):
                raise
            return DEFAULT_BATCH_LIMIT  # a plan needs no server
        # A Kinto owes an answer to each request, and says what it is, which a stub in a test suite does not.
        self._is_kinto = isinstance(info, dict) and "http_api_version" in info
        return batch_limit(info) or 0


class _StepBatches(Batches[Step]):
    """Verbs on their way through batches; each step knows the answer to it in the end."""

    with_headers = True

    def __init__(self, limit: int | None, session: Any, *, ignores_4xx: bool, may_be_stub: bool) -> None:
        self.limit = limit
        self._may_be_stub = may_be_stub
        retries = getattr(session, "nb_retry", 0)
        self._retries = retries if isinstance(retries, int) else 0
        self._ignores_4xx = ignores_4xx
        self.failures: list[KintoException] = []

    def read(self, response: Response, count: int) -> Sequence[Any]:
        """Return the answers; none of the stub of a server."""
        if self._may_be_stub and response.status == 200:
            body: Any = content(response, "POST /batch")
            if isinstance(body, dict) and body.get("responses") == []:
                return ()
        return super().read(response, count)

    def accept(self, batch: Sequence[Step], response: Response, found: Sequence[Any]) -> bool:
        """End the verbs, where a stub answered."""
        if not found:
            logger.warning("POST /batch was answered without answers: the server is a stub.")
            _end(batch)
        return not found

    def take(self, batch: Sequence[Step], answers: Answers, attempt: int) -> Flow[Sequence[Step]]:
        """Let the verbs go on with their answers; those that a 409 undid are sent again."""
        again, void = batch[: answers.void], 0
        if attempt > self._retries:
            again, void = (), answers.void
        for index, step in enumerate(batch[len(again) :]):
            yield from self._finish(step, answers.responses[len(again) + index], is_void=index < void)
        return again

    def _finish(self, step: Step, answer: Response, *, is_void: bool) -> Flow[None]:
        body: Any = answer.content
        try:
            body = yield from _resume_step(step, answer, is_void=is_void)
        except KintoError as error:
            if is_void or not (self._ignores_4xx and 400 <= answer.status < 500):
                self.failures.append(_translate(error, step, answer))
        step.answer = {"status": answer.status, "path": step.entry["path"], "body": body}

    def plan(self, batch: Sequence[Step], error: DryRunError) -> None:
        """End the verbs: a dry client sends nothing."""
        _end(batch, is_planned=True)


def _translate(error: KintoError, step: Step, answer: Response) -> KintoException:
    translation = translate(error, Exchange("", as_request(step.item), answer))
    if isinstance(error, ResponseError):
        shown = {"status": answer.status, "headers": dict(answer.headers), "body": answer.content}
        translation.response = ResponseDict(shown, path=step.entry["path"])
    translation.request = RequestDict(step.entry)
    if translation is not error:
        translation.__cause__ = error
    return translation


def _end(steps: Sequence[Step], *, is_planned: bool = False) -> None:
    for step in steps:
        step.flow.close()
        step.answer = {"status": 200, "body": {}} if is_planned else None


def _resume_step(step: Step, answer: Response, *, is_void: bool) -> Flow[Any]:
    """Return the body of the answer to the step, or of its last answer, where it needed several."""
    if is_void and answer.status != 409:
        step.flow.close()
        raise ConcurrentWriteError(f"{step.entry['path']}: a 409 further on rolled this back.", status=409)
    try:
        item = step.flow.send(answer)
    except StopIteration as stop:
        return answer.content if answer.status < 400 else {"data": stop.value}
    result = yield from resume(item, step.flow)
    return {"data": result} if step.entry["method"] == "DELETE" else result


def entry_of(request: Request) -> JSONObject:
    """Return the request as an entry; raise ``NotStageableError`` where Kinto refuses it in a batch."""
    if "/batch" in request.target or request.path.endswith("/attachment") or request.body is not None:
        raise NotStageableError(f"Kinto refuses {request.method} {request.path} inside a batch: call it outside.")
    entry: JSONObject = {"method": request.method, "path": request.target}
    return {**entry, "headers": dict(request.headers)} if request.headers else entry


class Batch(Generic[C]):
    """The block of a batch: ``with client.batch() as batch:``, or ``async with``.

    Its writes are sent when the block ends; nothing is sent where it ends with an exception.
    """

    def __init__(self, client: C, session: BatchSession) -> None:
        self._client = client
        self._session = session

    def __enter__(self) -> C:
        return self._client

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._session.send()
        finally:
            self._session.reset()

    async def __aenter__(self) -> C:
        return self._client

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                await self._session.asend()
        finally:
            self._session.reset()

    def __await__(self) -> Generator[Any, Any, Self]:
        """Return itself: the reference client's form is ``with await client.batch() as batch:``."""
        yield from ()
        return self
