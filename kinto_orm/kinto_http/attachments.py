"""The verbs of attachments."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinto_orm.errors import InvalidTypeError, ProtocolError
from kinto_orm.kinto_http import objects
from kinto_orm.kinto_http.endpoints import path_of
from kinto_orm.kinto_http.session import described
from kinto_orm.kinto_http.utils import json_dumps
from kinto_orm.kinto_http.verbs import Data, Document, Face, Grants, Id, verb
from kinto_orm.protocol.attachments import Upload, attachment_of, name_of, upload_request
from kinto_orm.protocol.messages import Content, Request
from kinto_orm.protocol.writes import Flow
from kinto_orm.transport.files import HostOptions, download, holds, read_content


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
        """Attaches the file to the record, which is made if missing; what the server then says of the file.

        ``filepath`` may also be the content or an open file; then ``filename`` says what it is called.
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
        """Removes the file from the record, and from the server."""
        return objects.post(Request("DELETE", self._attachment(id, bucket, collection)))

    def _attachment(self, id: Id, bucket: Id | None, collection: Id | None) -> str:
        return path_of(
            "attachment",
            {
                "id": id,
                "bucket": self.bucket_name if bucket is None else bucket,
                "collection": self.collection_name if collection is None else collection,
            },
        )


class Download:
    """One download: of which file, and where to."""

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

    def located(self, session: Any) -> Flow[str]:
        """Where the file is: the server says on which host."""
        info = yield from described(session)
        try:
            base_url = info["capabilities"]["attachments"]["base_url"]
        except KeyError as error:
            raise ProtocolError("This server has no attachments: its plugin kinto-attachment is not there.") from error
        return self.attachment.url(base_url)

    def fetch(self, url: str, session: Any, *, save_metadata: bool, overwrite: bool) -> str:
        """The path, where the file now is; it is not asked for where it is there already."""
        wanted, path = self.attachment, Path(self.path)
        if overwrite or not holds(path, wanted.size, wanted.hash):
            timeout = getattr(session, "timeout", None) or None
            options = HostOptions(timeout=timeout, retries=getattr(session, "nb_retry", 0))
            download(url, path, size=wanted.size, sha256=wanted.hash, options=options)
        if save_metadata:
            with open(f"{self.path}.meta.json", "w", encoding="utf-8") as file:
                json.dump(self.record, file)
        return self.path
