"""The body of an answer: decoded piece by piece, so that its size and its time stay bounded."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import requests
import urllib3

CHUNK = 256 * 1024


def decoded_pieces(answer: requests.Response) -> Iterator[bytes]:
    """The body, decoded, a bounded piece at a time, each as soon as it is there."""
    raw: Any = answer.raw
    if raw is None or getattr(answer, "_content_consumed", False):
        return iter([answer.content])  # an adapter, a hook or a session of the user's has read it already
    if not isinstance(raw, urllib3.BaseHTTPResponse):
        return _chunks(raw.read)  # requests does not decode the file of an adapter, nor that of vcrpy
    # read1 gives what has come so far: waiting for a full chunk could take for ever.
    chunks = _chunks(partial(raw.read1, decode_content=False))
    encoding = raw.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return chunks
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _inflated(chunks)
    raise requests.exceptions.ContentDecodingError


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := read(CHUNK):
        yield chunk


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: with the header of gzip or of zlib
    rest = next(chunks, b"")
    if not rest:
        return  # the answer to HEAD says how a body would be encoded, and has none
    while rest:
        yield inflater.decompress(rest, CHUNK)
        rest = inflater.unconsumed_tail or next(chunks, b"")
    yield inflater.flush()
    if not inflater.eof or inflater.unused_data:
        raise zlib.error  # requests and urllib3 take a stream that is cut short for a whole one
