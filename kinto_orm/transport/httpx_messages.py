"""Requests and answers as ``httpx`` has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from requests import PreparedRequest

from kinto_orm.errors import ConfigurationError
from kinto_orm.transport.httpx_failures import Progress
from kinto_orm.transport.preparing import Limits

if TYPE_CHECKING:
    import httpx

HOW_TO_DO_WITHOUT = 'Leave out async_transport="httpx": then threads send it.'


def as_httpx(
    prepared: PreparedRequest, limits: Limits, progress: Progress, *, is_forwarded: bool = False
) -> httpx.Request:
    """The request as httpx takes it. Raises ``ConfigurationError`` where an auth object made a stream of its body."""
    import httpx

    url = str(prepared.url)
    # Byte for byte, where httpx would write some characters in its own way. A proxy is told the whole of it.
    target = url if is_forwarded else "/" + url.partition("://")[2].partition("/")[2]
    seconds = {"connect": limits.connect, "read": limits.read, "write": limits.read}
    return httpx.Request(
        str(prepared.method),
        url,
        headers=[(_encoded(name), _encoded(value)) for name, value in prepared.headers.items()],
        content=_body_of(prepared),
        extensions={
            "target": target.encode("ascii"),
            "timeout": {name: None if value == float("inf") else value for name, value in seconds.items()},
            "trace": progress.note,
        },
    )


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
