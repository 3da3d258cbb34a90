"""The wire: what leaves, what comes back, and what a broken or hostile server can do to us. All over real sockets."""

import gc
import gzip
import ipaddress
import logging
import os
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import warnings
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from awaited import WAYS
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import AuthBase, HTTPDigestAuth
from scripted_server import (
    Connect,
    Script,
    Serve,
    Server,
    answer,
    chunked,
    drip,
    hang,
    hang_up,
    read_request,
    reset,
    send_and_close,
)
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection

from kinto_orm.errors import (
    ClientClosedError,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    DeadlineError,
    InvalidTypeError,
    KintoError,
    ProtocolError,
    ResponseTooLargeError,
    TransportError,
)
from kinto_orm.protocol.messages import Request
from kinto_orm.transport.auth import BearerTokenAuth
from kinto_orm.transport.http import HttpTransport
from kinto_orm.transport.options import WireOptions, parse_server_url
from kinto_orm.transport.reporting import ResponseEvent, redacted
from kinto_orm.transport.requests_errors import FinalConnectionError
from kinto_orm.transport.retry import Clock
from kinto_orm.transport.sessions import BoundedResponse, DeadlineAdapter, answer_deadline

CANARY = "s3cr3t-canary"
GET = Request("GET", "/buckets/b")
HEAD = Request("HEAD", "/buckets/b")
PUT = Request("PUT", "/buckets/b", headers={"Content-Type": "application/json"}, body=b"{}")


SENT_BY_THE_POOL = {
    "test_digest_auth_answers_its_challenge",  # HTTPDigestAuth keeps its challenge for each thread
    "test_threads_share_a_transport",
    "test_a_patched_function_of_requests_is_called",
    "test_connections_of_another_class_are_used",
    "test_requests_is_left_out_where_nothing_of_the_user_is_in_between",
    "test_a_pool_that_another_thread_closed_is_replaced",
}
"""Tests that are about one way of sending; so are those with a session of the user's."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of the wire with each sender: the promises are the same."""
    names = set(metafunc.fixturenames)
    if "connect" in names and "session" not in names and metafunc.function.__name__ not in SENT_BY_THE_POOL:
        metafunc.parametrize("way", WAYS)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# Addresses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("http://kinto.test/v1", "http://kinto.test/v1", id="normal"),
        pytest.param("http://kinto.test/v1/", "http://kinto.test/v1", id="slash"),
        pytest.param("http://kinto.test", "http://kinto.test/v1", id="no-path"),
        pytest.param("https://kinto.test//", "https://kinto.test/v1", id="slashes"),
        pytest.param("http://kinto.test/api", "http://kinto.test/api/v1", id="prefix"),
        pytest.param("http://kinto.test/api/v2", "http://kinto.test/api/v2", id="another-version"),
        pytest.param("http://kinto.test/vine", "http://kinto.test/vine/v1", id="nearly-a-version"),
        pytest.param("HTTP://Kinto.TEST:8888/V/v1", "http://kinto.test:8888/V/v1", id="case"),
        pytest.param("http://[::1]:8888/v1", "http://[::1]:8888/v1", id="ipv6"),
        pytest.param("http://bücher.test/v1", "http://xn--bcher-kva.test/v1", id="idn"),
    ],
)
def test_server_url_has_one_normal_form(url: str, expected: str) -> None:
    assert parse_server_url(url) == expected
    assert parse_server_url(expected) == expected


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="empty"),
        pytest.param("kinto.test/v1", id="no-scheme"),
        pytest.param("ftp://kinto.test/v1", id="ftp"),
        pytest.param("http://", id="no-host"),
        pytest.param("http:///v1", id="no-host-but-path"),
        pytest.param("http://kinto.test/v1?", id="empty-query"),
        pytest.param("http://kinto.test/v1?a=b", id="query"),
        pytest.param("http://kinto.test/v1#top", id="fragment"),
        pytest.param("http://kinto.test:port/v1", id="port-in-letters"),
        pytest.param("http://kinto.test:99999/v1", id="port-too-high"),
        pytest.param("http://[::1/v1", id="half-an-ipv6"),
        pytest.param("http://*.test/v1", id="wildcard"),
        pytest.param("http:\\\\kinto.test", id="backslashes"),
        pytest.param("http://kinto.test/v1\r\nX-Evil: 1", id="line-end"),
        pytest.param(" http://kinto.test/v1", id="space"),
        pytest.param(None, id="none"),
        pytest.param(b"http://kinto.test/v1", id="bytes"),
    ],
)
def test_server_url_that_cannot_work_is_refused(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="as in http://localhost:8888/v1"):
        parse_server_url(url)


@pytest.mark.parametrize(
    "userinfo", [f"admin:#{CANARY}", f"admin:/?{CANARY}", f"a@b:{CANARY}", f"admin:{CANARY}\r\n", ""]
)
def test_an_at_sign_that_separates_no_credentials_is_refused_without_showing_them(userinfo: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        HttpTransport(WireOptions(f"https://{userinfo}@kinto.test/v1"))

    assert CANARY not in str(refused.value)
    assert refused.value.__context__ is None


def test_the_normal_form_of_a_url_has_no_credentials() -> None:
    with pytest.raises(ConfigurationError, match="give auth=") as refused:
        parse_server_url(f"https://user:{CANARY}@kinto.test")

    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("userinfo", "expected"),
    [
        pytest.param("user:p%40ss%3A", "Basic dXNlcjpwQHNzOg==", id="percent-encoded"),
        pytest.param("user:a:b", "Basic dXNlcjphOmI=", id="colon-in-password"),
        pytest.param("token", "Basic dG9rZW46", id="no-password"),
    ],
)
def test_credentials_in_the_server_url_are_taken_out_of_it(
    serve: Serve, connect: Connect, userinfo: str, expected: str
) -> None:
    server = serve()
    transport = connect(f"http://{userinfo}@{server.host}/v1")

    transport.send(GET)

    assert server.header("Authorization") == expected
    assert transport.server_url == server.url


def test_credentials_are_given_once() -> None:
    with pytest.raises(ConfigurationError, match="give them once") as refused:
        HttpTransport(WireOptions(f"https://user:{CANARY}@kinto.test", auth="user:pass"))

    assert CANARY not in str(refused.value)


# What leaves


def test_a_request_goes_out_as_it_was_given(serve: Serve, connect: Connect) -> None:
    server = serve()

    connect(server).send(Request("PATCH", "/buckets/b%20c", "a=%2F&b", {"If-Match": '"42"'}, b'{"data":{}}'))

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"PATCH /v1/buckets/b%20c?a=%2F&b HTTP/1.1"
    assert server.header("If-Match") == '"42"'
    assert server.header("Content-Length") == "11"
    assert body == b'{"data":{}}'


def test_a_request_says_what_sends_it(serve: Serve, connect: Connect) -> None:
    server = serve()

    connect(server).send(GET)

    sender, requests_version, python = (server.header("User-Agent") or "").split()
    assert sender.startswith("kinto_orm/")
    assert requests_version == f"requests/{requests.__version__}"
    assert python.startswith("python/3.")


def test_a_write_without_body_says_so(serve: Serve, connect: Connect) -> None:
    server = serve()

    connect(server).send(Request("DELETE", "/buckets/b"))

    assert server.header("Content-Length") == "0"


def test_a_read_has_no_length(serve: Serve, connect: Connect) -> None:
    server = serve()

    connect(server).send(GET)

    assert server.header("Content-Length") is None
    assert server.header("Content-Type") is None


def test_headers_of_the_client_go_with_every_request(serve: Serve, connect: Connect) -> None:
    server = serve()
    transport = connect(server, headers={"X-Tenant": "a", "user-agent": "mine", "If-Match": "general"})

    transport.send(Request("GET", "/", headers={"if-match": "special"}))

    assert [server.header(name) for name in ("X-Tenant", "User-Agent", "If-Match")] == ["a", "mine", "special"]


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        pytest.param(None, None, id="anonymous"),
        pytest.param(("user", "pass"), "Basic dXNlcjpwYXNz", id="tuple"),
        pytest.param("user:pass", "Basic dXNlcjpwYXNz", id="string"),
        pytest.param("Bearer a:b", "Bearer a:b", id="bearer"),
        pytest.param("Bearer+OIDC abc", "Bearer+OIDC abc", id="oidc"),
        pytest.param("Basic abc", "Basic abc", id="basic-as-it-is"),
        pytest.param(BearerTokenAuth("abc", type="Token"), "Token abc", id="object"),
        pytest.param(requests.auth.HTTPBasicAuth("user", "pass"), "Basic dXNlcjpwYXNz", id="requests-auth"),
    ],
)
def test_credentials_go_with_the_request(serve: Serve, connect: Connect, auth: Any, expected: str | None) -> None:
    server = serve()

    connect(server, auth=auth).send(GET)

    assert server.header("Authorization") == expected


def test_digest_auth_answers_its_challenge(serve: Serve, connect: Connect) -> None:
    challenge = answer(b"", 'WWW-Authenticate: Digest realm="kinto", nonce="n", qop="auth"', status="401 No")
    server = serve(challenge, answer(b'{"data":1}'))
    transport = connect(server, auth=HTTPDigestAuth("user", CANARY))

    assert [transport.send(GET).body for _ in range(2)] == [b'{"data":1}', b'{"data":1}']
    assert (server.header("Authorization") or "").startswith('Digest username="user"')


def test_netrc_is_not_used(
    serve: Serve, connect: Connect, session: requests.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    (tmp_path / "netrc").write_text("default login user password pass\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    for transport in (connect(server), connect(server, trust_env=True), connect(server, session=session)):
        transport.send(GET)

        assert server.header("Authorization") is None


def test_proxies_of_the_environment_are_not_used(
    serve: Serve, connect: Connect, dead_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", dead_url)

    assert connect(serve()).send(GET).status == 200


def test_proxies_of_the_environment_are_used_if_asked_for(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve()
    monkeypatch.setenv("http_proxy", proxy.url)

    connect("http://kinto.test", trust_env=True).send(GET)

    assert proxy.requests[0].startswith(b"GET http://kinto.test/v1/buckets/b HTTP/1.1")


def test_a_proxy_can_be_given(serve: Serve, connect: Connect) -> None:
    proxy = serve()

    connect("http://kinto.test", proxies={"http": proxy.url}).send(GET)

    assert proxy.requests[0].startswith(b"GET http://kinto.test/v1/buckets/b HTTP/1.1")


def test_cookies_are_not_replayed(serve: Serve, connect: Connect) -> None:
    server = serve(answer(b"", "Set-Cookie: session=1; Path=/"))
    transport = connect(server)

    for _ in range(2):
        transport.send(GET)

    assert server.header("Cookie") is None


class TokenAuth(AuthBase):
    """Credentials of a user's class."""

    def __init__(self, header: str | bytes) -> None:
        self.header = header

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        r.headers["Authorization"] = self.header  # type: ignore[assignment]  # requests takes bytes, too
        return r


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"auth": ("user", "pass")}, id="basic"),
        pytest.param({"auth": BearerTokenAuth("xyz", type="Own")}, id="own-type"),
        pytest.param({"headers": {"authorization": "bearer xyz"}}, id="header"),
    ],
)
@pytest.mark.parametrize("host", ["kinto.test", "10.0.0.1", "[2001:db8::1]", "localhost.kinto.test", "127.0.0.1.test"])
def test_credentials_in_clear_are_refused_at_once(options: dict[str, Any], host: str) -> None:
    with pytest.raises(ConfigurationError, match="everybody on the way could read"):
        HttpTransport(WireOptions(f"http://{host}/v1", **options))


@pytest.mark.parametrize("header", ["Basic xyz", "Bearer xyz", "Bearer+OIDC xyz", b"bearer xyz"])
@pytest.mark.parametrize("is_brought", [pytest.param(False, id="own"), pytest.param(True, id="brought")])
def test_credentials_of_foreign_auth_objects_are_not_sent_in_clear(
    serve: Serve, connect: Connect, session: requests.Session, header: str | bytes, is_brought: bool
) -> None:
    proxy = serve()
    options = {"proxies": {"http": proxy.url}, "session": session if is_brought else None}

    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        connect("http://kinto.test", auth=TokenAuth(header), **options).send(PUT)

    assert proxy.requests == []


def test_credentials_of_a_session_are_not_sent_in_clear(
    serve: Serve, connect: Connect, session: requests.Session
) -> None:
    proxy = serve()
    session.auth = ("user", "pass")

    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        connect("http://kinto.test", proxies={"http": proxy.url}, session=session).send(PUT)

    assert proxy.requests == []


def test_credentials_are_sent_in_clear_where_the_network_is_trusted(serve: Serve, connect: Connect) -> None:
    proxy = serve()

    connect("http://kinto.test", proxies={"http": proxy.url}, auth="user:pass", allow_insecure=True).send(GET)

    assert proxy.header("Authorization") == "Basic dXNlcjpwYXNz"


@pytest.mark.parametrize("is_brought", [False, True], ids=["own", "brought"])
def test_o08_credentials_for_this_machine_do_not_go_to_a_proxy(
    serve: Serve, session: requests.Session, is_brought: bool
) -> None:
    server, proxy = serve(), serve()
    options: dict[str, Any] = {"proxies": {"http": proxy.url}, "session": session if is_brought else None}

    with pytest.raises(ConfigurationError, match="could read the credentials"):
        HttpTransport(WireOptions(server.url, auth="user:pass", **options)).send(GET)

    trusting = HttpTransport(WireOptions(server.url, auth="user:pass", allow_insecure=True, **options))
    trusting.send(GET)
    trusting.close()
    assert (server.requests, len(proxy.requests)) == ([], 1)


def test_o08_credentials_in_a_session_do_not_go_to_its_proxy(serve: Serve, session: requests.Session) -> None:
    proxy = serve()
    session.auth, session.proxies = ("user", "pass"), {"http": proxy.url}

    with pytest.raises(ConfigurationError, match="could read the credentials"):
        HttpTransport(WireOptions("http://localhost:1/v1", session=session)).send(GET)

    assert proxy.requests == []


def test_o08_a_proxy_of_the_environment_gets_no_credentials_either(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", serve().url)

    with pytest.raises(ConfigurationError, match="could read the credentials"):
        HttpTransport(WireOptions("http://localhost:1/v1", auth="user:pass", trust_env=True))


@pytest.mark.parametrize(
    "url", ["https://kinto.test", "http://localhost", "http://a.localhost:1", "http://[::1]", "http://127.9.9.9"]
)
def test_credentials_go_where_nobody_else_can_read_them(url: str) -> None:
    HttpTransport(WireOptions(url, auth="user:pass"))


def test_digest_shows_no_password() -> None:
    HttpTransport(WireOptions("http://kinto.test", auth=HTTPDigestAuth("user", "pass")))


# What comes back


def test_an_answer_is_status_headers_and_body(serve: Serve, connect: Connect) -> None:
    server = serve(answer(b'{"errno":107}', 'ETag: "42"', "X-Twice: a", "X-Twice: b", status="418 Teapot"))

    response = connect(server).send(GET)

    assert (response.status, response.body) == (418, b'{"errno":107}')
    assert response.headers == {"content-length": "13", "etag": '"42"', "x-twice": "a, b"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("is_brought", [pytest.param(False, id="own"), pytest.param(True, id="brought")])
def test_a_redirect_is_never_followed(
    serve: Serve, connect: Connect, session: requests.Session, status: int, is_brought: bool
) -> None:
    other = serve()
    server = serve(answer(b"moved", f"Location: {other.url}", status=f"{status} Moved"))

    response = connect(server, session=session if is_brought else None).send(PUT)

    assert (response.status, response.headers["location"], response.body) == (status, other.url, b"moved")
    assert other.requests == []


@pytest.mark.parametrize("location", ["http://[::1", "//", "http://\xff", ""])
def test_a_redirect_to_nowhere_is_an_answer(serve: Serve, connect: Connect, location: str) -> None:
    server = serve(answer(b"", f"Location: {location}", status="302 Found"))

    assert connect(server).send(GET).status == 302


def test_a_chunked_answer_is_put_together(serve: Serve, connect: Connect) -> None:
    server = serve(chunked(b"[1,", b"2]", b""))
    transport = connect(server)

    assert [transport.send(GET).body for _ in range(2)] == [b"[1,2]", b"[1,2]"]
    assert server.connections == 1


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("X-GZip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
def test_a_compressed_answer_is_unpacked(
    serve: Serve, connect: Connect, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    body = os.urandom(300_000) + bytes(600_000)
    server = serve(answer(compress(body), f"Content-Encoding: {coding}"))
    transport = connect(server)

    assert [transport.send(GET).body == body for _ in range(2)] == [True, True]
    assert server.connections == 1


def test_the_answer_to_head_has_no_body(serve: Serve, connect: Connect) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\nContent-Encoding: gzip\r\nTotal-Records: 7\r\n\r\n"
    server = serve(head)
    transport = connect(server)

    responses = [transport.send(HEAD) for _ in range(2)]

    assert [(each.body, each.headers["total-records"]) for each in responses] == [(b"", "7")] * 2
    assert server.connections == 1


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_may_have_no_body(serve: Serve, connect: Connect, status: str) -> None:
    server = serve(f"HTTP/1.1 {status}\r\n\r\n".encode())

    assert connect(server).send(GET).body == b""


def test_o15_gzip_of_several_members_is_unpacked(serve: Serve, connect: Connect) -> None:
    body = gzip.compress(b"[1,") + gzip.compress(b"") + gzip.compress(b"2]")

    assert connect(serve(answer(body, "Content-Encoding: gzip"))).send(GET).body == b"[1,2]"


@pytest.mark.parametrize("count", [1, 3])
def test_o15_interim_answers_are_skipped(serve: Serve, connect: Connect, count: int) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" * count
    server = serve(interim + answer(b"[1]"))
    transport = connect(server)

    assert [transport.send(GET).body for _ in range(2)] == [b"[1]", b"[1]"]
    assert server.connections == 1


def test_interim_answers_without_end_are_no_answer(serve: Serve, connect: Connect) -> None:
    with pytest.raises(ProtocolError):
        connect(serve(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)).send(PUT)


# What goes wrong


def test_a_dead_server_is_asked_again(dead_url: str, connect: Connect, waits: list[float]) -> None:
    with pytest.raises(
        ConnectionFailedError, match=r"GET /buckets/b on 127.0.0.1.*nothing was sent.*refused"
    ) as failed:
        connect(dead_url).send(GET)

    assert waits == [0.25, 0.5, 1.0]
    assert type(failed.value.__cause__).__module__.partition(".")[0] in ("requests", "urllib3")


def test_a_host_without_address_is_asked_again(connect: Connect, waits: list[float]) -> None:
    with pytest.raises(ConnectionFailedError, match=r"on kinto.invalid: no connection"):
        connect("http://kinto.invalid").send(GET)

    assert len(waits) == 3


def test_a_server_that_takes_no_connection_is_asked_again(connect: Connect, waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        with pytest.raises(ConnectionFailedError):
            connect(url, timeout=(0.05, 30)).send(GET)

    for each in waiting:
        each.close()
    assert len(waits) == 3


def test_nothing_is_certain_behind_an_adapter_that_retries(dead_url: str, connect: Connect, waits: list[float]) -> None:
    """Only its last attempt is known to have sent nothing."""
    with pytest.raises(ConnectionLostError):
        connect(dead_url, adapter=HTTPAdapter(max_retries=1)).send(PUT)

    assert waits == []


def test_a_dead_proxy_is_asked_again(dead_url: str, connect: Connect, waits: list[float]) -> None:
    proxy = dead_url.replace("http://", f"http://user:{CANARY}@")

    with pytest.raises(ConnectionFailedError) as failed:
        connect("http://kinto.test", proxies={"http": proxy}).send(GET)

    assert len(waits) == 3
    assert CANARY not in str(failed.value)


def test_a_proxy_that_refuses_is_not_asked_again(serve: Serve, connect: Connect, waits: list[float]) -> None:
    proxy = serve(send_and_close(answer(b"", status="407 Who are you")))

    with pytest.raises(FinalConnectionError):
        connect("https://kinto.test", proxies={"https": proxy.url}).send(GET)

    assert waits == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(hang_up, ConnectionLostError, id="closed"),
        pytest.param(send_and_close(b"HTTP/1.1 200 OK\r\nX-Cut: 1"), ConnectionLostError, id="cut-in-headers"),
        pytest.param(send_and_close(b"HTTP/1.1 200 OK\r\n"), ConnectionLostError, id="cut-after-the-status-line"),
        pytest.param(reset, ConnectionLostError, id="reset"),
        pytest.param(send_and_close(answer(b"[1]")[:-2]), ConnectionLostError, id="shorter-than-its-length"),
        pytest.param(send_and_close(chunked(b"[1,", b"2]")), ConnectionLostError, id="last-chunk-missing"),
        pytest.param(send_and_close(chunked(b"[1,2]")[:-4]), ConnectionLostError, id="cut-in-chunk"),
        pytest.param(send_and_close(chunked() + b"what?\r\n"), ConnectionLostError, id="no-chunk-size"),
        pytest.param(answer(gzip.compress(b"[1]")[:-9], "Content-Encoding: gzip"), ConnectionLostError, id="cut-gzip"),
        pytest.param(answer(b"[1]", "Content-Encoding: gzip"), ConnectionLostError, id="no-gzip"),
        pytest.param(
            answer(gzip.compress(b"[1]") + b"more", "Content-Encoding: gzip"), ConnectionLostError, id="more-than-gzip"
        ),
        pytest.param(answer(b"[1]", "Content-Encoding: br"), ProtocolError, id="coding-not-asked-for"),
        pytest.param(send_and_close(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), ProtocolError, id="garbage-status-line"),
        pytest.param(answer(b"", *[f"X-{n}: {'x' * 900}" for n in range(200)]), ProtocolError, id="200-headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, ProtocolError, id="endless-header"),
        pytest.param(answer(b"{}", "Content-Length: 9"), ProtocolError, id="two-lengths"),
    ],
)
def test_a_broken_answer_is_one_of_our_errors(
    serve: Serve, connect: Connect, waits: list[float], script: Script, expected: type[KintoError]
) -> None:
    server = serve(script)

    with pytest.raises(expected, match=f"PUT /buckets/b on {server.host}: the ") as failed:
        connect(server).send(PUT)

    assert type(failed.value) is expected
    assert (len(server.requests), waits) == (1, [])


def test_only_a_write_whose_answer_is_lost_may_have_been_applied(serve: Serve, connect: Connect) -> None:
    server = serve(hang_up)

    with pytest.raises(ConnectionLostError, match="may have applied the request"):
        connect(server).send(PUT)
    with pytest.raises(ConnectionLostError, match="Nothing was to be written: ask again"):
        connect(server).send(GET)


def test_a_connection_is_not_used_again_after_an_error(serve: Serve, connect: Connect) -> None:
    server = serve(answer(bytes(2**20)), answer(b"[1]"))
    transport = connect(server, max_response_bytes=10)

    with pytest.raises(ResponseTooLargeError):
        transport.send(GET)

    assert transport.send(GET).body == b"[1]"
    assert server.connections == 2


def test_a_server_that_never_answers_meets_the_read_timeout(serve: Serve, connect: Connect) -> None:
    started = time.monotonic()

    with pytest.raises(DeadlineError, match=r"took too long. The server may have applied"):
        connect(serve(hang), timeout=(5, 0.05)).send(PUT)

    assert time.monotonic() - started < 15  # the server would take longer


def test_a_server_that_never_answers_meets_the_deadline(serve: Serve, connect: Connect) -> None:
    with pytest.raises(DeadlineError):
        connect(serve(hang), timeout=None, deadline=0.05).send(GET)


def test_a_body_that_stops_meets_the_read_timeout(serve: Serve, connect: Connect) -> None:
    def stop(connection: socket.socket) -> None:
        connection.sendall(answer(b"[1]")[:-1])
        hang(connection)

    with pytest.raises(DeadlineError):
        connect(serve(stop), timeout=(5, 0.05)).send(GET)


@pytest.mark.parametrize("head", [b"Content-Length: 900\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n384\r\n"])
def test_a_dripping_body_meets_the_deadline(serve: Serve, connect: Connect, head: bytes) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head)
        drip(b"x" * 900)(connection)

    started = time.monotonic()

    with pytest.raises(DeadlineError, match="took too long"):
        connect(serve(script), timeout=(5, 5), deadline=0.2).send(GET)

    assert time.monotonic() - started < 15  # the server would take longer


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 200 " + b"O" * 900, id="status-line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 900, id="header"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 90, id="continues"),
    ],
)
def test_a_dripping_head_meets_the_deadline(serve: Serve, connect: Connect, data: bytes) -> None:
    started = time.monotonic()

    with pytest.raises(DeadlineError, match="took too long"):
        connect(serve(drip(data)), timeout=(5, 5), deadline=0.2).send(PUT)

    assert time.monotonic() - started < 15  # the server would take longer


def test_a_dripping_proxy_meets_the_deadline(serve: Serve, connect: Connect) -> None:
    proxy = serve(drip(b"HTTP/1.1 200 " + b"O" * 900))
    started = time.monotonic()

    with pytest.raises(TransportError):
        connect("https://kinto.test", proxies={"https": proxy.url}, timeout=(5, 5), deadline=0.2).send(PUT)

    assert time.monotonic() - started < 15  # the server would take longer


def test_a_socks_proxy_keeps_its_own_pools() -> None:
    adapter, pools = DeadlineAdapter(), PoolManager()
    adapter.proxy_manager["socks5://proxy.test"] = pools
    known = pools.pool_classes_by_scheme

    assert adapter.proxy_manager_for("socks5://proxy.test") is pools
    assert pools.pool_classes_by_scheme is known


def test_the_next_answer_on_a_connection_has_its_own_deadline(serve: Serve, connect: Connect) -> None:
    server = serve(answer(b"1"), answer(b"2"))
    transport = connect(server, deadline=0.3)

    transport.send(GET)
    time.sleep(0.4)

    assert transport.send(GET).body == b"2"
    assert server.connections == 1


def test_an_answer_that_is_read_after_its_deadline_is_late() -> None:
    near, far = socket.socketpair()
    token = answer_deadline.set(time.monotonic())
    with near, far:
        far.sendall(answer())
        late = BoundedResponse(near)

        with pytest.raises(TimeoutError, match="deadline"):
            late.begin()
        late.close()
    answer_deadline.reset(token)


def test_an_answer_may_have_no_deadline() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(answer(b"[1]"))
        on_time = BoundedResponse(near)
        on_time.begin()

        assert on_time.read() == b"[1]"


def test_a_clock_that_is_past_the_deadline_still_gives_a_timeout(serve: Serve, connect: Connect) -> None:
    hours = iter(range(0, 10**6, 3600))

    with pytest.raises((DeadlineError, ConnectionFailedError)):  # who knows that nothing was sent says so
        connect(serve(hang), clock=Clock(lambda: float(next(hours)))).send(GET)


def test_a_large_answer_is_refused(serve: Serve, connect: Connect) -> None:
    with pytest.raises(ResponseTooLargeError, match=r"more than 99 bytes. Ask for less at a time"):
        connect(serve(answer(b"x" * 100)), max_response_bytes=99).send(GET)


def test_an_answer_of_the_largest_size_is_taken(serve: Serve, connect: Connect) -> None:
    assert len(connect(serve(answer(b"x" * 99)), max_response_bytes=99).send(GET).body) == 99


def test_a_gzip_bomb_is_stopped_while_it_unfolds(serve: Serve, connect: Connect) -> None:
    bomb = gzip.compress(bytes(2**30 // 16))
    transport = connect(serve(answer(bomb, "Content-Encoding: gzip")), max_response_bytes=2**20)
    started = time.process_time()

    with pytest.raises(ResponseTooLargeError):
        transport.send(GET)

    assert time.process_time() - started < 0.05


def test_a_redirect_can_be_a_bomb_too(serve: Serve, connect: Connect) -> None:
    server = serve(answer(b"x" * 100, "Location: /v2", status="302 Found"))

    with pytest.raises(ResponseTooLargeError):
        connect(server, max_response_bytes=99).send(GET)


def test_a_header_that_cannot_be_sent_is_a_transport_error(serve: Serve, connect: Connect) -> None:
    server = serve()

    with pytest.raises(TransportError, match="could not be sent"):
        connect(server).send(Request("GET", "/", headers={"If-Match": "1\r\nX-Evil: 1"}))

    assert server.requests == []


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    now = datetime.now(UTC)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        signed.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_certificate_can_be_trusted(serve: Serve, connect: Connect, tls: ssl.SSLContext, certificate: Path) -> None:
    assert connect(serve(tls=tls), verify=str(certificate)).send(GET).status == 200


def test_an_unknown_certificate_is_refused_once(
    serve: Serve, connect: Connect, tls: ssl.SSLContext, waits: list[float]
) -> None:
    server = serve(tls=tls)

    with pytest.raises(FinalConnectionError, match=r"nothing was sent.*certificate verify failed"):
        connect(server).send(PUT)

    assert (server.requests, waits) == ([], [])


def test_a_server_without_tls_got_nothing(connect: Connect, waits: list[float]) -> None:
    class Plain(Server):
        def _serve(self, connection: socket.socket) -> None:
            connection.recv(1)
            connection.sendall(answer(b"what?"))

    with Plain() as server, pytest.raises(FinalConnectionError):
        connect(f"https://{server.host}").send(PUT)

    assert waits == []


def test_a_tls_handshake_without_end_is_tried_again(serve: Serve, connect: Connect, waits: list[float]) -> None:
    server = serve()

    with pytest.raises(ConnectionFailedError):
        connect(f"https://{server.host}", timeout=0.05).send(PUT)

    assert len(waits) == 3


def test_tls_that_breaks_after_the_request_is_a_lost_answer(
    serve: Serve, connect: Connect, tls: ssl.SSLContext, certificate: Path
) -> None:
    def break_record(connection: socket.socket) -> None:
        socket.socket.sendall(connection, b"\x17\x03\x03\x00\x20" + bytes(32))

    server = serve(break_record, tls=tls)

    with pytest.raises(ConnectionLostError):
        connect(server, verify=str(certificate)).send(PUT)

    assert len(server.requests) == 1


def test_a_client_may_have_a_certificate(serve: Serve, connect: Connect, certificate: Path) -> None:
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asking.load_cert_chain(certificate)
    asking.load_verify_locations(certificate)
    asking.verify_mode = ssl.CERT_REQUIRED

    for cert in (str(certificate), (str(certificate), str(certificate))):
        assert connect(serve(tls=asking), verify=str(certificate), cert=cert).send(GET).status == 200


def test_a_proxy_is_asked_for_a_tunnel_to_the_server_and_told_no_more(
    serve: Serve, connect: Connect, tls: ssl.SSLContext, certificate: Path
) -> None:
    came: list[bytes] = []

    def tunnel(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        with tls.wrap_socket(connection, server_side=True) as inner, inner.makefile("rb") as incoming:
            while request := read_request(incoming):
                came.append(request)
                inner.sendall(answer(b"[1]"))

    proxy = serve(tunnel)
    options: dict[str, Any] = {"verify": str(certificate), "auth": ("user", "pass")}
    transport = connect(
        "https://127.0.0.1:9", proxies={"https": proxy.url.replace("http://", "http://me:hush@")}, **options
    )

    assert [transport.send(Request("GET", "/buckets/b", "a='1'")).body for _ in range(2)] == [b"[1]", b"[1]"]
    assert [request.split()[:2] for request in proxy.requests] == [[b"CONNECT", b"127.0.0.1:9"]]
    assert proxy.header("Proxy-Authorization") == "Basic bWU6aHVzaA=="
    assert proxy.header("Authorization") is None
    assert [request.splitlines()[0] for request in came] == [b"GET /v1/buckets/b?a='1' HTTP/1.1"] * 2
    assert not any(b"proxy-authorization" in request.lower() for request in came)


def test_a_session_may_have_a_certificate(
    serve: Serve, connect: Connect, session: requests.Session, certificate: Path
) -> None:
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asking.load_cert_chain(certificate)
    asking.load_verify_locations(certificate)
    asking.verify_mode = ssl.CERT_REQUIRED
    session.cert = session.verify = str(certificate)

    assert connect(serve(tls=asking), session=session).send(GET).status == 200


@pytest.mark.parametrize("cert", ["/no/such/file", (__file__, "/no/such/file"), (__file__,) * 3, 1, b"x"])
def test_a_certificate_has_to_exist(cert: Any) -> None:
    with pytest.raises(ConfigurationError, match="cert is"):
        HttpTransport(WireOptions("https://kinto.test", cert=cert))


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_an_unknown_certificate_can_be_taken(serve: Serve, connect: Connect, tls: ssl.SSLContext) -> None:
    assert connect(serve(tls=tls), verify=False).send(GET).status == 200


def test_a_warning_that_is_an_error_is_one_of_ours(serve: Serve, connect: Connect, tls: ssl.SSLContext) -> None:
    server = serve(tls=tls)

    with pytest.raises(TransportError, match="could not be sent"):
        connect(server, verify=False).send(PUT)

    assert server.requests == []


@pytest.mark.parametrize("verify", ["/no/such/file", None, 1])
def test_a_ca_bundle_has_to_exist(verify: Any) -> None:
    with pytest.raises(ConfigurationError, match="verify is"):
        HttpTransport(WireOptions("https://kinto.test", verify=verify))


# Sessions and adapters of the user


def test_a_session_keeps_its_own_settings(serve: Serve, connect: Connect, session: requests.Session) -> None:
    server = serve()
    session.auth = ("user", "pass")
    session.headers.update({"User-Agent": "mine", "X-Api-Key": "key"})

    connect(server, session=session, headers={"X-Tenant": "a"}).send(PUT)

    assert server.header("Authorization") == "Basic dXNlcjpwYXNz"
    assert [server.header(name) for name in ("User-Agent", "X-Api-Key", "X-Tenant")] == ["mine", "key", "a"]
    assert server.header("Content-Type") == "application/json"


def test_a_session_may_change_between_requests(serve: Serve, connect: Connect, session: requests.Session) -> None:
    server = serve()
    transport = connect(server, session=session)
    transport.send(GET)

    session.headers["Authorization"] = "Bearer renewed"
    transport.send(GET)

    assert server.header("Authorization") == "Bearer renewed"


def test_a_session_without_own_name_gets_ours(serve: Serve, connect: Connect, session: requests.Session) -> None:
    server = serve()

    connect(server, session=session).send(GET)

    assert (server.header("User-Agent") or "").startswith("kinto_orm/")


def test_explicit_auth_wins_over_that_of_the_session(serve: Serve, connect: Connect, session: requests.Session) -> None:
    server = serve()
    session.auth = ("user", "pass")

    connect(server, session=session, auth="Bearer abc").send(GET)

    assert server.header("Authorization") == "Bearer abc"
    assert session.auth == ("user", "pass")


def test_a_session_keeps_its_own_verification(
    serve: Serve, connect: Connect, session: requests.Session, tls: ssl.SSLContext, certificate: Path
) -> None:
    session.verify = str(certificate)

    assert connect(serve(tls=tls), session=session).send(GET).status == 200


def test_explicit_verification_wins_over_that_of_the_session(
    serve: Serve, connect: Connect, session: requests.Session, tls: ssl.SSLContext, certificate: Path
) -> None:
    assert connect(serve(tls=tls), session=session, verify=str(certificate)).send(GET).status == 200


@pytest.mark.parametrize("is_list", [False, True])
def test_a_session_keeps_its_own_hooks(
    serve: Serve, connect: Connect, session: requests.Session, is_list: bool
) -> None:
    seen: list[bytes] = []

    def read(response: requests.Response, **_: object) -> None:
        seen.append(response.content)

    session.hooks["response"] = [read] if is_list else read

    assert connect(serve(), session=session).send(GET).body == b"{}"
    assert seen == [b"{}"]


def test_a_session_of_another_class_makes_its_own_requests(serve: Serve, connect: Connect) -> None:
    class Tenant(requests.Session):
        def request(self, method: str | bytes, url: str | bytes, *args: Any, **options: Any) -> requests.Response:
            options["headers"]["X-Tenant"] = "a"
            return super().request(method, url, *args, **options)

    server = serve()
    with Tenant() as session:
        connect(server, session=session).send(GET)

    assert server.header("X-Tenant") == "a"


def test_a_session_is_never_closed_by_us(serve: Serve, connect: Connect, session: requests.Session) -> None:
    server = serve()
    transport = connect(server, session=session)
    transport.send(GET)

    transport.release()
    transport.close()
    session.get(server.url)

    assert server.connections == 1


def test_session_and_adapter_exclude_each_other(session: requests.Session) -> None:
    with pytest.raises(ConfigurationError, match="mount the adapter on your session"):
        HttpTransport(WireOptions("http://kinto.test", session=session), adapter=HTTPAdapter())


class InProcess(BaseAdapter):
    """Takes the place of the network, as a WSGI application does."""

    def __init__(self, raw: Any, content: bytes | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.headers = headers or {}
        self.raw = raw
        self.content = content
        self.urls: list[str | None] = []
        self.is_closed = False

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        self.urls.append(request.url)
        response = requests.Response()
        response.status_code = 200
        response.raw = self.raw
        response.headers.update(self.headers)
        if self.content is not None:
            response._content = self.content
        return response

    def close(self) -> None:
        self.is_closed = True


def test_an_adapter_takes_the_place_of_the_network(connect: Connect) -> None:
    adapter = InProcess(BytesIO(b"[1]"))

    assert connect("http://kinto.test", adapter=adapter).send(GET).body == b"[1]"
    assert adapter.urls == ["http://kinto.test/v1/buckets/b"]


def test_an_adapter_may_have_read_the_body(connect: Connect) -> None:
    assert connect("http://kinto.test", adapter=InProcess(None, b"[1]")).send(GET).body == b"[1]"


def test_a_file_of_an_adapter_is_not_decoded_twice(connect: Connect) -> None:
    """So do requests, and vcrpy when it plays a compressed answer."""
    adapter = InProcess(BytesIO(b"[1]"), headers={"Content-Encoding": "gzip"})

    assert connect("http://kinto.test", adapter=adapter).send(GET).body == b"[1]"


def test_an_adapter_that_is_no_pool_is_never_closed(connect: Connect) -> None:
    adapter = InProcess(BytesIO())

    connect("http://kinto.test", adapter=adapter).close()

    assert not adapter.is_closed


# The pool, or requests


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(requests.Session, "send", id="as-requests-mock-and-instrumentations"),
        pytest.param(requests.Session, "get_adapter", id="as-requests-mock"),
        pytest.param(HTTPAdapter, "send", id="as-responses"),
        pytest.param(requests.adapters, "TimeoutSauce", id="as-programs-with-timeouts-of-their-own"),
    ],
)
def test_a_patched_function_of_requests_is_called(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    transport = connect(serve())
    transport.send(GET)
    calls: list[str] = []
    patched = getattr(owner, name)

    def spy(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return patched(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, spy)
        transport.send(GET)

        assert calls == [name]

    transport.send(GET)
    assert calls == [name]


def test_connections_of_another_class_are_used(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does vcrpy, whose answers are none of urllib3's."""
    made: list[object] = []

    class Connection(HTTPConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            made.append(self)
            super().__init__(*args, **options)

    monkeypatch.setattr(HTTPConnectionPool, "ConnectionCls", Connection)

    assert connect(serve()).send(GET).status == 200
    assert len(made) == 1


def test_a_function_that_was_patched_before_the_import_is_called(serve: Serve) -> None:
    script = f"""
import functools, requests
send = requests.Session.send

@functools.wraps(send)
def spy(*args, **options):
    print("called")
    return send(*args, **options)

requests.Session.send = spy
from kinto_orm.protocol.messages import Request
from kinto_orm.transport.http import HttpTransport
from kinto_orm.transport.options import WireOptions
transport = HttpTransport(WireOptions({serve().url!r}))
transport.send(Request("GET", "/"))
transport.close()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert run.stdout == "called\n"


@pytest.mark.parametrize(
    ("options", "is_plain"),
    [
        pytest.param({}, True, id="anonymous"),
        pytest.param({"auth": "user:pass"}, True, id="basic"),
        pytest.param({"auth": "Bearer xyz"}, True, id="bearer"),
        pytest.param({"auth": TokenAuth("Bearer xyz")}, False, id="foreign-auth"),
        pytest.param({"auth": requests.auth.HTTPBasicAuth("user", "pass")}, False, id="requests-auth"),
        pytest.param({"proxies": {"ftp": "http://proxy.test"}}, False, id="proxy"),
        pytest.param({"adapter": HTTPAdapter()}, False, id="adapter"),
        pytest.param({"session": requests.Session()}, False, id="session"),
    ],
)
def test_requests_is_left_out_where_nothing_of_the_user_is_in_between(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], is_plain: bool
) -> None:
    prepared: list[object] = []
    build_response = HTTPAdapter.build_response
    monkeypatch.setattr(HTTPAdapter, "build_response", lambda *args: prepared.append(args) or build_response(*args))

    connect(serve(), **options).send(PUT)

    assert (prepared == []) is is_plain


def test_a_pool_that_another_thread_closed_is_replaced(serve: Serve, connect: Connect) -> None:
    server = serve()
    transport = connect(server)
    transport.send(GET)
    wire = vars(transport)["_wire"]
    pool = wire._pool

    transport.release()
    wire._pool = pool  # as by a thread that took it just before

    assert transport.send(GET).status == 200
    assert len(server.requests) == 2


# Life


def test_connections_are_kept(serve: Serve, connect: Connect) -> None:
    server = serve(answer(), answer(), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", answer())
    transport = connect(server)

    for request in (GET, PUT, HEAD, GET):
        transport.send(request)

    assert server.connections == 1


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(serve: Serve, connect: Connect) -> None:
    server = serve(send_and_close(answer()), answer())
    transport = connect(server)
    transport.send(PUT)
    time.sleep(0.05)

    assert transport.send(PUT).status == 200
    assert len(server.requests) == 2


def test_what_the_server_says_unasked_is_no_answer_to_the_next_request(serve: Serve, connect: Connect) -> None:
    server = serve(answer(b"[1]") + answer(b"[9]"), answer(b"[2]"), answer(b"[3]"))
    transport = connect(server)

    assert [transport.send(GET).body for _ in range(3)] == [b"[1]", b"[2]", b"[3]"]


def test_a_released_transport_stays_usable(serve: Serve, connect: Connect) -> None:
    server = serve()
    transport = connect(server)

    transport.send(GET)
    transport.release()
    transport.send(GET)

    assert server.connections == 2


def test_sockets_are_closed_at_once_also_after_a_failed_attempt(serve: Serve, connect: Connect) -> None:
    ended = threading.Event()

    def answer_and_wait(connection: socket.socket) -> None:
        connection.sendall(answer())
        connection.recv(1)
        ended.set()

    transport = connect(serve(hang_up, answer_and_wait))
    gc.disable()  # else the collector may close them
    try:
        transport.send(GET)
        transport.release()

        assert ended.wait(60)
    finally:
        gc.enable()


def test_a_closed_transport_sends_nothing(serve: Serve, connect: Connect) -> None:
    server = serve()
    transport = connect(server)

    transport.close()

    with pytest.raises(ClientClosedError):
        transport.send(GET)
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "error"), [("502 Bad Gateway", ConnectionLostError), ("429 Too Many Requests", ClientClosedError)]
)
def test_a_transport_that_is_closed_between_attempts_says_what_may_be_applied(
    serve: Serve, connect: Connect, status: str, error: type[KintoError]
) -> None:
    server = serve(answer(status=status), answer())
    transport = connect(server, retry_after=0, on_retry=lambda _: transport.close())

    with pytest.raises(error, match="client was closed"):
        transport.send(replace(PUT, is_guarded=True))

    assert len(server.requests) == 1


def test_a_transport_can_be_closed_twice(serve: Serve, connect: Connect) -> None:
    transport = connect(serve())

    transport.close()
    transport.close()


def test_threads_share_a_transport(serve: Serve, connect: Connect) -> None:
    class Echo(Server):
        def _next(self, request: bytes) -> Script:
            return answer(request.split()[1])

    with Echo() as server, ThreadPoolExecutor(8) as pool:
        transport = connect(server)
        answers = list(pool.map(lambda n: transport.send(Request("GET", f"/{n}")).body, range(200)))
        transport.close()

    assert answers == [f"/v1/{n}".encode() for n in range(200)]
    assert server.connections <= 8


@pytest.mark.parametrize(
    "options", [{"max_response_bytes": 0}, {"max_response_bytes": 1.5}, {"max_response_bytes": None}]
)
def test_a_size_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="max_response_bytes is"):
        HttpTransport(WireOptions("https://kinto.test", **options))


def leave(
    url: str, end: Callable[[HttpTransport], None], adapter: BaseAdapter | None = None, **options: Any
) -> list[str]:
    """Return the warnings of a transport that is dropped without being closed."""
    transport = HttpTransport(WireOptions(url, **options), adapter=adapter)
    transport.send(GET)
    end(transport)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del transport
        gc.collect()
    return [str(each.message) for each in told if url.split("/")[2] in str(each.message)]


def nothing(transport: HttpTransport) -> None: ...


def test_a_transport_left_with_open_connections_says_so(serve: Serve) -> None:
    server = serve()

    assert leave(server.url, nothing) == [
        f"A client of {server.host} was left with open connections: use it in a with block, or close() it."
    ]


@pytest.mark.parametrize("end", [HttpTransport.close, HttpTransport.release])
def test_a_transport_that_was_ended_is_left_silently(serve: Serve, end: Callable[[HttpTransport], None]) -> None:
    assert leave(serve().url, end) == []


def test_a_transport_without_a_network_is_left_silently() -> None:
    assert leave("https://kinto.test/v1", nothing, adapter=InProcess(BytesIO(b"[1]"))) == []


def test_a_session_is_not_ours_to_close(serve: Serve, session: requests.Session) -> None:
    assert leave(serve().url, nothing, session=session) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12: the servers here are threads
@pytest.mark.parametrize("kind", ["own", "brought", "adapter"])
def test_a_child_process_does_not_share_sockets(
    serve: Serve, connect: Connect, session: requests.Session, kind: str
) -> None:
    server = serve(answer(b"1"), answer(b"2"), answer(b"3"))
    transport = connect(server, **pools(kind, session))
    transport.send(GET)

    in_child = run_in_child(lambda: transport.send(GET).body)

    assert in_child == b"2"
    assert server.connections == 2
    assert transport.send(GET).body == b"3"
    assert server.connections == 2


@pytest.mark.parametrize("kind", ["own", "brought", "adapter"])
def test_another_process_is_known_by_its_id(
    serve: Serve, connect: Connect, session: requests.Session, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulate the fork inside this process, where coverage sees it."""
    server = serve()
    transport = connect(server, **pools(kind, session))
    transport.send(GET)

    monkeypatch.setattr(os, "getpid", lambda: 1)

    assert [transport.send(GET).status for _ in range(2)] == [200, 200]
    assert server.connections == 2


def pools(kind: str, session: requests.Session) -> dict[str, Any]:
    if kind == "own":
        return {}
    return {"session": session} if kind == "brought" else {"adapter": HTTPAdapter()}


def run_in_child(action: Callable[[], bytes]) -> bytes:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover  coverage ends where the process does
        try:
            os.write(writer, action())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as result:
        os.waitpid(child, 0)
        return result.read()


# What is told


def test_every_exchange_is_told(serve: Serve, connect: Connect) -> None:
    events: list[ResponseEvent] = []
    transport = connect(serve(answer(status="404 Not Found")), on_response=events.append)

    transport.send(Request("GET", "/buckets/b", "_limit=1"))

    (event,) = events
    assert (event.method, event.target, event.status, event.attempt) == ("GET", "/buckets/b?_limit=1", 404, 1)
    assert 0 < event.elapsed_ms < 5000


def test_an_exchange_without_answer_is_told_too(dead_url: str, connect: Connect) -> None:
    events: list[ResponseEvent] = []

    with pytest.raises(ConnectionFailedError):
        connect(dead_url, on_response=events.append).send(GET)

    assert [(event.status, event.attempt) for event in events] == [(None, 1), (None, 2), (None, 3), (None, 4)]


def test_a_failing_observer_does_not_hide_the_answer(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: ResponseEvent) -> None:
        raise RuntimeError("observer")

    assert connect(serve(), on_response=fail).send(PUT).status == 200
    assert "The hook for a ResponseEvent failed" in caplog.text


def test_an_exchange_is_one_line_of_the_log(serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="kinto_orm")

    connect(serve(answer(b'{"data":1}'))).send(Request("PUT", "/buckets/b", "token=1", {}, b'{"data":2}'))

    (line,) = [record.getMessage() for record in caplog.records if record.name == "kinto_orm"]
    assert line.startswith("PUT /buckets/b: 200, ") and line.endswith(" ms, attempt 1")


def test_bodies_are_logged_on_demand_without_secrets(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="kinto_orm")
    server = serve(
        answer(b'{"details":{"existing":{"note":"theirs"}},"token":"t0k3n"}', status="412 Precondition Failed")
    )

    connect(server, log_bodies=True).send(Request("PUT", "/accounts/a", body=b'{"data":{"password":"p4ss","n":1}}'))

    assert [record.getMessage() for record in caplog.records if record.name == "kinto_orm"][1] == (
        'PUT /accounts/a: {"data": {"password": "***", "n": 1}} -> {"details": {"existing": "***"}, "token": "***"}'
    )


def test_bodies_that_never_came_are_logged_as_nothing(
    dead_url: str, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="kinto_orm")

    with pytest.raises(ConnectionFailedError):
        connect(dead_url, log_bodies=True, retry=0).send(GET)

    assert caplog.records[-1].getMessage() == "GET /buckets/b: nothing -> nothing"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", "nothing", id="nothing"),
        pytest.param(b"\xff", "1 bytes that are not JSON", id="no-text"),
        pytest.param(b"[" * 100_000, "100000 bytes that are not JSON", id="deep"),
        pytest.param(
            b'[{"op":"add","path":"/data/password","value":"p4ss"}]',
            '[{"op": "add", "path": "/data/password", "value": "***"}]',
            id="patch",
        ),
        pytest.param(b'{"existing":1,"Api-Key":{"a":1}}', '{"existing": 1, "Api-Key": "***"}', id="keys"),
    ],
)
def test_a_body_is_shown_without_secrets(body: bytes, expected: str) -> None:
    assert redacted(body) == expected


def test_a_long_body_is_cut() -> None:
    shown = redacted(b'"' + b"x" * 10_000 + b'"')

    assert len(shown) < 2100
    assert shown.endswith("… (10002 bytes)")


def test_every_retry_is_a_warning(dead_url: str, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConnectionFailedError):
        connect(dead_url).send(GET)

    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert warnings[0].endswith(": ConnectionFailedError in attempt 1, again in 0.25 s")


@pytest.mark.parametrize("script", [hang_up, hang, b"garbage\r\n", answer(b"[1]", "Content-Encoding: gzip")])
@pytest.mark.parametrize("proxies", [{}, {"https": f"http://user:{CANARY}@proxy.test"}], ids=["direct", "proxy"])
def test_secrets_do_not_show(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, script: Script, proxies: dict[str, str]
) -> None:
    caplog.set_level(logging.DEBUG)
    transport = connect(
        serve(script),
        auth=("user", CANARY),
        headers={"X-Api-Key": CANARY},
        proxies=proxies,
        timeout=(1, 0.05),
    )

    with pytest.raises(KintoError) as failed:
        transport.send(PUT)

    assert failed.value.__cause__ is not None
    inside = [vars(transport), vars(vars(transport)["_wire"]), shown_with(failed.value)]
    assert not any(form in f"{transport} {transport!r} {inside} {caplog.text}" for form in FORMS)


def test_a_proxy_that_cannot_be_shows_no_secret(connect: Connect) -> None:
    with pytest.raises(TransportError) as failed:
        connect("https://kinto.test", proxies={"https": f"http://user:{CANARY}@[proxy"}).send(PUT)

    assert CANARY not in shown_with(failed.value)


FORMS = (CANARY, b64encode(f"user:{CANARY}".encode()).decode())


def shown_with(error: BaseException) -> str:
    """All that an error shows to who looks into it and its causes: attributes, and the variables of their frames."""
    shown: list[str] = []
    seen: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        if any(one is other for other in seen):
            continue
        seen.append(one)
        frames = [frame for frame, _ in traceback.walk_tb(one.__traceback__) if frame.f_code.co_filename != __file__]
        shown.append(f"{one} {one!r} {vars(one)} {one.args} {[frame.f_locals for frame in frames]}")
        inside = (one.__cause__, one.__context__, *one.args, *vars(one).values())
        left += [other for other in inside if isinstance(other, BaseException)]
    return "\n".join(shown)


def test_a_transport_cannot_be_pickled(connect: Connect) -> None:
    with pytest.raises(InvalidTypeError, match="cannot be pickled"):
        pickle.dumps(connect("http://kinto.test"))


def test_a_transport_says_where_it_sends(connect: Connect) -> None:
    transport = connect("https://kinto.test/", auth="user:pass")

    assert transport.server_url == "https://kinto.test/v1"
    assert repr(transport) == "HttpTransport('https://kinto.test/v1')"
