"""Attachments: the file that a record names, its URL, and the request that uploads it.

https://github.com/Kinto/kinto-attachment
"""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, cast
from urllib.parse import unquote, urljoin

from kinto_orm.errors import InvalidTypeError, InvalidValueError, ProtocolError
from kinto_orm.protocol.json_values import say_value
from kinto_orm.protocol.messages import Content, Request

BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body: a text field or, with a ``filename``, a file."""

    name: str
    content: bytes = field(repr=False)
    filename: str | None = None
    content_type: str | None = None


def encode_multipart(parts: Sequence[Part], boundary: str | None = None) -> tuple[str, bytes]:
    """Return the value of the header ``Content-Type``, and the body.

    Raises ``InvalidValueError`` for a content type that is not one line of ASCII.
    """
    drawn = secrets.token_hex(16) if boundary is None else boundary
    pieces: list[bytes] = []
    for part in parts:
        pieces += [f"--{drawn}\r\n{_head(part)}\r\n".encode(), part.content, b"\r\n"]
    return f"multipart/form-data; boundary={drawn}", b"".join([*pieces, f"--{drawn}--\r\n".encode()])


def _head(part: Part) -> str:
    head = f'Content-Disposition: form-data; name="{_quote(part.name)}"'
    if part.filename is None:
        return f"{head}\r\n"
    content_type = part.content_type or BINARY
    if not (content_type.isascii() and content_type.isprintable()):
        raise InvalidValueError(f"A content type is one line of ASCII, not {say_value(content_type)}.")
    return f'{head}; filename="{_quote(part.filename)}"\r\nContent-Type: {content_type}\r\n'


def _quote(text: str) -> str:
    # Kinto reads this form back to the very same name; it would keep %22, the form of browsers, as it is.
    # Line ends have no such form, so they are sent as browsers send them; the rest is UTF-8.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return escaped.replace("\r", "%0D").replace("\n", "%0A")


KEY = "attachment"
"""The key of the record's data, and the field of the upload."""

_OUTSIDE = ("", ".", "..")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]) *(\..*)?", re.IGNORECASE)
"""Names that Windows opens as devices."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """The record's description of its file. ``size`` is in bytes, ``hash`` is SHA-256 in hexadecimal.

    ``None`` stands for a value that the record does not give.
    https://github.com/Kinto/kinto-attachment#attributes
    """

    location: str
    """The path of the file below the server's ``base_url``, or its whole URL."""
    filename: str
    mimetype: str | None = None
    size: int | None = None
    hash: str | None = None

    def url(self, base_url: str) -> str:
        """Return the URL of the file; raise ``ProtocolError`` where it is not below ``base_url``."""
        base = base_url.rstrip("/") + "/"
        url = urljoin(base, self.location.lstrip("/"))
        is_below = url.startswith(base) and ".." not in unquote(url).split("/")
        if not is_below or not base.startswith(("http://", "https://")):
            raise ProtocolError(f"The attachment {self.location!r:.200} is not below {base_url!r:.200}.")
        return url

    @property
    def safe_filename(self) -> str:
        """The name of the file; raises ``ProtocolError`` for a name that leaves the folder or hides the file."""
        # On Windows, "C:a.txt" is in another folder than the target.
        is_special = _DEVICE.fullmatch(self.filename) or PureWindowsPath(self.filename).drive
        if not _is_plain(self.filename) or is_special or self.filename.startswith("."):
            raise ProtocolError(
                f"The attachment's name {self.filename!r:.200} leads out of its folder, or hides the file: name the "
                "target file."
            )
        return self.filename


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to attach."""

    content: bytes = field(repr=False)
    filename: str
    mimetype: str | None = None
    sha256: str = ""
    """The SHA-256 of the content, in hexadecimal."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.content).hexdigest())

    def is_stored_as(self, attachment: Attachment | None) -> bool:
        """Return whether the attachment is this very file, under this name."""
        return attachment is not None and (attachment.hash, attachment.filename) == (self.sha256, self.filename)


def _is_plain(filename: str) -> bool:
    """Return whether the text is the name of a file, not a path, without lone surrogates."""
    return filename not in _OUTSIDE and not any(
        letter in "/\\" or letter < " " or "\ud800" <= letter <= "\udfff" for letter in filename
    )


def name_of(file: Content, filename: str | None) -> str:
    """Return the name of the file: the given one, or the last part of its path.

    Raises ``InvalidTypeError`` where there is neither, ``InvalidValueError`` for a name that is a path.
    """
    if filename is None:
        path = file if isinstance(file, (str, os.PathLike)) else getattr(file, "name", "")
        filename = os.path.basename(path) if isinstance(path, (str, os.PathLike)) else ""
        if not filename:
            raise InvalidTypeError("The content of a file has no name: give filename=.")
    if not isinstance(cast(object, filename), str) or not _is_plain(filename):
        raise InvalidValueError(f"filename is a name without folders, not {say_value(filename, 200)}.")
    return filename


def check_target(target: object) -> None:
    """Raise ``InvalidTypeError`` for a target that cannot take a file, before anything is sent."""
    is_writable = callable(getattr(target, "write", None)) and not isinstance(target, io.TextIOBase)
    if not is_writable and not isinstance(target, (str, os.PathLike)):
        raise InvalidTypeError(
            f"A file is put at a path, or into a file opened in binary mode for writing, not {say_value(target)}."
        )


def upload_request(
    path: str, upload: Upload, *, data: bytes | None = None, permissions: bytes | None = None
) -> Request:
    """Return the request that attaches the file to the record at ``path``, with its data and permissions (as JSON).

    Raises ``InvalidValueError`` for a content type that is not one line of ASCII.
    """
    fields = {"data": data, "permissions": permissions}
    parts: Sequence[Part] = [Part(name, value) for name, value in fields.items() if value is not None]
    mimetype = upload.mimetype or mimetypes.guess_type(upload.filename)[0]
    content_type, body = encode_multipart([*parts, Part(KEY, upload.content, upload.filename, mimetype)])
    return Request("POST", path, headers={"Content-Type": content_type}, body=body)


def attachment_of(data: Mapping[str, Any]) -> Attachment | None:
    """Return the attachment in the data of a record; ``None`` where it has none.

    Raises ``ProtocolError`` for a malformed attachment.
    """
    stated = data.get(KEY)
    if stated is None:
        return None
    if not isinstance(stated, Mapping) or not all(isinstance(stated.get(key), str) for key in ("location", "filename")):
        raise ProtocolError(f"The record's attachment has no location or no filename: {say_value(stated, 200)}.")
    mimetype, size, sha256 = (stated.get(key) for key in ("mimetype", "size", "hash"))
    return Attachment(
        stated["location"],
        stated["filename"],
        mimetype if isinstance(mimetype, str) else None,
        size if type(size) is int else None,
        sha256 if isinstance(sha256, str) else None,
    )


def part_of(target: Path) -> Path:
    """Return a place beside the target for a file that is not whole yet; :data:`PART` finds those that are left."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")


PART = re.compile(r"(^|/)\.[^/]+\.[0-9a-f]{8}\.part$")
"""The path of a file that is not whole yet."""
