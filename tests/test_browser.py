"""Logging in by OpenID: Kinto's own plugin, a stub of the provider, and a stub of the browser."""

from __future__ import annotations

import json
import pickle
import threading
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from kinto_orm import Client
from kinto_orm.errors import ConfigurationError, ConnectionFailedError, InvalidTypeError
from kinto_orm.server import EmbeddedServer, listening
from kinto_orm.transport.browser import BrowserOAuth

TOKEN = "a-token-of-the-provider"


class Provider(BaseHTTPRequestHandler):
    """An OpenID provider where everybody is logged in already."""

    def do_GET(self) -> None:
        url = f"http://{self.headers['Host']}"
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        path = urlsplit(self.path).path
        if path == "/authorize":
            self.send_response(302)
            outcome = "error=access_denied&error_description=No+way" if query["scope"] == "denied" else "code=42"
            self.send_header("Location", f"{query['redirect_uri']}?{outcome}&state={query['state']}")
            self.end_headers()
            return
        if path == "/userinfo" and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.send_error(401)
            return
        names = {"authorization": "authorize", "token": "token", "userinfo": "userinfo"}
        config = {f"{name}_endpoint": f"{url}/{page}" for name, page in names.items()}
        self.say({"sub": "alexis"} if path == "/userinfo" else {"issuer": url, "jwks_uri": f"{url}/jwks", **config})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.say({"access_token": TOKEN, "token_type": "Bearer"})

    def say(self, content: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The root URL of a Kinto whose users log in at the provider."""
    provider = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=provider.serve_forever, args=(0.01,), daemon=True).start()
    settings = {
        "includes": "kinto.plugins.default_bucket kinto.plugins.openid",
        "multiauth.policies": "stub",
        "multiauth.policy.stub.use": "kinto.plugins.openid.OpenIDConnectPolicy",
        "multiauth.policy.stub.issuer": f"http://127.0.0.1:{provider.server_address[1]}",
        "multiauth.policy.stub.client_id": "kinto",
        "multiauth.policy.stub.client_secret": "secret",
    }
    with EmbeddedServer.memory(**settings) as server, listening(server) as url:
        yield url
    provider.shutdown()
    provider.server_close()


class Browser:
    """A browser that follows redirects, in a thread of its own."""

    def __init__(self, change: Callable[[str], str] = lambda url: url) -> None:
        self.opened: list[str] = []
        self.change = change
        self.threads: list[threading.Thread] = []

    def __call__(self, url: str) -> None:
        self.opened.append(url)
        self.threads.append(threading.Thread(target=self.follow, args=(self.change(url),)))
        self.threads[-1].start()

    def follow(self, url: str) -> None:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as page:
            page.read()

    def wait(self) -> None:
        for thread in self.threads:
            thread.join()


def log_in(url: str, auth: BrowserOAuth, times: int = 1) -> list[str]:
    """The user, as the server says it each time."""
    with Client(url, auth=auth) as client:
        return [client.server_info(refresh=True)["user"]["id"] for _ in range(times)]


def callback(opened: str) -> str:
    return parse_qs(urlsplit(opened).query)["callback"][0]


def fetch(url: str) -> int:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as page:
            return int(page.status)
    except HTTPError as error:
        error.close()
        return error.code


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


def failing(url: str, **options: Any) -> str:
    """What a login that fails says."""
    with pytest.raises(ConnectionFailedError) as caught:
        log_in(url, BrowserOAuth(**{"timeout": 5, **options}))
    return str(caught.value)


def test_a_login_that_does_not_come_is_given_up(url: str) -> None:
    assert "within the time" in failing(url, timeout=0.05, open_browser=lambda url: None)


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


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        BrowserOAuth(timeout=0)


def test_a_request_to_something_else_is_refused() -> None:
    import requests

    prepared = requests.Request("GET", "http://example.com/page").prepare()

    with pytest.raises(ConnectionFailedError, match="no URL of a Kinto server"):
        BrowserOAuth()(prepared)
