"""Bodies as the log may show them: short, and without what looks like a secret."""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

JSON: TypeAlias = Any
"""A JSON value."""

MAX_SHOWN = 2000
"""In characters."""

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|authorization|credential|api_?-?key|cookie", re.IGNORECASE
)
HIDDEN = "***"


def redacted(body: bytes | None) -> str:
    """The body as text: JSON without the values of keys that look secret, and without the object in a 412, which its
    reader may not have asked for; of anything else the size only."""
    if not body:
        return "nothing"
    try:
        shown = json.dumps(redact(json.loads(body), hides_existing=True), ensure_ascii=False)
    except (ValueError, RecursionError):
        return f"{len(body)} bytes that are not JSON"
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}… ({len(body)} bytes)"


def redact(value: JSON, *, hides_existing: bool = False) -> JSON:
    """The JSON value, with ``***`` for the values of keys that look secret, also where a JSON-Patch sets one.

    ``hides_existing``: for the object in a 412, too.
    """
    if isinstance(value, list):
        return [redact(item, hides_existing=hides_existing) for item in value]
    if not isinstance(value, dict):
        return value
    is_secret = isinstance(value.get("path"), str) and _SECRET_KEY.search(value["path"]) is not None
    return {
        key: HIDDEN
        if _SECRET_KEY.search(key)
        or (is_secret and key == "value")
        or (hides_existing and key == "existing" and isinstance(item, dict))
        else redact(item, hides_existing=hides_existing)
        for key, item in value.items()
    }
