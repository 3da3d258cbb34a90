"""Credentials: tokens, and logging in by a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from requests import PreparedRequest

from kinto_orm.transport import browser
from kinto_orm.transport.auth import BearerTokenAuth as OurTokenAuth

__all__ = ["BearerTokenAuth", "BrowserOAuth", "TokenAuth"]


class TokenAuth(OurTokenAuth):
    """Credentials of a token: ``Authorization: <type or Bearer> <token>``. No ``repr`` and no pickle shows it."""

    def __init__(self, token: str, type: str | None = None) -> None:
        super().__init__(token, type or None)

    @property
    def type(self) -> str:
        """The scheme."""
        return self._parts()[0]

    @property
    def token(self) -> str:
        """The token itself."""
        return self._parts()[1]

    def _parts(self) -> list[str]:
        return self.reveal().split(" ", 1)


class BearerTokenAuth(TokenAuth):
    """The other name of ``TokenAuth``."""


class BrowserOAuth(browser.BrowserOAuth):
    """Credentials from a login in the browser, or from a token that the program brings.

    The login is at the server of each request; ``server_url`` changes nothing.
    """

    server_url: str = ""

    def set_jwt_token(self, jwt_data: Mapping[str, Any]) -> None:
        """Take the token that a login elsewhere brought, instead of asking for one."""
        self._brought = OurTokenAuth(jwt_data["access_token"], type=jwt_data["token_type"])

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Return the request with the token of its server."""
        return super().__call__(r) if self._brought is None else self._brought(r)

    _brought: OurTokenAuth | None = None
