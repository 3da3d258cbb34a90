"""Ranges of ids that cut a list into parts of about equal size.

The ranges are always disjoint and complete: each id is below a cut or not, and ids never change. Only their sizes are
found out, with counts. Kinto orders ids by the bytes of their letters, on every backend.
https://docs.kinto-storage.org/en/stable/api/1.x/filtering.html
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise, takewhile
from typing import Any, NamedTuple, TypeVar

from kinto_orm.errors import UsageError
from kinto_orm.protocol.filters import Condition, condition, matches_nothing
from kinto_orm.protocol.paging import encode_query, read_count, read_rows
from kinto_orm.protocol.paths import PluralPath
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.execution import Place, Reading, Selection
from kinto_orm.repository.state import FlowRunner, Stateful
from kinto_orm.unit_of_work.batches import gather_reads

M = TypeVar("M", bound=Stateful)

FEW = 1000
"""So many ids are read; for more, the cuts are estimated."""

MOST_ROUNDS = 4
"""The number of times that ranges are cut again before they are accepted."""

TOLERANCE = 0.2
"""The accepted distance of a cut from its place, and excess of a range, as a part of a range."""

_WIDTH = 8
"""The number of letters of an id, after the common beginning, that count in calculations."""


@dataclass(frozen=True, slots=True)
class IdRange:
    """The ids from ``start`` on and below ``stop``; ``None``: no bound on that side."""

    start: str | None
    stop: str | None
    count: int
    """The number of its objects when it was counted."""
    is_final: bool = field(default=False, compare=False)
    """Whether no cut can be found in it."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions that an object in the range meets."""
        low = () if self.start is None else (condition("id", "min", self.start),)
        return low if self.stop is None else (*low, condition("id", "lt", self.stop))

    def narrow(self, reading: Reading[M]) -> Reading[M]:
        """Return the reading of the objects in this range only."""
        return reading.select(conditions=(*reading.selection.conditions, *self.conditions))


def cut_into_ranges(reading: Reading[Any], place: Place, parts_for: Callable[[int], int]) -> Flow[list[IdRange]]:
    """Return ranges of ids, at most ``parts_for(count)`` of them for a list of ``count`` objects.

    Raises ``UsageError`` where the query has an order other than by id, or a limit.
    """
    selection = reading.selection
    if selection.limit is not None or selection.skip or selection.order not in (None, ("id",)):
        raise UsageError("Ranges of ids have their own order and no limit: leave out order_by(), limit() and slices.")
    return Partitioner(place.path, selection, place.runner).cut(parts_for)


class Partitioner(NamedTuple):
    """Cuts the list of a selection into ranges."""

    path: PluralPath
    selection: Selection
    runner: FlowRunner

    def cut(self, parts_for: Callable[[int], int]) -> Flow[list[IdRange]]:
        """Return ranges in the order of ids, at most ``parts_for(count)`` of them for ``count`` objects."""
        if matches_nothing(self.selection.conditions):
            return [IdRange(None, None, 0)]
        count, recent, low, high = yield from self._look()
        ranges = [IdRange(None, None, count)]
        parts = min(parts_for(count), count)
        start = len(_beginning(recent))
        letters = frozenset("".join(one[start:] for one in recent))  # for UUIDs, hexadecimal digits
        if parts > 1 and count > FEW:
            # Ids that are spread evenly need no more.
            ranges = yield from self._counted(ranges[0], spread(low, high, parts, letters))
            if max(one.count for one in ranges) <= (1 + TOLERANCE) * count / parts:
                return ranges
        for _ in range(MOST_ROUNDS):
            uneven = _holding_a_cut(ranges, parts)
            if not uneven:
                break
            pieces = yield from self._cut_again(uneven, ranges, parts, letters)
            ranges = [piece for one in ranges for piece in pieces.get(one, (one,))]
        return list(_joined(ranges, parts))

    def _cut_again(
        self, uneven: Sequence[IdRange], ranges: Sequence[IdRange], parts: int, letters: frozenset[str]
    ) -> Flow[dict[IdRange, list[IdRange]]]:
        few = [one for one in uneven if one.count <= FEW]
        many = [one for one in uneven if one.count > FEW]
        asked = [self._ids(one, "id", FEW) for one in few]
        asked += [self._ids(one, order, 1) for one in many for order in ("id", "-id")]
        answers = yield from self._all(asked)
        pieces = {one: _cut_at(one, ids, _places(one, ranges, parts)) for one, ids in zip(few, answers, strict=False)}
        ends = answers[len(few) :]
        wanted = -(-sum(one.count for one in ranges) // parts)
        for number, one in enumerate(many):
            low, high = ends[2 * number : 2 * number + 2]
            # More pieces than wanted, because the ids are not spread evenly.
            count = -(-one.count // wanted) * 4
            # Others may have deleted what was counted.
            cuts = spread(low[0], high[0], count, letters) if low and high else []
            pieces[one] = yield from self._counted(one, cuts)
        return pieces

    def _counted(self, whole: IdRange, cuts: Sequence[str]) -> Flow[list[IdRange]]:
        if not cuts:
            return [replace(whole, is_final=True)]
        bounds = [whole.start, *cuts, whole.stop]
        empty = [IdRange(start, stop, 0) for start, stop in pairwise(bounds)]
        counts = yield from self._all([self._count(one.conditions) for one in empty])
        return [replace(one, count=count) for one, count in zip(empty, counts, strict=True)]

    def _look(self) -> Flow[tuple[int, list[str], str, str]]:
        """Return the count, some of the latest ids, the first id and the last one; in one request."""
        whole = IdRange(None, None, 0)
        latest, ends = self._ids(whole, "-last_modified", FEW // 5), [self._ids(whole, one, 1) for one in ("id", "-id")]
        count, recent, low, high = yield from self._all([self._count(()), latest, *ends])
        return count, recent, (low or [""])[0], (high or [""])[0]

    def _count(self, conditions: tuple[Condition, ...]) -> Flow[int]:
        selection = replace(self.selection, order=None, fields=(), conditions=(*self.selection.conditions, *conditions))
        return read_count(self.path, encode_query(selection.parameters()))

    def _ids(self, within: IdRange, order: str, limit: int) -> Flow[list[str]]:
        conditions = (*self.selection.conditions, *within.conditions)
        selection = replace(self.selection, order=(order,), fields=("id",), conditions=conditions)
        rows = yield from read_rows(self.path, encode_query(selection.parameters(limit)))
        return [row["id"] for row in rows]

    def _all(self, flows: Sequence[Flow[Any]]) -> Flow[list[Any]]:
        found = yield from gather_reads(flows, self.runner)
        for _, error in found:
            if error is not None:
                raise error
        return [value for value, _ in found]


def _beginning(texts: Sequence[str]) -> str:
    """Return the common beginning of the texts."""
    pairs = zip(min(texts, default=""), max(texts, default=""), strict=False)
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def spread(low: str, high: str, pieces: int, letters: Iterable[str]) -> list[str]:
    """Return texts after ``low`` and not after ``high``, in order, that cut the interval evenly."""
    if low >= high:
        return []
    prefix = _beginning((low, high))
    alphabet = sorted({*letters, *low[len(prefix) :], *high[len(prefix) :]})
    # The end of a text sorts before all letters; ids of one length have no end in between.
    ends = int(len(low) != len(high))
    base = len(alphabet) + ends
    values = {letter: number for number, letter in enumerate(alphabet, ends)}

    def value(text: str) -> int:
        digits = [values[letter] for letter in text[len(prefix) :][:_WIDTH]]
        return sum(digit * base ** (_WIDTH - 1 - place) for place, digit in enumerate(digits))

    def text(number: int) -> str:
        digits = [number // base ** (_WIDTH - 1 - place) % base for place in range(_WIDTH)]
        written = digits[: digits.index(0)] if ends and 0 in digits else digits
        return prefix + "".join(alphabet[digit - ends] for digit in written)

    start, stop = value(low), value(high)
    cuts = {text(start + (stop - start) * piece // pieces) for piece in range(1, pieces)}
    return sorted(cut for cut in cuts if low < cut <= high)


def _places(one: IdRange, ranges: Sequence[IdRange], parts: int) -> list[int]:
    """Return the number of objects of the range before each cut that belongs in it."""
    before = sum(other.count for other in ranges[: ranges.index(one)])
    total = sum(other.count for other in ranges)
    return [place for cut in range(1, parts) if 0 < (place := round(cut * total / parts) - before) < one.count]


def _holding_a_cut(ranges: Sequence[IdRange], parts: int) -> list[IdRange]:
    """Return the ranges that hold the place of a cut, far from their ends."""
    margin = TOLERANCE * sum(one.count for one in ranges) / max(1, parts)
    return [
        one
        for one in ranges
        if not one.is_final and any(margin < place < one.count - margin for place in _places(one, ranges, parts))
    ]


def _cut_at(whole: IdRange, ids: Sequence[str], places: Iterable[int]) -> list[IdRange]:
    """Return the range cut at these places among its ids; the server may have sent only some of them."""
    at = [place for place in places if place < len(ids)]
    if not at:
        return [replace(whole, is_final=True)]
    bounds = [whole.start, *(ids[place] for place in at), whole.stop]
    counts = [stop - start for start, stop in zip([0, *at], [*at, whole.count], strict=True)]
    return [
        IdRange(start, stop, count, is_final=True)
        for (start, stop), count in zip(pairwise(bounds), counts, strict=True)
    ]


def _joined(ranges: Sequence[IdRange], parts: int) -> Iterable[IdRange]:
    """Yield at most so many ranges, joined where that makes them most even."""
    before = [0, *accumulate(one.count for one in ranges)]
    cuts = {_nearest(before, part * before[-1] / parts) for part in range(1, parts)}
    bounds = [0, *sorted(cuts - {0, len(ranges)}), len(ranges)]
    for first, last in pairwise(bounds):
        yield IdRange(ranges[first].start, ranges[last - 1].stop, before[last] - before[first])


def _nearest(before: Sequence[int], place: float) -> int:
    after = bisect_left(before, place)
    return after if after == 0 or before[after] - place < place - before[after - 1] else after - 1
