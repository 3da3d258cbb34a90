"""What the tests here know of their server, which has small pages and takes small batches."""

from __future__ import annotations

from typing import Any

from wiretap import Wiretap

AUTH = ("alexis", "p4ssw0rd")
PAGE = 5
BATCH = 10


def listen(client: Any) -> Wiretap:
    """What the client, one of ``kinto_orm.kinto_http``, sends from now on."""
    wire = Wiretap(client.session.client._connection.transport)
    client.session.client._connection.transport = wire
    return wire
