"""The body of an answer: decoded piece by piece, so that its reader can bound its size and its time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import requests
import urllib3

CHUNK = 256 * 1024


class Identity:
    """Decoder of a body without encoding."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the decoded chunk, a bounded piece at a time."""
        yield chunk

    def end(self) -> bytes:
        """Return the rest after the last chunk."""
        return b""


class Inflater:
    """Decoder of gzip and deflate. Raises ``zlib.error`` for a damaged body, a part of one, or bytes after its end."""

    def __init__(self) -> None:
        self._inflater = _new_inflater()
        self._has_begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the decoded chunk, a bounded piece at a time."""
        self._has_begun = self._has_begun or bool(chunk)
        while chunk:
            if self._inflater.eof:
                if not chunk.startswith(_GZIP[: len(chunk)]):
                    raise zlib.error
                self._inflater = _new_inflater()  # the next member
            yield self._inflater.decompress(chunk, CHUNK)
            chunk = self._inflater.unconsumed_tail or self._inflater.unused_data

    def end(self) -> bytes:
        """Return the rest after the last chunk."""
        if not self._has_begun:
            return b""  # the answer to HEAD says how a body would be encoded, and has none
        left: bytes = self._inflater.flush()
        if not self._inflater.eof:
            raise zlib.error  # requests and urllib3 take a stream that is cut short for a whole one
        return left


_GZIP = b"\x1f\x8b"


def _new_inflater() -> Any:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: with the header of gzip or of zlib


Decoder: TypeAlias = Identity | Inflater


def decoder_of(encoding: str) -> Decoder:
    """Return the decoder of this ``Content-Encoding``; raise ``ContentDecodingError`` for an unexpected one."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return Identity()
    if name in ("gzip", "x-gzip", "deflate"):
        return Inflater()
    raise requests.exceptions.ContentDecodingError


def decoded_pieces(answer: requests.Response) -> Iterator[bytes]:
    """Return the decoded body of an answer of ``requests``, a bounded piece at a time, each as soon as it is there."""
    raw: Any = answer.raw
    if raw is None or getattr(answer, "_content_consumed", False):
        return iter([answer.content])  # an adapter, a hook or a session of the user's has read it already
    if not isinstance(raw, urllib3.BaseHTTPResponse):
        return _chunks(raw, raw.read)  # requests does not decode the file of an adapter or of vcrpy
    return decoded(raw)


def decoded(raw: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Return the decoded body of an answer of ``urllib3``, as :func:`decoded_pieces` does."""
    coding = raw.headers.get("content-encoding")
    # read1 gives what has come so far: waiting for a full chunk could take for ever.
    chunks = _chunks(raw, partial(raw.read1, decode_content=False))
    return chunks if coding is None else _decoded(chunks, coding)


def _chunks(raw: Any, read: Callable[[int], bytes]) -> Iterator[bytes]:
    while not getattr(raw, "closed", False) and (chunk := read(CHUNK)):
        yield chunk


def _decoded(chunks: Iterator[bytes], coding: str) -> Iterator[bytes]:
    decoder = decoder_of(coding)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    yield decoder.end()
