"""A stub of Kinto on PostgreSQL that answers as fast as asyncio can, so that the client is measured.

Run it as a process, with a number of records to prepare, and the delay of each answer, in seconds; it prints its URL.
The collection's id is the number of its records: ``/v1/buckets/bench/collections/100000/records?_limit=1000``. Nothing
is stored. Of the filters it knows those of ids. As from PostgreSQL, the keys in the answer to a PATCH have another
order than those that were sent.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from bisect import bisect_left
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from rows import FIRST_TIMESTAMP, ID_PREFIX, stored_article, stored_id

BATCH_LIMIT = 25
OBJECT_HEADERS = {
    "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
    "ETag": f'"{FIRST_TIMESTAMP}"',
    "Content-Type": "application/json",
    "Content-Length": "157",
    "Access-Control-Expose-Headers": "Alert, Content-Type, Content-Length, Backoff, Retry-After",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; ",
}
LIST_ETAG = f'"{FIRST_TIMESTAMP + 10_000_000}"'
"""Of all lists: later than each of their rows, and long ago."""
PERMISSIONS = {"write": ["basicauth:5f4dcc3b5aa765d61d8327deb882cf99"]}
SERVER_INFO = {"settings": {"batch_max_requests": BATCH_LIMIT, "readonly": False}, "capabilities": {}}

STATUS = {"PUT": 201, "PATCH": 200, "DELETE": 200}

Answer = tuple[int, bytes, dict[str, str]]


class Stub:
    """The answers."""

    def __init__(self, host: str, prepared: int) -> None:
        self._root = f"http://{host}/v1"
        self._rows: list[bytes] = []
        self._prepare(prepared)

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        """Return status, body and headers."""
        url = urlsplit(target)
        parts = url.path.strip("/").split("/")
        if parts[-1] == "batch":
            return 200, self._batch(json.loads(body)["requests"]), {}
        if parts[-1] == "records":
            return self._page(int(parts[-2]), url.path, dict(parse_qsl(url.query)))
        if parts[-1] in ("collections", "groups"):
            return self._list(parts[-1], parts[-2])
        if len(parts) == 1:
            return 200, json.dumps(SERVER_INFO).encode(), {}
        answer = self._stored(method, parts[-1], json.loads(body or b"{}"))
        return STATUS.get(method, 200), json.dumps(answer).encode(), {}

    def _page(self, count: int, path: str, query: dict[str, str]) -> Answer:
        """Return rows of the range of ids in the query, or its ends."""
        start, stop = (
            bisect_left(range(count), query[name].strip('"'), key=stored_id) if name in query else otherwise
            for name, otherwise in (("min_id", 0), ("lt_id", count))
        )
        found = max(0, stop - start)
        first = int(query.get("_token", start))
        last = min(first + int(query.get("_limit", "10000")), stop)
        self._prepare(last)
        rows = self._rows[stop - 1 : stop] if query.get("_sort") == "-id" else self._rows[first:last]
        headers = {"Total-Objects": str(found), "Total-Records": str(found), "ETag": LIST_ETAG}
        if last < stop:
            given = {**query, "_token": str(last)}
            headers["Next-Page"] = f"{self._root}{path.removeprefix('/v1')}?{urlencode(given)}"
        return 200, b'{"data":[%s]}' % b",".join(rows), headers

    def _list(self, kind: str, bucket: str) -> Answer:
        """Return what a bucket that is named by a number has: a collection of so many records, and no groups."""
        rows = [{"id": bucket, "last_modified": FIRST_TIMESTAMP}] if kind == "collections" else []
        return 200, json.dumps({"data": rows}).encode(), {"Total-Objects": str(len(rows)), "ETag": LIST_ETAG}

    def _prepare(self, count: int) -> None:
        self._rows += [json.dumps(stored_article(number)).encode() for number in range(len(self._rows), count)]

    def _batch(self, requests: list[dict[str, Any]]) -> bytes:
        return json.dumps({"responses": [self._part(one) for one in requests]}).encode()

    def _part(self, request: dict[str, Any]) -> dict[str, Any]:
        path = request["path"]
        if request["method"] in ("GET", "HEAD"):
            status, content, headers = self.answer(request["method"], f"/v1{path}", b"")
            read = {} if request["method"] == "HEAD" else json.loads(content)
            return {"path": f"/v1{path}", "status": status, "headers": headers, "body": read}
        body = self._stored(request["method"], path.rpartition("/")[2], request["body"])
        return {"path": f"/v1{path}", "status": STATUS[request["method"]], "headers": OBJECT_HEADERS, "body": body}

    def _stored(self, method: str, id: str, body: dict[str, Any]) -> dict[str, Any]:
        before: dict[str, Any] = {}
        if method in ("GET", "PATCH") and id.startswith(ID_PREFIX):
            before = stored_article(int(id.removeprefix(ID_PREFIX)))
        data = {**before, **body.get("data", {}), "id": id, "last_modified": FIRST_TIMESTAMP}
        return {"permissions": PERMISSIONS, "data": _as_jsonb(data) if method == "PATCH" else data}


def _as_jsonb(value: Any) -> Any:
    """Return the value with its keys in the order of PostgreSQL: short ones first."""
    if isinstance(value, list):
        return [_as_jsonb(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _as_jsonb(value[key]) for key in sorted(value, key=lambda key: (len(key), key))}


class Connection(asyncio.Protocol):
    """HTTP/1.1 as far as needed: kept alive, with a length, one request after the other."""

    def __init__(self, stub: Stub, delay: float) -> None:
        self._stub = stub
        self._delay = delay
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].decode("latin-1")
            length = _content_length(head)
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            method, target, _ = head.split(" ", 2)
            self._respond(method, target, body)

    def _respond(self, method: str, target: str, body: bytes) -> None:
        status, content, headers = self._stub.answer(method, target, body)
        own = {"Content-Type": "application/json", "ETag": f'"{FIRST_TIMESTAMP}"', "Content-Length": str(len(content))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (own | headers).items())
        answer = f"HTTP/1.1 {status} OK\r\n{lines}\r\n".encode() + (b"" if method == "HEAD" else content)
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, answer)
        else:
            self._transport.write(answer)


def _content_length(head: str) -> int:
    _, found, rest = head.lower().partition("content-length:")
    return int(rest.split("\r\n", 1)[0]) if found else 0


async def main(prepared: int, delay: float) -> None:
    """Serve until the input ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    stub = Stub(host, prepared)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(stub, delay), sock=listener)
    print(f"http://{host}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
