"""The memory server selects, sorts and pages as the one on PostgreSQL does (O11)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest
import requests

from kinto_orm.server import EmbeddedServer

RECORDS = "/buckets/b/collections/c/records"
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.0, 1.5, 2, 10, 9, 1e20, 1e-7, 2**53 + 1),
    *(
        "",
        "0",
        "a",
        "A",
        "true",
        "null",
        "é",
        "É",
        "[1]",
        "10",
        "9",
        "50%",
        "a_b",
        "a\\b",
        "two\nlines",
        "\u0130",
        "\u03a3",
        "\u03c2",
    ),
    *([], [0], [False], [1], [1, 2], [2, 1], ["a"], [None], [[]], [[1, 2], "x"], [{"z": 1}]),
    *({}, {"z": 1}, {"z": True}, {"z": 1.0}, {"z": None}, {"z": {"y": 0}}, {"z": {"y": False}}, {"z": [0]}),
    *({"z": [False]}, {"z": "é", "y": 1}, {"b": 1, "aa": 2}, {"": 0}),
]
OBJECTS = {
    **{f"r{number:02}": {"f": value} for number, value in enumerate(VALUES)},
    "without": {"g": 1},
    "dotted": {"f.z": 1, "f": {"z": 2}},
    "alive": {"deleted": True, "f": 3},
}
COMPARISONS = ("", "not_", "lt_", "gt_", "min_", "max_", "contains_")
SOME = ("in_", "exclude_", "contains_any_", "contains_")
PATTERNS = (
    "a",
    "A",
    "%",
    "_",
    "1*",
    "*\\%",
    "*.*",
    "n_ll",
    "*: *",
    "é",
    "\\a*",
    "x",
    "\n",
    "[*",
    "1.5",
    "(",
    "\u03c3",
    "i",
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[requests.Session, requests.Session]]:
    """Fill two servers with the same records."""
    settings = {"paginate_by": 100, "userid_hmac_secret": "the same"}
    with (
        EmbeddedServer.memory(**settings) as memory,
        EmbeddedServer.postgres(tmp_path_factory.mktemp("pg") / "data", **settings) as postgres,
    ):
        yield filled(memory), filled(postgres)


def filled(server: EmbeddedServer) -> requests.Session:
    session = requests.Session()
    session.mount("http://kinto.test/", server.adapter())
    session.auth = ("a", "b")
    for path in ("/buckets/b", "/buckets/b/collections/c", *(f"{RECORDS}/{id}" for id in OBJECTS)):
        body = {"data": OBJECTS.get(path.rpartition("/")[2], {})}
        session.put(f"http://kinto.test/v1{path}", json=body).raise_for_status()
    return session


def ask(session: requests.Session, query: Mapping[str, str]) -> tuple[int, object, str | None]:
    """Return status, ids and count of the answer."""
    answer = session.get(f"http://kinto.test/v1{RECORDS}", params={"_sort": "id", **query})
    if not answer.ok:
        return answer.status_code, answer.json()["message"], None
    count = session.head(f"http://kinto.test/v1{RECORDS}", params=query).headers["Total-Objects"]
    return answer.status_code, [record["id"] for record in answer.json()["data"]], count


def assert_same(pair: tuple[requests.Session, requests.Session], queries: list[dict[str, str]]) -> None:
    differences = {}
    for query in queries:
        memory, postgres = (ask(session, query) for session in pair)
        if memory != postgres:
            differences[str(query)] = (memory, postgres)
    assert differences == {}


@pytest.mark.parametrize("field", ["f", "f.z"])
def test_o11_comparisons_select_the_same(pair: tuple[requests.Session, requests.Session], field: str) -> None:
    values = VALUES if field == "f" else [None, 0, 1, False, True, "1", [0], {"y": 0}]

    assert_same(pair, [{f"{name}{field}": json.dumps(value)} for name, value in product(COMPARISONS, values)])


def test_o11_lists_of_values_select_the_same(pair: tuple[requests.Session, requests.Session]) -> None:
    lists = [[value] for value in VALUES] + [[0, "a"], [True, [1]], [1, {"z": 1}], []]

    assert_same(pair, [{f"{name}f": json.dumps(each)} for name, each in product(SOME, lists)])


def test_o11_patterns_select_the_same(pair: tuple[requests.Session, requests.Session]) -> None:
    assert_same(pair, [{f"like_{field}": pattern} for field, pattern in product(("f", "f.z", "id"), PATTERNS)])


def test_o11_several_conditions_select_the_same(pair: tuple[requests.Session, requests.Session]) -> None:
    has = [{f"has_{field}": answer} for field, answer in product(("f", "f.z", "g", "f.z.y", "id"), ("true", "false"))]
    other = [
        {"g": "1"},
        {"g": "2"},
        {"not_g": "1"},
        {"f.z": "1"},
        {"deleted": "true"},
        {"in_id": "r01,r02"},
        {"id": "r01"},
        {"max_last_modified": json.dumps(str(time.time_ns() // 1_000_000))},
    ]

    assert_same(pair, [*has, *other, *({**one, **another} for one, another in product(has, other))])


@pytest.mark.parametrize("sort", ["f", "-f", "f.z", "-f.z", "g", "-g"])
def test_o11_pages_have_the_same_order(pair: tuple[requests.Session, requests.Session], sort: str) -> None:
    def read_pages(session: requests.Session) -> list[list[str]]:
        pages = []
        url = f"http://kinto.test/v1{RECORDS}?_sort={sort},id&_limit=7"
        while url:
            answer = session.get(url)
            if not answer.ok:  # Kinto does not page through arrays and objects
                pages.append([answer.json()["message"]])
                break
            pages.append([record["id"] for record in answer.json()["data"]])
            url = answer.headers.get("Next-Page", "")
        return pages

    memory, postgres = map(read_pages, pair)

    assert len(memory) > 1
    assert memory == postgres
