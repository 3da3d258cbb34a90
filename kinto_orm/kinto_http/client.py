"""The clients: all verbs, and the parts that they share."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, Self

from kinto_orm.kinto_http import objects
from kinto_orm.kinto_http.batch import Batch, BatchSession
from kinto_orm.kinto_http.constants import DO_NOT_OVERWRITE
from kinto_orm.kinto_http.endpoints import Endpoints
from kinto_orm.kinto_http.exceptions import BucketNotFound, CollectionNotFound, KintoException
from kinto_orm.kinto_http.features import Attachments, Features
from kinto_orm.kinto_http.kinds import Buckets, Collections, Groups, Records
from kinto_orm.kinto_http.patch_type import BasicPatch, PatchType
from kinto_orm.kinto_http.session import Session, change_session, create_session, describe_server
from kinto_orm.kinto_http.utils import urljoin
from kinto_orm.kinto_http.verbs import Awaiting, Blocking, Document, Id, Timestamp, arun, run, verb
from kinto_orm.protocol.json_values import copy_json, etag, parse_timestamp
from kinto_orm.protocol.messages import Request
from kinto_orm.protocol.paging import encode_query
from kinto_orm.protocol.paths import Kind
from kinto_orm.protocol.responses import read_document
from kinto_orm.protocol.writes import Flow
from kinto_orm.query.execution import Page

__all__ = [
    "DO_NOT_OVERWRITE",
    "AsyncClient",
    "BasicPatch",
    "BatchSession",
    "BucketNotFound",
    "Client",
    "CollectionNotFound",
    "Endpoints",
    "KintoException",
    "PatchType",
    "Session",
    "create_session",
]

_SESSION_OPTIONS = ("server_url", "auth", "retry", "retry_after", "timeout", "headers", "dry_mode")


class _Clients(Buckets, Groups, Collections, Records, Features, Attachments):
    """The parts that both clients share."""

    def __init__(
        self,
        *,
        server_url: str | None = None,
        session: Any = None,
        auth: Any = None,
        bucket: Id | None = "default",
        collection: Id | None = None,
        retry: int = 0,
        retry_after: float | None = None,
        timeout: Any = None,
        ignore_batch_4xx: bool = False,
        headers: Mapping[str, str] | None = None,
        dry_mode: bool = False,
    ) -> None:
        self.session = create_session(
            server_url,
            auth,
            session,
            retry=retry,
            retry_after=retry_after,
            timeout=timeout,
            headers=headers,
            dry_mode=dry_mode,
        )
        self.endpoints = Endpoints()
        self.bucket_name = bucket
        self.collection_name = collection
        self.results: Any = None
        self._ignore_batch_4xx = ignore_batch_4xx
        self.read_timestamps = {}

    def clone(self, **changes: Any) -> Self:
        """Return a client with these options changed and all others kept; it shares the connections where it can."""
        kept: dict[str, Any] = {
            "bucket": self.bucket_name,
            "collection": self.collection_name,
            "ignore_batch_4xx": self._ignore_batch_4xx,
            "session": self.session,
        }
        own = {name: value for name, value in changes.items() if name not in _SESSION_OPTIONS}
        options = {name: value for name, value in changes.items() if name in _SESSION_OPTIONS}
        clone = type(self)(**{**kept, **own})
        if options:
            clone.session = change_session(clone.session, options)
        clone.results = self.results
        if "server_url" not in options:
            clone.read_timestamps = self.read_timestamps
        return clone

    def batch(self, **changes: Any) -> Batch[Self]:
        """Return a block whose writes wait and are sent together at its end; ``changes`` are as for :meth:`clone`."""
        if isinstance(self.session, BatchSession):
            raise KintoException("This client is in a batch already: write to it, or to another client.")
        client = self.clone(**changes)
        session = BatchSession(client, None, ignore_4xx_errors=client._ignore_batch_4xx)
        client.session, client.results = session, session.results
        return Batch(client, session)

    @verb
    def server_info(self, *, refresh: bool = False) -> Flow[Document]:
        """Return the server's description. The server is asked once, for all clones, unless ``refresh``."""
        return copy_json((yield from describe_server(self.session, refresh=refresh)))

    @verb
    def get_changeset(
        self, /, bucket: Id | None = None, collection: Id | None = None, bust_cache: bool = False, **params: Any
    ) -> Flow[Document]:
        """Return the changes of the collection: ``{"metadata", "timestamp", "changes"}``, as the server sends it.

        ``bust_cache`` goes past the caches on the way.
        """
        expected = random.randint(999_999_000_000, 999_999_999_999) if bust_cache else 0
        query = encode_query([(name, _text(name, value)) for name, value in {"_expected": expected, **params}.items()])
        request = Request("GET", self._endpoint("changeset", bucket, collection), query)
        return read_document((yield request), request)

    @verb
    def get_paginated_records(
        self,
        /,
        *,
        collection: Id | None = None,
        bucket: Id | None = None,
        if_none_match: Timestamp | None = None,
        pages: float | None = None,
        **params: Any,
    ) -> Flow[Pages]:
        """Return an iterator over the pages of the records, each ``{"data": [...]}``; ``_limit`` is the size of a page.

        On ``AsyncClient`` write ``async for page in await client.get_paginated_records()``.
        """
        flows = objects.read_pages(self._list(Kind.RECORD, bucket, collection), params, pages)
        return objects.return_value(Pages(self.session, flows, if_none_match))

    def close(self) -> None:
        """Close the connections, also those of the clones that share them."""
        self.session.close()

    def __repr__(self) -> str:
        path = "/"
        if self.bucket_name is not None:
            path = f"/buckets/{self.bucket_name}"
            path += f"/collections/{self.collection_name}" if self.collection_name is not None else ""
        return f"<Kinto{type(self).__name__} {urljoin(self.session.server_url or '', path)}>"


def _text(name: str, value: Any) -> str:
    return etag(parse_timestamp(value, name)) if name == "_since" else str(value)


class Pages:
    """Pages of records, read one by one: by ``async for``, or by a plain ``for``, which blocks an event loop."""

    def __init__(self, session: Any, flows: Iterator[Flow[Page[Document]]], if_none_match: Timestamp | None) -> None:
        self._session = session
        self._flows = (objects.read_changed(flow, if_none_match) for flow in flows)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Document:
        for flow in self._flows:
            if (page := run(self._session, flow)) is not None:
                return {"data": list(page.objects)}
            self.close()
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Document:
        for flow in self._flows:
            if (page := await arun(self._session, flow)) is not None:
                return {"data": list(page.objects)}
            self.close()
        raise StopAsyncIteration

    def close(self) -> None:
        """Read no more pages."""
        self._flows.close()


class Client(_Clients, Blocking):
    """The client of ``kinto-http``, on top of ``kinto_orm``: the same names, arguments, results and exceptions.

    ``session`` is a :class:`Session`, or a ``kinto_orm.Client`` whose connections are shared.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncClient(_Clients, Awaiting):
    """The same client with awaited verbs; :meth:`clone` and :meth:`batch` are not awaited."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
