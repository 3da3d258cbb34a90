"""Authentication: credentials, the forms in which users give them, and the headers of every request.

Nothing here shows a secret: not in ``repr``, ``str``, ``vars``, an error message or a pickle.
https://docs.kinto-storage.org/en/stable/api/1.x/authentication.html
"""

from __future__ import annotations

import platform
import re
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from ipaddress import ip_address
from typing import Any, NoReturn, Self, TypeAlias, TypeGuard, cast
from urllib.parse import unquote, urlsplit

import requests
from requests import PreparedRequest
from requests.auth import AuthBase

from kinto_orm.errors import ConfigurationError, InvalidTypeError, LoginFailedError
from kinto_orm.transport.requests_errors import scrubbed

Authenticator: TypeAlias = Callable[[PreparedRequest], PreparedRequest]
"""A function that adds credentials to a request: any ``requests`` auth object is one."""

AuthInput: TypeAlias = AuthBase | Authenticator | tuple[str, str] | str | None
"""The forms that ``auth=`` takes, see :func:`parse_auth`."""

_FORMS = (
    'a tuple (user, password), "user:password", "Bearer <token>", "Bearer+<type> <token>", "Basic <token>", '
    "BearerTokenAuth(token) or a requests auth object"
)
# Only these words are schemes: in "Bearer a:b" the colon belongs to the token, in "my name:secret" it separates.
_SCHEME = re.compile(r"(Bearer(?:\+\S+)?|Basic)[ \t]+(.*)", re.IGNORECASE | re.DOTALL)
_WORD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_USERINFO = re.compile(r"(?P<scheme>\w+://)(?P<userinfo>[^/?#@]+)@(?P<rest>[^@]+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Secret:
    """A string that does not show: its ``repr`` and ``str`` are ``***``."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise InvalidTypeError("Credentials are never pickled: give them again where the pickle is loaded.")


class SecretAuth(AuthBase):
    """Credentials that everybody on the way to the server could use: never sent in clear, never pickled."""

    def __reduce__(self) -> NoReturn:
        raise InvalidTypeError("Credentials are never pickled: give them again where the pickle is loaded.")


class AuthorizationHeader(Secret, SecretAuth):
    """Immutable credentials that are one ``Authorization`` header."""

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Add the header."""
        r.headers["Authorization"] = self.reveal()
        return r

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"


class BearerTokenAuth(AuthorizationHeader):
    """Credentials of a token: ``Authorization: <type or Bearer> <token>``.

    Raises ``ConfigurationError`` for a token or a type that no header can hold (white space, control characters,
    anything but ASCII), without showing it.
    """

    def __init__(self, token: str, type: str | None = None) -> None:  # noqa: A002  the name that users of kinto_http know
        scheme = "Bearer" if type is None else type
        if not _is_match(_WORD, scheme):
            raise ConfigurationError('The type of a token is one word, such as "Bearer" or "Bearer+OIDC".')
        if not _is_match(_TOKEN, token):
            raise ConfigurationError("A token is made of visible ASCII characters: check for a line end or a space.")
        super().__init__(f"{scheme} {token}")


class BasicAuth(AuthorizationHeader):
    """Credentials of a user: ``Authorization: Basic ...``, encoded as UTF-8.

    Raises ``ConfigurationError`` for a user with a colon, and for control characters, without showing them.
    https://www.rfc-editor.org/rfc/rfc7617
    """

    def __init__(self, user: str, password: str) -> None:
        if not isinstance(cast(object, user), str) or not isinstance(cast(object, password), str):
            raise ConfigurationError("The user and the password are strings.")
        if ":" in user:
            raise ConfigurationError("A user name has no colon: it ends where the password begins.")
        pair = f"{user}:{password}"
        if _CONTROL.search(pair):
            raise ConfigurationError("The user or the password has a control character: check for a line end.")
        super().__init__(f"Basic {_base64(pair)}")


def parse_auth(auth: AuthInput) -> Authenticator | None:
    """Return the function that adds these credentials to a request; ``None`` for an anonymous client.

    Takes a tuple ``(user, password)``; a string, by its scheme first: ``"Bearer xyz"``, ``"Bearer+OIDC xyz"``, ``"Basic
    xyz"`` (sent unchanged), else ``"user:password"``; or any ``requests`` auth object or callable, which is kept.
    Raises ``ConfigurationError``, without showing the secret, for anything else.
    """
    given = cast(object, auth)
    if given is None:
        return None
    if isinstance(given, str):
        return _parse_text(given)
    if isinstance(given, tuple):
        pair = cast(tuple[str, ...], given)
        if len(pair) != 2:
            raise ConfigurationError(f"An auth tuple is (user, password), not {len(pair)} items.")
        return BasicAuth(*pair)
    if callable(given) and not isinstance(given, type):
        return cast(Authenticator, given)
    raise ConfigurationError(f"auth is {_FORMS}, not {_described(given)}.")


def is_plain(auth: Authenticator | None) -> TypeGuard[AuthorizationHeader | None]:
    """Return whether the credentials are one header that never changes, or none."""
    return auth is None or type(auth) in (BasicAuth, BearerTokenAuth)


def signed(prepared: PreparedRequest, auth: Authenticator | None) -> PreparedRequest:
    """Return the request with its credentials; raise the errors of :func:`with_credentials`."""
    if auth is None:
        return prepared
    body = prepared.body
    if not isinstance(auth, AuthorizationHeader):
        prepared.prepare_cookies({})  # HTTPDigestAuth fails without, to others it makes no difference
    result = with_credentials(prepared, auth)
    if result.body is not body:
        result.prepare_content_length(result.body)
    return result


def with_credentials(prepared: PreparedRequest, auth: Authenticator) -> PreparedRequest:
    """Return the request that the auth object makes of this one.

    Raises ``LoginFailedError`` where it got no credentials from another server: the request itself was not sent.
    """
    try:
        return auth(prepared)
    except _login_errors() as error:
        cause = scrubbed(error)  # it may hold a refresh token in clear
        failure = LoginFailedError(f"The auth object got no credentials: {type(error).__name__}.")
    raise failure from cause


def _login_errors() -> tuple[type[Exception], ...]:
    """Return the error classes of auth objects that ask another server; those of PyFxA where it is in use."""
    fxa = sys.modules.get("fxa.errors")
    return (requests.RequestException,) if fxa is None else (requests.RequestException, fxa.Error)


def refuse_in_clear(headers: Mapping[str, str | bytes], auth: Authenticator | None = None) -> None:
    """Raise ``ConfigurationError`` for credentials that anyone on the way to the server could read and use."""
    value = headers.get("Authorization") or ""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if isinstance(auth, SecretAuth) or re.match(r"\s*(Basic|Bearer)\b", text, re.IGNORECASE):
        raise ConfigurationError(
            "Nothing was sent: over http:// everybody on the way could read the credentials. Give the server's "
            "https:// URL, or allow_insecure=True where you trust the whole network."
        )


def is_in_clear(server_url: str) -> bool:
    """Return whether a request to that URL leaves this machine unencrypted."""
    parts = urlsplit(server_url)
    host = parts.hostname or ""
    if parts.scheme != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


def take_credentials(url: str) -> tuple[str, BasicAuth | None]:
    """Return the URL without its credentials, and the credentials, if there are any.

    Raises ``ConfigurationError``, without showing them, for an ``@`` that separates none.
    """
    if not isinstance(cast(object, url), str) or "@" not in url:
        return url, None
    found = _USERINFO.fullmatch(url)
    if found is None:
        raise ConfigurationError(
            "An @ in server_url separates user:password, with / ? # @ percent-encoded: https://user:password@host/v1. "
            "Better leave them out and give auth=(user, password)."
        )
    user, _, password = found["userinfo"].partition(":")
    return found["scheme"] + found["rest"], BasicAuth(unquote(user), unquote(password))


def anonymous(prepared: PreparedRequest) -> PreparedRequest:
    """Return the request without credentials, in a way that keeps ``requests`` from reading netrc."""
    return prepared


def parse_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers for every request; raise ``ConfigurationError`` for text that would break out of one."""
    if not isinstance(cast(object, headers), Mapping):
        raise ConfigurationError(f"headers is a mapping of names to values, not {_described(headers)}.")
    for name, value in headers.items():
        if not _is_match(_WORD, name):
            raise ConfigurationError("A header name is one word of letters, digits and hyphens.")
        if not _is_match(_HEADER_VALUE, value):
            raise ConfigurationError(f"The value of the header {name} is one line of Latin-1 text.")
    return dict(headers)


def own_headers() -> dict[str, str]:
    """Return the headers that name the sender of a request and the encodings that it can read."""
    # gzip only: it is what the transport can undo piece by piece.
    return {"User-Agent": _user_agent(), "Accept": "application/json", "Accept-Encoding": "gzip"}


@cache
def _user_agent() -> str:
    try:
        version = metadata.version("kinto-orm")
    except metadata.PackageNotFoundError:  # pragma: no cover  which one runs depends on how the tests were installed
        version = "0"
    return f"kinto_orm/{version} {requests.utils.default_user_agent('requests')} python/{platform.python_version()}"


def _parse_text(text: str) -> Authenticator:
    if scheme := _SCHEME.fullmatch(text):
        return BearerTokenAuth(scheme[2], type=scheme[1])
    user, colon, password = text.partition(":")
    if not colon:
        raise ConfigurationError(f"This auth string has neither a scheme nor a colon. auth is {_FORMS}.")
    return BasicAuth(user, password)


def _described(given: object) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__}: give an instance of it"
    return f"of type {type(given).__name__}"


def _is_match(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def _base64(text: str) -> str:
    try:
        return b64encode(text.encode()).decode()
    except UnicodeEncodeError:
        pass  # raised again below: the original error, which holds the password, must not become its context
    raise ConfigurationError("The user or the password has half a character (a lone surrogate).")
