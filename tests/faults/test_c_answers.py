"""Rows C: broken, hostile or foreign answers, over a real socket."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from typing import Any

import pytest
from scripted_server import Script, Talk, answer, chunked, one, page, said, send_and_close

from kinto_orm import (
    AlertWarning,
    Client,
    CommitError,
    ConnectionLostError,
    ForbiddenError,
    KintoError,
    ProtocolError,
    Record,
    RedirectError,
    ServerError,
)
from kinto_orm.models.managers import RecordManager

JSON = "Content-Type: application/json"


def get(client: Client) -> Any:
    return client.bucket("b").collection("c").records.get("x")


def read_all(client: Client) -> Any:
    return client.bucket("b").collection("c").records.all()


@pytest.mark.parametrize(
    ("script", "read"),
    [
        pytest.param(answer(b"<html>Welcome", "Content-Type: text/html"), get, id="C02"),
        pytest.param(answer(b"<html>Welcome", "Content-Type: text/html"), read_all, id="C02-list"),
        pytest.param(answer(b'{"data":[]}', "Content-Type: text/html"), read_all, id="C02-type"),
        pytest.param(answer(b'{"data":{"id":"x"}}', "Content-Type: text/plain"), get, id="C02-object"),
        pytest.param(said(b""), get, id="C03"),
        pytest.param(said(b""), read_all, id="C03-list"),
        pytest.param(said([]), get, id="C04"),
        pytest.param(said({"data": []}), get, id="C04-data"),
        pytest.param(said(None), read_all, id="C05"),
        pytest.param(said({"data": None}), read_all, id="C05-data"),
        pytest.param(said({}), get, id="C06"),
        pytest.param(said({}), read_all, id="C06-list"),
        pytest.param(said({"data": [{"id": "a"}, {"n": 1}]}), read_all, id="C07"),
        pytest.param(said(b"", "304 Not Modified"), read_all, id="C08"),
        pytest.param(said(b'{"data":{"id":"x","t":"\xff"}}'), get, id="C14"),
        pytest.param(said(b'{"data":[{"id":"x","t":"\xff"}]}'), read_all, id="C14-list"),
        pytest.param(said(b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), get, id="C15"),
        pytest.param(said(b'{"data":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}"), read_all, id="C15-list"),
        pytest.param(said(b'{"data":{"id":"x","n":' + b"9" * 5000 + b"}}"), get, id="C16"),
        pytest.param(said(b'{"data":{"id":"x","n":NaN}}'), get, id="C17"),
        pytest.param(said(b'{"data":[{"id":"x","n":Infinity}]}'), read_all, id="C17-list"),
        pytest.param(said(b"", "204 No Content"), read_all, id="C19"),
        pytest.param(send_and_close(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), get, id="C27"),
        pytest.param(said({}, "200 OK", *[f"X-{n}: 1" for n in range(200)]), get, id="C27-headers"),
        pytest.param(said('{"data":{"id":"x"}}'.encode("utf-16")), get, id="C29"),
        pytest.param(one("y"), get, id="C30"),
    ],
)
def test_what_no_kinto_says_is_a_protocol_error(talk: Talk, script: Script, read: Callable[[Client], Any]) -> None:
    client, server = talk(script, retry=3)

    with pytest.raises(ProtocolError) as caught:
        read(client)

    assert len(str(caught.value)) < 600
    assert len(server.requests) == 1


def test_c01_a_huge_page_of_a_proxy_leaves_a_short_error(talk: Talk) -> None:
    client, _ = talk(answer(b"<html>" + b"x" * 2_000_000, status="502 Bad Gateway"))

    with pytest.raises(ServerError) as caught:
        get(client)

    assert caught.value.status == 502
    assert len(str(caught.value)) < 600
    assert len(caught.value.body) <= 500


def test_c02_the_error_says_what_came(talk: Talk) -> None:
    client, _ = talk(answer(b"<html>" + b"x" * 10_000, "Content-Type: text/html; charset=utf-8"))

    with pytest.raises(ProtocolError) as caught:
        get(client)

    assert str(caught.value) == (
        "GET /buckets/b/collections/c/records/x: the answer is not JSON (200, text/html; charset=utf-8); "
        f"it begins {'<html>' + 'x' * 194!r}."
    )


def test_c07_the_row_is_named(talk: Talk) -> None:
    client, _ = talk(said({"data": [{"id": "a"}, {"n": 1}]}))

    with pytest.raises(ProtocolError, match="Row 1 "):
        read_all(client)


CUT = [
    pytest.param(send_and_close(one()[:-2]), id="C09"),
    pytest.param(send_and_close(b"HTTP/1.1 200 OK\r\n" + JSON.encode() + b'\r\n\r\n{"data":{"id'), id="C10"),
    pytest.param(send_and_close(chunked(b'{"data":', b'{"id":"x"}}')[:-4]), id="C11"),
    pytest.param(said(gzip.compress(b'{"data":{"id":"x"}}')[:-9], "200 OK", "Content-Encoding: gzip"), id="C12"),
]


@pytest.mark.parametrize("script", CUT)
def test_a_read_that_was_cut_short_is_made_again(talk: Talk, script: Script) -> None:
    client, server = talk(script, one(n=1), retry=1)

    assert get(client).data["n"] == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("script", CUT)
def test_a_forced_write_whose_answer_was_cut_short_is_in_doubt(talk: Talk, script: Script) -> None:
    client, server = talk(script, one(), retry=3)

    with pytest.raises((ConnectionLostError, ProtocolError)):
        Record(id="x", client=client).replace(safe=False)

    assert len(server.requests) == 1


def test_c18_of_two_equal_keys_the_last_one_counts(talk: Talk) -> None:
    """As documented: Kinto itself never sends two, and to look for them would take longer than to decode."""
    client, _ = talk(said(b'{"data":{"id":"x","n":1,"n":2}}'))

    assert dict(get(client).data) == {"n": 2}


def test_c20_a_delete_may_be_answered_with_nothing(talk: Talk) -> None:
    client, _ = talk(answer(b"", status="204 No Content"))

    assert Record(id="x", client=client).delete().is_deleted


@pytest.mark.parametrize("status", ["300 Multiple Choices", "302 Found", "399 Odd"])
def test_c21_every_redirect_is_an_error(talk: Talk, status: str) -> None:
    client, _ = talk(said({"data": {"id": "x"}}, status))

    with pytest.raises(RedirectError):
        get(client)


ALERT = 'Alert: {"code": "soft-eol", "message": "Move on.", "url": "https://example.com/"}'


def test_c22_an_alert_that_is_an_error_comes_after_the_write_is_known_to_be_stored(talk: Talk) -> None:
    """All warnings are errors in this suite."""
    client, server = talk(said({"data": {"id": "x", "last_modified": 5}}, "201 Created", ALERT))
    record = Record(id="x", client=client)

    with pytest.raises(AlertWarning, match=r"soft-eol\): Move on. https://example.com/"):
        record.save()

    assert (record.is_new, record.is_dirty, record.last_modified) == (False, False, 5)
    record.replace()
    assert len(server.requests) == 2


def test_c22_an_alert_is_told_to_who_awaits_too(talk: Talk) -> None:
    client, _ = talk(said({"data": {"id": "x", "last_modified": 5}}, "201 Created", ALERT))
    record = Record(id="x", client=client)

    with pytest.raises(AlertWarning):
        asyncio.run(record.asave())

    assert not record.is_new


def test_c22_an_alert_in_a_unit_of_work_comes_after_its_outcomes(talk: Talk) -> None:
    stored = {"status": 201, "headers": {}, "body": {"data": {"id": "x", "last_modified": 5}}}
    client, _ = talk(said({"settings": {}}), said({"responses": [stored]}, "200 OK", ALERT))
    client.server_info()
    uow = client.unit_of_work()

    with pytest.raises(AlertWarning), uow:
        record = Record(id="x", client=client).save()

    assert [one.status for one in uow.outcomes] == ["created"]
    assert not record.is_new


@pytest.mark.parametrize("alert", ["soon", "[]", "{}", '{"code": 1e999, "url": []}', "[" * 60_000, '{"message": null}'])
def test_c22_an_alert_never_breaks_anything(talk: Talk, alert: str) -> None:
    client, _ = talk(one(n=1), said({"data": {"id": "x"}}, "200 OK", f"Alert: {alert}"))
    get(client)

    with pytest.warns(AlertWarning, match="The server says") as told:
        [get(client) for _ in range(2)]

    assert len(told) == 1
    assert told[0].filename == __file__


def test_c22_a_server_full_of_alerts_fills_no_memory(talk: Talk) -> None:
    client, _ = talk(*[said({}, "200 OK", f'Alert: {{"code": "{n}"}}') for n in range(150)])

    with pytest.warns(AlertWarning) as told:
        [client.server_info(refresh=True) for _ in range(150)]

    assert len(told) == 100


def test_c23_a_list_without_a_timestamp_has_none(talk: Talk) -> None:
    client, _ = talk(said({"data": []}))

    (page,) = client.bucket("b").collection("c").records.pages()

    assert page.timestamp is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param("503 Service Unavailable", ServerError, id="C24"),
        pytest.param("403 Forbidden", ForbiddenError, id="C25"),
    ],
)
def test_only_a_404_means_that_it_is_not_there(talk: Talk, status: str, expected: type[KintoError]) -> None:
    client, _ = talk(said({}, status))

    with pytest.raises(expected):
        client.buckets.get_or_none("b")


def test_a_healthy_answer_is_taken(talk: Talk) -> None:
    client, _ = talk(page("a", "b"))

    assert [one.id for one in read_all(client)] == ["a", "b"]


def of_batch(answered: bytes) -> bytes:
    return b'{"responses": [{"status": 201, "path": "/v1", "headers": {}, "body": ' + answered + b"}]}"


DOORS: dict[str, Callable[[Client], object]] = {
    "get": lambda client: records(client).get("x"),
    "save": lambda client: Record(id="x", client=client).save(),
    "bulk": lambda client: records(client).bulk_create([{"id": "x"}]),
}


def records(client: Client) -> RecordManager[Record]:
    return client.bucket("b").collection("c").records


@pytest.mark.parametrize("permissions", ["[1]", '"all"', "5", '{"write": [1]}', '{"write": "me"}'])
@pytest.mark.parametrize("door", DOORS)
def test_o15_permissions_of_another_form_are_refused(talk: Talk, door: str, permissions: str) -> None:
    answered = b'{"data": {"id": "x", "last_modified": 5}, "permissions": ' + permissions.encode() + b"}"
    info = said({"settings": {}, "capabilities": {}})
    client, _ = talk(info, said(of_batch(answered) if door == "bulk" else answered))
    client.server_info()

    with pytest.raises((ProtocolError, CommitError), match="no lists of principals"):
        DOORS[door](client)


class Titled(Record, bucket="b", collection="c"):
    title: str | None = None


class Anything(Record, bucket="b", collection="c"):
    u: Any


LISTS: dict[str, Callable[[Client], object]] = {
    "list": lambda client: records(client).all(),
    "typed list": lambda client: [one.data["u"] for one in client.bucket("b").collection(Titled).records],
    "since": lambda client: records(client).filter(_since=1).all(),
    "list of any": lambda client: client.bucket("b").collection(Anything).records.all(),
    "values": lambda client: records(client).values("u"),
    "arrow": lambda client: records(client).to_arrow(),
}


@pytest.mark.parametrize(
    "number", ["1e999", "-1e999", "1.5E+400", "1" * 30 + "e300", "1" * 400 + ".0", '[0, {"z": 1e0309 }]']
)
@pytest.mark.parametrize("door", [*DOORS, *LISTS])
def test_o15_a_number_that_is_too_large_is_refused(talk: Talk, door: str, number: str) -> None:
    row = b'{"id": "x", "last_modified": 5, "u": %b}' % number.encode()
    answered = b'{"data": [%b]}' % row if door in LISTS else b'{"data": %b}' % row
    info = said({"settings": {}, "capabilities": {}})
    client, server = talk(info, said(of_batch(answered) if door == "bulk" else answered, "200 OK", 'ETag: "5"'))
    client.server_info()

    with pytest.raises((ProtocolError, CommitError), match="too large for a float"):
        {**DOORS, **LISTS}[door](client)
    assert len(server.requests) == 2


def test_o15_numbers_that_are_only_large_are_read(talk: Talk) -> None:
    row = b'{"id": "x", "u": [1e308, -1.5E+200, 1e-999, 1E-400], "t": "code e1234, 1e999"}'
    client, _ = talk(said(b'{"data": [%b]}' % row, "200 OK", 'ETag: "5"'))

    (found,) = read_all(client)
    assert found.data == {"u": [1e308, -1.5e200, 0.0, 0.0], "t": "code e1234, 1e999"}
