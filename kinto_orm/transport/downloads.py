"""Files from a server: checked while they come, and in their place only once they are whole."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from kinto_orm.errors import KintoError, ProtocolError, ResponseError
from kinto_orm.transport.auth import own_headers
from kinto_orm.transport.bodies import decoded_pieces
from kinto_orm.transport.failures import FOREIGN_ERRORS, translate
from kinto_orm.transport.retry import Timeout, parse_timeout

_PASSING = (429, 500, 502, 503, 504)


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    timeout: Timeout = (5, 30),
    retries: int = 3,
) -> None:
    """Puts the file at ``target``. It is asked for without credentials: the files of Kinto are public.

    ``size`` (bytes) and ``sha256`` (hexadecimal) are compared where they are known. What was at ``target`` stays there
    until the new file is whole. Raises ``ProtocolError`` for a file that is not the one expected, ``ResponseError``
    where the server says no, ``TransportError`` where no answer came.
    """
    try:
        with _answer(url, timeout, retries) as answer, _replacing(target) as file:
            _copy(answer, file, url, size, sha256)
    except KintoError:
        raise
    except FOREIGN_ERRORS as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # of the file, not of the network
        raise translate(error, f"GET {url}") from error


@contextmanager
def _answer(url: str, timeout: Timeout, retries: int) -> Generator[requests.Response]:
    retry = Retry(retries, status_forcelist=_PASSING, backoff_factor=0.25, raise_on_status=False)
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update({**own_headers(), "Accept": "*/*"})
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        connect, read = (None if seconds == float("inf") else seconds for seconds in parse_timeout(timeout))
        with session.get(url, stream=True, timeout=(connect, read)) as answer:
            if answer.status_code != 200:
                raise ResponseError(
                    f"GET {url}: {answer.status_code}", status=answer.status_code, method="GET", path=url
                )
            yield answer


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


def _copy(answer: requests.Response, file: IO[bytes], url: str, size: int | None, sha256: str | None) -> None:
    hasher = hashlib.sha256()
    count = 0
    for piece in decoded_pieces(answer):
        count += len(piece)
        if size is not None and count > size:
            raise ProtocolError(f"GET {url}: the file is larger than the {size} bytes that its record says.")
        hasher.update(piece)
        file.write(piece)
    if size is not None and count != size:
        raise ProtocolError(f"GET {url}: the file has {count} bytes, its record says {size}.")
    if sha256 is not None and hasher.hexdigest() != sha256.lower():
        raise ProtocolError(f"GET {url}: the file is not the one that its record says: its SHA-256 is another.")
