"""The runner of a client: it sends the requests of flows, and stages writes in an open unit of work."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, cast

from kinto_orm.client.concurrency import ConcurrentFlows, in_tasks, in_threads
from kinto_orm.client.connection import Connection, Options
from kinto_orm.errors import ClientClosedError, ConfigurationError, CredentialsMissingError, DryRunError, KintoError
from kinto_orm.protocol.accounts import without_hashes
from kinto_orm.protocol.json_values import JSONObject, decode, say_value
from kinto_orm.protocol.messages import BlockingTask, Download, Pause, Request, Response, run_blocking
from kinto_orm.protocol.paths import ObjectPath, check_id
from kinto_orm.protocol.writes import Flow, NextFlow, Write, call_blocking, encode_request
from kinto_orm.repository.reads import read_server_info
from kinto_orm.repository.state import Change, OnInvalid, Stateful, activate, deactivate, observe
from kinto_orm.transport.files import download
from kinto_orm.unit_of_work.engine import carry_out
from kinto_orm.unit_of_work.staging import Plan, PlannedWrite
from kinto_orm.unit_of_work.unit_of_work import open_unit

T = TypeVar("T")
H = TypeVar("H", bound=Stateful)

logger = logging.getLogger("kinto_orm")


class ClientRunner:
    """The part of a client that moves flows, and its lifetime."""

    def _set_up(
        self,
        options: Options,
        connection: Connection,
        *,
        owns_server: bool,
        owns_transport: bool = True,
        dry_run: DryRun | None = None,
    ) -> None:
        check_id(options.bucket, "bucket")
        if options.collection is not None:
            check_id(options.collection, "collection")
        if options.on_invalid not in ("raise", "skip", "keep"):
            raise ConfigurationError(f"on_invalid is 'raise', 'skip' or 'keep', not {say_value(options.on_invalid)}.")
        self._options = options
        self._connection = connection
        self._dry_run = dry_run or DryRun()
        self._owns_server = owns_server
        self._owns_transport = owns_transport
        self._is_closed = False

    @property
    def default_bucket(self) -> str:
        """The default bucket."""
        return self._options.bucket

    @property
    def default_collection(self) -> str | None:
        """The default collection."""
        return self._options.collection

    @property
    def on_invalid(self) -> OnInvalid:
        """The treatment of rows that do not fit their model."""
        return self._options.on_invalid

    @property
    def retry(self) -> int:
        """The number of times that a request is sent again after it was not applied."""
        return self._options.retry

    @property
    def strict_retry(self) -> bool:
        """Whether a write after a lost answer is recognised only where no other client can have written the same."""
        return self._options.strict_retry

    @property
    def __kinto_writes__(self) -> int:
        return self._connection.writes

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, flow: Flow[T]) -> T:
        """Send the requests of the flow one after the other, and return its result."""
        return run_blocking(self._move(flow, self._send))

    async def arun(self, flow: Flow[T]) -> T:
        """Like :meth:`run`, without blocking the event loop.

        A cancelled call may have been sent: the server may have applied it.
        """
        return await self._move(flow, self._asend)

    async def _move(self, flow: Flow[T], send: Callable[[Request], Awaitable[Response]]) -> T:
        """Return the result of the flow, each of whose requests ``send`` answers."""
        try:
            item = next(flow)
            while True:
                request = encode_request(item) if isinstance(item, Write) else item
                is_write = request.is_write
                if self._is_closed or self._options.lacks:
                    raise self._refusal()
                if is_write and (unit := open_unit(self)) is not None:
                    unit.__kinto_admit__(flow, f"{request.method} {request.path}")
                try:
                    if is_write and self._options.dry_mode:
                        observe(request, None)
                        raise self._dry_run.keep(request)
                    self._connection.writes += is_write
                    response = await send(request)
                except KintoError as error:
                    item = flow.throw(error)
                else:
                    self._connection.alerts.note(response)
                    observe(request, response)
                    if response.status == 403 or request.path == "/batch":
                        response = response._replace(user=self._connection.user)
                    item = flow.send(without_hashes(request, response))
        except StopIteration as stop:
            result = cast(T, stop.value)
        finally:
            flow.close()  # after an exception, the flow cleans up now
        self._connection.alerts.tell()
        return result

    async def _send(self, request: Request) -> Response:
        """Return the answer; block until it is there."""
        if isinstance(request, BlockingTask):
            return request.work()
        if isinstance(request, Pause):
            time.sleep(request.seconds)
            return _read_clock()
        return self._connection.transport.send(request)

    async def _asend(self, request: Request) -> Response:
        """Return the answer; suspend the call until it is there."""
        if isinstance(request, BlockingTask):
            return await asyncio.to_thread(request.work)
        if isinstance(request, Pause):
            await asyncio.sleep(request.seconds)
            return _read_clock()
        return await self._connection.transport.asend(request)

    def __kinto_run_all__(self, sequences: Sequence[NextFlow[T]], *, workers: int, ordered: bool) -> Generator[T]:
        return in_threads(ConcurrentFlows(sequences, workers, ordered=ordered), self.run)

    async def __kinto_arun_all__(
        self, sequences: Sequence[NextFlow[T]], *, workers: int, ordered: bool
    ) -> AsyncGenerator[T]:
        async with aclosing(in_tasks(ConcurrentFlows(sequences, workers, ordered=ordered), self.arun)) as results:
            async for result in results:
                yield result

    def __kinto_perform__(self, change: Change[H]) -> H:
        if (unit := open_unit(self)) is not None:
            unit.__kinto_stage__(change)
        else:
            self.run(carry_out(change, self))
        return change.holder

    async def __kinto_aperform__(self, change: Change[H]) -> H:
        if (unit := open_unit(self)) is not None:
            unit.__kinto_stage__(change)
        else:
            await self.arun(carry_out(change, self))
        return change.holder

    @property
    def __kinto_locks__(self) -> set[ObjectPath]:
        """The locks whose objects exist; for a dry client, as planned: others share its connection."""
        return self._dry_run.locks if self._options.dry_mode else self._connection.locks

    def __kinto_describe_server__(self, *, refresh: bool = False) -> Flow[JSONObject]:
        """Return the flow whose result is the server's description, which clones share and must not change."""
        connection = self._connection
        if connection.server_info is None or refresh:
            connection.server_info = yield from read_server_info()
        return connection.server_info

    def __kinto_fetch_file__(self, wanted: Download) -> Flow[None]:
        stopped = threading.Event()
        try:
            yield from call_blocking(wanted.url, partial(download, wanted, self._options, stopped.is_set))
        finally:
            stopped.set()  # after a cancelled call, its thread may still be downloading

    def _refusal(self) -> KintoError:
        """Return the reason why this client sends nothing."""
        if self._is_closed:
            return ClientClosedError("This client was closed: make a new one.")
        missing = ", ".join(f"{name}=…" for name in sorted(self._options.lacks))
        return CredentialsMissingError(f"This client came out of a pickle, without secrets: use clone({missing}).")

    def plan(self) -> Plan:
        """Return the writes that ``dry_mode`` kept, of this client and its dry clones, with their requests, in order.

        ``print(client.plan())``, or ``client.plan().as_json()``. The plan of a client that is not dry is empty.
        """
        return Plan(tuple(_planned(self._dry_run.requests)))

    def clear_plan(self) -> None:
        """Forget the writes that ``dry_mode`` kept, also for the dry clones that share them."""
        self._dry_run.requests.clear()
        self._dry_run.locks.clear()

    # -- lifetime -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the client and the embedded server that it started. A clone closes nothing that it shares."""
        self._is_closed = True
        if self._owns_transport:
            self._connection.transport.close()
        if self._owns_server and self._connection.server is not None:
            self._connection.server.close()

    async def aclose(self) -> None:
        """Like :meth:`close`."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        activate(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if deactivate(self):
            self._connection.transport.release()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def _read_clock() -> Response:
    return Response(200, content=time.time_ns() // 1_000_000)


@dataclass(slots=True, eq=False, repr=False)
class DryRun:
    """The writes that a dry client and its dry clones kept instead of sending them."""

    requests: list[Request] = field(default_factory=list)
    locks: set[ObjectPath] = field(default_factory=set)
    """The locks whose objects the kept writes create."""

    def keep(self, request: Request) -> DryRunError:
        """Keep the request and return the error that its flow gets in place of an answer."""
        self.requests.append(request)
        logger.info("(dry mode) %s %s", request.method, request.target)
        return DryRunError(
            f"{request.method} {request.path}: dry_mode does not send it, and the call needs its answer. "
            "It is in client.plan()."
        )


def _planned(requests: Iterable[Request]) -> Iterator[PlannedWrite]:
    batch = 0
    for request in list(requests):
        whole = _as_json(request)
        if request.path != "/batch":
            yield PlannedWrite(None, None, whole)
            continue
        batch += 1
        # The headers of a batch hold for each of its writes.
        outer = {name: value for name, value in whole.get("headers", {}).items() if name != "Content-Type"}
        for entry in whole["body"]["requests"]:
            headers = {**outer, **entry.get("headers", {})}
            yield PlannedWrite(None, None, {**entry, "headers": headers} if headers else entry, batch)


def _as_json(request: Request) -> JSONObject:
    shown: JSONObject = {"method": request.method, "path": request.target}
    if request.headers:
        shown["headers"] = dict(request.headers)
    if request.body is not None:
        content_type = request.headers.get("Content-Type", "json")
        is_json = "json" in content_type
        what = f"{request.method} {request.path}"
        shown["body"] = decode(request.body, what) if is_json else f"{len(request.body)} bytes of {content_type}"
    return shown
