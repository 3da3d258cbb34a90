"""Logging in with a browser, by OpenID Connect.

https://docs.kinto-storage.org/en/stable/api/1.x/authentication.html#openid-connect
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
import webbrowser
from base64 import b64decode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlencode

import requests
from requests import PreparedRequest

from kinto_orm.errors import ConfigurationError, LoginFailedError
from kinto_orm.transport.auth import BearerTokenAuth, SecretAuth, anonymous, own_headers
from kinto_orm.transport.requests_errors import FOREIGN_ERRORS
from kinto_orm.transport.token_refresh import TokenStore

SCOPE = "openid email"
_ROOT = re.compile(r"https?://[^/?#]+(?:/[^/?#]+)*?/v\d+(?=[/?#]|\Z)")
_PAGE = b"<html><body><h1>Login successful</h1>You can close this page.</body></html>"


class BrowserOAuth(SecretAuth):
    """Credentials from a login in the browser, asked for at the first request and kept as long as this object lives.

    ``provider`` is the name of one that the server knows; without it, the first one. ``timeout`` is how long to wait
    for the login, in seconds; ``open_browser`` opens an URL, by default in the user's browser. Each server gets its own
    login, so one object serves several clients; a token that has run out (401) takes another one. The token comes to
    a port that listens on this machine only, for one request, and only with the random state of this login.
    Raises ``LoginFailedError`` where there is no login: the request itself is not sent then.
    https://docs.kinto-storage.org/en/stable/api/1.x/authentication.html#openid-connect
    """

    def __init__(
        self, provider: str | None = None, *, timeout: float = 120, open_browser: Callable[[str], object] | None = None
    ) -> None:
        is_number = isinstance(cast(object, timeout), int | float) and not isinstance(cast(object, timeout), bool)
        if not is_number or not 0 < timeout < math.inf:
            raise ConfigurationError(f"timeout is seconds above 0, not {timeout!r:.60}.")
        if provider is not None and not isinstance(cast(object, provider), str):
            raise ConfigurationError(f"provider is the name of one, not of type {type(provider).__name__}.")
        if open_browser is not None and not callable(open_browser):
            raise ConfigurationError("open_browser is a function that takes an URL.")
        self.provider = provider
        self._timeout = timeout
        self._open_browser = webbrowser.open if open_browser is None else open_browser
        self._tokens = TokenStore()

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """The request, with the token of its server."""
        root = _root(r)
        return self._tokens.get(root, lambda: self._log_in(root))(r)

    def renew(self, refused: PreparedRequest) -> bool:
        """Whether the next request may have another token; see :class:`kinto_orm.transport.token_refresh.Renewable`."""
        self._tokens.refuse(_root(refused), refused)
        return True

    def __repr__(self) -> str:
        return f"BrowserOAuth({self.provider!r})"

    def _log_in(self, root: str) -> BearerTokenAuth:
        path = self._login_path(root)
        with _Listener(self._timeout) as listener:
            query = urlencode({"callback": listener.callback, "scope": SCOPE})
            self._open(f"{root}{path}?{query}")
            return _credentials(listener.wait())

    def _open(self, url: str) -> None:
        try:
            is_open = self._open_browser(url)
        except webbrowser.Error:
            is_open = False
        if is_open is False:  # what webbrowser says; other functions may say nothing
            raise LoginFailedError("No browser could be opened: give open_browser, a function that opens an URL.")

    def _login_path(self, root: str) -> str:
        """Where the provider's login begins, below the root."""
        try:
            answer = requests.get(f"{root}/", headers=own_headers(), auth=anonymous, timeout=30, allow_redirects=False)
            providers = answer.json()["capabilities"]["openid"]["providers"]
            paths: dict[str, str] = {str(one["name"]): str(one["auth_path"]) for one in providers}
        except FOREIGN_ERRORS as error:
            raise LoginFailedError(f"{root} was asked how to log in: {type(error).__name__}.") from error
        except (KeyError, TypeError) as error:
            raise LoginFailedError(f"{root} has no login by OpenID: its plugin `openid` is not there.") from error
        name = next(iter(paths), None) if self.provider is None else self.provider
        if name not in paths:
            raise LoginFailedError(f"{root} has no login by {self.provider!r}, only by: {', '.join(paths) or 'none'}.")
        return paths[name]


def _root(request: PreparedRequest) -> str:
    """The root URL of the server that the request goes to."""
    root = _ROOT.match(request.url or "")
    if root is None:
        raise LoginFailedError(f"{request.url!r:.200} is no URL of a Kinto server.")
    return root[0]


class _Listener(TCPServer):
    """Waits on a random port of this machine for the one request that brings the token."""

    def __init__(self, timeout: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path = f"/auth/{secrets.token_urlsafe(32)}/"
        self.brought: str | None = None
        self._deadline = time.monotonic() + timeout

    @property
    def callback(self) -> str:
        """Where the server shall send the browser in the end."""
        return f"http://127.0.0.1:{self.server_address[1]}{self.path}"

    def wait(self) -> str:
        """What the request brought."""
        while self.brought is None:
            self.timeout = self._deadline - time.monotonic()
            if self.timeout <= 0:
                raise LoginFailedError("Nobody logged in within the time: call again to open another page.")
            self.handle_request()
        return self.brought

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Does nothing: what another program sends here is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 5  # seconds for a connection that says nothing

    def do_GET(self) -> None:
        """Takes what the browser brings, if it knows the state."""
        server = self.server
        assert isinstance(server, _Listener)
        is_ours = self.path.startswith(server.path)
        if is_ours:
            server.brought = self.path.removeprefix(server.path)  # first: a browser may hang up before it has the page
        self.send_response(200 if is_ours else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        if is_ours:
            self.wfile.write(_PAGE)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name in http.server
        """Does nothing: the path holds the token."""


def _credentials(brought: str) -> BearerTokenAuth:
    """The credentials in the last segment of the callback's path."""
    text = unquote(brought)
    if text.startswith("error="):
        said = dict(parse_qsl(text))
        raise LoginFailedError(f"The login was refused: {said.get('error_description') or said['error']!r:.200}.")
    try:
        token = json.loads(b64decode(text.translate({45: "+", 95: "/"}) + "==="))
        return BearerTokenAuth(token["access_token"], type=token["token_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise LoginFailedError(f"The login brought no token: {type(error).__name__}.") from None
