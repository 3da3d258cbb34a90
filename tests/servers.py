"""Kinto in several processes on one PostgreSQL: what it takes to see two writers really meet.

``serve_kinto`` starts them, as an operator would: no lock of ours keeps their calls apart. ``hold_row`` makes their
writers meet at will, without a race.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

import requests

import kinto_orm
from kinto_orm.server.application import Setting, build_application, drop_connections, migrate
from kinto_orm.server.cluster import Cluster

IS_OPEN_TO_OTHERS = all(path.stat().st_mode & 0o001 for path in Path(sys.prefix).resolve().parents)
"""Whether other users than this one can run what is installed here: tox closes a folder ``.tox`` that it makes."""

STOCK: Mapping[str, Setting] = {
    "includes": "kinto.plugins.default_bucket kinto.plugins.history",
    "multiauth.policies": "basicauth",
    "userid_hmac_secret": "the same in all processes",
}
"""What many an operator runs: PostgreSQL as it comes, so READ COMMITTED."""

OURS: Mapping[str, Setting] = {
    **STOCK,
    "includes": f"{STOCK['includes']} kinto_orm.server.atomic_batch",
    "storage_isolation_level": "REPEATABLE READ",
}
"""The same with the two lines of settings that we recommend."""

PROCESS = Path(__file__).with_name("kinto_process.py")
SECONDS_TO_START = 30
SECONDS_TO_WAIT = 20


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers that run, and their database."""

    urls: tuple[str, ...]
    """The root URL of each."""
    database: str
    """The database, as SQLAlchemy spells it."""


@contextmanager
def serve_kinto(
    cluster: Cluster,
    settings: Mapping[str, Setting],
    *,
    database: str,
    processes: int = 2,
    threads: int = 4,
) -> Generator[Servers]:
    """Run servers with these settings on one new database, each as a process, as long as the block lasts.

    Each takes as many connections to PostgreSQL as it has threads, which has 100 for all.
    """
    url = create_database(cluster, database)
    whole = {**settings, **postgresql(url, pool_size=threads)}
    create_schema(whole)
    with ExitStack() as stack:
        # All are started before the first is waited for.
        started = [stack.enter_context(start_process(whole, threads)) for _ in range(processes)]
        yield Servers(tuple([root_url(*each) for each in started]), url)


def postgresql(url: str, *, pool_size: int) -> dict[str, Setting]:
    """Return the settings that put everything but the cache on that database."""
    return {
        "storage_backend": "kinto.core.storage.postgresql",
        "storage_url": url,
        "storage_pool_size": pool_size,
        "permission_backend": "kinto.core.permission.postgresql",
        "permission_url": url,
    }


def create_database(cluster: Cluster, name: str) -> str:
    """Return the URL of an empty database, set up as the embedded server sets up its own."""
    with connection(cluster.url("postgres")) as cursor:
        cursor.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        cursor.execute(f"ALTER DATABASE {name} SET timezone TO 'UTC'")
    return cluster.url(name)


def create_schema(settings: Mapping[str, Setting]) -> None:
    """Set up the database as ``kinto migrate`` does, once for all processes."""
    app = build_application(settings)
    migrate(app)
    drop_connections(app)


@contextmanager
def connection(url: str) -> Generator[Any]:
    """Yield a cursor of a separate connection, which commits by itself."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    connected = import_module("psycopg2").connect(
        host=query["host"][0], port=query["port"][0], user=parts.username, dbname=parts.path.removeprefix("/")
    )
    try:
        connected.autocommit = True
        yield connected.cursor()
    finally:
        connected.close()


@contextmanager
def hold_row(database: str, id: str, *, waiting: int) -> Generator[None]:
    """Hold back all writers of the object with that id, until so many wait.

    They have read it by then, and checked their preconditions, so all of them have seen the same version.
    """
    with connection(database) as holder, connection(database) as watcher:
        holder.execute("BEGIN")
        holder.execute("SELECT id FROM objects WHERE id = %s FOR UPDATE", (id,))
        assert holder.rowcount == 1, f"no object has the id {id}"
        try:
            yield
            _await_waiting(watcher, waiting)
        finally:
            holder.execute("ROLLBACK")


def _await_waiting(cursor: Any, count: int) -> None:
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while time.monotonic() < deadline:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        if cursor.fetchone()[0] >= count:
            return
        time.sleep(0.01)
    raise TimeoutError(f"No {count} writers wait for the row.")


@contextmanager
def start_process(settings: Mapping[str, Setting], threads: int) -> Generator[tuple[subprocess.Popen[str], IO[str]]]:
    """Start a process, send it its settings, and yield it with its standard error."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
            text=True,
        )
        with process:
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps({"settings": dict(settings), "threads": threads}) + "\n")
                process.stdin.flush()
                yield process, errors
            finally:
                process.kill()


def _environment() -> dict[str, str]:
    """Ours, without the variables that would win over the settings, and with this very kinto_orm."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KINTO_")}
    return {**inherited, "PYTHONPATH": str(Path(kinto_orm.__file__).parents[1])}


def root_url(process: subprocess.Popen[str], errors: IO[str]) -> str:
    """Where the process listens, once it answers."""
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    if not port:
        errors.seek(0)
        raise RuntimeError(f"Kinto did not start: {errors.read()}")
    url = f"http://127.0.0.1:{port}/v1"
    requests.get(f"{url}/__lbheartbeat__", timeout=SECONDS_TO_START).raise_for_status()
    return url
