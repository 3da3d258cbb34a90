"""Files that belong to records: what a record says of its file, and where that file is.

https://github.com/Kinto/kinto-attachment
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from kinto_orm.errors import ProtocolError

_OUTSIDE = ("", ".", "..")


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a record says of its file. Size in bytes, hash as SHA-256 in hexadecimal; ``None`` where it is not said."""

    location: str
    filename: str
    size: int | None = None
    sha256: str | None = None

    def url(self, base_url: str) -> str:
        """Where the file is; raises ``ProtocolError`` where that is not below ``base_url``."""
        base = base_url.rstrip("/") + "/"
        url = urljoin(base, self.location.lstrip("/"))
        if not url.startswith(base) or not base.startswith(("http://", "https://")):
            raise ProtocolError(f"The attachment {self.location!r:.200} is not below {base_url!r:.200}.")
        return url

    @property
    def safe_filename(self) -> str:
        """The name; raises ``ProtocolError`` for one that would leave the folder that it is put in."""
        if self.filename in _OUTSIDE or any(letter in "/\\\0" for letter in self.filename):
            raise ProtocolError(
                f"The attachment's name {self.filename!r:.200} leads out of its folder: give filepath=."
            )
        return self.filename


def attachment_of(data: Mapping[str, Any]) -> Attachment | None:
    """The attachment of a record, out of its data; ``None`` where it has none.

    Raises ``ProtocolError`` for what is no attachment.
    """
    said = data.get("attachment")
    if said is None:
        return None
    if not isinstance(said, Mapping) or not all(isinstance(said.get(key), str) for key in ("location", "filename")):
        raise ProtocolError(f"The record's attachment has no location or no filename: {said!r:.200}.")
    size, sha256 = said.get("size"), said.get("hash")
    return Attachment(
        said["location"],
        said["filename"],
        size if type(size) is int else None,
        sha256 if isinstance(sha256, str) else None,
    )
