"""A real Kinto in this process behind a network that loses things: for one client, as a plan says."""

from __future__ import annotations

import http.client
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import requests
import urllib3
from requests.adapters import BaseAdapter

from kinto_orm import Client
from kinto_orm.server import EmbeddedServer

Fault: TypeAlias = (
    Literal["ok", "lost before", "lost after", "502 after", "500 after", "503", "409"] | Callable[[], object]
)
"""What happens to one request; a function is called when the request was applied, and then the answer is lost.

``409 inside`` is what PostgreSQL does with the first entry of a batch that clashes, here always the second one: what
came before it is undone, though answered as stored; what comes after it is stored.
"""


class LossyAdapter(BaseAdapter):
    """Passes requests on to the server, but for what the plan says of each write in turn."""

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__()
        self.inner = server.adapter()
        self.plan: deque[Fault] = deque()
        self.sent: list[tuple[str, str, bytes]] = []
        """Method, path and body of each write."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        if request.method in ("GET", "HEAD"):
            return self.inner.send(request, *args, **options)
        path = request.path_url.removeprefix("/v1")
        self.sent.append((request.method or "", path, bytes(request.body or b"")))  # type: ignore[arg-type]  # always bytes
        fault = self.plan.popleft() if self.plan else "ok"
        if fault == "lost before":
            raise _lost()
        if fault in ("503", "409"):
            return _answer(request, int(fault), b'{"code": %s, "errno": 201}' % fault.encode())
        if fault == "409 inside" and path == "/batch":
            return self._clash(request, *args, **options)
        answer = self.inner.send(request, *args, **options)
        if fault in ("ok", "409 inside"):
            return answer
        if fault == "one answer short":
            return _shortened(request, answer)
        if fault in ("502 after", "500 after"):
            return _answer(request, int(fault[:3]), b"<html>Bad Gateway</html>")
        if callable(fault):
            fault()
        raise _lost()

    def _clash(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        entries = json.loads(request.body or b"{}")["requests"]
        void, rest = entries[:1], entries[2:]
        request.body = json.dumps({"requests": rest}).encode()
        request.headers["Content-Length"] = str(len(request.body))
        answer = self.inner.send(request, *args, **options)
        is_atomic = "X-Batch-Atomic" in request.headers
        assert not is_atomic, "an atomic batch would be undone as a whole"
        lies = [{"status": 201, "path": f"/v1{one['path']}", "headers": {}, "body": {}} for one in void]
        clash = {"status": 409, "path": "/v1/x", "headers": {}, "body": {"code": 409, "errno": 122}}
        responses = [*lies, clash, *answer.json()["responses"]][: len(entries)]
        return _answer(request, 200, json.dumps({"responses": responses}).encode())

    def close(self) -> None: ...


def _lost() -> requests.ConnectionError:
    gone = http.client.RemoteDisconnected("closed")
    return requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", gone))


def _shortened(request: requests.PreparedRequest, answer: requests.Response) -> requests.Response:
    if "responses" not in answer.text:
        return answer
    responses = answer.json()["responses"][:-1]
    return _answer(request, 200, json.dumps({"responses": responses}).encode())


def _answer(request: requests.PreparedRequest, status: int, body: bytes) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer._content = body
    answer._content_consumed = True  # type: ignore[attr-defined]  # what requests sets itself
    answer.request = request
    return answer


def lossy(server: EmbeddedServer, **options: Any) -> tuple[Client, LossyAdapter]:
    """A client of the server, and what loses its answers."""
    adapter = LossyAdapter(server)
    session = requests.Session()
    session.mount(server.url, adapter)
    defaults: Mapping[str, Any] = {"auth": ("user", "embedded"), "retry_after": 0.001}
    return Client(server.url, session=session, **{**defaults, **options}), adapter
