"""How many requests a sync sends, beside the ones that public programs send with kinto-http."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from kinto_orm import Bucket, Client, Collection
from kinto_orm.server import EmbeddedServer, listening

pytest.importorskip("kinto_http.client", reason="kinto-http is not installed: pip install kinto-http")
import kinto_http
from kinto_http.utils import collection_diff

ME = ("me", "secret")
ROWS = [{"id": f"r{number:03}", "n": number} for number in range(200)]
PAGES = ["GET"] * 5


@pytest.fixture
def url() -> Iterator[str]:
    """A server with the rows in two collections, which it shows on five pages."""
    with EmbeddedServer.memory(paginate_by=40) as server, listening(server) as url:
        with Client(url, auth=ME) as client:
            bucket = Bucket(id="b", client=client).save()
            for id in ("theirs", "ours"):
                Collection(bucket=bucket, id=id).save().records.bulk_create(ROWS)
        yield url


def sync_with_kinto_http(url: str, rows: list[dict[str, Any]]) -> list[str]:
    """Read all, compare and write the difference, as public programs do it; return the methods of the requests."""
    client = kinto_http.Client(server_url=url, auth=ME, bucket="b", collection="theirs")
    sent: list[str] = []
    client.session._session.hooks["response"].append(lambda answer, **_: sent.append(answer.request.method))
    missing, changed, others = collection_diff(rows, client.get_records(pages=inf))
    assert (missing, others) == ([], [])
    if changed:
        with client.batch() as batch:
            for old, row in changed:
                batch.update_record(data=row, if_match=old["last_modified"])
    return sent


def sync_with_ours(url: str, rows: list[dict[str, Any]]) -> list[str]:
    """Sync, and return the methods of the requests."""
    sent: list[str] = []
    with Client(url, auth=ME, on_response=lambda event: sent.append(event.method)) as client:
        client.bucket("b").collection("ours").records.sync(rows)
    return sent


@pytest.mark.parametrize(
    ("changed", "writes"),
    # With the first write comes the question how many of them a batch may hold.
    [(0, []), (2, ["GET", "POST"]), (100, ["GET", *["POST"] * 4])],
    ids=["equal", "1 % changed", "half changed"],
)
def test_a_sync_sends_no_more_requests_than_kinto_http(url: str, changed: int, writes: list[str]) -> None:
    rows = [{**row, "n": -1} for row in ROWS[:changed]] + ROWS[changed:]

    ours, theirs = sync_with_ours(url, rows), sync_with_kinto_http(url, rows)

    assert ours == [*PAGES, *writes]
    assert len(ours) <= len(theirs) == len(PAGES) + len(writes)
    with Client(url, auth=ME) as client:
        for id in ("ours", "theirs"):
            assert client.bucket("b").collection(id).records.filter(n=-1).count() == changed
