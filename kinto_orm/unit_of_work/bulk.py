"""Any number of writes, in full batches: objects in, one outcome for each out, one batch in memory.

https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kinto_orm.errors import CommitError, DuplicateObjectError, KintoError, TransportError
from kinto_orm.protocol.batches import DEFAULT_BATCH_LIMIT, batch_limit
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.state import FlowRunner, Intent, Stateful, Verb
from kinto_orm.unit_of_work.engine import Operation, send_batch
from kinto_orm.unit_of_work.outcome import Outcome, Staged, said

S = TypeVar("S", bound=Stateful)

MOST_HELD = 1000
"""How many objects one step holds at most, where nearly all of them need no writing."""


@dataclass
class BulkReport:
    """How many objects a bulk verb wrote, by outcome; the ones that failed are kept whole."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    planned: int = 0
    """How many a dry client would have written."""
    failed: list[Outcome[Stateful]] = field(default_factory=list)
    is_complete: bool = True
    """Whether all objects were tried; not where the server could not be reached any more."""

    @property
    def stored(self) -> int:
        """How many the server has as wanted."""
        return self.created + self.updated + self.deleted + self.unchanged

    def add(self, outcome: Outcome[Stateful]) -> None:
        """Counts one outcome."""
        if outcome.is_stored or outcome.status == "planned":
            setattr(self, outcome.status, getattr(self, outcome.status) + 1)
        if outcome.error is not None:
            self.failed.append(outcome)


def stage_changed(holder: S) -> Staged[S] | Outcome[S]:
    """The object to be saved; where it surely is what the server has, the outcome of that."""
    if holder.__kinto_is_clean__():
        return Outcome(holder, Verb.SAVE, "unchanged")
    state, draft = holder.__kinto_describe__()
    return Staged(holder, Intent(Verb.SAVE, state, draft))


def full_batch(runner: FlowRunner) -> Flow[int]:
    """How many writes a batch holds on that client's server."""
    return batch_limit((yield from runner.describe_server())) or DEFAULT_BATCH_LIMIT


class Bulk(Generic[S]):
    """A bulk verb at work, a batch at a time; it has given an outcome for all that it took of its input.

    Where it is known beforehand that there is nothing to write, the input gives the outcome instead of what is staged.
    """

    def __init__(self, staged: Iterable[Staged[S] | Outcome[S]], runner: FlowRunner) -> None:
        self._staged: Iterator[Staged[S] | Outcome[S]] = iter(staged)
        self._runner = runner
        self._input_error: Exception | None = None
        self._is_at_end = False
        self.is_complete = True
        """Whether all that was taken was tried; not where the server cannot be reached any more."""

    def next_batch(self) -> Flow[list[Outcome[S]]] | None:
        """The flow that gives the next outcomes, in the order of the input; ``None`` where nothing comes any more.

        What the input raises is raised here, when the objects before that have their outcomes.
        """
        if self._input_error is not None:
            error, self._input_error = self._input_error, None
            self._is_at_end = True
            raise error
        return None if self._is_at_end or not self.is_complete else self._send_next()

    def _send_next(self) -> Flow[list[Outcome[S]]]:
        taken = self._take((yield from full_batch(self._runner)))
        to_send = [one for one in taken if isinstance(one, Operation)]
        if to_send:
            yield from send_batch(to_send, self._runner)
        outcomes = [one if isinstance(one, Outcome) else one.outcome or one.unchanged() for one in taken]
        self.is_complete = not any(isinstance(one.error, TransportError) for one in outcomes)
        return outcomes

    def _take(self, limit: int) -> list[Operation[S] | Outcome[S]]:
        taken: list[Operation[S] | Outcome[S]] = []
        holders: set[int] = set()
        try:
            while len(holders) < limit and len(taken) < MOST_HELD:
                one = next(self._staged)
                taken.append(one if isinstance(one, Outcome) else _planned(one, holders))
        except StopIteration:
            self._is_at_end = True
        except Exception as error:  # noqa: BLE001  the input is the user's own code, and may raise anything
            self._input_error = error
        return taken


def _planned(one: Staged[S], holders: set[int]) -> Operation[S] | Outcome[S]:
    """The operation, where there is something to send; else its outcome."""
    try:
        operation = Operation(one)
        if operation.prepared is None:
            return operation.unchanged()
        if id(one.holder) in holders:
            raise DuplicateObjectError(f"{operation.write.path} was given twice: it is written once.")
    except KintoError as error:
        return Outcome(one.holder, one.intent.verb, "rejected", error)
    holders.add(id(one.holder))
    return operation


def commit_all(
    staged: Iterable[Staged[S] | Outcome[S]], runner: FlowRunner, on_outcome: Callable[[Outcome[S]], object] | None
) -> Flow[BulkReport]:
    """Writes them all, in full batches, holding one batch in memory; see :func:`report_of`."""
    return report_of(Bulk(staged, runner), on_outcome)


def report_of(bulk: Bulk[S], on_outcome: Callable[[Outcome[S]], object] | None) -> Flow[BulkReport]:
    """Carries the bulk verb to its end, and counts.

    ``on_outcome`` is called with each outcome. The batches are separate transactions; a failed one does not stop
    the others, unless the server cannot be reached at all. What the input raises gets a note of what is stored.
    """
    report = BulkReport()
    try:
        while (flow := bulk.next_batch()) is not None:
            for outcome in (yield from flow):
                report.add(outcome)
                if on_outcome is not None:
                    on_outcome(outcome)
    except Exception as error:
        error.add_note(f"{report.stored} objects were stored before this; what came after them was not sent.")
        raise
    report.is_complete = bulk.is_complete
    return report


def raise_for_report(report: BulkReport, verb: str) -> BulkReport:
    """The report; raises ``CommitError`` with the failed outcomes where there are any."""
    if report.failed:
        first = report.failed[0]
        rest = "" if report.is_complete else " It stopped there: what came after was not sent."
        raise CommitError(
            f"{verb}: failed for {len(report.failed)}, stored for {report.stored} objects. "
            f"The first one: {first.status}: {said(first)}. See .outcomes for the failed ones.{rest}",
            report.failed,
            report=report,
        ) from first.error
    return report
