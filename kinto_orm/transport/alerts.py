"""What the server says of its end, by the header ``Alert``: each message is one warning.

https://docs.kinto-storage.org/en/stable/api/1.x/deprecation.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from kinto_orm.errors import AlertWarning
from kinto_orm.errors.warned import warn_user
from kinto_orm.messages import Response

MAX_ALERTS = 100
"""A server that says something new each time shall not fill the memory."""


@dataclass(slots=True)
class Alerts:
    """The alerts of one server: told once for each code and URL."""

    _known: set[tuple[str, str]] = field(default_factory=set)
    _untold: list[str] = field(default_factory=list)

    def note(self, response: Response) -> None:
        """Takes the alert of an answer; never fails, whatever the header holds."""
        header = response.headers.get("alert")
        if not header or len(self._known) >= MAX_ALERTS:
            return
        alert = _parsed(header)
        key = (_short(alert.get("code")), _short(alert.get("url")))
        if key not in self._known:
            self._known.add(key)
            code, url = key
            self._untold.append(f"The server says ({code}): {_short(alert.get('message'))} {url}".rstrip())

    def tell(self) -> None:
        """Warns of what was noted. To be called where nothing can get lost any more: a warning may be an error."""
        while self._untold:
            warn_user(self._untold.pop(0), AlertWarning)


def _parsed(header: str) -> dict[str, Any]:
    try:
        alert = json.loads(header)
    except (ValueError, RecursionError):
        alert = None
    return alert if isinstance(alert, dict) else {"message": header}


def _short(value: object) -> str:
    return "" if value is None else str(value)[:200]
