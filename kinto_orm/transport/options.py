"""The options of a transport, and their checks. Credentials are in an object that does not show them.

A client's options are these, and more.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, TypeAlias, cast, get_args
from urllib.parse import urlsplit

import requests
from requests.utils import select_proxy

from kinto_orm.errors import ConfigurationError
from kinto_orm.protocol.json_values import say_value
from kinto_orm.transport.auth import AuthInput, is_in_clear, parse_auth, parse_headers, take_credentials
from kinto_orm.transport.reporting import RequestEvent, ResponseEvent, RetryEvent

Verify: TypeAlias = bool | str
Certificate: TypeAlias = str | tuple[str, str] | None

Timeout: TypeAlias = float | tuple[float | None, float | None] | None
"""Seconds for each wait for the network: one number for all, or ``(connect, read)``; ``None`` for no limit."""

OnBackoff: TypeAlias = Literal["wait", "raise", "ignore"]
"""The treatment of a request while the server asks for a pause by its header ``Backoff``."""

MAX_RESPONSE_BYTES = 64 * 1024 * 1024

_AS_IN = "as in http://localhost:8888/v1"


@dataclass(frozen=True, slots=True)
class WireOptions:
    """How the requests to one server are sent: the options of ``Client`` that concern that. All times are seconds.

    ``session`` is used unchanged, with its auth, headers and adapters, and never closed. ``on_request`` is called
    before each exchange, ``on_response`` after it, ``on_retry`` before each wait for another one, all in the thread
    that sends. netrc is never read. Raises ``ConfigurationError``.
    """

    server_url: str
    auth: AuthInput = field(default=None, repr=False)
    retry: int = 3
    retry_after: float | None = None
    timeout: Timeout = (5, 30)
    deadline: float = 120
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    verify: Verify = True
    cert: Certificate = None
    proxies: Mapping[str, str] | None = field(default=None, repr=False)
    trust_env: bool = False
    allow_insecure: bool = False
    max_response_bytes: int = MAX_RESPONSE_BYTES
    session: requests.Session | None = field(default=None, repr=False)
    on_request: Callable[[RequestEvent], object] | None = field(default=None, repr=False)
    on_response: Callable[[ResponseEvent], object] | None = field(default=None, repr=False)
    on_retry: Callable[[RetryEvent], object] | None = field(default=None, repr=False)
    log_bodies: bool = False
    on_backoff: OnBackoff = "wait"

    def __post_init__(self) -> None:
        # From here on credentials are in an object that does not show them.
        url, auth = take_credentials(self.server_url)
        if auth is not None and self.auth is not None:
            raise ConfigurationError("The credentials are in server_url and in auth=: give them once, as auth=.")
        object.__setattr__(self, "server_url", url)
        object.__setattr__(self, "auth", parse_auth(self.auth if auth is None else auth))

    def checked(self) -> Self:
        """Return the options in the form that is sent; raise ``ConfigurationError`` for those that cannot work."""
        if self.session is not None and not isinstance(cast(object, self.session), requests.Session):
            raise ConfigurationError(f"session is a requests.Session, not of type {type(self.session).__name__}.")
        for name in ("on_request", "on_response", "on_retry"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise ConfigurationError(f"{name} is a function that takes an event, not {say_value(hook)}.")
        proxies = cast(object, {} if self.proxies is None else self.proxies)
        if not isinstance(proxies, Mapping) or not all(isinstance(url, str) for url in proxies.values()):
            # Without the value: a proxy's URL may hold its password.
            raise ConfigurationError('proxies is a mapping of schemes to URLs, as in {"https": "http://proxy:3128"}.')
        self._check_retries()
        size = cast(object, self.max_response_bytes)
        if not isinstance(size, int) or size <= 0:
            raise ConfigurationError(f"max_response_bytes is a whole number above 0, not {say_value(size)}.")
        _check_verify(self.verify)
        _check_cert(self.cert)
        url, headers = parse_server_url(self.server_url), parse_headers(self.headers or {})
        return replace(self, server_url=url, headers=headers, proxies=dict(proxies))

    def _check_retries(self) -> None:
        if not _is_number(self.retry) or not isinstance(cast(object, self.retry), int) or self.retry < 0:
            raise ConfigurationError(f"retry is a whole number of retries from 0 up, not {say_value(self.retry)}.")
        _check_seconds("retry_after", 0 if self.retry_after is None else self.retry_after)
        _check_seconds("deadline", self.deadline)
        if self.deadline == 0:
            raise ConfigurationError("deadline is above 0: it bounds a whole call, in seconds.")
        if self.on_backoff not in get_args(OnBackoff):
            raise ConfigurationError(f"on_backoff is 'wait', 'raise' or 'ignore', not {say_value(self.on_backoff)}.")

    def is_clear(self, proxies: Mapping[str, str]) -> bool:
        """Return whether credentials must not be sent: others could read them on the way, or in a proxy."""
        if self.allow_insecure or not self.server_url.startswith("http:"):
            return False
        return is_in_clear(self.server_url) or bool(select_proxy(self.server_url, dict(proxies)))


def parse_server_url(url: str) -> str:
    """Return the root URL in its normal form: lower-case scheme and host, no final slash, ``/v1`` if it has no version.

    The version is appended because Kinto answers 307 without one, and redirects are never followed. Raises
    ``ConfigurationError`` for anything but ``http`` and ``https`` with a host, for a query string, a fragment, and for
    credentials, which it does not show.
    """
    if not isinstance(cast(object, url), str) or not url.isprintable() or re.search(r"[\s\\]", url):
        raise ConfigurationError(f"server_url is a string without spaces or backslashes, {_AS_IN}.")
    if "@" in url:
        raise ConfigurationError("server_url holds no credentials: leave them out and give auth=(user, password).")
    if "?" in url or "#" in url or not re.match(r"https?://[^/]", url, re.IGNORECASE):
        raise ConfigurationError(f"server_url is http:// or https:// and a host, without a query string, {_AS_IN}.")
    try:
        root = str(requests.Request("GET", url).prepare().url).rstrip("/")
        parts = urlsplit(root)
        _ = parts.port  # raises ValueError
    except (requests.RequestException, ValueError) as error:
        raise ConfigurationError(f"server_url is not {url!r}, but {_AS_IN}.") from error
    return root if re.search(r"/v\d+\Z", parts.path) else f"{root}/v1"


def _check_verify(verify: Any) -> None:
    if not isinstance(verify, bool) and not (isinstance(verify, str) and os.path.exists(verify)):
        raise ConfigurationError(
            f"verify is True, False or the path of a CA bundle that exists, not {say_value(verify)}."
        )


def _check_cert(cert: Any) -> None:
    paths = cert if isinstance(cert, tuple) else (cert,)
    if cert is None or (len(paths) <= 2 and all(isinstance(path, str) and os.path.exists(path) for path in paths)):
        return
    raise ConfigurationError(
        f"cert is the path of a certificate, or (certificate, key), that exist, not {say_value(cert, 99)}."
    )


def parse_timeout(timeout: Timeout) -> tuple[float, float]:
    """Return the seconds for connecting and for each read, infinity for no limit. Raises ``ConfigurationError``."""
    pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if len(pair) != 2 or not all(seconds is None or (_is_number(seconds) and seconds > 0) for seconds in pair):
        raise ConfigurationError(
            f"timeout is (connect, read), in seconds above 0, or one for both, not {say_value(timeout)}."
        )
    connect, read = (math.inf if seconds is None else seconds for seconds in pair)
    return connect, read


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_seconds(name: str, value: float) -> None:
    if not _is_number(value) or value < 0:
        raise ConfigurationError(f"{name} is a number of seconds from 0 up, not {say_value(value)}.")
