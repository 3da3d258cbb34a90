"""Rows D, with G24: lists and pages."""

from __future__ import annotations

import pytest
from scripted_server import RECORDS, Serve, Talk, page, said

from kinto_orm import Bucket, Client, Collection, ProtocolError, Record

FORMS = [
    pytest.param("http://{host}/v1" + RECORDS, id="D01"),
    pytest.param("http://{host}/v1/buckets/b/collections/other/records", id="D01-another-list"),
    pytest.param("HTTP://{host}/v1" + RECORDS, id="D01-case"),
    pytest.param("//{host}/v1" + RECORDS, id="D01-no-scheme"),
    pytest.param("http://localhost@{host}/v1" + RECORDS, id="D01-userinfo"),
    pytest.param("\\\\{host}/v1" + RECORDS, id="D01-backslashes"),
    pytest.param("http:\\\\{host}\\v1" + RECORDS, id="D01-mixed"),
    pytest.param("https://{host}/v1" + RECORDS, id="G24"),
    pytest.param("/v1" + RECORDS, id="D03"),
    pytest.param("file:///etc/passwd", id="D04"),
    pytest.param("ftp://{host}" + RECORDS, id="D04-ftp"),
]


@pytest.mark.parametrize("form", FORMS)
def test_credentials_never_follow_a_page_elsewhere(talk: Talk, serve: Serve, form: str) -> None:
    """Only the query string of Next-Page is used, and only where its path is that of the list."""
    other = serve(page("evil"))
    first = said({"data": []}, "200 OK", f"Next-Page: {form.format(host=other.host)}?_token=1")
    client, server = talk(first, page("good"), auth="Bearer t0k3n", headers={"X-Api-Key": "k3y"})

    try:
        found = [one.id for one in client.bucket("b").collection("c").records]
    except ProtocolError:
        found = ["good"]

    assert found == ["good"]
    assert other.requests == []
    assert all(b"GET /v1" + RECORDS.encode() in request for request in server.requests)
    assert server.host in (server.header("Host") or "")


def test_d07_the_timestamp_of_a_list_is_asked_for_each_time(todos: Collection[Record]) -> None:
    before = todos.records.timestamp()
    todos.records.create(id="x")

    assert before != todos.records.timestamp() == todos.records.get("x").last_modified


def test_d08_the_list_of_permissions_is_read_to_its_end() -> None:
    """Of eight entries the first page has three; the entry of the server itself has no id."""
    with Client.embedded(settings={"paginate_by": 3}) as client:
        todos = Collection(bucket=Bucket(id="payments").save(), id="todos").save()
        todos.records.bulk_create({"id": f"r{n}"} for n in range(5))

        entries = client.permissions.all()

        records = {f"/buckets/payments/collections/todos/records/r{n}" for n in range(5)}
        assert {one.uri for one in entries} == {
            "/",
            "/buckets/payments",
            "/buckets/payments/collections/todos",
            *records,
        }
        assert len(entries) == client.permissions.count() == 8


def test_d11_the_cursor_is_the_timestamp_of_the_first_page(talk: Talk) -> None:
    """With a later cursor, a change between two pages would never be read."""
    client, _ = talk(page("a", token=1, etag='"5"'), page("b", etag='"9"'))

    first, second = client.bucket("b").collection("c").records.pages()

    assert (first.timestamp, second.timestamp) == (5, 9)
