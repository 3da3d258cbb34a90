"""Minutes of mixed writes through faults and restarts, and an audit: ``tox -e soak -- --minutes 1``.

Some threads share one client and write through a proxy that fails now and then, while Kinto is killed or stopped, and
started again on the data that it left, every half minute. Afterwards Kinto's history must agree with what the client
said of each write, and the client must not have grown. Prints a table; its exit code is 1 where something was wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import psutil
import requests
from audit import MOST_SHOWN, Findings, audit
from fault_proxy import FAULTS, Fault, FaultProxy, Seen, ok
from workload import AUTH

HERE = Path(__file__).parent
SLOPE = 1.0
"""Megabytes a minute by which the client may grow."""
WARM_UP = 120
"""Seconds in which memory grows with the workload: each thread fills its bucket, and up to 600 records are in doubt.

Measured: 1 MB of Python objects at first, 5 MB with 650 records in doubt, 7 MB after three minutes; all else that the
process takes is the allocator's.
"""
SHORTEST_FOR_SLOPE = 5
"""Minutes: in less, the filling of the buckets looks like growth."""
SECONDS_TO_START = 60
SECONDS_TO_END = 180
SECONDS_TO_CLOSE = 30


class Server:
    """Kinto on its data, in a process that can be killed; always on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"
        self._errors = folder.with_suffix(".log").open("a")
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, HERE / "kinto_with_data.py", str(self._folder), str(self._port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError(f"Kinto did not start: see {self._errors.name}")
        requests.get(f"{self.url}/__lbheartbeat__", timeout=SECONDS_TO_START).raise_for_status()

    def restart(self, *, is_killed: bool) -> None:
        """End it, in order or in the middle of its work, and start it again on its data."""
        if is_killed:
            self._process.kill()
        self.stop()
        self._start()

    def stop(self) -> None:
        """End it, and its PostgreSQL."""
        self._process.communicate()


class Misfortune:
    """Chooses a fault for a small part of all requests, until it is over."""

    def __init__(self, share: float, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.is_over = False
        self._share = share
        self._random = random.Random(seed)
        self._lock = Lock()

    def __call__(self, seen: Seen) -> Fault:
        with self._lock:
            self.counts["requests"] += 1
            if self.is_over or self._random.random() >= self._share:
                return ok
            name = self._random.choice(list(FAULTS))
            self.counts[name] += 1
            return FAULTS[name]


@dataclass
class Growth:
    """What the process of the client takes, once a second."""

    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    sockets: list[int] = field(default_factory=list)

    def measure(self, process: psutil.Process) -> None:
        """Add a measurement; none where the process has just ended."""
        try:
            with process.oneshot():
                rss, threads = process.memory_info().rss, process.num_threads()
            sockets = len(process.net_connections("tcp"))
        except psutil.Error:
            return
        if not rss:
            return
        self.seconds.append(time.monotonic())
        self.megabytes.append(rss / 2**20)
        self.threads.append(threads)
        self.sockets.append(sockets)

    def slope(self) -> float:
        """Return the megabytes a minute after the warm-up, or after half of a shorter run."""
        start = self.seconds[0] + min(WARM_UP, (self.seconds[-1] - self.seconds[0]) / 2)
        later = [(one, size) for one, size in zip(self.seconds, self.megabytes, strict=True) if one >= start]
        times, sizes = [one for one, _ in later], [size for _, size in later]
        middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
        spread = sum((one - middle) ** 2 for one in times)
        return 60 * sum((one - middle) * (size - mean) for one, size in zip(times, sizes, strict=True)) / spread


@dataclass(frozen=True)
class Options:
    """How the soak test is run."""

    minutes: float
    threads: int
    faults: float
    restart_every: float
    seed: int
    timeout: float
    folder: Path | None


def parse(arguments: list[str]) -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="soak.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--faults", type=float, default=0.02, help="the part of all requests that goes wrong")
    parser.add_argument("--restart-every", type=float, default=30, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--timeout", type=float, default=2, metavar="SECONDS", help="how long the client waits: more on a busy machine"
    )
    parser.add_argument("--folder", type=Path, help="where to leave data, journals and logs: nothing is kept without")
    return Options(**vars(parser.parse_args(arguments)))


@contextmanager
def working_folder(given: Path | None) -> Generator[Path]:
    """Return the folder for data, journals and logs."""
    if given is not None:
        given.mkdir(parents=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="kinto-orm-soak-") as folder:
        yield Path(folder)


def run(options: Options, folder: Path) -> tuple[Findings, Growth, Counter[str]]:
    """Run the soak, and the audit."""
    server = Server(folder / "data")
    misfortune = Misfortune(options.faults, options.seed)
    growth, restarts = Growth(), 0
    try:
        with FaultProxy(server.url, length_of_log=100) as proxy:
            worker = start_workload(proxy.url, options, folder)
            proxy.choose = misfortune
            restarts = watch(worker, server, misfortune, growth, options)
            is_idle = becomes_idle(proxy)
        server.restart(is_killed=True)  # what was acknowledged survives that
        findings = audit(server.url, AUTH, folder)
    finally:
        server.stop()
    if worker.returncode != 0:
        findings.complain(f"the client ended with {worker.returncode}: see workload.log")
    if not is_idle:
        findings.complain("connections stayed open when the client had ended")
    counts = Counter({"restarts": restarts}) + misfortune.counts
    if (folder / "counts.json").exists():
        counts.update(json.loads((folder / "counts.json").read_text()))
    return findings, growth, counts


def becomes_idle(proxy: FaultProxy) -> bool:
    """Return whether all connections end after their client: a busy proxy takes a while to notice."""
    deadline = time.monotonic() + SECONDS_TO_CLOSE
    while proxy.connections and time.monotonic() < deadline:
        time.sleep(0.1)
    return proxy.connections == 0


def start_workload(url: str, options: Options, folder: Path) -> subprocess.Popen[str]:
    """Start the process of the client."""
    arguments = [url, options.minutes * 60, folder, options.threads, options.seed, options.timeout]
    with (folder / "workload.log").open("w") as errors:
        worker = subprocess.Popen(
            [sys.executable, HERE / "workload.py", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert worker.stdout is not None
    if worker.stdout.readline() != "ready\n":
        raise RuntimeError(f"the client did not start: {(folder / 'workload.log').read_text()}")
    return worker


def watch(
    worker: subprocess.Popen[str], server: Server, misfortune: Misfortune, growth: Growth, options: Options
) -> int:
    """Lets the client work while the server comes and goes; how often it did."""
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    process = psutil.Process(worker.pid)
    start, restarts = time.monotonic(), 0
    next_restart = options.restart_every
    while worker.poll() is None:
        time.sleep(1)
        growth.measure(process)
        elapsed = time.monotonic() - start
        misfortune.is_over = elapsed > options.minutes * 60
        if not misfortune.is_over and elapsed > next_restart:
            restarts += 1
            server.restart(is_killed=restarts % 2 == 1)
            # From here on: a busy machine may take longer to start it than the time between two restarts.
            next_restart = time.monotonic() - start + options.restart_every
        if elapsed > options.minutes * 60 + SECONDS_TO_END:
            worker.kill()
    worker.communicate()
    return restarts


def check_growth(growth: Growth, options: Options, findings: Findings) -> None:
    """Add the growth of the client's resources to the findings."""
    if options.minutes >= SHORTEST_FOR_SLOPE and growth.slope() > SLOPE:
        findings.complain(f"the client grew by {growth.slope():.2f} MB a minute")
    if max(growth.sockets) > options.threads:
        findings.complain(f"{max(growth.sockets)} sockets for {options.threads} threads")
    if max(growth.threads) > growth.threads[0]:
        findings.complain(f"{max(growth.threads)} threads, and {growth.threads[0]} at the beginning")


def show(findings: Findings, growth: Growth, counts: Counter[str], options: Options) -> None:
    """Print the table."""
    seconds = options.minutes * 60
    rows = [
        ("seed", str(options.seed)),
        *((name, f"{count}") for name, count in sorted((counts + findings.counts).items())),
        ("requests a second", f"{counts['requests'] / seconds:.1f}"),
        ("memory, MB", f"{min(growth.megabytes):.1f} to {max(growth.megabytes):.1f}"),
        ("memory, MB a minute", f"{growth.slope():.2f} (at most {SLOPE}, from {SHORTEST_FOR_SLOPE} minutes on)"),
        ("sockets", f"{max(growth.sockets)} at most"),
        ("threads", f"{growth.threads[0]} at first, {max(growth.threads)} at most"),
        ("violations", str(len(findings.violations))),
    ]
    for name, value in rows:
        print(f"{name:<40} {value}")
    for violation in findings.violations[:MOST_SHOWN]:
        print(f"\n{violation.strip()}")


def main(arguments: list[str]) -> int:
    """0 where all is as promised, else 1."""
    options = parse(arguments)
    with working_folder(options.folder) as folder:
        findings, growth, counts = run(options, folder)
    check_growth(growth, options, findings)
    show(findings, growth, counts, options)
    return 1 if findings.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
