"""Pages, with literals: what is believed of an answer to a list."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from kinto_orm import KintoError, ProtocolError
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.paging import (
    RawPage,
    RawPages,
    check_progress,
    delete_pages,
    encode_query,
    list_timestamp,
    next_query,
    read_count,
    read_page,
    read_timestamp,
    rows_of,
)
from kinto_orm.protocol.paths import Kind, PluralPath
from kinto_orm.protocol.writes import Flow

T = TypeVar("T")
RECORDS = PluralPath(Kind.RECORD, ("b", "c"))
LIST = "/v1/buckets/b/collections/c/records"


def run(flow: Flow[T], *answers: Response) -> tuple[list[Request], T]:
    """Return the requests of the flow, given these answers, and its result."""
    asked: list[Request] = []
    queue = iter(answers)
    try:
        request = next(flow)
        while True:
            assert isinstance(request, Request)
            asked.append(request)
            request = flow.send(next(queue))
    except StopIteration as stop:
        return asked, stop.value


def page(*ids: str, **headers: str) -> Response:
    rows = ", ".join(f'{{"id": "{id}"}}' for id in ids)
    return Response(
        200, {name.replace("_", "-"): value for name, value in headers.items()}, f'{{"data": [{rows}]}}'.encode()
    )


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(f"http://localhost{LIST}?_token=x", id="ours"),
        pytest.param(f"http://evil.example{LIST}?_token=x", id="D01 other origin"),
        pytest.param(f"https://user:password@evil.example:99{LIST}?_token=x", id="D01 other scheme and user"),
        pytest.param(f"//evil.example{LIST}?_token=x", id="D01 no scheme"),
        pytest.param(f"{LIST}?_token=x", id="D03 relative"),
        pytest.param(f"http://localhost/prefix{LIST}?_token=x", id="behind a proxy"),
        pytest.param(f"http://localhost{LIST}?_token=x#fragment", id="fragment"),
        pytest.param("http://localhost/v1/buckets/%62/collections/%63/records?_token=x", id="percent-quoted"),
    ],
)
def test_of_next_page_only_the_query_is_used(header: str) -> None:
    assert next_query(Response(200, {"next-page": header}), RECORDS) == "_token=x"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("file:///etc/passwd?x", id="D04"),
        pytest.param("http://localhost/v1/buckets/b/collections/other/records?_token=x", id="other collection"),
        pytest.param("http://localhost/v1/buckets/b/collections/c?_token=x", id="object"),
        pytest.param("http://localhost/v1/buckets/b/collections/xc/records?_token=x", id="longer name"),
        pytest.param(f"http://localhost{LIST}", id="no query"),
        pytest.param("http://[?_token=x", id="no url"),
        pytest.param("?_token=x", id="query alone"),
        pytest.param("\x00", id="noise"),
    ],
)
def test_a_next_page_that_leads_elsewhere_is_an_error(header: str) -> None:
    with pytest.raises(ProtocolError, match="Next-Page"):
        next_query(Response(200, {"next-page": header}), RECORDS)


@pytest.mark.parametrize("headers", [{}, {"next-page": ""}])
def test_no_next_page_is_the_end(headers: dict[str, str]) -> None:
    assert next_query(Response(200, headers), RECORDS) is None


def test_the_default_bucket_may_answer_with_its_real_id() -> None:
    real = {"next-page": "http://h/v1/buckets/0d1c-real/collections?_token=x"}
    assert next_query(Response(200, real), PluralPath(Kind.COLLECTION, ("default",))) == "_token=x"
    assert (
        next_query(Response(200, {"next-page": "http://h/v1/buckets?_token=x"}), PluralPath(Kind.BUCKET)) == "_token=x"
    )


def test_a_page_that_was_there_before_is_an_error() -> None:
    """D02."""
    seen: set[str] = set()
    check_progress("_token=1", seen, RECORDS)
    check_progress("_token=2", seen, RECORDS)
    with pytest.raises(ProtocolError, match="circle"):
        check_progress("_token=1", seen, RECORDS)


def endless(count: int | None, *, may_hold_tombstones: bool = False) -> tuple[int, str]:
    """Read pages with ever new links, of a list with so many objects; return their number, and the last request."""
    pages = RawPages(RECORDS, "_sort=id", may_hold_tombstones=may_hold_tombstones)
    headers = {} if count is None else {"total-objects": str(count)}
    for number in range(3000):
        flow = pages.next()
        assert flow is not None
        request = next(flow)
        try:
            if request.method == "HEAD":
                flow.send(Response(200, headers))
            flow.send(page(f"r{number}", next_page=f"http://h{LIST}?_token={number}"))
        except StopIteration:
            pass
        except ProtocolError as error:
            return number, str(error)
    return 3000, ""


@pytest.mark.parametrize(("count", "most"), [(0, 999), (3, 999), (249, 999), (600, 1999)])
def test_o15_pages_without_end_are_an_error(count: int, most: int) -> None:
    message = f"have no end: these are {most + 1} pages of {count} objects"

    number, error = endless(count)

    assert number == most
    assert message in error


@pytest.mark.parametrize(("count", "tombstones"), [(None, False), (0, True), (2000, False)])
def test_o15_pages_that_may_have_an_end_are_read(count: int | None, tombstones: bool) -> None:
    """Without a count, with tombstones, which are not counted, or while other clients delete half of the list."""
    assert endless(count, may_hold_tombstones=tombstones) == (3000, "")


# -- timestamps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "timestamp"),
    [
        pytest.param({"etag": '"1795414778027"'}, 1795414778027, id="etag"),
        pytest.param({"etag": "1795414778027"}, 1795414778027, id="unquoted"),
        pytest.param({}, None, id="C23 none"),
        pytest.param({"etag": ""}, None, id="empty"),
        pytest.param({"etag": 'W/"12"'}, None, id="weak"),
        pytest.param({"etag": '"abc"'}, None, id="text"),
        pytest.param({"etag": '"-1"'}, None, id="negative"),
        pytest.param({"etag": '"' + "9" * 5000 + '"'}, None, id="thousands of digits"),
    ],
)
def test_the_timestamp_of_a_list_is_in_its_etag(headers: dict[str, str], timestamp: int | None) -> None:
    assert list_timestamp(Response(200, headers)) == timestamp
    assert run(read_timestamp(RECORDS), Response(200, headers)) == ([Request("HEAD", str(RECORDS))], timestamp)


# -- rows -------------------------------------------------------------------------------------------------------------


def test_rows_are_taken_as_they_are() -> None:
    assert rows_of({"data": [{"id": "a", "n": 1}]}, RECORDS) == [{"id": "a", "n": 1}]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="C06"),
        pytest.param([], id="list"),
        pytest.param(None, id="C05"),
        pytest.param({"data": {}}, id="object"),
        pytest.param({"data": None}, id="null"),
        pytest.param({"data": "abc"}, id="text"),
    ],
)
def test_what_holds_no_list_is_an_error(body: Any) -> None:
    with pytest.raises(ProtocolError, match="holds no list"):
        rows_of(body, RECORDS)


@pytest.mark.parametrize("row", [{"n": 1}, {"id": 5}, {"id": None}, [], "a", None])
def test_a_row_without_an_id_is_an_error_with_its_number(row: Any) -> None:
    """C07."""
    with pytest.raises(ProtocolError, match="Row 1 "):
        rows_of({"data": [{"id": "a"}, row]}, RECORDS)


# -- flows ------------------------------------------------------------------------------------------------------------


def test_a_page_keeps_the_bytes() -> None:
    answer = page("a", etag='"5"', next_page=f"http://h{LIST}?_token=x")
    asked, raw = run(read_page(RECORDS, "_limit=1"), answer)
    assert asked == [Request("GET", str(RECORDS), "_limit=1")]
    assert raw == RawPage(answer.body, 5, "_token=x")


@pytest.mark.parametrize("status", [204, 201, 304, 300, 302, 404, 500])
def test_another_status_than_200_is_no_page(status: int) -> None:
    """C08, C19, C21."""
    with pytest.raises(KintoError, match=str(status)):
        run(read_page(RECORDS, ""), Response(status))


@pytest.mark.parametrize("name", ["total-objects", "total-records"])
def test_the_count_is_in_a_header_of_head(name: str) -> None:
    assert run(read_count(RECORDS, "a=1"), Response(200, {name: "7"})) == ([Request("HEAD", str(RECORDS), "a=1")], 7)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"total-objects": "many"},
        {"total-objects": "-1"},
        {"total-objects": "9" * 5000},
        {"total-objects": ""},
        {"total-objects": "²"},
    ],
)
def test_an_answer_without_a_count_is_an_error(headers: dict[str, str]) -> None:
    with pytest.raises(ProtocolError, match="without a count"):
        run(read_count(RECORDS, ""), Response(200, headers))


@pytest.mark.parametrize("flow", [read_count(RECORDS, ""), read_timestamp(RECORDS), delete_pages(RECORDS, "a=1")])
def test_a_refusal_is_raised(flow: Flow[Any]) -> None:
    with pytest.raises(KintoError, match="403"):
        run(flow, Response(403))


def test_all_pages_are_deleted_and_counted() -> None:
    first, last = page("a", "b", next_page=f"http://h{LIST}?_token=1"), page("c")
    asked, count = run(delete_pages(RECORDS, "n=1"), first, last)
    assert [(one.method, one.query) for one in asked] == [("DELETE", "n=1"), ("DELETE", "_token=1")]
    assert count == 3


def test_what_was_written_since_the_deletion_began_is_left_out() -> None:
    tombstones = {"data": [{"id": "a", "last_modified": 8}, {"id": "b", "last_modified": 7}]}
    bounded = f"http://h{LIST}?_token=2&_before=%227%22"
    answers = [
        Response(200, {"next-page": f"http://h{LIST}?_token=1"}, content=tombstones),
        Response(200, {"next-page": bounded}, content=tombstones),
        page("c"),
    ]
    asked, count = run(delete_pages(RECORDS, ""), *answers)
    assert [one.query for one in asked] == ["", "_token=1&_before=%227%22", "_token=2&_before=%227%22"]
    assert count == 5


def test_a_list_that_somebody_else_changes_is_not_deleted_further() -> None:
    first = Response(200, {"next-page": f"http://h{LIST}?_token=1", "etag": '"9"'}, content={"data": [{"id": "a"}]})
    found: list[Any] = []
    flow = delete_pages(RECORDS, "", if_match=5, on_rows=found.extend)
    headers = [next(flow).headers, flow.send(first).headers]  # type: ignore[union-attr]  # both are requests
    assert headers == [{"If-Match": '"5"'}, {"If-Match": '"9"'}]
    with pytest.raises(KintoError, match="412"):
        flow.send(Response(412))
    assert found == [{"id": "a"}]


def test_deleting_in_a_circle_is_an_error() -> None:
    following = page("a", next_page=f"http://h{LIST}?_token=1")
    with pytest.raises(ProtocolError, match="circle"):
        run(delete_pages(RECORDS, "n=1"), following, following)


def test_a_deleted_list_that_is_none_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="holds no list"):
        run(delete_pages(RECORDS, "n=1"), Response(200, content={"data": {}}))


def test_a_query_string_escapes_what_separates_parameters() -> None:
    assert encode_query([("a ", '"x;y&z=é"'), ("b", "+")]) == "a%20=%22x%3By%26z%3D%C3%A9%22&b=%2B"


def tombstones(first: int, count: int, total: int, more: str = "") -> Response:
    rows = [{"id": f"r{n}", "last_modified": 100 + n, "deleted": True} for n in range(first, first + count)]
    headers = {"total-records": str(total), **({"next-page": f"http://h{LIST}?{more}"} if more else {})}
    return Response(200, headers=headers, content={"data": rows})


@pytest.mark.parametrize(("query", "rest"), [("", "_before=%22100%22"), ("n=1", "n=1&_before=%22100%22")])
def test_k15_a_server_that_ends_too_early_is_asked_again(query: str, rest: str) -> None:
    answers = [tombstones(0, 2, 7, "_token=a"), tombstones(2, 2, 5), tombstones(4, 2, 3), tombstones(6, 1, 1)]

    asked, count = run(delete_pages(RECORDS, query), *answers)

    assert [request.query for request in asked] == [query, "_token=a&_before=%22100%22", rest, rest]
    assert count == 7


def test_k15_a_count_that_does_not_shrink_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="4 were deleted, and the server says that 5 are left"):
        run(delete_pages(RECORDS, ""), tombstones(0, 2, 7), tombstones(2, 2, 7))
