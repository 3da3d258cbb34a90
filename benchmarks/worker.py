"""The client process: does one piece of work and prints its costs, as JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import FrameType

from job import WARM_UP, Contender, Job, Work


def main(job: Job) -> None:
    module, _, function = job.contender.partition(":")
    contender: Contender = getattr(import_module(module), function)
    if not job.is_cold:
        small = str(WARM_UP) if job.collection.isdigit() else job.collection  # the stub has collections of any size
        contender(replace(job, count=WARM_UP, collection=small, first=job.count))()
    work = contender(job)
    if job.counts_calls:
        print(json.dumps(count_calls(work)))
        return
    before = reset_peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    done = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps({"done": done, "cpu": cpu, "wall": wall, "memory": peak_memory() - before}))


def count_calls(work: Work) -> dict[str, int]:
    """Return how many functions of kinto_orm the work calls or goes on with, and how many records it has done."""
    package = str(Path(import_module("kinto_orm").__file__ or "").parent)
    calls = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        if event == "call" and frame.f_code.co_filename.startswith(package):
            calls += 1

    sys.setprofile(note)
    try:
        done = work()
    finally:
        sys.setprofile(None)
    return {"done": done, "calls": calls}


def reset_peak_memory() -> int:
    """Forget the highest point so far, where Linux lets us, and return the memory in use now, in bytes."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def peak_memory() -> int:
    """Return the highest point of the memory in use, in bytes."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(Job(**json.loads(sys.argv[1])))
