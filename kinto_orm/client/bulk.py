"""Bulk verbs on several collections at once: one writer for each, because two get in each other's way.

https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import aclosing, closing, contextmanager
from functools import partial
from typing import Any, TypeAlias, cast

from kinto_orm.errors import DuplicateObjectError, InvalidTypeError, UsageError
from kinto_orm.models.kinds import Collection
from kinto_orm.models.managers import Manager
from kinto_orm.protocol.json_values import say_value
from kinto_orm.protocol.paths import ObjectPath
from kinto_orm.protocol.writes import Flow, NextFlow
from kinto_orm.query.building import check_count
from kinto_orm.query.query import MOST_THREADS
from kinto_orm.repository.state import FlowRunner, Outcome, Progress, Tally, Verb
from kinto_orm.unit_of_work.bulk import Answered, BulkReport, outcome_of, raise_for_report

ByCollection: TypeAlias = Mapping[Collection[Any], Iterable[Any]]
"""The objects to write, by their collection."""

OnOutcome: TypeAlias = Callable[[Outcome[Any]], object] | None

Outcomes: TypeAlias = Sequence[Answered[Any]]


class CollectionsBulk:
    """A bulk verb on several collections at work: it has counted all that was sent, also where it fails."""

    def __init__(
        self,
        runner: FlowRunner,
        verb: Verb,
        name: str,
        objects: ByCollection,
        parallel: int,
        on_outcome: OnOutcome,
        progress: Progress | None,
    ) -> None:
        self._runner = runner
        self._name = name
        self._on_outcome = on_outcome
        self._workers = check_count(parallel, "parallel", 1, MOST_THREADS)
        self._bulks = {
            one: Manager.__kinto_make__(one.model, parent=one).__kinto_bulk__(verb, name, objects[one])
            for one in _checked(objects, runner)
        }
        sizes = [len(many) for many in objects.values() if isinstance(many, Sized)]
        self._tally = Tally(progress, "write records", sum(sizes) if len(sizes) == len(objects) else None)
        self._reports = {one: BulkReport() for one in self._bulks}
        self._untold: deque[Outcomes] = deque()

    def run(self) -> dict[Collection[Any], BulkReport]:
        """Write, with threads."""
        work = self._runner.__kinto_run_all__(self._sequences(), workers=self._workers, ordered=False)
        with self._noting_what_is_stored(), closing(work) as batches:
            for _ in batches:
                self._tell()
        return self._report()

    async def arun(self) -> dict[Collection[Any], BulkReport]:
        """Write, with tasks of the event loop."""
        work = self._runner.__kinto_arun_all__(self._sequences(), workers=self._workers, ordered=False)
        with self._noting_what_is_stored():
            async with aclosing(work) as batches:
                async for _ in batches:
                    self._tell()
        return self._report()

    def _sequences(self) -> Sequence[NextFlow[Outcomes]]:
        return [partial(self._next_batch, one) for one in self._bulks]

    def _next_batch(self, one: Collection[Any]) -> Flow[Outcomes] | None:
        flow = self._bulks[one].next_batch()
        return None if flow is None else self._count(one, flow)

    def _count(self, one: Collection[Any], flow: Flow[Outcomes]) -> Flow[Outcomes]:
        outcomes = yield from flow
        # Here, and not where they are taken: an error elsewhere may leave them lying.
        for outcome in outcomes:
            self._reports[one].add(outcome)
        self._untold.append(outcomes)
        return outcomes

    def _tell(self) -> None:
        on_outcome, self._on_outcome = self._on_outcome, None  # one that raises is not called again
        while self._untold:
            outcomes = self._untold.popleft()
            for one in outcomes:
                if on_outcome is not None:
                    on_outcome(outcome_of(one))
            if outcomes:
                self._tally.add(len(outcomes))
        self._on_outcome = on_outcome

    @contextmanager
    def _noting_what_is_stored(self) -> Generator[None]:
        try:
            yield
        except BaseException as error:
            stored = sum(report.stored for report in self._reports.values())
            # Threads finish their request; a cancelled task does not get the answer any more.
            is_cut = isinstance(error, asyncio.CancelledError)
            rest = "a batch of each collection may be stored, too" if is_cut else "what came after them was not sent"
            error.add_note(f"{stored} objects were stored before this; {rest}.")
            self._tell()  # the outcomes that the caller has not taken yet
            raise

    def _report(self) -> dict[Collection[Any], BulkReport]:
        whole = BulkReport()
        for one, report in self._reports.items():
            report.is_complete = self._bulks[one].is_complete
            whole.is_complete = whole.is_complete and report.is_complete
            whole.unchanged += report.stored  # the report has only their number
            whole.failed += report.failed
        raise_for_report(whole, self._name)
        return self._reports


def _checked(objects: ByCollection, runner: FlowRunner) -> Iterator[Collection[Any]]:
    if not isinstance(cast(object, objects), Mapping):
        raise InvalidTypeError(f"It takes a mapping of collections to their objects, not {say_value(objects)}.")
    paths: set[ObjectPath] = set()
    for one in objects:
        if not isinstance(cast(object, one), Collection):
            raise InvalidTypeError(f"The keys are collections, not {say_value(one)}.")
        if one.client is None:
            one.__kinto_envelope__().client = runner
        if one.client is not runner:
            raise UsageError(f"{one!r} belongs to another client.")
        if one.__kinto_path__() in paths:
            raise DuplicateObjectError(f"{one.__kinto_path__()} was given twice: each collection has one writer.")
        paths.add(one.__kinto_path__())
        yield one
