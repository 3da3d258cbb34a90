"""Requests and answers as ``httpx`` has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from requests import PreparedRequest

from kinto_orm.errors import ConfigurationError
from kinto_orm.transport.httpx_failures import Progress
from kinto_orm.transport.prepare import Limits

if TYPE_CHECKING:
    import httpx

HOW_TO_DO_WITHOUT = 'Leave out async_transport="httpx": then threads send it.'


@dataclass(frozen=True, slots=True)
class ExactURL:
    """A URL as httpx's transport reads it, with its path and query byte for byte.

    httpx writes some characters in its own way. Its extension ``target`` is no way out: where a proxy makes a tunnel,
    the proxy would be told that path, in the place of the server.
    """

    raw_scheme: bytes
    raw_host: bytes
    port: int | None
    raw_path: bytes


def as_httpx(prepared: PreparedRequest, limits: Limits, progress: Progress) -> httpx.Request:
    """The request as httpx takes it. Raises ``ConfigurationError`` where an auth object made a stream of its body."""
    import httpx

    url = str(prepared.url)
    seconds = {"connect": limits.connect, "read": limits.read, "write": limits.read}
    request = httpx.Request(
        str(prepared.method),
        url,
        headers=[(_encoded(name), _encoded(value)) for name, value in prepared.headers.items()],
        content=_body_of(prepared),
        extensions={
            "timeout": {name: None if value == float("inf") else value for name, value in seconds.items()},
            "trace": progress.note,
        },
    )
    path = "/" + url.partition("://")[2].partition("/")[2]
    exact = ExactURL(request.url.raw_scheme, request.url.raw_host, request.url.port, path.encode("ascii"))
    request.url = cast(httpx.URL, exact)
    return request


def _encoded(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


def _body_of(prepared: PreparedRequest) -> bytes:
    body = prepared.body
    if body is None or isinstance(body, str | bytes):
        return body.encode() if isinstance(body, str) else body or b""
    raise ConfigurationError(f"Nothing was sent: an auth object made a stream of the body. {HOW_TO_DO_WITHOUT}")


def headers_of(answer: httpx.Response) -> dict[str, str]:
    """The headers of an answer, by their names in lower case."""
    headers: dict[str, str] = {}
    for name, value in (
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in answer.headers.raw
    ):
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def has_more(answer: httpx.Response) -> bool:
    """Whether the server sent more than this answer, whose body was read to its end.

    The next request on the same connection would take it for its own answer: neither httpcore nor h11 minds.
    """
    stream: Any = answer.stream
    try:
        trailing, _ = stream._httpcore_stream._stream._connection._h11_state.trailing_data
    except AttributeError:
        return True  # another httpcore, where nobody can tell
    return bool(trailing)
