"""Changes and deletions of all that a query selects: guarded, reported, and resumed after a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Generic, NamedTuple, TypeVar, cast

from kinto_orm.errors import (
    AmbiguousWriteError,
    ConflictError,
    DryRunError,
    InvalidTypeError,
    InvalidValueError,
    PartialObjectError,
    TooManyDeletesError,
    UsageError,
)
from kinto_orm.protocol.filters import matches_nothing
from kinto_orm.protocol.json_values import JSONObject, decode, encode, is_stored_as, say_value
from kinto_orm.protocol.paging import delete_pages, encode_query, read_count, read_state
from kinto_orm.protocol.paths import Kind
from kinto_orm.protocol.writes import Flow, call_blocking
from kinto_orm.query.execution import EVERYTHING, Place, Reading, Selection
from kinto_orm.repository.conflicts import check_callbacks, check_policy
from kinto_orm.repository.disk import Entry, FilePath, SortedLists, open_lists
from kinto_orm.repository.state import Change, FlowRunner, OnConflict, Outcome, Progress, Stateful, Status, Tally, Verb
from kinto_orm.repository.verbs import without_schema_timestamp
from kinto_orm.unit_of_work.bulk import Answered, Bulk, BulkReport, add_note, change_of, outcome_of, raise_for_report
from kinto_orm.unit_of_work.engine import CommitOptions
from kinto_orm.unit_of_work.unit_of_work import refuse_staging

M = TypeVar("M", bound=Stateful)

MOST_LOOKS = 5
"""The number of times that a guarded deletion counts again, because other clients write to the list."""


def check_max_deletes(max_deletes: int | float) -> int | float:
    """Return the limit; raise ``InvalidInputError`` unless it is a number of records or a share up to 1.0."""
    if isinstance(max_deletes, bool) or not isinstance(cast(object, max_deletes), (int, float)):
        raise InvalidTypeError(f"max_deletes is a number of records or a share (0.5), not {say_value(max_deletes)}.")
    if not max_deletes >= 0 or (isinstance(max_deletes, float) and max_deletes > 1):
        raise InvalidValueError(f"max_deletes is a number of records (500) or a share (0.5), not {max_deletes}.")
    return max_deletes


def allowed_deletes(max_deletes: int | float, total: int) -> int:
    """Return the number of deletions that the limit allows of that many records."""
    # A share is the decimal number that was written: 0.29 of 100 are 29, though 0.29 * 100 is less in floats.
    return int(Fraction(str(max_deletes)) * total) if isinstance(max_deletes, float) else max_deletes


# -- delete -----------------------------------------------------------------------------------------------------------


def delete(
    reading: Reading[Any], *, everything: bool, max_deletes: int | float | None, progress: Progress | None
) -> Callable[[Place], Flow[int]]:
    """Return the flow that deletes what is selected, and returns how many there were."""
    check_callbacks(progress=progress)
    reading.selection.check_deletion("delete", everything=everything)
    limit = None if max_deletes is None else check_max_deletes(max_deletes)

    def flow(place: Place) -> Flow[int]:
        refuse_staging(place.runner, "delete() of a query")
        if limit is None:
            return (yield from delete_selected(reading.selection, place, reading.count, progress=progress))
        return (yield from _delete_guarded(reading.selection, place, limit, progress))

    return flow


def delete_selected(
    selection: Selection,
    place: Place[Any],
    count: Callable[[Place[Any]], Flow[int]],
    *,
    if_match: int | None = None,
    progress: Progress | None = None,
) -> Flow[int]:
    """Delete what is selected of the list, every page, and return how many there were.

    For a dry client ``count`` tells that.
    """
    if matches_nothing(selection.conditions):
        return 0
    tally = Tally(progress, "delete records")
    query = encode_query(selection.parameters())
    try:
        return (
            yield from delete_pages(place.path, query, if_match=if_match, on_rows=lambda rows: tally.add(len(rows)))
        )
    except DryRunError:
        return (yield from count(place))


def _delete_guarded(
    selection: Selection, place: Place[Any], max_deletes: int | float, progress: Progress | None
) -> Flow[int]:
    if matches_nothing(selection.conditions):
        return 0
    query = encode_query(selection.parameters())
    total = (yield from read_count(place.path, "")) if isinstance(max_deletes, float) else 0
    allowed = allowed_deletes(max_deletes, total)
    tally = Tally(progress, "delete records")
    for attempt in range(1, MOST_LOOKS + 1):
        # The count holds for that state of the list: other clients may add to what is selected at any time.
        seen = yield from read_state(place.path, query)
        tally.total = tally.done + seen.count
        if tally.total > allowed:
            raise TooManyDeletesError(
                f"{seen.count} records of {place.path} match, {tally.done} were deleted, and max_deletes={max_deletes} "
                f"allows {allowed}. No more was deleted."
            )
        if seen.count == 0:
            break
        try:
            yield from delete_pages(
                place.path, query, if_match=seen.timestamp, on_rows=lambda rows: tally.add(len(rows))
            )
        except DryRunError:
            return seen.count
        except ConflictError:
            if attempt == MOST_LOOKS:
                raise
        else:
            break
    return tally.done


# -- update -----------------------------------------------------------------------------------------------------------


class UpdateOptions(NamedTuple, Generic[M]):
    """The options of an update."""

    state: FilePath | None
    on_conflict: OnConflict
    progress: Progress | None
    on_outcome: Callable[[Outcome[M]], object] | None


def update(
    reading: Reading[M],
    change: Callable[[M], object] | Mapping[str, Any] | None,
    values: Mapping[str, Any],
    options: UpdateOptions[M],
) -> Callable[[Place], Flow[BulkReport]]:
    """Return the flow that changes each object, and writes what changed."""
    if reading.selection.fields:
        raise PartialObjectError("update() changes whole objects: it cannot be combined with only().")
    if values and options.state is not None:
        raise UsageError('update(state=…) names a file: to set a key of that name, write update({"state": …}).')
    for name, one in (("progress", options.progress), ("on_outcome", options.on_outcome)):
        if one is not None and not callable(one):
            raise InvalidTypeError(f'{name} is a function: to set a key of that name, write update({{"{name}": …}}).')
    check_policy(options.on_conflict)
    make_change = _function_of(change, values)
    return lambda place: _Updating(reading, make_change, place, options).run()


def _function_of(
    change: Callable[[M], object] | Mapping[str, Any] | None, values: Mapping[str, Any]
) -> Callable[[M], object]:
    """Return the function that makes the change."""
    if callable(change):
        if values:
            raise UsageError("update() takes a function or values, not both.")
        return change
    if change is not None and not isinstance(change, Mapping):
        raise InvalidTypeError(f"update() takes a function, or names and values, not a {type(change).__name__}.")
    wanted = {**(change or {}), **values}
    if not wanted:
        raise UsageError("update() needs a function, or names and values.")
    return lambda one: one.__kinto_edit__(wanted, {})


class _Updating(Generic[M]):
    """An update at work."""

    def __init__(
        self,
        reading: Reading[M],
        change: Callable[[M], object],
        place: Place,
        options: UpdateOptions[M],
    ) -> None:
        self._reading = reading
        self._change = change
        self._place = place
        self._state, on_conflict, progress, self._on_outcome = options
        self._options = CommitOptions(chunked=True, on_conflict=on_conflict)
        self._tally = Tally(progress, "update records")
        self._journal: Journal | None = None
        self._report = BulkReport()

    def run(self) -> Flow[BulkReport]:
        """Update all that is selected. Raises ``CommitError`` where objects were not stored."""
        refuse_staging(self._place.runner, "update() of a query")
        if self._tally.progress is not None:
            self._tally.total = yield from self._reading.count(self._place)
        if (state := self._state) is not None:
            query = encode_query(self._reading.selection.parameters())
            job = f"update {self._place.path}?{query}"
            self._journal = yield from call_blocking("a state file", lambda: Journal(self._place.runner, state, job))
        try:
            yield from self._update_all()
        except Exception as error:
            add_note(error, self._report)
            raise
        finally:
            if self._journal is not None:
                self._journal.close()
        return raise_for_report(self._report, "update")

    def _update_all(self) -> Flow[None]:
        if self._journal is not None:
            yield from self._resume(self._journal)
        selection = self._reading.selection
        if selection.limit is not None or selection.skip:
            # All is read before anything is written: what was written moves in the order, and would come again.
            yield from self._write((yield from self._reading.all(self._place)))
            return
        # In the order of ids nothing moves.
        walk = self._reading.select(order=None, is_newest_first=False).walk(self._place)
        while self._report.is_complete and (flow := walk.next_page()) is not None:
            yield from self._write((yield from flow).objects)

    def _write(self, objects: Sequence[M]) -> Flow[None]:
        journal = self._journal
        if journal is not None:
            ids = [one.__kinto_path__().id for one in objects]
            left_out = yield from call_blocking("a state file", lambda: journal.find(ids))
            self._count(sum(1 for id in ids if id in left_out))
            objects = [one for one, id in zip(objects, ids, strict=True) if id not in left_out]
        before = None if journal is None else journal.announce
        bulk = Bulk(self._changed(objects), self._place.runner, self._options, before)
        while (flow := bulk.next_batch()) is not None:
            answered = yield from flow
            if journal is not None:
                yield from call_blocking("a state file", lambda answered=answered: journal.settle(answered))  # type: ignore[misc]
            for one in answered:
                self._add(one)
            if answered:
                self._tally.add(len(answered))
        self._report.is_complete = bulk.is_complete

    def _changed(self, objects: Iterable[M]) -> Iterator[Answered[M]]:
        for one in objects:
            # A row that is as it came is no tombstone: those are in no envelope of their page.
            if one.__kinto_is_clean__() or one.__kinto_state__().status is not Status.DELETED:
                changes = self._change(one)
                if isinstance(changes, Mapping):
                    one.__kinto_edit__(changes, {})
                elif changes is not one and isinstance(changes, type(one)):
                    raise InvalidTypeError(
                        f"update(): the function returned another object than {one!r}, which would not be written: "
                        "change the one that it is given, or return the changes, {name: value}."
                    )
                yield change_of(one)

    def _add(self, one: Answered[M]) -> None:
        self._report.add(one)
        if self._on_outcome is not None:
            self._on_outcome(outcome_of(one))

    def _count(self, done: int) -> None:
        """Count records that an earlier run has written."""
        self._report.unchanged += done
        if done:
            self._tally.add(done)

    def _resume(self, journal: Journal) -> Flow[None]:
        """Find out which writes that an earlier run was about to send are stored."""
        announced = yield from call_blocking("a state file", journal.announced)
        whole = Reading(self._reading.source, EVERYTHING, "keep")
        found = yield from whole.get_many(list(announced), self._place)
        settled: dict[str, bool] = dict.fromkeys(announced, False)
        for one in found:
            state = one.__kinto_state__()
            before, wanted = announced[state.path.id]
            stored = without_schema_timestamp(Kind.RECORD, state.data or {})
            if is_stored_as(without_schema_timestamp(Kind.RECORD, wanted), stored):
                settled[state.path.id] = True
            elif state.last_modified != before:
                del settled[state.path.id]
                self._add(Outcome(one, Verb.SAVE, "unknown", _ambiguous(one)))
        yield from call_blocking("a state file", lambda: journal.note(settled))


def _ambiguous(one: Stateful) -> AmbiguousWriteError:
    return AmbiguousWriteError(
        f"{one.__kinto_path__()}: an interrupted run was about to update it, and it was changed since: whether the "
        "update is in it cannot be told, so it was left alone. Look at it; the next run leaves it alone, too."
    )


class Journal:
    """The state of an update in a file: the writes that are about to be sent, and the records that are done.

    A write is announced before it is sent, so that it is known after a crash that it may be stored. Methods block.
    """

    def __init__(self, runner: FlowRunner, path: FilePath, job: str) -> None:
        self._lists: SortedLists = open_lists(path)
        found = self._lists.find("job", ["job"]).get("job")
        if found is not None and found.decode() != job:
            self._lists.close()
            raise UsageError(f"{path} is the state of another job ({found.decode()}): give the path of a new file.")
        self._lists.add("job", [Entry("job", 0, job.encode())])

    def announced(self) -> dict[str, tuple[int | None, JSONObject]]:
        """Return the writes of which it is not known whether they are stored: timestamp before, and data."""
        return {key: tuple(decode(body, "a state file")) for key, _, body in self._lists.read("announced")}

    def find(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are done, or in doubt."""
        return {*self._lists.find("done", ids), *self._lists.find("announced", ids)}

    def announce(self, changes: Sequence[Change[Any]]) -> Flow[None]:
        """Note the changes that are sent next."""
        entries = [Entry(one.state.path.id, 0, encode([one.state.last_modified, one.data])) for one in changes]
        return call_blocking("a state file", lambda: self._lists.add("announced", entries))

    def settle(self, answered: Sequence[Answered[Any]]) -> None:
        """Note the outcomes of changes that were sent."""
        known = [one for one in answered if isinstance(one, Change) and one.status != "unknown"]
        self.note({one.state.path.id: one.is_stored for one in known})

    def note(self, stored: Mapping[str, bool]) -> None:
        """Note whether these records are stored; those that are not are to be updated yet."""
        # In this order: after a crash in between, a write that is done and announced is found to be stored.
        self._lists.add("done", [Entry(id, 0, b"") for id, is_stored in stored.items() if is_stored])
        self._lists.remove("announced", stored)

    def close(self) -> None:
        """Close the file."""
        self._lists.close()
