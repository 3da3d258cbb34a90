"""The demo's output: its steps with their time and requests, progress, and a table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kinto_orm import ResponseEvent

Advance = Callable[[object], None]
"""Called once for each thing that is done; what it is called with does not matter."""


@dataclass
class Step:
    """One step of the demo, and its result."""

    name: str
    done: str = ""
    seconds: float = 0.0
    requests: int = 0


class Screen:
    """Prints as the demo goes, and remembers the steps for the table."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.current: Step | None = None
        self._requests = 0

    def count_request(self, sent: ResponseEvent) -> None:
        """Count a response; the client's ``on_response``."""
        self._requests += 1

    @contextmanager
    def step(self, name: str) -> Generator[Step]:
        """Time a step, which stores its result in ``done``. A step that fails stays the current one."""
        step = self.current = Step(name)
        print(f"\n{len(self.steps) + 1}. {name}")
        requests, started = self._requests, time.perf_counter()
        yield step
        step.seconds = time.perf_counter() - started
        step.requests = self._requests - requests
        print(f"   {step.done} ({step.seconds:.2f} s, {step.requests:,} request{'s' * (step.requests != 1)})")
        self.steps.append(step)
        self.current = None

    def say(self, text: str) -> None:
        """Print text below the title of the step."""
        for line in text.splitlines():
            print(f"   {line}")

    def summary(self) -> str:
        """Return the table of all steps."""
        rows = [(step.name, step.done, f"{step.requests:,}", f"{step.seconds:.2f} s") for step in self.steps]
        total = sum(step.seconds for step in self.steps)
        rows.append(("Total", "", f"{sum(step.requests for step in self.steps):,}", f"{total:.2f} s"))
        rows.insert(0, ("Step", "What was done", "Requests", "Time"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{name:<{widths[0]}}  {done:<{widths[1]}}  {requests:>{widths[2]}}  {seconds:>{widths[3]}}"
            for name, done, requests, seconds in rows
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


@contextmanager
def progress(label: str, total: int) -> Generator[Advance]:
    """Return a progress bar on a terminal, where ``rich`` is installed; else a line at each quarter."""
    bar = rich_bar() if total and sys.stdout.isatty() else None
    if bar is None:
        yield Quarters(label, total)
        return
    with bar:
        task = bar.add_task(f"   {label}", total=total)
        yield lambda _: bar.advance(task)


def rich_bar() -> Any:
    """Return a progress bar; ``None`` without the extra ``cli``. ``Any``, because a type that may be missing has no
    name.
    """
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


class Quarters:
    """Progress in plain lines, for logs and pipes."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._done = 0

    def __call__(self, _: object) -> None:
        before, self._done = self._done, self._done + 1
        if 4 * before // self._total != 4 * self._done // self._total:
            print(f"   {self._label}: {self._done:,} of {self._total:,}", flush=True)
