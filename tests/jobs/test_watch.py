"""Watching a collection: the change feed, asked again and again."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any

import pytest
import requests

from kinto_orm import (
    Client,
    Collection,
    ConnectionLostError,
    FeedLostError,
    InvalidTypeError,
    InvalidValueError,
    KintoError,
    Record,
)
from kinto_orm.server import EmbeddedServer


def said(changes: Any) -> list[tuple[str, str]]:
    return [(change.kind, change.record.id) for change in changes]


def test_a_watch_gives_what_is_there_and_then_what_changes(todos: Collection[Record]) -> None:
    todos.records.create(id="a", data={"n": 1})
    watch = todos.records.watch(every=0, horizon=0)
    changes = iter(watch)
    first = next(changes)

    todos.records.create(id="b", data={"n": 1})
    todos.records.get("a").delete()

    assert said([first]) == [("changed", "a")]
    assert sorted(said(islice(changes, 2))) == [("changed", "b"), ("deleted", "a")]
    todos.records.create(id="c", data={"n": 1})
    assert said(islice(todos.records.watch(watch.token, every=0, horizon=0), 1)) == [("changed", "c")]


def test_a_watch_can_be_awaited(todos: Collection[Record]) -> None:
    async def scenario() -> list[tuple[str, str]]:
        found = []
        async for change in todos.records.watch(every=0, horizon=0):
            found += said([change])
            if len(found) == 2:
                break
            await todos.records.acreate(id="b", data={"n": 1})
        return found

    todos.records.create(id="a", data={"n": 1})
    assert asyncio.run(scenario()) == [("changed", "a"), ("changed", "b")]


def test_waits_grow_while_nothing_changes(todos: Collection[Record]) -> None:
    watch = todos.records.watch(every=5, max_every=60)

    waits = [watch._next_wait() for _ in range(6)]

    for expected, wait in zip((5, 10, 20, 40, 60, 60), waits, strict=True):
        assert 0.8 * expected <= wait <= 1.2 * expected


class Broken(requests.adapters.BaseAdapter):
    """A wire that fails so many times, and passes the rest on."""

    def __init__(self, server: EmbeddedServer, failures: int) -> None:
        super().__init__()
        self.inner, self.failures = server.adapter(), failures

    def send(self, *args: Any, **options: Any) -> requests.Response:
        if self.failures:
            self.failures -= 1
            raise requests.ConnectionError("no server answers")
        return self.inner.send(*args, **options)

    def close(self) -> None: ...


@pytest.mark.parametrize("awaits", [False, True])
def test_a_server_that_is_down_is_told_and_asked_again(
    todos: Collection[Record], server: EmbeddedServer, awaits: bool
) -> None:
    todos.records.create(id="a", data={"n": 1})
    errors: list[KintoError] = []
    session = requests.Session()
    session.mount(server.url, Broken(server, 3))
    with Client(server.url, session=session, auth=("user", "embedded"), retry=0) as client:
        records = client.bucket("payments").collection("todos").records
        watch = records.watch(every=0, horizon=0, on_error=errors.append)

        async def first() -> Any:
            return await anext(aiter(watch))

        found = asyncio.run(first()) if awaits else next(iter(watch))

        assert said([found]) == [("changed", "a")]
        assert [type(one) for one in errors] == [ConnectionLostError] * 3
        session.mount(server.url, Broken(server, 1))
        with pytest.raises(ConnectionLostError):
            next(iter(records.watch(every=0)))


def test_a_collection_that_was_made_anew_ends_the_watch(todos: Collection[Record]) -> None:
    todos.records.create(id="a", data={"n": 1})
    changes = iter(todos.records.watch(every=0, horizon=0))
    next(changes)
    todos.refresh().delete()
    Collection(bucket=todos.bucket, id="todos").save()
    todos.records.create(id="b", data={"n": 1})

    with pytest.raises(FeedLostError):
        next(changes)


def test_wrong_options_are_refused(todos: Collection[Record]) -> None:
    with pytest.raises(InvalidValueError):
        todos.records.watch(every=-1)
    with pytest.raises(InvalidTypeError):
        todos.records.watch(max_every="60")  # type: ignore[arg-type]
    assert "every 5 s" in repr(todos.records.watch())
