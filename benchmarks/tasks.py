"""What is compared with what."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do a task."""

    name: str
    contender: str
    target: float | None = None
    """The ratio of CPU time to the reference that we aim at (issue 6)."""


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work, by several contestants: the first is the reference, the last the floor."""

    key: str
    title: str
    count: int
    contestants: tuple[Contestant, ...]
    page_size: int = 1000
    is_on_kinto: bool = False
    """Against a real server, where records have to be there before they can be read."""


FLOOR = "requests + json"
WRITE = (
    Contestant("kinto-http, batch of dicts", "with_kinto_http:write_dicts"),
    Contestant("kinto_orm, typed models", "with_kinto_orm:write_models", 0.35),
    Contestant("kinto_orm, dicts", "with_kinto_orm:write_dicts", 0.35),
    Contestant(FLOOR, "with_requests:write_dicts"),
)
READ = (
    Contestant("kinto-http, get_records", "with_kinto_http:read_list"),
    Contestant("kinto-http, generator", "with_kinto_http:read_generator"),
    Contestant("kinto_orm, typed", "with_kinto_orm:read_typed", 0.8),
    Contestant("kinto_orm, untyped", "with_kinto_orm:read_untyped", 0.7),
    Contestant("kinto_orm, typed, kept", "with_kinto_orm:read_typed_kept", 1.0),
    Contestant(FLOOR, "with_requests:read_list"),
)


def _three(function: str, target: float) -> tuple[Contestant, ...]:
    return (
        Contestant("kinto-http", f"with_kinto_http:{function}"),
        Contestant("kinto_orm, typed", f"with_kinto_orm:{function}", target),
        Contestant(FLOOR, f"with_requests:{function}"),
    )


TASKS = (
    Task("write", "write new records", 10_000, WRITE),
    Task("read-1000", "read records, 1000 a page", 100_000, READ, 1000),
    Task("read-5000", "read records, 5000 a page", 100_000, READ, 5000),
    Task("get", "get one record", 1_000, _three("get", 0.65)),
    Task("save", "save one changed record", 1_000, _three("save", 0.65)),
    Task("save-changed", "save loaded records, 1 % changed", 10_000, _three("save_changed", 0.03), 5000),
    Task("commit", "commit units of 25 changed records", 1_000, _three("commit", 0.5)),
    Task("kinto-write", "write new records to a real Kinto", 400, WRITE, is_on_kinto=True),
    Task("kinto-get-many", "get 300 records by id, of a real Kinto", 300, _three("get_many", 0.1), is_on_kinto=True),
    Task("kinto-read", "read records of a real Kinto, 1000 a page", 3_000, READ, 1000, is_on_kinto=True),
)

QUICK_COUNTS = {
    "write": 250,
    "read-1000": 3_000,
    "get": 30,
    "save": 30,
    "save-changed": 500,
    "commit": 50,
    "kinto-write": 50,
}


def quick() -> tuple[Task, ...]:
    """A few of the tasks, small: to see whether everything runs."""
    return tuple(replace(task, count=QUICK_COUNTS[task.key]) for task in TASKS if task.key in QUICK_COUNTS)
