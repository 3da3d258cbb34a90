"""Queries read by several threads: all of it, in order, in bounded memory, and nothing goes on behind one's back."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wiretap import tap

from kinto_orm import (
    Client,
    ClientClosedError,
    Collection,
    ForbiddenError,
    InvalidFilterError,
    Manager,
    Record,
    RequestEvent,
    UsageError,
)
from kinto_orm.client.concurrency import ConcurrentFlows, in_tasks, in_threads
from kinto_orm.protocol.writes import Flow, NextFlow
from kinto_orm.server import EmbeddedServer

Number = tuple[int, int]
IDS = [f"t{number:03}" for number in range(60)]
HERE: ContextVar[str] = ContextVar("HERE", default="nowhere")


@pytest.fixture
def records(todos: Collection[Record]) -> Manager[Record]:
    """Sixty records, ``{"n": 0}`` to ``{"n": 59}``."""
    todos.records.bulk_create({"id": id, "n": number} for number, id in enumerate(IDS))
    return todos.records


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert ours() == []


def ours() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "kinto-orm"]


class Counted:
    """Sequences that count: of which something was fetched, and how often."""

    def __init__(self, lengths: Sequence[int], fails_at: Number | None = None) -> None:
        self.fetched: Counter[int] = Counter()
        self._lengths = lengths
        self._fails_at = fails_at

    def sequences(self) -> list[NextFlow[Number]]:
        return [self._sequence(number, length) for number, length in enumerate(self._lengths)]

    def _sequence(self, number: int, length: int) -> NextFlow[Number]:
        steps = iter(range(length))
        return lambda: next((self._flow(number, step) for step in steps), None)

    def _flow(self, number: int, step: int) -> Flow[Number]:
        if (number, step) == self._fails_at:
            raise ForbiddenError("no", status=403)
        self.fetched[number] += 1
        return (number, step)
        yield

    def all(self) -> list[Number]:
        return [(number, step) for number, length in enumerate(self._lengths) for step in range(length)]


def run(flow: Flow[Number]) -> Number:
    try:
        next(flow)
    except StopIteration as stop:
        result: Number = stop.value
        return result
    raise AssertionError("it asks nothing")


async def arun(flow: Flow[Number]) -> Number:
    await asyncio.sleep(0)
    return run(flow)


async def as_list(results: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in results]


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 5), st.booleans(), st.randoms(use_true_random=False))
def test_whoever_comes_first_all_results_are_given_once_and_few_wait(
    lengths: list[int], workers: int, ordered: bool, chance: random.Random
) -> None:
    counted = Counted(lengths)
    work = ConcurrentFlows(counted.sequences(), workers, ordered=ordered)
    at: list[tuple[int, Flow[Number] | None] | None] = [None] * work.workers
    taken: list[Number] = []
    is_at_end = False

    def move(worker: int) -> bool:
        place = at[worker]
        if place is None:
            if not work.may_begin():
                return False
            number = work.begin()
            at[worker] = None if number is None else (number, None)
            return number is not None
        number, flow = place
        if flow is not None:
            work.put(number, run(flow))
            at[worker] = (number, None)
            return True
        if not work.may_fetch(number):
            return False
        flow = work.fetch(number)
        at[worker] = None if flow is None else (number, flow)
        return True

    while not is_at_end:
        who = chance.randrange(work.workers + 1)
        if who < work.workers:
            move(who)
        elif work.may_take():
            result = work.take()
            taken += result
            is_at_end = not result
        else:
            assert any(move(worker) for worker in range(work.workers)), "nobody can go on"
        assert sum(counted.fetched.values()) - len(taken) <= 2 * workers

    assert (taken if ordered else sorted(taken)) == counted.all()


@pytest.mark.parametrize("ordered", [True, False])
def test_threads_and_tasks_give_all(ordered: bool) -> None:
    counted = Counted([3, 0, 1, 7, 2, 2])

    by_threads = list(in_threads(ConcurrentFlows(counted.sequences(), 3, ordered=ordered), run))
    by_tasks = asyncio.run(as_list(in_tasks(ConcurrentFlows(counted.sequences(), 3, ordered=ordered), arun)))

    assert [one if ordered else sorted(one) for one in (by_threads, by_tasks)] == [counted.all()] * 2


@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_is_raised_and_the_others_stop(ordered: bool) -> None:
    counted = Counted([1000] * 8, fails_at=(1, 3))

    with pytest.raises(ForbiddenError):
        list(in_threads(ConcurrentFlows(counted.sequences(), 4, ordered=ordered), run))
    with pytest.raises(ForbiddenError):
        asyncio.run(as_list(in_tasks(ConcurrentFlows(counted.sequences(), 4, ordered=ordered), arun)))

    assert sum(counted.fetched.values()) < 8000


def test_what_came_before_an_error_is_given_first() -> None:
    counted = Counted([5], fails_at=(0, 3))
    results = in_threads(ConcurrentFlows(counted.sequences(), 1, ordered=True), run)

    given = [next(results) for _ in range(3)]

    assert given == counted.all()[:3]
    with pytest.raises(ForbiddenError):
        next(results)


def test_an_iteration_that_is_left_early_leaves_no_thread() -> None:
    counted = Counted([1000] * 8)
    results = in_threads(ConcurrentFlows(counted.sequences(), 4, ordered=True), run)

    next(results)
    during = len(ours())
    results.close()

    assert (during, ours()) == (4, [])
    assert sum(counted.fetched.values()) <= 1 + 2 * 4


def test_an_awaited_iteration_that_is_left_early_leaves_no_task() -> None:
    async def leave(results: Any) -> int:
        async with aclosing(results):
            await anext(results)
        return len(asyncio.all_tasks())

    assert asyncio.run(leave(in_tasks(ConcurrentFlows(Counted([1000] * 8).sequences(), 4, ordered=False), arun))) == 1


@pytest.mark.parametrize("ordered", [True, False])
def test_a_task_that_somebody_else_cancels_ends_the_iteration(ordered: bool) -> None:
    async def slowly(flow: Flow[Number]) -> Number:
        await asyncio.sleep(0.01)
        return run(flow)

    async def cancel_the_workers() -> int:
        work = ConcurrentFlows(Counted([1000] * 2).sequences(), 2, ordered=ordered)
        reading = asyncio.create_task(as_list(in_tasks(work, slowly)))
        await asyncio.sleep(0.03)
        for task in asyncio.all_tasks() - {reading, asyncio.current_task()}:
            task.cancel()
        done, _ = await asyncio.wait([reading], timeout=60)
        assert done and reading.cancelled()
        return len(asyncio.all_tasks())

    assert asyncio.run(cancel_the_workers()) == 1


def test_cancelled_it_leaves_no_task_and_waits_for_no_answer() -> None:
    async def never(flow: Flow[Number]) -> Number:
        await asyncio.Event().wait()
        return run(flow)

    async def cancel() -> int:
        work = ConcurrentFlows(Counted([3, 3]).sequences(), 2, ordered=True)
        reading = asyncio.create_task(as_list(in_tasks(work, never)))
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading], timeout=60)
        assert reading.cancelled()
        return len(asyncio.all_tasks())

    assert asyncio.run(cancel()) == 1


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("page_size", [7, 1000])
def test_a_query_gives_the_same_as_one_by_one(records: Manager[Record], threads: int, page_size: int) -> None:
    query = records.filter(gt_n=4).only("n").page_size(page_size)

    in_order = list(query.parallel(threads))
    as_they_come = list(query.parallel(threads, ordered=False))
    awaited = asyncio.run(as_list(aiter(query.parallel(threads))))

    assert [one.data["n"] for one in in_order] == list(range(5, 60))
    assert sorted(one.id for one in as_they_come) == IDS[5:]
    assert [one.id for one in awaited] == IDS[5:]


def test_each_iteration_asks_anew(records: Manager[Record]) -> None:
    query = records.page_size(20).parallel(2)

    before = len(list(query))
    records.create(id="new")

    assert (before, len(list(query))) == (60, 61)
    assert repr(query) == "<ParallelQuery of records, 2 threads>"


def test_one_thread_reads_a_page_ahead_in_any_order(kinto_client: Client, records: Manager[Record]) -> None:
    wire = tap(kinto_client)
    pages = records.order_by("-n").page_size(10).limit(50).parallel(1).pages()

    first = next(pages)
    rest = [one.data["n"] for page in pages for one in page.objects]

    assert [one.data["n"] for one in first.objects] + rest == list(range(59, 9, -1))
    assert len(wire.requests) == 5


def test_an_early_end_asks_no_more(kinto_client: Client, records: Manager[Record]) -> None:
    query = records.page_size(2).parallel(2)
    wire = tap(kinto_client)

    for _ in query:
        break

    asked = len(wire.requests)
    assert [one.path for one in wire.requests[-2:]] == ["/buckets/payments/collections/todos/records"] * 2
    assert asked < 15 < len(records.page_size(2).all())


@pytest.mark.parametrize("is_closed", [True, False])
def test_the_tasks_of_an_awaited_query_end_where_it_is_closed_or_soon_after(
    records: Manager[Record], is_closed: bool
) -> None:
    async def leave() -> int:
        if is_closed:
            async with aclosing(aiter(records.page_size(2).parallel(4))) as found:
                await anext(found)
            return len(asyncio.all_tasks())
        async for _ in records.page_size(2).parallel(4):
            break
        async with asyncio.timeout(60):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)
        return len(asyncio.all_tasks())

    assert asyncio.run(leave()) == 1


@pytest.mark.parametrize("id", ["article-{:06}", "{:04x}0000-1234-4000-8000-000000000000"], ids=["number", "uuid"])
def test_where_ids_are_spread_evenly_two_requests_find_the_ranges(todos: Collection[Record], id: str) -> None:
    ids = [id.format(number * 240) for number in range(260)]
    todos.records.bulk_create({"id": one} for one in ids)
    wire = tap(todos.client)

    found = [record.id for record in todos.records.page_size(50).parallel(4)]

    requests = [sent.method for sent in wire.requests]
    assert found == ids
    assert requests == ["POST"] * 2 + ["GET"] * 8  # a page each, and as many for each thread


@pytest.mark.parametrize("ordered", [True, False])
def test_a_filter_on_the_id_is_kept_beside_the_ranges(records: Manager[Record], ordered: bool) -> None:
    query = records.filter(gt_id=records.page_size(5).all()[9].id, has_n=True)

    found = [one.id for one in query.page_size(3).parallel(4, ordered=ordered)]

    assert (found if ordered else sorted(found)) == [one.id for one in query]


def test_a_hook_hears_each_request_where_the_iteration_was_begun(
    kinto_server: EmbeddedServer, records: Manager[Record]
) -> None:
    heard: list[str] = []

    def hear(event: RequestEvent) -> None:
        heard.append(HERE.get())

    HERE.set("in the test")
    with Client.embedded(server=kinto_server, on_request=hear) as client:
        found = list(client.bucket("payments").collection("todos").records.page_size(10).parallel(3))

    assert len(found) == 60
    assert set(heard) == {"in the test"}


def test_a_client_that_is_closed_meanwhile_is_an_error(kinto_server: EmbeddedServer, records: Manager[Record]) -> None:
    client = Client.embedded(server=kinto_server)
    objects = iter(client.bucket("payments").collection("todos").records.page_size(2).parallel(2))
    next(objects)

    client.close()

    with pytest.raises(ClientClosedError):
        list(objects)


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda query: query.parallel(0), InvalidFilterError),
        (lambda query: query.parallel(33), InvalidFilterError),
        (lambda query: list(query.order_by("n").parallel(2)), UsageError),
        (lambda query: list(query.limit(3).parallel(2)), UsageError),
    ],
)
def test_what_cannot_be_read_in_parallel_is_refused(
    kinto_client: Client, records: Manager[Record], ask: Callable[[Any], Any], error: type[Exception]
) -> None:
    wire = tap(kinto_client)

    with pytest.raises(error):
        ask(records)

    assert wire.requests == []
