"""A server, two mirrors of one collection of it, and a client that writes there directly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from kinto_orm import Client, Collection, Record
from kinto_orm.mirror import Mirror
from kinto_orm.server import EmbeddedServer


class Wire(BaseAdapter):
    """Passes requests on, keeps them, and calls hooks before and after each, which may return another answer."""

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__()
        self.inner = server.adapter()
        self.sent: list[tuple[str, str, Any]] = []
        self.before: Callable[[requests.PreparedRequest], Any] | None = None
        self.after: Callable[[requests.PreparedRequest, requests.Response], Any] | None = None

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        body = json.loads(request.body) if request.body else None
        self.sent.append((request.method or "", request.path_url.removeprefix("/v1"), body))
        found: Any = self.before(request) if self.before else None
        if found is not None:
            assert isinstance(found, requests.Response)
            return found
        answer = self.inner.send(request, *args, **options)
        found = self.after(request, answer) if self.after else None
        return answer if found is None else found

    def close(self) -> None: ...


class Device:
    """One mirror, with a wire that tests can disturb."""

    def __init__(self, path: Path, server: EmbeddedServer, **options: Any) -> None:
        self.wire = Wire(server)
        session = requests.Session()
        session.mount(server.url, self.wire)
        self.online = Client(server.url, session=session, auth=("user", "embedded"), retry_after=0.001, **options)
        self.mirror = Mirror(path, self.online)
        self.todos: Collection[Record] = self.mirror.collection("todos", bucket="payments")

    def sync(self, **options: Any) -> Any:
        return self.mirror.sync(**options)

    def save(self, id: str, **data: Any) -> Record:
        """Set these keys of the record, which may be new; ``None`` removes a key."""
        record = self.todos.records.get_or_none(id) or Record(collection=self.todos, id=id)
        for key, value in data.items():
            record.data[key] = value
            if value is None:
                del record.data[key]
        return record.save()

    def delete(self, id: str) -> None:
        self.todos.records.get(id).delete()

    @property
    def data(self) -> dict[str, Any]:
        return {one.id: dict(one.data) for one in self.todos.records}

    def close(self) -> None:
        self.mirror.close()
        self.online.close()


@pytest.fixture
def device(tmp_path: Path, kinto_server: EmbeddedServer, todos: Collection[Record]) -> Iterator[Device]:
    device = Device(tmp_path / "one.sqlite", kinto_server)
    yield device
    device.close()


@pytest.fixture
def other(tmp_path: Path, kinto_server: EmbeddedServer, todos: Collection[Record]) -> Iterator[Device]:
    device = Device(tmp_path / "other.sqlite", kinto_server)
    yield device
    device.close()


def remote(todos: Collection[Record]) -> dict[str, Any]:
    """Return what the server has."""
    return {one.id: dict(one.data) for one in todos.records}
