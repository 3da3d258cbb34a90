"""Any number of writes, in full batches: objects in, one outcome for each out, one batch in memory.

https://docs.kinto-storage.org/en/stable/api/1.x/batch.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar, cast

from kinto_orm.errors import CommitError, DuplicateObjectError, KintoError
from kinto_orm.protocol.json_values import say_value
from kinto_orm.protocol.writes import Flow
from kinto_orm.repository.conflicts import check_callbacks
from kinto_orm.repository.state import STORED, Change, FlowRunner, Outcome, Progress, Stateful, Tally, Verb
from kinto_orm.repository.verbs import encode_change
from kinto_orm.unit_of_work.batches import full_batch
from kinto_orm.unit_of_work.engine import CommitOptions, said, send_batch

T = TypeVar("T")
S = TypeVar("S", bound=Stateful)

Answered: TypeAlias = Change[S] | Outcome[S]
"""A change, or the outcome of an object that needs none."""

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
    """Whether all objects were tried; not where the server is down, or refuses every write."""

    @property
    def stored(self) -> int:
        """How many the server has as wanted."""
        return self.created + self.updated + self.deleted + self.unchanged

    def add(self, one: Answered[Any]) -> None:
        """Count one outcome."""
        if one.status in STORED or one.status == "planned":
            setattr(self, one.status, getattr(self, one.status) + 1)
        if one.error is not None:
            self.failed.append(outcome_of(one))


def outcome_of(one: Answered[S]) -> Outcome[S]:
    """Return the outcome, as the user sees it."""
    return one if isinstance(one, Outcome) else one.outcome


def change_of(holder: S) -> Answered[S]:
    """Return the change that saves the object; where it surely is as the server has it, its outcome."""
    if holder.__kinto_is_clean__():
        return Outcome(holder, Verb.SAVE, "unchanged")
    return holder.__kinto_change__(Verb.SAVE)


def changes_of(objects: Iterable[T], make: Callable[[T], Answered[S]], verb: Verb) -> Iterator[Answered[S]]:
    """Yield the change of each object; for one that is refused, the outcome ``rejected`` with its position and id.

    Such an outcome has the object as it was given: a mapping stays one.
    """
    for position, one in enumerate(objects):
        try:
            change = make(one)
        except KintoError as error:
            id = one.get("id") if isinstance(one, Mapping) else getattr(one, "id", None)
            which = f"item {position}" if id is None else f"item {position} (id {say_value(id, 80)})"
            refusal = copy(error)
            refusal.args, refusal.__cause__ = (f"{which}: {error}",), error
            change = Outcome(cast(S, one), verb, "rejected", refusal)
        yield change


_IN_CHUNKS = CommitOptions(chunked=True)


class Bulk(Generic[S]):
    """A bulk verb at work, a batch at a time; it has given an outcome for all that it took of its input.

    Where it is known beforehand that there is nothing to write, the input has the outcome instead of the change.
    """

    def __init__(
        self,
        changes: Iterable[Answered[S]],
        runner: FlowRunner,
        options: CommitOptions = _IN_CHUNKS,
        before: Callable[[Sequence[Change[S]]], Flow[None]] | None = None,
    ) -> None:
        self._changes: Iterator[Answered[S]] = iter(changes)
        self._runner = runner
        self._options = options
        self._before = before
        """Returns a flow to be moved before these changes are sent."""
        self._input_error: Exception | None = None
        self._is_at_end = False
        self.is_complete = True
        """Whether there may be another batch; not where the server is down, or refuses every write."""

    def next_batch(self) -> Flow[Sequence[Answered[S]]] | None:
        """Return the flow that sends the next batch, in the order of the input; ``None`` at the end.

        Raises the exceptions of the input, when the objects before that have their outcomes.
        """
        if self._input_error is not None:
            error, self._input_error = self._input_error, None
            self._is_at_end = True
            raise error
        return None if self._is_at_end or not self.is_complete else self._send_next()

    def _send_next(self) -> Flow[Sequence[Answered[S]]]:
        taken = self._take((yield from full_batch(self._runner)))
        to_send = [one for one in taken if isinstance(one, Change) and one.status is None]
        if to_send:
            if self._before is not None:
                yield from self._before(to_send)
            self.is_complete = yield from send_batch(to_send, self._runner, self._options)
        return taken

    def _take(self, limit: int) -> list[Answered[S]]:
        taken: list[Answered[S]] = []
        holders: set[int] = set()
        try:
            while len(holders) < limit and len(taken) < MOST_HELD:
                one = next(self._changes)
                taken.append(one)
                if one.status is None and _is_to_be_sent(one, holders):
                    holders.add(id(one.holder))
        except StopIteration:
            self._is_at_end = True
        except Exception as error:  # noqa: BLE001  the input is the user's own code, and may raise anything
            self._input_error = error
        return taken


def _is_to_be_sent(one: Change[Any], holders: set[int]) -> bool:
    """Encode the change, and return whether it is sent; give it its outcome where it is not."""
    try:
        if one.entry is None and not encode_change(one):
            one.status = "unchanged"
            return False
        if id(one.holder) in holders:
            raise DuplicateObjectError(f"{one.state.path} was given twice: it is written once.")
    except KintoError as error:
        one.status, one.error = "rejected", error
        return False
    return True


def report_of(
    bulk: Bulk[S],
    on_outcome: Callable[[Outcome[S]], object] | None,
    progress: Progress | None = None,
    total: int | None = None,
    report: BulkReport | None = None,
) -> Flow[BulkReport]:
    """Carry the bulk verb to its end, and count, in a report that may have counted others already.

    ``on_outcome`` is called with each outcome. The batches are separate transactions; a failed one does not stop
    the others, unless the server is down or refuses every write. What the input raises gets a note of what is stored.
    """
    check_callbacks(progress=progress, on_outcome=on_outcome)
    report = BulkReport() if report is None else report
    tally = Tally(progress, "write records", total)
    try:
        while (flow := bulk.next_batch()) is not None:
            answered = yield from flow
            for one in answered:
                report.add(one)
            if on_outcome is not None:
                for one in answered:
                    on_outcome(outcome_of(one))
            if answered:
                tally.add(len(answered))
            answered = ()  # so that no more than one batch is in memory
    except Exception as error:
        add_note(error, report)
        raise
    report.is_complete = bulk.is_complete
    return report


def add_note(error: Exception, report: BulkReport) -> None:
    """Add to an error of the user's own code how much was stored before it."""
    error.add_note(f"{report.stored} objects were stored before this; what came after them was not sent.")


def raise_for_report(report: BulkReport, verb: str) -> BulkReport:
    """Return the report; raise ``CommitError`` with the failed outcomes where there are any."""
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
