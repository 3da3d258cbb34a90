"""Logging in with a browser, by OpenID Connect.

https://docs.kinto-storage.org/en/stable/api/1.x/authentication.html#openid-connect
"""

from __future__ import annotations

import json
import math
import re
import secrets
import socket
import time
import webbrowser
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, TypeAlias, cast
from urllib.parse import parse_qsl, unquote, urlencode

from requests import PreparedRequest

from kinto_orm.errors import ConfigurationError, KintoError, LoginFailedError
from kinto_orm.protocol.json_values import decode, say_value
from kinto_orm.protocol.messages import Response
from kinto_orm.transport.auth import BearerTokenAuth, SecretAuth
from kinto_orm.transport.http import ask_anonymously
from kinto_orm.transport.options import WireOptions
from kinto_orm.transport.token_refresh import TokenStore

Ask: TypeAlias = Callable[[float], Response]
"""Asks a server what it says of itself, within so many seconds."""

SCOPE = "openid email"
_ROOT = re.compile(r"https?://[^/?#]+(?:/[^/?#]+)*?/v\d+(?=[/?#]|\Z)")
_PAGE = b"<html><body><h1>Login successful</h1>You can close this page.</body></html>"


class BrowserOAuth(SecretAuth):
    """Credentials from a login in the browser, asked for at the first request and kept as long as this object lives.

    ``provider`` is the name of one of the server's providers; the default is the first one. ``timeout`` is the longest
    wait for the login, in seconds; ``open_browser`` opens a URL, by default in the user's browser. Each server gets a
    separate login, so one object serves several clients; an expired token (401) causes another login. The token arrives
    at a port that listens on this machine only, for one request, and only with the random state of this login. The
    object's client asks the server how to log in, by its transport. Raises ``LoginFailedError`` where there is no
    login: the request itself is not sent then.
    https://docs.kinto-storage.org/en/stable/api/1.x/authentication.html#openid-connect
    """

    def __init__(
        self, provider: str | None = None, *, timeout: float = 120, open_browser: Callable[[str], object] | None = None
    ) -> None:
        is_number = isinstance(cast(object, timeout), int | float) and not isinstance(cast(object, timeout), bool)
        if not is_number or not 0 < timeout < math.inf:
            raise ConfigurationError(f"timeout is seconds above 0, not {say_value(timeout)}.")
        if provider is not None and not isinstance(cast(object, provider), str):
            raise ConfigurationError(f"provider is the name of one, not of type {type(provider).__name__}.")
        if open_browser is not None and not callable(open_browser):
            raise ConfigurationError("open_browser is a function that takes an URL.")
        self.provider = provider
        self._timeout = timeout
        self._open_browser = webbrowser.open if open_browser is None else open_browser
        self._tokens = TokenStore()
        self._ask_by: dict[str, Ask] = {}

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Return the request with the token of its server."""
        root = _root(r)
        return self._tokens.get(root, lambda: self._log_in(root))(r)

    def __kinto_use_server__(self, root: str, ask: Ask) -> None:
        """Ask the server at this root URL by ``ask``; a client calls this, so that its own transport is used."""
        self._ask_by[root] = ask

    def renew(self, refused: PreparedRequest) -> bool:
        """Drop the token; see :class:`kinto_orm.transport.token_refresh.Renewable`."""
        self._tokens.refuse(_root(refused), refused)
        return True

    def __repr__(self) -> str:
        return f"BrowserOAuth({self.provider!r})"

    def _log_in(self, root: str) -> BearerTokenAuth:
        deadline = time.monotonic() + self._timeout
        path = self._login_path(root, self._timeout)
        with _Listener(deadline) as listener:
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

    def _login_path(self, root: str, seconds: float) -> str:
        """Return the path of the provider's login, below the root."""
        ask = self._ask_by.get(root) or partial(ask_anonymously, WireOptions(root))
        try:
            answer = ask(seconds)
            described: Any = decode(answer.body, root)
            providers: Any = described["capabilities"]["openid"]["providers"]
            paths: dict[str, str] = {str(one["name"]): str(one["auth_path"]) for one in providers}
        except KintoError as error:
            raise LoginFailedError(f"{root} was asked how to log in: {type(error).__name__}.") from error
        except (KeyError, TypeError) as error:
            raise LoginFailedError(f"{root} has no login by OpenID: its plugin `openid` is not there.") from error
        name = next(iter(paths), None) if self.provider is None else self.provider
        if name not in paths:
            raise LoginFailedError(f"{root} has no login by {self.provider!r}, only by: {', '.join(paths) or 'none'}.")
        return paths[name]


def _root(request: PreparedRequest) -> str:
    """Return the root URL of the request's server."""
    root = _ROOT.match(request.url or "")
    if root is None:
        raise LoginFailedError(f"{request.url!r:.200} is no URL of a Kinto server.")
    return root[0]


MOST_CONNECTIONS = 64
"""Connections that are served at a time; further ones are closed."""


class _Listener(ThreadingMixIn, TCPServer):
    """Listener on a random port of this machine for the one request that brings the token.

    Connections are served side by side, so that a silent one blocks no other, and end with the deadline.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, deadline: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path = f"/auth/{secrets.token_urlsafe(32)}/"
        self.brought: str | None = None
        self._deadline = deadline
        self._open: set[Any] = set()

    @property
    def callback(self) -> str:
        """The URL to which the server sends the browser in the end."""
        return f"http://127.0.0.1:{self.server_address[1]}{self.path}"

    def wait(self) -> str:
        """Return the token that the browser's request brought."""
        while self.brought is None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise LoginFailedError("No login came within the time: call again to open another page.")
            self.timeout = min(left, 0.05)  # a thread of another connection may bring it
            self.handle_request()
        return self.brought

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection in a thread."""
        if len(self._open) >= MOST_CONNECTIONS:
            super().shutdown_request(request)
            return
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End the connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """End all connections, also those that still say something."""
        super().server_close()
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error: another program may send anything to the port."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 5  # seconds for each wait of a connection

    def do_GET(self) -> None:
        """Take the token from the browser, if it knows the state."""
        server = self.server
        assert isinstance(server, _Listener)
        is_ours = self.path.startswith(server.path)
        brought = self.path.removeprefix(server.path)
        try:
            self.send_response(200 if is_ours else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            if is_ours:
                self.wfile.write(_PAGE)
        finally:
            if is_ours:
                server.brought = brought  # last: then the listener ends, with the page on its way

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name in http.server
        """Log nothing: the path holds the token."""


def _credentials(brought: str) -> BearerTokenAuth:
    """Return the credentials in the last segment of the callback's path."""
    text = unquote(brought)
    if text.startswith("error="):
        said = dict(parse_qsl(text))
        raise LoginFailedError(f"The login was refused: {said.get('error_description') or said['error']!r:.200}.")
    try:
        token = json.loads(b64decode(text.translate({45: "+", 95: "/"}) + "==="))
        return BearerTokenAuth(token["access_token"], type=token["token_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise LoginFailedError(f"The login brought no token: {type(error).__name__}.") from None
