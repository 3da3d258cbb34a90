"""A real Kinto in this process behind a network that loses things: for one client, as a plan says."""

from __future__ import annotations

import http.client
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import requests
import urllib3
from requests.adapters import BaseAdapter

from kinto_orm import Client
from kinto_orm.server import EmbeddedServer
from kinto_orm.server.memory import restorable, take_snapshot


@dataclass(frozen=True, slots=True)
class Raced:
    """Another client is a moment faster: the function is called, then the request is passed on, and nothing is lost."""

    first: Callable[[], object]


Fault: TypeAlias = (
    Literal[
        "ok",
        "lost before",
        "lost after",
        "502 after",
        "500 after",
        "503",
        "409",
        "404",
        "cut short",
        "wrong count",
        "409 inside",
        "500 inside",
    ]
    | Callable[[], object]
    | Raced
)
"""What happens to one request; a function is called when the request was applied, and then the answer is lost.

- 404: something in front of the server says that, which passes nothing on.

The last three are of batches; anything else is answered by "ok", "409" and "500", the latter two without being applied.

- wrong count: all is applied, and one answer is missing;
- 409 inside: what Kinto on PostgreSQL does where another writer is in the way of the entry in the middle: what was
  before it is rolled back and yet answered with success, what comes after it is stored;
- 500 inside: what Kinto in memory does where the entry in the middle crashes: what was before it stays.
"""


class LossyAdapter(BaseAdapter):
    """Passes requests on to the server, but for what the plan says of each write in turn."""

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__()
        self.server = server
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
        if isinstance(fault, Raced):
            fault.first()
            fault = "ok"
        if fault == "lost before":
            raise _lost()
        if fault == "404":
            return _answer(request, 404, b"<html>Not Found</html>")
        if fault in ("503", "409"):
            return _refusal(request, int(fault))
        if fault in ("409 inside", "500 inside"):
            return self._fail_inside(request, int(fault[:3]), is_batch=path == "/batch")
        answer = self.inner.send(request, *args, **options)
        if fault == "ok" or (fault == "wrong count" and path != "/batch"):
            return answer
        return _spoilt(request, answer, fault)

    def _fail_inside(self, request: requests.PreparedRequest, status: int, *, is_batch: bool) -> requests.Response:
        registry = self.server._app.registry  # type: ignore[union-attr]  # Kinto's, as it runs
        if not is_batch or not restorable(registry):
            return _refusal(request, status)
        entries = json.loads(request.body or b"")["requests"]
        middle = len(entries) // 2
        is_atomic = request.headers.get("X-Batch-Atomic") == "true"
        with self.server.lock:
            if status == 500:
                if middle and not is_atomic:
                    self._send_entries(request, entries[:middle])
                return _refusal(request, 500)
            restore = take_snapshot(registry)
            answer = self._send_entries(request, entries)
            said = answer.json().get("responses")
            if said is None or said[middle]["status"] >= 400 or "X-Batch-Rolled-Back" in answer.headers:
                return answer  # a refusal is no reason to lose the answer
            restore()
            rest = entries[middle + 1 :]
            after = said[middle + 1 :]
            if rest and not is_atomic:
                after = self._send_entries(request, rest).json()["responses"]
            refused = {"path": said[middle]["path"], "status": 409, "headers": {}, "body": {"code": 409, "errno": 122}}
        body = json.dumps({"responses": [*said[:middle], refused, *after]}).encode()
        return _answer(request, 200, body, {"X-Batch-Rolled-Back": "true"} if is_atomic else {})

    def _send_entries(self, request: requests.PreparedRequest, entries: list[Any]) -> requests.Response:
        partly = request.copy()
        partly.body = json.dumps({"requests": entries}).encode()
        return self.inner.send(partly)

    def close(self) -> None: ...


def _spoilt(request: requests.PreparedRequest, answer: requests.Response, fault: Fault) -> requests.Response:
    """Return the rest of the answer to a request that was applied."""
    if fault in ("502 after", "500 after"):
        return _answer(request, int(str(fault)[:3]), b"<html>Bad Gateway</html>")
    if fault == "cut short":
        return _answer(request, answer.status_code, answer.content[:-1])
    if fault == "wrong count" and answer.status_code == 200:
        return _answer(request, 200, json.dumps({"responses": answer.json()["responses"][:-1]}).encode())
    if callable(fault):
        fault()
    raise _lost()


def _lost() -> requests.ConnectionError:
    gone = http.client.RemoteDisconnected("closed")
    return requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", gone))


def _refusal(request: requests.PreparedRequest, status: int) -> requests.Response:
    return _answer(request, status, b'{"code": %d, "errno": 201}' % status)


def _answer(
    request: requests.PreparedRequest, status: int, body: bytes, headers: Mapping[str, str] = {}
) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer.headers.update(headers)
    answer._content = body
    answer._content_consumed = True  # type: ignore[attr-defined]  # what requests sets itself
    answer.request = request
    return answer


def lossy(server: EmbeddedServer, **options: Any) -> tuple[Client, LossyAdapter]:
    """Return a client of the server, and the adapter that loses its answers."""
    adapter = LossyAdapter(server)
    session = requests.Session()
    session.mount(server.url, adapter)
    defaults: Mapping[str, Any] = {"auth": ("user", "embedded"), "retry_after": 0.001}
    return Client(server.url, session=session, **{**defaults, **options}), adapter
