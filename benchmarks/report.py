"""Medians and ratios of the measurements, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tasks import Target, Task


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one contestant; seconds and bytes, all of it for ``count`` records."""

    count: int
    cpu: float
    wall: float
    memory: int
    memory_of_few: int | None = None
    """What as many records as ``Task.few`` took."""


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
    growth: float | None
    """The peak of the memory, divided by the one of few records."""
    calls: float | None
    """The calls inside of kinto_orm for one record, where there is a target for them."""
    most_calls: int | None
    target: Target | None
    reached: float | None
    """The ratio, or the time, that the target is about."""

    @property
    def is_met(self) -> bool:
        """Whether the target is reached."""
        return self.target is not None and self.reached is not None and self.reached <= self.target.limit


def summarize(task: Task, samples: Sequence[Sequence[Sample]], calls: Sequence[float | None]) -> list[Line]:
    """Return one line for each contestant; ``samples`` has one row for each, in their order, by rounds."""
    reference, floor = samples[0], samples[-1]
    lines: list[Line] = []
    for contestant, own, called in zip(task.contestants, samples, calls, strict=True):
        cpu = [one.cpu / one.count for one in own]
        wall = [one.wall / one.count for one in own]
        to_reference = _ratio(cpu, (one.cpu / one.count for one in reference))
        to_floor = _ratio(cpu, (one.cpu / one.count for one in floor))
        wall_to_reference = _ratio(wall, (one.wall / one.count for one in reference))
        growth = _growth(own)
        reached = {
            ("cpu", "reference"): to_reference,
            ("cpu", "floor"): to_floor,
            ("wall", "reference"): wall_to_reference,
            ("growth", "reference"): growth,
            ("milliseconds", "reference"): median(wall) * 1e3,
        }
        target = contestant.target
        lines.append(
            Line(
                name=contestant.name,
                cpu_us=median(cpu) * 1e6,
                cpu_to_reference=to_reference,
                cpu_to_floor=to_floor,
                wall_us=median(wall) * 1e6,
                wall_to_reference=wall_to_reference,
                memory_mb=median(one.memory for one in own) / 1e6,
                growth=growth,
                calls=called,
                most_calls=contestant.most_calls,
                target=target,
                reached=None if target is None else reached[target.measure, target.of],
            )
        )
    return lines


def _ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    return median(own / other for own, other in zip(ours, theirs, strict=True))


def _growth(samples: Sequence[Sample]) -> float | None:
    # A page or two of the system's are noise: of nothing, everything is a multiple.
    ratios = [one.memory / max(one.memory_of_few, 1_000_000) for one in samples if one.memory_of_few is not None]
    return median(ratios) if ratios else None


COLUMNS = ("", "CPU µs", "to k-http", "to floor", "wall µs", "to k-http", "peak MB", "grows", "calls", "target")
WIDTHS = (28, 10, 10, 9, 10, 10, 9, 8, 14, 25)


def table(task: Task, lines: Sequence[Line]) -> Iterator[str]:
    """Return the lines of text."""
    yield f"\n{task.title} ({task.count:,}; {task.server})"
    yield _row(COLUMNS)
    for line in lines:
        yield _row(
            (
                line.name,
                f"{line.cpu_us:.1f}",
                f"{line.cpu_to_reference:.2f}",
                f"{line.cpu_to_floor:.2f}",
                f"{line.wall_us:.1f}",
                f"{line.wall_to_reference:.2f}",
                f"{line.memory_mb:.1f}",
                "" if line.growth is None else f"{line.growth:.1f}",
                "" if line.calls is None else calls_text(line.calls, line.most_calls),
                "" if line.target is None else target_text(line.target, line.reached, is_met=line.is_met),
            )
        )


def target_text(target: Target, reached: float | None, *, is_met: bool) -> str:
    """Return a text such as ``wall 0.50 ✓``; of a time, ``62 ms ≤ 80 ✓``."""
    if target.measure == "milliseconds" and reached is not None:
        return f"{reached:.0f} ms ≤ {target.limit:.0f} {'✓' if is_met else '✗'}"
    of = " of the floor" if target.of == "floor" else ""
    return f"{target.measure} {target.limit:.2f}{of} {'✓' if is_met else '✗'}"


def calls_text(calls: float, most: int | None) -> str:
    """Return, for example, ``44 ≤ 45 ✓``."""
    return f"{calls:.0f}" if most is None else f"{calls:.0f} ≤ {most} {'✓' if calls <= most else '✗'}"


def _row(cells: Sequence[str]) -> str:
    first, *others = zip(cells, WIDTHS, strict=True)
    return first[0].ljust(first[1]) + "".join(cell.rjust(width) for cell, width in others)
