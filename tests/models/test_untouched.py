"""Rows of a page: which of them are as they came, whatever was done to the others."""

# ruff: noqa: RUF012  # pydantic copies the defaults of its models

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, Self

import pytest
from pydantic import BaseModel, Field, model_validator
from wiretap import Wiretap, tap

from kinto_orm import BulkReport, Client, Collection, CommitError, Manager, Record

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


class Step(BaseModel):
    what: Any


class Todo(Record, bucket="payments", collection="todos"):
    title: str
    tags: list[Any] = []
    source: dict[str, Any] = {}
    steps: list[Step] = []
    labels: set[int] = set()
    times: list[datetime] = []


STORED: dict[str, Any] = {
    "title": "a",
    "tags": [1, ["x"], None],
    "source": {"app": "other", "versions": [1]},
    "steps": [{"what": 1}],
    "labels": [1, 2],
    "times": ["2024-01-01T12:00:00Z"],
}


@pytest.fixture
def wire(kinto_client: Client, todos: Collection[Record]) -> Wiretap:
    """What is sent once three records are there."""
    todos.records.bulk_create({**STORED, "id": id} for id in "abc")
    return tap(kinto_client)


def first(model: type[Any] = Todo) -> Any:
    """Return the first of the rows, as its page loads it."""
    return model.records.order_by("id").all()[0]


@pytest.mark.parametrize("model", [Todo, Record])
def test_rows_are_clean_and_not_sent(todos: Collection[Record], wire: Wiretap, model: type[Any]) -> None:
    records: Manager[Any] = todos.bucket.collection("todos").records if model is Record else model.records
    rows = records.all()
    seen: list[str] = []
    wire.requests.clear()

    assert not any(row.is_dirty for row in rows)
    report = records.bulk_update(rows, on_outcome=lambda outcome: seen.append(outcome.status))

    assert (report.unchanged, report.stored, seen) == (3, 3, ["unchanged"] * 3)
    assert not [request for request in wire.requests if request.is_write]


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda row: row.tags.append("b"), id="list"),
        pytest.param(lambda row: row.tags.__setitem__(0, True), id="True in the place of 1"),
        pytest.param(lambda row: row.tags[1].clear(), id="list in a list"),
        pytest.param(lambda row: row.source.update(app="mine"), id="mapping"),
        pytest.param(lambda row: row.source["versions"].append(2), id="list in a mapping"),
        pytest.param(lambda row: row.source["versions"].__setitem__(0, True), id="True deep inside"),
        pytest.param(lambda row: setattr(row.steps[0], "what", True), id="model"),
        pytest.param(lambda row: row.labels.add(3), id="set"),
        pytest.param(lambda row: row.data.update(extra=1), id="undeclared key"),
        pytest.param(lambda row: setattr(row, "title", "b"), id="field"),
        pytest.param(lambda row: setattr(row, "permissions", {"read": ["system.Everyone"]}), id="permissions"),
    ],
)
def test_an_edit_of_a_row_is_seen(wire: Wiretap, edit: Callable[[Any], object]) -> None:
    row = first()
    edit(row)

    assert row.is_dirty
    assert Todo.records.bulk_update([row]).updated == 1


class Checked(Todo):
    """A validator of the whole model may set any of its fields."""

    seen: Any = None

    @model_validator(mode="after")
    def _note(self) -> Self:
        self.__dict__["seen"] = [self.title]
        return self


class Prepared(Todo):
    """So may what pydantic calls when an object is there."""

    def model_post_init(self, context: Any, /) -> None:
        self.__dict__["title"] = self.title.upper()


class Node(BaseModel):
    below: list[Node] = []


class Loose(Record, bucket="payments", collection="todos"):
    """Fields whose schemas say less of what they hold, and one that refers to itself."""

    title: str | list[str]
    tags: Annotated[list[Any] | None, Field(alias="tags")] = None
    source: Any = {}
    tree: Node = Node()
    count: int | None = None


@pytest.mark.parametrize("model", [Checked, Prepared, Loose])
def test_an_edit_is_seen_whatever_the_fields_are_made_by(wire: Wiretap, model: type[Any]) -> None:
    clean, tagged, sourced = model.records.order_by("id").all()
    tagged.tags[1].append("y")
    sourced.source["versions"].append(2)

    assert [one.is_dirty for one in (clean, tagged, sourced)] == [False, True, True]
    assert model.records.bulk_update([clean, tagged, sourced]).updated == 2


def test_the_same_moment_in_another_time_zone_is_no_edit(wire: Wiretap) -> None:
    row = first()
    row.times[0] = NOON.astimezone(timezone(timedelta(hours=2)))

    assert not row.is_dirty


def test_an_edit_taken_back_leaves_the_row_clean(wire: Wiretap) -> None:
    row = first()
    row.tags.append("b")
    row.tags.pop()

    assert not row.is_dirty


def test_an_update_of_a_query_sends_what_changed(wire: Wiretap) -> None:
    report = Todo.records.order_by("id").update(lambda row: row.tags.append("b") if row.id == "b" else None)

    assert (report.updated, report.unchanged) == (1, 2)
    assert [row.tags[-1] for row in Todo.records.order_by("id")] == [None, "b", None]


def test_a_random_list_that_the_server_lacks_is_no_change(wire: Wiretap) -> None:
    class Job(Todo):
        tokens: list[object] = Field(default_factory=lambda: [str(id(object())), datetime.now(UTC).isoformat()])

    rows: list[Job] = Job.records.all()

    assert not any(row.is_dirty for row in rows)
    assert Job.records.bulk_update(rows).unchanged == 3


def test_a_row_beside_one_that_does_not_fit_is_looked_at_too(todos: Collection[Record], wire: Wiretap) -> None:
    todos.records.create(id="d", data={"title": ["no text"]})
    rows = Todo.records.filter(on_invalid="keep").order_by("id").all()
    rows[0].tags.append("b")

    assert [row.is_dirty for row in rows] == [True, False, False, False]


def test_a_row_of_another_list_is_refused(kinto_client: Client, wire: Wiretap) -> None:
    payments = kinto_client.bucket("payments")
    others = payments.collection("others").replace(safe=False).records

    with pytest.raises(CommitError, match="is not of /buckets/payments/collections/others/records"):
        others.bulk_update(payments.collection("todos").records.all())


def test_a_report_counts_rows_that_nobody_touched(wire: Wiretap) -> None:
    assert Todo.records.bulk_update(Todo.records.all()) == BulkReport(unchanged=3)
