"""Queries as tables of Arrow and frames of pandas and polars: every key of every page, with the types of the model."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, Json, computed_field

from kinto_orm import Bucket, Client, Collection, InvalidValueError, MissingExtraError, Record, UsageError
from kinto_orm.server import EmbeddedServer, ServerThread

pa = pytest.importorskip("pyarrow")
pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")


class Colour(Enum):
    RED = "red"


class Deep(BaseModel):
    x: int
    when: datetime | None = None


class Tree(BaseModel):
    branches: list[Tree] = []


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    x: int = 1


class Todo(Record):
    title: str
    done: bool = False
    n: int | None = None
    f: float = 0.0
    due: datetime | None = Field(default=None, validation_alias="dueDate", serialization_alias="dueDate")
    day: date | None = None
    tags: list[str] = []  # noqa: RUF012 - pydantic copies it
    deep: Deep | None = None
    deeps: list[Deep] = []  # noqa: RUF012 - pydantic copies it
    colour: Colour = Colour.RED
    letter: Literal["a", "b"] = "a"
    key: UUID | None = None
    anything: Any = None
    either: int | str = 1
    numbers: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it
    pair: tuple[int, str] = (1, "a")
    tree: Tree = Tree()
    open: Open = Open()


class Here(Todo, collection="todos"):
    pass


STAMP = pa.timestamp("us", "UTC")
DEEP = pa.struct([("x", pa.int64()), ("when", STAMP)])
TYPES = {
    "id": pa.string(),
    "last_modified": pa.int64(),
    "title": pa.string(),
    "done": pa.bool_(),
    "n": pa.int64(),
    "f": pa.float64(),
    "dueDate": STAMP,
    "day": pa.date32(),
    "tags": pa.list_(pa.string()),
    "deep": DEEP,
    "deeps": pa.list_(DEEP),
    "colour": pa.string(),
    "letter": pa.string(),
    "key": pa.string(),
    "anything": pa.string(),
    "either": pa.string(),
    "numbers": pa.string(),
    "pair": pa.string(),
    "tree": pa.string(),
    "open": pa.string(),
    "_undeclared": pa.string(),
}
ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def typed(todos: Collection[Record]) -> Collection[Todo]:
    """The collection, as one of todos."""
    return todos.bucket.collection(Here)


def fill(todos: Collection[Any], *rows: dict[str, Any]) -> None:
    todos.bucket.collection("todos").records.bulk_create({"id": f"r{n}", **row} for n, row in enumerate(rows))


def test_the_types_are_those_of_the_model(typed: Collection[Todo]) -> None:
    table = typed.records.to_arrow()

    assert [(one.name, one.type) for one in table.schema] == list(TYPES.items())
    assert table.num_rows == 0


def test_the_values_are_those_of_the_objects(typed: Collection[Todo]) -> None:
    deep = {"x": 1, "when": "2026-01-02T13:00:00+01:00"}
    whole = {"title": "a", "n": 2**60, "dueDate": "2026-01-02T12:00:00Z", "day": "2026-01-02", "tags": ["x"]}
    others = {"deep": deep, "deeps": [deep], "anything": {"k": [1]}, "either": "x", "numbers": {"a": 1}, "f": 2}
    fill(typed, {**whole, **others, "extra": [1], "open": {"y": 2}}, {"title": "b"})

    rows = typed.records.page_size(1).to_arrow().to_pylist()

    assert rows[0] | {"last_modified": 0} == {
        "id": "r0",
        "last_modified": 0,
        "title": "a",
        "done": False,
        "n": 2**60,
        "f": 2.0,
        "dueDate": NOON,
        "day": date(2026, 1, 2),
        "tags": ["x"],
        "deep": {"x": 1, "when": NOON},
        "deeps": [{"x": 1, "when": NOON}],
        "colour": "red",
        "letter": "a",
        "key": None,
        "anything": '{"k":[1]}',
        "either": '"x"',
        "numbers": '{"a":1}',
        "pair": '[1,"a"]',
        "tree": '{"branches":[]}',
        "open": '{"x":1,"y":2}',
        "_undeclared": '{"extra":[1]}',
    }
    assert (rows[1]["id"], rows[1]["n"], rows[1]["tags"], rows[1]["_undeclared"]) == ("r1", None, [], None)


def test_pandas_keeps_whole_numbers_whole(typed: Collection[Todo]) -> None:
    fill(typed, {"title": "a", "n": 2**60 + 1, "dueDate": "2026-01-02T12:00:00Z"}, {"title": "b"})

    frame = typed.records.to_pandas()

    assert [str(frame[name].dtype) for name in ("n", "done", "f", "dueDate")] == [
        *("Int64", "boolean", "float64", "datetime64[us, UTC]")
    ]
    assert frame["n"][0] == 2**60 + 1
    assert frame["n"].isna().tolist() == [False, True]
    assert str(frame["tags"].dtype) == "list<item: string>[pyarrow]"


def test_polars_has_the_same(typed: Collection[Todo]) -> None:
    fill(typed, {"title": "a", "n": 2**60 + 1}, {"title": "b"})

    frame = typed.records.to_polars()

    assert frame["n"].to_list() == [2**60 + 1, None]
    assert (frame.schema["done"], frame.schema["dueDate"]) == (polars.Boolean, polars.Datetime("us", "UTC"))


def test_they_are_awaited(typed: Collection[Todo]) -> None:
    fill(typed, {"title": "a"})

    async def read() -> list[Any]:
        query = typed.records
        return [await query.ato_arrow(), await query.ato_pandas(), await query.ato_polars()]

    assert [next(iter(frame["title"])) for frame in asyncio.run(read())[1:]] == ["a", "a"]


def test_only_gives_the_columns_that_are_asked_for(typed: Collection[Todo]) -> None:
    fill(typed, {"title": "a", "n": 1, "extra": {"y": 1}, "deep": {"x": 3}}, {"title": "b"})

    table = typed.records.only("id", "n", "deep.x").to_arrow()

    assert table.drop_columns("last_modified").to_pylist() == [
        {"id": "r0", "n": 1, "deep": {"x": 3, "when": None}},
        {"id": "r1", "n": None, "deep": None},
    ]


def test_an_undeclared_key_that_is_asked_for_is_among_the_undeclared(payments: Bucket) -> None:
    payments.groups.bulk_create([{"id": "g", "members": ["a"], "extra": {"y": 1}, "more": 2}, {"id": "h"}])

    table = payments.groups.only("members", "extra").to_arrow().drop_columns("last_modified")

    assert table.to_pylist() == [
        {"id": "g", "members": ["a"], "_undeclared": '{"extra":{"y":1}}'},
        {"id": "h", "members": [], "_undeclared": None},
    ]


def test_a_part_is_read_as_leniently_as_the_whole(typed: Collection[Todo]) -> None:
    fill(typed, {"title": "a", "n": "5"})

    assert typed.records.only("n").to_arrow()["n"] == typed.records.to_arrow()["n"]


def test_a_part_has_the_defaults_of_the_whole(typed: Collection[Todo]) -> None:
    fill(typed, {"title": "a"}, {"title": "b", "done": True, "tags": ["x"]})

    whole, part = typed.records.to_arrow(), typed.records.only("done", "tags", "n").to_arrow()

    assert part.drop_columns("last_modified") == whole.select(["id", "done", "n", "tags"])


def test_k14_what_is_stored_has_a_column_and_what_is_computed_has_none(todos: Collection[Record]) -> None:
    class Odd(Record):
        kept: int = Field(default=1, exclude=True)

        @computed_field
        @property
        def double(self) -> int:
            return 2 * self.kept

    fill(todos, {"kept": 5}, {"double": 7})

    table = Collection(bucket=todos.bucket, id="todos", model=Odd).records.to_arrow().drop_columns("last_modified")

    assert table.to_pylist() == [
        {"id": "r0", "kept": "5", "_undeclared": None},
        {"id": "r1", "kept": None, "_undeclared": '{"double":7}'},
    ]


def test_a_field_of_json_text_is_a_column_of_text(todos: Collection[Record]) -> None:
    class Inner(BaseModel):
        payload: Json[dict[str, int]]

    class Odd(Record):
        payload: Json[list[int]] | None = None
        inner: Inner | None = None

    fill(todos, {"payload": "[1, 2]"}, {"inner": {"payload": '{"n": 1}'}})

    table = Collection(bucket=todos.bucket, id="todos", model=Odd).records.only("payload", "inner").to_arrow()

    assert table.column("payload").to_pylist() == ["[1,2]", None]
    assert table.column("inner").to_pylist() == [None, {"payload": '{"n":1}'}]


@pytest.mark.parametrize("is_typed", [True, False], ids=["typed", "plain"])
def test_k14_each_row_of_what_changed_says_whether_it_was_deleted(typed: Collection[Todo], *, is_typed: bool) -> None:
    fill(typed, {"title": "a"}, {"title": "b"})
    typed.records.get("r0").delete()
    records: Any = typed.records if is_typed else typed.bucket.collection(typed.id or "").records

    table = records.since(0).to_arrow().select(["id", "title", "deleted"])

    assert table.to_pylist() == [
        {"id": "r0", "title": None, "deleted": True},
        {"id": "r1", "title": "b", "deleted": False},
    ]
    assert records.since(records.timestamp()).to_arrow().column_names.count("deleted") == 1
    assert "deleted" not in records.to_arrow().column_names


def test_rows_that_do_not_fit_are_kept_as_they_are_or_an_error(typed: Collection[Todo]) -> None:
    fill(typed, {"title": "a"}, {"title": 7})

    kept = typed.records.filter(on_invalid="keep").to_arrow().select(["id", "title", "_undeclared"]).to_pylist()
    skipped = typed.records.filter(on_invalid="skip").to_arrow().num_rows

    assert kept[1] == {"id": "r1", "title": None, "_undeclared": '{"title":7}'}
    assert skipped == 1
    with pytest.raises(InvalidValueError, match="does not fit Here"):
        typed.records.to_arrow()


@pytest.mark.parametrize("row", [{"n": 2**63}, {"dueDate": "2026-01-02T12:00:00"}])  # it has no timezone
def test_a_value_that_its_column_cannot_hold_is_an_error(typed: Collection[Todo], row: dict[str, Any]) -> None:
    fill(typed, {"title": "a", **row})

    with pytest.raises(InvalidValueError, match=f"The column {next(iter(row))!r} is of type"):
        typed.records.to_arrow()


def test_a_partition_that_was_pickled_is_read_as_a_table(kinto_server: EmbeddedServer, typed: Collection[Todo]) -> None:
    fill(typed, {"title": "a"}, {"title": "b"})
    with (
        ServerThread(kinto_server) as thread,
        Client(thread.url, auth=("user", "embedded"), bucket="payments") as client,
    ):
        parts = client.bucket("payments").collection(Here).records.partitions(2)

        first, second = pickle.loads(pickle.dumps(parts))

        tables = [first.on(client).to_arrow(), second.on(lambda: client).to_arrow()]
        client.close()
    assert pa.concat_tables(tables) == typed.records.to_arrow()


def test_the_tables_of_all_partitions_have_one_schema(typed: Collection[Todo]) -> None:
    fill(typed, *({"title": str(n), "n": n or None} for n in range(4)))

    tables = [part.to_arrow() for part in typed.records.partitions(2)]

    assert pa.concat_tables(tables)["title"].to_pylist() == ["0", "1", "2", "3"]
    assert [table.schema for table in tables] == [typed.records.to_arrow().schema] * 2


class TestWithoutAModel:
    """The columns are what is found."""

    def table(self, todos: Collection[Record], *rows: dict[str, Any]) -> dict[str, list[Any]]:
        fill(todos, *rows)
        found: dict[str, list[Any]] = (
            todos.records.page_size(1).to_arrow().drop_columns(["id", "last_modified"]).to_pydict()
        )
        assert found == todos.records.to_arrow().drop_columns(["id", "last_modified"]).to_pydict()
        return found

    def test_a_key_of_the_last_page_is_a_column(self, todos: Collection[Record]) -> None:
        assert self.table(todos, {}, {"a": 1}, {"b": "x", "a": 2}) == {"a": [None, 1, 2], "b": [None, None, "x"]}

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            pytest.param([1, 2.5], [1.0, 2.5], id="numbers"),
            pytest.param([None, 1], [None, 1], id="null first"),
            pytest.param([1, "a"], ["1", '"a"'], id="a number and a text"),
            pytest.param([True, 1], ["true", "1"], id="a truth and a number"),
            pytest.param([2**63, 1], [f"{2**63}", "1"], id="larger than Arrow's"),
            pytest.param([2**60 + 1, 1.5], [f"{2**60 + 1}", "1.5"], id="larger than a float's"),
            pytest.param([[1], ["a"]], ["[1]", '["a"]'], id="lists"),
            pytest.param([{"a": 1}, {"b": "x"}], [{"a": 1, "b": None}, {"a": None, "b": "x"}], id="objects"),
        ],
    )
    def test_the_type_is_one_that_holds_all(
        self, todos: Collection[Record], values: list[Any], expected: list[Any]
    ) -> None:
        assert self.table(todos, *({"v": value} for value in values)) == {"v": expected}

    def test_an_empty_collection_has_id_and_time(self, todos: Collection[Record]) -> None:
        assert todos.records.only("a").to_arrow().column_names == ["id", "last_modified", "a"]
        assert todos.records.to_pandas().columns.tolist() == ["id", "last_modified"]

    def test_what_only_asks_for_is_a_column_even_where_nobody_has_it(self, todos: Collection[Record]) -> None:
        fill(todos, {"a": 1, "b": 2})

        assert todos.records.only("a", "c").to_arrow().drop_columns("last_modified").to_pylist() == [
            {"id": "r0", "a": 1, "c": None}
        ]

    def test_buckets_have_columns_too(self, kinto_client: Client, todos: Collection[Record]) -> None:
        assert kinto_client.buckets.to_arrow()["id"].to_pylist() == ["payments"]
        assert "displayFields" in todos.bucket.collections.to_arrow().column_names


@pytest.mark.parametrize(
    ("missing", "ask", "extra"),
    [
        ("pyarrow", lambda query: query.to_arrow(), "arrow"),
        ("pyarrow", lambda query: query.to_pandas(), "pandas"),
        ("pyarrow", lambda query: query.to_polars(), "polars"),
        ("pandas", lambda query: query.to_pandas(), "pandas"),
        ("polars", lambda query: query.to_polars(), "polars"),
    ],
)
def test_without_the_extra_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, missing: str, ask: Callable[[Any], Any], extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    with Client("http://127.0.0.1:1/v1", collection="c"), pytest.raises(MissingExtraError, match=rf"\[{extra}\]"):
        ask(Record.records)


def test_a_field_without_a_schema_has_no_column(kinto_client: Client, todos: Collection[Record]) -> None:
    class Odd(Record):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        what: Callable[[], int] | None = None
        since: timedelta | None = None

    odd = Collection(bucket=todos.bucket, id="todos", model=Odd)

    with pytest.raises(UsageError, match="Odd has a field without a JSON schema"):
        odd.records.to_arrow()


def test_nobody_pays_for_what_nobody_uses() -> None:
    program = (
        "import sys, kinto_orm.dask; print(sorted({'dask', 'numpy', 'pandas', 'polars', 'pyarrow'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "[]"


def test_progress_of_a_table_is_told(todos: Collection[Record]) -> None:
    todos.records.bulk_create({"n": number} for number in range(5))
    told: list[Any] = []

    todos.records.page_size(2).to_arrow(progress=lambda *args: told.append(args))

    assert told == [(2, 5, "read records"), (4, 5, "read records"), (5, 5, "read records")]
