"""Writers that begin at the same moment, each with a client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from typing import TypeAlias, TypeVar

from servers import Servers

from kinto_orm import Bucket, Client, Collection, Manager, Record
from kinto_orm.server import EmbeddedServer

T = TypeVar("T")
Connect: TypeAlias = Callable[[], Client]
"""Gives a new client; each time of the next server."""

SECONDS = 60
"""What no race takes, however busy the machine is."""


def race(writers: Sequence[Callable[[], T]], seconds: float = SECONDS) -> list[T]:
    """Return the result of each of them, which none takes longer for; all start together, in threads."""
    start = threading.Barrier(len(writers))

    def run(writer: Callable[[], T]) -> T:
        start.wait(SECONDS)
        return writer()

    with ThreadPoolExecutor(len(writers)) as threads:
        return [each.result(seconds) for each in [threads.submit(run, writer) for writer in writers]]


@contextmanager
def clients(connect: Connect, count: int) -> Iterator[list[Client]]:
    """So many clients, as long as the block lasts."""
    connected = [connect() for _ in range(count)]
    try:
        yield connected
    finally:
        for client in connected:
            client.close()


ME = ("me", "secret")


def connect_to(servers: Servers, bucket: str) -> Connect:
    """Clients of these servers in turn, whose losers come back quickly."""
    urls = cycle(servers.urls)
    return lambda: Client(next(urls), auth=ME, bucket=bucket, collection="c", retry=20, retry_after=0.01)


def connect_inside(server: EmbeddedServer, bucket: str) -> Connect:
    """Clients of the embedded server, which lets one call in after the other."""
    return lambda: Client.embedded(server=server, auth=ME, bucket=bucket, collection="c", retry_after=0.01)


def make_collection(client: Client) -> Manager[Record]:
    """Return the records of a new collection in a new bucket, which is the client's default one."""
    bucket = Bucket(id=client.default_bucket, client=client).save()
    return Collection(bucket=bucket, id="c").save().records


def records_of(client: Client) -> Manager[Record]:
    """Return the records of that collection, as this client has them."""
    return client.bucket(client.default_bucket).collection("c").records
