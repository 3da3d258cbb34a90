"""The verbs beside those of objects: server information, permissions, history, changesets, reviews, attachments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from kinto_orm.errors import InvalidTypeError, ProtocolError
from kinto_orm.kinto_http import objects
from kinto_orm.kinto_http.endpoints import path_of
from kinto_orm.kinto_http.session import describe_server
from kinto_orm.kinto_http.utils import json_dumps
from kinto_orm.kinto_http.verbs import Data, Document, Face, Grants, Id, Timestamp, fill_from_original, verb
from kinto_orm.protocol.attachments import Upload, attachment_of, name_of, upload_request
from kinto_orm.protocol.entries import PERMISSIONS_ORDER
from kinto_orm.protocol.messages import Content, DownloadOptions, Request
from kinto_orm.protocol.paths import EntriesPath, Kind
from kinto_orm.protocol.reviews import ReviewStep
from kinto_orm.protocol.writes import Flow, call_blocking
from kinto_orm.transport.files import download, read_content
from kinto_orm.transport.options import WireOptions


class Features(Face):
    """The verbs of server information, permissions, history, changesets and reviews."""

    @verb
    def get_endpoint(
        self,
        name: str,
        *,
        bucket: Id | None = None,
        group: Id | None = None,
        collection: Id | None = None,
        id: Id | None = None,
    ) -> Flow[str]:
        """Return the path of a named endpoint; bucket and collection default to the client's."""
        bucket = self.bucket_name if bucket is None else bucket
        collection = self.collection_name if collection is None else collection
        return objects.return_value(self.endpoints.get(name, bucket=bucket, group=group, collection=collection, id=id))

    @verb
    def get_permissions(
        self,
        /,
        exclude_resource_names: Iterable[str] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        **filters: Any,
    ) -> Flow[list[Document]]:
        """Return the user's permissions, object by object, from every page; filters are keywords or ``params``."""
        wanted = {**(params or {}), **filters}
        if exclude_resource_names:
            wanted["exclude_resource_name"] = list(exclude_resource_names)
        order = {"_sort": ",".join(PERMISSIONS_ORDER)}
        entries = yield from objects.read_list(EntriesPath("permissions"), {**order, **wanted})
        if "_sort" not in wanted:
            entries.sort(key=lambda entry: ("id" not in entry, entry.get("id", "")))
        return entries

    @verb
    def get_history(
        self,
        /,
        *,
        bucket: Id | None = None,
        if_none_match: Timestamp | None = None,
        pages: float | None = None,
        **params: Any,
    ) -> Flow[list[Document]]:
        """Return the entries of the bucket's history, selected by Kinto's keywords; the newest first."""
        return objects.read_list(self._history(bucket), params, pages=pages, if_none_match=if_none_match)

    @verb
    def purge_history(
        self, /, *, bucket: Id | None = None, safe: bool = True, if_match: Timestamp | None = None, **params: Any
    ) -> Flow[list[Document]]:
        """Delete the entries of the bucket's history, or those that match, and return their tombstones."""
        return objects.delete_list(self._history(bucket), params, safe=safe, if_match=if_match)

    @verb
    def request_review(
        self,
        message: str,
        id: Id | None = None,
        bucket: Id | None = None,
        *,
        data: Data = None,
        original: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Ask for a review of the collection's changes."""
        wanted = {**(data or {}), **ReviewStep.REQUEST.data(message)}
        return self._review(wanted, id, bucket, original, permissions, safe=safe, if_match=if_match)

    @verb
    def decline_changes(
        self,
        message: str,
        id: Id | None = None,
        bucket: Id | None = None,
        *,
        data: Data = None,
        original: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Send the collection's changes back to their editor."""
        wanted = {**(data or {}), **ReviewStep.DECLINE.data(message)}
        return self._review(wanted, id, bucket, original, permissions, safe=safe, if_match=if_match)

    @verb
    def approve_changes(
        self,
        id: Id | None = None,
        bucket: Id | None = None,
        *,
        data: Data = None,
        original: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Approve the collection's changes, which publishes them."""
        wanted = {**(data or {}), **ReviewStep.APPROVE.data()}
        return self._review(wanted, id, bucket, original, permissions, safe=safe, if_match=if_match)

    @verb
    def rollback_changes(
        self,
        message: str,
        id: Id | None = None,
        bucket: Id | None = None,
        *,
        data: Data = None,
        original: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        """Drop the collection's changes: the collection becomes what was last published."""
        wanted = {**(data or {}), **ReviewStep.ROLLBACK.data(message)}
        return self._review(wanted, id, bucket, original, permissions, safe=safe, if_match=if_match)

    def _review(
        self,
        wanted: Document,
        id: Id | None,
        bucket: Id | None,
        original: Data,
        permissions: Grants,
        *,
        safe: bool,
        if_match: Timestamp | None,
    ) -> Flow[Document]:
        id, if_match = fill_from_original(original or wanted, id, if_match)
        path = self._ids(Kind.COLLECTION, id, bucket)
        return objects.patch(path, None, wanted, permissions, safe=safe, if_match=if_match)


class Attachments(Face):
    """The verbs of attachments."""

    @verb
    def add_attachment(
        self,
        id: Id,
        filepath: Content,
        filename: str | None = None,
        bucket: Id | None = None,
        collection: Id | None = None,
        data: Data = None,
        permissions: Grants = None,
        mimetype: str | None = None,
    ) -> Flow[Document]:
        """Attach the file to the record, which is created if missing, and return the server's description of the file.

        ``filepath`` may also be the content or an open file; then ``filename`` names it.
        """
        try:
            upload = Upload(read_content(filepath), filename or name_of(filepath, None), mimetype)
        except InvalidTypeError as error:
            raise TypeError(str(error)) from error
        as_json = [
            None if value is None else json_dumps(value).encode()
            for value in (data, objects.as_permissions(permissions))
        ]
        path = self._attachment(id, bucket, collection)
        return objects.post(upload_request(path, upload, data=as_json[0], permissions=as_json[1]))

    @verb
    def remove_attachment(self, id: Id, bucket: Id | None = None, collection: Id | None = None) -> Flow[Any]:
        """Remove the file from the record and from the server."""
        return objects.post(Request("DELETE", self._attachment(id, bucket, collection)))

    @verb
    def download_attachment(
        self,
        record: Mapping[str, Any],
        filepath: str | os.PathLike[str] | None = None,
        save_metadata: bool = False,
        overwrite: bool = False,
        chunk_size: int = 8 * 1024,
    ) -> Flow[str]:
        """Download the record's file into ``filepath``, or by its name into that folder, and return the path.

        The file is checked against the record, and takes its place only when it is complete. ``save_metadata`` stores
        the record beside it, as ``.meta.json``; ``chunk_size`` has no effect. Raises ``ValueError`` for a record
        without a file.
        """
        wanted = Download(record, filepath)
        url = yield from wanted.locate(self.session)
        fetch = partial(wanted.fetch, url, self.session, save_metadata=save_metadata, overwrite=overwrite)
        return (yield from call_blocking(url, fetch))

    def _attachment(self, id: Id, bucket: Id | None, collection: Id | None) -> str:
        return path_of(
            "attachment",
            {
                "id": id,
                "bucket": self.bucket_name if bucket is None else bucket,
                "collection": self.collection_name if collection is None else collection,
            },
        )


HOUR = 3600
"""Seconds for one download: the reference client has no deadline."""


class Download:
    """The download of one file to one path."""

    def __init__(self, record: Mapping[str, Any], filepath: str | os.PathLike[str] | None) -> None:
        found = attachment_of(record)
        if found is None:
            raise ValueError("Specified record has no attachment")
        self.record = record
        self.attachment = found
        if filepath is None:
            self.path = found.safe_filename
        elif os.path.isdir(filepath):
            self.path = os.path.join(filepath, found.safe_filename)
        else:
            self.path = os.fspath(filepath)

    def locate(self, session: Any) -> Flow[str]:
        """Return the URL of the file on the host that the server names."""
        info = yield from describe_server(session)
        try:
            base_url = info["capabilities"]["attachments"]["base_url"]
        except KeyError as error:
            raise ProtocolError("This server has no attachments: its plugin kinto-attachment is missing.") from error
        return self.attachment.url(base_url)

    def fetch(self, url: str, session: Any, *, save_metadata: bool, overwrite: bool) -> str:
        """Download the file unless it is there already, and return its path."""
        wanted = self.attachment
        options = WireOptions(
            getattr(session, "server_url", ""),
            timeout=getattr(session, "timeout", None) or None,
            retry=getattr(session, "nb_retry", 0),
            deadline=HOUR,
        )
        chosen = DownloadOptions(overwrite=True, keeps_same=not overwrite)
        download(url, self.path, size=wanted.size, sha256=wanted.hash, options=options, chosen=chosen)
        if save_metadata:
            with open(f"{self.path}.meta.json", "w", encoding="utf-8") as file:
                json.dump(self.record, file)
        return self.path
