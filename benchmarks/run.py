"""``make bench``: kinto_orm beside kinto-http and the floor, in one run, in interleaved rounds.

Each piece of work runs in a client process of its own, against a stub server in another one, so that the client is
what is measured; the last tasks run against a real Kinto. Times are the client's; read the ratios.
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
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from job import Job
from real_kinto import Kinto
from report import Line, Sample, summarize, table
from tasks import TASKS, Contestant, Task, quick

HERE = Path(__file__).parent
RESULT = HERE / "latest.json"
ROUNDS_ON_KINTO = 3


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    tasks = [task for task in (quick() if options.quick else TASKS) if options.only in ("", task.key)]
    started = time.perf_counter()
    results: dict[str, Any] = {}
    most_records = max(task.count for task in tasks)
    with _server("stub.py", str(most_records)) as stub, _server("embedded.py") as kinto:
        places = Places(stub, Kinto(kinto))
        for task in tasks:
            lines, samples = _measure(task, places, _rounds(task, options))
            print("\n".join(table(task, lines)), flush=True)
            results[task.key] = _as_json(task, lines, samples)
    options.output.write_text(json.dumps({"machine": _machine(), "tasks": results}, indent=2), "utf-8")
    print(f"\n{time.perf_counter() - started:.0f} s; all of it is in {options.output}.")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and once: to see whether everything runs")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run (default: %(default)s)")
    parser.add_argument("--only", choices=[task.key for task in TASKS], default="", help="this task alone")
    parser.add_argument("--output", type=Path, default=RESULT, help="the JSON file (default: %(default)s)")
    return parser.parse_args(arguments)


def _rounds(task: Task, options: argparse.Namespace) -> int:
    if options.quick:
        return 1
    # There the server is the limit, and each round takes long.
    return min(options.rounds, ROUNDS_ON_KINTO) if task.is_on_kinto else int(options.rounds)


@dataclass(frozen=True, slots=True)
class Places:
    """The two servers."""

    stub_url: str
    kinto: Kinto

    def of(self, task: Task) -> tuple[str, str]:
        """The URL and the collection for the next run of the task."""
        if not task.is_on_kinto:
            return self.stub_url, str(task.count)
        reads = not task.key.endswith("-write")
        return self.kinto.url, self.kinto.filled_collection(task.count) if reads else self.kinto.empty_collection()


@contextmanager
def _server(*command: str) -> Generator[str]:
    """The URL of the server that this script is, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _measure(task: Task, places: Places, rounds: int) -> tuple[list[Line], list[list[Sample]]]:
    samples: list[list[Sample]] = [[] for _ in task.contestants]
    for number in range(rounds):
        # In another order each time, so that nobody always comes after the same one.
        for offset in range(len(task.contestants)):
            index = (number + offset) % len(task.contestants)
            samples[index].append(_run(task, task.contestants[index], *places.of(task)))
    return summarize(task, samples), samples


def _run(task: Task, contestant: Contestant, url: str, collection: str) -> Sample:
    job = Job(contestant.contender, url, collection, task.count, task.page_size)
    command = [sys.executable, "worker.py", json.dumps(asdict(job))]
    output = subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout
    sample = json.loads(output)
    if sample.pop("done") != task.count:
        raise SystemExit(f"{contestant.name} did not do all of: {task.title}. {output}")
    return Sample(**sample)


def _as_json(task: Task, lines: Sequence[Line], samples: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    return {
        "title": task.title,
        "count": task.count,
        "page_size": task.page_size,
        "contestants": [
            {**asdict(line), "samples": [asdict(one) for one in own]} for line, own in zip(lines, samples, strict=True)
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
