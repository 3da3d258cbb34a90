"""The proxy that fails on purpose: each fault as a plain HTTP client meets it, in front of a real Kinto."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from fault_proxy import (
    FAULTS,
    Exchange,
    FaultProxy,
    bad_gateway_after,
    busy_before,
    busy_html_before,
    delay,
    drop_after,
    drop_before,
    hang_after,
    is_write,
    meanwhile,
    ok,
    reset_after,
    truncate,
    truncate_no_length,
)

from kinto_orm.server import EmbeddedServer, ServerThread

AUTH = ("me", "secret")
BUCKET = "/buckets/b"


@pytest.fixture(scope="module")
def upstream(kinto_server: EmbeddedServer) -> Iterator[str]:
    with ServerThread(kinto_server) as thread:
        yield thread.url


@pytest.fixture
def proxy(upstream: str) -> Iterator[FaultProxy]:
    with FaultProxy(upstream) as proxy:
        yield proxy


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.auth = AUTH
        session.trust_env = False
        yield session


@pytest.fixture
def put(proxy: FaultProxy, session: requests.Session) -> Any:
    def put(number: int = 1, timeout: float = 30) -> requests.Response:
        return session.put(proxy.url + BUCKET, json={"data": {"n": number}}, timeout=timeout)

    return put


@pytest.fixture
def stored(kinto_server: EmbeddedServer) -> Any:
    """What the server holds, asked without the proxy."""

    def stored() -> int | None:
        with requests.Session() as direct:
            direct.mount(kinto_server.url, kinto_server.adapter())
            answer = direct.get(kinto_server.url + BUCKET, auth=AUTH)
        number: int | None = answer.json()["data"]["n"] if answer.ok else None
        return number

    return stored


def test_without_a_plan_everything_passes(proxy: FaultProxy, put: Any, stored: Any) -> None:
    answer = put(7)

    assert answer.status_code == 201
    assert answer.json()["data"]["n"] == stored() == 7
    assert [(one.method, one.target, one.status, one.fault) for one in proxy.seen] == [
        ("PUT", "/v1/buckets/b", 201, "ok")
    ]


@pytest.mark.parametrize("fault", [drop_before, drop_after, reset_after])
def test_a_connection_that_breaks_has_no_answer(proxy: FaultProxy, put: Any, stored: Any, fault: Any) -> None:
    proxy.plan(fault)

    with pytest.raises(requests.ConnectionError):
        put()

    assert stored() == (None if fault is drop_before else 1)


def test_a_reset_is_one(proxy: FaultProxy) -> None:
    proxy.plan(reset_after)

    with socket.create_connection(("127.0.0.1", int(proxy.url.split(":")[2].split("/")[0])), timeout=30) as plain:
        plain.sendall(b"GET /v1/ HTTP/1.1\r\nHost: localhost\r\n\r\n")

        with pytest.raises(ConnectionResetError):
            plain.recv(1)


def test_a_server_that_hangs_has_applied_the_request(proxy: FaultProxy, put: Any, stored: Any) -> None:
    proxy.plan(hang_after)

    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(put)
        while not proxy.seen or proxy.seen[-1].status is None:
            threading.Event().wait(0.005)

        assert (stored(), hanging.done()) == (1, False)
        proxy.stop()
        assert isinstance(hanging.exception(timeout=30), requests.ConnectionError)


def test_a_bad_gateway_hides_what_was_done(proxy: FaultProxy, put: Any, stored: Any) -> None:
    proxy.plan(bad_gateway_after)

    answer = put()

    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "text/html")
    assert stored() == 1


def test_a_busy_kinto_does_nothing_and_says_when_to_come_back(upstream: str, stored: Any) -> None:
    with FaultProxy(upstream, retry_after=3) as proxy:
        proxy.plan(busy_before)

        answer = requests.put(proxy.url + BUCKET, auth=AUTH, timeout=30)

    assert (answer.status_code, answer.headers["Retry-After"], answer.json()["errno"]) == (503, "3", 201)
    assert stored() is None


def test_something_busy_in_front_of_kinto_speaks_html(proxy: FaultProxy, put: Any, stored: Any) -> None:
    proxy.plan(busy_html_before)

    answer = put()

    assert (answer.status_code, answer.text[0]) == (503, "<")
    assert stored() is None


def test_half_an_answer_is_shorter_than_its_length_says(proxy: FaultProxy, put: Any, stored: Any) -> None:
    proxy.plan(truncate)

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        put()

    assert stored() == 1


def test_half_an_answer_without_a_length_looks_whole(proxy: FaultProxy, put: Any, stored: Any) -> None:
    proxy.plan(truncate_no_length)

    answer = put()

    assert answer.status_code == 201
    assert "Content-Length" not in answer.headers
    with pytest.raises(requests.JSONDecodeError):
        answer.json()
    assert stored() == 1


def test_a_late_answer_comes(proxy: FaultProxy, put: Any) -> None:
    proxy.plan(delay)

    assert put().status_code == 201


def test_faults_come_one_after_the_other_and_then_no_more(proxy: FaultProxy, put: Any) -> None:
    proxy.plan(bad_gateway_after, ok, busy_before)

    assert [put().status_code for _ in range(4)] == [502, 200, 503, 200]
    assert proxy.unused == 0


def test_a_plan_can_be_for_some_requests_only(proxy: FaultProxy, put: Any, session: requests.Session) -> None:
    proxy.plan(bad_gateway_after, only=is_write)

    reading = session.get(proxy.url + "/", timeout=30)

    assert (reading.status_code, proxy.unused) == (200, 1)
    assert (put().status_code, proxy.unused) == (502, 0)


def test_faults_can_be_chosen_for_each_request(proxy: FaultProxy, put: Any) -> None:
    proxy.choose = lambda seen: bad_gateway_after if b"13" in seen.body else ok

    assert [put(number).status_code for number in (12, 13, 14)] == [201, 502, 200]
    assert proxy.unused == 0


def test_somebody_can_act_between_the_write_and_its_answer(
    proxy: FaultProxy, put: Any, stored: Any, upstream: str
) -> None:
    def act() -> None:
        requests.put(upstream + BUCKET, auth=AUTH, json={"data": {"n": stored() + 1}}, timeout=30)

    proxy.plan(meanwhile(act, ok))

    answer = put(5)

    assert (answer.json()["data"]["n"], stored()) == (5, 6)


def test_a_fault_can_be_any_function(proxy: FaultProxy, put: Any, stored: Any) -> None:
    def twice(exchange: Exchange) -> None:
        exchange.apply()
        ok(exchange)

    proxy.plan(twice)

    assert put().status_code == 200
    assert stored() == 1


def test_connections_are_kept_alive_through_answers_of_all_kinds(proxy: FaultProxy, put: Any) -> None:
    proxy.plan(ok, bad_gateway_after, busy_before, busy_html_before, delay)

    for _ in range(6):
        put()
        assert proxy.connections == 1


def test_it_can_be_waited_for_until_nothing_is_on_its_way(
    proxy: FaultProxy, put: Any, session: requests.Session
) -> None:
    put()
    with pytest.raises(AssertionError, match="stay open"):
        proxy.wait_until_idle(timeout=0.01)

    session.close()
    proxy.wait_until_idle()

    assert proxy.connections == 0


def test_a_client_that_wants_to_close_is_obeyed(proxy: FaultProxy) -> None:
    with socket.create_connection(("127.0.0.1", int(proxy.url.split(":")[2].split("/")[0])), timeout=30) as plain:
        plain.sendall(b"GET /v1/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

        with plain.makefile("rb") as answer:
            everything = answer.read()  # ends where the connection does

    assert everything.startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_answer_to_head_has_a_length_and_no_body(proxy: FaultProxy, session: requests.Session) -> None:
    first = session.head(proxy.url + "/", timeout=30)
    second = session.get(proxy.url + "/", timeout=30)

    assert (first.headers["Content-Length"], first.content) == (second.headers["Content-Length"], b"")
    assert second.json()["project_name"] == "kinto"


def test_the_next_page_is_behind_the_proxy_too(
    proxy: FaultProxy, session: requests.Session, kinto_server: EmbeddedServer
) -> None:
    for id in ("one", "two"):
        session.put(f"{proxy.url}/buckets/{id}", timeout=30)

    answer = session.get(f"{proxy.url}/buckets?_limit=1", timeout=30)

    assert answer.headers["Next-Page"].startswith(proxy.url)


def test_it_is_seen_whether_a_request_is_the_same_byte_for_byte(proxy: FaultProxy, put: Any) -> None:
    put(1), put(1), put(2)

    first, again, other = proxy.seen
    assert first.wire_hash == again.wire_hash != other.wire_hash
    assert first.body_hash == again.body_hash != other.body_hash


def test_it_is_seen_whether_a_write_has_a_precondition(proxy: FaultProxy, session: requests.Session) -> None:
    for headers in ({}, {"If-None-Match": "*"}, {"If-Match": '"1"'}):
        session.put(proxy.url + BUCKET, headers=headers, timeout=30)

    assert [one.unguarded for one in proxy.seen] == [["/v1/buckets/b"], [], []]
    assert [one.is_applied for one in proxy.seen] == [True, False, False]


def test_in_a_batch_it_is_seen_which_writes_have_none(proxy: FaultProxy, session: requests.Session) -> None:
    guarded = {"method": "PUT", "path": "/buckets/a", "headers": {"If-None-Match": "*"}}
    forced = {"method": "PUT", "path": "/buckets/b"}
    reading = {"method": "GET", "path": "/buckets/c"}

    session.post(f"{proxy.url}/batch", json={"requests": [guarded, forced, reading]}, timeout=30)

    assert [one.unguarded for one in proxy.seen] == [["/buckets/b"]]


def test_many_clients_are_served_at_once(proxy: FaultProxy) -> None:
    def ask(number: int) -> int:
        return requests.put(f"{proxy.url}/buckets/b{number}", auth=AUTH, timeout=60).status_code

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(40))) == [201] * 40


def test_a_client_that_goes_away_in_the_middle_of_a_request_is_forgotten(proxy: FaultProxy) -> None:
    port = int(proxy.url.split(":")[2].split("/")[0])
    for begun in (b"PUT /v1/buckets/b HTTP/1.1\r\n", b"PUT /v1/buckets/b HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf"):
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(begun)

    assert list(proxy.seen) == []


def test_a_server_that_is_down_looks_like_a_connection_that_breaks(session: requests.Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with FaultProxy(url) as proxy, pytest.raises(requests.ConnectionError):
        session.get(f"{proxy.url}/", timeout=30)

    assert [one.status for one in proxy.seen] == [None]


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_left_after_a_fault(upstream: str, name: str) -> None:
    before = threading.active_count()
    with FaultProxy(upstream) as proxy, requests.Session() as session:
        proxy.plan(FAULTS[name])
        with contextlib.suppress(requests.RequestException):
            session.put(proxy.url + BUCKET, auth=AUTH, timeout=(1, 0.15))

    assert (threading.active_count(), proxy.connections) == (before, 0)


def test_stopping_ends_what_hangs(upstream: str) -> None:
    proxy = FaultProxy(upstream)
    proxy.plan(hang_after)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(requests.get, f"{proxy.url}/", timeout=10)
        while not proxy.seen or proxy.seen[0].status is None:
            threading.Event().wait(0.005)

        proxy.stop()
        proxy.stop()

        assert isinstance(hanging.exception(timeout=30), requests.ConnectionError)
