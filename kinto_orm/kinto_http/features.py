"""The verbs beside those of objects: server information, permissions, history, changesets, reviews, attachments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

from kinto_orm.errors import InvalidTypeError, ProtocolError
from kinto_orm.kinto_http import objects
from kinto_orm.kinto_http.session import describe_server
from kinto_orm.kinto_http.utils import json_dumps
from kinto_orm.kinto_http.verbs import Data, Document, Face, Grants, Id, Timestamp, fill_from_original, verb
from kinto_orm.protocol.attachments import Upload, attachment_of, name_of, upload_request
from kinto_orm.protocol.entries import PERMISSIONS_ORDER
from kinto_orm.protocol.messages import Content, Download, DownloadOptions, Request
from kinto_orm.protocol.paths import EntriesPath, Kind
from kinto_orm.protocol.reviews import ReviewStep
from kinto_orm.protocol.writes import Flow, call_blocking
from kinto_orm.repository.disk import read_content
from kinto_orm.transport.files import download
from kinto_orm.transport.options import WireOptions


class ReviewOptions(TypedDict, total=False):
    """The options of a step of a review, which are those of ``patch_collection``."""

    data: Data
    original: Data
    permissions: Grants
    safe: bool
    if_match: Timestamp | None


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
        return objects.return_value(self._endpoint(name, bucket, collection, group=group, id=id))

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
        self, message: str, id: Id | None = None, bucket: Id | None = None, **options: Unpack[ReviewOptions]
    ) -> Flow[Document]:
        """Ask for a review of the collection's changes."""
        return self._review(ReviewStep.REQUEST.data(message), id, bucket, **options)

    @verb
    def decline_changes(
        self, message: str, id: Id | None = None, bucket: Id | None = None, **options: Unpack[ReviewOptions]
    ) -> Flow[Document]:
        """Send the collection's changes back to their editor."""
        return self._review(ReviewStep.DECLINE.data(message), id, bucket, **options)

    @verb
    def approve_changes(
        self, id: Id | None = None, bucket: Id | None = None, **options: Unpack[ReviewOptions]
    ) -> Flow[Document]:
        """Approve the collection's changes, which publishes them."""
        return self._review(ReviewStep.APPROVE.data(), id, bucket, **options)

    @verb
    def rollback_changes(
        self, message: str, id: Id | None = None, bucket: Id | None = None, **options: Unpack[ReviewOptions]
    ) -> Flow[Document]:
        """Drop the collection's changes: the collection becomes what was last published."""
        return self._review(ReviewStep.ROLLBACK.data(message), id, bucket, **options)

    def _review(
        self,
        step: Document,
        id: Id | None,
        bucket: Id | None,
        *,
        data: Data = None,
        original: Data = None,
        permissions: Grants = None,
        safe: bool = True,
        if_match: Timestamp | None = None,
    ) -> Flow[Document]:
        wanted = {**(data or {}), **step}
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
        path = self._endpoint("attachment", bucket, collection, id=id)
        return objects.post(upload_request(path, upload, data=as_json[0], permissions=as_json[1]))

    @verb
    def remove_attachment(self, id: Id, bucket: Id | None = None, collection: Id | None = None) -> Flow[Any]:
        """Remove the file from the record and from the server."""
        return objects.post(Request("DELETE", self._endpoint("attachment", bucket, collection, id=id)))

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
        found = attachment_of(record)
        if found is None:
            raise ValueError("Specified record has no attachment")
        path = found.safe_filename if filepath is None else os.fspath(filepath)
        if filepath is not None and os.path.isdir(path):
            path = os.path.join(path, found.safe_filename)
        info = yield from describe_server(self.session)
        try:
            url = found.url(info["capabilities"]["attachments"]["base_url"])
        except KeyError as error:
            raise ProtocolError("This server has no attachments: its plugin kinto-attachment is missing.") from error
        chosen = DownloadOptions(overwrite=True, keeps_same=not overwrite)
        wanted = Download(url, path, found.size, found.hash, chosen)
        yield from call_blocking(url, partial(download, wanted, _wire_options(self.session)))
        if save_metadata:
            metadata = Path(f"{path}.meta.json")
            yield from call_blocking(str(metadata), partial(metadata.write_text, json.dumps(record), "utf-8"))
        return path


HOUR = 3600
"""Seconds for one download: the reference client has no deadline."""


def _wire_options(session: Any) -> WireOptions:
    return WireOptions(
        getattr(session, "server_url", ""),
        timeout=getattr(session, "timeout", None) or None,
        retry=getattr(session, "nb_retry", 0),
        deadline=HOUR,
    )
