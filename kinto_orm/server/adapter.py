"""Where ``requests`` meets WSGI: an adapter that calls an application instead of a socket."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import unquote_to_bytes, urlsplit
from wsgiref.types import WSGIApplication, WSGIEnvironment

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict, HTTPResponse

from kinto_orm.errors import KintoError

# What WSGI does not spell HTTP_*: https://peps.python.org/pep-3333/#environ-variables
PLAIN_HEADERS = {"CONTENT_TYPE", "CONTENT_LENGTH"}
DEFAULT_PORTS = {"http": 80, "https": 443}


class WSGIAdapter(BaseAdapter):
    """Sends requests to a WSGI application of this process.

    Mount it on the URL of the application: ``session.mount(server.url, server.adapter())``. Timeouts, TLS options and
    proxies have no meaning here and are ignored.
    """

    def __init__(self, app: WSGIApplication) -> None:
        super().__init__()
        self._app = app

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Return the application's answer.

        Raises ``requests.ConnectionError`` where the application itself raised: as with a socket, no answer came.
        """
        try:
            raw = call(self._app, request)
        except KintoError:
            raise
        except Exception as error:
            raise requests.ConnectionError(f"The application raised {error!r}", request=request) from error
        response = build_response(request, raw)
        if not stream:
            _ = response.content
        return response

    def close(self) -> None:
        """Do nothing: the application belongs to the caller."""


def call(app: WSGIApplication, request: requests.PreparedRequest) -> HTTPResponse:
    """Run the application once, to the end of its body."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []  # by the callable that PEP 3333 keeps for old applications

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        started[:] = [(status, headers)]
        return written.append

    body = read_whole(app(build_environ(request), start_response))
    status, headers = started[0]
    code, _, reason = status.partition(" ")
    # kinto-attachment gives a 204 a body: on a socket it would not be sent.
    whole = b"" if code == "204" else b"".join(written) + body
    return HTTPResponse(
        body=io.BytesIO(whole),
        headers=HTTPHeaderDict(headers),
        status=int(code),
        reason=reason,
        version=11,
        preload_content=False,
        request_method=request.method,
    )


def read_whole(chunks: Iterable[bytes]) -> bytes:
    """Return the body of an answer, and close it as WSGI demands."""
    try:
        return b"".join(chunks)
    finally:
        if close := getattr(chunks, "close", None):
            close()


def build_environ(request: requests.PreparedRequest) -> WSGIEnvironment:
    """Return the request as WSGI wants it."""
    url = urlsplit(request.url or "")
    host, port = url.hostname or "", url.port or DEFAULT_PORTS.get(url.scheme, 80)
    body = read_body(request.body)
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": request.method or "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(url.path or "/").decode("latin-1"),
        "QUERY_STRING": url.query,
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": url.netloc.rpartition("@")[2],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        # Or webob copies the body first, a large one to a file that it leaves open.
        "webob.is_body_seekable": True,
    }
    environ.update(environ_headers(request.headers))
    environ["CONTENT_LENGTH"] = str(len(body))
    return environ


def environ_headers(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    """Return the headers under their WSGI names, but for those of a chunked body: it is whole by now."""
    renamed: dict[str, str] = {}
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        if key != "TRANSFER_ENCODING":
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            renamed[key if key in PLAIN_HEADERS else f"HTTP_{key}"] = text
    return renamed


def read_body(body: object) -> bytes:
    """Return the whole body, whichever of its forms ``requests`` was given."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    if read := getattr(body, "read", None):
        return read_body(read())
    return b"".join(read_body(chunk) for chunk in cast("Iterable[object]", body))


def build_response(request: requests.PreparedRequest, raw: HTTPResponse) -> requests.Response:
    """Return the answer as ``requests`` builds it from a socket."""
    response = requests.Response()
    response.status_code = raw.status
    response.reason = raw.reason or ""
    response.headers = CaseInsensitiveDict(raw.headers)
    response.encoding = get_encoding_from_headers(response.headers)
    response.raw = raw
    response.url = request.url or ""
    response.request = request
    return response
