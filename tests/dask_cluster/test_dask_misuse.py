"""What can be refused before a worker is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from dask_jobs import Todo, connect

from kinto_orm import Client, Collection, InvalidTypeError, MissingExtraError, NotStageableError, Record, UsageError
from kinto_orm import dask as kinto_dask

dask = pytest.importorskip("dask")


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
    rows = dask.bag.from_sequence([{"id": "r", "n": 1}])

    with pytest.raises(UsageError, match=r"needs a distributed\.Client"):
        kinto_dask.bulk_create(rows, todos.records, client=connect)


def test_writing_is_no_part_of_a_unit_of_work(client: Client, todos: Collection[Todo]) -> None:
    rows = dask.bag.from_sequence([{"id": "r", "n": 1}])

    with client.unit_of_work(), pytest.raises(NotStageableError):
        kinto_dask.bulk_create(rows, todos.records, client=connect)


def test_a_list_is_no_bag(todos: Collection[Todo]) -> None:
    with pytest.raises(InvalidTypeError, match="takes a bag and where it belongs"):
        kinto_dask.bulk_create([{"id": "r"}], todos.records)
    with pytest.raises(InvalidTypeError, match="takes a bag and where it belongs"):
        kinto_dask.bulk_create(dask.bag.from_sequence([1]), todos)  # type: ignore[arg-type]  # it has records


def test_a_client_is_no_function_that_gives_one(client: Client, todos: Collection[Todo]) -> None:
    with pytest.raises(InvalidTypeError, match="credentials do not travel"):
        kinto_dask.bag(todos.records, 2, client=client)  # type: ignore[arg-type]  # users may


def test_a_frame_needs_a_model_with_fields(client: Client, todos: Collection[Todo]) -> None:
    with pytest.raises(UsageError, match="Only of a model with declared fields"):
        kinto_dask.dataframe(Collection(bucket=todos.bucket, id="todos", model=Record).records, 2)


def test_other_schedulers_read_too(client: Client, todos: Collection[Todo]) -> None:
    todos.records.bulk_create({"id": f"r{n}", "n": n} for n in range(4))

    bag, frame = (make(todos.records, 2, client=lambda: client) for make in (kinto_dask.bag, kinto_dask.dataframe))

    assert bag.map(lambda todo: todo.n).sum().compute(scheduler="threads") == 6
    assert frame["n"].sum().compute(scheduler="threads") == 6
