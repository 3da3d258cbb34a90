"""Queries as collections of Dask, on two worker processes: all records, their sum, and writes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from dask_jobs import (
    Elsewhere,
    Todo,
    change_first,
    connect,
    connect_dry,
    die,
    die_twice,
    finish,
    number,
    refuse,
    stumble,
    take_long,
    where,
)

from kinto_orm import Collection, CommitError, CredentialsMissingError
from kinto_orm import dask as kinto_dask
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.application import backends

dask = pytest.importorskip("dask")
dask_bag = pytest.importorskip("dask.bag")
pytest.importorskip("distributed")
cloudpickle = pytest.importorskip("cloudpickle")

MANY = int(os.environ.get("KINTO_ORM_DASK_RECORDS", "20000"))


@pytest.fixture
def four(todos: Collection[Todo]) -> Collection[Todo]:
    """Four records, of which n is 0 to 3."""
    todos.records.bulk_create({"id": f"r{n}", "n": n, "tags": ["x"] * n} for n in range(4))
    return todos


@pytest.mark.usefixtures("cluster")
def test_all_records_are_counted_and_summed_as_one_after_the_other(
    server: EmbeddedServer, todos: Collection[Todo]
) -> None:
    storage: Any = backends(server._app)[0]  # type: ignore[arg-type]  # a hundred times faster than by requests
    for n in range(MANY):
        storage.create("record", "/buckets/payments/collections/todos", {"id": f"{n * 7919 % MANY:06}", "n": n})
    query = todos.records.page_size(50_000)

    bag = kinto_dask.bag(query, 4, client=connect)
    count, total, workers = dask.compute(bag.count(), bag.map(number).sum(), bag.map_partitions(where))
    frame = kinto_dask.dataframe(query, 4, client=connect)
    frame_count, frame_total = dask.compute(frame["n"].count(), frame["n"].sum())

    expected = [todo.n for todo in query]
    assert (count, total) == (frame_count, frame_total) == (len(expected), sum(expected)) == (MANY, sum(range(MANY)))
    assert len(set(workers)) == 2
    assert os.getpid() not in workers


def interrupt_when(is_so: Callable[[], bool]) -> None:
    """Presses Ctrl-C."""
    deadline = time.monotonic() + 30
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # what was stored is reported
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("cluster")
class TestReading:
    def test_a_bag_holds_the_objects_in_their_order(self, four: Collection[Todo]) -> None:
        found = kinto_dask.bag(four.records.filter(Todo.n >= 1), 2, client=connect).compute()

        assert [(type(one), one.id, one.n, one.client) for one in found] == [
            (Todo, f"r{n}", n, None) for n in range(1, 4)
        ]

    def test_a_frame_is_that_of_pandas(self, four: Collection[Todo]) -> None:
        frame = kinto_dask.dataframe(four.records, 2, client=connect)

        found, expected = frame.compute().reset_index(drop=True), four.records.to_pandas()

        assert list(found.columns) == list(frame.columns) == list(expected.columns)
        assert found["tags"].tolist() == expected["tags"].tolist() == [["x"] * n for n in range(4)]
        assert found.fillna("").astype(object).equals(expected.fillna("").astype(object))

    def test_only_the_columns_that_are_used_are_asked_for(self, four: Collection[Todo], asked: list[str]) -> None:
        four.records.create(id="r5", data={"n": 5, "title": "b"})
        frame = kinto_dask.dataframe(four.records, 2, client=connect)
        asked.clear()

        total = frame["n"].sum().compute()

        assert total == 11
        assert len(asked) == 2
        assert all("_fields=n&" in f"{one}&" for one in asked)

    def test_what_changed_since_is_read_again(self, four: Collection[Todo]) -> None:
        before = [kinto_dask.bag(four.records, 2, client=connect).persist(), kinto_dask.dataframe(four.records, 2)]

        four.records.filter(n=3).update(n=10)

        assert kinto_dask.bag(four.records, 2, client=connect).map(number).sum().compute() == 13
        assert kinto_dask.dataframe(four.records, 2, client=connect)["n"].sum().compute() == 13
        assert before[0].map(number).sum().compute() == 6

    def test_nothing_that_is_sent_holds_a_secret(self, four: Collection[Todo], password: str) -> None:
        bag = kinto_dask.bag(four.records, 2, client=connect)
        frame = kinto_dask.dataframe(four.records, 2, client=connect)

        sent = cloudpickle.dumps((dict(bag.__dask_graph__()), dict(frame.__dask_graph__())))

        assert b"todos" in sent
        assert password.encode() not in sent

    def test_without_a_function_the_worker_has_no_credentials(self, four: Collection[Todo]) -> None:
        with pytest.raises(CredentialsMissingError):
            kinto_dask.bag(four.records, 2).compute()


@pytest.mark.usefixtures("cluster")
class TestWriting:
    def test_new_records_are_stored_by_the_workers(self, todos: Collection[Todo]) -> None:
        rows = dask_bag.from_sequence([{"id": f"r{n}", "n": n} for n in range(40)], npartitions=4)

        report = kinto_dask.bulk_create(rows, todos.records, client=connect)

        assert (report.created, report.stored, report.is_complete) == (40, 40, True)
        assert sum(todo.n for todo in todos.records) == sum(range(40))

    def test_changed_records_are_stored_and_others_not_sent(self, four: Collection[Todo]) -> None:
        four.records.filter(n=0).update(done=True)
        bag = kinto_dask.bag(four.records, 2, client=connect).map(finish)

        report = kinto_dask.bulk_update(bag, four.records, client=connect)

        assert (report.updated, report.unchanged) == (3, 1)
        assert [todo.done for todo in four.records] == [True] * 4

    def test_records_are_deleted(self, four: Collection[Todo]) -> None:
        bag = kinto_dask.bag(four.records.filter(Todo.n >= 2), 2, client=connect)

        report = kinto_dask.bulk_delete(bag, four.records, client=connect)

        assert report.deleted == 2
        assert four.records.count() == 2

    def test_conflicts_are_reported_and_all_others_stored(self, four: Collection[Todo]) -> None:
        bag = kinto_dask.bag(four.records, 2, client=connect).map(change_first)

        with pytest.raises(CommitError, match="failed for 1, stored for 3 objects, in 2 parts") as caught:
            kinto_dask.bulk_update(bag, four.records, client=connect)

        (outcome,) = caught.value.outcomes
        assert (outcome.object.id, outcome.status, outcome.error.theirs["title"]) == ("r0", "conflict", "theirs")
        assert [todo.done for todo in four.records] == [False, True, True, True]

    def test_what_a_dry_client_plans_is_counted_and_not_stored(self, four: Collection[Todo]) -> None:
        bag = kinto_dask.bag(four.records, 2, client=connect).map(finish)

        report = kinto_dask.bulk_update(bag, four.records, client=connect_dry)

        assert (report.planned, report.stored, report.is_complete) == (4, 0, True)
        assert not any(todo.done for todo in four.records)

    @pytest.mark.parametrize(
        ("change", "why"), [(stumble, "ZeroDivisionError: I cannot stand 3"), (die, "KilledWorker")]
    )
    def test_a_part_that_fails_takes_no_other_along(
        self, four: Collection[Todo], change: Callable[[Todo], Todo], why: str
    ) -> None:
        bag = kinto_dask.bag(four.records, 2, client=connect).map(change)

        with pytest.raises(CommitError, match=f"stored for 2 objects, in 2 parts. 1 stopped early: part 1: {why}"):
            kinto_dask.bulk_update(bag, four.records, client=connect)

        assert [todo.done for todo in four.records] == [True, True, False, False]

    def test_what_was_written_is_not_written_again_where_its_worker_dies(
        self, todos: Collection[Todo], asked: list[str], tmp_path: Path
    ) -> None:
        rows = dask_bag.from_sequence([{"id": f"r{n}", "n": n} for n in range(4)], npartitions=2)

        report = kinto_dask.bulk_create(rows.map(die_twice, folder=str(tmp_path)), todos.records, client=connect)

        assert len(list(tmp_path.iterdir())) == 2
        assert (report.created, report.failed, report.is_complete) == (4, [], True)
        assert sum(one.startswith("POST") for one in asked) == 2

    def test_an_interrupted_call_says_what_was_stored(
        self, four: Collection[Todo], tmp_path: Path, cluster: Any
    ) -> None:
        cluster.wait_for_workers(2, timeout=60)  # those that died in other tests come again
        bag = kinto_dask.bag(four.records, 2, client=connect).map(take_long, folder=str(tmp_path))
        Thread(target=interrupt_when, args=(lambda: four.records.filter(done=True).count() == 2,)).start()

        with pytest.raises(KeyboardInterrupt) as caught:
            kinto_dask.bulk_update(bag, four.records, client=connect)
        (tmp_path / "interrupted").touch()

        assert caught.value.__notes__[-1].startswith("1 of 2 parts were written before this, 2 objects stored")

    def test_without_credentials_nothing_is_written(self, four: Collection[Todo]) -> None:
        bag = kinto_dask.bag(four.records, 1, client=connect).map(finish)

        with pytest.raises(CommitError, match="part 0: LookupError: no credentials here"):
            kinto_dask.bulk_update(bag, four.records, client=refuse)

        assert not any(todo.done for todo in four.records)

    def test_where_the_server_cannot_be_reached_the_rest_is_not_tried(
        self, four: Collection[Todo], dead_url: str
    ) -> None:
        bag = kinto_dask.bag(four.records, 1, client=connect).map(finish)

        with pytest.raises(CommitError, match="part 0: ") as caught:
            kinto_dask.bulk_update(bag, four.records, client=Elsewhere(dead_url))

        assert "stored for 0" in str(caught.value)

    def test_a_new_record_needs_an_id(self, todos: Collection[Todo]) -> None:
        rows = dask_bag.from_sequence([{"n": 1}, {"id": "r", "n": 2}], npartitions=2)

        with pytest.raises(CommitError, match=r"stored for 1 objects.* part 0: InvalidValueError: .* has no id"):
            kinto_dask.bulk_create(rows, todos.records, client=connect)

        assert [todo.id for todo in todos.records] == ["r"]
