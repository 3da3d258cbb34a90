"""Several parts in one body, of which some are files (``multipart/form-data``).

https://www.rfc-editor.org/rfc/rfc7578
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from kinto_orm.errors import InvalidValueError

BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Part:
    """One part: a text field, or with a ``filename`` a file."""

    name: str
    content: bytes = field(repr=False)
    filename: str | None = None
    content_type: str | None = None


def encode_multipart(parts: Sequence[Part], boundary: str | None = None) -> tuple[str, bytes]:
    """The value of the header ``Content-Type``, and the body.

    Raises ``InvalidValueError`` for a content type that is not one line of ASCII.
    """
    drawn = secrets.token_hex(16) if boundary is None else boundary
    pieces: list[bytes] = []
    for part in parts:
        pieces += [f"--{drawn}\r\n{_head(part)}\r\n".encode(), part.content, b"\r\n"]
    return f"multipart/form-data; boundary={drawn}", b"".join([*pieces, f"--{drawn}--\r\n".encode()])


def _head(part: Part) -> str:
    head = f'Content-Disposition: form-data; name="{_quoted(part.name)}"'
    if part.filename is None:
        return f"{head}\r\n"
    content_type = part.content_type or BINARY
    if not (content_type.isascii() and content_type.isprintable()):
        raise InvalidValueError(f"A content type is one line of ASCII, not {content_type!r:.60}.")
    return f'{head}; filename="{_quoted(part.filename)}"\r\nContent-Type: {content_type}\r\n'


def _quoted(text: str) -> str:
    # As Kinto reads it, to the very same name: what browsers write for a quote, %22, it would keep as it is.
    # Line ends have no such form, so they go as browsers write them; the rest goes as UTF-8.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return escaped.replace("\r", "%0D").replace("\n", "%0A")
