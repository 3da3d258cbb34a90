"""A stub of Kinto that answers as fast as asyncio can, so that the client is what is measured.

Run in a process of its own; prints its port. The collection's id says how many records it has:
``/v1/buckets/bench/collections/100000/records?_limit=1000``. Nothing is stored.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rows import FIRST_TIMESTAMP, stored_article, stored_articles, stored_id

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
PERMISSIONS = {"write": ["basicauth:5f4dcc3b5aa765d61d8327deb882cf99"]}
SERVER_INFO = {"settings": {"batch_max_requests": BATCH_LIMIT, "readonly": False}, "capabilities": {}}

Answer = tuple[int, bytes, dict[str, str]]


class Stub:
    """What it answers."""

    def __init__(self, host: str, most_records: int) -> None:
        self._root = f"http://{host}/v1"
        self._rows = [json.dumps(row).encode() for row in stored_articles(most_records)]

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        """Status, body and headers."""
        url = urlsplit(target)
        parts = url.path.strip("/").split("/")
        if parts[-1] == "batch":
            return 200, self._batch(json.loads(body)["requests"]), {}
        if parts[-1] == "records":
            return self._page(int(parts[-2]), url.path, parse_qs(url.query))
        if len(parts) == 1:
            return 200, json.dumps(SERVER_INFO).encode(), {}
        return 200, json.dumps(self._stored(method, parts[-1], json.loads(body or b"{}"))).encode(), {}

    def _page(self, count: int, path: str, query: dict[str, list[str]]) -> Answer:
        limit, start = int(query.get("_limit", ["10000"])[0]), int(query.get("_token", ["0"])[0])
        end = min(start + limit, count)
        next_page = f"{self._root}{path.removeprefix('/v1')}?_sort=id&_limit={limit}&_token={end}"
        return 200, b'{"data":[%s]}' % b",".join(self._rows[start:end]), {"Next-Page": next_page} if end < count else {}

    def _batch(self, requests: list[dict[str, Any]]) -> bytes:
        return json.dumps({"responses": [self._part(one) for one in requests]}).encode()

    def _part(self, request: dict[str, Any]) -> dict[str, Any]:
        path = request["path"]
        body = self._stored(request["method"], path.rpartition("/")[2], request["body"])
        return {"path": f"/v1{path}", "status": 201, "headers": OBJECT_HEADERS, "body": body}

    def _stored(self, method: str, id: str, body: dict[str, Any]) -> dict[str, Any]:
        before: dict[str, Any] = {}
        if method in ("GET", "PATCH"):
            before = stored_article(int(id.removeprefix(stored_id(0)[:8])))
        data = {**before, **body.get("data", {}), "id": id, "last_modified": FIRST_TIMESTAMP}
        return {"permissions": PERMISSIONS, "data": data}


class Connection(asyncio.Protocol):
    """HTTP/1.1 as far as it is needed: kept alive, with a length, one request after the other."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
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
        self._transport.write(f"HTTP/1.1 {status} OK\r\n{lines}\r\n".encode() + content)


def _content_length(head: str) -> int:
    _, found, rest = head.lower().partition("content-length:")
    return int(rest.split("\r\n", 1)[0]) if found else 0


async def main(most_records: int) -> None:
    """Serves until it is killed."""
    listener = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    stub = Stub(host, most_records)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(stub), sock=listener)
    print(f"http://{host}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
