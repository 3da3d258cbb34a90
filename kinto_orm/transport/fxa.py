"""Logging in by Firefox Accounts (Mozilla accounts), with PyFxA.

https://github.com/mozilla/PyFxA
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib import import_module
from typing import Any, cast

import requests
from requests import PreparedRequest
from requests.structures import CaseInsensitiveDict

from kinto_orm.errors import ConfigurationError, LoginFailedError, MissingExtraError
from kinto_orm.protocol.json_values import say_value
from kinto_orm.transport.auth import BearerTokenAuth, Secret, SecretAuth, is_in_clear
from kinto_orm.transport.requests_errors import FOREIGN_ERRORS, scrubbed
from kinto_orm.transport.token_refresh import TokenStore

TTL = 3600
"""Seconds for which PyFxA takes a token for good."""

# https://mozilla.github.io/ecosystem-platform/api#section/Response-format/Defined-errors
_WRONG = {
    102: "There is no account of this e-mail address: give FxaAuth the right one.",
    103: "Give FxaAuth the right password.",
}
_ADVICE = {
    104: "Confirm the account by the e-mail that was sent to it.",
    114: "Wait some minutes before the next login.",
    125: "Log in once with a browser, or ask who runs the accounts.",
    138: "Confirm the login by the e-mail that was sent; an account with a second factor cannot log in like this.",
    162: "Give FxaAuth a client_id that Firefox Accounts knows.",
    169: "Give FxaAuth scopes that this client_id may ask for.",
}


class FxaAuth(SecretAuth):
    """Credentials of a Firefox Account: a token, asked for at the first request and kept in memory only.

    ``client_id`` and ``scopes`` are those that Kinto's operator registered at Firefox Accounts; the default URLs are
    those of production. After ``ttl`` seconds, and after a 401, another token is asked for, once. Threads that need it
    at the same time share one login. Needs the extra ``fxa``. Raises ``ConfigurationError`` for arguments that cannot
    work, and at a request ``LoginFailedError`` where there is no token: the request itself is not sent then. The login
    does not count for the client's ``deadline``: PyFxA waits at most 30 seconds for each answer.
    https://mozilla.github.io/ecosystem-platform/
    """

    def __init__(
        self,
        email: str,
        password: str,
        *,
        client_id: str,
        scopes: Iterable[str] = ("profile",),
        account_server_url: str | None = None,
        oauth_server_url: str | None = None,
        ttl: float = TTL,
    ) -> None:
        for name, value in (("email", email), ("password", password), ("client_id", client_id)):
            _check_text(name, value)
        if "@" not in email:
            raise ConfigurationError("email is the address of the account, with an @.")
        if isinstance(cast(object, ttl), bool) or not isinstance(cast(object, ttl), int | float) or not ttl > 0:
            raise ConfigurationError(f"ttl is seconds above 0, not {say_value(ttl)}.")
        self.client_id = client_id
        self.scopes = _checked_scopes(scopes)
        plugin = _plugin()
        self.account_server_url = _checked_url("account_server_url", account_server_url or plugin.FXA_ACCOUNT_URL)
        self.oauth_server_url = _checked_url("oauth_server_url", oauth_server_url or plugin.FXA_OAUTH_URL)
        self._email, self._password = Secret(email), Secret(password)
        self._tokens = TokenStore(ttl if math.isfinite(ttl) else math.inf)
        self._refusal: str | None = None

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Return the request with the token."""
        return self._tokens.get("token", self._log_in)(r)

    def renew(self, refused: PreparedRequest) -> bool:
        """Drop the token; see :class:`kinto_orm.transport.token_refresh.Renewable`."""
        self._tokens.refuse("token", refused)
        return True

    def __repr__(self) -> str:
        return f"FxaAuth(client_id={self.client_id!r}, scopes={self.scopes!r})"

    def _log_in(self) -> BearerTokenAuth:
        if self._refusal is not None:
            # Firefox Accounts lock an account after some wrong passwords.
            raise LoginFailedError(f"{self._refusal} It was not asked again.")
        found = self._token()
        if isinstance(found, BearerTokenAuth):
            return found
        raise found  # out here, so that no frame with the password in clear is in its traceback

    def _token(self) -> BearerTokenAuth | LoginFailedError:
        try:
            # Not kept: it has the password among its attributes. Nor has it a cache: the token is kept here.
            plugin = _plugin().FxABearerTokenAuth(
                self._email.reveal(),
                self._password.reveal(),
                list(self.scopes),
                self.client_id,
                self.account_server_url,
                self.oauth_server_url,
                cache=False,
            )
            scratch = PreparedRequest()
            scratch.headers = CaseInsensitiveDict()
            return BearerTokenAuth(plugin(scratch).headers["Authorization"].removeprefix("Bearer "))
        except (*FOREIGN_ERRORS, _errors().Error, LookupError, TypeError, AttributeError) as error:
            failure = self._failure(error)
            failure.__cause__ = scrubbed(error)
            return failure

    def _failure(self, error: Exception) -> LoginFailedError:
        if isinstance(error, _errors().InProtocolError):
            return self._refused(error)
        servers = f"{self.account_server_url} and {self.oauth_server_url}"
        if isinstance(error, requests.RequestException):
            text = f"{servers} could not be asked for a token ({type(error).__name__}): check the network and the URLs."
        else:
            text = f"{servers} sent no token, and not what they document ({type(error).__name__}): check the URLs."
        return LoginFailedError(text)

    def _refused(self, error: Any) -> LoginFailedError:
        said = " ".join(str(error).split())[:200]
        for secret in (self._password, self._email):
            said = said.replace(secret.reveal(), "***")
        text = f"Firefox Accounts gave no token, but said {said!r} (status {error.code}, errno {error.errno})."
        advice = _WRONG.get(error.errno) or _ADVICE.get(error.errno)
        if error.errno in _WRONG:
            self._refusal = f"{text} {advice}"
        return LoginFailedError(f"{text} {advice}" if advice else text)


def _plugin() -> Any:
    """Return PyFxA's module for ``requests``; raise ``MissingExtraError``."""
    try:
        return import_module("fxa.plugins.requests")
    except ImportError as error:
        message = f"PyFxA is not installed ({error}): pip install 'kinto-orm[fxa]'"
        raise MissingExtraError(message, name="fxa") from error


def _errors() -> Any:
    return import_module("fxa.errors")


def _check_text(name: str, value: object) -> None:
    # The value is not shown: it may be the password.
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} is a string with something in it, not of type {type(value).__name__}.")


def _checked_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    is_list = isinstance(cast(object, scopes), Iterable) and not isinstance(scopes, str)
    words: tuple[str, ...] = tuple(scopes) if is_list else ()
    if not words or not all(isinstance(cast(object, one), str) and one and one.split() == [one] for one in words):
        raise ConfigurationError(
            f'scopes is a list of words, as in ["profile", "https://…/scope"], not {say_value(scopes, 80)}.'
        )
    return words


def _checked_url(name: str, url: str) -> str:
    if not isinstance(cast(object, url), str) or not url.startswith(("https://", "http://")) or is_in_clear(url):
        raise ConfigurationError(f"{name} is an https:// URL (http:// on this machine only), not {say_value(url)}.")
    return url
