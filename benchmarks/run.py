"""``make bench``: kinto_orm beside kinto-http and the floor, in one run, in interleaved rounds.

Each piece of work runs in a client process, against a stub server in another one, so that the client is measured; the
last tasks run against a real Kinto, in memory and on PostgreSQL. Read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from job import Job
from real_kinto import Kinto, filler_by_sql, filler_in_batches
from report import Line, Sample, summarize, table
from tasks import TASKS, Contestant, Server, Task, quick

HERE = Path(__file__).parent
RESULT = HERE / "latest.json"
PREPARED = 100_000
"""So many records the stub has at hand when it begins."""
SECONDS_AWAY = 0.02


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    asked = options.only or [task.key for task in TASKS if options.full or not task.is_long]
    tasks = [task for task in (quick() if options.quick else TASKS) if task.key in asked]
    started = time.perf_counter()
    # Of tasks that are not run this time, the file keeps what is in it.
    keep = bool(options.only) and options.output.exists()
    results: dict[str, Any] = json.loads(options.output.read_text("utf-8"))["tasks"] if keep else {}
    with ExitStack() as running:
        places = Places(running, 0 if options.quick else PREPARED)
        for task in tasks:
            lines, samples = _measure(task, places, min(task.rounds, options.rounds))
            print("\n".join(table(task, lines)), flush=True)
            results[task.key] = _as_json(task, lines, samples)
            ordered = {one.key: results[one.key] for one in TASKS if one.key in results}
            options.output.write_text(json.dumps({"machine": _machine(), "tasks": ordered}, indent=2), "utf-8")
    print(f"\n{time.perf_counter() - started:.0f} s; all of it is in {options.output}.")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and once: to see whether everything runs")
    parser.add_argument("--full", action="store_true", help="with a million records, too: half an hour")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run at most (default: %(default)s)")
    parser.add_argument("--only", choices=[task.key for task in TASKS], nargs="+", help="these tasks alone")
    parser.add_argument("--output", type=Path, default=RESULT, help="the JSON file (default: %(default)s)")
    return parser.parse_args(arguments)


@dataclass(frozen=True, slots=True)
class Places:
    """The servers, started when the first task needs them."""

    running: ExitStack
    prepared: int
    stubs: dict[Server, str] = field(default_factory=dict)
    kintos: dict[Server, Kinto] = field(default_factory=dict)

    def of(self, task: Task, count: int) -> tuple[str, str]:
        """Return the URL and the collection for the next run of the task."""
        if task.server in (Server.STUB, Server.FAR):
            return self._stub(task.server), str(count)
        kinto = self._kinto(task.server)
        return kinto.url, kinto.collection(task)

    def _stub(self, server: Server) -> str:
        if server not in self.stubs:
            delay = SECONDS_AWAY if server is Server.FAR else 0
            self.stubs[server] = self.running.enter_context(_server("stub.py", str(self.prepared), str(delay)))
        return self.stubs[server]

    def _kinto(self, server: Server) -> Kinto:
        if server not in self.kintos:
            if server is Server.MEMORY:
                url = self.running.enter_context(_server("embedded.py"))
                kinto = Kinto(url, filler_in_batches(url))
            else:
                url, database = self.running.enter_context(_server("postgres.py")).split()
                kinto = Kinto(url, filler_by_sql(database))
            self.kintos[server] = kinto
        return self.kintos[server]


@contextmanager
def _server(*command: str) -> Generator[str]:
    """Run this script as a server process, which ends with its input, and yield the lines that it prints."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def _measure(task: Task, places: Places, rounds: int) -> tuple[list[Line], list[list[Sample]]]:
    samples: list[list[Sample]] = [[] for _ in task.contestants]
    for number in range(rounds):
        # In another order each time, so that no contestant always follows the same one.
        for offset in range(len(task.contestants)):
            index = (number + offset) % len(task.contestants)
            samples[index].append(_sample(task, task.contestants[index], places))
    calls = [_count_calls(task, one, places) for one in task.contestants]
    return summarize(task, samples, calls), samples


COUNTED = 1_000
"""Of so many records the calls are counted: that is slow, and they are the same for each."""


def _count_calls(task: Task, contestant: Contestant, places: Places) -> float | None:
    if contestant.most_calls is None or task.server is not Server.STUB:  # a real server has another number of records
        return None
    count = min(task.count, COUNTED)
    calls: int = _run(task, contestant, places, count, counts_calls=True)["calls"]
    return calls / count


def _sample(task: Task, contestant: Contestant, places: Places) -> Sample:
    count = min(task.count, contestant.most or task.count)
    sample = _run(task, contestant, places, count)
    if task.few is None:
        return Sample(**sample)
    return Sample(**sample, memory_of_few=_run(task, contestant, places, task.few)["memory"])


def _run(
    task: Task, contestant: Contestant, places: Places, count: int, *, counts_calls: bool = False
) -> dict[str, Any]:
    url, collection = places.of(task, count)
    job = Job(
        contestant.contender,
        url,
        collection,
        count,
        task.page_size,
        is_cold=task.is_cold,
        counts_calls=counts_calls,
    )
    command = [sys.executable, "worker.py", json.dumps(asdict(job))]
    # As where packages are installed: their code is compiled once.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    output = subprocess.run(command, cwd=HERE, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    sample: dict[str, Any] = json.loads(output)
    if sample.pop("done") != count:
        raise SystemExit(f"{contestant.name} did not do all of: {task.title}. {output}")
    return {**sample, "count": count}


def _as_json(task: Task, lines: Sequence[Line], samples: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    return {
        "title": task.title,
        "server": task.server,
        "count": task.count,
        "page_size": task.page_size,
        "contestants": [
            {**asdict(line), "is_met": line.is_met, "samples": [asdict(one) for one in own]}
            for line, own in zip(lines, samples, strict=True)
        ],
    }


def _machine() -> dict[str, Any]:
    packages = ("kinto-orm", "kinto-http", "kinto", "requests", "urllib3", "pydantic", "pydantic_core")
    return {
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "platform": platform.platform(),
        "versions": {name: metadata.version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
