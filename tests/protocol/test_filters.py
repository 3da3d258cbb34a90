"""Conditions: what the server is asked, and what is refused because it would be ignored or misread."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import Field

from kinto_orm import Client, Collection, F, InvalidFilterError, KintoError, Manager, Record
from kinto_orm.protocol.filters import (
    as_moment,
    check_field_name,
    condition,
    encode_conditions,
    parse_conditions,
    split_keyword,
)

Select = Callable[[Manager[Record]], Any]


class Product(Record):
    """A record with names that read like operators."""

    name: str = ""
    in_stock: bool = False
    due: datetime | None = Field(default=None, validation_alias="dueDate", serialization_alias="dueDate")


ROWS: dict[str, dict[str, Any]] = {
    "int": {"code": 123, "n": 1, "flag": True},
    "text": {"code": "123", "n": 2, "flag": "true", "tags": ["a", "b"]},
    "quoted": {"s": '"quoted"', "n": 3, "tags": ["b"]},
    "unquoted": {"s": "quoted", "n": 10},
    "comma": {"name": "a,b", "n": "x"},
    "a": {"name": "a", "flag": None},
    "b": {"name": "b", "in_stock": True},
    "unicode": {"name": "Zoë 日本 😀", "nested": {"x": {"y": 1}}},
    "percent": {"name": "50% off_(new).", "a-b": 1},
}


@pytest.fixture
def rows(todos: Collection[Record]) -> Manager[Record]:
    todos.records.bulk_create({"id": id, **data} for id, data in ROWS.items())
    return todos.records


def ids(query: Any) -> set[str]:
    return {one.id for one in query}


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        pytest.param(lambda r: r.filter(code="123"), {"text"}, id="F41 text"),
        pytest.param(lambda r: r.filter(code=123), {"int"}, id="F41 number"),
        pytest.param(lambda r: r.filter(flag="true"), {"text"}, id="F42 text"),
        pytest.param(lambda r: r.filter(flag=True), {"int"}, id="F42 boolean"),
        pytest.param(lambda r: r.filter(s='"quoted"'), {"quoted"}, id="F52 with quotes"),
        pytest.param(lambda r: r.filter(s="quoted"), {"unquoted"}, id="F52 without"),
        pytest.param(lambda r: r.filter(in_name=["a,b"]), {"comma"}, id="F46 comma"),
        pytest.param(lambda r: r.filter(in_name=["a", "b"]), {"a", "b"}, id="F46 two"),
        pytest.param(lambda r: r.filter(in_n=[1, 2]), {"int", "text"}, id="F45"),
        pytest.param(lambda r: r.filter(in_n=(n for n in (1, 2))), {"int", "text"}, id="F45 generator"),
        pytest.param(lambda r: r.filter(in_id=[]), set(), id="F44"),
    ],
)
def test_values_are_compared_exactly(rows: Manager[Record], select: Select, expected: set[str]) -> None:
    assert ids(select(rows)) == expected


def test_in_without_values_sends_nothing(todos: Collection[Record]) -> None:
    """F44."""
    requests: list[Any] = []
    client = Client("http://localhost:1", on_response=requests.append, retry=0)
    nothing = client.bucket("b").collection("c").records.filter(in_id=[])
    assert (nothing.all(), nothing.count(), nothing.exists(), nothing.first(), nothing.delete()) == (
        [],
        0,
        False,
        None,
        0,
    )
    assert (nothing.values("a"), list(nothing.pages()), nothing.get_many(["a"])) == ([], [], [])
    assert requests == []


def test_only_takes_names_not_lists_and_keeps_what_was_asked(rows: Manager[Record]) -> None:
    """F48."""
    assert {one.id: dict(one.data) for one in rows.only("n").filter(in_id=["int", "a"])} == {"int": {"n": 1}, "a": {}}
    assert [dict(one.data) for one in rows.filter(id="int", _fields="code,n")] == [{"code": 123, "n": 1}]
    assert [dict(one.data) for one in rows.filter(id="int", _fields=["n"])] == [{"n": 1}]


@pytest.mark.parametrize(
    "select",
    [
        pytest.param(lambda r: r.order_by("titel"), id="F49 sort"),
        pytest.param(lambda r: r.filter(titel="x"), id="F49 filter"),
        pytest.param(lambda r: r.filter(gt_titel=1), id="F49 operator"),
        pytest.param(lambda r: r.filter(_sort="-titel"), id="F49 native sort"),
        pytest.param(lambda r: r.only("titel"), id="F49 only"),
        pytest.param(lambda r: r.values("titel"), id="F49 values"),
        pytest.param(lambda r: r.exclude(titel=1), id="F49 exclude"),
    ],
)
def test_names_are_checked_against_the_model(kinto_client: Client, select: Select) -> None:
    kinto_client.clone(collection="todos")
    with kinto_client, pytest.raises(InvalidFilterError, match="has no field 'titel'"):
        select(Product.records)


def test_a_keyword_may_be_the_name_of_a_field(kinto_client: Client) -> None:
    with kinto_client:
        assert repr(Product.records.filter(due="x")) == repr(Product.records.filter(dueDate="x"))


@pytest.mark.parametrize(
    "as_given", [lambda t: t, str, lambda t: f'"{t}"', lambda t: _at(t)], ids=["int", "digits", "etag", "datetime"]
)
def test_since_takes_every_form_of_a_timestamp(rows: Manager[Record], as_given: Callable[[int], Any]) -> None:
    """F53."""
    moment = rows.get("unicode").last_modified
    assert moment is not None
    assert ids(rows.filter(_since=as_given(moment))) == {"percent"}
    assert "percent" not in ids(rows.filter(_before=as_given(moment)))


def _at(timestamp: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp)


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1), "yesterday", None, True, -1, 1.5])  # noqa: DTZ001
def test_a_moment_that_is_none_is_refused(rows: Manager[Record], moment: Any) -> None:
    """F53."""
    with pytest.raises(InvalidFilterError):
        rows.filter(_since=moment)


# -- operators --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        pytest.param({"gt_n": 2}, {"quoted", "unquoted"}, id="gt"),
        pytest.param({"min_n": 2}, {"text", "quoted", "unquoted"}, id="min"),
        pytest.param({"lt_n": 2}, {"int", "comma"}, id="lt"),
        pytest.param({"max_n": 2}, {"int", "text", "comma"}, id="max"),
        pytest.param({"not_n": 2}, {"int", "quoted", "unquoted", "comma"}, id="not"),
        pytest.param({"in_n": [1, "x"]}, {"int", "comma"}, id="in"),
        pytest.param({"exclude_n": [1, 2, 3]}, {"unquoted", "comma"}, id="exclude"),
        pytest.param({"like_name": "ZO*"}, {"unicode"}, id="like"),
        pytest.param({"like_name": "50% off_(new)."}, {"percent"}, id="like literally"),
        pytest.param({"like_name": "_"}, {"percent"}, id="like underscore"),
        pytest.param({"like_name": ","}, {"comma"}, id="like anywhere"),
        pytest.param({"like_id": "un*"}, {"unquoted", "unicode"}, id="like id"),
        pytest.param({"has_tags": True}, {"text", "quoted"}, id="has"),
        pytest.param({"contains_tags": ["a", "b"]}, {"text"}, id="contains"),
        pytest.param({"contains_any_tags": ["a", "b"]}, {"text", "quoted"}, id="contains_any"),
        pytest.param({"contains_tags": "b"}, {"text", "quoted"}, id="contains one"),
        pytest.param({"eq_n": 10}, {"unquoted"}, id="eq"),
        pytest.param({"gt_id": "t", "lt_id": "u"}, {"text"}, id="id range"),
        pytest.param({"not_id": "a", "in_id": ["a", "b"]}, {"b"}, id="two on one field"),
        pytest.param({"nested.x.y": 1}, {"unicode"}, id="nested"),
        pytest.param({"a-b": 1}, {"percent"}, id="dash"),
        pytest.param({"name": "Zoë 日本 😀"}, {"unicode"}, id="unicode"),
        pytest.param({"flag": None}, {"a"}, id="null"),
    ],
)
def test_every_operator_works_by_keyword(rows: Manager[Record], keywords: dict[str, Any], expected: set[str]) -> None:
    """On the rows that have the field: keywords go as Kinto has them."""
    missing = {id for id, data in ROWS.items() if not data.keys() & {name.rpartition("_")[2] for name in keywords}}
    found = ids(rows.filter(**keywords))
    assert found - missing == expected - missing
    assert expected <= found


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(F("n") == 1, {"int"}, id="eq"),
        pytest.param(F("n") != 1, {"text", "quoted", "unquoted", "comma"}, id="ne"),
        pytest.param(F("n").not_(1), {"text", "quoted", "unquoted", "comma"}, id="not"),
        pytest.param(F("n") > 2, {"quoted", "unquoted"}, id="gt"),
        pytest.param(F("n") >= 2, {"text", "quoted", "unquoted"}, id="min"),
        pytest.param(F("n") < 2, {"int"}, id="lt"),
        pytest.param(F("n") <= 2, {"int", "text"}, id="max"),
        pytest.param(F("n").in_([1, "x"]), {"int", "comma"}, id="in"),
        pytest.param(F("n").exclude([1, 2, 3, 10, "x"]), {"a", "b", "unicode", "percent"}, id="exclude"),
        pytest.param(F("name").like("a*"), {"comma", "a"}, id="like"),
        pytest.param(F("tags").has(), {"text", "quoted"}, id="has"),
        pytest.param(F("tags").has(present=False), {*ROWS} - {"text", "quoted"}, id="has not"),
        pytest.param(F("tags").contains("a", "b"), {"text"}, id="contains"),
        pytest.param(F("tags").contains_any("a", "b"), {"text", "quoted"}, id="contains_any"),
        pytest.param(F("name").contains("a"), set(), id="contains is not for text"),
        pytest.param(F("nested")["x"]["y"] == 1, {"unicode"}, id="nested"),
        pytest.param(F("id") > "text", {"unicode", "unquoted"}, id="id"),
        pytest.param(F("id").in_(["a", "zzz"]), {"a"}, id="id in"),
    ],
)
def test_every_operator_works_by_expression(rows: Manager[Record], one: Any, expected: set[str]) -> None:
    """Objects without the field are left out, except by exclude() and has(False)."""
    assert ids(rows.filter(one)) == expected


def test_several_conditions_on_one_field_are_all_honoured(rows: Manager[Record]) -> None:
    """Kinto makes one list of a name that comes twice."""
    assert ids(rows.filter(F("n") != 1, F("n") != 2)) == {"quoted", "unquoted", "comma"}
    assert ids(rows.filter(lt_n=3).filter(lt_n=2)) == ids(rows.filter(lt_n=2).filter(lt_n=3)) == {"int", "comma"}
    assert ids(rows.filter(in_id=["a", "b"]).filter(in_id=["b"])) == {"b"}
    assert ids(rows.filter(F("name").like("a*"), F("name").like("*b"))) == {"comma"}


def test_deleting_by_several_conditions_on_one_field_deletes_what_meets_all(rows: Manager[Record]) -> None:
    assert rows.filter(F("n") != 1, F("n") != 2).delete() == 3
    assert {"int", "text"} <= ids(rows)


def test_ranges_on_two_fields_leave_out_objects_without_either(rows: Manager[Record]) -> None:
    assert ids(rows.filter(F("n") > 0, F("code") > 100)) == {"int"}
    assert ids(rows.filter(F("n") != 1, F("code") >= "1")) == {"text"}
    assert ids(rows.filter(F("tags").has(), F("n") >= 3)) == {"quoted"}
    assert ids(rows.filter(F("tags").has(present=False), F("n") > 0)) == {"int", "unquoted"}


def test_what_only_postgresql_would_answer_right_is_refused(rows: Manager[Record]) -> None:
    with pytest.raises(InvalidFilterError, match="honours only the last of has_n and has_code"):
        rows.filter(F("n") != 1, F("code") != 1)
    with pytest.raises(InvalidFilterError, match="has_tags and has_n"):
        rows.filter(has_tags=True).filter(has_n=True)
    assert ids(rows.exclude(n=1, code="123")) == {*ROWS} - {"int", "text"}


def test_presence_is_not_asked_for_where_another_condition_proves_it() -> None:
    both = [condition("n", "gt", 1, needs_field=True), condition("n", "lt", 9)]
    assert encode_conditions(both) == [("gt_n", "1"), ("lt_n", "9")]


def test_a_field_that_reads_like_an_operator_is_a_field_where_it_is_declared(rows: Manager[Record]) -> None:
    parent = rows.get("b").collection
    products = parent.bucket.collection(type("Stock", (Product,), {"__module__": __name__}, collection=parent.id))
    assert ids(products.records.filter(in_stock=True)) == {"b"}
    assert ids(products.records.filter(F(Product.in_stock) == True)) == {"b"}  # noqa: E712
    assert ids(products.records.exclude(in_stock=True)) == {*ROWS} - {"b"}
    assert ids(rows.filter(F("in_stock") == True)) == {"b"}  # noqa: E712
    assert ids(rows.filter(eq_in_stock=True)) == {"b"}


def test_exclude_keeps_objects_without_the_field(rows: Manager[Record]) -> None:
    assert ids(rows.exclude(tags=["a", "b"], n=1)) == {*ROWS} - {"int"}
    assert ids(rows.exclude(id=["a", "b"])) == {*ROWS} - {"a", "b"}
    assert ids(rows.exclude(in_id={"a"})) == {*ROWS} - {"a"}
    assert ids(rows.exclude(F("n") == 1, F("name").in_(["a"]))) == {*ROWS} - {"int", "a"}
    assert ids(rows.exclude(id=[])) == {*ROWS}


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keywords",
    [
        pytest.param({"_typo": 1}, id="unknown native"),
        pytest.param({"_to": 1}, id="deprecated native"),
        pytest.param({"gt__x": 1}, id="underscore"),
        pytest.param({" _typo": 1}, id="space and underscore"),
        pytest.param({"n ": 1}, id="space behind"),
        pytest.param({"": 1}, id="empty"),
        pytest.param({"n__gte": 1}, id="django gte"),
        pytest.param({"name__contains": "a"}, id="django contains"),
        pytest.param({"gt_a-b": 1}, id="dash with an operator"),
        pytest.param({"in_a-b": [1]}, id="dash with in"),
        pytest.param({"contains_any-x": ["a"]}, id="dash with contains"),
        pytest.param({"like_n": 1}, id="like a number"),
        pytest.param({"in_n": "abc"}, id="in text"),
        pytest.param({"in_n": 5}, id="in number"),
        pytest.param({"in_n": {"a": 1}}, id="in mapping"),
        pytest.param({"in_n": [[1]]}, id="in list of lists"),
        pytest.param({"has_n": 1}, id="has no boolean"),
        pytest.param({"has_last_modified": True}, id="has time"),
        pytest.param({"gt_n": [1]}, id="order by a list"),
        pytest.param({"min_n": {"a": 1}}, id="order by an object"),
        pytest.param({"id": 12}, id="id number"),
        pytest.param({"in_id": ["a", 1]}, id="in id number"),
        pytest.param({"contains_id": ["a"]}, id="contains id"),
        pytest.param({"in_last_modified": [1]}, id="in time"),
        pytest.param({"last_modified": 1.5}, id="time with a fraction"),
        pytest.param({"gt_last_modified": "soon"}, id="time as text"),
        pytest.param({"n": float("nan")}, id="nan"),
        pytest.param({"n": 2**70}, id="large integer"),
        pytest.param({"n": "a\0b"}, id="nul"),
        pytest.param({"n": object()}, id="object"),
        pytest.param({"n": datetime(2026, 1, 1)}, id="naive datetime"),  # noqa: DTZ001
        pytest.param({"_sort": ""}, id="empty sort"),
        pytest.param({"_sort": "a b"}, id="sort with a space"),
        pytest.param({"_fields": []}, id="no fields"),
        pytest.param({"_fields": "_x"}, id="underscored field"),
        pytest.param({"_limit": -1}, id="negative limit"),
    ],
)
def test_a_keyword_that_kinto_would_ignore_or_misread_is_refused(
    todos: Collection[Record], keywords: dict[str, Any]
) -> None:
    with pytest.raises(InvalidFilterError):
        todos.records.filter(**keywords)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: F("any_tags").contains("a"), id="contains on any_"),
        pytest.param(lambda: F("in_a-b") == 1, id="like a list operator"),
        pytest.param(lambda: F("a-b") > 1, id="dash with an operator"),
        pytest.param(lambda: F("n").in_("abc"), id="in text"),
        pytest.param(lambda: bool(F("n") == 1), id="truth"),
        pytest.param(lambda: (F("n") == 1) | (F("n") == 2), id="or"),
        pytest.param(lambda: (F("n") == 1) & (F("n") == 2), id="and"),
        pytest.param(lambda: ~(F("n") == 1), id="not"),
        pytest.param(lambda: 1 < F("n") < 3, id="chain"),
    ],
)
def test_an_expression_that_cannot_be_asked_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidFilterError):
        make()


@pytest.mark.parametrize(
    "refine",
    [
        pytest.param(lambda r: r.filter(True), id="not a condition"),
        pytest.param(lambda r: r.exclude(F("n") > 1), id="exclude by order"),
        pytest.param(lambda r: r.exclude(gt_n=1), id="exclude by an operator"),
        pytest.param(lambda r: r.exclude(n__gt=1), id="exclude by a look-up"),
        pytest.param(lambda r: r.exclude(_sort="n"), id="exclude by a native"),
        pytest.param(lambda r: r.exclude(True), id="exclude no condition"),
    ],
)
def test_a_refinement_that_cannot_be_asked_is_refused(todos: Collection[Record], refine: Select) -> None:
    with pytest.raises(InvalidFilterError):
        refine(todos.records)


# -- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "parameters"),
    [
        pytest.param({"a": 1, "has_b": True}, [("has_b", "true"), ("a", "1")], id="presence first"),
        pytest.param({"id": UUID(int=5)}, [("id", f'"{UUID(int=5)}"')], id="uuid"),
        pytest.param({"a": {"x": [1, None]}}, [("a", '{"x":[1,null]}')], id="object"),
        pytest.param({"exclude_a": []}, [], id="nothing excluded"),
        pytest.param({"in_a": ["", "x,y"]}, [("in_a", '"","x\\u002cy"')], id="list"),
        pytest.param({"a": datetime(2026, 1, 1, tzinfo=UTC)}, [("a", '"2026-01-01T00:00:00.000000Z"')], id="datetime"),
        pytest.param({"min_last_modified": '"5"'}, [("min_last_modified", "5")], id="etag"),
        pytest.param({"contains_a": {1}}, [("min_a", "[]"), ("contains_a", "[1]")], id="set"),
        pytest.param({"gt_in_a": 1}, [("gt_in_a", "1")], id="operator on an operator"),
        pytest.param({"contains_any_a": [1]}, [("min_a", "[]"), ("contains_any_a", "[1]")], id="contains any"),
    ],
)
def test_conditions_are_encoded_as_kinto_reads_them(
    keywords: dict[str, Any], parameters: list[tuple[str, str]]
) -> None:
    split = [(*split_keyword(name), value) for name, value in keywords.items()]

    assert encode_conditions(condition(field, operator, value) for operator, field, value in split) == parameters


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("a", "", {"x": [1, None]}),
        ("a.b", "not", "x,y"),
        ("in_stock", "", True),
        ("eq_a", "", 1),
        ("in_a", "gt", 1),
        ("a", "in", ["", "x,y", 1.5, None]),
        ("a", "exclude", ["x"]),
        ("a", "contains_any", [1]),
        ("any", "contains", ["é"]),
        ("a", "like", "x*"),
        ("a", "has", False),
        ("id", "min", "r1"),
        ("last_modified", "lt", 5),
        ("last_modified", "", 5),
    ],
)
def test_an_encoded_condition_is_read_as_it_was(field: str, operator: str, value: Any) -> None:
    given = condition(field, operator, value)

    assert given in parse_conditions(encode_conditions([given]))


def test_a_repeated_name_is_read_as_the_same_operator() -> None:
    given = [condition("n", "not", 1), condition("n", "not", 2), condition("n", "not", 3)]

    assert parse_conditions(encode_conditions(given)) == given


def test_parameters_of_pages_and_orders_are_no_conditions() -> None:
    parameters = [("_since", '"5"'), ("_before", '"9"'), ("_sort", "id"), ("_token", "x"), ("_limit", "1")]

    read = [(one.field, one.operator, one.value) for one in parse_conditions(parameters)]

    assert read == [("last_modified", "gt", 5), ("last_modified", "lt", 9)]


def test_the_same_condition_twice_is_sent_once() -> None:
    assert encode_conditions([condition("a", "", 1)] * 2) == [("a", "1")]


def test_field_names_that_kinto_would_drop_are_refused() -> None:
    assert check_field_name("a.b_c") == "a.b_c"
    for name in ("", "_a", "a-b", "a b", "a,b"):
        with pytest.raises(KintoError):
            check_field_name(name)


def test_a_moment_is_in_milliseconds() -> None:
    assert as_moment(datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=UTC), "_since") == 1500
