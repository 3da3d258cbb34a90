"""O05: logins are served side by side, with one deadline, and by the transport of the client."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
import tracemalloc
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from scripted_server import Serve, answer, drip, hang, one, said

from kinto_orm import BrowserOAuth, LoginFailedError
from kinto_orm.protocol.messages import Request
from kinto_orm.transport.http import HttpTransport
from kinto_orm.transport.options import WireOptions


def logging_in(act: Callable[[str], object], **options: Any) -> BrowserOAuth:
    """Return credentials whose browser does that with the callback."""

    def browse(url: str) -> None:
        callback = parse_qs(urlsplit(url).query)["callback"][0]
        threading.Thread(target=act, args=(callback,), daemon=True).start()

    return BrowserOAuth(open_browser=browse, **options)


PROVIDERS = said({"capabilities": {"openid": {"providers": [{"name": "p", "auth_path": "/openid/p/login"}]}}})
TOKEN = b64encode(json.dumps({"access_token": "t0", "token_type": "Bearer"}).encode()).decode()


def bring(callback: str) -> None:
    requests.get(callback + TOKEN, timeout=60)


def address_of(callback: str) -> tuple[str, int]:
    parts = urlsplit(callback)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def test_o05_silent_connections_keep_nobody_out(serve: Serve) -> None:
    held: list[socket.socket] = []

    def act(callback: str) -> None:
        held.extend(socket.create_connection(address_of(callback)) for _ in range(5))
        bring(callback)

    server = serve(PROVIDERS, one("b"))
    with contextlib.closing(HttpTransport(WireOptions(server.url, auth=logging_in(act, timeout=60)))) as transport:
        started = time.monotonic()
        assert transport.send(Request("GET", "/buckets/b")).status == 200
        assert time.monotonic() - started < 30

    assert server.header("Authorization") == "Bearer t0"
    for each in held:
        each.close()


def test_o05_a_dripping_connection_meets_the_deadline(serve: Serve) -> None:
    def act(callback: str) -> None:
        with contextlib.suppress(OSError), socket.create_connection(address_of(callback)) as connection:
            drip(b"GET /" + b"x" * 900)(connection)

    started = time.monotonic()
    transport = HttpTransport(WireOptions(serve(PROVIDERS).url, auth=logging_in(act, timeout=0.4)))
    with contextlib.closing(transport), pytest.raises(LoginFailedError):
        transport.send(Request("GET", "/buckets/b"))

    assert time.monotonic() - started < 15  # to read all of it takes longer


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(drip(PROVIDERS), id="dripping"),
        pytest.param(hang, id="silent"),
        pytest.param(answer(gzip.compress(bytes(50_000_000)), "Content-Encoding: gzip"), id="bomb"),
        pytest.param(answer(b"[" * 100_000), id="deep"),
        pytest.param(answer(b'{"capabilities": {"openid": {"providers": 5}}}'), id="no-list"),
    ],
)
def test_o05_the_providers_are_asked_by_the_transport_of_the_client(serve: Serve, script: Any) -> None:
    auth = logging_in(bring, timeout=0.2)
    transport = HttpTransport(WireOptions(serve(script).url, auth=auth, max_response_bytes=1_000_000))
    started = time.monotonic()
    tracemalloc.start()

    with contextlib.closing(transport), pytest.raises(LoginFailedError):
        transport.send(Request("GET", "/buckets/b"))

    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert time.monotonic() - started < 15


def test_o05_a_login_by_a_proxy(serve: Serve) -> None:
    proxy = serve(PROVIDERS, one("b"))
    options = {"proxies": {"http": proxy.url}, "allow_insecure": True}
    with contextlib.closing(
        HttpTransport(WireOptions("http://kinto.test", auth=logging_in(bring), **options))
    ) as transport:
        assert transport.send(Request("GET", "/buckets/b")).status == 200

    assert [request.split()[1] for request in proxy.requests] == [
        b"http://kinto.test/v1/",
        b"http://kinto.test/v1/buckets/b",
    ]
