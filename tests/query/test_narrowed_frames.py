"""Some columns of a table: the server is asked for them only where the others make no difference to them."""

from __future__ import annotations

from typing import Any, Self

import pytest
from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator
from wiretap import Wiretap, tap

from kinto_orm import Client, Collection, Query, Record, UsageError
from kinto_orm.query.frames import empty_table, read_columns

pytest.importorskip("pyarrow")


class Todo(Record, bucket="payments", collection="todos"):
    title: str = "a"
    n: int
    done: bool = False
    tags: list[str] = []  # noqa: RUF012 - pydantic copies it


class Checked(Todo, collection="todos"):
    @model_validator(mode="after")
    def double(self) -> Self:
        self.__dict__["n"] = 2 * self.n
        return self


class Compared(Todo, collection="todos"):
    done: bool = False

    @field_validator("n")
    @classmethod
    def as_title(cls, n: int, info: ValidationInfo) -> int:
        return n + len(info.data.get("title", ""))


class Dotted(Todo, collection="todos"):
    n: int = Field(validation_alias="a.n", serialization_alias="a.n")


class Renamed(Todo, collection="todos"):
    n: int = Field(validation_alias=AliasChoices("m", "n"), serialization_alias="m")


ROWS = [{"id": f"r{n}", "n": n, "a.n": n} for n in range(4)]


@pytest.fixture
def wire(kinto_client: Client, todos: Collection[Record]) -> Wiretap:
    """What is sent after four records were stored."""
    todos.records.bulk_create(ROWS)
    return tap(kinto_client)


def columns_of(query: Query[Any], *names: str) -> Any:
    place = query.__kinto_reading__().source.locate()
    return place.runner.run(read_columns(query.__kinto_reading__(), names, place))


@pytest.mark.parametrize(
    ("model", "column", "asked"),
    [
        pytest.param(Todo, "n", "_fields=n", id="declared"),
        pytest.param(Todo, "title", "_fields=title", id="default"),
        pytest.param(Todo, "id", "_fields=id", id="always there"),
        pytest.param(Todo, "_undeclared", None, id="undeclared"),
        pytest.param(Checked, "n", None, id="model validator"),
        pytest.param(Compared, "n", None, id="field validator"),
        pytest.param(Dotted, "a.n", None, id="dot"),
        pytest.param(Renamed, "m", None, id="choices"),
    ],
)
def test_a_column_is_the_same_alone_and_with_the_others(
    wire: Wiretap, todos: Collection[Record], model: type[Record], column: str, asked: str | None
) -> None:
    query = todos.bucket.collection(model).records

    alone = columns_of(query, column)
    said = wire.requests[-1].target

    assert alone == query.to_arrow().select([column])
    assert alone[column].null_count == 0
    assert ("_fields" in said) == (asked is not None)
    assert asked is None or f"{asked}&" in f"{said}&"


def test_rows_that_are_skipped_are_in_no_column(wire: Wiretap, todos: Collection[Record]) -> None:
    todos.records.create(id="s", data={"n": 7, "title": 8})

    found = columns_of(todos.bucket.collection(Todo).records.filter(on_invalid="skip"), "n")

    assert found["n"].to_pylist() == [0, 1, 2, 3]


def test_tombstones_are_rows_of_each_column(wire: Wiretap, todos: Collection[Record]) -> None:
    todos.records.filter(n=3).delete()

    found = columns_of(todos.bucket.collection(Todo).records.since(0), "n")

    assert sorted(found["n"].to_pylist(), key=str) == [0, 1, 2, None]


@pytest.mark.parametrize(("column", "asked"), [("n", "n"), ("id", "id")])
def test_what_only_asks_for_is_narrowed_further(
    wire: Wiretap, todos: Collection[Record], column: str, asked: str
) -> None:
    columns_of(todos.bucket.collection(Todo).records.only("n", "done"), column)

    assert f"_fields={asked}&" in f"{wire.requests[-1].target}&"


def test_an_empty_table_has_the_schema_of_a_full_one(wire: Wiretap, todos: Collection[Record]) -> None:
    query = todos.bucket.collection(Todo).records

    empty = empty_table(query.__kinto_reading__())

    assert wire.requests == []
    assert (empty.num_rows, empty.schema) == (0, query.to_arrow().schema)


def test_without_a_model_the_columns_are_not_known_before(todos: Collection[Record]) -> None:
    with pytest.raises(UsageError, match="Only a model with declared fields"):
        empty_table(todos.records.__kinto_reading__())
