"""The rows of files: each with its position, none lost, none misread."""

from __future__ import annotations

import csv
import io
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_orm import Client, Collection, DuplicateKeyError, InvalidValueError, Record
from kinto_orm.jobs.sources import read_csv, read_json, read_json_lines

memory = pytest.mark.parametrize("server", ["memory"], indirect=True)


class Color(Enum):
    RED = "red"


class Product(Record, bucket="payments", collection="todos"):
    name: str
    price: Decimal | None = None
    count: int = 0
    fresh: bool = False
    tags: list[str] = []  # noqa: RUF012 - pydantic copies it
    made: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    day: date | None = None
    color: Color | None = None
    size: Literal["s", "l"] = "s"
    level: Literal[1, 2] = 1


def table(text: str) -> list[tuple[int, Any]]:
    return list(read_csv(text.splitlines(keepends=True), "rows.csv", dict))


def test_each_line_of_json_lines_is_a_row_with_its_number() -> None:
    lines = ['{"id": "a"}\n', "\n", ' {"id": "b"} \r\n', '{"id": "c"}']

    assert list(read_json_lines(lines, "x")) == [(1, {"id": "a"}), (3, {"id": "b"}), (4, {"id": "c"})]


@pytest.mark.parametrize("line", ['{"id": ', "5", "[]", '{"id": NaN}', '"\ud800"'])
def test_a_line_that_is_no_object_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(InvalidValueError, match=r"^line 2 of rows\.jsonl is no"):
        list(read_json_lines(['{"id": "a"}\n', line], "rows.jsonl"))


@pytest.mark.parametrize("text", ['[{"id": "a"}]', '{"data": [{"id": "a"}], "timestamp": 5}'])
def test_a_json_document_is_a_list_or_what_kinto_answers(text: str) -> None:
    assert list(read_json(text, "x")) == [(1, {"id": "a"})]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1}', "holds no list"),
        ("5", "holds no list"),
        ("[", "is not JSON"),
        ("", "is not JSON"),
        ('[{"a": 1}, 5]', "row 2 of rows.json is no JSON object"),
    ],
)
def test_another_document_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidValueError, match=says):
        list(read_json(text, "rows.json"))


def test_cells_are_text_and_empty_ones_are_missing() -> None:
    assert table('id,n,name\na,1,"x ""y"""\n\nb,,\nc\n') == [
        (2, {"id": "a", "n": "1", "name": 'x "y"'}),
        (4, {"id": "b"}),
        (5, {"id": "c"}),
    ]


def test_a_row_is_counted_by_its_first_line() -> None:
    assert table('id,name\na,"one\r\ntwo"\nb,x\n') == [
        (2, {"id": "a", "name": "one\r\ntwo"}),
        (4, {"id": "b", "name": "x"}),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no header"),
        ("id,\na,b\n", "column 2 has no name"),
        ("id,n,n\n", "names 'n' twice"),
        ("id;n\na;1\n", "separated by ';': separate them by commas"),
        ("id\tn\na\t1\n", r"separated by '\\t'"),
        ("id,n\na,1\nb,1,2\n", "line 3 of rows.csv: it has 3 cells, the header has 2"),
        ('id\n"a\n', "line 2 of rows.csv: "),
        ('id\n"a"b\n', "line 2 of rows.csv: "),
        ('id,name\na,"x\nb,y\nc,z\n', "line 2 of rows.csv: unexpected end of data"),
        ('id,name\na,x\nb,"' + "y\n" * 70_000, r"line 3 of rows.csv: .*a quote is not closed.*csv\.field_size_limit"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidValueError, match=says):
        table(text)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))))
def test_any_text_comes_back_from_a_table(rows: list[dict[str, str]]) -> None:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["a", "b", "c"])
    writer.writeheader()
    writer.writerows(rows)
    file.seek(0)

    found = [row for _, row in read_csv(file, "x", dict)]
    assert found == rows


@memory
def test_the_model_reads_each_cell(kinto_client: Client, todos: Collection[Record], tmp_path: Path) -> None:
    file = tmp_path / "products.csv"
    file.write_text(
        "\ufeffid,name,price,count,fresh,tags,made,day,color,size,level,undeclared\n"
        'a,12,1.50,3,true,"[""x"", ""y""]","{""in"": ""it""}",2026-01-01,red,l,2,5\n'
        "b,true,,007,yes,,,,,,,\n"
    )

    kinto_client.bind(Product).records.sync(file)

    one, other = Product.records
    assert (one.name, one.price, one.count, one.fresh, one.tags) == ("12", Decimal("1.50"), 3, True, ["x", "y"])
    assert (one.made, one.day, one.color, one.size, one.level) == ({"in": "it"}, date(2026, 1, 1), Color.RED, "l", 2)
    assert one.data["undeclared"] == "5"
    assert (other.name, other.price, other.count, other.fresh) == ("true", None, 7, True)
    assert kinto_client.bind(Product).records.sync(file).unchanged == 2


@memory
def test_a_cell_that_does_not_fit_is_refused_with_its_line(
    kinto_client: Client, todos: Collection[Record], tmp_path: Path
) -> None:
    file = tmp_path / "products.csv"
    file.write_text("id,name,count\na,x,1\nb,y,many\n")

    with pytest.raises(InvalidValueError, match=r"line 3 of products\.csv: Product: count: "):
        kinto_client.bind(Product).records.sync(file)


@memory
def test_a_plain_record_keeps_text(todos: Collection[Record], tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id,n,list\na,1,[]\n")

    todos.records.sync(str(file))

    assert dict(todos.records.get("a").data) == {"n": "1", "list": "[]"}


@memory
def test_a_key_that_comes_twice_in_a_file_is_refused_with_both_lines(todos: Collection[Record], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "a"}\n\n{"id": "a"}\n')

    with pytest.raises(DuplicateKeyError, match=r"line 1 of rows\.jsonl and line 3 of rows\.jsonl"):
        todos.records.sync(file)


@memory
def test_a_file_of_another_kind_is_refused(todos: Collection[Record], tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"rows\.xlsx: rows are read from files that end in \.jsonl"):
        todos.records.sync(tmp_path / "rows.xlsx")
    with pytest.raises(FileNotFoundError):
        todos.records.sync(tmp_path / "rows.csv")
