"""Read, change, save, and again where another client was faster."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest
from lossy import lossy
from wiretap import Wiretap, tap

from kinto_orm import (
    Client,
    Collection,
    ConflictError,
    InvalidIdError,
    NotFoundError,
    NotStageableError,
    Record,
    UsageError,
)
from kinto_orm.server import EmbeddedServer


@pytest.fixture
def counter(todos: Collection[Record]) -> Record:
    return todos.records.create(id="counter", data={"n": 0})


@pytest.fixture
def wire(kinto_client: Client, counter: Record) -> Wiretap:
    return tap(kinto_client)


def interfere(todos: Collection[Record]) -> None:
    """Let another client add ten."""
    other = todos.records.get("counter")
    other.patch(n=other.data["n"] + 10)


def test_what_is_changed_in_the_block_is_saved(todos: Collection[Record], counter: Record, wire: Wiretap) -> None:
    for attempt in todos.records.edit("counter"):
        with attempt as one:
            one.data["n"] += 1

    assert (attempt.number, attempt.is_done) == (1, True)
    assert [said.split()[0] for said in wire.said] == ["GET", "PATCH"]
    assert todos.records.get("counter").data["n"] == 1


def test_a_block_ends_with_the_models_own_save(todos: Collection[Record], counter: Record) -> None:
    class Stamped(Record, bucket="payments", collection="todos"):
        n: int
        stamp: str = ""

        def save(self, **options: Any) -> Self:
            self.stamp = "by save()"
            return super().save(**options)

        async def asave(self, **options: Any) -> Self:
            self.stamp = "by asave()"
            return await super().asave(**options)

    async def edit() -> None:
        async for attempt in stamped.edit("counter"):
            async with attempt as one:
                one.n += 1

    stamped = todos.client.bind(Stamped).records
    for attempt in stamped.edit("counter"):
        with attempt as one:
            one.n += 1
    assert todos.records.get("counter").data == {"n": 1, "stamp": "by save()"}

    asyncio.run(edit())
    assert todos.records.get("counter").data == {"n": 2, "stamp": "by asave()"}


def test_what_is_not_changed_is_not_sent(todos: Collection[Record], counter: Record, wire: Wiretap) -> None:
    for attempt in todos.records.edit("counter"):
        with attempt:
            pass

    assert wire.said == ["GET"]


def test_the_block_runs_again_on_what_somebody_else_made(todos: Collection[Record], counter: Record) -> None:
    seen: list[int] = []
    for attempt in todos.records.edit("counter"):
        with attempt as one:
            seen.append(one.data["n"])
            if attempt.number < 3:
                interfere(todos)
            one.data["n"] += 1

    assert seen == [0, 10, 20]
    assert todos.records.get("counter").data["n"] == 21


def test_what_the_block_deletes_is_not_saved(todos: Collection[Record], counter: Record, wire: Wiretap) -> None:
    for attempt in todos.records.edit("counter"):
        with attempt as one:
            one.delete()

    assert [said.split()[0] for said in wire.said] == ["GET", "DELETE"]
    assert attempt.is_done


def test_what_the_awaited_block_deletes_is_not_saved(todos: Collection[Record], counter: Record) -> None:
    async def edit() -> None:
        async for attempt in todos.records.edit("counter"):
            async with attempt as one:
                await one.adelete()

    asyncio.run(edit())

    assert todos.records.count() == 0


def test_permissions_are_known_and_can_be_edited(todos: Collection[Record], counter: Record) -> None:
    for attempt in todos.records.edit("counter"):
        with attempt as one:
            one.permissions.add("read", "account:eve")

    assert todos.records.get("counter").permissions["read"] == {"account:eve"}


@pytest.mark.parametrize("attempts", [1, 3])
def test_the_last_attempt_raises(attempts: int, todos: Collection[Record], counter: Record) -> None:
    numbers: list[int] = []

    def edit() -> None:
        for attempt in todos.records.edit("counter", attempts=attempts):
            with attempt as one:
                numbers.append(attempt.number)
                interfere(todos)
                one.data["n"] += 1

    with pytest.raises(ConflictError) as caught:
        edit()

    assert numbers == list(range(1, attempts + 1))
    assert caught.value.reload().data["n"] == 10 * attempts


def test_it_is_tried_five_times_at_most(todos: Collection[Record], counter: Record) -> None:
    editing = todos.records.edit("counter")

    assert editing.attempts == 5


def test_what_the_block_raises_is_not_saved_nor_tried_again(
    todos: Collection[Record], counter: Record, wire: Wiretap
) -> None:
    def edit() -> None:
        for attempt in todos.records.edit("counter"):
            with attempt as one:
                one.data["n"] += 1
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        edit()

    assert wire.said == ["GET"]


def test_a_loop_that_is_left_sends_nothing_more(todos: Collection[Record], counter: Record, wire: Wiretap) -> None:
    for _ in todos.records.edit("counter"):
        break

    assert wire.requests == []


def test_an_attempt_that_is_not_entered_is_a_mistake(todos: Collection[Record], counter: Record) -> None:
    def edit() -> None:
        for _ in todos.records.edit("counter"):
            pass

    with pytest.raises(UsageError, match="to be entered"):
        edit()


def test_what_is_not_there_is_not_edited(todos: Collection[Record], counter: Record) -> None:
    def edit(id: str) -> None:
        for attempt in todos.records.edit(id):
            with attempt as one:
                one.data["n"] = 1
                todos.records.get(id).delete()

    with pytest.raises(NotFoundError):
        edit("missing")
    with pytest.raises(NotFoundError):
        edit("counter")


@pytest.mark.parametrize(("id", "attempts"), [("a b", 1), ("counter", 0), ("counter", "5"), ("counter", True)])
def test_bad_arguments_are_refused_at_once(id: str, attempts: Any, todos: Collection[Record]) -> None:
    with pytest.raises((InvalidIdError, ValueError, TypeError)):
        todos.records.edit(id, attempts=attempts)


def test_a_unit_of_work_cannot_run_a_block_again(
    kinto_client: Client, todos: Collection[Record], counter: Record
) -> None:
    with kinto_client.unit_of_work(), pytest.raises(NotStageableError, match=r"edit\(\)"):
        next(iter(todos.records.edit("counter")))


def test_editing_is_awaited(todos: Collection[Record], counter: Record) -> None:
    async def edit() -> int:
        async for attempt in todos.records.edit("counter"):
            async with attempt as one:
                if attempt.number == 1:
                    interfere(todos)
                one.data["n"] += 1
        return attempt.number

    assert asyncio.run(edit()) == 2
    assert todos.records.get("counter").data["n"] == 11


def test_the_last_awaited_attempt_raises(todos: Collection[Record], counter: Record) -> None:
    async def edit() -> None:
        async for attempt in todos.records.edit("counter", attempts=1):
            async with attempt as one:
                interfere(todos)
                one.data["n"] += 1

    with pytest.raises(ConflictError):
        asyncio.run(edit())


def test_what_the_awaited_block_raises_is_not_saved(todos: Collection[Record], counter: Record, wire: Wiretap) -> None:
    async def edit() -> None:
        async for attempt in todos.records.edit("counter"):
            async with attempt:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(edit())

    assert wire.said == ["GET"]


def test_a_lost_answer_is_no_conflict(kinto_server: EmbeddedServer, todos: Collection[Record], counter: Record) -> None:
    client, adapter = lossy(kinto_server, bucket="payments")
    adapter.plan.append("lost after")

    for attempt in client.bucket("payments").collection("todos").records.edit("counter"):
        with attempt as one:
            one.data["n"] += 1

    assert attempt.number == 1
    assert todos.records.get("counter").data["n"] == 1
    client.close()
