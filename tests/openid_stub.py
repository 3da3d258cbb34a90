"""An OpenID provider, the Kinto that trusts it, and a browser: what a login by OpenID needs, on this machine."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

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


@contextmanager
def openid_provider() -> Iterator[dict[str, Any]]:
    """Run a provider until the block ends, and yield the settings of a Kinto whose users log in there."""
    provider = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=provider.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield {
            "includes": "kinto.plugins.default_bucket kinto.plugins.openid",
            "multiauth.policies": "stub",
            "multiauth.policy.stub.use": "kinto.plugins.openid.OpenIDConnectPolicy",
            "multiauth.policy.stub.issuer": f"http://127.0.0.1:{provider.server_address[1]}",
            "multiauth.policy.stub.client_id": "kinto",
            "multiauth.policy.stub.client_secret": "secret",
        }
    finally:
        provider.shutdown()
        provider.server_close()
        thread.join()


class Browser:
    """A browser that follows redirects, in a thread."""

    def __init__(self, change: Callable[[str], str] = lambda url: url) -> None:
        self.opened: list[str] = []
        self.change = change
        self.threads: list[threading.Thread] = []

    def __call__(self, url: str) -> None:
        self.opened.append(url)
        self.threads.append(threading.Thread(target=self.follow, args=(self.change(url),)))
        self.threads[-1].start()

    def follow(self, url: str) -> None:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as page:
            page.read()

    def wait(self) -> None:
        for thread in self.threads:
            thread.join()


def callback(opened: str) -> str:
    return parse_qs(urlsplit(opened).query)["callback"][0]


def fetch(url: str) -> int:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as page:
            return int(page.status)
    except HTTPError as error:
        error.close()
        return error.code
