"""Logging in by OpenID: Kinto's own plugin, a stub of the provider, and a stub of the browser."""

from __future__ import annotations

import json
import pickle
import re
import socket
import struct
import time
import webbrowser
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from openid_stub import TOKEN, Browser, callback, fetch, openid_provider
from scripted_server import Serve, said

from kinto_orm import BrowserOAuth, Client
from kinto_orm.errors import ConfigurationError, ConnectionFailedError, InvalidTypeError
from kinto_orm.server import EmbeddedServer, listening


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The root URL of a Kinto whose users log in at the provider."""
    with openid_provider() as settings, EmbeddedServer.memory(**settings) as server, listening(server) as url:
        yield url


def log_in(url: str, auth: BrowserOAuth, times: int = 1) -> list[str]:
    """Return the user of each request, as the server names it."""
    with Client(url, auth=auth, retry_after=0.001) as client:
        return [client.server_info(refresh=True)["user"]["id"] for _ in range(times)]


def test_the_first_request_logs_in_and_the_next_ones_are_of_that_user(url: str) -> None:
    browser = Browser()
    users = log_in(url, BrowserOAuth("stub", timeout=10, open_browser=browser), times=2)
    browser.wait()

    assert users == ["stub:alexis"] * 2
    assert len(browser.opened) == 1
    assert callback(browser.opened[0]).startswith("http://127.0.0.1:")


def test_each_login_has_a_state_of_its_own(url: str) -> None:
    browser = Browser()

    for _ in range(2):
        log_in(url, BrowserOAuth(timeout=10, open_browser=browser))
    browser.wait()

    first, second = (callback(opened).split("/")[-2] for opened in browser.opened)
    assert first != second
    assert len(first) >= 43


def test_only_who_knows_the_state_brings_a_token(url: str) -> None:
    statuses: list[int] = []
    forged = quote(b64encode(json.dumps({"access_token": "evil", "token_type": "Bearer"}).encode()).decode())

    class Attacked(Browser):
        def follow(self, url: str) -> None:
            port = urlsplit(callback(url)).port
            paths = ("/favicon.ico", f"/auth/{forged}", f"/auth/guess/{forged}")
            statuses.extend(fetch(f"http://127.0.0.1:{port}{path}") for path in paths)
            super().follow(url)

    browser = Attacked()
    users = log_in(url, BrowserOAuth(timeout=10, open_browser=browser))
    browser.wait()

    assert statuses == [404, 404, 404]
    assert users == ["stub:alexis"]


def test_a_browser_that_hangs_up_at_once_has_brought_the_token(url: str) -> None:
    class Hasty(Browser):
        def follow(self, url: str) -> None:
            token = quote(b64encode(json.dumps({"access_token": TOKEN, "token_type": "Bearer"}).encode()).decode())
            where = urlsplit(callback(url))
            with socket.create_connection((where.hostname or "", where.port or 0), timeout=60) as connection:
                connection.sendall(f"GET {where.path}{token} HTTP/1.0\r\n\r\n".encode())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # by a reset

    browser = Hasty()
    users = log_in(url, BrowserOAuth(timeout=5, open_browser=browser))
    browser.wait()

    assert users == ["stub:alexis"]


def failing(url: str, **options: Any) -> str:
    """Return the message of a login that fails."""
    with pytest.raises(ConnectionFailedError) as caught:
        log_in(url, BrowserOAuth(**{"timeout": 5, **options}))
    return str(caught.value)


def test_a_login_that_does_not_come_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def pass_the_time(_: str) -> None:
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 200)
        monkeypatch.setattr("kinto_orm.transport.browser.time", later)

    assert "within the time" in failing(url, timeout=60, open_browser=pass_the_time)


@pytest.mark.parametrize(
    "brought", ["", "no-base64!", quote(b64encode(b"[]").decode()), quote(b64encode(b"{}").decode())]
)
def test_what_is_no_token_is_refused(url: str, brought: str) -> None:
    browser = Browser(lambda url: callback(url) + brought)

    assert "no token" in failing(url, open_browser=browser)
    browser.wait()


def test_a_refusal_of_the_provider_is_told(url: str) -> None:
    browser = Browser(lambda url: callback(url) + "error=access_denied&error_description=No+way")

    assert "No way" in failing(url, open_browser=browser)
    browser.wait()


def test_an_unknown_provider_is_told(url: str) -> None:
    assert "only by: stub" in failing(url, provider="other")


def test_a_server_without_openid_is_told(kinto_server: EmbeddedServer) -> None:
    with listening(kinto_server) as url:
        assert "plugin `openid`" in failing(url)


def test_a_server_that_is_not_there_is_told() -> None:
    assert "asked how to log in" in failing("http://127.0.0.1:9/v1")


def test_nothing_of_a_login_is_shown() -> None:
    auth = BrowserOAuth("stub")

    assert repr(auth) == "BrowserOAuth('stub')"
    with pytest.raises(InvalidTypeError, match="never pickled"):
        pickle.dumps(auth)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"provider": 1}, "provider"),
        ({"open_browser": "firefox"}, "open_browser"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        BrowserOAuth(**options)


def test_nobody_is_asked_to_log_in_where_the_token_could_be_read_by_all() -> None:
    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        Client("http://kinto.example.com/v1", auth=BrowserOAuth())


def no_browser(url: str) -> bool:
    raise webbrowser.Error("could not locate runnable browser")


@pytest.mark.parametrize("open_browser", [no_browser, lambda url: False])
def test_without_a_browser_nobody_waits(url: str, open_browser: Any) -> None:
    assert "No browser could be opened" in failing(url, open_browser=open_browser, timeout=60)


def test_a_provider_without_a_login_page_is_told(serve: Serve) -> None:
    kinto = serve(said({"capabilities": {"openid": {"providers": [{"name": "stub"}]}}}))

    assert "no login by OpenID" in failing(kinto.url)


def test_the_question_for_the_providers_takes_no_password_from_netrc(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login alexis password s3cr3t\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    kinto = serve(said({"capabilities": {}}))

    failing(kinto.url)

    assert header(kinto.requests[0]) is None


def test_a_request_to_something_else_is_refused() -> None:
    import requests

    prepared = requests.Request("GET", "http://example.com/page").prepare()

    with pytest.raises(ConnectionFailedError, match="no URL of a Kinto server"):
        BrowserOAuth()(prepared)


def test_a_token_that_has_run_out_takes_another_login(url: str, serve: Serve) -> None:
    refused = said({"code": 401, "errno": 104, "error": "Unauthorized"}, "401 Unauthorized")
    root = said({"capabilities": {"openid": {"providers": [{"name": "stub", "auth_path": "/login"}]}}})
    kinto = serve(root, said({"data": []}), refused, root, said({"data": []}))
    brought = iter(["first", "second"])
    browser = Browser(lambda url: callback(url) + token(next(brought)))

    with Client(kinto.url, auth=BrowserOAuth(timeout=10, open_browser=browser)) as client:
        for _ in range(2):
            assert client.buckets.all() == []
    browser.wait()

    assert [header(one) for one in kinto.requests] == [None, "Bearer first", "Bearer first", None, "Bearer second"]


def token(access_token: str) -> str:
    """Return a provider's token, in the form of the URL that brings it."""
    return quote(b64encode(json.dumps({"access_token": access_token, "token_type": "Bearer"}).encode()).decode())


def header(request: bytes) -> str | None:
    found = re.search(rb"\r\nAuthorization: (.*)\r\n", request)
    return None if found is None else found[1].decode()
