"""Credentials: tokens, and logging in by a browser."""

from __future__ import annotations

from kinto_orm.transport import BearerTokenAuth as OurTokenAuth
from kinto_orm.transport.browser import BrowserOAuth

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
        return self._header.reveal().split(" ", 1)


class BearerTokenAuth(TokenAuth):
    """The other name of ``TokenAuth``."""
