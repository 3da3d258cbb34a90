"""Files from a server: checked while they come, and in their place only once they are whole."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from kinto_orm.errors import ConnectionLostError, InvalidTypeError, KintoError, ProtocolError, ResponseError
from kinto_orm.protocol.messages import Content, Target
from kinto_orm.transport.auth import own_headers
from kinto_orm.transport.bodies import decoded_pieces
from kinto_orm.transport.requests_errors import FOREIGN_ERRORS, translate
from kinto_orm.transport.retry import Timeout, parse_timeout
from kinto_orm.transport.sessions import Verify

_PASSING = (429, 500, 502, 503, 504)
_IN_MEMORY = 8 * 1024 * 1024
"""Bytes of a file that wait in memory for the rest of it; more of them wait on the disk."""


@dataclass(frozen=True, slots=True)
class HostOptions:
    """How the host of the files is asked: never with credentials, because the files of Kinto are public."""

    timeout: Timeout = (5, 30)
    retries: int = 3
    verify: Verify = True
    proxies: Mapping[str, str] | None = None


def download(
    url: str,
    target: Target,
    *,
    size: int | None = None,
    sha256: str | None = None,
    options: HostOptions = HostOptions(),
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Puts the file at ``target``, or writes it there where that is an open file.

    ``size`` (bytes) and ``sha256`` (hexadecimal) are compared where they are known. What was at ``target`` stays there
    until the new file is whole, and nothing is written to an open file before. It ends early once ``is_stopped()``.
    Raises ``ProtocolError`` for a file that is not the one expected, ``ResponseError`` where the server says no,
    ``TransportError`` where no answer came.
    """
    place = _replacing(Path(target)) if isinstance(target, (str, os.PathLike)) else _spooled(target)
    try:
        with _answer(url, options) as answer, place as file:
            _copy(answer, file, url, size, sha256, is_stopped)
    except KintoError:
        raise
    except FOREIGN_ERRORS as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # of the file, not of the network
        raise translate(error, f"GET {url}") from error


def holds(path: str | os.PathLike[str], size: int | None, sha256: str | None) -> bool:
    """Whether the file at ``path`` is that one already; never where its SHA-256 is not known."""
    if sha256 is None or not os.path.isfile(path) or size not in (None, os.path.getsize(path)):
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256.lower()


@contextmanager
def _answer(url: str, options: HostOptions) -> Generator[requests.Response]:
    retry = Retry(options.retries, status_forcelist=_PASSING, backoff_factor=0.25, raise_on_status=False)
    with requests.Session() as session:
        session.trust_env = False
        session.verify = options.verify
        session.proxies.update(options.proxies or {})
        session.headers.update({**own_headers(), "Accept": "*/*"})
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        connect, read = (None if seconds == float("inf") else seconds for seconds in parse_timeout(options.timeout))
        with session.get(url, stream=True, timeout=(connect, read)) as answer:
            if answer.status_code != 200:
                hint = ". The record may have another file by now: refresh() it" if answer.status_code == 404 else ""
                raise ResponseError(
                    f"GET {url}: {answer.status_code}{hint}.", status=answer.status_code, method="GET", path=url
                )
            yield answer


@contextmanager
def _spooled(target: IO[bytes]) -> Generator[IO[bytes]]:
    """A file that is written to ``target`` when the block ends well."""
    with SpooledTemporaryFile(_IN_MEMORY) as file:
        yield file
        file.seek(0)
        shutil.copyfileobj(file, target)


@contextmanager
def _replacing(target: Path) -> Generator[IO[bytes]]:
    """A file that takes the place of ``target`` when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            yield file
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _copy(
    answer: requests.Response,
    file: IO[bytes],
    url: str,
    size: int | None,
    sha256: str | None,
    is_stopped: Callable[[], bool],
) -> None:
    hasher = hashlib.sha256()
    count = 0
    for piece in decoded_pieces(answer):
        count += len(piece)
        if is_stopped():
            raise ConnectionLostError(f"GET {url}: nobody waits for the file any more.")
        if size is not None and count > size:
            raise ProtocolError(f"GET {url}: the file is larger than the {size} bytes that its record says.")
        hasher.update(piece)
        file.write(piece)
    if size is not None and count != size:
        raise ProtocolError(f"GET {url}: the file has {count} bytes, its record says {size}.")
    if sha256 is not None and hasher.hexdigest() != sha256.lower():
        raise ProtocolError(f"GET {url}: the file is not the one that its record says: its SHA-256 is another.")


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
