"""How Kinto understands the parameters of a list: the facts behind kinto_orm.protocol.filters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contract.conftest import Send

ROWS: dict[str, dict[str, Any]] = {
    "n1": {"n": 1, "a": 1},
    "n5": {"n": 5},
    "n10": {"n": 10, "a": 2},
    "none": {"n": None},
    "text": {"n": "x", "t": "50% off (new)"},
    "true": {"n": True, "t": "a.b"},
    "list": {"n": ["x", "y"], "t": "axb"},
    "object": {"n": {"x": 1}},
    "missing": {},
}


@pytest.fixture
def rows(send: Send, records: str) -> str:
    for id, data in ROWS.items():
        assert send("PUT", f"{records}/{id}", {"data": data}).status_code == 201
    return records


def ids(send: Send, target: str) -> set[str]:
    response = send("GET", target)
    assert response.status_code == 200, response.text
    return {row["id"] for row in response.json()["data"]}


def test_the_last_has_makes_the_memory_backend_forget_the_filters_before_it(
    send: Send, rows: str, is_memory: bool
) -> None:
    assert ids(send, f"{rows}?a=1&has_n=true") == ({*ROWS} - {"missing"} if is_memory else {"n1"})
    assert ids(send, f"{rows}?has_n=true&a=1") == {"n1"}


def test_of_two_has_the_memory_backend_honours_the_last(send: Send, rows: str, is_memory: bool) -> None:
    assert ids(send, f"{rows}?has_a=true&has_t=true") == ({"text", "true", "list"} if is_memory else set())


def test_a_missing_field_is_greater_than_all_and_different_from_all(send: Send, rows: str) -> None:
    assert ids(send, f"{rows}?gt_a=1") == {*ROWS} - {"n1"}
    assert ids(send, f"{rows}?not_a=1") == {*ROWS} - {"n1"}
    assert ids(send, f"{rows}?exclude_a=1,2") == {*ROWS} - {"n1", "n10"}
    assert ids(send, f"{rows}?lt_a=9") == {"n1", "n10"}


def test_values_are_ordered_by_their_type_first(send: Send, rows: str) -> None:
    assert ids(send, f'{rows}?lt_n=""') == {"none"}
    assert ids(send, f"{rows}?lt_n=-1.7976931348623157e%2B308") == {"none", "text"}
    assert ids(send, f"{rows}?lt_n=false") == {"none", "text", "n1", "n5", "n10"}
    assert ids(send, f"{rows}?min_n=false&max_n=true") == {"true"}


def test_an_empty_array_is_a_bound_that_every_array_passes(send: Send, rows: str, is_memory: bool) -> None:
    """On PostgreSQL everything passes it: there an empty array comes before null."""
    found = ids(send, f"{rows}?min_n=[]")
    assert {"list"} <= found
    assert ("text" in found) is not is_memory


def test_like_fails_on_the_memory_backend_where_a_value_is_no_text(send: Send, rows: str, is_memory: bool) -> None:
    assert send("GET", f"{rows}?like_n=x").status_code == (500 if is_memory else 200)
    assert ids(send, f'{rows}?min_n=""&lt_n=-1.7976931348623157e%2B308&like_n=x') == {"text"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("50\\%*", {"text"}, id="percent"),
        pytest.param("\\%", {"text"}, id="percent anywhere"),
        pytest.param("*\\(NEW\\)", {"text"}, id="brackets, ignoring case"),
        pytest.param("a\\.b", {"true"}, id="dot"),
        pytest.param("a\\_b", set(), id="underscore"),
        pytest.param("\\\\", set(), id="backslash at the end"),
        pytest.param("a*b", {"true", "list"}, id="star"),
    ],
)
def test_a_backslash_makes_a_character_of_a_pattern_literal(
    send: Send, rows: str, pattern: str, expected: set[str]
) -> None:
    only_text = 'min_t=""&lt_t=-1.7976931348623157e%2B308'
    value = json.dumps(pattern).replace("%", "%25")
    assert ids(send, f"{rows}?{only_text}&like_t={value}") == expected


def test_unescaped_patterns_mean_different_things_on_each_backend(send: Send, rows: str, is_memory: bool) -> None:
    only_text = 'min_t=""&lt_t=-1.7976931348623157e%2B308'
    assert ids(send, f'{rows}?{only_text}&like_t="a.b"') == ({"true", "list"} if is_memory else {"true"})
    assert ids(send, f'{rows}?{only_text}&like_t="a_b"') == (set() if is_memory else {"true", "list"})


def test_a_name_that_comes_twice_is_compared_with_a_list(send: Send, rows: str) -> None:
    assert ids(send, f"{rows}?not_n=1&not_n=5") == {*ROWS}
    assert {"n5", "n10"} <= ids(send, f"{rows}?lt_n=4&lt_n=3")


def test_spaces_behind_a_name_tell_conditions_apart(send: Send, rows: str) -> None:
    assert ids(send, f"{rows}?not_n=1&not_n%20=5&not_n%20%20=10") == {*ROWS} - {"n1", "n5", "n10"}
    assert ids(send, f"{rows}?min_n=1&lt_n=false&lt_n%20=6") == {"n1", "n5"}
    assert ids(send, f'{rows}?id="n1"&id%20="n5"') == set()


def test_a_name_with_spaces_is_stripped_also_down_to_one_that_is_ignored(send: Send, rows: str) -> None:
    assert ids(send, f"{rows}?%20a=1") == {"n1"}
    assert ids(send, f"{rows}?%20_unknown=1") == {*ROWS}


def test_unknown_parameters_with_an_underscore_are_ignored(send: Send, rows: str) -> None:
    assert ids(send, f"{rows}?_unknown=1") == {*ROWS}


def test_eq_is_an_operator_that_allows_for_names_like_operators(send: Send, rows: str) -> None:
    send("PUT", f"{rows}/stocked", {"data": {"in_stock": True, "contains_nuts": "no"}})
    assert ids(send, f"{rows}?eq_in_stock=true") == {"stocked"}
    assert ids(send, f'{rows}?eq_contains_nuts="no"') == {"stocked"}
    assert ids(send, f"{rows}?in_stock=true") == set()


def test_contains_before_any_is_another_operator(send: Send, rows: str) -> None:
    send("PUT", f"{rows}/any", {"data": {"any_tags": ["x"], "tags": []}})
    assert ids(send, f'{rows}?contains_any_tags=["x"]') == set()
    assert ids(send, f'{rows}?contains_any_any_tags=["x"]') == {"any"}


def test_a_name_like_a_list_operator_has_its_value_taken_for_a_list(send: Send, rows: str) -> None:
    send("PUT", f"{rows}/dashed", {"data": {"in_a-b": 1, "gt_a-b": 1}})
    assert ids(send, f"{rows}?gt_a-b=1") == {"dashed"}
    assert ids(send, f"{rows}?in_a-b=1") == set()


def test_a_list_is_split_at_every_comma_that_is_not_escaped(send: Send, rows: str) -> None:
    send("PUT", f"{rows}/comma", {"data": {"s": "a,b"}})
    assert ids(send, f'{rows}?in_s="a\\u002cb"') == {"comma"}
    assert ids(send, f'{rows}?in_s="a,b"') == set()


def test_values_are_json_and_else_text(send: Send, rows: str) -> None:
    send("PUT", f"{rows}/digits", {"data": {"n": "5"}})
    assert ids(send, f"{rows}?n=5") == {"n5"}
    assert ids(send, f'{rows}?n="5"') == {"digits"}
    assert ids(send, f"{rows}?n=x") == {"text"}
    assert ids(send, f'{rows}?n={{"x":1}}') == {"object"}


def test_contains_looks_for_letters_in_text_on_the_memory_backend(send: Send, rows: str, is_memory: bool) -> None:
    assert ids(send, f'{rows}?contains_n=["x"]') == ({"list", "text", "object"} if is_memory else {"list"})
    assert ids(send, f'{rows}?min_n=[]&contains_n=["x"]') == ({"list", "object"} if is_memory else {"list"})


@pytest.mark.parametrize("operator", ["has", "in", "exclude", "like", "contains", "contains_any"])
def test_most_operators_are_refused_on_the_time_of_change(send: Send, rows: str, operator: str) -> None:
    value = "true" if operator == "has" else "1"
    assert send("GET", f"{rows}?{operator}_last_modified={value}").status_code == 400


def test_a_condition_on_the_time_of_change_brings_tombstones(send: Send, rows: str) -> None:
    send("DELETE", f"{rows}/n1")
    assert "n1" in ids(send, f"{rows}?gt_last_modified=0")
    assert "n1" in ids(send, f'{rows}?_since="0"')
    assert "n1" not in ids(send, f"{rows}?gt_last_modified=0&not_deleted=true")
    assert send("HEAD", f"{rows}?gt_last_modified=0").headers["Total-Objects"] == str(len(ROWS) - 1)


def test_has_after_since_makes_the_memory_backend_forget_it(send: Send, rows: str, is_memory: bool) -> None:
    now = send("HEAD", rows).headers["ETag"]
    assert ids(send, f"{rows}?has_a=true&_since={now}") == set()
    assert bool(ids(send, f"{rows}?_since={now}&has_a=true")) is is_memory
