"""Bodies as the log may show them: short, and without what looks like a secret."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_SHOWN = 2000
"""In characters."""

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|authorization|credential|api_?-?key|cookie", re.IGNORECASE
)
_HIDDEN = "***"


def redacted(body: bytes | None) -> str:
    """The body as text: JSON without the values of keys that look secret, and without the object in a 412, which its
    reader may not have asked for; of anything else the size only."""
    if not body:
        return "nothing"
    try:
        shown = json.dumps(_redact(json.loads(body)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return f"{len(body)} bytes that are not JSON"
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}… ({len(body)} bytes)"


def _redact(value: Any) -> Any:
    if isinstance(value, list):
        return [_redact(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_patch = isinstance(value.get("path"), str) and _SECRET_KEY.search(value["path"]) is not None
    return {
        key: _HIDDEN if _is_hidden(key, item) or (is_patch and key == "value") else _redact(item)
        for key, item in value.items()
    }


def _is_hidden(key: str, value: Any) -> bool:
    return bool(_SECRET_KEY.search(key)) or (key == "existing" and isinstance(value, dict))
