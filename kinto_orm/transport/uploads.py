"""Files to a server: their content, read once and whole, so that it can be sent again byte for byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from kinto_orm.errors import InvalidTypeError
from kinto_orm.messages import Content


def read_content(file: Content) -> bytes:
    """The whole content of the file; of an open one, from where it stands.

    Raises ``OSError`` where it cannot be read, ``InvalidTypeError`` for what is no file, or one in text mode.
    """
    if isinstance(file, (str, os.PathLike)):
        return Path(file).read_bytes()
    if isinstance(file, bytes | bytearray | memoryview):
        return bytes(file)
    read = getattr(file, "read", None)
    content = cast(object, read() if callable(read) else None)
    if not isinstance(content, bytes):
        raise InvalidTypeError(f"A file is a path, bytes, or a file opened in binary mode, not {file!r:.60}.")
    return content
