"""What the tests here know of their server, which has small pages and takes small batches."""

from __future__ import annotations

from typing import Any

from wiretap import Script, Wiretap

from kinto_orm.kinto_http import Client
from kinto_orm.protocol.messages import Response

AUTH = ("alexis", "p4ssw0rd")
PAGE = 5
BATCH = 10


def listen(client: Any) -> Wiretap:
    """Return the list of requests that the client, one of ``kinto_orm.kinto_http``, sends from now on."""
    wire = Wiretap(client.session.client._connection.transport)
    client.session.client._connection.transport = wire
    return wire


def scripted(*responses: Response, **options: Any) -> Client:
    """Return a client of ours whose server gives just these answers."""
    client = Client(server_url="http://localhost:8888/v1", auth=AUTH, bucket="b", collection="c", **options)
    client.session.client._connection.transport = Script(list(responses))
    return client
