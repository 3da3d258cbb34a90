"""Without a cluster: what is refused before a worker is asked, and columns that are the same alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from dask_jobs import Todo, connect

from kinto_orm import Client, Collection, InvalidTypeError, MissingExtraError, NotStageableError, Record, UsageError
from kinto_orm import dask as kinto_dask

dask_bag = pytest.importorskip("dask.bag")
pytest.importorskip("distributed")


@pytest.mark.parametrize(
    ("missing", "ask"),
    [
        ("dask.bag", lambda todos: kinto_dask.bag(todos, 2)),
        ("dask.dataframe", lambda todos: kinto_dask.dataframe(todos, 2)),
        ("distributed", lambda todos: kinto_dask.bulk_update(None, todos)),
    ],
)
def test_without_the_extra_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, todos: Collection[Todo], missing: str, ask: Callable[[Any], Any]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(MissingExtraError, match=r"kinto-orm\[dask\]"):
        ask(todos.records)


def test_writing_needs_a_scheduler_that_knows_what_became_of_each_part(todos: Collection[Todo]) -> None:
    rows = dask_bag.from_sequence([{"id": "r", "n": 1}])

    with pytest.raises(UsageError, match=r"needs a distributed\.Client"):
        kinto_dask.bulk_create(rows, todos.records, client=connect)


def test_writing_is_no_part_of_a_unit_of_work(client: Client, todos: Collection[Todo]) -> None:
    rows = dask_bag.from_sequence([{"id": "r", "n": 1}])

    with client.unit_of_work(), pytest.raises(NotStageableError):
        kinto_dask.bulk_create(rows, todos.records, client=connect)


def test_a_list_is_no_bag(todos: Collection[Todo]) -> None:
    with pytest.raises(InvalidTypeError, match="takes a bag and where it belongs"):
        kinto_dask.bulk_create([{"id": "r"}], todos.records)
    with pytest.raises(InvalidTypeError, match="takes a bag and where it belongs"):
        kinto_dask.bulk_create(dask_bag.from_sequence([1]), todos)  # type: ignore[arg-type]  # it has records


def test_a_client_is_no_function_that_gives_one(client: Client, todos: Collection[Todo]) -> None:
    with pytest.raises(InvalidTypeError, match="credentials do not travel"):
        kinto_dask.bag(todos.records, 2, client=client)  # type: ignore[arg-type]  # users may


def test_a_frame_needs_a_model_with_fields(client: Client, todos: Collection[Todo]) -> None:
    with pytest.raises(UsageError, match="Only a model with declared fields"):
        kinto_dask.dataframe(Collection(bucket=todos.bucket, id="todos", model=Record).records, 2)


ROWS = [{"id": f"r{n}", "n": n, "a.n": n} for n in range(4)]


@pytest.mark.parametrize("column", ["n", "title", "_undeclared"])
def test_a_column_is_the_same_alone_and_with_the_others(client: Client, todos: Collection[Todo], column: str) -> None:
    todos.bucket.collection("todos").records.bulk_create(ROWS)
    frame = kinto_dask.dataframe(todos.records, 2, client=lambda: client)

    alone, whole = (one.compute(scheduler="threads") for one in (frame[[column]], frame))

    assert alone.equals(whole[[column]])
    assert not whole[column].isna().all()


def test_a_row_that_is_skipped_is_in_no_column(client: Client, todos: Collection[Todo]) -> None:
    todos.bucket.collection("todos").records.bulk_create([*ROWS, {"id": "s", "n": 7, "title": 8}])
    query = todos.records.filter(on_invalid="skip")

    frame = kinto_dask.dataframe(query, 2, client=lambda: client)

    assert frame["n"].sum().compute(scheduler="threads") == 6


@pytest.mark.parametrize(("column", "fields"), [("n", "n"), ("id", "id")])
def test_what_only_asks_for_is_narrowed_further(
    client: Client, todos: Collection[Todo], asked: list[str], column: str, fields: str
) -> None:
    todos.records.bulk_create({"id": f"r{n}", "n": n} for n in range(4))
    frame = kinto_dask.dataframe(todos.records.only("n", "done"), 1, client=lambda: client)
    asked.clear()

    frame[[column]].compute(scheduler="threads")

    assert ["_fields=" + fields in one for one in asked] == [True]


def test_other_schedulers_read_bags_too(client: Client, todos: Collection[Todo]) -> None:
    todos.records.bulk_create({"id": f"r{n}", "n": n} for n in range(4))

    bag = kinto_dask.bag(todos.records, 2, client=lambda: client)

    assert bag.map(lambda todo: todo.n).sum().compute(scheduler="threads") == 6
