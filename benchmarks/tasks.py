"""The tasks of the benchmark, and their contestants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal


class Server(StrEnum):
    """The server of a task."""

    STUB = "stub"
    """Answers at once, so that the client is what is measured."""
    FAR = "stub, 20 ms away"
    MEMORY = "Kinto in memory"
    POSTGRES = "Kinto on PostgreSQL, two processes"


class Before(StrEnum):
    """The content of the collection before the task; the stub has any content."""

    NOTHING = "nothing"
    RECORDS = "records"
    """As many as the task is of; all contestants use the same ones."""
    OWN_RECORDS = "own records"
    """Others for each run, which deletes them."""


@dataclass(frozen=True, slots=True)
class Target:
    """The ratio that we aim at; of ``milliseconds``, the time that one record may take."""

    limit: float
    measure: Literal["cpu", "wall", "growth", "milliseconds"] = "cpu"
    of: Literal["reference", "floor"] = "reference"
    """What the time is compared with; ``growth`` and ``milliseconds`` have no other."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do a task."""

    name: str
    contender: str
    target: Target | None = None
    most: int | None = None
    """So many records at most, because more are too much for it."""
    most_calls: int | None = None
    """The calls inside of kinto_orm for one record that we aim at: they do not depend on the machine."""


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work, by several contestants: the first is the reference, the last the floor."""

    key: str
    title: str
    count: int
    contestants: tuple[Contestant, ...]
    server: Server = Server.STUB
    before: Before = Before.NOTHING
    stored: int | None = None
    """So many records are in the collection before the task; ``None``: as many as the task is of."""
    page_size: int | None = 1000
    """``None``: each client's default."""
    rounds: int = 5
    """At most."""
    few: int | None = None
    """So many records are what the growth of the memory is compared with."""
    is_cold: bool = False
    """Without a warm-up."""
    is_long: bool = False
    """Measured with ``make bench FULL=1`` alone."""


FLOOR = "requests + json"
WRITE = (
    Contestant("kinto-http, batch of dicts", "with_kinto_http:write_dicts"),
    Contestant("kinto_orm, typed models", "with_kinto_orm:write_models", Target(0.4), most_calls=45),
    Contestant("kinto_orm, dicts", "with_kinto_orm:write_dicts", Target(0.4)),
    Contestant(FLOOR, "with_requests:write_dicts"),
)
READ = (
    Contestant("kinto-http, get_records", "with_kinto_http:read_list"),
    Contestant("kinto-http, generator", "with_kinto_http:read_generator"),
    Contestant("kinto_orm, typed", "with_kinto_orm:read_typed", Target(0.7), most_calls=3),
    Contestant("kinto_orm, untyped", "with_kinto_orm:read_untyped", Target(0.8)),
    Contestant("kinto_orm, typed, kept", "with_kinto_orm:read_typed_kept", Target(1.0)),
    Contestant(FLOOR, "with_requests:read_list"),
)
MANY_PAGES = (
    # More pages are a RecursionError, with its generator, too.
    Contestant("kinto-http, generator", "with_kinto_http:read_generator", most=900),
    Contestant("kinto_orm, typed", "with_kinto_orm:read_typed"),
    Contestant(FLOOR, "with_requests:read_list"),
)
DUMP = (
    Contestant("kinto-http, get_records", "with_kinto_http:read_list"),
    Contestant("kinto_orm, untyped", "with_kinto_orm:read_untyped"),
    Contestant("kinto_orm, dump", "with_kinto_orm:dump", Target(1.5, "wall")),
    Contestant(FLOOR, "with_requests:read_list"),
)
"""A dump beside reading alone."""
FLAT = Target(1.1, "growth")
MEMORY_READ = (
    Contestant("kinto-http, get_records", "with_kinto_http:read_list"),
    Contestant("kinto-http, generator", "with_kinto_http:read_generator"),
    Contestant("kinto_orm, typed", "with_kinto_orm:read_typed", FLAT),
    Contestant("kinto_orm, untyped", "with_kinto_orm:read_untyped", FLAT),
    Contestant(FLOOR, "with_requests:read_list"),
)
MEMORY_WRITE = (
    Contestant("kinto-http, batch of dicts", "with_kinto_http:write_dicts", most=100_000),
    Contestant("kinto_orm, typed models", "with_kinto_orm:write_models", FLAT),
    Contestant(FLOOR, "with_requests:write_dicts", most=100_000),
)
IMPORT = (
    Contestant("import kinto_http", "imports:kinto_http"),
    Contestant("import kinto_orm", "imports:kinto_orm", Target(1.6, of="floor")),
    Contestant("import requests, pydantic", "imports:requests_and_pydantic"),
)
FIRST = (
    Contestant("kinto-http, generator", "with_kinto_http:read_first"),
    Contestant("kinto_orm, typed", "with_kinto_orm:read_first", Target(80, "milliseconds")),
    Contestant(FLOOR, "with_requests:read_first"),
)


def _three(function: str, target: Target | None, most_calls: int | None = None) -> tuple[Contestant, ...]:
    return (
        Contestant("kinto-http", f"with_kinto_http:{function}"),
        Contestant("kinto_orm", f"with_kinto_orm:{function}", target, most_calls=most_calls),
        Contestant(FLOOR, f"with_requests:{function}"),
    )


def _write(target: Target | None) -> tuple[Contestant, ...]:
    return (
        Contestant("kinto-http", "with_kinto_http:write_dicts"),
        Contestant("kinto_orm", "with_kinto_orm:write_models", target),
        Contestant(FLOOR, "with_requests:write_dicts"),
    )


def _memory_read(key: str, count: int) -> Task:
    return Task(key, "read records, 5000 a page", count, MEMORY_READ, page_size=5000, rounds=1, few=10_000)


def _faster(times: float) -> Target:
    return Target(1 / times, "wall")


def _read_in_parts(times: float) -> tuple[Contestant, ...]:
    return (
        Contestant("kinto-http, get_records", "with_kinto_http:read_list"),
        Contestant("kinto_orm, parallel(4)", "with_kinto_orm:read_parallel", _faster(times)),
        Contestant("kinto_orm, sequential", "with_kinto_orm:read_typed", NOT_SLOWER),
        Contestant(FLOOR, "with_requests:read_list"),
    )


NOT_SLOWER = _faster(1)
MILLION = 1_000_000
SAVE_CHANGED = "save loaded records, 1 % changed"
FOUR = "write new records to 4 collections"

TASKS = (
    Task("import", "import", 1, IMPORT, rounds=9, is_cold=True),
    Task("write", "write new records", 10_000, WRITE),
    # kinto-http keeps all that it has read, so its cost for a record grows.
    Task("read-20000", "read records, 1000 a page", 20_000, READ),
    Task("read-1000", "read records, 1000 a page", 100_000, READ, rounds=3),
    Task("read-5000", "read records, 5000 a page", 100_000, READ, page_size=5000, rounds=3),
    Task("get", "get one record", 1_000, _three("get", Target(0.55))),
    Task("save", "save one changed record", 1_000, _three("save", Target(0.55), most_calls=130)),
    Task("save-changed", SAVE_CHANGED, 10_000, _three("save_changed", None), page_size=5000),
    Task("sync-equal", "sync equal records", 10_000, _three("sync_equal", Target(1.0)), page_size=None),
    Task("sync-changed", "sync records, 1 % changed", 10_000, _three("sync_changed", Target(0.8)), page_size=None),
    Task("dump", "read records, and dump them", 50_000, DUMP, page_size=None, rounds=3),
    Task("commit", "commit units of 25 changed records", 1_000, _three("commit", Target(0.8), most_calls=85)),
    Task("pages-of-1", "read records, one a page", 10_000, MANY_PAGES, page_size=1, rounds=1),
    _memory_read("memory-read", 100_000),
    Task("memory-write", "write new records", 50_000, MEMORY_WRITE, rounds=1, few=10_000),
    replace(_memory_read("million-read", MILLION), is_long=True),
    Task("million-write", "write new records", MILLION, MEMORY_WRITE, rounds=1, few=10_000, is_long=True),
    *(
        replace(task, server=Server.FAR, rounds=3)
        for task in (
            Task("far-four", FOUR, 4_000, _three("write_four", _faster(3.5))),
            Task("far-parallel-1000", "read records, 1000 a page", 50_000, _read_in_parts(2.5)),
            Task("far-parallel", "read records", 50_000, _read_in_parts(2.5), page_size=None),
        )
    ),
    *(
        replace(task, server=Server.MEMORY, rounds=3)
        for task in (
            Task("memory-kinto-write", "write new records", 400, _write(None)),
            Task("memory-kinto-read", "read records, 1000 a page", 3_000, READ, before=Before.RECORDS),
            Task("memory-kinto-get-many", "get by id", 300, _three("get_many", _faster(10)), before=Before.RECORDS),
            Task("memory-kinto-delete", "delete by id", 300, _three("delete", _faster(1.5)), before=Before.OWN_RECORDS),
            # The last one: with the history of its writes, all else is slower there.
            Task(
                *("memory-kinto-save-changed", SAVE_CHANGED, 10_000, _three("save_changed", Target(0.03, "wall"))),
                before=Before.RECORDS,
                page_size=None,
            ),
        )
    ),
    *(
        replace(task, server=Server.POSTGRES, rounds=3)
        for task in (
            Task("postgres-write", "write new records", 500, _write(NOT_SLOWER)),
            Task("postgres-four", FOUR, 1_000, _three("write_four", _faster(2))),
            Task("postgres-get-many", "get by id", 300, _three("get_many", _faster(10)), before=Before.RECORDS),
            Task("postgres-delete", "delete by id", 300, _three("delete", _faster(1.5)), before=Before.OWN_RECORDS),
            Task(
                *("postgres-first", "first record of a list of 50,000", 1, FIRST),
                before=Before.RECORDS,
                stored=50_000,
                page_size=None,
            ),
            Task(
                "postgres-parallel", "read records", 50_000, _read_in_parts(1.8), before=Before.RECORDS, page_size=None
            ),
        )
    ),
)

QUICK_COUNTS = {"import": 1, "postgres-first": 1, "memory-read": 3_000, "memory-write": 500}
QUICK_COUNT = 100
"""Whole batches, of all four collections."""


def quick() -> tuple[Task, ...]:
    """Return all tasks but the long ones, small and once: to see whether everything runs."""
    return tuple(_quick(task) for task in TASKS if not task.is_long)


def _quick(task: Task) -> Task:
    few = None if task.few is None else QUICK_COUNT
    stored = None if task.stored is None else QUICK_COUNT
    return replace(task, count=QUICK_COUNTS.get(task.key, QUICK_COUNT), few=few, stored=stored, rounds=1)
