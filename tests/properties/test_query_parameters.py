"""Any condition on any records: the server gives what the same condition, applied in Python, gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from kinto_orm import Client, Collection, F, InvalidFilterError, Record
from kinto_orm.mirror import Mirror
from kinto_orm.protocol.json_values import is_same
from kinto_orm.protocol.paths import Kind, draw_id

FIELDS = ("a", "b", "in_stock", "not_a")
Data = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """One condition, before it is written as an expression or as a keyword."""

    field: str
    operator: str
    value: Any
    is_keyword: bool = False


_text = st.text("aAb,\"'\\*_%.()[]{}^$|+-? 1éß日😀;&=#/<>", max_size=4)
_scalar = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1e22, 2**64 - 1, -(2**63)]) | _text
_value = _scalar | st.lists(_text, max_size=3) | st.dictionaries(st.just("key"), _text, max_size=1)
_records = st.lists(st.dictionaries(st.sampled_from(FIELDS), _value), min_size=1, max_size=8)
_operand = {
    "eq": _value,
    "not": _scalar,
    **dict.fromkeys(("gt", "min", "lt", "max"), _scalar),
    **dict.fromkeys(("in", "exclude"), st.lists(_scalar, max_size=3)),
    "like": _text,
    "has": st.booleans(),
    **dict.fromkeys(("contains", "contains_any"), st.lists(_text, min_size=1, max_size=2)),
}
_asked = st.one_of(
    *(
        st.builds(Asked, st.sampled_from(FIELDS), st.just(operator), value, st.booleans())
        for operator, value in _operand.items()
    )
)


def rank(value: Any) -> tuple[int, Any]:
    """Return the place of a value in PostgreSQL's order of jsonb, where an empty list is less than everything.

    Only values of one type are compared with each other.
    """
    if value == []:
        return -1, 0
    for place, types in enumerate(((type(None),), (str,), (int, float), (bool,), (list,), (dict,))):
        if type(value) in types:
            return place, 0 if value is None or place > 3 else value
    raise AssertionError(value)


def is_like(value: Any, pattern: str) -> bool:
    if "*" not in pattern:
        pattern = f"*{pattern}*"
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    return isinstance(value, str) and re.fullmatch(expression, value, re.IGNORECASE) is not None


MEETS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": is_same,
    "not": lambda value, operand: not is_same(value, operand),
    "gt": lambda value, operand: rank(value) > rank(operand),
    "min": lambda value, operand: rank(value) >= rank(operand),
    "lt": lambda value, operand: rank(value) < rank(operand),
    "max": lambda value, operand: rank(value) <= rank(operand),
    "in": lambda value, operand: any(is_same(value, one) for one in operand),
    "exclude": lambda value, operand: not any(is_same(value, one) for one in operand),
    "like": is_like,
    "has": lambda value, operand: bool(operand),
    "contains": lambda value, operand: isinstance(value, list) and set(operand) <= set(value),
    "contains_any": lambda value, operand: isinstance(value, list) and bool(set(operand) & set(value)),
}


def meets(data: Data, asked: Asked) -> bool:
    if asked.field in data:
        value = data[asked.field]
        # An expression ``<`` matches no null, which comes before all texts, numbers and booleans.
        is_bounded = not asked.is_keyword and asked.operator in ("lt", "max") and rank(asked.value)[0] in (1, 2, 3)
        is_inside = not is_bounded or rank(value)[0] == rank(asked.value)[0]
        return is_inside and MEETS[asked.operator](value, asked.value)
    if asked.operator == "has":
        return not asked.value
    # Kinto counts a missing field as greater than everything and different from everything.
    return asked.operator == "exclude" or (asked.is_keyword and asked.operator in ("gt", "min", "not"))


def meets_within_its_type(data: Data, asked: Asked) -> bool:
    """Where the server's one ``has_`` is taken, an expression ``>`` stays inside the type of its operand."""
    if asked.operator not in ("gt", "min") or asked.is_keyword:
        return meets(data, asked)
    return meets(data, asked) and rank(data[asked.field])[0] == rank(asked.value)[0]


def refine(query: Any, asked: Asked) -> Any:
    if asked.is_keyword:
        return query.filter(**{f"{asked.operator}_{asked.field}": asked.value})
    field = F(asked.field)
    if asked.operator == "eq":
        return query.filter(field == asked.value)
    if asked.operator.startswith("contains"):
        return query.filter(getattr(field, asked.operator)(*asked.value))
    name = asked.operator + "_" * (asked.operator in ("in", "not"))
    if asked.operator == "has":
        return query.filter(field.has(present=asked.value))
    return query.filter(getattr(field, name)(asked.value))


Fill = Callable[[Sequence[Data]], Collection[Record]]


@pytest.fixture(params=["server", "mirror"])
def fill(request: pytest.FixtureRequest, kinto_client: Client, tmp_path: Path) -> Iterator[Fill]:
    """Function that returns a new collection with these records, on the server or in a file."""
    mirror = Mirror(tmp_path / "mirror.sqlite", kinto_client) if request.param == "mirror" else None

    def fill(rows: Sequence[Data]) -> Collection[Record]:
        id = draw_id(Kind.COLLECTION)
        collection = Collection(bucket=kinto_client.bucket("default"), id=id, client=kinto_client).save()
        if mirror is not None:
            collection = mirror.collection(id, bucket="default", indexes=["a"])
        collection.records.bulk_create({"id": f"r{number}", **row} for number, row in enumerate(rows))
        return collection

    yield fill
    if mirror is not None:
        mirror.close()


@given(rows=_records, conditions=st.lists(_asked, min_size=1, max_size=3))
@example(rows=[{"a": 1}, {"a": 2}, {"a": 3}], conditions=[Asked("a", "not", 1), Asked("a", "not", 2)])
@example(rows=[{"a": 1, "b": 1}, {"a": 1}, {"b": 1}], conditions=[Asked("a", "gt", 0), Asked("b", "gt", 0)])
@example(rows=[{"a": "x,y"}, {"a": "x"}], conditions=[Asked("a", "in", ["x,y"])])
@example(rows=[{"a": "(["}, {"a": 1}, {}], conditions=[Asked("a", "like", "([")])
@example(
    rows=[{"b": None, "a": False}],
    conditions=[Asked("a", "not", None), Asked("a", "gt", 0, is_keyword=True), Asked("b", "min", None)],
)
@example(rows=[{"in_stock": [1]}, {"in_stock": "1"}], conditions=[Asked("in_stock", "eq", "1")])
def test_the_server_gives_what_the_condition_means(fill: Fill, rows: list[Data], conditions: list[Asked]) -> None:
    collection = fill(rows)
    query: Any = collection.records
    try:
        for one in conditions:
            query = refine(query, one)
    except InvalidFilterError:
        event("refused")
        return

    found = {one.id for one in query}

    at_most = {f"r{number}" for number, row in enumerate(rows) if all(meets(row, one) for one in conditions)}
    at_least = {
        f"r{number}" for number, row in enumerate(rows) if all(meets_within_its_type(row, one) for one in conditions)
    }
    assert at_least <= found <= at_most
    if len(conditions) == 1:
        assert found == at_most
    assert query.count() == len(found)
    assert query.delete(everything=True) == len(found)
    assert collection.records.count() == len(rows) - len(found)


@given(rows=_records, field=st.sampled_from(FIELDS), is_reversed=st.booleans())
def test_the_server_sorts_as_it_compares(fill: Fill, rows: list[Data], field: str, is_reversed: bool) -> None:
    rows = [{key: value for key, value in row.items() if not isinstance(value, (list, dict))} for row in rows]
    collection = fill(rows)

    ordered = collection.records.order_by(f"{'-' * is_reversed}{field}", "id").page_size(2).all()

    missing_last = [(6, 0) if field not in one.data else rank(one.data[field]) for one in ordered]
    assert missing_last == sorted(missing_last, reverse=is_reversed)
    assert len(ordered) == len({one.id for one in ordered}) == len(rows)


@given(rows=_records, skip=st.integers(0, 9), count=st.integers(0, 9), size=st.integers(1, 4))
def test_a_slice_of_a_query_is_a_slice_of_its_objects(
    fill: Fill, rows: list[Data], skip: int, count: int, size: int
) -> None:
    assume(rows)
    query = fill(rows).records.page_size(size)
    everything = [one.id for one in query]

    part = query[skip : skip + count]

    assert [one.id for one in part] == everything[skip : skip + count]
    assert part.count() == len(everything[skip : skip + count])
    assert [one.id for one in query[skip:].limit(count)] == everything[skip:][:count]
