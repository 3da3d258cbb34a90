"""What the workers of the cluster import: a model, where they get their client, and what they do with records."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kinto_orm import Client, Record


class Todo(Record, bucket="payments", collection="todos"):
    title: str = "a"
    n: int
    done: bool = False
    tags: list[str] = []  # noqa: RUF012 - pydantic copies it


@cache
def connect() -> Client:
    """Return the client of this process, with the credentials of its environment."""
    return Client(os.environ["TEST_SERVER"], auth=("user", os.environ["TEST_PASSWORD"]))


def connect_dry() -> Client:
    """Return a client that only plans."""
    return connect().clone(dry_mode=True)


def refuse() -> Client:
    raise LookupError("no credentials here")


@dataclass(frozen=True)
class Elsewhere:
    """Gives a client of another server."""

    url: str

    def __call__(self) -> Client:
        return Client(self.url, auth=("user", os.environ["TEST_PASSWORD"]), retry=0)


def where(records: Sequence[Any]) -> list[int]:
    return [os.getpid()] if records else []


def number(todo: Todo) -> int:
    return todo.n


def finish(todo: Todo) -> Todo:
    todo.done = True
    return todo


def change_first(todo: Todo) -> Todo:
    """Let another client change the first one earlier."""
    if todo.n == 0:
        connect().bucket("payments").collection(Todo).records.get(todo.__kinto_path__().id).patch(title="theirs")
    return finish(todo)


def stumble(todo: Todo) -> Todo:
    if todo.n == 3:
        raise ZeroDivisionError(f"I cannot stand {todo.n}")
    return finish(todo)


def die(todo: Todo) -> Todo:
    if todo.n == 3:
        os._exit(1)
    return finish(todo)


def die_twice(row: dict[str, Any], folder: str) -> dict[str, Any]:
    """Kill both workers with their results, then leave time to do that again."""
    if row["n"] == 3:
        deadline = time.monotonic() + 10
        while connect().bucket("payments").collection(Todo).records.count() < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        if len(os.listdir(folder)) < 2:
            tempfile.mkstemp(dir=folder)
            time.sleep(0.3)
            os._exit(1)
        time.sleep(3)
    return row


def take_long(todo: Todo, folder: str) -> Todo:
    """Until there is something in the folder."""
    deadline = time.monotonic() + 120  # longer than the test waits before it interrupts
    while todo.n == 3 and not any(Path(folder).iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return finish(todo)
