"""Where the writes of the oracle happen: a client behind a proxy that fails, and one that goes around it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from fault_proxy import FaultProxy

from kinto_orm import Bucket, Client, Collection, NotFoundError, Record
from kinto_orm.protocol.json_values import decode
from kinto_orm.protocol.messages import Request, Response
from kinto_orm.protocol.writes import Flow

Data: TypeAlias = dict[str, Any]

ANYTHING: Any = object()
"""Expected where only the server knows what it will be."""

TIMEOUT, SHORT_TIMEOUT = 10, (10, 0.15)
"""Seconds to wait for an answer; the second one where the proxy hangs, each time for as long as that."""
USER = ("user", "secret")


@dataclass(frozen=True)
class Stored:
    """What the server holds of one object."""

    data: Data
    last_modified: int
    permissions: dict[str, set[str]]


@dataclass
class World:
    """A server with one empty collection, and two clients of it."""

    proxy: FaultProxy
    client: Client
    """Behind the proxy."""
    direct: Client
    """Around it."""
    folder: str
    """A folder that is deleted after the test."""

    @property
    def bucket(self) -> Bucket:
        """The bucket ``b``, of the client behind the proxy."""
        return self.client.bucket("b")

    @property
    def collection(self) -> Collection[Record]:
        """The collection ``c``, of the client behind the proxy."""
        return self.bucket.collection("c")

    @property
    def records(self) -> Collection[Record]:
        """The same, around the proxy: what others write."""
        return self.direct.bucket("b").collection("c")

    def load(self, id: str, data: Data) -> Record:
        """Return a record that the server has, loaded by the client behind the proxy."""
        Record(collection=self.records, id=id, data=data).save()
        return self.collection.records.get(id)

    def stored(self, path: str) -> Stored | None:
        """Return the server's data at that path."""
        try:
            answer = self._ask(path)
        except NotFoundError:
            return None
        data = dict(answer["data"])
        permissions = {name: set(principals) for name, principals in answer["permissions"].items()}
        data.pop("id")
        return Stored(data, data.pop("last_modified"), permissions)

    def history(self, bucket: str) -> dict[str, str]:
        """Return the URI of each history entry, by the id of the entry: one for each write of an object.

        The history of a bucket is deleted with it.
        https://docs.kinto-storage.org/en/stable/api/1.x/history.html
        """
        try:
            return {entry["id"]: entry["uri"] for entry in self._ask(f"/buckets/{bucket}/history")["data"]}
        except NotFoundError:
            return {}

    def _ask(self, path: str) -> Any:
        return self.direct.run(_read(path))


def _read(path: str) -> Flow[Any]:
    response: Response = yield Request("GET", path)
    if response.status in (403, 404):  # the former where the bucket does not exist
        raise NotFoundError(path, status=response.status)
    assert response.status == 200, response
    return decode(response.body, path)


@contextmanager
def world_of(proxy: FaultProxy, direct: Client, **options: Any) -> Generator[World]:
    """Return a fresh world on an empty server; ``direct`` is a client of the server behind the proxy."""
    Collection(bucket=Bucket(id="b", client=direct).save(), id="c").save()
    proxy.plan()
    client = Client(
        proxy.url,
        **{"auth": USER, "timeout": TIMEOUT, "retry_after": 0.001, "bucket": "b", "collection": "c", **options},
    )
    folder = TemporaryDirectory()
    world = World(proxy, client, direct, folder.name)
    try:
        yield world
    finally:
        folder.cleanup()
        world.client.close()  # it may be a clone by now, which shares nothing that is open
        client.close()
        proxy.wait_until_idle()
