"""Files to a server: their content, read once and whole, so that it can be sent again byte for byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, cast

from kinto_orm.errors import InvalidTypeError
from kinto_orm.messages import Content


def read_content(file: Content) -> bytes:
    """The whole content of the file; of an open one, from where it stands, and where it can it stands there again.

    So the same file may be given once more: to another record, or after an error. It would be sent empty else.
    Raises ``OSError`` where it cannot be read, ``InvalidTypeError`` for what is no file, or one in text mode.
    """
    if isinstance(file, (str, os.PathLike)):
        return Path(file).read_bytes()
    if isinstance(file, bytes | bytearray | memoryview):
        return bytes(file)
    content = _read_open(file) if callable(getattr(file, "read", None)) else None
    if not isinstance(content, bytes):
        raise InvalidTypeError(f"A file is a path, bytes, or a file opened in binary mode, not {file!r:.60}.")
    return content


def _read_open(file: IO[bytes]) -> object:
    seekable = getattr(file, "seekable", None)
    start = file.tell() if callable(seekable) and seekable() else None
    content = cast(object, file.read())
    if start is not None:
        file.seek(start)
    return content
