"""Medians and ratios of what was measured, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tasks import Task


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one contestant; seconds and bytes."""

    cpu: float
    wall: float
    memory: int


@dataclass(frozen=True, slots=True)
class Line:
    """The medians of one contestant; ratios are those of the same round, so that a busy machine counts for both."""

    name: str
    cpu_us: float
    """Microseconds a record."""
    cpu_to_reference: float
    cpu_to_floor: float
    wall_us: float
    wall_to_reference: float
    memory_mb: float
    target: float | None


def summarize(task: Task, samples: Sequence[Sequence[Sample]]) -> list[Line]:
    """One line for each contestant; ``samples`` has one row for each, in their order, by rounds."""
    reference, floor = samples[0], samples[-1]
    return [
        Line(
            name=contestant.name,
            cpu_us=median(one.cpu for one in own) / task.count * 1e6,
            cpu_to_reference=_ratio((one.cpu for one in own), (one.cpu for one in reference)),
            cpu_to_floor=_ratio((one.cpu for one in own), (one.cpu for one in floor)),
            wall_us=median(one.wall for one in own) / task.count * 1e6,
            wall_to_reference=_ratio((one.wall for one in own), (one.wall for one in reference)),
            memory_mb=median(one.memory for one in own) / 1e6,
            target=contestant.target,
        )
        for contestant, own in zip(task.contestants, samples, strict=True)
    ]


def _ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    return median(own / other for own, other in zip(ours, theirs, strict=True))


COLUMNS = ("", "CPU µs", "to k-http", "to floor", "target", "wall µs", "to k-http", "peak MB")
WIDTHS = (28, 8, 10, 9, 8, 9, 10, 8)


def table(task: Task, lines: Sequence[Line]) -> Iterator[str]:
    """The lines of text."""
    yield f"\n{task.title} ({task.count:,})"
    yield _row(COLUMNS)
    for line in lines:
        yield _row(
            (
                line.name,
                f"{line.cpu_us:.1f}",
                f"{line.cpu_to_reference:.2f}",
                f"{line.cpu_to_floor:.2f}",
                _target(line, task),
                f"{line.wall_us:.1f}",
                f"{line.wall_to_reference:.2f}",
                f"{line.memory_mb:.1f}",
            )
        )


def _row(cells: Sequence[str]) -> str:
    first, *others = zip(cells, WIDTHS, strict=True)
    return first[0].ljust(first[1]) + "".join(cell.rjust(width) for cell, width in others)


def _target(line: Line, task: Task) -> str:
    if line.target is None or task.is_on_kinto:
        return ""
    return f"{line.target:.2f} {'✓' if line.cpu_to_reference <= line.target else '✗'}"
